//! Hostile input: what comes from a client that lies, breaks, floods or does not read. The right answer, and
//! nobody else notices.

mod bounds;
mod bytes;
mod flood;
mod port;
mod shares;
mod waiting;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::support::{Broker, PATIENCE, wait_for};

/// A policy with one who may send, one who may receive, and one who may do nothing but connect.
const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.>"]

[service.orders]
receives = ["orders.>"]

[service.mallory]
"#;

/// A configuration with one thread, so that all connections share everything that a thread shares.
const ONE_THREAD: &str = r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"
threads = 1

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.main]
address = "127.0.0.1:0"
roots = ["certs/ca.pem"]

[limits]
lame-duck-ms = 0
"#;

/// A client that makes its own TLS records, and so can break them, and write without reading.
struct Forger {
    tls: ClientConnection,
    socket: TcpStream,
    /// Records that the socket has not taken yet.
    unsent: Vec<u8>,
}

impl Forger {
    fn connect(broker: &Broker, config: Arc<ClientConfig>) -> Self {
        let mut socket = TcpStream::connect(broker.address()).expect("the port is open");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let name = ServerName::try_from("localhost").expect("a DNS name");
        let mut tls = ClientConnection::new(config, name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).expect("a handshake");
        }
        Self {
            tls,
            socket,
            unsent: Vec::new(),
        }
    }

    /// Connects, says CONNECT, and waits until the broker has heard it.
    fn ready(broker: &Broker, service: &str) -> Self {
        let mut forger = Self::connect(broker, broker.tls(service));
        forger.push(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n");
        let heard = forger.read_until(|text| text.ends_with("PONG\r\n"));
        assert!(heard.starts_with("INFO "), "{heard}");
        forger
    }

    /// Writes bytes without reading. Says whether the socket took them all: not where the other side has not read
    /// for a second, or has closed.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let records = self.records(bytes);
        self.unsent.extend_from_slice(&records);
        self.push_unsent(Duration::from_secs(1))
    }

    fn push_unsent(&mut self, patience: Duration) -> bool {
        self.socket
            .set_write_timeout(Some(patience))
            .expect("a timeout can be set");
        while !self.unsent.is_empty() {
            match self.socket.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return false;
                }
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                    self.unsent.clear();
                    return false;
                }
                Err(error) => panic!("{error}"),
            }
        }
        true
    }

    /// Reads until the text so far is enough, or the other side closes; writes what is unsent meanwhile.
    fn read_until(&mut self, is_enough: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        while !is_enough(&text) {
            if !self.unsent.is_empty() {
                self.push_unsent(Duration::from_millis(1));
            }
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("{error} after {} bytes", text.len()),
            }
            let state = self.tls.process_new_packets().expect("good records");
            let mut bytes = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut bytes).expect("they are there");
            text.push_str(&String::from_utf8_lossy(&bytes));
            if state.peer_has_closed() {
                break;
            }
        }
        text
    }

    /// The TLS records of these bytes, not sent yet.
    fn records(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.tls.set_buffer_limit(None);
        self.tls.writer().write_all(bytes).expect("room without a limit");
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("a Vec takes all");
        }
        records
    }
}

/// Two clients of good will, who talk all the time: whatever a hostile one does, they must not notice.
struct Witness {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    fn start(broker: &Broker) -> Self {
        let [mut web, mut orders] = ["web", "orders"].map(|service| broker.raw_ready(service));
        orders.send(b"SUB orders.witness 1\r\nPING\r\n");
        assert_eq!(orders.line(), "PONG");
        let (rounds, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&rounds), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                let round = counted.load(Relaxed).to_string();
                web.send(format!("PUB orders.witness {}\r\n{round}\r\n", round.len()).as_bytes());
                let message = orders.message();
                assert!(
                    message.ends_with(&format!("\r\n\r\n{round}\r\n")),
                    "{message:?} in round {round}"
                );
                counted.fetch_add(1, Relaxed);
            }
        });
        Self {
            rounds,
            stop,
            thread: Some(thread),
        }
    }

    /// They have talked since this was asked.
    fn still_talks(&self, what: &str) {
        let before = self.rounds.load(Relaxed);
        wait_for(what, || {
            let has_ended = self.thread.as_ref().is_some_and(JoinHandle::is_finished);
            assert!(!has_ended, "the witness has failed: {what}");
            self.rounds.load(Relaxed) >= before + 2
        });
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(ended, Some(Ok(()))),
            "the witness has failed"
        );
    }
}

/// How often clients were refused by a rule.
fn refused(broker: &Broker, rule: &str) -> u64 {
    broker.status()["counts"]["refused"][rule].as_u64().unwrap_or(0)
}

fn connections(broker: &Broker) -> usize {
    broker.status()["connections"].as_array().expect("a list").len()
}

/// What the broker has in memory.
fn memory_kib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("the broker runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("Linux says it");
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse().ok())
        .expect("a number")
}

/// A configuration with these lines under `[limits]`.
fn limited(limits: &str) -> String {
    ONE_THREAD.replace("[limits]\n", &format!("[limits]\n{limits}\n"))
}
