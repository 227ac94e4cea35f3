//! Tracked messages, as clients see them.

use super::*;
use crate::support::wait_for;

const TRACKED: &str = r#"
version = 1
trust-domain = "protocol.example"

[service.web]
sends = ["orders.>", "heard", "unheard"]

[service.orders]
receives = ["orders.>", "heard"]

[service.audit]
receives = ["heard"]

[message.">"]
delivery = "at-least-once"
reply-within = "20s"
ack-within = "20s"
backoff = "10ms..10ms"
attempts = 3

[message."heard"]
kind = "event"

[message."orders.hasty"]
reply-within = "200ms"
attempts = 2
"#;

fn tracked() -> (Broker, Raw) {
    let broker = Broker::dev(TRACKED);
    let mut web = broker.raw_ready("web");
    does(&mut web, "SUB _INBOX.> 1\r\n");
    (broker, web)
}

/// A receiver of everything that orders receives.
fn orders(broker: &Broker) -> Raw {
    let mut orders = broker.raw_ready("orders");
    orders.send(b"SUB orders.> 1\r\nSUB heard 2\r\n");
    orders
}

/// The number and the attempt of a tracked message.
fn attempt(message: &str) -> (u64, u64) {
    let number = |name| {
        header(message, name)
            .expect("a tracked message has it")
            .parse()
            .expect("a number")
    };
    (number("Exo-Id"), number("Exo-Attempt"))
}

/// Says something of a tracked message. The next may come at any time, so nothing is waited for.
fn answer(receiver: &mut Raw, message: &str, word: &str) {
    receiver.send(format!("PUB {} {}\r\n{word}\r\n", reply_of(message), word.len()).as_bytes());
}

fn acknowledgement(message: &str) -> serde_json::Value {
    assert!(message.starts_with("MSG _INBOX.x 1 "), "{message}");
    serde_json::from_str(&payload(message)).expect("JSON")
}

// protocol: P-120, P-121, P-123
#[test]
fn an_event_waits_on_disk_for_who_is_away() {
    let (broker, mut web) = tracked();
    web.send(b"PUB heard _INBOX.x 2\r\nhi\r\n");
    let stored = acknowledgement(&web.message());
    assert_eq!(stored["seq"], 1);
    assert!(
        stored["stream"].is_string() && stored.get("duplicate").is_none(),
        "{stored}"
    );
    let broker = broker.restart();
    for service in ["orders", "audit"] {
        let mut receiver = broker.raw_ready(service);
        receiver.send(b"SUB heard 1\r\n");
        let message = receiver.message();
        assert_eq!((payload(&message).as_str(), attempt(&message)), ("hi", (1, 1)));
        assert_eq!(header(&message, "Exo-Sender").as_deref(), Some("web"));
        answer(&mut receiver, &message, "+ACK");
    }
}

// protocol: P-121, P-125
#[test]
fn a_command_is_acknowledged_by_its_answer() {
    let (broker, mut web) = tracked();
    let mut orders = orders(&broker);
    for word in ["", "done", "+ACK"] {
        does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
        let command = orders.message();
        assert!(heard(&mut web).is_empty(), "nothing comes before the answer");
        answer(&mut orders, &command, word);
        assert_eq!(payload(&web.message()), word);
    }
}

// protocol: P-122
#[test]
fn an_id_is_kept_once() {
    let (broker, mut web) = tracked();
    let mut publish = |id: &str| {
        let headers = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
        let bytes = headers.len();
        web.send(format!("HPUB heard _INBOX.x {bytes} {bytes}\r\n{headers}\r\n").as_bytes());
        web.message()
    };
    let longest = "x".repeat(255);
    for (id, seq, duplicate) in [
        ("a", 1, false),
        ("a", 1, true),
        (&longest, 2, false),
        ("a", 1, true),
    ] {
        let stored = acknowledgement(&publish(id));
        assert_eq!(
            (&stored["seq"], stored["duplicate"] == true),
            (&seq.into(), duplicate),
            "{stored}"
        );
    }
    assert_eq!(publish(&format!("{longest}x")), publish_denied("heard"));
    assert_eq!(reason(&web.message()), "denied");
    let mut orders = orders(&broker);
    let first = orders.message();
    answer(&mut orders, &first, "");
    assert_eq!((attempt(&first).0, attempt(&orders.message()).0), (1, 2));
}

// protocol: P-124
#[test]
fn each_service_gets_it_once_whatever_the_group() {
    let (broker, mut web) = tracked();
    let mut orders = [orders(&broker), orders(&broker)];
    does(&mut orders[0], "SUB heard a 3\r\nSUB heard b 4\r\n");
    web.send(b"PUB heard _INBOX.x 0\r\n\r\n");
    web.message();
    // Each of the two may have it, and neither has a second one once it is acknowledged.
    let mut copies = 0;
    wait_for("the event", || {
        for raw in &mut orders {
            for message in heard(raw) {
                copies += 1;
                answer(raw, &message, "");
            }
        }
        copies > 0
    });
    web.send(b"PUB orders.last 0\r\n\r\n");
    wait_for("a later message", || {
        let messages: Vec<_> = orders.iter_mut().flat_map(heard).collect();
        copies += messages
            .iter()
            .filter(|message| subject(message) == "heard")
            .count();
        messages.iter().any(|message| subject(message) == "orders.last")
    });
    assert_eq!(copies, 1);
}

// protocol: P-126, P-128
#[test]
fn receivers_give_back_ask_for_time_or_give_up() {
    let (broker, mut web) = tracked();
    let mut orders = orders(&broker);
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let first = orders.message();
    answer(&mut orders, &first, "+WPI");
    answer(&mut orders, &first, "-NAK");
    let second = orders.message();
    answer(&mut orders, &second, "-NAK {\"delay\": 1000000}");
    let third = orders.message();
    assert_eq!(
        [&first, &second, &third].map(|message| attempt(message)),
        [(1, 1), (1, 2), (1, 3)]
    );
    answer(&mut orders, &third, "-NAK");
    assert_eq!(reason(&web.message()), "dead-letter");
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    let hopeless = orders.message();
    answer(&mut orders, &hopeless, "+TERM");
    assert_eq!(reason(&web.message()), "dead-letter");
    assert!(heard(&mut orders).is_empty());
}

// protocol: P-127
#[test]
fn it_is_tried_again_when_a_receiver_ends_or_is_silent() {
    let (broker, mut web) = tracked();
    let mut dying = orders(&broker);
    does(&mut web, "PUB orders.place _INBOX.x 0\r\n\r\n");
    assert_eq!(attempt(&dying.message()), (1, 1));
    drop(dying);
    let mut orders = orders(&broker);
    let again = orders.message();
    assert_eq!(attempt(&again), (1, 2));
    answer(&mut orders, &again, "done");
    assert_eq!(payload(&web.message()), "done");
    does(&mut web, "PUB orders.hasty 0\r\n\r\n");
    assert_eq!(attempt(&orders.message()), (2, 1));
    assert_eq!(attempt(&orders.message()), (2, 2));
}

// protocol: P-083
#[test]
fn what_no_service_may_receive_is_refused() {
    let (_broker, mut web) = tracked();
    assert_eq!(
        reason(&said(&mut web, "PUB unheard _INBOX.x 0\r\n\r\n")[0]),
        "no-receiver"
    );
}
