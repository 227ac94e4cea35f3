//! What operators ask of the queues of tracked messages, and what they hear.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::action::Asked;
use crate::console::answer::Answer;
use crate::policy::Capability;

/// What an operator asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum QueueVerb {
    /// The queues and the dead letters.
    List,
    /// The queues alone, and not how old they are: cheap, however much there is.
    Depths,
    /// One message.
    Show {
        /// Its sequence.
        seq: u64,
        /// Whether to show its payload.
        payload: bool,
    },
    /// Send dead letters again.
    Replay {
        /// That of this sequence.
        seq: Option<u64>,
        /// Those of this service.
        service: Option<String>,
        /// Why.
        why: Option<String>,
    },
    /// Drop dead letters.
    Drop {
        /// That of this sequence.
        seq: Option<u64>,
        /// Those of this service.
        service: Option<String>,
        /// Why.
        why: Option<String>,
    },
    /// Drop what waits for a service.
    Purge {
        /// The service.
        service: String,
        /// Why.
        why: Option<String>,
    },
}

/// What an operator hears.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum QueueAnswer {
    /// The queues and the dead letters.
    Queues {
        /// One for each service with something in it.
        queues: Vec<QueueStatus>,
        /// Dead letters, oldest first.
        dead: Vec<DeadStatus>,
        /// Messages in the store.
        messages: usize,
        /// Bytes of them.
        live_bytes: u64,
        /// Bytes of the log.
        disk_bytes: u64,
        /// Whether messages are refused for want of space, or will be when the log's last segment is full.
        is_disk_full: bool,
    },
    /// One message.
    Message(Box<MessageStatus>),
    /// So many were changed.
    Changed {
        /// How many.
        count: usize,
    },
    /// It was not done.
    Refused {
        /// Why, and what to do.
        reason: String,
    },
}

impl QueueVerb {
    /// What is asked, for the gate: to look, `view`; to change something, `replay`.
    pub fn asked(&self) -> Asked {
        let change = |verb: &'static str, about: &str, why: &Option<String>| {
            Asked::change(verb, Capability::Replay, about, why.as_deref())
        };
        let which = |seq: &Option<u64>, service: &Option<String>| match (seq, service) {
            (Some(seq), Some(service)) => format!("message {seq} of {service}"),
            (Some(seq), None) => format!("message {seq}"),
            (None, Some(service)) => format!("dead letters of {service}"),
            (None, None) => "all dead letters".to_owned(),
        };
        match self {
            Self::List | Self::Depths => Asked::look("queue list"),
            Self::Show { seq, payload } => Asked {
                about: format!("message {seq}{}", if *payload { " with its payload" } else { "" }),
                is_grave: *payload,
                ..Asked::look("queue show")
            },
            Self::Replay { seq, service, why } => change("queue replay", &which(seq, service), why),
            Self::Drop { seq, service, why } => change("queue drop", &which(seq, service), why),
            Self::Purge { service, why } => change("queue purge", service, why),
        }
    }
}

impl QueueAnswer {
    /// It was not done, for this reason.
    pub fn refused(reason: &str) -> Self {
        Self::Refused {
            reason: reason.to_owned(),
        }
    }
}

/// What one service has waiting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueStatus {
    /// The service.
    pub service: String,
    /// On their way.
    pub pending: usize,
    /// Of these, with an instance now.
    pub in_flight: usize,
    /// Given up.
    pub dead: usize,
    /// The age of the oldest on its way, in seconds.
    pub oldest_s: Option<u64>,
}

/// A dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadStatus {
    /// Its sequence.
    pub seq: u64,
    /// The service that did not take it.
    pub service: String,
    /// The message name.
    pub message: String,
    /// Why it was given up.
    pub cause: String,
    /// Attempts made.
    pub attempts: u32,
    /// How long ago, in seconds.
    pub dead_for_s: u64,
}

/// One message.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MessageStatus {
    /// Its sequence.
    pub seq: u64,
    /// Its name.
    pub message: String,
    /// The verified sender.
    pub sender: String,
    /// When it was stored, in milliseconds since 1970.
    pub stored_unix_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_unix_ms: u64,
    /// Each receiving service, what has become of it there, and the attempts made.
    pub receivers: Vec<(String, String, u32)>,
    /// Its header lines.
    pub headers: String,
    /// The size of its payload.
    pub payload_bytes: usize,
    /// Its payload, where it was asked for.
    pub payload: Option<String>,
}

impl Answer for QueueAnswer {
    fn outcome(&self) -> Result<String, String> {
        match self {
            Self::Queues { .. } | Self::Message(_) => Ok("shown".to_owned()),
            Self::Changed { count } => Ok(format!("{count} done")),
            Self::Refused { reason } => Err(reason.clone()),
        }
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        match self {
            Self::Queues {
                queues,
                dead,
                messages,
                live_bytes,
                disk_bytes,
                is_disk_full,
            } => {
                writeln!(
                    out,
                    "{messages} messages in the store, {live_bytes} bytes; the log has {disk_bytes} bytes"
                )?;
                if *is_disk_full {
                    writeln!(
                        out,
                        "the disk is full: tracked messages are refused, now or soon, until there is space"
                    )?;
                }
                for queue in queues {
                    let oldest = queue
                        .oldest_s
                        .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
                    writeln!(
                        out,
                        "{}: {} waiting, {} in flight, oldest {oldest}, {} dead",
                        queue.service,
                        queue.pending - queue.in_flight,
                        queue.in_flight,
                        queue.dead
                    )?;
                }
                for letter in dead {
                    writeln!(
                        out,
                        "dead letter {}: {} for {}, {} after {} attempts, {} s ago",
                        letter.seq,
                        letter.message,
                        letter.service,
                        letter.cause,
                        letter.attempts,
                        letter.dead_for_s
                    )?;
                }
                Ok(())
            }
            Self::Message(message) => {
                writeln!(
                    out,
                    "message {}: {} from {}",
                    message.seq, message.message, message.sender
                )?;
                for (service, state, attempts) in &message.receivers {
                    writeln!(out, "  to {service}: {state}, {attempts} attempts")?;
                }
                write!(out, "{}", message.headers.replace('\r', ""))?;
                match &message.payload {
                    Some(payload) => writeln!(out, "{payload}"),
                    None => writeln!(
                        out,
                        "{} bytes of payload; --payload shows it",
                        message.payload_bytes
                    ),
                }
            }
            Self::Changed { count } => writeln!(out, "{count} done"),
            Self::Refused { reason } => writeln!(out, "refused: {reason}"),
        }
    }
}
