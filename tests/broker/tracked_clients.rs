//! The JetStream publishing calls of the official JavaScript and Python clients against a broker with a store: runs
//! tests/js/tracked.test.mjs and tests/python/test_tracked.py. That of the Rust client is in tracked.rs.

use std::path::Path;
use std::process::Command;

use crate::support::{Broker, has, run_tests_against};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["todos.created", "mails.sent"]

[service.todos]
receives = ["todos.created"]

[service.mail]
receives = ["mails.sent"]

[message.">"]
kind = "event"
delivery = "at-least-once"
"#;

/// Its queues are full at once: nobody receives.
const CONFIG: &str = r#"
version = 1
name = "store-1"
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.all]
address = "127.0.0.1:0"
roots = ["certs/ca.pem"]

[store]
folder = "store"
queue-messages = 3

[limits]
lame-duck-ms = 0
"#;

#[test]
fn the_javascript_client_publishes_to_the_store() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let client = folder.join("node_modules/@nats-io/jetstream");
    if !has(
        "the JavaScript client for JetStream, an npm package of tests/js,",
        client.is_dir(),
    ) {
        return;
    }
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec", "tracked.test.mjs"])
        .current_dir(folder);
    run_tests_against(&Broker::serve(POLICY, CONFIG), &mut node);
}

#[test]
fn the_python_client_publishes_to_the_store() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join(".venv/bin/python");
    if !has("the Python environment .venv", python.is_file()) {
        return;
    }
    let mut pytest = Command::new(python);
    pytest
        .args(["-m", "pytest", "-q", "-rP", "--tb=short", "test_tracked.py"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(project.join("tests/python"));
    run_tests_against(&Broker::serve(POLICY, CONFIG), &mut pytest);
}
