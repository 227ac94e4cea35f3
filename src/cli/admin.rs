//! How a command reaches a running broker: the admin socket of this machine, or the admin listener by mutual TLS.
//!
//! Every command that speaks to a broker has [`AdminArgs`], so that all of them are told the same way where it is. It
//! only carries requests; what an operator may do the broker decides.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::cli::serve::{read_config, runtime};
use crate::console::client;
use crate::limits::HANDSHAKE_MS_MAX;
use crate::net::tls::{provider, read_certificates, read_private_key};

/// Where the broker is, and as whom to speak to it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which broker")]
pub struct AdminArgs {
    /// The broker's admin socket, its `dev` folder, or HOST:PORT of its admin listener; otherwise the socket of the
    /// configuration
    #[arg(long, value_name = "SOCKET|HOST:PORT", global = true)]
    admin: Option<String>,
    /// The configuration file that names the socket
    #[arg(long, value_name = "FILE", default_value = "exocom.toml", global = true)]
    config: PathBuf,
    /// With HOST:PORT: your certificate; otherwise $EXOCOM_CERT
    #[arg(long, value_name = "FILE", global = true)]
    cert: Option<PathBuf>,
    /// With HOST:PORT: its private key; otherwise $EXOCOM_KEY
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// With HOST:PORT: the root certificates that vouch for the broker; otherwise $EXOCOM_CA
    #[arg(long, value_name = "FILE", global = true)]
    roots: Option<PathBuf>,
}

/// A broker that can be asked.
#[derive(Debug)]
enum Target {
    Socket(PathBuf),
    Listener { host: String, address: String },
}

trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

impl AdminArgs {
    /// The configuration file that names the socket.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Asks the broker for something to look at.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let target = self.target()?;
        runtime()?.block_on(async {
            let stream = self.connect(&target).await?;
            client::get(stream, path, &user())
                .await
                .with_context(|| target.to_string())
        })
    }

    /// Gives the broker an order.
    pub fn post<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> anyhow::Result<T> {
        let target = self.target()?;
        runtime()?.block_on(async {
            let stream = self.connect(&target).await?;
            client::post(stream, path, &user(), order)
                .await
                .with_context(|| target.to_string())
        })
    }

    fn target(&self) -> anyhow::Result<Target> {
        let Some(admin) = &self.admin else {
            ensure!(
                self.config.exists(),
                "there is no {}; name the broker's socket with --admin, or its configuration with --config",
                self.config.display()
            );
            return Ok(Target::Socket(read_config(&self.config)?.admin_socket));
        };
        let path = Path::new(admin);
        if path.is_dir() {
            return Ok(Target::Socket(path.join("admin.sock")));
        }
        let named = admin
            .rsplit_once(':')
            .filter(|(host, port)| !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok());
        Ok(match named {
            Some((host, _)) if !path.exists() => Target::Listener {
                host: host.trim_matches(['[', ']']).to_owned(),
                address: admin.clone(),
            },
            _ => Target::Socket(path.to_owned()),
        })
    }

    async fn connect(&self, target: &Target) -> anyhow::Result<Box<dyn Stream>> {
        match target {
            Target::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
                    "{}: only the user that runs the broker, and root, may open this socket; from elsewhere use \
                     --admin HOST:PORT with your certificate",
                    path.display()
                ),
                Err(error) => bail!(
                    "{}: no broker answers there: {error}; is it running? `exocom serve` and `exocom dev` make this \
                     socket",
                    path.display()
                ),
            },
            Target::Listener { host, address } => {
                let tls = TlsConnector::from(Arc::new(self.tls()?));
                let name = ServerName::try_from(host.clone())
                    .with_context(|| format!("{host} is neither a DNS name nor an IP address"))?;
                let connecting = async {
                    let socket = TcpStream::connect(address.as_str()).await?;
                    tls.connect(name, socket).await
                };
                let stream = tokio::time::timeout(Duration::from_millis(2 * HANDSHAKE_MS_MAX), connecting)
                    .await
                    .with_context(|| format!("{address}: no answer in time"))?
                    .with_context(|| {
                        format!("{address}: cannot connect; is it the address of [admin] in the broker's configuration?")
                    })?;
                Ok(Box::new(stream))
            }
        }
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let file = |given: &Option<PathBuf>, option: &str, variable: &str, what: &str| {
            given
                .clone()
                .or_else(|| std::env::var_os(variable).map(PathBuf::from))
                .with_context(|| format!("which is {what}? Name its file with --{option} or ${variable}"))
        };
        let cert = file(&self.cert, "cert", "EXOCOM_CERT", "your certificate")?;
        let key = file(&self.key, "key", "EXOCOM_KEY", "your certificate's key")?;
        let roots_file = file(&self.roots, "roots", "EXOCOM_CA", "the broker's root certificate")?;
        let mut roots = RootCertStore::empty();
        for root in read_certificates(&roots_file)? {
            roots
                .add(root)
                .with_context(|| format!("{}: not a root certificate", roots_file.display()))?;
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(read_certificates(&cert)?, read_private_key(&key)?)
            .with_context(|| format!("{}: not the key of {}", key.display(), cert.display()))?;
        Ok(config)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Listener { address, .. } => f.write_str(address),
        }
    }
}

/// What the person at the command line is called. The socket lets in only the user that runs the broker, and root:
/// this tells people apart who share one, and is believed no further. With a certificate it does not count.
fn user() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    user.unwrap_or_default()
}
