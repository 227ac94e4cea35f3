//! `exocom certs`: what it makes, what it never overwrites, what it tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{exocom, fails, folder, succeeds};
use crate::support::{Broker, TODO_POLICY};

fn mode(file: &Path) -> u32 {
    fs::metadata(file).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn keys_are_for_their_owner_alone() {
    let folder = folder();
    let folder = folder.path();
    assert_eq!(
        succeeds(folder, &["certs", "init", "--trust-domain", "todo.example"]),
        "certs/ca.pem  root of todo.example\nKeep certs/ca.key to yourself.\n"
    );
    succeeds(
        folder,
        &["certs", "issue", "--server", "--name", "broker.todo.example"],
    );
    succeeds(folder, &["certs", "issue", "--operator", "alice"]);
    let said = succeeds(folder, &["certs", "issue", "--service", "web"]);
    assert!(
        said.starts_with("certs/web.pem  valid until 20") && said.ends_with("certs/web.key\n"),
        "{said}"
    );
    for name in ["ca", "server", "alice", "web"] {
        let file = |ending: &str| folder.join("certs").join(format!("{name}.{ending}"));
        assert_eq!(mode(&file("key")), 0o600, "{name}");
        assert_eq!(mode(&file("pem")), 0o644, "{name}");
    }
    fs::set_permissions(folder.join("certs/ca.key"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let answer = exocom(folder, &["certs", "list"]);
    assert!(answer.err.contains("chmod 600 certs/ca.key"), "{}", answer.err);
}

#[test]
fn nothing_is_overwritten_unless_asked() {
    let folder = folder();
    let folder = folder.path();
    let read = |name: &str| fs::read(folder.join("certs").join(name)).expect("it is there");
    succeeds(folder, &["certs", "init", "--trust-domain", "todo.example"]);
    succeeds(folder, &["certs", "issue", "--service", "web"]);
    let (root, web) = (read("ca.key"), read("web.key"));
    let remedy = &["exists", "--force"];
    fails(
        folder,
        &["certs", "init", "--trust-domain", "todo.example"],
        1,
        remedy,
    );
    fails(folder, &["certs", "issue", "--service", "web"], 1, remedy);
    assert_eq!((read("ca.key"), read("web.key")), (root.clone(), web.clone()));
    let other = &["choose another name"];
    fails(
        folder,
        &["certs", "issue", "--operator", "web", "--force"],
        1,
        other,
    );
    fails(
        folder,
        &["certs", "issue", "--service", "ca", "--force"],
        1,
        other,
    );
    fails(
        folder,
        &["certs", "issue", "--service", "server", "--force"],
        1,
        other,
    );
    assert_eq!((read("ca.key"), read("web.key")), (root.clone(), web.clone()));
    succeeds(folder, &["certs", "issue", "--service", "web", "--force"]);
    assert_ne!(read("web.key"), web);
    succeeds(
        folder,
        &["certs", "init", "--trust-domain", "todo.example", "--force"],
    );
    assert_ne!(read("ca.key"), root);
}

#[test]
fn a_list_tells_whose_each_is_and_whether_it_would_be_accepted() {
    let folder = folder();
    let folder = folder.path();
    succeeds(folder, &["certs", "init", "--trust-domain", "todo.example"]);
    succeeds(folder, &["certs", "issue", "--service", "web", "--days", "30"]);
    succeeds(folder, &["certs", "issue", "--server"]);
    // Looking needs no key.
    fs::remove_file(folder.join("certs/ca.key")).expect("it is there");
    let listed: Value =
        serde_json::from_str(&succeeds(folder, &["certs", "list", "--json"])).expect("it is JSON");
    let rows: Vec<_> = listed.as_array().expect("a list").iter().collect();
    let column = |name: &str| rows.iter().map(|row| row[name].clone()).collect::<Vec<_>>();
    assert_eq!(
        column("file"),
        ["certs/ca.pem", "certs/server.pem", "certs/web.pem"]
    );
    assert_eq!(column("kind"), ["root", "server", "service"]);
    assert_eq!(
        column("identity"),
        [
            "spiffe://todo.example",
            "localhost, 127.0.0.1, ::1",
            "spiffe://todo.example/web"
        ]
    );
    assert_eq!(column("days-left")[2], 29);
    assert!(
        rows.iter()
            .all(|row| row["accepted"] == true && row["rule"].is_null()),
        "{listed:#}"
    );
    let keys: Vec<_> = rows[0].as_object().expect("an object").keys().cloned().collect();
    let known = "accepted days-left file identity kind not-after not-before reason rule serial";
    assert_eq!(keys, known.split(' ').collect::<Vec<_>>());

    // What another root has issued would be refused, and a script can see that.
    succeeds(
        folder,
        &[
            "certs",
            "init",
            "--trust-domain",
            "todo.example",
            "--dir",
            "other",
        ],
    );
    succeeds(
        folder,
        &["certs", "issue", "--service", "todos", "--dir", "other"],
    );
    fs::copy(folder.join("other/todos.pem"), folder.join("certs/todos.pem"))
        .expect("the folder takes a file");
    let answer = exocom(folder, &["certs", "list"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.out.contains("would be REFUSED: "), "{}", answer.out);
}

#[test]
fn what_cannot_be_issued_is_said() {
    let folder = folder();
    let folder = folder.path();
    fails(
        folder,
        &["certs", "issue", "--service", "web"],
        1,
        &["exocom certs init --trust-domain NAME"],
    );
    fails(
        folder,
        &["certs", "init", "--trust-domain", "Todo.Example"],
        1,
        &["a-z"],
    );
    succeeds(folder, &["certs", "init", "--trust-domain", "todo.example"]);
    fails(
        folder,
        &["certs", "issue", "--service", "a/b"],
        1,
        &["\"a/b\" cannot be used", "A-Z"],
    );
    fails(
        folder,
        &["certs", "issue", "--server", "--name", "a b"],
        1,
        &["neither a DNS name nor an IP"],
    );
    succeeds(folder, &["certs", "issue", "--service", "web"]);
    fs::remove_file(folder.join("certs/ca.key")).expect("it is there");
    fails(
        folder,
        &["certs", "issue", "--service", "web"],
        1,
        &["certs/ca.key", "nothing can be issued"],
    );
    fs::rename(folder.join("certs/web.key"), folder.join("certs/ca.key")).expect("the folder takes a file");
    fails(
        folder,
        &["certs", "issue", "--service", "web"],
        1,
        &["certs/ca.key cannot be used", "not the key of ca.pem"],
    );
}

#[test]
fn what_is_renewed_is_for_the_same_with_another_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    succeeds(dir, &["certs", "init", "--trust-domain", "todo.example"]);
    succeeds(dir, &["certs", "issue", "--service", "web", "--days", "30"]);
    succeeds(dir, &["certs", "issue", "--operator", "alice", "--days", "1"]);
    succeeds(
        dir,
        &["certs", "issue", "--server", "--name", "broker.todo.example"],
    );
    let row = |name: &str| {
        let listed: Value = serde_json::from_str(&succeeds(dir, &["certs", "list", "--json"])).expect("JSON");
        let rows = listed.as_array().expect("a list").clone();
        let file = format!("certs/{name}.pem");
        rows.into_iter()
            .find(|row| row["file"] == *file)
            .expect("it is listed")
    };
    let names = ["web", "alice", "server"];
    let before = names.map(row);
    succeeds(dir, &["certs", "renew", "web", "server"]);
    succeeds(dir, &["certs", "renew", "--within", "2"]);
    for (name, before) in names.into_iter().zip(before) {
        let after = row(name);
        assert_ne!(before["serial"], after["serial"], "{name}");
        for same in ["kind", "identity", "days-left", "accepted"] {
            assert_eq!(before[same], after[same], "{name}: {same}");
        }
    }
    // None that expires so soon is left but the one of a day.
    assert_eq!(succeeds(dir, &["certs", "renew", "--within", "0"]), "");
    fails(dir, &["certs", "renew", "orders"], 1, &["orders.pem"]);
    fails(dir, &["certs", "renew", "ca"], 1, &["ca.pem", "issue it anew"]);
    fs::copy(dir.join("certs/web.pem"), dir.join("certs/other.pem")).expect("a file");
    fails(
        dir,
        &["certs", "renew", "other"],
        1,
        &["it is for spiffe://todo.example/web"],
    );
}

#[test]
fn show_asks_every_rule_that_the_handshake_asks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    succeeds(dir, &["certs", "init", "--trust-domain", "todo.example"]);
    succeeds(dir, &["certs", "issue", "--service", "web"]);
    succeeds(dir, &["certs", "issue", "--server"]);
    let text = succeeds(dir, &["certs", "show", "certs/web.pem"]);
    assert!(
        text.contains("the root of todo.example: would be accepted"),
        "{text}"
    );
    assert!(!text.contains("FAIL"), "{text}");
    // The server's is no client's, for each of its reasons.
    let answer = exocom(dir, &["certs", "show", "certs/server.pem", "--json"]);
    assert_eq!(answer.code, Some(1), "{}", answer.err);
    let shown: Value = serde_json::from_str(&answer.out).expect("JSON");
    let rules = shown["asked"][0]["rules"].as_array().expect("a list");
    let broken: Vec<_> = rules.iter().filter_map(|row| row["rule"].as_str()).collect();
    assert_eq!(broken, ["uri-san-count", "eku-client-auth", "uri-san-count"]);
    fails(
        dir,
        &["certs", "show", "certs/web.key"],
        1,
        &["BEGIN CERTIFICATE"],
    );
    fs::copy(dir.join("certs/web.pem"), dir.join("web.pem")).expect("a file");
    fails(dir, &["certs", "show", "web.pem"], 1, &["which root?"]);
}

#[test]
fn show_asks_the_listeners_the_policy_and_what_is_revoked() {
    let broker = Broker::dev(TODO_POLICY);
    let show = |name: &str| {
        let file = broker.cert(name);
        let file = file.to_str().expect("UTF-8");
        let answer = exocom(broker.dir(), &["certs", "show", file, "--config", "exocom.toml"]);
        (answer.code, answer.out)
    };
    let (code, text) = show("web.pem");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("listener dev: would be accepted"), "{text}");
    succeeds(broker.dir(), &["certs", "issue", "--service", "stranger"]);
    let (code, text) = show("stranger.pem");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("FAIL  let in by the policy: the policy does not list the service"),
        "{text}"
    );
    succeeds(
        broker.dir(),
        &["certs", "revoke", "web", "--reason", "stolen", "--admin", "."],
    );
    let (code, text) = show("web.pem");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("revoked: service:web is revoked here by ") && text.contains(": stolen"),
        "{text}"
    );
}

#[test]
fn a_p12_file_opens_with_its_password_alone() {
    if !crate::pki::has_openssl() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path();
    succeeds(dir, &["certs", "init", "--trust-domain", "todo.example"]);
    succeeds(dir, &["certs", "issue", "--operator", "alice"]);
    let text = succeeds(dir, &["certs", "p12", "certs/alice.pem", "--out", "alice.p12"]);
    let password = text
        .lines()
        .find_map(|line| line.strip_prefix("password "))
        .expect("it is shown");
    assert!(password.len() >= 32, "{text}");
    let open = |password: &str| {
        std::process::Command::new("openssl")
            .current_dir(dir)
            .args([
                "pkcs12",
                "-in",
                "alice.p12",
                "-nodes",
                "-passin",
                &format!("pass:{password}"),
            ])
            .output()
            .expect("openssl is there")
    };
    let opened = open(password);
    assert!(
        opened.status.success(),
        "{}",
        String::from_utf8_lossy(&opened.stderr)
    );
    let opened = String::from_utf8(opened.stdout).expect("PEM");
    for name in ["alice.pem", "alice.key"] {
        let own = fs::read_to_string(dir.join("certs").join(name)).expect("it was issued");
        let body: String = own.lines().filter(|line| !line.starts_with('-')).collect();
        let theirs: String = opened.lines().collect();
        assert!(theirs.contains(&body), "{name} is not in {opened}");
    }
    assert!(!open("another").status.success());
    assert_eq!(mode(&dir.join("alice.p12")), 0o600);
    fails(
        dir,
        &["certs", "p12", "certs/alice.pem", "--out", "alice.p12"],
        1,
        &["--force"],
    );
    fs::write(dir.join("password"), "of my own\n").expect("a file");
    let text = succeeds(
        dir,
        &[
            "certs",
            "p12",
            "certs/alice.pem",
            "--out",
            "alice.p12",
            "--password-file",
            "password",
            "--force",
        ],
    );
    assert_eq!(text, "alice.p12\n");
    assert!(open("of my own").status.success());
    fails(
        dir,
        &[
            "certs",
            "p12",
            "certs/alice.pem",
            "--key",
            "certs/ca.key",
            "--force",
        ],
        1,
        &["are no pair"],
    );
}
