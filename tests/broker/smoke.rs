//! The shortest way through everything: a command is answered, a denial is told, status counts both.

use bytes::Bytes;
use futures_util::StreamExt;

use crate::support::{Broker, TODO_POLICY};

#[tokio::test]
async fn a_command_is_answered_and_counted() {
    let broker = Broker::dev(TODO_POLICY);
    let todos = broker.client("todos").await;
    let mut commands = todos
        .queue_subscribe("todos.list", "todos".to_owned())
        .await
        .expect("todos may receive todos.list");
    todos.flush().await.expect("the broker answers");
    tokio::spawn(async move {
        while let Some(command) = commands.next().await {
            let sender = command
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Exo-Sender"));
            let answer = format!("for {}", sender.map_or("nobody", |sender| sender.as_str()));
            let reply = command.reply.expect("a request has a reply subject");
            todos
                .publish(reply, answer.into())
                .await
                .expect("the broker takes the answer");
        }
    });
    let web = broker.client("web").await;
    let answer = web
        .request("todos.list", Bytes::new())
        .await
        .expect("web may send todos.list");
    assert_eq!(answer.payload, "for web");
    let denied = web
        .request("todos.purge", Bytes::new())
        .await
        .expect_err("no line allows it");
    assert_eq!(denied.kind(), async_nats::RequestErrorKind::NoResponders);
    let status = broker.status();
    let flow = |message: &str| {
        let flows = status["flows"].as_array().expect("a list");
        flows
            .iter()
            .find(|flow| flow["message"] == message)
            .unwrap_or_else(|| panic!("no flow {message} in {status:#}"))
            .clone()
    };
    assert_eq!(flow("todos.list")["messages"], 1);
    assert_eq!(flow("todos.list")["receiver"], "todos");
    assert_eq!(flow("todos.list")["responses"], 1);
    assert_eq!(flow("todos.purge")["denied"], 1);
}

#[test]
fn a_raw_client_sees_the_bytes() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw("web");
    let info = web.line();
    assert!(info.starts_with("INFO {"), "{info}");
    web.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
    assert_eq!(web.line(), "PONG");
    web.send(b"PUB todos.purge 0\r\n\r\n");
    assert_eq!(
        web.line(),
        "-ERR 'Permissions Violation for Publish to \"todos.purge\"'"
    );
    web.send(b"NONSENSE\r\n");
    assert_eq!(web.rest(), "-ERR 'Unknown Protocol Operation'\r\n");
}
