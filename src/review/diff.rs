//! What one policy gives and takes, compared with another: who gains what, who loses what, what changes beside.
//!
//! Exact: where it finds nothing, the policies decide alike whatever comes. It judges no change; the caller does.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::reach::{Part, Reach, TooIntricate};
use super::travel;
use crate::policy::{Action, Alarms, Capability, NewFlows, OnAlarm, Policy, Rule, Service};
use crate::wire::name::{MessageName, Pattern};

/// All that is different, by service, then operators, then messages.
#[derive(Debug, Clone, Serialize)]
pub struct Diff {
    changes: Vec<Change>,
}

/// Which way a change goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Somebody may do more.
    Gain,
    /// Somebody may do less.
    Loss,
    /// Nobody may do more or less: messages travel in another way.
    Change,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Change {
    /// Certificates of a trust domain count, or no longer count. All that follows is about services and operators of
    /// the same name.
    TrustDomain {
        /// Gain or loss.
        effect: Effect,
        /// The trust domain.
        trust_domain: Arc<str>,
        /// The line that names it.
        rule: Rule,
    },
    /// A service may connect to listeners.
    Connect {
        /// Gain or loss.
        effect: Effect,
        /// The service.
        service: Arc<str>,
        /// To which.
        listeners: Listeners,
        /// Whether the service is listed in one of the policies alone.
        only_listed_there: bool,
        /// The line that says so.
        rule: Rule,
    },
    /// A service may send or receive messages.
    Message {
        /// Gain or loss.
        effect: Effect,
        /// The service.
        service: Arc<str>,
        /// Sending or receiving.
        action: Action,
        /// Which messages.
        pattern: Pattern,
        /// Whether these are all messages of the pattern.
        whole: bool,
        /// A shortest of the names.
        example: MessageName,
        /// The line that grants them, in the policy that does.
        rule: Rule,
    },
    /// An operator may do something.
    Operator {
        /// Gain or loss.
        effect: Effect,
        /// The operator.
        operator: Arc<str>,
        /// What.
        may: Capability,
        /// The line that says so, in the policy that does.
        rule: Rule,
    },
    /// The messages of a service are limited in another way.
    Limits {
        /// Change.
        effect: Effect,
        /// The service.
        service: Arc<str>,
        /// Its limits in the old policy; none for as many as it likes.
        old: Option<String>,
        /// Its limits in the new policy.
        new: Option<String>,
    },
    /// Alarms about what a service does are raised more readily or less, where no message says otherwise.
    Alarms {
        /// Change.
        effect: Effect,
        /// The service.
        service: Arc<str>,
        /// As the old policy has it.
        old: Alarms,
        /// As the new policy has it.
        new: Alarms,
    },
    /// A new flow is an alarm sooner or later.
    NewFlowAfter {
        /// Change.
        effect: Effect,
        /// After how long by the old policy.
        old: NewFlows,
        /// After how long by the new policy.
        new: NewFlows,
    },
    /// An alarm about a service does something else.
    OnAlarm {
        /// Change.
        effect: Effect,
        /// The service.
        service: Arc<str>,
        /// What it does by the old policy.
        old: OnAlarm,
        /// What it does by the new policy.
        new: OnAlarm,
    },
    /// Messages travel in another way.
    Terms {
        /// Change.
        effect: Effect,
        /// Which messages.
        pattern: Pattern,
        /// Whether these are all messages of the pattern.
        whole: bool,
        /// A shortest of the names.
        example: MessageName,
        /// The key of `[message]`.
        key: &'static str,
        /// Its value in the old policy, as it is written; none for the broker's own.
        old: Option<String>,
        /// Its value in the new policy.
        new: Option<String>,
    },
}

/// The listeners that a service may connect to, besides those of no zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Listeners {
    /// Of any zone.
    Any,
    /// Of one zone.
    Zone(Arc<str>),
    /// Of any zone but one.
    AnyBut(Arc<str>),
}

/// Compares two policies.
pub fn diff(old: &Policy, new: &Policy) -> Result<Diff, TooIntricate> {
    let mut changes = trust_domain(old, new);
    for name in names(
        old.services().map(Service::name),
        new.services().map(Service::name),
    ) {
        let (before, after) = (old.service(&name), new.service(&name));
        connections(&name, before, after, &mut changes);
        for action in Action::ALL {
            let (had, has) = (Reach::of(before, action), Reach::of(after, action));
            messages(Effect::Gain, &name, action, has.beyond(&had)?, &mut changes);
            messages(Effect::Loss, &name, action, had.beyond(&has)?, &mut changes);
        }
        limits(&name, before, after, &mut changes);
    }
    operators(old, new, &mut changes);
    if old.new_flows() != new.new_flows() {
        changes.push(Change::NewFlowAfter {
            effect: Effect::Change,
            old: old.new_flows(),
            new: new.new_flows(),
        });
    }
    changes.extend(travel::changes(old, new)?);
    Ok(Diff { changes })
}

impl Diff {
    /// All of them.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many go this way.
    pub fn count(&self, effect: Effect) -> usize {
        self.changes
            .iter()
            .filter(|change| change.effect() == effect)
            .count()
    }
}

impl Change {
    /// Which way it goes.
    pub fn effect(&self) -> Effect {
        match self {
            Self::TrustDomain { effect, .. }
            | Self::Connect { effect, .. }
            | Self::Message { effect, .. }
            | Self::Operator { effect, .. }
            | Self::Limits { effect, .. }
            | Self::Alarms { effect, .. }
            | Self::NewFlowAfter { effect, .. }
            | Self::OnAlarm { effect, .. }
            | Self::Terms { effect, .. } => *effect,
        }
    }
}

fn trust_domain(old: &Policy, new: &Policy) -> Vec<Change> {
    if old.trust_domain() == new.trust_domain() {
        return Vec::new();
    }
    let change = |effect, policy: &Policy| Change::TrustDomain {
        effect,
        trust_domain: policy.trust_domain().into(),
        rule: policy.trust_domain_rule().clone(),
    };
    vec![change(Effect::Gain, new), change(Effect::Loss, old)]
}

fn connections(
    name: &Arc<str>,
    before: Option<&Service>,
    after: Option<&Service>,
    changes: &mut Vec<Change>,
) {
    let mut add = |effect, listeners, service: &Service| {
        changes.push(Change::Connect {
            effect,
            service: Arc::clone(name),
            listeners,
            only_listed_there: before.is_none() || after.is_none(),
            rule: service.zone_rule().unwrap_or(service.rule()).clone(),
        });
    };
    let all = |zone: Option<&Arc<str>>| zone.map_or(Listeners::Any, |zone| Listeners::Zone(Arc::clone(zone)));
    match (before, after) {
        (None, Some(service)) => add(Effect::Gain, all(service.zone()), service),
        (Some(service), None) => add(Effect::Loss, all(service.zone()), service),
        (Some(before), Some(after)) => match (before.zone(), after.zone()) {
            (None, Some(zone)) => add(Effect::Loss, Listeners::AnyBut(Arc::clone(zone)), after),
            (Some(zone), None) => add(Effect::Gain, Listeners::AnyBut(Arc::clone(zone)), after),
            (Some(old), Some(new)) if old != new => {
                add(Effect::Gain, Listeners::Zone(Arc::clone(new)), after);
                add(Effect::Loss, Listeners::Zone(Arc::clone(old)), before);
            }
            _ => {}
        },
        (None, None) => {}
    }
}

fn messages(
    effect: Effect,
    service: &Arc<str>,
    action: Action,
    parts: Vec<Part<'_>>,
    changes: &mut Vec<Change>,
) {
    changes.extend(parts.into_iter().map(|part| Change::Message {
        effect,
        service: Arc::clone(service),
        action,
        pattern: part.pattern,
        whole: part.whole,
        example: part.example,
        rule: part.rule.clone(),
    }));
}

/// Limits, alarms and what these do, of a service that both list: with another, what it may send comes or goes whole.
fn limits(name: &Arc<str>, before: Option<&Service>, after: Option<&Service>, changes: &mut Vec<Change>) {
    let (Some(before), Some(after)) = (before, after) else {
        return;
    };
    let written = |service: &Service| service.limit().map(|limit| limit.limits.to_string());
    let (old, new) = (written(before), written(after));
    if old != new {
        changes.push(Change::Limits {
            effect: Effect::Change,
            service: Arc::clone(name),
            old,
            new,
        });
    }
    let (old, new) = (before.alarms(), after.alarms());
    if old != new {
        changes.push(Change::Alarms {
            effect: Effect::Change,
            service: Arc::clone(name),
            old,
            new,
        });
    }
    let (old, new) = (before.on_alarm(), after.on_alarm());
    if old != new {
        changes.push(Change::OnAlarm {
            effect: Effect::Change,
            service: Arc::clone(name),
            old,
            new,
        });
    }
}

fn operators(old: &Policy, new: &Policy, changes: &mut Vec<Change>) {
    let of = |policy: &Policy, name: &str| {
        let operator = policy.operators().find(|operator| **operator.name() == *name)?;
        Some((operator.capabilities().to_vec(), operator.rule().clone()))
    };
    let name = |operator: &crate::policy::Operator| Arc::clone(operator.name());
    let known: BTreeSet<_> = old.operators().chain(new.operators()).map(name).collect();
    for name in known {
        let (before, after) = (of(old, &name), of(new, &name));
        for (effect, from, to) in [(Effect::Gain, &before, &after), (Effect::Loss, &after, &before)] {
            let Some((capabilities, rule)) = to else { continue };
            for (_, capability) in Capability::ALL {
                let had = from.as_ref().is_some_and(|(had, _)| had.contains(&capability));
                if capabilities.contains(&capability) && !had {
                    changes.push(Change::Operator {
                        effect,
                        operator: Arc::clone(&name),
                        may: capability,
                        rule: rule.clone(),
                    });
                }
            }
        }
    }
}

fn names<'p>(
    old: impl Iterator<Item = &'p Arc<str>>,
    new: impl Iterator<Item = &'p Arc<str>>,
) -> BTreeSet<Arc<str>> {
    old.chain(new).map(Arc::clone).collect()
}
