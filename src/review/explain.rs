//! Why a service may or may not send or receive a message, and the smallest edit that would change that.
//!
//! The answer is the broker's own: it comes from [`Policy::decide`]. Nothing is changed; what an edit would do beside
//! is told with it.

use serde::Serialize;

use super::near::{NearMiss, near_misses};
use super::reach::{Missing, Reach, TooIntricate};
use crate::identity::{Identity, Role};
use crate::policy::{Action, DenialReason, Grant, Policy, Rule, Service};
use crate::wire::name::{MessageName, Pattern};

/// Whether a service may send or receive a message, or all messages of a pattern.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    /// The answer.
    pub allowed: bool,
    /// Who.
    pub service: String,
    /// Does what.
    pub action: Action,
    /// With which messages.
    pub asked: Pattern,
    /// The name that the answer is about: of a pattern that is not allowed whole, a name that is not.
    pub name: Option<MessageName>,
    /// Why not.
    #[serde(serialize_with = "reason_text")]
    pub reason: Option<DenialReason>,
    /// The line that grants or forbids it, if one does.
    pub rule: Option<Rule>,
    /// What is nearly what was asked about.
    pub near: Vec<NearMiss>,
    /// Together they would turn the answer.
    pub edits: Vec<Edit>,
    /// Names that the edits would allow or forbid beside.
    pub beside: Vec<Beside>,
}

/// A change of one line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Edit {
    /// What is done.
    pub verb: EditVerb,
    /// The pattern that is added or removed.
    pub pattern: Pattern,
    /// The list of the service.
    pub key: &'static str,
    /// The line of the pattern, or of the list it comes to; none for a service that is not listed.
    pub rule: Option<Rule>,
}

/// What an edit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EditVerb {
    /// Adds a pattern to a list.
    Add,
    /// Removes a pattern from a list.
    Remove,
}

/// Names that an edit changes beside those that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Beside {
    /// Their pattern.
    pub pattern: Pattern,
    /// A shortest of them.
    pub example: MessageName,
}

/// Explains one decision.
pub fn explain(
    policy: &Policy,
    service: &str,
    action: Action,
    asked: &Pattern,
) -> Result<Explanation, TooIntricate> {
    let listed = policy.service(service);
    let name = match MessageName::new(asked.as_str()) {
        Ok(name) => Some(name),
        Err(_) => Reach::of(listed, action)
            .missing(asked)?
            .map(|missing: Missing<'_>| missing.example),
    };
    let identity = Identity {
        trust_domain: policy.trust_domain().into(),
        role: Role::Service(service.into()),
        serial: "".into(),
        expires_unix_s: i64::MAX,
    };
    let decision = name.as_ref().map(|name| policy.decide(&identity, action, name));
    let (allowed, reason, rule) = match &decision {
        // Every name of the pattern is allowed.
        None => {
            let (granted, _) = lists(listed, action);
            let alone = granted
                .iter()
                .find(|grant| asked.is_included_in([&grant.pattern]));
            let first = granted.iter().find(|grant| grant.pattern.overlaps(asked));
            (true, None, alone.or(first).map(|grant| grant.rule.clone()))
        }
        Some(Ok(permit)) => (true, None, Some(permit.rule().clone())),
        Some(Err(denial)) => (false, Some(denial.reason()), denial.rule().cloned()),
    };
    let edits = if allowed {
        forbidding(listed, action, asked)
    } else {
        allowing(listed, action, asked)
    };
    Ok(Explanation {
        allowed,
        service: service.to_owned(),
        action,
        near: match &name {
            Some(name) if !allowed => near_misses(policy, service, action, name),
            _ => Vec::new(),
        },
        beside: beside(listed, action, &[asked], &edits)?,
        asked: asked.clone(),
        name,
        reason,
        rule,
        edits,
    })
}

/// What is granted and what is taken away, of a service that may be unlisted.
pub(super) fn lists(service: Option<&Service>, action: Action) -> (&[Grant], &[Grant]) {
    match (service, action) {
        (None, _) => (&[], &[]),
        (Some(service), Action::Send) => (service.sends(), &[]),
        (Some(service), Action::Receive) => (service.receives(), service.receives_except()),
    }
}

/// A pattern more where not all is granted, and no exception that touches it: there is no other way.
pub(super) fn allowing(service: Option<&Service>, action: Action, asked: &Pattern) -> Vec<Edit> {
    let (granted, taken) = lists(service, action);
    let mut edits = Vec::new();
    if !asked.is_included_in(granted.iter().map(|grant| &grant.pattern)) {
        edits.push(added(service, key(action), granted, asked));
    }
    let touching = taken.iter().filter(|except| except.pattern.overlaps(asked));
    edits.extend(touching.map(|except| removed(EXCEPT_KEY, except)));
    edits
}

/// An exception more; where there are none, of `sends`, no pattern that touches it.
fn forbidding(service: Option<&Service>, action: Action, asked: &Pattern) -> Vec<Edit> {
    let (granted, taken) = lists(service, action);
    match action {
        Action::Receive => match granted.iter().find(|grant| grant.pattern == *asked) {
            // Nothing else grants it: it goes without an exception.
            Some(grant)
                if !granted
                    .iter()
                    .any(|other| other != grant && other.pattern.overlaps(asked)) =>
            {
                vec![removed(key(action), grant)]
            }
            _ => vec![added(service, EXCEPT_KEY, taken, asked)],
        },
        Action::Send => {
            let touching = granted.iter().filter(|grant| grant.pattern.overlaps(asked));
            touching.map(|grant| removed(key(action), grant)).collect()
        }
    }
}

const EXCEPT_KEY: &str = "receives-except";

/// The list of a service that grants it.
pub(super) fn key(action: Action) -> &'static str {
    match action {
        Action::Send => "sends",
        Action::Receive => "receives",
    }
}

fn added(service: Option<&Service>, key: &'static str, list: &[Grant], pattern: &Pattern) -> Edit {
    Edit {
        verb: EditVerb::Add,
        pattern: pattern.clone(),
        key,
        rule: list
            .first()
            .map(|grant| &grant.rule)
            .or(service.map(Service::rule))
            .cloned(),
    }
}

fn removed(key: &'static str, grant: &Grant) -> Edit {
    Edit {
        verb: EditVerb::Remove,
        pattern: grant.pattern.clone(),
        key,
        rule: Some(grant.rule.clone()),
    }
}

/// What the edits change beside what was asked about.
pub(super) fn beside(
    service: Option<&Service>,
    action: Action,
    asked: &[&Pattern],
    edits: &[Edit],
) -> Result<Vec<Beside>, TooIntricate> {
    let (granted, taken) = lists(service, action);
    let (granted_after, taken_after) = edited(granted, taken, edits);
    let of_others = |taken: &[Grant]| {
        let mut taken = taken.to_vec();
        taken.extend(asked.iter().map(|asked| unplaced(asked)));
        taken
    };
    let (of_others_before, of_others_after) = (of_others(taken), of_others(&taken_after));
    let gained = Reach::new(&granted_after, &of_others_after).beyond(&Reach::new(granted, taken))?;
    let lost = Reach::new(granted, &of_others_before).beyond(&Reach::new(&granted_after, &taken_after))?;
    let beside = gained.into_iter().chain(lost).map(|part| Beside {
        pattern: part.pattern,
        example: part.example,
    });
    Ok(beside.collect())
}

/// The lists after the edits.
pub(super) fn edited(granted: &[Grant], taken: &[Grant], edits: &[Edit]) -> (Vec<Grant>, Vec<Grant>) {
    let (mut granted, mut taken) = (granted.to_vec(), taken.to_vec());
    for edit in edits {
        let list = if edit.key == EXCEPT_KEY {
            &mut taken
        } else {
            &mut granted
        };
        match edit.verb {
            EditVerb::Remove => list.retain(|grant| grant.pattern != edit.pattern),
            EditVerb::Add => list.push(unplaced(&edit.pattern)),
        }
    }
    (granted, taken)
}

/// A grant that stands in no file.
fn unplaced(pattern: &Pattern) -> Grant {
    Grant {
        pattern: pattern.clone(),
        rule: Rule {
            file: "".into(),
            line: 1,
        },
    }
}

fn reason_text<S: serde::Serializer>(
    reason: &Option<DenialReason>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match reason {
        Some(reason) => serializer.collect_str(reason),
        None => serializer.serialize_none(),
    }
}
