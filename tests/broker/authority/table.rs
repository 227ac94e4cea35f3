//! The table.

use exocom::identity::{Identity, Role};
use exocom::policy::{Action, Policy, Source};
use exocom::wire::name::{MessageName, Pattern};

use super::*;

/// Each line that a row names ends in a comment with its mark.
const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = [
    "orders.place",            # web-place
    "orders.*",                # web-any
    "search.>",                # web-search
]
receives = ["orders.placed"]   # web-placed

[service.orders]
sends = ["orders.placed"]      # orders-placed
receives = [
    "orders.*",                # orders-any
    "stock.a",                 # orders-a
    "stock.a.>",               # orders-a-rest
]
receives-except = [
    "orders.placed",           # orders-not-placed
    "stock.a.secret.>",        # orders-not-secret
]

[service.mute]

[service.source]               # sends everything, for the test to hear it
sends = [">"]

[service.sink]                 # receives everything, for the test to send it
receives = [">"]               # sink-all
"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum May {
    /// By the line with this mark.
    Yes(&'static str),
    /// Because of the line with this mark.
    No(&'static str),
    /// For no line grants it.
    NoGrant,
}
use May::{No, NoGrant, Yes};

/// Who sends which message.
const SENDS: &[(&str, &str, May)] = &[
    ("web", "orders.place", Yes("web-place")),
    ("web", "orders.cancel", Yes("web-any")),
    ("web", "orders.placed", Yes("web-any")),
    ("web", "orders", NoGrant),
    ("web", "orders.a.b", NoGrant),
    ("web", "search.x", Yes("web-search")),
    ("web", "search.x.y.z", Yes("web-search")),
    ("web", "search", NoGrant),
    ("web", "Orders.place", NoGrant),
    ("web", "orders.Place", Yes("web-any")),
    ("web", "ordersXplace", NoGrant),
    ("web", "stock.a", NoGrant),
    ("orders", "orders.placed", Yes("orders-placed")),
    ("orders", "orders.place", NoGrant),
    ("orders", "stock.a", NoGrant),
    ("mute", "orders.place", NoGrant),
    ("sink", "orders.place", NoGrant),
];

/// Who receives what: patterns, asked plainly and in a queue group.
const RECEIVES: &[(&str, &str, May)] = &[
    ("web", "orders.placed", Yes("web-placed")),
    ("web", "orders.place", NoGrant),
    ("web", "orders.*", NoGrant),
    ("web", "orders.>", NoGrant),
    ("web", "*.placed", NoGrant),
    ("web", "*", NoGrant),
    ("web", ">", NoGrant),
    ("orders", "orders.place", Yes("orders-any")),
    ("orders", "orders.placed", No("orders-not-placed")),
    ("orders", "orders.*", No("orders-not-placed")),
    ("orders", "*.placed", No("orders-not-placed")),
    ("orders", "orders.>", No("orders-not-placed")),
    ("orders", "orders", NoGrant),
    ("orders", "orders.a.b", NoGrant),
    ("orders", "stock.a", Yes("orders-a")),
    ("orders", "stock.a.x", Yes("orders-a-rest")),
    ("orders", "stock.a.*", Yes("orders-a-rest")),
    ("orders", "stock.a.x.>", Yes("orders-a-rest")),
    ("orders", "stock.a.>", No("orders-not-secret")),
    ("orders", "stock.a.secret", Yes("orders-a-rest")),
    ("orders", "stock.a.secret.x", No("orders-not-secret")),
    ("orders", "stock.a.*.x", No("orders-not-secret")),
    ("orders", "stock.>", No("orders-not-secret")),
    ("orders", "stock.*", NoGrant),
    ("orders", ">", No("orders-not-placed")),
    ("mute", "orders.placed", NoGrant),
    ("mute", ">", NoGrant),
    ("source", ">", NoGrant),
    ("sink", ">", Yes("sink-all")),
    ("sink", "orders.*", Yes("sink-all")),
];

/// What nobody may publish to, whatever the policy says; also the service that may send everything.
const NEVER_SENT: &[&str] = &[
    "$SYS.REQ.SERVER.PING",
    "$JS.API.INFO",
    "$KV.x.y",
    "$x",
    "_EXO.x",
    "_INBOX.x",
    "_INBOX.sink.1",
    "_x",
    "_",
    "_R",
    "_R.",
    "_R.0",
    "_R.0.0",
    "_R.x.y",
    "_R.0.0.0",
    "_R.4294967296.0",
    "orders.*",
    "orders.>",
    ">",
    "*",
    "orders..place",
    ".orders",
    "orders.",
    "orders.pl\u{e4}ce",
    "orders.\0",
    "orders.\u{7f}",
    "orders.\"x\"",
    "orders.'x'",
];

/// What nobody may subscribe to, whatever the policy says.
const NEVER_RECEIVED: &[&str] = &[
    "$SYS.>",
    "$JS.API.>",
    "$x",
    "_R.>",
    "_R.*.*",
    "_R.0.0",
    "_R.",
    "_*",
    "_>",
    "_x.>.y",
    "_x..y",
    "_INBOX*",
    "*.",
    "orders..*",
    "orders.>.x",
    "orders.a*",
    ">.x",
    "orders.\u{e4}",
];

fn policy() -> Policy {
    let source = Source {
        name: "policy.toml".to_owned(),
        text: POLICY.to_owned(),
    };
    Policy::compile(&[source]).expect("a good policy").policy
}

fn identity(service: &str) -> Identity {
    Identity {
        trust_domain: "shop.example".into(),
        role: Role::Service(service.into()),
        serial: "1".into(),
        expires_unix_s: i64::MAX,
    }
}

/// The line with a mark.
fn line(mark: &str) -> usize {
    let is_marked = |line: &str| line.split_once("# ").is_some_and(|(_, comment)| comment == mark);
    let index = POLICY.lines().position(is_marked);
    index.unwrap_or_else(|| panic!("no line is marked {mark}")) + 1
}

/// What a decision should name.
fn rule(may: May) -> String {
    match may {
        Yes(mark) | No(mark) => format!("policy.toml:{}", line(mark)),
        NoGrant => "no grant".to_owned(),
    }
}

#[test]
fn the_policy_decides_by_the_table() {
    let policy = policy();
    for &(service, name, may) in SENDS {
        let name = MessageName::new(name).expect("a name");
        let decided = policy.decide(&identity(service), Action::Send, &name);
        let named = match &decided {
            Ok(permit) => permit.rule().to_string(),
            Err(denial) => denial.rule_or_no_grant().to_string(),
        };
        assert_eq!(
            (decided.is_ok(), named),
            (matches!(may, Yes(_)), rule(may)),
            "{service} sends {name}"
        );
    }
    for &(service, pattern, may) in RECEIVES {
        let pattern = Pattern::new(pattern).expect("a pattern");
        let decided = policy.decide_subscription(&identity(service), &pattern);
        let named = match &decided {
            Ok(permit) => permit.rule().to_string(),
            Err(denial) => denial.rule_or_no_grant().to_string(),
        };
        assert_eq!(
            (decided.is_ok(), named),
            (matches!(may, Yes(_)), rule(may)),
            "{service} receives {pattern}"
        );
    }
}

/// Hears all messages, and answers those that ask.
struct Sink(Client);

impl Sink {
    fn of(broker: &Broker) -> Self {
        let mut sink = Client::of(broker, "sink");
        assert!(sink.subscribes(">", "1").is_empty());
        Self(sink)
    }

    /// The only message that has come; it is from this service, under this name.
    fn has_one(&mut self, service: &str, name: &str, payload: &str) -> String {
        let heard = self.0.hears();
        assert_eq!(heard.len(), 1, "{service} {name}: {heard:#?}");
        assert!(heard[0].starts_with(&format!("HMSG {name} 1 ")), "{heard:#?}");
        let (headers, came) = parts_of(&heard[0]);
        assert_eq!(headers, ["NATS/1.0", &format!("Exo-Sender: {service}")]);
        assert_eq!(came, payload);
        heard[0].clone()
    }

    fn has_none(&mut self, what: &str) {
        assert_eq!(self.0.hears(), Vec::<String>::new(), "{what}");
    }
}

#[test]
fn publishing() {
    let broker = Broker::dev(POLICY);
    let mut sink = Sink::of(&broker);
    for &(service, name, may) in SENDS {
        let what = format!("{service} publishes {name}");
        let mut client = Client::of(&broker, service);
        // Twice: the second time from the connection's memory.
        for round in 0..2 {
            let heard = client.publishes(name, "x");
            if let Yes(_) = may {
                assert_eq!(heard, Vec::<String>::new(), "{what}, round {round}");
                sink.has_one(service, name, "x");
            } else {
                assert_eq!(heard, [publish_denied(name)], "{what}, round {round}");
                sink.has_none(&what);
            }
        }
    }
}

#[test]
fn requesting() {
    let broker = Broker::dev(POLICY);
    let mut sink = Sink::of(&broker);
    let version = broker.status()["policy"]["version"]
        .as_str()
        .expect("a text")
        .to_owned();
    for &(service, name, may) in SENDS {
        let what = format!("{service} requests {name}");
        let mut client = Client::of(&broker, service);
        assert!(client.subscribes("_INBOX.me.*", "9").is_empty());
        for round in 0..2 {
            let heard = client.asks(name, &format!("_INBOX.me.{round}"), "x");
            if let Yes(_) = may {
                assert_eq!(heard, Vec::<String>::new(), "{what}");
                let token = reply_of(&sink.has_one(service, name, "x")).to_owned();
                assert!(sink.0.publishes(&token, "answer").is_empty(), "{what}");
                let heard = client.hears();
                assert_eq!(heard.len(), 1, "{what}: {heard:#?}");
                assert!(
                    heard[0].starts_with(&format!("HMSG _INBOX.me.{round} 9 ")),
                    "{heard:#?}"
                );
                assert_eq!(
                    parts_of(&heard[0]),
                    (vec!["NATS/1.0", "Exo-Sender: sink"], "answer")
                );
            } else {
                assert_eq!(heard.len(), 2, "{what}: {heard:#?}");
                assert_eq!(heard[0], publish_denied(name));
                let (headers, payload) = parts_of(&heard[1]);
                let named = headers[2].strip_prefix("Exo-Rule: ").expect("a rule");
                assert!(
                    named == rule(may) || named.ends_with(&format!("/{}", rule(may))),
                    "{what}: {named}"
                );
                let rest = [headers[0], headers[1], headers[3]];
                assert_eq!(
                    rest,
                    [
                        "NATS/1.0 503",
                        "Exo-Reason: denied",
                        &format!("Exo-Policy: {version}")
                    ]
                );
                assert_eq!(payload, "");
                sink.has_none(&what);
            }
        }
    }
}

#[test]
fn subscribing() {
    let broker = Broker::dev(POLICY);
    let mut source = Client::of(&broker, "source");
    for &(service, pattern, may) in RECEIVES {
        for queue in [None, Some("group")] {
            let what = format!("{service} subscribes to {pattern} in {queue:?}");
            let mut client = Client::of(&broker, service);
            let heard = client.does(&format!("SUB {pattern} {} 5\r\n", queue.unwrap_or_default()));
            // A name that the pattern stands for.
            let name = pattern.replace(['*', '>'], "x");
            assert!(source.publishes(&name, "y").is_empty());
            let delivered = client.hears();
            if let Yes(_) = may {
                assert_eq!(heard, Vec::<String>::new(), "{what}");
                assert_eq!(delivered.len(), 1, "{what}: {delivered:#?}");
                assert!(
                    delivered[0].starts_with(&format!("HMSG {name} 5 ")),
                    "{delivered:#?}"
                );
            } else {
                assert_eq!(heard, [subscription_denied(pattern, queue)], "{what}");
                assert_eq!(delivered, Vec::<String>::new(), "{what}");
                let line = format!("action=\"subscribe\" subject=\"{pattern}\" rule=");
                let log = broker.log();
                let line = log
                    .lines()
                    .rev()
                    .find(|logged| logged.contains(&line))
                    .unwrap_or_else(|| panic!("{what}"));
                assert!(
                    line.contains(&format!("{}\"", rule(may)))
                        && line.contains(&format!("sender={service} ")),
                    "{line}"
                );
            }
        }
    }
}

#[test]
fn names_that_no_policy_can_grant() {
    let broker = Broker::dev(POLICY);
    let mut sink = Sink::of(&broker);
    let mut source = Client::of(&broker, "source");
    assert!(source.subscribes("_INBOX.me", "9").is_empty());
    for name in NEVER_SENT {
        assert_eq!(source.publishes(name, "x"), [publish_denied(name)], "{name:?}");
        let heard = source.asks(name, "_INBOX.me", "x");
        assert_eq!(heard[0], publish_denied(name), "{name:?}");
        sink.has_none(name);
    }
    for pattern in NEVER_RECEIVED {
        for queue in [None, Some("group")] {
            let heard = sink
                .0
                .does(&format!("SUB {pattern} {} 7\r\n", queue.unwrap_or_default()));
            assert_eq!(heard, [subscription_denied(pattern, queue)], "{pattern:?}");
        }
    }
}
