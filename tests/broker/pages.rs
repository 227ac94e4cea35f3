//! The todo pages in headless Chromium: runs tests/js/pages.test.mjs.

use std::env;
use std::path::Path;

use crate::relay_js::{TODO_PACKAGES, has_packages, node_tests};
use crate::support::{has, run_tests};

#[test]
fn a_todo_is_added_and_shown_in_a_browser() {
    let driver = "tests/js/node_modules/playwright-core";
    if has_packages(&TODO_PACKAGES) && has_packages(&[driver]) && has("Chromium", has_chromium()) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        run_tests(node_tests().arg("pages.test.mjs").current_dir(folder));
    }
}

/// Whether the browser is there, under one of the names that scripts/setup knows.
fn has_chromium() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| {
        ["chromium", "chromium-browser", "google-chrome"]
            .iter()
            .any(|name| folder.join(name).is_file())
    })
}
