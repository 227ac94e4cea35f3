//! The official Rust client against a running broker. What this client cannot be made to do (verbose, pedantic,
//! a payload above the limit) is said in raw bytes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{
    Client, ConnectOptions, Event, HeaderMap, Message, PublishErrorKind, RequestErrorKind, ServerError,
    StatusCode, Subscriber,
};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::support::{Broker, PATIENCE, round_trip, wait_until};

/// The policy for the tests of the official clients, in all three languages.
pub const POLICY: &str = include_str!("clients.toml");

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

#[tokio::test]
async fn a_message_published_reaches_who_subscribes_with_the_sender_stamped() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut news = listen(&watcher, "news.plain").await;
    let asker = broker.client("asker").await;
    publish(&asker, "news.plain", "hello").await;
    publish(&asker, "news.plain", "").await;
    let message = next(&mut news).await;
    assert_eq!(text(&message), "hello");
    assert_eq!(message.subject.as_str(), "news.plain");
    assert_eq!(message.reply, None);
    assert_eq!(header(&message, "Exo-Sender"), Some("asker"));
    assert_eq!(text(&next(&mut news).await), "");
}

#[tokio::test]
async fn wildcard_subscriptions_get_what_they_match_and_nothing_else() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut one = listen(&watcher, "news.wild.*").await;
    let mut rest = listen(&watcher, "news.wild.>").await;
    let mut middle = listen(&watcher, "news.*.a").await;
    let asker = broker.client("asker").await;
    for subject in ["news.wild.a", "news.wild.b.c", "news.wild", "news.other"] {
        publish(&asker, subject, subject).await;
    }
    round_trip(&asker).await;
    assert_eq!(all_of(&watcher, &mut one).await, ["news.wild.a"]);
    assert_eq!(
        all_of(&watcher, &mut rest).await,
        ["news.wild.a", "news.wild.b.c"]
    );
    assert_eq!(all_of(&watcher, &mut middle).await, ["news.wild.a"]);
}

#[tokio::test]
async fn of_a_queue_group_each_message_reaches_one_member_and_all_members_get_some() {
    let broker = Broker::dev(POLICY);
    let (first, second) = (broker.client("watcher").await, broker.client("watcher").await);
    let mut members = [
        listen_in_group(&first, "news.queue", "group").await,
        listen_in_group(&first, "news.queue", "group").await,
        listen_in_group(&second, "news.queue", "group").await,
        listen_in_group(&second, "news.queue", "group").await,
    ];
    let mut plain = listen(&first, "news.queue").await;
    let mut other = listen_in_group(&second, "news.queue", "other").await;
    let asker = broker.client("asker").await;
    for number in numbers(400) {
        publish(&asker, "news.queue", number).await;
    }
    round_trip(&asker).await;
    assert_eq!(texts(&mut plain, 400).await, numbers(400));
    assert_eq!(texts(&mut other, 400).await, numbers(400));
    let mut all = Vec::new();
    for (client, member) in [&first, &first, &second, &second].into_iter().zip(&mut members) {
        let got = all_of(client, member).await;
        assert!(!got.is_empty(), "a member got nothing");
        all.extend(got);
    }
    all.sort_by_key(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(all, numbers(400));
}

#[tokio::test]
async fn a_request_is_answered_and_the_receiver_sees_a_token_in_place_of_the_inbox() {
    let broker = Broker::dev(POLICY);
    let worker = broker.client("worker").await;
    let mut requests = listen_in_group(&worker, "job.double", "worker").await;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            let number: u32 = text(&request).parse().expect("a number");
            let reply = request.reply.expect("a request has a reply subject");
            let places: Vec<_> = reply.strip_prefix("_R.").expect("a token").split('.').collect();
            assert!(places.len() == 2 && places.iter().all(|place| place.parse::<u32>().is_ok()));
            publish_to(&worker, reply, (2 * number).to_string()).await;
        }
    });
    let asker = broker.client("asker").await;
    let answers = numbers(200).into_iter().map(|number| {
        let asker = asker.clone();
        async move {
            asker
                .request("job.double", number.into())
                .await
                .expect("an answer")
        }
    });
    let answers = futures_util::future::join_all(answers).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(text(answer), (2 * number).to_string());
    }
    assert_eq!(header(&answers[0], "Exo-Sender"), Some("worker"));
}

async fn publish_to(client: &Client, subject: impl async_nats::ToSubject, payload: impl Into<Bytes>) {
    client
        .publish(subject.to_subject(), payload.into())
        .await
        .expect("the client is open");
}

#[tokio::test]
async fn a_reply_token_works_once_and_for_nobody_else() {
    let broker = Broker::dev(POLICY);
    let (worker, worker_told) = telling(&broker, "worker").await;
    let mut requests = listen_in_group(&worker, "job.token", "worker").await;
    let asker = broker.client("asker").await;
    let answer = tokio::spawn(async move { asker.request("job.token", Bytes::new()).await });
    let token = next(&mut requests)
        .await
        .reply
        .expect("a request has a reply subject");
    let (thief, thief_told) = telling(&broker, "worker").await;
    publish_to(&thief, token.clone(), "stolen").await;
    let refused = format!("Permissions Violation for Publish to \"{token}\"");
    wait_until("the refusal", || thief_told.errors().contains(&refused)).await;
    publish_to(&worker, token.clone(), "first").await;
    publish_to(&worker, token, "second").await;
    let answer = answer.await.expect("the task ends").expect("an answer");
    assert_eq!(text(&answer), "first");
    wait_until("the refusal of the second", || {
        worker_told.errors().contains(&refused)
    })
    .await;
}

#[tokio::test]
async fn a_request_that_nobody_receives_fails_at_once() {
    let broker = Broker::dev(POLICY);
    let asker = broker.client("asker").await;
    let start = now();
    let refused = asker
        .request("job.nobody", Bytes::new())
        .await
        .expect_err("nobody is there");
    assert_eq!(refused.kind(), RequestErrorKind::NoResponders);
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(refused_for(&ask(&asker, "job.nobody").await.0), "no-receiver");
}

#[tokio::test]
async fn headers_pass_but_for_those_that_are_ours() {
    let broker = Broker::dev(POLICY);
    let watcher = broker.client("watcher").await;
    let mut news = listen(&watcher, "news.headers").await;
    let asker = broker.client("asker").await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut sent = HeaderMap::new();
    sent.insert("traceparent", trace);
    sent.insert("tracestate", "a=1");
    sent.append("X-Many", "one");
    sent.append("X-Many", "two");
    for forged in ["Exo-Sender", "exo-sender", "EXO-SENDER", "eXo-Rule", "Exo-"] {
        sent.append(forged, "admin");
    }
    asker
        .publish_with_headers("news.headers", sent, "payload".into())
        .await
        .expect("the client is open");
    let message = next(&mut news).await;
    let mut headers: Vec<_> = message
        .headers
        .as_ref()
        .expect("headers")
        .iter()
        .flat_map(|(name, values)| values.iter().map(|value| (name.to_string(), value.as_str())))
        .collect();
    headers.sort_unstable();
    let expected = [
        ("Exo-Sender", "asker"),
        ("X-Many", "one"),
        ("X-Many", "two"),
        ("traceparent", trace),
        ("tracestate", "a=1"),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!((message.status, text(&message)), (None, "payload".to_owned()));
}

#[tokio::test]
async fn an_answer_that_carries_the_requests_headers_back_is_stamped_anew() {
    let broker = Broker::dev(POLICY);
    let worker = broker.client("worker").await;
    let mut requests = listen_in_group(&worker, "job.echo", "worker").await;
    tokio::spawn(async move {
        let request = next(&mut requests).await;
        let (reply, headers) = (
            request.reply.expect("a reply subject"),
            request.headers.expect("headers"),
        );
        worker
            .publish_with_headers(reply, headers, request.payload)
            .await
            .expect("the client is open");
        worker.flush().await.expect("the client is open");
    });
    let asker = broker.client("asker").await;
    let mut sent = HeaderMap::new();
    sent.insert("X-Kept", "1");
    let answer = asker
        .request_with_headers("job.echo", sent, "x".into())
        .await
        .expect("an answer");
    let senders: Vec<_> = answer
        .headers
        .as_ref()
        .expect("headers")
        .get_all("Exo-Sender")
        .collect();
    assert_eq!(
        senders.iter().map(|value| value.as_str()).collect::<Vec<_>>(),
        ["worker"]
    );
    assert_eq!(header(&answer, "X-Kept"), Some("1"));
}

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
async fn draining_a_receiver_in_a_group_loses_nothing() {
    let broker = Broker::dev(POLICY);
    let leaving = broker.client("watcher").await;
    let staying = broker.client("watcher").await;
    let left = listen_in_group(&leaving, "news.handover", "group").await;
    let mut stayed = listen_in_group(&staying, "news.handover", "group").await;
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let left = tokio::spawn(async move {
        let mut left = left;
        let mut all = Vec::new();
        while let Some(message) = left.next().await {
            all.push(text(&message));
            sender.send(()).ok();
        }
        all
    });
    let asker = broker.client("asker").await;
    let publishing = tokio::spawn(async move {
        for number in numbers(20_000) {
            publish(&asker, "news.handover", number).await;
        }
        round_trip(&asker).await;
    });
    // In the middle of the stream.
    for _ in 0..1000 {
        timeout(PATIENCE, seen.recv())
            .await
            .expect("messages come")
            .expect("the reader runs");
    }
    leaving.drain().await.expect("the client is open");
    let left = timeout(PATIENCE, left)
        .await
        .expect("the drain ends")
        .expect("the reader ends well");
    timeout(PATIENCE, publishing)
        .await
        .expect("all is sent")
        .expect("the sender ends well");
    let mut all = texts(&mut stayed, 20_000 - left.len()).await;
    assert!(
        left.len() >= 1000 && all.len() > 1000,
        "{} and {}",
        left.len(),
        all.len()
    );
    all.extend(left);
    all.sort_by_key(|number| number.parse::<u32>().expect("a number"));
    assert_eq!(all, numbers(20_000));
}

#[tokio::test]
async fn without_echo_a_client_does_not_hear_itself() {
    let broker = Broker::dev(POLICY);
    let loud = broker.client("asker").await;
    let quiet = broker
        .options("asker")
        .no_echo()
        .connect(broker.url())
        .await
        .expect("it may connect");
    let mut loud_hears = listen(&loud, "news.echo").await;
    let mut quiet_hears = listen(&quiet, "news.echo").await;
    publish(&quiet, "news.echo", "quiet").await;
    round_trip(&quiet).await;
    publish(&loud, "news.echo", "loud").await;
    assert_eq!(texts(&mut loud_hears, 2).await, ["quiet", "loud"]);
    assert_eq!(texts(&mut quiet_hears, 1).await, ["loud"]);
    assert!(all_of(&quiet, &mut quiet_hears).await.is_empty());
}

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

#[test]
fn verbose_and_pedantic_clients_get_an_ok_for_each_operation() {
    let broker = Broker::dev(POLICY);
    let mut raw = broker.raw("asker");
    assert!(raw.line().starts_with("INFO "));
    let check = |raw: &mut crate::support::Raw, sent: &str, expected: &[&str]| {
        raw.send(sent.as_bytes());
        for line in expected {
            assert_eq!(raw.message(), *line, "after {sent:?}");
        }
    };
    let options = r#"{"verbose":true,"pedantic":true,"headers":true,"no_responders":true}"#;
    check(
        &mut raw,
        &format!("CONNECT {options}\r\nPING\r\n"),
        &["+OK", "PONG"],
    );
    check(&mut raw, "SUB news.verbose 1\r\n", &["+OK"]);
    let delivered = "HMSG news.verbose 1 31 32\r\nNATS/1.0\r\nExo-Sender: asker\r\n\r\nx\r\n";
    check(&mut raw, "PUB news.verbose 1\r\nx\r\n", &["+OK", delivered]);
    check(&mut raw, "UNSUB 1\r\n", &["+OK"]);
    let denied = "-ERR 'Permissions Violation for Publish to \"secret.write\"'";
    check(&mut raw, "PUB secret.write 1\r\nx\r\n", &[denied]);
    let denied = "-ERR 'Permissions Violation for Subscription to \"job.list\"'";
    check(&mut raw, "SUB job.list 2\r\n", &[denied]);
    check(&mut raw, "PING\r\n", &["PONG"]);
}

#[tokio::test]
async fn a_denied_request_fails_at_once_with_the_rule() {
    let broker = Broker::dev(POLICY);
    let (asker, told) = telling(&broker, "asker").await;
    let start = now();
    let denied = asker
        .request("secret.read", Bytes::new())
        .await
        .expect_err("no line allows it");
    let took = start.elapsed();
    assert_eq!(denied.kind(), RequestErrorKind::NoResponders);
    assert!(took < Duration::from_secs(1), "{took:?}");
    wait_until("the error", || {
        told.errors() == ["Permissions Violation for Publish to \"secret.read\""]
    })
    .await;
    let (answer, took_too) = ask(&asker, "secret.read").await;
    assert!(took_too < Duration::from_secs(1), "{took_too:?}");
    assert_eq!(refused_for(&answer), "denied");
    assert_eq!(header(&answer, "Exo-Rule"), Some("no grant"));
    let version = broker.status()["policy"]["version"].clone();
    assert_eq!(header(&answer, "Exo-Policy"), version.as_str());
    eprintln!("denied request: {:.2} ms", took.as_secs_f64() * 1e3);
}

#[tokio::test]
async fn a_denied_publish_is_reported_and_the_connection_goes_on() {
    let broker = Broker::dev(POLICY);
    let (asker, told) = telling(&broker, "asker").await;
    publish(&asker, "secret.write", "x").await;
    wait_until("the error", || {
        told.errors() == ["Permissions Violation for Publish to \"secret.write\""]
    })
    .await;
    let mut news = listen(&asker, "news.after").await;
    publish(&asker, "news.after", "still here").await;
    assert_eq!(text(&next(&mut news).await), "still here");
    assert_eq!(told.count(&Event::Disconnected), 0);
}

#[tokio::test]
async fn a_subscription_outside_the_policy_is_refused() {
    let broker = Broker::dev(POLICY);
    for (subject, queue) in [
        ("job.list", None),
        ("job.list", Some("worker")),
        (">", None),
        ("*.plain", None),
        ("_R.>", None),
    ] {
        let (watcher, told) = telling(&broker, "watcher").await;
        let refused = match queue {
            None => watcher.subscribe(subject).await,
            Some(queue) => watcher.queue_subscribe(subject, queue.to_owned()).await,
        };
        let _refused = refused.expect("the client does not know yet");
        let using = queue.map_or_else(String::new, |queue| format!(" using queue \"{queue}\""));
        let expected = format!("Permissions Violation for Subscription to \"{subject}\"{using}");
        wait_until("the refusal", || told.errors() == [expected.clone()]).await;
        let mut news = listen(&watcher, "news.allowed").await;
        let asker = broker.client("asker").await;
        publish(&asker, "news.allowed", "x").await;
        assert_eq!(text(&next(&mut news).await), "x");
    }
}

#[tokio::test]
async fn an_inbox_is_heard_by_its_owner_alone() {
    let broker = Broker::dev(POLICY);
    let worker = broker.client("worker").await;
    let mut requests = listen_in_group(&worker, "job.private", "worker").await;
    tokio::spawn(async move {
        let reply = next(&mut requests).await.reply.expect("a reply subject");
        publish_to(&worker, reply, "for your ears").await;
        worker.flush().await.expect("the client is open");
    });
    let (spy, told) = telling(&broker, "watcher").await;
    let mut overheard = listen(&spy, "_INBOX.>").await;
    let asker = broker.client("asker").await;
    let answer = asker
        .request("job.private", Bytes::new())
        .await
        .expect("an answer");
    assert_eq!(text(&answer), "for your ears");
    publish(&spy, "_INBOX.somebody", "x").await;
    let refused = "Permissions Violation for Publish to \"_INBOX.somebody\"".to_owned();
    wait_until("the refusal", || told.errors().contains(&refused)).await;
    // Its own refusals reach it through this inbox too; nothing else does.
    while let Ok(Some(message)) = timeout(Duration::from_millis(50), overheard.next()).await {
        assert_eq!(refused_for(&message), "denied");
    }
}

#[tokio::test]
async fn a_request_whose_receiver_dies_is_refused_as_lost() {
    let broker = Broker::dev(POLICY);
    let worker = broker.client("worker").await;
    let mut requests = listen_in_group(&worker, "job.die", "worker").await;
    let asker = broker.client("asker").await;
    let asked = tokio::spawn(async move { ask(&asker, "job.die").await.0 });
    next(&mut requests).await;
    // The client closes its socket when nobody holds it any more.
    drop((requests, worker));
    let answer = asked.await.expect("the task ends");
    assert_eq!(refused_for(&answer), "receiver-lost");
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_time_is_refused_as_expired() {
    let broker = Broker::dev(POLICY);
    let (worker, told) = telling(&broker, "worker").await;
    let mut requests = listen_in_group(&worker, "job.slow", "worker").await;
    let asker = broker.client("asker").await;
    let (answer, took) = ask(&asker, "job.slow").await;
    assert_eq!(refused_for(&answer), "expired");
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let token = next(&mut requests).await.reply.expect("a reply subject");
    publish_to(&worker, token.clone(), "late").await;
    let refused = format!("Permissions Violation for Publish to \"{token}\"");
    wait_until("the refusal", || told.errors().contains(&refused)).await;
    let refused = asker
        .request("job.slow", Bytes::new())
        .await
        .expect_err("nobody answers");
    assert_eq!(refused.kind(), RequestErrorKind::NoResponders);
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
