//! Zones: each listener has its own address, its own zone and its own roots. A service is let in only where it belongs,
//! and only by the roots of that listener.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::pki::{Ca, Shown, pem, tls_showing, uri};
use crate::support::{Broker, Raw, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
zone = "dmz"
sends = ["orders.place"]

[service.orders]
zone = "data"
receives = ["orders.place"]

[service.roaming]
receives = ["orders.place"]

[operator.alice]
may = ["view", "apply-policy", "revoke", "quarantine", "replay"]
"#;

/// What a client hears first, but for INFO: nothing, or why it may not come in; `None` where the handshake fails.
fn knock(broker: &Broker, address: SocketAddr, shown: &Shown) -> Option<String> {
    let tls = Arc::new(tls_showing(&broker.cert("ca.pem"), shown));
    let mut raw = Raw::connect(address, &tls).ok()?;
    let info = raw.try_line().ok()??;
    assert!(info.starts_with("INFO "), "{info}");
    raw.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
    raw.try_line().ok()?
}

#[test]
fn each_listener_lets_in_its_own() {
    let (dmz, data) = (Ca::root("dmz"), Ca::root("data"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, ca: &Ca| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem("CERTIFICATE", [&*ca.cert])).expect("the folder takes a file");
        toml::Value::String(path.display().to_string())
    };
    let (dmz_root, data_root) = (file("dmz.pem", &dmz), file("data.pem", &data));
    let config = format!(
        r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.a-dmz]
address = "127.0.0.1:0"
zone = "dmz"
roots = [{dmz_root}]

[listener.b-data]
address = "127.0.0.2:0"
zone = "data"
roots = [{data_root}]

[listener.c-any]
address = "127.0.0.3:0"
roots = [{dmz_root}, {data_root}]

[limits]
lame-duck-ms = 0
"#
    );
    let broker = Broker::serve(POLICY, &config);
    let [at_dmz, at_data, at_any] = broker.addresses()[..] else {
        panic!("three listeners: {:?}", broker.addresses());
    };
    let leaf = |ca: &Ca, id: &str| {
        ca.leaf(|p| p.subject_alt_names = vec![uri(&format!("spiffe://shop.example/{id}"))])
    };
    let denied = Some("-ERR 'Authorization Violation'".to_owned());
    let pong = Some("PONG".to_owned());
    let refused = |rule: &str| broker.status()["counts"]["refused"][rule].as_u64().unwrap_or(0);
    let check = |ca: &Ca, id: &str, at: SocketAddr, expected: &Option<String>, rule: &str| {
        let before = refused(rule);
        assert_eq!(&knock(&broker, at, &leaf(ca, id)), expected, "{id} at {at}");
        let more = u64::from(!rule.is_empty());
        wait_for("the refusal to be counted", || refused(rule) == before + more);
    };
    // In its own zone, by the root of that listener.
    check(&dmz, "web", at_dmz, &pong, "");
    check(&data, "orders", at_data, &pong, "");
    // In another's.
    check(&data, "web", at_data, &denied, "wrong-zone");
    check(&dmz, "orders", at_dmz, &denied, "wrong-zone");
    // A root is bound to its listener: the other zone's vouches for nobody here, not even for who belongs here.
    check(&data, "web", at_dmz, &None, "unknown-issuer");
    check(&dmz, "orders", at_data, &None, "unknown-issuer");
    // A listener without a zone serves all, and a service without a zone goes everywhere.
    check(&dmz, "web", at_any, &pong, "");
    check(&data, "orders", at_any, &pong, "");
    check(&dmz, "roaming", at_dmz, &pong, "");
    check(&data, "roaming", at_data, &pong, "");
    // Whoever is not in the policy comes in nowhere; an operator is no service.
    for at in [at_dmz, at_any] {
        check(&dmz, "stranger", at, &denied, "unknown-service");
        check(&dmz, "operator/alice", at, &denied, "not-a-service");
        check(&dmz, "operator/web", at, &denied, "not-a-service");
    }
    // The log says which line is against it.
    let log = broker.log();
    let line = log
        .lines()
        .find(|line| line.contains("wrong-zone"))
        .expect("a line");
    assert!(
        line.contains("sender=web") && line.contains("policy.toml:6"),
        "{line}"
    );
}
