//! What operators ask of the quarantine, and what they hear.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::action::Asked;
use crate::console::answer::Answer;
use crate::console::status::rfc3339;
use crate::policy::Capability;
use crate::policy::quarantine::{Hold, what};
use crate::wire::name::Pattern;

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum QuarantineVerb {
    /// What is held, and how much waits for it.
    List,
    /// The messages that wait.
    Show {
        /// The service.
        service: String,
        /// Which of its messages, as in the list.
        message: Option<Pattern>,
    },
    /// Hold a service, or a part of its messages.
    Add {
        /// The service.
        service: String,
        /// Which of its messages.
        message: Option<Pattern>,
        /// Why.
        reason: String,
    },
    /// End it: what waits goes on.
    Release {
        /// The service.
        service: String,
        /// Which of its messages, as in the list.
        message: Option<Pattern>,
        /// Why.
        reason: String,
    },
    /// Drop what the service has sent and is held.
    Discard {
        /// The service.
        service: String,
        /// Which of its messages, as in the list.
        message: Option<Pattern>,
        /// The one of this sequence.
        seq: Option<u64>,
        /// Why.
        reason: String,
    },
}

/// What an operator hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum QuarantineAnswer {
    /// What is held.
    List {
        /// Each, with what waits.
        held: Vec<HeldStatus>,
    },
    /// One of them.
    Held {
        /// What is held, with what waits.
        held: HeldStatus,
        /// The messages, the oldest first; at most a thousand.
        messages: Vec<HeldMessageStatus>,
    },
    /// It is done, and on disk.
    Done {
        /// What.
        what: String,
        /// What the operator should know besides.
        note: Option<String>,
    },
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

/// One entry of the list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldStatus {
    /// What, since when, by whom and why.
    #[serde(flatten)]
    pub hold: Hold,
    /// Tracked messages that it has sent and that wait, counted for each receiver.
    pub sent: usize,
    /// Tracked messages that wait for it.
    pub to_receive: usize,
}

/// One message that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldMessageStatus {
    /// Its sequence.
    pub seq: u64,
    /// Its name.
    pub message: String,
    /// Who sent it.
    pub sender: String,
    /// For whom it is.
    pub receiver: String,
    /// How long ago, in seconds.
    pub age_s: u64,
    /// Its size, with headers and names.
    pub bytes: usize,
}

impl QuarantineVerb {
    /// What is asked, for the gate: to look, `view`; to change something, `quarantine`.
    pub fn asked(&self) -> Asked {
        let change = |verb, about: &str, reason: &str| {
            Asked::change(verb, Capability::Quarantine, about, Some(reason))
        };
        match self {
            Self::List => Asked::look("quarantine list"),
            Self::Show { .. } => Asked::look("quarantine show"),
            Self::Add {
                service,
                message,
                reason,
            } => change("quarantine add", &what(service, message.as_ref()), reason),
            Self::Release {
                service,
                message,
                reason,
            } => change("quarantine release", &what(service, message.as_ref()), reason),
            Self::Discard {
                service,
                message,
                seq,
                reason,
            } => {
                let what = what(service, message.as_ref());
                let about = seq.map_or_else(|| what.clone(), |seq| format!("message {seq} of {what}"));
                change("quarantine discard", &about, reason)
            }
        }
    }
}

impl Answer for QuarantineAnswer {
    fn outcome(&self) -> Result<String, String> {
        match self {
            Self::List { .. } | Self::Held { .. } => Ok("shown".to_owned()),
            Self::Done { what, .. } => Ok(what.clone()),
            Self::Refused { reason } => Err(reason.clone()),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::List { held } if held.is_empty() => writeln!(out, "nothing is held"),
            Self::List { held } => held.iter().try_for_each(|held| held.write_text(out)),
            Self::Held { held, messages } => {
                held.write_text(out)?;
                for message in messages {
                    writeln!(
                        out,
                        "  {}  {} from {} for {}, {} bytes, {} s ago",
                        message.seq,
                        message.message,
                        message.sender,
                        message.receiver,
                        message.bytes,
                        message.age_s
                    )?;
                }
                if !messages.is_empty() {
                    writeln!(out, "`exocom queue show SEQ` shows one of them")?;
                }
                Ok(())
            }
            Self::Done { what, note } => {
                writeln!(out, "{what}")?;
                note.iter().try_for_each(|note| writeln!(out, "note: {note}"))
            }
            Self::Refused { reason } => writeln!(out, "refused: {reason}"),
        }
    }
}

impl HeldStatus {
    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let hold = &self.hold;
        let message = hold
            .message
            .as_ref()
            .map_or_else(String::new, |pattern| format!(" --message '{pattern}'"));
        let alarm = hold
            .alarm
            .map_or_else(String::new, |alarm| format!(" for alarm {alarm}"));
        writeln!(
            out,
            "{}{message}  by {}{alarm} at {}: {}; {} of its messages wait, {} for it",
            hold.service,
            hold.who,
            rfc3339(hold.at_unix_s),
            hold.reason,
            self.sent,
            self.to_receive
        )
    }
}
