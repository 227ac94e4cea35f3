//! The detector of one series, and the alarm that it has raised.
//!
//! Opens and closes alarms in the book, as closely as the policy has it watched; knows not what else is watched.

use serde::{Deserialize, Serialize};

use crate::traffic::alarm::Finding;
use crate::traffic::count::{Change, CountDetector};
use crate::traffic::desk::book::AlarmBook;
use crate::traffic::desk::wishes::{Attention, Wishes};
use crate::traffic::desk::worth::{Verdict, Worth};
use crate::traffic::desk::{Measure, POINT_S, Stream};
use crate::traffic::metric::MetricDetector;
use crate::traffic::pace::Pace;

/// A mean of fewer values is none.
const POINT_VALUES_MIN: u32 = 20;
/// An alarm of a metric is over after so long without another, in seconds.
const METRIC_OVER_S: u64 = 1_800;

/// What a series is watched with, for one tick.
pub(super) struct Watch<'a> {
    pub(super) pace: &'a Pace,
    /// The first tick ever.
    pub(super) first_tick: u64,
    pub(super) book: &'a mut AlarmBook,
    pub(super) wishes: &'a Wishes,
    /// How many more series may be watched.
    pub(super) room: usize,
}

impl Watch<'_> {
    /// Takes room for one more series, if there is any.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.room > 0;
        self.room -= usize::from(has_room);
        has_room
    }
}

/// A detector of counts, and when it must be fed at the latest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) detector: CountDetector,
    /// After a restart it is due at once.
    #[serde(skip)]
    pub(super) due: u64,
    /// The latest alarm of the incident under way.
    pub(super) open: Option<u64>,
    #[serde(skip)]
    attention: Attention,
}

impl Counted {
    /// One that begins with the first count of a series, which is still to be observed. What is rare, such as a denial,
    /// was nought all the time before; a flow of messages that was not there is news.
    pub(super) fn meet(watch: &mut Watch<'_>, stream: &Stream, tick: u64) -> Self {
        let mut counted = Self {
            attention: (watch.wishes.attention)(stream),
            ..Self::default()
        };
        let unix_s = watch.pace.unix_s(tick);
        let watched_s = unix_s.saturating_sub(watch.pace.unix_s(watch.first_tick));
        let is_news = watch
            .wishes
            .new_flow_after_s
            .is_some_and(|after_s| watched_s >= after_s);
        if stream.measure != Measure::Messages {
            counted
                .detector
                .observe(watch.pace, &counted.attention.sensitivity(), watch.first_tick, 0);
        } else if is_news && counted.attention != Attention::Off {
            let id = watch.book.open(stream.clone(), Finding::new_flow(unix_s), unix_s);
            watch.book.close(id, unix_s, None);
        }
        counted
    }

    /// Takes the count of a tick.
    pub(super) fn observe(
        &mut self,
        watch: &mut Watch<'_>,
        tick: u64,
        count: u32,
        stream: impl Fn() -> Stream,
    ) {
        let reading = self
            .detector
            .observe(watch.pace, &self.attention.sensitivity(), tick, count);
        self.due = if count > 0 {
            tick + 1
        } else {
            self.detector.due(watch.pace)
        };
        let unix_s = watch.pace.unix_s(tick + 1);
        if let Some(change) = reading.change
            && self.open.take().is_some()
        {
            watch.book.close_all(&stream(), unix_s, outcome(change));
        }
        if let Some(onset) = &reading.onset
            && self.attention != Attention::Off
        {
            let finding = Finding::of_count(watch.pace, tick, onset);
            self.open = Some(watch.book.open(stream(), finding, unix_s));
        }
    }

    /// Is watched as closely as the policy wishes from now on. Whether its alarms are turned off by that.
    pub(super) fn handle_wishes(&mut self, wishes: &Wishes, stream: &Stream) -> bool {
        self.attention = (wishes.attention)(stream);
        self.attention == Attention::Off && self.open.take().is_some()
    }
}

/// A detector of means.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Measured {
    detector: MetricDetector,
    open: Option<u64>,
    alarmed_unix_s: u64,
    #[serde(skip)]
    attention: Attention,
    #[serde(skip)]
    worth: Worth,
}

/// A mean that is gathered, and the detector that gets it. There is none before there is something to give it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Mean {
    sum: f64,
    values: u32,
    measured: Option<Box<Measured>>,
}

impl Mean {
    /// Takes so many values more.
    pub(super) fn add(&mut self, sum: f64, values: u32) {
        // What comes without a value, such as a late answer's time, is of none.
        if values > 0 {
            self.sum += sum;
            self.values = self.values.saturating_add(values);
        }
    }

    /// Whether it is watched, and not only gathered.
    pub(super) fn is_watched(&self) -> bool {
        self.measured.is_some()
    }

    /// Ends some minutes, at a time in seconds since 1970.
    pub(super) fn end_point(&mut self, watch: &mut Watch<'_>, unix_s: u64, stream: impl Fn() -> Stream) {
        let values = std::mem::take(&mut self.values);
        let sum = std::mem::take(&mut self.sum);
        if values < POINT_VALUES_MIN || (self.measured.is_none() && !watch.has_room()) {
            return;
        }
        let stream = stream();
        let measured = self.measured.get_or_insert_with(|| {
            let attention = (watch.wishes.attention)(&stream);
            Box::new(Measured {
                attention,
                ..Measured::default()
            })
        });
        measured.observe(watch.book, unix_s, sum / f64::from(values), &stream);
    }

    /// Whether what it has raised is over; it is then no longer its own.
    pub(super) fn is_over(&mut self, unix_s: u64) -> bool {
        self.measured.as_mut().is_some_and(|measured| {
            let is_over = unix_s >= measured.alarmed_unix_s + METRIC_OVER_S;
            if is_over {
                measured.open = None;
            }
            is_over
        })
    }

    /// As [`Counted::handle_wishes`].
    pub(super) fn handle_wishes(&mut self, wishes: &Wishes, stream: &Stream) -> bool {
        self.measured.as_mut().is_some_and(|measured| {
            measured.attention = (wishes.attention)(stream);
            measured.attention == Attention::Off && measured.open.take().is_some()
        })
    }
}

impl Measured {
    /// Takes the mean of the last minutes: opens an alarm about it, or goes on with it.
    fn observe(&mut self, book: &mut AlarmBook, unix_s: u64, mean: f64, stream: &Stream) {
        let (measure, attention) = (stream.measure, self.attention);
        let reading = self.detector.observe(&attention.tuning(), unix_s, mean as f32);
        let of_mean = |onset| Finding::of_mean(measure.unit(), unix_s, POINT_S, mean, &onset);
        let found = reading.onset.map(of_mean);
        let effect = attention.metric_effect();
        let verdict = self.worth.judge(measure, effect, unix_s, mean, found);
        match verdict {
            _ if attention == Attention::Off => {}
            Verdict::Usual => {}
            Verdict::Alarm(finding) => {
                self.alarmed_unix_s = unix_s;
                if let Some(id) = self.open {
                    book.update(id, true, |kept| {
                        kept.seen = finding.seen;
                        kept.over_s = unix_s.saturating_sub(kept.since_unix_s);
                    });
                } else {
                    self.open = Some(book.open(stream.clone(), finding, unix_s));
                }
            }
            Verdict::Rebased => {
                if let Some(id) = self.open.take() {
                    book.close(id, unix_s, Some(outcome(Change::Rebased)));
                }
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
