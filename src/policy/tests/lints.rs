//! Warnings: what is allowed and probably not meant.

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
alarms = "off"
on-alarm = "quarantine"

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
        assert_eq!(warnings.is_empty(), expected == 0, "{messages}");
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

#[test]
fn alarms_that_hold_nobody_are_told() {
    let check = |text: &str, expected: usize| {
        let text = format!("[service.a]\nsends = [\"o.a\"]\nreceives = [\"o.a\"]\n{text}");
        let warnings = compiled(&text).warnings;
        assert_eq!(warnings.len(), expected, "{text}: {}", warnings.render(false));
    };
    check("alarms = \"off\"\non-alarm = \"quarantine\"", 1);
    check("alarms = \"off\"\non-alarm = \"tell\"", 0);
    check("alarms = \"default\"\non-alarm = \"quarantine\"", 0);
    let with_message = |alarms: &str| {
        format!("alarms = \"off\"\non-alarm = \"quarantine\"\n[message.\"o.*\"]\nalarms = {alarms}")
    };
    check(&with_message("{sensitivity = \"low\"}"), 0);
    check(&with_message("\"off\""), 1);
}
