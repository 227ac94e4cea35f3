//! A receiver that answers late, after it has reconnected: its old token must not answer anybody's new request.

use crate::support::{Broker, Raw, TODO_POLICY};

/// Subscribes to `todos.list` and sees one request of `web`; says the reply subject that it got.
fn token_of_a_request(todos: &mut Raw, web: &mut Raw, inbox: &str) -> String {
    todos.send(b"SUB todos.list 1\r\nPING\r\n");
    assert_eq!(todos.line(), "PONG");
    web.send(format!("SUB {inbox} 1\r\nPUB todos.list {inbox} 0\r\n\r\n").as_bytes());
    let request = todos.message();
    let token = request.split(' ').nth(3).expect("a reply subject");
    assert!(token.starts_with("_R."), "{request}");
    token.to_owned()
}

#[test]
fn a_token_of_the_old_connection_answers_nothing_on_the_new_one() {
    let broker = Broker::dev(TODO_POLICY);
    let (mut todos, mut web) = (broker.raw_ready("todos"), broker.raw_ready("web"));
    let old = token_of_a_request(&mut todos, &mut web, "_INBOX.old");
    drop(todos);
    let lost = web.message();
    assert!(lost.starts_with("HMSG _INBOX.old 1"), "{lost}");
    let mut todos = broker.raw_ready("todos");
    let (mut web, inbox) = (broker.raw_ready("web"), "_INBOX.new");
    let new = token_of_a_request(&mut todos, &mut web, inbox);
    assert_ne!(old, new);
    todos.send(format!("PUB {old} 5\r\nwrong\r\nPUB {new} 5\r\nright\r\n").as_bytes());
    assert_eq!(
        todos.line(),
        format!("-ERR 'Permissions Violation for Publish to \"{old}\"'")
    );
    let answer = web.message();
    assert!(answer.starts_with("HMSG _INBOX.new 1"), "{answer}");
    assert!(answer.contains("right"), "{answer}");
}
