//! What publishers, instances and the operator do in a life.

use std::sync::Arc;

use exocom::delivery::{Admitted, NewMessage, Outgoing};
use exocom::disk::store::NotStored;

use crate::life::{CONFIG, Life, NAMES, SENDERS, SERVICES, TERMS};
use crate::model::{Held, Known, KnownReceiver};

impl Life {
    pub(crate) fn publish(&mut self) {
        let (name, services) = *self.random.pick(&NAMES).unwrap();
        let sender = *self.random.pick(&SENDERS).unwrap();
        let id = self.random.once_in(4).then(|| self.random.below(12));
        let nonce = self.known.len();
        let size = usize::try_from(self.random.below(300)).unwrap();
        let payload = format!("{nonce}:{}", "x".repeat(size)).into_bytes();
        let receivers: Vec<Arc<str>> = services.iter().map(|&service| service.into()).collect();
        let id_text: Option<Arc<str>> = id.map(|id| id.to_string().into());
        let new = NewMessage {
            sender: &sender.into(),
            name: &name.into(),
            terms: TERMS,
            receivers: &receivers,
            id: id_text.as_ref(),
            bytes: payload.len() + 200,
        };
        let now_ms = self.now_ms;
        let published = self.with_store(|store| store.publish(&new, Box::default(), payload.into(), now_ms));
        self.say(&format!(
            "{sender} publishes {name} as {nonce}, id {id:?}: {published:?}"
        ));
        match published {
            Ok(Ok(Admitted::New(seq))) => {
                self.check_id_is_new(sender, id);
                self.known.push(Known {
                    sender,
                    name,
                    id,
                    at_ms: now_ms,
                    is_promised: false,
                    seq,
                    receivers: vec![KnownReceiver::default(); services.len()],
                });
                self.uncommitted.push(nonce);
                self.totals.stored += 1;
                self.check_bounds();
            }
            Ok(Ok(Admitted::Duplicate(seq))) => {
                self.totals.duplicates += 1;
                let is_known = self
                    .known
                    .iter()
                    .any(|known| known.seq == seq && known.sender == sender && known.id == id);
                if !is_known {
                    self.blame(format!("{seq} is taken for a duplicate of nothing"));
                }
            }
            Ok(Err(NotStored::Disk)) => self.totals.disk_full += 1,
            Ok(Err(_)) => self.totals.refused += 1,
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// What was let in fits. A crash may bring back more, whose acknowledgements it took.
    fn check_bounds(&mut self) {
        let (messages, bytes) =
            self.with_store(|store| (store.deliveries().len(), store.deliveries().bytes()));
        if messages > CONFIG.bounds.messages_max || bytes > CONFIG.bounds.bytes_max {
            self.blame(format!("the store has {messages} messages of {bytes} bytes"));
        }
    }

    /// A promised message with this id, within the window by any clock, must have been found again.
    fn check_id_is_new(&mut self, sender: &'static str, id: Option<u64>) {
        let Some(id) = id else { return };
        let now_ms = self.now_ms;
        if let Some(&nonce) = self.by_id.get(&(sender, id)) {
            let at_ms = self.known[nonce].at_ms;
            if now_ms >= at_ms && now_ms - at_ms < CONFIG.bounds.ids_window_ms {
                self.blame(format!("{nonce} was forgotten as the first with id {id}"));
            }
        }
    }

    /// An instance does something about a message that it has.
    pub(crate) fn receive(&mut self) {
        let Some(place) = (!self.held.is_empty())
            .then(|| usize::try_from(self.random.below(self.held.len() as u64)).unwrap())
        else {
            return self.turn();
        };
        let Held { outgoing, nonce } = self.held[place];
        let Outgoing {
            seq, receiver, to, ..
        } = outgoing;
        let now_ms = self.now_ms;
        match self.random.below(20) {
            0..=11 => {
                self.held.remove(place);
                let settled = self.with_store(|store| store.handle_ack(seq, receiver));
                self.say(&format!("{to:?} acknowledges {nonce}: {settled}"));
                if settled {
                    self.totals.acknowledged += 1;
                    let unclean_starts = self.unclean_starts;
                    self.known[nonce].receivers[usize::from(receiver.0)].acknowledged_after =
                        Some(unclean_starts);
                }
            }
            12..=14 => {
                self.held.remove(place);
                let delay_ms = self.random.once_in(2).then(|| self.random.below(3_000));
                self.say(&format!("{to:?} refuses {nonce} for {delay_ms:?}"));
                self.with_store(|store| store.handle_nak(seq, receiver, to, delay_ms, now_ms));
            }
            15 | 16 => {
                self.say(&format!("{to:?} is still at {nonce}"));
                self.with_store(|store| store.handle_progress(seq, receiver, to, now_ms));
            }
            17 => {
                self.held.remove(place);
                self.say(&format!("{to:?} refuses {nonce} for good"));
                self.with_store(|store| store.handle_term(seq, receiver, to, now_ms));
            }
            _ => {
                self.say(&format!("{to:?} forgets {nonce}"));
                self.held.remove(place);
            }
        }
    }

    /// The operator replays or drops a dead letter, or purges a queue.
    pub(crate) fn operate(&mut self) {
        // What is promised to an operator is in force after a commit.
        self.commit();
        if self.verdict.is_err() {
            return;
        }
        let dead: Vec<_> = self.with_store(|store| store.dead_letters().collect());
        let now_ms = self.now_ms;
        if let Some(letter) = self.random.pick(&dead).cloned() {
            let (seq, receiver) = (letter.seq, letter.receiver);
            let nonce = self.nonce_of(seq);
            let replays = self.random.once_in(2);
            self.say(&format!("the operator: {seq} {receiver:?}, replay {replays}"));
            if replays {
                self.with_store(|store| store.replay(seq, receiver, now_ms));
                let state = &mut self.known[nonce].receivers[usize::from(receiver.0)];
                (state.is_dead, state.is_late) = (false, true);
            } else {
                self.with_store(|store| store.drop_dead(seq, receiver));
                self.known[nonce].receivers[usize::from(receiver.0)].is_dropped = true;
            }
        } else if self.random.once_in(4) {
            let service = *self.random.pick(&SERVICES).unwrap();
            let purged = self.with_store(|store| store.purge(service));
            self.say(&format!("the operator purges {service}: {purged:?}"));
            for (seq, receiver) in purged {
                let nonce = self.nonce_of(seq);
                self.known[nonce].receivers[usize::from(receiver.0)].is_dropped = true;
            }
        }
        let crashes = self.totals.crashes;
        self.commit();
        if self.totals.crashes != crashes || !self.with_store(|store| store.is_all_written()) {
            // It never told the operator that it was done: what was to be dropped may come back.
            for known in &mut self.known {
                for receiver in &mut known.receivers {
                    if receiver.is_dropped {
                        receiver.acknowledged_after = Some(u64::MAX);
                        receiver.is_dropped = false;
                        receiver.is_dead = false;
                    }
                }
            }
        }
    }
}
