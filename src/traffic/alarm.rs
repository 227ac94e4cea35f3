//! An alarm as a person reads it: what was seen, what was expected, since when. Decides nothing: a detector's onset
//! comes in, words come out.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::traffic::count::{self, Channel};
use crate::traffic::metric;
use crate::traffic::pace::Pace;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// Many more than usual, for up to a minute or so.
    Burst,
    /// More than usual, for minutes or hours: a higher level, or a slow ramp.
    More,
    /// Fewer than usual.
    Fewer,
    /// None at all.
    Silence,
    /// A spike that used to come by the clock stays away.
    Missed,
    /// A value beyond what was seen so far.
    Value,
    /// Values that keep off their hours of the day, or drift away from them.
    Level,
    /// Values that jump about more than they did, or hardly any more.
    Noise,
    /// A value that is odd for its hour of the day.
    Hour,
    /// A value, or a step from one to the next, as there was none before.
    Shape,
    /// A flow that was never seen.
    NewFlow,
    /// More than the policy's limits allow.
    OverLimit,
}

impl AlarmKind {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Burst => "burst",
            Self::More => "more",
            Self::Fewer => "fewer",
            Self::Silence => "silence",
            Self::Missed => "missed",
            Self::Value => "value",
            Self::Level => "level",
            Self::Noise => "noise",
            Self::Hour => "hour",
            Self::Shape => "shape",
            Self::NewFlow => "new-flow",
            Self::OverLimit => "over-limit",
        }
    }
}

/// What numbers of an alarm mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Messages a second.
    PerSecond,
    /// Milliseconds.
    Milliseconds,
    /// Bytes.
    Bytes,
    /// Nothing that is known.
    Plain,
    /// Processors that are busy.
    Processors,
}

/// One alarm of one series, as it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What happened.
    pub kind: AlarmKind,
    /// What was seen, in the unit.
    pub seen: f64,
    /// Between what it was expected, in the unit. Of a missed spike: its size, in messages, twice.
    pub expected: (f64, f64),
    /// What the numbers mean.
    pub unit: Unit,
    /// Over how long it was seen, in seconds. Of a missed spike: how often it used to come.
    pub over_s: u64,
    /// When it began, in seconds since 1970.
    pub since_unix_s: u64,
    /// How far beyond the threshold: 1 is just an alarm.
    pub severity: f64,
    /// What raised it, with its measure: "counts over 1 min: 1 in 10^9".
    pub detector: String,
}

impl Finding {
    /// What a count detector found.
    pub fn of_count(pace: &Pace, tick: u64, onset: &count::Onset) -> Self {
        let tick_s = f64::from(pace.tick_s());
        let a_second = |a_tick: f32| f64::from(a_tick) / tick_s;
        let since_unix_s = pace.unix_s(onset.since);
        let lasted_s = pace.unix_s(tick + 1).saturating_sub(since_unix_s);
        let span_s = pace.span_s(onset.channel.span());
        let (low, high) = onset.expected;
        let measure = match onset.channel {
            Channel::More(_) | Channel::Fewer(_) => format!("counts over {}", Length(u64::from(span_s))),
            Channel::Silence => "time without a message".to_owned(),
            Channel::Missed => "timers".to_owned(),
        };
        let is_missed = onset.channel == Channel::Missed;
        Self {
            kind: kind_of(onset.channel),
            seen: a_second(onset.seen),
            expected: if is_missed {
                (f64::from(low), f64::from(low))
            } else {
                (a_second(low), a_second(high))
            },
            unit: Unit::PerSecond,
            over_s: if is_missed {
                (f64::from(high) * tick_s) as u64
            } else {
                lasted_s
            },
            since_unix_s,
            severity: f64::from(onset.score / onset.threshold),
            detector: format!("{measure}: 1 in 10^{:.0}", onset.score),
        }
    }

    /// What a metric detector found.
    pub fn of_metric(unit: Unit, unix_s: u64, onset: &metric::Onset) -> Self {
        let (low, high) = onset.expected;
        Self {
            kind: onset.view.kind(),
            seen: f64::from(onset.seen),
            expected: (f64::from(low), f64::from(high)),
            unit,
            over_s: 0,
            since_unix_s: unix_s,
            severity: f64::from(onset.score),
            detector: format!("{}: {:.1} times the threshold", onset.view.name(), onset.score),
        }
    }

    /// What a metric detector found of the mean of so many seconds that end now: of the mean itself, whichever view has
    /// found it.
    pub fn of_mean(unit: Unit, unix_s: u64, over_s: u64, mean: f64, onset: &metric::Onset) -> Self {
        let (low, high) = onset.usual;
        let found = Self::of_metric(unit, unix_s.saturating_sub(over_s), onset);
        Self {
            // How much values jump is no number of the series.
            kind: match found.kind {
                AlarmKind::Noise => AlarmKind::Level,
                kind => kind,
            },
            seen: mean,
            expected: (f64::from(low).max(0.0), f64::from(high)),
            over_s,
            ..found
        }
    }

    /// A flow that was never seen before.
    pub fn new_flow(unix_s: u64) -> Self {
        Self {
            kind: AlarmKind::NewFlow,
            seen: 0.0,
            expected: (0.0, 0.0),
            unit: Unit::Plain,
            over_s: 0,
            since_unix_s: unix_s,
            severity: 1.0,
            detector: "flows seen so far".to_owned(),
        }
    }

    /// So many messages of a service that were refused, since they were more than the policy allows.
    pub fn over_limit(refused: u64, unix_s: u64) -> Self {
        Self {
            kind: AlarmKind::OverLimit,
            seen: refused as f64,
            expected: (0.0, 0.0),
            unit: Unit::Plain,
            over_s: 0,
            since_unix_s: unix_s,
            severity: 1.0,
            detector: "the policy's limits".to_owned(),
        }
    }

    /// In words; `since` is the time at which it began, as it shall be read.
    pub fn words<'a>(&'a self, since: &'a str) -> impl fmt::Display + 'a {
        Words { finding: self, since }
    }
}

fn kind_of(channel: Channel) -> AlarmKind {
    match channel {
        Channel::More(0 | 1) => AlarmKind::Burst,
        Channel::More(_) => AlarmKind::More,
        Channel::Fewer(_) => AlarmKind::Fewer,
        Channel::Silence => AlarmKind::Silence,
        Channel::Missed => AlarmKind::Missed,
    }
}

struct Words<'a> {
    finding: &'a Finding,
    since: &'a str,
}

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding {
            seen,
            expected,
            unit,
            over_s,
            kind,
            ..
        } = self.finding;
        let (low, high) = *expected;
        let over = Length(*over_s);
        match kind {
            AlarmKind::Missed => {
                return write!(
                    f,
                    "no spike of some {}, which used to come every {over}, since {}",
                    Number(low),
                    self.since
                );
            }
            AlarmKind::NewFlow => return write!(f, "a new flow, first seen {}", self.since),
            AlarmKind::OverLimit => {
                return write!(f, "{seen:.0} messages refused, since {}", self.since);
            }
            AlarmKind::Silence => write!(f, "nothing for {over}")?,
            AlarmKind::Burst | AlarmKind::More | AlarmKind::Fewer => {
                let scale = Scale::of(*unit, seen.max(high));
                write!(f, "{}{} over {over}", Number(seen * scale.times), scale.suffix)?;
            }
            AlarmKind::Value | AlarmKind::Level | AlarmKind::Noise | AlarmKind::Hour | AlarmKind::Shape => {
                let scale = Scale::of(*unit, seen.abs());
                let what = match kind {
                    AlarmKind::Level => "by now ",
                    AlarmKind::Noise => "changes by ",
                    AlarmKind::Hour => "at this hour ",
                    AlarmKind::Shape => "unlike before ",
                    _ => "",
                };
                write!(f, "{what}{}{}", Number(seen * scale.times), scale.suffix)?;
            }
        }
        let scale = Scale::of(*unit, seen.abs().max(high.abs()));
        let (low, high) = (low * scale.times, high * scale.times);
        write!(
            f,
            ", expected {}–{}{}, since {}",
            Number(low),
            Number(high),
            scale.suffix,
            self.since
        )
    }
}

/// A unit that makes a number readable.
struct Scale {
    times: f64,
    suffix: &'static str,
}

impl Scale {
    fn of(unit: Unit, largest: f64) -> Self {
        let (times, suffix) = match unit {
            Unit::PerSecond if largest >= 0.1 => (1.0, "/s"),
            Unit::PerSecond if largest >= 0.1 / 60.0 => (60.0, "/min"),
            Unit::PerSecond => (3_600.0, "/h"),
            Unit::Milliseconds => (1.0, " ms"),
            Unit::Bytes => (1.0, " B"),
            Unit::Plain => (1.0, ""),
            Unit::Processors => (1.0, " processors"),
        };
        Self { times, suffix }
    }
}

/// A number with two or three digits that mean something.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        let digits = match value.abs() {
            size if size >= 100.0 || size == 0.0 => 0,
            size if size >= 1.0 => 1,
            size if size >= 0.1 => 2,
            size if size >= 1e-6 => (1.0 - size.log10().floor()) as usize,
            _ => return write!(f, "{value:.1e}"),
        };
        let text = format!("{value:.digits$}");
        let text = if digits > 0 {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        f.write_str(text)
    }
}

/// A length of time, in seconds.
struct Length(u64);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 as f64;
        let (value, unit) = match self.0 {
            0..60 => (seconds, "s"),
            60..3_600 => (seconds / 60.0, "min"),
            3_600..86_400 => (seconds / 3_600.0, "h"),
            _ => (seconds / 86_400.0, "d"),
        };
        write!(f, "{} {unit}", Number((10.0 * value).round() / 10.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(finding: &Finding) -> String {
        finding.words("14:03:20").to_string()
    }

    #[test]
    fn alarms_are_read_by_people() {
        let pace = Pace::new(10);
        let onset = count::Onset {
            channel: Channel::More(1),
            score: 40.0,
            threshold: 5.5,
            seen: 4_120.0,
            expected: (200.0, 350.0),
            since: 100,
            on_top: false,
        };
        let burst = Finding::of_count(&pace, 105, &onset);
        assert_eq!(
            words(&burst),
            "412/s over 1 min, expected 20–35/s, since 14:03:20"
        );
        assert_eq!(burst.detector, "counts over 1 min: 1 in 10^40");

        let silence = count::Onset {
            channel: Channel::Silence,
            seen: 0.0,
            expected: (0.02, 0.09),
            ..onset
        };
        let silence = Finding::of_count(&pace, 100 + 89, &silence);
        assert_eq!(
            words(&silence),
            "nothing for 15 min, expected 0.12–0.54/min, since 14:03:20"
        );

        let missed = count::Onset {
            channel: Channel::Missed,
            expected: (120.0, 360.0),
            ..onset
        };
        let missed = Finding::of_count(&pace, 100, &missed);
        assert_eq!(
            words(&missed),
            "no spike of some 120, which used to come every 1 h, since 14:03:20"
        );
    }

    #[test]
    fn numbers_are_short() {
        let text = |value| Number(value).to_string();
        assert_eq!(
            [0.0, 1_234.5, 99.96, 1.0, 0.123_4, 0.001_234].map(text),
            ["0", "1234", "100", "1", "0.12", "0.0012"]
        );
        let text = |seconds| Length(seconds).to_string();
        assert_eq!(
            [10, 60, 90, 7_200, 129_600].map(text),
            ["10 s", "1 min", "1.5 min", "2 h", "1.5 d"]
        );
    }
}
