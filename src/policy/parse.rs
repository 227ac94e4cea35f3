//! The walk from TOML to what a policy says, every mistake noted on the way.
//!
//! What comes out has valid names, patterns and values, each with its place. Whether it makes sense together is
//! for `compile` and `lint`.

use std::borrow::Cow;

use rustc_hash::FxHashMap;
use toml::Spanned as TomlSpanned;
use toml::de::{DeTable, DeValue};

use super::alarms::{self, Alarms, NewFlows};
use super::decide::Capability;
use super::diagnostic::{Findings, quote};
use super::leaf::listed;
use super::rate::Limits;
use super::source::{Sources, Span, Spanned};
use super::syntax;
use super::terms::{AUDITS, DELIVERIES, KINDS, ON_ALARMS, OnAlarm, RawSettings};
use super::value;
use crate::limits::{ACK_WITHIN_MS_MAX, EXPIRES_MS_MAX, REPLY_WITHIN_MS_MAX};
use crate::wire::name::{NameError, Pattern};

/// What all files of a policy say together.
#[derive(Debug, Default)]
pub(super) struct RawPolicy {
    pub(super) trust_domain: Option<Spanned<Box<str>>>,
    pub(super) services: Vec<RawService>,
    pub(super) messages: Vec<RawMessage>,
    pub(super) operators: Vec<RawOperator>,
    pub(super) new_flows: Option<Spanned<NewFlows>>,
}

#[derive(Debug)]
pub(super) struct RawService {
    pub(super) name: Spanned<Box<str>>,
    pub(super) zone: Option<Spanned<Box<str>>>,
    pub(super) sends: Vec<Spanned<Pattern>>,
    pub(super) receives: Vec<Spanned<Pattern>>,
    pub(super) receives_except: Vec<Spanned<Pattern>>,
    pub(super) limits: Option<Spanned<Limits>>,
    pub(super) alarms: Option<Spanned<Alarms>>,
    pub(super) on_alarm: Option<Spanned<OnAlarm>>,
}

#[derive(Debug)]
pub(super) struct RawMessage {
    pub(super) pattern: Spanned<Pattern>,
    pub(super) settings: RawSettings,
}

#[derive(Debug)]
pub(super) struct RawOperator {
    pub(super) name: Spanned<Box<str>>,
    pub(super) may: Spanned<Vec<Capability>>,
}

const TOP_KEYS: [&str; 6] = [
    "version",
    "trust-domain",
    "alarms",
    "service",
    "message",
    "operator",
];
const SERVICE_KEYS: [&str; 7] = [
    "zone",
    "sends",
    "receives",
    "receives-except",
    "limits",
    "alarms",
    "on-alarm",
];
const MESSAGE_KEYS: [&str; 11] = [
    "kind",
    "delivery",
    "reply-within",
    "ack-within",
    "attempts",
    "backoff",
    "expires",
    "audit",
    "payload-max",
    "limits",
    "alarms",
];
const ALARMS_KEYS: [&str; 1] = ["new-flow-after"];
const OPERATOR_KEYS: [&str; 1] = ["may"];
const VERSION_READ: &str = "1";

/// Reads all files. What is missing altogether is noted only where every file is TOML: else it may be there.
pub(super) fn parse(sources: &Sources, findings: &mut Findings<'_>) -> RawPolicy {
    let mut walk = Walk {
        findings,
        file: 0,
        policy: RawPolicy::default(),
        first: Firsts::default(),
    };
    let mut all_toml = true;
    for (file, (_, text)) in sources.files().enumerate() {
        walk.file = file as u32;
        match syntax::parse(walk.file, text, walk.findings) {
            Some(table) => walk.file(&table),
            None => all_toml = false,
        }
    }
    if all_toml {
        walk.require_top_keys();
    }
    walk.policy
}

pub(super) type Key<'t> = TomlSpanned<Cow<'t, str>>;
pub(super) type Value<'t> = TomlSpanned<DeValue<'t>>;

pub(super) struct Walk<'f, 's> {
    pub(super) findings: &'f mut Findings<'s>,
    pub(super) file: u32,
    policy: RawPolicy,
    first: Firsts,
}

/// Where each thing was first defined, since files may repeat one another.
#[derive(Default)]
struct Firsts {
    version: Option<Span>,
    trust_domain: Option<Spanned<Box<str>>>,
    sections: FxHashMap<(&'static str, String), Span>,
}

impl Walk<'_, '_> {
    fn file(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "version" => self.version(value),
                "trust-domain" => self.trust_domain(value),
                "alarms" => self.alarms_of_all(value),
                "service" => self.section("service", "[service.web]", value, Self::service),
                "message" => self.section("message", "[message.\"todos.create\"]", value, Self::message),
                "operator" => self.section("operator", "[operator.alice]", value, Self::operator),
                _ => self.unknown_key(key, "at the top of a policy", &TOP_KEYS),
            }
        }
    }

    fn version(&mut self, value: &Value<'_>) {
        let span = self.span(value);
        self.first.version.get_or_insert(span);
        match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 && number.as_str() == VERSION_READ => {}
            DeValue::Integer(number) => {
                self.findings
                    .error(
                        span,
                        format_args!(
                            "version {} of the policy format is unknown",
                            quote(number.as_str())
                        ),
                    )
                    .help(format!(
                        "write version = {VERSION_READ}; a newer policy needs a newer exocom"
                    ));
            }
            other => self.wrong_type(
                span,
                other,
                "a whole number",
                &format!("write version = {VERSION_READ}"),
            ),
        }
    }

    fn trust_domain(&mut self, value: &Value<'_>) {
        let Some(text) = self.text(value, "write trust-domain = \"todo.example\"") else {
            // Not repeated as missing.
            let span = self.span(value);
            self.first.trust_domain.get_or_insert(Spanned {
                value: "".into(),
                span,
            });
            return;
        };
        self.check(text.span, value::trust_domain(&text.value));
        match &self.first.trust_domain {
            Some(first) if first.value != text.value => {
                self.findings
                    .error(text.span, "the files of a policy disagree about the trust domain")
                    .second(first.span, "first given here")
                    .help("a policy is of one trust domain; write the same in every file, or in one alone");
            }
            Some(_) => {}
            None => {
                self.first.trust_domain = Some(text.clone());
                self.policy.trust_domain = Some(text);
            }
        }
    }

    /// `[alarms]`: what is said of the alarms about all services.
    fn alarms_of_all(&mut self, value: &Value<'_>) {
        let Some(table) = self.table(value, "write a section [alarms] with new-flow-after = \"1d\"") else {
            return;
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "new-flow-after" => {
                    let help = "write new-flow-after = \"1d\"";
                    let Some(new_flows) = self.parsed(value, help, alarms::new_flows) else {
                        continue;
                    };
                    match &self.policy.new_flows {
                        Some(first) => {
                            self.findings
                                .error(new_flows.span, "new-flow-after is given twice")
                                .second(first.span, "first given here")
                                .help("keep one of them: it is about all services");
                        }
                        None => self.policy.new_flows = Some(new_flows),
                    }
                }
                _ => self.unknown_key(key, "of alarms", &ALARMS_KEYS),
            }
        }
    }

    fn require_top_keys(&mut self) {
        let start = Span {
            file: 0,
            start: 0,
            end: 0,
        };
        if self.first.version.is_none() {
            self.findings
                .error(start, "the policy does not say its version")
                .help(format!("begin one of its files with version = {VERSION_READ}"));
        }
        if self.first.trust_domain.is_none() {
            self.findings
                .error(start, "the policy does not say its trust domain")
                .help("add trust-domain = \"todo.example\", with the trust domain of your certificates");
        }
    }

    /// Each entry of `[service]`, `[message]` or `[operator]`, unless an earlier file has it.
    fn section(
        &mut self,
        section: &'static str,
        example: &str,
        value: &Value<'_>,
        entry: fn(&mut Self, Spanned<&str>, &DeTable<'_>),
    ) {
        let help = format!("write a section for each, such as {example}");
        let Some(entries) = self.table(value, &help) else {
            return;
        };
        for (key, value) in entries {
            let name = self.key(key);
            let Some(table) = self.table(value, &help) else {
                continue;
            };
            let known = (section, name.value.to_owned());
            if let Some(&first) = self.first.sections.get(&known) {
                self.findings
                    .error(
                        name.span,
                        format_args!("{section} {} is defined twice", quote(name.value)),
                    )
                    .second(first, "first defined here")
                    .help("keep one of them, with the entries of both");
                continue;
            }
            self.first.sections.insert(known, name.span);
            entry(self, name, table);
        }
    }

    fn service(&mut self, name: Spanned<&str>, table: &DeTable<'_>) {
        self.check(name.span, value::label(name.value, "a service"));
        if name.value == "operator" {
            self.findings
                .error(name.span, "a service cannot be called \"operator\"")
                .help("give it another name; spiffe://<trust-domain>/operator/... is for people");
        }
        let mut service = RawService {
            name: boxed(&name),
            zone: None,
            sends: Vec::new(),
            receives: Vec::new(),
            receives_except: Vec::new(),
            limits: None,
            alarms: None,
            on_alarm: None,
        };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "zone" => {
                    service.zone = self.text(value, "write zone = \"dmz\"");
                    if let Some(zone) = &service.zone {
                        self.check(zone.span, value::label(&zone.value, "a zone"));
                    }
                }
                "sends" => service.sends = self.patterns("sends", value),
                "receives" => service.receives = self.patterns("receives", value),
                "receives-except" => service.receives_except = self.patterns("receives-except", value),
                "limits" => service.limits = self.limits(value),
                "alarms" => service.alarms = self.alarms(value),
                "on-alarm" => service.on_alarm = self.word(value, "what an alarm does", &ON_ALARMS),
                _ => self.unknown_key(key, "of a service", &SERVICE_KEYS),
            }
        }
        self.policy.services.push(service);
    }

    fn message(&mut self, name: Spanned<&str>, table: &DeTable<'_>) {
        let pattern = self.pattern(&name);
        let mut settings = RawSettings::default();
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "kind" => settings.kind = self.word(value, "a kind", &KINDS),
                "delivery" => settings.delivery = self.word(value, "a delivery", &DELIVERIES),
                "reply-within" => settings.reply_within = self.duration(value, REPLY_WITHIN_MS_MAX),
                "ack-within" => settings.ack_within = self.duration(value, ACK_WITHIN_MS_MAX),
                "attempts" => settings.attempts = self.attempts(value),
                "backoff" => settings.backoff = self.parsed(value, "write \"1s..1m\"", value::backoff),
                "expires" => settings.expires = self.duration(value, EXPIRES_MS_MAX),
                "audit" => settings.audit = self.word(value, "an audit", &AUDITS),
                "payload-max" => settings.payload_max = self.parsed(value, "write \"64KiB\"", value::size),
                "limits" => settings.limits = self.limits(value),
                "alarms" => settings.alarms = self.alarms(value),
                unquoted if value.get_ref().is_table() => {
                    let span = self.key(key).span;
                    let full = format!("{}.{unquoted}", name.value);
                    self.findings
                        .error(span, "a dot in a section's header begins a section within it")
                        .help(format!(
                            "put the message's name in quotes: [message.{}]",
                            quote(&full)
                        ));
                }
                _ => self.unknown_key(key, "of a message", &MESSAGE_KEYS),
            }
        }
        if let Some(pattern) = pattern {
            self.policy.messages.push(RawMessage { pattern, settings });
        }
    }

    fn operator(&mut self, name: Spanned<&str>, table: &DeTable<'_>) {
        self.check(name.span, value::label(name.value, "an operator"));
        let mut may = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "may" => may = Some(self.capabilities(value)),
                _ => self.unknown_key(key, "of an operator", &OPERATOR_KEYS),
            }
        }
        match may {
            Some(may) => self.policy.operators.push(RawOperator {
                name: boxed(&name),
                may,
            }),
            None => {
                let words = Capability::ALL.map(|(word, _)| word);
                self.findings
                    .error(
                        name.span,
                        format_args!("operator {} may do nothing", quote(name.value)),
                    )
                    .help(format!("add may = [...] with some of {}", listed(&words)));
            }
        }
    }

    fn capabilities(&mut self, value: &Value<'_>) -> Spanned<Vec<Capability>> {
        let mut capabilities = Vec::new();
        for item in self.list(value, "write may = [\"view\"]") {
            if let Some(capability) = self.word(item, "a capability", &Capability::ALL) {
                if capabilities.contains(&capability.value) {
                    self.findings
                        .warning(
                            capability.span,
                            format_args!("\"{}\" is listed twice", capability.value),
                        )
                        .help("remove one of them");
                } else {
                    capabilities.push(capability.value);
                }
            }
        }
        Spanned {
            value: capabilities,
            span: self.span(value),
        }
    }

    fn patterns(&mut self, key: &str, value: &Value<'_>) -> Vec<Spanned<Pattern>> {
        let help = format!("write {key} = [\"todos.list\", \"todos.create\"]");
        let mut first: FxHashMap<Pattern, Span> = FxHashMap::default();
        let mut patterns = Vec::new();
        for item in self.list(value, &help) {
            let Some(text) = self.text(item, &help) else {
                continue;
            };
            let text = Spanned {
                value: &*text.value,
                span: text.span,
            };
            let Some(pattern) = self.pattern(&text) else {
                continue;
            };
            if let Some(&first) = first.get(&pattern.value) {
                self.findings
                    .warning(
                        pattern.span,
                        format_args!("{} is listed twice", quote(text.value)),
                    )
                    .second(first, "first listed here")
                    .help("remove one of them");
            } else {
                first.insert(pattern.value.clone(), pattern.span);
                patterns.push(pattern);
            }
        }
        patterns
    }

    fn pattern(&mut self, text: &Spanned<&str>) -> Option<Spanned<Pattern>> {
        match Pattern::new(text.value) {
            Ok(value) => Some(Spanned {
                value,
                span: text.span,
            }),
            Err(error) => {
                let help = match error {
                    NameError::Reserved => "begin it with a letter, a digit or '-'; replies need no grant",
                    NameError::BadWildcard => {
                        "write \"todos.*\" for one token, or \"todos.>\" for one or more at the end"
                    }
                    _ => "write tokens with dots between them, such as \"todos.create\"",
                };
                let message =
                    format_args!("{} is not a message name: {error}", quote(text.value)).to_string();
                self.findings.error(text.span, message).help(help);
                None
            }
        }
    }
}

fn boxed(name: &Spanned<&str>) -> Spanned<Box<str>> {
    Spanned {
        value: name.value.into(),
        span: name.span,
    }
}
