//! Headers beginning `Exo-`, and the status, are ExoCom's word; what a client sends of them never arrives.

use super::*;

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place"]

[service.orders]
receives = ["orders.place"]
"#;

/// Header blocks that forge, and what may arrive of each besides the sender.
fn forgeries() -> Vec<(String, Vec<String>)> {
    let mut all = Vec::new();
    let mut add = |block: String, arrives: &[&str]| {
        all.push((block, arrives.iter().map(ToString::to_string).collect()));
    };
    for name in [
        "Exo-Sender",
        "exo-sender",
        "EXO-SENDER",
        "eXO-sENDER",
        "Exo-Id",
        "Exo-Attempt",
        "Exo-Reason",
        "exo-",
    ] {
        add(format!("NATS/1.0\r\n{name}: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\n{name}:admin\r\n{name}: admin\r\n\r\n"), &[]);
        add(
            format!("NATS/1.0\r\nA: 1\r\n{name}: x\r\nB: 2\r\n{name}: y\r\n\r\n"),
            &["A: 1", "B: 2"],
        );
        // Line ends that some parsers take for one.
        add(format!("NATS/1.0\r\nA: 1\n{name}: admin\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\nA: 1\r{name}: admin\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\nA: 1\0{name}: admin\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\n{name}: admin\n\n"), &[]);
        add(format!("NATS/1.0\r{name}: admin\r\r"), &[]);
        // Folding: of the name, of the value, and of the line before.
        add(
            format!("NATS/1.0\r\n{name}:\r\n admin\r\n\tmore\r\nA: 1\r\n\r\n"),
            &["A: 1"],
        );
        add(format!("NATS/1.0\r\n {name}: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\n\t{name}: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(
            format!("NATS/1.0\r\nA: 1\r\n {name}: admin\r\n\r\n"),
            &[&format!("A: 1 {name}: admin")],
        );
        // Space around the name, a second block, no version line, no end.
        add(format!("NATS/1.0\r\n{name} : admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\n{name}\t: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(
            format!("NATS/1.0\r\nA: 1\r\n\r\nNATS/1.0\r\n{name}: admin\r\n\r\n"),
            &["A: 1"],
        );
        add(format!("{name}: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        add(format!("NATS/1.0\r\nA: 1\r\n{name}: admin"), &["A: 1"]);
        add(format!("nats/1.0\r\n{name}: admin\r\nA: 1\r\n\r\n"), &["A: 1"]);
        // Characters that a careless parser drops, folds or takes for letters.
        add(
            format!("NATS/1.0\r\n\u{feff}{name}: admin\r\nA: 1\r\n\r\n"),
            &["A: 1"],
        );
        add(
            format!("NATS/1.0\r\nE\u{200b}xo-Sender: {name}\r\nA: 1\r\n\r\n"),
            &["A: 1"],
        );
        add(format!("NATS/1.0\r\nA: 1\u{b}{name}: admin\r\n\r\n"), &[]);
        add(format!("NATS/1.0\r\nA: 1\u{c}{name}: admin\r\n\r\n"), &[]);
        // An Exo- header in a value is text.
        add(
            format!("NATS/1.0\r\nA: {name}: admin\r\n\r\n"),
            &[&format!("A: {name}: admin")],
        );
    }
    // The status line: the requester would take a reply for a refusal by the broker.
    add("NATS/1.0 503\r\nA: 1\r\n\r\n".to_owned(), &["A: 1"]);
    add("NATS/1.0 503 No Responders\r\n\r\n".to_owned(), &[]);
    add("NATS/1.0  503\r\nExo-Reason: denied\r\n\r\n".to_owned(), &[]);
    add("NATS/1.0\t503\r\n\r\n".to_owned(), &[]);
    add("NATS/1.0 100 Idle Heartbeat\r\n\r\n".to_owned(), &[]);
    add("\r\n\r\n".to_owned(), &[]);
    all
}

#[test]
fn what_is_forged_never_arrives() {
    let broker = Broker::dev(POLICY);
    let [mut web, mut orders] = ["web", "orders"].map(|service| Client::of(&broker, service));
    assert!(web.subscribes("_INBOX.web", "9").is_empty());
    assert!(orders.subscribes("orders.place", "1").is_empty());
    for (block, arrives) in forgeries() {
        // In a message ...
        assert!(
            web.publishes_with("orders.place", &block, "x").is_empty(),
            "{block:?}"
        );
        let heard = orders.hears();
        assert_eq!(heard.len(), 1, "{block:?}: {heard:#?}");
        let expected = |sender: &str| {
            let ours = ["NATS/1.0".to_owned(), format!("Exo-Sender: {sender}")];
            ours.into_iter().chain(arrives.clone()).collect::<Vec<_>>()
        };
        let (headers, payload) = parts_of(&heard[0]);
        assert_eq!(
            (headers.as_slice(), payload),
            (
                expected("web")
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
                "x"
            ),
            "{block:?}"
        );
        // ... and in an answer.
        assert!(web.asks("orders.place", "_INBOX.web", "x").is_empty());
        let heard = orders.hears();
        let token = reply_of(&heard[0]).to_owned();
        assert!(orders.publishes_with(&token, &block, "y").is_empty(), "{block:?}");
        let heard = web.hears();
        assert_eq!(heard.len(), 1, "{block:?}: {heard:#?}");
        let (headers, payload) = parts_of(&heard[0]);
        assert_eq!(
            (headers.as_slice(), payload),
            (
                expected("orders")
                    .iter()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .as_slice(),
                "y"
            ),
            "{block:?}"
        );
    }
}
