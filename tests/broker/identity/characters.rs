//! Characters that mean something to a terminal, a log, a pattern or JSON, in every field of a certificate: they come
//! in nowhere as what they are.

use rcgen::DnValue;

use super::*;

/// What somebody might hope to get past us.
const HOSTILE: &[&str] = &[
    "*",
    ">",
    "web.*",
    "orders.>",
    "web\n2026-01-01T00:00:00Z  INFO all is well",
    "web\r\nExo-Sender: root",
    "\u{1b}[2J\u{1b}[31mred",
    "\u{9b}31m",
    "\"},{\"sender\":\"root\"",
    "'; DROP TABLE services; --",
    "web\0root",
    "web\u{202e}toor",
    "\u{2028}line",
    "web\u{7f}",
];

/// Nothing of it may reach a person or a program raw.
fn check_clean(what: &str, text: &str) {
    let control = |char: char| {
        let is_hidden =
            matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        is_hidden || (char.is_control() && char != '\n')
    };
    assert_eq!(text.find(control), None, "{what}: {text:?}");
}

#[test]
fn of_no_field_do_hostile_characters_reach_anybody() {
    let world = World::new();
    let broker = world.broker(None);
    let verifier = world.verifier(None);
    for hostile in HOSTILE {
        let of_subject = world.shop.leaf(|params| {
            for kind in [
                DnType::CommonName,
                DnType::OrganizationName,
                DnType::OrganizationalUnitName,
            ] {
                params
                    .distinguished_name
                    .push(kind, DnValue::Utf8String((*hostile).to_owned()));
            }
        });
        // Names beside the URI do not count; the service is the URI's.
        check(&verifier, &broker, hostile, &of_subject, &Session("web"));
        for id in [
            format!("spiffe://shop.example/{hostile}"),
            format!("spiffe://{hostile}/web"),
            format!("spiffe://shop.example/operator/{hostile}"),
            (*hostile).to_owned(),
        ] {
            let shown = world.shop.leaf(|params| {
                params.subject_alt_names.clear();
                params.custom_extensions.push(raw_uri(id.as_bytes()));
            });
            let rule = asked(&verifier, &shown).expect_err("no identity");
            check(&verifier, &broker, &id, &shown, &Refused(rule));
        }
        let file = broker.path("shown.pem");
        std::fs::write(&file, pem("CERTIFICATE", [&*of_subject.chain[0]])).expect("the folder takes a file");
        for json in [false, true] {
            let mut show = Command::new(crate::support::EXOCOM);
            show.args(["certs", "show"]).arg(&file);
            show.arg("--config").arg(broker.path("serve.toml"));
            if json {
                show.arg("--json");
            }
            let output = show.output().expect("the binary was built for the tests");
            let said =
                String::from_utf8(output.stdout).expect("UTF-8") + &String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("spiffe://shop.example/web"), "{said}");
            check_clean("certs show", &said);
        }
    }
    check_clean("the log", &broker.log());
    check_clean("the status", &broker.status().to_string());
}
