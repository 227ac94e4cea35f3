//! One tracked message and what has become of it at each of its receivers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::{Kind, Terms};

/// A message's place in the order of all tracked messages of a broker; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which of a message's receiving services, by its place in the list that was stored with the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReceiverNo(pub u16);

/// One instance of a service: a connection's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub u64);

/// The terms under which a message was accepted. A later change of the policy does not change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeliveryTerms {
    /// Whether an answer is expected or an acknowledgement.
    pub kind: Kind,
    /// How long one attempt may take, in milliseconds.
    pub attempt_ms_max: u64,
    /// How many attempts there are before the message is a dead letter.
    pub attempts_max: u32,
    /// The wait before the second attempt, in milliseconds; it doubles from there.
    pub backoff_first_ms: u64,
    /// The longest wait between attempts, in milliseconds.
    pub backoff_longest_ms: u64,
    /// How long the message is kept for a receiver that does not take it, in milliseconds.
    pub expires_ms: u64,
}

impl DeliveryTerms {
    /// What the policy's terms mean for a tracked message: a command is acknowledged by its answer, so an
    /// attempt may take as long as the answer may.
    pub fn of(terms: &Terms) -> Self {
        let attempt = match terms.kind {
            Kind::Command => terms.reply_within,
            Kind::Event => terms.ack_within,
        };
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            kind: terms.kind,
            attempt_ms_max: ms(attempt),
            attempts_max: terms.attempts,
            backoff_first_ms: ms(terms.backoff.first),
            backoff_longest_ms: ms(terms.backoff.longest),
            expires_ms: ms(terms.expires),
        }
    }

    /// The wait after `failed` attempts, in milliseconds.
    pub fn backoff_ms(&self, failed: u32) -> u64 {
        let doublings = failed.saturating_sub(1).min(32);
        self.backoff_first_ms
            .saturating_mul(1 << doublings)
            .min(self.backoff_longest_ms)
            .max(self.backoff_first_ms.min(self.backoff_longest_ms))
    }
}

/// Why a message became a dead letter at one of its receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// All attempts failed.
    Attempts,
    /// It was kept as long as it may be.
    Expired,
    /// The receiver refused it for good (`+TERM`).
    Terminated,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempts => "all attempts failed",
            Self::Expired => "expired",
            Self::Terminated => "refused for good by the receiver",
        })
    }
}

/// What has changed and must survive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The receiver has it.
    Acknowledged(Seq, ReceiverNo),
    /// An attempt failed; so many have been made.
    Failed(Seq, ReceiverNo, u32),
    /// It is a dead letter, since a time in milliseconds since 1970.
    Died(Seq, ReceiverNo, Cause, u64),
    /// A dead letter is sent again; the message expires at a time in milliseconds since 1970.
    Replayed(Seq, ReceiverNo, u64),
    /// An operator dropped it.
    Dropped(Seq, ReceiverNo),
}

impl Change {
    /// Whether it must be on disk before anything that follows from it happens. An acknowledgement that is lost
    /// costs one more attempt, and nothing else.
    pub const fn must_be_durable(&self) -> bool {
        !matches!(self, Self::Acknowledged(..))
    }
}

/// What has become of a message at one receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Waits for an instance.
    Ready,
    /// Waits since its sender or its receiver is held.
    Held,
    /// An instance has it, until the time in milliseconds.
    InFlight { to: InstanceId, deadline_ms: u64 },
    /// Waits for the time of the next attempt, in milliseconds.
    Waiting { until_ms: u64 },
    /// Acknowledged or dropped.
    Settled,
    /// Given up, kept for an operator.
    Dead { cause: Cause, since_ms: u64 },
}

impl State {
    /// When something happens to it by itself.
    pub(super) const fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::InFlight { deadline_ms, .. } => Some(*deadline_ms),
            Self::Waiting { until_ms } => Some(*until_ms),
            Self::Ready | Self::Held | Self::Settled | Self::Dead { .. } => None,
        }
    }

    /// Whether it is still on its way.
    pub(super) const fn is_pending(&self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Held | Self::InFlight { .. } | Self::Waiting { .. }
        )
    }
}

impl From<&KeptReceiver> for State {
    fn from(kept: &KeptReceiver) -> Self {
        match kept.dead {
            _ if kept.is_settled => Self::Settled,
            Some((cause, since_ms)) => Self::Dead { cause, since_ms },
            None => Self::Ready,
        }
    }
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) lane: usize,
    pub(super) state: State,
    /// Attempts made so far, and those that a crash may have hidden.
    pub(super) attempts: u32,
    /// Attempts after which it is a dead letter.
    pub(super) attempts_max: u32,
    /// The instance that failed last, to be avoided where there is another.
    pub(super) avoid: Option<InstanceId>,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) sender: Arc<str>,
    pub(super) terms: DeliveryTerms,
    pub(super) stored_ms: u64,
    pub(super) expires_at_ms: u64,
    pub(super) bytes: usize,
    pub(super) receivers: Vec<Receiver>,
}

impl Message {
    pub(super) fn is_settled(&self) -> bool {
        self.receivers
            .iter()
            .all(|receiver| receiver.state == State::Settled)
    }
}

/// A message's state in a form that can be written down and read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its place in the order.
    pub seq: Seq,
    /// The verified sender.
    pub sender: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The terms under which it was accepted.
    pub terms: DeliveryTerms,
    /// When it was stored, in milliseconds since 1970.
    pub stored_ms: u64,
    /// When it expires, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// What it counts against the store's bound, in bytes.
    pub bytes: usize,
    /// Its receivers, in the order of their numbers.
    pub receivers: Vec<KeptReceiver>,
}

/// One receiver of a kept message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptReceiver {
    /// The service.
    pub service: Arc<str>,
    /// Whether it has been acknowledged or dropped.
    pub is_settled: bool,
    /// Attempts made.
    pub attempts: u32,
    /// Attempts after which it is a dead letter.
    pub attempts_max: u32,
    /// Why and since when it is a dead letter, if it is one.
    pub dead: Option<(Cause, u64)>,
}

/// A dead letter, for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The message.
    pub seq: Seq,
    /// Which receiver did not take it.
    pub receiver: ReceiverNo,
    /// That receiver's service.
    pub service: Arc<str>,
    /// The message name.
    pub name: Arc<str>,
    /// Why it was given up.
    pub cause: Cause,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// When it was stored, in milliseconds since 1970.
    pub stored_ms: u64,
    /// Attempts made.
    pub attempts: u32,
}
