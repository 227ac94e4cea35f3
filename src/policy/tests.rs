//! The room as a whole: mistakes as people see them, decisions against a naive model, hostile text.

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

mod mistakes {
    use super::*;

    /// One snapshot for all mistakes of a kind, so that they are read side by side.
    fn rendered(texts: &[&str]) -> String {
        let refused = |text: &&str| match Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]) {
            Err(errors) => errors.diagnostics().render(false),
            Ok(_) => format!("NOT REFUSED: {text}\n"),
        };
        texts.iter().map(refused).collect()
    }

    #[test]
    fn in_keys() {
        insta::assert_snapshot!(rendered(&[
            "[service.web]\nrecieves = [\"a\"]",
            "[service.web]\npublishes = [\"a\"]",
            "[services.web]\nsends = [\"a\"]",
            "[message.\"a\"]\nreply_within = \"1s\"",
            "[message.todos.create]\nreply-within = \"1s\"",
            "[operator.alice]\ncan = [\"view\"]",
        ]));
    }

    #[test]
    fn in_values() {
        insta::assert_snapshot!(rendered(&[
            "[message.a]\nkind = \"evnt\"",
            "[message.a]\ndelivery = \"exactly-once\"",
            "[message.a]\naudit = true",
            "[message.a]\nreply-within = 10",
            "[message.a]\nreply-within = \"10 seconds\"",
            "[message.a]\nreply-within = \"2h\"",
            "[message.a]\nack-within = \"2d\"",
            "[message.a]\nexpires = \"0s\"",
            "[message.a]\nattempts = 0",
            "[message.a]\nattempts = 99999999999999999999999999999999999999",
            "[message.a]\nattempts = \"5\"",
            "[message.a]\nbackoff = \"1m\"",
            "[message.a]\nbackoff = \"1m..1s\"",
            "[message.a]\npayload-max = \"64KB\"",
            "[message.a]\npayload-max = \"1GiB\"",
            "[message.a]\npayload-max = \"100MiB\"",
            "[operator.alice]\nmay = [\"veiw\"]",
        ]));
    }

    #[test]
    fn in_names() {
        insta::assert_snapshot!(rendered(&[
            "[service.\"web app\"]\nsends = []",
            "[service.operator]\nsends = []",
            "[service.web]\nzone = \"\"",
            "[service.web]\nsends = [\"todos..list\"]",
            "[service.web]\nsends = [\"$SYS.x\", \"_INBOX.>\"]",
            "[service.web]\nreceives = [\"todos.>.x\"]",
            "[service.web]\nreceives = [\"todos list\"]",
            "[message.\"a*\"]\nkind = \"event\"",
            "[operator.\"al/ice\"]\nmay = []",
        ]));
    }

    #[test]
    fn in_shapes() {
        insta::assert_snapshot!(rendered(&[
            "[service.web]\nsends = \"todos.list\"",
            "[service.web]\nsends = [1, \"a\"]",
            "[service]\nweb = 3",
            "[[service.web]]\nsends = []",
            "[operator.alice]",
            "[service.web]\nsends = [todos.list]",
            "[service.web\nsends = []",
        ]));
    }

    #[test]
    fn in_duplicates_within_a_file() {
        insta::assert_snapshot!(rendered(&[
            "[service.web]\nsends = [\"a\"]\n\n[service.web]\nreceives = [\"b\"]",
            "[service.web]\nsends = [\"a\"]\nzone = \"dmz\"\nsends = [\"b\"]",
        ]));
    }

    #[test]
    fn all_are_found_at_once() {
        insta::assert_snapshot!(rendered(&[
            "[service.web]\nrecieves = [\"a\"]\nsends = [\"a..b\"]\n[message.a]\nkind = \"evnt\"\nattempts = 0",
        ]));
    }

    #[test]
    fn at_the_top() {
        let check = |text: &str| match Policy::compile(&[source("p.toml", text)]) {
            Err(errors) => errors.diagnostics().render(false),
            Ok(_) => format!("NOT REFUSED: {text}\n"),
        };
        insta::assert_snapshot!(
            [
                "",
                "version = 2\ntrust-domain = \"todo.example\"",
                "version = \"1\"\ntrust-domain = \"todo.example\"",
                "version = 1\ntrust-domain = \"spiffe://Todo.example\"",
                "version = 1\ntrust_domain = \"todo.example\"",
            ]
            .map(check)
            .concat()
        );
    }

    #[test]
    fn between_files() {
        let errors = Policy::compile(&[
            source(
                "policies/b.toml",
                "[service.web]\nsends = []\n[message.a]\n[operator.alice]\nmay = []",
            ),
            source(
                "policies/a.toml",
                &format!("{TOP}[service.web]\n[message.a]\n[operator.alice]\nmay = []"),
            ),
            source("policies/c.toml", "trust-domain = \"shop.example\""),
        ])
        .unwrap_err();
        insta::assert_snapshot!(errors.diagnostics().render(false));
    }

    #[test]
    fn as_json() {
        let errors = Policy::compile(&[
            source("a.toml", &format!("{TOP}[service.web]\nrecieves = []")),
            source("b.toml", "[service.web]"),
        ])
        .unwrap_err();
        insta::assert_snapshot!(serde_json::to_string_pretty(errors.diagnostics()).unwrap());
    }

    #[test]
    fn in_one_line() {
        let errors = Policy::compile(&[source("p.toml", "version = 2\nx = 1")]).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "p.toml:1:1: the policy does not say its trust domain (and 2 more)"
        );
    }
}

mod lints {
    use super::*;

    #[test]
    fn what_is_probably_not_meant() {
        insta::assert_snapshot!(
            compiled(
                r#"
[service.web]
sends = ["a.x", "a.y", "lonely", "wild.*", "both", "excepted", "a.x"]

[service.one]
receives = ["a.*", "nobody.sends", "both", "wild.card", "excepted"]
receives-except = ["excepted", "not.mine"]

[service.two]
receives = ["a.>", "both", "event"]
receives-except = ["a.y"]

[service.three]
sends = ["event"]
receives = ["a.>", "event"]
receives-except = ["a.y"]

[service.idle]

[message."nobody.has.this"]
audit = "each"

[message.event]
kind = "event"
attempts = 3
reply-within = "1s"

[operator.alice]
may = ["view", "view"]
"#
            )
            .warnings
            .render(false)
        );
    }

    #[test]
    fn a_sound_policy_has_no_warnings() {
        let warnings = compiled(TODO).warnings;
        assert!(warnings.is_empty(), "{}", warnings.render(false));
    }

    #[test]
    fn keys_of_tracked_messages_are_useful_where_a_narrower_pattern_is_tracked() {
        let check = |messages: &str, expected: usize| {
            let text = format!("[service.a]\nsends = [\"o.a\"]\nreceives = [\"o.a\"]\n{messages}");
            let warnings = compiled(&text).warnings;
            assert_eq!(warnings.len(), expected, "{messages}: {}", warnings.render(false));
        };
        check("[message.\"o.>\"]\nattempts = 3", 1);
        check(
            "[message.\"o.>\"]\nattempts = 3\n[message.\"o.a\"]\ndelivery = \"at-least-once\"",
            0,
        );
        check(
            "[message.\"o.a\"]\nattempts = 3\n[message.\"o.>\"]\ndelivery = \"at-least-once\"",
            0,
        );
        check(
            "[message.\"o.a\"]\nreply-within = \"1s\"\n[message.\"o.>\"]\nkind = \"event\"",
            1,
        );
        check(
            "[message.\"o.>\"]\nreply-within = \"1s\"\nkind = \"event\"\n[message.\"o.a\"]\nkind=\"command\"",
            0,
        );
    }
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
        };
        assert_eq!(policy.terms(&name("x")), expected);
        let durable: Vec<_> = policy
            .requires_durable_delivery()
            .map(|(pattern, rule)| (pattern.as_str(), rule.to_string()))
            .collect();
        assert_eq!(durable, [("x", "p.toml:6".to_owned())]);
    }
}

mod snapshots {
    use super::*;

    #[test]
    fn the_version_depends_on_names_and_texts_and_on_nothing_else() {
        let (a, b) = (source("a.toml", TOP), source("b.toml", TODO));
        let version = |sources: &[Source]| Policy::compile(sources).unwrap().policy.version().to_owned();
        let expected = version(&[a.clone(), b.clone()]);
        assert_eq!(version(&[b.clone(), a.clone()]), expected);
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
        assert_eq!(web.zone().map(|zone| &**zone), Some("dmz"));
        assert_eq!(web.sends().len(), 2);
        assert_eq!(web.rule().to_string(), "p.toml:4");
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

/// What the fast structures replace: try every pattern.
mod naive {
    use super::*;

    fn rank(pattern: &Pattern) -> Vec<u8> {
        pattern
            .tokens()
            .map(|token| match token {
                Token::Literal(_) => 0,
                Token::One => 1,
                Token::Rest => 2,
            })
            .collect()
    }

    fn most_specific<'g>(grants: &'g [Grant], name: &MessageName) -> Option<&'g Grant> {
        grants
            .iter()
            .filter(|grant| grant.pattern.matches(name))
            .min_by_key(|grant| rank(&grant.pattern))
    }

    fn decide(policy: &Policy, who: &str, action: Action, name: &MessageName) -> Result<Rule, DenialReason> {
        let service = policy.service(who).ok_or(DenialReason::UnknownService)?;
        let grants = match action {
            Action::Send => service.sends(),
            Action::Receive if most_specific(service.receives_except(), name).is_some() => {
                return Err(DenialReason::Excepted);
            }
            Action::Receive => service.receives(),
        };
        most_specific(grants, name)
            .map(|grant| grant.rule.clone())
            .ok_or(DenialReason::NoGrant)
    }

    /// One pattern a line, so that a rule tells which pattern it was.
    fn list(key: &str, patterns: &[Pattern]) -> String {
        let lines: String = patterns
            .iter()
            .map(|pattern| format!("  \"{pattern}\",\n"))
            .collect();
        format!("{key} = [\n{lines}]\n")
    }

    type Patterns = Vec<Pattern>;

    fn any_service() -> impl Strategy<Value = (Patterns, Patterns, Patterns)> {
        let patterns = |max| prop::collection::vec(any_pattern(), 0..max);
        (patterns(5), patterns(6), patterns(3))
    }

    fn policy_of(services: &[(Patterns, Patterns, Patterns)]) -> Policy {
        let mut text = String::new();
        for (number, (sends, receives, except)) in services.iter().enumerate() {
            text.push_str(&format!("[service.s{number}]\n"));
            text.push_str(&list("sends", sends));
            text.push_str(&list("receives", receives));
            text.push_str(&list("receives-except", except));
        }
        policy(&text)
    }

    proptest! {
        #[test]
        fn decisions_agree(
            services in prop::collection::vec(any_service(), 1..40),
            names in prop::collection::vec(any_name(), 1..20),
        ) {
            let policy = policy_of(&services);
            for who in 0..=services.len() {
                let who = format!("s{who}");
                for action in [Action::Send, Action::Receive] {
                    for name in &names {
                        let fast = policy.decide(&service(&who), action, name);
                        let fast = fast
                            .map(|permit| permit.rule().clone())
                            .map_err(|denial| denial.reason());
                        prop_assert_eq!(fast, decide(&policy, &who, action, name));
                    }
                }
            }
        }

        #[test]
        fn subscriptions_agree_with_every_name(
            receives in prop::collection::vec(any_pattern(), 0..6),
            except in prop::collection::vec(any_pattern(), 0..3),
            pattern in any_pattern(),
        ) {
            let policy = policy_of(&[(Vec::new(), receives, except)]);
            let every = all_names()
                .iter()
                .filter(|name| pattern.matches(name))
                .all(|name| policy.decide(&service("s0"), Action::Receive, name).is_ok());
            let subscription = policy.decide_subscription(&service("s0"), &pattern);
            prop_assert_eq!(subscription.is_ok(), every, "{:?}", subscription);
        }

        #[test]
        fn terms_agree(
            patterns in prop::collection::btree_set(any_pattern(), 0..10),
            keys in prop::collection::vec(0_u8..4, 10),
            names in prop::collection::vec(any_name(), 1..20),
        ) {
            // Each pattern sets some of two keys, to a value of its own.
            let rules: Vec<_> = patterns.iter().zip(keys).zip(1_u32..).collect();
            let mut text = String::new();
            for ((pattern, keys), value) in &rules {
                text.push_str(&format!("[message.\"{pattern}\"]\n"));
                if keys & 1 != 0 {
                    text.push_str(&format!("attempts = {value}\n"));
                }
                if keys & 2 != 0 {
                    text.push_str(&format!("reply-within = \"{value}s\"\n"));
                }
            }
            let policy = policy(&text);
            for name in &names {
                let set = |key: u8| {
                    rules
                        .iter()
                        .filter(|((pattern, keys), _)| keys & key != 0 && pattern.matches(name))
                        .min_by_key(|((pattern, _), _)| rank(pattern))
                        .map(|&(_, value)| value)
                };
                let terms = policy.terms(name);
                prop_assert_eq!(terms.attempts, set(1).unwrap_or(5));
                prop_assert_eq!(terms.reply_within, Duration::from_secs(set(2).unwrap_or(10).into()));
            }
        }
    }
}

mod hostile {
    use super::*;

    fn survives(text: &str) {
        for text in [text.to_owned(), format!("{TOP}{text}")] {
            match Policy::compile(&[source("p.toml", &text)]) {
                Ok(compiled) => drop(compiled.warnings.render(true)),
                Err(errors) => assert!(!errors.diagnostics().render(true).is_empty()),
            }
        }
    }

    #[test]
    fn text_never_panics() {
        for text in [
            "\0",
            "\u{feff}version = 1",
            "[service.\"\0\"]",
            "[service.\"\u{202e}\"]\nsends = [\"\u{1b}[31m\"]",
            "a = 99999999999999999999999999999999999999999999999",
            "version = 0x1",
            "[message.a]\nattempts = -1",
            "[message.a]\nattempts = 0xffffffffffffffffffff",
            "[message.a]\nattempts = 1e400",
            "[service.é]\r\nsénds = [\"é\"]\r\n",
            "[service",
            "\"\"\"",
            "[a]\n[a]\n[a]\na=1\na=2",
            "= 1",
            "[service.web]\nsends = \"\"\"\na\nb\"\"\"",
        ] {
            survives(text);
        }
        survives(&"[".repeat(100_000));
        survives(&format!("a = {}", "[".repeat(100_000)));
        survives(&format!("a = {}{}", "[".repeat(1_000), "]".repeat(1_000)));
        survives(&format!("a = {}", "{a=".repeat(100_000)));
        survives(&format!("[{}]", vec!["a"; 10_000].join(".")));
        survives(&"a".repeat(1_000_000));
        survives(&"[service.web]\nsends = []\n".repeat(10_000));
    }

    #[test]
    fn terminal_codes_in_a_policy_reach_no_terminal() {
        let text = format!("{TOP}[service.\"\\u001b[31mx\"]\nsends = [\"\\u009b31m\"]\n# \u{1b}[2J \u{7}\n");
        let errors = Policy::compile(&[source("p.toml", &text)]).unwrap_err();
        let rendered = errors.diagnostics().render(false);
        let control = rendered.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(control, None, "{rendered}");
    }

    #[test]
    fn many_mistakes_are_counted_but_not_all_kept() {
        let text: String = (0..1_000)
            .map(|n| format!("[service.s{n}]\nsendz = []\n"))
            .collect();
        let errors = Policy::compile(&[source("p.toml", &format!("{TOP}{text}"))]).unwrap_err();
        assert_eq!(
            errors.diagnostics().iter().count(),
            crate::limits::POLICY_DIAGNOSTICS_MAX
        );
        assert_eq!(errors.diagnostics().len(), 1_000);
        assert!(
            errors
                .diagnostics()
                .render(false)
                .ends_with("... and 800 more like these\n")
        );
    }

    #[test]
    fn an_error_is_shown_although_warnings_came_first() {
        let list = "\"a\", ".repeat(1_000);
        let text = format!("{TOP}[service.a]\nsends = [{list}]\n[service.b]\nsendz = []");
        let errors = Policy::compile(&[source("p.toml", &text)]).unwrap_err();
        assert!(errors.to_string().contains("sendz"), "{errors}");
    }

    #[test]
    fn a_long_file_compiles() {
        let mut text = TOP.to_owned();
        for n in 0..2_000 {
            text.push_str(&format!(
                "[service.s{n}]\nsends = [\"s{n}.a\", \"s{n}.b\"]\nreceives = [\"s{}.*\"]\n\n[message.\"s{n}.a\"]\n\
                 reply-within = \"1s\"\n",
                (n + 1) % 2_000
            ));
        }
        assert!(text.lines().count() > 10_000);
        let compiled = Policy::compile(&[source("p.toml", &text)]).unwrap();
        assert!(
            compiled.warnings.is_empty(),
            "{}",
            compiled.warnings.render(false)
        );
        let permit = compiled
            .policy
            .decide(&service("s7"), Action::Receive, &name("s8.b"))
            .unwrap();
        assert_eq!(permit.rule().line, 3 + 7 * 6 + 2);
    }

    #[test]
    fn wildcards_everywhere_do_not_blow_up_a_walk() {
        // Without the nodes' paths being distinct, this would take 2 to the power of 60 steps.
        let patterns: String = (0..60)
            .map(|n| format!("\"{}*.>\", ", ["*.", "a."].map(|t| t.repeat(n)).concat()))
            .collect();
        let policy = policy(&format!("[service.s]\nreceives = [{patterns}]"));
        let long = vec!["a"; 120].join(".");
        assert!(
            policy
                .decide(&service("s"), Action::Receive, &name(&long))
                .is_ok()
        );
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(\\PC|\n|\"|\\[|\\]|=|\\.){0,200}") {
            survives(&text);
        }

        #[test]
        fn any_mutilated_policy_is_survived(cut in 0_usize..400, noise in any::<char>(), at in 0_usize..400) {
            let mut text: String = TODO.chars().skip(cut % 100).take(cut).collect();
            let at = text.char_indices().map(|(at, _)| at).nth(at).unwrap_or(0);
            text.insert(at, noise);
            survives(&text);
        }
    }
}

#[test]
fn policies_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &Arc<T>) {}
    shared(&Arc::new(policy(TODO)));
}
