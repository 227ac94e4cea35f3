//! What is allowed and probably not meant: each a warning that names its line.
//!
//! Refuses nothing; a policy with warnings works as it is written.

use std::convert::Infallible;
use std::ops::ControlFlow;

use rustc_hash::{FxHashMap, FxHashSet};

use super::alarms::Alarms;
use super::compile::{Policy, Service};
use super::diagnostic::{Findings, quote};
use super::parse::{RawMessage, RawPolicy, RawService};
use super::source::{Span, Spanned};
use super::terms::{Delivery, Kind, OnAlarm, Settings};
use super::trie::PatternTrie;
use crate::wire::name::{MessageName, Pattern};

/// Looks for all of them. The services of both arguments stand in the same order.
pub(super) fn lint(raw: &RawPolicy, policy: &Policy, findings: &mut Findings<'_>) {
    for service in &raw.services {
        idle_service(service, findings);
        sends_in_vain(service, policy, findings);
        receives_in_vain(service, policy, findings);
        exceptions_in_vain(service, findings);
        alarms_in_vain(service, raw, findings);
    }
    several_receivers(raw, policy, findings);
    let mut messages = PatternTrie::new();
    for message in &raw.messages {
        *messages.slot(&message.pattern.value, |_| {}) = Some(message);
    }
    for message in &raw.messages {
        untouched_message(message, policy, findings);
        keys_without_effect(message, &messages, findings);
    }
}

fn idle_service(service: &RawService, findings: &mut Findings<'_>) {
    if service.sends.is_empty() && service.receives.is_empty() {
        findings
            .warning(
                service.name.span,
                format_args!(
                    "service {} neither sends nor receives",
                    quote(&service.name.value)
                ),
            )
            .help("it may connect and do nothing; give it sends or receives, or remove it");
    }
}

fn sends_in_vain(service: &RawService, policy: &Policy, findings: &mut Findings<'_>) {
    for sent in &service.sends {
        if !sent.value.is_literal() {
            findings
                .warning(
                    sent.span,
                    format_args!(
                        "service {} may send names that nobody listed",
                        quote(&service.name.value)
                    ),
                )
                .help("list the names that it sends; wildcards are for receiving");
        }
        let receiver = policy.receives.visit_overlapping(&sent.value, &mut |id, place| {
            let received = policy.services.get(id as usize).and_then(|service| {
                let grant = service.receives.get(place as usize)?;
                Some(something_is_left(service, &sent.value, &grant.pattern))
            });
            break_if(received == Some(true))
        });
        if receiver.is_continue() {
            findings
                .warning(
                    sent.span,
                    format_args!("nobody receives {}", quote(sent.value.as_str())),
                )
                .help("add it to the receives of a service, or do not send it");
        }
    }
}

fn receives_in_vain(service: &RawService, policy: &Policy, findings: &mut Findings<'_>) {
    let Some(compiled) = policy.service(&service.name.value) else {
        return;
    };
    for received in &service.receives {
        let sender = policy.sends.visit_overlapping(&received.value, &mut |id, place| {
            let sent = policy.services.get(id as usize).and_then(|sender| {
                let grant = sender.sends.get(place as usize)?;
                Some(something_is_left(compiled, &grant.pattern, &received.value))
            });
            break_if(sent == Some(true))
        });
        if sender.is_continue() {
            findings
                .warning(
                    received.span,
                    format_args!("nobody sends {}", quote(received.value.as_str())),
                )
                .help("add it to the sends of a service, or do not receive it");
        }
    }
}

fn exceptions_in_vain(service: &RawService, findings: &mut Findings<'_>) {
    for except in &service.receives_except {
        if !service
            .receives
            .iter()
            .any(|received| received.value.overlaps(&except.value))
        {
            findings
                .warning(
                    except.span,
                    format_args!("{} takes nothing away", quote(except.value.as_str())),
                )
                .help("the service receives nothing that it matches; remove it");
        }
    }
}

/// A service that alarms shall hold, and about which none is raised.
fn alarms_in_vain(service: &RawService, raw: &RawPolicy, findings: &mut Findings<'_>) {
    let (Some(alarms), Some(on_alarm)) = (&service.alarms, &service.on_alarm) else {
        return;
    };
    let is_told = |message: &RawMessage| {
        let alarms = message.settings.alarms.as_ref();
        let pattern = &message.pattern.value;
        alarms.is_some_and(|alarms| alarms.value != Alarms::Off)
            && service.sends.iter().any(|sent| sent.value.overlaps(pattern))
    };
    let holds = on_alarm.value == OnAlarm::Quarantine;
    if holds && alarms.value == Alarms::Off && !raw.messages.iter().any(is_told) {
        findings
            .warning(
                on_alarm.span,
                format_args!("no alarm will ever hold service {}", quote(&service.name.value)),
            )
            .second(alarms.span, "its alarms are off")
            .help("turn its alarms on, at least with {sensitivity = \"low\"}, or remove on-alarm");
    }
}

/// A command asks one service; where several receive it, each gets it and only one answer counts.
fn several_receivers(raw: &RawPolicy, policy: &Policy, findings: &mut Findings<'_>) {
    let mut seen = FxHashSet::default();
    for name in sent_names(raw, policy) {
        if !seen.insert(name.clone()) || policy.terms(&name).kind == Kind::Event {
            continue;
        }
        let receivers = receivers(raw, policy, &name);
        let [(first, first_span), .., (last, last_span)] = receivers.as_slice() else {
            continue;
        };
        let who = match receivers.len() {
            2 => format!("{first} and {last}"),
            count => format!("{first}, {last} and {} more", count - 2),
        };
        let name = quote(name.as_str());
        findings
            .warning(
                *last_span,
                format_args!("the command {name} has several receiving services: {who}"),
            )
            .second(*first_span, "received here too")
            .help(format!(
                "let one service receive it, or make it an event: [message.{name}] kind = \"event\""
            ));
    }
}

/// Every name that is spelled out by a sender, or by a receiver of what a sender's wildcard matches.
fn sent_names(raw: &RawPolicy, policy: &Policy) -> impl Iterator<Item = MessageName> {
    let literal = |pattern: &Spanned<Pattern>| MessageName::new(pattern.value.as_str()).ok();
    let sent = raw
        .services
        .iter()
        .flat_map(|service| &service.sends)
        .filter_map(literal);
    let received = raw
        .services
        .iter()
        .flat_map(|service| &service.receives)
        .filter_map(literal);
    sent.chain(received.filter(|name| {
        let sender = policy
            .sends
            .visit_overlapping(&Pattern::from(name.clone()), &mut |_, _| break_if(true));
        sender.is_break()
    }))
}

fn receivers<'r>(raw: &'r RawPolicy, policy: &Policy, name: &MessageName) -> Vec<(&'r str, Span)> {
    let mut receivers: FxHashMap<u32, u32> = FxHashMap::default();
    let pattern = Pattern::from(name.clone());
    let ControlFlow::<Infallible>::Continue(()) =
        policy.receives.visit_overlapping(&pattern, &mut |id, place| {
            if policy.receives_except.find(id, name).is_none() {
                receivers.entry(id).or_insert(place);
            }
            ControlFlow::Continue(())
        });
    let mut receivers: Vec<_> = receivers
        .into_iter()
        .filter_map(|(id, place)| {
            let service = raw.services.get(id as usize)?;
            Some((&*service.name.value, service.receives.get(place as usize)?.span))
        })
        .collect();
    receivers.sort_by_key(|&(_, span)| span);
    receivers
}

fn untouched_message(message: &RawMessage, policy: &Policy, findings: &mut Findings<'_>) {
    let pattern = &message.pattern.value;
    let granted = [&policy.sends, &policy.receives].into_iter().any(|grants| {
        grants
            .visit_overlapping(pattern, &mut |_, _| break_if(true))
            .is_break()
    });
    if !granted {
        findings
            .warning(
                message.pattern.span,
                format_args!("nobody sends or receives {}", quote(pattern.as_str())),
            )
            .help("these settings apply to no message; grant it to a service, or remove them");
    }
}

/// Keys of tracked messages where no message that they apply to is tracked, and `reply-within` of an event.
fn keys_without_effect(
    message: &RawMessage,
    messages: &PatternTrie<&RawMessage>,
    findings: &mut Findings<'_>,
) {
    let settings = &message.settings;
    let tracked_only = [
        ("ack-within", settings.ack_within.as_ref().map(|key| key.span)),
        ("attempts", settings.attempts.as_ref().map(|key| key.span)),
        ("backoff", settings.backoff.as_ref().map(|key| key.span)),
        ("expires", settings.expires.as_ref().map(|key| key.span)),
    ];
    if tracked_only.iter().all(|(_, span)| span.is_none()) && settings.reply_within.is_none() {
        return;
    }
    let mut overlapping = Vec::new();
    let ControlFlow::<Infallible>::Continue(()) =
        messages.visit_overlapping(&message.pattern.value, &mut |&other: &&RawMessage| {
            overlapping.push(other);
            ControlFlow::Continue(())
        });
    let (mut wider, narrower): (Vec<_>, Vec<_>) = overlapping
        .into_iter()
        .partition(|other| message.pattern.value.is_included_in([&other.pattern.value]));
    let inherited = inherited(&mut wider);
    let may_be_tracked = inherited.delivery == Some(Delivery::AtLeastOnce)
        || narrower
            .iter()
            .any(|other| other.settings.values().delivery == Some(Delivery::AtLeastOnce));
    for (key, span) in tracked_only {
        if let Some(span) = span.filter(|_| !may_be_tracked) {
            findings
                .warning(
                    span,
                    format_args!("{key} has no effect on a message that is delivered at most once"),
                )
                .help(format!("remove {key}, or add delivery = \"at-least-once\""));
        }
    }
    let may_be_command = inherited.kind != Some(Kind::Event)
        || narrower
            .iter()
            .any(|other| other.settings.values().kind == Some(Kind::Command));
    if let Some(key) = settings.reply_within.as_ref().filter(|_| !may_be_command) {
        findings
            .warning(
                key.span,
                "reply-within has no effect on an event, which has no reply",
            )
            .help("remove reply-within, or use ack-within with delivery = \"at-least-once\"");
    }
}

/// The settings of all names that a pattern matches, but for narrower patterns: of those that include it.
fn inherited(wider: &mut [&RawMessage]) -> Settings {
    wider.sort_by_key(|other| other.pattern.value.specificity());
    let mut settings = Settings::default();
    for other in wider {
        settings.fill_from(&other.settings.values());
    }
    settings
}

/// Whether a service receives a name that both patterns match, its exceptions taken away.
fn something_is_left(service: &Service, sent: &Pattern, received: &Pattern) -> bool {
    let excepts = service.receives_except.iter().map(|except| &except.pattern);
    sent.common(received)
        .is_some_and(|common| !common.is_included_in(excepts))
}

fn break_if(found: bool) -> ControlFlow<()> {
    if found {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}
