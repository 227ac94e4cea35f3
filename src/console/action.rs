//! Every action of an operator passes here, and nowhere else: who asks, whether the policy lets them, and the line
//! that says what became of it.
//!
//! What an operator says of themselves is never believed: a remote one is their certificate, a local one the user
//! that the system names. The policy is asked anew for each action, and so is whether the certificate still holds.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::console::answer::Answer;
use crate::console::looks::Looks;
use crate::identity::{Identity, Role};
use crate::limits::{ADMIN_TEXT_BYTES_MAX, LOG_LINES_AT_ONCE, LOG_LINES_PER_S};
use crate::policy::{Capability, Policy};
use crate::traffic::budget::LineBudget;
use crate::wire::printable;

/// Who speaks through the admin interface.
#[derive(Clone)]
pub enum Who {
    /// The user that runs the broker, or root, through the admin socket. They may do everything: the broker's files
    /// are theirs already.
    Local {
        /// The user, as the system says.
        uid: u32,
        /// What they call themselves, escaped: tells people apart who share a user, and is believed no further.
        says: Option<String>,
    },
    /// Somebody with a certificate, through the admin listener: an operator of the policy, or not.
    Remote {
        /// What the certificate says.
        identity: Arc<Identity>,
        /// Whether the certificate would still be taken, or why not.
        still_holds: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    },
}

impl fmt::Debug for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Who({self})")
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { uid, says: None } => write!(f, "uid {uid}"),
            Self::Local {
                uid,
                says: Some(says),
            } => write!(f, "uid {uid} ({says})"),
            Self::Remote { identity, .. } => identity.role.fmt(f),
        }
    }
}

impl Who {
    /// Who it is for records that are kept: `alice` of the policy, or the local user.
    pub fn name(&self) -> String {
        match self {
            Self::Remote { identity, .. } => match &identity.role {
                Role::Operator(name) => name.to_string(),
                Role::Service(_) => identity.role.to_string(),
            },
            Self::Local { .. } => self.to_string(),
        }
    }
}

/// What an operator asks.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The command, such as `queue replay`.
    pub verb: &'static str,
    /// What the policy must let them do.
    pub capability: Capability,
    /// What it is done to, in a few words.
    pub about: String,
    /// Why, in the operator's words.
    pub why: Option<String>,
    /// Whether it changes anything, or shows what a message holds. What merely looks is logged once a minute.
    pub is_grave: bool,
}

impl Asked {
    /// A look at something.
    pub fn look(verb: &'static str) -> Self {
        Self {
            verb,
            capability: Capability::View,
            about: String::new(),
            why: None,
            is_grave: false,
        }
    }

    /// A change.
    pub fn change(verb: &'static str, capability: Capability, about: &str, why: Option<&str>) -> Self {
        Self {
            verb,
            capability,
            about: printable(about.as_bytes(), ADMIN_TEXT_BYTES_MAX),
            why: why.map(|why| printable(why.as_bytes(), ADMIN_TEXT_BYTES_MAX)),
            is_grave: true,
        }
    }
}

/// What became of an action: the operator's answer, and how it is told in the log.
#[derive(Debug)]
pub struct Done<T> {
    /// The answer.
    pub answer: T,
    /// What was done, or why nothing was, in a few words without line breaks.
    pub outcome: Result<String, String>,
}

impl<T: Answer> Done<T> {
    /// What the answer itself says became of it.
    pub fn of(answer: T) -> Self {
        Self {
            outcome: answer.outcome(),
            answer,
        }
    }
}

/// Why an operator may not. Sent to them as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{who} may not: {reason}")]
pub struct NotAllowed {
    /// Who asked, as the broker knows them.
    pub who: String,
    /// Why not, with the line of the policy that decides it.
    pub reason: String,
}

/// What the audit log is told of an action.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// It begins, by the policy of this version, once this is on disk.
    Begins(&'a str),
    /// It has ended like this.
    Done(&'a Result<String, String>),
    /// It is refused for this reason.
    Refused(&'a str),
}

/// Records an action. What begins is on disk when this returns; an error says why it is not.
pub type Recorder = Box<
    dyn Fn(Told<'_>, &Who, &Asked) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync,
>;

/// The one way to everything that an operator can do.
pub struct Gate {
    record: Option<Recorder>,
    policy: Box<dyn Fn() -> Arc<Policy> + Send + Sync>,
    now_us: Box<dyn Fn() -> u64 + Send + Sync>,
    refusals: LineBudget,
    looks: Looks,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate that asks the policy in force, and reads the broker's clock in microseconds for the budget of its lines.
    pub fn new(
        policy: impl Fn() -> Arc<Policy> + Send + Sync + 'static,
        now_us: impl Fn() -> u64 + Send + Sync + 'static,
        record: Option<Recorder>,
    ) -> Self {
        Self {
            record,
            policy: Box::new(policy),
            now_us: Box::new(now_us),
            refusals: LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S),
            looks: Looks::default(),
        }
    }

    /// Does what is asked, if the policy lets whoever asks; logs it either way, with the policy's version before and
    /// after. The work is not begun where it is refused.
    pub async fn action<T>(
        &self,
        who: &Who,
        asked: &Asked,
        work: impl Future<Output = Done<T>>,
    ) -> Result<T, NotAllowed> {
        let before = (self.policy)();
        if let Err(reason) = may(&before, who, asked.capability) {
            self.log_refusal(who, asked, &reason, before.version());
            if let Some(record) = &self.record
                && let Err(error) = record(Told::Refused(&reason), who, asked).await
            {
                tracing::error!(error, "an operator who was refused is not in the audit log yet");
            }
            return Err(NotAllowed {
                who: who.to_string(),
                reason,
            });
        }
        if let Some(record) = self.record.as_ref().filter(|_| asked.is_grave)
            && let Err(error) = record(Told::Begins(before.version()), who, asked).await
        {
            tracing::error!(%who, verb = asked.verb, about = asked.about, error, "operator refused");
            return Err(NotAllowed {
                who: who.to_string(),
                reason: format!("{error}; nothing is changed that the audit log does not tell of"),
            });
        }
        let done = work.await;
        if let Some(record) = self.record.as_ref().filter(|_| asked.is_grave) {
            let told = record(Told::Done(&done.outcome), who, asked);
            if let Err(error) = told.await {
                tracing::error!(
                    error,
                    "what came of an operator's action is not in the audit log yet"
                );
            }
        }
        self.log_done(who, asked, &done.outcome, before.version());
        Ok(done.answer)
    }

    fn log_refusal(&self, who: &Who, asked: &Asked, reason: &str, policy: &str) {
        let Some(withheld) = self.refusals.take((self.now_us)()) else {
            return;
        };
        let withheld = (withheld > 0).then_some(withheld);
        tracing::warn!(
            %who, verb = asked.verb, about = asked.about, why = asked.why, reason, policy, withheld,
            "operator refused"
        );
    }

    fn log_done(&self, who: &Who, asked: &Asked, outcome: &Result<String, String>, before: &str) {
        let policy = (self.policy)();
        let after = policy.version();
        let (verb, about) = (asked.verb, &*asked.about);
        let why = asked.why.as_deref();
        match outcome {
            Ok(outcome) if asked.is_grave => {
                tracing::info!(%who, verb, about, why, outcome, policy = before, policy_after = after, "operator");
            }
            Ok(_) => match self.looks.count(&who.to_string(), verb, (self.now_us)()) {
                Some(times) => tracing::info!(%who, verb, about, times, policy = after, "operator looked"),
                None => tracing::debug!(%who, verb, about, policy = after, "operator looked"),
            },
            Err(failure) => {
                tracing::warn!(%who, verb, about, why, failure, policy = before, policy_after = after, "operator");
            }
        }
    }
}

/// Whether the policy lets them.
fn may(policy: &Policy, who: &Who, capability: Capability) -> Result<(), String> {
    let Who::Remote {
        identity,
        still_holds,
    } = who
    else {
        return Ok(());
    };
    still_holds()?;
    let operator = policy.operator(identity).map_err(|denial| denial.to_string())?;
    operator.may(capability).map_err(|denial| denial.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Source;

    const POLICY: &str = "version = 1\ntrust-domain = \"shop.example\"\n[service.alice]\n\
                          [operator.alice]\nmay = [\"view\"]\n[operator.bob]\nmay = []\n";

    fn policy() -> Arc<Policy> {
        let sources = [Source {
            name: "policy.toml".to_owned(),
            text: POLICY.to_owned(),
        }];
        Arc::new(Policy::compile(&sources).unwrap().policy)
    }

    fn remote(role: Role, still_holds: Result<(), String>) -> Who {
        Who::Remote {
            identity: Arc::new(Identity {
                trust_domain: "shop.example".into(),
                role,
                serial: "1".into(),
                expires_unix_s: i64::MAX,
            }),
            still_holds: Arc::new(move || still_holds.clone()),
        }
    }

    #[tokio::test]
    async fn only_who_may_gets_anything_done() {
        let gate = Gate::new(policy, || 0, None);
        let operator = |name: &str| remote(Role::Operator(name.into()), Ok(()));
        let check = async |who: Who, capability: Capability, expected: Option<&str>| {
            let asked = Asked {
                capability,
                ..Asked::look("test")
            };
            let mut is_done = false;
            let work = async {
                is_done = true;
                Done {
                    answer: (),
                    outcome: Ok(String::new()),
                }
            };
            let answer = gate.action(&who, &asked, work).await;
            assert_eq!(is_done, expected.is_none(), "{who}: {answer:?}");
            match (answer, expected) {
                (Ok(()), None) => {}
                (Err(refused), Some(reason)) => assert!(refused.reason.contains(reason), "{who}: {refused}"),
                (answer, _) => panic!("{who}: {answer:?}"),
            }
        };
        let local = Who::Local { uid: 0, says: None };
        for (_, capability) in Capability::ALL {
            check(local.clone(), capability, None).await;
            check(operator("bob"), capability, Some("policy.toml:7")).await;
            check(operator("carol"), capability, Some("does not list the operator")).await;
            let service = remote(Role::Service("alice".into()), Ok(()));
            check(service, capability, Some("a service is not an operator")).await;
        }
        check(operator("alice"), Capability::View, None).await;
        check(operator("alice"), Capability::Revoke, Some("may not revoke")).await;
        let expired = remote(Role::Operator("alice".into()), Err("it has expired".to_owned()));
        check(expired, Capability::View, Some("it has expired")).await;
    }

    #[tokio::test]
    async fn nothing_is_changed_that_the_audit_log_does_not_tell_of() {
        for can_write in [true, false] {
            let told = Arc::new(parking_lot::Mutex::new(Vec::new()));
            let heard = Arc::clone(&told);
            let recorder: Recorder = Box::new(move |what, who, asked| {
                heard.lock().push(format!("{what:?} {who} {}", asked.verb));
                let result = can_write
                    .then_some(())
                    .ok_or_else(|| "the disk is full".to_owned());
                Box::pin(async move { result })
            });
            let gate = Gate::new(policy, || 0, Some(recorder));
            let mut is_done = false;
            let work = async {
                is_done = true;
                let outcome = Ok("4 done".to_owned());
                Done { answer: (), outcome }
            };
            let who = Who::Local { uid: 7, says: None };
            let asked = Asked::change("queue drop", Capability::View, "billing", None);
            let answer = gate.action(&who, &asked, work).await;
            assert_eq!(is_done, can_write);
            let mut expected = vec![format!("Begins({:?}) uid 7 queue drop", policy().version())];
            if can_write {
                expected.push("Done(Ok(\"4 done\")) uid 7 queue drop".to_owned());
            } else {
                assert!(answer.unwrap_err().reason.contains("the disk is full"));
            }
            assert_eq!(*told.lock(), expected);
        }
    }
}
