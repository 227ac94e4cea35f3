//! A broker that is killed again and again, under load, with services that crash too: nothing that was acknowledged
//! is lost, and what comes twice says so.
//!
//! `EXOCOM_CHAOS_KILLS=200` kills it as often.

use std::collections::{BTreeMap, HashMap};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::support::{Broker, Environment, wait_until};
use crate::{header, queues};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.north]
sends = ["todos.created"]
[service.south]
sends = ["todos.created"]
[service.east]
sends = ["todos.created"]
[service.west]
sends = ["todos.created"]

[service.mail]
receives = ["todos.created"]
[service.search]
receives = ["todos.created"]
[service.billing]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"
attempts = 1000
backoff = "10ms..50ms"
"#;

const PUBLISHERS: [&str; 4] = ["north", "south", "east", "west"];
const SERVICES: [&str; 3] = ["mail", "search", "billing"];

/// Instances of each service.
const INSTANCES: usize = 2;

/// Messages that a publisher has on their way at once.
const IN_FLIGHT: usize = 64;

/// The most that one instance has in flight, as the broker has it (`WINDOW_MESSAGES_MAX`).
const WINDOW: usize = 1_024;

/// Messages that are acknowledged between two kills, at least: a kill without load would prove nothing.
const MESSAGES_PER_LIFE: u64 = 200;

/// Messages that an instance which crashes acknowledges before, and takes without an answer.
const ACKNOWLEDGED_PER_LIFE: usize = 100;
const UNANSWERED_PER_LIFE: usize = 20;

/// What everybody has seen.
#[derive(Default)]
struct Ledger {
    is_over: AtomicBool,
    acknowledged: AtomicU64,
    /// Texts that were acknowledged to their publishers, with their sequences.
    stored: Mutex<HashMap<String, u64>>,
    /// Of each service and sequence: the text, and the attempts in the order in which they came.
    received: Mutex<BTreeMap<(&'static str, u64), Received>>,
    crashes: AtomicU64,
    connections_lost: AtomicU64,
    retries: AtomicU64,
    duplicates_told: AtomicU64,
}

#[derive(Default)]
struct Received {
    texts: Vec<String>,
    attempts: Vec<u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_broker_is_killed() {
    let kills: u64 =
        std::env::var("EXOCOM_CHAOS_KILLS").map_or(20, |kills| kills.parse().expect("a number of kills"));
    let mut broker = Broker::dev_at(POLICY, &quiet_address(), Environment::new());
    let ledger = Arc::new(Ledger::default());
    let mut publishers = Vec::new();
    for service in PUBLISHERS {
        let client = patient(&broker, service).await;
        publishers.push(tokio::spawn(publish(client, service, Arc::clone(&ledger))));
    }
    let mut receivers = Vec::new();
    for service in SERVICES {
        for instance in 0..INSTANCES {
            let (options, url) = (broker.options(service), broker.url());
            let receiving = receive(options, url, service, instance, Arc::clone(&ledger));
            receivers.push(tokio::spawn(receiving));
        }
    }
    for kill in 0..kills {
        let before = ledger.acknowledged.load(Ordering::Relaxed);
        wait_until("messages to be acknowledged", || {
            ledger.acknowledged.load(Ordering::Relaxed) >= before + MESSAGES_PER_LIFE
        })
        .await;
        // Not always at the same point of a turn.
        tokio::time::sleep(Duration::from_millis(kill * 37 % 101)).await;
        broker.kill();
        broker = tokio::task::spawn_blocking(|| broker.restart()).await.unwrap();
        if (kill + 1) % 20 == 0 {
            let acknowledged = ledger.acknowledged.load(Ordering::Relaxed);
            eprintln!(
                "{} of {kills} kills, {acknowledged} messages acknowledged",
                kill + 1
            );
        }
    }
    ledger.is_over.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.unwrap();
    }
    wait_until("an empty store", || queues(&broker)["messages"] == 0).await;
    for receiver in &receivers {
        receiver.abort();
    }
    judge(&ledger, kills);
}

/// Publishes as fast as acknowledgements come. What is not acknowledged in time is published again, with the same
/// id: it may be stored, and must not be stored twice.
async fn publish(client: async_nats::Client, service: &'static str, ledger: Arc<Ledger>) {
    let context = jetstream::context::ContextBuilder::new()
        .timeout(Duration::from_secs(1))
        .build(client);
    let one = |number: u64| {
        let (context, ledger) = (context.clone(), Arc::clone(&ledger));
        async move {
            let text = format!("{service}-{number}");
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", text.as_str());
            loop {
                let sent =
                    context.publish_with_headers("todos.created", headers.clone(), text.clone().into());
                let acknowledged = match sent.await {
                    Ok(acknowledged) => acknowledged.await.ok(),
                    Err(_) => None,
                };
                if let Some(stored) = acknowledged {
                    ledger.acknowledged.fetch_add(1, Ordering::Relaxed);
                    ledger
                        .duplicates_told
                        .fetch_add(stored.duplicate.into(), Ordering::Relaxed);
                    ledger.stored.lock().unwrap().insert(text, stored.sequence);
                    return;
                }
                ledger.retries.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let mut numbers = 0..;
    let mut on_their_way: FuturesUnordered<_> = numbers.by_ref().take(IN_FLIGHT).map(one).collect();
    while on_their_way.next().await.is_some() {
        if !ledger.is_over.load(Ordering::Relaxed) {
            on_their_way.extend(numbers.next().map(one));
        }
    }
}

/// An instance of a service: works, crashes with messages in its hands, comes back.
async fn receive(
    options: async_nats::ConnectOptions,
    url: String,
    service: &'static str,
    instance: usize,
    ledger: Arc<Ledger>,
) {
    loop {
        let client = options.clone().max_reconnects(1).connect(&url).await;
        let Ok(client) = client else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(mut events) = client.queue_subscribe("todos.created", service.to_owned()).await else {
            continue;
        };
        let mut handled = 0;
        while let Some(event) = events.next().await {
            let text = String::from_utf8_lossy(&event.payload).into_owned();
            let number = |name| {
                let value = header(&event, name);
                value.parse().expect("a tracked message has its numbers")
            };
            {
                let mut received = ledger.received.lock().unwrap();
                let received = received.entry((service, number("Exo-Id"))).or_default();
                received.texts.push(text);
                received.attempts.push(number("Exo-Attempt"));
            }
            handled += 1;
            // The first instance crashes; the others stay.
            let is_dying = instance == 0 && !ledger.is_over.load(Ordering::Relaxed);
            if is_dying && handled > ACKNOWLEDGED_PER_LIFE + UNANSWERED_PER_LIFE {
                ledger.crashes.fetch_add(1, Ordering::Relaxed);
                break;
            }
            if is_dying && handled > ACKNOWLEDGED_PER_LIFE {
                continue;
            }
            let reply = event.reply.expect("a tracked message has a reply subject");
            if client.publish(reply, "+ACK".into()).await.is_err() {
                break;
            }
        }
        ledger.connections_lost.fetch_add(1, Ordering::Relaxed);
    }
}

fn judge(ledger: &Ledger, kills: u64) {
    let stored = ledger.stored.lock().unwrap();
    let received = ledger.received.lock().unwrap();
    let count = |number: &AtomicU64| usize::try_from(number.load(Ordering::Relaxed)).unwrap();
    let kills = usize::try_from(kills).unwrap();
    let (crashes, connections_lost) = (count(&ledger.crashes), count(&ledger.connections_lost));
    let mut lost = Vec::new();
    for service in SERVICES {
        for (text, seq) in stored.iter() {
            let came = received
                .get(&(service, *seq))
                .is_some_and(|received| received.texts.contains(text));
            if !came {
                lost.push((service, text, seq));
            }
        }
    }
    let mut twice = 0;
    let mut uncounted = Vec::new();
    let mut sequences: HashMap<(&str, &str), u64> = HashMap::new();
    let mut stored_twice = Vec::new();
    for ((service, seq), received) in received.iter() {
        twice += received.attempts.len() - 1;
        if received.attempts.windows(2).any(|pair| pair[0] >= pair[1]) {
            uncounted.push((service, seq, &received.attempts));
        }
        for text in &received.texts {
            let first = *sequences.entry((service, text)).or_insert(*seq);
            if first != *seq {
                stored_twice.push((text, first, seq));
            }
        }
    }
    let in_flight_max = (kills * SERVICES.len() * INSTANCES + crashes) * WINDOW;
    eprintln!(
        "{kills} kills, {crashes} crashes of services ({connections_lost} of their connections lost): {} messages acknowledged ({} publishes repeated, {} \
         told as duplicates), {} deliveries, {twice} of them again (at most {in_flight_max} may be); lost {}, again \
         without a higher Exo-Attempt {}, stored twice {}",
        stored.len(),
        ledger.retries.load(Ordering::Relaxed),
        ledger.duplicates_told.load(Ordering::Relaxed),
        received
            .values()
            .map(|received| received.attempts.len())
            .sum::<usize>(),
        lost.len(),
        uncounted.len(),
        stored_twice.len(),
    );
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(uncounted.is_empty(), "again, and not counted: {uncounted:?}");
    assert!(stored_twice.is_empty(), "one id, two messages: {stored_twice:?}");
    assert!(twice <= in_flight_max, "{twice} duplicates");
    assert!(crashes >= kills, "the services crash, too");
    assert!(
        connections_lost >= kills * SERVICES.len(),
        "a kill ends the connections of all services"
    );
}

async fn patient(broker: &Broker, service: &str) -> async_nats::Client {
    let options = broker
        .options(service)
        .reconnect_delay_callback(|_| Duration::from_millis(20));
    options.connect(broker.url()).await.expect("the broker is there")
}

/// An address that no outgoing connection has while the broker is down: those are given higher ports.
fn quiet_address() -> String {
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).expect("below 5,000");
    let free = (first..).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    format!("127.0.0.1:{}", free.expect("one of thousands of ports is free"))
}
