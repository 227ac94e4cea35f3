//! Bounds of one connection: reached, told, and not crossed.

use super::*;

const BULK: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["bulk", "ask"]

[service.orders]
receives = ["bulk", "ask"]

[service.audit]
sends = ["ask"]
receives = ["bulk"]
"#;

fn flow(broker: &Broker, sender: &str, receiver: &str) -> serde_json::Value {
    let flows = broker.status()["flows"].clone();
    let flows = flows.as_array().expect("a list");
    let found = flows
        .iter()
        .find(|flow| flow["sender"] == sender && flow["receiver"] == receiver);
    found
        .unwrap_or_else(|| panic!("no flow from {sender} to {receiver}: {flows:#?}"))
        .clone()
}

#[test]
fn subscriptions() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let witness = Witness::start(&broker);
    let mut orders = Forger::ready(&broker, "orders");
    let mut does = |text: &str| {
        orders.push(text.as_bytes());
        orders.push(b"PING\r\n");
        orders.read_until(|text| text.ends_with("PONG\r\n"))
    };
    let lines: String = (0..10_000).map(|n| format!("SUB orders.n{n} {n}\r\n")).collect();
    assert_eq!(does(&lines), "PONG\r\n");
    let denied =
        |pattern: &str| format!("-ERR 'Permissions Violation for Subscription to \"{pattern}\"'\r\nPONG\r\n");
    assert_eq!(does("SUB orders.more more\r\n"), denied("orders.more"));
    assert_eq!(does("SUB _INBOX.more more\r\n"), denied("_INBOX.more"));
    assert_eq!(
        does("SUB orders.n0 0\r\n"),
        "PONG\r\n",
        "an id in use keeps what it has"
    );
    assert_eq!(does("UNSUB 0\r\nSUB orders.more more\r\n"), "PONG\r\n");
    witness.still_talks("ten thousand subscriptions");
    // Wildcards of inboxes have a bound of their own, since each is tried for each answer.
    let mut mallory = Forger::ready(&broker, "mallory");
    let lines: String = (0..65).map(|n| format!("SUB _INBOX.n{n}.* {n}\r\n")).collect();
    mallory.push(lines.as_bytes());
    mallory.push(b"PING\r\n");
    let heard = mallory.read_until(|text| text.ends_with("PONG\r\n"));
    assert_eq!(heard, denied("_INBOX.n64.*"));
}

#[test]
fn payloads_and_headers_up_to_their_bounds_and_no_further() {
    let broker = Broker::serve(POLICY, ONE_THREAD);
    let mut orders = broker.raw_ready("orders");
    orders.send(b"SUB orders.> 1\r\nPING\r\n");
    assert_eq!(orders.line(), "PONG");
    let mut web = broker.raw_ready("web");
    let payload = vec![b'x'; 1 << 20];
    web.send(&[b"PUB orders.a 1048576\r\n".as_slice(), &payload, b"\r\n"].concat());
    let message = orders.message();
    let (line, rest) = message.split_once("\r\n").expect("a line");
    assert!(line.starts_with("HMSG orders.a 1 "), "{line}");
    assert!(rest.ends_with(&format!("\r\n\r\n{}\r\n", "x".repeat(1 << 20))));
    // Ten thousand lines of headers.
    let lines = "a: 1\r\n".repeat(10_919);
    let block = format!("NATS/1.0\r\n{lines}a:1\r\nb:2\r\n\r\n");
    assert_eq!(block.len(), 64 << 10, "at the bound");
    web.send(format!("HPUB orders.b {0} {0}\r\n{block}\r\n", block.len()).as_bytes());
    assert!(
        orders
            .message()
            .ends_with(&format!("{lines}a:1\r\nb:2\r\n\r\n\r\n"))
    );
    web.send(b"HPUB orders.b 65537 65537\r\n");
    assert_eq!(web.rest(), "-ERR 'Maximum Payload Violation'\r\n");
}

#[test]
fn requests_that_nobody_answers_leave_room_for_those_of_others() {
    let broker = Broker::serve(BULK, ONE_THREAD);
    let mut orders = broker.raw_ready("orders");
    orders.send(b"SUB ask 1\r\nPING\r\n");
    assert_eq!(orders.line(), "PONG");
    let mut web = Forger::ready(&broker, "web");
    web.push(b"SUB _INBOX.web 9\r\n");
    let one = b"PUB ask _INBOX.web 0\r\n\r\n";
    web.push(&one.repeat(40_000));
    web.push(b"PING\r\n");
    let heard = web.read_until(|text| text.ends_with("PONG\r\n"));
    let refused = heard.matches("Exo-Reason: overloaded").count();
    assert_eq!(refused, 40_000 - 32_768, "half of the table is the most for one");
    assert_eq!(flow(&broker, "web", "orders")["dropped"], refused as u64);
    // Another service's request comes through, and is answered.
    let mut audit = broker.raw_ready("audit");
    audit.send(b"SUB _INBOX.audit 9\r\nPUB ask _INBOX.audit 4\r\nmine\r\nPING\r\n");
    assert_eq!(audit.line(), "PONG");
    let token = loop {
        let message = orders.message();
        if message.ends_with("mine\r\n") {
            break message.split(' ').nth(3).expect("a token").to_owned();
        }
    };
    orders.send(format!("PUB {token} 2\r\nok\r\n").as_bytes());
    assert!(audit.message().ends_with("ok\r\n"));
}

#[test]
fn a_receiver_that_does_not_read_loses_and_nobody_else() {
    const BYTES: usize = 64 << 10;
    let broker = Broker::serve(BULK, ONE_THREAD);
    let mut stuck = Forger::ready(&broker, "orders");
    stuck.push(b"SUB bulk 1\r\nPING\r\n");
    assert_eq!(stuck.read_until(|text| text.ends_with("PONG\r\n")), "PONG\r\n");
    let mut live = broker.raw_ready("audit");
    live.send(b"SUB bulk 1\r\nPING\r\n");
    assert_eq!(live.line(), "PONG");
    let mut web = broker.raw_ready("web");
    let before_kib = memory_kib(&broker);
    let (rounds, per_round) = (40, 16);
    for round in 0..rounds {
        for number in 0..per_round {
            let mut payload = format!("{:08}", round * per_round + number).into_bytes();
            payload.resize(BYTES, b'x');
            web.send(&[format!("PUB bulk {BYTES}\r\n").as_bytes(), &payload, b"\r\n"].concat());
        }
        // The one that reads gets everything, in order.
        for number in 0..per_round {
            let message = live.message();
            assert!(message.contains(&format!("\r\n\r\n{:08}xxx", round * per_round + number)));
        }
    }
    let grown_kib = memory_kib(&broker).saturating_sub(before_kib);
    assert!(grown_kib < 96 << 10, "grown by {grown_kib} KiB");
    let sent = (rounds * per_round) as u64;
    assert_eq!(flow(&broker, "web", "audit")["messages"], sent);
    let lossy = flow(&broker, "web", "orders");
    let (messages, dropped) = (
        lossy["messages"].as_u64().expect("a number"),
        lossy["dropped"].as_u64().expect("a number"),
    );
    assert_eq!(messages + dropped, sent, "every message is accounted for");
    assert!(
        dropped > 0 && messages * BYTES as u64 >= 16 << 20,
        "{messages} messages, {dropped} dropped"
    );
    // What was said to be delivered is, once it reads.
    stuck.push(b"PING\r\n");
    let heard = stuck.read_until(|text| text.ends_with("PONG\r\n"));
    assert_eq!(heard.matches("HMSG bulk 1 ").count() as u64, messages);
    let numbers: Vec<&str> = heard
        .split("\r\n\r\n")
        .filter_map(|part| part.get(..8))
        .filter(|part| part.parse::<u32>().is_ok())
        .collect();
    assert!(
        numbers.is_sorted() && numbers.len() as u64 == messages,
        "in order, none twice"
    );
    wait_for("nothing to wait", || {
        broker.status()["counts"]["waiting_bytes"] == 0
    });
}
