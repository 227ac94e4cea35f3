//! Hostile input: what comes from a client that lies, breaks, floods or does not read. The right answer, and
//! nobody else notices.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
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
        forger.push(b"CONNECT {\"headers\":true,\"no_responders\":true}\r\nPING\r\n");
        let heard = forger.read_until(|text| text.ends_with("PONG\r\n"));
        assert!(heard.starts_with("INFO "), "{heard}");
        forger
    }

    /// Writes bytes without reading. Says whether the socket took them all: not where the other side has not read
    /// for a second.
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
        self.tls.writer().write_all(bytes).expect("room");
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).expect("a Vec takes all");
        }
        records
    }
}

#[test]
fn what_a_broken_connection_left_is_never_read_as_anothers() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut orders = broker.raw_ready("orders");
    orders.send(b"SUB orders.place 1\r\nPING\r\n");
    assert_eq!(orders.line(), "PONG");
    let mut web = broker.raw_ready("web");
    let mut mallory = Forger::ready(&broker, "mallory");
    // A good record that the TLS library gives out, and in the same segment one that breaks when it is whole.
    let forged = [
        b"PING\r\n".repeat(650).as_slice(),
        b"PUB orders.place 6\r\nforged\r\n",
    ]
    .concat();
    let mut bytes = mallory.records(&forged);
    bytes.extend_from_slice(&[0x17, 3, 3, 8, 0]);
    bytes.extend_from_slice(&[0; 2048]);
    mallory.socket.write_all(&bytes).expect("the connection is open");
    wait_for("mallory to be cut", || {
        broker.status()["connections"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    });
    web.send(b"PUB orders.place 4\r\ntrue\r\nPING\r\n");
    assert_eq!(web.line(), "PONG");
    let message = orders.message();
    assert!(message.ends_with("true\r\n"), "{message}");
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_read_either() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut orders = broker.raw_ready("orders");
    let mut mallory = Forger::ready(&broker, "mallory");
    let before_kib = memory_kib(&broker);
    // Each of these is answered with seven times its size.
    let block = b"PUB a 0\r\n\r\n".repeat(1_000);
    let mut blocks = 1;
    while mallory.push(&block) {
        blocks += 1;
        assert!(
            blocks < 10_000,
            "the broker has read 110 MB of a client that reads nothing"
        );
    }
    let grown_kib = memory_kib(&broker).saturating_sub(before_kib);
    assert!(grown_kib < 80 << 10, "grown by {grown_kib} KiB");
    orders.send(b"PING\r\n");
    assert_eq!(orders.line(), "PONG", "others are served");
    // Nothing is lost: once it reads, all is answered.
    mallory.push(b"PING\r\n");
    let heard = mallory.read_until(|text| text.ends_with("PONG\r\n"));
    assert_eq!(heard.matches("-ERR").count(), blocks * 1_000);
    wait_for("nothing to wait", || {
        broker.status()["counts"]["waiting_bytes"] == 0
    });
}

#[test]
fn the_last_words_reach_a_client_that_reads_late() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut mallory = Forger::ready(&broker, "mallory");
    let mut denied = 0;
    while broker.status()["counts"]["waiting_bytes"] == 0 {
        assert!(
            mallory.push(&b"PUB a 0\r\n\r\n".repeat(1_000)),
            "the broker reads"
        );
        denied += 1_000;
    }
    assert!(mallory.push(b"NONSENSE\r\n"));
    let heard = mallory.read_until(|_| false);
    assert_eq!(heard.matches("Permissions Violation").count(), denied);
    assert!(
        heard.ends_with("-ERR 'Unknown Protocol Operation'\r\n"),
        "{}",
        heard.len()
    );
}

#[test]
fn what_has_ended_holds_no_socket_and_no_memory() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut web = broker.raw_ready("web");
    let open = |broker: &Broker| {
        let files = std::fs::read_dir(format!("/proc/{}/fd", broker.pid()));
        files.expect("the broker runs").count()
    };
    let before = open(&broker);
    for round in 0..50 {
        // Web's route to each name leads to a receiver that is gone in the next round.
        let mut orders = broker.raw_ready("orders");
        orders.send(b"SUB orders.> 1\r\nPING\r\n");
        assert_eq!(orders.line(), "PONG");
        web.send(format!("PUB orders.n{round} 1\r\nx\r\nPING\r\n").as_bytes());
        assert_eq!(web.line(), "PONG");
        assert!(orders.message().ends_with("x\r\n"));
    }
    wait_for("the receivers to be gone", || connections(&broker) == 1);
    wait_for("their sockets to be closed", || open(&broker) <= before + 1);
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

#[test]
fn one_service_cannot_take_all_connections_and_who_finds_no_room_may_try_again() {
    let broker = Broker::serve(POLICY, &limited("connections = 4\nconnections-per-service = 2"));
    let mallory = [broker.raw_ready("mallory"), broker.raw_ready("mallory")];
    let refused = |service: &str| {
        let heard = broker.raw(service).rest();
        heard.ends_with("-ERR 'Stale Connection'\r\n") && heard.starts_with("INFO ")
    };
    assert!(refused("mallory"));
    let others = [broker.raw_ready("web"), broker.raw_ready("orders")];
    assert!(refused("web"), "four are all there may be");
    let counts = broker.status()["counts"]["refused"].clone();
    assert_eq!(
        (&counts["connections-per-service"], &counts["connections"]),
        (&1.into(), &1.into())
    );
    drop(mallory);
    wait_for("their places", || connections(&broker) == 2);
    broker.raw_ready("mallory");
    drop(others);
}

#[test]
fn nobody_can_fill_the_disk_with_lines_of_the_log() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let lines = |word: &str| broker.log().lines().filter(|line| line.contains(word)).count();
    // Strangers: a line each at first, and then some a second, while all are counted.
    for _ in 0..1_000 {
        let mut stranger = TcpStream::connect(broker.address()).expect("the port is open");
        stranger
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("the connection is open");
        let mut heard = Vec::new();
        // An alert, or a reset.
        drop(stranger.read_to_end(&mut heard));
    }
    assert_eq!(broker.status()["counts"]["refused"]["not-tls"], 1_000);
    let told = lines("handshake refused");
    assert!((100..700).contains(&told), "{told} lines");
    // A service: the same for what it is denied, and none of the strangers' lines is its own.
    let mut mallory = broker.raw_ready("mallory");
    for number in 0..1_000 {
        mallory.send(format!("PUB made.up{number} 0\r\n\r\n").as_bytes());
        assert!(mallory.line().contains("Permissions Violation"));
    }
    let told = lines(" denied ");
    assert!((100..700).contains(&told), "{told} lines");
    let flows = broker.status()["flows"].clone();
    let flows = flows.as_array().expect("a list");
    let denied: u64 = flows.iter().filter_map(|flow| flow["denied"].as_u64()).sum();
    assert_eq!(denied, 1_000);
    assert!(flows.len() <= 101, "{} flows", flows.len());
    // What was withheld is told with the next line.
    wait_for("a line with the number", || {
        mallory.send(b"SUB made.up 1\r\n");
        assert!(mallory.line().contains("Permissions Violation"));
        lines("withheld=") > 0
    });
    // Another service still has lines of its own.
    let mut web = broker.raw_ready("web");
    web.send(b"PUB made.up 0\r\n\r\n");
    assert!(web.line().contains("Permissions Violation"));
    wait_for("its line", || lines("sender=web action=") == 1);
}
