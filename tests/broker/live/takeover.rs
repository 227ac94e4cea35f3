//! Two instances of one service, each with a certificate of its own: what one of them holds is its own until it ends, and
//! then the other's. In the race between an answer and a revocation each message is settled once.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const RACED: usize = 200;

struct Attempt {
    id: u64,
    number: u64,
    reply: String,
}

/// Reads a tracked message.
fn attempt(message: &str) -> Attempt {
    let header = |name: &str| {
        let value = message
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value
            .unwrap_or_else(|| panic!("no {name}: {message}"))
            .parse()
            .expect("a number")
    };
    let words: Vec<_> = message.lines().next().unwrap_or_default().split(' ').collect();
    Attempt {
        id: header("Exo-Id"),
        number: header("Exo-Attempt"),
        reply: words[3].to_owned(),
    }
}

fn subscribed(shop: &Shop, shown: &Shown) -> Raw {
    let mut raw = shop.connect(shown);
    raw.send(b"SUB orders.track orders 1\r\nPING\r\n");
    assert_eq!(raw.line(), "PONG");
    raw
}

fn publish(shop: &Shop, count: usize) {
    let mut web = shop.connect(&shop.issue("web"));
    web.send(&[&*b"PUB orders.track 1\r\nx\r\n".repeat(count), b"PING\r\n"].concat());
    assert_eq!(web.line(), "PONG");
}

fn ack(reply: &str) -> String {
    format!("PUB {reply} 4\r\n+ACK\r\n")
}

fn revoke(shop: &Shop, shown: &Shown) {
    let serial = format!("serial:{}", hex(shown.serial.as_ref()));
    shop.succeeds(&["certs", "revoke", &serial, "--reason", "stolen"]);
}

fn pending(shop: &Shop) -> u64 {
    let queue = shop.json(&["queue", "list"])["queues"][0].clone();
    queue["pending"].as_u64().unwrap_or(0)
}

#[test]
fn what_one_holds_the_other_neither_gets_nor_settles_until_it_ends() {
    let shop = Shop::open();
    let (first, second) = (shop.issue("orders"), shop.issue("orders"));
    let mut holder = subscribed(&shop, &first);
    publish(&shop, 1);
    let held = attempt(&holder.message());
    assert_eq!(held.number, 1);
    let mut other = subscribed(&shop, &second);
    // The other says what only the holder may say: it has no such reply subject.
    other.send(format!("{}PING\r\n", ack(&held.reply)).as_bytes());
    let mut heard = Vec::new();
    while heard.last().is_none_or(|line| line != "PONG") {
        heard.push(other.message());
    }
    assert!(
        heard.iter().all(|line| !line.starts_with("HMSG ")),
        "it is not given away while somebody holds it: {heard:?}"
    );
    assert_eq!(pending(&shop), 1, "and not settled either");

    revoke(&shop, &first);
    assert_eq!(holder.rest(), "-ERR 'Stale Connection'\r\n");
    let taken_over = attempt(&other.message());
    assert_eq!((taken_over.id, taken_over.number), (held.id, 2));
    // What the first was given is worth nothing now, whoever says it.
    other.send(format!("{}PING\r\n", ack(&held.reply)).as_bytes());
    while other.message() != "PONG" {}
    if taken_over.reply != held.reply {
        assert_eq!(pending(&shop), 1);
    }
    other.send(ack(&taken_over.reply).as_bytes());
    wait_for("the end", || pending(&shop) == 0);
}

#[test]
fn in_a_race_of_answers_with_a_revocation_each_message_is_settled_once() {
    let shop = Shop::open();
    let (first, second) = (shop.issue("orders"), shop.issue("orders"));
    let (mut holder, mut other) = (subscribed(&shop, &first), subscribed(&shop, &second));
    publish(&shop, RACED);
    let answered = std::thread::scope(|scope| {
        let revoking = scope.spawn(|| revoke(&shop, &first));
        // It answers what it gets until it is cut off.
        let mut answered = BTreeMap::new();
        while let Ok(Some(message)) = holder.try_message() {
            if !message.starts_with("HMSG ") {
                continue;
            }
            let got = attempt(&message);
            if holder.try_send(ack(&got.reply).as_bytes()).is_err() {
                break;
            }
            answered.insert(got.id, got.number);
        }
        revoking.join().expect("it is revoked");
        answered
    });
    // The other gets all else, and what the first was answering when it was cut off. All is settled in the end.
    let mut taken_over = BTreeMap::new();
    wait_for("all to be settled", || {
        other.send(b"PING\r\n");
        loop {
            let message = other.message();
            if message == "PONG" {
                break;
            }
            let got = attempt(&message);
            other.send(ack(&got.reply).as_bytes());
            let before = taken_over.insert(got.id, got.number);
            assert_eq!(before, None, "{} came twice", got.id);
        }
        pending(&shop) == 0
    });
    let all: BTreeSet<_> = answered.keys().chain(taken_over.keys()).collect();
    assert_eq!(all.len(), RACED);
    for (id, number) in &taken_over {
        let was_held = answered.contains_key(id);
        // One that was held before it was cut off is counted as a second attempt.
        assert!(
            *number == 2 || (*number == 1 && !was_held),
            "{id}: attempt {number}"
        );
    }
    eprintln!(
        "{} answered by the first, {} by the second, {} by both",
        answered.len(),
        taken_over.len(),
        answered.len() + taken_over.len() - all.len()
    );
}
