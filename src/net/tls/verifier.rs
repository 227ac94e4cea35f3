//! Whether a client's chain is to be believed: webpki's verification, with only the roots that are bound to
//! the trust domain that the leaf claims, and then our own rules of identity.
//!
//! webpki checks signatures, validity, path lengths, name constraints, critical extensions and revocation.
//! It does not look at a root's own expiry, at the leaf's keyUsage or at its names; we do.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::lists::{ListHead, may_follow};
use super::refused::{RefusedHandshake, alerting};
use super::{Expiry, TlsConfigError};
use crate::identity::revoked::Revoked;
use crate::identity::{
    CertRules, Finding, Identity, Position, Refusal, claimed_trust_domain, describe, examine, spiffe,
};

/// The roots, revocation lists and rules of every trust domain. Immutable: a change makes a new one.
#[derive(Debug)]
pub struct ClientVerifier {
    domains: Vec<Domain>,
    lists: Vec<ListHead>,
    root_hints: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// One trust domain, with the roots that alone may vouch for it.
#[derive(Debug)]
struct Domain {
    rules: CertRules,
    roots: Vec<Root>,
}

/// One root. Each has a verifier of its own, so that we know which root vouched, and when that root expires.
#[derive(Debug)]
struct Root {
    verifier: Arc<dyn ClientCertVerifier>,
    der: CertificateDer<'static>,
    public_key: Vec<u8>,
    not_after_unix_s: i64,
}

/// A chain that was refused: what people are told, and the error that makes rustls send the fitting alert.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) handshake: RefusedHandshake,
    pub(super) alerting: Error,
}

impl ClientVerifier {
    /// Binds roots to their trust domains. The same trust domain may come several times.
    pub fn new(
        provider: &Arc<CryptoProvider>,
        roots: Vec<(String, Vec<CertificateDer<'static>>)>,
        crls: Option<Vec<CertificateRevocationListDer<'static>>>,
        lifetime_max_days: u32,
    ) -> Result<Self, TlsConfigError> {
        if roots.is_empty() {
            return Err(TlsConfigError::NoRoots { trust_domain: None });
        }
        let crls = crls.map_or(Ok(Vec::new()), checked_crls)?;
        let lists = (1..).zip(&crls).map(|(number, crl)| ListHead::read(crl, number));
        let mut verifier = Self {
            domains: Vec::new(),
            lists: lists.collect::<Result<_, _>>()?,
            root_hints: Vec::new(),
            algorithms: provider.signature_verification_algorithms,
        };
        for (trust_domain, certificates) in roots {
            if let Err(error) = spiffe::trust_domain(trust_domain.as_bytes()) {
                return Err(TlsConfigError::TrustDomain { trust_domain, error });
            }
            if certificates.is_empty() {
                return Err(TlsConfigError::NoRoots {
                    trust_domain: Some(trust_domain),
                });
            }
            let mut roots = Vec::new();
            for (index, certificate) in certificates.into_iter().enumerate() {
                let root = Root::new(certificate, &crls, provider).map_err(|fault| TlsConfigError::Root {
                    trust_domain: trust_domain.clone(),
                    number: index + 1,
                    fault,
                })?;
                roots.push(root);
            }
            verifier.bind(trust_domain, roots, lifetime_max_days)?;
        }
        let roots = || verifier.domains.iter().flat_map(|domain| &domain.roots);
        for (number, list) in (1..).zip(&verifier.lists) {
            list.check_signed(number, roots().map(|root| &*root.der))?;
        }
        Ok(verifier)
    }

    /// When its roots and lists expire.
    pub(super) fn expiries(&self) -> impl Iterator<Item = Expiry> {
        self.domains
            .iter()
            .flat_map(|domain| {
                let trust_domain = &domain.rules.trust_domain;
                let roots = domain.roots.iter();
                roots.filter_map(move |root| {
                    let (_, x509) = X509Certificate::from_der(&root.der).ok()?;
                    Some(Expiry::of("roots", format!("a root of {trust_domain}"), &x509))
                })
            })
            .chain(self.lists.iter().filter_map(ListHead::expiry))
    }

    /// Whether it would answer every question as another does.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let roots = |verifier: &Self| -> Vec<_> {
            let domains = verifier.domains.iter();
            let roots = domains.flat_map(|domain| {
                domain
                    .roots
                    .iter()
                    .map(|root| (domain.rules.clone(), root.der.clone()))
            });
            roots.collect()
        };
        roots(self) == roots(other) && self.lists == other.lists
    }

    /// Whether its revocation lists may take the place of another's.
    pub(super) fn may_follow(&self, held: &Self, now_unix_s: i64) -> Result<(), TlsConfigError> {
        may_follow(&self.lists, &held.lists, now_unix_s)
    }

    fn bind(
        &mut self,
        trust_domain: String,
        roots: Vec<Root>,
        lifetime_max_days: u32,
    ) -> Result<(), TlsConfigError> {
        for root in &roots {
            let bound_elsewhere = self.domains.iter().find(|domain| {
                *domain.rules.trust_domain != *trust_domain
                    && domain
                        .roots
                        .iter()
                        .any(|other| other.public_key == root.public_key)
            });
            if let Some(domain) = bound_elsewhere {
                let first = domain.rules.trust_domain.to_string();
                return Err(TlsConfigError::RootBoundTwice {
                    first,
                    second: trust_domain,
                });
            }
            self.root_hints
                .extend_from_slice(root.verifier.root_hint_subjects());
        }
        match self
            .domains
            .iter_mut()
            .find(|domain| *domain.rules.trust_domain == *trust_domain)
        {
            Some(domain) => domain.roots.extend(roots),
            None => self.domains.push(Domain {
                rules: CertRules {
                    trust_domain: trust_domain.into(),
                    lifetime_max_days,
                },
                roots,
            }),
        }
        Ok(())
    }

    /// Every rule of ours that a chain keeps or breaks, the leaf first; by the rules of the trust domain that it claims,
    /// where that is bound here, and of the first otherwise. What webpki has to say [`Self::identify`] tells.
    pub fn examine(&self, chain: &[CertificateDer<'_>], now_unix_s: i64) -> Vec<Finding> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Vec::new();
        };
        let claimed = claimed_trust_domain(leaf).unwrap_or_default();
        let bound = self.domains.iter();
        let claimed = bound
            .clone()
            .find(|domain| *domain.rules.trust_domain == *claimed);
        let Some(domain) = claimed.or_else(|| self.domains.first()) else {
            return Vec::new();
        };
        let intermediates: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        examine(leaf, &intermediates, now_unix_s, &domain.rules)
    }

    /// Who a chain speaks for, the leaf first, or why a handshake with it would be refused.
    pub fn identify(
        &self,
        chain: &[CertificateDer<'_>],
        now_unix_s: i64,
    ) -> Result<Identity, RefusedHandshake> {
        let now = Duration::from_secs(now_unix_s.try_into().unwrap_or(0));
        self.verify(chain, UnixTime::since_unix_epoch(now))
            .map_err(|refused| refused.handshake)
    }

    /// Who a chain speaks for, the leaf first. That the client has the leaf's key is for the handshake to show.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, Box<Refused>> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            let handshake = RefusedHandshake::no_certificate();
            return Err(Box::new(Refused {
                handshake,
                alerting: Error::NoCertificatesPresented,
            }));
        };
        let broke = |refusal: Refusal| {
            let handshake = RefusedHandshake::by_our_rules(&refusal, describe(leaf));
            Box::new(Refused {
                handshake,
                alerting: alerting(refusal),
            })
        };
        let claimed = claimed_trust_domain(leaf).map_err(broke)?;
        let Some(domain) = self
            .domains
            .iter()
            .find(|domain| *domain.rules.trust_domain == *claimed)
        else {
            let bound = self.domains.iter().map(|domain| &*domain.rules.trust_domain);
            return Err(broke(Refusal::unbound_trust_domain(&claimed, bound)));
        };
        let root = domain.vouching_root(leaf, intermediates, now).map_err(|error| {
            let handshake = RefusedHandshake::new(&error, Some(describe(leaf)));
            Box::new(Refused {
                handshake,
                alerting: error,
            })
        })?;
        if root.not_after_unix_s < unix_s(now) {
            return Err(broke(Refusal::Expired {
                certificate: Position::Root,
                not_after_unix_s: root.not_after_unix_s,
                now_unix_s: unix_s(now),
            }));
        }
        let intermediates: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let mut identity =
            Identity::from_chain(leaf, &intermediates, unix_s(now), &domain.rules).map_err(broke)?;
        identity.expires_unix_s = identity.expires_unix_s.min(root.not_after_unix_s);
        Ok(identity)
    }
}

impl Domain {
    /// The root at which the chain ends: one that has not expired, if there is one.
    fn vouching_root(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<&Root, Error> {
        let mut expired = None;
        let mut refused = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        for root in &self.roots {
            match root.verifier.verify_client_cert(leaf, intermediates, now) {
                Ok(_) if root.not_after_unix_s < unix_s(now) => expired = Some(root),
                Ok(_) => return Ok(root),
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                Err(error) => refused = error,
            }
        }
        expired.ok_or(refused)
    }
}

impl Root {
    fn new(
        certificate: CertificateDer<'static>,
        crls: &[CertificateRevocationListDer<'static>],
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let Ok(([], x509)) = X509Certificate::from_der(&certificate) else {
            return Err("it is not a DER certificate".to_owned());
        };
        if !x509.is_ca() {
            return Err("it is not a CA certificate (basicConstraints CA:TRUE)".to_owned());
        }
        let public_key = x509.public_key().raw.to_vec();
        let not_after_unix_s = x509.validity().not_after.timestamp();
        let mut store = RootCertStore::empty();
        store
            .add(certificate.clone())
            .map_err(|error| error.to_string())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider.clone())
            .with_crls(crls.iter().cloned())
            .enforce_revocation_expiration()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            verifier,
            der: certificate,
            public_key,
            not_after_unix_s,
        })
    }
}

/// The revocation lists, if there are some.
fn checked_crls(
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsConfigError> {
    if crls.is_empty() {
        return Err(TlsConfigError::NoCrls);
    }
    Ok(crls)
}

fn unix_s(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// What operators have revoked of a client whose chain is good otherwise.
pub(super) fn revoked(
    list: &Revoked,
    identity: &Identity,
    chain: &[CertificateDer<'_>],
) -> Option<RefusedHandshake> {
    let fingerprints = chain.iter().map(|certificate| fingerprint(certificate));
    let entry = list.find(identity, fingerprints)?;
    Some(RefusedHandshake {
        rule: "revoked",
        message: format!(
            "{} is revoked here by {}: {}",
            entry.what, entry.who, entry.reason
        ),
        whose: chain.first().map(|leaf| describe(leaf)),
    })
}

/// The SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = ring::digest::digest(&SHA256, certificate);
    digest.as_ref().try_into().expect("a SHA-256 has so many bytes")
}

/// The verifier of one handshake, which remembers what it saw.
#[derive(Debug)]
pub(super) struct OneHandshake {
    verifier: Arc<ClientVerifier>,
    revoked: Arc<Revoked>,
    seen: OnceLock<Seen>,
}

/// A chain that was shown, and what became of it.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) whose: String,
    pub(super) outcome: Result<Identity, RefusedHandshake>,
}

impl OneHandshake {
    pub(super) fn new(verifier: Arc<ClientVerifier>, revoked: Arc<Revoked>) -> Self {
        Self {
            verifier,
            revoked,
            seen: OnceLock::new(),
        }
    }

    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.get()
    }
}

impl ClientCertVerifier for OneHandshake {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.verifier.root_hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let mut chain = vec![end_entity.clone()];
        chain.extend_from_slice(intermediates);
        let (outcome, answer) = match self.verifier.verify(&chain, now) {
            Ok(identity) => match revoked(&self.revoked, &identity, &chain) {
                None => (Ok(identity), Ok(ClientCertVerified::assertion())),
                Some(refused) => (
                    Err(refused),
                    Err(Error::InvalidCertificate(CertificateError::Revoked)),
                ),
            },
            Err(refused) => (Err(refused.handshake), Err(refused.alerting)),
        };
        match self.seen.set(Seen {
            whose: describe(end_entity),
            outcome,
        }) {
            Ok(()) => answer,
            Err(_) => Err(Error::General("a handshake shows one chain".to_owned())),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.verifier.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.verifier.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.algorithms.supported_schemes()
    }
}
