//! The official JavaScript client against a running broker: runs tests/js/clients.test.mjs.

use std::path::Path;
use std::process::Command;

use crate::clients_rust::POLICY;
use crate::support::{Broker, has, run_tests_against};

#[test]
fn the_official_javascript_client() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
    let client = folder.join("node_modules/@nats-io/transport-node");
    if !has(
        "the JavaScript client, an npm package of tests/js,",
        client.is_dir(),
    ) {
        return;
    }
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec", "clients.test.mjs"])
        .current_dir(folder);
    run_tests_against(&Broker::dev(POLICY), &mut node);
}
