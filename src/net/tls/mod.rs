//! Mutual TLS: what a listener needs to shake hands and know who came, or why they were refused.
//!
//! TLS 1.3 only, always with a client certificate, never resumed and never with early data: a resumed session
//! would skip the verification. A [`TlsServer`] is immutable. To change a certificate, the roots or the CRLs,
//! build a new one and swap it whole; then [`TlsServer::recheck`] says which open connections have to go.

mod files;
mod lists;
mod refused;
mod verifier;

use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

pub use files::{ShownFiles, TrustFiles, read_certificates, read_crls, read_private_key};
pub use refused::RefusedHandshake;
pub use verifier::{ClientVerifier, fingerprint};

use crate::identity::revoked::Revoked;
use crate::identity::spiffe::SpiffeError;
use crate::identity::{Finding, Identity};
use verifier::{OneHandshake, Seen};

/// The certificate that a server shows, with its key.
#[derive(Debug, Clone)]
pub struct Shown {
    pair: Arc<SingleCertAndKey>,
    cert_chain: Vec<CertificateDer<'static>>,
    expiry: Expiry,
}

/// When something expires that a server shows or believes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// What it is, for programs: `certificates` of the broker, `roots`, `revocation-lists`.
    pub kind: &'static str,
    /// What it is, for people.
    pub what: String,
    /// When, in seconds since 1970.
    pub unix_s: i64,
    /// How long it was valid in all, in seconds.
    pub life_s: i64,
}

impl Shown {
    /// Checks that the key belongs to the first certificate of the chain.
    pub fn new(
        cert_chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, TlsConfigError> {
        let expiry = cert_chain
            .iter()
            .filter_map(|certificate| X509Certificate::from_der(certificate).ok())
            .map(|(_, x509)| Expiry::of("certificates", "the certificate".to_owned(), &x509))
            .min_by_key(|expiry| expiry.unix_s)
            .ok_or(TlsConfigError::NoServerCertificate)?;
        let pair =
            CertifiedKey::from_der(cert_chain.clone(), key, &provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => TlsConfigError::KeyMismatch,
                error => TlsConfigError::ServerKey(error),
            })?;
        Ok(Self {
            pair: Arc::new(SingleCertAndKey::from(pair)),
            cert_chain,
            expiry,
        })
    }
}

impl Expiry {
    fn of(kind: &'static str, what: String, x509: &X509Certificate<'_>) -> Self {
        let validity = x509.validity();
        let unix_s = validity.not_after.timestamp();
        Self {
            kind,
            what,
            unix_s,
            life_s: unix_s.saturating_sub(validity.not_before.timestamp()),
        }
    }
}

/// Whom a server believes.
#[derive(Debug)]
pub struct Trust {
    /// Each trust domain with the roots that alone may vouch for it.
    pub roots: Vec<(String, Vec<CertificateDer<'static>>)>,
    /// The revocation lists. Where there are some, every issuer in every chain needs one that has not expired;
    /// `None` revokes nothing.
    pub crls: Option<Vec<CertificateRevocationListDer<'static>>>,
    /// The longest life of a client's certificate, in days.
    pub lifetime_max_days: u32,
}

/// Why a TLS configuration cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {file}: {error}")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// A file that cannot be what it should be.
    #[error("{file} has {bytes} bytes, at most {bytes_max} are read; is it the right file?")]
    FileSize {
        /// The file.
        file: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// A file in which the PEM section that is needed is missing or broken.
    #[error("{file} has no {wanted}: {error}; expected PEM with -----BEGIN {label}-----")]
    Pem {
        /// The file.
        file: String,
        /// What was looked for.
        wanted: &'static str,
        /// Its PEM label.
        label: &'static str,
        /// What the PEM reader says.
        error: String,
    },
    /// No server certificate.
    #[error("the server has no certificate; make one with `exocom certs issue --server`")]
    NoServerCertificate,
    /// The key and the certificate do not belong together.
    #[error("the server's key does not belong to its certificate; give the pair that was made together")]
    KeyMismatch,
    /// The key or the certificate is not usable.
    #[error(
        "the server's key or certificate cannot be used: {0}; use ECDSA P-256 or P-384, Ed25519, or RSA from 2,048 bits"
    )]
    ServerKey(rustls::Error),
    /// No root at all, or none for one of the trust domains.
    #[error("no root certificate is given{}; without one no client can connect", .trust_domain.as_ref().map(|domain| format!(" for the trust domain {domain:?}")).unwrap_or_default())]
    NoRoots {
        /// The trust domain without a root.
        trust_domain: Option<String>,
    },
    /// A trust domain that is none.
    #[error("{trust_domain:?} is not a trust domain: {error}")]
    TrustDomain {
        /// What the configuration says.
        trust_domain: String,
        /// What is wrong with it.
        error: SpiffeError,
    },
    /// A root certificate that is none.
    #[error("root {number} of the trust domain {trust_domain:?} cannot be used: {fault}")]
    Root {
        /// The trust domain it is bound to.
        trust_domain: String,
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// One key that vouches for two trust domains.
    #[error(
        "the trust domains {first:?} and {second:?} have the same root key; give each its own root, or one could speak for the other"
    )]
    RootBoundTwice {
        /// One trust domain.
        first: String,
        /// The other.
        second: String,
    },
    /// Revocation is configured, and there is no list.
    #[error(
        "revocation is configured, but there is no CRL in it; give one CRL for each issuer, or leave `crls` out"
    )]
    NoCrls,
    /// A list that cannot be read.
    #[error("CRL {number} cannot be used: {fault}")]
    Crl {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// Any of the above, found when the files named were put together.
    #[error("{files}: {error}")]
    InFiles {
        /// The files.
        files: String,
        /// What is wrong with them.
        error: Box<Self>,
    },
    /// The TLS provider cannot do TLS 1.3.
    #[error("the TLS provider cannot be used: {0}")]
    Provider(rustls::Error),
}

/// Why a handshake yielded no identity.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client broke a rule. It was told by a TLS alert.
    #[error(transparent)]
    Refused(RefusedHandshake),
    /// The connection ended before the handshake did.
    #[error("the connection was lost during the handshake: {0}")]
    Lost(io::Error),
}

/// The server's side of TLS: immutable, cheap to share, swapped whole.
#[derive(Debug, Clone)]
pub struct TlsServer {
    provider: Arc<CryptoProvider>,
    shown: Shown,
    verifier: Arc<ClientVerifier>,
    revoked: Arc<Revoked>,
}

impl Trust {
    /// Checks all that can be checked before the first client comes.
    pub fn verifier(self) -> Result<ClientVerifier, TlsConfigError> {
        ClientVerifier::new(&provider(), self.roots, self.crls, self.lifetime_max_days)
    }
}

impl TlsServer {
    /// A server for which nothing is revoked but by CRLs.
    pub fn new(shown: Shown, verifier: ClientVerifier) -> Result<Self, TlsConfigError> {
        let server = Self {
            provider: provider(),
            shown,
            verifier: Arc::new(verifier),
            revoked: Arc::default(),
        };
        server
            .config(server.one_handshake())
            .map_err(TlsConfigError::Provider)?;
        Ok(server)
    }

    /// The same server with another certificate; `None` where it is the same.
    pub fn with_shown(&self, shown: &Shown) -> Option<Self> {
        (shown.cert_chain != self.shown.cert_chain).then(|| Self {
            shown: shown.clone(),
            ..self.clone()
        })
    }

    /// The same server that believes others; `None` where they are the same. An error where a revocation list is
    /// older than the one it would replace, or has expired.
    pub fn with_trust(
        &self,
        verifier: ClientVerifier,
        now_unix_s: i64,
    ) -> Result<Option<Self>, TlsConfigError> {
        if verifier.is_same(&self.verifier) {
            return Ok(None);
        }
        verifier.may_follow(&self.verifier, now_unix_s)?;
        Ok(Some(Self {
            verifier: Arc::new(verifier),
            ..self.clone()
        }))
    }

    /// The same server, for which this is revoked besides what the CRLs say.
    pub fn with_revoked(&self, revoked: Arc<Revoked>) -> Self {
        Self {
            revoked,
            ..self.clone()
        }
    }

    /// When its own certificate, its roots and its revocation lists expire.
    pub fn expiries(&self) -> Vec<Expiry> {
        let mut expiries = vec![self.shown.expiry.clone()];
        expiries.extend(self.verifier.expiries());
        expiries
    }

    /// Shakes hands with one client and says who it is. The caller limits the time that this may take.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Identity), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = self.handshake();
        match TlsAcceptor::from(handshake.config.clone()).accept(io).await {
            Ok(stream) => match handshake.identity() {
                Some(identity) => Ok((stream, identity.clone())),
                None => Err(HandshakeError::Refused(RefusedHandshake::no_certificate())),
            },
            Err(error) => Err(handshake.failure(error)),
        }
    }

    /// One handshake, for a caller that drives rustls itself.
    pub fn handshake(&self) -> Handshake {
        let verifier = self.one_handshake();
        let config = self
            .config(verifier.clone())
            .expect("`new` made the same configuration with success");
        Handshake {
            config: Arc::new(config),
            verifier,
        }
    }

    /// Who a client is whose handshake was accepted earlier, or why it would be refused today. For open
    /// connections, after the roots or CRLs have changed; `chain` is what rustls calls `peer_certificates`.
    pub fn recheck(
        &self,
        chain: &[CertificateDer<'_>],
        now_unix_s: i64,
    ) -> Result<Identity, RefusedHandshake> {
        let identity = self.verifier.identify(chain, now_unix_s)?;
        self.check_revoked(&identity, chain)?;
        Ok(identity)
    }

    /// Every rule of ours that a chain keeps or breaks; see [`ClientVerifier::examine`].
    pub fn examine(&self, chain: &[CertificateDer<'_>], now_unix_s: i64) -> Vec<Finding> {
        self.verifier.examine(chain, now_unix_s)
    }

    /// Whether operators have revoked a client whose handshake was accepted earlier.
    pub fn check_revoked(
        &self,
        identity: &Identity,
        chain: &[CertificateDer<'_>],
    ) -> Result<(), RefusedHandshake> {
        match verifier::revoked(&self.revoked, identity, chain) {
            Some(refused) => Err(refused),
            None => Ok(()),
        }
    }

    fn one_handshake(&self) -> Arc<OneHandshake> {
        Arc::new(OneHandshake::new(self.verifier.clone(), self.revoked.clone()))
    }

    fn config(&self, verifier: Arc<OneHandshake>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.shown.pair.clone());
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// One handshake. It owns what the verifier saw, since rustls forgets the certificates of a client that it
/// refuses, and a refusal must say whose certificate it was.
#[derive(Debug)]
pub struct Handshake {
    config: Arc<ServerConfig>,
    verifier: Arc<OneHandshake>,
}

impl Handshake {
    /// The configuration for this handshake, and for no other.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Who the client is. To be believed only after the handshake is complete: before that the client has not
    /// shown that it has the certificate's key.
    pub fn identity(&self) -> Option<&Identity> {
        self.verifier.seen()?.outcome.as_ref().ok()
    }

    /// Why the handshake failed, from the error that tokio-rustls gave.
    pub fn failure(&self, error: io::Error) -> HandshakeError {
        let Some(tls_error) = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        else {
            return HandshakeError::Lost(error);
        };
        HandshakeError::Refused(match self.verifier.seen() {
            Some(Seen {
                outcome: Err(refused),
                ..
            }) => refused.clone(),
            Some(Seen { whose, .. }) => RefusedHandshake::new(tls_error, Some(whose.clone())),
            None => RefusedHandshake::new(tls_error, None),
        })
    }
}

/// The TLS provider of this build.
pub fn provider() -> Arc<CryptoProvider> {
    #[cfg(feature = "aws-lc-rs")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc-rs"))]
    let provider = rustls::crypto::ring::default_provider();
    Arc::new(provider)
}
