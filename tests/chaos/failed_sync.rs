//! A disk that cannot keep what it was given: the broker says so and stops, and never tries again.

use crate::shim::Shim;
use crate::support::{Broker, wait_for};
use crate::{acknowledge, header, next, publish, queues};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created"]

[service.mail]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_stops_the_broker_and_the_next_start_recovers() {
    let Some(shim) = Shim::compile() else { return };
    let folder = tempfile::tempdir().unwrap();
    let trigger = folder.path().join("fail");
    let mut broker = Broker::dev_at(POLICY, "127.0.0.1:0", shim.with("SHIM_FAIL_SYNC", &trigger));
    let web = broker.client("web").await;
    for seq in 1..=100 {
        assert_eq!(
            publish(&web, "todos.created", format!("{seq}").into()).await,
            Ok(seq)
        );
    }
    std::fs::write(&trigger, "").unwrap();
    let inbox = web.new_inbox();
    let mut answers = web.subscribe(inbox.clone()).await.unwrap();
    web.publish_with_reply("todos.created", inbox, "not kept".into())
        .await
        .unwrap();
    assert!(!broker.wait(), "it ends with an exit code that is not zero");
    let log = broker.log();
    assert!(
        log.contains("cannot sync") && log.contains("the broker stops, since nobody knows what is on disk"),
        "{log}"
    );
    let acknowledged = tokio::time::timeout(std::time::Duration::from_millis(100), next(&mut answers)).await;
    assert!(
        acknowledged.is_err(),
        "what may not be on disk is not acknowledged"
    );
    drop((answers, web));
    std::fs::remove_file(&trigger).unwrap();

    let broker = broker.restart();
    let mail = broker.client("mail").await;
    let mut events = mail
        .queue_subscribe("todos.created", "mail".to_owned())
        .await
        .unwrap();
    for seq in 1..=100 {
        let event = next(&mut events).await;
        assert_eq!(event.payload, format!("{seq}"));
        assert_eq!(header(&event, "Exo-Id"), seq.to_string());
        acknowledge(&mail, &event).await;
    }
    // The message of the failed sync may have reached the disk or not; nobody was told that it had.
    wait_for("the queue to be all but empty", || {
        queues(&broker)["messages"]
            .as_u64()
            .is_some_and(|messages| messages <= 1)
    });
}
