//! A certificate authority in a folder, for development and tests: one root, and what it issues.
//!
//! It makes only certificates that the broker accepts. A private key is never readable by others, not even
//! while it is written, and nothing is overwritten unless the caller says so. It never reads the clock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::cli::inventory::{names, root_of};
use crate::identity::Role;
use crate::identity::spiffe::{self, SpiffeError};
use crate::limits::{CERT_BACKDATE_S, CERT_LIFE_DAYS_ISSUED, CERT_LIFE_DAYS_MAX, ROOT_LIFE_DAYS_ISSUED};
use crate::net::tls::read_certificates;

const CA: &str = "ca";
const SERVER: &str = "server";
const DAY_S: i64 = 86_400;

/// A root certificate with its key, in a folder.
pub struct Authority {
    dir: PathBuf,
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How a certificate is issued.
#[derive(Debug, Clone, Copy)]
pub struct Issue {
    /// When it is issued, in seconds since 1970.
    pub now_unix_s: i64,
    /// How long it is valid, in days.
    pub days: u32,
    /// Whether a certificate of the same identity may be replaced.
    pub force: bool,
}

impl Issue {
    /// Issues for [`CERT_LIFE_DAYS_ISSUED`], and replaces nothing.
    pub fn at(now_unix_s: i64) -> Self {
        Self {
            now_unix_s,
            days: CERT_LIFE_DAYS_ISSUED,
            force: false,
        }
    }
}

/// The files of a new certificate.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM (PKCS #8), readable by its owner alone.
    pub key: PathBuf,
    /// When it expires, in seconds since 1970.
    pub not_after_unix_s: i64,
}

/// Why the authority could not do it. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A name or trust domain that is not allowed.
    #[error("{name:?} cannot be used: {error}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        error: SpiffeError,
    },
    /// A server name that is neither a DNS name nor an address.
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    /// A name whose files are used by something else.
    #[error("{file} is for {taken_by}; choose another name, since both would be kept there")]
    Taken {
        /// The file.
        file: String,
        /// Whose it is.
        taken_by: String,
    },
    /// A life that is not allowed.
    #[error("a certificate is valid for 1 to {CERT_LIFE_DAYS_MAX} days, not {0}")]
    Days(u32),
    /// A file that would be overwritten.
    #[error("{0} exists; use --force to replace it")]
    Exists(String),
    /// There is no authority in the folder.
    #[error(
        "no authority in {dir} ({error}); make one with `exocom certs init --trust-domain NAME --dir {dir}`"
    )]
    NoAuthority {
        /// The folder.
        dir: String,
        /// What could not be read.
        error: String,
    },
    /// The root is there, its key is not.
    #[error("cannot read {file}: {error}; without the root's key nothing can be issued")]
    NoKey {
        /// The file of the key.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// A certificate or key of the authority that is not one of ours.
    #[error("{file} cannot be used: {fault}")]
    Unusable {
        /// The file.
        file: String,
        /// What is wrong.
        fault: String,
    },
    /// The system could not write or read.
    #[error("cannot {verb} {file}: {error}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// The cryptography failed.
    #[error("cannot make the certificate: {0}")]
    Crypto(String),
}

impl Authority {
    /// Makes a root for a trust domain in a folder, which is made too where it is missing. On return root and
    /// key are on disk.
    pub fn init(dir: &Path, trust_domain: &str, issue: Issue) -> Result<Self, AuthorityError> {
        if let Err(error) = spiffe::trust_domain(trust_domain.as_bytes()) {
            return Err(AuthorityError::Name {
                name: trust_domain.to_owned(),
                error,
            });
        }
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
        let mut params = params(
            &format!("{trust_domain} root"),
            issue.now_unix_s,
            ROOT_LIFE_DAYS_ISSUED,
        )?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
        let key = KeyPair::generate().map_err(crypto)?;
        let root = params.self_signed(&key).map_err(crypto)?;
        write_pair(dir, CA, &root.pem(), &key.serialize_pem(), issue.force)?;
        Self::open(dir)
    }

    /// Opens the authority in a folder.
    pub fn open(dir: &Path) -> Result<Self, AuthorityError> {
        let (trust_domain, root) = root_of(dir)?;
        let (_, key_file) = files(dir, CA);
        let key = fs::read_to_string(&key_file).map_err(|error| AuthorityError::NoKey {
            file: key_file.display().to_string(),
            error,
        })?;
        let key = KeyPair::from_pem(&key).map_err(|error| unusable_file(&key_file, &error.to_string()))?;
        if !belongs(&root, &key) {
            return Err(unusable_file(&key_file, "it is not the key of ca.pem"));
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(crypto)?;
        Ok(Self {
            dir: dir.to_owned(),
            trust_domain,
            issuer,
        })
    }

    /// The trust domain of everything that it issues.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The file of the root certificate.
    pub fn root_file(&self) -> PathBuf {
        root_file(&self.dir)
    }

    /// Issues a certificate to a service.
    pub fn issue_service(&self, name: &str, issue: Issue) -> Result<Issued, AuthorityError> {
        let role = Role::service(name).map_err(|error| AuthorityError::Name {
            name: name.to_owned(),
            error,
        })?;
        self.issue_client(name, &role, issue)
    }

    /// Issues a certificate to an operator.
    pub fn issue_operator(&self, name: &str, issue: Issue) -> Result<Issued, AuthorityError> {
        let role = Role::operator(name).map_err(|error| AuthorityError::Name {
            name: name.to_owned(),
            error,
        })?;
        self.issue_client(name, &role, issue)
    }

    /// Issues the broker's own certificate, for this machine and further DNS names or IP addresses.
    pub fn issue_server(&self, names: &[String], issue: Issue) -> Result<Issued, AuthorityError> {
        let mut params = params("ExoCom", issue.now_unix_s, checked_days(issue)?)?;
        let local = ["localhost", "127.0.0.1", "::1"];
        for name in local.into_iter().chain(names.iter().map(String::as_str)) {
            let name = server_name(name)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(SERVER, params, issue)
    }

    /// Issues a certificate anew: to whom that of a file was issued, for as long, with another key. The old one stays
    /// valid until it expires.
    pub fn renew(&self, name: &str, now_unix_s: i64, days: Option<u32>) -> Result<Issued, AuthorityError> {
        let (file, _) = files(&self.dir, name);
        let chain = read_certificates(&file).map_err(|error| unusable_file(&file, &error.to_string()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| unusable_file(&file, "it has no certificate"))?;
        let issue = Issue {
            now_unix_s,
            days: days.unwrap_or_else(|| life_days(leaf)),
            force: true,
        };
        let (uris, hosts) = names(leaf);
        let id = format!("spiffe://{}/", self.trust_domain);
        match uris.as_slice() {
            [uri] => match uri
                .strip_prefix(&id)
                .map(|role| role.strip_prefix("operator/").ok_or(role))
            {
                Some(Ok(operator)) if operator == name => self.issue_operator(name, issue),
                Some(Err(service)) if service == name => self.issue_service(name, issue),
                _ => Err(unusable_file(
                    &file,
                    &format!(
                        "it is for {uri}, not for {name} of {}; issue it anew",
                        self.trust_domain
                    ),
                )),
            },
            [] if name == SERVER => self.issue_server(&hosts, issue),
            _ => Err(unusable_file(
                &file,
                "it was not issued by `exocom certs`; issue one anew",
            )),
        }
    }

    fn issue_client(&self, name: &str, role: &Role, issue: Issue) -> Result<Issued, AuthorityError> {
        if name == CA || name == SERVER {
            let (certificate, _) = files(&self.dir, name);
            let taken_by = if name == CA {
                "the root"
            } else {
                "the broker's own certificate"
            };
            return Err(AuthorityError::Taken {
                file: certificate.display().to_string(),
                taken_by: taken_by.to_owned(),
            });
        }
        let id = format!("spiffe://{}/{role}", self.trust_domain);
        self.check_free_for(name, &id)?;
        let mut params = params(name, issue.now_unix_s, checked_days(issue)?)?;
        params.subject_alt_names = vec![uri(&id)?];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(name, params, issue)
    }

    /// A service and an operator of one name would share a file; the second is refused, even with `force`.
    fn check_free_for(&self, name: &str, id: &str) -> Result<(), AuthorityError> {
        let (file, _) = files(&self.dir, name);
        let Ok(chain) = read_certificates(&file) else {
            return Ok(());
        };
        let names = chain.first().map(|leaf| names(leaf).0).unwrap_or_default();
        if names.iter().any(|name| name == id) {
            return Ok(());
        }
        Err(AuthorityError::Taken {
            file: file.display().to_string(),
            taken_by: names.join(", "),
        })
    }

    fn issue(
        &self,
        name: &str,
        mut params: CertificateParams,
        issue: Issue,
    ) -> Result<Issued, AuthorityError> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let not_after_unix_s = params.not_after.unix_timestamp();
        let key = KeyPair::generate().map_err(crypto)?;
        let leaf = params.signed_by(&key, &self.issuer).map_err(crypto)?;
        write_pair(&self.dir, name, &leaf.pem(), &key.serialize_pem(), issue.force)?;
        let (certificate, key) = files(&self.dir, name);
        Ok(Issued {
            certificate,
            key,
            not_after_unix_s,
        })
    }
}

/// The file of a folder's root certificate.
pub fn root_file(dir: &Path) -> PathBuf {
    files(dir, CA).0
}

/// Whether a folder's root has a key there that others than its owner can read.
pub fn key_is_exposed(dir: &Path) -> bool {
    fs::metadata(files(dir, CA).1).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// What every certificate has: a name for people, a random serial number, a life.
fn params(common_name: &str, now_unix_s: i64, days: u32) -> Result<CertificateParams, AuthorityError> {
    let not_before_unix_s = now_unix_s.saturating_sub(CERT_BACKDATE_S);
    let moment = |unix_s: i64| {
        OffsetDateTime::from_unix_timestamp(unix_s).map_err(|error| AuthorityError::Crypto(error.to_string()))
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(not_before_unix_s)?;
    params.not_after = moment(not_before_unix_s.saturating_add(i64::from(days) * DAY_S))?;
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// 128 random bits, of which the first two make the number positive and of full length.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| AuthorityError::Crypto("the system gives no randomness".to_owned()))?;
    let [first, ..] = &mut bytes;
    *first = *first & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// For how many days a certificate is valid in all.
fn life_days(certificate: &CertificateDer<'_>) -> u32 {
    let Ok((_, x509)) = X509Certificate::from_der(certificate) else {
        return CERT_LIFE_DAYS_ISSUED;
    };
    let validity = x509.validity();
    let life_s = validity.not_after.timestamp() - validity.not_before.timestamp();
    u32::try_from(life_s / DAY_S)
        .unwrap_or(0)
        .clamp(1, CERT_LIFE_DAYS_MAX)
}

fn checked_days(issue: Issue) -> Result<u32, AuthorityError> {
    match issue.days {
        days @ 1..=CERT_LIFE_DAYS_MAX => Ok(days),
        days => Err(AuthorityError::Days(days)),
    }
}

fn uri(id: &str) -> Result<SanType, AuthorityError> {
    Ok(SanType::URI(id.try_into().map_err(crypto)?))
}

fn server_name(name: &str) -> Result<SanType, AuthorityError> {
    use rustls::pki_types::DnsName;
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let unfit = || AuthorityError::ServerName(name.to_owned());
    DnsName::try_from(name).map_err(|_| unfit())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| unfit())?))
}

fn belongs(root: &CertificateDer<'_>, key: &KeyPair) -> bool {
    use rcgen::PublicKeyData;
    X509Certificate::from_der(root)
        .is_ok_and(|(_, x509)| x509.public_key().raw == key.subject_public_key_info())
}

/// The files of a certificate and its key.
fn files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")))
}

/// Writes a certificate and its key. Returns after both, and their names, are on disk.
fn write_pair(
    dir: &Path,
    name: &str,
    certificate: &str,
    key: &str,
    force: bool,
) -> Result<(), AuthorityError> {
    let (certificate_file, key_file) = files(dir, name);
    for file in [&certificate_file, &key_file] {
        if !force && file.symlink_metadata().is_ok() {
            return Err(AuthorityError::Exists(file.display().to_string()));
        }
    }
    write_file(dir, &key_file, key.as_bytes(), 0o600, force)?;
    write_file(dir, &certificate_file, certificate.as_bytes(), 0o644, force)?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Writes a file for its owner alone, whole or not at all. Returns after it is on disk.
pub(super) fn write_secret(file: &Path, bytes: &[u8], force: bool) -> Result<(), AuthorityError> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = dir.unwrap_or(Path::new("."));
    write_file(dir, file, bytes, 0o600, force)?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

/// Writes a file whole or not at all. It is created with mode 0600, and gets `mode` before its name.
fn write_file(dir: &Path, file: &Path, bytes: &[u8], mode: u32, force: bool) -> Result<(), AuthorityError> {
    let written = (|| {
        let mut temporary = tempfile::Builder::new()
            .prefix(".exocom-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(dir)?;
        temporary.write_all(bytes)?;
        temporary
            .as_file()
            .set_permissions(fs::Permissions::from_mode(mode))?;
        temporary.as_file().sync_all()?;
        Ok(temporary)
    })();
    let temporary = written.map_err(failed("write", file))?;
    let named = if force {
        temporary.persist(file)
    } else {
        temporary.persist_noclobber(file)
    };
    match named {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
            Err(AuthorityError::Exists(file.display().to_string()))
        }
        Err(error) => Err(failed("write", file)(error.error)),
    }
}

pub(super) fn failed(verb: &'static str, file: &Path) -> impl Fn(io::Error) -> AuthorityError {
    let file = file.display().to_string();
    move |error| AuthorityError::Io {
        verb,
        file: file.clone(),
        error,
    }
}

pub(super) fn unusable_file(file: &Path, fault: &str) -> AuthorityError {
    AuthorityError::Unusable {
        file: file.display().to_string(),
        fault: fault.to_owned(),
    }
}

fn crypto(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Crypto(error.to_string())
}
