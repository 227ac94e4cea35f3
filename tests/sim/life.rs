//! One life of a broker's store: publishers, services whose instances come and go, an operator, and crashes;
//! beside it a model that knows what was promised to whom.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use exocom::delivery::{Bounds, DeliveryTerms, InstanceId, Outgoing, Seq};
use exocom::disk::store::{Store, StoreConfig};
use exocom::policy::Kind;

use crate::disk::{Disk, Faults};
use crate::model::{Held, Known, Totals};
use crate::random::Random;

const SEGMENT_BYTES: u64 = 4096;
const STEPS: u64 = 250;
const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

pub(crate) const CONFIG: StoreConfig = StoreConfig {
    bounds: Bounds {
        messages_max: 60,
        bytes_max: 16 << 10,
        queue_messages_max: 40,
        window_messages_max: 3,
        window_bytes_max: 900,
        ids_window_ms: 120_000,
        ids_max: 50,
    },
    segment_bytes: SEGMENT_BYTES,
    cache_bytes_max: 1024,
};

pub(crate) const TERMS: DeliveryTerms = DeliveryTerms {
    kind: Kind::Event,
    attempt_ms_max: 5_000,
    attempts_max: 3,
    backoff_first_ms: 500,
    backoff_longest_ms: 2_000,
    expires_ms: 600_000,
};

/// Each message name and the services that receive it.
pub(crate) const NAMES: [(&str, &[&str]); 3] =
    [("a.one", &["x"]), ("a.two", &["x", "y"]), ("b", &["y", "z"])];
pub(crate) const SENDERS: [&str; 2] = ["web", "shop"];
pub(crate) const SERVICES: [&str; 3] = ["x", "y", "z"];

pub(crate) struct Life {
    pub(crate) random: Random,
    pub(crate) disk: Disk,
    pub(crate) store: Option<Store<Disk>>,
    pub(crate) now_ms: u64,
    pub(crate) known: Vec<Known>,
    pub(crate) by_id: BTreeMap<(&'static str, u64), usize>,
    /// Published, and not committed yet.
    pub(crate) uncommitted: Vec<usize>,
    pub(crate) instances: BTreeMap<u64, &'static str>,
    pub(crate) next_instance: u64,
    pub(crate) epoch: u64,
    pub(crate) held: Vec<Held>,
    pub(crate) first_attempts: BTreeMap<(&'static str, &'static str, &'static str), Seq>,
    pub(crate) totals: Totals,
    /// Starts after which what was not written down is forgotten.
    pub(crate) unclean_starts: u64,
    pub(crate) trace: String,
    pub(crate) verdict: Result<(), String>,
}

impl Life {
    pub(crate) fn live(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let disk = Disk::new(random.next());
        let mut life = Self {
            random,
            disk,
            store: None,
            now_ms: 50 * YEAR_MS,
            known: Vec::new(),
            by_id: BTreeMap::new(),
            uncommitted: Vec::new(),
            instances: BTreeMap::new(),
            next_instance: 1,
            epoch: 1,
            held: Vec::new(),
            first_attempts: BTreeMap::new(),
            totals: Totals::default(),
            unclean_starts: 0,
            trace: String::new(),
            verdict: Ok(()),
        };
        life.start();
        for _ in 0..STEPS {
            if life.verdict.is_err() {
                return life;
            }
            life.step();
        }
        life.end();
        life
    }

    pub(crate) fn trace(&self) -> &str {
        &self.trace
    }

    pub(crate) fn verdict(&self) -> Result<(), String> {
        self.verdict.clone()
    }

    pub(crate) const fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.trace, "{} {line}", self.now_ms).unwrap();
    }

    pub(crate) fn blame(&mut self, what: String) {
        self.say(&format!("WRONG: {what}"));
        if self.verdict.is_ok() {
            self.verdict = Err(what);
        }
    }

    /// Starts the broker, as often as the disk lets it fail.
    fn start(&mut self) {
        for attempt in 0.. {
            let opened = Store::open(self.disk.clone(), CONFIG, 7, self.now_ms);
            match opened {
                Ok((store, opened)) => {
                    self.say(&format!("started: {opened:?}"));
                    self.totals.cuts += u64::from(opened.cut.is_some());
                    self.unclean_starts += u64::from(!opened.was_closed);
                    self.store = Some(store);
                    break;
                }
                Err(error) => {
                    self.say(&format!("cannot start: {error}"));
                    if matches!(error, exocom::disk::OpenError::Damaged { .. }) {
                        return self.blame(format!("a crash was taken for damage: {error}"));
                    }
                    if attempt > 20 {
                        self.disk.set_faults(Faults::NONE);
                        self.disk.set_capacity(usize::MAX);
                    }
                }
            }
        }
        self.check_dead_letters_are_there();
        self.prepare_segment();
        self.commit();
    }

    /// The broker is gone, one way or another; nothing that it had in memory is left.
    fn crash(&mut self) {
        self.store = None;
        self.totals.crashes += 1;
        if self.random.once_in(2) {
            self.totals.power_cuts += 1;
            self.say("power cut");
            self.disk.cut_power();
        } else {
            self.say("killed");
            self.disk.kill();
        }
        self.forget_connections();
        // The clock may be wrong after a start.
        match self.random.below(12) {
            0 => {
                self.now_ms -= HOUR_MS;
                // What had expired, perhaps unseen, comes after all.
                let receivers = self.known.iter_mut().flat_map(|known| &mut known.receivers);
                receivers.for_each(|receiver| receiver.is_late = true);
            }
            1 => self.now_ms += YEAR_MS,
            _ => {}
        }
        self.start();
    }

    fn forget_connections(&mut self) {
        self.uncommitted.clear();
        self.instances.clear();
        self.held.clear();
        self.epoch += 1;
    }

    fn step(&mut self) {
        match self.random.below(40) {
            0 => self.misbehave(),
            1 => self.crash(),
            2 => self.stop_in_order(),
            3..=5 => self.connect(),
            6 => self.disconnect(),
            7..=16 => self.publish(),
            17..=27 => self.receive(),
            28 => self.operate(),
            29..=33 => {
                let ms = match self.random.below(20) {
                    0 => 300_000,
                    1..=4 => 6_000,
                    _ => self.random.below(800),
                };
                self.now_ms += ms;
                let now_ms = self.now_ms;
                self.with_store(|store| store.handle_time(now_ms));
            }
            34 => self.prepare_segment(),
            _ => self.turn(),
        }
    }

    pub(crate) fn with_store<R>(&mut self, act: impl FnOnce(&mut Store<Disk>) -> R) -> R {
        act(self.store.as_mut().expect("the broker runs"))
    }

    /// The disk begins to fail, or heals.
    fn misbehave(&mut self) {
        let faults = match self.random.below(6) {
            0 => Faults {
                sync: 10,
                ..Faults::NONE
            },
            1 => Faults {
                write: 30,
                ..Faults::NONE
            },
            2 => Faults {
                short: 3,
                ..Faults::NONE
            },
            3 => Faults {
                names: 2,
                ..Faults::NONE
            },
            4 => Faults {
                read: 20,
                ..Faults::NONE
            },
            _ => Faults::NONE,
        };
        let capacity = match self.random.below(4) {
            0 => usize::try_from(SEGMENT_BYTES * 3).unwrap() + 100,
            _ => usize::MAX,
        };
        self.say(&format!("the disk: {faults:?}, capacity {capacity}"));
        self.disk.set_faults(faults);
        self.disk.set_capacity(capacity);
    }

    fn stop_in_order(&mut self) {
        if !self.random.once_in(3) {
            return self.turn();
        }
        self.commit();
        let Some(store) = self.store.take() else { return };
        let closed = store.close(self.now_ms);
        self.say(&format!("stopped: {closed:?}"));
        self.forget_connections();
        if closed.is_err() {
            self.disk.cut_power();
        }
        self.start();
    }

    fn connect(&mut self) {
        let service = *self.random.pick(&SERVICES).unwrap();
        if self.instances.len() < 6 {
            self.instances.insert(self.next_instance, service);
            self.say(&format!("{service} connects as {}", self.next_instance));
            self.next_instance += 1;
            self.epoch += 1;
        }
    }

    fn disconnect(&mut self) {
        let all: Vec<u64> = self.instances.keys().copied().collect();
        let Some(&gone) = self.random.pick(&all) else {
            return;
        };
        self.instances.remove(&gone);
        self.epoch += 1;
        self.held.retain(|held| held.outgoing.to != InstanceId(gone));
        self.say(&format!("{gone} disconnects"));
        let now_ms = self.now_ms;
        self.with_store(|store| store.handle_gone(InstanceId(gone), now_ms));
    }

    /// The broker cannot go on, and starts again.
    pub(crate) fn fail(&mut self, error: &str) {
        self.say(&format!("stops: {error}"));
        self.totals.failed_stops += 1;
        self.crash();
    }

    pub(crate) fn commit(&mut self) {
        if self.verdict.is_err() {
            return;
        }
        if let Err(error) = self.with_store(Store::commit) {
            return self.fail(&error.to_string());
        }
        for nonce in std::mem::take(&mut self.uncommitted) {
            let known = &mut self.known[nonce];
            known.is_promised = true;
            if let Some(id) = known.id {
                let (sender, at_ms) = (known.sender, known.at_ms);
                let newest = self
                    .by_id
                    .get(&(sender, id))
                    .is_none_or(|&other| self.known[other].at_ms <= at_ms);
                if newest {
                    self.by_id.insert((sender, id), nonce);
                }
            }
        }
        for given_up in self.with_store(Store::take_given_up) {
            self.totals.dead += 1;
            self.say(&format!(
                "{} given up at {:?}: {}",
                given_up.seq, given_up.receiver, given_up.cause
            ));
            let nonce = self.nonce_of(given_up.seq);
            self.known[nonce].receivers[usize::from(given_up.receiver.0)].is_late = true;
        }
        self.note_dead_letters();
    }

    /// A turn of the broker's own task: write down, then send.
    pub(crate) fn turn(&mut self) {
        let now_ms = self.now_ms;
        self.with_store(|store| store.handle_time(now_ms));
        self.commit();
        if self.verdict.is_err() {
            return;
        }
        self.prepare_segment();
        let (epoch, instances) = (self.epoch, self.instances.clone());
        let mut out = Vec::new();
        let listening = |service: &Arc<str>, _: &Arc<str>, found: &mut Vec<InstanceId>| {
            let of_service = instances.iter().filter(|(_, name)| ***name == **service);
            found.extend(of_service.map(|(instance, _)| InstanceId(*instance)));
        };
        self.with_store(|store| store.dispatch(epoch, now_ms, listening, &mut out));
        let mut stopped = BTreeSet::new();
        for outgoing in out {
            if stopped.contains(&outgoing.lane) || !self.send(outgoing) {
                stopped.insert(outgoing.lane);
                self.say(&format!("{outgoing:?} is not taken"));
                self.with_store(|store| store.handle_not_taken(&outgoing, now_ms));
            }
        }
        self.check_windows();
        let removed_before = self.with_store(|store| store.size().disk_bytes);
        loop {
            match self.with_store(Store::tidy) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.fail(&error.to_string()),
            }
        }
        let size = self.with_store(|store| store.size());
        self.totals.removed_segments += u64::from(size.disk_bytes < removed_before);
        let is_full = self.with_store(|store| store.is_disk_full());
        if size.disk_bytes > 2 * size.live_bytes + 2 * size.segment_bytes && !is_full {
            self.blame(format!("the log grows beyond its bound: {size:?}"));
        }
    }

    /// Sends an attempt, if the instance takes it.
    fn send(&mut self, outgoing: Outgoing) -> bool {
        if self.random.once_in(15) {
            return false;
        }
        let content = match self.with_store(|store| store.content(outgoing.seq)) {
            Ok(Some(content)) => content,
            Ok(None) => {
                self.blame(format!("{outgoing:?} has no content"));
                return true;
            }
            // It cannot be read now; perhaps it can be later.
            Err(_) => return false,
        };
        let text = String::from_utf8_lossy(&content.payload).into_owned();
        let nonce: usize = text.split(':').next().unwrap().parse().unwrap();
        let Outgoing {
            seq,
            receiver,
            attempt,
            to,
            ..
        } = outgoing;
        self.say(&format!("{nonce} goes to {to:?} as attempt {attempt}"));
        self.totals.delivered += 1;
        self.totals.redelivered += u64::from(attempt > 1);
        let unclean_starts = self.unclean_starts;
        let known = &mut self.known[nonce];
        known.seq = seq;
        let (sender, name) = (known.sender, known.name);
        let service = NAMES.iter().find(|(other, _)| *other == name).unwrap().1[usize::from(receiver.0)];
        let state = &mut known.receivers[usize::from(receiver.0)];
        let mut wrong = None;
        if attempt <= state.attempt {
            wrong = Some(format!("attempt {attempt} of {nonce} after {}", state.attempt));
        }
        if state.acknowledged_after == Some(unclean_starts) {
            wrong = Some(format!("{nonce} is delivered after {service} acknowledged it"));
        }
        if state.is_dead || state.is_dropped {
            wrong = Some(format!("{nonce} is delivered to {service}, which gave it up"));
        }
        if self.uncommitted.contains(&nonce) {
            wrong = Some(format!("{nonce} is delivered before it is on disk"));
        }
        state.attempt = attempt;
        if attempt == 1 && !state.is_late {
            let last = self.first_attempts.insert((sender, name, service), seq);
            if last.is_some_and(|last| last >= seq) {
                wrong = Some(format!("{seq} comes after {last:?} to {service}"));
            }
        }
        if *content.sender != *sender || *content.name != *name {
            wrong = Some(format!("{nonce} is of {}/{}", content.sender, content.name));
        }
        if let Some(wrong) = wrong {
            self.blame(wrong);
        }
        self.held.push(Held { outgoing, nonce });
        true
    }

    pub(crate) fn nonce_of(&mut self, seq: Seq) -> usize {
        let content = loop {
            match self.with_store(|store| store.content(seq)) {
                Ok(content) => break content.expect("it is held"),
                Err(_) => self.disk.set_faults(Faults::NONE),
            }
        };
        let text = String::from_utf8_lossy(&content.payload).into_owned();
        text.split(':').next().unwrap().parse().unwrap()
    }

    fn prepare_segment(&mut self) {
        let Some(wanted) = self.with_store(|store| store.wanted()) else {
            return;
        };
        let disk = self.disk.clone();
        match wanted.make(&disk) {
            Ok(made) => self.with_store(|store| store.provide(made)),
            Err(error) => self.say(&format!("cannot prepare a segment: {error}")),
        }
    }

    /// Everything heals; what was promised must now come true.
    fn end(&mut self) {
        self.disk.set_faults(Faults::NONE);
        self.disk.set_capacity(usize::MAX);
        self.say("everything heals");
        self.prepare_segment();
        for service in SERVICES {
            self.instances.insert(self.next_instance, service);
            self.next_instance += 1;
        }
        self.epoch += 1;
        for _ in 0..400 {
            self.turn();
            if self.verdict.is_err() {
                return;
            }
            for Held { outgoing, nonce } in std::mem::take(&mut self.held) {
                let settled = self.with_store(|store| store.handle_ack(outgoing.seq, outgoing.receiver));
                if settled {
                    let receiver = usize::from(outgoing.receiver.0);
                    self.known[nonce].receivers[receiver].acknowledged_after = Some(self.unclean_starts);
                }
            }
            self.now_ms += 1_000;
            let is_idle = self.with_store(|store| store.depths().all(|(_, depth)| depth.pending == 0));
            if is_idle {
                break;
            }
        }
        self.commit();
        self.prove();
    }
}
