//! What the handshakes of `tests/broker/identity` cannot see: the words of each refusal, whose certificate it names, and
//! the second and the byte at which each bound lies.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::certificate::{CertRules, Refusal, describe, examine};
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

#[test]
fn only_uris_are_names() {
    // A DNS name that is no ASCII, which a parser may give as it came.
    let names = [b"\x82\x01\xff".as_slice(), b"\x86\x19spiffe://shop.example/web"].concat();
    let san = [b"\x30".as_slice(), &[u8::try_from(names.len()).unwrap()], &names].concat();
    let leaf = certificate(|params| {
        params.subject_alt_names.clear();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], san)];
    });
    assert_eq!(
        identify(&leaf, &[], BEGINS).unwrap().role,
        Role::Service("web".into())
    );
}

#[test]
fn a_certificate_is_described_and_examined() {
    let leaf = certificate(|_| {});
    assert_eq!(describe(&leaf), "\"spiffe://shop.example/web\", serial c0ffee");
    assert_eq!(describe(b"x"), "not a certificate (1 bytes)");
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
