//! Authority is alive: what ends it ends connections that are open, and keeps new ones out, now and after a restart.

mod expiry;
mod many;
mod reload;
mod revoked;
mod swaps;
mod takeover;
mod tickets;
mod words;

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use serde_json::Value;

use crate::pki::{Ca, Shown, pem, tls_showing, uri};
use crate::support::{Broker, EXOCOM, Raw, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place", "orders.track"]

[service.orders]
receives = ["orders.>"]

[message."orders.track"]
kind = "event"
delivery = "at-least-once"
ack-within = "20s"

[operator.alice]
may = ["view", "revoke"]

[operator.bob]
may = ["view"]
"#;

/// A broker that believes a root of ours, for which the tests issue whatever certificates they like.
struct Shop {
    ca: Ca,
    broker: Broker,
    /// Holds the root's file.
    folder: tempfile::TempDir,
}

impl Shop {
    fn open() -> Self {
        Self::open_with("")
    }

    /// With more lines in its listener.
    fn open_with(listener: &str) -> Self {
        let ca = Ca::root("shop");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), pem("CERTIFICATE", [&*ca.cert])).expect("a file");
        let empty = ca.crl(&[], 60);
        std::fs::write(folder.path().join("ca.crl"), pem("X509 CRL", [&*empty])).expect("a file");
        let dir = folder.path().display();
        let config = format!(
            r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[admin]
listen = "127.0.0.1:0"

[listener.main]
address = "127.0.0.1:0"
roots = ["{dir}/ca.pem"]
{}

[store]
folder = "store"

[limits]
lame-duck-ms = 0
connections-per-service = 40_000
"#,
            listener.replace("DIR", &dir.to_string())
        );
        let broker = Broker::serve(POLICY, &config);
        Self { ca, broker, folder }
    }

    /// A good certificate of an identity, such as `web` or `operator/alice`.
    fn issue(&self, identity: &str) -> Shown {
        self.ca
            .leaf(|params| params.subject_alt_names = vec![uri(&id(identity))])
    }

    /// Connects; the client is ready.
    fn connect(&self, shown: &Shown) -> Raw {
        let mut raw = self.shake(self.broker.address(), shown).expect("a handshake");
        raw.hello();
        raw
    }

    fn shake(&self, address: SocketAddr, shown: &Shown) -> std::io::Result<Raw> {
        Raw::connect(
            address,
            &Arc::new(tls_showing(&self.broker.cert("ca.pem"), shown)),
        )
    }

    /// The client hears nothing at all, and its refusal is counted under this rule.
    #[track_caller]
    fn check_refused(&self, shown: &Shown, rule: &str) {
        let before = self.count("refused", rule);
        let heard = self
            .shake(self.broker.address(), shown)
            .and_then(|mut raw| raw.try_line());
        assert!(!matches!(heard, Ok(Some(_))), "{rule}: {heard:?}");
        wait_for(rule, || self.count("refused", rule) == before + 1);
    }

    fn count(&self, kind: &str, of: &str) -> u64 {
        self.broker.status()["counts"][kind][of].as_u64().unwrap_or(0)
    }

    /// Runs a command at the admin socket.
    fn exocom(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(EXOCOM)
            .args(arguments)
            .arg("--admin")
            .arg(self.broker.path("admin.sock"))
            .output()
            .expect("the binary was built for the tests");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    #[track_caller]
    fn succeeds(&self, arguments: &[&str]) -> String {
        let (is_done, said) = self.exocom(arguments);
        assert!(is_done, "{arguments:?}: {said}");
        said
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeeds(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    fn restart(self) -> Self {
        let Self { ca, broker, folder } = self;
        Self {
            ca,
            broker: broker.restart(),
            folder,
        }
    }
}

fn id(identity: &str) -> String {
    format!("spiffe://shop.example/{identity}")
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&exocom::net::tls::fingerprint(certificate))
}

/// It is there, and nobody has told it anything.
#[track_caller]
fn check_alive(raw: &mut Raw) {
    raw.send(b"PING\r\n");
    assert_eq!(raw.line(), "PONG");
}
