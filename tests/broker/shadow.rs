//! A candidate policy beside the one in force: what it would have done is counted to the message, and nothing is done
//! otherwise.

use std::fs;
use std::process::Command;

use futures_util::StreamExt;
use serde_json::Value;

use crate::operators::{admin_address, as_somebody};
use crate::support::{Broker, EXOCOM, PATIENCE, Raw, TODO_POLICY, wait_for};

/// Of `web`: no `todos.create`, but `todos.purge`. Of `todos`: no `todos.list`.
fn candidate() -> String {
    TODO_POLICY
        .replace(
            "\"todos.list\", \"todos.create\"]",
            "\"todos.list\", \"todos.purge\"]",
        )
        .replace(
            "[\"todos.created\"]      #",
            "[\"todos.created\", \"todos.list\"]      #",
        )
}

/// `exocom policy shadow …` of a broker: its exit code, and what it said.
fn shadow(broker: &Broker, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(EXOCOM)
        .args(["policy", "shadow"])
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .current_dir(broker.dir())
        .output()
        .expect("the binary was built for the tests");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[track_caller]
fn start(broker: &Broker, policy: &str) {
    fs::write(broker.path("next.toml"), policy).expect("the folder takes a file");
    let (code, said) = shadow(broker, &["start", "next.toml", "--reason", "is less enough?"]);
    assert_eq!(code, Some(0), "{said}");
}

#[track_caller]
fn report(broker: &Broker, verb: &str) -> Value {
    let (code, said) = shadow(broker, &[verb, "--json"]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&said).expect("it is JSON")
}

/// Each flow in a line, in order.
fn lines(report: &Value) -> Vec<String> {
    let flows = report["flows"].as_array().expect("a list").iter();
    let mut lines: Vec<_> = flows
        .map(|flow| {
            let text = |key: &str| flow[key].as_str().unwrap_or("-").to_owned();
            assert!(
                flow["first_unix_s"].as_i64() <= flow["last_unix_s"].as_i64(),
                "{flow}"
            );
            assert!(
                flow["first_unix_s"].as_i64() >= report["since_unix_s"].as_i64(),
                "{flow}"
            );
            format!(
                "{} {} {} {}: {} ({} / {})",
                text("would"),
                text("service"),
                text("action"),
                text("name"),
                flow["count"],
                text("rule_in_force"),
                text("rule_of_candidate"),
            )
        })
        .collect();
    lines.sort();
    lines
}

/// Publishes so many, and returns all that comes before the PONG.
fn publish(raw: &mut Raw, name: &str, count: usize) -> Vec<String> {
    raw.send(format!("PUB {name} 1\r\nx\r\n").repeat(count).as_bytes());
    answers(raw)
}

fn answers(raw: &mut Raw) -> Vec<String> {
    raw.send(b"PING\r\n");
    let mut answers = Vec::new();
    loop {
        match raw.message() {
            pong if pong == "PONG" => return answers,
            answer => answers.push(answer),
        }
    }
}

#[test]
fn what_a_candidate_would_do_is_counted_to_the_message_and_not_done() {
    let broker = Broker::dev(TODO_POLICY);
    let (code, said) = shadow(&broker, &["report"]);
    assert_eq!(
        (code, said.contains("policy shadow start FILE")),
        (Some(1), true),
        "{said}"
    );
    let (mut web, mut todos) = (broker.raw_ready("web"), broker.raw_ready("todos"));
    todos.send(b"SUB todos.list 1\r\nSUB todos.create 2\r\n");
    assert!(answers(&mut todos).is_empty());
    // Decided, and kept at hand, before there is a candidate.
    assert_eq!(publish(&mut web, "todos.purge", 3).len(), 3);
    assert!(publish(&mut web, "todos.create", 3).is_empty());
    assert!(publish(&mut web, "todos.list", 3).is_empty());
    assert_eq!(answers(&mut todos).len(), 6);

    start(&broker, &candidate());
    assert_eq!(publish(&mut web, "todos.purge", 40).len(), 40, "denied as before");
    assert!(
        publish(&mut web, "todos.create", 50).is_empty(),
        "allowed as before"
    );
    assert!(
        publish(&mut web, "todos.list", 60).is_empty(),
        "allowed as before"
    );
    assert_eq!(answers(&mut todos).len(), 110, "delivered as before");
    // Another connection of the service counts in the same flow, from its first message on.
    assert_eq!(publish(&mut broker.raw_ready("web"), "todos.purge", 2).len(), 2);
    assert_eq!(
        publish(&mut web, "todos.other", 5).len(),
        5,
        "denied by both: no difference"
    );
    let told = report(&broker, "report");
    let expected = [
        "allow web send todos.purge: 42 (no grant / next.toml:9)",
        "deny todos receive todos.list: 60 (policy.toml:15 / next.toml:16)",
        "deny todos subscribe todos.list: 1 (policy.toml:15 / next.toml:16)",
        "deny web send todos.create: 50 (policy.toml:9 / no grant)",
    ];
    let with_folder = |line: &str| {
        line.replace(
            "(policy.toml",
            &format!("({}", broker.path("policy.toml").display()),
        )
    };
    let expected: Vec<_> = expected.iter().map(|line| with_folder(line)).collect();
    assert_eq!(lines(&told), expected);
    assert_eq!(told["why"], "is less enough?");
    let (code, said) = shadow(&broker, &["report", "--no-new-denials"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("would have denied: 111") && said.contains("would have allowed: 42"),
        "{said}"
    );

    // What is open is counted once, whatever else changes meanwhile.
    for verb in ["add", "release"] {
        let output = Command::new(EXOCOM)
            .args(["quarantine", verb, "web", "--reason", "a test", "--admin"])
            .arg(broker.path("admin.sock"))
            .output()
            .expect("the binary was built for the tests");
        assert!(output.status.success(), "{output:?}");
        assert!(answers(&mut todos).is_empty());
    }
    assert_eq!(lines(&report(&broker, "report")), expected);

    // Only one at a time; and only somebody sound.
    let (code, said) = shadow(&broker, &["start", "next.toml"]);
    assert_eq!(
        (code, said.contains("is tried already")),
        (Some(1), true),
        "{said}"
    );
    let told = report(&broker, "stop");
    assert_eq!(lines(&told), expected);
    assert!(
        told["ended"]["by"]
            .as_str()
            .is_some_and(|by| by.starts_with("uid ")),
        "{told}"
    );
    assert!(publish(&mut web, "todos.create", 5).is_empty());
    assert_eq!(
        lines(&report(&broker, "report")),
        expected,
        "nothing is counted after the end"
    );
    assert_eq!(shadow(&broker, &["stop"]).0, Some(1));
    fs::write(broker.path("bad.toml"), "version = 1\n").expect("the folder takes a file");
    assert_eq!(shadow(&broker, &["start", "bad.toml"]).0, Some(1));
    assert_eq!(shadow(&broker, &["start", "missing.toml"]).0, Some(2));
    let (code, said) = shadow(&broker, &["start", "policy.toml"]);
    assert_eq!((code, said.contains("it is in force")), (Some(1), true), "{said}");
}

#[test]
fn connections_and_subscriptions_are_counted_as_they_come() {
    let broker = Broker::dev(TODO_POLICY);
    // Without `web`; with `todos.created` for `todos`.
    let next = TODO_POLICY
        .replace("[service.web]", "[service.other]")
        .replace("receives-except", "#");
    let _open = broker.raw_ready("web");
    let mut todos = broker.raw_ready("todos");
    start(&broker, &next);
    wait_for("the open connection to be counted", || {
        lines(&report(&broker, "report")).len() == 1
    });
    let _another = broker.raw_ready("web");
    for _ in 0..3 {
        todos.send(b"SUB todos.* 1\r\n");
        let answers = answers(&mut todos);
        assert!(
            answers[0].starts_with("-ERR 'Permissions Violation for Subscription"),
            "{answers:?}"
        );
    }
    let told = lines(&report(&broker, "stop"));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].starts_with("allow todos subscribe todos.*: 3 ("),
        "{told:?}"
    );
    assert!(told[1].starts_with("deny web connect all: 2 ("), "{told:?}");
}

#[test]
fn large_payloads_and_names_without_end_are_counted_exactly() {
    let limit = "\n[message.\"todos.list\"]\npayload-max = \"10B\"\n";
    let broker = Broker::dev(TODO_POLICY);
    let next = TODO_POLICY.replace("\"todos.create\"]", "\"todos.create\", \"made.up.*\"]");
    start(&broker, &format!("{next}{limit}"));
    let mut web = broker.raw_ready("web");
    for bytes in [9, 10, 11, 12] {
        web.send(format!("PUB todos.list {bytes}\r\n{}\r\n", "x".repeat(bytes)).as_bytes());
    }
    assert!(answers(&mut web).is_empty());
    for part in 0..3 {
        let names: String = (0..1_000)
            .map(|n| format!("PUB made.up.n{part}-{n} 0\r\n\r\n"))
            .collect();
        web.send(names.as_bytes());
        assert_eq!(answers(&mut web).len(), 1_000);
    }
    let told = report(&broker, "stop");
    let told = lines(&told);
    let count = |line: &String| -> u64 {
        let count = line.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
        count.and_then(|count| count.parse().ok()).expect("a count")
    };
    let (size, made_up): (Vec<_>, Vec<_>) = told.into_iter().partition(|line| line.contains("todos.list"));
    assert_eq!(size.iter().map(count).collect::<Vec<_>>(), [2], "{size:?}");
    assert!(size[0].contains("(payload-max 10 bytes)"), "{size:?}");
    assert_eq!(made_up.iter().map(count).sum::<u64>(), 3_000);
    assert_eq!(made_up.len(), 1_024, "as many as are told apart, and the rest");
    assert!(
        made_up
            .iter()
            .any(|line| line.starts_with("allow web send -: ") && line.ends_with("(several / several)"))
    );
}

const TRACKED: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created"]

[service.todos]
receives = ["todos.created"]

[service.mail]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"
attempts = 10
backoff = "10ms..20ms"
"#;

#[tokio::test]
async fn attempts_of_tracked_messages_are_counted_one_by_one() {
    let broker = Broker::dev(TRACKED);
    let next = TRACKED
        .replace("receives = [\"todos.created\"]", "")
        .replace("[service.mail]", "[service.mail]\nreceives = [\"todos.created\"]");
    let todos = broker.client("todos").await;
    let mut events = todos
        .queue_subscribe("todos.created", "todos".to_owned())
        .await
        .unwrap();
    todos.flush().await.unwrap();
    start(&broker, &next);
    let web = async_nats::jetstream::new(broker.client("web").await);
    for _ in 0..3 {
        web.publish("todos.created", "x".into())
            .await
            .unwrap()
            .await
            .unwrap();
    }
    // Refused twice each, then done.
    for _ in 0..9 {
        let event = tokio::time::timeout(PATIENCE, events.next())
            .await
            .expect("in time")
            .expect("it lives");
        let attempt = event
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Exo-Attempt"));
        let word = if attempt.is_some_and(|attempt| attempt.as_str() == "3") {
            ""
        } else {
            "-NAK"
        };
        todos
            .publish(event.reply.expect("a reply"), word.into())
            .await
            .unwrap();
    }
    todos.flush().await.unwrap();
    let told = lines(&report(&broker, "stop"));
    let starts = [
        "allow mail receive todos.created: 3 (",
        "deny todos receive todos.created: 9 (",
        "deny todos subscribe todos.created: 1 (",
    ];
    assert_eq!(told.len(), starts.len(), "{told:?}");
    for (line, start) in told.iter().zip(starts) {
        assert!(line.starts_with(start), "{told:?}");
    }
}

#[test]
fn a_trial_outlives_other_policies_and_ends_with_its_own() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    start(&broker, &candidate());
    let first = report(&broker, "report")["in_force"].clone();
    assert!(publish(&mut web, "todos.create", 2).is_empty());
    // Another policy, in which the line is another.
    broker.change_policy(&format!("# reviewed\n{TODO_POLICY}"));
    assert!(publish(&mut web, "todos.create", 3).is_empty());
    let told = report(&broker, "report");
    let mut sends: Vec<_> = told["flows"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|flow| flow["action"] == "send")
        .map(|flow| (flow["count"].as_u64(), flow["in_force"].clone()))
        .collect();
    sends.sort_by_key(|(count, _)| *count);
    assert_ne!(first, told["in_force"]);
    assert_eq!(sends, [(Some(2), first), (Some(3), told["in_force"].clone())]);

    let tried = broker.status()["policy"]["candidate"].clone();
    assert_eq!(tried["version"], told["candidate"]);
    assert_eq!(tried["who"], told["who"]);

    // The candidate comes into force.
    let output = Command::new(EXOCOM)
        .args(["policy", "apply", "next.toml", "--yes", "--admin"])
        .arg(broker.path("admin.sock"))
        .current_dir(broker.dir())
        .output()
        .expect("the binary was built for the tests");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(publish(&mut web, "todos.create", 1).len(), 1, "now it decides");
    let told = report(&broker, "report");
    assert_eq!(told["ended"]["by"], "it has come into force");
    let policy = &broker.status()["policy"];
    assert_eq!(told["candidate"], policy["version"]);
    assert!(policy["candidate"].is_null(), "{policy}");
    assert_eq!(lines(&told).len(), 2);

    // Nothing of it outlives the broker.
    start(&broker, TODO_POLICY);
    let mut broker = broker;
    broker.stop();
    let log = broker.log();
    assert!(
        log.contains("trial of a policy ended") && log.contains("the broker's end"),
        "{log}"
    );
    let broker = broker.restart();
    assert_eq!(shadow(&broker, &["report"]).0, Some(1));
    assert_eq!(publish(&mut broker.raw_ready("web"), "todos.create", 1).len(), 1);
}

#[test]
fn only_operators_who_may_begin_and_end_a_trial() {
    let policy = format!(
        "{TODO_POLICY}[operator.bob]\nmay = [\"view\"]\n[operator.carol]\nmay = [\"apply-policy\"]\n"
    );
    let config = "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
        [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
        [admin]\nlisten = \"127.0.0.1:0\"\n\
        [audit]\nfolder = \"audit\"\n\
        [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
        [limits]\nlame-duck-ms = 0\n";
    let mut broker = Broker::serve(&policy, config);
    let admin = admin_address(&broker);
    let next = broker.path("next.toml");
    fs::write(&next, policy.replace("\"todos.create\"", "\"todos.purge\"")).expect("the folder takes a file");
    let next = next.to_str().expect("it is text");
    let check = |name: &str, arguments: &[&str], code: i32, words: &str| {
        let (found, said) = as_somebody(&broker, admin, name, &[&["policy", "shadow"], arguments].concat());
        assert_eq!(found, Some(code), "{name} {arguments:?}: {said}");
        assert!(said.contains(words), "{name} {arguments:?}: {said}");
    };
    check("bob", &["start", next], 1, "may not apply-policy");
    check("web", &["start", next], 1, "a service is not an operator");
    check("bob", &["report"], 1, "no candidate is tried");
    // To begin, one compares; as with `policy apply`.
    check("carol", &["start", next], 1, "may not view");
    check(
        "alice",
        &["start", next, "--reason", "less"],
        0,
        "is tried beside",
    );
    check("bob", &["report"], 0, "by alice: less");
    check("carol", &["report"], 1, "may not view");
    check("bob", &["stop"], 1, "may not apply-policy");
    check("carol", &["stop", "--why", "enough"], 0, "until");
    let log = broker.log();
    for words in [
        "verb=\"policy shadow start\"",
        "verb=\"policy shadow stop\"",
        "why=\"enough\"",
    ] {
        assert!(log.contains(words), "no {words} in {log}");
    }
    broker.stop();
    let output = Command::new(EXOCOM)
        .args(["audit", "query", "--operator", "alice", "--dir"])
        .arg(broker.path("audit"))
        .output()
        .expect("the binary was built for the tests");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("policy shadow start"), "{said}");
}
