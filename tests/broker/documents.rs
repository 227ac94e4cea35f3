//! The documents' examples, run: what a page says a command prints is what it prints.
//!
//! In a block of `console`, lines after `$ exocom …` are its output, in which `…` stands for anything. A block of
//! `toml FILE` is a file for the commands that follow. A block of `toml` in docs/policy.md is a policy; a block of `text` right after it is what `exocom policy check` says of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use exocom::config::{Config, LimitsConfig};
use exocom::limits::{QUEUE_MESSAGES_MAX, STORE_BYTES_MAX, STORE_MESSAGES_MAX};

use crate::support::{Broker, EXOCOM, TODO_POLICY, wait_for};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(file: impl AsRef<Path>) -> String {
    let file = project().join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// A fenced block of a document.
pub struct Block {
    pub language: String,
    pub text: String,
    line: usize,
}

pub fn blocks(document: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_open = false;
    for (index, line) in document.lines().enumerate() {
        match line.strip_prefix("```") {
            Some(language) if !is_open => {
                blocks.push(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    line: index + 1,
                });
                is_open = true;
            }
            Some(_) => is_open = false,
            None if is_open => {
                let block = blocks.last_mut().expect("one was opened");
                block.text += line;
                block.text.push('\n');
            }
            None => {}
        }
    }
    blocks
}

/// Whether a text is as shown, where `…` stands for anything.
fn is_as_shown(shown: &str, text: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else {
        return shown == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    text.char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .any(|at| is_as_shown(rest, &text[at..]))
}

#[test]
fn shown_texts_are_compared() {
    let check =
        |shown: &str, text: &str, expected: bool| assert_eq!(is_as_shown(shown, text), expected, "{shown}");
    check("a", "a", true);
    check("a", "b", false);
    check("a…c", "abc", true);
    check("a…c", "ac", true);
    check("a…c", "abd", false);
    check("…", "", true);
    check("a…b…c", "a1b2c", true);
    check("a…b…c", "a1c2b", false);
}

/// A folder like the project's root, for examples that name files.
fn playground() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).expect("the folder takes a folder");
    for entry in fs::read_dir(project().join("policies")).expect("it is there") {
        let file = entry.expect("it can be read").path();
        fs::copy(&file, policies.join(file.file_name().expect("a file"))).expect("the folder takes a file");
    }
    folder
}

/// What `exocom …` prints: standard output, then standard error.
fn run(folder: &Path, command: &str) -> String {
    let arguments = command
        .strip_prefix("exocom ")
        .expect("the documents run exocom alone");
    let output = Command::new(EXOCOM)
        .args(arguments.split(' '))
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .output()
        .expect("the binary was built for the tests");
    [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8(bytes).expect("it prints text"))
        .concat()
}

#[test]
fn commands_print_what_the_documents_show() {
    let mut documents = vec![PathBuf::from("README.md"), PathBuf::from("certs/README.md")];
    for entry in fs::read_dir(project().join("docs")).expect("it is there") {
        let file = entry.expect("it can be read").path();
        documents.push(
            file.strip_prefix(project())
                .expect("it is in the project")
                .to_owned(),
        );
    }
    let mut commands = 0;
    for document in documents
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "md"))
    {
        let folder = playground();
        for block in &blocks(&read(document)) {
            if let Some(file) = block.language.strip_prefix("toml ") {
                fs::write(folder.path().join(file), &block.text).expect("the folder takes a file");
            }
            if block.language != "console" {
                continue;
            }
            let mut parts = block.text.split("$ ");
            assert_eq!(
                parts.next(),
                Some(""),
                "{}:{}: begin with `$ `",
                document.display(),
                block.line
            );
            for part in parts {
                let (command, shown) = part.split_once('\n').expect("lines end");
                let printed = run(folder.path(), command);
                assert!(
                    is_as_shown(shown.trim_end(), printed.trim_end()),
                    "{}:{}: `{command}` prints\n{printed}",
                    document.display(),
                    block.line
                );
                commands += 1;
            }
        }
    }
    assert!(commands > 0, "no document shows a command");
}

#[test]
fn policies_of_the_document_are_as_it_says() {
    let document = read("docs/policy.md");
    let blocks = blocks(&document);
    let mut findings = 0;
    for (at, block) in blocks
        .iter()
        .enumerate()
        .filter(|(_, block)| block.language == "toml")
    {
        let folder = playground();
        fs::write(folder.path().join("policies/shop.toml"), &block.text).expect("the folder takes a file");
        fs::remove_file(folder.path().join("policies/shop.expect")).expect("nothing is expected of it");
        let printed = run(folder.path(), "exocom policy check policies/shop.toml");
        let shown = blocks
            .get(at + 1)
            .filter(|next| next.language == "text" && next.line <= block.end() + 2);
        match shown {
            None => assert!(
                printed.starts_with("policies/shop.toml: ok"),
                "{}: {printed}",
                block.line
            ),
            // Other findings of the same example are not shown.
            Some(shown) => {
                findings += 1;
                for paragraph in shown.text.trim_end().split("\n\n") {
                    assert!(
                        printed.contains(paragraph),
                        "{}: not printed:\n{paragraph}\nin\n{printed}",
                        shown.line
                    );
                }
            }
        }
    }
    assert!(findings >= 2, "the document shows no findings");
}

impl Block {
    /// The line of its closing fence.
    fn end(&self) -> usize {
        self.line + self.text.lines().count() + 1
    }
}

#[test]
fn a_denial_is_as_the_document_shows() {
    let document = read("docs/policy.md");
    let shown = blocks(&document);
    let shown = shown
        .iter()
        .find(|block| block.text.starts_with("Exo-Reason: "))
        .expect("it is shown");
    let policy = project().join("policies/todo.toml");
    let config = format!(
        "version = 1\npolicy = {:?}\nadmin-socket = \"admin.sock\"\n\
         [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n\
         [store]\nfolder = \"store\"\n",
        policy.display().to_string()
    );
    let broker = Broker::serve(TODO_POLICY, &config);
    let mut web = broker.raw_ready("web");
    web.send(b"SUB _INBOX.1 1\r\nPUB todos.purge _INBOX.1 0\r\n\r\n");
    assert_eq!(
        web.line(),
        "-ERR 'Permissions Violation for Publish to \"todos.purge\"'"
    );
    let refusal = web.message().replace("\r\n", "\n");
    assert!(refusal.contains(&shown.text), "{refusal}");
    // The line that the document names for a `receives-except`.
    let mut todos = broker.raw_ready("todos");
    todos.send(b"SUB todos.created 1\r\n");
    assert_eq!(
        todos.line(),
        "-ERR 'Permissions Violation for Subscription to \"todos.created\"'"
    );
    wait_for("the denial in the log", || {
        broker.log().contains("policies/todo.toml:16")
    });
    assert!(document.contains("`Exo-Rule: policies/todo.toml:16`"));
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let document = read("docs/configuration.md");
    let blocks = blocks(&document);
    let example = &blocks
        .iter()
        .find(|block| block.language == "toml")
        .expect("an example")
        .text;
    Config::parse(Path::new("exocom.toml"), example).unwrap_or_else(|error| panic!("{error}"));

    let source: String = [
        "src/config.rs",
        "src/config/audit.rs",
        "src/config/metrics.rs",
        "src/config/outside.rs",
        "src/config/store.rs",
    ]
    .map(read)
    .concat();
    let mut known = BTreeSet::new();
    for name in [
        "struct RawConfig",
        "struct RawTls",
        "struct RawAdmin",
        "struct RawListener",
        "struct RawStore",
        "struct RawAudit",
        "struct RawAlarms",
        "struct RawMetrics",
        "struct RawHttps",
        "pub struct LimitsConfig",
        "    Bound",
    ] {
        let start = source
            .find(&format!("{name} {{"))
            .unwrap_or_else(|| panic!("no {name}"));
        let body = source[start..].split_once('}').expect("it ends").0;
        for line in body
            .lines()
            .skip(1)
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with(['/', '#']))
        {
            let field = line
                .trim_start_matches("pub ")
                .trim_start_matches("pub(super) ")
                .split_once(':')
                .expect("a field")
                .0;
            known.insert(field.replace('_', "-"));
        }
    }
    assert!(known.len() >= 20, "{known:?}");

    let mut shown = BTreeSet::new();
    let example: toml::Table = example.parse().expect("it was parsed above");
    for (key, value) in &example {
        shown.insert(key.clone());
        let Some(section) = value.as_table() else { continue };
        for (key, value) in section {
            // Below [listener.NAME] and in an entry of `roots`.
            let entries = value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(toml::Value::as_table);
            let tables = value.as_table().into_iter().chain(entries);
            if !value.is_table() {
                shown.insert(key.clone());
            }
            for (key, value) in tables.flatten() {
                shown.insert(key.clone());
                for entry in value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(toml::Value::as_table)
                {
                    shown.extend(entry.keys().cloned());
                }
            }
        }
    }
    assert_eq!(
        shown, known,
        "the example of docs/configuration.md shows every key, and no other"
    );
    for key in &known {
        let is_told = document.contains(&format!("| `{key}` |"))
            || document.contains(&format!("## `[{key}"))
            || ["trust-domain", "file"].contains(&&**key);
        assert!(is_told, "docs/configuration.md does not tell of `{key}`");
    }
    let defaults = serde_json::to_value(LimitsConfig::default()).expect("plain numbers");
    for (key, value) in [
        ("bytes", STORE_BYTES_MAX),
        ("messages", STORE_MESSAGES_MAX),
        ("queue-messages", QUEUE_MESSAGES_MAX),
    ] {
        let row = format!("| `{key}` |");
        let row = document.lines().find(|line| line.starts_with(&row));
        let row = row.expect("it was found above");
        assert!(
            row.ends_with(&format!(" {value} |")),
            "the default is {value}: {row}"
        );
    }
    for (key, value) in defaults
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(_, value)| !value.is_null())
    {
        let row = document
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.expect("it was found above");
        assert!(
            row.ends_with(&format!(" {value} |")),
            "the default is {value}: {row}"
        );
    }
}
