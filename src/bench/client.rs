//! One connection of the load generator: TLS, the protocol's greeting, batches in and out.
//!
//! A link never waits while it has something to read or write; its callers choose when to await its socket.

use std::io::{self, BufRead, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::bench::BenchError;
use crate::bench::board::PATIENCE_S;
use crate::bench::protocol::{self, Found, ServerOp};

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tls {
    /// Before anything else
    First,
    /// After the server's INFO, for old servers
    Upgrade,
    /// Never: plain TCP
    None,
}

/// A server to play against, and how to reach it.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// When TLS begins.
    pub tls: Tls,
    /// Where `ca.pem` and, for each service, `NAME.pem` and `NAME.key` lie.
    pub certs: PathBuf,
    /// Whether it is ExoCom, which stamps every message with its sender.
    pub is_exocom: bool,
}

/// Ciphertext read at once, in bytes. Enough for a receiver to keep up with any sender.
const READ_BYTES: usize = 64 << 10;

/// Connections that are opened at the same time: fewer than servers take half-open from one address.
static OPENING: Semaphore = Semaphore::const_new(64);

/// A connection that has greeted and been greeted.
pub(super) struct Link {
    who: String,
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    cipher: Vec<u8>,
    inbox: Vec<u8>,
    /// Bytes of the inbox that are done with.
    read: usize,
    /// Bytes that the inbox must hold before it is worth reading.
    wanted: usize,
    out: Vec<u8>,
    sent: usize,
}

/// TLS for one service, made once for all its connections.
#[derive(Clone)]
pub(super) struct Badge {
    who: String,
    config: Option<Arc<ClientConfig>>,
    server_name: ServerName<'static>,
}

impl Badge {
    /// Reads a service's certificate.
    pub(super) fn read(target: &Target, who: &str) -> Result<Self, BenchError> {
        let host = target
            .address
            .rsplit_once(':')
            .map_or(target.address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| BenchError::Fixture(format!("{host:?} is neither a host name nor an address")))?;
        let config = match target.tls {
            Tls::None => None,
            Tls::First | Tls::Upgrade => Some(Arc::new(config(&target.certs, who)?)),
        };
        Ok(Self {
            who: who.to_owned(),
            config,
            server_name,
        })
    }
}

fn config(certs: &Path, who: &str) -> Result<ClientConfig, BenchError> {
    let files = |file: PathBuf| {
        move |fault: String| BenchError::Files {
            file: file.clone(),
            fault,
        }
    };
    let certificates = |name: &str| {
        let file = certs.join(format!("{name}.pem"));
        let fault = files(file.clone());
        let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&file)
            .map_err(|error| fault(error.to_string()))?
            .collect();
        read.map_err(|error| fault(error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("ca")? {
        let fault = files(certs.join("ca.pem"));
        roots.add(root).map_err(|error| fault(error.to_string()))?;
    }
    let key_file = certs.join(format!("{who}.key"));
    let fault = files(key_file.clone());
    let key = PrivateKeyDer::from_pem_file(&key_file).map_err(|error| fault(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| fault(error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(who)?, key)
        .map_err(|error| fault(error.to_string()))?;
    // Every handshake a whole one.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// One cipher suite alone, so that every server does the same work: the one that Go's servers choose.
fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![TLS13_AES_128_GCM_SHA256],
        ..rustls::crypto::ring::default_provider()
    }
}

impl Link {
    /// Connects, shakes hands, says `CONNECT` and waits for the first `PONG`.
    pub(super) async fn open(target: &Target, badge: &Badge) -> Result<Self, BenchError> {
        let patience = Duration::from_secs(PATIENCE_S);
        match tokio::time::timeout(patience, Self::greet(target, badge)).await {
            Ok(link) => link,
            Err(_) => Err(BenchError::Stuck(format!("{}: no connection", badge.who))),
        }
    }

    async fn greet(target: &Target, badge: &Badge) -> Result<Self, BenchError> {
        let lost = |error| BenchError::Lost {
            who: badge.who.clone(),
            error,
        };
        // Never closed.
        let _turn = OPENING.acquire().await;
        let mut socket = TcpStream::connect(&target.address)
            .await
            .map_err(|error| BenchError::Connect {
                address: target.address.clone(),
                error,
            })?;
        socket.set_nodelay(true).map_err(lost)?;
        if target.tls == Tls::Upgrade {
            read_info(&mut socket).await.map_err(lost)?;
        }
        let mut tls = None;
        if let Some(config) = &badge.config {
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector
                .connect(badge.server_name.clone(), socket)
                .await
                .map_err(lost)?;
            let (under, connection) = stream.into_inner();
            socket = under;
            tls = Some(Box::new(connection));
        }
        let mut link = Self {
            who: badge.who.clone(),
            socket,
            tls,
            cipher: Vec::new(),
            inbox: Vec::new(),
            read: 0,
            wanted: 1,
            out: Vec::new(),
            sent: 0,
        };
        link.out.extend_from_slice(
            b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"echo\":false,\
              \"protocol\":1,\"lang\":\"exocom-bench\",\"version\":\"1\",\"name\":\"exocom-bench\"}\r\n",
        );
        link.until_pong(|_, _| Err("a message before any subscription".to_owned()))
            .await?;
        Ok(link)
    }

    /// Subscribes, and knows when the server has it.
    pub(super) async fn subscribe(&mut self, pattern: &str, sid: usize) -> Result<(), BenchError> {
        self.out
            .extend_from_slice(format!("SUB {pattern} {sid}\r\n").as_bytes());
        self.until_pong(|_, _| Err("a message before any was sent".to_owned()))
            .await
    }

    /// Sends `PING` and handles what comes until its `PONG`: all that the server had for this link before.
    pub(super) async fn until_pong(
        &mut self,
        mut handle: impl FnMut(protocol::Message<'_>, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), BenchError> {
        self.out.extend_from_slice(b"PING\r\n");
        loop {
            self.write_all().await?;
            let pongs = self.turn(&mut handle)?.pongs;
            if pongs > 0 {
                return Ok(());
            }
            self.readable().await?;
        }
    }

    /// Reads once and handles every whole message; answers the server's `PING`. `handle` may append what is to
    /// be said.
    pub(super) fn turn(
        &mut self,
        handle: &mut impl FnMut(protocol::Message<'_>, &mut Vec<u8>) -> Result<(), String>,
    ) -> Result<Heard, BenchError> {
        let bytes = self.read()?;
        let mut heard = Heard { bytes, pongs: 0 };
        while self.inbox.len() - self.read >= self.wanted {
            let waiting = self.inbox.get(self.read..).unwrap_or_default();
            let found = protocol::read(waiting).map_err(|fault| BenchError::Protocol {
                who: self.who.clone(),
                fault,
            })?;
            match found {
                Found::Wants(bytes) => {
                    self.wanted = bytes;
                    break;
                }
                Found::Op(op, bytes) => {
                    match op {
                        ServerOp::Message(message) => {
                            handle(message, &mut self.out).map_err(|seen| BenchError::Violation {
                                who: self.who.clone(),
                                seen,
                            })?;
                        }
                        ServerOp::Ping => self.out.extend_from_slice(b"PONG\r\n"),
                        ServerOp::Pong => heard.pongs += 1,
                        ServerOp::Err(text) => {
                            return Err(BenchError::Refused {
                                who: self.who.clone(),
                                text: text.escape_ascii().to_string(),
                            });
                        }
                        ServerOp::Info | ServerOp::Ok => {}
                    }
                    self.read += bytes;
                    self.wanted = 1;
                }
            }
        }
        if self.read == self.inbox.len() {
            self.inbox.clear();
            self.read = 0;
        } else if self.read > READ_BYTES {
            self.inbox.drain(..self.read);
            self.read = 0;
        }
        Ok(heard)
    }

    /// Where to append what is to be said.
    pub(super) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes as much as the socket takes. Says whether that was all.
    pub(super) fn flush(&mut self) -> Result<bool, BenchError> {
        match self.try_flush() {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.lost(error)),
        }
    }

    /// Writes all there is, reading nothing meanwhile.
    pub(super) async fn write_all(&mut self) -> Result<(), BenchError> {
        while !self.flush()? {
            self.writable().await?;
        }
        Ok(())
    }

    /// Waits until the socket may have something.
    pub(super) async fn readable(&self) -> Result<(), BenchError> {
        self.socket.readable().await.map_err(|error| self.lost(error))
    }

    /// Waits until the socket may take something.
    pub(super) async fn writable(&self) -> Result<(), BenchError> {
        self.socket.writable().await.map_err(|error| self.lost(error))
    }

    /// Gives back all memory that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        for buffer in [&mut self.cipher, &mut self.inbox, &mut self.out] {
            *buffer = Vec::new();
        }
        self.read = 0;
        self.sent = 0;
    }

    fn lost(&self, error: io::Error) -> BenchError {
        BenchError::Lost {
            who: self.who.clone(),
            error,
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let mut socket = SocketWriter(&self.socket);
        loop {
            let waiting = self.out.get(self.sent..).unwrap_or_default();
            match &mut self.tls {
                None if waiting.is_empty() => break,
                None => self.sent += socket.write(waiting)?,
                Some(tls) if tls.wants_write() => {
                    tls.write_tls(&mut socket)?;
                }
                Some(_) if waiting.is_empty() => break,
                Some(tls) => self.sent += tls.writer().write(waiting)?,
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads once; an end is an error, since no scenario ends before its links do.
    fn read(&mut self) -> Result<usize, BenchError> {
        if self.cipher.is_empty() {
            self.cipher = vec![0; READ_BYTES];
        }
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server");
        let bytes = match self.socket.try_read(&mut self.cipher) {
            Ok(0) => return Err(self.lost(closed())),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(self.lost(error)),
        };
        let mut rest = self.cipher.get(..bytes).unwrap_or_default();
        let Some(tls) = &mut self.tls else {
            self.inbox.extend_from_slice(rest);
            return Ok(bytes);
        };
        let before = self.inbox.len();
        loop {
            let mut reader = tls.reader();
            while let Ok(chunk) = reader.fill_buf() {
                let bytes = chunk.len();
                if bytes == 0 {
                    break;
                }
                self.inbox.extend_from_slice(chunk);
                reader.consume(bytes);
            }
            if rest.is_empty() {
                break;
            }
            let processed = tls
                .read_tls(&mut rest)
                .and_then(|_| tls.process_new_packets().map_err(io::Error::other));
            if let Err(error) = processed {
                return Err(self.lost(error));
            }
        }
        Ok(self.inbox.len() - before)
    }
}

/// What one turn heard.
pub(super) struct Heard {
    pub(super) bytes: usize,
    pub(super) pongs: usize,
}

/// Reads the line that a server says before TLS, and not a byte more.
async fn read_info(socket: &mut TcpStream) -> io::Result<()> {
    use tokio::io::AsyncReadExt;
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        if line.len() > 16 << 10 {
            return Err(io::Error::other(
                "INFO has no end; does the server want TLS first?",
            ));
        }
        line.push(socket.read_u8().await?);
    }
    if line.starts_with(b"INFO ") {
        Ok(())
    } else {
        Err(io::Error::other("the server does not begin with INFO"))
    }
}

struct SocketWriter<'a>(&'a TcpStream);

impl Write for SocketWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
