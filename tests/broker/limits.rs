//! Limits of the policy on how much a service sends: what passes, what is refused, where it is counted, and the alarm.

use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::Value;

use crate::support::{Broker, EXOCOM, PATIENCE};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["free.*", "few.>", "kept"]
limits = {rate = "1/h", burst = 30}

[service.other]
sends = ["free.*", "few.>", "kept"]

[service.todos]
receives = ["free.*", "few.>", "kept"]

[message."few.>"]
limits = {rate = "1/h", burst = 10}

[message."few.many"]
limits = {rate = "1000000/s", burst = 1000}

[message.kept]
kind = "event"
delivery = "at-least-once"
limits = {rate = "1/h", burst = 3}
"#;

/// Asks; the reason and the rule of a refusal, if it is one.
async fn ask(client: &Client, name: &str) -> Option<(String, String)> {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client
        .publish_with_reply(name.to_owned(), inbox, "x".into())
        .await
        .unwrap();
    let answer = tokio::time::timeout(PATIENCE, answers.next())
        .await
        .expect("an answer")
        .expect("the connection is open");
    let headers = answer.headers.unwrap_or_default();
    let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
    Some((header("Exo-Reason")?, header("Exo-Rule").unwrap_or_default()))
}

async fn answering(broker: &Broker) -> tokio::task::JoinHandle<()> {
    let todos = broker.client("todos").await;
    let mut few = todos.subscribe("few.>".to_owned()).await.unwrap();
    let mut free = todos.subscribe("free.*".to_owned()).await.unwrap();
    todos.flush().await.unwrap();
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                Some(message) = few.next() => message,
                Some(message) = free.next() => message,
                else => return,
            };
            todos
                .publish(message.reply.unwrap(), "done".into())
                .await
                .unwrap();
        }
    })
}

/// How many of so many requests passed; the refused ones all give this line.
async fn passed(client: &Client, name: &str, count: usize, line: &str) -> usize {
    let mut passed = 0;
    for _ in 0..count {
        match ask(client, name).await {
            None => passed += 1,
            Some((reason, rule)) => {
                assert_eq!(reason, "overloaded");
                assert!(rule.ends_with(line), "{rule} is not {line}");
            }
        }
    }
    passed
}

#[tokio::test]
async fn what_is_more_than_the_limits_is_refused_and_accounted_for() {
    let broker = Broker::dev(POLICY);
    let _todos = answering(&broker).await;
    let (first, second) = (broker.client("web").await, broker.client("web").await);
    let other = broker.client("other").await;
    // All names of a table together, over all connections of the service.
    assert_eq!(passed(&first, "few.a", 6, "policy.toml:16").await, 6);
    assert_eq!(passed(&second, "few.b", 6, "policy.toml:16").await, 4);
    // A more specific table has limits of its own.
    assert_eq!(passed(&first, "few.many", 15, "").await, 15);
    // The service's: 25 have passed; what was refused has taken none.
    assert_eq!(passed(&second, "free.a", 10, "policy.toml:7").await, 5);
    assert_eq!(passed(&first, "few.many", 1, "policy.toml:7").await, 0);
    // Another service has its own.
    assert_eq!(passed(&other, "few.a", 12, "policy.toml:16").await, 10);
    assert_eq!(passed(&other, "free.a", 50, "").await, 50);
    // A new connection does not begin anew.
    let third = broker.client("web").await;
    assert_eq!(passed(&third, "free.a", 1, "policy.toml:7").await, 0);
    // Nobody is told that a tracked message is stored that is not.
    assert_eq!(ask(&third, "kept").await.expect("refused").0, "overloaded");
    let stored = async |client: &Client| match ask(client, "kept").await {
        None => true,
        Some((reason, _)) => {
            assert_eq!(reason, "overloaded");
            false
        }
    };
    let mut count = 0;
    for _ in 0..5 {
        count += usize::from(stored(&other).await);
    }
    assert_eq!(count, 3);

    let flows = broker.status()["flows"].as_array().expect("a list").clone();
    let over = |sender: &str, message: &str| -> u64 {
        let is_it = |flow: &&Value| flow["sender"] == sender && flow["message"] == message;
        flows
            .iter()
            .filter(is_it)
            .map(|flow| flow["over_limit"].as_u64().expect("a number"))
            .sum()
    };
    assert_eq!(over("web", "few.b"), 2);
    assert_eq!(over("web", "free.a"), 6);
    assert_eq!(over("web", "few.many"), 1);
    assert_eq!(over("other", "few.a"), 2);
    assert_eq!(over("other", "kept"), 2);
    assert_eq!(over("other", "free.a"), 0);
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test has a time limit")]
async fn a_limit_that_is_reached_is_one_alarm_and_recorded() {
    let broker = Broker::dev(POLICY);
    let other = broker.client("other").await;
    for _ in 0..500 {
        other.publish("few.a", "x".into()).await.unwrap();
    }
    other.flush().await.unwrap();
    let exocom = |arguments: &[&str]| {
        let mut command = std::process::Command::new(EXOCOM);
        let output = command.args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let socket = broker.path("admin.sock");
    let list = ["alarms", "list", "--json", "--admin", socket.to_str().unwrap()];
    let started = Instant::now();
    let alarms = loop {
        let list: Value = serde_json::from_str(&exocom(&list)).expect("it is JSON");
        match list["alarms"].as_array().expect("a list") {
            none if none.is_empty() => {}
            some => break some.clone(),
        }
        assert!(started.elapsed() < PATIENCE, "no alarm; log:\n{}", broker.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert_eq!(alarms[0]["finding"]["kind"], "over-limit");
    assert_eq!(alarms[0]["finding"]["seen"], 490.0);
    let text = "other → few.a, over its limit: 490 messages refused, since ";
    assert!(broker.log().contains(text), "{}", broker.log());
    let folder = broker.path("audit");
    let query = [
        "audit",
        "query",
        "--kind",
        "denial",
        "--json",
        "--dir",
        folder.to_str().unwrap(),
    ];
    let started = Instant::now();
    loop {
        let rows = exocom(&query);
        let rows: Vec<Value> = rows
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        let refused = |row: &&Value| row["action"] == "over-limit" && row["subject"] == "few.a";
        let count: u64 = rows
            .iter()
            .filter(refused)
            .map(|row| row["count"].as_u64().unwrap())
            .sum();
        if count == 490 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{rows:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
