//! A chain of X.509 certificates to an [`Identity`]: the rules that webpki does not check.
//!
//! It reads certificates and never verifies a signature; see the module above for who does. An unknown
//! critical extension is refused by webpki too, and so is not looked for here.

use std::sync::Arc;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;

use super::quoted::Quoted;
use super::spiffe::{SpiffeError, SpiffeId};
use super::{Identity, Role};
use crate::limits::CERT_SERIAL_BYTES_MAX;

/// The tag of `uniformResourceIdentifier` among the general names (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

const DAY_S: i64 = 86_400;

/// What the configuration says about the certificates of one trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertRules {
    /// The trust domain that is bound to the root.
    pub trust_domain: Arc<str>,
    /// The longest life of a leaf, from `notBefore` to `notAfter`, in days.
    pub lifetime_max_days: u32,
}

/// The rule that a certificate chain breaks. Every text is safe to log: what came from the certificate is
/// escaped and bounded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Bytes that are no certificate, or an extension that is malformed or there twice.
    #[error("expected {certificate} to be a DER certificate; {fault}")]
    Encoding {
        /// Which certificate of the chain.
        certificate: Position,
        /// What could not be read.
        fault: &'static str,
    },
    /// No URI among the subject's alternative names, or more than one.
    #[error("expected exactly one URI SAN, came {0}; the CN and other kinds of SAN do not count")]
    UriSanCount(usize),
    /// A URI that is no SPIFFE ID of a service or operator.
    #[error("the URI SAN {id} is not an identity: {error}")]
    Spiffe {
        /// The URI, escaped and bounded.
        id: String,
        /// What is wrong with it.
        error: SpiffeError,
    },
    /// A trust domain for which the root does not vouch.
    #[error("expected the trust domain {expected}, came {came}")]
    TrustDomain {
        /// What the configuration binds.
        expected: String,
        /// What the certificate says, in quotes.
        came: String,
    },
    /// A leaf that may issue certificates.
    #[error("expected a leaf, came a CA certificate (basicConstraints CA:TRUE)")]
    CaCertificate,
    /// A leaf that is not made for clients.
    #[error("expected an extendedKeyUsage with clientAuth, came {0}")]
    EkuClientAuth(String),
    /// A leaf that may not sign a handshake, or may sign certificates or CRLs.
    #[error("expected a keyUsage with digitalSignature and without keyCertSign and cRLSign, came {0}")]
    KeyUsage(String),
    /// A CA certificate of the chain whose keyUsage does not let it issue certificates.
    #[error("expected the keyUsage of {certificate} to have keyCertSign, came {came}")]
    IssuerKeyUsage {
        /// Which certificate of the chain.
        certificate: Position,
        /// The usages it has.
        came: String,
    },
    /// A life that is too long, or ends before it begins.
    #[error("expected a life of at most {max_days} days, came {came_s} seconds ({} days)", .came_s / DAY_S)]
    Lifetime {
        /// The configured maximum.
        max_days: u32,
        /// From `notBefore` to `notAfter`.
        came_s: i64,
    },
    /// `notBefore` is still to come.
    #[error("{certificate} is valid only from {not_before_unix_s}, it is {now_unix_s} (seconds since 1970)")]
    NotYetValid {
        /// Which certificate of the chain.
        certificate: Position,
        /// When it begins to be valid.
        not_before_unix_s: i64,
        /// The time of the check.
        now_unix_s: i64,
    },
    /// `notAfter` has passed.
    #[error(
        "{certificate} expired at {not_after_unix_s}, it is {now_unix_s} (seconds since 1970); issue a new one"
    )]
    Expired {
        /// Which certificate of the chain.
        certificate: Position,
        /// When it ceased to be valid.
        not_after_unix_s: i64,
        /// The time of the check.
        now_unix_s: i64,
    },
    /// A serial number longer than RFC 5280 allows.
    #[error("expected a serial number of at most {CERT_SERIAL_BYTES_MAX} bytes, came {0}")]
    Serial(usize),
}

/// A certificate's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The client's own.
    Leaf,
    /// The nth after it, from 1.
    Intermediate(usize),
    /// The configured root at which the chain ends.
    Root,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leaf => f.write_str("the leaf"),
            Self::Intermediate(number) => write!(f, "intermediate {number}"),
            Self::Root => f.write_str("the root"),
        }
    }
}

impl Refusal {
    /// The rule that is broken, as a stable name for logs and alarms.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Encoding { .. } => "certificate-encoding",
            Self::UriSanCount(_) => "uri-san-count",
            Self::Spiffe { error, .. } => error.rule(),
            Self::TrustDomain { .. } => "trust-domain",
            Self::CaCertificate => "ca-certificate",
            Self::EkuClientAuth(_) => "eku-client-auth",
            Self::KeyUsage(_) => "key-usage",
            Self::IssuerKeyUsage { .. } => "issuer-key-usage",
            Self::Lifetime { .. } => "lifetime",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::Expired { .. } => "expired",
            Self::Serial(_) => "serial",
        }
    }

    /// The refusal of a trust domain that none of `bound` is.
    pub(crate) fn unbound_trust_domain<'a>(came: &str, bound: impl IntoIterator<Item = &'a str>) -> Self {
        let bound: Vec<_> = bound
            .into_iter()
            .map(|domain| Quoted(domain.as_bytes()).to_string())
            .collect();
        Self::TrustDomain {
            expected: bound.join(" or "),
            came: Quoted(came.as_bytes()).to_string(),
        }
    }
}

impl Identity {
    /// Who a chain speaks for, or the first rule that it breaks. `leaf` and `intermediates` are DER, in the
    /// order in which the client sent them.
    ///
    /// The result is to be believed only once webpki has verified the same chain.
    pub fn from_chain(
        leaf: &[u8],
        intermediates: &[&[u8]],
        now_unix_s: i64,
        rules: &CertRules,
    ) -> Result<Self, Refusal> {
        let leaf = Certificate::parse(leaf, Position::Leaf)?;
        let uri = leaf.uri()?;
        let id = SpiffeId::parse(uri).map_err(unfit(uri))?;
        in_trust_domain(&id, rules)?;
        let role = id.role().map_err(unfit(uri))?;
        leaf.check_purpose()?;
        leaf.check_lifetime(rules.lifetime_max_days)?;
        let mut expires_unix_s = leaf.check_validity(now_unix_s)?;
        let serial = leaf.serial()?;
        for (index, intermediate) in intermediates.iter().enumerate() {
            let issuer = Certificate::parse(intermediate, Position::Intermediate(index + 1))?;
            issuer.check_may_issue()?;
            expires_unix_s = expires_unix_s.min(issuer.check_validity(now_unix_s)?);
        }
        Ok(Self {
            trust_domain: rules.trust_domain.clone(),
            role,
            serial,
            expires_unix_s,
        })
    }
}

/// One rule, and whether a chain keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is asked, in a few words.
    pub asked: &'static str,
    /// What is there, or the rule that it breaks.
    pub found: Result<String, Refusal>,
}

/// Asks a chain every rule that [`Identity::from_chain`] asks until the first is broken, by the same code. Rules that
/// cannot be asked, since what they are about cannot be read, are left out.
pub fn examine(leaf: &[u8], intermediates: &[&[u8]], now_unix_s: i64, rules: &CertRules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut ask =
        |asked: &'static str, found: Result<String, Refusal>| findings.push(Finding { asked, found });
    let leaf = match Certificate::parse(leaf, Position::Leaf) {
        Ok(leaf) => leaf,
        Err(refusal) => {
            ask("a DER certificate", Err(refusal));
            return findings;
        }
    };
    let uri = leaf.uri();
    ask(
        "exactly one URI SAN",
        uri.clone().map(|uri| Quoted(uri).to_string()),
    );
    if let Ok(uri) = uri {
        let id = SpiffeId::parse(uri).map_err(unfit(uri));
        if let Ok(id) = &id {
            ask(
                "the trust domain of its root",
                in_trust_domain(id, rules).map(|()| id.trust_domain().to_owned()),
            );
        }
        let role = id.and_then(|id| id.role().map_err(unfit(uri)));
        ask(
            "the SPIFFE ID of a service or operator",
            role.map(|role| match role {
                Role::Service(name) => format!("service {name}"),
                Role::Operator(name) => format!("operator {name}"),
            }),
        );
    }
    ask("no CA", leaf.check_no_ca().map(|()| "CA:FALSE".to_owned()));
    ask(
        "extendedKeyUsage clientAuth",
        leaf.check_extended_usage().map(|()| "clientAuth".to_owned()),
    );
    ask(
        "keyUsage digitalSignature, no keyCertSign or cRLSign",
        leaf.check_usage().map(|()| "digitalSignature".to_owned()),
    );
    ask(
        "a life that is not too long",
        leaf.check_lifetime(rules.lifetime_max_days)
            .map(|()| format!("at most {} days", rules.lifetime_max_days)),
    );
    let until = |not_after_unix_s: i64| format!("until {not_after_unix_s} (seconds since 1970)");
    ask("valid now", leaf.check_validity(now_unix_s).map(until));
    ask(
        "a serial number of at most 20 bytes",
        leaf.serial().map(String::from),
    );
    for (index, intermediate) in intermediates.iter().enumerate() {
        match Certificate::parse(intermediate, Position::Intermediate(index + 1)) {
            Ok(issuer) => {
                ask(
                    "an intermediate that may issue",
                    issuer.check_may_issue().map(|()| issuer.position.to_string()),
                );
                ask(
                    "an intermediate valid now",
                    issuer.check_validity(now_unix_s).map(until),
                );
            }
            Err(refusal) => ask("an intermediate in DER", Err(refusal)),
        }
    }
    findings
}

fn in_trust_domain(id: &SpiffeId<'_>, rules: &CertRules) -> Result<(), Refusal> {
    if id.trust_domain() == &*rules.trust_domain {
        return Ok(());
    }
    Err(Refusal::unbound_trust_domain(
        id.trust_domain(),
        [&*rules.trust_domain],
    ))
}

/// The trust domain that a leaf claims, which decides the roots that may vouch for it. Nothing is proven yet.
pub fn claimed_trust_domain(leaf: &[u8]) -> Result<String, Refusal> {
    let leaf = Certificate::parse(leaf, Position::Leaf)?;
    let uri = leaf.uri()?;
    let id = SpiffeId::parse(uri).map_err(unfit(uri))?;
    Ok(id.trust_domain().to_owned())
}

/// Whose certificate this claims to be, for a log line: its URI SANs and serial number, escaped and bounded.
/// Nothing that it says is proven.
pub fn describe(leaf: &[u8]) -> String {
    let Ok(certificate) = Certificate::parse(leaf, Position::Leaf) else {
        return format!("not a certificate ({} bytes)", leaf.len());
    };
    let uris = certificate.uris().unwrap_or_default();
    let named = match uris.as_slice() {
        [] => "no URI SAN".to_owned(),
        [uri] => Quoted(uri).to_string(),
        [first, second] => format!("{} and {}", Quoted(first), Quoted(second)),
        [first, second, more @ ..] => {
            format!("{}, {} and {} more", Quoted(first), Quoted(second), more.len())
        }
    };
    match certificate.serial() {
        Ok(serial) => format!("{named}, serial {serial}"),
        Err(refusal) => format!("{named}, {refusal}"),
    }
}

/// A certificate that could be read, and its place in the chain.
struct Certificate<'a> {
    x509: X509Certificate<'a>,
    position: Position,
}

impl<'a> Certificate<'a> {
    fn parse(der: &'a [u8], position: Position) -> Result<Self, Refusal> {
        match X509Certificate::from_der(der) {
            Ok(([], x509)) => Ok(Self { x509, position }),
            Ok(_) => Err(Refusal::Encoding {
                certificate: position,
                fault: "more bytes follow it",
            }),
            Err(_) => Err(Refusal::Encoding {
                certificate: position,
                fault: "it could not be parsed",
            }),
        }
    }

    /// The only URI among the subject's alternative names.
    fn uri(&self) -> Result<&[u8], Refusal> {
        match self.uris()?.as_slice() {
            [uri] => Ok(uri),
            uris => Err(Refusal::UriSanCount(uris.len())),
        }
    }

    fn uris(&self) -> Result<Vec<&[u8]>, Refusal> {
        let names = match self.extension(&OID_X509_EXT_SUBJECT_ALT_NAME)? {
            None => return Ok(Vec::new()),
            Some(ParsedExtension::SubjectAlternativeName(san)) => &san.general_names,
            Some(_) => return Err(self.malformed("its subjectAltName is malformed")),
        };
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(uri.as_bytes()),
            GeneralName::Invalid(tag, bytes) if tag.0 == URI_TAG => Some(*bytes),
            _ => None,
        });
        Ok(uris.collect())
    }

    /// A leaf is for a client's handshake, and for nothing else that would matter to us.
    fn check_purpose(&self) -> Result<(), Refusal> {
        self.check_no_ca()?;
        self.check_extended_usage()?;
        self.check_usage()
    }

    fn check_no_ca(&self) -> Result<(), Refusal> {
        match self.extension(&OID_X509_EXT_BASIC_CONSTRAINTS)? {
            None => Ok(()),
            Some(ParsedExtension::BasicConstraints(constraints)) if !constraints.ca => Ok(()),
            Some(ParsedExtension::BasicConstraints(_)) => Err(Refusal::CaCertificate),
            Some(_) => Err(self.malformed("its basicConstraints are malformed")),
        }
    }

    fn check_extended_usage(&self) -> Result<(), Refusal> {
        match self.extension(&OID_X509_EXT_EXTENDED_KEY_USAGE)? {
            None => Err(Refusal::EkuClientAuth("none".to_owned())),
            Some(ParsedExtension::ExtendedKeyUsage(usage)) if usage.client_auth => Ok(()),
            Some(ParsedExtension::ExtendedKeyUsage(usage)) => {
                let came = match (usage.any, usage.server_auth) {
                    (true, _) => "anyExtendedKeyUsage",
                    (_, true) => "serverAuth",
                    _ => "other purposes",
                };
                Err(Refusal::EkuClientAuth(came.to_owned()))
            }
            Some(_) => Err(self.malformed("its extendedKeyUsage is malformed")),
        }
    }

    fn check_usage(&self) -> Result<(), Refusal> {
        match self.extension(&OID_X509_EXT_KEY_USAGE)? {
            None => Err(Refusal::KeyUsage("none".to_owned())),
            Some(ParsedExtension::KeyUsage(usage)) => {
                if usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign() {
                    return Ok(());
                }
                Err(Refusal::KeyUsage(usage.to_string()))
            }
            Some(_) => Err(self.malformed("its keyUsage is malformed")),
        }
    }

    /// An issuer whose keyUsage is there must have keyCertSign (RFC 5280, section 4.2.1.3), which webpki does
    /// not check. That an issuer is a CA, it does.
    fn check_may_issue(&self) -> Result<(), Refusal> {
        match self.extension(&OID_X509_EXT_KEY_USAGE)? {
            None => Ok(()),
            Some(ParsedExtension::KeyUsage(usage)) if usage.key_cert_sign() => Ok(()),
            Some(ParsedExtension::KeyUsage(usage)) => Err(Refusal::IssuerKeyUsage {
                certificate: self.position,
                came: usage.to_string(),
            }),
            Some(_) => Err(self.malformed("its keyUsage is malformed")),
        }
    }

    fn check_lifetime(&self, max_days: u32) -> Result<(), Refusal> {
        let validity = self.x509.validity();
        let came_s = validity
            .not_after
            .timestamp()
            .saturating_sub(validity.not_before.timestamp());
        if came_s < 0 || came_s > i64::from(max_days) * DAY_S {
            return Err(Refusal::Lifetime { max_days, came_s });
        }
        Ok(())
    }

    /// When it expires, if it is valid now. Both ends count as valid (RFC 5280, section 4.1.2.5).
    fn check_validity(&self, now_unix_s: i64) -> Result<i64, Refusal> {
        let certificate = self.position;
        let not_before_unix_s = self.x509.validity().not_before.timestamp();
        let not_after_unix_s = self.x509.validity().not_after.timestamp();
        if now_unix_s < not_before_unix_s {
            return Err(Refusal::NotYetValid {
                certificate,
                not_before_unix_s,
                now_unix_s,
            });
        }
        if now_unix_s > not_after_unix_s {
            return Err(Refusal::Expired {
                certificate,
                not_after_unix_s,
                now_unix_s,
            });
        }
        Ok(not_after_unix_s)
    }

    fn serial(&self) -> Result<Box<str>, Refusal> {
        let raw = self.x509.raw_serial();
        let zeros = raw.iter().take_while(|byte| **byte == 0).count();
        let serial = raw
            .get(zeros.min(raw.len().saturating_sub(1))..)
            .unwrap_or_default();
        if serial.len() > CERT_SERIAL_BYTES_MAX {
            return Err(Refusal::Serial(serial.len()));
        }
        Ok(serial.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// An extension as it was parsed, which may be a failure; `None` when it is not there.
    fn extension(&self, oid: &Oid<'_>) -> Result<Option<&ParsedExtension<'a>>, Refusal> {
        match self.x509.get_extension_unique(oid) {
            Ok(extension) => Ok(extension.map(|extension| extension.parsed_extension())),
            Err(_) => Err(self.malformed("an extension is there twice")),
        }
    }

    fn malformed(&self, fault: &'static str) -> Refusal {
        Refusal::Encoding {
            certificate: self.position,
            fault,
        }
    }
}

/// The refusal of a URI that is no identity.
fn unfit(uri: &[u8]) -> impl Fn(SpiffeError) -> Refusal {
    move |error| Refusal::Spiffe {
        id: Quoted(uri).to_string(),
        error,
    }
}
