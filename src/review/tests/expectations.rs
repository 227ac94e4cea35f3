//! Expectations: what is read, what is met.

use super::super::judge;
use super::super::testing::{Dice, all_names, policy};
use crate::identity::{Identity, Role};
use crate::policy::{Action, Source};

const TODO: &str = r#"
[service.web]
zone = "dmz"
sends = ["todos.list"]
receives = ["todos.created"]

[service.todos]
receives = ["todos.*"]
receives-except = ["todos.created"]

[operator.alice]
may = ["view"]
"#;

fn source(text: &str) -> Source {
    Source {
        name: "p.expect".to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn what_is_met_and_what_is_not() {
    let policy = policy(TODO);
    let check = |line: &str, expected: Option<&str>| {
        let verdict = judge(&policy, &[source(line)]);
        let found = verdict.failures.first().map(ToString::to_string);
        let expected =
            expected.map(|found| format!("p.expect:1: {}: {found}", line.split(" #").next().unwrap()));
        assert_eq!(found, expected, "{line}");
        assert_eq!(
            (verdict.met, verdict.failed),
            if found.is_some() { (0, 1) } else { (1, 0) }
        );
    };
    check("allow web send todos.list", None);
    check("allow web send todos.list # as ever", None);
    check("deny web send todos.purge", None);
    check("deny web send >", Some("web may send \"todos.list\" (p.toml:6)"));
    check("deny web send todos.list", Some("web may send it (p.toml:6)"));
    check("deny web send payments.>", None);
    check(
        "allow web send todos.purge",
        Some("no line of the policy grants it"),
    );
    check(
        "allow todos receive todos.*",
        Some("receives-except takes \"todos.created\" away (p.toml:11)"),
    );
    check("allow todos receive todos.a", None);
    check("deny todos receive todos.created", None);
    check(
        "allow web receive todos.>",
        Some("no line of the policy grants \"todos.a\""),
    );
    check("allow web connect dmz", None);
    check("deny web connect data", None);
    check(
        "deny web connect dmz",
        Some("web connects in zone dmz (p.toml:5)"),
    );
    check(
        "deny todos connect dmz",
        Some("todos has no zone, and connects in any (p.toml:9)"),
    );
    check("allow alice may view", None);
    check("deny alice may revoke", None);
    check("allow alice may revoke", Some("alice may not revoke (p.toml:14)"));
    check("deny alice may view", Some("alice may view (p.toml:14)"));
}

#[test]
fn what_cannot_be_read_fails_and_never_passes_for_met() {
    let policy = policy(TODO);
    let check = |line: &str, word: &str| {
        let verdict = judge(&policy, &[source(line)]);
        assert_eq!((verdict.met, verdict.failed), (0, 1), "{line}");
        let found = verdict.failures[0].to_string();
        assert!(found.contains(word), "{found}");
        assert!(!found.contains('\u{1b}'), "{found:?}");
    };
    check("deny wbe send todos.list", "did you mean \"web\"?");
    check("deny alcie may view", "did you mean \"alice\"?");
    check("deny web sends todos.list", "did you mean \"send\"?");
    check("deny web send todos..list", "is not a message name");
    check("deny web send", "write allow or deny");
    check("forbid web send todos.list", "write allow or deny");
    check("deny alice may everything", "allowed: view, apply-policy");
    check("deny \u{1b}[31m send x", "lists no service");
    check(&format!("deny web send {}", "a".repeat(600)), "at most 512 bytes");
}

#[test]
fn lines_are_counted_and_failures_are_bounded() {
    let policy = policy(TODO);
    let verdict = judge(
        &policy,
        &[source(
            "# nothing\n\nallow web send todos.list\ndeny web send todos.list\n",
        )],
    );
    assert_eq!(verdict.failures[0].place.line, 4);
    let verdict = judge(&policy, &[source(&"deny web send todos.list\n".repeat(1_000))]);
    assert_eq!((verdict.failed, verdict.failures.len()), (1_000, 200));
}

#[test]
fn a_line_may_be_as_long_as_the_bound() {
    let policy = policy(TODO);
    let met = |bytes: usize| {
        let (before, behind) = ("allow web send", "todos.list");
        let space = " ".repeat(bytes - before.len() - behind.len());
        judge(&policy, &[source(&format!("{before}{space}{behind}"))]).met
    };
    assert_eq!((met(512), met(513)), (1, 0));
}

#[test]
fn patterns_are_judged_as_trying_every_name() {
    let names = all_names();
    let mut met = 0;
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let list = |mut patterns: Vec<crate::wire::name::Pattern>| {
            patterns.sort();
            patterns.dedup();
            let patterns: Vec<_> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
            patterns.join(", ")
        };
        let text = format!(
            "[service.s]\nreceives = [{}]\nreceives-except = [{}]",
            list(dice.patterns(4)),
            list(dice.patterns(2))
        );
        let policy = policy(&text);
        let pattern = dice.pattern();
        let identity = Identity {
            trust_domain: "todo.example".into(),
            role: Role::Service("s".into()),
            serial: "1".into(),
            expires_unix_s: 0,
        };
        let may: Vec<_> = names
            .iter()
            .filter(|name| pattern.matches(name))
            .map(|name| policy.decide(&identity, Action::Receive, name).is_ok())
            .collect();
        for (word, expected) in [
            ("allow", may.iter().all(|may| *may)),
            ("deny", !may.iter().any(|may| *may)),
        ] {
            let verdict = judge(&policy, &[source(&format!("{word} s receive {pattern}"))]);
            assert_eq!(
                verdict.met == 1,
                expected,
                "seed {seed}: {text}\n{word} {pattern}: {verdict:?}"
            );
            met += verdict.met;
        }
    }
    assert!((1_000..9_000).contains(&met), "loaded dice: {met}");
}
