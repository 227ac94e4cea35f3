//! What a relay needs to know, from the environment or from the program, made valid in one place.
//!
//! Reads the files of the credentials to find mistakes early, and keeps only their paths: they are read again
//! at each connection, so that renewed certificates are used.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_nats::rustls::crypto::CryptoProvider;
use async_nats::rustls::pki_types::pem::PemObject;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{ClientConfig, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::checkpoint::{Keep, LogKey};
use crate::error::Error;
use crate::event::Event;
use crate::limits;
use crate::name::check_name;
use crate::relay::ExoRelay;

const SERVICE_NAME: &str = "SERVICE_NAME";
const HOST: &str = "EXOCOM_HOST";
const PORT: &str = "EXOCOM_PORT";
const CA: &str = "EXOCOM_CA";
const CERT: &str = "EXOCOM_CERT";
const KEY: &str = "EXOCOM_KEY";
const CHECKPOINT: &str = "EXOCOM_CHECKPOINT";
const LOG_KEY: &str = "EXOCOM_LOG_KEY";

pub(crate) type OnEvent = Arc<dyn Fn(&Event) + Send + Sync>;

/// How a relay connects and works. Start from [`Options::from_env`] or [`Options::new`].
#[derive(Clone)]
#[must_use = "options do nothing until `connect`"]
pub struct Options {
    pub(crate) service: Option<String>,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) waits_for_broker: bool,
    pub(crate) concurrency: usize,
    pub(crate) waiting_max: usize,
    pub(crate) answer_within: Duration,
    pub(crate) extend_for: Duration,
    pub(crate) online_within: Duration,
    pub(crate) shutdown_within: Duration,
    pub(crate) on_event: Option<OnEvent>,
    /// Where the checkpoint is kept, and the file of the log's key.
    checkpoint: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// From the environment: `EXOCOM_CA`, `EXOCOM_CERT` and `EXOCOM_KEY` name files in PEM; `EXOCOM_HOST`
    /// (default `localhost`) and `EXOCOM_PORT` (default 4222) say where the broker is; `SERVICE_NAME`, where it
    /// is set, must be the service that the certificate names. `EXOCOM_CHECKPOINT` and `EXOCOM_LOG_KEY`, where they are
    /// set, are those of [`keep_checkpoint`](Self::keep_checkpoint).
    ///
    /// # Errors
    /// [`Error::Setting`] names the variable that is missing or wrong.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_lookup(|name| match std::env::var(name) {
            Ok(value) => Ok(Some(value)),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err("is not valid UTF-8".to_owned()),
        })
    }

    /// From the program: the broker's root certificate, and this service's certificate and key, as files in PEM.
    pub fn new(ca: impl Into<PathBuf>, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            service: None,
            host: "localhost".to_owned(),
            port: 4222,
            ca: ca.into(),
            certificate: certificate.into(),
            key: key.into(),
            waits_for_broker: false,
            concurrency: limits::CONCURRENCY,
            waiting_max: limits::WAITING_MAX,
            answer_within: limits::ANSWER_WITHIN,
            extend_for: limits::EXTEND_FOR,
            online_within: limits::ONLINE_WITHIN,
            shutdown_within: limits::SHUTDOWN_WITHIN,
            on_event: None,
            checkpoint: None,
        }
    }

    fn from_lookup(lookup: impl Fn(&str) -> Result<Option<String>, String>) -> Result<Self, Error> {
        let get = |setting: &'static str| match lookup(setting) {
            Ok(value) => Ok(value.filter(|value| !value.is_empty())),
            Err(problem) => Err(Error::Setting { setting, problem }),
        };
        let file = |setting: &'static str, remedy: &str| {
            let problem = format!(
                "is not set; it names {remedy}. `exocom dev` and `exocom certs` make such files for development"
            );
            get(setting)?.ok_or(Error::Setting { setting, problem })
        };
        let mut options = Self::new(
            file(CA, "the file of the broker's root certificate")?,
            file(CERT, "the file of this service's certificate")?,
            file(KEY, "the file of this service's private key")?,
        );
        options.service = get(SERVICE_NAME)?;
        if let Some(host) = get(HOST)? {
            options.host = host;
        }
        if let Some(port) = get(PORT)? {
            options.port = port.parse().map_err(|_| Error::Setting {
                setting: PORT,
                problem: format!("must be a port, 1 to 65535, not {port:?}"),
            })?;
        }
        options.checkpoint = match (get(CHECKPOINT)?, get(LOG_KEY)?) {
            (Some(file), Some(key)) => Some((file.into(), key.into())),
            (None, None) => None,
            (file, _) => {
                let (setting, other) = if file.is_some() {
                    (LOG_KEY, CHECKPOINT)
                } else {
                    (CHECKPOINT, LOG_KEY)
                };
                let problem = format!("is not set, and {other} is: they go together");
                return Err(Error::Setting { setting, problem });
            }
        };
        Ok(options)
    }

    /// Keeps the newest checkpoint of the broker's audit log in a file, and has it proven at each connection, and each
    /// minute, that the log continues it. Whoever rewrites the log, even with its secret key, is noticed:
    /// [`Event::HistoryRewritten`]. `log_key` is the file of the log's public key, `log.pub`, as you got it from whom you
    /// trust. Instances of a service may share the file.
    pub fn keep_checkpoint(mut self, file: impl Into<PathBuf>, log_key: impl Into<PathBuf>) -> Self {
        self.checkpoint = Some((file.into(), log_key.into()));
        self
    }

    /// Which service this is. The certificate says so by itself; a name that is not the certificate's is an
    /// error of [`connect`](Self::connect), instead of a riddle later.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// Where the broker is: a DNS name or an IP address, and a port. The broker's certificate must be for that
    /// name.
    pub fn broker(mut self, host: impl Into<String>, port: u16) -> Self {
        self.host = host.into();
        self.port = port;
        self
    }

    /// Makes [`connect`](Self::connect) return before there is a connection, however long the broker takes to
    /// come up. Wrong options are still errors at once. See [`ExoRelay::online`] to wait for it.
    pub fn wait_for_broker(mut self) -> Self {
        self.waits_for_broker = true;
        self
    }

    /// How many messages of one handler are worked on at the same time; 64 unless set.
    pub fn concurrency(mut self, messages: usize) -> Self {
        self.concurrency = messages;
        self
    }

    /// How many messages wait for a free place of one handler; 1024 unless set. Requests beyond that are
    /// answered with [`Error::Overloaded`] at once, events are dropped and reported as [`Event::Dropped`];
    /// tracked messages are refused, and ExoCom delivers them again later.
    pub fn waiting(mut self, messages: usize) -> Self {
        self.waiting_max = messages;
        self
    }

    /// How long a request waits for its answer at most. Unless set, that is left to the policy's
    /// `reply-within`, whose end ExoCom tells as [`Error::Expired`].
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// How long ExoCom is told that a tracked message is still being worked on (`+WPI`, each third of the policy's
    /// `ack-within` or `reply-within`, from when it came); an hour unless set, zero for never. After that ExoCom
    /// takes the attempt for failed when its time is up, and makes another.
    pub fn extend_for(mut self, time: Duration) -> Self {
        self.extend_for = time;
        self
    }

    /// How long a message waits for a connection, where there is none, before [`Error::Offline`]; three seconds
    /// unless set.
    pub fn online_within(mut self, time: Duration) -> Self {
        self.online_within = time;
        self
    }

    /// How long [`ExoRelay::shutdown`] waits for the handlers; eight seconds unless set.
    pub fn shutdown_within(mut self, time: Duration) -> Self {
        self.shutdown_within = time;
        self
    }

    /// Is told what happens to the relay. Called one event at a time; it should not take long.
    pub fn on_event(mut self, listener: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Arc::new(listener));
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// [`Error::Setting`] and [`Error::Credentials`] for options that cannot work, [`Error::Connect`] where the
    /// broker is not there or refuses the service.
    pub async fn connect(self) -> Result<ExoRelay, Error> {
        ExoRelay::with_options(self).await
    }

    /// The address as the client library wants it.
    pub(crate) fn url(&self) -> Result<String, Error> {
        let is_plain = |host: &str| {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
        };
        if !is_plain(&self.host) {
            return Err(Error::Setting {
                setting: HOST,
                problem: format!("must be a DNS name or an IP address, not {:?}", self.host),
            });
        }
        if self.port == 0 {
            return Err(Error::Setting {
                setting: PORT,
                problem: "must be a port, 1 to 65535, not 0".to_owned(),
            });
        }
        let (open, close) = if self.host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        Ok(format!("tls://{open}{}{close}:{}", self.host, self.port))
    }

    /// Checks the options and what the files hold, and says whose the certificate is.
    pub(crate) fn check(&self) -> Result<Credentials, Error> {
        if self.concurrency == 0 {
            return Err(Error::Setting {
                setting: "concurrency",
                problem: "must be at least 1".to_owned(),
            });
        }
        self.url()?;
        let roots = certificates(CA, &self.ca)?;
        let chain = certificates(CERT, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read(KEY, &self.key)?).map_err(|error| {
            unusable(
                KEY,
                &self.key,
                &format!("it holds no private key in PEM ({error})"),
            )
        })?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store
                .add(root)
                .map_err(|error| unusable(CA, &self.ca, &error.to_string()))?;
        }
        let service = self.service_of(chain.first())?;
        let (expires_unix_s, life_s) = chain
            .first()
            .and_then(|leaf| validity(leaf))
            .unwrap_or((i64::MAX, 0));
        ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.3")
            .with_root_certificates(store)
            .with_client_auth_cert(chain, key)
            .map_err(|error| unusable(KEY, &self.key, &format!("{error}; is it the key of EXOCOM_CERT?")))?;
        Ok(Credentials {
            service,
            expires_unix_s,
            life_s,
        })
    }

    /// Where the checkpoint is kept, if it is, with the key that the file holds.
    pub(crate) fn keep(&self) -> Result<Option<Keep>, Error> {
        let Some((file, log_key)) = &self.checkpoint else {
            return Ok(None);
        };
        let text = read(LOG_KEY, log_key)?;
        let key = std::str::from_utf8(&text).ok().and_then(LogKey::parse);
        let problem = "it holds no public key of an audit log, as the file log.pub in the log's folder does";
        let key = key.ok_or_else(|| unusable(LOG_KEY, log_key, problem))?;
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(unusable(CHECKPOINT, file, "its folder does not exist; make it"));
        }
        Ok(Some(Keep {
            file: file.clone(),
            key,
        }))
    }

    /// The service that the certificate names: the broker believes nothing else.
    fn service_of(&self, certificate: Option<&CertificateDer<'_>>) -> Result<String, Error> {
        let named = certificate.and_then(|certificate| spiffe_service(certificate)).ok_or_else(|| {
            unusable(
                CERT,
                &self.certificate,
                "it names no service; it needs the URI spiffe://TRUST-DOMAIN/SERVICE as subject alternative name",
            )
        })?;
        match &self.service {
            Some(service) if *service != named => Err(Error::Setting {
                setting: SERVICE_NAME,
                problem: format!(
                    "is {service:?}, but {} is the certificate of {named}; use the service's own",
                    self.certificate.display()
                ),
            }),
            _ => Ok(named),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("service", &self.service)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("ca", &self.ca)
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The process's default provider, which the client library takes too; `ring` where the program has installed none.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    if let Some(provider) = CryptoProvider::get_default() {
        return Arc::clone(provider);
    }
    let provider = async_nats::rustls::crypto::ring::default_provider();
    // Another thread may have been first; then its provider is the default.
    drop(provider.install_default());
    Arc::clone(CryptoProvider::get_default().expect("one was installed just now, or before"))
}

/// Whose a certificate is, and how long it is valid.
pub(crate) struct Credentials {
    pub(crate) service: String,
    /// In seconds since 1970.
    pub(crate) expires_unix_s: i64,
    /// From its first to its last moment, in seconds.
    pub(crate) life_s: i64,
}

/// When a certificate expires, and how long it was valid in all.
fn validity(certificate: &[u8]) -> Option<(i64, i64)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let (from, until) = (
        certificate.validity().not_before,
        certificate.validity().not_after,
    );
    Some((until.timestamp(), until.timestamp() - from.timestamp()))
}

fn spiffe_service(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (_, service) = uris.next()?.strip_prefix("spiffe://")?.split_once('/')?;
    let is_one = uris.next().is_none();
    (is_one && !service.contains('.') && check_name(service).is_ok()).then(|| service.to_owned())
}

fn certificates(setting: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(setting, file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(setting, file, "it holds no certificate in PEM")),
        Err(error) => Err(unusable(setting, file, &error.to_string())),
    }
}

fn read(setting: &'static str, file: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|opened| {
            opened
                .take(limits::PEM_FILE_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(|error| unusable(setting, file, &error.to_string()))?;
    if bytes.len() as u64 > limits::PEM_FILE_BYTES_MAX {
        return Err(unusable(
            setting,
            file,
            "it is far too large for certificates or a key",
        ));
    }
    Ok(bytes)
}

fn unusable(setting: &'static str, file: &Path, problem: &str) -> Error {
    Error::Credentials {
        setting,
        file: file.display().to_string(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> Result<Options, Error> {
        Options::from_lookup(|wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        })
    }

    const FILES: [(&str, &str); 3] = [(CA, "ca.pem"), (CERT, "web.pem"), (KEY, "web.key")];

    #[test]
    fn the_environment_needs_the_files_and_has_defaults_for_the_rest() {
        let options = from(&FILES).unwrap();
        assert_eq!(options.url().unwrap(), "tls://localhost:4222");
        assert_eq!(options.key, Path::new("web.key"));
        for (missing, _) in FILES {
            let others: Vec<_> = FILES.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = from(&others).unwrap_err();
            assert!(
                matches!(error, Error::Setting { setting, .. } if setting == missing),
                "{error}"
            );
            let empty: Vec<_> = others.into_iter().chain([(missing, "")]).collect();
            assert!(from(&empty).is_err());
        }
    }

    #[test]
    fn where_the_broker_is() {
        let check = |host: &str, port: &str, expected: Option<&str>| {
            let variables: Vec<_> = FILES.into_iter().chain([(HOST, host), (PORT, port)]).collect();
            let url = from(&variables).and_then(|options| options.url());
            assert_eq!(url.ok().as_deref(), expected, "{host} {port}");
        };
        check("127.0.0.1", "4300", Some("tls://127.0.0.1:4300"));
        check("exocom.internal", "1", Some("tls://exocom.internal:1"));
        check("::1", "4300", Some("tls://[::1]:4300"));
        check("user@host", "4300", None);
        check("host/path", "4300", None);
        check("host", "0", None);
        check("host", "65536", None);
        check("host", "http", None);
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let error = from(&FILES).unwrap().check().err().unwrap();
        assert!(
            matches!(&error, Error::Credentials { setting: CA, file, .. } if file == "ca.pem"),
            "{error}"
        );
    }
}
