//! Levels: how the last hour compares to the season, and at which other levels the flow is known to be at times.
//!
//! Never judges, and never changes the season.

use serde::{Deserialize, Serialize};

use crate::traffic::pace::Pace;

/// The relative variance of the local level lies between these: beyond, the season is believed.
pub(crate) const VARIANCE: std::ops::RangeInclusive<f32> = 1e-6..=0.1;
/// How long the local level remembers, in seconds.
const LOCAL_S: u32 = 3_600;
/// Known levels are forgotten in so many hours: two weeks.
const KNOWN_H: f32 = 14.0 * 24.0;
/// A level is learned from no fewer messages: of fewer, chance makes half or double. The geometric mean of what was
/// seen and expected.
const MESSAGES_MIN: f32 = 30.0;
/// Two levels are one if their logarithms differ by less.
const ALIKE: f32 = 0.2;
/// What 1 is in whole numbers; and no logarithm is further from 0.
const ONE: f32 = 4_096.0;
const LOG_MAX: f32 = 7.9;

/// The last hour.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Local {
    seen: f32,
    expected: f32,
    ticks: f32,
}

impl Local {
    /// The level, in the season's, believed by how many messages there were. Messages count for fewer by the factor
    /// `lump`, as they wander together.
    pub(crate) fn level(&self, trust: f32, lump: f32) -> f32 {
        (trust + self.seen / lump) / (trust + self.expected / lump)
    }

    /// The same if the hour before should be like this one.
    pub(crate) fn flat_level(&self, mean: f32, trust: f32, lump: f32) -> f32 {
        (trust + self.seen / lump) / (trust + self.ticks * mean / lump)
    }

    /// The relative variance of the level.
    pub(crate) fn variance(&self, trust: f32, lump: f32) -> f32 {
        1.0 / (trust + self.expected / lump)
    }

    /// Whether the level is below a part of the season's.
    pub(crate) fn is_below(&self, part: f32) -> bool {
        self.seen < part * self.expected
    }

    /// Takes a tick.
    pub(crate) fn learn(&mut self, pace: &Pace, seen: f32, mean: f32) {
        self.fade(1.0 - 1.0 / pace.ticks(LOCAL_S) as f32);
        self.seen += seen;
        self.expected += mean;
        self.ticks += 1.0;
    }

    /// Takes so many ticks without a message.
    pub(crate) fn rest(&mut self, pace: &Pace, ticks: f32, mean: f32) {
        let memory = pace.ticks(LOCAL_S) as f32;
        let keep = (1.0 - 1.0 / memory).powf(ticks);
        self.fade(keep);
        self.expected += (1.0 - keep) * memory * mean;
        self.ticks += (1.0 - keep) * memory;
    }

    fn fade(&mut self, keep: f32) {
        self.seen *= keep;
        self.expected *= keep;
        self.ticks *= keep;
    }

    /// Forgets an incident: the level is again the one before it.
    pub(crate) fn settle(&mut self, level: f32, mean: f32) {
        self.seen = self.expected * level;
        self.ticks = self.seen / (mean * level).max(1e-9);
    }

    /// The season has this level now.
    pub(crate) fn rebase(&mut self) {
        self.expected = self.seen;
    }
}

/// The lowest and the highest level that are known, in the season's, as logarithms: a partner that is there or not, a
/// second worker at times. A level counts once it comes for the second time, and the more the more often it comes.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Levels {
    low: Level,
    high: Level,
}

/// A level, in 4,096ths, since there is little room.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Level {
    known: i16,
    /// The last one that was seen.
    last: i16,
}

impl Level {
    fn known(self) -> f32 {
        f32::from(self.known) / ONE
    }

    /// Learns a part of a level further out than what is known.
    fn learn(&mut self, level: f32, gain: f32) {
        let level = (level.clamp(-LOG_MAX, LOG_MAX) * ONE) as i16;
        let is_alike = f32::from(level.saturating_sub(self.last)).abs() < ALIKE * ONE;
        if is_alike || gain == 1.0 {
            self.known += (gain * f32::from(level.saturating_sub(self.known))) as i16;
        }
        self.last = level;
    }

    fn fade(&mut self) {
        // Towards 0, by one at least.
        let kept = f32::from(self.known) * (1.0 - 1.0 / KNOWN_H);
        self.known = kept.trunc() as i16;
    }
}

impl Levels {
    /// The lowest and the highest, in the season's level.
    pub(crate) fn known(&self) -> [f32; 2] {
        [self.low.known().exp(), self.high.known().exp()]
    }

    /// Learns a part of the last hour's level, or all of it.
    pub(crate) fn learn(&mut self, local: &Local, gain: f32) {
        if local.seen * local.expected < MESSAGES_MIN * MESSAGES_MIN {
            return;
        }
        let level = (local.seen / local.expected).ln();
        if level < self.low.known() {
            self.low.learn(level, gain);
        } else if level > self.high.known() {
            self.high.learn(level, gain);
        }
    }

    /// Forgets an hour's part.
    pub(crate) fn end_hour(&mut self) {
        self.low.fade();
        self.high.fade();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_known_once_it_came_often() {
        let tripled = Local {
            seen: 300.0,
            expected: 100.0,
            ticks: 360.0,
        };
        let doubled = Local {
            seen: 200.0,
            ..tripled
        };
        let mut levels = Levels::default();
        levels.learn(&doubled, 0.5);
        levels.learn(&tripled, 0.5);
        assert_eq!(levels.known(), [1.0, 1.0], "no level came twice");
        levels.learn(&tripled, 0.5);
        assert!((1.6..1.8).contains(&levels.known()[1]));
        (0..9).for_each(|_| levels.learn(&tripled, 0.5));
        assert!(levels.known()[1] > 2.9);
        (0..24 * 60).for_each(|_| levels.end_hour());
        assert!(levels.known()[1] < 1.1);
    }

    #[test]
    fn a_few_messages_are_no_level() {
        let chance = Local {
            seen: 9.0,
            expected: 3.0,
            ticks: 360.0,
        };
        let mut levels = Levels::default();
        levels.learn(&chance, 1.0);
        assert_eq!(levels.known(), [1.0, 1.0]);
    }
}
