//! The desk where alarms are kept: it knows all flows of a broker, gives each to its detectors once a tick, and turns
//! what they say into alarms that are opened, updated and closed.
//!
//! A flow that says nothing costs a comparison a tick. Writes nothing, and knows no clock: a tick is a number.

mod refusals;
mod stream;
mod wishes;
mod worth;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

use crate::limits::{ALARM_STREAMS_MAX, ALARMS_KEPT_MAX};
use crate::traffic::alarm::Finding;
use crate::traffic::count::{Change, CountDetector};
use crate::traffic::flow::{FlowKey, FlowTotals};
use crate::traffic::metric::MetricDetector;
use crate::traffic::pace::Pace;

pub use stream::{Measure, Stream};
pub use wishes::{Attention, Wishes};
use worth::{Verdict, Worth};

/// A point of a metric is a mean over so long, in seconds.
const POINT_S: u64 = 300;
/// A mean of fewer messages is none.
const POINT_MESSAGES_MIN: u64 = 20;
/// An alarm of a limit is over after so long within it, in seconds.
const LIMIT_OVER_S: u64 = 300;
/// An alarm of a metric is over after so long without another, in seconds.
const METRIC_OVER_S: u64 = 1_800;

/// One alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its number.
    pub id: u64,
    /// What it is about.
    pub stream: Stream,
    /// What was found; while it is open, as it is now.
    pub finding: Finding,
    /// When it was raised, in seconds since 1970.
    pub opened_unix_s: u64,
    /// When it was over; `None`: it is open.
    pub closed_unix_s: Option<u64>,
    /// What became of it.
    pub outcome: Option<String>,
    /// Who has taken note of it.
    pub acknowledged_by: Option<String>,
    /// Its stream was muted when it was raised: nobody was told.
    pub is_muted: bool,
}

/// What happened to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was raised.
    Opened,
    /// It goes on.
    Updated,
    /// It is over.
    Closed,
}

/// A detector of counts, and when it must be fed at the latest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Counted {
    detector: CountDetector,
    due: u64,
    /// The alarm of the incident under way.
    open: Option<u64>,
    #[serde(skip)]
    attention: Attention,
}

/// A detector of means.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Measured {
    detector: MetricDetector,
    sum: f64,
    messages: u64,
    open: Option<u64>,
    alarmed_unix_s: u64,
    #[serde(skip)]
    attention: Attention,
    #[serde(skip)]
    worth: Worth,
}

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
    counted: HashMap<Stream, Counted, RandomState>,
    measured: HashMap<Stream, Measured, RandomState>,
    limited: BTreeMap<Stream, Limited>,
    /// Until when each is muted, in seconds since 1970.
    muted: BTreeMap<Stream, u64>,
    alarms: VecDeque<Alarm>,
    next_id: u64,
}

/// The desk. Owned by the task that feeds it; operators reach it between two ticks.
#[derive(Debug)]
pub struct Desk {
    pace: Pace,
    learned: Learned,
    wishes: Wishes,
    before: Arc<BTreeMap<FlowKey, FlowTotals>>,
    /// Handshakes that were refused in the tick under way.
    refused: Counts,
    /// Whether the next totals only say where counting starts.
    is_starting: bool,
    events: Vec<(Step, u64)>,
}

impl Desk {
    /// A desk that knows nothing yet.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            learned: Learned::default(),
            wishes: Wishes::default(),
            before: Arc::default(),
            refused: Counts::default(),
            is_starting: true,
            events: Vec::new(),
        }
    }

    /// A desk that goes on where another stopped, at a tick; or why that cannot be read.
    pub fn restore(pace: Pace, learned: &[u8], tick: u64) -> Result<Self, String> {
        let mut learned: Learned = postcard::from_bytes(learned).map_err(|error| error.to_string())?;
        let unix_s = pace.unix_s(tick);
        for counted in learned.counted.values_mut() {
            counted.detector.resume(tick);
            counted.due = tick;
        }
        for alarm in learned.alarms.iter_mut().filter(|alarm| {
            let is_known = learned.counted.contains_key(&alarm.stream)
                || learned.measured.contains_key(&alarm.stream)
                || learned.limited.contains_key(&alarm.stream);
            alarm.closed_unix_s.is_none() && !is_known
        }) {
            alarm.closed_unix_s = Some(unix_s);
        }
        Ok(Self {
            learned,
            ..Self::new(pace)
        })
    }

    /// What has been learned, for [`restore`](Self::restore).
    pub fn learned(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.learned).expect("what is learned is plain data")
    }

    /// Takes the totals of all flows at the end of a tick. What happened to which alarm is what [`Self::poll`] says.
    pub fn handle_tick(&mut self, tick: u64, totals: impl Into<Arc<BTreeMap<FlowKey, FlowTotals>>>) {
        let totals = totals.into();
        if self.learned.first_tick == 0 {
            self.learned.first_tick = tick;
        }
        self.hold_to_limits(self.pace.unix_s(tick), &totals);
        if std::mem::take(&mut self.is_starting) {
            self.before = totals;
            return;
        }
        let mut counts = self.take_refused();
        let before = std::mem::replace(&mut self.before, Arc::clone(&totals));
        // Both are sorted: those of the tick before are met on the way.
        let mut known = before.iter().peekable();
        for (key, now) in &*totals {
            while known.next_if(|(known, _)| *known < key).is_some() {}
            let before = known.next_if(|(known, _)| *known == key);
            let before = before.map_or_else(FlowTotals::default, |(_, before)| *before);
            if *now != before {
                self.compare(tick, key, &before, now, &mut counts);
            }
        }
        for (stream, &count) in &counts {
            self.observe(stream, tick, u32::try_from(count).unwrap_or(u32::MAX));
        }
        // Those that were heard are due at the next tick.
        let silent = self.learned.counted.iter();
        let due = silent.filter(|(_, counted)| counted.due <= tick);
        let due: Vec<_> = due.map(|(stream, _)| stream.clone()).collect();
        for stream in due {
            self.observe(&stream, tick, 0);
        }
        let unix_s = self.pace.unix_s(tick + 1);
        if unix_s % POINT_S < u64::from(self.pace.tick_s()) {
            self.end_points(unix_s);
        }
        if unix_s % 60 < u64::from(self.pace.tick_s()) {
            self.update(unix_s);
        }
    }

    /// What happened since this was asked the last time.
    pub fn poll(&mut self) -> Vec<(Step, Alarm)> {
        let events = std::mem::take(&mut self.events);
        let alarm = |(step, id)| Some((step, self.alarm(id)?.clone()));
        events.into_iter().filter_map(alarm).collect()
    }

    /// All alarms that are kept, the oldest first.
    pub fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.learned.alarms.iter()
    }

    /// One alarm.
    pub fn alarm(&self, id: u64) -> Option<&Alarm> {
        self.learned.alarms.iter().find(|alarm| alarm.id == id)
    }

    /// Somebody has taken note of an alarm. Whether there is one.
    pub fn acknowledge(&mut self, id: u64, who: &str) -> bool {
        let alarm = self.learned.alarms.iter_mut().find(|alarm| alarm.id == id);
        alarm.is_some_and(|alarm| {
            alarm.acknowledged_by = Some(who.to_owned());
            true
        })
    }

    /// What an alarm is about raises none that is told until a time. Returns what that is.
    pub fn mute(&mut self, id: u64, until_unix_s: u64) -> Option<Stream> {
        let stream = self.alarm(id)?.stream.clone();
        self.learned.muted.insert(stream.clone(), until_unix_s);
        Some(stream)
    }

    /// What is muted, and until when, in seconds since 1970.
    pub fn muted(&self, unix_s: u64) -> impl Iterator<Item = (&Stream, u64)> {
        let muted = self.learned.muted.iter().map(|(stream, &until)| (stream, until));
        muted.filter(move |&(_, until)| until > unix_s)
    }

    /// How many streams are watched, and since when, in seconds since 1970.
    pub fn watched(&self) -> (usize, u64) {
        let streams = self.learned.counted.len() + self.learned.measured.len();
        (streams, self.pace.unix_s(self.learned.first_tick))
    }

    /// Sorts out what has changed in a flow. `counts` are of what several flows share.
    fn compare(
        &mut self,
        tick: u64,
        key: &FlowKey,
        before: &FlowTotals,
        now: &FlowTotals,
        counts: &mut Counts,
    ) {
        let more = |of: fn(&FlowTotals) -> u64| of(now).saturating_sub(of(before));
        let messages = more(|totals| totals.messages);
        for (measure, count) in [
            (Measure::Messages, messages),
            (Measure::Dropped, more(|totals| totals.dropped)),
            (
                Measure::Unanswered,
                more(|totals| totals.unanswered + totals.no_receiver),
            ),
        ] {
            if count > 0 {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.observe(&Stream::of(measure, key), tick, count);
            }
        }
        let denied = more(|totals| totals.denied);
        if denied > 0 {
            *counts.entry(Stream::denials(key)).or_default() += denied;
        }
        let responses = more(|totals| totals.responses);
        let response_ms = more(|totals| totals.response_us_sum) as f64 / 1_000.0;
        self.gather(Stream::of(Measure::ResponseTime, key), response_ms, responses);
        let bytes = more(|totals| totals.bytes) as f64;
        self.gather(Stream::of(Measure::PayloadSize, key), bytes, messages);
    }

    fn has_room(&self) -> bool {
        let Learned {
            counted,
            measured,
            limited,
            ..
        } = &self.learned;
        counted.len() + measured.len() + limited.len() < ALARM_STREAMS_MAX
    }

    fn gather(&mut self, stream: Stream, sum: f64, messages: u64) {
        if messages == 0 {
            return;
        }
        if !self.has_room() && !self.learned.measured.contains_key(&stream) {
            return;
        }
        let wishes = &self.wishes;
        let measured = self.learned.measured.entry(stream);
        let measured = measured.or_insert_with_key(|stream| Measured {
            attention: (wishes.attention)(stream),
            ..Measured::default()
        });
        measured.sum += sum;
        measured.messages += messages;
    }

    fn observe(&mut self, stream: &Stream, tick: u64, count: u32) {
        if !self.learned.counted.contains_key(stream) {
            if !self.has_room() {
                return;
            }
            self.meet(stream, tick);
        }
        let Some(counted) = self.learned.counted.get_mut(stream) else {
            return;
        };
        let reading = counted
            .detector
            .observe(&self.pace, &counted.attention.sensitivity(), tick, count);
        counted.due = if count > 0 {
            tick + 1
        } else {
            counted.detector.due(&self.pace)
        };
        let (unix_s, is_off) = (self.pace.unix_s(tick + 1), counted.attention == Attention::Off);
        if let Some(change) = reading.change
            && let Some(id) = counted.open.take()
        {
            self.close(id, unix_s, Some(outcome(change)));
        }
        if let Some(onset) = &reading.onset
            && !is_off
        {
            let finding = Finding::of_count(&self.pace, tick, onset);
            let id = self.open(stream, finding, unix_s);
            if let Some(counted) = self.learned.counted.get_mut(stream) {
                counted.open = Some(id);
            }
        }
    }

    /// Raises an alarm for each sender that was past its limits, or adds to the one there is. Nothing is to be learned
    /// for that.
    fn hold_to_limits(&mut self, unix_s: u64, totals: &BTreeMap<FlowKey, FlowTotals>) {
        for (key, now) in totals.iter().filter(|(_, now)| now.over_limit > 0) {
            let before = self.before.get(key).map_or(0, |before| before.over_limit);
            let refused = now.over_limit.saturating_sub(before);
            let stream = Stream::of(Measure::OverLimit, key);
            if refused == 0 || self.attention(&stream) == Attention::Off {
                continue;
            }
            if let Some(limited) = self.learned.limited.get_mut(&stream) {
                limited.unix_s = unix_s;
                let open = limited.open;
                if let Some(alarm) = self.learned.alarms.iter_mut().find(|alarm| alarm.id == open) {
                    alarm.finding.seen += refused as f64;
                }
            } else if self.has_room() {
                let open = self.open(&stream, Finding::over_limit(refused, unix_s), unix_s);
                self.learned.limited.insert(stream, Limited { open, unix_s });
            }
        }
    }

    /// The first count of a stream. What is rare, such as a denial, was nought all the time before; a flow of messages
    /// that was not there is news.
    fn meet(&mut self, stream: &Stream, tick: u64) {
        let mut counted = Counted {
            attention: self.attention(stream),
            ..Counted::default()
        };
        let first_tick = self.learned.first_tick;
        let unix_s = self.pace.unix_s(tick);
        if stream.measure != Measure::Messages {
            counted
                .detector
                .observe(&self.pace, &counted.attention.sensitivity(), first_tick, 0);
        } else if self.is_news(stream, unix_s) {
            let id = self.open(stream, Finding::new_flow(unix_s), unix_s);
            self.close(id, unix_s, None);
        }
        self.learned.counted.insert(stream.clone(), counted);
    }

    /// Takes the means of the last minutes.
    fn end_points(&mut self, unix_s: u64) {
        let mut judged = Vec::new();
        for (stream, measured) in &mut self.learned.measured {
            let messages = std::mem::take(&mut measured.messages);
            let sum = std::mem::take(&mut measured.sum);
            if messages < POINT_MESSAGES_MIN {
                continue;
            }
            let (measure, mean) = (stream.measure, sum / messages as f64);
            let tuning = measured.attention.tuning();
            let reading = measured.detector.observe(&tuning, unix_s, mean as f32);
            let of_mean = |onset| Finding::of_mean(measure.unit(), unix_s, POINT_S, mean, &onset);
            let found = reading.onset.map(of_mean);
            let effect = measured.attention.metric_effect();
            let verdict = measured.worth.judge(measure, effect, unix_s, mean, found);
            if verdict != Verdict::Usual && measured.attention != Attention::Off {
                judged.push((stream.clone(), verdict));
            }
        }
        for (stream, verdict) in judged {
            self.handle_verdict(&stream, verdict, unix_s);
        }
    }

    fn open(&mut self, stream: &Stream, finding: Finding, unix_s: u64) -> u64 {
        self.learned.next_id += 1;
        let id = self.learned.next_id;
        let muted_until = self.learned.muted.get(stream).copied();
        self.learned.alarms.push_back(Alarm {
            id,
            stream: stream.clone(),
            finding,
            opened_unix_s: unix_s,
            closed_unix_s: None,
            outcome: None,
            acknowledged_by: None,
            is_muted: muted_until.is_some_and(|until| until > unix_s),
        });
        if self.learned.alarms.len() > ALARMS_KEPT_MAX {
            self.learned.alarms.pop_front();
        }
        self.events.push((Step::Opened, id));
        id
    }

    fn close(&mut self, id: u64, unix_s: u64, outcome: Option<&str>) {
        if let Some(alarm) = self.learned.alarms.iter_mut().find(|alarm| alarm.id == id) {
            alarm.closed_unix_s = Some(unix_s);
            alarm.outcome = outcome.map(str::to_owned);
            if outcome.is_some() {
                self.events.push((Step::Closed, id));
            }
        }
    }

    /// Once a minute: what open alarms look like now, and which are over.
    fn update(&mut self, unix_s: u64) {
        let within = |limited: &Limited| unix_s >= limited.unix_s + LIMIT_OVER_S;
        let ended: Vec<_> = self
            .learned
            .limited
            .extract_if(.., |_, limited| within(limited))
            .collect();
        for (_, limited) in ended {
            self.close(limited.open, unix_s, Some("it keeps to its limits again"));
        }
        let over = |measured: &&mut Measured| unix_s >= measured.alarmed_unix_s + METRIC_OVER_S;
        let measured = self.learned.measured.values_mut();
        let over: Vec<_> = measured
            .filter(over)
            .filter_map(|measured| measured.open.take())
            .collect();
        for id in over {
            self.close(id, unix_s, Some("over"));
        }
        let tick_s = f64::from(self.pace.tick_s());
        for counted in self.learned.counted.values() {
            let (Some(id), Some((seen, since))) = (counted.open, counted.detector.incident_seen()) else {
                continue;
            };
            if let Some(alarm) = self.learned.alarms.iter_mut().find(|alarm| alarm.id == id) {
                alarm.finding.seen = f64::from(seen) / tick_s;
                alarm.finding.since_unix_s = self.pace.unix_s(since).min(alarm.finding.since_unix_s);
                alarm.finding.over_s = unix_s.saturating_sub(alarm.finding.since_unix_s);
                self.events.push((Step::Updated, id));
            }
        }
    }
}

fn outcome(change: Change) -> &'static str {
    match change {
        Change::Over => "over",
        Change::OverAndHabitual => "over; it comes so often that it is taken for usual from now on",
        Change::Rebased => "it has lasted for a day, and is the usual level from now on",
        Change::Begun => "the flow had hardly spoken before; it is learned anew",
    }
}

#[cfg(test)]
mod tests;
