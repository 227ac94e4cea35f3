//! Bytes that a client with a session should not send: the right answer, closed where nats-server closes, and two
//! others who talk all the time.

use super::*;

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// This error, and the end.
    Closed(&'static str),
    /// The end.
    Cut,
    /// This many lines of error, and the connection goes on.
    GoesOn(usize),
}
use Then::{Closed, Cut, GoesOn};

const UNKNOWN: Then = Closed("-ERR 'Unknown Protocol Operation'");
const TOO_LARGE: Then = Closed("-ERR 'Maximum Payload Violation'");

fn cases() -> Vec<(&'static str, Vec<u8>, Then)> {
    let mut cases: Vec<(&'static str, Vec<u8>, Then)> = Vec::new();
    let mut add = |what, bytes: &[u8], then| cases.push((what, bytes.to_vec(), then));
    // Lengths that lie.
    add("a payload longer than it says", b"PUB a 1\r\nxyz\r\n", UNKNOWN);
    add(
        "a payload shorter than it says",
        b"PUB a 5\r\nx\r\nPING\r\nPING\r\n",
        UNKNOWN,
    );
    add("a negative length", b"PUB a -1\r\n", UNKNOWN);
    add("a length in hexadecimal", b"PUB a 0x1\r\nx\r\n", UNKNOWN);
    add("a length with a sign", b"PUB a +1\r\nx\r\n", UNKNOWN);
    add("a length of no number", b"PUB a b\r\n", UNKNOWN);
    add(
        "a length beyond all numbers",
        b"PUB a 99999999999999999999\r\n",
        UNKNOWN,
    );
    add("a length beyond 32 bits", b"PUB a 4294967297\r\nx\r\n", UNKNOWN);
    add("one byte too many", b"PUB a 1048577\r\n", TOO_LARGE);
    add("far too many", b"PUB a 999999999\r\n", TOO_LARGE);
    add("headers longer than the whole", b"HPUB a 5 4\r\n", UNKNOWN);
    add("headers beyond their bound", b"HPUB a 65537 65537\r\n", TOO_LARGE);
    // Words too many and too few.
    add("no subject", b"PUB\r\n", UNKNOWN);
    add("no length", b"PUB a\r\n", UNKNOWN);
    add("a word too many", b"PUB a b c 1\r\nx\r\n", UNKNOWN);
    add("a subscription without an id", b"SUB a\r\n", UNKNOWN);
    add("a subscription with a word too many", b"SUB a b c d\r\n", UNKNOWN);
    add("an end of nothing", b"UNSUB\r\n", UNKNOWN);
    add(
        "an id too long",
        &[b"SUB a ".as_slice(), &[b'1'; 65], b"\r\n"].concat(),
        UNKNOWN,
    );
    // Lines too long.
    add(
        "a line without an end",
        &[b"PUB ".as_slice(), &[b'a'; 5000]].concat(),
        UNKNOWN,
    );
    add(
        "a subject of 4,000 bytes",
        &[b"PUB ".as_slice(), &[b'a'; 4000], b" 0\r\n\r\n"].concat(),
        GoesOn(1),
    );
    add(
        "a pattern of 4,000 bytes",
        &[b"SUB ".as_slice(), &b"a.".repeat(2000), b"a 1\r\n"].concat(),
        GoesOn(1),
    );
    add(
        "a reply subject of 300 bytes",
        &[b"PUB a _".as_slice(), &[b'a'; 299], b" 0\r\n\r\n"].concat(),
        UNKNOWN,
    );
    // No protocol at all.
    add("an empty line", b"\r\n", UNKNOWN);
    add("zeros", &[0; 100], UNKNOWN);
    add("HTTP", b"GET / HTTP/1.1\r\n\r\n", UNKNOWN);
    add("a verb that does not exist", b"PURGE a\r\n", UNKNOWN);
    add("a server's verb", b"MSG a 1 0\r\n\r\n", UNKNOWN);
    add("another server's verb", b"RMSG a b 0\r\n\r\n", UNKNOWN);
    add("a leaf node's verb", b"LMSG a 0\r\n\r\n", UNKNOWN);
    add("the client's own error", b"-ERR 'I am broken'\r\n", Cut);
    // Not UTF-8, not text, not a name: no authority, and no harm.
    add(
        "a subject that is not UTF-8",
        b"PUB \xff\xfe\x80 0\r\n\r\n",
        GoesOn(1),
    );
    add(
        "a subject that breaks off in a character",
        b"PUB a\xe2\x82 0\r\n\r\n",
        GoesOn(1),
    );
    add("a subject of zeros", b"PUB \0\0 0\r\n\r\n", GoesOn(1));
    add("a subject with an escape", b"PUB \x1b[2J 0\r\n\r\n", GoesOn(1));
    add("a pattern that is not UTF-8", b"SUB \xff.> 1\r\n", GoesOn(1));
    add(
        "a group that is not UTF-8",
        b"SUB orders.> \xff\xfe 1\r\n",
        GoesOn(1),
    );
    add(
        "an id that is not UTF-8",
        b"SUB _INBOX.x \xff\xfe\r\nUNSUB \xff\xfe\r\n",
        GoesOn(0),
    );
    add(
        "an end of what was never begun",
        b"UNSUB 77\r\nUNSUB 78 18446744073709551615\r\n",
        GoesOn(0),
    );
    add(
        "headers that are not UTF-8",
        b"HPUB a 8 8\r\n\xff\xfe\xff\xfe\r\n\r\n\r\n",
        GoesOn(1),
    );
    add(
        "ids by the thousand for one inbox",
        &many(|n| format!("SUB _INBOX.x {n}\r\n"), 5_000),
        GoesOn(4_936),
    );
    add(
        "denials by the thousand",
        &many(|n| format!("PUB n{n} 0\r\n\r\n"), 5_000),
        GoesOn(5_000),
    );
    add(
        "CONNECT again",
        b"CONNECT {\"verbose\":false,\"name\":\"\\u0000\\u001b[31m\"}\r\n",
        GoesOn(0),
    );
    add(
        "words that mean nothing from a client",
        b"+OK\r\nINFO {}\r\nPONG\r\n",
        GoesOn(0),
    );
    cases
}

fn many(line: impl Fn(usize) -> String, count: usize) -> Vec<u8> {
    (0..count).map(line).collect::<String>().into_bytes()
}

#[test]
fn bytes_that_should_not_come() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let witness = Witness::start(&broker);
    for (what, bytes, then) in cases() {
        let errors_before = broker.status()["counts"]["protocol_errors"]
            .as_u64()
            .expect("a number");
        let mut mallory = Forger::ready(&broker, "mallory");
        mallory.push(&bytes);
        let (heard, is_error) = match then {
            GoesOn(_) => {
                mallory.push(b"PING\r\n");
                (mallory.read_until(|text| text.ends_with("PONG\r\n")), false)
            }
            Closed(_) | Cut => (mallory.read_until(|_| false), true),
        };
        let lines: Vec<&str> = heard.lines().collect();
        match then {
            Closed(error) => assert_eq!(lines.last(), Some(&error), "{what}: {heard:?}"),
            Cut => {}
            GoesOn(errors) => {
                assert_eq!(lines.len(), errors + 1, "{what}: {heard:?}");
                let is_denial = |line: &&str| line.starts_with("-ERR 'Permissions Violation for ");
                assert!(lines[..errors].iter().all(is_denial), "{what}: {heard:?}");
            }
        }
        let count =
            |status: serde_json::Value| status["counts"]["protocol_errors"].as_u64().expect("a number");
        wait_for(what, || {
            count(broker.status()) == errors_before + u64::from(is_error)
        });
        witness.still_talks(what);
        drop(mallory);
        wait_for("mallory to be gone", || connections(&broker) == 2);
    }
    let log = broker.log();
    assert!(
        !log.bytes().any(|byte| byte < b' ' && byte != b'\n'),
        "control characters in the log"
    );
}

#[test]
fn what_must_not_come_before_connect() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let witness = Witness::start(&broker);
    let nested = [b"CONNECT {\"a\":".as_slice(), &b"[".repeat(3_000), b"\r\n"].concat();
    let closed = [
        &b"CONNECT {\"a\":".to_vec(),
        &b"[".repeat(1_900),
        &b"]".repeat(1_900),
        &b"}\r\n".to_vec(),
    ]
    .into_iter()
    .flatten()
    .copied()
    .collect::<Vec<u8>>();
    for bytes in [
        b"PING\r\n".as_slice(),
        b"PUB orders.place 1\r\nx\r\n",
        b"SUB > 1\r\n",
        b"CONNECT\r\n",
        b"CONNECT []\r\n",
        b"CONNECT {\r\n",
        b"CONNECT {\"verbose\":1}\r\n",
        b"CONNECT \xff\r\n",
        &nested,
        &closed,
        &[b"CONNECT ".as_slice(), &b" ".repeat(5_000)].concat(),
    ] {
        let what = bytes.get(..40).unwrap_or(bytes).escape_ascii().to_string();
        let mut mallory = Forger::connect(&broker, broker.tls("mallory"));
        mallory.push(bytes);
        let heard = mallory.read_until(|_| false);
        assert!(
            heard.starts_with("INFO ") && heard.contains("-ERR '") && !heard.contains("PONG"),
            "{what}: {heard}"
        );
        witness.still_talks(&what);
    }
    assert!(
        broker.status()["flows"]
            .as_array()
            .is_some_and(|flows| flows.len() == 1),
        "the witness's alone"
    );
}

#[test]
fn tls_that_goes_wrong_after_the_handshake() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let witness = Witness::start(&broker);
    let cases: [(&str, &[u8]); 6] = [
        ("plain text", b"PUB orders.place 1\r\nx\r\n"),
        ("another hello", b"\x16\x03\x03\x00\x04\x01\x00\x00\x00"),
        ("a record of no kind", b"\x99\x03\x03\x00\x04abcd"),
        (
            "a record that does not decrypt",
            &[[0x17, 3, 3, 0, 64].as_slice(), &[7; 64]].concat(),
        ),
        (
            "a record that is too long",
            &[[0x17, 3, 3, 0xff, 0xff].as_slice(), &[7; 100]].concat(),
        ),
        ("an alert in plain text", b"\x15\x03\x03\x00\x02\x02\x28"),
    ];
    for (what, bytes) in cases {
        let mut mallory = Forger::ready(&broker, "mallory");
        mallory.socket.write_all(bytes).expect("the connection is open");
        let mut heard = Vec::new();
        mallory
            .socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        match mallory.socket.read_to_end(&mut heard) {
            Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("{what}: not closed: {error}"),
            _ => {}
        }
        witness.still_talks(what);
        wait_for("it to be gone", || connections(&broker) == 2);
    }
    // New keys, again and again: it may be cut for it, and nobody else pays.
    let mut mallory = Forger::ready(&broker, "mallory");
    for _ in 0..1_000 {
        mallory.tls.refresh_traffic_keys().expect("TLS 1.3");
        if !mallory.push(b"") {
            break;
        }
    }
    witness.still_talks("new keys a thousand times");
    drop(mallory);
    wait_for("it to be gone", || connections(&broker) == 2);
}
