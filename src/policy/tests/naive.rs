//! Decisions against what the fast structures replace: try every pattern.

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
