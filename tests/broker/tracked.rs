//! Tracked messages through a real broker: acknowledged when on disk, kept for who is away, tried again, given up.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::support::{Broker, EXOCOM, PATIENCE, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.create", "todos.created", "slow"]

[service.todos]
receives = ["todos.create", "todos.created", "slow"]

[service.mail]
receives = ["todos.created"]

[message."todos.create"]
delivery = "at-least-once"
reply-within = "20s"
backoff = "50ms..100ms"

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"
attempts = 3
backoff = "50ms..100ms"

[message."slow"]
kind = "event"
delivery = "at-least-once"
ack-within = "300ms"
attempts = 2
backoff = "10ms..10ms"
"#;

async fn next(subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
    tokio::time::timeout(PATIENCE, subscriber.next())
        .await
        .expect("a message comes in time")
        .expect("the subscription lives")
}

fn header(message: &async_nats::Message, name: &str) -> String {
    let headers = message.headers.as_ref().expect("it has headers");
    headers.get(name).map(ToString::to_string).unwrap_or_default()
}

async fn say(client: &async_nats::Client, message: &async_nats::Message, word: &str) {
    let reply = message
        .reply
        .clone()
        .expect("a tracked message has a reply subject");
    client.publish(reply, word.to_owned().into()).await.unwrap();
    client.flush().await.unwrap();
}

/// `exocom queue …` of a broker: whether it succeeded, and its output.
fn queue(broker: &Broker, arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(EXOCOM)
        .arg("queue")
        .args(arguments)
        .arg("--admin")
        .arg(broker.path("admin.sock"))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn queues(broker: &Broker) -> serde_json::Value {
    serde_json::from_str(&queue(broker, &["list", "--json"]).1).expect("list prints JSON")
}

#[tokio::test]
async fn an_event_is_kept_for_who_is_away_over_a_restart() {
    let broker = Broker::dev(POLICY);
    let web = jetstream::new(broker.client("web").await);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "first");
    let publish = || web.publish_with_headers("todos.created", headers.clone(), "one".into());
    let stored = publish().await.unwrap().await.expect("it is stored");
    assert_eq!(stored.sequence, 1);
    assert!(!stored.duplicate);
    let again = publish().await.unwrap().await.unwrap();
    assert_eq!((again.sequence, again.duplicate), (1, true));
    drop(web);
    let broker = broker.restart();
    let web = jetstream::new(broker.client("web").await);
    let again = web
        .publish_with_headers("todos.created", headers.clone(), "one".into())
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(
        (again.sequence, again.duplicate),
        (1, true),
        "ids survive a restart"
    );
    for service in ["todos", "mail"] {
        let client = broker.client(service).await;
        let mut events = client
            .queue_subscribe("todos.created", service.to_owned())
            .await
            .unwrap();
        let event = next(&mut events).await;
        assert_eq!(event.payload, "one");
        assert_eq!(header(&event, "Exo-Sender"), "web");
        assert_eq!(
            (header(&event, "Exo-Id"), header(&event, "Exo-Attempt")),
            ("1".into(), "1".into())
        );
        assert_eq!(header(&event, "Exo-Ack-Within"), "20000");
        say(&client, &event, "+ACK").await;
    }
    wait_for("an empty store", || queues(&broker)["messages"] == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_acknowledged_by_its_answer_and_waits_for_its_service() {
    let broker = Broker::dev(POLICY);
    let web = broker.client("web").await;
    let asked = tokio::spawn(async move { web.request("todos.create", "milk".into()).await });
    wait_for("the command to be stored", || queues(&broker)["messages"] == 1);
    let todos = broker.client("todos").await;
    let mut commands = todos
        .queue_subscribe("todos.create", "todos".to_owned())
        .await
        .unwrap();
    let command = next(&mut commands).await;
    assert_eq!(header(&command, "Exo-Attempt"), "1");
    assert_eq!(header(&command, "Exo-Reply-Within"), "20000");
    say(&todos, &command, "created").await;
    let answer = asked.await.unwrap().expect("the answer comes");
    assert_eq!(answer.payload, "created");
    wait_for("an empty store", || queues(&broker)["messages"] == 0);
}

#[tokio::test]
async fn an_instance_that_dies_or_refuses_costs_an_attempt() {
    let broker = Broker::dev(POLICY);
    let web = jetstream::new(broker.client("web").await);
    let dying = broker.client("todos").await;
    let mut lost = dying
        .queue_subscribe("todos.created", "todos".to_owned())
        .await
        .unwrap();
    dying.flush().await.unwrap();
    web.publish("todos.created", "x".into())
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(header(&next(&mut lost).await, "Exo-Attempt"), "1");
    let todos = broker.client("todos").await;
    let mut events = todos
        .queue_subscribe("todos.created", "todos".to_owned())
        .await
        .unwrap();
    todos.flush().await.unwrap();
    drop((lost, dying));
    let second = next(&mut events).await;
    assert_eq!(header(&second, "Exo-Attempt"), "2");
    say(&todos, &second, "-NAK {\"delay\": 1000000}").await;
    let third = next(&mut events).await;
    assert_eq!(header(&third, "Exo-Attempt"), "3");
    say(&todos, &third, "-NAK").await;
    wait_for("the dead letter", || {
        queues(&broker)["dead"]
            .as_array()
            .is_some_and(|dead| dead.len() == 1)
    });
    let (_, shown) = queue(&broker, &["show", "1", "--payload"]);
    assert!(
        shown.contains("todos.created from web") && shown.contains("\nx\n"),
        "{shown}"
    );
    let (_, hidden) = queue(&broker, &["show", "1"]);
    assert!(!hidden.contains("\nx\n"), "{hidden}");
    assert!(!queue(&broker, &["replay", "99"]).0);
    assert!(queue(&broker, &["replay", "1", "--why", "fixed"]).0);
    let fourth = next(&mut events).await;
    assert_eq!(header(&fourth, "Exo-Attempt"), "4");
    say(&todos, &fourth, "+TERM").await;
    wait_for("the dead letter", || {
        queues(&broker)["dead"]
            .as_array()
            .is_some_and(|dead| dead.len() == 1)
    });
    assert!(queue(&broker, &["drop", "1"]).0);
    assert!(queue(&broker, &["purge", "mail"]).0);
    wait_for("an empty store", || queues(&broker)["messages"] == 0);
    assert!(broker.log().contains("why=\"fixed\"") || broker.log().contains("fixed"));
}

#[tokio::test]
async fn progress_keeps_an_attempt_alive_and_silence_ends_it() {
    let broker = Broker::dev(POLICY);
    let web = jetstream::new(broker.client("web").await);
    let todos = broker.client("todos").await;
    let mut events = todos.queue_subscribe("slow", "todos".to_owned()).await.unwrap();
    todos.flush().await.unwrap();
    web.publish("slow", "a".into()).await.unwrap().await.unwrap();
    let event = next(&mut events).await;
    for _ in 0..10 {
        say(&todos, &event, "+WPI").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    say(&todos, &event, "").await;
    wait_for("an empty store", || queues(&broker)["messages"] == 0);
    web.publish("slow", "b".into()).await.unwrap().await.unwrap();
    assert_eq!(header(&next(&mut events).await, "Exo-Attempt"), "1");
    assert_eq!(header(&next(&mut events).await, "Exo-Attempt"), "2");
    wait_for("the dead letter", || {
        queues(&broker)["dead"]
            .as_array()
            .is_some_and(|dead| dead.len() == 1)
    });
}

#[tokio::test]
async fn a_killed_broker_keeps_what_it_acknowledged() {
    let broker = Broker::dev(POLICY);
    let web = jetstream::new(broker.client("web").await);
    let stored = web
        .publish("todos.created", "kept".into())
        .await
        .unwrap()
        .await
        .unwrap();
    broker.signal("KILL");
    drop(web);
    let broker = broker.restart();
    let mail = broker.client("mail").await;
    let mut events = mail
        .queue_subscribe("todos.created", "mail".to_owned())
        .await
        .unwrap();
    let event = next(&mut events).await;
    assert_eq!(event.payload, Bytes::from_static(b"kept"));
    assert_eq!(header(&event, "Exo-Id"), stored.sequence.to_string());
    assert_eq!(header(&event, "Exo-Attempt"), "2", "it may have been sent before");
}
