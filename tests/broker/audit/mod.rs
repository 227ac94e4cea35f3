//! The audit log of a real broker: what is in it, whether it adds up, and what happens when it cannot be written.

mod forged;
mod kinds;
mod pruned;

use std::fs;
use std::path::Path;
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::Value;

use crate::config::config;
use crate::support::{Broker, EXOCOM, PATIENCE, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.list", "todos.created", "nobody.home"]

[service.todos]
receives = ["todos.list", "todos.created"]

[service.mail]
receives = ["todos.created", "nobody.home"]

[message."todos.created"]
kind = "event"
"#;

const CONFIG: &str = config!(
    r#"
[audit]
folder = "trail"
interval-s = 1
witnesses = ["witness"]
"#
);

/// `exocom audit …`: whether it succeeded, and its output.
fn audit(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(EXOCOM)
        .arg("audit")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[track_caller]
fn audit_ok(folder: &Path, arguments: &[&str]) -> String {
    let (is_ok, text) = audit(folder, arguments);
    assert!(is_ok, "{arguments:?}: {text}");
    text
}

/// The entries that a query shows.
#[track_caller]
fn query(folder: &Path, dir: &str, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["query", "--dir", dir, "--json"], arguments].concat();
    let text = audit_ok(folder, &arguments);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The sum of a count over all flow records of a message.
fn sum(flows: &[Value], message: &str, count: &str) -> u64 {
    let of_message = flows.iter().filter(|flow| flow["message"] == message);
    of_message.map(|flow| flow[count].as_u64().unwrap()).sum()
}

async fn listen(client: &Client, subject: &'static str) {
    let mut messages = client.subscribe(subject).await.unwrap();
    client.flush().await.unwrap();
    let answering = client.clone();
    tokio::spawn(async move {
        while let Some(message) = messages.next().await {
            if let Some(reply) = message.reply {
                answering.publish(reply, "done".into()).await.unwrap();
            }
        }
    });
}

/// Publishes, and returns after the broker has handled it.
async fn publish(client: &Client, subject: &'static str, count: usize, bytes: usize) {
    for _ in 0..count {
        client.publish(subject, vec![b'x'; bytes].into()).await.unwrap();
    }
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_is_accounted_for() {
    let mut broker = Broker::dev(POLICY);
    let todos = broker.client("todos").await;
    let mail = broker.client("mail").await;
    listen(&todos, "todos.list").await;
    listen(&todos, "todos.created").await;
    listen(&mail, "todos.created").await;
    let web = broker.client("web").await;
    for _ in 0..20 {
        web.request("todos.list", "please".into()).await.unwrap();
    }
    publish(&web, "todos.created", 1_000, 100).await;
    publish(&web, "nobody.home", 7, 5).await;
    publish(&web, "todos.purge", 33, 5).await;
    web.request("todos.list", "please".into()).await.unwrap();
    // Counts of connections that have ended are not lost with them.
    for _ in 0..3 {
        let other = broker.client("web").await;
        publish(&other, "todos.created", 11, 10).await;
        other.drain().await.unwrap();
    }
    assert!(broker.stop());
    let flows = query(broker.dir(), "audit", &["--kind", "flow"]);
    // Both services receive each event.
    assert_eq!(sum(&flows, "todos.created", "messages"), 2 * 1_033);
    assert_eq!(sum(&flows, "todos.created", "bytes"), 2 * (100_000 + 330));
    assert_eq!(sum(&flows, "todos.list", "messages"), 21);
    assert_eq!(sum(&flows, "nobody.home", "unreceived"), 7);
    assert_eq!(sum(&flows, "todos.purge", "denied"), 33);
    assert_eq!(sum(&flows, "todos.created", "dropped"), 0);
    let to_mail = query(broker.dir(), "audit", &["--kind", "flow", "--service", "mail"]);
    assert_eq!(sum(&to_mail, "todos.created", "messages"), 1_033);
    let denials = query(
        broker.dir(),
        "audit",
        &["--kind", "denial", "--message", "todos.*"],
    );
    let count: u64 = denials
        .iter()
        .map(|denial| denial["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, 33);
    assert!(
        denials
            .iter()
            .all(|denial| denial["rule"] == "no grant" && denial["sender"] == "web")
    );
    let why = |arguments: &[&str]| {
        let output = std::process::Command::new(EXOCOM)
            .args(["why", "--dir", "audit", "--service", "web"])
            .args(arguments)
            .current_dir(broker.dir())
            .output()
            .unwrap();
        (output.status.success(), [output.stdout, output.stderr].concat())
    };
    let (is_told, text) = why(&["--message", "todos.purge"]);
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        is_told && text.contains("publish todos.purge: no grant"),
        "{text}"
    );
    assert!(!why(&["--message", "todos.list"]).0, "that was never denied");
    check_series(&broker);
    let connected = query(broker.dir(), "audit", &["--kind", "connected"]).len();
    let disconnected = query(broker.dir(), "audit", &["--kind", "disconnected"]).len();
    assert_eq!((connected, disconnected), (6, 6));
    let kinds: Vec<_> = query(broker.dir(), "audit", &[]);
    assert_eq!(kinds.first().unwrap()["kind"], "start");
    assert_eq!(kinds.last().unwrap()["kind"], "stop");
    let verified = audit_ok(broker.dir(), &["verify", "audit", "--key", "audit/log.pub"]);
    assert!(verified.contains("verified: "), "{verified}");
    let tail = audit_ok(broker.dir(), &["tail", "--dir", "audit", "-n", "1"]);
    assert!(tail.ends_with("stopped in order\n"), "{tail}");
}

/// What was sent over time, as files that the detectors read.
fn check_series(broker: &Broker) {
    let told = audit_ok(broker.dir(), &["series", "series", "--dir", "audit"]);
    assert_eq!(told, "series: 3 series\n");
    let sum = |name: &str| -> u64 {
        let text = fs::read_to_string(broker.path("series").join(name)).unwrap();
        let rows = text.strip_prefix("timestamp,value\n").unwrap().lines();
        let values = rows.map(|row| row.split_once(',').unwrap());
        values
            .map(|(time, value)| {
                assert_eq!(time.parse::<u64>().unwrap() % 10, 0, "intervals of ten seconds");
                value.parse::<u64>().unwrap()
            })
            .sum()
    };
    assert_eq!(sum("web~todos.created~mail.csv"), 1_033);
    assert_eq!(sum("web~todos.list~todos.csv"), 21);
    let of_bytes = ["series", "bytes", "--of", "bytes", "--dir", "audit"];
    audit_ok(broker.dir(), &of_bytes);
    let bytes = fs::read_to_string(broker.path("bytes/web~todos.created~mail.csv")).unwrap();
    assert!(bytes.lines().skip(1).count() > 0);
    let output = std::process::Command::new(EXOCOM)
        .args(["alarms", "backtest", "--kind", "count", "--interval", "10s"])
        .arg(broker.path("series/web~todos.created~mail.csv"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("0 alarms in "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_is_recorded_with_its_rule() {
    let mut broker = Broker::dev(POLICY);
    let stranger = Broker::dev(POLICY);
    for _ in 0..5 {
        let options = stranger
            .options("web")
            .add_root_certificates(broker.cert("ca.pem"));
        drop(options.connect(broker.url()).await.unwrap_err());
    }
    assert!(broker.stop());
    let refused = query(broker.dir(), "audit", &["--kind", "refused"]);
    // Two, where a round ended between them.
    assert!((1..=2).contains(&refused.len()), "{refused:?}");
    let count: u64 = refused
        .iter()
        .map(|record| record["count"].as_u64().unwrap())
        .sum();
    assert_eq!(count, 5);
    for record in refused {
        assert_eq!(record["rule"], "bad-signature");
        let certificate = record["certificate"].as_str().unwrap();
        assert!(certificate.contains("spiffe://todo.example/web"), "{certificate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_the_counts_still_add_up_and_a_gap_bounds_the_rest() {
    let mut broker = Broker::serve(POLICY, CONFIG);
    let kills = std::env::var("EXOCOM_AUDIT_KILLS").map_or(3, |kills| kills.parse().unwrap());
    let mut sent = 0;
    let mut sent_before_last_life = 0;
    for life in 0..=kills {
        let todos = broker.client("todos").await;
        listen(&todos, "todos.created").await;
        listen(&todos, "todos.list").await;
        let web = broker.client("web").await;
        // Long enough for some records.
        let until = tokio::time::Instant::now() + Duration::from_millis(700 + 400 * (life % 4));
        sent_before_last_life = sent;
        while tokio::time::Instant::now() < until {
            publish(&web, "todos.created", 50, 100).await;
            sent += 50;
            // What comes after it has been handled when it is answered.
            web.request("todos.list", "please".into()).await.unwrap();
        }
        if life < kills {
            broker.kill();
            drop((web, todos));
            broker = broker.restart();
            audit_ok(
                broker.dir(),
                &[
                    "verify",
                    "trail",
                    "--key",
                    "trail/log.pub",
                    "--witness",
                    "witness",
                ],
            );
        }
    }
    assert!(broker.stop());
    let flows = query(broker.dir(), "trail", &["--kind", "flow"]);
    let recorded = sum(&flows, "todos.created", "messages");
    let last_life = sent - sent_before_last_life;
    assert!(recorded <= sent && recorded >= last_life, "{recorded} of {sent}");
    let all = query(broker.dir(), "trail", &[]);
    let last_start = all.iter().rposition(|entry| entry["kind"] == "start").unwrap();
    assert_eq!(
        sum(&all[last_start..], "todos.created", "messages"),
        last_life,
        "{recorded} of {sent}"
    );
    let gaps: Vec<_> = all.iter().filter(|entry| entry["kind"] == "gap").collect();
    assert_eq!(gaps.len() as u64, kills);
    for gap in gaps {
        let at = all.iter().position(|entry| entry == gap).unwrap();
        assert_eq!(gap["cause"], "unclean-stop");
        assert!(gap["after_unix_ms"].as_u64().unwrap() > 0);
        assert_eq!(all[at + 1]["kind"], "start", "the gap comes first");
    }
    audit_ok(
        broker.dir(),
        &[
            "verify",
            "trail",
            "--key",
            "trail/log.pub",
            "--witness",
            "witness",
        ],
    );
}

/// A folder where the draft of the checkpoint should be: the log cannot be written.
struct Unwritable<'a>(&'a Broker);

impl<'a> Unwritable<'a> {
    fn new(broker: &'a Broker) -> Self {
        fs::create_dir(broker.path("trail/checkpoint.new")).unwrap();
        Self(broker)
    }
}

impl Drop for Unwritable<'_> {
    fn drop(&mut self) {
        fs::remove_dir(self.0.path("trail/checkpoint.new")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_cannot_be_written_messages_stop_and_nothing_may_be_changed() {
    let mut broker = Broker::serve(POLICY, CONFIG);
    let todos = broker.client("todos").await;
    listen(&todos, "todos.list").await;
    let web = broker.client("web").await;
    web.request("todos.list", "please".into()).await.unwrap();
    let version = broker.status()["policy"]["version"].clone();
    let unwritable = Unwritable::new(&broker);
    let request = async || {
        let inbox = web.new_inbox();
        let mut answers = web.subscribe(inbox.clone()).await.unwrap();
        web.publish_with_reply("todos.list", inbox, "please".into())
            .await
            .unwrap();
        let answer = tokio::time::timeout(PATIENCE, answers.next())
            .await
            .unwrap()
            .unwrap();
        let headers = answer.headers.unwrap_or_default();
        headers.get("Exo-Reason").map(ToString::to_string)
    };
    let mut said = None;
    for _ in 0..600 {
        // Something to record, so that it is tried.
        publish(&web, "todos.purge", 1, 1).await;
        said = request().await;
        if said.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(said.as_deref(), Some("overloaded"));
    let changed = POLICY.replace("\"nobody.home\"", "\"nobody.there\"");
    fs::write(broker.path("policy.toml"), &changed).unwrap();
    wait_for("the change to be refused", || {
        let refused = broker.status()["policy"]["refused_change"].clone();
        refused
            .as_str()
            .is_some_and(|reason| reason.contains("audit log"))
    });
    assert_eq!(broker.status()["policy"]["version"], version);
    drop(unwritable);
    for _ in 0..600 {
        said = request().await;
        if said.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(said, None, "messages pass again");
    broker.signal("HUP");
    wait_for("the policy", || broker.status()["policy"]["version"] != version);
    assert!(broker.stop());
    let all = query(broker.dir(), "trail", &[]);
    let kinds = |kind: &str| {
        all.iter()
            .filter(|entry| entry["kind"] == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(kinds("gap").len(), 1);
    assert_eq!(kinds("gap")[0]["cause"], "cannot-write");
    let policies = kinds("policy");
    let withdrawn = kinds("withdrawn");
    assert_eq!(policies.len(), 1 + withdrawn.len(), "{policies:?}");
    assert_eq!(policies.last().unwrap()["from"], version);
    assert!(
        sum(&all, "todos.list", "dropped") >= 1,
        "what was refused is counted"
    );
    audit_ok(broker.dir(), &["verify", "trail", "--key", "trail/log.pub"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_configuration_messages_pass_while_it_cannot_be_written() {
    let config = format!("{CONFIG}on-failure = \"continue\"\n");
    let mut broker = Broker::serve(POLICY, &config);
    let todos = broker.client("todos").await;
    listen(&todos, "todos.list").await;
    let web = broker.client("web").await;
    let unwritable = Unwritable::new(&broker);
    publish(&web, "todos.purge", 3, 1).await;
    wait_for("the failure", || {
        broker.log().contains("the audit log cannot be written")
    });
    for _ in 0..50 {
        web.request("todos.list", "please".into()).await.unwrap();
    }
    drop(unwritable);
    wait_for("the log", || broker.log().contains("can be written again"));
    assert!(broker.stop());
    let all = query(broker.dir(), "trail", &[]);
    assert_eq!(sum(&all, "todos.list", "messages"), 50, "no count is lost");
    assert!(
        all.iter()
            .any(|entry| entry["kind"] == "gap" && entry["cause"] == "cannot-write")
    );
    audit_ok(broker.dir(), &["verify", "trail", "--key", "trail/log.pub"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_recorded_where_the_policy_asks_for_it() {
    let policy = format!(
        "{POLICY}audit = \"each\"\n[message.\"nobody.home\"]\naudit = \"each\"\n[message.\"todos.list\"]\naudit = \"each\"\n\
         delivery = \"at-least-once\"\nbackoff = \"10ms..10ms\"\n"
    );
    let mut broker = Broker::dev(&policy);
    let todos = broker.client("todos").await;
    let mail = broker.client("mail").await;
    listen(&todos, "todos.created").await;
    listen(&todos, "todos.list").await;
    listen(&mail, "todos.created").await;
    let web = broker.client("web").await;
    web.publish("todos.created", "abc".into()).await.unwrap();
    for _ in 0..200 {
        web.publish("todos.created", "x".into()).await.unwrap();
    }
    web.publish("nobody.home", "abc".into()).await.unwrap();
    web.request("todos.list", "abc".into()).await.unwrap();
    assert!(broker.stop());
    let each = query(broker.dir(), "audit", &["--kind", "message"]);
    let of = |message: &str| {
        each.iter()
            .filter(|record| record["message"] == message)
            .collect::<Vec<_>>()
    };
    assert_eq!(of("todos.created").len(), 2 * 201);
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let told: Vec<_> = of("todos.created")
        .into_iter()
        .filter(|record| record["digest"] == abc)
        .collect();
    assert_eq!(told.len(), 2, "one for each receiver");
    for record in told {
        assert_eq!(
            (&record["sender"], &record["outcome"]),
            (&"web".into(), &"delivered".into())
        );
        assert_eq!(record["bytes"], 3);
        assert!(
            record["receiver"] == "todos" || record["receiver"] == "mail",
            "{record}"
        );
        assert!(record["sender_connection"].as_u64().unwrap() > 0);
        assert!(record["receiver_connection"].as_u64().unwrap() > 0);
    }
    let lost = of("nobody.home");
    assert_eq!((lost.len(), &lost[0]["outcome"]), (1, &"no-receiver".into()));
    let tracked: Vec<_> = of("todos.list")
        .iter()
        .map(|record| record["outcome"].clone())
        .collect();
    assert_eq!(tracked, ["stored", "delivered"]);
    let seq = of("todos.list")[0]["seq"].to_string();
    let of_seq = query(broker.dir(), "audit", &["--seq", &seq]);
    assert_eq!(of_seq.len(), 2);
    assert_eq!(
        (&of_seq[1]["attempt"], &of_seq[1]["receiver"]),
        (&1.into(), &"todos".into())
    );
    let told = audit_ok(broker.dir(), &["query", "--dir", "audit", "--seq", &seq]);
    assert!(
        told.contains(&format!(
            "web todos.list to todos: delivered, 3 bytes, message {seq}, attempt 1"
        )),
        "{told}"
    );
    let why = std::process::Command::new(EXOCOM)
        .args(["why", &seq, "--dir", "audit"])
        .current_dir(broker.dir())
        .output()
        .unwrap();
    assert!(why.status.success());
    assert_eq!(String::from_utf8_lossy(&why.stdout), told);
    // Single records beside the counts, not in place of them.
    let flows = query(broker.dir(), "audit", &["--kind", "flow"]);
    assert_eq!(sum(&flows, "todos.created", "messages"), 2 * 201);
    audit_ok(broker.dir(), &["verify", "audit", "--key", "audit/log.pub"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_tried_on_what_was_sent() {
    let mut broker = Broker::dev(POLICY);
    let todos = broker.client("todos").await;
    listen(&todos, "todos.list").await;
    listen(&todos, "todos.created").await;
    let web = broker.client("web").await;
    publish(&web, "todos.created", 40, 10).await;
    publish(&web, "todos.purge", 6, 10).await;
    web.request("todos.list", "please".into()).await.unwrap();
    assert!(broker.stop());
    let candidate = POLICY.replace(
        r#"["todos.list", "todos.created", "nobody.home"]"#,
        r#"["todos.list", "todos.purge", "nobody.home"]"#,
    );
    fs::write(broker.path("candidate.toml"), candidate).unwrap();
    let replay = |arguments: &[&str]| {
        let output = std::process::Command::new(EXOCOM)
            .args(["policy", "replay"])
            .args(arguments)
            .current_dir(broker.dir())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, told) = replay(&["candidate.toml", "--dir", "audit", "--since", "1h"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("would be denied: 40 messages"), "{told}");
    assert!(
        told.contains("web todos.created to todos: web may not send it: no grant"),
        "{told}"
    );
    assert!(told.contains("would be allowed: 6 messages"), "{told}");
    assert!(told.contains("web todos.purge: candidate.toml:"), "{told}");
    assert!(told.contains("as before: 1 messages"), "{told}");
    let (code, told) = replay(&["candidate.toml", "--dir", "audit", "--no-new-denials", "--json"]);
    assert_eq!(code, Some(1));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["newly-denied"][0]["messages"], 40);
    let (_, told) = replay(&["candidate.toml", "--dir", "audit", "--suggest"]);
    assert!(
        told.contains("+ add \"todos.created\" to sends of [service.web] (candidate.toml:"),
        "{told}"
    );
    assert!(
        told.contains("send todos.created would be denied 40 times"),
        "{told}"
    );
    let (_, told) = replay(&["candidate.toml", "--dir", "audit", "--suggest", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["newly-denied"][0]["refused"]["service"], "web");
    assert_eq!(told["suggestions"][0]["edits"][0]["pattern"], "todos.created");
    let (code, _) = replay(&["policy.toml", "--dir", "audit", "--no-new-denials"]);
    assert_eq!(code, Some(0), "nothing changes under the same policy");
    let (code, _) = replay(&["policy.toml", "--dir", "nowhere"]);
    assert_eq!(code, Some(2));
}
