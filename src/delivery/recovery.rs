//! Reading the log again: what was written down becomes the deliveries that it tells of.
//!
//! The records come in the order in which they were written; what is said twice is said in full the second time.

use std::sync::Arc;

use super::deliveries::Deliveries;
use super::message::{Cause, Change, Kept, KeptReceiver, ReceiverNo, Seq, State};

impl Deliveries {
    /// A message's state, to be written down.
    pub fn kept(&self, seq: Seq) -> Option<Kept> {
        let message = self.messages.get(&seq)?;
        let first = self.lanes.get(message.receivers.first()?.lane);
        let receivers = message.receivers.iter().map(|receiver| KeptReceiver {
            service: Arc::clone(&self.lanes.get(receiver.lane).service),
            is_settled: receiver.state == State::Settled,
            attempts: receiver.attempts,
            attempts_max: receiver.attempts_max,
            dead: match receiver.state {
                State::Dead { cause, since_ms } => Some((cause, since_ms)),
                _ => None,
            },
        });
        Some(Kept {
            seq,
            sender: Arc::clone(&message.sender),
            name: Arc::clone(&first.name),
            terms: message.terms,
            stored_ms: message.stored_ms,
            expires_at_ms: message.expires_at_ms,
            bytes: message.bytes,
            receivers: receivers.collect(),
        })
    }

    /// Reading the log again: a message as it was written down, in place of what was known of it.
    pub fn recover_message(&mut self, kept: Kept) {
        self.last_seq = self.last_seq.max(kept.seq.0);
        self.forget(kept.seq);
        self.enter(kept);
    }

    /// Reading the log again: an id.
    pub fn recover_id(&mut self, sender: Arc<str>, id: Arc<str>, seq: Seq, at_ms: u64) {
        self.last_seq = self.last_seq.max(seq.0);
        self.ids.insert(sender, id, seq, at_ms);
    }

    /// Reading the log again: the last sequence that had been given when its oldest part was written.
    pub fn recover_last_seq(&mut self, seq: Seq) {
        self.last_seq = self.last_seq.max(seq.0);
    }

    /// Reading the log again: a change.
    pub fn recover_change(&mut self, change: Change) {
        let (Change::Acknowledged(seq, receiver)
        | Change::Failed(seq, receiver, _)
        | Change::Died(seq, receiver, ..)
        | Change::Replayed(seq, receiver, _)
        | Change::Dropped(seq, receiver)) = change;
        let Some(state) = self.state(seq, receiver) else {
            return;
        };
        match change {
            _ if state == State::Settled => {}
            Change::Acknowledged(..) | Change::Dropped(..) => {
                self.set_state(seq, receiver, State::Settled);
                self.forget_if_settled(seq);
            }
            Change::Failed(_, _, attempts) => {
                if let Some(receiver) = self.receiver_mut(seq, receiver) {
                    receiver.attempts = receiver.attempts.max(attempts);
                }
            }
            Change::Died(_, _, cause, since_ms) => {
                self.set_state(seq, receiver, State::Dead { cause, since_ms });
            }
            Change::Replayed(_, _, expires_at_ms) => {
                self.revive(seq, receiver, expires_at_ms);
            }
        }
    }

    /// Reading the log again: the broker had not stopped in order before this, so any message on its way may
    /// have been in flight. The attempt that nobody knows of is counted, and allowed for.
    pub fn recover_crash(&mut self) {
        for message in self.messages.values_mut() {
            for receiver in &mut message.receivers {
                if receiver.state.is_pending() {
                    receiver.attempts += 1;
                    receiver.attempts_max += 1;
                }
            }
        }
    }

    /// The log has been read. What a clock that was ahead had said is judged anew: what had expired by it is on its
    /// way again, and what was stored by it is kept no longer than what is stored now.
    pub fn recovered(&mut self, now_ms: u64) {
        self.forget_later_times(now_ms);
        let mut revived = Vec::new();
        for (&seq, message) in &self.messages {
            for (number, receiver) in (0..).zip(&message.receivers) {
                // A death that lies ahead was told by a clock that has been set right since.
                let was_wrong = matches!(
                    receiver.state,
                    State::Dead { cause: Cause::Expired, since_ms } if since_ms > now_ms
                );
                if was_wrong && message.expires_at_ms > now_ms {
                    revived.push((seq, ReceiverNo(number), message.expires_at_ms));
                }
            }
        }
        for (seq, receiver, expires_at_ms) in revived {
            self.revive(seq, receiver, expires_at_ms);
            self.changes.push(Change::Replayed(seq, receiver, expires_at_ms));
        }
        self.ids.forget_old(now_ms);
    }

    /// Takes what was stored at a time that lies ahead as stored now.
    fn forget_later_times(&mut self, now_ms: u64) {
        let mut timers = Vec::new();
        for (&seq, message) in &mut self.messages {
            message.stored_ms = message.stored_ms.min(now_ms);
            let latest_ms = now_ms.saturating_add(message.terms.expires_ms);
            if message.expires_at_ms > latest_ms {
                timers.push((seq, message.expires_at_ms, latest_ms));
                message.expires_at_ms = latest_ms;
            }
        }
        for (seq, old_ms, new_ms) in timers {
            self.move_expiry(seq, old_ms, new_ms);
        }
        self.ids.forget_later_times(now_ms);
    }
}
