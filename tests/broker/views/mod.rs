//! What operators see of the traffic of a real broker: figures, in tables, in JSON, and live in a terminal.

mod metrics;
mod terminal;

use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;

use crate::support::{Broker, EXOCOM, wait_for};

use self::terminal::Terminal;

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
    wait_for_subscriptions(&broker, 2);
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
            // The first may come before `todos` listens: a flush only writes.
            drop(web.request("list", "".into()).await);
        }
    });
    (broker, sending)
}

/// A client's flush returns when its bytes are sent, and not when the broker has read them.
fn wait_for_subscriptions(broker: &Broker, count: u64) {
    wait_for("the subscriptions", || {
        let status = broker.status();
        let connections = status["connections"].as_array().expect("a list");
        let subscriptions = connections.iter().filter_map(|row| row["subscriptions"].as_u64());
        subscriptions.sum::<u64>() >= count
    });
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

/// The row below the head of the table.
fn first_row(screen: &str) -> &str {
    let mut lines = screen.lines().skip_while(|line| !line.contains("MEAN MS"));
    lines.nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_what_happens_sorts_and_outlives_the_broker() {
    let (mut broker, sending) = busy().await;
    let admin = broker.dir().display().to_string();
    let mut top = Terminal::start(EXOCOM, &["top", "--interval", "300ms", "--admin", &admin]);
    top.wait_until("the services", |screen| {
        screen.contains("billing") && screen.contains(" messages/s  ")
    });
    assert!(top.is_taken());
    top.press("r");
    top.wait_until("who sends the most", |screen| {
        screen.contains(" by rate") && !first_row(screen).starts_with("billing")
    });
    top.press("3d");
    top.wait_until("what is denied", |screen| {
        screen.contains(" by denied")
            && first_row(screen).starts_with("web ")
            && first_row(screen).contains(" purge ")
    });
    top.press("/pin\r");
    top.wait_until("the filter", |screen| {
        screen.contains("only *pin*") && first_row(screen).contains(" ping ") && !screen.contains(" purge ")
    });
    sending.abort();
    assert!(broker.stop());
    top.wait_until("the loss", |screen| {
        screen.contains("not reachable since ") && screen.contains(" ping ")
    });
    let broker = broker.restart();
    top.wait_until("the new broker", |screen| {
        !screen.contains("not reachable") && screen.contains("no flows")
    });
    top.press("q");
    assert_eq!(top.wait(), Some(0));

    let admin = broker.dir().display().to_string();
    let mut top = Terminal::start(EXOCOM, &["top", "--admin", &admin]);
    top.wait_until("the services", |screen| screen.contains("billing"));
    top.press("\x03");
    assert_eq!(top.wait(), Some(0), "Ctrl-C ends it too");
}

#[test]
fn top_without_a_terminal_says_what_to_do_and_prints_what_it_is_asked_to() {
    let broker = Broker::dev(POLICY);
    let top = |arguments: &[&str]| {
        let output = Command::new(EXOCOM)
            .arg("top")
            .args(arguments)
            .arg("--admin")
            .arg(broker.dir())
            .output();
        let output = output.expect("the binary was built for the tests");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(said).expect("it prints text"),
        )
    };
    let (code, said) = top(&[]);
    assert!(
        code == Some(1) && said.contains("--once") && said.lines().count() == 1,
        "{said}"
    );
    let (code, said) = top(&["--once"]);
    assert!(code == Some(0) && said.contains("SENDS/S"), "{said}");
    let (code, said) = top(&["--once", "--json"]);
    let json: Value = serde_json::from_str(&said).expect("it is JSON");
    assert_eq!(
        (code, said.lines().count(), &json["policy"]["services"]),
        (Some(0), 1, &3.into())
    );
    let (code, said) = top(&["--interval", "1ms"]);
    assert!(code == Some(2) && said.contains("200ms"), "{said}");
}
