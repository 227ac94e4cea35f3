//! Coming and going: before the broker is up, after a restart, shutdown, credentials.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use exorelay::{Error, Event, Failure, Options, Status};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{Events, ask, in_time, options, relay};
use crate::support::{Broker, TODO_POLICY};

#[tokio::test(flavor = "multi_thread")]
async fn it_connects_before_the_broker_is_up_and_again_after_a_restart() {
    let mut broker = Broker::dev(TODO_POLICY);
    broker.stop();
    let events = Events::default();
    let too_early = options(&broker, "web").connect().await.unwrap_err();
    assert!(matches!(too_early, Error::Connect { .. }), "{too_early}");
    assert!(too_early.to_string().contains("is ExoCom running"), "{too_early}");

    let web = events
        .listen(options(&broker, "web"))
        .wait_for_broker()
        .connect()
        .await
        .unwrap();
    let todos = options(&broker, "todos")
        .wait_for_broker()
        .connect()
        .await
        .unwrap();
    todos
        .handle("todos.list", |_, ()| async { Ok("here") })
        .await
        .unwrap();
    let event = events
        .wait_for("an attempt", |event| matches!(event, Event::Unreachable { .. }))
        .await;
    assert!(event.to_string().contains("is ExoCom running"), "{event}");
    let status = web.status().borrow().clone();
    assert!(
        matches!(status, Status::Offline { reason: Some(_) }),
        "{status:?}"
    );
    let hurried = options(&broker, "web")
        .online_within(Duration::from_millis(100))
        .wait_for_broker()
        .connect()
        .await
        .unwrap();
    let offline = hurried.send("todos.list", &()).await;
    assert!(matches!(offline, Err(Error::Offline { .. })), "{offline:?}");

    let broker = broker.restart();
    in_time("a connection", web.online()).await.unwrap();
    assert_eq!(ask(&web, "todos.list", &Value::Null).await.unwrap(), "here");
    events.wait_for("the word", |event| *event == Event::Online).await;

    // A receiver that never answers keeps a request open until the connection breaks.
    let mut silent = broker.raw_ready("todos");
    silent.send(b"SUB todos.create 1\r\nPING\r\n");
    assert_eq!(silent.line(), "PONG");
    let asking = web.clone();
    let asked = tokio::spawn(async move { asking.request::<Value>("todos.create", &()).await });
    silent.message();
    events.forget();
    let mut broker = broker;
    broker.signal("KILL");
    broker.wait();
    let lost = in_time("the loss", asked).await.unwrap();
    assert!(matches!(lost, Err(Error::ConnectionLost { .. })), "{lost:?}");
    let _broker = broker.restart();
    events
        .wait_for("the connection", |event| *event == Event::Online)
        .await;
    assert_eq!(ask(&web, "todos.list", &Value::Null).await.unwrap(), "here");
}

#[tokio::test]
async fn a_shutdown_finishes_what_has_come() {
    let broker = Broker::dev(TODO_POLICY);
    let (todos, web) = (relay(&broker, "todos").await, relay(&broker, "web").await);
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let handler = {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        move |_, number: u32| {
            let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
            async move {
                begun.add_permits(1);
                gate.acquire().await?.forget();
                Ok(number)
            }
        }
    };
    todos.handle("todos.list", handler).await.unwrap();
    gate.add_permits(1);
    ask(&web, "todos.list", &json!(0)).await.unwrap();
    let asked: Vec<_> = (1..=3)
        .map(|number| {
            let web = web.clone();
            tokio::spawn(async move { web.request::<u32>("todos.list", &number).await })
        })
        .collect();
    in_time("the work", begun.acquire_many(4)).await.unwrap().forget();
    let stopping = todos.clone();
    let stopped = tokio::spawn(async move { stopping.shutdown().await });
    in_time("the end of the intake", async {
        while !matches!(
            web.message("todos.list")
                .json(&9)
                .within(Duration::from_millis(50))
                .request::<u32>()
                .await,
            Err(Error::NoReceiver { .. })
        ) {}
    })
    .await;
    assert!(!stopped.is_finished());
    gate.add_permits(100);
    for (number, asked) in (1..).zip(asked) {
        assert_eq!(in_time("an answer", asked).await.unwrap().unwrap(), number);
    }
    in_time("the shutdown", stopped).await.unwrap().unwrap();
    assert_eq!(*todos.status().borrow(), Status::Closed);
    let late = todos.send("todos.created", &()).await;
    assert!(matches!(late, Err(Error::Closed)), "{late:?}");
    todos.shutdown().await.unwrap();
    in_time("the connection's end", async {
        while broker.status()["connections"]
            .as_array()
            .is_some_and(|all| all.len() > 1)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_ever() {
    let broker = Broker::dev(TODO_POLICY);
    let within = Duration::from_millis(200);
    let todos = options(&broker, "todos")
        .shutdown_within(within)
        .connect()
        .await
        .unwrap();
    let web = relay(&broker, "web").await;
    let begun = Arc::new(Semaphore::new(0));
    let handler = {
        let begun = Arc::clone(&begun);
        move |_, ()| {
            begun.add_permits(1);
            std::future::pending::<Result<(), Failure>>()
        }
    };
    todos.handle("todos.list", handler).await.unwrap();
    let asked = tokio::spawn(async move { ask(&web, "todos.list", &Value::Null).await });
    in_time("the work", begun.acquire()).await.unwrap().forget();
    let ended = in_time("the shutdown", todos.shutdown()).await;
    assert!(
        matches!(ended, Err(Error::Unfinished { handlers: 1, .. })),
        "{ended:?}"
    );
    let lost = in_time("the word", asked).await.unwrap();
    assert!(matches!(lost, Err(Error::ReceiverLost { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_corrected_policy_is_enough_to_receive() {
    let wrong = TODO_POLICY.replace("receives = [\"todos.*\"]", "receives = [\"todos.created\"]");
    let wrong = wrong.replace("receives-except = [\"todos.created\"]", "");
    assert_ne!(wrong, TODO_POLICY);
    let broker = Broker::dev(&wrong);
    let events = Events::default();
    let todos = events.listen(options(&broker, "todos")).connect().await.unwrap();
    let web = relay(&broker, "web").await;
    todos.handle("todos.list", |_, ()| async { Ok(1) }).await.unwrap();
    let denied = Event::ReceiveDenied {
        pattern: "todos.list".to_owned(),
    };
    events.wait_for("the denial", |event| *event == denied).await;
    let alone = web.request::<Value>("todos.list", &()).await;
    assert!(matches!(alone, Err(Error::NoReceiver { .. })), "{alone:?}");
    let purged = todos.send("todos.purge", &()).await;
    assert!(purged.is_ok(), "an event's denial comes later: {purged:?}");
    let is_denied = |event: &Event| matches!(event, Event::SendDenied { name } if name == "todos.purge");
    events.wait_for("the denial", is_denied).await;
    broker.change_policy(TODO_POLICY);
    assert_eq!(ask(&web, "todos.list", &Value::Null).await.unwrap(), 1);
}

#[tokio::test]
async fn credentials_are_judged_before_anything_is_sent() {
    let broker = Broker::dev(TODO_POLICY);
    let (ca, pem, key) = (
        broker.cert("ca.pem"),
        broker.cert("web.pem"),
        broker.cert("web.key"),
    );
    let port = broker.address().port();
    let check = async |options: Options, expected: &str| {
        let error = options.broker("127.0.0.1", port).connect().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        Options::new(&ca, &pem, broker.cert("todos.key")),
        "is it the key of EXOCOM_CERT?",
    )
    .await;
    check(Options::new(&key, &pem, &key), "EXOCOM_CA names").await;
    check(
        Options::new(&ca, broker.cert("server.pem"), &key),
        "it names no service",
    )
    .await;
    check(
        Options::new(&ca, broker.cert("alice.pem"), broker.cert("alice.key")),
        "it names no service",
    )
    .await;
    check(
        Options::new(&ca, broker.path("none.pem"), &key),
        "EXOCOM_CERT names",
    )
    .await;
    check(
        Options::new(&ca, &pem, &key).service("todos"),
        "is the certificate of web",
    )
    .await;

    // A root and certificates that look alike, of another broker.
    let other = Broker::dev(TODO_POLICY);
    check(
        Options::new(other.cert("ca.pem"), &pem, &key),
        "not from the root in EXOCOM_CA",
    )
    .await;
    let foreign = Options::new(&ca, other.cert("web.pem"), other.cert("web.key"));
    check(foreign, "the broker refused this service's certificate").await;
    // Known, but no longer in the policy.
    let policy = TODO_POLICY.replace("[service.web]", "[service.site]");
    broker.change_policy(&policy);
    check(Options::new(&ca, &pem, &key), "does not let this service connect").await;
}

#[tokio::test]
async fn renewed_certificates_are_used_for_the_next_connection() {
    let broker = Broker::dev(TODO_POLICY);
    let (pem, key) = (broker.path("mine.pem"), broker.path("mine.key"));
    fs::copy(broker.cert("web.pem"), &pem).unwrap();
    fs::copy(broker.cert("web.key"), &key).unwrap();
    let events = Events::default();
    let options =
        Options::new(broker.cert("ca.pem"), &pem, &key).broker("localhost", broker.address().port());
    let web = events.listen(options).connect().await.unwrap();
    fs::write(&pem, "").unwrap();
    let broker = broker.restart();
    events
        .wait_for("the failure", |event| matches!(event, Event::Unreachable { .. }))
        .await;
    assert!(matches!(*web.status().borrow(), Status::Offline { .. }));
    fs::copy(broker.cert("web.pem"), &pem).unwrap();
    in_time("the connection", web.online()).await.unwrap();
}
