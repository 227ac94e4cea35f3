//! The official Python client against a running broker: runs tests/python/test_clients.py.

use std::path::Path;
use std::process::Command;

use crate::clients_rust::POLICY;
use crate::support::{Broker, has, run_tests_against};

#[test]
fn the_official_python_client() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = project.join(".venv/bin/python");
    if !has("the Python environment .venv", python.is_file()) {
        return;
    }
    let mut pytest = Command::new(python);
    pytest
        .args(["-m", "pytest", "-q", "-rP", "--tb=short", "test_clients.py"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(project.join("tests/python"));
    run_tests_against(&Broker::dev(POLICY), &mut pytest);
}
