//! What is nearly what somebody asked for: the misspelt name, the wildcard of too few tokens, the other direction.
//!
//! Hints for a person; nothing is decided by them.

use serde::Serialize;

use super::explain::key;
use crate::policy::{Action, Grant, Policy, Rule, Service, did_you_mean};
use crate::wire::name::{MessageName, Pattern, Token};

/// Something that is nearly what was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NearMiss {
    /// What it is, in one line.
    pub text: String,
    /// The line that says so.
    pub rule: Option<Rule>,
}

/// Services of which a person reads, of those that may do what another one may not.
const OTHERS_SHOWN: usize = 5;

/// Looks for them, the likeliest first.
pub(super) fn near_misses(
    policy: &Policy,
    service: &str,
    action: Action,
    name: &MessageName,
) -> Vec<NearMiss> {
    let mut near = Vec::new();
    let Some(listed) = policy.service(service) else {
        near.extend(another_service(policy, service));
        near.extend(operator(policy, service));
        near.extend(others(policy, service, action, name));
        return near;
    };
    near.extend(misspelt(listed, action, name));
    near.extend(wrong_token_count(listed, action, name));
    near.extend(other_direction(listed, action, name));
    near.extend(others(policy, service, action, name));
    near
}

fn another_service(policy: &Policy, service: &str) -> Option<NearMiss> {
    let known: Vec<&str> = policy.services().map(|known| &**known.name()).collect();
    let meant = policy.service(did_you_mean(service, &known)?)?;
    Some(NearMiss {
        text: format!("the policy lists a service {}", meant.name()),
        rule: Some(meant.rule().clone()),
    })
}

fn operator(policy: &Policy, service: &str) -> Option<NearMiss> {
    let operator = policy
        .operators()
        .find(|operator| **operator.name() == *service)?;
    Some(NearMiss {
        text: format!("{service} is an operator, and operators neither send nor receive"),
        rule: Some(operator.rule().clone()),
    })
}

fn misspelt(service: &Service, action: Action, name: &MessageName) -> Option<NearMiss> {
    let granted: Vec<&str> = grants(service, action)
        .iter()
        .filter(|grant| grant.pattern.is_literal())
        .map(|grant| grant.pattern.as_str())
        .collect();
    let meant = did_you_mean(name.as_str(), &granted)?;
    let grant = grants(service, action)
        .iter()
        .find(|grant| grant.pattern.as_str() == meant)?;
    Some(NearMiss {
        text: format!("{} {} {meant:?}", service.name(), key(action)),
        rule: Some(grant.rule.clone()),
    })
}

/// A wildcard that would match if it stood for more tokens, or for none.
fn wrong_token_count(service: &Service, action: Action, name: &MessageName) -> Option<NearMiss> {
    let count = name.tokens().count();
    grants(service, action).iter().find_map(|grant| {
        let tokens: Vec<_> = grant.pattern.tokens().collect();
        let (last, before) = tokens.split_last()?;
        let begins_alike = before.iter().zip(name.tokens()).all(|(ours, theirs)| match ours {
            Token::Literal(literal) => *literal == theirs,
            Token::One | Token::Rest => true,
        });
        let text = match last {
            Token::One if begins_alike && count > tokens.len() => format!(
                "{:?} stands for exactly one token in place of \"*\"; {:?} would match it",
                grant.pattern.as_str(),
                with_rest(&grant.pattern)
            ),
            Token::Rest if begins_alike && count == before.len() => {
                format!("{:?} stands for at least one token more", grant.pattern.as_str())
            }
            _ => return None,
        };
        Some(NearMiss {
            text,
            rule: Some(grant.rule.clone()),
        })
    })
}

fn with_rest(pattern: &Pattern) -> String {
    let text = pattern.as_str();
    format!("{}>", text.strip_suffix('*').unwrap_or(text))
}

fn other_direction(service: &Service, action: Action, name: &MessageName) -> Option<NearMiss> {
    let other = match action {
        Action::Send => Action::Receive,
        Action::Receive => Action::Send,
    };
    let grant = granting(service, other, name)?;
    Some(NearMiss {
        text: format!("{} may {other} it, and not {action} it", service.name()),
        rule: Some(grant.rule.clone()),
    })
}

/// Other services that may do it.
fn others(policy: &Policy, service: &str, action: Action, name: &MessageName) -> Vec<NearMiss> {
    let mut others: Vec<_> = policy
        .services()
        .filter(|other| **other.name() != *service)
        .filter_map(|other| Some((other, granting(other, action, name)?)))
        .collect();
    others.sort_by_key(|(other, _)| other.name());
    let more = others.len().saturating_sub(OTHERS_SHOWN);
    let mut near: Vec<_> = others
        .into_iter()
        .take(OTHERS_SHOWN)
        .map(|(other, grant)| NearMiss {
            text: format!("{} may {action} it", other.name()),
            rule: Some(grant.rule.clone()),
        })
        .collect();
    if more > 0 {
        near.push(NearMiss {
            text: format!("{more} other services may {action} it"),
            rule: None,
        });
    }
    near
}

/// The line that lets a service do it.
fn granting<'p>(service: &'p Service, action: Action, name: &MessageName) -> Option<&'p Grant> {
    let is_taken = action == Action::Receive
        && service
            .receives_except()
            .iter()
            .any(|except| except.pattern.matches(name));
    grants(service, action)
        .iter()
        .find(|grant| !is_taken && grant.pattern.matches(name))
}

fn grants(service: &Service, action: Action) -> &[Grant] {
    match action {
        Action::Send => service.sends(),
        Action::Receive => service.receives(),
    }
}
