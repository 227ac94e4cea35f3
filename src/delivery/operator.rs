//! What an operator sees of the deliveries, and does with those that were given up.

use std::sync::Arc;

use super::deliveries::{Deliveries, EXPIRY};
use super::message::{Change, DeadLetter, Receiver, ReceiverNo, Seq, State};
use super::ports::QueueDepth;
use crate::policy::Kind;

impl Deliveries {
    /// Sends a dead letter again, with as many attempts as a new message has. Says whether there was one.
    pub fn replay(&mut self, seq: Seq, receiver: ReceiverNo, now_ms: u64) -> bool {
        let Some(message) = self.messages.get(&seq) else {
            return false;
        };
        // Its time begins anew: it would expire at once otherwise.
        let expires_at_ms = message
            .expires_at_ms
            .max(now_ms.saturating_add(message.terms.expires_ms));
        let was_dead = self.revive(seq, receiver, expires_at_ms);
        if was_dead {
            self.changes.push(Change::Replayed(seq, receiver, expires_at_ms));
        }
        was_dead
    }

    /// Drops a dead letter. Says whether there was one.
    pub fn drop_dead(&mut self, seq: Seq, receiver: ReceiverNo) -> bool {
        if !matches!(self.state(seq, receiver), Some(State::Dead { .. })) {
            return false;
        }
        self.drop_receiver(seq, receiver);
        true
    }

    /// Drops all that is on its way to a service, and not its dead letters. Gives what was dropped.
    pub fn purge(&mut self, service: &str) -> Vec<(Seq, ReceiverNo)> {
        let mut purged = Vec::new();
        for (&seq, message) in &self.messages {
            for (number, receiver) in (0..).zip(&message.receivers) {
                if receiver.state.is_pending() && *self.lanes.get(receiver.lane).service == *service {
                    purged.push((seq, ReceiverNo(number)));
                }
            }
        }
        for &(seq, receiver) in &purged {
            self.drop_receiver(seq, receiver);
        }
        purged
    }

    /// What each service has waiting.
    pub fn depths(&self) -> impl Iterator<Item = (&Arc<str>, &QueueDepth)> {
        self.depths.iter()
    }

    /// When the oldest message on its way to a service was stored, in milliseconds since 1970.
    pub fn oldest_ms(&self, service: &str) -> Option<u64> {
        let is_for = |receiver: &Receiver| {
            receiver.state.is_pending() && *self.lanes.get(receiver.lane).service == *service
        };
        self.messages
            .values()
            .find(|message| message.receivers.iter().any(is_for))
            .map(|message| message.stored_ms)
    }

    /// All dead letters, oldest first.
    pub fn dead_letters(&self) -> impl Iterator<Item = DeadLetter> {
        self.messages.iter().flat_map(move |(&seq, message)| {
            (0..)
                .zip(&message.receivers)
                .filter_map(move |(number, receiver)| {
                    let State::Dead { cause, since_ms } = receiver.state else {
                        return None;
                    };
                    let lane = self.lanes.get(receiver.lane);
                    Some(DeadLetter {
                        seq,
                        receiver: ReceiverNo(number),
                        service: Arc::clone(&lane.service),
                        name: Arc::clone(&lane.name),
                        cause,
                        since_ms,
                        stored_ms: message.stored_ms,
                        attempts: receiver.attempts,
                    })
                })
        })
    }

    /// The service of a receiver.
    pub fn service_of(&self, seq: Seq, receiver: ReceiverNo) -> Option<&Arc<str>> {
        let receiver = self.messages.get(&seq)?.receivers.get(usize::from(receiver.0))?;
        Some(&self.lanes.get(receiver.lane).service)
    }

    /// The name and the kind of a message.
    pub fn name_of(&self, seq: Seq) -> Option<(&Arc<str>, Kind)> {
        let message = self.messages.get(&seq)?;
        let lane = message.receivers.first()?.lane;
        Some((&self.lanes.get(lane).name, message.terms.kind))
    }

    /// A dead letter is on its way again, with as many attempts as a new message has.
    pub(super) fn revive(&mut self, seq: Seq, number: ReceiverNo, expires_at_ms: u64) -> bool {
        if !matches!(self.state(seq, number), Some(State::Dead { .. })) {
            return false;
        }
        let Some(message) = self.messages.get_mut(&seq) else {
            return false;
        };
        let old_ms = std::mem::replace(&mut message.expires_at_ms, expires_at_ms);
        self.timers.remove(&(old_ms, seq, EXPIRY));
        self.timers.insert((expires_at_ms, seq, EXPIRY));
        let attempts_more = message.terms.attempts_max;
        if let Some(receiver) = message.receivers.get_mut(usize::from(number.0)) {
            receiver.attempts_max = receiver.attempts.saturating_add(attempts_more);
            receiver.avoid = None;
        }
        self.set_state(seq, number, State::Ready);
        true
    }

    pub(super) fn move_expiry(&mut self, seq: Seq, old_ms: u64, new_ms: u64) {
        self.timers.remove(&(old_ms, seq, EXPIRY));
        self.timers.insert((new_ms, seq, EXPIRY));
    }

    pub(super) fn drop_receiver(&mut self, seq: Seq, receiver: ReceiverNo) {
        self.set_state(seq, receiver, State::Settled);
        self.changes.push(Change::Dropped(seq, receiver));
        self.forget_if_settled(seq);
    }
}
