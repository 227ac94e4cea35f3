//! The policy of a running broker: applied, confirmed, taken back, listed.

use std::fs;

use exocom::console::client;
use exocom::console::policy::{PolicyAnswer, PolicyVerb};
use exocom::net::clock::Clock;
use serde_json::Value;

use super::{Answer, exocom, succeeds};
use crate::support::{Broker, Raw, TODO_POLICY, wait_for};

const DENIED: &str = "-ERR 'Permissions Violation for Publish to \"todos.purge\"'";

/// What the broker answers when `web` publishes `todos.purge`: nothing before the PONG, or a denial.
fn purge(web: &mut Raw) -> String {
    web.send(b"PUB todos.purge 0\r\n\r\nPING\r\n");
    let answer = web.line();
    if answer != "PONG" {
        assert_eq!(web.line(), "PONG");
    }
    answer
}

fn with_purge() -> String {
    TODO_POLICY.replace("\"todos.create\"]", "\"todos.create\", \"todos.purge\"]")
}

fn policy(broker: &Broker, arguments: &[&str]) -> Answer {
    let dir = broker.dir().to_str().expect("it is text");
    exocom(
        broker.dir(),
        &[&["policy"], arguments, &["--admin", dir]].concat(),
    )
}

/// The log of policies, the latest first.
fn log(broker: &Broker) -> Vec<Value> {
    let answer = policy(broker, &["log", "--json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let answer: Value = serde_json::from_str(&answer.out).expect("it is JSON");
    answer["changes"].as_array().expect("a list").clone()
}

fn on_disk(broker: &Broker) -> String {
    fs::read_to_string(broker.path("policy.toml")).expect("it is there")
}

#[test]
fn an_applied_policy_decides_as_soon_as_it_is_answered() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    assert_eq!(purge(&mut web), DENIED);
    fs::write(broker.path("next.toml"), with_purge()).expect("the folder takes a file");

    // Without a yes nothing happens, and what would is shown.
    let answer = policy(&broker, &["apply", "next.toml"]);
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    assert!(answer.out.contains("+ sends todos.purge"), "{}", answer.out);
    assert_eq!(purge(&mut web), DENIED);

    let answer = policy(
        &broker,
        &["apply", "next.toml", "--yes", "--why", "web may purge"],
    );
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(
        answer.out.contains(" is in force, in place of "),
        "{}",
        answer.out
    );
    assert_eq!(purge(&mut web), "PONG");
    assert_eq!(on_disk(&broker), with_purge());
    let changes = log(&broker);
    assert_eq!(changes.len(), 2);
    assert_eq!(changes[0]["why"], "web may purge");
    assert_eq!(changes[0]["from"], changes[1]["version"]);
    assert!(
        changes[0]["who"]
            .as_str()
            .is_some_and(|who| who.starts_with("uid ")),
        "{changes:?}"
    );

    // And back.
    let answer = policy(&broker, &["rollback", "--yes"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(purge(&mut web), DENIED);
    assert_eq!(on_disk(&broker), TODO_POLICY);
    assert_eq!(log(&broker)[0]["version"], changes[1]["version"]);

    // What comes from the file is in the log too.
    broker.change_policy(&with_purge());
    assert_eq!(log(&broker)[0]["who"], "its files");
}

#[test]
fn a_policy_that_is_not_sound_or_not_as_expected_is_not_applied() {
    let broker = Broker::dev(TODO_POLICY);
    fs::write(broker.path("bad.toml"), "version = 1\n").expect("the folder takes a file");
    let answer = policy(&broker, &["apply", "bad.toml", "--yes"]);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.contains("the policy does not say its trust domain"),
        "{}",
        answer.err
    );
    fs::write(broker.path("next.toml"), with_purge()).expect("the folder takes a file");
    fs::write(broker.path("next.expect"), "deny web send todos.purge\n").expect("the folder takes a file");
    let answer = policy(&broker, &["apply", "next.toml", "--yes"]);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.starts_with("failed: next.expect:1: "),
        "{}",
        answer.err
    );
    let answer = policy(&broker, &["apply", "next.toml", "--yes", "--json"]);
    let verdict: Value = serde_json::from_str(&answer.out).expect("it is JSON");
    assert_eq!((answer.code, &verdict["failed"]), (Some(1), &1.into()));
    for arguments in [&["rollback", "--yes"][..], &["rollback", "nope", "--yes"]] {
        let answer = policy(&broker, arguments);
        assert_eq!(answer.code, Some(1), "{}", answer.err);
        assert!(answer.err.starts_with("exocom: refused: no "), "{}", answer.err);
    }
    assert_eq!(policy(&broker, &["apply", "missing.toml", "--yes"]).code, Some(2));
    assert_eq!(on_disk(&broker), TODO_POLICY);
    assert_eq!(log(&broker).len(), 1);
    let answer = exocom(broker.dir(), &["policy", "log", "--admin", "nobody.sock"]);
    assert_eq!(answer.code, Some(2));
}

/// Gives the broker an order as the command would, in no haste to look first.
async fn order(broker: &Broker, verb: &PolicyVerb) -> PolicyAnswer {
    let stream = tokio::net::UnixStream::connect(broker.path("admin.sock"))
        .await
        .expect("the socket is there");
    client::post(stream, "/v1/policy", "test", verb)
        .await
        .expect("the broker answers")
}

#[tokio::test]
async fn only_the_policy_that_it_was_compared_with_is_replaced() {
    let broker = Broker::dev(TODO_POLICY);
    let apply = |against: &str, text: String| PolicyVerb::Apply {
        against: against.to_owned(),
        files: vec![("policy.toml".to_owned(), text)],
        why: None,
        confirm_within_ms: None,
    };
    let refused = |answer: PolicyAnswer, words: &str| match answer {
        PolicyAnswer::Refused { reason } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    };
    let live = broker.status()["policy"]["version"]
        .as_str()
        .expect("it has one")
        .to_owned();
    refused(
        order(&broker, &apply("000000000000", with_purge())).await,
        "compare again",
    );
    // The broker judges by itself, whatever a client has looked at.
    refused(
        order(&broker, &apply(&live, "version = 1".to_owned())).await,
        "trust domain",
    );
    refused(
        order(&broker, &apply(&live, TODO_POLICY.to_owned())).await,
        "in force already",
    );
    let version = Some("../../policy".to_owned());
    refused(
        order(&broker, &PolicyVerb::Show { version }).await,
        "no policy of version",
    );
    // What somebody has written into the file, and the broker has not taken, is not lost.
    let broken = format!("{TODO_POLICY}[service.web]\n");
    fs::write(broker.path("policy.toml"), &broken).expect("the folder takes a file");
    refused(
        order(&broker, &apply(&live, with_purge())).await,
        "somebody has changed it",
    );
    assert_eq!(on_disk(&broker), broken);
    assert_eq!(broker.status()["policy"]["version"], *live);
}

#[tokio::test]
async fn no_decision_is_older_than_the_last_applied_policy() {
    let broker = Broker::dev(TODO_POLICY);
    let mut webs: Vec<_> = (0..4).map(|_| broker.raw_ready("web")).collect();
    let mut live = broker.status()["policy"]["version"]
        .as_str()
        .expect("it has one")
        .to_owned();
    for round in 0..60 {
        let (text, expected) = if round % 2 == 0 {
            (with_purge(), "PONG")
        } else {
            (TODO_POLICY.to_owned(), DENIED)
        };
        // Something is under way on each connection all the time, and what is allowed by both is never denied.
        for web in &mut webs {
            web.send(&b"PUB todos.list 0\r\n\r\n".repeat(50));
        }
        let apply = PolicyVerb::Apply {
            against: live.clone(),
            files: vec![("policy.toml".to_owned(), text)],
            why: None,
            confirm_within_ms: None,
        };
        live = match order(&broker, &apply).await {
            PolicyAnswer::Applied { to, .. } => to,
            other => panic!("round {round}: {other:?}"),
        };
        for web in &mut webs {
            assert_eq!(purge(web), expected, "round {round}");
        }
    }
    assert_eq!(log(&broker).len(), 61);
}

#[test]
fn an_unconfirmed_policy_is_taken_back() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    fs::write(broker.path("next.toml"), with_purge()).expect("the folder takes a file");

    let answer = policy(
        &broker,
        &["apply", "next.toml", "--yes", "--confirm-within", "5s"],
    );
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(purge(&mut web), "PONG");
    assert_eq!(on_disk(&broker), TODO_POLICY, "it waits");
    let version = log(&broker)[0]["version"]
        .as_str()
        .expect("it has one")
        .to_owned();
    wait_for("the old policy", || purge(&mut web) == DENIED);
    let changes = log(&broker);
    assert_eq!((changes.len(), &changes[0]["who"]), (3, &"exocom".into()));
    let answer = policy(&broker, &["confirm", &version]);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.contains("does not wait to be confirmed"),
        "{}",
        answer.err
    );

    // A broker that ends meanwhile begins with the old one.
    let answer = policy(
        &broker,
        &["apply", "next.toml", "--yes", "--confirm-within", "1h"],
    );
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    let answer = policy(&broker, &["apply", "next.toml", "--yes"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.err.contains("waits to be confirmed"), "{}", answer.err);
    let waits = &broker.status()["policy"]["unconfirmed"];
    let left_s = waits["until_unix_s"].as_i64().expect("a time") - Clock::unix_s();
    assert!((3_000..=3_600).contains(&left_s), "{waits}");
    assert_ne!(waits["before"], broker.status()["policy"]["version"]);
    let told = succeeds(broker.dir(), &["status", "--admin", "."]);
    assert!(
        told.contains("unless you confirm it: exocom policy confirm"),
        "{told}"
    );
    let mut broker = broker;
    broker.kill();
    let broker = broker.restart();
    let mut web = broker.raw_ready("web");
    assert_eq!(purge(&mut web), DENIED);

    // Confirmed, it stays, and is in the file.
    let answer = policy(
        &broker,
        &["apply", "next.toml", "--yes", "--confirm-within", "1h"],
    );
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    let answer = policy(&broker, &["confirm", &version]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(on_disk(&broker), with_purge());
    assert_eq!(purge(&mut web), "PONG");
    assert_eq!(broker.status()["policy"]["unconfirmed"], Value::Null);
    let broker = broker.restart();
    assert_eq!(purge(&mut broker.raw_ready("web")), "PONG");
}

const FOLDER_CONFIG: &str = "version = 1\npolicy = \"policies\"\nadmin-socket = \"admin.sock\"\nstate = \"state\"\n\
    [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
    [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
    [limits]\nlame-duck-ms = 0\n";

/// The policy of the todo application in two files: what is about `web`, and all else.
fn in_two_files() -> [(&'static str, String); 2] {
    let (head, rest) = TODO_POLICY.split_once("[service.web]").expect("it is listed");
    let (web, rest) = rest.split_once("[service.todos]").expect("it is listed");
    [
        ("a.toml", format!("{head}[service.todos]{rest}")),
        ("web.toml", format!("[service.web]{web}")),
    ]
}

/// A broker whose policy is a folder.
fn broker_of_folder() -> Broker {
    let config = FOLDER_CONFIG.replace("\"policies\"", "\"policy.toml\"");
    let broker = Broker::serve(TODO_POLICY, &config);
    fs::create_dir(broker.path("policies")).expect("the folder takes a folder");
    for (name, text) in in_two_files() {
        fs::write(broker.path("policies").join(name), text).expect("the folder takes a file");
    }
    fs::write(broker.path("policies/README.md"), "no policy").expect("the folder takes a file");
    fs::write(broker.path("serve.toml"), FOLDER_CONFIG).expect("the folder takes a file");
    broker.restart()
}

/// Names and texts of a folder's files of policy.
fn files_of(broker: &Broker, folder: &str) -> Vec<(String, String)> {
    let files = fs::read_dir(broker.path(folder)).expect("it is there");
    let mut files: Vec<_> = files
        .map(|file| file.expect("it is there").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| {
            let name = path
                .file_name()
                .expect("it has a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(path).expect("it is text"))
        })
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn a_folder_takes_the_place_of_a_folder() {
    let broker = broker_of_folder();
    let mut web = broker.raw_ready("web");
    let before = files_of(&broker, "policies");
    fs::create_dir(broker.path("next")).expect("the folder takes a folder");
    let [(_, rest), (_, of_web)] = in_two_files();
    let of_web = of_web.replace("\"todos.create\"]", "\"todos.create\", \"todos.purge\"]");
    // One file stays in its place, one is gone, two are new.
    let (head, rest) = rest.split_once("[service.todos]").expect("it is listed");
    for (name, text) in [
        ("a.toml", head.to_owned()),
        ("all.toml", format!("[service.todos]{rest}")),
        ("b.toml", of_web),
    ] {
        fs::write(broker.path("next").join(name), text).expect("the folder takes a file");
    }
    let after = files_of(&broker, "next");
    for one in ["next/a.toml", "policy.toml"] {
        let answer = policy(&broker, &["apply", one, "--yes"]);
        assert_eq!(answer.code, Some(2));
        assert!(
            answer.err.contains("has 2: a.toml, web.toml; name a folder"),
            "{}",
            answer.err
        );
    }

    let answer = policy(&broker, &["apply", "next", "--yes", "--why", "sorted"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(purge(&mut web), "PONG");
    assert_eq!(files_of(&broker, "policies"), after);
    assert_eq!(
        fs::read_to_string(broker.path("policies/README.md")).expect("it is there"),
        "no policy"
    );
    let (mode, others) = (
        fs::metadata(broker.path("policies/b.toml")),
        fs::metadata(broker.path("policies/a.toml")),
    );
    assert_eq!(
        mode.expect("it is there").permissions(),
        others.expect("it is there").permissions()
    );

    let answer = policy(&broker, &["rollback", "--yes"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(purge(&mut web), DENIED);
    assert_eq!(files_of(&broker, "policies"), before);
    let changes = log(&broker);
    assert_eq!(
        (changes[1]["why"].as_str(), &changes[0]["version"]),
        (Some("sorted"), &changes[2]["version"])
    );

    // A confirmed one is in the folder only then; and the broker does not take its own writing for a change.
    let answer = policy(&broker, &["apply", "next", "--yes", "--confirm-within", "1h"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert_eq!(
        (purge(&mut web), files_of(&broker, "policies")),
        ("PONG".to_owned(), before)
    );
    let version = log(&broker)[0]["version"]
        .as_str()
        .expect("it has one")
        .to_owned();
    assert_eq!(policy(&broker, &["confirm", &version]).code, Some(0));
    assert_eq!(files_of(&broker, "policies"), after);
    assert_eq!(log(&broker).len(), changes.len() + 1);

    // Names come from outside.
    let live = broker.status()["policy"]["version"]
        .as_str()
        .expect("it has one")
        .to_owned();
    for names in [
        ["x.txt", "a.toml"],
        [".x.toml", "a.toml"],
        ["x/..", "a.toml"],
        ["a\n.toml", "b.toml"],
        ["x/a.toml", "y/a.toml"],
    ] {
        let apply = PolicyVerb::Apply {
            against: live.clone(),
            files: names
                .iter()
                .map(|name| ((*name).to_owned(), TODO_POLICY.to_owned()))
                .collect(),
            why: None,
            confirm_within_ms: None,
        };
        let answer = order(&broker, &apply).await;
        assert!(
            matches!(&answer, PolicyAnswer::Refused { .. }),
            "{names:?}: {answer:?}"
        );
    }
    assert_eq!(files_of(&broker, "policies"), after);
    let broker = broker.restart();
    assert_eq!(broker.status()["policy"]["version"], *live);
}

#[test]
fn a_broker_that_ends_while_it_replaces_a_folder_begins_with_the_old_policy() {
    let mut broker = broker_of_folder();
    let before = files_of(&broker, "policies");
    broker.kill();
    // As a crash leaves it: one file is the new one, another is new, the third is not yet gone.
    let mut after = before.clone();
    after[0].1.push_str("# new\n");
    after[1].0 = "x.toml".to_owned();
    let mark = serde_json::json!({ "folder": broker.path("policies"), "before": before, "after": after });
    let mark_path = broker.path("state/policies/replacing.json");
    let crash = || {
        fs::write(&mark_path, mark.to_string()).expect("the folder takes a file");
        for (name, text) in &after {
            fs::write(broker.path("policies").join(name), text).expect("the folder takes a file");
        }
    };
    crash();
    fs::write(broker.path("policies/web.toml"), "# by hand\n").expect("the folder takes a file");
    let answer = exocom(broker.dir(), &["serve", "--config", "serve.toml"]);
    assert_eq!(answer.code, Some(1));
    assert!(
        answer.err.contains("cannot tell which policy is meant") && answer.err.contains("replacing.json"),
        "{}",
        answer.err
    );
    crash();
    fs::write(broker.path("policies/web.toml"), &before[1].1).expect("the folder takes a file");
    let broker = broker.restart();
    assert!(broker.log().contains("the old ones are back"), "{}", broker.log());
    assert_eq!(files_of(&broker, "policies"), before);
    assert!(!broker.path("state/policies/replacing.json").exists());
    assert_eq!(purge(&mut broker.raw_ready("web")), DENIED);
}
