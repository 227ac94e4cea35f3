//! Ticks and what they mean: how long one lasts, where in the day and the week it lies. Knows no clock: a tick
//! is a number, counted from 1970-01-01T00:00:00Z.

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;
/// 1970-01-01 was a Thursday; Monday is 0.
const FIRST_WEEKDAY: u64 = 3;

/// How many spans of time a count detector looks at.
pub const SPANS: usize = 5;

/// The spans, in seconds: a burst shows in the shortest, a slow ramp in the longest.
const SPANS_S: [u32; SPANS] = [10, 60, 360, 2_160, 10_800];

/// How many of them, from the shortest, are judged against the last hour as well as the season: up to six minutes.
pub(crate) const LOCAL_SPANS: usize = 3;

/// How long a tick lasts, and what follows from that.
#[derive(Debug, Clone)]
pub struct Pace {
    tick_s: u32,
    lengths: [Length; SPANS],
    hour_ticks: f32,
}

/// The length of a span.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) ticks: f32,
    /// What is left of a fading sum after a tick.
    pub(crate) keep: f32,
    /// Judged against the season alone.
    pub(crate) is_long: bool,
}

impl Length {
    /// What makes a fading sum a count: so weighed, chance gives it a variance equal to its mean.
    pub(crate) fn weight(&self) -> f32 {
        1.0 + self.keep
    }
}

impl Pace {
    /// Ticks of so many seconds, from 1 to 3,600.
    pub fn new(tick_s: u32) -> Self {
        let tick_s = tick_s.clamp(1, HOUR_S as u32);
        let ticks = |seconds: u32| (seconds as f32 / tick_s as f32).max(1.0);
        let length = |(index, &seconds): (usize, &u32)| Length {
            ticks: ticks(seconds),
            keep: 1.0 - 1.0 / ticks(seconds),
            is_long: index >= LOCAL_SPANS,
        };
        let mut lengths = SPANS_S.iter().enumerate().map(length);
        Self {
            tick_s,
            lengths: std::array::from_fn(|_| lengths.next().expect("there are as many lengths as spans")),
            hour_ticks: ticks(HOUR_S as u32),
        }
    }

    /// The seconds of a tick.
    pub fn tick_s(&self) -> u32 {
        self.tick_s
    }

    /// The lengths of the spans, from the shortest.
    pub(crate) fn lengths(&self) -> &[Length; SPANS] {
        &self.lengths
    }

    /// The seconds of a span; 0 for one that is none.
    pub fn span_s(&self, span: usize) -> u32 {
        SPANS_S.get(span).map_or(0, |&seconds| seconds.max(self.tick_s))
    }

    /// An hour, in ticks.
    pub(crate) fn hour_ticks(&self) -> f32 {
        self.hour_ticks
    }

    /// A day, in ticks.
    pub(crate) fn day_ticks(&self) -> f32 {
        24.0 * self.hour_ticks
    }

    /// So many seconds, in ticks, at least one.
    pub(crate) fn ticks(&self, seconds: u32) -> u64 {
        u64::from(seconds.div_ceil(self.tick_s)).max(1)
    }

    /// How many ticks come after this one in its hour.
    pub(crate) fn ticks_to_hour_end(&self, tick: u64) -> u64 {
        (HOUR_S - 1 - self.unix_s(tick) % HOUR_S) / u64::from(self.tick_s)
    }

    /// The tick that a second, counted from 1970, belongs to.
    pub fn tick_at(&self, unix_s: u64) -> u64 {
        unix_s / u64::from(self.tick_s)
    }

    /// The second, counted from 1970, at which a tick begins.
    pub fn unix_s(&self, tick: u64) -> u64 {
        tick.saturating_mul(u64::from(self.tick_s))
    }

    /// Where in the day and the week a tick lies.
    pub(crate) fn moment(&self, tick: u64) -> Moment {
        let second = self.unix_s(tick);
        let next = second + u64::from(self.tick_s);
        let of_day = second % DAY_S;
        Moment {
            weekday: ((second / DAY_S + FIRST_WEEKDAY) % 7) as usize,
            hour: (of_day / HOUR_S) as usize,
            into_hour: (of_day % HOUR_S) as f32 / HOUR_S as f32,
            into_day_h: of_day as f32 / HOUR_S as f32,
            starts_hour: of_day % HOUR_S < u64::from(self.tick_s),
            ends_hour: next / HOUR_S != second / HOUR_S,
            ends_day: next / DAY_S != second / DAY_S,
        }
    }
}

/// A place in the week.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// 0 is Monday.
    pub(crate) weekday: usize,
    /// Of the day, 0 to 23.
    pub(crate) hour: usize,
    /// How much of the hour is over, 0 to 1.
    pub(crate) into_hour: f32,
    /// How much of the day is over, in hours.
    pub(crate) into_day_h: f32,
    /// Whether the tick before lies in another hour.
    pub(crate) starts_hour: bool,
    /// Whether the next tick lies in another hour.
    pub(crate) ends_hour: bool,
    /// Whether the next tick lies in another day.
    pub(crate) ends_day: bool,
}

impl Moment {
    /// The days of the week that are of the same kind.
    pub(crate) fn same_kind(&self) -> std::ops::Range<usize> {
        if self.is_weekend() { 5..7 } else { 0..5 }
    }

    /// Saturday and Sunday.
    pub(crate) fn is_weekend(&self) -> bool {
        self.weekday >= 5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_knows_its_place_in_the_week() {
        let pace = Pace::new(10);
        // 2026-01-05, a Monday, 09:30:00.
        let moment = pace.moment(pace.tick_at(1_767_605_400));
        assert_eq!((moment.weekday, moment.hour, moment.into_hour), (0, 9, 0.5));
        assert!(!moment.is_weekend() && !moment.ends_hour);
        // Saturday, 23:59:50.
        let moment = pace.moment(pace.tick_at(1_768_089_590));
        assert!(moment.is_weekend() && moment.ends_hour && moment.ends_day);
        assert_eq!((moment.weekday, moment.hour), (5, 23));
    }

    #[test]
    fn spans_are_of_time_not_of_ticks() {
        let ticks = |tick_s| Pace::new(tick_s).lengths().map(|length| length.ticks);
        assert_eq!(ticks(10), [1.0, 6.0, 36.0, 216.0, 1_080.0]);
        assert_eq!(ticks(60), [1.0, 1.0, 6.0, 36.0, 180.0]);
    }
}
