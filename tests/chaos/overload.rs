//! A queue at its bound: its publishers are refused at once and never acknowledged, and nobody else notices.

use crate::support::{Broker, wait_for};
use crate::{acknowledge, header, next, publish, queues};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created", "mails.sent", "both.told"]

[service.search]
receives = ["todos.created", "both.told"]

[service.mail]
receives = ["mails.sent", "both.told"]

[message.">"]
kind = "event"
delivery = "at-least-once"
"#;

const CONFIG: &str = r#"
version = 1
name = "small"
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.all]
address = "127.0.0.1:0"
roots = ["certs/ca.pem"]

[store]
folder = "store"
queue-messages = 10

[limits]
lame-duck-ms = 0
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_other_queues_do_not_notice() {
    let broker = Broker::serve(POLICY, CONFIG);
    let web = broker.client("web").await;
    for seq in 1..=10 {
        assert_eq!(publish(&web, "todos.created", "x".into()).await, Ok(seq));
    }
    let overloaded = Err("overloaded".to_owned());
    for _ in 0..5 {
        assert_eq!(publish(&web, "todos.created", "x".into()).await, overloaded);
        // A message for two is kept for both or for none.
        assert_eq!(publish(&web, "both.told", "x".into()).await, overloaded);
    }
    for seq in 11..=20 {
        assert_eq!(
            publish(&web, "mails.sent", "x".into()).await,
            Ok(seq),
            "another queue"
        );
    }
    assert_eq!(publish(&web, "mails.sent", "x".into()).await, overloaded);
    assert_eq!(queues(&broker)["messages"], 20);
    let refused = jetstream_publish(&web).await;
    assert_eq!(
        refused.kind(),
        async_nats::jetstream::context::PublishErrorKind::StreamNotFound,
        "what the client makes of a 503"
    );

    let search = broker.client("search").await;
    let mut events = search
        .queue_subscribe("todos.created", "search".to_owned())
        .await
        .unwrap();
    for seq in 1..=10 {
        let event = next(&mut events).await;
        assert_eq!(header(&event, "Exo-Id"), seq.to_string());
        acknowledge(&search, &event).await;
    }
    wait_for("room in the queue", || queues(&broker)["messages"] == 10);
    assert_eq!(publish(&web, "todos.created", "x".into()).await, Ok(21));
}

async fn jetstream_publish(web: &async_nats::Client) -> async_nats::jetstream::context::PublishError {
    let context = async_nats::jetstream::new(web.clone());
    let sent = context.publish("todos.created", "x".into()).await.unwrap();
    sent.await.expect_err("the queue is full")
}
