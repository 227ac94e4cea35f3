//! What comes to the port before there is an identity: garbage, plain text, slowness, crowds.

use std::net::{Ipv4Addr, Shutdown, SocketAddrV4};

use super::*;

/// The first bytes of a good client.
pub(super) fn client_hello(broker: &Broker) -> Vec<u8> {
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let mut tls = ClientConnection::new(broker.tls("mallory"), name).expect("a client");
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).expect("a Vec takes all");
    hello
}

/// Reads to the end: the broker closes. Gives what came.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let mut heard = Vec::new();
    match socket.read_to_end(&mut heard) {
        Ok(_) => heard,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => heard,
        Err(error) => panic!("not closed: {error}"),
    }
}

#[test]
fn what_is_not_tls_is_closed_and_counted() {
    // Nothing here is closed only because time is up.
    let broker = Broker::serve(POLICY, &limited("handshake-ms = 60000"));
    let witness = Witness::start(&broker);
    let hello = client_hello(&broker);
    let half = &hello[..hello.len() / 2];
    let mut lying = hello.clone();
    // The handshake message says that it has 16 MB.
    lying[6..9].fill(0xff);
    let mut second = hello.clone();
    second.extend_from_slice(&hello);
    let with_proxy = [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", hello.as_slice()].concat();
    let proxy_v2 = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[1; 12], &hello].concat();
    let other_records = |kind: u8, body: &[u8]| [&[kind, 3, 3, 0, body.len() as u8], body].concat();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "not-tls"),
        (
            "the protocol without TLS",
            b"CONNECT {}\r\nPING\r\n".to_vec(),
            "not-tls",
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "not-tls"),
        ("the PROXY protocol", with_proxy, "not-tls"),
        ("the PROXY protocol, version 2", proxy_v2, "not-tls"),
        ("zeros", vec![0; 1000], "not-tls"),
        ("ones", vec![0xff; 1000], "not-tls"),
        (
            "a record of garbage",
            other_records(0x16, &[0x55; 32]),
            "handshake-size",
        ),
        ("a handshake that lies about its length", lying, "handshake-size"),
        ("application data first", other_records(0x17, b"hello"), "not-tls"),
        (
            "a SSLv2 hello",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10\x01\x00\x80".to_vec(),
            "not-tls",
        ),
        (
            "change of cipher a thousand times",
            other_records(0x14, &[1]).repeat(1000),
            "not-tls",
        ),
        ("two hellos", second, "tls"),
        ("an alert first", other_records(0x15, &[2, 40]), "client-alert"),
        ("nothing", Vec::new(), "handshake-lost"),
        ("one byte", vec![0x16], "handshake-lost"),
        ("half a hello", half.to_vec(), "handshake-lost"),
        ("a hello and no more", hello.clone(), "handshake-lost"),
    ];
    for (what, bytes, rule) in cases {
        let before = refused(&broker, rule);
        let mut socket = TcpStream::connect(broker.address()).expect("the port is open");
        // It may be closed before all is sent.
        drop(socket.write_all(&bytes));
        if rule == "handshake-lost" {
            socket.shutdown(Shutdown::Write).expect("still open");
        }
        let heard = rest(&mut socket);
        let is_tls = heard.first().is_none_or(|kind| (0x14..=0x17).contains(kind));
        assert!(is_tls, "{what}: plain text came: {}", heard.escape_ascii());
        wait_for(what, || refused(&broker, rule) == before + 1);
        witness.still_talks(what);
    }
    assert_eq!(connections(&broker), 2, "nobody else got in");
}

#[test]
fn a_handshake_takes_no_longer_than_it_may() {
    let broker = Broker::serve(POLICY, &limited("handshake-ms = 300"));
    let hello = client_hello(&broker);
    let mut idle = TcpStream::connect(broker.address()).expect("the port is open");
    let mut slow = TcpStream::connect(broker.address()).expect("the port is open");
    let slow_end = slow.try_clone().expect("a second handle");
    // A byte now and then does not buy more time.
    let drip = std::thread::spawn(move || {
        for byte in hello {
            if slow.write_all(&[byte]).is_err() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    });
    assert!(rest(&mut idle).is_empty());
    assert!(
        drip.join().expect("the thread ends"),
        "the whole hello was taken, byte by byte"
    );
    drop(slow_end);
    wait_for("both to be counted", || {
        refused(&broker, "handshake-timeout") == 2
    });
    assert_eq!(broker.status()["counts"]["half_open"], 0);
    // One that is quick enough comes in.
    broker.raw_ready("web");
}

#[test]
fn a_session_begins_soon_or_not_at_all() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut silent = broker.raw("mallory");
    let mut slow = broker.raw("mallory");
    let witness = Witness::start(&broker);
    let drip = std::thread::spawn(move || {
        let text = [b"CONNECT {".as_slice(), &b" ".repeat(2000)].concat();
        for byte in text {
            if slow.try_send(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("a CONNECT of 40 seconds was taken");
    });
    assert!(silent.line().starts_with("INFO "));
    assert_eq!(silent.rest(), "-ERR 'Stale Connection'\r\n");
    drip.join().expect("it is cut");
    witness.still_talks("two that never begin");
    wait_for("both to be counted", || {
        broker.status()["counts"]["ended"]["no usable CONNECT"] == 2
    });
}

/// A connection from an address of our choice, of which Linux has millions on the loopback.
pub(super) fn connect_from(broker: &Broker, host: u8) -> TcpStream {
    connect_to(broker.address(), host)
}

/// The same, to an address.
pub(super) fn connect_to(broker: std::net::SocketAddr, host: u8) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, host), 0)).expect("a loopback address");
    connect(&socket, &broker).expect("the port is open");
    TcpStream::from(socket)
}

#[test]
fn handshakes_under_way_are_bounded_for_each_address_and_in_all() {
    let broker = Broker::serve(
        POLICY,
        &limited("handshake-ms = 60000\nhalf-open = 5\nhalf-open-per-address = 3"),
    );
    let witness = Witness::start(&broker);
    let half_open = |count: u64| {
        wait_for("the handshakes under way", || {
            broker.status()["counts"]["half_open"] == count
        });
    };
    let mut first: Vec<_> = (0..3).map(|_| connect_from(&broker, 1)).collect();
    half_open(3);
    assert!(rest(&mut connect_from(&broker, 1)).is_empty());
    assert_eq!(refused(&broker, "half-open-per-address"), 1);
    let second: Vec<_> = (0..2).map(|_| connect_from(&broker, 2)).collect();
    half_open(5);
    assert!(rest(&mut connect_from(&broker, 3)).is_empty());
    assert_eq!(refused(&broker, "half-open"), 1);
    witness.still_talks("a crowd at the door");
    // Each that goes leaves its place to another.
    first.pop();
    half_open(4);
    let third = connect_from(&broker, 3);
    half_open(5);
    drop((first, second, third));
    half_open(0);
    broker.raw_ready("mallory");
}
