//! The official Rust client against a running broker. What this client cannot be made to do (verbose, pedantic,
//! a payload above the limit) is said in raw bytes. Here is what the tests share.

mod endings;
mod messages;
mod refusals;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, Event, Message, ServerError, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::support::{Broker, PATIENCE, round_trip};

/// The policy for the tests of the official clients, in all three languages.
pub const POLICY: &str = include_str!("../clients.toml");

/// What a client has told of itself.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Event>>>);

impl Told {
    fn by(options: ConnectOptions) -> (Self, ConnectOptions) {
        let told = Self::default();
        let events = Arc::clone(&told.0);
        let options = options.event_callback(move |event| {
            events.lock().push(event);
            std::future::ready(())
        });
        (told, options)
    }

    fn errors(&self) -> Vec<String> {
        let events = self.0.lock();
        let errors = events.iter().filter_map(|event| match event {
            Event::ServerError(ServerError::Other(text)) => Some(text.clone()),
            _ => None,
        });
        errors.collect()
    }

    fn count(&self, wanted: &Event) -> usize {
        self.0.lock().iter().filter(|event| *event == wanted).count()
    }
}

async fn telling(broker: &Broker, service: &str) -> (Client, Told) {
    let (told, options) = Told::by(broker.options(service));
    let client = options.connect(broker.url()).await.expect("it may connect");
    (client, told)
}

async fn next(subscriber: &mut Subscriber) -> Message {
    timeout(PATIENCE, subscriber.next())
        .await
        .expect("a message comes in time")
        .expect("the subscription is open")
}

async fn texts(subscriber: &mut Subscriber, count: usize) -> Vec<String> {
    let mut texts = Vec::with_capacity(count);
    while texts.len() < count {
        texts.push(text(&next(subscriber).await));
    }
    texts
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// Subscribes, and returns when the broker knows.
async fn listen(client: &Client, subject: &'static str) -> Subscriber {
    let subscriber = client.subscribe(subject).await.expect("a good subject");
    round_trip(client).await;
    subscriber
}

async fn listen_in_group(client: &Client, subject: &'static str, group: &str) -> Subscriber {
    let subscriber = client
        .queue_subscribe(subject, group.to_owned())
        .await
        .expect("a good subject");
    round_trip(client).await;
    subscriber
}

async fn publish(client: &Client, subject: &'static str, payload: impl Into<Bytes>) {
    client
        .publish(subject, payload.into())
        .await
        .expect("the client is open");
}

/// Everything that has come to a subscription by now, when all of it was sent before this call.
async fn all_of(client: &Client, subscriber: &mut Subscriber) -> Vec<String> {
    round_trip(client).await;
    let mut texts = Vec::new();
    while let Ok(Some(message)) = timeout(Duration::from_millis(50), subscriber.next()).await {
        texts.push(text(&message));
    }
    texts
}

/// Sends a request whose answer is heard on an inbox of its own, so that a refusal can be read whole.
async fn ask(client: &Client, subject: &'static str) -> (Message, Duration) {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.expect("a good subject");
    let start = now();
    client
        .publish_with_reply(subject, inbox, Bytes::new())
        .await
        .expect("the client is open");
    let answer = next(&mut answers).await;
    (answer, start.elapsed())
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

fn refused_for(message: &Message) -> &str {
    assert_eq!(message.status, Some(StatusCode::NO_RESPONDERS));
    assert!(message.payload.is_empty());
    header(message, "Exo-Reason").expect("a refusal says why")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests measure how long a refusal takes"
)]
fn now() -> Instant {
    Instant::now()
}

async fn publish_to(client: &Client, subject: impl async_nats::ToSubject, payload: impl Into<Bytes>) {
    client
        .publish(subject.to_subject(), payload.into())
        .await
        .expect("the client is open");
}
