//! What a change of a policy is said to give and take.

use super::super::reach::shortest;
use super::super::testing::{policy, policy_as_written};
use super::super::{Effect, diff};
use crate::limits::NAME_BYTES_MAX;
use crate::wire::name::Pattern;

#[track_caller]
fn check(old: &str, new: &str, expected: &[&str]) {
    let found = diff(&policy(old), &policy(new)).unwrap();
    let found: Vec<_> = found
        .changes()
        .iter()
        .map(|change| serde_json::to_string(change).unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn policies_that_say_the_same_in_other_words_are_equal() {
    check(
        "[service.a]\nsends = [\"x.y\", \"x.z\"]",
        "[service.a]\nsends = [\"x.z\", \"x.y\"]",
        &[],
    );
    check(
        "[service.a]\nreceives = [\"x.>\"]",
        "[service.a]\nreceives = [\"x.*\", \"x.*.*\", \"x.*.*.>\"]",
        &[],
    );
    check(
        "[service.a]\nreceives = [\"x.*\"]\nreceives-except = [\"x.a\", \"y\"]",
        "[service.a]\nreceives = [\"x.*\", \"x.b\"]\nreceives-except = [\"*.a\"]",
        &[],
    );
    check(
        "[message.x]\nattempts = 5",
        "[message.\"x.>\"]\naudit = \"flow\"",
        &[],
    );
}

#[test]
fn gains_and_losses_are_told_with_a_shortest_name() {
    check(
        "[service.a]\nreceives = [\"x.*\", \"gone\"]\nreceives-except = [\"x.a\", \"x.b\"]",
        "[service.a]\nzone = \"z\"\nreceives = [\"x.*\", \"x.*.b\"]\nreceives-except = [\"x.b\", \"x.a.b\"]",
        &[
            r#"{"what":"connect","effect":"loss","service":"a","listeners":{"any-but":"z"},"only-listed-there":false,"rule":"p.toml:4"}"#,
            r#"{"what":"message","effect":"gain","service":"a","action":"receive","pattern":"x.*.b","whole":false,"example":"x.b.b","rule":"p.toml:5"}"#,
            r#"{"what":"message","effect":"gain","service":"a","action":"receive","pattern":"x.a","whole":true,"example":"x.a","rule":"p.toml:5"}"#,
            r#"{"what":"message","effect":"loss","service":"a","action":"receive","pattern":"gone","whole":true,"example":"gone","rule":"p.toml:4"}"#,
        ],
    );
}

#[test]
fn a_wider_pattern_is_told_as_what_it_adds() {
    check(
        "[service.a]\nsends = [\"x.a\"]",
        "[service.a]\nsends = [\"x.*\"]",
        &[
            r#"{"what":"message","effect":"gain","service":"a","action":"send","pattern":"x.*","whole":false,"example":"x.b","rule":"p.toml:4"}"#,
        ],
    );
}

#[test]
fn services_operators_and_terms_are_told() {
    check(
        "[operator.al]\nmay = [\"view\"]\n[message.\"x.*\"]\nattempts = 3",
        "[service.a]\nsends = [\"x.y\"]\n[operator.al]\nmay = [\"replay\"]\n[message.\"x.y\"]\nattempts = 4",
        &[
            r#"{"what":"connect","effect":"gain","service":"a","listeners":"any","only-listed-there":true,"rule":"p.toml:3"}"#,
            r#"{"what":"message","effect":"gain","service":"a","action":"send","pattern":"x.y","whole":true,"example":"x.y","rule":"p.toml:4"}"#,
            r#"{"what":"operator","effect":"gain","operator":"al","may":"replay","rule":"p.toml:6"}"#,
            r#"{"what":"operator","effect":"loss","operator":"al","may":"view","rule":"p.toml:4"}"#,
            r#"{"what":"terms","effect":"change","pattern":"x.y","whole":true,"example":"x.y","key":"attempts","old":"3","new":"4"}"#,
            r#"{"what":"terms","effect":"change","pattern":"x.*","whole":false,"example":"x.a","key":"attempts","old":"3","new":"5"}"#,
        ],
    );
}

#[test]
fn limits_and_what_alarms_do_are_told_of_a_service_that_both_list() {
    let limited = "[service.a]\nlimits = {rate = \"5/s\", burst = 9}\non-alarm = \"quarantine\"";
    check(
        "[service.a]",
        limited,
        &[
            r#"{"what":"limits","effect":"change","service":"a","old":null,"new":"{rate = \"5/s\", burst = 9}"}"#,
            r#"{"what":"on-alarm","effect":"change","service":"a","old":"tell","new":"quarantine"}"#,
        ],
    );
    check(limited, limited, &[]);
    check(
        "",
        limited,
        &[
            r#"{"what":"connect","effect":"gain","service":"a","listeners":"any","only-listed-there":true,"rule":"p.toml:3"}"#,
        ],
    );
}

#[test]
fn another_trust_domain_lets_others_in() {
    let of = |trust_domain: &str, services: &str| {
        policy_as_written(
            "p.toml",
            &format!("version = 1\ntrust-domain = \"{trust_domain}\"\n{services}"),
        )
    };
    let found = diff(&of("a.example", ""), &of("b.example", "[service.new]")).unwrap();
    let counts = [Effect::Gain, Effect::Loss, Effect::Change].map(|effect| found.count(effect));
    assert_eq!(counts, [2, 1, 0]);
}

#[test]
fn a_difference_only_in_names_that_are_too_long_is_none() {
    let star = Pattern::new(">").unwrap();
    // Every name of up to 128 tokens, and no name has more.
    let tokens_max = NAME_BYTES_MAX.div_ceil(2);
    let patterns: Vec<_> = (1..=tokens_max)
        .map(|count| Pattern::new(&vec!["*"; count].join(".")).unwrap())
        .collect();
    assert_eq!(shortest(&star, &patterns.iter().collect::<Vec<_>>()), Ok(None));
    let fewer: Vec<_> = patterns.iter().take(tokens_max - 1).collect();
    let longest = shortest(&star, &fewer).unwrap().unwrap();
    assert_eq!(longest.tokens().count(), tokens_max);
}

#[test]
fn where_every_token_of_one_letter_is_spelled_out_the_search_branches_and_is_bounded() {
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let pattern = |text: &str| Pattern::new(text).unwrap();
    let of_letters = |before: &str, after: &str| -> Vec<_> {
        let letters = LETTERS
            .chars()
            .filter(|letter| !(before.is_empty() && *letter == '_'));
        letters
            .map(|letter| pattern(&format!("{before}{letter}{after}")))
            .collect()
    };
    // `*.x` without `?.x` for every letter but one, which is left by way of a token that is spelled out.
    let mut without = of_letters("", ".y");
    without.extend(
        of_letters("", ".x")
            .into_iter()
            .filter(|left| left.as_str() != "k.x"),
    );
    let found = shortest(&pattern("*.x"), &without.iter().collect::<Vec<_>>())
        .unwrap()
        .unwrap();
    assert_eq!(found.as_str(), "k.x");
    // All of them: then two letters.
    without.push(pattern("k.x"));
    let found = shortest(&pattern("*.x"), &without.iter().collect::<Vec<_>>())
        .unwrap()
        .unwrap();
    assert_eq!(found.as_str(), "aa.x");
    // Only tokens of one letter fit, every letter is taken in the last place, and spelled out in all others.
    let fill = "f".repeat(233);
    let stars = |count: usize| vec!["*"; count].join(".");
    let mut without: Vec<_> = LETTERS
        .chars()
        .map(|letter| pattern(&format!("{}.{letter}.{fill}", stars(10))))
        .collect();
    for place in 0..10 {
        for letter in LETTERS.chars().filter(|letter| place > 0 || *letter != '_') {
            let letter = letter.to_string();
            let mut tokens = ["*"; 10];
            tokens[place] = &letter;
            without.push(pattern(&format!("{}.b.{fill}", tokens.join("."))));
        }
    }
    let base = pattern(&format!("{}.{fill}", stars(11)));
    let refused = shortest(&base, &without.iter().collect::<Vec<_>>());
    assert!(refused.is_err(), "{refused:?}");
    // One letter that is not taken is found.
    without.remove(0);
    let found = shortest(&base, &without.iter().collect::<Vec<_>>())
        .unwrap()
        .unwrap();
    assert_eq!(found.tokens().nth(10), Some("a"));
}
