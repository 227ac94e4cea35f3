//! The commands in docs/certificates.md, run as they are written there.

use super::*;

const DOCUMENT: &str = include_str!("../../../docs/certificates.md");

const SHOP: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]

[operator.alice]
may = ["view"]
"#;

/// The blocks of commands, in their order.
fn commands() -> Vec<&'static str> {
    DOCUMENT
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().expect("a block ends"))
        .collect()
}

fn run(folder: &Path, commands: &str) {
    let output = Command::new("sh")
        .args(["-euc", commands])
        .current_dir(folder)
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{commands}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn broker(folder: &Path, crls: &str) -> Broker {
    let file = |name: &str| toml::Value::String(folder.join(name).display().to_string());
    let config = format!(
        r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = {}
key = {}

[listener.main]
address = "127.0.0.1:0"
roots = [{}]
{crls}
"#,
        file("server.pem"),
        file("server.key"),
        file("ca.pem")
    );
    Broker::serve(SHOP, &config)
}

#[test]
fn what_openssl_makes_by_the_document_works() {
    if !pki::has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let commands = commands();
    let [root, server, web, alice, list, revoke] = commands[..] else {
        panic!("the document has {} blocks of commands", commands.len());
    };
    for commands in [root, server, web, alice] {
        run(folder, commands);
    }
    for key in ["ca.key", "server.key", "web.key", "alice.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.join(key))
            .expect("it was made")
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{key} is readable by others");
    }
    let tls = |name: &str| {
        let file = |name: String| folder.join(name);
        crate::support::client_tls(
            &file("ca.pem".into()),
            &file(format!("{name}.pem")),
            &file(format!("{name}.key")),
        )
    };
    let heard = |broker: &Broker, name: &str| hear(broker.address(), &tls(name));
    let with_lists = format!("crls = [{:?}]", folder.join("ca.crl").display().to_string());

    let without = broker(folder, "");
    let (info, mut raw) = heard(&without, "web").expect("a handshake");
    assert!(info.starts_with("INFO "), "{info}");
    raw.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
    assert_eq!(raw.line(), "PONG");
    assert_eq!(without.status()["connections"][0]["sender"], "web");
    // Known, and no service.
    let (_, mut raw) = heard(&without, "alice").expect("a handshake");
    assert_eq!(raw.rest(), "-ERR 'Authorization Violation'\r\n");
    assert_eq!(without.status()["counts"]["refused"]["not-a-service"], 1);
    assert!(heard(&without, "server").is_none());

    run(folder, list);
    let with = broker(folder, &with_lists);
    assert!(heard(&with, "web").is_some());
    run(folder, revoke);
    with.signal("HUP");
    wait_for("the list to be read again", || heard(&with, "web").is_none());
    // The client knows a moment before it is counted.
    wait_for("the refusal to be counted", || {
        with.status()["counts"]["refused"]["revoked"].as_u64() >= Some(1)
    });
    assert!(heard(&with, "alice").is_some(), "only one is revoked");
}
