//! A lane: the messages of one name on their way to one service, in order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::message::{InstanceId, ReceiverNo, Seq};

/// The longest run of messages that go to one instance.
const RUN_MAX: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) service: Arc<str>,
    pub(super) name: Arc<str>,
    /// Those that wait for an instance, by sequence.
    ready: VecDeque<(Seq, ReceiverNo)>,
    /// The instances that listen, as of `epoch`.
    pub(super) instances: Vec<InstanceId>,
    pub(super) epoch: Option<u64>,
    /// The instance whose turn is next.
    pub(super) next: usize,
    pub(super) is_dirty: bool,
    /// Messages that refer to this lane; at none, it can go.
    pub(super) messages: usize,
}

impl Lane {
    pub(super) const fn new(service: Arc<str>, name: Arc<str>) -> Self {
        Self {
            service,
            name,
            ready: VecDeque::new(),
            instances: Vec::new(),
            epoch: None,
            next: 0,
            is_dirty: false,
            messages: 0,
        }
    }

    /// Puts a message into its place by sequence. New ones go to the end, those that come back to the front.
    pub(super) fn insert(&mut self, seq: Seq, receiver: ReceiverNo) {
        match self.ready.back() {
            Some((last, _)) if *last >= seq => {
                let place = self.ready.partition_point(|(other, _)| *other < seq);
                self.ready.insert(place, (seq, receiver));
            }
            _ => self.ready.push_back((seq, receiver)),
        }
    }

    /// Takes a message out that no longer waits.
    pub(super) fn remove(&mut self, seq: Seq) {
        let place = self.ready.partition_point(|(other, _)| *other < seq);
        if self.ready.get(place).is_some_and(|(other, _)| *other == seq) {
            self.ready.remove(place);
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Seq, ReceiverNo)> {
        self.ready.pop_front()
    }

    pub(super) fn put_back(&mut self, seq: Seq, receiver: ReceiverNo) {
        self.ready.push_front((seq, receiver));
    }

    /// How many messages in a row go to one instance: what is ready, divided among all, in runs that are not too
    /// long. A run costs one lock of its mailbox.
    pub(super) fn run_length(&self) -> usize {
        self.ready
            .len()
            .div_ceil(self.instances.len().max(1))
            .clamp(1, RUN_MAX)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}

/// All lanes, found by service and name; the place of one that went is used again.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    free: Vec<usize>,
    index: HashMap<(Arc<str>, Arc<str>), usize, foldhash::fast::RandomState>,
    of_service: HashMap<Arc<str>, Vec<usize>, foldhash::fast::RandomState>,
    dirty: Vec<usize>,
}

impl Lanes {
    /// The lane of a service and a name, with one message more.
    pub(super) fn enter(&mut self, service: &Arc<str>, name: &Arc<str>) -> usize {
        let key = (Arc::clone(service), Arc::clone(name));
        let place = match self.index.get(&key) {
            Some(&place) => place,
            None => {
                let lane = Some(Lane::new(Arc::clone(service), Arc::clone(name)));
                let place = match self.free.pop() {
                    Some(place) => {
                        if let Some(free) = self.lanes.get_mut(place) {
                            *free = lane;
                        }
                        place
                    }
                    None => {
                        self.lanes.push(lane);
                        self.lanes.len() - 1
                    }
                };
                self.index.insert(key, place);
                self.of_service
                    .entry(Arc::clone(service))
                    .or_default()
                    .push(place);
                place
            }
        };
        self.get_mut(place).messages += 1;
        place
    }

    /// One message less; a lane without any goes.
    pub(super) fn leave(&mut self, place: usize) {
        let lane = self.get_mut(place);
        lane.messages -= 1;
        if lane.messages > 0 {
            return;
        }
        let Some(lane) = self.lanes.get_mut(place).and_then(Option::take) else {
            return;
        };
        if lane.is_dirty {
            self.dirty.retain(|other| *other != place);
        }
        if let Some(lanes) = self.of_service.get_mut(&lane.service) {
            lanes.retain(|other| *other != place);
            if lanes.is_empty() {
                self.of_service.remove(&lane.service);
            }
        }
        self.index.remove(&(lane.service, lane.name));
        self.free.push(place);
    }

    pub(super) fn get(&self, place: usize) -> &Lane {
        self.lanes
            .get(place)
            .and_then(Option::as_ref)
            .expect("messages keep their lanes")
    }

    pub(super) fn get_mut(&mut self, place: usize) -> &mut Lane {
        self.lanes
            .get_mut(place)
            .and_then(Option::as_mut)
            .expect("messages keep their lanes")
    }

    /// Marks a lane to be looked at in the next dispatch.
    pub(super) fn mark(&mut self, place: usize) {
        let lane = self.get_mut(place);
        if !lane.is_dirty && lane.has_ready() {
            lane.is_dirty = true;
            self.dirty.push(place);
        }
    }

    /// Marks all lanes of a service.
    pub(super) fn mark_service(&mut self, service: &str) {
        for place in self.of_service.get(service).cloned().unwrap_or_default() {
            self.mark(place);
        }
    }

    /// Marks all lanes.
    pub(super) fn mark_all(&mut self) {
        for place in 0..self.lanes.len() {
            if self.lanes.get(place).is_some_and(Option::is_some) {
                self.mark(place);
            }
        }
    }

    /// Takes the marked lanes.
    pub(super) fn take_dirty(&mut self) -> Vec<usize> {
        let dirty = std::mem::take(&mut self.dirty);
        for &place in &dirty {
            self.get_mut(place).is_dirty = false;
        }
        dirty
    }

    pub(super) const fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}
