//! How a connection begins: handshake, INFO, CONNECT.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use exocom::limits::{CONNECT_MS_MAX, HANDSHAKE_MS_MAX};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use serde_json::Value;

use super::*;
use crate::support::{PATIENCE, wait_for};

fn plain_socket(broker: &Broker, patience: Duration) -> TcpStream {
    let socket = TcpStream::connect(broker.address()).expect("the port is open");
    socket
        .set_read_timeout(Some(patience))
        .expect("a timeout can be set");
    socket
}

/// All that comes until the other side closes.
fn read_all(socket: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match socket.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    bytes
}

// protocol: P-001
#[test]
fn nothing_is_said_before_the_handshake_and_plain_text_is_not_answered() {
    let broker = Broker::dev(POLICY);
    let mut silent = plain_socket(&broker, Duration::from_millis(300));
    let error = silent.read(&mut [0; 1]).expect_err("nothing comes");
    assert!(
        matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{error}"
    );
    for text in ["CONNECT {}\r\nPING\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let mut plain = plain_socket(&broker, PATIENCE);
        plain.write_all(text.as_bytes()).expect("the socket is open");
        let answer = read_all(&mut plain);
        // A TLS alert at most: record type 21, and seven bytes long.
        assert!(
            answer.is_empty() || (answer[0] == 21 && answer.len() == 7),
            "{answer:?}"
        );
    }
}

fn client(
    broker: &Broker,
    versions: &[&'static rustls::SupportedProtocolVersion],
    shows: Option<&str>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(broker.cert("ca.pem")).expect("a root");
    roots.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(versions)
        .expect("ring has it")
        .with_root_certificates(roots);
    Arc::new(match shows {
        None => config.with_no_client_auth(),
        Some(service) => {
            let chain = CertificateDer::pem_file_iter(broker.cert(&format!("{service}.pem")))
                .and_then(Iterator::collect)
                .expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(broker.cert(&format!("{service}.key"))).expect("a key");
            config.with_client_auth_cert(chain, key).expect("a pair")
        }
    })
}

/// The first line, or why there is none.
fn first_line(broker: &Broker, tls: &Arc<ClientConfig>) -> std::io::Result<Option<String>> {
    Raw::connect(broker.address(), tls)?.try_line()
}

// protocol: P-002
#[test]
fn only_tls_1_3_is_spoken() {
    let broker = Broker::dev(POLICY);
    let new = client(&broker, &[&rustls::version::TLS13], Some("web"));
    let line = first_line(&broker, &new).expect("a handshake").expect("a line");
    assert!(line.starts_with("INFO "), "{line}");
    let old = client(&broker, &[&rustls::version::TLS12], Some("web"));
    let refused = first_line(&broker, &old).expect_err("no handshake");
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
}

// protocol: P-003
#[test]
fn without_a_certificate_there_is_no_handshake() {
    let broker = Broker::dev(POLICY);
    let nobody = client(&broker, &[&rustls::version::TLS13], None);
    let refused = first_line(&broker, &nobody).expect_err("no handshake");
    assert!(refused.to_string().contains("CertificateRequired"), "{refused}");
}

// protocol: P-004
#[test]
fn what_a_client_says_of_itself_changes_nothing() {
    let broker = Broker::dev(POLICY);
    let mut audit = broker.raw_ready("audit");
    does(&mut audit, "SUB news.> 1\r\n");
    let mut web = broker.raw("web");
    web.line();
    let claims = r#"{"verbose":false,"headers":true,"name":"audit","user":"audit","pass":"x","auth_token":"x","jwt":"x","nkey":"x","sig":"x"}"#;
    let heard_by_web = said(
        &mut web,
        format!("CONNECT {claims}\r\nSUB orders.> 1\r\nPUB news.x 0\r\n\r\n"),
    );
    assert_eq!(heard_by_web, [subscription_denied("orders.>")]);
    assert_eq!(
        header(&heard(&mut audit)[0], "Exo-Sender").as_deref(),
        Some("web")
    );
}

// protocol: P-005
#[test]
fn no_session_is_resumed() {
    let broker = Broker::dev(POLICY);
    // A client that would resume, were it given a ticket.
    let tls = broker.tls("web");
    for _ in 0..2 {
        let mut raw = Raw::connect(broker.address(), &tls).expect("a handshake");
        raw.hello();
        assert_eq!(raw.tls().handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(raw.tls().tls13_tickets_received(), 0);
    }
}

// protocol: P-006
#[test]
fn who_is_not_admitted_is_told_and_closed() {
    let check = |broker: &Broker, service: &str| {
        let said = broker.raw(service).rest();
        let (info, error) = said.split_once("\r\n").expect("two lines");
        assert!(info.starts_with("INFO {"), "{said}");
        assert_eq!(error, AUTHORIZATION_VIOLATION);
    };
    let broker = Broker::dev(POLICY);
    broker.change_policy(&POLICY.replace("[service.audit]", "[service.other]"));
    check(&broker, "audit");
    broker.raw_ready("web");
    let zoned = POLICY.replace("[service.web]", "[service.web]\nzone = \"dmz\"");
    let broker = Broker::serve(&zoned, &configuration("zone = \"core\"", ""));
    check(&broker, "web");
}

// protocol: P-008
#[test]
fn who_finds_no_room_is_told_to_come_back() {
    let limits = "connections = 3\nconnections-per-service = 2";
    let broker = Broker::serve(POLICY, &configuration("", limits));
    let full = |service: &str| {
        let said = broker.raw(service).rest();
        let (info, error) = said.split_once("\r\n").expect("two lines");
        assert!(info.starts_with("INFO {"), "{said}");
        assert_eq!(error, STALE);
    };
    let web = [broker.raw_ready("web"), broker.raw_ready("web")];
    full("web");
    let _orders = broker.raw_ready("orders");
    full("audit");
    drop(web);
    wait_for("their places", || {
        broker.status()["connections"].as_array().map(Vec::len) == Some(1)
    });
    broker.raw_ready("web");
}

// protocol: P-007
#[test]
fn a_handshake_that_takes_too_long_is_ended() {
    assert_eq!(HANDSHAKE_MS_MAX, 5_000);
    let broker = Broker::serve(POLICY, &configuration("", "handshake-ms = 300"));
    let mut silent = plain_socket(&broker, PATIENCE);
    assert!(read_all(&mut silent).is_empty());
    // The beginning of a record, and then nothing.
    let mut slow = plain_socket(&broker, PATIENCE);
    slow.write_all(&[22, 3, 1]).expect("the socket is open");
    assert!(read_all(&mut slow).is_empty());
}

fn info(broker: &Broker) -> Value {
    let line = broker.raw("web").line();
    serde_json::from_str(line.strip_prefix("INFO ").expect("INFO comes first")).expect("JSON")
}

// protocol: P-010, P-011, P-012, P-013
#[test]
fn info_says_what_clients_need() {
    let broker = Broker::dev(POLICY);
    let info = info(&broker);
    let mut fields: Vec<_> = info
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    fields.sort_unstable();
    let expected = [
        "client_id",
        "client_ip",
        "headers",
        "host",
        "max_payload",
        "port",
        "proto",
        "server_id",
        "server_name",
        "tls_required",
        "tls_verify",
        "version",
    ];
    assert_eq!(fields, expected);
    assert_eq!(info["proto"], 1);
    assert_eq!(
        (&info["headers"], &info["tls_required"], &info["tls_verify"]),
        (&true.into(), &true.into(), &true.into())
    );
    assert_eq!(info["client_ip"], "127.0.0.1");
    assert_eq!(info["port"], broker.address().port());
    let version: Vec<u32> = info["version"]
        .as_str()
        .expect("a text")
        .split('.')
        .map(|part| part.parse().expect("a number"))
        .collect();
    // Clients look for headers from 2.2.0, and for JetStream's replies from 2.9.0.
    assert!(version.len() == 3 && version >= vec![2, 9, 0], "{version:?}");
    assert_ne!(info["version"], env!("CARGO_PKG_VERSION"));
}

// protocol: P-014, P-043
#[test]
fn the_announced_payload_is_the_limit() {
    let broker = Broker::serve(POLICY, &configuration("", "payload-bytes = 100"));
    assert_eq!(info(&broker)["max_payload"], 100);
    let mut web = broker.raw_ready("web");
    does(&mut web, format!("PUB news.x 100\r\n{}\r\n", "x".repeat(100)));
    // Nothing of the payload is sent: the announcement is enough.
    assert_eq!(
        last_words(&broker, "web", "PUB news.x 101\r\n"),
        PAYLOAD_VIOLATION
    );
    assert_eq!(
        last_words(&broker, "web", "HPUB news.x 12 101\r\n"),
        PAYLOAD_VIOLATION
    );
    does(&mut web, "PUB news.x 0\r\n\r\n");
}

// protocol: P-020
#[test]
fn the_first_operation_is_connect() {
    let broker = Broker::dev(POLICY);
    // The last is not whole, and never will be.
    for first in [
        "PING\r\n",
        "PUB news.x 0\r\n\r\n",
        "SUB news.x 1\r\n",
        "\r\n",
        "P",
    ] {
        let mut raw = broker.raw("web");
        raw.line();
        raw.send(first.as_bytes());
        assert_eq!(raw.rest(), AUTHORIZATION_VIOLATION, "{first:?}");
    }
}

// protocol: P-021
#[test]
fn connect_takes_an_object() {
    let broker = Broker::dev(POLICY);
    for json in [
        "",
        "{",
        "[]",
        "null",
        "3",
        "{} x",
        r#"{"verbose":3}"#,
        r#"{"name":[]}"#,
    ] {
        let mut raw = broker.raw("web");
        raw.line();
        raw.send(format!("CONNECT {json}\r\n").as_bytes());
        assert_eq!(raw.rest(), AUTHORIZATION_VIOLATION, "{json:?}");
    }
}

// protocol: P-022, P-023
#[test]
fn fields_of_connect_have_defaults() {
    let broker = Broker::dev(POLICY);
    for json in ["{}", r#"{"verbose":null,"user":3,"headers":null}"#] {
        let mut raw = broker.raw("web");
        raw.line();
        raw.send(format!("CONNECT {json}\r\nSUB news.x 1\r\nPUB news.x 1\r\nx\r\nPING\r\n").as_bytes());
        // Verbose, with echo, and without headers.
        let heard: Vec<_> = std::iter::repeat_with(|| raw.message()).take(5).collect();
        assert_eq!(
            heard,
            ["+OK", "+OK", "+OK", "MSG news.x 1 1\r\nx\r\n", "PONG"],
            "{json}"
        );
    }
    let mut raw = broker.raw("web");
    raw.line();
    does(
        &mut raw,
        r#"connect {"Verbose":false,"ECHO":false,"name":"me","lang":"test","version":"1"}"#.to_owned()
            + "\r\n",
    );
    does(&mut raw, "SUB news.x 1\r\nPUB news.x 0\r\n\r\n");
    let status = broker.status();
    let connections = status["connections"].as_array().expect("a list");
    let seen: Vec<_> = connections
        .iter()
        .filter(|connection| connection["name"] == "me")
        .collect();
    assert_eq!(seen.len(), 1, "{status}");
    assert_eq!(seen[0]["client"], "test 1");
}

// protocol: P-024
#[test]
fn a_further_connect_changes_what_it_sets() {
    let broker = Broker::dev(POLICY);
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB news.x 1\r\n");
    does(&mut web, "CONNECT {\"echo\":false}\r\nPUB news.x 0\r\n\r\n");
    assert_eq!(
        said(&mut web, "CONNECT {\"echo\":true}\r\nPUB news.x 1\r\nx\r\n").len(),
        1
    );
    assert_eq!(
        said(&mut web, "CONNECT {\"verbose\":true}\r\nSUB news.y 2\r\n"),
        ["+OK", "+OK"]
    );
}

// protocol: P-027
#[test]
fn a_client_that_does_not_say_connect_is_closed() {
    assert_eq!(CONNECT_MS_MAX, 5_000);
    let broker = Broker::dev(POLICY);
    let mut raw = broker.raw("web");
    raw.line();
    assert_eq!(raw.rest(), STALE);
}
