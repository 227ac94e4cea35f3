//! Who plays: the services, the message names, and what the policy must allow them. One list, written out for
//! ExoCom and for nats-server, so that both decide about the same.

use std::fmt::Write as _;

use clap::ValueEnum;

/// The trust domain of the certificates.
pub(super) const TRUST_DOMAIN: &str = "bench.example";
/// The requests' name.
pub(super) const ASK: &str = "bench.ask";
/// The service that asks.
pub(super) const REQUESTER: &str = "bench-requester";
/// The service that answers.
pub(super) const RESPONDER: &str = "bench-responder";
/// What the services that do nothing wait for, in vain.
pub(super) const IDLE_NAME: &str = "bench.idle";
/// Where the requester hears its answers; a number follows.
pub(super) const INBOX: &str = "_INBOX.bench.";

/// The service that publishes tracked messages.
pub(super) const PUBLISHER: &str = "bench-publisher";
/// The service that receives and acknowledges them.
pub(super) const WORKER: &str = "bench-worker";
/// Their name.
pub(super) const WORK: &str = "bench.work";
/// Those that nobody receives while it is measured: their services are away.
pub(super) const KEPT_PATTERN: &str = "bench.kept.*";
/// JetStream's stream for them, its consumer, and where that delivers.
pub(super) const STREAM: &str = "BENCH";
pub(super) const CONSUMER: &str = "worker";
pub(super) const DELIVER: &str = "bench.deliver";

/// Services that are away: a queue holds a part of what the store does.
const KEEPERS: usize = 4;
/// Services that do nothing: one may not have all the connections of a broker.
const IDLERS: usize = 4;
const SENDERS: usize = 4;
const RECEIVERS: usize = 8;

/// The service of a sender.
pub(super) fn sender(index: usize) -> String {
    format!("bench-pub-{index}")
}

/// The service of a receiver; where there are more than eight, several are instances of one.
pub(super) fn receiver(index: usize) -> String {
    format!("bench-sub-{}", index % RECEIVERS)
}

/// The services that do nothing.
pub(super) fn idlers() -> impl Iterator<Item = String> {
    (0..IDLERS).map(|index| format!("bench-idle-{index}"))
}

/// One of a sender's message names.
pub(super) fn name(sender: usize, number: usize) -> String {
    format!("bench.p{sender}.n{number}")
}

/// All of a sender's message names.
pub(super) fn pattern(sender: usize) -> String {
    format!("bench.p{sender}.*")
}

/// The name of a message that is kept for one of the services that are away.
pub(super) fn kept_name(index: usize) -> String {
    format!("bench.kept.k{}", index % KEEPERS)
}

struct Part {
    service: String,
    sends: Vec<String>,
    receives: Vec<String>,
    /// Whether it answers, and whether it asks.
    answers: bool,
    asks: bool,
    /// What it sends and receives besides, where tracked messages are JetStream's.
    jetstream: [Vec<String>; 2],
}

fn parts(names: usize, others: usize) -> Vec<Part> {
    let part = |service: String, sends: Vec<String>, receives: Vec<String>| Part {
        service,
        sends,
        receives,
        answers: false,
        asks: false,
        jetstream: [Vec::new(), Vec::new()],
    };
    let mut parts = Vec::new();
    for index in 0..SENDERS {
        let sends = (0..names).map(|number| name(index, number)).collect();
        parts.push(part(sender(index), sends, Vec::new()));
    }
    for index in 0..RECEIVERS {
        let mut receives = vec![pattern(0)];
        if (1..SENDERS).contains(&index) {
            receives.push(pattern(index));
        }
        parts.push(part(receiver(index), Vec::new(), receives));
    }
    parts.push(Part {
        asks: true,
        ..part(
            REQUESTER.to_owned(),
            vec![ASK.to_owned(), IDLE_NAME.to_owned()],
            Vec::new(),
        )
    });
    parts.push(Part {
        answers: true,
        ..part(RESPONDER.to_owned(), Vec::new(), vec![ASK.to_owned()])
    });
    for service in idlers() {
        parts.push(part(service, Vec::new(), vec![IDLE_NAME.to_owned()]));
    }
    let kept = (0..KEEPERS).map(kept_name);
    parts.push(Part {
        asks: true,
        jetstream: [
            vec![
                format!("$JS.API.STREAM.DELETE.{STREAM}"),
                format!("$JS.API.STREAM.CREATE.{STREAM}"),
                format!("$JS.API.CONSUMER.CREATE.{STREAM}.{CONSUMER}"),
            ],
            Vec::new(),
        ],
        ..part(
            PUBLISHER.to_owned(),
            kept.chain([WORK.to_owned()]).collect(),
            Vec::new(),
        )
    });
    parts.push(Part {
        jetstream: [vec!["$JS.ACK.>".to_owned()], vec![DELIVER.to_owned()]],
        ..part(WORKER.to_owned(), Vec::new(), vec![WORK.to_owned()])
    });
    for index in 0..KEEPERS {
        parts.push(part(
            format!("bench-keeper-{index}"),
            Vec::new(),
            vec![kept_name(index)],
        ));
    }
    for index in 0..others {
        let next = (index + 1) % others;
        parts.push(part(
            format!("bench-other-{index}"),
            vec![format!("other.s{index}.done"), format!("other.s{index}.failed")],
            vec![format!("other.s{next}.*")],
        ));
    }
    parts
}

/// What of the messages the broker's audit log tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Audited {
    /// There is none
    Off,
    /// How many there are in each flow
    Flow,
    /// Each event of scenarios a, b and c by itself
    Each,
}

/// ExoCom's policy: `names` message names a sender, and `others` services that play no part.
pub fn exocom_policy(names: usize, others: usize, audit: Audited) -> String {
    let mut text = format!("version = 1\ntrust-domain = \"{TRUST_DOMAIN}\"\n");
    for sender in 0..SENDERS {
        write!(text, "\n[message.\"{}\"]\nkind = \"event\"\n", pattern(sender))
            .expect("a string takes everything");
        if audit == Audited::Each {
            text.push_str("audit = \"each\"\n");
        }
    }
    write!(text, "\n[message.\"{IDLE_NAME}\"]\nkind = \"event\"\n").expect("a string takes everything");
    for name in [KEPT_PATTERN, WORK] {
        write!(
            text,
            "\n[message.\"{name}\"]\nkind = \"event\"\ndelivery = \"at-least-once\"\n"
        )
        .expect("a string takes everything");
    }
    for part in parts(names, others) {
        write!(
            text,
            "\n[service.{}]\nsends = {}\nreceives = {}\n",
            part.service,
            list(&part.sends),
            list(&part.receives)
        )
        .expect("a string takes everything");
    }
    text
}

/// The same for nats-server: its `authorization` block, users by the URI in their certificates.
pub fn nats_users(names: usize, others: usize) -> String {
    let mut text = String::from("authorization {\n  users = [\n");
    for part in parts(names, others) {
        let [more_sends, more_receives] = part.jetstream;
        let sends = [part.sends, more_sends].concat();
        let mut receives = [part.receives, more_receives].concat();
        if part.asks {
            receives.push(format!("{INBOX}*"));
        }
        let allow = |list_of: &[String]| match list_of {
            [] => "{ deny: [\">\"] }".to_owned(),
            names => format!("{{ allow: {} }}", list(names)),
        };
        // With `allow_responses` and nothing else, a user may publish answers only.
        let publish = if part.answers {
            "allow_responses: true".to_owned()
        } else {
            format!("publish: {}", allow(&sends))
        };
        writeln!(
            text,
            "    {{ user: \"spiffe://{TRUST_DOMAIN}/{}\", permissions: {{ {publish}, subscribe: {} }} }}",
            part.service,
            allow(&receives)
        )
        .expect("a string takes everything");
    }
    text.push_str("  ]\n}\n");
    text
}

fn list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Source};

    #[test]
    fn the_policy_compiles() {
        let sources = [Source {
            name: "bench.toml".into(),
            text: exocom_policy(3, 5, Audited::Each),
        }];
        let policy = Policy::compile(&sources).expect("a valid policy").policy;
        assert_eq!(
            policy.services().count(),
            SENDERS + RECEIVERS + KEEPERS + IDLERS + 4 + 5
        );
    }

    #[test]
    fn nats_server_gets_the_same_users() {
        let users = nats_users(2, 1);
        assert_eq!(
            users.matches("user: ").count(),
            SENDERS + RECEIVERS + KEEPERS + IDLERS + 4 + 1
        );
        assert!(users.contains("allow: [\"bench.p3.n0\", \"bench.p3.n1\"]"));
    }
}
