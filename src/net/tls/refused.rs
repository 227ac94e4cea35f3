//! A handshake that was refused: the rule, for people and for counters, and whose certificate it was.

use std::fmt::Write;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::identity::Refusal;
use crate::limits::QUOTED_BYTES_MAX;

/// Why a client was refused, safe to log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {message}{}", .whose.as_ref().map(|whose| format!(" (certificate of {whose})")).unwrap_or_default())]
pub struct RefusedHandshake {
    /// The rule that was broken, as a stable kebab-case name.
    pub rule: &'static str,
    /// What was expected and what came.
    pub message: String,
    /// Whose certificate it claims to be, unproven; `None` when none was shown.
    pub whose: Option<String>,
}

impl RefusedHandshake {
    pub(super) fn no_certificate() -> Self {
        Self::new(&Error::NoCertificatesPresented, None)
    }

    pub(super) fn by_our_rules(refusal: &Refusal, whose: String) -> Self {
        Self {
            rule: refusal.rule(),
            message: refusal.to_string(),
            whose: Some(whose),
        }
    }

    pub(super) fn new(error: &Error, whose: Option<String>) -> Self {
        let (rule, advice) = named(error);
        let message = if advice.is_empty() {
            safe(&error.to_string())
        } else {
            advice.to_owned()
        };
        Self { rule, message, whose }
    }
}

/// The alert that our own rules send, by way of the error that rustls maps to it.
pub(super) fn alerting(refusal: Refusal) -> Error {
    Error::InvalidCertificate(match refusal {
        Refusal::Encoding { .. } => CertificateError::BadEncoding,
        Refusal::TrustDomain { .. } => CertificateError::UnknownIssuer,
        Refusal::EkuClientAuth(_) => CertificateError::InvalidPurpose,
        Refusal::NotYetValid { .. } => CertificateError::NotValidYet,
        Refusal::Expired { .. } => CertificateError::Expired,
        refusal => CertificateError::Other(rustls::OtherError(std::sync::Arc::new(refusal))),
    })
}

/// The rule behind an error of rustls or webpki, and what to say about it; their own words where that is
/// empty.
fn named(error: &Error) -> (&'static str, &'static str) {
    use CertificateError as C;
    match error {
        Error::NoCertificatesPresented => (
            "no-certificate",
            "expected a client certificate, came none; every client needs one",
        ),
        Error::InvalidCertificate(error) => match error {
            C::BadEncoding => ("certificate-encoding", ""),
            C::Expired | C::ExpiredContext { .. } => ("expired", ""),
            C::NotValidYet | C::NotValidYetContext { .. } => ("not-yet-valid", ""),
            C::Revoked => (
                "revoked",
                "a CRL lists this certificate or one of its issuers as revoked",
            ),
            C::UnknownIssuer => (
                "unknown-issuer",
                "the chain does not end at a root that is bound to its trust domain",
            ),
            C::UnknownRevocationStatus => (
                "revocation-unknown",
                "no configured CRL covers an issuer of this chain; give one CRL for each issuer",
            ),
            C::ExpiredRevocationList | C::ExpiredRevocationListContext { .. } => (
                "crl-expired",
                "the CRL of an issuer of this chain has expired; publish a new one",
            ),
            C::BadSignature => (
                "bad-signature",
                "a signature does not match: made by another key than the certificate's or its issuer's",
            ),
            C::UnsupportedSignatureAlgorithmContext { .. }
            | C::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => (
                "signature-algorithm",
                "expected ECDSA P-256 or P-384, Ed25519, or RSA from 2,048 bits, with SHA-256 or better",
            ),
            C::InvalidPurpose | C::InvalidPurposeContext { .. } => (
                "eku-client-auth",
                "expected an extendedKeyUsage with clientAuth in the whole chain",
            ),
            C::Other(error) => named_by_webpki(&error.to_string()),
            _ => ("chain", ""),
        },
        Error::InvalidCertRevocationList(_) => ("crl-invalid", ""),
        Error::PeerIncompatible(_) => ("tls-incompatible", "expected a client that speaks TLS 1.3"),
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::BadCertificate) => (
            "server-certificate-refused",
            "the client does not believe the server's certificate; give it the root that issued it",
        ),
        Error::AlertReceived(_) => ("client-alert", ""),
        Error::InvalidMessage(
            InvalidMessage::CertificatePayloadTooLarge | InvalidMessage::HandshakePayloadTooLarge,
        ) => (
            "handshake-size",
            "expected handshake messages of at most 64 KiB; leave out what the client's chain does not need",
        ),
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => (
            "not-tls",
            "expected a TLS handshake first; tell the client to use TLS first, without plaintext",
        ),
        _ => ("tls", ""),
    }
}

/// The rule behind an error of webpki that rustls passes on without a name of its own, by webpki's.
fn named_by_webpki(error: &str) -> (&'static str, &'static str) {
    match error {
        "CaUsedAsEndEntity" => (
            "ca-certificate",
            "expected a leaf, came a CA certificate (basicConstraints CA:TRUE)",
        ),
        "EndEntityUsedAsCa" => (
            "issuer-not-ca",
            "an issuer of this chain is no CA (basicConstraints CA:TRUE)",
        ),
        "PathLenConstraintViolated" | "MaximumPathDepthExceeded" => (
            "path-length",
            "the chain is longer than its root, one of its intermediates or this broker allows",
        ),
        "NameConstraintViolation" => (
            "name-constraints",
            "an issuer's name constraints do not allow the leaf's names; constraints on URIs cannot be used, since \
             no name could meet them",
        ),
        "UnsupportedCriticalExtension" => (
            "critical-extension",
            "a certificate of this chain has a critical extension that is not known here",
        ),
        _ => ("chain", ""),
    }
}

/// A text of a library, which may repeat what the client sent: escaped and bounded.
fn safe(text: &str) -> String {
    let mut safe = String::new();
    for character in text.chars().take(2 * QUOTED_BYTES_MAX) {
        if character.is_ascii_graphic() || character == ' ' {
            safe.push(character);
        } else {
            write!(safe, "{}", character.escape_default()).expect("a String takes every write");
        }
    }
    safe
}
