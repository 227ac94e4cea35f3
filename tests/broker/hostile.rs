//! Hostile input: what comes from a client that lies, breaks, floods or does not read. The right answer, and
//! nobody else notices.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::support::{Broker, PATIENCE, wait_for};

/// A policy with one who may send, one who may receive, and one who may do nothing but connect.
const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place"]

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

/// A client that makes its own TLS records, and so can break them.
struct Forger {
    tls: ClientConnection,
    socket: TcpStream,
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
        Self { tls, socket }
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
    let mut mallory = Forger::connect(&broker, broker.tls("mallory"));
    let hello = mallory.records(b"CONNECT {}\r\n");
    mallory.socket.write_all(&hello).expect("the connection is open");
    wait_for("mallory to be ready", || {
        broker.status()["connections"]
            .as_array()
            .is_some_and(|all| all.len() == 3)
    });
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
