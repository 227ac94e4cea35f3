//! A nats-server as a child process, with the certificates and the permissions of one of our brokers: the oracle
//! for what a NATS server does. Nothing here judges.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::wait_for;

/// The binary: `EXOCOM_NATS_SERVER`, or what `scripts/setup` put into `.venv`, or the one of the `PATH`.
pub fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("EXOCOM_NATS_SERVER").map(PathBuf::from);
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/nats-server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    named
        .into_iter()
        .chain([installed])
        .chain(on_path)
        .find(|file| file.is_file())
}

/// A running nats-server; it goes when it is dropped.
pub struct NatsServer {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl NatsServer {
    /// Starts one with this configuration, which should not say where to listen. It is kept in `folder`.
    pub fn start(binary: &Path, folder: &Path, config: &str) -> Self {
        let file = folder.join("nats.conf");
        fs::write(&file, format!("listen: \"127.0.0.1:-1\"\n{config}")).expect("the folder takes a file");
        let log = folder.join("nats.log");
        let child = Command::new(binary)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("the folder takes a file"))
            .spawn()
            .expect("the binary can be run");
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            log,
        };
        wait_for("nats-server to be ready", || {
            let log = server.log();
            if let Some(address) = log.lines().find_map(|line| {
                line.split_once("Listening for client connections on ")?
                    .1
                    .trim()
                    .parse()
                    .ok()
            }) {
                server.address = address;
            }
            log.contains("Server is ready")
        });
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- nats-server's log ---\n{}", self.log());
        }
    }
}

/// What one service may do, as both servers are told it.
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// What it may send.
    pub sends: &'static [&'static str],
    /// What it may receive.
    pub receives: &'static [&'static str],
    /// What it may not receive all the same.
    pub except: &'static [&'static str],
}

/// Our policy for these services, in which no answer comes too late.
pub fn policy(services: &[Service]) -> String {
    let mut text =
        "version = 1\ntrust-domain = \"oracle.example\"\n\n[message.\">\"]\nreply-within = \"1h\"\n"
            .to_owned();
    for service in services {
        text += &format!(
            "\n[service.{}]\nsends = {:?}\nreceives = {:?}\nreceives-except = {:?}\n",
            service.name, service.sends, service.receives, service.except
        );
    }
    text
}

/// A configuration for nats-server that grants the same: mutual TLS from the first byte, the identity from the
/// certificate, one answer for each request. `certs` is where our broker's certificates lie.
pub fn config(services: &[Service], certs: &Path, payload_bytes_max: usize) -> String {
    let file = |name: &str| certs.join(name).display().to_string();
    let users: String = services
        .iter()
        .map(|service| {
            let inboxes = ["_INBOX", "_INBOX.>"];
            let hears: Vec<_> = service.receives.iter().chain(&inboxes).collect();
            format!(
                "{{ user: \"spiffe://oracle.example/{}\", permissions: {{\n\
                   publish: {{ allow: {:?} }}, subscribe: {{ allow: {hears:?}, deny: {:?} }},\n\
                   allow_responses: {{ max: 1, expires: \"1h\" }} }} }}\n",
                service.name, service.sends, service.except
            )
        })
        .collect();
    format!(
        "max_payload: {payload_bytes_max}\nmax_control_line: 4096\nping_interval: \"1h\"\nwrite_deadline: \"1m\"\n\
         tls {{\n  cert_file: {:?}\n  key_file: {:?}\n  ca_file: {:?}\n  verify_and_map: true\n  \
         handshake_first: true\n  timeout: 60\n}}\n\
         authorization {{ timeout: 60, users: [\n{users}] }}\n",
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    )
}
