//! The course of an incident: whether it goes on, whether something comes on top of it, and when it has become the
//! usual.
//!
//! An incident is over when a sequential test of its level against the usual one says so (Wald 1945), so that a
//! strong one is over at once and a weak one when that is certain.

use serde::{Deserialize, Serialize};

use crate::traffic::count::channel::{Channel, Worst};
use crate::traffic::pace::Pace;

/// The log-likelihood for the usual level at which an incident is over: one in three thousand.
const OVER: f32 = -8.0;
/// The log-likelihood against it counts no further than this.
const ON_MAX: f32 = 4.0;
/// An incident lasts at least so long after the last odd tick, in seconds.
const CALM_S: u32 = 300;
/// The level of an incident is taken from its first so many seconds.
const LEVEL_S: u32 = 720;
/// An incident so old does not hide what comes on top of it, in seconds.
const ON_TOP_S: u32 = 900;
/// What comes on top is worse than the incident itself, by this factor.
const WORSE: f32 = 1.5;
/// An incident so old has become the usual, in seconds: a day.
const REBASE_S: u32 = 86_400;
/// The same where the flow had hardly spoken before: it has begun.
const BEGUN_S: u32 = 3_600;
/// A long deviation that comes back within this is the same incident, in seconds.
const AGAIN_S: u32 = 21_600;
/// So is any that comes back so soon, in seconds, and is no stronger than by this factor.
const AGAIN_SOON_S: u32 = 1_200;
const STRONGER: f32 = 2.0;
/// Levels compared with nothing are compared with this many messages a tick.
const LEVEL_MIN: f32 = 3e-4;

/// One incident of a flow, under way or not. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Incident {
    is_on: bool,
    is_long: bool,
    ticks: u32,
    /// Its level, in usual ones.
    ratio: f32,
    /// How the last hour compared to the season before it began.
    local: f32,
    evidence: f32,
    calm_ticks: u32,
    is_topped: bool,
    topped_calm_ticks: u32,
    /// When the last long one was over, and whether it was up.
    long_over: u32,
    long_was_up: bool,
    /// When the last one was over, and its level, in usual ones.
    over: u32,
    last_ratio: f32,
}

/// What a tick means for an incident.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Course {
    /// It goes on.
    On,
    /// Something comes on top.
    Topped,
    /// The usual is back.
    Over,
    /// It has become the usual.
    Rebased,
    /// It was the beginning of a flow.
    Begun,
}

/// What an incident is judged by, of one tick.
pub(crate) struct Tick {
    pub(crate) seen: f32,
    /// What the season expects.
    pub(crate) usual: f32,
    /// Seen to expected by the season, of the last six minutes.
    pub(crate) ratio: f32,
    /// Messages count for fewer by this factor, as they wander together.
    pub(crate) lump: f32,
    /// The worst score that this incident does not explain, in thresholds.
    pub(crate) fresh: f32,
    /// Whether the flow had spoken before.
    pub(crate) is_known: bool,
}

impl Incident {
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// How the last hour compared to the season before it began.
    pub(crate) fn local(&self) -> f32 {
        self.local
    }

    /// How long it has lasted, in ticks.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ratio > 1.0
    }

    /// Whether a channel can say something that the incident does not.
    pub(crate) fn admits(&self, channel: Channel) -> bool {
        let is_fewer = matches!(channel, Channel::Silence | Channel::Fewer(_));
        let is_deeper = is_fewer && self.is_on && self.ratio < 0.2;
        !channel.is_long() && !is_deeper
    }

    /// The level beyond which something comes on top, in usual ones.
    pub(crate) fn level(&self) -> f32 {
        match self.is_on {
            true if self.is_up() => self.local * self.ratio * WORSE,
            true => self.local * self.ratio / WORSE,
            false => 1.0,
        }
    }

    /// Begins, at a tick of the flow's life. Whether that is news: not if one comes back.
    pub(crate) fn begin(&mut self, pace: &Pace, at: u32, worst: &Worst, local: f32) -> bool {
        let ratio = worst.ratio;
        let is_long = worst.channel.is_long();
        let is_again = is_long
            && self.long_over > 0
            && u64::from(at - self.long_over) < pace.ticks(AGAIN_S)
            && self.long_was_up == (ratio > 1.0);
        let is_alike = match ratio > 1.0 {
            true => self.last_ratio > 1.0 && ratio < STRONGER * self.last_ratio,
            false => self.last_ratio < 1.0 && ratio * STRONGER > self.last_ratio.min(0.2),
        };
        let is_soon = self.over > 0 && is_alike && u64::from(at - self.over) < pace.ticks(AGAIN_SOON_S);
        *self = Self {
            is_on: true,
            is_long,
            ratio: if ratio > 1.0 {
                ratio.max(1.1)
            } else {
                ratio.clamp(0.02, 0.9)
            },
            local,
            evidence: ON_MAX,
            long_over: self.long_over,
            long_was_up: self.long_was_up,
            over: self.over,
            last_ratio: self.last_ratio,
            ..Self::default()
        };
        !(is_again || is_soon)
    }

    /// Follows it through a tick.
    pub(crate) fn follow(&mut self, pace: &Pace, tick: &Tick) -> Course {
        self.ticks += 1;
        let usual = (tick.usual * self.local).max(LEVEL_MIN);
        if u64::from(self.ticks) < pace.ticks(LEVEL_S) {
            let ratio = tick.ratio / self.local.max(1e-6);
            self.ratio = if self.is_up() {
                self.ratio.max(ratio)
            } else {
                self.ratio.min(ratio.max(0.02))
            };
        }
        let step = (tick.seen * self.ratio.ln() - usual * (self.ratio - 1.0)) / tick.lump;
        self.evidence = (self.evidence + step).min(ON_MAX);
        let calm = pace.ticks(CALM_S) as u32;
        self.calm_ticks = if step < 0.0 || self.evidence < 0.0 {
            self.calm_ticks + 1
        } else {
            0
        };
        if self.is_topped {
            self.topped_calm_ticks = if tick.fresh < 0.5 {
                self.topped_calm_ticks + 1
            } else {
                0
            };
            self.is_topped = self.topped_calm_ticks <= calm;
        }
        let until = pace.ticks(if tick.is_known { REBASE_S } else { BEGUN_S });
        if self.evidence < OVER && self.calm_ticks > calm {
            Course::Over
        } else if self.evidence > 0.0 && u64::from(self.ticks) > until {
            if tick.is_known {
                Course::Rebased
            } else {
                Course::Begun
            }
        } else if !self.is_topped && u64::from(self.ticks) > pace.ticks(ON_TOP_S) && tick.fresh >= 1.0 {
            self.is_topped = true;
            self.topped_calm_ticks = 0;
            Course::Topped
        } else {
            Course::On
        }
    }

    /// Ends, at a tick of the flow's life.
    pub(crate) fn end(&mut self, at: u32, long_ticks: f32) {
        if self.is_long && self.ticks as f32 > long_ticks {
            self.long_over = at;
            self.long_was_up = self.is_up();
        }
        self.over = at;
        self.last_ratio = self.ratio;
        self.is_on = false;
    }
}
