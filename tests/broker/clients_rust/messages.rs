//! Messages that arrive: plain, in groups, as requests and answers, with their headers.

use async_nats::HeaderMap;
use futures_util::StreamExt;

use super::*;
use crate::support::{Broker, round_trip};

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

// protocol: P-061
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

// protocol: P-063, P-064
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

// protocol: P-072, P-074
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

// protocol: P-052, P-053, P-056
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

// protocol: P-053
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

// protocol: P-068
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

// protocol: P-025, P-026, P-041
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
