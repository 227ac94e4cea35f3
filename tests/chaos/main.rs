//! What must hold when everything goes wrong, with real processes, files and clocks: brokers that are killed,
//! disks that are full or fail, clocks that are wrong. Each test counts; none relies on luck with time.

#![allow(
    unreachable_pub,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test binary has no outside, and its helpers may fail a test and tell why"
)]

#[cfg(target_os = "linux")]
mod disk_full;
#[cfg(target_os = "linux")]
mod failed_sync;
mod kills;
#[cfg(target_os = "linux")]
#[path = "../broker/learned.rs"]
mod learned;
mod overload;
#[cfg(target_os = "linux")]
mod shim;
#[cfg(target_os = "linux")]
mod slow_answers;
#[path = "../broker/support.rs"]
mod support;
#[cfg(target_os = "linux")]
mod wrong_clock;

use futures_util::StreamExt;
use support::{Broker, EXOCOM, PATIENCE};

/// What `exocom queue list --json` says.
fn queues(broker: &Broker) -> serde_json::Value {
    serde_json::from_str(&queue(broker, &["list", "--json"])).expect("list prints JSON")
}

/// What `exocom queue …` says.
fn queue(broker: &Broker, arguments: &[&str]) -> String {
    let output = std::process::Command::new(EXOCOM)
        .arg("queue")
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .output()
        .expect("the binary was built for the tests");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The next message of a subscription.
async fn next(messages: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, messages.next())
        .await
        .expect("a message comes in time")
        .expect("the subscription lives")
}

/// Publishes and gives the broker's answer as it is: the client makes one error of all refusals.
async fn ask(client: &async_nats::Client, name: &'static str, payload: bytes::Bytes) -> async_nats::Message {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    client.publish_with_reply(name, inbox, payload).await.unwrap();
    next(&mut answers).await
}

/// The sequence, where a message was acknowledged; otherwise why it was refused.
async fn publish(
    client: &async_nats::Client,
    name: &'static str,
    payload: bytes::Bytes,
) -> Result<u64, String> {
    let answer = ask(client, name, payload).await;
    if answer.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
        return Err(header(&answer, "Exo-Reason"));
    }
    let stored: serde_json::Value =
        serde_json::from_slice(&answer.payload).expect("an acknowledgement is JSON");
    Ok(stored["seq"].as_u64().expect("with a sequence"))
}

/// A header's value, or nothing.
fn header(message: &async_nats::Message, name: &str) -> String {
    let headers = message.headers.as_ref();
    headers
        .and_then(|headers| headers.get(name))
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Acknowledges a tracked message.
async fn acknowledge(client: &async_nats::Client, message: &async_nats::Message) {
    let reply = message
        .reply
        .clone()
        .expect("a tracked message has a reply subject");
    client.publish(reply, "+ACK".into()).await.unwrap();
}
