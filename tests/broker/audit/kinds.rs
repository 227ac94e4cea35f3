//! What is recorded one by one, each kind with who and why: orders of operators, revocations, policies, dead letters.

use std::fs;

use async_nats::jetstream;
use futures_util::StreamExt;
use serde_json::Value;

use super::{audit_ok, query};
use crate::support::{Broker, EXOCOM, wait_for, wait_until};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created"]

[service.mail]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
attempts = 1
"#;

/// `exocom …` of a broker: whether it succeeded, and its output.
fn exocom(broker: &Broker, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(EXOCOM)
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .current_dir(broker.dir())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_policies_and_what_was_given_up_are_recorded_with_who_and_why() {
    let mut broker = Broker::dev(POLICY);
    let mail = broker.client("mail").await;
    let mut events = mail.subscribe("todos.created").await.unwrap();
    mail.flush().await.unwrap();
    let web = broker.client("web").await;
    let publisher = jetstream::new(web.clone());
    let stored = publisher.publish("todos.created", "x".into()).await.unwrap();
    let seq = stored.await.unwrap().sequence;
    let event = events.next().await.unwrap();
    mail.publish(event.reply.unwrap(), "+TERM".into()).await.unwrap();
    wait_until("the dead letter", || {
        exocom(&broker, &["queue", "list", "--json"])
            .1
            .contains("\"seq\"")
    })
    .await;

    // Its file, an operator, and one that is refused since nothing is as it says.
    let changed = POLICY.replace("attempts = 1", "attempts = 2");
    let before = text(&broker.status()["policy"], "version").to_owned();
    broker.change_policy(&changed);
    let by_file = text(&broker.status()["policy"], "version").to_owned();
    fs::write(
        broker.path("next.toml"),
        POLICY.replace("attempts = 1", "attempts = 3"),
    )
    .unwrap();
    let apply = ["policy", "apply", "next.toml", "--why", "mail is slow", "--yes"];
    let (is_done, said) = exocom(&broker, &apply);
    assert!(is_done, "{said}");
    let by_operator = text(&broker.status()["policy"], "version").to_owned();

    let (is_done, said) = exocom(
        &broker,
        &["certs", "revoke", "web", "--reason", "host was stolen"],
    );
    assert!(is_done, "{said}");
    let (is_done, said) = exocom(&broker, &["certs", "unrevoke", "web", "--reason", "it was found"]);
    assert!(is_done, "{said}");
    let dropped = seq.to_string();
    let (is_done, said) = exocom(&broker, &["queue", "drop", &dropped, "--why", "nobody wants it"]);
    assert!(is_done, "{said}");
    assert!(broker.stop());

    let all = query(broker.dir(), "audit", &[]);
    let of = |kind: &str| {
        let is_it = |record: &&Value| record["kind"] == kind;
        all.iter().filter(is_it).collect::<Vec<_>>()
    };
    let [dead] = of("dead-letter")[..] else {
        panic!("{all:?}")
    };
    assert_eq!((&dead["seq"], &dead["attempts"]), (&seq.into(), &1.into()));
    assert_eq!(
        (text(dead, "receiver"), text(dead, "message")),
        ("mail", "todos.created")
    );
    assert!(!text(dead, "cause").is_empty(), "{dead}");

    let policies: Vec<_> = of("policy")
        .into_iter()
        .map(|record| {
            (
                text(record, "from"),
                text(record, "to"),
                text(record, "who"),
                text(record, "why"),
            )
        })
        .collect();
    let [first, second] = policies[..] else {
        panic!("{policies:?}")
    };
    assert_eq!((first.0, first.1), (&*before, &*by_file));
    assert_eq!((second.0, second.1), (&*by_file, &*by_operator));
    assert!(
        !first.2.is_empty() && !first.2.starts_with("uid ") && first.3.is_empty(),
        "{first:?}"
    );
    assert!(
        second.2.starts_with("uid ") && second.3 == "mail is slow",
        "{second:?}"
    );

    // On disk before it takes effect: the order, what it leads to, and then what became of it.
    let place = |kind: &str, verb: &str| {
        let found = all
            .iter()
            .position(|record| record["kind"] == kind && record["verb"] == verb);
        found.unwrap_or_else(|| panic!("no {kind} of {verb}: {all:?}"))
    };
    for (verb, why) in [
        ("certs revoke", "host was stolen"),
        ("certs unrevoke", "it was found"),
    ] {
        let (order, done) = (&all[place("admin", verb)], &all[place("admin-done", verb)]);
        assert!(place("admin", verb) < place("admin-done", verb));
        assert!(text(order, "who").starts_with("uid "), "{order}");
        assert_eq!((text(order, "why"), text(order, "about")), (why, "service:web"));
        assert_eq!(done["is_done"], true);
    }
    let cut = all.iter().position(|record| {
        record["kind"] == "disconnected"
            && record["sender"] == "web"
            && text(record, "reason").contains("revoked")
    });
    let cut = cut.unwrap_or_else(|| panic!("the connection was cut off: {all:?}"));
    assert!(place("admin", "certs revoke") < cut, "recorded first");
    let order = &all[place("admin", "queue drop")];
    assert_eq!(
        (text(order, "why"), text(order, "about")),
        ("nobody wants it", &*format!("message {seq}"))
    );
    audit_ok(broker.dir(), &["verify", "audit", "--key", "audit/log.pub"]);
}

#[test]
fn while_nothing_can_be_recorded_nobody_is_revoked() {
    let broker = Broker::dev(POLICY);
    fs::create_dir(broker.path("audit/checkpoint.new")).unwrap();
    let (is_done, said) = exocom(&broker, &["certs", "revoke", "web", "--reason", "stolen"]);
    assert!(!is_done && said.contains("audit log"), "{said}");
    assert!(
        exocom(&broker, &["certs", "revoked"])
            .1
            .contains("nothing is revoked")
    );
    wait_for("the status to tell", || {
        !broker.status()["audit"]["failing_since_unix_ms"].is_null()
    });
    let raw = broker.raw_ready("web");
    fs::remove_dir(broker.path("audit/checkpoint.new")).unwrap();
    wait_for("the log to be written again", || {
        broker.status()["audit"]["failing_since_unix_ms"].is_null()
    });
    let (is_done, said) = exocom(&broker, &["certs", "revoke", "web", "--reason", "stolen"]);
    assert!(is_done, "{said}");
    drop(raw);
}
