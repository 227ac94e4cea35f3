//! What changes while the broker runs: the policy and certificates when their files do, and on SIGHUP. What cannot be used
//! leaves the old in force.

use std::fs;
use std::time::Duration;

use super::succeeds;
use crate::support::{Broker, Raw, TODO_POLICY, wait_for};

const DENIED: &str = "-ERR 'Permissions Violation for Publish to \"todos.purge\"'";

/// What the broker answers when `web` publishes `todos.purge`: nothing before the PONG, or a denial.
fn purge(web: &mut Raw) -> String {
    web.send(b"PUB todos.purge 0\r\n\r\nPING\r\n");
    let answer = web.line();
    if answer != "PONG" {
        assert_eq!(web.line(), "PONG");
    }
    answer
}

fn with_purge() -> String {
    TODO_POLICY.replace("\"todos.create\"]", "\"todos.create\", \"todos.purge\"]")
}

#[test]
fn a_changed_policy_holds_for_open_connections() {
    let broker = Broker::dev(TODO_POLICY);
    let mut web = broker.raw_ready("web");
    assert_eq!(purge(&mut web), DENIED);
    broker.change_policy(&with_purge());
    assert_eq!(purge(&mut web), "PONG");
    broker.change_policy(TODO_POLICY);
    assert_eq!(purge(&mut web), DENIED);
    // A service that is no longer listed is cut off.
    broker.change_policy(&TODO_POLICY.replace("[service.web]", "[service.webs]"));
    web.send(b"PING\r\n");
    assert!(web.rest().ends_with("-ERR 'Stale Connection'\r\n"));
}

#[test]
fn a_warning_is_said_once_for_each_policy() {
    let broker = Broker::dev(&format!("{TODO_POLICY}[service.idle]\n"));
    let said = |service: &str| {
        broker
            .log()
            .matches(&format!("service \"{service}\" neither sends"))
            .count()
    };
    assert_eq!(said("idle"), 1, "{}", broker.log());
    broker.change_policy(&format!("{TODO_POLICY}[service.lazy]\n"));
    assert_eq!((said("idle"), said("lazy")), (1, 1), "{}", broker.log());
}

#[test]
fn a_bad_policy_keeps_the_old_one_and_says_so() {
    let broker = Broker::dev(TODO_POLICY);
    let before = broker.status()["policy"].clone();
    assert_eq!(before["refused_change"], serde_json::Value::Null);
    let mut web = broker.raw_ready("web");
    fs::write(broker.path("policy.toml"), with_purge() + "[service.web]\n").expect("the folder takes a file");
    let refused = || {
        broker.status()["policy"]["refused_change"]
            .as_str()
            .map(str::to_owned)
    };
    wait_for("the refusal", || refused().is_some());
    let error = refused().expect("it was there");
    assert!(
        error.contains("policy.toml:23") && error.contains("web"),
        "{error}"
    );
    assert_eq!(broker.status()["policy"]["version"], before["version"]);
    assert_eq!(purge(&mut web), DENIED);
    let text = succeeds(broker.dir(), &["status", "--admin", "admin.sock"]);
    assert!(
        text.contains("the latest change was refused, the policy before it stays in force"),
        "{text}"
    );
    fs::write(broker.path("policy.toml"), TODO_POLICY).expect("the folder takes a file");
    wait_for("the good policy", || refused().is_none());
    assert_eq!(broker.status()["policy"], before);
}

/// The harness keeps the broker's log in the policy's folder. Each refusal was a line there, each line a change of
/// the folder, and each change a reason to read the policy again.
#[test]
fn a_log_beside_the_policy_is_no_reason_to_read_it_again() {
    let broker = Broker::dev(TODO_POLICY);
    fs::write(broker.path("policy.toml"), "nonsense").expect("the folder takes a file");
    wait_for("the refusal", || broker.log().contains("the old one stays"));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(
        broker.log().matches("the old one stays").count(),
        1,
        "{}",
        broker.log()
    );
    // Asked, it reads and judges again.
    broker.signal("HUP");
    wait_for("the second refusal", || {
        broker.log().matches("the old one stays").count() == 2
    });
}

#[test]
fn a_new_server_certificate_is_shown_to_new_connections() {
    let broker = Broker::dev(TODO_POLICY);
    let shown = |raw: &Raw| raw.tls().peer_certificates().expect("the server shows one")[0].to_vec();
    let mut old = broker.raw_ready("web");
    let before = shown(&old);
    succeeds(broker.dir(), &["certs", "issue", "--server", "--force"]);
    wait_for("the new certificate", || {
        shown(&broker.raw_ready("web")) != before
    });
    old.send(b"PING\r\n");
    assert_eq!(old.line(), "PONG", "nobody is dropped");
    // A certificate without its key is not taken.
    let after = shown(&broker.raw_ready("web"));
    fs::copy(broker.cert("web.pem"), broker.cert("server.pem")).expect("the folder takes a file");
    broker.signal("HUP");
    wait_for("the refusal", || {
        broker
            .log()
            .contains("certificates not reloaded, the old ones stay")
    });
    assert_eq!(shown(&broker.raw_ready("web")), after);
}
