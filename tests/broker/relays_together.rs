//! The ExoRelays for Rust and for JavaScript in one application: each understands the other's payloads, failures and
//! events.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use exorelay::{Error, ExoRelay, Failure, Message, Options};
use serde_json::{Value, json};

use crate::relay_js::{TODO_PACKAGES, has_packages, node_tests};
use crate::support::{Broker, PATIENCE, TODO_POLICY, run_tests_against};

#[tokio::test(flavor = "multi_thread")]
async fn javascript_asks_and_rust_answers() {
    if !has_packages(&TODO_PACKAGES) {
        return;
    }
    let broker = Broker::dev(TODO_POLICY);
    let todos = relay(&broker, "todos").await;
    todos
        .handle("todos.list", |_: Message, ()| async {
            Ok(json!([{"id": 1, "title": "größer"}]))
        })
        .await
        .unwrap();
    todos.handle("todos.create", create).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let mut tests = node_tests();
    tests.arg("relay_asks.test.mjs").current_dir(folder);
    tokio::task::block_in_place(|| run_tests_against(&broker, &mut tests));
}

#[derive(serde::Deserialize)]
struct New {
    title: String,
}

async fn create(message: Message, new: New) -> Result<(), Failure> {
    match new.title.as_str() {
        "" => Err(Failure::new(422, "a todo needs a title")),
        "break" => Err(std::io::Error::other("the table is locked"))?,
        title => Ok(message
            .send("todos.created", &json!({"id": 2, "title": title}))
            .await?),
    }
}

#[tokio::test]
async fn rust_asks_and_javascript_answers() {
    if !has_packages(&TODO_PACKAGES) {
        return;
    }
    let broker = Broker::dev(TODO_POLICY);
    let _todos = Program::start(&broker, "todos", "examples/todo/todos-js");
    let web = relay(&broker, "web").await;
    let (heard, mut events) = tokio::sync::mpsc::unbounded_channel();
    web.handle("todos.created", move |message: Message, todo: Value| {
        let heard = heard.clone();
        async move {
            let sender = message.sender().to_owned();
            heard.send((sender, todo)).map_err(Failure::from)
        }
    })
    .await
    .unwrap();

    let mut attempts = 0;
    let listed = loop {
        match web.request::<Value>("todos.list", &()).await {
            Err(Error::NoReceiver { .. }) if attempts < 1_000 => attempts += 1,
            listed => break listed.unwrap(),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(listed, json!([]));
    let todo = json!({"id": 1, "title": "größer"});
    let created: Value = web
        .request("todos.create", &json!({"title": " größer "}))
        .await
        .unwrap();
    assert_eq!(created, todo);
    let event = tokio::time::timeout(PATIENCE, events.recv()).await;
    assert_eq!(event.expect("an event"), Some(("todos".to_owned(), todo)));
    let refused = web.request::<Value>("todos.create", &json!({"title": ""})).await;
    match refused.expect_err("a todo needs a title") {
        Error::Failed { code, message, .. } => {
            assert_eq!((code, message.as_str()), (422, "a todo needs a title"));
        }
        other => panic!("{other:?}"),
    }
}

async fn relay(broker: &Broker, service: &str) -> ExoRelay {
    let (certificate, key) = (format!("{service}.pem"), format!("{service}.key"));
    let options = Options::new(
        broker.cert("ca.pem"),
        broker.cert(&certificate),
        broker.cert(&key),
    );
    let relay = options
        .broker("127.0.0.1", broker.address().port())
        .online_within(PATIENCE)
        .connect()
        .await;
    relay.unwrap_or_else(|error| panic!("{service}: {error}; log:\n{}", broker.log()))
}

/// A service in JavaScript, which ends with the test.
struct Program(Child);

impl Program {
    fn start(broker: &Broker, service: &str, folder: &str) -> Self {
        let child = Command::new("node")
            .arg("server.js")
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
            .env("SERVICE_NAME", service)
            .env("EXOCOM_HOST", "127.0.0.1")
            .env("EXOCOM_PORT", broker.address().port().to_string())
            .env("EXOCOM_CA", broker.cert("ca.pem"))
            .env("EXOCOM_CERT", broker.cert(&format!("{service}.pem")))
            .env("EXOCOM_KEY", broker.cert(&format!("{service}.key")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("node is there, since its packages are"))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
