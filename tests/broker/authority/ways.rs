//! One table of who may send and who may receive, driven through every way on which a tracked message moves: sent, received,
//! tried again, replayed from the dead letters, and by which operators.

use serde_json::Value;

use super::*;
use crate::operators::{CONFIG, admin_address, as_somebody};
use crate::support::{EXOCOM, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.*"]

[service.source]               # sends everything, for the test to send what orders may or may not receive
sends = [">"]

[service.orders]
receives = ["orders.*", "stock.>"]
receives-except = ["orders.secret"]

[service.sink]                 # receives everything, for the test to see what web has sent
receives = [">"]

[message.">"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"
attempts = 9
backoff = "1ms..1ms"

[operator.alice]
may = ["view"]

[operator.bob]
may = ["replay"]

[operator.carol]
may = ["revoke", "apply-policy"]
"#;

/// Message names, whether web may send them, and whether orders may receive them.
const TABLE: &[(&str, bool, bool)] = &[
    ("orders.place", true, true),
    ("orders.secret", true, false),
    ("orders.x", true, true),
    ("orders", false, false),
    ("orders.a.b", false, false),
    ("stock.a", false, true),
    ("stock.a.b", false, true),
    ("stock", false, false),
    ("Orders.place", false, false),
    ("other", false, false),
];

/// Operators, and whether they may replay.
const OPERATORS: &[(&str, bool)] = &[
    ("alice", false),
    ("carol", false),
    ("web", false),
    ("orders", false),
    ("bob", true),
];

/// A policy that lets orders receive everything.
fn wide() -> String {
    let wide = POLICY.replace(
        "receives = [\"orders.*\", \"stock.>\"]\nreceives-except = [\"orders.secret\"]",
        "receives = [\">\"]",
    );
    assert_ne!(wide, POLICY);
    wide
}

fn names(is_wanted: impl Fn(bool, bool) -> bool) -> Vec<&'static str> {
    let rows = TABLE
        .iter()
        .filter(|(_, sends, receives)| is_wanted(*sends, *receives));
    let mut names: Vec<_> = rows.map(|(name, ..)| *name).collect();
    names.sort_unstable();
    names
}

/// A tracked message as its receiver sees it.
struct Attempt {
    name: String,
    number: u64,
    reply: String,
}

fn attempt(message: &str) -> Attempt {
    let (headers, _) = parts_of(message);
    let number = headers.iter().find_map(|line| line.strip_prefix("Exo-Attempt: "));
    Attempt {
        name: message.split(' ').nth(1).expect("a name").to_owned(),
        number: number.expect("a tracked message").parse().expect("a number"),
        reply: reply_of(message).to_owned(),
    }
}

/// Takes exactly so many attempts, sorted by name.
fn take(client: &mut Client, count: usize) -> Vec<Attempt> {
    let mut taken: Vec<_> = (0..count).map(|_| attempt(&client.0.message())).collect();
    taken.sort_by(|one, other| one.name.cmp(&other.name));
    taken
}

fn named(attempts: &[Attempt]) -> Vec<&str> {
    attempts.iter().map(|attempt| &*attempt.name).collect()
}

/// Says the same of each. What the broker hands out meanwhile is not waited for.
fn say(client: &mut Client, attempts: &[Attempt], word: &str) {
    for Attempt { reply, .. } in attempts {
        client
            .0
            .send(format!("PUB {reply} {}\r\n{word}\r\n", word.len()).as_bytes());
    }
}

/// What waits for orders, what of it somebody holds, and what of it was given up.
fn queue(broker: &Broker) -> (u64, u64, u64) {
    let output = std::process::Command::new(EXOCOM)
        .args(["queue", "list", "--json", "--admin"])
        .arg(broker.path("admin.sock"))
        .output()
        .expect("the binary was built for the tests");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let queues = answer["queues"].as_array().expect("a list");
    let Some(row) = queues.iter().find(|row| row["service"] == "orders") else {
        return (0, 0, 0);
    };
    let number = |key: &str| row[key].as_u64().expect("a number");
    (number("pending"), number("in_flight"), number("dead"))
}

/// An instance of orders that asks for each name by itself. Which it may have is as the table says, or all.
fn asks_for_each(broker: &Broker, is_wide: bool) -> Client {
    let mut orders = Client::of(broker, "orders");
    for (index, (name, _, receives)) in TABLE.iter().enumerate() {
        // What is there already may come between.
        orders.0.send(format!("SUB {name} orders {index}\r\n").as_bytes());
        if !receives && !is_wide {
            let denied = subscription_denied(name, Some("orders"));
            let mut others = Vec::new();
            loop {
                match orders.0.message() {
                    line if line == denied => break,
                    message => others.push(message),
                }
            }
            assert_eq!(others, Vec::<String>::new(), "nothing waits yet");
        }
    }
    orders
}

#[test]
fn sending() {
    let broker = Broker::serve(POLICY, CONFIG);
    let mut sink = Client::of(&broker, "sink");
    assert!(sink.subscribes(">", "1").is_empty());
    let mut web = Client::of(&broker, "web");
    assert!(web.subscribes("_INBOX.me", "9").is_empty());
    for &(name, sends, _) in TABLE {
        // A message without a reply subject, and one with.
        let heard = web.publishes(name, "x");
        assert_eq!(heard.is_empty(), sends, "{name}: {heard:?}");
        web.0.send(format!("PUB {name} _INBOX.me 1\r\nx\r\n").as_bytes());
        let heard = web.0.message();
        if sends {
            assert!(heard.starts_with("MSG _INBOX.me 9 "), "{name}: {heard}");
            let taken = take(&mut sink, 2);
            assert_eq!(named(&taken), [name, name]);
            say(&mut sink, &taken, "+ACK");
        } else {
            assert_eq!(heard, publish_denied(name));
            let refusal = web.0.message();
            assert_eq!(parts_of(&refusal).0[..2], ["NATS/1.0 503", "Exo-Reason: denied"]);
        }
    }
    assert_eq!(sink.hears(), Vec::<String>::new());
}

#[test]
fn receiving() {
    let broker = Broker::serve(POLICY, CONFIG);
    let mut orders = asks_for_each(&broker, false);
    let mut source = Client::of(&broker, "source");
    for (name, ..) in TABLE {
        assert!(source.publishes(name, "x").is_empty());
    }
    let allowed = names(|_, receives| receives);
    let taken = take(&mut orders, allowed.len());
    assert_eq!(named(&taken), allowed);
    say(&mut orders, &taken, "+ACK");
    wait_for("the end", || queue(&broker) == (0, 0, 0));
    assert_eq!(orders.hears(), Vec::<String>::new());
}

#[test]
fn redelivering() {
    let broker = Broker::serve(&wide(), CONFIG);
    let mut source = Client::of(&broker, "source");
    let mut orders = asks_for_each(&broker, true);
    for (name, ..) in TABLE {
        assert!(source.publishes(name, "x").is_empty());
    }
    let all = names(|_, _| true);
    assert_eq!(named(&take(&mut orders, all.len())), all);
    // It holds all of them, and then ends; the next instance is under the narrow policy.
    broker.change_policy(POLICY);
    drop(orders);
    let allowed = names(|_, receives| receives);
    let mut orders = Client::of(&broker, "orders");
    orders
        .0
        .send(b"SUB orders.place orders 1\r\nSUB orders.x orders 2\r\nSUB stock.> orders 3\r\n");
    let taken = take(&mut orders, allowed.len());
    assert_eq!(named(&taken), allowed);
    assert!(taken.iter().all(|attempt| attempt.number == 2));
    say(&mut orders, &taken, "-NAK");
    let taken = take(&mut orders, allowed.len());
    assert_eq!(named(&taken), allowed);
    say(&mut orders, &taken, "+ACK");
    the_rest_comes_with_the_grants(&broker, orders, all.len() - allowed.len());
}

#[test]
fn replaying_dead_letters_by_those_operators_who_may() {
    let broker = Broker::serve(&wide(), CONFIG);
    let admin = admin_address(&broker);
    let mut source = Client::of(&broker, "source");
    let mut orders = asks_for_each(&broker, true);
    for (name, ..) in TABLE {
        assert!(source.publishes(name, "x").is_empty());
    }
    let all = names(|_, _| true);
    let taken = take(&mut orders, all.len());
    say(&mut orders, &taken, "+TERM");
    let count = all.len() as u64;
    wait_for("all to be given up", || queue(&broker) == (0, 0, count));
    drop(orders);
    broker.change_policy(POLICY);
    let mut orders = asks_for_each(&broker, false);
    for &(who, may) in OPERATORS {
        for verb in [
            &["queue", "drop", "--service", "sink", "--why", "test"][..],
            &["queue", "replay", "--service", "orders", "--why", "test"],
        ] {
            let before = queue(&broker);
            let (code, said) = as_somebody(&broker, admin, who, verb);
            if may {
                assert!(!said.contains("may not"), "{who} {verb:?}: {said}");
            } else {
                assert_eq!(code, Some(1), "{who} {verb:?}: {said}");
                assert!(said.contains("may not"), "{who} {verb:?}: {said}");
                assert_eq!(queue(&broker), before, "{who} {verb:?}");
                assert_eq!(orders.hears(), Vec::<String>::new(), "{who} {verb:?}");
            }
        }
    }
    // What was replayed moves as the table says, whoever replays it.
    let allowed = names(|_, receives| receives);
    let taken = take(&mut orders, allowed.len());
    assert_eq!(named(&taken), allowed);
    say(&mut orders, &taken, "+ACK");
    the_rest_comes_with_the_grants(&broker, orders, all.len() - allowed.len());
}

/// What the policy does not allow waits, and comes with the grants to whoever asks for it.
fn the_rest_comes_with_the_grants(broker: &Broker, mut orders: Client, held: usize) {
    wait_for("what is allowed to be done, and the rest to wait", || {
        queue(broker) == (held as u64, 0, 0)
    });
    assert_eq!(orders.hears(), Vec::<String>::new());
    broker.change_policy(&wide());
    let mut again = asks_for_each(broker, true);
    let taken = take(&mut again, held);
    assert_eq!(named(&taken), names(|_, receives| !receives));
    say(&mut again, &taken, "+ACK");
    wait_for("the end", || queue(broker) == (0, 0, 0));
}
