//! Who is talking: a client's certificate chain to an [`Identity`], or the [`Refusal`] that names the rule
//! it breaks.
//!
//! Pure: bytes and the time come in as arguments. Nothing here trusts a name the client says; only what a
//! certificate of a configured root says counts. Nothing here checks a signature, a revocation or an unknown
//! critical extension either: webpki does, over the same chain, before `net/tls` believes an identity.

mod certificate;
mod quoted;
pub mod revoked;
pub mod spiffe;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use certificate::{CertRules, Finding, Position, Refusal, claimed_trust_domain, describe, examine};

/// A verified sender: what the certificate says, never what a message claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The trust domain, such as `todo.example`.
    pub trust_domain: Arc<str>,
    /// Who it is within the trust domain.
    pub role: Role,
    /// The leaf's serial number, in lower-case hexadecimal, without leading zero bytes.
    pub serial: Box<str>,
    /// The earliest expiry in the chain, in seconds since 1970.
    pub expires_unix_s: i64,
}

/// What an identity is within its trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Role {
    /// `spiffe://<trust-domain>/<service>`.
    Service(Arc<str>),
    /// `spiffe://<trust-domain>/operator/<name>`.
    Operator(Arc<str>),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => f.write_str(name),
            Self::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}
