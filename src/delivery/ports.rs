//! What goes into the deliveries and comes out of them, and the bounds on it.

use std::sync::Arc;

use super::message::{Cause, DeliveryTerms, InstanceId, ReceiverNo, Seq};
use crate::policy::Kind;

/// What may be kept at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Messages in all, dead letters included.
    pub messages_max: usize,
    /// Their bytes in all.
    pub bytes_max: usize,
    /// Messages on their way to one service.
    pub queue_messages_max: usize,
    /// Messages in flight to one instance.
    pub window_messages_max: usize,
    /// Their bytes; one message may always be in flight.
    pub window_bytes_max: usize,
    /// How long a `Nats-Msg-Id` is remembered, in milliseconds.
    pub ids_window_ms: u64,
    /// How many are remembered.
    pub ids_max: usize,
}

/// A message that wants to be stored.
#[derive(Debug)]
pub struct NewMessage<'a> {
    /// The verified sender.
    pub sender: &'a Arc<str>,
    /// The message name.
    pub name: &'a Arc<str>,
    /// The terms of the policy for it.
    pub terms: DeliveryTerms,
    /// The services that receive it; at least one.
    pub receivers: &'a [Arc<str>],
    /// The sender's `Nats-Msg-Id`.
    pub id: Option<&'a Arc<str>>,
    /// What it counts against the store's bound.
    pub bytes: usize,
}

/// What became of a message that wanted to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It has a place in the order; the caller writes it down.
    New(Seq),
    /// The same sender has published it before, within the window.
    Duplicate(Seq),
}

/// Which bound does not let a message be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The store has as many messages as it may.
    #[error("the store holds as many messages as it may")]
    Messages,
    /// The store has as many bytes as it may.
    #[error("the store holds as many bytes as it may")]
    Bytes,
    /// One of the receiving services has as many messages waiting as it may.
    #[error("a receiver's queue is full")]
    Queue,
    /// As many ids are remembered as may be.
    #[error("too many message ids are remembered")]
    Ids,
}

/// A delivery to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The message.
    pub seq: Seq,
    /// To which of its receivers.
    pub receiver: ReceiverNo,
    /// To which instance.
    pub to: InstanceId,
    /// Those of one lane are in order: when one is not taken, those after it must not be sent either.
    pub lane: usize,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether an answer is expected, or an acknowledgement.
    pub kind: Kind,
    /// How long it may take, in milliseconds.
    pub attempt_ms_max: u64,
}

/// A message that is no longer tried at one of its receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenUp {
    /// The message.
    pub seq: Seq,
    /// At which receiver.
    pub receiver: ReceiverNo,
    /// Why.
    pub cause: Cause,
}

/// What one service has waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// On their way: waiting, in flight, or waiting for the next attempt.
    pub pending: usize,
    /// Of these, with an instance now.
    pub in_flight: usize,
    /// Of those on their way, those that are held.
    pub held: usize,
    /// Given up.
    pub dead: usize,
}
