//! Expectations beside a policy: what must be allowed, and what must not, whatever the policy's lines come to say.
//!
//! A line each, `allow web send todos.list` or `deny web send payments.>`; `#` begins a comment. Pure: text comes in
//! with its file's name. Exact for patterns: `allow` is about every name, `deny` about each.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::reach::{Reach, TooIntricate};
use crate::limits::POLICY_DIAGNOSTICS_MAX;
use crate::policy::{Action, Capability, Policy, Rule, Service, Source, did_you_mean};
use crate::wire::name::Pattern;

/// What came of a policy's expectations.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// How many were met.
    pub met: usize,
    /// How many were not, or cannot be read.
    pub failed: usize,
    /// The first of those that failed.
    pub failures: Vec<Failure>,
}

/// An expectation that is not met, or no expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Its line.
    pub place: Rule,
    /// What the line says.
    pub expectation: String,
    /// What is so instead, or what is wrong with the line.
    pub found: String,
    /// The line of the policy that makes it so, if one does.
    pub rule: Option<Rule>,
}

struct Expectation<'t> {
    is_allowed: bool,
    who: &'t str,
    does: Deed<'t>,
}

enum Deed<'t> {
    Message(Action, Pattern),
    Connect(&'t str),
    Operate(Capability),
}

/// Judges a policy by the lines of expectations.
pub fn judge(policy: &Policy, expectations: &[Source]) -> Verdict {
    let mut verdict = Verdict::default();
    for source in expectations {
        let file: Arc<str> = source.name.as_str().into();
        for (line, text) in (1..).zip(source.text.lines()) {
            let text = text.split('#').next().unwrap_or_default().trim();
            if text.is_empty() {
                continue;
            }
            let outcome = parse(text)
                .map_err(Fault::from)
                .and_then(|expected| expected.judge(policy));
            match outcome {
                Ok(()) => verdict.met += 1,
                Err(fault) => {
                    verdict.failed += 1;
                    if verdict.failures.len() < POLICY_DIAGNOSTICS_MAX {
                        verdict.failures.push(Failure {
                            place: Rule {
                                file: Arc::clone(&file),
                                line,
                            },
                            expectation: text
                                .chars()
                                .take(LINE_BYTES_MAX)
                                .flat_map(char::escape_default)
                                .collect(),
                            found: fault.found,
                            rule: fault.rule,
                        });
                    }
                }
            }
        }
    }
    verdict
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            expectation,
            found,
            rule,
        } = self;
        write!(f, "{place}: {expectation}: {found}")?;
        match rule {
            Some(rule) => write!(f, " ({rule})"),
            None => Ok(()),
        }
    }
}

/// What is wrong, and where the policy says so.
struct Fault {
    found: String,
    rule: Option<Rule>,
}

impl From<String> for Fault {
    fn from(found: String) -> Self {
        Self { found, rule: None }
    }
}

impl From<TooIntricate> for Fault {
    fn from(error: TooIntricate) -> Self {
        error.to_string().into()
    }
}

/// More than the longest names and verbs need.
const LINE_BYTES_MAX: usize = 512;

const VERBS: [&str; 4] = ["send", "receive", "connect", "may"];

fn parse(text: &str) -> Result<Expectation<'_>, String> {
    const FORMS: &str = "write allow or deny, who, and send NAME, receive NAME, connect ZONE or may VERB, such as \
                         \"deny web send todos.purge\"";
    if text.len() > LINE_BYTES_MAX {
        return Err(format!("an expectation has at most {LINE_BYTES_MAX} bytes"));
    }
    let words: Vec<_> = text.split_whitespace().collect();
    let [verdict, who, verb, what] = words.as_slice() else {
        return Err(FORMS.to_owned());
    };
    let is_allowed = match *verdict {
        "allow" => true,
        "deny" => false,
        _ => return Err(FORMS.to_owned()),
    };
    let pattern = |action| {
        let pattern =
            Pattern::new(what).map_err(|error| format!("{what:?} is not a message name: {error}"))?;
        Ok::<_, String>(Deed::Message(action, pattern))
    };
    let does = match *verb {
        "send" => pattern(Action::Send)?,
        "receive" => pattern(Action::Receive)?,
        "connect" => Deed::Connect(what),
        "may" => {
            let known = Capability::ALL.iter().find(|(word, _)| word == what);
            let words: Vec<_> = Capability::ALL.iter().map(|(word, _)| *word).collect();
            Deed::Operate(known.map(|(_, capability)| *capability).ok_or_else(|| {
                format!(
                    "{what:?} is nothing that an operator may; allowed: {}",
                    words.join(", ")
                )
            })?)
        }
        other => {
            return Err(match did_you_mean(other, &VERBS) {
                Some(meant) => format!("{other:?} is no verb; did you mean \"{meant}\"? {FORMS}"),
                None => format!("{other:?} is no verb; {FORMS}"),
            });
        }
    };
    Ok(Expectation {
        is_allowed,
        who,
        does,
    })
}

impl Expectation<'_> {
    fn judge(&self, policy: &Policy) -> Result<(), Fault> {
        match &self.does {
            Deed::Message(action, pattern) => self.judge_message(self.service(policy)?, *action, pattern),
            Deed::Connect(zone) => self.judge_connection(self.service(policy)?, zone),
            Deed::Operate(capability) => self.judge_operator(policy, *capability),
        }
    }

    /// A denial of somebody whom the policy does not list would hold for ever, misspelt as it is.
    fn service<'p>(&self, policy: &'p Policy) -> Result<&'p Service, Fault> {
        let names: Vec<_> = policy.services().map(|service| &**service.name()).collect();
        policy
            .service(self.who)
            .ok_or_else(|| unlisted("service", self.who, &names))
    }

    fn judge_message(&self, service: &Service, action: Action, pattern: &Pattern) -> Result<(), Fault> {
        let reach = Reach::of(Some(service), action);
        let name = |example: &str| match example == pattern.as_str() {
            true => "it".to_owned(),
            false => format!("{example:?}"),
        };
        if self.is_allowed {
            let Some(missing) = reach.missing(pattern)? else {
                return Ok(());
            };
            let what = name(missing.example.as_str());
            return Err(match missing.except {
                Some(except) => Fault {
                    found: format!("receives-except takes {what} away"),
                    rule: Some(except.rule.clone()),
                },
                None => format!("no line of the policy grants {what}").into(),
            });
        }
        match reach.within(pattern)?.into_iter().next() {
            None => Ok(()),
            Some(part) => Err(Fault {
                found: format!("{} may {action} {}", self.who, name(part.example.as_str())),
                rule: Some(part.rule.clone()),
            }),
        }
    }

    fn judge_connection(&self, service: &Service, zone: &str) -> Result<(), Fault> {
        let is_allowed = service.zone().is_none_or(|own| **own == *zone);
        if is_allowed == self.is_allowed {
            return Ok(());
        }
        let found = match service.zone() {
            Some(own) => format!("{} connects in zone {own}", self.who),
            None => format!("{} has no zone, and connects in any", self.who),
        };
        Err(Fault {
            found,
            rule: Some(service.zone_rule().unwrap_or(service.rule()).clone()),
        })
    }

    fn judge_operator(&self, policy: &Policy, capability: Capability) -> Result<(), Fault> {
        let names: Vec<_> = policy.operators().map(|operator| &**operator.name()).collect();
        let operator = policy
            .operators()
            .find(|operator| **operator.name() == *self.who)
            .ok_or_else(|| unlisted("operator", self.who, &names))?;
        if operator.capabilities().contains(&capability) == self.is_allowed {
            return Ok(());
        }
        let may = if self.is_allowed { "may not" } else { "may" };
        Err(Fault {
            found: format!("{} {may} {capability}", self.who),
            rule: Some(operator.rule().clone()),
        })
    }
}

fn unlisted(what: &str, who: &str, names: &[&str]) -> Fault {
    match did_you_mean(who, names) {
        Some(meant) => format!("the policy lists no {what} {who:?}; did you mean \"{meant}\"?").into(),
        None => format!("the policy lists no {what} {who:?}").into(),
    }
}
