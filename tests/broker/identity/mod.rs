//! Who a certificate speaks for: every rule, asked of the verifier alone and over a real handshake with a running
//! broker. A refused client gets nothing, and a line in the log says which rule and whose certificate.

mod chain;
mod characters;
mod documented;
mod keys;
mod revocation;
mod spiffe;
mod tls;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use exocom::identity::{Role, describe};
use exocom::net::tls::{ClientVerifier, TlsConfigError, provider};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::{ClientConfig, HandshakeKind};
use time::Duration;

use crate::pki::{self, Ca, Shown, WEB, pem, raw_uri, tls_showing, tlv, uri};
use crate::support::{Broker, Raw, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "shop.example"

[service.web]
sends = ["orders.place"]

[service.orders]
receives = ["orders.place"]

[operator.alice]
may = ["view"]
"#;

const LIFE_DAYS_MAX: u32 = 398;

/// What becomes of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// It gets a session as this service.
    Session(&'static str),
    /// It is who it says, and the policy does not let it in, for this reason.
    NotAdmitted(&'static str, &'static str),
    /// The handshake is refused, by this rule.
    Refused(&'static str),
}
use Outcome::{NotAdmitted, Refused, Session};

/// The roots of two trust domains, and one of nobody's.
struct World {
    shop: Ca,
    partner: Ca,
    stranger: Ca,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self {
            shop: Ca::root("shop"),
            partner: Ca::root("partner"),
            stranger: Ca::root("stranger"),
            folder: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    fn verifier(&self, crls: Option<Vec<CertificateRevocationListDer<'static>>>) -> ClientVerifier {
        let roots = vec![
            ("shop.example".to_owned(), vec![self.shop.cert.clone()]),
            ("partner.example".to_owned(), vec![self.partner.cert.clone()]),
        ];
        ClientVerifier::new(&provider(), roots, crls, LIFE_DAYS_MAX).expect("good roots")
    }

    /// A broker that believes these roots.
    fn broker(&self, crls: Option<&[CertificateRevocationListDer<'static>]>) -> Broker {
        let file = |name: &str, text: String| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("the folder takes a file");
            toml::Value::String(path.display().to_string())
        };
        let shop = file("shop.pem", pem("CERTIFICATE", [&*self.shop.cert]));
        let partner = file("partner.pem", pem("CERTIFICATE", [&*self.partner.cert]));
        let crls = crls.map_or(String::new(), |crls| {
            let crls = file("crls.pem", pem("X509 CRL", crls.iter().map(|crl| &**crl)));
            format!("crls = [{crls}]")
        });
        let config = format!(
            r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.main]
address = "127.0.0.1:0"
roots = [{shop}, {{ trust-domain = "partner.example", file = {partner} }}]
{crls}

[limits]
lame-duck-ms = 0
"#
        );
        Broker::serve(POLICY, &config)
    }
}

fn now_unix_s() -> i64 {
    exocom::net::clock::Clock::unix_s()
}

/// What the verifier alone says.
fn asked(verifier: &ClientVerifier, shown: &Shown) -> Result<String, &'static str> {
    let identity = verifier.identify(&shown.chain, now_unix_s());
    let identity = identity.map_err(|refused| refused.rule)?;
    Ok(format!("spiffe://{}/{}", identity.trust_domain, identity.role))
}

/// Checks a client against both; nothing but what is expected may happen in the broker.
fn check(verifier: &ClientVerifier, broker: &Broker, name: &str, shown: &Shown, expected: &Outcome) {
    let id = match expected {
        Session(service) => Ok(format!("spiffe://shop.example/{service}")),
        NotAdmitted(id, _) => Ok((*id).to_owned()),
        Refused(rule) => Err(*rule),
    };
    assert_eq!(asked(verifier, shown), id, "{name}: the verifier alone");
    let before = broker.status();
    let log_before = broker.log().len();
    let heard = hear(
        broker.address(),
        &Arc::new(tls_showing(&broker.cert("ca.pem"), shown)),
    );
    match expected {
        Session(service) => {
            let (heard, mut raw) = heard.unwrap_or_else(|| panic!("{name}: no handshake"));
            assert!(heard.starts_with("INFO "), "{name}: {heard}");
            let connections = broker.status()["connections"].clone();
            assert_eq!(connections[0]["sender"], *service, "{name}");
            raw.send(b"CONNECT {\"verbose\":false}\r\nPING\r\n");
            assert_eq!(raw.line(), "PONG", "{name}");
            drop(raw);
            wait_for("the end of the session", || {
                broker.status()["connections"] == serde_json::json!([])
            });
        }
        NotAdmitted(_, reason) => {
            let (heard, mut raw) = heard.unwrap_or_else(|| panic!("{name}: no handshake"));
            assert!(heard.starts_with("INFO "), "{name}: {heard}");
            assert_eq!(raw.rest(), "-ERR 'Authorization Violation'\r\n", "{name}");
            check_refused(broker, name, reason, &before);
        }
        Refused(rule) => {
            assert!(
                heard.is_none(),
                "{name}: got {heard:?}",
                heard = heard.map(|(heard, _)| heard)
            );
            check_refused(broker, name, rule, &before);
            let log = broker.log();
            let lines: Vec<_> = log[log_before..].lines().collect();
            assert_eq!(lines.len(), 1, "{name}: {lines:#?}");
            assert!(
                lines[0].contains(&format!("rule=\"{rule}\"")),
                "{name}: {}",
                lines[0]
            );
            let whose = format!("certificate={:?}", describe(&shown.chain[0]));
            assert!(lines[0].contains(&whose), "{name}: {} has no {whose}", lines[0]);
        }
    }
}

/// One client more has been refused, by this rule, and nothing else has happened.
fn check_refused(broker: &Broker, name: &str, rule: &str, before: &serde_json::Value) {
    let count = |status: &serde_json::Value| status["counts"]["refused"][rule].as_u64().unwrap_or(0);
    wait_for("the refusal to be counted", || {
        count(&broker.status()) == count(before) + 1
    });
    let after = broker.status();
    let mut expected = before.clone();
    expected["counts"]["refused"][rule] = (count(before) + 1).into();
    expected["counts"]["accepted"] = (before["counts"]["accepted"].as_u64().expect("a number") + 1).into();
    for of_its_time in ["uptime_s", "rates_over_s"] {
        expected[of_its_time] = after[of_its_time].clone();
    }
    expected["counts"]["half_open"] = after["counts"]["half_open"].clone();
    assert_eq!(after, expected, "{name}: something else happened");
}

/// The first line that a client hears, and its connection; `None` where it hears nothing.
fn hear(address: SocketAddr, tls: &Arc<ClientConfig>) -> Option<(String, Raw)> {
    let mut raw = Raw::connect(address, tls).ok()?;
    // A refusal is an alert, which the TLS library gives as an error.
    let line = raw.try_line().ok()??;
    Some((line, raw))
}

fn drop_san(params: &mut CertificateParams) {
    params.subject_alt_names.clear();
}

fn refused(broker: &Broker) -> u64 {
    let counts = broker.status()["counts"]["refused"].clone();
    let counts = counts.as_object().expect("a table");
    counts.values().filter_map(serde_json::Value::as_u64).sum()
}

fn ca(broker: &Broker) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(broker.cert("ca.pem")).expect("a root in PEM")
}
