//! `exocom dev`: what it prints, what it keeps, how it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::{exocom, fails, folder, succeeds};
use crate::support::{Broker, EXOCOM, TODO_POLICY, wait_for};

/// A `dev` broker whose output the test reads itself.
struct Dev {
    process: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Dev {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(EXOCOM)
            .args(["dev", "--policy", "policy.toml"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary was built for the tests");
        let output = process.stdout.take().map(BufReader::new);
        Self { process, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let output = self.output.as_mut().expect("not closed yet");
        output.read_line(&mut line).expect("it prints text");
        line
    }

    /// Sends a signal and waits for the end. Returns exit code and standard error.
    fn end(&mut self, signal: &str) -> (Option<i32>, String) {
        let kill = Command::new("kill")
            .args(["-s", signal, &self.process.id().to_string()])
            .status();
        assert!(kill.is_ok_and(|status| status.success()), "kill -s {signal}");
        self.wait()
    }

    fn wait(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_for("the broker's end", || {
            status = self.process.try_wait().expect("it is our child");
            status.is_some()
        });
        let mut said = String::new();
        let mut pipe = self.process.stderr.take().expect("it was piped");
        pipe.read_to_string(&mut said).expect("it prints text");
        (status.and_then(|status| status.code()), said)
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

#[test]
fn a_temporary_folder_goes_with_the_broker() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let mut dev = Dev::start(folder.path(), &[]);
        assert!(dev.line().starts_with("ready 127.0.0.1:"));
        let certificates = dev.line();
        let certificates = PathBuf::from(
            certificates
                .trim_end()
                .strip_prefix("certificates ")
                .expect("its folder"),
        );
        assert!(certificates.join("web.key").is_file());
        assert!(dev.line().starts_with("admin "));
        let (code, log) = dev.end(signal);
        assert_eq!(code, Some(0), "SIG{signal}: {log}");
        assert!(log.trim_end().ends_with("stopped"), "{log}");
        assert!(
            !certificates.parent().expect("a folder").exists(),
            "SIG{signal} leaves {certificates:?}"
        );
    }
}

#[test]
fn a_folder_is_used_again() {
    let broker = Broker::dev(TODO_POLICY);
    let keep = [
        "ca.pem",
        "ca.key",
        "server.pem",
        "web.pem",
        "web.key",
        "todos.pem",
        "alice.pem",
    ];
    let read = |broker: &Broker| keep.map(|name| fs::read(broker.cert(name)).expect("it is there"));
    let before = read(&broker);
    let broker = broker.restart();
    assert_eq!(read(&broker), before);
    // Killed, it leaves its socket; the next one takes its place.
    broker.signal("KILL");
    let mut broker = broker;
    assert!(!broker.wait());
    assert!(broker.path("admin.sock").exists());
    let broker = broker.restart();
    assert_eq!(read(&broker), before);
    assert_eq!(broker.status()["policy"]["services"], 2);
    // A service that is new in the policy gets its certificate at the next start.
    let late = "[service.late]\nsends = [\"todos.list\"]\n";
    fs::write(broker.path("policy.toml"), format!("{TODO_POLICY}{late}")).expect("the folder takes a file");
    let broker = broker.restart();
    assert!(broker.cert("late.key").exists());
    assert_eq!(read(&broker), before);
}

#[test]
fn its_configuration_is_one_for_serve() {
    let folder = folder();
    let mut dev = Dev::start(folder.path(), &["--dir", "kept"]);
    assert!(dev.line().starts_with("ready "));
    let socket = folder.path().join("kept/admin.sock");
    let status = succeeds(folder.path(), &["status", "--config", "kept/exocom.toml"]);
    assert!(
        status.starts_with("exocom-dev ") && status.contains("no connections"),
        "{status}"
    );
    fails(
        folder.path(),
        &["dev", "--policy", "policy.toml", "--dir", "kept"],
        1,
        &["another broker is running", "--dir"],
    );
    dev.end("TERM");
    assert!(!socket.exists(), "the admin socket is left behind");
    let mut serve = Command::new(EXOCOM)
        .args(["serve", "--config", "kept/exocom.toml"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary was built for the tests");
    wait_for("serve to answer", || {
        exocom(folder.path(), &["status", "--config", "kept/exocom.toml"]).code == Some(0)
    });
    serve.kill().expect("it runs");
    serve.wait().expect("it is our child");
}

#[test]
fn a_folder_of_another_trust_domain_is_refused() {
    let folder = folder();
    let folder = folder.path();
    succeeds(
        folder,
        &[
            "certs",
            "init",
            "--trust-domain",
            "other.example",
            "--dir",
            "kept/certs",
        ],
    );
    let arguments = ["dev", "--policy", "policy.toml", "--dir", "kept"];
    fails(
        folder,
        &arguments,
        1,
        &["other.example", "todo.example", "use another --dir"],
    );
    let taken = TODO_POLICY.replace("operator.alice", "operator.web");
    fs::write(folder.join("policy.toml"), taken).expect("the folder takes a file");
    let arguments = ["dev", "--policy", "policy.toml", "--dir", "new"];
    fails(
        folder,
        &arguments,
        1,
        &["policy.toml:22", "operator and a service are both called web"],
    );
    fails(
        folder,
        &[
            "dev",
            "--policy",
            "policy.toml",
            "--listen",
            "127.0.0.1:1",
            "--dir",
            "/proc/nowhere",
        ],
        1,
        &["/proc/nowhere", "cannot make the folder"],
    );
    let answer = exocom(
        folder,
        &["dev", "--policy", "policy.toml", "--listen", "localhost:4222"],
    );
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("such as 127.0.0.1:4222"), "{}", answer.err);
}

#[test]
fn a_closed_output_ends_it_only_before_the_first_line() {
    let folder = folder();
    let mut dev = Dev::start(folder.path(), &["--dir", "a"]);
    drop(dev.output.take());
    let (code, said) = dev.wait();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("cannot say on standard output where the broker listens"),
        "{said}"
    );
    let mut dev = Dev::start(folder.path(), &["--dir", "b"]);
    assert!(dev.line().starts_with("ready "));
    drop(dev.output.take());
    succeeds(folder.path(), &["status", "--admin", "b/admin.sock"]);
    assert_eq!(dev.end("TERM").0, Some(0));
}

#[test]
fn the_log_can_be_read_by_programs() {
    let folder = folder();
    let mut dev = Dev::start(folder.path(), &["--log-format", "json"]);
    assert!(dev.line().starts_with("ready "));
    let (_, log) = dev.end("TERM");
    let lines = log.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines: Vec<_> = lines
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}: {log}"));
    let said: Vec<_> = lines
        .iter()
        .filter_map(|line| line["fields"]["message"].as_str())
        .collect();
    assert_eq!(
        said,
        [
            "store opened",
            "audit log opened",
            "listening",
            "ready",
            "stopping",
            "stopped"
        ]
    );
}
