//! What comes with an answer, and what a policy tells of itself: by these a person is told why, and a sender is limited.

use super::*;

const SHOP: &str = r#"
[service.web]
zone = "dmz"
sends = ["orders.create", "orders.cancel"]
receives = ["orders.*"]
limits = {rate = "500/s", burst = 1000}
on-alarm = "quarantine"

[service.orders]
sends = ["orders.created"]
receives = ["orders.create", "orders.>"]
receives-except = ["orders.created"]

[message."orders.create"]
delivery = "at-least-once"
limits = {rate = "30/m"}

[operator.alice]
may = ["view", "revoke"]
"#;

fn shown(limits: &[Limit]) -> Vec<String> {
    limits
        .iter()
        .map(|limit| format!("{:?} {} {}", limit.scope, limit.limits, limit.rule))
        .collect()
}

#[test]
fn the_limits_of_the_service_and_of_the_message_hold_for_the_sender_and_not_for_receivers() {
    let policy = policy(SHOP);
    let limits = |who: &str, action, what: &str| {
        let permit = policy.decide(&service(who), action, &name(what)).unwrap();
        shown(permit.limits())
    };
    let of_service = r#"Service {rate = "500/s", burst = 1000} p.toml:8"#;
    let of_message = r#"Message(Pattern("orders.create")) {rate = "30/m", burst = 1} p.toml:18"#;
    assert_eq!(
        limits("web", Action::Send, "orders.create"),
        [of_service, of_message]
    );
    assert_eq!(limits("web", Action::Send, "orders.cancel"), [of_service]);
    assert!(limits("orders", Action::Send, "orders.created").is_empty());
    for who in ["web", "orders"] {
        assert!(limits(who, Action::Receive, "orders.create").is_empty(), "{who}");
    }
}

#[test]
fn a_permit_tells_how_the_message_travels() {
    let policy = policy(SHOP);
    let delivery = |what: &str| {
        let permit = policy.decide(&service("web"), Action::Send, &name(what)).unwrap();
        permit.terms().delivery
    };
    assert_eq!(delivery("orders.create"), Delivery::AtLeastOnce);
    assert_eq!(delivery("orders.cancel"), Delivery::AtMostOnce);
}

#[test]
fn receivers_are_the_services_with_a_grant_and_without_an_exception() {
    let policy = policy(SHOP);
    let check = |what: &str, expected: &[&str]| {
        let found: Vec<_> = policy.receivers(&name(what)).map(|who| &**who).collect();
        assert_eq!(found, expected, "{what}");
    };
    check("orders.create", &["orders", "web"]);
    check("orders.created", &["web"]);
    check("orders.archive.old", &["orders"]);
    check("todos.list", &[]);
}

#[test]
fn every_permit_names_its_line_and_whom_it_is_for() {
    let policy = policy(SHOP);
    let pattern = Pattern::new("orders.archive.>").unwrap();
    let subscription = policy.decide_subscription(&service("orders"), &pattern).unwrap();
    assert_eq!(subscription.rule().to_string(), "p.toml:13");
    let admission = policy.admit(&service("web"), Some("dmz")).unwrap();
    assert_eq!(
        (&**admission.service(), admission.rule().to_string()),
        ("web", "p.toml:4".to_owned())
    );
    let permit = policy
        .operator(&operator("alice"))
        .and_then(|alice| alice.may(Capability::Revoke))
        .unwrap();
    assert_eq!(
        (&**permit.operator(), permit.capability(), permit.rule().line),
        ("alice", Capability::Revoke, 21)
    );
}

#[test]
fn a_subscription_names_the_line_that_grants_it_alone_where_one_does() {
    let policy = policy("[service.a]\nreceives = [\n  \"a.b\",\n  \"a.*\",\n  \"a.*.>\",\n  \"a\"\n]");
    let line = |pattern: &str| {
        let permit = policy.decide_subscription(&service("a"), &Pattern::new(pattern).unwrap());
        permit.unwrap().rule().line
    };
    // Each grants a part; the first of them stands for all.
    assert_eq!(line("a.>"), 5);
    assert_eq!(line("a.*"), 6);
    assert_eq!(line("a.x.y"), 7);
}

#[test]
fn a_denial_tells_why_in_words_and_by_which_line() {
    let policy = policy(SHOP);
    let denial = policy.admit(&service("web"), Some("data")).unwrap_err();
    assert_eq!(
        denial.rule(),
        Some(policy.service("web").unwrap().zone_rule().unwrap())
    );
    assert_eq!(
        denial.to_string(),
        "the service belongs to another zone (p.toml:5)"
    );
    let denial = policy
        .decide(&service("web"), Action::Send, &name("payments.refund"))
        .unwrap_err();
    assert_eq!(denial.rule(), None);
    assert_eq!(denial.to_string(), "no line of the policy grants it (no grant)");
    let denial = policy
        .operator(&operator("alice"))
        .and_then(|alice| alice.may(Capability::ApplyPolicy))
        .unwrap_err();
    assert_eq!(
        denial.to_string(),
        "the operator may not apply-policy (p.toml:21)"
    );
}

#[test]
fn verbs_and_capabilities_have_the_words_of_the_policy() {
    assert_eq!(Action::ALL.map(Action::as_str), ["send", "receive"]);
    assert_eq!(Action::ALL.map(|action| action.to_string()), ["send", "receive"]);
    for (word, capability) in Capability::ALL {
        let policy = policy(&format!("[operator.alice]\nmay = [\"{word}\"]"));
        let alice = policy.operator(&operator("alice")).unwrap();
        for (_, other) in Capability::ALL {
            assert_eq!(alice.may(other).is_ok(), other == capability, "{word}: {other}");
        }
        assert_eq!((capability.as_str(), &*capability.to_string()), (word, word));
    }
}

#[test]
fn what_a_policy_lists_comes_with_its_lines() {
    let policy = policy(SHOP);
    assert_eq!(policy.trust_domain_rule().to_string(), "p.toml:2");
    let web = policy.service("web").unwrap();
    let lines = |grants: &[Grant]| -> Vec<_> {
        grants
            .iter()
            .map(|grant| format!("{} {}", grant.pattern, grant.rule.line))
            .collect()
    };
    assert_eq!(lines(web.sends()), ["orders.create 6", "orders.cancel 6"]);
    assert_eq!(lines(web.receives()), ["orders.* 7"]);
    assert!(web.receives_except().is_empty());
    assert_eq!(web.zone_rule().map(|rule| rule.line), Some(5));
    assert_eq!(web.limit().map(|limit| limit.rule.line), Some(8));
    assert_eq!(web.on_alarm(), OnAlarm::Quarantine);
    let orders = policy.service("orders").unwrap();
    assert_eq!(lines(orders.receives_except()), ["orders.created 14"]);
    assert_eq!((orders.zone(), orders.zone_rule()), (None, None));
    assert_eq!((orders.limit(), orders.on_alarm()), (None, OnAlarm::Tell));
    let messages: Vec<_> = policy
        .messages()
        .map(|message| {
            let set = message.written().filter_map(|(key, value)| Some((key, value?)));
            (
                message.pattern().as_str(),
                message.rule().line,
                set.collect::<Vec<_>>(),
            )
        })
        .collect();
    let set = vec![
        ("delivery", "at-least-once".to_owned()),
        ("limits", r#"{rate = "30/m", burst = 1}"#.to_owned()),
    ];
    assert_eq!(messages, [("orders.create", 16, set)]);
    let alice = policy.operators().next().unwrap();
    assert_eq!(alice.capabilities(), [Capability::View, Capability::Revoke]);
    assert_eq!(alice.rule().line, 21);
}

#[test]
fn a_service_tells_whether_alarms_are_raised_about_it() {
    let policy = policy("[service.noisy]\nalarms = \"off\"\n[service.web]\n");
    let alarms = |who: &str| policy.service(who).unwrap().alarms().to_string();
    assert_eq!(
        (alarms("noisy"), alarms("web")),
        ("off".to_owned(), "default".to_owned())
    );
}
