//! A policy against what was sent under another: what it would newly deny, and newly allow, with counts.
//!
//! As exact as what was recorded: it asks the policy for each flow, and guesses nothing for names that were not told
//! apart.

use std::sync::Arc;

use serde::Serialize;

use crate::identity::{Identity, Role};
use crate::policy::{Action, Policy};
use crate::review::suggest::Denied;
use crate::wire::name::{MessageName, Pattern};

/// What was sent in one flow, or denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The verified sender.
    pub sender: Arc<str>,
    /// The message name.
    pub message: String,
    /// The receiver; `None` for what was denied or found nobody.
    pub receiver: Option<Arc<str>>,
    /// Messages that were allowed, whatever became of them.
    pub allowed: u64,
    /// Messages that were denied.
    pub denied: u64,
}

/// What would be otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Replayed {
    /// What was allowed and would be denied, the most first.
    pub newly_denied: Vec<Otherwise>,
    /// What was denied and would be allowed, the most first.
    pub newly_allowed: Vec<Otherwise>,
    /// Messages for which nothing changes.
    pub unchanged: u64,
    /// Messages of which only the number is known: their names were too many to be told apart.
    pub not_told_apart: u64,
}

/// One flow that would fare otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Otherwise {
    /// The sender.
    pub sender: Arc<str>,
    /// The message name.
    pub message: String,
    /// The receiver, where one is concerned.
    pub receiver: Option<Arc<str>>,
    /// How many messages.
    pub messages: u64,
    /// Who may not, and by which line; or who may.
    pub because: String,
    /// Who may not do what, where it would be denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedParty>,
}

/// Who may not do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RefusedParty {
    /// The service.
    pub service: Arc<str>,
    /// What it may not.
    pub action: Action,
}

impl Replayed {
    /// What would be denied, as the evidence from which grants are suggested that would keep it allowed.
    pub fn as_denied(&self) -> Vec<Denied> {
        let denied = self.newly_denied.iter().filter_map(|flow| {
            let refused = flow.refused.as_ref()?;
            Some(Denied {
                service: Arc::clone(&refused.service),
                action: refused.action,
                name: Pattern::new(&flow.message).ok()?,
                count: flow.messages,
            })
        });
        denied.collect()
    }
}

/// Asks the policy about everything that was sent.
pub fn replay(policy: &Policy, sent: &[Sent]) -> Replayed {
    let mut replayed = Replayed::default();
    for flow in sent {
        let Ok(name) = MessageName::new(&flow.message) else {
            replayed.not_told_apart += flow.allowed + flow.denied;
            continue;
        };
        let verdict = judge(policy, flow, &name);
        let otherwise = |messages, because, refused| Otherwise {
            sender: Arc::clone(&flow.sender),
            message: flow.message.clone(),
            receiver: flow.receiver.clone(),
            messages,
            because,
            refused,
        };
        match verdict {
            Ok(because) => {
                replayed.unchanged += flow.allowed;
                if flow.denied > 0 {
                    replayed.newly_allowed.push(otherwise(flow.denied, because, None));
                }
            }
            Err((refused, rule)) => {
                replayed.unchanged += flow.denied;
                if flow.allowed > 0 {
                    let because = format!("{} may not {} it: {rule}", refused.service, refused.action);
                    replayed
                        .newly_denied
                        .push(otherwise(flow.allowed, because, Some(refused)));
                }
            }
        }
    }
    for list in [&mut replayed.newly_denied, &mut replayed.newly_allowed] {
        list.sort_by_key(|flow| std::cmp::Reverse(flow.messages));
    }
    replayed
}

/// The line by which it may pass; or who may not, and by which line.
fn judge(policy: &Policy, flow: &Sent, name: &MessageName) -> Result<String, (RefusedParty, String)> {
    let decide = |service: &Arc<str>, action: Action| {
        let identity = Identity {
            trust_domain: policy.trust_domain().into(),
            role: Role::Service(Arc::clone(service)),
            serial: "".into(),
            expires_unix_s: i64::MAX,
        };
        policy.decide(&identity, action, name).map_err(|denial| {
            let service = Arc::clone(service);
            (
                RefusedParty { service, action },
                denial.rule_or_no_grant().to_string(),
            )
        })
    };
    let permit = decide(&flow.sender, Action::Send)?;
    if let Some(receiver) = &flow.receiver {
        decide(receiver, Action::Receive)?;
    }
    Ok(permit.rule().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Source;
    use crate::review::suggest;

    const POLICY: &str = "version = 1\ntrust-domain = \"shop.example\"\n\
        [service.web]\nsends = [\"orders.*\"]\n\
        [service.stock]\nreceives = [\"orders.created\"]\n";

    #[test]
    fn what_changes_is_told_with_its_counts_and_line() {
        let sources = [Source {
            name: "policy.toml".to_owned(),
            text: POLICY.to_owned(),
        }];
        let policy = Policy::compile(&sources).unwrap().policy;
        let sent = |sender: &str, message: &str, receiver: Option<&str>, allowed, denied| Sent {
            sender: sender.into(),
            message: message.to_owned(),
            receiver: receiver.map(Arc::from),
            allowed,
            denied,
        };
        let replayed = replay(
            &policy,
            &[
                sent("web", "orders.created", Some("stock"), 10, 0),
                sent("web", "orders.created", Some("mail"), 4, 0),
                sent("web", "orders.paid", None, 3, 5),
                sent("web", "users.list", None, 0, 7),
                sent("web", "users.find", Some("users"), 6, 2),
                sent("gone", "orders.created", None, 1, 0),
                sent("web", ">", None, 2, 9),
            ],
        );
        let told = |list: &[Otherwise]| -> Vec<(String, u64, String)> {
            let told = list.iter().map(|flow| {
                let receiver = flow.receiver.as_deref().unwrap_or("-");
                let name = format!("{} {} {receiver}", flow.sender, flow.message);
                (name, flow.messages, flow.because.clone())
            });
            told.collect()
        };
        let of = |name: &str, messages, because: &str| (name.to_owned(), messages, because.to_owned());
        assert_eq!(
            told(&replayed.newly_denied),
            [
                of("web users.find users", 6, "web may not send it: no grant"),
                of("web orders.created mail", 4, "mail may not receive it: no grant"),
                of("gone orders.created -", 1, "gone may not send it: no grant"),
            ]
        );
        assert_eq!(
            told(&replayed.newly_allowed),
            [of("web orders.paid -", 5, "policy.toml:4")]
        );
        assert_eq!(
            (replayed.unchanged, replayed.not_told_apart),
            (10 + 3 + 7 + 2, 11)
        );
        let suggested = suggest(&policy, &replayed.as_denied()).unwrap();
        let edits = suggested.suggestions.iter().map(|suggestion| {
            let added = suggestion.edits.iter().map(|edit| edit.pattern.as_str());
            let added: Vec<_> = added.collect();
            format!("{} {} {}", suggestion.service, suggestion.action, added.join(" "))
        });
        assert_eq!(
            edits.collect::<Vec<_>>(),
            [
                "gone send orders.created",
                "mail receive orders.created",
                "web send users.find"
            ]
        );
    }
}
