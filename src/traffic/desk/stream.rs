//! What is watched: a measure of a flow, of a sender, of an address or of the broker, and how people call it.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::traffic::alarm::Unit;
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
    /// Connections that are open at the broker.
    Connections,
    /// Processors that the broker keeps busy.
    Processors,
    /// Tracked messages on their way to all services.
    TrackedWaiting,
    /// Bytes that wait for receivers to read them.
    OutboxBytes,
}

impl Measure {
    /// Whether it is of the broker itself, in place of a service.
    pub fn is_of_broker(self) -> bool {
        matches!(
            self,
            Self::Connections | Self::Processors | Self::TrackedWaiting | Self::OutboxBytes
        )
    }

    /// What its values mean, if they are means.
    pub(super) fn unit(self) -> Unit {
        match self {
            Self::ResponseTime => Unit::Milliseconds,
            Self::PayloadSize | Self::OutboxBytes => Unit::Bytes,
            Self::Processors => Unit::Processors,
            _ => Unit::Plain,
        }
    }

    /// So much more than was expected nobody minds yet, in its unit, however many times that is.
    pub(super) fn difference_min(self) -> f64 {
        match self {
            Self::ResponseTime => 1.0,
            Self::Connections => 10.0,
            Self::Processors => 0.25,
            Self::TrackedWaiting => 100.0,
            Self::OutboxBytes => 1_048_576.0,
            _ => 0.0,
        }
    }
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

    /// Something of the broker itself.
    pub fn of_broker(measure: Measure) -> Self {
        Self {
            measure,
            // No service has a space in its name.
            sender: "the broker".into(),
            message: None,
            receiver: None,
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
                Measure::Connections => write!(f, "{}, open connections", self.sender),
                Measure::Processors => write!(f, "{}, processor time", self.sender),
                Measure::TrackedWaiting => write!(f, "{}, tracked messages waiting", self.sender),
                Measure::OutboxBytes => write!(f, "{}, bytes waiting for receivers", self.sender),
                _ => write!(f, "denials of {}", self.sender),
            };
        };
        write!(f, "{} → {message}", self.sender)?;
        match self.measure {
            Measure::Messages
            | Measure::Denials
            | Measure::Refused
            | Measure::Connections
            | Measure::Processors
            | Measure::TrackedWaiting
            | Measure::OutboxBytes => Ok(()),
            Measure::Dropped => f.write_str(", dropped"),
            Measure::Unanswered => f.write_str(", unanswered"),
            Measure::ResponseTime => f.write_str(", response time"),
            Measure::PayloadSize => f.write_str(", payload size"),
            Measure::OverLimit => f.write_str(", over its limit"),
        }
    }
}
