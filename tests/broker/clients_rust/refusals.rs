//! What the policy, or the absence of an answer, refuses, and how the client hears of it.

use std::time::Duration;

use async_nats::{Event, RequestErrorKind};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::time::timeout;

use super::*;
use crate::support::{Broker, wait_until};

// protocol: P-073
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

// protocol: P-083
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

// protocol: P-080, P-082
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

// protocol: P-041
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

// protocol: P-062
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

// protocol: P-071
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

// protocol: P-084
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

// protocol: P-085
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
