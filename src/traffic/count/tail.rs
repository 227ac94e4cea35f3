//! From a score to an alarm: how often this flow reached such a score before.
//!
//! Where the model holds, a score of s comes with probability 10^-s, whatever the flow. Where it does not (bursts
//! of a flow's own, restarts, noise of heavy tails), scores run higher, and how much higher is learned: peaks over a
//! threshold, one for each cluster, with a generalised Pareto tail (Pickands 1975; scale and shape by moments:
//! Hosking and Wallis 1987) and a prior that says "the model holds". An alarm begins where such peaks are rarer than
//! wanted.
//!
//! Never sees a count.

use serde::{Deserialize, Serialize};

/// Scores above are peaks.
const PEAK: f32 = 3.0;
/// The mean excess of a peak where the model holds (1/ln 10), and how many peaks that is worth.
const EXCESS_ASSUMED: f32 = 0.45;
const PEAKS_ASSUMED: f32 = 3.0;
/// Peaks that the assumption of an exponential tail is worth.
const SHAPE_PEAKS: f32 = 10.0;
/// No tail is taken for lighter than exponential, nor for heavier than this.
const SHAPE_MAX: f32 = 0.4;
/// Peaks assumed seen, in so many weeks.
const RATE_ASSUMED: f32 = 0.5;
const WEEKS_ASSUMED: f32 = 0.25;
/// How long peaks are remembered, in weeks.
const WEEKS: f32 = 4.0;
/// A peak counts as at most so many mean excesses.
const EXCESS_MAX: f32 = 10.0;
/// An alarm is so many times higher than any peak that raised none.
const HIGHER: f32 = 1.3;
/// What is left of the highest of these after a day.
const TOP_KEPT: f32 = 0.9;
/// A peak that raised an alarm is a habit in full if so many peaks half as high were none. An attacker who comes
/// again and again must not become a habit soon.
const HALF_AS_HIGH: f32 = 10.0;
/// After so many alarms in a row, alarms are a habit whatever their height.
const ALARMS_MAX: u8 = 10;
/// One of them is forgotten after so many days without.
const ALARM_DAYS: u8 = 3;

/// The peaks of one score of one flow. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Tail {
    peaks: f32,
    excess: f32,
    squares: f32,
    /// The highest peak that raised no alarm, fading.
    top: f32,
    /// The cluster under way.
    peak: f32,
    calm_ticks: u16,
    /// Days until the last alarms are forgotten, [`ALARM_DAYS`] for each of them.
    alarm_days: u8,
    alarmed: bool,
}

impl Tail {
    /// The score at which an alarm begins: peaks beyond come `wanted` times a week, and never below `least`.
    pub(crate) fn threshold(&self, weeks: f32, wanted: f32, least: f32) -> f32 {
        let rate = (self.peaks + RATE_ASSUMED) / (weeks.min(WEEKS) + WEEKS_ASSUMED);
        let rarer = (rate / wanted).max(1.0);
        let shape = self.shape();
        let beyond = if shape < 0.02 {
            rarer.ln()
        } else {
            (rarer.powf(shape) - 1.0) / shape
        };
        let by_tail = PEAK + self.excess_mean() * (1.0 - shape) * beyond;
        by_tail.max(HIGHER * self.top).max(least)
    }

    /// How heavy the tail of peaks is: 0 is exponential.
    fn shape(&self) -> f32 {
        let mean = self.excess / self.peaks.max(1e-3);
        let spread = if self.peaks < 1.0 {
            1.0
        } else {
            (self.squares / self.peaks / (mean * mean).max(1e-6) - 1.0).max(0.1)
        };
        let spread = (self.peaks * spread + SHAPE_PEAKS) / (self.peaks + SHAPE_PEAKS);
        (0.5 * (1.0 - 1.0 / spread)).clamp(0.0, SHAPE_MAX)
    }

    fn excess_mean(&self) -> f32 {
        (PEAKS_ASSUMED * EXCESS_ASSUMED + self.excess) / (PEAKS_ASSUMED + self.peaks)
    }

    /// Whether nothing is to be done for a score of 0.
    pub(crate) fn is_calm(&self) -> bool {
        self.peak == 0.0
    }

    /// Whether this flow has raised so many alarms that they are learned as its habits.
    pub(crate) fn is_habitual(&self) -> bool {
        self.alarms() >= ALARMS_MAX
    }

    fn alarms(&self) -> u8 {
        self.alarm_days.div_ceil(ALARM_DAYS)
    }

    /// Takes a score that held for so many ticks. `alarmed`: it raised an alarm, or came during an incident. A
    /// cluster ends after `apart` ticks without a peak. `young`: what raises alarms is learned as well.
    pub(crate) fn learn(&mut self, score: f32, ticks: u16, alarmed: bool, apart: u16, young: bool) {
        if score > PEAK {
            self.peak = self.peak.max(score);
            self.calm_ticks = 0;
            self.alarmed |= alarmed;
        } else if self.peak > 0.0 {
            self.calm_ticks = self.calm_ticks.saturating_add(ticks);
            if self.calm_ticks > apart {
                self.end_cluster(young);
            }
        }
    }

    fn end_cluster(&mut self, young: bool) {
        let weight = if !self.alarmed || young || self.is_habitual() {
            1.0
        } else {
            self.habit()
        };
        if !self.alarmed || young {
            self.top = self.top.max(self.peak);
        }
        if self.alarmed {
            self.alarm_days = (self.alarms() + 1).saturating_mul(ALARM_DAYS);
        }
        let excess = (self.peak - PEAK).min(EXCESS_MAX * self.excess_mean());
        self.peaks += weight;
        self.excess += weight * excess;
        self.squares += weight * excess * excess;
        self.peak = 0.0;
        self.calm_ticks = 0;
        self.alarmed = false;
    }

    /// How much a peak that raised an alarm is a habit.
    fn habit(&self) -> f32 {
        let half = (0.5 * self.peak - PEAK).max(0.0);
        let half_as_high = self.peaks * (-half / self.excess_mean()).exp();
        (half_as_high / HALF_AS_HIGH).min(1.0)
    }

    /// Forgets a day's part; of the peaks only once the memory is full.
    pub(crate) fn end_day(&mut self, weeks: f32) {
        self.top *= TOP_KEPT;
        self.alarm_days = self.alarm_days.saturating_sub(1);
        if weeks > WEEKS {
            let keep = 1.0 - 1.0 / (7.0 * WEEKS);
            self.peaks *= keep;
            self.excess *= keep;
            self.squares *= keep;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peak(tail: &mut Tail, score: f32, alarmed: bool, young: bool) {
        tail.learn(score, 1, alarmed, 36, young);
        tail.learn(0.0, 40, false, 36, young);
    }

    #[test]
    fn habits_raise_the_threshold_and_attacks_do_not() {
        let mut calm = Tail::default();
        let fresh = calm.threshold(2.0, 0.02, 5.5);
        assert_eq!(fresh, 5.5);
        for _ in 0..5 {
            peak(&mut calm, 60.0, true, false);
        }
        assert!(calm.threshold(2.0, 0.02, 5.5) < 8.0, "five similar attacks");

        let mut bursty = Tail::default();
        for burst in 0..20 {
            peak(&mut bursty, 15.0 + burst as f32, true, true);
        }
        assert!(bursty.threshold(0.3, 0.02, 5.5) > 40.0, "bursts of its youth");
    }

    #[test]
    fn alarms_without_end_become_a_habit() {
        let mut tail = Tail::default();
        for _ in 0..ALARMS_MAX {
            peak(&mut tail, 60.0, true, false);
        }
        assert!(tail.is_habitual());
        for _ in 0..10 {
            peak(&mut tail, 60.0, true, false);
        }
        assert!(tail.threshold(3.0, 0.02, 5.5) > 60.0);
        for _ in 0..40 {
            tail.end_day(3.0);
        }
        assert!(!tail.is_habitual());
    }
}
