//! Suggestions from what was denied.

use super::super::explain::edited;
use super::super::testing::{Dice, all_names, policy};
use super::super::{Denied, EditVerb, Reach, Suggestions, suggest};
use crate::policy::Action;
use crate::wire::name::Pattern;

fn denied(service: &str, action: Action, name: &str, count: u64) -> Denied {
    Denied {
        service: service.into(),
        action,
        name: Pattern::new(name).unwrap(),
        count,
    }
}

/// A line for each edit, evidence, name beside and wildcard.
fn told(suggestions: &Suggestions) -> Vec<String> {
    let mut lines = Vec::new();
    for suggestion in &suggestions.suggestions {
        lines.push(format!("{} {}", suggestion.service, suggestion.action));
        lines.extend(suggestion.edits.iter().map(|edit| {
            let line = edit.rule.as_ref().map_or(0, |rule| rule.line);
            format!("{:?} {} {} {line}", edit.verb, edit.pattern, edit.key)
        }));
        lines.extend(
            suggestion
                .evidence
                .iter()
                .map(|found| format!("{} denied {}", found.name, found.count)),
        );
        lines.extend(
            suggestion
                .beside
                .iter()
                .map(|beside| format!("beside {}", beside.pattern)),
        );
        lines.extend(
            suggestion
                .wildcards
                .iter()
                .map(|wildcard| format!("or {}", wildcard.pattern)),
        );
    }
    lines.extend(
        suggestions
            .allowed_now
            .iter()
            .map(|found| format!("allowed now {}", found.name)),
    );
    lines
}

const TODO: &str = r#"
[service.web]
sends = ["todos.list"]

[service.todos]
receives = ["todos.*"]
receives-except = ["*.secret"]
"#;

#[test]
fn the_denied_names_are_suggested_with_their_evidence() {
    use Action::{Receive, Send};
    let check = |denials: &[Denied], expected: &[&str]| {
        let suggestions = suggest(&policy(TODO), denials).unwrap();
        assert_eq!(told(&suggestions), expected);
    };
    check(&[], &[]);
    check(
        &[
            denied("web", Send, "todos.purge", 2),
            denied("web", Send, "todos.list", 4),
            denied("web", Send, "todos.add", 1),
            denied("web", Send, "todos.purge", 3),
        ],
        &[
            "web send",
            "Add todos.add sends 5",
            "Add todos.purge sends 5",
            "todos.purge denied 5",
            "todos.add denied 1",
            "allowed now todos.list",
        ],
    );
    check(
        &[denied("todos", Receive, "todos.secret", 1)],
        &[
            "todos receive",
            "Remove *.secret receives-except 9",
            "todos.secret denied 1",
        ],
    );
    check(
        &[denied("stranger", Send, "x", 1)],
        &["stranger send", "Add x sends 0", "x denied 1"],
    );
    // The wider of two subscriptions is enough.
    check(
        &[denied("web", Receive, "a.>", 1), denied("web", Receive, "a.b", 1)],
        &[
            "web receive",
            "Add a.> receives 4",
            "a.> denied 1",
            "a.b denied 1",
        ],
    );
}

#[test]
fn a_wildcard_is_offered_for_three_siblings_and_never_taken() {
    let wildcards = |names: &[&str]| {
        let denials: Vec<_> = names
            .iter()
            .map(|name| denied("web", Action::Send, name, 1))
            .collect();
        let suggestions = suggest(&policy(TODO), &denials).unwrap();
        let suggestion = &suggestions.suggestions[0];
        assert_eq!(
            suggestion.edits.len(),
            names.len(),
            "each name is granted by itself"
        );
        assert!(suggestion.edits.iter().all(|edit| edit.pattern.is_literal()));
        suggestion
            .wildcards
            .iter()
            .map(|wildcard| wildcard.pattern.to_string())
            .collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(wildcards(&["a.x", "a.y"]), none);
    assert_eq!(wildcards(&["a.x", "a.y", "a.z"]), ["a.*"]);
    assert_eq!(wildcards(&["a.x", "a.y", "b.z"]), none);
    assert_eq!(wildcards(&["a.x", "a.y", "a.z.z"]), none);
    assert_eq!(
        wildcards(&["x", "y", "z"]),
        none,
        "a wildcard for everything is never offered"
    );
    assert_eq!(wildcards(&["a.b.x", "a.b.y", "a.b.z", "c.x", "c.y"]), ["a.b.*"]);
}

#[test]
fn what_is_suggested_allows_what_was_denied_and_nothing_else_untold() {
    let names = all_names();
    let mut suggested = 0;
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let list = |mut patterns: Vec<Pattern>| {
            patterns.sort();
            patterns.dedup();
            let patterns: Vec<_> = patterns.iter().map(|pattern| format!("\"{pattern}\"")).collect();
            patterns.join(", ")
        };
        let text = format!(
            "[service.s]\nreceives = [{}]\nreceives-except = [{}]",
            list(dice.patterns(3)),
            list(dice.patterns(2))
        );
        let policy = policy(&text);
        let service = policy.service("s").unwrap();
        let denials: Vec<_> = (0..1 + dice.below(4))
            .map(|_| Denied {
                service: "s".into(),
                action: Action::Receive,
                name: dice.pattern(),
                count: 1,
            })
            .collect();
        let suggestions = suggest(&policy, &denials).unwrap();
        let seen = format!("seed {seed}: {text}\n{denials:?}\n{suggestions:?}");
        let edits = suggestions
            .suggestions
            .first()
            .map(|suggestion| suggestion.edits.clone())
            .unwrap_or_default();
        suggested += edits.len();
        let (granted, taken) = edited(service.receives(), service.receives_except(), &edits);
        let (before, after) = (
            Reach::of(Some(service), Action::Receive),
            Reach::new(&granted, &taken),
        );
        let has = |reach: &Reach<'_>, pattern: &Pattern| reach.missing(pattern).unwrap().is_none();
        for denied in &denials {
            assert!(has(&after, &denied.name), "{}: {seen}", denied.name);
        }
        for name in &names {
            let pattern = Pattern::from(name.clone());
            if has(&after, &pattern) && !has(&before, &pattern) {
                let is_asked = denials.iter().any(|denied| denied.name.matches(name));
                let is_told = suggestions.suggestions[0]
                    .beside
                    .iter()
                    .any(|beside| beside.pattern.matches(name));
                assert!(is_asked || is_told, "{name}: {seen}");
            }
        }
        for left_out in 0..edits.len() {
            let mut fewer = edits.clone();
            let edit = fewer.remove(left_out);
            let (granted, taken) = edited(service.receives(), service.receives_except(), &fewer);
            let after = Reach::new(&granted, &taken);
            let still = denials.iter().all(|denied| has(&after, &denied.name));
            // Several names may together be granted what a further one asks for.
            assert!(
                !still || edit.verb == EditVerb::Add && !edit.pattern.is_literal(),
                "{edit:?}: {seen}"
            );
        }
    }
    assert!(suggested > 3_000, "loaded dice: {suggested}");
}
