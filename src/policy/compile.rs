//! The compiled policy: what the files say, arranged so that a decision is a short walk.
//!
//! Immutable once built. The caller swaps a whole policy for another; nothing is ever changed in one.

use std::fmt::Write as _;
use std::sync::Arc;

use ring::digest::{Context, SHA256};
use rustc_hash::FxHashMap;

use super::alarms::{Alarms, NewFlows};
use super::decide::Capability;
use super::diagnostic::{Diagnostics, Findings, PolicyErrors};
use super::grants::{GrantTrie, ServiceId};
use super::lint;
use super::parse::{self, RawPolicy, RawService};
use super::rate::{Limit, Scope};
use super::source::{Rule, Source, Sources, Span, Spanned};
use super::terms::{OnAlarm, Settings, Terms, TermsTable};
use crate::limits::POLICY_BYTES_MAX;
use crate::wire::name::{MessageName, Pattern};

/// A policy, compiled: an immutable snapshot, to be shared in an [`Arc`].
#[derive(Debug)]
pub struct Policy {
    version: Box<str>,
    pub(super) trust_domain: Arc<str>,
    pub(super) trust_domain_rule: Rule,
    pub(super) services: Vec<Service>,
    pub(super) service_ids: FxHashMap<Arc<str>, ServiceId>,
    pub(super) operators: Vec<Operator>,
    pub(super) sends: GrantTrie,
    pub(super) receives: GrantTrie,
    pub(super) receives_except: GrantTrie,
    pub(super) terms: TermsTable,
    messages: Vec<Message>,
    new_flows: NewFlows,
}

/// A policy that was taken, and what somebody should look at.
#[derive(Debug)]
pub struct Compiled {
    /// The policy.
    pub policy: Policy,
    /// None of them keeps the policy from working.
    pub warnings: Diagnostics,
}

/// A service that the policy lists.
#[derive(Debug)]
pub struct Service {
    pub(super) name: Arc<str>,
    pub(super) rule: Rule,
    pub(super) zone: Option<Zone>,
    pub(super) sends: Vec<Grant>,
    pub(super) receives: Vec<Grant>,
    pub(super) receives_except: Vec<Grant>,
    pub(super) limit: Option<Limit>,
    pub(super) alarms: Option<Alarms>,
    pub(super) on_alarm: OnAlarm,
}

#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: Arc<str>,
    pub(super) rule: Rule,
}

/// A pattern that a line of the policy grants, or takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The pattern.
    pub pattern: Pattern,
    /// The line.
    pub rule: Rule,
}

/// A `[message]` table of the policy.
#[derive(Debug)]
pub struct Message {
    pattern: Pattern,
    rule: Rule,
    settings: Settings,
}

/// An operator that the policy lists.
#[derive(Debug)]
pub struct Operator {
    pub(super) name: Arc<str>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) may_rule: Rule,
}

impl Policy {
    /// Reads and compiles a policy of one file or several, whose order does not matter. Refuses it for any
    /// error, and then tells all of them.
    pub fn compile(sources: &[Source]) -> Result<Compiled, PolicyErrors> {
        if sources.iter().map(|source| source.text.len()).sum::<usize>() > POLICY_BYTES_MAX {
            return Err(too_large(sources));
        }
        let sources = Arc::new(Sources::new(sources));
        let mut findings = Findings::new(&sources);
        let raw = parse::parse(&sources, &mut findings);
        let Some(trust_domain) = raw.trust_domain.as_ref().filter(|_| !findings.is_refused()) else {
            return Err(findings.into_errors());
        };
        let policy = Self::new(&raw, trust_domain, &sources);
        lint::lint(&raw, &policy, &mut findings);
        Ok(Compiled {
            policy,
            warnings: findings.into_diagnostics(),
        })
    }

    fn new(raw: &RawPolicy, trust_domain: &Spanned<Box<str>>, sources: &Sources) -> Self {
        let services: Vec<_> = raw
            .services
            .iter()
            .map(|service| self::service(service, sources))
            .collect();
        let trie = |patterns: fn(&Service) -> &[Grant]| {
            let all = services.iter().zip(0..).flat_map(|(service, id)| {
                patterns(service)
                    .iter()
                    .zip(0..)
                    .map(move |(grant, place)| (id, place, &grant.pattern))
            });
            GrantTrie::new(services.len(), all)
        };
        Self {
            version: version(sources),
            trust_domain: trust_domain.value.as_ref().into(),
            trust_domain_rule: sources.rule(trust_domain.span),
            sends: trie(Service::sends),
            receives: trie(Service::receives),
            receives_except: trie(Service::receives_except),
            service_ids: services
                .iter()
                .map(|service| Arc::clone(&service.name))
                .zip(0..)
                .collect(),
            services,
            operators: raw
                .operators
                .iter()
                .map(|operator| Operator {
                    name: operator.name.value.as_ref().into(),
                    capabilities: operator.may.value.clone(),
                    may_rule: sources.rule(operator.may.span),
                })
                .collect(),
            terms: TermsTable::new(raw.messages.iter().map(|message| {
                let delivery = &message.settings.delivery;
                let rule = delivery.as_ref().map(|delivery| sources.rule(delivery.span));
                let limits = &message.settings.limits;
                let limits_rule = limits.as_ref().map(|limits| sources.rule(limits.span));
                (
                    &message.pattern.value,
                    message.settings.values(),
                    rule,
                    limits_rule,
                )
            })),
            messages: raw
                .messages
                .iter()
                .map(|message| Message {
                    pattern: message.pattern.value.clone(),
                    rule: sources.rule(message.pattern.span),
                    settings: message.settings.values(),
                })
                .collect(),
            new_flows: raw.new_flows.as_ref().map(|time| time.value).unwrap_or_default(),
        }
    }

    /// A short hash of the files' names and texts, in hexadecimal. Equal for equal files in any order.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The line that gives the trust domain.
    pub fn trust_domain_rule(&self) -> &Rule {
        &self.trust_domain_rule
    }

    /// The trust domain of every identity that the policy knows.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// A service by its name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.service_ids
            .get(name)
            .and_then(|&id| self.services.get(id as usize))
    }

    /// All services.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Service> {
        self.services.iter()
    }

    /// All operators.
    pub fn operators(&self) -> impl ExactSizeIterator<Item = &Operator> {
        self.operators.iter()
    }

    /// All `[message]` tables.
    pub fn messages(&self) -> impl ExactSizeIterator<Item = &Message> {
        self.messages.iter()
    }

    /// How a message travels: each key from the most specific `[message]` pattern that sets it. Patterns are
    /// compared token by token from the left; a literal is more specific than `*`, and `*` than `>`.
    pub fn terms(&self, name: &MessageName) -> Terms {
        self.terms.of(name)
    }

    /// How readily alarms are raised about a message of a service, or, without a name, about the service itself: as the
    /// message's most specific pattern with that key says, else as the sending service's section says.
    pub fn alarms(&self, sender: &str, message: Option<&str>) -> Alarms {
        let name = message.and_then(|name| MessageName::new(name).ok());
        let of_message = name.and_then(|name| self.terms(&name).alarms);
        let of_service = || self.service(sender)?.alarms;
        of_message.or_else(of_service).unwrap_or_default()
    }

    /// When a flow that was never seen is an alarm.
    pub fn new_flows(&self) -> NewFlows {
        self.new_flows
    }

    /// The `[message]` patterns that ask for at-least-once, with the lines that do.
    pub fn requires_durable_delivery(&self) -> impl Iterator<Item = (&Pattern, &Rule)> {
        self.terms.durable()
    }
}

impl Service {
    /// Its name, as in its certificate.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The line that lists it.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The zone that it belongs to, if it belongs to one.
    pub fn zone(&self) -> Option<&Arc<str>> {
        self.zone.as_ref().map(|zone| &zone.name)
    }

    /// The line that gives its zone, if it belongs to one.
    pub fn zone_rule(&self) -> Option<&Rule> {
        self.zone.as_ref().map(|zone| &zone.rule)
    }

    /// What it may send.
    pub fn sends(&self) -> &[Grant] {
        &self.sends
    }

    /// What it may receive, before [`Self::receives_except`] is taken away.
    pub fn receives(&self) -> &[Grant] {
        &self.receives
    }

    /// How many messages it may send, if that is limited.
    pub fn limit(&self) -> Option<&Limit> {
        self.limit.as_ref()
    }

    /// Whether alarms are raised about it and about what it sends, where no message says otherwise.
    pub fn alarms(&self) -> Alarms {
        self.alarms.unwrap_or_default()
    }

    /// What an alarm about it does, besides being told.
    pub fn on_alarm(&self) -> OnAlarm {
        self.on_alarm
    }

    /// What it may not receive although a pattern of [`Self::receives`] matches.
    pub fn receives_except(&self) -> &[Grant] {
        &self.receives_except
    }
}

impl Message {
    /// Which messages it is about.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// The line that opens it.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Every key with its value as it is written in a policy, where the table sets it.
    pub fn written(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        self.settings.written().into_iter()
    }
}

impl Operator {
    /// Its name, as in the certificate.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the operator may do.
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// The line that says what the operator may do.
    pub fn rule(&self) -> &Rule {
        &self.may_rule
    }
}

fn service(raw: &RawService, sources: &Sources) -> Service {
    let zone = |zone: &Spanned<Box<str>>| Zone {
        name: zone.value.as_ref().into(),
        rule: sources.rule(zone.span),
    };
    Service {
        name: raw.name.value.as_ref().into(),
        rule: sources.rule(raw.name.span),
        zone: raw.zone.as_ref().map(zone),
        sends: grants(&raw.sends, sources),
        receives: grants(&raw.receives, sources),
        receives_except: grants(&raw.receives_except, sources),
        alarms: raw.alarms.as_ref().map(|alarms| alarms.value),
        on_alarm: raw.on_alarm.as_ref().map(|word| word.value).unwrap_or_default(),
        limit: raw.limits.as_ref().map(|limits| Limit {
            scope: Scope::Service,
            limits: limits.value,
            rule: sources.rule(limits.span),
        }),
    }
}

fn grants(patterns: &[Spanned<Pattern>], sources: &Sources) -> Vec<Grant> {
    patterns
        .iter()
        .map(|pattern| Grant {
            pattern: pattern.value.clone(),
            rule: sources.rule(pattern.span),
        })
        .collect()
}

/// The first 12 hexadecimal digits of SHA-256 over each file's name and text, each after its length. The folder
/// does not count: a person who checks a copy of the file sees the version that the broker reports.
fn version(sources: &Sources) -> Box<str> {
    const BYTES_SHOWN: usize = 6;
    let mut context = Context::new(&SHA256);
    for (name, text) in sources.files() {
        let name = name.rsplit('/').next().unwrap_or(name);
        for part in [name.as_bytes(), text.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
    }
    let mut hex = String::new();
    for byte in context.finish().as_ref().iter().take(BYTES_SHOWN) {
        write!(hex, "{byte:02x}").expect("writing to a string cannot fail");
    }
    hex.into()
}

/// Without the texts, whose places would not fit the spans.
fn too_large(sources: &[Source]) -> PolicyErrors {
    let names: Vec<_> = sources
        .iter()
        .map(|source| Source {
            name: source.name.clone(),
            text: String::new(),
        })
        .collect();
    let sources = Arc::new(Sources::new(&names));
    let mut findings = Findings::new(&sources);
    findings
        .error(
            Span {
                file: 0,
                start: 0,
                end: 0,
            },
            format_args!("a policy has at most {POLICY_BYTES_MAX} bytes, all its files together"),
        )
        .help("grant patterns in place of single names, or split the system");
    findings.into_errors()
}
