//! `exocom serve` that cannot start: one line that says what to do, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use super::{exocom, fails, folder, succeeds, write};
use crate::support::TODO_POLICY;

const CONFIG: &str = r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.main]
address = "127.0.0.1:0"
roots = ["certs/ca.pem"]
"#;

/// A folder with all that `serve` needs.
fn ready_folder() -> tempfile::TempDir {
    let folder = folder();
    write(folder.path(), "exocom.toml", CONFIG);
    succeeds(
        folder.path(),
        &["certs", "init", "--trust-domain", "todo.example"],
    );
    succeeds(folder.path(), &["certs", "issue", "--server"]);
    folder
}

#[track_caller]
fn refuses(folder: &Path, words: &[&str]) {
    fails(folder, &["serve"], 1, words);
    let socket = folder.join("admin.sock");
    assert!(
        !socket.exists() || !is_socket(&socket),
        "the admin socket is left behind"
    );
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[test]
fn without_a_configuration() {
    let folder = folder();
    refuses(
        folder.path(),
        &[
            "exocom.toml",
            "cannot read the configuration",
            "exocom dev --dir DIR",
        ],
    );
    fails(
        folder.path(),
        &["serve", "--config", "."],
        1,
        &[".: cannot read the configuration"],
    );
    write(folder.path(), "exocom.toml", &"# \n".repeat(400_000));
    refuses(folder.path(), &["longer than a configuration can be"]);
}

#[test]
fn with_a_mistake_in_the_configuration() {
    let folder = ready_folder();
    write(
        folder.path(),
        "exocom.toml",
        &CONFIG.replace("address =", "adress ="),
    );
    let answer = exocom(folder.path(), &["serve"]);
    assert_eq!((answer.code, &*answer.out), (Some(1), ""));
    for words in [
        "exocom.toml:11:1",
        "unknown field `adress`",
        "^^^^^^",
        "docs/configuration.md lists every key",
    ] {
        assert!(answer.err.contains(words), "{}", answer.err);
    }
}

#[test]
fn with_files_that_cannot_be_used() {
    let folder = ready_folder();
    let folder = folder.path();
    let key = fs::read(folder.join("certs/server.key")).expect("it is there");
    fs::remove_file(folder.join("certs/server.key")).expect("it is there");
    refuses(folder, &["[listener.main]", "certs/server.key", "No such file"]);
    // Root may read everything, but nobody reads a folder as a file.
    fs::create_dir(folder.join("certs/server.key")).expect("the folder takes a folder");
    refuses(folder, &["[listener.main]", "certs/server.key"]);
    fs::remove_dir(folder.join("certs/server.key")).expect("it is there");
    write(folder, "certs/server.key", "garbage");
    refuses(
        folder,
        &["certs/server.key has no private key", "BEGIN PRIVATE KEY"],
    );
    fs::copy(folder.join("certs/ca.key"), folder.join("certs/server.key")).expect("the folder takes a file");
    refuses(folder, &["[listener.main]", "certs/server"]);
    fs::write(folder.join("certs/server.key"), key).expect("the folder takes a file");
    write(folder, "certs/ca.pem", "garbage");
    refuses(folder, &["[listener.main]", "certs/ca.pem"]);
}

#[test]
fn on_a_port_in_use() {
    let folder = ready_folder();
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = other.local_addr().expect("it is bound").to_string();
    write(
        folder.path(),
        "exocom.toml",
        &CONFIG.replace("127.0.0.1:0", &address),
    );
    refuses(
        folder.path(),
        &["[listener.main]", &address, "another program listens there"],
    );
    write(
        folder.path(),
        "exocom.toml",
        &CONFIG.replace("127.0.0.1:0", "192.0.2.1:4222"),
    );
    refuses(
        folder.path(),
        &["192.0.2.1:4222", "this machine has no such address"],
    );
}

#[test]
fn with_a_policy_that_it_cannot_keep() {
    let folder = ready_folder();
    let folder = folder.path();
    let durable = "[message.\"todos.create\"]\ndelivery = \"at-least-once\"\n";
    write(folder, "policy.toml", &format!("{TODO_POLICY}{durable}"));
    refuses(
        folder,
        &[
            "policy.toml:24",
            "todos.create",
            "at-least-once",
            "[store] folder = \"store\"",
        ],
    );
    fs::remove_file(folder.join("policy.toml")).expect("it is there");
    refuses(
        folder,
        &["the policy cannot be read", "policy.toml", "No such file"],
    );
    write(folder, "policy.toml", &TODO_POLICY.replace("sends ", "sendz "));
    let answer = exocom(folder, &["serve"]);
    assert_eq!(answer.code, Some(1));
    for words in [
        "the policy is refused",
        "policy.toml:9:1",
        "did you mean \"sends\"?",
    ] {
        assert!(answer.err.contains(words), "{}", answer.err);
    }
}

#[test]
fn an_admin_socket_never_replaces_a_file() {
    let folder = ready_folder();
    let folder = folder.path();
    write(folder, "admin.sock", "notes");
    refuses(folder, &["admin.sock", "no socket", "move it away"]);
    assert_eq!(
        fs::read_to_string(folder.join("admin.sock")).expect("it is there"),
        "notes"
    );
    write(
        folder,
        "exocom.toml",
        &CONFIG.replace("admin.sock", "missing/admin.sock"),
    );
    refuses(folder, &["missing/admin.sock", "cannot open the admin socket"]);
}
