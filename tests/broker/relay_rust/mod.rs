//! The ExoRelay for Rust against a real broker: what its users rely on, and what goes wrong.

mod connections;
mod renew;
mod tracked;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use exorelay::{Error, Event, ExoRelay, Failure, Message, Options};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::support::{Broker, PATIENCE, TODO_POLICY};

fn options(broker: &Broker, service: &str) -> Options {
    let (certificate, key) = (format!("{service}.pem"), format!("{service}.key"));
    Options::new(
        broker.cert("ca.pem"),
        broker.cert(&certificate),
        broker.cert(&key),
    )
    .broker("127.0.0.1", broker.address().port())
    .online_within(PATIENCE)
}

async fn relay(broker: &Broker, service: &str) -> ExoRelay {
    let relay = options(broker, service).connect().await;
    relay.unwrap_or_else(|error| panic!("{service}: {error}; log:\n{}", broker.log()))
}

/// Asks again while nobody listens yet: a handler's subscription is on its way when `handle` returns.
async fn ask(web: &ExoRelay, name: &str, payload: &Value) -> Result<Value, Error> {
    let start = Instant::now();
    loop {
        match web.request(name, payload).await {
            Err(Error::NoReceiver { .. }) if start.elapsed() < PATIENCE => tokio::task::yield_now().await,
            outcome => return outcome,
        }
    }
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The events of a relay, as they come.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    fn listen(&self, options: Options) -> Options {
        let events = self.clone();
        options.on_event(move |event| events.0.lock().unwrap().push(event.clone()))
    }

    async fn wait_for(&self, what: &str, is_it: impl Fn(&Event) -> bool) -> Event {
        in_time(what, async {
            loop {
                let found = self.0.lock().unwrap().iter().find(|event| is_it(event)).cloned();
                if let Some(event) = found {
                    return event;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    fn forget(&self) {
        self.0.lock().unwrap().clear();
    }
}

#[tokio::test]
async fn a_command_is_answered_and_its_sender_is_proven() {
    let broker = Broker::dev(TODO_POLICY);
    let (todos, web) = (relay(&broker, "todos").await, relay(&broker, "web").await);
    assert_eq!((todos.service(), web.service()), ("todos", "web"));
    todos
        .handle("todos.list", |message: Message, payload: Value| async move {
            Ok(json!({
                "name": message.name(),
                "sender": message.sender(),
                "trace": message.traceparent(),
                "got": payload,
            }))
        })
        .await
        .unwrap();
    let answer = ask(&web, "todos.list", &json!({"limit": 3})).await.unwrap();
    assert_eq!(
        answer,
        json!({"name": "todos.list", "sender": "web", "trace": null, "got": {"limit": 3}})
    );
    // Whatever a sender claims, the certificate counts; and the trace passes.
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = web.message("todos.list").json(&"x").header("Traceparent", trace);
    let answer = message.request_answer().await.unwrap();
    assert_eq!(answer.sender(), Some("todos"));
    let answer: Value = answer.json().unwrap();
    assert_eq!(
        (&answer["trace"], &answer["sender"]),
        (&json!(trace), &json!("web"))
    );
    let forged = web
        .message("todos.list")
        .header("exo-Sender", "admin")
        .send()
        .await;
    assert!(matches!(forged, Err(Error::Header { .. })), "{forged:?}");
}

#[tokio::test]
async fn an_event_carries_the_trace_of_the_command_that_led_to_it() {
    let broker = Broker::dev(TODO_POLICY);
    let (todos, web) = (relay(&broker, "todos").await, relay(&broker, "web").await);
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    web.handle("todos.created", move |message: Message, title: String| {
        let heard = heard.clone();
        async move {
            assert!(!message.expects_answer());
            let trace = message.traceparent().map(str::to_owned);
            heard
                .send((title, message.sender().to_owned(), trace))
                .map_err(Failure::from)
        }
    })
    .await
    .unwrap();
    todos
        .handle("todos.create", |message: Message, title: String| async move {
            message.send("todos.created", &title).await?;
            Ok(())
        })
        .await
        .unwrap();
    ask(&web, "todos.create", &json!("warm up")).await.unwrap();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let message = web
        .message("todos.create")
        .json(&"milk")
        .header("traceparent", trace);
    message.request::<()>().await.unwrap();
    let expected = ("milk".to_owned(), "todos".to_owned(), Some(trace.to_owned()));
    in_time("the event", async {
        while events.recv().await.unwrap() != expected {}
    })
    .await;
}

// The raw client blocks its thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_succeed_fails_with_its_reason() {
    let policy = format!("{TODO_POLICY}\n[message.\"todos.list\"]\nreply-within = \"200ms\"\n");
    let broker = Broker::dev(&policy);
    let web = relay(&broker, "web").await;
    let start = Instant::now();
    match web.request::<Value>("todos.purge", &()).await {
        Err(Error::Denied { name, rule, policy }) => {
            assert_eq!((name.as_str(), rule.as_str()), ("todos.purge", "no grant"));
            assert_eq!(json!(policy), broker.status()["policy"]["version"]);
        }
        other => panic!("{other:?}"),
    }
    let alone = web.request::<Value>("todos.list", &()).await;
    assert!(matches!(alone, Err(Error::NoReceiver { .. })), "{alone:?}");
    assert!(start.elapsed().as_secs() < 1, "took {:?}", start.elapsed());

    // Receivers that do not answer.
    let mut silent = broker.raw_ready("todos");
    silent.send(b"SUB todos.list 1\r\nSUB todos.create 2\r\nPING\r\n");
    assert_eq!(silent.line(), "PONG");
    let expired = in_time("the expiry", web.request::<Value>("todos.list", &())).await;
    assert!(matches!(expired, Err(Error::Expired { .. })), "{expired:?}");
    let hurried = web.message("todos.create").within(Duration::from_millis(50));
    let timed_out = hurried.request::<Value>().await;
    assert!(matches!(timed_out, Err(Error::TimedOut { .. })), "{timed_out:?}");
    let asked = tokio::spawn(async move { web.request::<Value>("todos.create", &()).await });
    // The request that timed out, and the one that is to be lost.
    while !silent.message().contains("todos.create") {}
    while !silent.message().contains("todos.create") {}
    drop(silent);
    let lost = in_time("the loss", asked).await.unwrap();
    assert!(matches!(lost, Err(Error::ReceiverLost { .. })), "{lost:?}");
}

#[tokio::test]
async fn a_handler_that_fails_says_so() {
    let broker = Broker::dev(TODO_POLICY);
    let events = Events::default();
    let todos = events.listen(options(&broker, "todos")).connect().await.unwrap();
    let web = relay(&broker, "web").await;
    todos
        .handle("todos.create", |_, title: String| async move {
            match title.as_str() {
                "" => Err(Failure::bad_request("a todo needs a title")),
                "io" => Err(std::io::Error::other("the secret disk is full"))?,
                "panic" => panic!("on purpose"),
                "late" => Ok(json!("x".repeat(2 << 20))),
                _ => Ok(json!(title.len())),
            }
        })
        .await
        .unwrap();
    let check = async |payload: Value, expected: Result<Value, (u16, &str)>| match (
        ask(&web, "todos.create", &payload).await,
        expected,
    ) {
        (Ok(answer), Ok(expected)) => assert_eq!(answer, expected),
        (Err(Error::Failed { code, message, .. }), Err((expected, text))) => {
            assert_eq!(code, expected, "{payload}: {message}");
            assert!(message.contains(text), "{payload}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        (other, expected) => panic!("{payload}: {other:?}, expected {expected:?}"),
    };
    check(json!("milk"), Ok(json!(4))).await;
    check(json!(""), Err((400, "a todo needs a title"))).await;
    check(json!(7), Err((400, "the payload is not the expected JSON"))).await;
    check(json!("io"), Err((500, "the receiver's handler failed"))).await;
    check(json!("panic"), Err((500, "the receiver's handler failed"))).await;
    check(json!("late"), Err((500, "the answer is too large"))).await;
    check(json!("still here"), Ok(json!(10))).await;
    let failed = |text: &'static str| move |event: &Event| matches!(event, Event::HandlerFailed { error, .. } if error.contains(text));
    events.wait_for("the error", failed("disk is full")).await;
    events.wait_for("the panic", failed("it panicked")).await;
}

#[tokio::test]
async fn work_is_bounded_and_the_rest_is_refused_at_once() {
    let broker = Broker::dev(TODO_POLICY);
    let todos = options(&broker, "todos")
        .concurrency(2)
        .waiting(3)
        .connect()
        .await
        .unwrap();
    let web = relay(&broker, "web").await;
    let (gate, busy, most) = (
        Arc::new(Semaphore::new(0)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let handler = {
        let (gate, busy, most) = (Arc::clone(&gate), Arc::clone(&busy), Arc::clone(&most));
        move |_, ()| {
            let (gate, busy, most) = (Arc::clone(&gate), Arc::clone(&busy), Arc::clone(&most));
            async move {
                most.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
                gate.acquire().await?.forget();
                busy.fetch_sub(1, SeqCst);
                Ok(())
            }
        }
    };
    todos.handle("todos.list", handler).await.unwrap();
    gate.add_permits(1);
    ask(&web, "todos.list", &Value::Null).await.unwrap();

    let (done, mut outcomes) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..12 {
        let (web, done) = (web.clone(), done.clone());
        tokio::spawn(async move { done.send(web.request::<()>("todos.list", &()).await) });
    }
    // Two are worked on and three wait; the others hear so while the gate is still closed.
    for _ in 0..7 {
        let outcome = in_time("a refusal", outcomes.recv()).await.unwrap();
        assert!(matches!(outcome, Err(Error::Overloaded { .. })), "{outcome:?}");
    }
    assert_eq!((busy.load(SeqCst), outcomes.len()), (2, 0));
    gate.add_permits(5);
    for _ in 0..5 {
        in_time("an answer", outcomes.recv()).await.unwrap().unwrap();
    }
    assert_eq!(most.load(SeqCst), 2);
}

#[tokio::test]
async fn instances_of_a_service_share_its_messages() {
    let broker = Broker::dev(TODO_POLICY);
    let web = relay(&broker, "web").await;
    let handled = Arc::new(AtomicUsize::new(0));
    let mut instances = Vec::new();
    for number in 0..2 {
        let todos = relay(&broker, "todos").await;
        let handled = Arc::clone(&handled);
        let handler = move |_, ()| {
            handled.fetch_add(1, SeqCst);
            async move { Ok(number) }
        };
        todos.handle("todos.list", handler).await.unwrap();
        instances.push(todos);
    }
    let mut seen = [false; 2];
    let mut asked = 0;
    in_time("both instances", async {
        while seen != [true; 2] {
            let number = ask(&web, "todos.list", &Value::Null).await.unwrap();
            seen[usize::try_from(number.as_u64().unwrap()).unwrap()] = true;
            asked += 1;
        }
    })
    .await;
    assert_eq!(handled.load(SeqCst), asked);
}

// The raw client blocks its thread.
#[tokio::test]
async fn what_cannot_be_sent_is_not() {
    let broker = Broker::dev(TODO_POLICY);
    let web = relay(&broker, "web").await;
    for name in [
        "",
        "todos..list",
        "todos.*",
        "_INBOX.x",
        "todos list",
        "a\r\nPUB b",
    ] {
        let refused = web.send(name, &()).await;
        assert!(
            matches!(refused, Err(Error::Name { .. })),
            "{name:?}: {refused:?}"
        );
    }
    let large = web.request::<Value>("todos.create", &"x".repeat(1 << 20)).await;
    assert!(matches!(large, Err(Error::TooLarge { .. })), "{large:?}");
    let bad = web
        .message("todos.list")
        .header("a", "b\r\nExo-Sender: c")
        .send()
        .await;
    assert!(matches!(bad, Err(Error::Header { .. })), "{bad:?}");
    let pattern = web.handle("todos.>.x", |_, ()| async { Ok(()) }).await;
    assert!(matches!(pattern, Err(Error::Name { .. })), "{pattern:?}");
    let alone = web.request::<Value>("todos.list", &()).await;
    assert!(
        matches!(alone, Err(Error::NoReceiver { .. })),
        "still connected: {alone:?}"
    );
}

#[tokio::test]
async fn a_late_answer_is_reported_and_harms_nobody() {
    let policy = format!("{TODO_POLICY}\n[message.\"todos.list\"]\nreply-within = \"100ms\"\n");
    let broker = Broker::dev(&policy);
    let events = Events::default();
    let todos = events.listen(options(&broker, "todos")).connect().await.unwrap();
    let web = relay(&broker, "web").await;
    let gate = Arc::new(Semaphore::new(0));
    let handler = {
        let gate = Arc::clone(&gate);
        move |_, ()| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await?.forget();
                Ok(())
            }
        }
    };
    todos.handle("todos.list", handler).await.unwrap();
    let expired = ask(&web, "todos.list", &Value::Null).await;
    assert!(matches!(expired, Err(Error::Expired { .. })), "{expired:?}");
    gate.add_permits(1);
    events
        .wait_for("the word", |event| *event == Event::LateReply)
        .await;
    gate.add_permits(1);
    ask(&web, "todos.list", &Value::Null).await.unwrap();
}
