//! How a message travels: the `[message]` settings, and which of several matching patterns decides.
//!
//! Only says what was written or the default; delivering by it is for others.

use std::ops::ControlFlow;
use std::time::Duration;

use serde::Serialize;

use super::alarms::Alarms;
use super::rate::{Limit, Limits, Scope};
use super::source::{Rule, Spanned};
use super::trie::PatternTrie;
use super::value;
use crate::wire::name::{MessageName, Pattern};

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Asks one service and expects an answer.
    Command,
    /// Tells every receiving service.
    Event,
}

/// What is promised about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// In memory, now, or a reason at once why not.
    AtMostOnce,
    /// On disk before the sender is told so, and tried until it is acknowledged or given up.
    AtLeastOnce,
}

/// How a message is written to the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audit {
    /// Counted in the record of its flow.
    Flow,
    /// A record of its own.
    Each,
}

/// What an alarm about a service does, besides being told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnAlarm {
    /// Nothing.
    #[default]
    Tell,
    /// It holds the service until somebody has looked.
    Quarantine,
}

impl OnAlarm {
    /// Its word in the policy.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tell => "tell",
            Self::Quarantine => "quarantine",
        }
    }
}

/// How long to wait between attempts: doubled from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Backoff {
    /// Before the second attempt.
    pub first: Duration,
    /// Before any attempt.
    pub longest: Duration,
}

/// How one message travels: each key from the most specific pattern that sets it, or its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Terms {
    /// Command unless set.
    pub kind: Kind,
    /// At most once unless set.
    pub delivery: Delivery,
    /// How long the answer to a command may take; 10 s unless set.
    pub reply_within: Duration,
    /// How long a receiver may take to acknowledge a tracked event; 30 s unless set.
    pub ack_within: Duration,
    /// How often delivery is tried before the message is a dead letter; 5 unless set.
    pub attempts: u32,
    /// The wait between attempts; 1 s to 1 min unless set.
    pub backoff: Backoff,
    /// How long a tracked message is kept for a receiver that does not take it; 24 h unless set.
    pub expires: Duration,
    /// Flow unless set.
    pub audit: Audit,
    /// The largest payload, in bytes; the broker's own limit unless set.
    pub payload_max: Option<usize>,
    /// How many messages a service may send; as many as it likes unless set.
    pub limits: Option<Limits>,
    /// Whether alarms are raised about it; as its sending service has it unless set.
    pub alarms: Option<Alarms>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            kind: Kind::Command,
            delivery: Delivery::AtMostOnce,
            reply_within: Duration::from_secs(10),
            ack_within: Duration::from_secs(30),
            attempts: 5,
            backoff: Backoff {
                first: Duration::from_secs(1),
                longest: Duration::from_secs(60),
            },
            expires: Duration::from_secs(24 * 60 * 60),
            audit: Audit::Flow,
            payload_max: None,
            limits: None,
            alarms: None,
        }
    }
}

impl Terms {
    /// Every key of `[message]` with its value, both as they are written in a policy; none for a `payload-max` that
    /// is the broker's own, for limits that there are not, and for alarms that are as the service has them.
    pub fn written(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        let all = Settings {
            kind: Some(self.kind),
            delivery: Some(self.delivery),
            reply_within: Some(self.reply_within),
            ack_within: Some(self.ack_within),
            attempts: Some(self.attempts),
            backoff: Some(self.backoff),
            expires: Some(self.expires),
            audit: Some(self.audit),
            payload_max: self.payload_max,
            limits: self.limits,
            alarms: self.alarms,
        };
        all.written().into_iter()
    }
}

/// The keys that one `[message]` table sets, with their places.
#[derive(Debug, Clone, Default)]
pub(super) struct RawSettings {
    pub(super) kind: Option<Spanned<Kind>>,
    pub(super) delivery: Option<Spanned<Delivery>>,
    pub(super) reply_within: Option<Spanned<Duration>>,
    pub(super) ack_within: Option<Spanned<Duration>>,
    pub(super) attempts: Option<Spanned<u32>>,
    pub(super) backoff: Option<Spanned<Backoff>>,
    pub(super) expires: Option<Spanned<Duration>>,
    pub(super) audit: Option<Spanned<Audit>>,
    pub(super) payload_max: Option<Spanned<usize>>,
    pub(super) limits: Option<Spanned<Limits>>,
    pub(super) alarms: Option<Spanned<Alarms>>,
}

impl RawSettings {
    /// The keys without their places.
    pub(super) fn values(&self) -> Settings {
        fn value<T: Copy>(spanned: &Option<Spanned<T>>) -> Option<T> {
            spanned.as_ref().map(|spanned| spanned.value)
        }
        Settings {
            kind: value(&self.kind),
            delivery: value(&self.delivery),
            reply_within: value(&self.reply_within),
            ack_within: value(&self.ack_within),
            attempts: value(&self.attempts),
            backoff: value(&self.backoff),
            expires: value(&self.expires),
            audit: value(&self.audit),
            payload_max: value(&self.payload_max),
            limits: value(&self.limits),
            alarms: value(&self.alarms),
        }
    }
}

/// The keys that are set, by one pattern or by several together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    pub(super) kind: Option<Kind>,
    pub(super) delivery: Option<Delivery>,
    reply_within: Option<Duration>,
    ack_within: Option<Duration>,
    attempts: Option<u32>,
    backoff: Option<Backoff>,
    expires: Option<Duration>,
    audit: Option<Audit>,
    payload_max: Option<usize>,
    limits: Option<Limits>,
    pub(super) alarms: Option<Alarms>,
}

impl Settings {
    /// Takes the keys that are still unset from a less specific pattern.
    pub(super) fn fill_from(&mut self, wider: &Self) {
        self.kind = self.kind.or(wider.kind);
        self.delivery = self.delivery.or(wider.delivery);
        self.reply_within = self.reply_within.or(wider.reply_within);
        self.ack_within = self.ack_within.or(wider.ack_within);
        self.attempts = self.attempts.or(wider.attempts);
        self.backoff = self.backoff.or(wider.backoff);
        self.expires = self.expires.or(wider.expires);
        self.audit = self.audit.or(wider.audit);
        self.payload_max = self.payload_max.or(wider.payload_max);
        self.limits = self.limits.or(wider.limits);
        self.alarms = self.alarms.or(wider.alarms);
    }

    /// Every key with its value as it is written, where it is set.
    pub(super) fn written(&self) -> [(&'static str, Option<String>); 11] {
        let time = |time: Duration| value::show_ms(time.as_millis() as u64);
        [
            ("kind", self.kind.map(|kind| word(&KINDS, kind))),
            (
                "delivery",
                self.delivery.map(|delivery| word(&DELIVERIES, delivery)),
            ),
            ("reply-within", self.reply_within.map(time)),
            ("ack-within", self.ack_within.map(time)),
            ("attempts", self.attempts.map(|attempts| attempts.to_string())),
            (
                "backoff",
                self.backoff
                    .map(|backoff| format!("{}..{}", time(backoff.first), time(backoff.longest))),
            ),
            ("expires", self.expires.map(time)),
            ("audit", self.audit.map(|audit| word(&AUDITS, audit))),
            ("payload-max", self.payload_max.map(value::show_size)),
            ("limits", self.limits.map(|limits| limits.to_string())),
            ("alarms", self.alarms.map(|alarms| alarms.to_string())),
        ]
    }

    /// The keys that are set, and the defaults of the others.
    pub(super) fn or_default(&self) -> Terms {
        let default = Terms::default();
        Terms {
            kind: self.kind.unwrap_or(default.kind),
            delivery: self.delivery.unwrap_or(default.delivery),
            reply_within: self.reply_within.unwrap_or(default.reply_within),
            ack_within: self.ack_within.unwrap_or(default.ack_within),
            attempts: self.attempts.unwrap_or(default.attempts),
            backoff: self.backoff.unwrap_or(default.backoff),
            expires: self.expires.unwrap_or(default.expires),
            audit: self.audit.unwrap_or(default.audit),
            payload_max: self.payload_max.or(default.payload_max),
            limits: self.limits.or(default.limits),
            alarms: self.alarms.or(default.alarms),
        }
    }
}

/// The words of a policy for a kind.
pub(super) const KINDS: [(&str, Kind); 2] = [("command", Kind::Command), ("event", Kind::Event)];

/// The words of a policy for a delivery.
pub(super) const DELIVERIES: [(&str, Delivery); 2] = [
    ("at-most-once", Delivery::AtMostOnce),
    ("at-least-once", Delivery::AtLeastOnce),
];

/// The words of a policy for an audit.
pub(super) const AUDITS: [(&str, Audit); 2] = [("flow", Audit::Flow), ("each", Audit::Each)];

/// The words of a policy for what an alarm does.
pub(super) const ON_ALARMS: [(&str, OnAlarm); 2] = [
    (OnAlarm::Tell.as_str(), OnAlarm::Tell),
    (OnAlarm::Quarantine.as_str(), OnAlarm::Quarantine),
];

fn word<T: PartialEq>(words: &[(&str, T)], value: T) -> String {
    let known = words.iter().find(|(_, known)| *known == value);
    known.map_or("", |(word, _)| word).to_owned()
}

/// All `[message]` tables, found by name.
#[derive(Debug)]
pub(super) struct TermsTable {
    trie: PatternTrie<Settings>,
    durable: Vec<(Pattern, Rule)>,
    limits: Vec<Limit>,
    /// Their places, by pattern.
    limited: PatternTrie<usize>,
}

impl TermsTable {
    /// Of each pattern's settings and, where they ask for at-least-once and set limits, the lines that do.
    pub(super) fn new<'a>(
        messages: impl Iterator<Item = (&'a Pattern, Settings, Option<Rule>, Option<Rule>)>,
    ) -> Self {
        let mut table = Self {
            trie: PatternTrie::new(),
            durable: Vec::new(),
            limits: Vec::new(),
            limited: PatternTrie::new(),
        };
        for (pattern, settings, delivery_rule, limits_rule) in messages {
            *table.trie.slot(pattern, |_| {}) = Some(settings);
            if let (Some(Delivery::AtLeastOnce), Some(rule)) = (settings.delivery, delivery_rule) {
                table.durable.push((pattern.clone(), rule));
            }
            if let (Some(limits), Some(rule)) = (settings.limits, limits_rule) {
                *table.limited.slot(pattern, |_| {}) = Some(table.limits.len());
                table.limits.push(Limit {
                    scope: Scope::Message(pattern.clone()),
                    limits,
                    rule,
                });
            }
        }
        table
    }

    /// The limits of one message: those of the most specific pattern that sets some.
    pub(super) fn limit(&self, name: &MessageName) -> Option<&Limit> {
        if self.limits.is_empty() {
            return None;
        }
        let first = &mut |place: &usize| ControlFlow::Break(*place);
        match self.limited.visit_matching(name.as_str(), &|_| true, first) {
            ControlFlow::Break(place) => self.limits.get(place),
            ControlFlow::Continue(()) => None,
        }
    }

    /// The terms of one message: the trie meets the patterns that match in the order of their specificity.
    pub(super) fn of(&self, name: &MessageName) -> Terms {
        let mut merged: Option<Settings> = None;
        let ControlFlow::Continue(()) = self.trie.visit_matching(
            name.as_str(),
            &|_| true,
            &mut |settings: &Settings| -> ControlFlow<std::convert::Infallible> {
                match &mut merged {
                    Some(merged) => merged.fill_from(settings),
                    None => merged = Some(*settings),
                }
                ControlFlow::Continue(())
            },
        );
        merged.map_or_else(Terms::default, |settings| settings.or_default())
    }

    /// The patterns that ask for at-least-once, and where.
    pub(super) fn durable(&self) -> impl Iterator<Item = (&Pattern, &Rule)> {
        self.durable.iter().map(|(pattern, rule)| (pattern, rule))
    }
}
