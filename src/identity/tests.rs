//! Every rule on a chain by itself: what breaks it, the words of each refusal, whose certificate it names, and the second
//! and the byte at which each bound lies. `tests/broker/identity` asks the same rules by handshakes.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::certificate::{CertRules, Position, Refusal, claimed_trust_domain, describe, examine};
use super::revoked::{Revocation, Revoked, Target};
use super::{Identity, Role, spiffe};
use crate::limits::{LABEL_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};

const BEGINS: i64 = 1_000_000_000;
const ENDS: i64 = BEGINS + 3_600;

/// A good leaf but for what `change` does to it. Who has signed it nobody asks here.
fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let time = |unix_s| OffsetDateTime::from_unix_timestamp(unix_s).unwrap();
    let mut params = CertificateParams::default();
    params.not_before = time(BEGINS);
    params.not_after = time(ENDS);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.serial_number = Some(vec![0xc0, 0xff, 0xee].into());
    params.subject_alt_names = vec![SanType::URI("spiffe://shop.example/web".try_into().unwrap())];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

fn rules() -> CertRules {
    CertRules {
        trust_domain: "shop.example".into(),
        lifetime_max_days: 1,
    }
}

fn identify(leaf: &[u8], intermediates: &[&[u8]], now_unix_s: i64) -> Result<Identity, String> {
    Identity::from_chain(leaf, intermediates, now_unix_s, &rules()).map_err(|refusal| refusal.to_string())
}

#[test]
fn each_second_of_its_life_counts_and_no_other() {
    let leaf = certificate(|_| {});
    let issuer = certificate(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    for now in [BEGINS, BEGINS + 1, ENDS - 1, ENDS] {
        assert_eq!(identify(&leaf, &[&issuer], now).unwrap().expires_unix_s, ENDS);
    }
    assert!(
        identify(&leaf, &[], BEGINS - 1)
            .unwrap_err()
            .starts_with("the leaf is valid only from")
    );
    assert!(
        identify(&leaf, &[], ENDS + 1)
            .unwrap_err()
            .starts_with("the leaf expired at")
    );
    let at = |unix_s| OffsetDateTime::from_unix_timestamp(unix_s).unwrap();
    let moment = certificate(|params| params.not_after = at(BEGINS));
    assert_eq!(identify(&moment, &[], BEGINS).unwrap().expires_unix_s, BEGINS);
    for (ends, is_taken) in [
        (BEGINS + 86_400, true),
        (BEGINS + 86_401, false),
        (BEGINS - 1, false),
    ] {
        let leaf = certificate(|params| params.not_after = at(ends));
        let said = identify(&leaf, &[], BEGINS);
        assert_eq!(said.is_ok(), is_taken, "{said:?}");
        assert!(said.is_ok() || said.unwrap_err().starts_with("expected a life of at most 1 days"));
    }
}

#[test]
fn a_refusal_names_the_certificate_and_what_came() {
    let leaf = certificate(|_| {});
    let issuer = certificate(|params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let said = identify(&leaf, &[&issuer, &issuer, &leaf], BEGINS).unwrap_err();
    assert!(
        said.contains("the keyUsage of intermediate 3 to have keyCertSign"),
        "{said}"
    );
    let said = identify(&leaf, &[&issuer, b"x"], BEGINS).unwrap_err();
    assert!(said.contains("intermediate 2"), "{said}");
    let check = |change: &dyn Fn(&mut CertificateParams), words: &str| {
        let said = identify(&certificate(change), &[], BEGINS).unwrap_err();
        assert!(said.contains(words), "{words}: {said}");
    };
    check(
        &|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "came a CA certificate",
    );
    for (usage, words) in [
        (vec![], "came none"),
        (vec![ExtendedKeyUsagePurpose::Any], "came anyExtendedKeyUsage"),
        (vec![ExtendedKeyUsagePurpose::ServerAuth], "came serverAuth"),
        (vec![ExtendedKeyUsagePurpose::CodeSigning], "came other purposes"),
    ] {
        check(&move |params| params.extended_key_usages = usage.clone(), words);
    }
    // The root's trust domain, whatever else is well.
    let other = CertRules {
        trust_domain: "other.example".into(),
        ..rules()
    };
    let refused = Identity::from_chain(&leaf, &[], BEGINS, &other).unwrap_err();
    assert!(matches!(refused, Refusal::TrustDomain { .. }), "{refused}");
}

/// `change` breaks this rule, and no other.
fn refused(rule: &str, change: &dyn Fn(&mut CertificateParams)) {
    let leaf = certificate(change);
    let refusal = Identity::from_chain(&leaf, &[], BEGINS, &rules()).unwrap_err();
    assert_eq!(refusal.rule(), rule, "{refusal}");
}

#[test]
fn each_rule_refuses_what_breaks_it() {
    let uris = |ids: &'static [&'static str]| {
        move |params: &mut CertificateParams| {
            params.subject_alt_names = ids
                .iter()
                .map(|id| SanType::URI((*id).try_into().unwrap()))
                .collect();
        }
    };
    refused("uri-san-count", &uris(&[]));
    refused(
        "uri-san-count",
        &uris(&["spiffe://shop.example/web", "spiffe://shop.example/web"]),
    );
    refused("spiffe-scheme", &uris(&["https://shop.example/web"]));
    refused("spiffe-role", &uris(&["spiffe://shop.example"]));
    refused("trust-domain", &uris(&["spiffe://other.example/web"]));
    refused("ca-certificate", &|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
    });
    refused("eku-client-auth", &|params| params.extended_key_usages.clear());
    for usages in [
        vec![],
        vec![KeyUsagePurpose::KeyEncipherment],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign],
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign],
    ] {
        refused("key-usage", &move |params| params.key_usages = usages.clone());
    }
    refused("lifetime", &|params| {
        params.not_after = OffsetDateTime::from_unix_timestamp(BEGINS + 86_401).unwrap();
    });
    refused("not-yet-valid", &|params| {
        params.not_before += time::Duration::seconds(1)
    });
    refused("expired", &|params| {
        params.not_before = OffsetDateTime::from_unix_timestamp(BEGINS - 2).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(BEGINS - 1).unwrap();
    });
    refused("serial", &|params| {
        params.serial_number = Some(vec![1; 21].into())
    });
    // basicConstraints say that it is no CA, or need not be there.
    let plain = certificate(|params| params.is_ca = IsCa::NoCa);
    assert!(identify(&plain, &[], BEGINS).is_ok());
}

#[test]
fn what_cannot_be_read_is_refused_and_not_passed_over() {
    let subject_alt_name: &[u64] = &[2, 5, 29, 17];
    let key_usage: &[u64] = &[2, 5, 29, 15];
    // A NULL, which none of these extensions is.
    let extension = |oid: &[u64]| CustomExtension::from_oid_content(oid, b"\x05\x00".to_vec());
    let fault = |change: &dyn Fn(&mut CertificateParams)| {
        let refusal = Identity::from_chain(&certificate(change), &[], BEGINS, &rules()).unwrap_err();
        assert_eq!(refusal.rule(), "certificate-encoding");
        refusal.to_string()
    };
    let said = fault(&|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![extension(subject_alt_name)];
    });
    assert!(
        said.ends_with("the leaf to be a DER certificate; its subjectAltName is malformed"),
        "{said}"
    );
    let said = fault(&|params| {
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![extension(&[2, 5, 29, 19])];
    });
    assert!(said.ends_with("its basicConstraints are malformed"), "{said}");
    let said = fault(&|params| {
        params.extended_key_usages.clear();
        params.custom_extensions = vec![extension(&[2, 5, 29, 37])];
    });
    assert!(said.ends_with("its extendedKeyUsage is malformed"), "{said}");
    let said = fault(&|params| {
        params.key_usages.clear();
        params.custom_extensions = vec![extension(key_usage)];
    });
    assert!(said.ends_with("its keyUsage is malformed"), "{said}");
    let said = fault(&|params| params.custom_extensions = vec![extension(subject_alt_name)]);
    assert!(said.ends_with("an extension is there twice"), "{said}");
    let leaf = certificate(|_| {});
    let issuer = certificate(|params| {
        params.key_usages.clear();
        params.custom_extensions = vec![extension(key_usage)];
    });
    let said = identify(&leaf, &[&issuer], BEGINS).unwrap_err();
    assert_eq!(
        said,
        "expected intermediate 1 to be a DER certificate; its keyUsage is malformed"
    );
    let longer = [leaf.as_slice(), b"\0"].concat();
    let said = identify(&longer, &[], BEGINS).unwrap_err();
    assert!(said.ends_with("more bytes follow it"), "{said}");
    assert!(
        identify(b"x", &[], BEGINS)
            .unwrap_err()
            .ends_with("it could not be parsed")
    );
}

#[test]
fn an_identity_expires_with_the_first_certificate_of_its_chain() {
    let leaf = certificate(|_| {});
    let issuer = |ends_unix_s: i64| {
        certificate(move |params| {
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params.not_after = OffsetDateTime::from_unix_timestamp(ends_unix_s).unwrap();
        })
    };
    let (longer, shorter) = (issuer(ENDS + 5), issuer(ENDS - 5));
    let expires = |issuers: &[&[u8]]| identify(&leaf, issuers, BEGINS).unwrap().expires_unix_s;
    assert_eq!(expires(&[&longer]), ENDS);
    assert_eq!(expires(&[&longer, &shorter, &longer]), ENDS - 5);
    // An issuer without a keyUsage may issue; one that has expired vouches for nobody.
    let plain = certificate(|params| params.key_usages.clear());
    assert_eq!(expires(&[&plain]), ENDS);
    let said = identify(&leaf, &[&shorter], ENDS - 4).unwrap_err();
    assert!(said.starts_with("intermediate 1 expired at"), "{said}");
}

#[test]
fn serial_numbers_are_written_without_leading_zeros() {
    let check = |bytes: &[u8], expected: &str| {
        let leaf = certificate(|params| params.serial_number = Some(bytes.to_vec().into()));
        let identity = identify(&leaf, &[], BEGINS).unwrap();
        assert_eq!(&*identity.serial, expected, "{bytes:?}");
    };
    check(&[0], "00");
    check(&[7], "07");
    // DER puts a zero before a high bit.
    check(&[0xff, 0], "ff00");
    check(&[0xff; 20], &"ff".repeat(20));
}

#[test]
fn the_trust_domain_is_told_before_anything_is_proven() {
    let foreign = certificate(|params| {
        params.subject_alt_names = vec![SanType::URI("spiffe://other.example/x/y".try_into().unwrap())];
    });
    assert_eq!(claimed_trust_domain(&foreign), Ok("other.example".to_owned()));
    let nameless = certificate(|params| params.subject_alt_names.clear());
    assert_eq!(claimed_trust_domain(&nameless), Err(Refusal::UriSanCount(0)));
    let refusal = Refusal::unbound_trust_domain("a\nb", ["shop.example", "other.example"]);
    assert_eq!(
        refusal.to_string(),
        r#"expected the trust domain "shop.example" or "other.example", came "a\nb""#
    );
}

/// A leaf with these general names, in DER, as its subjectAltName.
fn named(names: &[&[u8]]) -> Vec<u8> {
    let names = names.concat();
    let san = [b"\x30".as_slice(), &[u8::try_from(names.len()).unwrap()], &names].concat();
    certificate(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], san)];
    })
}

const URI_OF_WEB: &[u8] = b"\x86\x19spiffe://shop.example/web";

#[test]
fn only_uris_are_names() {
    // A DNS name that is no ASCII, which a parser may give as it came.
    let leaf = named(&[b"\x82\x01\xff", URI_OF_WEB]);
    assert_eq!(
        identify(&leaf, &[], BEGINS).unwrap().role,
        Role::Service("web".into())
    );
}

#[test]
fn a_uri_that_is_no_text_is_a_name_too() {
    let rule = |leaf: &[u8]| {
        let refusal = Identity::from_chain(leaf, &[], BEGINS, &rules()).unwrap_err();
        refusal.rule()
    };
    assert_eq!(rule(&named(&[URI_OF_WEB, b"\x86\x01\xff"])), "uri-san-count");
    assert_eq!(rule(&named(&[b"\x86\x01\xff"])), "spiffe-scheme");
}

#[test]
fn a_certificate_is_described_and_examined() {
    let leaf = certificate(|_| {});
    assert_eq!(describe(&leaf), "\"spiffe://shop.example/web\", serial c0ffee");
    assert_eq!(describe(b"x"), "not a certificate (1 bytes)");
    let named = |names: &[&str]| {
        let leaf = certificate(|params| {
            params.subject_alt_names = names
                .iter()
                .map(|id| SanType::URI((*id).try_into().unwrap()))
                .collect();
        });
        describe(&leaf)
    };
    assert_eq!(named(&[]), "no URI SAN, serial c0ffee");
    assert_eq!(named(&["a", "b"]), r#""a" and "b", serial c0ffee"#);
    assert_eq!(
        named(&["a", "b", "c", "d"]),
        r#""a", "b" and 2 more, serial c0ffee"#
    );
    let long = certificate(|params| params.serial_number = Some(vec![1; 21].into()));
    assert_eq!(
        describe(&long),
        r#""spiffe://shop.example/web", expected a serial number of at most 20 bytes, came 21"#
    );
    let positions = [Position::Leaf, Position::Intermediate(2), Position::Root].map(|at| at.to_string());
    assert_eq!(positions, ["the leaf", "intermediate 2", "the root"]);
    let found = examine(&leaf, &[&leaf, b"x"], BEGINS, &rules());
    let broken: Vec<_> = found
        .iter()
        .filter_map(|finding| Some((finding.asked, finding.found.as_ref().err()?.to_string())))
        .collect();
    let asked: Vec<_> = broken.iter().map(|(asked, _)| *asked).collect();
    assert_eq!(
        asked,
        ["an intermediate that may issue", "an intermediate in DER"]
    );
    assert!(broken[0].1.contains("intermediate 1"), "{broken:?}");
    assert!(broken[1].1.contains("intermediate 2"), "{broken:?}");
    assert_eq!(found.len(), 12, "{found:#?}");
    let told = |leaf: &[u8]| -> Vec<_> {
        let found = examine(leaf, &[], BEGINS, &rules());
        found
            .into_iter()
            .map(|finding| finding.found.unwrap_or_else(|refusal| refusal.rule().to_owned()))
            .collect()
    };
    assert_eq!(
        told(&leaf),
        [
            r#""spiffe://shop.example/web""#,
            "shop.example",
            "service web",
            "CA:FALSE",
            "clientAuth",
            "digitalSignature",
            "at most 1 days",
            &format!("until {ENDS} (seconds since 1970)"),
            "c0ffee",
        ]
    );
    let foreign = certificate(|params| {
        params.subject_alt_names = vec![SanType::URI(
            "spiffe://other.example/operator/bob".try_into().unwrap(),
        )];
        params.key_usages.clear();
        params.extended_key_usages.clear();
    });
    let found = told(&foreign);
    assert_eq!(found[1..3], ["trust-domain", "operator bob"]);
    assert_eq!(found[4..6], ["eku-client-auth", "key-usage"]);
    assert_eq!(told(b"x"), ["certificate-encoding"]);
}

#[test]
fn names_are_as_long_as_they_may_be_and_no_longer() {
    let check = |bytes: usize, bytes_max: usize, is_taken: bool| assert_eq!(is_taken, bytes <= bytes_max);
    for bytes in [LABEL_BYTES_MAX, LABEL_BYTES_MAX + 1] {
        check(bytes, LABEL_BYTES_MAX, Role::service(&"a".repeat(bytes)).is_ok());
    }
    for bytes in [TRUST_DOMAIN_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX + 1] {
        let domain = "a".repeat(bytes);
        check(
            bytes,
            TRUST_DOMAIN_BYTES_MAX,
            spiffe::trust_domain(domain.as_bytes()).is_ok(),
        );
    }
    // In hexadecimal a fingerprint has at most 32 pairs and 31 colons; what is longer than 96 digits is nothing.
    for digits in [96, 97, 98] {
        let serial = format!("serial:{}1", "0".repeat(digits - 1));
        check(digits, 96, serial.parse::<Target>().is_ok());
    }
}

#[test]
fn the_list_of_what_is_revoked_has_what_was_put_in() {
    let entry = |what: &str| Revocation {
        what: what.parse().unwrap(),
        reason: "a test".to_owned(),
        who: "alice".to_owned(),
        at_unix_s: 7,
    };
    let (web, orders) = (entry("service:web"), entry("service:orders"));
    let none = Revoked::default();
    assert_eq!((none.len(), none.is_empty()), (0, true));
    let both = none.with(web.clone()).with(orders.clone());
    assert_eq!((both.len(), both.is_empty()), (2, false));
    assert_eq!(both.entries().collect::<Vec<_>>(), [&orders, &web]);
    assert_eq!(both.without(&web.what), Revoked::new([orders]));
    assert_eq!(String::from(web.what), "service:web");
}
