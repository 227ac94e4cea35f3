//! The example policies: each is sound, and decides as its comments say. A new file in policies/ needs its table
//! here.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use exocom::identity::{Identity, Role};
use exocom::policy::{Action, Audit, Capability, Compiled, Delivery, Kind, Policy};
use exocom::policy_files::{load_expectations, load_sources};
use exocom::review::{judge, layout, schema};
use exocom::wire::name::{MessageName, Pattern};

use Action::{Receive, Send};

/// The policies that have a table below.
const TESTED: [&str; 2] = ["shop.toml", "todo.toml"];

#[test]
fn every_policy_is_tested_and_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let files = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|file| file.ends_with(".toml"));
    assert_eq!(files.collect::<BTreeSet<_>>(), TESTED.map(str::to_owned).into());
    for file in TESTED {
        let compiled = compiled(file);
        assert!(
            compiled.warnings.is_empty(),
            "{}",
            compiled.warnings.render(false)
        );
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(layout(&text).unwrap(), text, "exocom policy fmt policies/{file}");
        let expectations = load_expectations(&[folder.join(file)]).unwrap();
        let verdict = judge(&compiled.policy, &expectations);
        assert!(verdict.met > 0 && verdict.failed == 0, "{file}: {verdict:?}");
    }
}

#[test]
fn the_schema_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/policy.schema.json");
    let current = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    assert!(
        fs::read_to_string(file).is_ok_and(|kept| kept == current),
        "exocom policy schema > policies/policy.schema.json"
    );
}

#[test]
fn todo() {
    let example = Example::load("todo.toml");
    example.sends("web", "todos.list", Ok("sends"));
    example.sends("web", "todos.create", Ok("sends"));
    example.sends("web", "todos.created", Err("no grant"));
    example.sends("web", "todos.delete", Err("no grant"));
    example.sends("todos", "todos.created", Ok("sends"));
    example.sends("todos", "todos.list", Err("no grant"));
    example.sends("stranger", "todos.list", Err("no grant"));
    example.receives("todos", "todos.delete", Ok("receives"));
    example.receives("todos", "todos.created", Err("receives-except"));
    example.receives("web", "todos.created", Ok("receives"));
    example.subscribes("todos", "todos.list", Ok("receives"));
    example.subscribes("todos", "todos.*", Err("receives-except"));
    example.subscribes("web", "todos.>", Err("no grant"));
    example.admits("web", Some("dmz"), Ok("[service.web]"));
    example.admits("web", Some("data"), Err("zone"));
    example.admits("web", None, Ok("[service.web]"));
    example.admits("stranger", None, Err("no grant"));
    assert_eq!(example.terms("todos.created").kind, Kind::Event);
    assert_eq!(example.terms("todos.list").kind, Kind::Command);
    assert_eq!(example.terms("todos.create").delivery, Delivery::AtLeastOnce);
    assert_eq!(example.terms("todos.list").delivery, Delivery::AtMostOnce);
}

#[test]
fn shop() {
    let example = Example::load("shop.toml");
    // The edge may ask, and be told.
    example.sends("storefront", "orders.place", Ok("sends"));
    example.sends("storefront", "catalog.change", Err("no grant"));
    example.sends("storefront", "payments.charge", Err("no grant"));
    example.receives("storefront", "orders.placed", Ok("receives"));
    example.receives("storefront", "orders.place", Err("no grant"));
    // The catalog hears every command about it, also those to come, but not its own event.
    example.receives("catalog", "catalog.show", Ok("receives"));
    example.receives("catalog", "catalog.not-yet-thought-of", Ok("receives"));
    example.receives("catalog", "catalog.changed", Err("receives-except"));
    example.receives("catalog", "catalog.pictures.add", Err("no grant"));
    example.subscribes("catalog", "catalog.*", Err("receives-except"));
    // A wildcard is one token, a final one many.
    example.receives("orders", "payments.settled.card", Ok("receives"));
    example.receives("orders", "payments.settled.card.late", Err("no grant"));
    example.receives("mailer", "payments.settled.card.late", Ok("receives"));
    example.subscribes("mailer", "payments.settled.>", Ok("receives"));
    example.subscribes("orders", "payments.settled.>", Err("no grant"));
    // Reports hears what happened, and is asked nothing of it.
    example.receives("reports", "orders.placed", Ok("receives"));
    example.receives("reports", "orders.place", Err("receives-except"));
    example.sends("reports", "orders.place", Err("no grant"));
    // Only the core talks about money.
    for service in [
        "storefront",
        "back-office",
        "catalog",
        "stock",
        "shipping",
        "mailer",
        "reports",
    ] {
        example.sends(service, "payments.charge", Err("no grant"));
        example.receives(service, "payments.charge", Err("no grant"));
    }
    example.sends("orders", "payments.charge", Ok("sends"));
    example.receives("payments", "payments.charge", Ok("receives"));
    // Zones; the mailer may be anywhere.
    example.admits("storefront", Some("dmz"), Ok("[service.storefront]"));
    example.admits("storefront", Some("core"), Err("zone"));
    example.admits("back-office", Some("dmz"), Err("zone"));
    for zone in ["dmz", "office", "core"] {
        example.admits("mailer", Some(zone), Ok("[service.mailer]"));
    }

    // How messages travel: each key from the most specific pattern that sets it.
    let check = |name: &str, reply_ms: u64, payload_kib: usize, kind: Kind, audit: Audit| {
        let terms = example.terms(name);
        assert_eq!(terms.reply_within, Duration::from_millis(reply_ms), "{name}");
        assert_eq!(terms.payload_max, Some(payload_kib << 10), "{name}");
        assert_eq!((terms.kind, terms.audit), (kind, audit), "{name}");
    };
    check("orders.place", 5_000, 64, Kind::Command, Audit::Flow);
    check("catalog.search", 800, 64, Kind::Command, Audit::Flow);
    check("catalog.change", 5_000, 1_024, Kind::Command, Audit::Flow);
    check("payments.charge", 30_000, 64, Kind::Command, Audit::Each);
    check("payments.settled.card", 5_000, 64, Kind::Event, Audit::Each);
    check("reports.daily", 600_000, 64, Kind::Command, Audit::Flow);
    check("orders.placed", 5_000, 64, Kind::Event, Audit::Flow);
    let durable = example.terms("orders.placed");
    assert_eq!((durable.delivery, durable.attempts), (Delivery::AtLeastOnce, 8));
    assert_eq!(example.terms("orders.cancelled").delivery, Delivery::AtMostOnce);

    let placed = example.terms("orders.placed");
    assert_eq!((placed.delivery, placed.attempts), (Delivery::AtLeastOnce, 8));
    assert_eq!(example.terms("orders.cancelled").delivery, Delivery::AtMostOnce);

    // Who operates it.
    let may = |operator: &str, capability: Capability| {
        let identity = example.identity(Role::Operator(operator.into()));
        example
            .policy
            .operator(&identity)
            .is_ok_and(|operator| operator.may(capability).is_ok())
    };
    assert!(may("alice", Capability::ApplyPolicy) && may("alice", Capability::Replay));
    assert!(may("on-call", Capability::Quarantine) && !may("on-call", Capability::ApplyPolicy));
    assert!(may("auditor", Capability::View) && !may("auditor", Capability::Quarantine));
    assert!(!may("mallory", Capability::View));
}

fn compiled(file: &str) -> Compiled {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("policies")
        .join(file);
    let sources = load_sources(&[path]).unwrap_or_else(|error| panic!("{error}"));
    Policy::compile(&sources).unwrap_or_else(|errors| panic!("{}", errors.diagnostics().render(false)))
}

/// What is expected: allowed or denied, by the line that begins with this.
type Expected = Result<&'static str, &'static str>;

struct Example {
    policy: Policy,
    lines: Vec<String>,
}

impl Example {
    fn load(file: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies").join(file);
        let text = fs::read_to_string(path).unwrap();
        Self {
            policy: compiled(file).policy,
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    #[track_caller]
    fn sends(&self, service: &str, name: &str, expected: Expected) {
        self.decides(service, Send, name, expected);
    }

    #[track_caller]
    fn receives(&self, service: &str, name: &str, expected: Expected) {
        self.decides(service, Receive, name, expected);
    }

    #[track_caller]
    fn decides(&self, service: &str, action: Action, name: &str, expected: Expected) {
        let decided = self
            .policy
            .decide(&self.service(service), action, &MessageName::new(name).unwrap());
        let decided = decided
            .map(|permit| permit.rule().to_string())
            .map_err(|denial| denial.rule_or_no_grant().to_string());
        self.judge(decided, expected, &format!("{service} {action:?} {name}"));
    }

    #[track_caller]
    fn subscribes(&self, service: &str, pattern: &str, expected: Expected) {
        let decided = self
            .policy
            .decide_subscription(&self.service(service), &Pattern::new(pattern).unwrap());
        let decided = decided
            .map(|permit| permit.rule().to_string())
            .map_err(|denial| denial.rule_or_no_grant().to_string());
        self.judge(decided, expected, &format!("{service} subscribes {pattern}"));
    }

    #[track_caller]
    fn admits(&self, service: &str, zone: Option<&str>, expected: Expected) {
        let decided = self.policy.admit(&self.service(service), zone);
        let decided = decided
            .map(|admission| admission.rule().to_string())
            .map_err(|denial| denial.rule_or_no_grant().to_string());
        self.judge(decided, expected, &format!("{service} at {zone:?}"));
    }

    #[track_caller]
    fn judge(&self, decided: Result<String, String>, expected: Expected, what: &str) {
        let key = |rule: String| match rule.rsplit_once(':') {
            Some((_, line)) => {
                let line = &self.lines[line.parse::<usize>().unwrap() - 1];
                line.split([' ', '=']).next().unwrap().to_owned()
            }
            None => rule,
        };
        let decided = decided.map(key).map_err(key);
        assert_eq!(decided.as_deref().map_err(String::as_str), expected, "{what}");
    }

    fn terms(&self, name: &str) -> exocom::policy::Terms {
        self.policy.terms(&MessageName::new(name).unwrap())
    }

    fn service(&self, name: &str) -> Identity {
        self.identity(Role::Service(name.into()))
    }

    fn identity(&self, role: Role) -> Identity {
        Identity {
            trust_domain: self.policy.trust_domain().into(),
            role,
            serial: "1".into(),
            expires_unix_s: i64::MAX,
        }
    }
}
