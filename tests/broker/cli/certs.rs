//! `exocom certs`: what it makes, what it never overwrites, what it tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;

use super::{exocom, fails, folder, succeeds};

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
