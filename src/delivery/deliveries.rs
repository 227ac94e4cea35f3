//! The state machine of all tracked messages.
//!
//! Owned by the task that owns the message log. Inputs are the `handle_*` functions and the operator's verbs;
//! [`Deliveries::dispatch`] says what to send, [`Deliveries::take_changes`] what to write down first.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::held::Holding;
use super::ids::Ids;
use super::lane::Lanes;
use super::message::{
    Cause, Change, InstanceId, Kept, KeptReceiver, Message, Receiver, ReceiverNo, Seq, State,
};
use super::ports::{Admitted, Bounds, Full, GivenUp, NewMessage, Outgoing, QueueDepth};

/// How long an instance whose outbox was full is left alone, in milliseconds.
const FULL_OUTBOX_PAUSE_MS: u64 = 20;

/// The timer of a message's expiry, among those of its receivers.
pub(super) const EXPIRY: ReceiverNo = ReceiverNo(u16::MAX);

#[derive(Debug, Default)]
struct Instance {
    in_flight: HashSet<(Seq, ReceiverNo), foldhash::fast::RandomState>,
    bytes: usize,
    /// Until when its outbox is left alone.
    paused_until_ms: u64,
    /// A message waits for room here.
    is_awaited: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Deliveries {
    pub(super) bounds: Bounds,
    pub(super) last_seq: u64,
    pub(super) messages: BTreeMap<Seq, Message>,
    bytes: usize,
    pub(super) lanes: Lanes,
    pub(super) depths: HashMap<Arc<str>, QueueDepth, foldhash::fast::RandomState>,
    instances: HashMap<InstanceId, Instance, foldhash::fast::RandomState>,
    pub(super) timers: BTreeSet<(u64, Seq, ReceiverNo)>,
    /// When an instance that was paused may be tried again.
    resume_at_ms: Option<u64>,
    pub(super) ids: Ids,
    pub(super) holding: Holding,
    epoch: u64,
    pub(super) changes: Vec<Change>,
    given_up: Vec<GivenUp>,
    forgotten: Vec<Seq>,
}

impl Deliveries {
    /// With nothing in it.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            last_seq: 0,
            messages: BTreeMap::new(),
            bytes: 0,
            lanes: Lanes::default(),
            depths: HashMap::default(),
            instances: HashMap::default(),
            timers: BTreeSet::new(),
            resume_at_ms: None,
            ids: Ids::new(bounds.ids_window_ms, bounds.ids_max),
            holding: Holding::default(),
            epoch: 0,
            changes: Vec::new(),
            given_up: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// Takes a message in, or says which bound forbids it. The caller writes a new one down, with
    /// [`Deliveries::kept`], before it tells the sender or dispatches.
    pub fn handle_publish(&mut self, new: &NewMessage<'_>, now_ms: u64) -> Result<Admitted, Full> {
        if let Some(id) = new.id {
            if let Some(seq) = self.ids.find(new.sender, id, now_ms) {
                return Ok(Admitted::Duplicate(seq));
            }
            self.ids.forget_old(now_ms);
            if !self.ids.has_room() {
                return Err(Full::Ids);
            }
        }
        if self.messages.len() >= self.bounds.messages_max {
            return Err(Full::Messages);
        }
        if self.bytes.saturating_add(new.bytes) > self.bounds.bytes_max {
            return Err(Full::Bytes);
        }
        if !self.has_room_for(new) {
            return Err(Full::Queue);
        }
        self.last_seq += 1;
        let seq = Seq(self.last_seq);
        if let Some(id) = new.id {
            self.ids
                .insert(Arc::clone(new.sender), Arc::clone(id), seq, now_ms);
        }
        let receivers = new.receivers.iter().map(|service| KeptReceiver {
            service: Arc::clone(service),
            is_settled: false,
            attempts: 0,
            attempts_max: new.terms.attempts_max,
            dead: None,
        });
        self.enter(Kept {
            seq,
            sender: Arc::clone(new.sender),
            name: Arc::clone(new.name),
            terms: new.terms,
            stored_ms: now_ms,
            expires_at_ms: now_ms.saturating_add(new.terms.expires_ms),
            bytes: new.bytes,
            receivers: receivers.collect(),
        });
        Ok(Admitted::New(seq))
    }

    /// The receiver has it. Accepted also when the attempt has timed out meanwhile: the work is done. Says
    /// whether it changed anything.
    pub fn handle_ack(&mut self, seq: Seq, receiver: ReceiverNo) -> bool {
        let Some(state) = self.state(seq, receiver) else {
            return false;
        };
        if !state.is_pending() {
            return false;
        }
        self.set_state(seq, receiver, State::Settled);
        self.changes.push(Change::Acknowledged(seq, receiver));
        self.forget_if_settled(seq);
        true
    }

    /// The instance cannot do it now. `delay_ms` is the wait that it asked for.
    pub fn handle_nak(
        &mut self,
        seq: Seq,
        receiver: ReceiverNo,
        from: InstanceId,
        delay_ms: Option<u64>,
        now_ms: u64,
    ) {
        if self.is_in_flight_to(seq, receiver, from) {
            self.attempt_failed(seq, receiver, Wait::For(delay_ms), now_ms);
        }
    }

    /// The instance is still at it: its time begins anew.
    pub fn handle_progress(&mut self, seq: Seq, receiver: ReceiverNo, from: InstanceId, now_ms: u64) {
        if !self.is_in_flight_to(seq, receiver, from) {
            return;
        }
        if let Some(message) = self.messages.get(&seq) {
            let deadline_ms = now_ms.saturating_add(message.terms.attempt_ms_max);
            self.set_state(
                seq,
                receiver,
                State::InFlight {
                    to: from,
                    deadline_ms,
                },
            );
        }
    }

    /// The receiver refuses it for good.
    pub fn handle_term(&mut self, seq: Seq, receiver: ReceiverNo, from: InstanceId, now_ms: u64) {
        if self.is_in_flight_to(seq, receiver, from) {
            self.give_up(seq, receiver, Cause::Terminated, now_ms);
        }
    }

    /// An instance has gone: what it had is ready for another at once.
    pub fn handle_gone(&mut self, instance: InstanceId, now_ms: u64) {
        let Some(gone) = self.instances.get(&instance) else {
            return;
        };
        let mut lost: Vec<_> = gone.in_flight.iter().copied().collect();
        lost.sort_unstable();
        for (seq, receiver) in lost {
            self.attempt_failed(seq, receiver, Wait::Nothing, now_ms);
        }
        self.instances.remove(&instance);
    }

    /// All instances have gone: the broker stops.
    pub fn handle_all_gone(&mut self, now_ms: u64) {
        let mut instances: Vec<_> = self.instances.keys().copied().collect();
        instances.sort_unstable();
        for instance in instances {
            self.handle_gone(instance, now_ms);
        }
    }

    /// The instance's outbox did not take a delivery that was dispatched, or one before it in its lane was not
    /// taken: it was no attempt.
    pub fn handle_not_taken(&mut self, outgoing: &Outgoing, now_ms: u64) {
        let Outgoing {
            seq, receiver, to, ..
        } = *outgoing;
        if !self.is_in_flight_to(seq, receiver, to) {
            return;
        }
        if let Some(receiver) = self.receiver_mut(seq, receiver) {
            receiver.attempts -= 1;
        }
        self.set_state(seq, receiver, State::Ready);
        let until_ms = now_ms.saturating_add(FULL_OUTBOX_PAUSE_MS);
        if let Some(instance) = self.instances.get_mut(&to) {
            instance.paused_until_ms = until_ms;
        }
        self.resume_at_ms = Some(self.resume_at_ms.map_or(until_ms, |other| other.min(until_ms)));
    }

    /// Lets time pass: attempts that took too long, waits that are over, messages that have expired.
    pub fn handle_time(&mut self, now_ms: u64) {
        while let Some(&(due_ms, seq, receiver)) = self.timers.first() {
            if due_ms > now_ms {
                break;
            }
            if receiver == EXPIRY {
                self.timers.pop_first();
                self.expire(seq, now_ms);
                continue;
            }
            match self.state(seq, receiver) {
                Some(State::InFlight { .. }) => {
                    self.attempt_failed(seq, receiver, Wait::For(None), now_ms);
                }
                Some(State::Waiting { .. }) => self.set_state(seq, receiver, State::Ready),
                _ => {
                    self.timers.pop_first();
                }
            }
        }
        if self.resume_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            // An instance without deliveries has gone, or is made anew by its next one.
            self.instances
                .retain(|_, instance| !instance.in_flight.is_empty() || instance.paused_until_ms > now_ms);
            let paused = self.instances.values().map(|instance| instance.paused_until_ms);
            self.resume_at_ms = paused.filter(|until_ms| *until_ms > now_ms).min();
            self.lanes.mark_all();
        }
        self.ids.forget_old(now_ms);
    }

    /// When [`Deliveries::handle_time`] has something to do.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let timer = self.timers.first().map(|(due_ms, ..)| *due_ms);
        match (timer, self.resume_at_ms) {
            (Some(timer), Some(resume)) => Some(timer.min(resume)),
            (timer, resume) => timer.or(resume),
        }
    }

    /// Gives ready messages to instances with room, in order, one instance each. `listening` adds the instances
    /// of a service that listen to a name; it is asked again when `epoch` has changed.
    pub fn dispatch(
        &mut self,
        epoch: u64,
        now_ms: u64,
        mut listening: impl FnMut(&Arc<str>, &Arc<str>, &mut Vec<InstanceId>),
        out: &mut Vec<Outgoing>,
    ) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.lanes.mark_all();
        }
        for place in self.lanes.take_dirty() {
            let lane = self.lanes.get_mut(place);
            if lane.epoch != Some(epoch) {
                lane.instances.clear();
                listening(&lane.service, &lane.name, &mut lane.instances);
                lane.epoch = Some(epoch);
            }
            self.dispatch_lane(place, now_ms, out);
        }
    }

    /// Whether a dispatch could have something to do, though no time has passed and nobody came.
    pub const fn has_dirty_lanes(&self) -> bool {
        self.lanes.has_dirty()
    }

    fn dispatch_lane(&mut self, place: usize, now_ms: u64, out: &mut Vec<Outgoing>) {
        let run = self.lanes.get(place).run_length();
        let mut left_of_run = run;
        while let Some((seq, receiver)) = self.lanes.get_mut(place).pop() {
            let Some(message) = self.messages.get_mut(&seq) else {
                continue;
            };
            let Some(to_send) = message.receivers.get_mut(usize::from(receiver.0)) else {
                continue;
            };
            let lane = self.lanes.get_mut(place);
            let count = lane.instances.len();
            let has_room = |instance: &InstanceId| {
                let Some(instance) = self.instances.get(instance) else {
                    return true;
                };
                let fits = instance.bytes + message.bytes <= self.bounds.window_bytes_max;
                instance.paused_until_ms <= now_ms
                    && instance.in_flight.len() < self.bounds.window_messages_max
                    && (fits || instance.in_flight.is_empty())
            };
            let in_turn = (0..count).map(|step| (lane.next + step) % count);
            let free = in_turn
                .filter_map(|index| Some((index, *lane.instances.get(index)?)))
                .filter(|(_, instance)| has_room(instance));
            let chosen = free
                .clone()
                .find(|(_, instance)| Some(*instance) != to_send.avoid)
                .or_else(|| free.clone().next());
            let Some((index, to)) = chosen else {
                lane.put_back(seq, receiver);
                for instance in &lane.instances {
                    if let Some(instance) = self.instances.get_mut(instance) {
                        instance.is_awaited = true;
                    }
                }
                return;
            };
            left_of_run -= 1;
            lane.next = index;
            if left_of_run == 0 {
                left_of_run = run;
                lane.next = (index + 1) % count;
            }
            to_send.attempts += 1;
            let attempt = to_send.attempts;
            let (kind, attempt_ms_max) = (message.terms.kind, message.terms.attempt_ms_max);
            let deadline_ms = now_ms.saturating_add(attempt_ms_max);
            self.set_state(seq, receiver, State::InFlight { to, deadline_ms });
            out.push(Outgoing {
                seq,
                receiver,
                to,
                lane: place,
                attempt,
                kind,
                attempt_ms_max,
            });
        }
    }

    /// What has changed and must be written down, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// What has been given up since the last call.
    pub fn take_given_up(&mut self) -> Vec<GivenUp> {
        std::mem::take(&mut self.given_up)
    }

    /// Messages that nobody needs any more: their bytes on disk are dead.
    pub fn take_forgotten(&mut self) -> Vec<Seq> {
        std::mem::take(&mut self.forgotten)
    }

    /// Messages held.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Their bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last sequence that was given.
    pub const fn last_seq(&self) -> Seq {
        Seq(self.last_seq)
    }

    /// Whether a message is held.
    pub fn holds(&self, seq: Seq) -> bool {
        self.messages.contains_key(&seq)
    }

    /// All ids of the window, oldest first: sender, id, message, time in milliseconds.
    pub fn ids(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, Seq, u64)> {
        self.ids.iter()
    }

    /// Enters a message. Every receiver begins as settled and is then put into its state, so that all counts
    /// follow from the one place that keeps them.
    pub(super) fn enter(&mut self, kept: Kept) {
        let seq = kept.seq;
        let receivers = kept.receivers.iter().map(|receiver| Receiver {
            lane: self.lanes.enter(&receiver.service, &kept.name),
            state: State::Settled,
            attempts: receiver.attempts,
            attempts_max: receiver.attempts_max,
            avoid: None,
        });
        let message = Message {
            sender: Arc::clone(&kept.sender),
            terms: kept.terms,
            stored_ms: kept.stored_ms,
            expires_at_ms: kept.expires_at_ms,
            bytes: kept.bytes,
            receivers: receivers.collect(),
        };
        self.timers.insert((message.expires_at_ms, seq, EXPIRY));
        self.bytes += message.bytes;
        self.messages.insert(seq, message);
        for (number, receiver) in (0..).zip(&kept.receivers) {
            self.set_state(seq, ReceiverNo(number), receiver.into());
        }
        self.forget_if_settled(seq);
    }

    pub(super) fn state(&self, seq: Seq, receiver: ReceiverNo) -> Option<State> {
        let message = self.messages.get(&seq)?;
        Some(message.receivers.get(usize::from(receiver.0))?.state)
    }

    pub(super) fn receiver_mut(&mut self, seq: Seq, receiver: ReceiverNo) -> Option<&mut Receiver> {
        self.messages
            .get_mut(&seq)?
            .receivers
            .get_mut(usize::from(receiver.0))
    }

    fn is_in_flight_to(&self, seq: Seq, receiver: ReceiverNo, instance: InstanceId) -> bool {
        matches!(self.state(seq, receiver), Some(State::InFlight { to, .. }) if to == instance)
    }

    /// The one place where a state changes: timers, windows, lanes and depths follow from the old and the new.
    pub(super) fn set_state(&mut self, seq: Seq, number: ReceiverNo, new: State) {
        let Some(message) = self.messages.get(&seq) else {
            return;
        };
        let Some(receiver) = message.receivers.get(usize::from(number.0)) else {
            return;
        };
        let (bytes, place, old) = (message.bytes, receiver.lane, receiver.state);
        let new = self.or_held(message, receiver, new);
        self.holding.count(&message.sender, bytes, old, new);
        if let Some(receiver) = self.receiver_mut(seq, number) {
            receiver.state = new;
        }
        if let Some(due_ms) = old.deadline_ms() {
            self.timers.remove(&(due_ms, seq, number));
        }
        if let Some(due_ms) = new.deadline_ms() {
            self.timers.insert((due_ms, seq, number));
        }
        let lane = self.lanes.get_mut(place);
        if old == State::Ready {
            lane.remove(seq);
        }
        if new == State::Ready {
            lane.insert(seq, number);
        }
        let depth = self.depths.entry(Arc::clone(&lane.service)).or_default();
        depth.pending = depth.pending + usize::from(new.is_pending()) - usize::from(old.is_pending());
        let is_flying = |state: &State| matches!(state, State::InFlight { .. });
        depth.in_flight = depth.in_flight + usize::from(is_flying(&new)) - usize::from(is_flying(&old));
        depth.held = depth.held + usize::from(new == State::Held) - usize::from(old == State::Held);
        let is_dead = |state: &State| matches!(state, State::Dead { .. });
        depth.dead = depth.dead + usize::from(is_dead(&new)) - usize::from(is_dead(&old));
        let service = (*depth == QueueDepth::default()).then(|| Arc::clone(&lane.service));
        if let Some(service) = &service {
            self.depths.remove(service);
        }
        if let State::InFlight { to, .. } = old
            && let Some(instance) = self.instances.get_mut(&to)
        {
            instance.in_flight.remove(&(seq, number));
            instance.bytes -= bytes;
            if std::mem::take(&mut instance.is_awaited) {
                let service = Arc::clone(&self.lanes.get(place).service);
                self.lanes.mark_service(&service);
            }
        }
        if let State::InFlight { to, .. } = new {
            let instance = self.instances.entry(to).or_default();
            instance.in_flight.insert((seq, number));
            instance.bytes += bytes;
        }
        self.lanes.mark(place);
    }

    pub(super) fn attempt_failed(&mut self, seq: Seq, number: ReceiverNo, wait: Wait, now_ms: u64) {
        let Some(message) = self.messages.get_mut(&seq) else {
            return;
        };
        let terms = message.terms;
        let Some(receiver) = message.receivers.get_mut(usize::from(number.0)) else {
            return;
        };
        if let State::InFlight { to, .. } = receiver.state {
            receiver.avoid = Some(to);
        }
        let (attempts, is_last) = (receiver.attempts, receiver.attempts >= receiver.attempts_max);
        let first = receiver.attempts_max.saturating_sub(terms.attempts_max);
        if is_last {
            return self.give_up(seq, number, Cause::Attempts, now_ms);
        }
        self.changes.push(Change::Failed(seq, number, attempts));
        let wait_ms = match wait {
            Wait::Nothing => 0,
            Wait::For(Some(delay_ms)) => delay_ms.min(terms.expires_ms),
            Wait::For(None) => terms.backoff_ms(attempts.saturating_sub(first)),
        };
        let state = match wait_ms {
            0 => State::Ready,
            wait_ms => State::Waiting {
                until_ms: now_ms.saturating_add(wait_ms),
            },
        };
        self.set_state(seq, number, state);
    }

    fn expire(&mut self, seq: Seq, now_ms: u64) {
        let Some(message) = self.messages.get(&seq) else {
            return;
        };
        let pending: Vec<_> = (0..)
            .zip(&message.receivers)
            .filter(|(_, receiver)| receiver.state.is_pending())
            .map(|(number, _)| ReceiverNo(number))
            .collect();
        for receiver in pending {
            self.give_up(seq, receiver, Cause::Expired, now_ms);
        }
    }

    fn give_up(&mut self, seq: Seq, receiver: ReceiverNo, cause: Cause, now_ms: u64) {
        let since_ms = now_ms;
        let attempts = self
            .receiver_mut(seq, receiver)
            .map_or(0, |receiver| receiver.attempts);
        if attempts > 0 {
            self.changes.push(Change::Failed(seq, receiver, attempts));
        }
        self.set_state(seq, receiver, State::Dead { cause, since_ms });
        self.changes.push(Change::Died(seq, receiver, cause, since_ms));
        self.given_up.push(GivenUp { seq, receiver, cause });
    }

    pub(super) fn forget_if_settled(&mut self, seq: Seq) {
        if self.messages.get(&seq).is_some_and(Message::is_settled) {
            self.forget(seq);
            self.forgotten.push(seq);
        }
    }

    pub(super) fn forget(&mut self, seq: Seq) {
        let Some(message) = self.messages.get(&seq) else {
            return;
        };
        for number in 0..message.receivers.len() {
            let number = ReceiverNo(u16::try_from(number).expect("receivers are numbered by u16"));
            self.set_state(seq, number, State::Settled);
        }
        let Some(message) = self.messages.remove(&seq) else {
            return;
        };
        self.timers.remove(&(message.expires_at_ms, seq, EXPIRY));
        self.bytes -= message.bytes;
        for receiver in message.receivers {
            self.lanes.leave(receiver.lane);
        }
    }
}

/// The wait before the next attempt.
pub(super) enum Wait {
    /// None: another instance can have it at once.
    Nothing,
    /// What the receiver asked for, or the back-off of the terms.
    For(Option<u64>),
}
