//! What was promised to whom, and whether it was kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use exocom::delivery::{Cause, Outgoing, ReceiverNo, Seq};

use crate::life::{CONFIG, Life};

/// What happened, over many lives: a check that the lives were worth living.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) stored: u64,
    pub(crate) delivered: u64,
    pub(crate) redelivered: u64,
    pub(crate) acknowledged: u64,
    pub(crate) dead: u64,
    pub(crate) duplicates: u64,
    pub(crate) refused: u64,
    pub(crate) disk_full: u64,
    pub(crate) crashes: u64,
    pub(crate) power_cuts: u64,
    pub(crate) failed_stops: u64,
    pub(crate) cuts: u64,
    pub(crate) removed_segments: u64,
}

impl Totals {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.delivered += other.delivered;
        self.redelivered += other.redelivered;
        self.acknowledged += other.acknowledged;
        self.dead += other.dead;
        self.duplicates += other.duplicates;
        self.refused += other.refused;
        self.disk_full += other.disk_full;
        self.crashes += other.crashes;
        self.power_cuts += other.power_cuts;
        self.failed_stops += other.failed_stops;
        self.cuts += other.cuts;
        self.removed_segments += other.removed_segments;
    }

    pub(crate) fn check(&self, seeds: u64) {
        let all = [
            self.stored / 20,
            self.delivered / 20,
            self.redelivered,
            self.acknowledged / 10,
            self.dead,
            self.crashes,
        ];
        assert!(all.iter().all(|count| *count >= seeds), "{self:?}");
        let some = [
            self.duplicates,
            self.refused,
            self.disk_full,
            self.power_cuts,
            self.failed_stops,
            self.cuts,
            self.removed_segments,
        ];
        assert!(some.iter().all(|count| *count >= seeds / 20), "{self:?}");
    }
}

/// A message, as the model knows it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) sender: &'static str,
    pub(crate) name: &'static str,
    pub(crate) id: Option<u64>,
    pub(crate) at_ms: u64,
    /// The publisher was told that it is stored.
    pub(crate) is_promised: bool,
    pub(crate) seq: Seq,
    pub(crate) receivers: Vec<KnownReceiver>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct KnownReceiver {
    /// The last attempt that was seen.
    pub(crate) attempt: u32,
    /// Acknowledged, after so many unclean starts.
    pub(crate) acknowledged_after: Option<u64>,
    /// A dead letter, written down.
    pub(crate) is_dead: bool,
    pub(crate) is_dropped: bool,
    /// It was given up once, so it is late when it comes after all.
    pub(crate) is_late: bool,
}

/// An attempt that an instance has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub(crate) outgoing: Outgoing,
    pub(crate) nonce: usize,
}

impl Life {
    pub(crate) fn check_windows(&mut self) {
        let depths: Vec<_> = self.with_store(|store| {
            let depths = store
                .depths()
                .map(|(service, depth)| (Arc::clone(service), *depth));
            depths.collect()
        });
        for (service, depth) in depths {
            let instances = self.instances.values().filter(|name| ***name == *service).count();
            if depth.in_flight > instances * CONFIG.bounds.window_messages_max {
                self.blame(format!("{service} has {} in flight", depth.in_flight));
            }
        }
    }

    /// What is a dead letter now, and written down.
    pub(crate) fn note_dead_letters(&mut self) {
        if !self.with_store(|store| store.is_all_written()) {
            return;
        }
        let dead: Vec<_> = self.with_store(|store| store.dead_letters().collect());
        for letter in dead {
            // One that has expired comes back when the clock was wrong.
            if letter.cause != Cause::Expired {
                let nonce = self.nonce_of(letter.seq);
                self.known[nonce].receivers[usize::from(letter.receiver.0)].is_dead = true;
            }
        }
    }

    pub(crate) fn check_dead_letters_are_there(&mut self) {
        let dead: BTreeSet<_> = self.with_store(|store| {
            let dead = store.dead_letters().map(|letter| (letter.seq, letter.receiver));
            dead.collect()
        });
        let mut lost = Vec::new();
        for (nonce, known) in self.known.iter().enumerate() {
            for (number, receiver) in (0..).zip(&known.receivers) {
                let is_there = dead.contains(&(known.seq, ReceiverNo(number)));
                if receiver.is_dead && !receiver.is_dropped && !is_there {
                    lost.push(nonce);
                }
            }
        }
        if !lost.is_empty() {
            self.blame(format!("dead letters lost: {lost:?}"));
        }
    }

    pub(crate) fn prove(&mut self) {
        let dead: BTreeSet<_> = self.with_store(|store| {
            let dead = store.dead_letters().map(|letter| (letter.seq, letter.receiver));
            dead.collect()
        });
        let mut lost = Vec::new();
        for (nonce, known) in self
            .known
            .iter()
            .enumerate()
            .filter(|(_, known)| known.is_promised)
        {
            for (number, receiver) in (0..).zip(&known.receivers) {
                let is_dead = dead.contains(&(known.seq, ReceiverNo(number)));
                if receiver.acknowledged_after.is_none() && !receiver.is_dropped && !is_dead {
                    lost.push((nonce, number));
                }
            }
        }
        if !lost.is_empty() {
            self.blame(format!("promised and lost: {lost:?}"));
        }
        let pending: usize = self.with_store(|store| store.depths().map(|(_, depth)| depth.pending).sum());
        if pending > 0 {
            self.blame(format!("{pending} deliveries hang"));
        }
    }
}
