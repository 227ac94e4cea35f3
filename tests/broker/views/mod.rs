//! What operators see of the traffic of a real broker: figures, in tables and in JSON.

use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use crate::support::{Broker, EXOCOM, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["ping", "list"]

[service.todos]
receives = ["ping", "list"]

[service.billing]
receives = ["none"]

[message.ping]
kind = "event"
"#;

/// A broker over which `web` sends a ping every 10 ms, and a list each, which `todos` answers, until the task is
/// dropped.
async fn busy() -> (Broker, tokio::task::JoinHandle<()>) {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (broker.client("web").await, broker.client("todos").await);
    let mut pings = todos.subscribe("ping").await.unwrap();
    let mut lists = todos.subscribe("list").await.unwrap();
    todos.flush().await.unwrap();
    tokio::spawn(async move { while pings.next().await.is_some() {} });
    tokio::spawn(async move {
        while let Some(list) = lists.next().await {
            todos.publish(list.reply.unwrap(), "all".into()).await.unwrap();
        }
    });
    let denied = web.request("purge", "now".into()).await;
    assert!(denied.is_err(), "no line of the policy allows it");
    let sending = tokio::spawn(async move {
        let mut interval = tokio::time::interval(Duration::from_millis(10));
        loop {
            interval.tick().await;
            web.publish("ping", "four".into()).await.unwrap();
            web.request("list", "".into()).await.unwrap();
        }
    });
    (broker, sending)
}

/// `exocom status …` of a broker: its output.
fn status(broker: &Broker, arguments: &[&str]) -> String {
    let output = Command::new(EXOCOM)
        .arg("status")
        .args(arguments)
        .arg("--admin")
        .arg(broker.dir())
        .output()
        .expect("the binary was built for the tests");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("it prints text")
}

fn json(broker: &Broker, arguments: &[&str]) -> Value {
    serde_json::from_str(&status(broker, &[&["--json"], arguments].concat())).expect("it is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_rates_and_leaves_out_no_more_than_it_says() {
    let (broker, sending) = busy().await;
    let rate = |row: &Value| row["rates"]["messages_per_s"].as_f64().expect("a number");
    let mut seen = Value::Null;
    wait_for("a rate", || {
        seen = json(&broker, &[]);
        rate(&seen["traffic"]) > 5.0 && seen["rates_over_s"].as_f64() >= Some(1.0)
    });
    // Never more than what is sent, with time for a busy machine to catch up.
    assert!(rate(&seen["traffic"]) < 1_000.0, "{seen:#}");
    let services = seen["services"].as_array().expect("a list");
    let row = |name: &str| {
        let found = services.iter().find(|row| row["service"] == name);
        found.unwrap_or_else(|| panic!("no {name}: {seen:#}"))
    };
    assert_eq!(row("billing")["connections"], 0);
    let (web, todos) = (row("web"), row("todos"));
    assert_eq!(
        (&web["connections"], &todos["connections"]),
        (&1.into(), &1.into())
    );
    assert_eq!(web["sent"]["denied"], 1);
    assert_eq!(web["sent"]["messages"], todos["received"]["messages"]);
    assert!(
        rate(&web["sent"]) > 5.0 && rate(&todos["sent"]) == 0.0,
        "{seen:#}"
    );
    assert!(
        todos["received"]["rates"]["response_us_mean"].as_u64() > Some(0),
        "{seen:#}"
    );
    assert_eq!(seen["counts"]["open"], 2);
    assert_eq!(seen["left_out"]["flows"], 0);

    let some = json(&broker, &["--sort", "denied", "--limit", "1"]);
    assert_eq!(some["flows"].as_array().map(Vec::len), Some(1));
    assert_eq!(some["flows"][0]["message"], "purge");
    let left_out = serde_json::json!({ "services": 2, "connections": 1, "flows": 2 });
    assert_eq!(some["left_out"], left_out);
    assert!(
        some["soonest_expiry"]["expires_unix_s"].as_i64() > Some(0),
        "of all, not of the one row"
    );
    let some = json(&broker, &["--filter", "pin"]);
    assert_eq!(some["flows"][0]["message"], "ping");
    assert_eq!(
        (&some["services"], &some["left_out"]["flows"]),
        (&serde_json::json!([]), &0.into())
    );

    let text = status(&broker, &["--sort", "rate", "--limit", "1"]);
    for part in [" messages/s, ", "SENDS/S", "and 2 more; --limit shows more rows"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    sending.abort();
}
