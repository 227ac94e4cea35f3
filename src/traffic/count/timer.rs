//! Spikes that come by the clock, and are expected: a job every five minutes, every hour, every night.
//!
//! A spike is a short run of ticks far above the usual. One that comes when a timer is due, of about the timer's
//! size, is explained and judged no further; what exceeds it is judged. In a flow's first days a timer is believed
//! after one repetition at a round time (an hour, a day) or two at any; later only after five, since a repeated attack
//! must not pass for a habit.
//!
//! Never raises an alarm, but says how unlikely it is that a timer stays away.

use serde::{Deserialize, Serialize};

use crate::traffic::pace::Pace;

const TIMERS: usize = 4;
const REMEMBERED: usize = 6;
/// A spike is early or late by so much, in seconds.
const JITTER_S: u32 = 30;
/// How much longer than that a timer is waited for, in seconds.
const LATE_S: u32 = 30;
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
/// A timer may exceed its size by half, by so many spreads, and by so many messages.
const SIZE_MARGIN: f32 = 1.5;
const SIZE_SPREADS: f32 = 5.0;
const SIZE_MORE: f32 = 10.0;
/// A timer that stayed away so often in a row is forgotten.
const MISSED_MAX: u8 = 6;
/// A timer's absence says something after it came so often.
const KEPT_MIN: u16 = 10;
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

/// A count, as it is to be judged and as it is to be learned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Explained {
    pub(crate) judged: f32,
    pub(crate) learned: f32,
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Timer {
    /// In ticks; 0: there is none.
    period: u32,
    /// In ticks since the flow was first seen, like all times here.
    due: u32,
    size: f32,
    /// How much sizes differ: a mean absolute logarithm.
    spread: f32,
    kept: u16,
    missed: u16,
    missed_now: u8,
}

impl Timer {
    fn is_due(&self, at: u32, wait: &Wait) -> bool {
        self.period > 0 && at + wait.jitter >= self.due && at <= self.due + wait.jitter + wait.late
    }

    fn is_overdue(&self, at: u32, wait: &Wait) -> bool {
        self.period > 0 && at > self.due + wait.jitter + wait.late
    }

    /// How unlikely it is that it stays away as often as it does, by how often it did before.
    fn unlikely(&self) -> f32 {
        if self.kept < KEPT_MIN {
            return 0.0;
        }
        let missed = f32::from(self.missed_now);
        let before = f32::from(self.missed) - missed;
        missed * ((f32::from(self.kept) + before + 2.0) / (before + 1.0)).log10()
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Spike {
    start: u32,
    last: u32,
    size: f32,
    timer: Option<u8>,
    is_on: bool,
}

/// How long a timer is waited for, in ticks.
struct Wait {
    jitter: u32,
    late: u32,
}

impl Wait {
    fn new(pace: &Pace) -> Self {
        Self {
            jitter: pace.ticks(JITTER_S) as u32,
            late: pace.ticks(LATE_S) as u32,
        }
    }
}

/// The timers of one flow. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Timers {
    timers: [Timer; TIMERS],
    /// When unexplained spikes began, and their sizes; the latest is last, and 0 is none.
    spikes: [(u32, f32); REMEMBERED],
    spike: Spike,
    missing: f32,
}

impl Timers {
    /// What timers leave of `count` at the tick `at`. `usual` is what is expected of the tick, `bound` what is
    /// far above it.
    pub(crate) fn explain(
        &mut self,
        pace: &Pace,
        at: u32,
        count: f32,
        usual: f32,
        bound: f32,
        youth: Youth,
    ) -> Explained {
        let wait = Wait::new(pace);
        self.expire(pace, at, &wait);
        let as_it_is = Explained {
            judged: count,
            learned: count,
        };
        if count <= bound {
            return as_it_is;
        }
        if !self.spike.is_on {
            let timer = self
                .due(at, &wait)
                .or_else(|| self.believe(pace, at, &wait, youth));
            self.spike = Spike {
                start: at,
                last: at,
                size: 0.0,
                timer: timer.map(|index| index as u8),
                is_on: true,
            };
        } else if self.spike.timer.is_none()
            && let Some(index) = self.due(at, &wait)
        {
            // A timer comes due within a longer excess.
            self.spike.timer = Some(index as u8);
            self.spike.start = at;
            self.spike.size = 0.0;
        }
        let (before, more) = (self.spike.size, count - usual);
        self.spike.last = at;
        self.spike.size += more;
        let timer = self
            .spike
            .timer
            .and_then(|index| self.timers.get(usize::from(index)));
        match timer.filter(|timer| timer.period > 0) {
            Some(timer) => {
                let allowed = timer.size * (SIZE_MARGIN + SIZE_SPREADS * timer.spread) + SIZE_MORE;
                let rest = count - (allowed - before).clamp(0.0, more);
                Explained {
                    judged: rest,
                    learned: rest,
                }
            }
            None if youth == Youth::FirstDay && at - self.spike.start < pace.ticks(SPIKE_S_MAX) as u32 => {
                Explained {
                    judged: usual,
                    learned: count,
                }
            }
            None => as_it_is,
        }
    }

    /// How unlikely it is that a timer stays away again, in powers of ten; 0 but in the tick that gives it up.
    pub(crate) fn missing(&self) -> f32 {
        self.missing
    }

    /// The size and the period of the timer that stays away.
    pub(crate) fn missed(&self) -> Option<(f32, f32)> {
        let missed = self.timers.iter().filter(|timer| timer.missed_now > 0);
        let longest = missed.max_by_key(|timer| timer.missed_now)?;
        Some((longest.size, longest.period as f32))
    }

    /// The next tick at which a timer may be given up.
    pub(crate) fn next(&self, pace: &Pace) -> Option<u32> {
        let wait = Wait::new(pace);
        let timers = self.timers.iter().filter(|timer| timer.period > 0);
        timers.map(|timer| timer.due + wait.jitter + wait.late + 1).min()
    }

    /// Ends a spike that is over, and gives up on timers that are overdue.
    fn expire(&mut self, pace: &Pace, at: u32, wait: &Wait) {
        if self.spike.is_on && at > self.spike.last + PAUSE_TICKS {
            self.end_spike(pace, at, wait);
        }
        self.missing = 0.0;
        for timer in &mut self.timers {
            while timer.is_overdue(at, wait) {
                timer.due += timer.period;
                timer.missed = timer.missed.saturating_add(1);
                timer.missed_now += 1;
                self.missing = self.missing.max(timer.unlikely());
                if timer.missed_now > MISSED_MAX || timer.missed > timer.kept + 2 {
                    *timer = Timer::default();
                }
            }
        }
    }

    /// The largest timer that is due.
    fn due(&self, at: u32, wait: &Wait) -> Option<usize> {
        let due = self
            .timers
            .iter()
            .enumerate()
            .filter(|(_, timer)| timer.is_due(at, wait));
        due.max_by(|a, b| a.1.size.total_cmp(&b.1.size))
            .map(|(index, _)| index)
    }

    /// Makes a timer of a spike that begins, if earlier ones were in step with it.
    fn believe(&mut self, pace: &Pace, at: u32, wait: &Wait, youth: Youth) -> Option<usize> {
        let (period, size) = self.in_step(pace, at, wait, youth)?;
        let value = |timer: &Timer| {
            if timer.period == 0 {
                0
            } else {
                1 + u32::from(timer.kept)
            }
        };
        let (index, slot) = self
            .timers
            .iter_mut()
            .enumerate()
            .min_by_key(|(_, timer)| value(timer))?;
        *slot = Timer {
            period,
            due: at,
            size,
            spread: 0.25,
            kept: 1,
            missed: 0,
            missed_now: 0,
        };
        Some(index)
    }

    /// The period and the size of earlier spikes that one now would continue.
    fn in_step(&self, pace: &Pace, at: u32, wait: &Wait, youth: Youth) -> Option<(u32, f32)> {
        let round = |gap: u32| {
            let mut rounds = ROUND_S.iter().map(|&seconds| pace.ticks(seconds) as u32);
            rounds.find(|round| gap.abs_diff(*round) <= wait.jitter)
        };
        let mut earlier = self.spikes.iter().rev().filter(|(start, _)| *start > 0);
        while let Some(&(start, size)) = earlier.next() {
            let gap = at.saturating_sub(start);
            if gap < pace.ticks(PERIOD_S_MIN) as u32 {
                continue;
            }
            if youth != Youth::Over
                && let Some(period) = round(gap)
            {
                return Some((period, size));
            }
            let (mut repeated, mut next, mut sum) = (1, start, size);
            for &(start, other) in earlier.clone() {
                let alike = (other / size).ln().abs() < ALIKE;
                if alike && (next - start).abs_diff(gap) <= wait.jitter + 1 {
                    repeated += 1;
                    next = start;
                    sum += other;
                }
            }
            let enough = if youth == Youth::Over {
                REPEATED
            } else {
                REPEATED_YOUNG
            };
            if repeated >= enough {
                return Some((gap, sum / repeated as f32));
            }
        }
        None
    }

    fn end_spike(&mut self, pace: &Pace, at: u32, wait: &Wait) {
        self.spike.is_on = false;
        let Spike {
            start,
            last,
            size,
            timer,
            ..
        } = self.spike;
        let Some(timer) = timer.and_then(|index| self.timers.get_mut(usize::from(index))) else {
            if last - start < pace.ticks(SPIKE_S_MAX) as u32 {
                self.spikes.rotate_left(1);
                if let Some(latest) = self.spikes.last_mut() {
                    *latest = (start.max(1), size);
                }
            }
            return;
        };
        if timer.period == 0 {
            return;
        }
        let jitter = i64::from(wait.jitter);
        let off = (i64::from(start) - i64::from(timer.due)).clamp(-jitter, jitter);
        timer.due = (i64::from(timer.due) + off / 2) as u32 + timer.period;
        while timer.is_overdue(at, wait) {
            timer.due += timer.period;
        }
        timer.kept = timer.kept.saturating_add(1);
        timer.missed_now = 0;
        let apart = (size / timer.size.max(1.0)).ln().abs().min(1.0);
        timer.spread += 0.15 * (apart - timer.spread);
        timer.size += 0.2 * (size.min(3.0 * timer.size) - timer.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left to judge of spikes of 100, at the given ticks.
    fn judged(spikes: &[u32], youth: Youth) -> Vec<f32> {
        let pace = Pace::new(10);
        let mut timers = Timers::default();
        let mut left = Vec::new();
        for at in 0..=*spikes.last().unwrap() {
            let is_spike = spikes.contains(&at);
            let count = if is_spike { 100.0 } else { 0.0 };
            let explained = timers.explain(&pace, at, count, 1.0, 10.0, youth);
            if is_spike {
                left.push(explained.judged);
            }
        }
        left
    }

    #[test]
    fn an_hourly_job_is_known_by_its_second_run_when_young() {
        assert_eq!(
            judged(&[400, 760, 1_121, 1_480], Youth::FirstDays),
            [100.0, 1.0, 1.0, 1.0]
        );
    }

    #[test]
    fn five_repeated_attacks_are_all_judged() {
        let spikes: Vec<u32> = (1..=7).map(|hour| hour * 360).collect();
        let left = judged(&spikes, Youth::Over);
        assert_eq!(left, [100.0, 100.0, 100.0, 100.0, 100.0, 1.0, 1.0]);
    }

    #[test]
    fn a_timer_explains_its_size_and_no_more() {
        let pace = Pace::new(10);
        let mut timers = Timers::default();
        let mut explain = |at, count| {
            timers
                .explain(&pace, at, count, 1.0, 10.0, Youth::FirstDays)
                .judged
        };
        for at in 0..720 {
            explain(at, if at % 360 == 100 { 100.0 } else { 0.0 });
        }
        for at in 720..820 {
            explain(at, 0.0);
        }
        let left = explain(820, 1_000.0);
        assert!((700.0..900.0).contains(&left), "{left}");
    }
}
