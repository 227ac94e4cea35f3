//! Five ways of looking at a value, and the range in which each stayed so far.
//!
//! Never looks at more than one point at a time, keeps no list of points, and does not decide what is an alarm.

use serde::{Deserialize, Serialize};

use crate::traffic::alarm::AlarmKind;
use crate::traffic::metric::hours::{Hour, Hours, Mean};
use crate::traffic::metric::range::Range;
use crate::traffic::metric::sample::Sample;

/// Points before ranges are learned: means and ranks are not yet what they will be.
const START_POINTS: u32 = 30;
/// Points of the mean of the last few.
const SHORT_POINTS: f32 = 6.0;
/// Points of the mean distance from it.
const DISTANCE_POINTS: f32 = 50.0;
/// Points over which jumps are averaged.
const JUMP_POINTS: f32 = 64.0;
/// What adds up to a drift, in the distances that are usual at the hour: what is beyond the first, up to the second.
const DRIFT_FREE: f32 = 1.25;
const DRIFT_MAX: f32 = 12.0;
/// What is left of a drift from point to point.
const DRIFT_KEPT: f32 = 0.99;
/// What is nothing: a part of the largest of the first so many values.
const NOTHING: f32 = 1e-3;
const PEAK_POINTS: u32 = 60;
/// Values are cut at this size, so that no sum of them overflows.
const VALUE_MAX: f32 = 1e18;

/// A way of looking at a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum View {
    /// Against the mean of its hour of the day.
    Hour,
    /// Its order of magnitude.
    Magnitude,
    /// How much ranks change from point to point.
    Jumps,
    /// Against the last few points, in their usual distance.
    Step,
    /// How far values keep off their hours, to one side, added up: a cumulative sum (Page 1954) that fades.
    Drift,
}

/// All of them. Margins are in this order.
pub(super) const VIEWS: [View; 5] = [View::Hour, View::Magnitude, View::Jumps, View::Step, View::Drift];

impl View {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "value for its hour",
            Self::Magnitude => "order of magnitude",
            Self::Jumps => "jumps between values",
            Self::Step => "step",
            Self::Drift => "drift from its hours",
        }
    }

    /// What kind of alarm it raises.
    pub fn kind(self) -> AlarmKind {
        match self {
            Self::Hour => AlarmKind::Hour,
            Self::Magnitude => AlarmKind::Value,
            Self::Jumps => AlarmKind::Noise,
            Self::Step => AlarmKind::Shape,
            Self::Drift => AlarmKind::Level,
        }
    }

    /// The part of the way to its middle that an end of the range goes in a point.
    fn creep(self) -> f32 {
        if self == Self::Step { 2e-4 } else { 5e-5 }
    }

    /// How wide its range is at the least, where less than `nothing` is nothing.
    fn width_min(self, nothing: f32) -> f32 {
        match self {
            Self::Hour => nothing,
            Self::Magnitude => 0.2,
            Self::Jumps => 0.05,
            Self::Step => 1.0,
            Self::Drift => 5.0,
        }
    }
}

/// What one view says of a point.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Which view.
    pub view: View,
    /// How far outside its range, in widths of it.
    pub outside: f32,
    at: f32,
    /// The range, before the point was taken in.
    range: (f32, f32),
}

/// What all views say of a point.
#[derive(Debug, Clone, Copy)]
pub struct Looks {
    /// The how-many-th point it is.
    pub point: u32,
    looks: [Look; VIEWS.len()],
    pub(super) value: f32,
    nothing: f32,
    hour: Hour,
    short_before: f32,
    distance_before: f32,
}

impl Looks {
    /// The views in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Look> {
        self.looks.iter()
    }

    /// What a view has seen and what it expected, in the series' own numbers: the value; of [`View::Jumps`] the mean change
    /// of rank, 0 to 1.
    pub(super) fn in_numbers(&self, look: &Look) -> (f32, (f32, f32)) {
        let (low, high) = look.range;
        let expected = match look.view {
            View::Hour => (self.hour.mean + low, self.hour.mean + high),
            View::Magnitude => {
                let size = |log: f32| (log.exp() - self.nothing).max(0.0);
                return (self.value.abs(), (size(low), size(high)));
            }
            View::Jumps => return (look.at, (low, high)),
            View::Step => {
                let at = |step: f32| self.short_before + step.sinh() * (self.distance_before + self.nothing);
                (at(low), at(high))
            }
            View::Drift => {
                let free = DRIFT_FREE * (self.hour.distance + self.nothing);
                (self.hour.mean - free, self.hour.mean + free)
            }
        };
        (self.value, expected)
    }
}

/// What the views know of a series.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Views {
    points: u32,
    /// The largest of the first values.
    peak: f32,
    short: Mean,
    distance: Mean,
    jumps: Mean,
    rank: f32,
    sample: Sample,
    hours: Hours,
    /// Above its hours, and below.
    drifts: [f32; 2],
    ranges: [Range; VIEWS.len()],
}

impl Views {
    /// Looks at a value, measured at a time that says the hour of the day, and takes it in. At first there is nothing to
    /// say of it. What is no finite number is left out.
    pub fn look(&mut self, unix_s: u64, value: f32) -> Option<Looks> {
        if !value.is_finite() {
            return None;
        }
        let value = value.clamp(-VALUE_MAX, VALUE_MAX);
        if self.points == 0 {
            self.short.0 = value;
        }
        self.points = self.points.saturating_add(1);
        let points = self.points;
        if points <= PEAK_POINTS || self.peak == 0.0 {
            self.peak = self.peak.max(value.abs());
        }
        let nothing = (NOTHING * self.peak).max(1e-9);
        let (short_before, distance_before) = (self.short.0, self.distance.0);
        let off = value - short_before;
        self.short.add(value, points, SHORT_POINTS);
        self.distance.add(off.abs(), points, DISTANCE_POINTS);
        let hour = self.hours.pass(unix_s, value, points);
        let jumps = self.jump(value);
        let drift = self.drift(&hour, value, nothing);
        let ranged = points.checked_sub(START_POINTS + 1)?;
        let mut looks = VIEWS.map(|view| Look {
            view,
            outside: 0.0,
            at: match view {
                View::Hour => value - hour.mean,
                View::Magnitude => (value.abs() + nothing).ln(),
                View::Jumps => jumps,
                View::Step => (off / (distance_before + nothing)).asinh(),
                View::Drift => drift,
            },
            range: (0.0, 0.0),
        });
        for (look, range) in looks.iter_mut().zip(&mut self.ranges) {
            look.range = range.ends();
            let (width_min, creep) = (look.view.width_min(nothing), look.view.creep());
            look.outside = range.exceed(look.at, width_min, creep, ranged);
        }
        Some(Looks {
            point: points,
            looks,
            value,
            nothing,
            hour,
            short_before,
            distance_before,
        })
    }

    fn jump(&mut self, value: f32) -> f32 {
        let rank = self.sample.rank(value);
        self.sample.offer(value);
        let jump = if self.points > 1 {
            (rank - self.rank).abs()
        } else {
            0.0
        };
        self.rank = rank;
        self.jumps.add(jump, self.points, JUMP_POINTS);
        self.jumps.0
    }

    fn drift(&mut self, hour: &Hour, value: f32, nothing: f32) -> f32 {
        let off = (value - hour.mean) / (hour.distance + nothing);
        let off = off.clamp(-DRIFT_MAX, DRIFT_MAX);
        let [above, below] = &mut self.drifts;
        *above = (*above * DRIFT_KEPT + off - DRIFT_FREE).max(0.0);
        *below = (*below * DRIFT_KEPT - off - DRIFT_FREE).max(0.0);
        *above - *below
    }
}
