//! What is told of one decision.

use super::super::explain::edited;
use super::super::testing::{Dice, all_names, policy};
use super::super::{Reach, explain};
use crate::identity::{Identity, Role};
use crate::policy::{Action, Policy};
use crate::wire::name::{MessageName, Pattern};

const TODO: &str = r#"
[service.web]
zone = "dmz"
sends = ["todos.list", "todos.create"]
receives = ["todos.created"]

[service.todos]
sends = ["todos.created"]
receives = ["todos.*", "audit.>"]
receives-except = ["todos.created", "*.secret"]

[operator.alice]
may = ["view"]

[service.mail]
receives = ["mail.sent", "mail.*"]
"#;

/// The answer as lines: the decision, then `near`, `edit` and `beside`.
fn told(policy: &Policy, service: &str, action: Action, asked: &str) -> Vec<String> {
    let explained = explain(policy, service, action, &Pattern::new(asked).unwrap()).unwrap();
    let at = |rule: &Option<crate::policy::Rule>| {
        rule.as_ref().map_or("-".to_owned(), |rule| rule.line.to_string())
    };
    let reason = explained
        .reason
        .map_or("allowed".to_owned(), |reason| reason.to_string());
    let mut lines = vec![format!("{reason} {}", at(&explained.rule))];
    lines.extend(
        explained
            .near
            .iter()
            .map(|near| format!("near: {} {}", near.text, at(&near.rule))),
    );
    lines.extend(
        explained
            .edits
            .iter()
            .map(|edit| format!("{:?} {} {} {}", edit.verb, edit.pattern, edit.key, at(&edit.rule))),
    );
    lines.extend(
        explained
            .beside
            .iter()
            .map(|beside| format!("beside: {} {}", beside.pattern, beside.example)),
    );
    lines
}

#[test]
fn answers_tell_the_rule_the_near_misses_and_the_edit() {
    let policy = policy(TODO);
    let check = |service: &str, action, asked: &str, expected: &[&str]| {
        assert_eq!(
            told(&policy, service, action, asked),
            expected,
            "{service} {action} {asked}"
        );
    };
    use Action::{Receive, Send};
    check(
        "web",
        Send,
        "todos.list",
        &["allowed 6", "Remove todos.list sends 6"],
    );
    check(
        "web",
        Receive,
        "todos.created",
        &["allowed 7", "Remove todos.created receives 7"],
    );
    check(
        "web",
        Send,
        "todos.lists",
        &[
            "no line of the policy grants it -",
            "near: web sends \"todos.list\" 6",
            "Add todos.lists sends 6",
        ],
    );
    check(
        "web",
        Send,
        "todos.created",
        &[
            "no line of the policy grants it -",
            "near: web sends \"todos.create\" 6",
            "near: web may receive it, and not send it 7",
            "near: todos may send it 10",
            "Add todos.created sends 6",
        ],
    );
    check(
        "todos",
        Receive,
        "todos.list",
        &["allowed 11", "Add todos.list receives-except 12"],
    );
    check(
        "todos",
        Receive,
        "todos.created",
        &[
            "receives-except takes it away 12",
            "near: todos may send it, and not receive it 10",
            "near: web may receive it 7",
            "Remove todos.created receives-except 12",
        ],
    );
    check(
        "todos",
        Receive,
        "todos.list.all",
        &[
            "no line of the policy grants it -",
            "near: \"todos.*\" stands for exactly one token in place of \"*\"; \"todos.>\" would match it 11",
            "Add todos.list.all receives 11",
        ],
    );
    check(
        "todos",
        Receive,
        "audit",
        &[
            "no line of the policy grants it -",
            "near: \"audit.>\" stands for at least one token more 11",
            "Add audit receives 11",
        ],
    );
    check(
        "todos",
        Receive,
        "users.list.all",
        &[
            "no line of the policy grants it -",
            "Add users.list.all receives 11",
        ],
    );
    check(
        "todos",
        Receive,
        "users",
        &["no line of the policy grants it -", "Add users receives 11"],
    );
    // Nobody else may: who would is refused it by an exception.
    check(
        "web",
        Receive,
        "todos.secret",
        &["no line of the policy grants it -", "Add todos.secret receives 7"],
    );
    // The line goes only where nothing else grants it.
    check(
        "mail",
        Receive,
        "mail.sent",
        &["allowed 18", "Add mail.sent receives-except 17"],
    );
    // Whoever gives the exception up gives more than was asked for.
    check(
        "todos",
        Receive,
        "todos.secret",
        &[
            "receives-except takes it away 12",
            "Remove *.secret receives-except 12",
            "beside: audit.secret audit.secret",
        ],
    );
}

#[test]
fn of_many_others_who_may_a_few_are_named() {
    let others = |count: usize| -> String {
        let service = |number| format!("[service.s{number}]\nsends = [\"x\"]\n");
        (1..=count).map(service).collect()
    };
    let near = |count| {
        let policy = policy(&format!("[service.web]\n{}", others(count)));
        let told = told(&policy, "web", Action::Send, "x").into_iter();
        told.filter_map(|line| Some(line.strip_prefix("near: ")?.to_owned()))
            .collect::<Vec<_>>()
    };
    let five = [
        "s1 may send it 5",
        "s2 may send it 7",
        "s3 may send it 9",
        "s4 may send it 11",
        "s5 may send it 13",
    ];
    assert_eq!(near(5), five);
    assert_eq!(near(7), [&five[..], &["2 other services may send it -"]].concat());
}

#[test]
fn strangers_and_operators_are_told_apart_from_services() {
    let policy = policy(TODO);
    let check = |service: &str, expected: &[&str]| {
        assert_eq!(
            told(&policy, service, Action::Send, "todos.purge"),
            expected,
            "{service}"
        );
    };
    let reason = "the policy does not list the service -";
    check(
        "wbe",
        &[
            reason,
            "near: the policy lists a service web 4",
            "Add todos.purge sends -",
        ],
    );
    check(
        "alice",
        &[
            reason,
            "near: alice is an operator, and operators neither send nor receive 15",
            "Add todos.purge sends -",
        ],
    );
}

#[test]
fn of_a_pattern_a_name_that_is_denied_is_told() {
    let policy = policy(TODO);
    let explained = |service: &str, asked: &str| {
        let explained = explain(&policy, service, Action::Receive, &Pattern::new(asked).unwrap()).unwrap();
        (
            explained.allowed,
            explained.name.map(|name| name.as_str().to_owned()),
        )
    };
    assert_eq!(explained("web", "todos.*"), (false, Some("todos.a".to_owned())));
    assert_eq!(
        explained("todos", "todos.*"),
        (false, Some("todos.created".to_owned()))
    );
    assert_eq!(explained("todos", "audit.*.>"), (true, None));
}

#[test]
fn the_edits_turn_the_answer_and_change_nothing_else_untold() {
    let names = all_names();
    let mut answers = [0, 0];
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let list = |patterns: Vec<Pattern>| {
            let mut patterns: Vec<_> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
            patterns.sort();
            patterns.dedup();
            patterns.join(", ")
        };
        let text = format!(
            "[service.s]\nsends = [{}]\nreceives = [{}]\nreceives-except = [{}]",
            list(dice.patterns(3)),
            list(dice.patterns(3)),
            list(dice.patterns(2))
        );
        let policy = policy(&text);
        let service = policy.service("s").unwrap();
        let action = *dice.pick(&Action::ALL);
        let asked = dice.pattern();
        let explained = explain(&policy, "s", action, &asked).unwrap();
        let seen = format!("seed {seed}: {text}\n{action} {asked}: {explained:?}");

        let identity = Identity {
            trust_domain: "todo.example".into(),
            role: Role::Service("s".into()),
            serial: "1".into(),
            expires_unix_s: 0,
        };
        let may = |name: &MessageName| policy.decide(&identity, action, name).is_ok();
        let asked_about: Vec<_> = names.iter().filter(|name| asked.matches(name)).collect();
        assert_eq!(
            explained.allowed,
            asked_about.iter().all(|name| may(name)),
            "{seen}"
        );
        answers[usize::from(explained.allowed)] += 1;

        let (granted, taken) = match action {
            Action::Send => (service.sends(), [].as_slice()),
            Action::Receive => (service.receives(), service.receives_except()),
        };
        let (granted, taken) = edited(granted, taken, &explained.edits);
        let after = Reach::new(&granted, &taken);
        for name in &names {
            let may_after = after.missing(&Pattern::from(name.clone())).unwrap().is_none();
            if asked.matches(name) {
                assert_eq!(may_after, !explained.allowed, "{name}: {seen}");
            } else if may_after != may(name) {
                let told = explained.beside.iter().any(|beside| beside.pattern.matches(name));
                assert!(told, "{name}: {seen}");
            }
        }
        for beside in &explained.beside {
            let may_after = after
                .missing(&Pattern::from(beside.example.clone()))
                .unwrap()
                .is_none();
            assert!(
                !asked.matches(&beside.example) && may_after != may(&beside.example),
                "{seen}"
            );
        }
        // None of the edits can be left out.
        for left_out in 0..explained.edits.len() {
            let mut fewer = explained.edits.clone();
            fewer.remove(left_out);
            let (granted, taken) = edited(
                if action == Action::Send {
                    service.sends()
                } else {
                    service.receives()
                },
                if action == Action::Send {
                    &[]
                } else {
                    service.receives_except()
                },
                &fewer,
            );
            let after = Reach::new(&granted, &taken);
            let turned = asked_about.iter().all(|name| {
                after.missing(&Pattern::from((*name).clone())).unwrap().is_none() != explained.allowed
            });
            assert!(!turned, "{seen}");
        }
    }
    assert!(
        answers.iter().all(|&count| count > 300),
        "loaded dice: {answers:?}"
    );
}
