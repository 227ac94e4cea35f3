//! The harness: a real broker as a child process, and clients for it. Nothing here judges; waits are generous,
//! since the machines are busy.

#![allow(dead_code, reason = "each module uses its own part of the harness")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long anything may take before the test gives up: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The example policy of the todo application.
pub const TODO_POLICY: &str = include_str!("todo.toml");

/// The binary under test.
pub const EXOCOM: &str = env!("CARGO_BIN_EXE_exocom");

/// A running broker with a folder of its own; both go when it is dropped.
pub struct Broker {
    child: Child,
    address: SocketAddr,
    addresses: Vec<SocketAddr>,
    folder: Arc<tempfile::TempDir>,
    start: Start,
    environment: Environment,
}

/// Variables for the broker's process.
pub type Environment = Vec<(&'static str, std::ffi::OsString)>;

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Dev,
    Serve,
}

impl Broker {
    /// `exocom dev` under a policy, on a free port, with certificates for everybody in it.
    pub fn dev(policy: &str) -> Self {
        Self::dev_at(policy, "127.0.0.1:0", Environment::new())
    }

    /// The same at an address, with variables in its environment.
    pub fn dev_at(policy: &str, listen: &str, environment: Environment) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("policy.toml"), policy).expect("the folder takes a file");
        Self::run(Arc::new(folder), Start::Dev, listen, environment)
    }

    /// `exocom serve` with a configuration, `policy.toml` beside it, and certificates under `certs/` that
    /// `exocom dev` made for the same policy. Listeners should ask for port 0: see [`Broker::addresses`].
    pub fn serve(policy: &str, config: &str) -> Self {
        Self::dev(policy).then_serve(config)
    }

    /// Goes on as `exocom serve` in the same folder, with a configuration.
    pub fn then_serve(mut self, config: &str) -> Self {
        self.stop();
        fs::write(self.path("serve.toml"), config).expect("the folder takes a file");
        let folder = Arc::clone(&self.folder);
        drop(self);
        Self::run(folder, Start::Serve, "", Environment::new())
    }

    fn run(folder: Arc<tempfile::TempDir>, start: Start, listen: &str, environment: Environment) -> Self {
        let dir = folder.path();
        let mut command = Command::new(EXOCOM);
        match start {
            Start::Dev => command
                .args(["dev", "--listen", listen, "--policy"])
                .arg(dir.join("policy.toml"))
                .arg("--dir")
                .arg(dir),
            Start::Serve => command.args(["serve", "--config"]).arg(dir.join("serve.toml")),
        };
        let log = File::options()
            .create(true)
            .append(true)
            .open(dir.join("log"))
            .expect("the folder takes a file");
        let before = fs::read_to_string(dir.join("log")).map_or(0, |log| log.len());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .env("NO_COLOR", "1")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .spawn()
            .expect("the binary was built for the tests");
        let output = child.stdout.take().expect("it was piped");
        let mut broker = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            addresses: Vec::new(),
            folder,
            start,
            environment,
        };
        match start {
            Start::Dev => {
                let (sender, lines) = mpsc::channel();
                std::thread::spawn(move || {
                    // Reads on when nobody waits any more: a full pipe would block the broker.
                    for line in BufReader::new(output).lines().map_while(Result::ok) {
                        drop(sender.send(line));
                    }
                });
                let line = lines
                    .recv_timeout(PATIENCE)
                    .unwrap_or_else(|error| panic!("no ready line ({error}); log:\n{}", broker.log()));
                let address = line.strip_prefix("ready ").expect("the first line says ready");
                broker.addresses = vec![address.parse().expect("an address follows")];
            }
            Start::Serve => {
                wait_for("the broker to be ready", || {
                    let log = broker.log();
                    let log = log.get(before..).unwrap_or_default();
                    broker.addresses = listening(log);
                    log.contains(" ready ")
                });
            }
        }
        broker.address = *broker.addresses.first().expect("there is a listener");
        broker
    }

    /// Where its first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its listeners listen, by the order of their names.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A file of its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// A file of its certificates, such as `web.pem`.
    pub fn cert(&self, name: &str) -> PathBuf {
        self.dir().join("certs").join(name)
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What `exocom status --json` says.
    pub fn status(&self) -> serde_json::Value {
        let output = Command::new(EXOCOM)
            .args(["status", "--json", "--admin"])
            .arg(self.path("admin.sock"))
            .output()
            .expect("the binary was built for the tests");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("status prints JSON")
    }

    /// Replaces its policy and waits until it is in force.
    pub fn change_policy(&self, policy: &str) {
        let before = self.status()["policy"]["version"].clone();
        let new = self.path("policy.new");
        fs::write(&new, policy).expect("the folder takes a file");
        fs::rename(new, self.path("policy.toml")).expect("the folder takes a file");
        wait_for("the new policy", || self.status()["policy"]["version"] != before);
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args(["-s", signal, &self.pid().to_string()])
            .status()
            .expect("kill is there");
        assert!(status.success(), "kill -s {signal}");
    }

    /// Ends it by SIGTERM and waits; says whether it ended well.
    pub fn stop(&mut self) -> bool {
        self.signal("TERM");
        self.wait()
    }

    /// Kills it, as if the power went but for the machine's memory, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits for its end; says whether it ended well.
    pub fn wait(&mut self) -> bool {
        let mut status = None;
        wait_for("the broker's end", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }

    /// Starts it again, in the same folder and on the same port.
    pub fn restart(self) -> Self {
        let environment = self.environment.clone();
        self.restart_with(environment)
    }

    /// The same with other variables in its environment.
    pub fn restart_with(mut self, environment: Environment) -> Self {
        if self.child.try_wait().expect("it is our child").is_none() {
            self.stop();
        }
        let (folder, start, listen) = (Arc::clone(&self.folder), self.start, self.address.to_string());
        drop(self);
        Self::run(folder, start, &listen, environment)
    }

    /// Options for the official Rust client, with a service's certificate.
    pub fn options(&self, service: &str) -> async_nats::ConnectOptions {
        async_nats::ConnectOptions::new()
            .require_tls(true)
            .tls_first()
            .add_root_certificates(self.cert("ca.pem"))
            .add_client_certificate(
                self.cert(&format!("{service}.pem")),
                self.cert(&format!("{service}.key")),
            )
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE))
    }

    /// The official Rust client, connected as a service.
    pub async fn client(&self, service: &str) -> async_nats::Client {
        self.options(service)
            .connect(self.url())
            .await
            .unwrap_or_else(|error| panic!("{service} cannot connect: {error}; log:\n{}", self.log()))
    }

    /// Its address as clients write it.
    pub fn url(&self) -> String {
        format!("tls://{}", self.address)
    }

    /// A raw connection as a service: TLS, and then bytes. The first line is INFO.
    pub fn raw(&self, service: &str) -> Raw {
        Raw::connect(self.address, &self.tls(service)).expect("a handshake with a good certificate")
    }

    /// A raw connection that has had INFO and sent CONNECT.
    pub fn raw_ready(&self, service: &str) -> Raw {
        let mut raw = self.raw(service);
        raw.hello();
        raw
    }

    /// The client's side of TLS for a service.
    pub fn tls(&self, service: &str) -> Arc<ClientConfig> {
        client_tls(
            &self.cert("ca.pem"),
            &self.cert(&format!("{service}.pem")),
            &self.cert(&format!("{service}.key")),
        )
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}", self.log());
        }
    }
}

/// The listeners' addresses, from the lines `listening listener="NAME" address=ADDRESS …`.
fn listening(log: &str) -> Vec<SocketAddr> {
    let lines = log.lines().filter(|line| line.contains("listening"));
    lines
        .filter_map(|line| {
            line.split("address=")
                .nth(1)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .collect()
}

/// A TLS client with a certificate from files.
pub fn client_tls(ca: &Path, certificate: &Path, key: &Path) -> Arc<ClientConfig> {
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .expect("a certificate in PEM");
    let key = PrivateKeyDer::from_pem_file(key).expect("a key in PEM");
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(ca).expect("a root in PEM") {
        roots
            .add(root.expect("a root in PEM"))
            .expect("a root that can be used");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a key that belongs to the certificate");
    Arc::new(config)
}

/// A raw connection: TLS, and then bytes.
pub struct Raw {
    stream: StreamOwned<ClientConnection, TcpStream>,
    read: Vec<u8>,
}

impl Raw {
    /// Shakes hands. In TLS 1.3 a server's refusal may come only with the first read.
    pub fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> std::io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, PATIENCE)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let connection = ClientConnection::new(Arc::clone(tls), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(connection, socket);
        stream.flush()?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Reads INFO, sends CONNECT with headers and no_responders, and waits for PONG.
    pub fn hello(&mut self) {
        let info = self.line();
        assert!(info.starts_with("INFO "), "{info}");
        self.send(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n");
        assert_eq!(self.line(), "PONG");
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the connection is open");
    }

    /// Sends bytes, where the other side may have closed.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// Reads a line, without its end.
    pub fn line(&mut self) -> String {
        self.try_line()
            .expect("a line comes")
            .expect("the connection is open")
    }

    /// Reads a line, without its end; `None` at the end of the connection.
    pub fn try_line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                return Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads exactly so many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert_ne!(self.fill().expect("bytes come"), 0, "the connection is open");
        }
        self.read.drain(..count).collect()
    }

    /// Reads a line, and with MSG and HMSG what belongs to it: line, headers and payload as one text.
    pub fn message(&mut self) -> String {
        self.try_message()
            .expect("a message comes")
            .expect("the connection is open")
    }

    /// The same; `None` where the connection ends before the message does.
    pub fn try_message(&mut self) -> std::io::Result<Option<String>> {
        let Some(line) = self.try_line()? else {
            return Ok(None);
        };
        let is_message = line.starts_with("MSG ") || line.starts_with("HMSG ");
        if !is_message {
            return Ok(Some(line));
        }
        let bytes: usize = line
            .rsplit(' ')
            .next()
            .and_then(|word| word.parse().ok())
            .expect("a size at the end");
        while self.read.len() < bytes + 2 {
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
        let body: Vec<u8> = self.read.drain(..bytes + 2).collect();
        Ok(Some(format!("{line}\r\n{}", String::from_utf8_lossy(&body))))
    }

    /// Reads until the other side closes.
    pub fn rest(&mut self) -> String {
        while self.fill().expect("the other side closes") > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    /// The TLS connection.
    pub fn tls(&self) -> &ClientConnection {
        &self.stream.conn
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut chunk = [0; 4096];
        let bytes = match self.stream.read(&mut chunk) {
            Ok(bytes) => bytes,
            // Closed without close_notify, or reset with bytes of ours unread.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset
                ) =>
            {
                0
            }
            Err(error) => return Err(error),
        };
        self.read
            .extend_from_slice(chunk.get(..bytes).unwrap_or_default());
        Ok(bytes)
    }
}

/// Waits until something holds; fails when it does not in time.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's patience is measured by the clock"
)]
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until something holds, and lets other tasks run meanwhile; fails when it does not in time.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's patience is measured by the clock"
)]
pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns when the broker has done everything that the client sent before: the client's own `flush` only
/// writes. It asks for what no policy of a test allows, and a connection's operations are done in order.
pub async fn round_trip(client: &async_nats::Client) {
    let refused = client.request("round.trip", bytes::Bytes::new()).await;
    let refused = refused.expect_err("no policy allows it");
    assert_eq!(refused.kind(), async_nats::RequestErrorKind::NoResponders);
}

/// How long the tests of one script may take.
const SCRIPT_PATIENCE: Duration = Duration::from_secs(300);

/// Runs tests in another language. They learn from variables where the broker is, and how to start others.
pub fn run_tests_against(broker: &Broker, command: &mut Command) {
    command
        .env("EXOCOM_PORT", broker.address().port().to_string())
        .env("EXOCOM_CERTS", broker.path("certs"))
        .env("EXOCOM_POLICY", broker.path("policy.toml"));
    run_tests(command);
}

/// Runs tests in another language that start their own brokers.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's patience is measured by the clock"
)]
pub fn run_tests(command: &mut Command) {
    let output = tempfile::NamedTempFile::new().expect("a temporary file");
    let file = output.reopen().expect("a file can be opened twice");
    let mut child = command
        .env("EXOCOM_BIN", EXOCOM)
        .stdin(Stdio::null())
        .stderr(file.try_clone().expect("a file can be opened twice"))
        .stdout(file)
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break Some(status),
            None if start.elapsed() > SCRIPT_PATIENCE => break None,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if status.is_none() {
        drop(child.kill());
        drop(child.wait());
    }
    let output = fs::read_to_string(output.path()).unwrap_or_default();
    match status {
        Some(status) => assert!(status.success(), "{status}:\n{output}"),
        None => panic!("not done after {SCRIPT_PATIENCE:?}:\n{output}"),
    }
    eprintln!("{output}");
}

/// Whether a test can run that needs something of this machine. Where it is missing, says so and skips, but
/// fails where everything must be there: `EXOCOM_TEST_REQUIRE_ALL=1`, which `scripts/test` sets.
pub fn has(what: &str, is_there: bool) -> bool {
    if !is_there {
        assert!(
            std::env::var_os("EXOCOM_TEST_REQUIRE_ALL").is_none(),
            "{what} is missing; run scripts/setup"
        );
        eprintln!("skipped: {what} is missing; run scripts/setup");
    }
    is_there
}
