//! Tracked messages that wait because their sender or their receiver is held: they keep their place in the order, are
//! given to nobody, and go on when the hold ends.
//!
//! Nothing of it is written down: the list of holds is kept elsewhere, and what is held follows from it.

use std::collections::HashMap;
use std::sync::Arc;

use super::deliveries::{Deliveries, Wait};
use super::message::{Message, Receiver, ReceiverNo, Seq, State};
use super::ports::{Bounds, NewMessage};
use crate::policy::quarantine::{Hold, Quarantine};

/// What of one sender is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeldAmount {
    /// Messages, counted for each receiver.
    pub messages: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// A message that waits at one receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldMessage {
    /// The message.
    pub seq: Seq,
    /// Its name.
    pub name: Arc<str>,
    /// The verified sender.
    pub sender: Arc<str>,
    /// For whom it is.
    pub receiver: Arc<str>,
    /// When it was stored, in milliseconds since 1970.
    pub stored_ms: u64,
    /// Its size, with name, sender and headers.
    pub bytes: usize,
}

/// What is held, and how much of whom.
#[derive(Debug, Default)]
pub(super) struct Holding {
    quarantine: Arc<Quarantine>,
    of_sender: HashMap<Arc<str>, HeldAmount, foldhash::fast::RandomState>,
}

impl Holding {
    /// Counts a change of a message's state.
    pub(super) fn count(&mut self, sender: &Arc<str>, bytes: usize, old: State, new: State) {
        if (old == State::Held) == (new == State::Held) {
            return;
        }
        let amount = self.of_sender.entry(Arc::clone(sender)).or_default();
        if new == State::Held {
            amount.messages += 1;
            amount.bytes += bytes;
            return;
        }
        amount.messages -= 1;
        amount.bytes -= bytes;
        if amount.messages == 0 {
            self.of_sender.remove(sender);
        }
    }

    /// Whether messages of a sender have nowhere to go now.
    pub(super) fn holds_sender(&self, sender: &str, name: &str) -> bool {
        self.quarantine.is_held(sender, name)
    }

    /// What is held of a sender.
    pub(super) fn amount(&self, sender: &str) -> HeldAmount {
        self.of_sender.get(sender).copied().unwrap_or_default()
    }
}

impl Deliveries {
    /// Goes by another list of what is held. What is no longer held is ready, in its place; what a receiver has in hand
    /// that is held now was its attempt.
    pub fn set_quarantine(&mut self, quarantine: &Arc<Quarantine>, now_ms: u64) {
        if Arc::ptr_eq(&self.holding.quarantine, quarantine) {
            return;
        }
        self.holding.quarantine = Arc::clone(quarantine);
        let mut moved = Vec::new();
        let mut taken_back = Vec::new();
        for (&seq, message) in &self.messages {
            for (number, receiver) in (0..).zip(&message.receivers) {
                let lane = self.lanes.get(receiver.lane);
                match receiver.state {
                    old @ (State::Ready | State::Held)
                        if self.or_held(message, receiver, State::Ready) != old =>
                    {
                        moved.push((seq, ReceiverNo(number)));
                    }
                    State::InFlight { .. } if quarantine.is_held(&lane.service, &lane.name) => {
                        taken_back.push((seq, ReceiverNo(number)));
                    }
                    _ => {}
                }
            }
        }
        for (seq, receiver) in moved {
            self.set_state(seq, receiver, State::Ready);
        }
        for (seq, receiver) in taken_back {
            self.attempt_failed(seq, receiver, Wait::Nothing, now_ms);
        }
    }

    /// Whether the queues that a message would wait in have room for it. What is held takes none from the others; a
    /// sender that is held may have as much waiting as one queue, and a quarter of the store's bytes.
    pub(super) fn has_room_for(&self, new: &NewMessage<'_>) -> bool {
        let Bounds {
            queue_messages_max,
            bytes_max,
            ..
        } = self.bounds;
        if self.holding.holds_sender(new.sender, new.name) {
            let held = self.holding.amount(new.sender);
            let bytes = held
                .bytes
                .saturating_add(new.bytes.saturating_mul(new.receivers.len()));
            return held.messages < queue_messages_max && bytes <= bytes_max / 4;
        }
        let is_full = |service: &Arc<str>| {
            let depth = self.depths.get(service).copied().unwrap_or_default();
            let waiting = if self.holding.holds_sender(service, new.name) {
                depth.pending
            } else {
                depth.pending - depth.held
            };
            waiting >= queue_messages_max
        };
        !new.receivers.iter().any(is_full)
    }

    /// What becomes of a message that is ready: it is held, where its sender or its receiver is.
    pub(super) fn or_held(&self, message: &Message, receiver: &Receiver, new: State) -> State {
        let quarantine = &self.holding.quarantine;
        if new != State::Ready || quarantine.is_empty() {
            return new;
        }
        let lane = self.lanes.get(receiver.lane);
        let is_held =
            quarantine.is_held(&message.sender, &lane.name) || quarantine.is_held(&lane.service, &lane.name);
        if is_held { State::Held } else { new }
    }

    /// The messages that wait because of a hold, the oldest first: those that the service has sent, and those that it
    /// would receive.
    pub fn held_by<'a>(&'a self, hold: &'a Hold) -> impl Iterator<Item = HeldMessage> + 'a {
        self.held()
            .filter(|(_, _, message)| message.sender == hold.service || message.receiver == hold.service)
            .filter(|(_, _, message)| hold.covers(&message.name))
            .map(|(_, _, message)| message)
    }

    /// Drops what a held service has sent and is held for that, or one message of it. Says how many.
    pub fn discard_held(&mut self, hold: &Hold, seq: Option<Seq>) -> usize {
        let discarded: Vec<_> = self
            .held()
            .filter(|(_, _, message)| message.sender == hold.service && hold.covers(&message.name))
            .filter(|(held, _, _)| seq.is_none_or(|seq| *held == seq))
            .map(|(seq, receiver, _)| (seq, receiver))
            .collect();
        for &(seq, receiver) in &discarded {
            self.drop_receiver(seq, receiver);
        }
        discarded.len()
    }

    fn held(&self) -> impl Iterator<Item = (Seq, ReceiverNo, HeldMessage)> {
        let messages = if self.holding.of_sender.is_empty() {
            None
        } else {
            Some(&self.messages)
        };
        messages.into_iter().flatten().flat_map(move |(&seq, message)| {
            let receivers = (0..).zip(&message.receivers);
            let held = receivers.filter(|(_, receiver)| receiver.state == State::Held);
            held.map(move |(number, receiver)| {
                let lane = self.lanes.get(receiver.lane);
                let held = HeldMessage {
                    seq,
                    name: Arc::clone(&lane.name),
                    sender: Arc::clone(&message.sender),
                    receiver: Arc::clone(&lane.service),
                    stored_ms: message.stored_ms,
                    bytes: message.bytes,
                };
                (seq, ReceiverNo(number), held)
            })
        })
    }
}
