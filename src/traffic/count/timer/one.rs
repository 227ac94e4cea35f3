//! One timer: when it is due, how punctual it is, how large and how long its spikes are, and on which days it rests.
//!
//! Never knows of other timers.

use serde::{Deserialize, Serialize};

use crate::traffic::count::timer::KEPT_MIN;
use crate::traffic::pace::Pace;

/// A spike is early or late by so much, in seconds, and by so many times what its timer was on the mean.
const JITTER_S: u32 = 30;
const OFFS: f32 = 4.0;
/// No timer is early or late by more than this part of its period, nor by so much, in seconds.
const REACH_PART: u32 = 6;
const REACH_S_MAX: u32 = 300;
/// A job that failed is tried again within so long, in seconds, and within this part of its period.
const RETRY_S: u32 = 960;
const RETRY_PART: u32 = 4;
/// How much longer than that a timer is waited for, in seconds.
const LATE_S: u32 = 30;
/// A timer may exceed its size by half, by so many spreads, and by so many messages.
const SIZE_MARGIN: f32 = 1.5;
const SIZE_SPREADS: f32 = 5.0;
const SIZE_MORE: f32 = 10.0;
/// What a spike teaches about the next one's size, at least.
const GAIN_MIN: f32 = 0.05;
/// It is expected on weekends, or on weekdays, once it came so often on such a day.
const CAME_MIN: u8 = 3;

/// How long a timer is waited for, in ticks.
pub(crate) struct Wait {
    pub(crate) jitter: u32,
    pub(crate) late: u32,
    pub(crate) reach_max: u32,
    pub(crate) retry: u32,
}

impl Wait {
    pub(crate) fn new(pace: &Pace) -> Self {
        Self {
            jitter: pace.ticks(JITTER_S) as u32,
            late: pace.ticks(LATE_S) as u32,
            reach_max: pace.ticks(REACH_S_MAX) as u32,
            retry: pace.ticks(RETRY_S) as u32,
        }
    }

    /// How early or late a timer of a period may be at the most.
    pub(crate) fn reach(&self, period: u32) -> u32 {
        (period / REACH_PART).clamp(self.jitter, self.reach_max.max(self.jitter))
    }
}

/// The day of a tick, as far as timers care.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Day {
    pub(crate) is_weekend: bool,
}

impl Day {
    pub(crate) fn kind(self) -> usize {
        usize::from(self.is_weekend)
    }
}

/// A timer, or none if its period is 0.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Timer {
    /// In ticks; 0: there is none.
    pub(crate) period: u32,
    /// In ticks since the flow was first seen, like all times here.
    pub(crate) due: u32,
    pub(crate) size: f32,
    /// How much sizes differ: a mean absolute logarithm.
    pub(crate) spread: f32,
    /// How far off it is on the mean, in ticks.
    pub(crate) off: f32,
    pub(crate) kept: u16,
    pub(crate) missed: u16,
    pub(crate) missed_now: u8,
    /// How many ticks its spikes last.
    pub(crate) width: u8,
    /// How often it came on weekdays, and on weekends.
    pub(crate) came: [u8; 2],
}

impl Timer {
    /// A timer that came for the second time, as far as anybody knows: its size and its punctuality are hardly known,
    /// and its spikes last up to `width` ticks.
    pub(crate) fn new(period: u32, due: u32, size: f32, width: u32, wait: &Wait) -> Self {
        Self {
            period,
            due,
            size,
            spread: 0.25,
            off: wait.reach(period) as f32 / OFFS,
            kept: 1,
            width: width.clamp(1, u32::from(u8::MAX)) as u8,
            ..Self::default()
        }
    }

    pub(crate) fn is_due(&self, at: u32, wait: &Wait) -> bool {
        let jitter = self.jitter(wait);
        self.period > 0 && at + jitter >= self.due && at <= self.due + jitter + wait.late
    }

    pub(crate) fn is_overdue(&self, at: u32, wait: &Wait) -> bool {
        self.period > 0 && at > self.overdue(wait)
    }

    /// The last tick at which it is waited for.
    pub(crate) fn overdue(&self, wait: &Wait) -> u32 {
        self.due + self.jitter(wait) + wait.late
    }

    /// Whether it came a little while ago, and may be tried again.
    pub(crate) fn may_retry(&self, at: u32, wait: &Wait) -> bool {
        let since = (at + self.period).saturating_sub(self.due);
        self.kept > 1 && self.missed_now == 0 && since <= wait.retry.min(self.period / RETRY_PART)
    }

    /// Whether it was missed, and may have come at `start` after all.
    pub(crate) fn is_late(&self, start: u32, wait: &Wait) -> bool {
        let late = (start + self.period).saturating_sub(self.due);
        self.period > 0
            && self.missed_now > 0
            && late <= wait.reach(self.period) + (self.period / REACH_PART).min(wait.reach_max / 3)
    }

    /// Whether it is a timer of this period, and of about this time.
    pub(crate) fn is_near(&self, at: u32, period: u32, wait: &Wait) -> bool {
        let off = (at + 8 * self.period).saturating_sub(self.due) % self.period;
        self.period == period && off.min(self.period - off) <= 2 * wait.reach(period)
    }

    /// Counts a day on which it came.
    pub(crate) fn came(&mut self, day: Day) {
        if let Some(came) = self.came.get_mut(day.kind()) {
            *came = came.saturating_add(1);
        }
    }

    /// Learns that it came at `start`, after it had been given up.
    pub(crate) fn excuse(&mut self, start: u32) {
        let late = (start + self.period) as f32 - self.due as f32;
        self.off += 0.3 * (late - self.off);
        self.missed = self.missed.saturating_sub(1);
        self.missed_now = 0;
    }

    /// Whether it is expected on such a day: some jobs rest on weekends.
    pub(crate) fn comes(&self, day: Day) -> bool {
        let came = self.came.get(day.kind()).copied().unwrap_or(0);
        let enough = if self.kept < KEPT_MIN { 1 } else { CAME_MIN };
        came >= enough
    }

    /// How early or late it may be, in ticks.
    pub(crate) fn jitter(&self, wait: &Wait) -> u32 {
        (wait.jitter + (OFFS * self.off) as u32).min(wait.reach(self.period))
    }

    /// The most that one of its spikes is expected to be.
    pub(crate) fn allowed(&self) -> f32 {
        self.size * (SIZE_MARGIN + SIZE_SPREADS * self.spread) + SIZE_MORE
    }

    /// Learns from a spike that it explained.
    pub(crate) fn keep(&mut self, start: u32, ticks: u32, size: f32, wait: &Wait) {
        let off = start as f32 - self.due as f32;
        let reach = self.jitter(wait) as f32;
        // The clock of a punctual timer is followed soon, that of another with patience.
        let follow = if off.abs() <= wait.jitter as f32 { 0.5 } else { 0.2 };
        let due = self.due as f32 + follow * off.clamp(-reach, reach);
        self.due = due as u32 + self.period;
        self.off += 0.15 * (off.abs().min(reach) - self.off);
        self.kept = self.kept.saturating_add(1);
        let gain = (1.0 / (f32::from(self.kept) + 1.0)).max(GAIN_MIN);
        self.missed_now = 0;
        let apart = (size / self.size.max(1.0)).ln().abs().min(1.0);
        self.spread += gain * (apart - self.spread);
        self.size += gain * (size.min(3.0 * self.size) - self.size);
        let ticks = ticks.min(u32::from(u8::MAX)) as u8;
        self.width = ticks.max(self.width - self.width.saturating_sub(ticks).div_ceil(4));
    }

    /// How unlikely it is that it stays away as often as it does, by how often it did before.
    pub(crate) fn unlikely(&self) -> f32 {
        if self.kept < KEPT_MIN {
            return 0.0;
        }
        let missed = f32::from(self.missed_now);
        let before = f32::from(self.missed) - missed;
        missed * ((f32::from(self.kept) + before + 2.0) / (before + 1.0)).log10()
    }
}
