//! Certificates of every kind, good and bad, made when a test runs. Nothing here is ever written into the project.

#![allow(dead_code, reason = "each module uses its own part")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
    CrlIssuingDistributionPoint, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use time::{Duration, OffsetDateTime};

/// Who most leaves speak for.
pub const WEB: &str = "spiffe://shop.example/web";

/// The object identifiers of extensions that are written byte by byte.
pub const SAN: &[u64] = &[2, 5, 29, 17];
pub const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
pub const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];
pub const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// One who issues: a root, or an intermediate with those above it.
pub struct Ca {
    pub cert: CertificateDer<'static>,
    /// From this one up, without the root.
    above: Vec<CertificateDer<'static>>,
    issuer: Issuer<'static, KeyPair>,
    pub serial: SerialNumber,
}

/// What a client shows: its chain, and the key that it says belongs to it.
pub struct Shown {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: KeyPair,
    pub serial: SerialNumber,
}

/// What every certificate has unless a test says otherwise: valid since five minutes, for a day.
fn params(name: &str) -> CertificateParams {
    static SERIAL: AtomicU64 = AtomicU64::new(1);
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = now - Duration::minutes(5);
    params.not_after = now + Duration::days(1);
    // Different in each process too: brokers may keep what they saw.
    let serial = (u64::from(std::process::id()) << 32) + SERIAL.fetch_add(1, Relaxed);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A good leaf, before a test changes it.
pub fn leaf_params() -> CertificateParams {
    let mut params = params("leaf");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(WEB)];
    params
}

pub fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().expect("ASCII; write others byte by byte"))
}

/// A subjectAltName extension with one URI of any bytes.
pub fn raw_uri(id: &[u8]) -> CustomExtension {
    CustomExtension::from_oid_content(SAN, tlv(0x30, &tlv(0x86, id)))
}

/// Tag, length and value, in DER.
pub fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len();
    let mut der = vec![tag];
    match length {
        0..0x80 => der.push(length as u8),
        0x80..0x100 => der.extend([0x81, length as u8]),
        0x100..0x1_0000 => der.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => der.extend([0x83, (length >> 16) as u8, (length >> 8) as u8, length as u8]),
    }
    der.extend_from_slice(value);
    der
}

impl Ca {
    pub fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    pub fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::root_of(KeyPair::generate().expect("a key"), name, change)
    }

    pub fn root_of(key: KeyPair, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let cert = params.self_signed(&key).expect("a root").der().clone();
        Self {
            cert,
            above: Vec::new(),
            serial: params.serial_number.clone().expect("set"),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn intermediate(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("an intermediate")
            .der()
            .clone();
        let mut above = vec![cert.clone()];
        above.extend_from_slice(&self.above);
        // What it issues is issued as if it might.
        params.key_usages = ca_params(name).key_usages;
        Self {
            cert,
            above,
            serial: params.serial_number.clone().expect("set"),
            issuer: Issuer::new(params, key),
        }
    }

    /// A leaf with the chain up to the root.
    pub fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        self.leaf_of(KeyPair::generate().expect("a key"), change)
    }

    pub fn leaf_of(&self, key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = leaf_params();
        change(&mut params);
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("a leaf")
            .der()
            .clone();
        let mut chain = vec![cert];
        chain.extend_from_slice(&self.above);
        Shown {
            chain,
            key,
            serial: params.serial_number.expect("set"),
        }
    }

    /// Another root of the same name and key.
    pub fn again(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::root_of(KeyPair::from_pem(&self.key_pem()).expect("its key"), name, change)
    }

    /// Its private key, in PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A revocation list that is valid from an hour ago until so many minutes from now.
    pub fn crl(&self, revoked: &[&SerialNumber], minutes: i64) -> CertificateRevocationListDer<'static> {
        self.crl_of(1, None, revoked, minutes)
    }

    /// The same with a number, and the distribution point that it is for.
    pub fn crl_of(
        &self,
        number: u64,
        point: Option<&str>,
        revoked: &[&SerialNumber],
        minutes: i64,
    ) -> CertificateRevocationListDer<'static> {
        let now = OffsetDateTime::now_utc();
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).clone(),
            revocation_time: now - Duration::minutes(1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: now - Duration::hours(1),
            next_update: now + Duration::minutes(minutes),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint {
                    uris: vec![uri.to_owned()],
                },
                scope: None,
            }),
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a CRL").der().clone()
    }
}

/// PEM of certificates or lists.
pub fn pem<'a>(label: &str, ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for der in ders {
        writeln!(text, "-----BEGIN {label}-----").expect("a String");
        let base64 = base64(der);
        for line in base64.as_bytes().chunks(64) {
            writeln!(text, "{}", str::from_utf8(line).expect("ASCII")).expect("a String");
        }
        writeln!(text, "-----END {label}-----").expect("a String");
    }
    text
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 3];
        word[..chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes([0, word[0], word[1], word[2]]);
        for digit in 0..4 {
            let value = word >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() {
                char::from(DIGITS[value as usize])
            } else {
                '='
            });
        }
    }
    text
}

/// The client's side of TLS with a chain that nobody checks before it is shown.
pub fn tls_showing(server_root: &Path, shown: &Shown) -> ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(server_root).expect("a root in PEM"))
        .expect("a root that can be used");
    let key = PrivateKeyDer::try_from(shown.key.serialize_der()).expect("a key");
    let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("a key that ring can use");
    let shown = CertifiedKey::new(shown.chain.clone(), key);
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(Shows(Arc::new(shown))))
}

#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Runs the openssl command in a folder; fails the test where it fails.
pub fn openssl(folder: &Path, arguments: &str) -> Output {
    let output = Command::new("openssl")
        .current_dir(folder)
        .args(arguments.split_whitespace())
        .output()
        .expect("openssl is there");
    assert!(
        output.status.success(),
        "openssl {arguments}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Whether the openssl command is there.
pub fn has_openssl() -> bool {
    let is_there = Command::new("openssl").arg("version").output().is_ok();
    crate::support::has("openssl", is_there)
}
