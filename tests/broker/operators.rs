//! Operators: who they are comes from the system or from their certificate, what they may do from the policy, and
//! each action leaves a line in the log.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::config::config;
use crate::support::{Broker, EXOCOM, Raw, client_tls, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place"]

[service.orders]
receives = ["orders.place"]

[message."orders.place"]
kind = "event"
delivery = "at-least-once"
attempts = 1

[operator.alice]
may = ["view"]

[operator.bob]
may = ["replay"]

[operator.carol]
may = []

[operator.dave]
may = ["quarantine"]
"#;

pub const CONFIG: &str = config!(
    r#"
[admin]
listen = "127.0.0.1:0"

[store]
folder = "store"
"#
);

fn broker() -> (Broker, SocketAddr) {
    let broker = Broker::serve(POLICY, CONFIG);
    let admin = admin_address(&broker);
    (broker, admin)
}

/// Where the admin listener listens, from the broker's log.
pub fn admin_address(broker: &Broker) -> SocketAddr {
    let log = broker.log();
    let line = log.lines().find(|line| line.contains("operators may connect"));
    let address = line.and_then(|line| line.split("address=").nth(1));
    let address = address.and_then(|rest| rest.split_whitespace().next());
    address.expect("it says where").parse().expect("an address")
}

/// Runs a command as somebody with a certificate. Its exit code, and what it said.
pub fn as_somebody(
    broker: &Broker,
    admin: SocketAddr,
    name: &str,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let output = Command::new(EXOCOM)
        .args(arguments)
        .args(["--admin", &format!("localhost:{}", admin.port())])
        .env("EXOCOM_CERT", broker.cert(&format!("{name}.pem")))
        .env("EXOCOM_KEY", broker.cert(&format!("{name}.key")))
        .env("EXOCOM_CA", broker.cert("ca.pem"))
        .env("USER", "root")
        .output()
        .expect("the binary was built for the tests");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

/// One request over a connection that stays open. The status line of the answer.
pub fn request(raw: &mut Raw, path: &str) -> String {
    raw.send(format!("GET {path} HTTP/1.1\r\nhost: exocom\r\n\r\n").as_bytes());
    let status = raw.line();
    let mut length = 0;
    loop {
        let line = raw.line();
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = bytes.parse().expect("a number");
        }
        if line.is_empty() {
            raw.bytes(length);
            return status;
        }
    }
}

fn tls(broker: &Broker, name: &str) -> Arc<rustls::ClientConfig> {
    client_tls(
        &broker.cert("ca.pem"),
        &broker.cert(&format!("{name}.pem")),
        &broker.cert(&format!("{name}.key")),
    )
}

#[test]
fn the_policy_decides_each_verb_by_the_certificate() {
    let (broker, admin) = broker();
    let check = |name: &str, arguments: &[&str], refused: Option<&str>| {
        let before = broker.log().len();
        let (code, said) = as_somebody(&broker, admin, name, arguments);
        match refused {
            None => assert_eq!(code, Some(0), "{name} {arguments:?}: {said}"),
            Some(reason) => {
                assert_eq!(code, Some(1), "{name} {arguments:?}: {said}");
                assert_eq!(said.lines().count(), 1, "{said}");
                assert!(said.contains(reason), "{name} {arguments:?}: {said}");
                let log = broker.log()[before..].to_owned();
                let line = log.lines().find(|line| line.contains("operator refused"));
                let line = line.unwrap_or_else(|| panic!("{name} {arguments:?}: no line in {log}"));
                let verb = arguments[..arguments.len().min(2)].join(" ");
                assert!(line.contains(name) && line.contains(reason), "{line}");
                assert!(line.contains(&format!("verb=\"{verb}")), "{line}");
            }
        }
    };
    check("alice", &["status"], None);
    check("alice", &["queue", "list"], None);
    check(
        "alice",
        &["queue", "drop", "--service", "orders"],
        Some("may not replay"),
    );
    check("alice", &["queue", "purge", "orders"], Some("policy.toml:17"));
    check("alice", &["quarantine", "list"], None);
    check(
        "alice",
        &["quarantine", "add", "web", "--reason", "odd"],
        Some("may not quarantine"),
    );
    check("dave", &["quarantine", "add", "web", "--reason", "odd"], None);
    check("dave", &["quarantine", "show", "web"], Some("may not view"));
    check(
        "dave",
        &["quarantine", "release", "web", "--reason", "even"],
        None,
    );
    check("bob", &["status"], Some("may not view"));
    check("carol", &["status"], Some("may not view"));
    check("carol", &["queue", "replay", "1"], Some("may not replay"));
    check("web", &["status"], Some("a service is not an operator"));
    check(
        "web",
        &["queue", "purge", "orders"],
        Some("a service is not an operator"),
    );
    // What bob may do is done; that there is nothing to replay is another matter.
    let (code, said) = as_somebody(&broker, admin, "bob", &["queue", "replay", "7", "--why", "back"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no such dead letter"), "{said}");
    let log = broker.log();
    let line = log
        .lines()
        .find(|line| line.contains("queue replay") && line.contains("operator/bob"));
    let line = line.expect("what was done is logged");
    for words in ["message 7", "why=\"back\"", "no such dead letter"] {
        assert!(line.contains(words), "{line}");
    }
    // Looks are told too, but not each of a screen that is open.
    for _ in 0..3 {
        assert_eq!(as_somebody(&broker, admin, "alice", &["status"]).0, Some(0));
    }
    let log = broker.log();
    let looks: Vec<_> = log
        .lines()
        .filter(|line| line.contains("operator looked") && line.contains("verb=\"status\""))
        .collect();
    assert!((1..4).contains(&looks.len()), "once a minute: {looks:?}");
    assert!(looks[0].contains("operator/alice"), "{looks:?}");
    // An operator is no service either.
    assert_eq!(
        broker.raw("alice").rest().lines().last(),
        Some("-ERR 'Authorization Violation'")
    );
}

#[test]
fn who_is_no_operator_gets_nothing_from_the_admin_listener() {
    let (broker, admin) = broker();
    let hears = |tls: &Arc<rustls::ClientConfig>| {
        let mut raw = Raw::connect(admin, tls).ok()?;
        raw.try_send(b"GET /v1/status HTTP/1.1\r\nhost: exocom\r\n\r\n")
            .ok()?;
        raw.try_line().ok()?
    };
    assert!(
        hears(&tls(&broker, "server")).is_none(),
        "the broker's own certificate"
    );
    let mut nobody = rustls::RootCertStore::empty();
    let ca = rustls::pki_types::pem::PemObject::from_pem_file(broker.cert("ca.pem")).expect("a root");
    nobody.add(ca).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.3")
        .with_root_certificates(nobody)
        .with_no_client_auth();
    assert!(hears(&Arc::new(nobody)).is_none(), "no certificate");
    // An operator of another root, who has the same name.
    let other = Broker::dev(POLICY);
    let stranger = client_tls(
        &broker.cert("ca.pem"),
        &other.cert("alice.pem"),
        &other.cert("alice.key"),
    );
    assert!(hears(&stranger).is_none(), "another root");
    assert!(hears(&tls(&broker, "alice")).is_some_and(|line| line.contains(" 200 ")));
    assert!(hears(&tls(&broker, "web")).is_some_and(|line| line.contains(" 403 ")));
    // Those who are no operators hold few places, and not for long; an operator finds one all the same.
    let held: Vec<_> = (0..40)
        .map(|_| Raw::connect(admin, &tls(&broker, "web")))
        .collect();
    assert!(hears(&tls(&broker, "alice")).is_some_and(|line| line.contains(" 200 ")));
    drop(held);
    // Plain HTTP is no handshake.
    let mut plain = std::net::TcpStream::connect(admin).expect("the port is open");
    std::io::Write::write_all(&mut plain, b"GET /v1/status HTTP/1.1\r\n\r\n").expect("the port is open");
    let mut heard = Vec::new();
    // An alert, and the end.
    drop(std::io::Read::read_to_end(&mut plain, &mut heard));
    assert!(!String::from_utf8_lossy(&heard).contains("HTTP"), "{heard:?}");
}

#[test]
fn only_who_may_apply_policies_changes_one() {
    let (broker, admin) = broker();
    let next = broker.path("next.toml");
    fs::write(
        &next,
        POLICY.replace(
            "[operator.bob]\nmay = [",
            "[operator.bob]\nmay = [\"apply-policy\", ",
        ),
    )
    .expect("the folder takes a file");
    let next = next.to_str().expect("it is text");
    let before = broker.status()["policy"]["version"].clone();
    // Alice may look, and so compare; she may not apply, nor confirm.
    let (code, said) = as_somebody(&broker, admin, "alice", &["policy", "apply", next, "--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("may not apply-policy (") && said.contains("policy.toml:17"),
        "{said}"
    );
    let (code, said) = as_somebody(&broker, admin, "alice", &["policy", "confirm", "000000000000"]);
    assert_eq!(code, Some(1), "{said}");
    // Bob may not even look.
    let (code, said) = as_somebody(&broker, admin, "bob", &["policy", "log"]);
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(broker.status()["policy"]["version"], before);
    let (code, said) = as_somebody(&broker, admin, "alice", &["policy", "log"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_changed_policy_holds_for_operators_who_are_connected() {
    let (broker, admin) = broker();
    let mut alice = Raw::connect(admin, &tls(&broker, "alice")).expect("a handshake");
    assert!(request(&mut alice, "/v1/status").contains(" 200 "));
    broker.change_policy(&POLICY.replace("may = [\"view\"]", "may = []"));
    assert!(request(&mut alice, "/v1/status").contains(" 403 "));
    broker.change_policy(POLICY);
    assert!(request(&mut alice, "/v1/status").contains(" 200 "));
    broker.change_policy(&POLICY.replace("[operator.alice]", "[operator.alicia]"));
    assert!(request(&mut alice, "/v1/status").contains(" 403 "));
    assert!(request(&mut alice, "/v1/nothing").contains(" 404 "));
}

#[test]
fn another_local_user_is_refused_even_where_the_file_lets_them_in() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    const NOBODY: u32 = 65_534;
    let (broker, _) = broker();
    let opened = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    opened(broker.dir(), 0o755);
    // The binary may lie where nobody else can reach it.
    let binary = broker.path("exocom");
    fs::copy(EXOCOM, &binary).expect("the folder takes a file");
    let asks = |uid: Option<u32>| {
        let mut command = Command::new(&binary);
        command.args(["status", "--admin"]).arg(broker.path("admin.sock"));
        if let Some(uid) = uid {
            command.uid(uid);
        }
        let output = command.output().expect("the binary is there");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert_eq!(asks(None).0, Some(0));
    let (code, said) = asks(Some(NOBODY));
    assert_eq!(code, Some(1));
    assert!(said.contains("only the user that runs the broker"), "{said}");
    opened(&broker.path("admin.sock"), 0o666);
    assert_eq!(asks(Some(NOBODY)).0, Some(1));
    wait_for("the line", || {
        broker
            .log()
            .contains("uid 65534 is neither root nor the broker's own user")
    });
    assert_eq!(asks(None).0, Some(0));
}
