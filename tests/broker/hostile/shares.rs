//! What one service, or one crowd of strangers, can take from the others.

use super::*;

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
        // Something of which the TLS library would tell too.
        let change_of_cipher = b"\x14\x03\x03\x00\x01\x01".repeat(2);
        stranger
            .write_all(&change_of_cipher)
            .expect("the connection is open");
        let mut heard = Vec::new();
        // An alert, or a reset.
        drop(stranger.read_to_end(&mut heard));
    }
    assert_eq!(broker.status()["counts"]["refused"]["not-tls"], 1_000);
    let told = lines("handshake refused");
    assert!((100..700).contains(&told), "{told} lines");
    assert!(
        lines("") < told + 20,
        "nor by lines of libraries:\n{}",
        broker.log()
    );
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
