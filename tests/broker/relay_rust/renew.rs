//! Renewed certificates: used when their files change, with nothing tracked lost over it.

use std::collections::BTreeSet;
use std::process::Command;

use exorelay::Event;
use serde_json::Value;

use super::{Events, in_time, options, relay};
use crate::support::{Broker, EXOCOM, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["news"]

[service.todos]
receives = ["news"]

[message.news]
kind = "event"
delivery = "at-least-once"
attempts = 20
backoff = "20ms..100ms"
"#;

fn issue(broker: &Broker, service: &str, days: &str) {
    let output = Command::new(EXOCOM)
        .args([
            "certs",
            "issue",
            "--force",
            "--days",
            days,
            "--service",
            service,
            "--dir",
        ])
        .arg(broker.dir().join("certs"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// When the certificate that a service's connection shows expires.
fn expiry_of(broker: &Broker, service: &str) -> Option<i64> {
    let status = broker.status();
    let rows = status["connections"].as_array().unwrap();
    let row = rows.iter().find(|row| row["sender"] == service)?;
    row["expires_unix_s"].as_i64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_no_tracked_message_is_lost() {
    const MESSAGES: u64 = 400;
    let broker = Broker::dev(POLICY);
    let events = Events::default();
    let todos = events.listen(options(&broker, "todos")).connect().await.unwrap();
    let web = relay(&broker, "web").await;
    let (sender, mut got) = tokio::sync::mpsc::unbounded_channel();
    todos
        .handle("news", move |_, number: u64| {
            sender.send(number).unwrap();
            async { Ok(Value::Null) }
        })
        .await
        .unwrap();
    let publishing = {
        let web = web.clone();
        tokio::spawn(async move {
            for number in 0..MESSAGES {
                // Not stored, or perhaps: with the same id it is stored once.
                while web
                    .message("news")
                    .json(&number)
                    .id(&format!("n{number}"))
                    .publish()
                    .await
                    .is_err()
                {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
    };
    let before = todos.certificate_expires_unix_s();
    for service in ["todos", "web"] {
        issue(&broker, service, "30");
    }
    let renewed = |event: &Event| *event == Event::CredentialsRenewed;
    events.wait_for("the renewal", renewed).await;
    for service in ["todos", "web"] {
        wait_for("the new certificate", || {
            expiry_of(&broker, service).is_some_and(|until| until > before)
        });
    }
    assert!(todos.certificate_expires_unix_s() > before);
    in_time("all to be published", publishing).await.unwrap();
    let mut missing: BTreeSet<u64> = (0..MESSAGES).collect();
    in_time("all to be received", async {
        while !missing.is_empty() {
            missing.remove(&got.recv().await.unwrap());
        }
    })
    .await;
    // What cannot be used changes nothing.
    events.forget();
    std::fs::copy(broker.cert("web.key"), broker.cert("todos.key")).unwrap();
    let unusable = |event: &Event| matches!(event, Event::CredentialsUnusable { .. });
    events.wait_for("the word about it", unusable).await;
    web.publish("news", &MESSAGES).await.unwrap();
    assert_eq!(in_time("the last", got.recv()).await, Some(MESSAGES));
}
