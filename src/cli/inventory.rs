//! What lies in a folder of certificates: whose each is, and whether a broker would take it.
//!
//! Reads certificates and no private key, so that a folder without the root's key can be looked at. It changes
//! nothing and never reads the clock.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::cli::authority::{AuthorityError, failed, root_file, unusable_file};
use crate::identity::Role;
use crate::identity::spiffe::SpiffeId;
use crate::limits::CERT_LIFE_DAYS_MAX;
use crate::net::tls::{ClientVerifier, TlsConfigError, provider, read_certificates};

/// What is in one certificate file.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The file.
    pub file: PathBuf,
    /// What the certificate is for.
    pub kind: Kind,
    /// The URI of a client or root, the names of a server; escaped.
    pub identity: String,
    /// The serial number, in hexadecimal.
    pub serial: String,
    /// In seconds since 1970.
    pub not_before_unix_s: i64,
    /// In seconds since 1970.
    pub not_after_unix_s: i64,
    /// Why a broker with this root would refuse it, as rule and message. A server or root is asked for its
    /// validity only.
    pub refused: Option<(&'static str, String)>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `ca.pem`.
    Root,
    /// The broker itself.
    Server,
    /// A service.
    Service,
    /// An operator.
    Operator,
    /// None of these.
    Other,
}

/// All certificates of a folder, by file name. Files without a certificate are left out.
pub fn list(dir: &Path, now_unix_s: i64) -> Result<Vec<Listed>, AuthorityError> {
    let (trust_domain, root) = root_of(dir)?;
    let roots = vec![(trust_domain, vec![root])];
    let verifier = ClientVerifier::new(&provider(), roots, None, CERT_LIFE_DAYS_MAX)
        .map_err(|error| AuthorityError::Crypto(error.to_string()))?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("read", dir))? {
        let path = entry.map_err(failed("read", dir))?.path();
        if path.extension().is_some_and(|extension| extension == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut listed = Vec::new();
    for path in paths {
        match read_certificates(&path) {
            Ok(chain) => listed.push(describe_file(path, &chain, &verifier, now_unix_s)?),
            Err(TlsConfigError::Pem { .. }) => {}
            Err(error) => return Err(unusable_file(&path, &error.to_string())),
        }
    }
    Ok(listed)
}

/// The root of a folder and the trust domain that it names.
pub(super) fn root_of(dir: &Path) -> Result<(String, CertificateDer<'static>), AuthorityError> {
    let file = root_file(dir);
    let root = read_certificates(&file)
        .map_err(|error| AuthorityError::NoAuthority {
            dir: dir.display().to_string(),
            error: error.to_string(),
        })?
        .swap_remove(0);
    let trust_domain = trust_domain_of_root(&root)
        .ok_or_else(|| unusable_file(&file, "it does not name its trust domain in a URI SAN"))?;
    Ok((trust_domain, root))
}

fn trust_domain_of_root(root: &CertificateDer<'_>) -> Option<String> {
    let (uris, _) = names(root);
    let [uri] = uris.as_slice() else { return None };
    Some(SpiffeId::parse(uri.as_bytes()).ok()?.trust_domain().to_owned())
}

/// The URIs of a certificate, then its DNS names and addresses, all escaped.
pub(super) fn names(certificate: &CertificateDer<'_>) -> (Vec<String>, Vec<String>) {
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    let Ok((_, x509)) = X509Certificate::from_der(certificate) else {
        return (uris, hosts);
    };
    let san = x509.subject_alternative_name().ok().flatten();
    for name in san.iter().flat_map(|san| &san.value.general_names) {
        match name {
            GeneralName::URI(uri) => uris.push(uri.escape_default().to_string()),
            GeneralName::DNSName(host) => hosts.push(host.escape_default().to_string()),
            GeneralName::IPAddress(bytes) => hosts.extend(address(bytes)),
            _ => {}
        }
    }
    (uris, hosts)
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from);
    v4.or(v6).map(|address| address.to_string())
}

fn describe_file(
    file: PathBuf,
    chain: &[CertificateDer<'static>],
    verifier: &ClientVerifier,
    now_unix_s: i64,
) -> Result<Listed, AuthorityError> {
    let leaf = chain
        .first()
        .ok_or_else(|| unusable_file(&file, "it has no certificate"))?;
    let (_, x509) =
        X509Certificate::from_der(leaf).map_err(|_| unusable_file(&file, "it is not a DER certificate"))?;
    let (uris, hosts) = names(leaf);
    let role = match uris.as_slice() {
        [uri] => SpiffeId::parse(uri.as_bytes()).and_then(|id| id.role()).ok(),
        _ => None,
    };
    let is_server = x509
        .extended_key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.value.server_auth);
    let kind = match role {
        _ if x509.is_ca() => Kind::Root,
        _ if is_server && uris.is_empty() => Kind::Server,
        Some(Role::Service(_)) => Kind::Service,
        Some(Role::Operator(_)) => Kind::Operator,
        None => Kind::Other,
    };
    let not_before_unix_s = x509.validity().not_before.timestamp();
    let not_after_unix_s = x509.validity().not_after.timestamp();
    let refused = match kind {
        Kind::Root | Kind::Server if now_unix_s < not_before_unix_s => {
            Some(("not-yet-valid", "its validity has not begun".to_owned()))
        }
        Kind::Root | Kind::Server if now_unix_s > not_after_unix_s => Some((
            "expired",
            "it has expired; issue a new one with --force".to_owned(),
        )),
        Kind::Root | Kind::Server => None,
        _ => verifier
            .identify(chain, now_unix_s)
            .err()
            .map(|refused| (refused.rule, refused.message)),
    };
    Ok(Listed {
        kind,
        identity: if uris.is_empty() {
            hosts.join(", ")
        } else {
            uris.join(", ")
        },
        serial: x509
            .raw_serial()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        not_before_unix_s,
        not_after_unix_s,
        refused,
        file,
    })
}
