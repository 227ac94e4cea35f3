//! A wall clock that is set while the broker is down: nothing is lost, and what a wrong clock let expire is on its
//! way again when the clock is right.

use async_nats::HeaderMap;
use async_nats::jetstream;

use crate::shim::Shim;
use crate::support::{Broker, wait_for};
use crate::{acknowledge, header, next, queue, queues};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created"]

[service.mail]
receives = ["todos.created"]

[service.search]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
expires = "24h"
"#;

const HOUR_S: i64 = 3_600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_or_ahead_loses_nothing() {
    let Some(shim) = Shim::compile() else { return };
    let clock = |seconds: i64| shim.with("SHIM_CLOCK_S", seconds.to_string());
    // The certificates are made by a clock two hours late, so that they are valid an hour back, too.
    let broker = Broker::dev_at(POLICY, "127.0.0.1:0", clock(-2 * HOUR_S));
    let broker = broker.restart_with(clock(0));
    assert_eq!(publish(&broker, "first").await, (1, false));

    let broker = broker.restart_with(clock(-HOUR_S));
    assert_eq!(
        publish(&broker, "first").await,
        (1, true),
        "ids are known by an earlier clock"
    );
    assert_eq!(publish(&broker, "second").await, (2, false));
    take(&broker, "mail", &[(1, "first"), (2, "second")]).await;
    assert_eq!(queues(&broker)["messages"], 2, "search has not taken them yet");

    let broker = broker.restart_with(clock(20 * HOUR_S));
    assert_eq!(publish(&broker, "third").await, (3, false));

    let broker = broker.restart_with(clock(365 * 24 * HOUR_S));
    wait_for("the messages to expire by the wrong clock", || {
        dead(&broker) == ["expired"; 4]
    });

    let broker = broker.restart_with(clock(0));
    assert_eq!(dead(&broker), [""; 0], "the clock is right again");
    let kept_ms = expires_unix_ms(&broker, 3) - i64::try_from(unix_ms()).unwrap();
    assert!(kept_ms <= 24 * HOUR_S * 1000, "kept for {kept_ms} ms more");
    assert_eq!(
        publish(&broker, "third").await,
        (3, true),
        "ids are known by a later clock"
    );
    take(&broker, "search", &[(1, "first"), (2, "second"), (3, "third")]).await;
    take(&broker, "mail", &[(3, "third")]).await;
    wait_for("an empty store", || queues(&broker)["messages"] == 0);
}

/// Publishes with the text as its id; gives the sequence, and whether it is known.
async fn publish(broker: &Broker, text: &'static str) -> (u64, bool) {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", text);
    let web = jetstream::new(broker.client("web").await);
    let sent = web.publish_with_headers("todos.created", headers, text.into());
    let stored = sent.await.unwrap().await.unwrap();
    (stored.sequence, stored.duplicate)
}

/// Takes messages as a service, and acknowledges them.
async fn take(broker: &Broker, service: &str, expected: &[(u64, &str)]) {
    let client = broker.client(service).await;
    let mut events = client
        .queue_subscribe("todos.created", service.to_owned())
        .await
        .unwrap();
    for &(seq, text) in expected {
        let event = next(&mut events).await;
        assert_eq!(
            (header(&event, "Exo-Id"), &event.payload[..]),
            (seq.to_string(), text.as_bytes())
        );
        acknowledge(&client, &event).await;
    }
    client.flush().await.unwrap();
    wait_for("the acknowledgements", || {
        let queues = queues(broker);
        let queues = queues["queues"].as_array().unwrap();
        queues.iter().all(|queue| queue["service"] != service)
    });
}

fn expires_unix_ms(broker: &Broker, seq: u64) -> i64 {
    let shown = queue(broker, &["show", &seq.to_string(), "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("show prints JSON");
    shown["expires_unix_ms"].as_i64().expect("a number")
}

#[expect(
    clippy::disallowed_methods,
    reason = "what it is compared with is the machine's clock"
)]
fn unix_ms() -> u128 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()
}

/// Why the dead letters are dead.
fn dead(broker: &Broker) -> Vec<String> {
    let queues = queues(broker);
    let dead = queues["dead"].as_array().expect("a list").iter();
    dead.map(|letter| letter["cause"].as_str().expect("a text").to_owned())
        .collect()
}
