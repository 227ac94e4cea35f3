//! The ExoRelay for JavaScript and the todo application on it, without a browser: runs the tests of relays/js, and
//! tests/js/tutorial.test.mjs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{has, run_tests};

/// What the relay needs to run.
const RELAY_PACKAGES: [&str; 1] = ["relays/js/node_modules/@nats-io/transport-node"];

/// What the todo application in JavaScript needs besides.
pub const TODO_PACKAGES: [&str; 4] = [
    RELAY_PACKAGES[0],
    "examples/todo/todos-js/node_modules/exorelay",
    "examples/todo/web-js/node_modules/exorelay",
    "examples/todo/web-js/node_modules/jade",
];

#[test]
fn the_relay_for_javascript() {
    let compiler = "relays/js/node_modules/typescript";
    if !has_packages(&RELAY_PACKAGES) || !has_packages(&[compiler]) {
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("relays/js");
    let files = fs::read_dir(folder.join("test")).expect("the relay has tests");
    let names = files.map(|file| file.expect("a folder can be read").file_name());
    let tests: Vec<OsString> = names
        .filter(|name| name.to_string_lossy().ends_with(".test.js"))
        .map(|name| Path::new("test").join(name).into_os_string())
        .collect();
    assert!(!tests.is_empty(), "the relay has tests");
    run_tests(node_tests().args(tests).current_dir(folder));
}

#[test]
fn the_tutorials_program_and_the_todo_application_in_javascript() {
    if has_packages(&TODO_PACKAGES) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        run_tests(node_tests().arg("tutorial.test.mjs").current_dir(folder));
    }
}

/// Whether these npm packages are there, and with them Node itself.
pub fn has_packages(packages: &[&str]) -> bool {
    packages.iter().all(|package| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
        has(&format!("the npm package {package}"), folder.is_dir())
    })
}

/// Node's own test runner.
pub fn node_tests() -> Command {
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=spec"]);
    node
}
