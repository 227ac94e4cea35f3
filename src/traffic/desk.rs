//! The desk where alarms are kept: it knows all flows of a broker, gives each to its detectors once a tick, and turns
//! what they say into alarms that are opened, updated and closed.
//!
//! A flow that says nothing costs nothing, once it has said nothing for an hour. Writes nothing, and knows no clock: a tick
//! is a number.

mod book;
mod flows;
mod refusals;
mod series;
mod stream;
mod wishes;
mod worth;

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::limits::ALARM_STREAMS_MAX;
use crate::traffic::alarm::Finding;
use crate::traffic::desk::book::AlarmBook;
use crate::traffic::desk::flows::{Change, Flows};
use crate::traffic::desk::series::{Counted, Mean, Watch};
use crate::traffic::flow::{FlowKey, FlowNumber, FlowTotals};
use crate::traffic::pace::Pace;

pub use book::{Alarm, Step};
pub use stream::{Measure, Stream};
pub use wishes::{Attention, Wishes};

/// A point of a metric is a mean over so long, in seconds.
const POINT_S: u64 = 300;
/// An alarm of a limit is over after so long within it, in seconds.
const LIMIT_OVER_S: u64 = 300;
/// How an alarm ends that nobody wants to hear of any more.
const TURNED_OFF: &str = "the policy has turned its alarms off";

/// A sender that is past its limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Limited {
    open: u64,
    /// When it last was.
    unix_s: u64,
}

/// What was counted in a tick.
type Counts = HashMap<Stream, u64, RandomState>;

/// What is kept over a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Learned {
    /// The first tick ever.
    first_tick: u64,
    /// What is of no one flow: denials of a sender, and refused handshakes.
    others: HashMap<Stream, Counted, RandomState>,
    /// What the broker itself bears.
    load: BTreeMap<Stream, Mean>,
    limited: BTreeMap<Stream, Limited>,
    book: AlarmBook,
    /// The last, since they are written in parts.
    flows: Flows,
}

/// The desk. Owned by the task that feeds it; operators reach it between two ticks.
#[derive(Debug)]
pub struct Desk {
    pace: Pace,
    learned: Learned,
    wishes: Wishes,
    /// What came in the tick under way: of flows, of what is of no one flow, and past the limits.
    changes: Vec<Change>,
    counts: Counts,
    over_limit: BTreeMap<Stream, u64>,
    /// Whether the next tick only says where counting starts.
    is_starting: bool,
}

impl Desk {
    /// A desk that knows nothing yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            learned: Learned::default(),
            wishes: Wishes::default(),
            changes: Vec::new(),
            counts: Counts::default(),
            over_limit: BTreeMap::new(),
            is_starting: true,
        }
    }

    /// A desk that goes on where another stopped, at a tick; or why that cannot be read.
    pub fn restore(pace: Pace, learned: &[u8], tick: u64) -> Result<Self, String> {
        let mut learned: Learned = postcard::from_bytes(learned).map_err(|error| error.to_string())?;
        let unix_s = pace.unix_s(tick);
        learned.flows.resume(tick);
        for counted in learned.others.values_mut() {
            counted.detector.resume(tick);
        }
        for alarm in learned.book.alarms.iter_mut() {
            let is_known = learned.others.contains_key(&alarm.stream)
                || learned.limited.contains_key(&alarm.stream)
                || learned.flows.counted(&alarm.stream).is_some()
                || learned.load.contains_key(&alarm.stream)
                || learned.flows.mean(&alarm.stream).is_some();
            if alarm.closed_unix_s.is_none() && !is_known {
                alarm.closed_unix_s = Some(unix_s);
            }
        }
        Ok(Self {
            learned,
            ..Self::new(pace)
        })
    }

    /// What has been learned, for [`restore`](Self::restore): so many parts, one after the other, until there are no more. The
    /// whole of it may be hundreds of megabytes.
    pub fn learned_part(&self, part: usize) -> Option<Vec<u8>> {
        let Learned {
            first_tick,
            others,
            load,
            limited,
            book,
            flows,
        } = &self.learned;
        // The bytes of the parts are those of the whole: a structure is its fields, a list its length and what is in it.
        let bytes = match part.checked_sub(1) {
            None => postcard::to_stdvec(&(first_tick, others, load, limited, book, flows.len())),
            Some(at) => flows.part(at)?,
        };
        Some(bytes.expect("what is learned is plain data"))
    }

    /// All parts.
    pub fn learned(&self) -> Vec<u8> {
        (0..)
            .map_while(|part| self.learned_part(part))
            .flatten()
            .collect()
    }

    /// Takes what was counted of a flow in the tick that ends; it may come in parts. `number` stands for the flow from
    /// then on, and is to be given back each time; `key` tells its names. To be called before [`Desk::handle_tick`].
    pub fn handle_flow(
        &mut self,
        number: &mut Option<FlowNumber>,
        more: &FlowTotals,
        key: impl Fn() -> FlowKey,
    ) {
        if more.denied > 0 {
            *self.counts.entry(Stream::denials(&key())).or_default() += more.denied;
        }
        if more.over_limit > 0 {
            let stream = Stream::of(Measure::OverLimit, &key());
            *self.over_limit.entry(stream).or_default() += more.over_limit;
        }
        let flows = &mut self.learned.flows;
        let change = Change::new(more, || {
            *number = number.or_else(|| flows.number(key()));
            *number
        });
        self.changes.extend(change);
    }

    /// Takes what the broker itself bears, once a tick and before [`Desk::handle_tick`].
    pub fn handle_load(&mut self, load: &[(Measure, f64)]) {
        for &(measure, value) in load {
            let mean = self.learned.load.entry(Stream::of_broker(measure));
            mean.or_default().add(value, 1);
        }
    }

    /// Goes by other wishes from now on; the time is in seconds since 1970. Alarms that nobody wants any more are closed.
    pub fn handle_wishes(&mut self, wishes: Wishes, unix_s: u64) {
        let Learned {
            flows,
            others,
            limited,
            load,
            book,
            ..
        } = &mut self.learned;
        let mut ended = Vec::new();
        flows.handle_wishes(&wishes, &mut ended);
        for (stream, counted) in others {
            if counted.handle_wishes(&wishes, stream) {
                ended.push(stream.clone());
            }
        }
        for (stream, mean) in load {
            if mean.handle_wishes(&wishes, stream) {
                ended.push(stream.clone());
            }
        }
        let is_off = |stream: &Stream| (wishes.attention)(stream) == Attention::Off;
        let limited = limited.extract_if(.., |stream, _| is_off(stream));
        ended.extend(limited.map(|(stream, _)| stream));
        for stream in ended {
            book.close_all(&stream, unix_s, TURNED_OFF);
        }
        self.wishes = wishes;
    }

    /// Ends a tick. What happened to which alarm is what [`Self::poll`] says.
    pub fn handle_tick(&mut self, tick: u64) {
        if self.learned.first_tick == 0 {
            self.learned.first_tick = tick;
        }
        self.hold_to_limits(self.pace.unix_s(tick));
        if std::mem::take(&mut self.is_starting) {
            self.changes.clear();
            return;
        }
        let counts = std::mem::take(&mut self.counts);
        let room = self.room();
        let Learned {
            first_tick,
            flows,
            others,
            load,
            book,
            ..
        } = &mut self.learned;
        let mut watch = Watch {
            pace: &self.pace,
            first_tick: *first_tick,
            book,
            wishes: &self.wishes,
            room,
        };
        flows.observe(&mut watch, tick, &mut self.changes);
        self.changes.clear();
        for (stream, &count) in &counts {
            if !others.contains_key(stream) && watch.has_room() {
                others.insert(stream.clone(), Counted::meet(&mut watch, stream, tick));
            }
            if let Some(counted) = others.get_mut(stream) {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                counted.observe(&mut watch, tick, count, || stream.clone());
            }
        }
        // Those that were heard are due at the next tick.
        for (stream, counted) in others.iter_mut().filter(|(_, counted)| counted.due <= tick) {
            counted.observe(&mut watch, tick, 0, || stream.clone());
        }
        let unix_s = self.pace.unix_s(tick + 1);
        if unix_s % POINT_S < u64::from(self.pace.tick_s()) {
            flows.end_points(&mut watch, unix_s);
            for (stream, mean) in load {
                mean.end_point(&mut watch, unix_s, || stream.clone());
            }
        }
        if unix_s % 60 < u64::from(self.pace.tick_s()) {
            self.update(unix_s);
        }
    }

    /// What happened since this was asked the last time.
    pub fn poll(&mut self) -> Vec<(Step, Alarm)> {
        self.learned.book.poll()
    }

    /// All alarms that are kept, the oldest first.
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.learned.book.alarms.iter()
    }

    /// One alarm.
    pub fn alarm(&self, id: u64) -> Option<&Alarm> {
        self.learned.book.get(id)
    }

    /// Somebody has taken note of an alarm. Whether there is one.
    pub fn acknowledge(&mut self, id: u64, who: &str) -> bool {
        let mut alarms = self.learned.book.alarms.iter_mut();
        alarms.find(|alarm| alarm.id == id).is_some_and(|alarm| {
            alarm.acknowledged_by = Some(who.to_owned());
            true
        })
    }

    /// What an alarm is about raises none that is told until a time. Returns what that is.
    pub fn mute(&mut self, id: u64, until_unix_s: u64) -> Option<Stream> {
        let stream = self.alarm(id)?.stream.clone();
        self.learned.book.muted.insert(stream.clone(), until_unix_s);
        Some(stream)
    }

    /// What is muted, and until when, in seconds since 1970.
    pub fn muted(&self, unix_s: u64) -> impl Iterator<Item = (&Stream, u64)> {
        let muted = self.learned.book.muted.iter();
        let muted = muted.map(|(stream, &until)| (stream, until));
        muted.filter(move |&(_, until)| until > unix_s)
    }

    /// How many streams are watched, and since when, in seconds since 1970.
    pub fn watched(&self) -> (usize, u64) {
        let streams = self.learned.flows.series() + self.learned.others.len() + self.learned.load.len();
        (streams, self.pace.unix_s(self.learned.first_tick))
    }

    /// How many more streams may be watched.
    fn room(&self) -> usize {
        let (streams, _) = self.watched();
        ALARM_STREAMS_MAX.saturating_sub(streams + self.learned.limited.len())
    }

    /// Raises an alarm for each sender that was past its limits, or adds to the one there is. Nothing is to be learned
    /// for that.
    fn hold_to_limits(&mut self, unix_s: u64) {
        let mut room = self.room();
        let Learned { limited, book, .. } = &mut self.learned;
        for (stream, refused) in std::mem::take(&mut self.over_limit) {
            if (self.wishes.attention)(&stream) == Attention::Off {
                continue;
            }
            if let Some(limited) = limited.get_mut(&stream) {
                limited.unix_s = unix_s;
                book.update(limited.open, false, |finding| finding.seen += refused as f64);
            } else if room > 0 {
                room -= 1;
                let finding = Finding::over_limit(refused, unix_s);
                let open = book.open(stream.clone(), finding, unix_s);
                limited.insert(stream, Limited { open, unix_s });
            }
        }
    }

    /// Once a minute: what open alarms look like now, and which are over.
    fn update(&mut self, unix_s: u64) {
        let Learned {
            flows,
            others,
            limited,
            load,
            book,
            ..
        } = &mut self.learned;
        let within = |limited: &Limited| unix_s >= limited.unix_s + LIMIT_OVER_S;
        for (_, limited) in limited.extract_if(.., |_, limited| within(limited)) {
            book.close(limited.open, unix_s, Some("it keeps to its limits again"));
        }
        let tick_s = f64::from(self.pace.tick_s());
        let open = book.alarms.iter().filter(|alarm| alarm.closed_unix_s.is_none());
        let open: Vec<_> = open.map(|alarm| (alarm.id, alarm.stream.clone())).collect();
        for (id, stream) in open {
            if let Some(mean) = flows.mean(&stream).or_else(|| load.get_mut(&stream)) {
                if mean.is_over(unix_s) {
                    book.close(id, unix_s, Some("over"));
                }
                continue;
            }
            let counted = flows.counted(&stream).or_else(|| others.get(&stream));
            let counted = counted.filter(|counted| counted.open == Some(id));
            let seen = counted.and_then(|counted| counted.detector.incident_seen());
            if let Some((seen, since)) = seen {
                book.update(id, true, |finding| {
                    finding.seen = f64::from(seen) / tick_s;
                    finding.since_unix_s = self.pace.unix_s(since).min(finding.since_unix_s);
                    finding.over_s = unix_s.saturating_sub(finding.since_unix_s);
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
