//! A chain of certificates to an identity. One that is taken holds, as another reader of certificates sees it, to
//! every rule of a client's certificate. What is refused is told in a text that may go into a log.
//!
//! Signatures are not looked at here, as they are not by the code under test: so a chain can be changed and still
//! be taken.

use std::time::{Duration, UNIX_EPOCH};

use exocom::identity::{CertRules, Identity, claimed_trust_domain, describe};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use x509_cert::Certificate;
use x509_cert::der::{Decode, asn1::ObjectIdentifier};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints as Constraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::spiffe::is_plain;

const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// 2026-07-01, within the life of the seeds.
const NOW_UNIX_S: i64 = 1_782_864_000;

const LIFE_DAYS_MAX: u32 = 398;

pub const WORDS: &[&[u8]] = &[
    b"spiffe://todo.example/web",
    b"\x06\x03\x55\x1d\x11",
    b"\x06\x03\x55\x1d\x0f",
    b"\x06\x03\x55\x1d\x13",
    b"\x06\x03\x55\x1d\x25",
    b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02",
    b"\x86\x19",
    b"\x01\x01\xff",
    b"\x30\x00",
    b"\x30\x80",
    b"\x82\x01",
    b"\x05\x00",
];

pub fn check(chain: &[u8]) {
    let certificates = split(chain);
    let (leaf, intermediates) = match certificates.split_first() {
        Some((leaf, intermediates)) => (*leaf, intermediates),
        None => (chain, [].as_slice()),
    };
    is_plain(&describe(leaf));
    let claimed = claimed_trust_domain(leaf);
    let rules = CertRules {
        trust_domain: "todo.example".into(),
        lifetime_max_days: LIFE_DAYS_MAX,
    };
    let identity = match Identity::from_chain(leaf, intermediates, NOW_UNIX_S, &rules) {
        Ok(identity) => identity,
        Err(refusal) => {
            assert!(!refusal.rule().is_empty());
            return is_plain(&refusal.to_string());
        }
    };
    assert_eq!(claimed.as_deref(), Ok("todo.example"));
    assert!(identity.expires_unix_s >= NOW_UNIX_S);
    assert!(!identity.serial.is_empty() && identity.serial.len() <= 40);
    // What this reader cannot read, webpki, which reads it too, will judge.
    let Ok(read) = Certificate::from_der(leaf) else {
        return;
    };
    let certificate = &read.tbs_certificate;
    let seconds = |time: x509_cert::time::Time| {
        let since = time.to_system_time().duration_since(UNIX_EPOCH);
        i64::try_from(since.unwrap_or(Duration::ZERO).as_secs()).unwrap_or(i64::MAX)
    };
    let (start, end) = (
        seconds(certificate.validity.not_before),
        seconds(certificate.validity.not_after),
    );
    assert!(start <= NOW_UNIX_S && NOW_UNIX_S <= end && end - start <= i64::from(LIFE_DAYS_MAX) * 86_400);
    assert!(identity.expires_unix_s <= end);
    let extensions = certificate.extensions.as_deref().unwrap_or_default();
    let value = |oid: &str| {
        let oid = ObjectIdentifier::new_unwrap(oid);
        let mut of_kind = extensions.iter().filter(|extension| extension.extn_id == oid);
        let first = of_kind.next();
        assert!(of_kind.next().is_none(), "an extension is there twice");
        first.map(|extension| extension.extn_value.as_bytes())
    };
    if let Some(Ok(constraints)) = value("2.5.29.19").map(Constraints::from_der) {
        assert!(!constraints.ca, "a CA certificate");
    }
    if let Ok(usage) = KeyUsage::from_der(value("2.5.29.15").expect("a keyUsage")) {
        assert!(
            usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign(),
            "{usage:?}"
        );
    }
    if let Ok(usages) = ExtendedKeyUsage::from_der(value("2.5.29.37").expect("an extendedKeyUsage")) {
        assert!(usages.0.contains(&CLIENT_AUTH), "{usages:?}");
    }
    if let Ok(names) = SubjectAltName::from_der(value("2.5.29.17").expect("a subjectAltName")) {
        let uris: Vec<_> = names
            .0
            .iter()
            .filter_map(|name| match name {
                GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(
            uris,
            [format!("spiffe://{}/{}", identity.trust_domain, identity.role)]
        );
    }
}

/// The DER values that follow each other, the last one with whatever is left.
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut values = Vec::new();
    while !bytes.is_empty() && values.len() < 8 {
        let (header, length) = match bytes {
            [_, short @ 0..=0x7f, ..] => (2, usize::from(*short)),
            [_, 0x81, length, ..] => (3, usize::from(*length)),
            [_, 0x82, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
            _ => (0, bytes.len()),
        };
        let (value, rest) = bytes.split_at((header + length).min(bytes.len()));
        values.push(value);
        bytes = rest;
    }
    values
}

/// Chains of one or two, good and bad, made anew: their keys are forgotten at once.
pub fn seeds() -> Vec<Vec<u8>> {
    let good = || {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri("spiffe://todo.example/web")];
        params
    };
    type Change = fn(&mut CertificateParams);
    let changes: [Change; 12] = [
        |_| {},
        |params| params.subject_alt_names = vec![uri("spiffe://todo.example/operator/alice")],
        |params| params.subject_alt_names.push(uri("spiffe://todo.example/root")),
        |params| {
            params
                .subject_alt_names
                .push(SanType::DnsName("web.example".try_into().expect("a DNS name")))
        },
        |params| params.subject_alt_names.clear(),
        |params| params.subject_alt_names = vec![uri("spiffe://evil.example/web")],
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        |params| params.is_ca = IsCa::NoCa,
        |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
        |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
        |params| {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth)
        },
        |params| params.not_after = date_time_ymd(2126, 1, 1),
    ];
    let der = |params: CertificateParams| {
        let key = KeyPair::generate().expect("the system has randomness");
        params
            .self_signed(&key)
            .expect("parameters that can be signed")
            .der()
            .to_vec()
    };
    let mut seeds: Vec<_> = changes
        .iter()
        .map(|change| {
            let mut params = good();
            change(&mut params);
            der(params)
        })
        .collect();
    let mut issuer = good();
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    issuer.extended_key_usages.clear();
    seeds.push([der(good()), der(issuer)].concat());
    seeds
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}
