//! Clients that do not read, that break, that leave: what they leave behind.

use super::*;

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

// protocol: P-096
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

// protocol: P-097
#[test]
fn half_a_message_is_not_held_for_ever() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut orders = broker.raw_ready("orders");
    orders.send(b"SUB orders.> 1\r\nPING\r\n");
    assert_eq!(orders.line(), "PONG");
    let (mut half, mut line, mut slow) = (
        broker.raw_ready("web"),
        broker.raw_ready("web"),
        broker.raw_ready("web"),
    );
    half.send(b"PING\r\nPUB orders.half 1000\r\nxyz");
    line.send(b"PUB orders.li");
    // One that comes slowly, and comes: what is in time is not cut, and all that came before is done.
    let payload = vec![b'x'; 1 << 20];
    let bytes = [b"PUB orders.slow 1048576\r\n".as_slice(), &payload, b"\r\n"].concat();
    let drip = std::thread::spawn(move || {
        for part in bytes.chunks(bytes.len() / 60) {
            slow.send(part);
            std::thread::sleep(Duration::from_millis(200));
        }
        slow
    });
    assert_eq!(half.rest(), "PONG\r\n-ERR 'Stale Connection'\r\n");
    assert_eq!(line.rest(), "-ERR 'Stale Connection'\r\n");
    assert!(orders.message().starts_with("HMSG orders.slow 1 "));
    let mut slow = drip.join().expect("it was not cut");
    slow.send(b"PING\r\n");
    assert_eq!(slow.line(), "PONG");
    drop((half, line));
    let count = || broker.status()["counts"]["ended"]["too slow: an operation that did not end"] == 2;
    wait_for("both to be counted", count);
}
