//! How a subscription, a connection and a broker end, and what must survive that.

use std::time::Duration;

use async_nats::{Event, PublishErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;
use crate::support::{Broker, PATIENCE, round_trip, wait_until};

// protocol: P-036
#[tokio::test]
async fn a_subscription_ends_after_the_messages_it_asked_for() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut limited = listen(&watcher, "news.max").await;
    limited.unsubscribe_after(3).await.expect("the client is open");
    let mut gone = listen(&watcher, "news.max").await;
    gone.unsubscribe().await.expect("the client is open");
    let mut all = listen(&watcher, "news.max").await;
    let asker = broker.client("asker").await;
    for number in numbers(10) {
        publish(&asker, "news.max", number).await;
    }
    assert_eq!(texts(&mut all, 10).await, numbers(10));
    assert_eq!(texts(&mut limited, 3).await, numbers(3));
    assert!(
        timeout(PATIENCE, limited.next())
            .await
            .expect("it ends")
            .is_none()
    );
    // Counted by what the broker sent, not by what the client kept.
    round_trip(&asker).await;
    let flows = broker.status()["flows"].clone();
    let flow = flows
        .as_array()
        .expect("a list")
        .iter()
        .find(|flow| flow["message"] == "news.max");
    assert_eq!(flow.expect("a flow")["messages"], 13);
}

#[tokio::test]
async fn draining_a_publisher_sends_everything_first() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut news = listen(&watcher, "news.drain").await;
    let asker = broker.client("asker").await;
    for number in numbers(5000) {
        publish(&asker, "news.drain", number).await;
    }
    asker.drain().await.expect("the client is open");
    assert_eq!(texts(&mut news, 5000).await, numbers(5000));
}

#[tokio::test]
async fn draining_a_receiver_in_a_group_loses_nothing_that_it_has() {
    let broker = Broker::dev(POLICY);
    let (leaving, told) = telling(&broker, "watcher").await;
    let staying = broker.client("watcher").await;
    let mut left = listen_in_group(&leaving, "news.handover", "group").await;
    let mut stayed = listen_in_group(&staying, "news.handover", "group").await;
    let asker = broker.client("asker").await;
    for number in &numbers(2000)[..1000] {
        publish(&asker, "news.handover", number.clone()).await;
    }
    round_trip(&asker).await;
    // This client does not wait for the PONG of its drain, and so loses what is still under way: nothing is.
    round_trip(&leaving).await;
    leaving.drain().await.expect("the client is open");
    wait_until("the end of the drain", || told.count(&Event::Closed) == 1).await;
    wait_until("the broker to notice", || {
        let connections = broker.status()["connections"].clone();
        connections.as_array().map(Vec::len) == Some(2)
    })
    .await;
    for number in &numbers(2000)[1000..] {
        publish(&asker, "news.handover", number.clone()).await;
    }
    let mut all = Vec::new();
    while let Some(message) = timeout(PATIENCE, left.next()).await.expect("the drain ends") {
        all.push(text(&message));
    }
    assert!(!all.is_empty() && all.len() < 1000, "{}", all.len());
    let others = 2000 - all.len();
    all.extend(texts(&mut stayed, others).await);
    all.sort_by_key(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(all, numbers(2000));
}

// protocol: P-043
#[tokio::test]
async fn a_payload_at_the_limit_passes_and_one_byte_more_closes_the_connection() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut news = listen(&watcher, "news.large").await;
    let asker = broker.client("asker").await;
    let limit = asker.max_payload();
    assert_eq!(limit, 1024 * 1024);
    publish(&asker, "news.large", vec![b'x'; limit]).await;
    assert_eq!(next(&mut news).await.payload.len(), limit);
    // The client refuses by itself what INFO does not allow; so does the broker.
    let refused = asker
        .publish("news.large", vec![b'x'; limit + 1].into())
        .await
        .expect_err("more than the limit");
    assert_eq!(refused.kind(), PublishErrorKind::MaxPayloadExceeded);
    let mut raw = broker.raw_ready("asker");
    raw.send(format!("PUB news.large {}\r\n", limit + 1).as_bytes());
    assert_eq!(raw.rest(), "-ERR 'Maximum Payload Violation'\r\n");
    publish(&asker, "news.large", "small").await;
    assert_eq!(text(&next(&mut news).await), "small");
}

#[tokio::test]
async fn after_the_brokers_restart_everything_works_again() {
    let broker = Broker::dev(POLICY);
    let reconnecting = |service: &str| {
        let options = broker.options(service);
        Told::by(options.reconnect_delay_callback(|_| Duration::from_millis(50)))
    };
    let (worker_told, worker) = reconnecting("worker");
    let worker = worker.connect(broker.url()).await.expect("it may connect");
    let mut requests = listen_in_group(&worker, "job.again", "worker").await;
    let (watcher_told, watcher) = reconnecting("watcher");
    let watcher = watcher.connect(broker.url()).await.expect("it may connect");
    let mut news = listen(&watcher, "news.again").await;
    let (asker_told, asker) = reconnecting("asker");
    let asker = asker.connect(broker.url()).await.expect("it may connect");
    let answering = worker.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            publish_to(&answering, request.reply.expect("a reply subject"), "done").await;
        }
    });
    let answer = asker.request("job.again", Bytes::new()).await.expect("an answer");
    assert_eq!(text(&answer), "done");
    let broker = tokio::task::spawn_blocking(|| broker.restart())
        .await
        .expect("it starts again");
    for told in [&worker_told, &watcher_told, &asker_told] {
        wait_until("all to come back", || told.count(&Event::Connected) == 2).await;
    }
    round_trip(&worker).await;
    round_trip(&watcher).await;
    let answer = asker.request("job.again", Bytes::new()).await.expect("an answer");
    assert_eq!(text(&answer), "done");
    publish(&asker, "news.again", "after").await;
    assert_eq!(text(&next(&mut news).await), "after");
    drop(broker);
}

// protocol: P-100, P-101
#[tokio::test]
async fn a_broker_that_leaves_says_so_first_and_lets_what_is_under_way_end() {
    let config = "version = 1\nname = \"lame-duck\"\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
                  [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
                  [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
                  [limits]\nlame-duck-ms = 3000\n";
    let mut broker = Broker::serve(POLICY, config);
    let (worker, worker_told) = telling(&broker, "worker").await;
    let mut requests = listen_in_group(&worker, "job.last", "worker").await;
    let (asker, asker_told) = telling(&broker, "asker").await;
    let answer = tokio::spawn(async move { asker.request("job.last", Bytes::new()).await });
    let request = next(&mut requests).await;
    broker.signal("TERM");
    for told in [&worker_told, &asker_told] {
        wait_until("the notice", || told.count(&Event::LameDuckMode) == 1).await;
        assert_eq!(told.count(&Event::Disconnected), 0);
    }
    publish_to(&worker, request.reply.expect("a reply subject"), "in time").await;
    let answer = answer.await.expect("the task ends").expect("an answer");
    assert_eq!(text(&answer), "in time");
    wait_until("the end", || worker_told.count(&Event::Disconnected) == 1).await;
    let ended_well = tokio::task::spawn_blocking(move || broker.wait())
        .await
        .expect("it ends");
    assert!(ended_well);
}
