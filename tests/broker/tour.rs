//! The README's tour, taken: each thing that it shows is what a person sees, but for numbers.

use std::fs;
use std::process::Command;

use crate::demo::{Demo, signal};
use crate::documents::{blocks, read};
use crate::support::{EXOCOM, wait_for};

#[test]
fn the_readmes_tour_goes_as_told() {
    let readme = read("README.md");
    let blocks = blocks(&readme);
    let shown = |start: &str| -> String {
        let block = blocks
            .iter()
            .find(|block| block.language == "text" && block.text.starts_with(start));
        shape(
            &block
                .unwrap_or_else(|| panic!("README.md shows nothing that starts with {start:?}"))
                .text,
        )
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("todo");
    let told = |text: &str| shape(&text.replace(dir.to_str().expect("a plain name"), "/tmp/todo"));

    // 1: it runs.
    let demo = Demo::start(&dir, &[]);
    let output = told(&demo.output());
    assert!(
        output.starts_with(&shown("The todo application runs")),
        "{output}"
    );
    for title in ["milk", "bread"] {
        assert_eq!(demo.post(&format!("title={title}")).status, 303);
        assert_eq!(demo.get().status, 200);
    }

    // 2: who said what to whom.
    let status = Command::new(EXOCOM)
        .args(["status", "--admin"])
        .arg(dir.join("admin.sock"))
        .output();
    let status = String::from_utf8(status.expect("the binary was built for the tests").stdout);
    assert_eq!(told(&status.expect("it prints text")), shown("exocom-dev"));

    // 3: a right is taken away, and given back.
    let policy = dir.join("todo.toml");
    let text = fs::read_to_string(&policy).expect("the demo has made it");
    let without = text.replace("\"todos.list\", \"todos.create\"]", "\"todos.list\"]");
    assert_ne!(text, without);
    fs::write(&policy, without).expect("the folder takes a file");
    let denied = shown("ExoCom does not let");
    wait_for("the denial on the page", || {
        seen(&demo.post("title=beer").text).contains(&denied)
    });
    fs::write(&policy, text).expect("the folder takes a file");
    wait_for("the page to work again", || demo.post("title=beer").status == 303);

    // 4: a service is taken away.
    signal(demo.todos_pid(), "TERM");
    let away = shown("Nobody answers");
    wait_for("the page to say so", || seen(&demo.get().text).contains(&away));
}

/// A text without what differs from run to run: numbers, and the widths of columns that follow from them.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for char in text.chars() {
        let (char, repeats) = match char {
            char if char.is_ascii_digit() => ('0', shape.ends_with('0')),
            char if char.is_whitespace() => (' ', shape.ends_with(' ')),
            char => (char, false),
        };
        if !repeats {
            shape.push(char);
        }
    }
    // A number with a fraction, or without; minutes and seconds, or seconds alone; a version of a policy.
    while shape.contains("0.0") {
        shape = shape.replace("0.0", "0");
    }
    shape
        .replace("KiB/s", "B/s")
        .replace("0m0s", "0s")
        .split(' ')
        .map(|word| if is_version(word) { "VERSION" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a word was a policy's version: hexadecimal digits, of which the decimal ones are one 0 now.
fn is_version(word: &str) -> bool {
    let word = word.trim_end_matches([')', ';', ',']);
    word.len() > 1 && word.contains('0') && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a person sees of a page.
fn seen(page: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for char in page.chars() {
        match char {
            '<' => in_tag = true,
            '>' => in_tag = false,
            char if !in_tag => text.push(char),
            _ => {}
        }
    }
    shape(&text)
}
