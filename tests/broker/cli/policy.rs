//! The commands for policies, as people and scripts see them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{self, Child, Stdio};

use serde_json::Value;

use super::{Answer, edited, exocom, folder, write};
use crate::support::{Broker, EXOCOM, Raw, TODO_POLICY, wait_for};

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.err, "");
    serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
}

#[test]
fn a_difference_is_shown_and_a_gain_can_be_an_error() {
    let folder = folder();
    write(
        folder.path(),
        "more.toml",
        &edited("\"todos.list\",", "\"todos.list\", \"todos.purge\","),
    );
    let diff = |arguments: &[&str]| exocom(folder.path(), &[&["policy", "diff"], arguments].concat());

    let answer = diff(&["policy.toml", "policy.toml", "--no-new-access"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(answer.out.starts_with("no difference"), "{}", answer.out);

    let answer = diff(&["policy.toml", "more.toml"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(
        answer
            .out
            .contains("service web\n  + sends todos.purge  (more.toml:"),
        "{}",
        answer.out
    );

    let answer = diff(&["policy.toml", "more.toml", "--no-new-access"]);
    assert_eq!(answer.code, Some(1));
    assert_eq!(
        answer.err,
        "refused: more.toml gives more access than policy.toml\n"
    );

    // The other way round it is a loss.
    let answer = diff(&["more.toml", "policy.toml", "--no-new-access", "--json"]);
    assert_eq!(answer.code, Some(0));
    let answer = json(&answer);
    assert_eq!(
        (&answer["equal"], &answer["gains"], &answer["losses"]),
        (&false.into(), &0.into(), &1.into())
    );
    assert_eq!(answer["changes"][0]["example"], "todos.purge");
    assert_eq!(answer["changes"][0]["effect"], "loss");
}

#[test]
fn what_cannot_be_compared_is_no_answer() {
    let folder = folder();
    write(folder.path(), "bad.toml", "version = 1\n");
    let answer = exocom(folder.path(), &["policy", "diff", "policy.toml", "bad.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(
        answer.err.contains("the policy does not say its trust domain"),
        "{}",
        answer.err
    );
    let answer = exocom(
        folder.path(),
        &["policy", "diff", "policy.toml", "missing.toml", "--json"],
    );
    assert_eq!(answer.code, Some(2));
    assert!(
        json(&answer)["error"]
            .as_str()
            .is_some_and(|error| error.starts_with("missing.toml: "))
    );
    let answer = exocom(folder.path(), &["policy", "diff", "policy.toml"]);
    assert_eq!(answer.code, Some(2));
}

#[test]
fn a_decision_is_explained_by_its_exit_code_too() {
    let folder = folder();
    let explain = |arguments: &[&str]| exocom(folder.path(), &[&["policy", "explain"], arguments].concat());

    let answer = explain(&["--from", "web", "--send", "todos.list", "--on", "policy.toml"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(
        answer
            .out
            .starts_with("yes: web may send todos.list (policy.toml:"),
        "{}",
        answer.out
    );

    let answer = explain(&[
        "--from",
        "web",
        "--send",
        "todos.purge",
        "--on",
        "policy.toml",
        "--json",
    ]);
    assert_eq!(answer.code, Some(1));
    let answer = json(&answer);
    assert_eq!(answer["allowed"], false);
    assert_eq!(answer["reason"], "no line of the policy grants it");
    assert_eq!(answer["edits"][0]["verb"], "add");

    // The policy of a configuration.
    write(
        folder.path(),
        "exocom.toml",
        "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
         [tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"ca.pem\"]\n",
    );
    assert_eq!(
        explain(&["--from", "todos", "--receive", "todos.create"]).code,
        Some(0)
    );
    assert_eq!(
        explain(&["--from", "todos", "--receive", "todos.*"]).code,
        Some(1)
    );

    // No answer is neither yes nor no.
    assert_eq!(explain(&["--from", "web", "--on", "policy.toml"]).code, Some(2));
    assert_eq!(
        explain(&["--from", "web", "--send", "todos..list", "--on", "policy.toml"]).code,
        Some(2)
    );
    assert_eq!(
        explain(&["--from", "web", "--send", "todos.list", "--on", "missing.toml"]).code,
        Some(2)
    );
    assert_eq!(
        explain(&[
            "--from",
            "web",
            "--send",
            "todos.list",
            "--config",
            "missing.toml"
        ])
        .code,
        Some(2)
    );
    write(folder.path(), "bad.toml", "version = 1");
    assert_eq!(
        explain(&["--from", "web", "--send", "todos.list", "--on", "bad.toml"]).code,
        Some(2)
    );
}

#[test]
fn expectations_beside_a_policy_are_tested_by_check_too() {
    let folder = folder();
    let run = |arguments: &[&str]| exocom(folder.path(), arguments);

    let answer = run(&["policy", "test", "policy.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(answer.err.contains("nothing is expected"), "{}", answer.err);

    write(
        folder.path(),
        "policy.expect",
        "allow web send todos.list\ndeny web send todos.purge\n",
    );
    let answer = run(&["policy", "test", "policy.toml"]);
    assert_eq!(
        (answer.code, &*answer.out),
        (Some(0), "policy.toml: 2 expectations met\n")
    );
    let answer = run(&["policy", "check", "policy.toml"]);
    assert_eq!(answer.code, Some(0));
    assert!(answer.out.ends_with(", 2 expectations met\n"), "{}", answer.out);

    write(folder.path(), "policy.expect", "allow web send todos.purge\n");
    let failed = "failed: policy.expect:1: allow web send todos.purge: no line of the policy grants it\n";
    let answer = run(&["policy", "test", "policy.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(1), ""));
    assert!(answer.err.starts_with(failed), "{}", answer.err);
    let answer = run(&["policy", "check", "policy.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(1), ""));
    assert_eq!(answer.err, format!("{failed}policy.toml: refused, 1 finding\n"));
    let answer = run(&["policy", "check", "--json", "policy.toml"]);
    assert_eq!(answer.code, Some(1));
    assert_eq!(
        json(&answer)["expectations"]["failures"][0]["place"],
        "policy.expect:1"
    );

    // In a folder, those of the folder; else those that are named.
    fs::create_dir(folder.path().join("policies")).expect("the folder takes a folder");
    write(folder.path(), "policies/a.toml", TODO_POLICY);
    write(
        folder.path(),
        "policies/rules.expect",
        "deny web send todos.purge\n",
    );
    assert_eq!(run(&["policy", "test", "policies"]).code, Some(0));
    assert_eq!(
        run(&["policy", "test", "policies", "--expect", "policy.expect"]).code,
        Some(1)
    );
    assert_eq!(
        run(&["policy", "test", "policies", "--expect", "missing.expect"]).code,
        Some(2)
    );
}

#[test]
fn a_policy_is_laid_out_in_place_and_checked_without() {
    let folder = folder();
    let ugly = "version=1\ntrust-domain='x'\n[service.web]   # the web\nzone='dmz'\nsends=['a']\n";
    let laid_out =
        "version = 1\ntrust-domain = \"x\"\n\n[service.web]   # the web\nzone  = \"dmz\"\nsends = [\"a\"]\n";
    write(folder.path(), "ugly.toml", ugly);
    let file = folder.path().join("ugly.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let fmt = |arguments: &[&str]| exocom(folder.path(), &[&["policy", "fmt"], arguments].concat());
    let read = || fs::read_to_string(&file).expect("it is there");

    let answer = fmt(&["--check", "ugly.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(1), "would change ugly.toml\n"));
    assert_eq!(read(), ugly);

    // Where one file is no TOML, none is touched.
    write(folder.path(), "broken.toml", "[service\n");
    let answer = fmt(&["ugly.toml", "broken.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(2), ""));
    assert!(
        answer.err.starts_with("error: broken.toml: not TOML"),
        "{}",
        answer.err
    );
    assert_eq!(read(), ugly);

    let answer = fmt(&["ugly.toml"]);
    assert_eq!((answer.code, &*answer.out), (Some(0), "changed ugly.toml\n"));
    assert_eq!(read(), laid_out);
    assert_eq!(
        fs::metadata(&file).expect("it is there").permissions().mode() & 0o777,
        0o640
    );

    let answer = fmt(&["--check", "--json", "ugly.toml"]);
    assert_eq!(answer.code, Some(0));
    assert_eq!(json(&answer)["unchanged"][0], "ugly.toml");
}

#[test]
fn the_schema_is_printed() {
    let answer = exocom(Path::new("."), &["policy", "schema"]);
    assert_eq!(answer.code, Some(0));
    assert_eq!(json(&answer)["title"], "ExoCom policy");
}

#[test]
fn grants_are_suggested_from_what_a_running_broker_has_denied() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    web.send(b"PUB todos.purge 0\r\n\r\nPUB todos.purge 0\r\n\r\nSUB secrets.> 1\r\nPUB todos.list 0\r\n\r\nPING\r\n");
    while web.line() != "PONG" {}
    let dir = broker.dir().to_str().expect("it is text");

    let answer = exocom(
        broker.dir(),
        &["policy", "suggest", "--admin", dir, "--on", "policy.toml"],
    );
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    let expected = "service web\n  + add \"todos.purge\" to sends of [service.web] (policy.toml:9)\n      \
                    send todos.purge was denied 2 times\n";
    assert!(answer.out.starts_with(expected), "{}", answer.out);
    assert!(!answer.out.contains("todos.list"), "{}", answer.out);

    // Without --on it is the policy that the broker follows.
    let answer = json(&exocom(
        broker.dir(),
        &["policy", "suggest", "--admin", dir, "--json"],
    ));
    let suggestion = &answer["suggestions"][0];
    assert_eq!(suggestion["edits"][0]["pattern"], "todos.purge");
    assert_eq!(suggestion["evidence"][0]["count"], 2);
    assert_eq!(
        fs::read_to_string(broker.path("policy.toml")).expect("it is there"),
        TODO_POLICY
    );
}

#[test]
fn grants_are_suggested_from_the_audit_log() {
    let mut broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    web.send(&b"PUB todos.purge 0\r\n\r\n".repeat(500));
    web.send(b"SUB secrets.> 1\r\nSUB > 2\r\nPUB $JS.API.INFO 0\r\n\r\nPING\r\n");
    while web.line() != "PONG" {}
    assert!(broker.stop());
    // A grant that the policy now has is not suggested again.
    let suggest = |arguments: &[&str]| {
        let arguments = [&["policy", "suggest", "--on", "policy.toml"], arguments].concat();
        exocom(broker.dir(), &arguments)
    };
    let answer = suggest(&["--audit", "audit", "--since", "1h"]);
    assert_eq!((answer.code, &*answer.err), (Some(0), ""));
    assert!(
        answer.out.starts_with(
            "service web\n  + add \"todos.purge\" to sends of [service.web] (policy.toml:9)\n      \
             send todos.purge was denied 500 times\n\
             service web\n  + add \"secrets.>\" to receives of [service.web] (policy.toml:10)\n"
        ),
        "{}",
        answer.out
    );
    assert!(
        answer
            .out
            .contains("2 denials more, whose names are no message names"),
        "{}",
        answer.out
    );
    let answer = json(&suggest(&[
        "--audit",
        "audit",
        "--since",
        "2126-01-01T00:00:00Z",
        "--json",
    ]));
    assert_eq!(answer["suggestions"], serde_json::json!([]), "nothing since then");
    // Without a folder it is that of the configuration.
    write(
        broker.dir(),
        "exocom.toml",
        "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n[audit]\nfolder = \"audit\"\n\
         [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:0\"\nroots = [\"certs/ca.pem\"]\n",
    );
    for arguments in [&["--audit", "--json"][..], &["--since", "7d", "--json"]] {
        let answer = json(&suggest(arguments));
        assert_eq!(
            answer["suggestions"][0]["evidence"][0]["count"], 500,
            "{arguments:?}"
        );
    }
    let answer = suggest(&["--audit", "nowhere"]);
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("nowhere"), "{}", answer.err);
    assert_eq!(suggest(&["--log", "x.log", "--since", "1h"]).code, Some(2));
}

#[test]
fn grants_are_suggested_from_a_log() {
    let folder = folder();
    let line = |action: &str, subject: &str| {
        format!(
            "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"denied\",\"connection\":1,\"sender\":\"web\",\
             \"action\":\"{action}\",\"subject\":\"{subject}\",\"rule\":\"no grant\"}}}}\n"
        )
    };
    let log = [
        line("publish", "todos.purge"),
        "no JSON\n{\"fields\":{\"message\":\"ready\"}}\n".to_owned(),
        line("subscribe", "audit.>"),
        line("publish", "no name"),
        line("publish", &"a".repeat(100_000)),
    ];
    write(folder.path(), "broker.log", &log.concat());
    let suggest = |log: &str| {
        exocom(
            folder.path(),
            &["policy", "suggest", "--log", log, "--on", "policy.toml", "--json"],
        )
    };
    let answer = json(&suggest("broker.log"));
    let edits: Vec<_> = answer["suggestions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["edits"][0])
        .collect();
    assert_eq!(
        (&edits[0]["key"], &edits[0]["pattern"]),
        (&"sends".into(), &"todos.purge".into())
    );
    assert_eq!(
        (&edits[1]["key"], &edits[1]["pattern"]),
        (&"receives".into(), &"audit.>".into())
    );
    assert_eq!(answer["not-told-apart"], 1);
    assert_eq!(suggest("missing.log").code, Some(2));
}

/// Ends a process that a test has started.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_log_of_a_broker_is_one_that_suggest_reads() {
    let mut made = Broker::dev(TODO_POLICY);
    made.stop();
    let log = fs::File::create(made.path("broker.log")).expect("the folder takes a file");
    let mut broker = Ends(
        process::Command::new(EXOCOM)
            .args([
                "--log-format",
                "json",
                "dev",
                "--listen",
                "127.0.0.1:0",
                "--policy",
                "policy.toml",
                "--dir",
                ".",
            ])
            .current_dir(made.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary was built for the tests"),
    );
    let mut ready = String::new();
    let output = broker.0.stdout.take().expect("it was piped");
    BufReader::new(output)
        .read_line(&mut ready)
        .expect("it says that it is ready");
    let address = ready
        .trim()
        .strip_prefix("ready ")
        .expect("the first line says ready");
    let address = address.parse().expect("an address follows");

    let mut web = Raw::connect(address, &made.tls("web")).expect("a handshake with a good certificate");
    web.hello();
    web.send(b"PUB todos.purge 0\r\n\r\nSUB secrets.> 1\r\nPING\r\n");
    while web.line() != "PONG" {}
    wait_for("the denials in the log", || {
        let answer = exocom(
            made.dir(),
            &["policy", "suggest", "--log", "broker.log", "--on", "policy.toml"],
        );
        answer.out.contains("add \"todos.purge\" to sends")
            && answer.out.contains("add \"secrets.>\" to receives")
    });
}
