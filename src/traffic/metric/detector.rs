//! The detector of metrics: six views of a value, the range of each, and a patience that grows with the alarms.
//!
//! Never looks at more than one point at a time, and keeps no list of points.

use serde::{Deserialize, Serialize};

use crate::traffic::alarm::AlarmKind;
use crate::traffic::metric::range::Range;
use crate::traffic::metric::sample::Sample;

/// Points before ranges are learned: means and ranks are not yet what they will be.
const START_POINTS: u32 = 30;
/// Points before anything is judged.
const WARM_UP_POINTS: u32 = 120;
/// Alarms are forgotten over so many points.
const PATIENCE_POINTS: f32 = 3_000.0;
/// Points of the short mean, and of the shortest.
const MEAN_POINTS: f32 = 12.0;
const SHORT_POINTS: f32 = 6.0;
/// Points of the mean distance from the shortest mean.
const DISTANCE_POINTS: f32 = 50.0;
/// Points over which jumps are averaged.
const JUMP_POINTS: f32 = 64.0;
/// How fast hours of the day are learned: surely, and soon.
const HOUR_GAIN: f32 = 0.012;
const HOUR_GAIN_FAST: f32 = 0.05;
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
    /// The mean of the last points.
    Mean,
    /// Its order of magnitude.
    Magnitude,
    /// How much ranks change from point to point.
    Jumps,
    /// The mean of the last points against their hours.
    HourMean,
    /// Against the last few points, in their usual distance.
    Step,
}

const VIEWS: [View; 6] = [
    View::Hour,
    View::Mean,
    View::Magnitude,
    View::Jumps,
    View::HourMean,
    View::Step,
];

impl View {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "value for its hour",
            Self::Mean => "mean",
            Self::Magnitude => "order of magnitude",
            Self::Jumps => "jumps between values",
            Self::HourMean => "mean for its hour",
            Self::Step => "step",
        }
    }

    /// What kind of alarm it raises.
    pub fn kind(self) -> AlarmKind {
        match self {
            Self::Hour => AlarmKind::Hour,
            Self::Mean | Self::HourMean => AlarmKind::Level,
            Self::Magnitude => AlarmKind::Value,
            Self::Jumps => AlarmKind::Noise,
            Self::Step => AlarmKind::Shape,
        }
    }

    /// The part of the way to its middle that an end of the range goes in a point.
    fn creep(self) -> f32 {
        if self == Self::Step { 2e-4 } else { 5e-5 }
    }
}

/// How much it takes to raise an alarm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// How far outside its range each view must be, in widths of the range, in the order of [`View`].
    pub margins: [f32; VIEWS.len()],
    /// An alarm takes so much more for each one before.
    pub patience: f32,
    /// No alarm begins within so many points after another.
    pub rest_points: u32,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            margins: [0.009, 0.063, 0.047, 0.036, 0.019, 0.083],
            patience: 0.42,
            rest_points: 16,
        }
    }
}

impl Tuning {
    /// Fewer alarms: for what matters little.
    pub fn low() -> Self {
        Self::default().with_margins(3.0)
    }

    /// More alarms, and more of them false.
    pub fn high() -> Self {
        Self::default().with_margins(0.5)
    }

    /// With margins that are so many times as wide.
    fn with_margins(self, times: f32) -> Self {
        Self {
            margins: self.margins.map(|margin| times * margin),
            ..self
        }
    }
}

/// What one point said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// How far towards an alarm. It is 1 or more only where an alarm begins.
    pub score: f32,
    /// An alarm that begins.
    pub onset: Option<Onset>,
}

/// How an alarm began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Onset {
    /// The view that raised it.
    pub view: View,
    /// How far beyond, in what an alarm takes.
    pub score: f32,
    /// What was seen: the value; of [`View::Mean`] and [`View::HourMean`] the mean of the last points, and of
    /// [`View::Jumps`] the mean change of rank, 0 to 1.
    pub seen: f32,
    /// Between what it was expected.
    pub expected: (f32, f32),
    /// Between what the value itself was expected, by the view that finds it the furthest out.
    pub usual: (f32, f32),
}

/// A mean that fades.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Mean(f32);

impl Mean {
    /// Takes the `points`-th value in; the mean of all while there are fewer than `span`.
    fn add(&mut self, value: f32, points: u32, span: f32) {
        self.0 += (value - self.0) / (points as f32).min(span);
    }
}

/// What the hours of a day are like.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Hours {
    means: [f32; 24],
    seen: u32,
}

impl Hours {
    /// How far a value is from what its hour was like, and what that was; then takes it in.
    fn compare(&mut self, hour: usize, value: f32, gain: f32) -> (f32, f32) {
        let is_known = self.seen >> hour & 1 == 1;
        self.seen |= 1 << hour;
        let Some(mean) = self.means.get_mut(hour) else {
            unreachable!("a day has 24 hours");
        };
        if !is_known {
            *mean = value;
        }
        let (usual, off) = (*mean, value - *mean);
        *mean += gain * off;
        (off, usual)
    }
}

/// A metric detector of one series: below 1 KiB, whatever it sees.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MetricDetector {
    points: u32,
    /// The largest of the first values.
    peak: f32,
    mean: Mean,
    short: Mean,
    distance: Mean,
    jumps: Mean,
    rank: f32,
    sample: Sample,
    hours: Hours,
    hours_fast: Hours,
    hour_mean: Mean,
    ranges: [Range; VIEWS.len()],
    /// Alarms so far, fading.
    alarms: f32,
    since_alarm: u32,
}

/// What one view says of a point.
#[derive(Debug, Clone, Copy)]
struct Look {
    view: View,
    /// How far outside, in margins.
    score: f32,
    /// The range, before the point was taken in.
    range: (f32, f32),
}

/// A value as the views see it.
struct Seen {
    value: f32,
    nothing: f32,
    off_hour: f32,
    hour_usual: f32,
    short_before: f32,
    distance_before: f32,
    step: f32,
}

impl MetricDetector {
    /// Takes a value, measured at a time that says the hour of the day. What is no finite number is left out.
    pub fn observe(&mut self, tuning: &Tuning, unix_s: u64, value: f32) -> Reading {
        if !value.is_finite() {
            return Reading::default();
        }
        let seen = self.take(unix_s, value.clamp(-VALUE_MAX, VALUE_MAX));
        if self.points <= START_POINTS {
            return Reading::default();
        }
        let at = VIEWS.map(|view| self.look(view, &seen));
        let mut looks = VIEWS.map(|view| Look {
            view,
            score: 0.0,
            range: (0.0, 0.0),
        });
        let views = looks.iter_mut().zip(at).zip(tuning.margins);
        for (((look, (at, width_min)), margin), range) in views.zip(&mut self.ranges) {
            look.range = range.ends();
            look.score = range.exceed(at, width_min, look.view.creep()) / margin;
        }
        self.judge(tuning, &looks, &seen)
    }

    /// Means, ranks and hours with one more value.
    fn take(&mut self, unix_s: u64, value: f32) -> Seen {
        if self.points == 0 {
            (self.mean.0, self.short.0) = (value, value);
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
        self.mean.add(value, points, MEAN_POINTS);
        let rank = self.sample.rank(value);
        self.sample.offer(value);
        let jump = if points > 1 { (rank - self.rank).abs() } else { 0.0 };
        self.rank = rank;
        self.jumps.add(jump, points, JUMP_POINTS);
        let hour = (unix_s / 3_600 % 24) as usize;
        let (off_hour, hour_usual) = self.hours.compare(hour, value, HOUR_GAIN);
        let (off_fast, _) = self.hours_fast.compare(hour, value, HOUR_GAIN_FAST);
        self.hour_mean.add(off_fast, points, MEAN_POINTS);
        Seen {
            value,
            nothing,
            off_hour,
            hour_usual,
            short_before,
            distance_before,
            step: (off / (distance_before + nothing)).asinh(),
        }
    }

    /// What a view sees, and how wide its range is at the least.
    fn look(&self, view: View, seen: &Seen) -> (f32, f32) {
        match view {
            View::Hour => (seen.off_hour, seen.nothing),
            View::Mean => (self.mean.0, seen.nothing),
            View::Magnitude => ((seen.value.abs() + seen.nothing).ln(), 0.2),
            View::Jumps => (self.jumps.0, 0.05),
            View::HourMean => (self.hour_mean.0, seen.nothing),
            View::Step => (seen.step, 1.0),
        }
    }

    fn judge(&mut self, tuning: &Tuning, looks: &[Look; VIEWS.len()], seen: &Seen) -> Reading {
        // Of several that are as far outside, the first.
        let [first, others @ ..] = looks;
        let furthest = others.iter().fold(
            first,
            |best, look| if look.score > best.score { look } else { best },
        );
        self.alarms *= 1.0 - 1.0 / PATIENCE_POINTS;
        self.since_alarm = self.since_alarm.saturating_add(1);
        let score = furthest.score / (1.0 + tuning.patience * self.alarms);
        if score < 1.0 || self.points <= WARM_UP_POINTS || self.since_alarm <= tuning.rest_points {
            return Reading {
                score: if self.points <= WARM_UP_POINTS {
                    0.0
                } else {
                    score.min(0.99)
                },
                onset: None,
            };
        }
        self.alarms += 1.0;
        self.since_alarm = 0;
        Reading {
            score,
            onset: Some(self.onset(furthest, score, looks, seen)),
        }
    }

    /// The alarm, in the series' own numbers.
    fn onset(&self, furthest: &Look, score: f32, looks: &[Look], seen: &Seen) -> Onset {
        let (at, expected) = self.in_numbers(furthest, seen);
        Onset {
            view: furthest.view,
            score,
            seen: at,
            expected,
            usual: self.usual(looks, seen),
        }
    }

    /// Between what a value was expected. How much values jump says nothing of that.
    fn usual(&self, looks: &[Look], seen: &Seen) -> (f32, f32) {
        let outside = |(low, high): &(f32, f32)| (seen.value - high).max(low - seen.value);
        let of_value = |look: &&Look| look.view != View::Jumps;
        let found = looks.iter().filter(|look| look.score >= 1.0).filter(of_value);
        let found = found.map(|look| self.in_numbers(look, seen).1);
        let furthest = found.max_by(|a, b| outside(a).total_cmp(&outside(b)));
        let magnitude = looks.iter().find(|look| look.view == View::Magnitude);
        let magnitude = || magnitude.map(|look| self.in_numbers(look, seen).1);
        furthest.or_else(magnitude).unwrap_or_default()
    }

    /// What a view sees and what it expected, in the series' own numbers.
    fn in_numbers(&self, look: &Look, seen: &Seen) -> (f32, (f32, f32)) {
        let (low, high) = look.range;
        let around = |usual: f32| (usual + low, usual + high);
        match look.view {
            View::Hour => (seen.value, around(seen.hour_usual)),
            View::Mean => (self.mean.0, (low, high)),
            View::Magnitude => {
                let size = |log: f32| (log.exp() - seen.nothing).max(0.0);
                (seen.value.abs(), (size(low), size(high)))
            }
            View::Jumps => (self.jumps.0, (low, high)),
            View::HourMean => (self.mean.0, around(self.mean.0 - self.hour_mean.0)),
            View::Step => {
                let at = |step: f32| seen.short_before + step.sinh() * (seen.distance_before + seen.nothing);
                (seen.value, (at(low), at(high)))
            }
        }
    }
}

const _: () = assert!(
    size_of::<MetricDetector>() <= 1_024,
    "a series costs at most 1 KiB"
);

#[cfg(test)]
mod tests {
    use super::*;

    /// A day's shape with some noise, in steps of five minutes.
    fn ordinary(point: u64) -> f32 {
        let noise = (point.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 24) as f32;
        let wave = (std::f32::consts::TAU * (point % 288) as f32 / 288.0).sin();
        100.0 + 20.0 * wave + 5.0 * noise
    }

    fn alarms(points: u64, change: impl Fn(u64, f32) -> f32) -> Vec<(u64, Onset)> {
        let mut detector = MetricDetector::default();
        let mut alarms = Vec::new();
        for point in 0..points {
            let reading = detector.observe(&Tuning::default(), point * 300, change(point, ordinary(point)));
            assert_eq!(
                reading.onset.is_some(),
                reading.score >= 1.0,
                "point {point}: {reading:?}"
            );
            alarms.extend(reading.onset.map(|onset| (point, onset)));
        }
        alarms.retain(|&(point, _)| point > 3 * 288);
        alarms
    }

    #[test]
    fn what_is_ordinary_raises_little() {
        let quiet = alarms(20 * 288, |_, value| value);
        assert!(quiet.len() <= 2, "{quiet:?}");
    }

    #[test]
    fn what_is_odd_is_seen_at_once_and_in_its_own_numbers() {
        const AT: u64 = 10 * 288 + 100;
        let first = |change: &dyn Fn(f32) -> f32| {
            let found = alarms(
                AT + 50,
                |point, value| if point >= AT { change(value) } else { value },
            );
            let found = found.into_iter().find(|&(point, _)| point >= AT);
            found.expect("an alarm").1
        };
        let spike = first(&|value| 3.0 * value);
        assert!(
            spike.seen > 250.0 && spike.expected.1 < 150.0 && spike.expected.0 > 50.0,
            "{spike:?}"
        );
        let zero = first(&|_| 0.0);
        assert!(zero.seen < 1.0 && zero.expected.0 > 50.0, "{zero:?}");
        let flat = first(&|_| 100.0);
        assert!(flat.score >= 1.0, "{flat:?}");
    }

    #[test]
    fn a_shift_is_one_alarm_or_two_and_not_hundreds() {
        let shifted = alarms(
            20 * 288,
            |point, value| if point >= 2_500 { value + 60.0 } else { value },
        );
        let after = shifted.iter().filter(|(point, _)| *point >= 2_500).count();
        assert!((1..=4).contains(&after), "{shifted:?}");
    }

    #[test]
    fn numbers_that_are_none_change_nothing() {
        let with = alarms(5 * 288, |_, value| value);
        let mut detector = MetricDetector::default();
        for value in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 0.0, -1.0] {
            for point in 0..500 {
                let reading = detector.observe(&Tuning::default(), point, value);
                assert!(reading.score.is_finite());
            }
        }
        assert!(with.len() <= 2);
    }
}
