//! Spikes that come by the clock, and are expected: a job every five minutes, every hour, every night.
//!
//! A spike is a short run of ticks far above the usual. One that comes when a timer is due, of about the timer's
//! size and length, is explained and judged no further; what exceeds it is judged. How punctual a timer is, it is
//! learned; what comes again soon after it is a second try. In a flow's first days a timer is believed
//! after one repetition at a round time (an hour, a day) or two at any; later only after five, since a repeated attack
//! must not pass for a habit, or after two of a few ticks at the same time of day, which is no attack worth the name.
//!
//! Never raises an alarm, but says how unlikely it is that a timer stays away.

mod one;

use serde::{Deserialize, Serialize};

use crate::traffic::count::timer::one::{Timer, Wait};
use crate::traffic::pace::Pace;

pub(crate) use one::Day;

const TIMERS: usize = 4;
const REMEMBERED: usize = 6;
/// Of shorter periods, nobody says that an unpunctual one is round.
const WIDE_S: u32 = 3_600;
/// A spike of no more ticks is a job's, rather than an attack's.
const SHORT_TICKS: u32 = 3;
/// A job that does not run every day runs again after so many at most.
const DAYS_MAX: u32 = 4;
/// No spike is longer, in seconds.
const SPIKE_S_MAX: u32 = 180;
/// Ticks without excess within one spike.
const PAUSE_TICKS: u32 = 2;
/// Spikes of one timer are further apart, in seconds.
const PERIOD_S_MIN: u32 = 120;
/// Logarithm of how much two spikes of one timer may differ in size before it is known better.
const ALIKE: f32 = 0.9;
/// Repetitions after which a timer is believed, early in a flow's life and later.
const REPEATED_YOUNG: usize = 2;
const REPEATED: usize = 5;
/// The same where it comes at the same time of day, and is short.
const REPEATED_DAILY: usize = 2;
/// Where several are due, those came of whose size this part is left.
const ENOUGH: f32 = 0.5;
/// A timer that stayed away so often in a row is forgotten; one that is well known only after a part of the times
/// that it came, up to so many: it may be back after an outage.
const MISSED_MIN: u16 = 6;
const MISSED_PART: u16 = 4;
const MISSED_MAX: u16 = 200;
/// A timer's absence says something after it came so often.
const KEPT_MIN: u16 = 10;
const DAY_S: u32 = 86_400;
/// Times that people set, in seconds: 5, 10, 15, 30 minutes, 1, 2, 3, 4, 6, 12 hours, a day, a week.
const ROUND_S: [u32; 12] = [
    300, 600, 900, 1_800, 3_600, 7_200, 10_800, 14_400, 21_600, 43_200, 86_400, 604_800,
];

/// How well a flow can be known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Youth {
    /// Short spikes are noted and not judged.
    FirstDay,
    /// Habits are believed soon.
    FirstDays,
    /// Habits are believed late.
    Over,
}

/// The count of a tick.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// The tick of the flow's life.
    pub(crate) at: u32,
    pub(crate) count: f32,
    /// What is expected of it.
    pub(crate) usual: f32,
    /// What is far above that.
    pub(crate) bound: f32,
}

/// A count, as it is to be judged and as it is to be learned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explained {
    pub(crate) judged: f32,
    pub(crate) learned: f32,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Spike {
    start: u32,
    last: u32,
    size: f32,
    /// The timers that may be behind it, a bit each.
    timers: u8,
    /// They have come already: a second try.
    is_retry: bool,
    /// Whether it was tried to make a timer of what these leave.
    is_tried: bool,
    is_on: bool,
}

/// The timers of one flow. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    timers: [Timer; TIMERS],
    /// When unexplained spikes began, and their sizes; the latest is last, and 0 is none.
    spikes: [(u32, f32); REMEMBERED],
    /// Which of them lasted a few ticks only, a bit each; the latest is the lowest.
    short: u8,
    /// Timers of which it was said that they stay away, a bit each.
    told: u8,
    spike: Spike,
    missing: f32,
}

impl Timers {
    /// What timers leave of a count.
    pub(crate) fn explain(&mut self, pace: &Pace, seen: &Seen, youth: Youth, day: Day) -> Explained {
        let &Seen {
            at,
            count,
            usual,
            bound,
        } = seen;
        let wait = Wait::new(pace);
        self.expire(pace, at, &wait, day);
        let as_it_is = Explained {
            judged: count,
            learned: count,
        };
        if count <= bound {
            return as_it_is;
        }
        let due = self.due(at, &wait);
        if !self.spike.is_on {
            let timers = if due > 0 {
                due
            } else {
                self.believe(pace, at, count - usual, &wait, youth)
            };
            let retried = if timers > 0 { 0 } else { self.retried(at, &wait) };
            self.spike = Spike {
                start: at,
                last: at,
                size: 0.0,
                timers: timers | retried,
                is_retry: retried > 0,
                is_tried: due == 0,
                is_on: true,
            };
        } else if self.spike.timers > 0 && !self.spike.is_retry {
            self.spike.timers |= due;
        } else if due > 0 {
            // A timer comes due within a longer excess.
            self.spike.timers = due;
            self.spike.start = at;
            self.spike.size = 0.0;
            self.spike.is_retry = false;
        }
        let (before, more) = (self.spike.size, count - usual);
        self.spike.last = at;
        self.spike.size += more;
        let mut allowed = self.allowed(at);
        if self.spike.size > allowed && !self.spike.is_tried {
            // Another job may come at the same time.
            self.spike.is_tried = true;
            self.spike.timers |=
                self.believe(pace, self.spike.start, self.spike.size - allowed, &wait, youth);
            allowed = self.allowed(at);
        }
        let rest = count - (allowed - before).clamp(0.0, more);
        let is_short = at - self.spike.start < pace.ticks(SPIKE_S_MAX) as u32;
        let is_let_pass = youth == Youth::FirstDay && is_short && self.spike.timers == 0;
        Explained {
            judged: if is_let_pass { usual } else { rest },
            learned: rest,
        }
    }

    /// How large the spike may be at this tick, by the timers that may be behind it.
    fn allowed(&self, at: u32) -> f32 {
        let timers = self.timers.iter().enumerate();
        let behind = timers.filter(|(index, _)| self.spike.timers >> index & 1 == 1);
        let (width, size) = behind.fold((0, 0.0), |(width, size), (_, timer)| {
            (width + u32::from(timer.width), size + timer.allowed())
        });
        if at <= self.spike.start + width * 3 / 2 {
            size
        } else {
            0.0
        }
    }

    /// How unlikely it is that a timer stays away again, in powers of ten; 0 but in the tick that gives it up.
    pub(crate) fn missing(&self) -> f32 {
        self.missing
    }

    /// An alarm has said that timers stay away: nothing more is to be said of them until they come.
    pub(crate) fn tell(&mut self) {
        self.told |= self.select(|timer| timer.missed_now > 0);
    }

    /// The size and the period of the timer that stays away.
    pub(crate) fn missed(&self) -> Option<(f32, f32)> {
        let missed = self.timers.iter().filter(|timer| timer.missed_now > 0);
        let longest = missed.max_by_key(|timer| timer.missed_now)?;
        Some((longest.size, longest.period as f32))
    }

    /// Whether there is a timer that came often.
    pub(crate) fn are_known(&self) -> bool {
        self.timers.iter().any(|timer| timer.kept >= KEPT_MIN)
    }

    /// The next tick at which a timer may be given up.
    pub(crate) fn next(&self, pace: &Pace) -> Option<u32> {
        let wait = Wait::new(pace);
        let timers = self.timers.iter().filter(|timer| timer.period > 0);
        timers.map(|timer| timer.overdue(&wait) + 1).min()
    }

    /// Ends a spike that is over, and gives up on timers that are overdue.
    fn expire(&mut self, pace: &Pace, at: u32, wait: &Wait, day: Day) {
        if self.spike.is_on && at > self.spike.last + PAUSE_TICKS {
            self.end_spike(pace, at, wait, day);
        }
        self.missing = 0.0;
        for (index, timer) in self.timers.iter_mut().enumerate() {
            while timer.is_overdue(at, wait) {
                timer.due += timer.period;
                if !timer.comes(day) {
                    continue;
                }
                timer.missed = timer.missed.saturating_add(1);
                timer.missed_now += 1;
                if self.told >> index & 1 == 0 {
                    self.missing = self.missing.max(timer.unlikely());
                }
                if u16::from(timer.missed_now) > (timer.kept / MISSED_PART).clamp(MISSED_MIN, MISSED_MAX)
                    || timer.missed > timer.kept + 2
                {
                    *timer = Timer::default();
                    self.told &= !(1 << index);
                }
            }
        }
    }

    /// The timers that are due, a bit each.
    fn due(&self, at: u32, wait: &Wait) -> u8 {
        self.select(|timer| timer.is_due(at, wait))
    }

    /// The timers that came lately, and may be tried again.
    fn retried(&self, at: u32, wait: &Wait) -> u8 {
        self.select(|timer| timer.may_retry(at, wait))
    }

    fn select(&self, is_selected: impl Fn(&Timer) -> bool) -> u8 {
        let timers = self.timers.iter().enumerate();
        let selected = timers.filter(|(_, timer)| timer.period > 0 && is_selected(timer));
        selected.fold(0, |bits, (index, _)| bits | 1 << index)
    }

    /// Makes a timer of a spike that began at `at`, and of which so much was seen, if earlier ones were in step with it.
    fn believe(&mut self, pace: &Pace, at: u32, seen: f32, wait: &Wait, youth: Youth) -> u8 {
        let Some((period, size)) = self.in_step(pace, at, seen, wait, youth) else {
            return 0;
        };
        // One that stays away meanwhile has another time now; one that is a little off is the same.
        let lost = self.select(|timer| timer.period == period && timer.missed_now > 0);
        if let Some(timer) = self.timers.get_mut(lost.trailing_zeros() as usize) {
            timer.due = at;
            return 1 << lost.trailing_zeros();
        }
        if self.select(|timer| timer.is_near(at, period, wait)) > 0 {
            return 0;
        }
        let value = |timer: &Timer| {
            if timer.period == 0 {
                0
            } else {
                1 + u32::from(timer.kept)
            }
        };
        let timers = self.timers.iter_mut().enumerate();
        let Some((index, slot)) = timers.min_by_key(|(_, timer)| value(timer)) else {
            return 0;
        };
        let width = pace.ticks(SPIKE_S_MAX) as u32 * 2 / 3;
        *slot = Timer::new(period, at, size, width, wait);
        self.told &= !(1 << index);
        1 << index
    }

    /// The period and the size of earlier spikes, not much smaller, that this one would continue.
    fn in_step(&self, pace: &Pace, at: u32, seen: f32, wait: &Wait, youth: Youth) -> Option<(u32, f32)> {
        let day = pace.ticks(DAY_S) as u32;
        let is_daily = |gap: u32| {
            let days = (gap + day / 2) / day;
            (1..=DAYS_MAX).contains(&days) && gap.abs_diff(days * day) <= wait.reach(day)
        };
        let round = |gap: u32, is_short: bool| {
            let mut rounds = ROUND_S.iter().map(|&seconds| pace.ticks(seconds) as u32);
            let is_wide = |round: u32| is_short && round >= pace.ticks(WIDE_S) as u32;
            let reach = |round: u32| {
                if is_wide(round) {
                    wait.reach(round)
                } else {
                    wait.jitter
                }
            };
            rounds.find(|&round| gap.abs_diff(round) <= reach(round))
        };
        let mut earlier = self.earlier();
        while let Some((start, size, is_short)) = earlier.next() {
            let gap = at.saturating_sub(start);
            if gap < pace.ticks(PERIOD_S_MIN) as u32 || (seen / size).ln() > ALIKE {
                continue;
            }
            if youth != Youth::Over {
                if let Some(period) = round(gap, is_short) {
                    return Some((period, size));
                }
                if is_short && is_daily(gap) {
                    return Some((day, size));
                }
            }
            let (mut repeated, mut next, mut sum) = (1, start, size);
            let mut daily = usize::from(is_short && is_daily(gap));
            for (start, other, is_short) in earlier.clone() {
                let alike = (other / size).ln().abs() < ALIKE;
                if alike && (next - start).abs_diff(gap) <= wait.jitter + 1 {
                    repeated += 1;
                    next = start;
                    sum += other;
                }
                daily += usize::from(daily > 0 && alike && is_short && is_daily(at - start));
            }
            let enough = if youth == Youth::Over {
                REPEATED
            } else {
                REPEATED_YOUNG
            };
            if repeated >= enough {
                return Some((gap, sum / repeated as f32));
            }
            if daily >= REPEATED_DAILY {
                return Some((day, size));
            }
        }
        None
    }

    /// Spikes that no timer explained, the latest first: when, how large, and whether short.
    fn earlier(&self) -> impl Iterator<Item = (u32, f32, bool)> + Clone {
        let short = self.short;
        let spikes = self.spikes.iter().rev().enumerate();
        spikes
            .filter(|(_, (start, _))| *start > 0)
            .map(move |(back, &(start, size))| (start, size, short >> back & 1 == 1))
    }

    fn end_spike(&mut self, pace: &Pace, at: u32, wait: &Wait, day: Day) {
        self.spike.is_on = false;
        let Spike {
            start, last, size, ..
        } = self.spike;
        let ticks = last - start + 1;
        if self.spike.timers == 0 {
            let late = self.timers.iter_mut().find(|timer| timer.is_late(start, wait));
            if let Some(timer) = late {
                timer.excuse(start);
            }
            self.remember(pace, start, ticks, size);
            return;
        }
        if self.spike.is_retry {
            return;
        }
        let (came, left) = self.share(size);
        let is_came = |index: &usize| came >> index & 1 == 1;
        let timers = self.timers.iter().enumerate();
        let expected: f32 = timers
            .filter(|(index, _)| is_came(index))
            .map(|(_, timer)| timer.size)
            .sum();
        let is_more = size > self.allowed(start);
        let timers = self.timers.iter_mut().enumerate();
        for (index, timer) in timers.filter(|(index, _)| is_came(index)) {
            timer.keep(start, ticks, size / expected.max(1.0) * timer.size, wait);
            timer.came(day);
            self.told &= !(1 << index);
            while timer.is_overdue(at, wait) {
                timer.due += timer.period;
            }
        }
        if is_more {
            self.remember(pace, start, ticks, left);
        }
    }

    /// Shares a spike among the timers that may be behind it, the largest first, while enough of it is left: which
    /// came, a bit each, and what is left.
    fn share(&self, size: f32) -> (u8, f32) {
        let (mut came, mut left) = (0_u8, size);
        loop {
            let timers = self.timers.iter().enumerate();
            let behind = timers.filter(|(index, _)| (self.spike.timers & !came) >> index & 1 == 1);
            let by_size = |a: &(usize, &Timer), b: &(usize, &Timer)| a.1.size.total_cmp(&b.1.size);
            let fitting = behind.clone().filter(|(_, timer)| left >= ENOUGH * timer.size);
            let next = match fitting.max_by(by_size) {
                // Something came, be it small.
                None if came == 0 => behind.min_by(by_size),
                next => next,
            };
            let Some((index, timer)) = next else {
                return (came, left);
            };
            came |= 1 << index;
            left -= timer.size;
        }
    }

    /// Remembers a spike that no timer explains.
    fn remember(&mut self, pace: &Pace, start: u32, ticks: u32, size: f32) {
        if ticks <= pace.ticks(SPIKE_S_MAX) as u32 {
            self.spikes.rotate_left(1);
            if let Some(latest) = self.spikes.last_mut() {
                *latest = (start.max(1), size);
            }
            self.short = self.short << 1 | u8::from(ticks <= SHORT_TICKS);
        }
    }
}

#[cfg(test)]
mod tests;
