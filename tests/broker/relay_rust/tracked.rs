//! Tracked messages: published and stored, acknowledged, put off, given up, extended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use exorelay::{Error, Failure, Message};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Events, in_time, options, relay};
use crate::support::{Broker, EXOCOM, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.>", "news"]

[service.todos]
receives = ["todos.>", "news"]

[message."todos.>"]
delivery = "at-least-once"
reply-within = "20s"
attempts = 3
backoff = "20ms..20ms"

[message."todos.happened.>"]
kind = "event"
ack-within = "20s"

[message."todos.happened.slow"]
ack-within = "900ms"

[message.news]
kind = "event"
"#;

/// What `exocom queue list` shows.
fn queues(broker: &Broker) -> Value {
    let output = std::process::Command::new(EXOCOM)
        .args(["queue", "list", "--json", "--admin"])
        .arg(broker.path("admin.sock"))
        .output()
        .unwrap();
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

fn wait_until_nothing_is_kept(broker: &Broker) {
    wait_for("an empty store", || queues(broker)["messages"] == 0);
}

/// Waits for a dead letter, and says why it was given up and after how many attempts.
fn dead_letter(broker: &Broker) -> (String, u64) {
    wait_for("a dead letter", || queues(broker)["dead"][0].is_object());
    let dead = &queues(broker)["dead"][0];
    let cause = dead["cause"].as_str().unwrap().to_owned();
    (cause, dead["attempts"].as_u64().unwrap())
}

/// A handler's view of an attempt: id and number.
type Seen = (u64, u32);

fn seen() -> (mpsc::UnboundedSender<Seen>, mpsc::UnboundedReceiver<Seen>) {
    mpsc::unbounded_channel()
}

fn about(message: &Message) -> Seen {
    (message.id().expect("it is tracked"), message.attempt())
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_returns_when_it_is_stored_and_the_handlers_return_acknowledges() {
    let broker = Broker::dev(POLICY);
    let web = relay(&broker, "web").await;
    let publish = || web.message("todos.happened.a").json(&1).id("one").publish();
    let stored = publish().await.unwrap();
    assert_eq!((stored.seq, stored.duplicate), (1, false));
    let again = publish().await.unwrap();
    assert_eq!((again.seq, again.duplicate), (1, true));
    assert_eq!(web.publish("todos.happened.a", &2).await.unwrap().seq, 2);

    let broker = broker.restart();
    let (heard, mut hears) = mpsc::unbounded_channel();
    let todos = relay(&broker, "todos").await;
    todos
        .handle("todos.happened.*", move |message: Message, number: u64| {
            let heard = heard.clone();
            async move {
                assert!(!message.expects_answer());
                heard.send((number, about(&message))).unwrap();
                Ok("an event has no answer")
            }
        })
        .await
        .unwrap();
    let mut events = Vec::new();
    for _ in 0..2 {
        events.extend(in_time("an event", hears.recv()).await);
    }
    // The handlers of two messages run at the same time.
    events.sort_unstable();
    assert_eq!(events, [(1, (1, 1)), (2, (2, 1))]);
    wait_until_nothing_is_kept(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn publish_says_what_cannot_be_stored() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (relay(&broker, "web").await, relay(&broker, "todos").await);
    todos
        .handle("news", |_, _: Value| async { Ok(()) })
        .await
        .unwrap();
    let denied = web.publish("other", &1).await;
    assert!(matches!(denied, Err(Error::Denied { .. })), "{denied:?}");
    let bad = web.message("todos.happened.a").id("").publish().await;
    assert!(matches!(bad, Err(Error::Header { .. })), "{bad:?}");
    in_time("a receiver", async {
        loop {
            match web.publish("news", &1).await {
                Err(Error::NoReceiver { .. }) => {}
                Err(Error::NotTracked { .. }) => return,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_says_so() {
    let config = "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
         [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
         [store]\nfolder = \"store\"\nmessages = 2\n";
    let broker = Broker::serve(POLICY, config);
    let web = relay(&broker, "web").await;
    for _ in 0..2 {
        web.publish("todos.happened.a", &1).await.unwrap();
    }
    let refused = web.publish("todos.happened.a", &1).await;
    assert!(matches!(refused, Err(Error::Overloaded { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_gets_it_again_with_the_same_id() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (relay(&broker, "web").await, relay(&broker, "todos").await);
    let (heard, mut hears) = seen();
    todos
        .handle("todos.>", move |message: Message, (): ()| {
            let heard = heard.clone();
            async move {
                heard.send(about(&message)).unwrap();
                if message.attempt() < 3 {
                    return Err(Failure::internal("the database is locked"));
                }
                Ok(message.attempt())
            }
        })
        .await
        .unwrap();
    let stored = web.publish("todos.happened.a", &()).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(
            in_time("an attempt", hears.recv()).await,
            Some((stored.seq, attempt))
        );
    }
    wait_until_nothing_is_kept(&broker);
    // The failures of the first attempts are not the answer of a command.
    let answer: u32 = in_time("the answer", web.request("todos.create", &()))
        .await
        .unwrap();
    assert_eq!(answer, 3);
    wait_until_nothing_is_kept(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_and_the_last_failure_make_a_dead_letter() {
    let broker = Broker::dev(POLICY);
    let events = Events::default();
    let todos = events.listen(options(&broker, "todos")).connect().await.unwrap();
    let web = relay(&broker, "web").await;
    todos
        .handle("todos.create", |message: Message, (): ()| async move {
            assert!(message.attempt() > 1, "the first attempt panics");
            Err::<(), _>(Failure::internal("not again"))
        })
        .await
        .unwrap();
    let outcome = in_time("the end", web.request::<Value>("todos.create", &())).await;
    assert!(matches!(outcome, Err(Error::DeadLetter { .. })), "{outcome:?}");
    assert_eq!(dead_letter(&broker), ("all attempts failed".to_owned(), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_never_be_handled_is_not_tried_again() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (relay(&broker, "web").await, relay(&broker, "todos").await);
    todos
        .handle("todos.create", |_, (): ()| async {
            Err::<(), _>(Failure::never("of a version that is too old"))
        })
        .await
        .unwrap();
    let outcome = in_time("the end", web.request::<Value>("todos.create", &())).await;
    assert!(matches!(outcome, Err(Error::DeadLetter { .. })), "{outcome:?}");
    assert_eq!(
        dead_letter(&broker),
        ("refused for good by the receiver".to_owned(), 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_sender_did_wrong_is_answered_and_an_event_of_it_kept_for_an_operator() {
    let broker = Broker::dev(POLICY);
    let (web, todos) = (relay(&broker, "web").await, relay(&broker, "todos").await);
    todos
        .handle("todos.>", |_, _: u32| async {
            Err::<(), _>(Failure::new(422, "a todo needs a title"))
        })
        .await
        .unwrap();
    // The payload is no number, or the handler does not like it.
    for (payload, expected) in [(json!("x"), 400), (json!(1), 422)] {
        let outcome = in_time("the answer", web.request::<Value>("todos.create", &payload)).await;
        assert!(
            matches!(outcome, Err(Error::Failed { code, .. }) if code == expected),
            "{outcome:?}"
        );
    }
    wait_until_nothing_is_kept(&broker);
    web.publish("todos.happened.a", &"x").await.unwrap();
    assert_eq!(
        dead_letter(&broker),
        ("refused for good by the receiver".to_owned(), 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_takes_long_keeps_its_message_and_those_that_wait_for_it() {
    let broker = Broker::dev(POLICY);
    let web = relay(&broker, "web").await;
    let todos = options(&broker, "todos").concurrency(1).connect().await.unwrap();
    let (heard, mut hears) = seen();
    todos
        .handle("todos.happened.slow", move |message: Message, (): ()| {
            let heard = heard.clone();
            async move {
                heard.send(about(&message)).unwrap();
                // Twice what an attempt may take.
                tokio::time::sleep(Duration::from_millis(1_800)).await;
                Ok(())
            }
        })
        .await
        .unwrap();
    for seq in 1..=2 {
        assert_eq!(web.publish("todos.happened.slow", &()).await.unwrap().seq, seq);
    }
    assert_eq!(in_time("an event", hears.recv()).await, Some((1, 1)));
    assert_eq!(in_time("an event", hears.recv()).await, Some((2, 1)));
    wait_until_nothing_is_kept(&broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_does_not_keep_its_message_for_ever() {
    let broker = Broker::dev(POLICY);
    let web = relay(&broker, "web").await;
    let todos = options(&broker, "todos")
        .extend_for(Duration::ZERO)
        .connect()
        .await
        .unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    todos
        .handle("todos.happened.slow", move |message: Message, (): ()| {
            counted.fetch_add(1, SeqCst);
            async move {
                if message.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                Ok(())
            }
        })
        .await
        .unwrap();
    web.publish("todos.happened.slow", &()).await.unwrap();
    wait_until_nothing_is_kept(&broker);
    assert_eq!(attempts.load(SeqCst), 2);
}
