//! The room as a whole: mistakes as people see them, decisions against a naive model, hostile text.

mod evidence;
mod hostile;
mod lints;
mod mistakes;
mod naive;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::testing::{all_names, any_name, any_pattern};
use super::*;
use crate::identity::{Identity, Role};
use crate::wire::name::{MessageName, Pattern, Token};

const TOP: &str = "version = 1\ntrust-domain = \"todo.example\"\n";

const TODO: &str = r#"
[service.web]
zone = "dmz"
sends = ["todos.list", "todos.create"]
receives = ["todos.created"]

[service.todos]
zone = "data"
sends = ["todos.created"]
receives = ["todos.*"]
receives-except = ["todos.created"]

[service.roamer]
receives = ["todos.created"]

[message."todos.created"]
kind = "event"

[operator.alice]
may = ["view", "replay"]
"#;

fn source(name: &str, text: &str) -> Source {
    Source {
        name: name.to_owned(),
        text: text.to_owned(),
    }
}

fn compiled(text: &str) -> Compiled {
    Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]).unwrap_or_else(|error| {
        panic!("{}", error.diagnostics().render(false));
    })
}

fn policy(text: &str) -> Policy {
    compiled(text).policy
}

fn identity(role: Role) -> Identity {
    Identity {
        trust_domain: "todo.example".into(),
        role,
        serial: "1".into(),
        expires_unix_s: 0,
    }
}

fn service(name: &str) -> Identity {
    identity(Role::Service(name.into()))
}

fn operator(name: &str) -> Identity {
    identity(Role::Operator(name.into()))
}

fn name(text: &str) -> MessageName {
    MessageName::new(text).unwrap()
}

mod decisions {
    use super::*;

    #[test]
    fn of_the_tutorial() {
        let policy = policy(TODO);
        let check = |who: &str, action, what: &str, expected: Result<&str, (DenialReason, &str)>| {
            let found = policy.decide(&service(who), action, &name(what));
            let found = found
                .map(|permit| permit.rule().to_string())
                .map_err(|denial| (denial.reason(), denial.rule_or_no_grant().to_string()));
            let expected = expected
                .map(str::to_owned)
                .map_err(|(reason, rule)| (reason, rule.to_owned()));
            assert_eq!(found, expected, "{who} {action:?} {what}");
        };
        use Action::{Receive, Send};
        check("web", Send, "todos.list", Ok("p.toml:6"));
        check(
            "web",
            Send,
            "todos.delete",
            Err((DenialReason::NoGrant, "no grant")),
        );
        check("web", Send, "todos", Err((DenialReason::NoGrant, "no grant")));
        check("web", Receive, "todos.created", Ok("p.toml:7"));
        check(
            "web",
            Receive,
            "todos.list",
            Err((DenialReason::NoGrant, "no grant")),
        );
        check("todos", Receive, "todos.list", Ok("p.toml:12"));
        check(
            "todos",
            Receive,
            "todos.created",
            Err((DenialReason::Excepted, "p.toml:13")),
        );
        check(
            "nobody",
            Send,
            "todos.list",
            Err((DenialReason::UnknownService, "no grant")),
        );
        let denied = |identity: &Identity| {
            policy
                .decide(identity, Send, &name("todos.list"))
                .unwrap_err()
                .reason()
        };
        assert_eq!(denied(&operator("alice")), DenialReason::NotAService);
        assert_eq!(denied(&operator("web")), DenialReason::NotAService);
        let foreign = Identity {
            trust_domain: "evil.example".into(),
            ..service("web")
        };
        assert_eq!(denied(&foreign), DenialReason::WrongTrustDomain);
    }

    #[test]
    fn of_subscriptions() {
        let policy = policy(
            "[service.a]\nreceives = [\"a.*\", \"a.*.>\", \"b.*\", \"c\"]\nreceives-except = [\"b.secret\"]",
        );
        let check = |pattern: &str, expected: Result<u32, DenialReason>| {
            let found = policy.decide_subscription(&service("a"), &Pattern::new(pattern).unwrap());
            let found = found
                .map(|permit| permit.rule().line)
                .map_err(|denial| denial.reason());
            assert_eq!(found, expected, "{pattern}");
        };
        check("a.>", Ok(4));
        check("c", Ok(4));
        check("b.x", Ok(4));
        check("b.*", Err(DenialReason::Excepted));
        check("*.x", Err(DenialReason::MoreThanGranted));
        check("d", Err(DenialReason::NoGrant));
    }

    #[test]
    fn of_connections() {
        let policy = policy(TODO);
        let check = |who: &Identity, zone: Option<&str>, expected: Result<&str, DenialReason>| {
            let found = policy.admit(who, zone).map_err(|denial| denial.reason());
            assert_eq!(
                found.as_ref().map(|a| &**a.service()).map_err(|r| *r),
                expected,
                "{who:?} {zone:?}"
            );
        };
        check(&service("web"), Some("dmz"), Ok("web"));
        check(&service("web"), Some("data"), Err(DenialReason::WrongZone));
        check(&service("web"), None, Ok("web"));
        check(&service("roamer"), Some("data"), Ok("roamer"));
        check(&service("nobody"), None, Err(DenialReason::UnknownService));
        check(&operator("alice"), None, Err(DenialReason::NotAService));
        let foreign = Identity {
            trust_domain: "evil.example".into(),
            ..service("web")
        };
        check(&foreign, None, Err(DenialReason::WrongTrustDomain));
        let denial = policy.admit(&service("web"), Some("data")).unwrap_err();
        assert_eq!(
            denial.to_string(),
            "the service belongs to another zone (p.toml:5)"
        );
    }

    #[test]
    fn of_operators() {
        let policy = policy(TODO);
        let alice = policy.operator(&operator("alice")).unwrap();
        assert_eq!(
            alice.may(Capability::View).unwrap().rule().to_string(),
            "p.toml:22"
        );
        let denial = alice.may(Capability::Revoke).unwrap_err();
        assert_eq!(denial.reason(), DenialReason::NotCapable(Capability::Revoke));
        let denied = |identity: &Identity| policy.operator(identity).unwrap_err().reason();
        assert_eq!(denied(&operator("bob")), DenialReason::UnknownOperator);
        assert_eq!(denied(&service("alice")), DenialReason::NotAnOperator);
        let foreign = Identity {
            trust_domain: "evil.example".into(),
            ..operator("alice")
        };
        assert_eq!(denied(&foreign), DenialReason::WrongTrustDomain);
    }
}

mod terms {
    use super::*;

    #[test]
    fn each_key_comes_from_the_most_specific_pattern_that_sets_it() {
        let policy = policy(
            r#"
[message.">"]
audit = "each"
reply-within = "1s"
[message."orders.*"]
kind = "event"
reply-within = "2s"
[message."orders.created"]
reply-within = "3s"
payload-max = "64KiB"
[message."*.created"]
kind = "command"
reply-within = "4s"
"#,
        );
        let terms = policy.terms(&name("orders.created"));
        assert_eq!(terms.reply_within, Duration::from_secs(3));
        assert_eq!(terms.payload_max, Some(65_536));
        assert_eq!(terms.kind, Kind::Event);
        assert_eq!(terms.audit, Audit::Each);
        assert_eq!(terms.attempts, 5);
        assert_eq!(
            policy.terms(&name("x.created")).reply_within,
            Duration::from_secs(4)
        );
        assert_eq!(policy.terms(&name("x")).reply_within, Duration::from_secs(1));
    }

    #[test]
    fn unset_keys_have_the_documented_defaults() {
        let terms = policy("").terms(&name("x"));
        let expected = Terms {
            kind: Kind::Command,
            delivery: Delivery::AtMostOnce,
            reply_within: Duration::from_secs(10),
            ack_within: Duration::from_secs(30),
            attempts: 5,
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            expires: Duration::from_secs(86_400),
            audit: Audit::Flow,
            payload_max: None,
            limits: None,
            alarms: None,
        };
        assert_eq!(terms, expected);
    }

    #[test]
    fn every_key_is_read() {
        let policy = policy(
            r#"
[message.x]
kind = "event"
delivery = "at-least-once"
reply-within = "5s"
ack-within = "10s"
attempts = 7
backoff = "2s..3m"
expires = "7d"
audit = "each"
payload-max = "512B"
limits = {rate = "5/m", burst = 7}
alarms = {sensitivity = "low"}
"#,
        );
        let expected = Terms {
            kind: Kind::Event,
            delivery: Delivery::AtLeastOnce,
            reply_within: Duration::from_secs(5),
            ack_within: Duration::from_secs(10),
            attempts: 7,
            backoff: Backoff {
                first: Duration::from_secs(2),
                longest: Duration::from_secs(180),
            },
            expires: Duration::from_secs(7 * 86_400),
            audit: Audit::Each,
            payload_max: Some(512),
            limits: policy.terms(&name("x")).limits,
            alarms: Some(Alarms::On(Sensitivity::Low)),
        };
        let terms = policy.terms(&name("x"));
        assert_eq!(terms, expected);
        let limits = terms.limits.map(|limits| limits.to_string());
        assert_eq!(limits.as_deref(), Some(r#"{rate = "5/m", burst = 7}"#));
        let durable: Vec<_> = policy
            .requires_durable_delivery()
            .map(|(pattern, rule)| (pattern.as_str(), rule.to_string()))
            .collect();
        assert_eq!(durable, [("x", "p.toml:6".to_owned())]);
    }

    #[test]
    fn are_written_as_a_policy_has_them() {
        let check = |terms: Terms, expected: [(&str, Option<&str>); 11]| {
            let written: Vec<_> = terms.written().collect();
            let expected = expected.map(|(key, value)| (key, value.map(str::to_owned)));
            assert_eq!(written, expected);
        };
        check(
            Terms::default(),
            [
                ("kind", Some("command")),
                ("delivery", Some("at-most-once")),
                ("reply-within", Some("10s")),
                ("ack-within", Some("30s")),
                ("attempts", Some("5")),
                ("backoff", Some("1s..1m")),
                ("expires", Some("1d")),
                ("audit", Some("flow")),
                ("payload-max", None),
                ("limits", None),
                ("alarms", None),
            ],
        );
        let set = policy(
            "[message.x]\nkind = \"event\"\ndelivery = \"at-least-once\"\naudit = \"each\"\n\
             payload-max = \"64KiB\"\nlimits = {rate = \"5/m\", burst = 7}\nalarms = \"off\"",
        );
        check(
            set.terms(&name("x")),
            [
                ("kind", Some("event")),
                ("delivery", Some("at-least-once")),
                ("reply-within", Some("10s")),
                ("ack-within", Some("30s")),
                ("attempts", Some("5")),
                ("backoff", Some("1s..1m")),
                ("expires", Some("1d")),
                ("audit", Some("each")),
                ("payload-max", Some("64KiB")),
                ("limits", Some("{rate = \"5/m\", burst = 7}")),
                ("alarms", Some("off")),
            ],
        );
    }

    #[test]
    fn a_message_has_the_limits_of_the_most_specific_pattern_that_sets_some() {
        let policy = policy(
            r#"
[service.web]
sends = ["orders.created", "orders.paid", "users.list"]
[message."orders.>"]
limits = {rate = "5/s"}
[message."orders.created"]
limits = {rate = "1/s"}
[message."orders.paid"]
kind = "event"
"#,
        );
        let check = |sent: &str, expected: &[&str]| {
            let permit = policy.decide(&service("web"), Action::Send, &name(sent)).unwrap();
            let rules: Vec<_> = permit
                .limits()
                .iter()
                .map(|limit| limit.rule.to_string())
                .collect();
            assert_eq!(rules, expected, "{sent}");
        };
        check("orders.created", &["p.toml:9"]);
        check("orders.paid", &["p.toml:7"]);
        check("users.list", &[]);
    }
}

#[test]
fn a_message_says_of_its_alarms_what_its_service_does_not() {
    let policy = policy(
        r#"
[alarms]
new-flow-after = "7d"
[service.web]
alarms = "off"
[service.todos]
alarms = {sensitivity = "high"}
[message."a.>"]
alarms = {sensitivity = "low"}
[message."a.b"]
alarms = "default"
[message."c.>"]
audit = "each"
"#,
    );
    let check = |sender: &str, message: Option<&str>, expected: &str| {
        let found = policy.alarms(sender, message).to_string();
        assert_eq!(found, expected, "{sender} {message:?}");
    };
    check("web", None, "off");
    check("web", Some("x"), "off");
    check("web", Some("c.d"), "off");
    check("web", Some("a.c"), "{sensitivity = \"low\"}");
    check("web", Some("a.b"), "default");
    // Of messages past the bound of names that are known, the service's.
    check("web", Some(">"), "off");
    check("todos", Some("x"), "{sensitivity = \"high\"}");
    check("todos", Some("a.b"), "default");
    check("nobody", Some("x"), "default");
    check("nobody", None, "default");
    assert_eq!(policy.new_flows().to_string(), "7d");
}

mod snapshots {
    use super::*;

    #[test]
    fn the_version_depends_on_names_and_texts_and_on_nothing_else() {
        let (a, b) = (source("a.toml", TOP), source("b.toml", TODO));
        let version = |sources: &[Source]| Policy::compile(sources).unwrap().policy.version().to_owned();
        let expected = version(&[a.clone(), b.clone()]);
        assert_eq!(version(&[b.clone(), a.clone()]), expected);
        let elsewhere = [
            source("/etc/exocom/a.toml", TOP),
            source("/etc/exocom/b.toml", TODO),
        ];
        assert_eq!(version(&elsewhere), expected);
        assert_ne!(version(&[a.clone(), source("c.toml", TODO)]), expected);
        assert_ne!(
            version(&[a, source("b.toml", &format!("{TODO}# reviewed"))]),
            expected
        );
        assert_eq!(expected.len(), 12);
        assert!(expected.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn what_is_listed_can_be_read() {
        let policy = policy(TODO);
        assert_eq!(policy.trust_domain(), "todo.example");
        let names: Vec<_> = policy.services().map(|service| &**service.name()).collect();
        assert_eq!(names, ["roamer", "todos", "web"]);
        let web = policy.service("web").unwrap();
        assert_eq!(web.on_alarm(), OnAlarm::Tell);
        assert_eq!(web.zone().map(|zone| &**zone), Some("dmz"));
        assert_eq!(web.sends().len(), 2);
        assert_eq!(web.rule().to_string(), "p.toml:4");
        let held = self::policy("[service.a]\non-alarm = \"quarantine\"\n[service.b]\non-alarm = \"tell\"");
        let on_alarm = |service| held.service(service).unwrap().on_alarm();
        assert_eq!(on_alarm("a"), OnAlarm::Quarantine);
        assert_eq!(on_alarm("b"), OnAlarm::Tell);
        assert!(policy.service("alice").is_none());
        assert_eq!(
            policy
                .operators()
                .map(|operator| &**operator.name())
                .collect::<Vec<_>>(),
            ["alice"]
        );
    }
}

#[test]
fn policies_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &Arc<T>) {}
    shared(&Arc::new(policy(TODO)));
}
