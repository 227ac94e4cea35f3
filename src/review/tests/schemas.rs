//! The JSON Schema against the parser.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::super::schema;
use super::super::testing::Dice;
use crate::policy::{Policy, Source};
use crate::wire::name::Pattern;

/// As much of JSON Schema as the schema uses; anything else fails the test.
fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    schema
        .as_object()
        .unwrap()
        .iter()
        .all(|(word, rule)| match word.as_str() {
            "$schema" | "title" | "description" | "definitions" | "additionalProperties" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                is_valid(root, root.pointer(pointer).unwrap(), value)
            }
            "anyOf" => rule
                .as_array()
                .unwrap()
                .iter()
                .any(|choice| is_valid(root, choice, value)),
            "type" => match rule.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_i64(),
                other => panic!("type {other}"),
            },
            "enum" => rule.as_array().unwrap().contains(value),
            "pattern" => value
                .as_str()
                .is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "maxLength" => value
                .as_str()
                .is_none_or(|text| text.len() as u64 <= rule.as_u64().unwrap()),
            "minimum" => value
                .as_i64()
                .is_none_or(|number| number >= rule.as_i64().unwrap()),
            "maximum" => value
                .as_i64()
                .is_none_or(|number| number <= rule.as_i64().unwrap()),
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| is_valid(root, rule, item))),
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|key| value.get(key.as_str().unwrap()).is_some()),
            "properties" | "patternProperties" => value.as_object().is_none_or(|object| {
                object.iter().all(|(key, value)| {
                    let rules = rule.as_object().unwrap();
                    let found = rules.iter().find(|(name, _)| match word.as_str() {
                        "properties" => *name == key,
                        _ => Regex::new(name).unwrap().is_match(key),
                    });
                    match found {
                        Some((_, rule)) => is_valid(root, rule, value),
                        None => schema["additionalProperties"] != false,
                    }
                })
            }),
            other => panic!("the schema says {other}, which this test does not know"),
        })
}

fn is_shaped(text: &str) -> bool {
    let root = serde_json::to_value(schema()).unwrap();
    let value: Value = toml::from_str(text).unwrap();
    is_valid(&root, &root, &value)
}

fn is_taken(text: &str) -> bool {
    let source = Source {
        name: "p.toml".to_owned(),
        text: text.to_owned(),
    };
    Policy::compile(&[source]).is_ok()
}

#[test]
fn the_schema_and_the_parser_take_the_same() {
    let check = |text: &str, expected: bool| {
        let text = format!("version = 1\ntrust-domain = \"todo.example\"\n{text}");
        assert_eq!(is_taken(&text), expected, "the parser on\n{text}");
        assert_eq!(is_shaped(&text), expected, "the schema on\n{text}");
    };
    check("", true);
    check("polizy = 1", false);
    check("[service.web]", true);
    check(
        "[service.web]\nzone = \"dmz\"\nsends = [\"a.b\"]\nreceives = [\"a.>\"]\nreceives-except = [\"a.*\"]",
        true,
    );
    check("[service.web]\nzone = \"d m z\"", false);
    check("[service.web]\nzone = 1", false);
    check("[service.\"w b\"]", false);
    check(&format!("[service.{}]", "a".repeat(63)), true);
    check(&format!("[service.{}]", "a".repeat(64)), false);
    check("[service.web]\nsends = \"a\"", false);
    check("[service.web]\nsends = [\"a..b\"]", false);
    check("[service.web]\nsend = []", false);
    check(&format!("[service.web]\nsends = [\"{}\"]", "a".repeat(255)), true);
    check(
        &format!("[service.web]\nsends = [\"{}\"]", "a".repeat(256)),
        false,
    );
    let every_key = "kind = \"event\"\ndelivery = \"at-least-once\"\nreply-within = \"1ms\"\nack-within = \"1s\"\n\
                     attempts = 1000\nbackoff = \"1s..1m\"\nexpires = \"30d\"\naudit = \"each\"\npayload-max = \"64KiB\"\n\
                     limits = {rate = \"5/s\", burst = 10000000}\nalarms = \"off\"";
    check(&format!("[message.\"a.*\"]\n{every_key}"), true);
    for wrong in [
        "kind = \"events\"",
        "delivery = \"once\"",
        "reply-within = \"1 s\"",
        "ack-within = 5",
        "attempts = 1001",
        "attempts = 0",
        "attempts = \"5\"",
        "backoff = \"1s\"",
        "expires = \"1w\"",
        "audit = \"all\"",
        "payload-max = \"64KB\"",
        "limits = \"5/s\"",
        "limits = {burst = 5}",
        "limits = {rate = \"5\"}",
        "limits = {rate = \"5/s\", burst = 0}",
        "limits = {rate = \"5/s\", per = \"web\"}",
        "alarms = \"on\"",
        "alarms = true",
        "alarms = {}",
        "alarms = {sensitivity = \"none\"}",
        "alarms = {sensitivity = \"low\", for = \"web\"}",
    ] {
        check(&format!("[message.\"a.*\"]\n{wrong}"), false);
    }
    check(
        "[service.web]\nalarms = \"default\"\n[message.a]\nalarms = {sensitivity = \"high\"}",
        true,
    );
    check("[alarms]\nnew-flow-after = \"never\"", true);
    check("[alarms]\nnew-flow-after = \"2d\"", true);
    check("[alarms]\nnew-flow-after = \"soon\"", false);
    check("[alarms]\nnew-flows-after = \"2d\"", false);
    check("[message.\"a..b\"]", false);
    check(
        "[operator.al]\nmay = [\"view\", \"apply-policy\", \"revoke\", \"quarantine\", \"replay\"]",
        true,
    );
    check("[operator.al]", false);
    check("[operator.al]\nmay = [\"everything\"]", false);
    for top in [
        "version = 2\ntrust-domain = \"x\"",
        "version = 1\ntrust-domain = \"X\"",
        "version = \"1\"\ntrust-domain = \"x\"",
    ] {
        assert!(!is_taken(top) && !is_shaped(top), "{top}");
    }
}

/// The parser's own list, from what it says of a key that it does not know.
fn known_to_the_parser(section: &str) -> BTreeSet<String> {
    let source = Source {
        name: "p.toml".to_owned(),
        text: format!("{section}\nnobody-has-this-key = 1"),
    };
    let errors = Policy::compile(&[source]).unwrap_err();
    let help = errors.diagnostics().iter().filter_map(|found| found.help());
    let allowed = help
        .filter_map(|help| help.split_once("allowed: "))
        .map(|(_, list)| list)
        .next()
        .unwrap();
    allowed.split(", ").map(str::to_owned).collect()
}

#[test]
fn the_schema_has_the_keys_of_the_parser_and_no_other() {
    let root = serde_json::to_value(schema()).unwrap();
    let keys = |schema: &Value| -> BTreeSet<String> {
        schema["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    assert_eq!(keys(&root), known_to_the_parser(""));
    for (definition, section) in [
        ("Service", "[service.web]"),
        ("Message", "[message.a]"),
        ("Operator", "[operator.al]"),
        ("Limits", "[service.web.limits]"),
        ("SensitiveAlarms", "[service.web.alarms]"),
        ("AlarmsOfAll", "[alarms]"),
    ] {
        assert_eq!(
            keys(&root["definitions"][definition]),
            known_to_the_parser(section),
            "{definition}"
        );
    }
    let words = |definition: &str| root["definitions"][definition]["enum"].as_array().unwrap().len();
    assert_eq!(words("Capability"), crate::policy::Capability::ALL.len());
}

#[test]
fn the_schema_takes_the_patterns_that_are_some() {
    let root = serde_json::to_value(schema()).unwrap();
    let mut taken = 0;
    for seed in 0..5_000 {
        let mut dice = Dice::new(seed);
        let text: String = (0..dice.below(7))
            .map(|_| *dice.pick(&['a', 'Z', '_', '*', '>', '.', '.', '$', '-']))
            .collect();
        let is_pattern = Pattern::new(&text).is_ok();
        assert_eq!(
            is_valid(&root, &root["definitions"]["Pattern"], &text.as_str().into()),
            is_pattern,
            "{text:?}"
        );
        taken += usize::from(is_pattern);
    }
    assert!((300..4_700).contains(&taken), "loaded dice: {taken}");
}
