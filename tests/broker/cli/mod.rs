//! The command line as people and scripts see it: help, exit codes, what is said when something is wrong.

mod alarms;
mod certs;
mod dev;
mod edit;
mod live_policy;
mod policy;
mod reload;
mod serve;

use std::fs;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use clap::CommandFactory;
use serde_json::{Value, json};

use crate::support::{EXOCOM, TODO_POLICY};

/// What a command has answered.
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("it prints text"),
            err: String::from_utf8(output.stderr).expect("it prints text"),
        }
    }
}

/// The todo application's policy, edited.
fn edited(from: &str, to: &str) -> String {
    assert!(TODO_POLICY.contains(from), "{from}");
    TODO_POLICY.replace(from, to)
}

/// Runs `exocom` in a folder.
fn exocom(folder: &Path, arguments: &[&str]) -> Answer {
    let output = Command::new(EXOCOM)
        .args(arguments)
        .current_dir(folder)
        .env_remove("COLUMNS")
        .env_remove("EXOCOM_LOG")
        .output()
        .expect("the binary was built for the tests");
    Answer::of(output)
}

/// A command that must do well. Returns its standard output.
#[track_caller]
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let answer = exocom(folder, arguments);
    assert_eq!(answer.code, Some(0), "{arguments:?}: {}", answer.err);
    answer.out
}

/// A command that must fail with this code, and say so in one line that has these words.
#[track_caller]
fn fails(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let answer = exocom(folder, arguments);
    assert_eq!(answer.code, Some(code), "{arguments:?}: {}", answer.err);
    assert_eq!(answer.out, "", "{arguments:?}");
    assert_eq!(answer.err.lines().count(), 1, "{arguments:?}: {}", answer.err);
    for word in words {
        assert!(
            answer.err.contains(word),
            "{arguments:?}: no {word:?} in: {}",
            answer.err
        );
    }
}

/// A folder with the todo application's policy.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), "policy.toml", TODO_POLICY);
    folder
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("the folder takes a file");
}

#[test]
fn help_teaches_every_command() {
    fn visit(command: &clap::Command, path: &[&str]) {
        let arguments = [path, &["--help"]].concat();
        let answer = exocom(Path::new("."), &arguments);
        assert_eq!((answer.code, &*answer.err), (Some(0), ""));
        insta::assert_snapshot!([&["help"], path].concat().join("-"), answer.out);
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            visit(sub, &[path, &[sub.get_name()]].concat());
        }
    }
    visit(&exocom::cli::Cli::command(), &[]);
}

#[test]
fn exit_codes_tell_refused_from_misused() {
    let folder = folder();
    write(
        folder.path(),
        "bad.toml",
        "version = 1\ntrust-domain = \"todo.example\"\n[service.web]\nsend = []\n",
    );
    let check = |arguments: &[&str], code: i32| {
        assert_eq!(exocom(folder.path(), arguments).code, Some(code), "{arguments:?}");
    };
    check(&["--version"], 0);
    check(&["help"], 0);
    check(&["help", "serve"], 0);
    check(&[], 2);
    check(&["servee"], 2);
    check(&["--log-format", "yaml", "status"], 2);
    check(&["policy"], 2);
    check(&["policy", "check"], 2);
    check(&["policy", "check", "missing.toml"], 2);
    check(&["policy", "check", "bad.toml"], 1);
    check(&["policy", "check", "policy.toml"], 0);
    check(&["policy", "check", "policy.toml", "bad.toml"], 1);
    check(&["certs", "issue"], 2);
    check(&["certs", "issue", "--service", "web", "--operator", "alice"], 2);
    check(&["certs", "issue", "--service", "web", "--days", "399"], 2);
    check(&["certs", "issue", "--service", "web", "--name", "localhost"], 2);
    check(&["certs", "list"], 1);
    check(&["serve"], 1);
    check(&["serve", "--conf", "x"], 2);
    check(&["dev"], 2);
    check(&["dev", "--policy", "bad.toml"], 1);
    check(&["status"], 1);
}

#[test]
fn a_policys_mistake_is_shown_with_its_place_and_remedy() {
    let folder = folder();
    write(
        folder.path(),
        "bad.toml",
        "version = 1\ntrust-domain = \"todo.example\"\n\n[service.web]\nsend = []\n",
    );
    let answer = exocom(folder.path(), &["policy", "check", "bad.toml"]);
    assert_eq!(answer.out, "");
    let expected = r#"error: "send" is not a key of a service
 --> bad.toml:5:1
  |
5 | send = []
  | ^^^^
  |
  = help: did you mean "sends"? allowed: zone, sends, receives, receives-except, limits, alarms, on-alarm

bad.toml: refused, 1 finding
"#;
    assert_eq!(answer.err, expected);
    let answer = exocom(folder.path(), &["policy", "check", "--json", "bad.toml"]);
    assert_eq!((answer.code, &*answer.err), (Some(1), ""));
    let answer: Value = serde_json::from_str(&answer.out).expect("it is JSON");
    let expected = json!({
        "ok": false,
        "diagnostics": [{
            "severity": "error",
            "file": "bad.toml",
            "line": 5,
            "column": 1,
            "message": "\"send\" is not a key of a service",
            "help": "did you mean \"sends\"? allowed: zone, sends, receives, receives-except, limits, alarms, on-alarm",
            "related": null,
        }],
    });
    assert_eq!(answer, expected);
}

#[test]
fn warnings_refuse_a_policy_only_where_asked() {
    let folder = folder();
    let idle = "[service.idle]\n";
    write(folder.path(), "policy.toml", &format!("{TODO_POLICY}{idle}"));
    let answer = exocom(folder.path(), &["policy", "check", "policy.toml"]);
    assert_eq!(answer.code, Some(0));
    assert!(
        answer
            .err
            .starts_with("warning: service \"idle\" neither sends nor receives"),
        "{}",
        answer.err
    );
    assert!(
        answer.out.starts_with("policy.toml: ok, 3 services"),
        "{}",
        answer.out
    );
    let answer = exocom(
        folder.path(),
        &["policy", "check", "--deny-warnings", "policy.toml"],
    );
    assert_eq!((answer.code, &*answer.out), (Some(1), ""));
    assert!(
        answer.err.ends_with("policy.toml: refused, 1 finding\n"),
        "{}",
        answer.err
    );
    let answer = exocom(folder.path(), &["policy", "check", "--json", "policy.toml"]);
    let answer: Value = serde_json::from_str(&answer.out).expect("it is JSON");
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["services"], 3);
    assert_eq!(answer["diagnostics"][0]["severity"], "warning");
}

#[test]
fn status_says_how_to_find_a_broker() {
    let folder = folder();
    fails(
        folder.path(),
        &["status"],
        1,
        &["there is no exocom.toml", "--admin", "--config"],
    );
    fails(
        folder.path(),
        &["status", "--admin", "admin.sock"],
        1,
        &["admin.sock", "no broker answers there", "is it running?"],
    );
}

#[test]
fn colours_are_for_terminals() {
    let folder = folder();
    write(folder.path(), "bad.toml", "version = 2\n");
    let check = "policy check bad.toml";
    let plain = exocom(folder.path(), &["policy", "check", "bad.toml"]);
    assert!(
        plain.err.contains("error") && !plain.err.contains('\x1b'),
        "{}",
        plain.err
    );
    // `script` runs a command on a terminal of its own.
    let on_terminal = |no_colour: Option<&str>| {
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--command", &format!("{EXOCOM} {check}"), "/dev/null"])
            .current_dir(folder.path())
            .env_remove("NO_COLOR");
        if let Some(value) = no_colour {
            script.env("NO_COLOR", value);
        }
        let output = script.output().expect("util-linux is everywhere");
        String::from_utf8(output.stdout).expect("it prints text")
    };
    let coloured = on_terminal(None);
    assert!(
        coloured.contains('\x1b') && coloured.contains("bad.toml"),
        "{coloured}"
    );
    let plain = on_terminal(Some("1"));
    assert!(!plain.contains('\x1b') && plain.contains("bad.toml"), "{plain}");
}
