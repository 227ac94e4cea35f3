//! What is watched: a measure of a flow, of a sender, or of an address, and how people call it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::traffic::flow::FlowKey;

/// What is counted or measured of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Messages.
    Messages,
    /// Denials of a sender, whatever the name.
    Denials,
    /// Messages that a slow receiver lost.
    Dropped,
    /// Requests without an answer in time, and messages that nobody was there to receive.
    Unanswered,
    /// Response times.
    ResponseTime,
    /// Sizes of payloads.
    PayloadSize,
    /// Messages that were more than the policy's limits allow.
    OverLimit,
    /// Handshakes that were refused, by the address in place of a sender.
    Refused,
}

/// One thing that is watched.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stream {
    /// What of it.
    pub measure: Measure,
    /// The sending service.
    pub sender: Arc<str>,
    /// The message name; `None`: all.
    pub message: Option<Arc<str>>,
    /// The receiving service, where there is one.
    pub receiver: Option<Arc<str>>,
}

impl Stream {
    /// Something of a flow.
    pub fn of(measure: Measure, key: &FlowKey) -> Self {
        Self {
            measure,
            sender: Arc::clone(&key.sender),
            message: Some(Arc::clone(&key.message)),
            receiver: key.receiver.clone(),
        }
    }

    pub(super) fn denials(key: &FlowKey) -> Self {
        Self {
            measure: Measure::Denials,
            sender: Arc::clone(&key.sender),
            message: None,
            receiver: None,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(message) = &self.message else {
            return match self.measure {
                Measure::Refused => write!(f, "refused handshakes from {}", self.sender),
                _ => write!(f, "denials of {}", self.sender),
            };
        };
        write!(f, "{} → {message}", self.sender)?;
        match self.measure {
            Measure::Messages | Measure::Denials | Measure::Refused => Ok(()),
            Measure::Dropped => f.write_str(", dropped"),
            Measure::Unanswered => f.write_str(", unanswered"),
            Measure::ResponseTime => f.write_str(", response time"),
            Measure::PayloadSize => f.write_str(", payload size"),
            Measure::OverLimit => f.write_str(", over its limit"),
        }
    }
}
