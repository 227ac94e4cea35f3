//! The flows that are watched, each with its series, by number: nothing is looked up by name in a tick.
//!
//! Flows that spoke lately are awake and met in each tick, in the order of their numbers; the others sleep until they
//! speak, or until one of their detectors wants to be asked. Writes nothing, and forgets no flow.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::limits::ALARM_FLOWS_MAX;
use crate::traffic::desk::series::{Counted, Mean, Watch};
use crate::traffic::desk::wishes::Wishes;
use crate::traffic::desk::{Measure, Stream};
use crate::traffic::flow::{FlowKey, FlowNumber, FlowTotals};

/// What is counted of a flow.
const COUNTS: [Measure; 3] = [Measure::Messages, Measure::Dropped, Measure::Unanswered];
/// What is measured of it.
const MEANS: [Measure; 2] = [Measure::ResponseTime, Measure::PayloadSize];

/// Flows that are written down at once, some 2 MiB.
const PART_FLOWS: usize = 1_000;

/// What was counted of a flow in a tick, as far as it is watched.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    flow: FlowNumber,
    /// In the order of [`COUNTS`].
    counts: [u32; COUNTS.len()],
    responses: u32,
    response_us_sum: u64,
    bytes: u64,
}

impl Change {
    /// `None`: nothing of it is watched.
    pub(super) fn new(more: &FlowTotals, flow: impl FnOnce() -> Option<FlowNumber>) -> Option<Self> {
        let counts = [more.messages, more.dropped, more.unanswered + more.no_receiver];
        if counts.iter().all(|&count| count == 0) && more.responses == 0 {
            return None;
        }
        Some(Self {
            flow: flow()?,
            counts: counts.map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
            responses: u32::try_from(more.responses).unwrap_or(u32::MAX),
            response_us_sum: more.response_us_sum,
            bytes: more.bytes,
        })
    }

    fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count = count.saturating_add(more);
        }
        self.responses = self.responses.saturating_add(other.responses);
        self.response_us_sum += other.response_us_sum;
        self.bytes += other.bytes;
    }

    /// Sums and their messages, in the order of [`MEANS`].
    fn means(&self) -> [(f64, u32); MEANS.len()] {
        let [messages, ..] = self.counts;
        [
            (self.response_us_sum as f64 / 1_000.0, self.responses),
            (self.bytes as f64, messages),
        ]
    }
}

/// One flow.
#[derive(Debug, Serialize, Deserialize)]
struct Flow {
    key: FlowKey,
    counted: [Option<Box<Counted>>; COUNTS.len()],
    means: [Mean; MEANS.len()],
    /// When the first of its detectors must be fed at the latest.
    #[serde(skip)]
    due: u64,
}

impl Flow {
    fn new(key: FlowKey) -> Self {
        Self {
            key,
            counted: Default::default(),
            means: Default::default(),
            due: u64::MAX,
        }
    }

    /// Takes a tick.
    fn observe(&mut self, watch: &mut Watch<'_>, tick: u64, change: Option<&Change>) {
        let Self {
            key,
            counted,
            means,
            due,
        } = self;
        let counts = change.map_or([0; COUNTS.len()], |change| change.counts);
        *due = u64::MAX;
        for ((measure, count), series) in COUNTS.into_iter().zip(counts).zip(counted) {
            let stream = || Stream::of(measure, key);
            if series.is_none() && count > 0 && watch.has_room() {
                *series = Some(Box::new(Counted::meet(watch, &stream(), tick)));
            }
            let Some(series) = series else { continue };
            if count > 0 || series.due <= tick {
                series.observe(watch, tick, count, stream);
            }
            *due = series.due.min(*due);
        }
        let Some(change) = change else { return };
        for (mean, (sum, values)) in means.iter_mut().zip(change.means()) {
            mean.add(sum, values);
        }
    }

    /// Takes the means of the last minutes.
    fn end_point(&mut self, watch: &mut Watch<'_>, unix_s: u64) {
        for (measure, mean) in MEANS.into_iter().zip(&mut self.means) {
            mean.end_point(watch, unix_s, || Stream::of(measure, &self.key));
        }
    }

    /// Adds to `ended` what is no longer to raise alarms.
    fn handle_wishes(&mut self, wishes: &Wishes, ended: &mut Vec<Stream>) {
        for (measure, counted) in COUNTS.into_iter().zip(&mut self.counted) {
            let stream = Stream::of(measure, &self.key);
            let counted = counted.as_mut();
            if counted.is_some_and(|counted| counted.handle_wishes(wishes, &stream)) {
                ended.push(stream);
            }
        }
        for (measure, mean) in MEANS.into_iter().zip(&mut self.means) {
            let stream = Stream::of(measure, &self.key);
            if mean.handle_wishes(wishes, &stream) {
                ended.push(stream);
            }
        }
    }

    fn series(&self) -> usize {
        let measured = self.means.iter().filter(|mean| mean.is_watched());
        self.counted.iter().flatten().count() + measured.count()
    }
}

/// Which flows are awake, a bit each.
#[derive(Debug, Default)]
struct Awake(Vec<u64>);

impl Awake {
    fn set(&mut self, index: usize) {
        let word = index / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (index % 64);
        }
    }
}

/// See the module's documentation. Owned by the desk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Flows {
    flows: Vec<Flow>,
    #[serde(skip)]
    by_key: HashMap<FlowKey, FlowNumber, RandomState>,
    #[serde(skip)]
    awake: Awake,
    /// When those asleep must be woken; of one that was woken earlier, for nothing.
    #[serde(skip)]
    asleep: BinaryHeap<Reverse<(u64, FlowNumber)>>,
    /// The series of all flows.
    #[serde(skip)]
    series: usize,
}

fn index(flow: FlowNumber) -> usize {
    flow.get() as usize - 1
}

impl Flows {
    /// The number of a flow, as long as there is one for it.
    pub(super) fn number(&mut self, key: FlowKey) -> Option<FlowNumber> {
        if let Some(&number) = self.by_key.get(&key) {
            return Some(number);
        }
        if self.flows.len() >= ALARM_FLOWS_MAX {
            return None;
        }
        let number = u32::try_from(self.flows.len() + 1).ok()?;
        let number = FlowNumber::new(number)?;
        self.flows.push(Flow::new(key.clone()));
        self.by_key.insert(key, number);
        Some(number)
    }

    /// Goes on at a tick, after a restart: all are due.
    pub(super) fn resume(&mut self, tick: u64) {
        // The names are written with each flow; most of them are the same.
        let mut names: HashSet<Arc<str>, RandomState> = HashSet::default();
        let mut shared = |name: &mut Arc<str>| match names.get(name) {
            Some(known) => *name = Arc::clone(known),
            None => {
                names.insert(Arc::clone(name));
            }
        };
        for (at, flow) in self.flows.iter_mut().enumerate() {
            shared(&mut flow.key.sender);
            shared(&mut flow.key.message);
            flow.key.receiver.iter_mut().for_each(&mut shared);
            for counted in flow.counted.iter_mut().flatten() {
                counted.detector.resume(tick);
                counted.due = tick;
            }
            self.series += flow.series();
            self.awake.set(at);
            let number = u32::try_from(at + 1).ok().and_then(FlowNumber::new);
            if let Some(number) = number {
                self.by_key.insert(flow.key.clone(), number);
            }
        }
    }

    /// Takes a tick: what changed, in any order.
    pub(super) fn observe(&mut self, watch: &mut Watch<'_>, tick: u64, changes: &mut Vec<Change>) {
        // A connection's flows come in order, and the first time they are met gives them their numbers.
        changes.sort_by_key(|change| change.flow);
        changes.dedup_by(|more, change| {
            let is_same = more.flow == change.flow;
            if is_same {
                change.add(more);
            }
            is_same
        });
        for change in &*changes {
            self.awake.set(index(change.flow));
        }
        while let Some(&Reverse((due, flow))) = self.asleep.peek()
            && due <= tick
        {
            self.asleep.pop();
            if self.flows.get(index(flow)).is_some_and(|flow| flow.due <= tick) {
                self.awake.set(index(flow));
            }
        }
        let room = watch.room;
        let mut changes = changes.iter().peekable();
        for (at, word) in self.awake.0.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let Some(flow) = self.flows.get_mut(64 * at + bit as usize) else {
                    break;
                };
                let is_of = |change: &&Change| index(change.flow) == 64 * at + bit as usize;
                let change = changes.next_if(is_of);
                flow.observe(watch, tick, change);
                if flow.due > tick + 1 {
                    *word &= !(1 << bit);
                    let number = u32::try_from(64 * at).ok().map(|first| first + bit + 1);
                    if let Some(number) = number.and_then(FlowNumber::new)
                        && flow.due < u64::MAX
                    {
                        self.asleep.push(Reverse((flow.due, number)));
                    }
                }
            }
        }
        self.series += room - watch.room;
    }

    /// Takes the means of the last minutes.
    pub(super) fn end_points(&mut self, watch: &mut Watch<'_>, unix_s: u64) {
        let room = watch.room;
        for flow in &mut self.flows {
            flow.end_point(watch, unix_s);
        }
        self.series += room - watch.room;
    }

    /// How many flows there are.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// So many flows, as they are written down.
    pub(super) fn part(&self, part: usize) -> Option<postcard::Result<Vec<u8>>> {
        let flows = self.flows.chunks(PART_FLOWS).nth(part)?;
        let written = flows.iter().try_fold(Vec::new(), |mut bytes, flow| {
            bytes.extend(postcard::to_stdvec(flow)?);
            Ok(bytes)
        });
        Some(written)
    }

    /// Goes by other wishes from now on; adds to `ended` what is no longer to raise alarms.
    pub(super) fn handle_wishes(&mut self, wishes: &Wishes, ended: &mut Vec<Stream>) {
        for flow in &mut self.flows {
            flow.handle_wishes(wishes, ended);
        }
    }

    /// The series of all flows.
    pub(super) fn series(&self) -> usize {
        self.series
    }

    /// The detector of a count, if it is one of a flow.
    pub(super) fn counted(&self, stream: &Stream) -> Option<&Counted> {
        let at = COUNTS.iter().position(|&measure| measure == stream.measure)?;
        let flow = self.flows.get(self.find(stream)?)?;
        flow.counted.get(at)?.as_deref()
    }

    /// A mean, if it is one of a flow.
    pub(super) fn mean(&mut self, stream: &Stream) -> Option<&mut Mean> {
        let at = MEANS.iter().position(|&measure| measure == stream.measure)?;
        let at_flow = self.find(stream)?;
        let flow = self.flows.get_mut(at_flow)?;
        flow.means.get_mut(at)
    }

    /// How many flows are awake.
    #[cfg(test)]
    pub(super) fn awake(&self) -> u32 {
        self.awake.0.iter().map(|word| word.count_ones()).sum()
    }

    fn find(&self, stream: &Stream) -> Option<usize> {
        let key = FlowKey {
            sender: Arc::clone(&stream.sender),
            message: stream.message.clone()?,
            receiver: stream.receiver.clone(),
        };
        self.by_key.get(&key).map(|&flow| index(flow))
    }
}
