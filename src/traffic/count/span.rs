//! Counts over one span of time, what was expected of them, and how unlikely they are.
//!
//! Sums fade exponentially (Roberts 1959), so that a span costs a few numbers and no ring of counts. Counts vary
//! more than chance alone would make them: their variance is taken as m + v·m², the negative binomial's, and v is
//! learned, its excess as the mean to the power 1.5: halfway between messages that come in lots and a rate that
//! wanders (Taylor 1961 found powers between 1 and 2 nearly everywhere). The score is the Chernoff bound of the
//! negative binomial's tail, in powers of ten: 6 says "less than once in a million".
//!
//! Never raises an alarm, and never changes what is expected.

use serde::{Deserialize, Serialize};

use crate::traffic::pace::Length;

/// How many samples the variance remembers, and over long spans.
const SAMPLES: f32 = 2_000.0;
const SAMPLES_LONG: f32 = 400.0;
/// The relative variance that is assumed before any is seen: a deviation of 5 %, and of 10 % over long spans.
const ASSUMED: f32 = 0.002_5;
const ASSUMED_LONG: f32 = 0.01;
/// How many samples the assumption is worth.
const ASSUMED_SAMPLES: f32 = 10.0;
/// A sample further off than so many deviations, squared, counts as that far: one attack is no variance.
const OUTLIER: f32 = 16.0;
/// Until so many samples, it counts as it is.
const OUTLIER_AFTER: u8 = 20;
/// Over long spans, deviations up to a tenth are nobody's concern.
const MARGIN_LONG: f32 = 1.1;
/// Fewer messages than this above the expected are not worth an alarm; nor fewer than that below.
const MORE_MIN: f32 = 12.0;
const LESS_MIN: f32 = 4.0;
/// Nor is less than this part above or below.
const EFFECT_MIN: f32 = 1.15;

/// What is expected of one tick, by several views that may differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// By the season alone.
    pub(crate) season: f32,
    /// By the season, corrected by the last hour.
    pub(crate) local: f32,
    /// The least and the most of all views.
    pub(crate) low: f32,
    pub(crate) high: f32,
}

impl Expected {
    /// The same by the season alone; nothing is missed in a pause.
    pub(crate) fn by_season(self, may_pause: bool) -> Self {
        Self {
            low: if may_pause { 0.0 } else { self.season },
            high: self.season,
            ..self
        }
    }
}

/// One span of a flow. Owned by its detector.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Span {
    seen: f32,
    season: f32,
    local: f32,
    low: f32,
    high: f32,
    /// Means times the deviation of what is not known: ignorance errs the same way for the whole span.
    unknown: f32,
    /// Variance beyond chance, over the mean to the power 1.5, and its weight.
    excess: f32,
    weight: f32,
    samples: u8,
}

/// What a span says now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verdict {
    /// Too many, in powers of ten; 0 where not.
    pub(crate) more: f32,
    /// Too few.
    pub(crate) fewer: f32,
    /// Seen to expected, where one of them is not 0.
    pub(crate) ratio: f32,
    /// Too little more or less to be worth an alarm.
    pub(crate) is_small: bool,
}

impl Span {
    /// Adds a tick.
    pub(crate) fn add(&mut self, length: &Length, count: f32, expected: &Expected, ignorance: f32) {
        self.fade(length.keep);
        self.seen += count;
        self.expect(expected, ignorance, 1.0);
    }

    /// Adds so many ticks without a message.
    pub(crate) fn add_silence(&mut self, length: &Length, ticks: f32, expected: &Expected, ignorance: f32) {
        let keep = length.keep.powf(ticks);
        self.fade(keep);
        self.expect(expected, ignorance, (1.0 - keep) * length.ticks);
    }

    fn fade(&mut self, keep: f32) {
        self.seen *= keep;
        self.season *= keep;
        self.local *= keep;
        self.low *= keep;
        self.high *= keep;
        self.unknown *= keep;
    }

    fn expect(&mut self, expected: &Expected, ignorance: f32, ticks: f32) {
        self.season += ticks * expected.season;
        self.local += ticks * expected.local;
        self.low += ticks * expected.low;
        self.high += ticks * expected.high;
        self.unknown += ticks * expected.season * ignorance.sqrt();
    }

    /// How unlikely the span is.
    pub(crate) fn judge(&self, length: &Length) -> Verdict {
        let margin = if length.is_long { MARGIN_LONG } else { 1.0 };
        let seen = length.weight() * self.seen;
        let high = (length.weight() * self.high * margin).max(1e-9);
        let low = (length.weight() * self.low / margin).max(1e-9);
        let score = |mean: f32| tail(seen, mean, self.variance(length, mean) + self.ignorance());
        if seen > high {
            Verdict {
                more: score(high),
                ratio: seen / high,
                is_small: seen - high < MORE_MIN || seen < EFFECT_MIN * high,
                fewer: 0.0,
            }
        } else if seen < low {
            Verdict {
                fewer: score(low),
                ratio: seen / low,
                is_small: low - seen < LESS_MIN || seen * EFFECT_MIN > low,
                more: 0.0,
            }
        } else {
            Verdict {
                ratio: 1.0,
                ..Verdict::default()
            }
        }
    }

    /// The relative variance that is not known of the span's mean.
    fn ignorance(&self) -> f32 {
        let deviation = self.unknown / self.season.max(1e-9);
        deviation * deviation
    }

    /// The relative variance beyond chance at a mean.
    fn variance(&self, length: &Length, mean: f32) -> f32 {
        let root = mean.max(1e-3).sqrt();
        let assumed = ASSUMED_SAMPLES * root * if length.is_long { ASSUMED_LONG } else { ASSUMED };
        ((self.excess + assumed) / (self.weight + ASSUMED_SAMPLES)).max(0.0) / root
    }

    /// The relative variance beyond chance, of the span as it is now.
    pub(crate) fn variance_now(&self, length: &Length) -> f32 {
        self.variance(length, length.weight() * self.local)
    }

    /// What the span expects by the season, and saw, as counts.
    pub(crate) fn season_and_seen(&self, length: &Length) -> (f32, f32) {
        (length.weight() * self.season, length.weight() * self.seen)
    }

    /// Between what counts a tick is expected, on the mean over the span: two deviations off the views.
    pub(crate) fn expected_a_tick(&self, length: &Length) -> (f32, f32) {
        let two_deviations = |mean: f32| {
            let variance = self.variance(length, mean) + self.ignorance();
            2.0 * (mean + variance * mean * mean).sqrt()
        };
        let (low, high) = (length.weight() * self.low, length.weight() * self.high);
        let counts = length.weight() * length.ticks;
        let low_end = (low - two_deviations(low)).max(0.0);
        (low_end / counts, (high + two_deviations(high)) / counts)
    }

    /// Learns the variance from the span as it is: once in a span's length, so that samples are independent;
    /// or so many times at once.
    pub(crate) fn learn(&mut self, length: &Length, times: f32) {
        let weight = length.weight();
        let mean = weight * if length.is_long { self.season } else { self.local };
        if mean < 1e-6 {
            return;
        }
        let ignorance = self.ignorance() * mean * mean;
        let variance = mean + self.variance(length, mean) * mean * mean + ignorance;
        let off = weight * self.seen - mean;
        let mut squared = off * off;
        if self.samples > OUTLIER_AFTER {
            squared = squared.min(OUTLIER * variance.max(1.0));
        }
        // A sample counts by how much it says: little where chance or ignorance explains it.
        let says = mean * mean * mean / (variance * variance);
        let keep = 1.0 - 1.0 / if length.is_long { SAMPLES_LONG } else { SAMPLES };
        let (kept, added) = if times == 1.0 {
            (keep, 1.0)
        } else {
            let kept = keep.powf(times);
            (kept, (1.0 - kept) / (1.0 - keep))
        };
        let excess = says * (squared - mean - 0.25 * ignorance) / (mean * mean.sqrt());
        self.excess = self.excess * kept + added * excess;
        self.weight = self.weight * kept + added * says;
        self.samples = self.samples.saturating_add(times as u8);
    }

    /// Forgets what was seen for what was expected, times a factor: an incident is over.
    pub(crate) fn settle(&mut self, times: f32) {
        self.seen = self.season * times;
        self.local = self.seen;
        self.low = self.seen;
        self.high = self.seen;
    }

    /// The flow has a new level: so many times the old one.
    pub(crate) fn rebase(&mut self, times: f32) {
        self.season *= times;
        self.unknown *= times;
        self.settle(1.0);
    }

    /// Fills a gap of so many ticks in which `missing` messages did not come.
    pub(crate) fn fill(&mut self, length: &Length, missing: f32, ticks: f32) {
        let left = (1.0 - length.keep.powf(ticks)) * length.ticks;
        self.seen += missing / ticks.max(1.0) * left;
    }
}

/// The Chernoff bound of the negative binomial's tail beyond `seen`, in powers of ten, with a mean and a relative
/// variance beyond chance: the log-likelihood ratio of the means `seen` and `mean`.
fn tail(seen: f32, mean: f32, variance: f32) -> f32 {
    let (seen, mean, variance) = (f64::from(seen), f64::from(mean), f64::from(variance));
    // Not far enough to matter: three deviations, or half. Most ticks end here, without a logarithm.
    let off = seen - mean;
    if off * off < 9.0 * mean * (1.0 + variance * mean) && seen > 0.5 * mean {
        return 0.0;
    }
    let own = if seen > 0.0 {
        seen * (seen / mean).ln()
    } else {
        0.0
    };
    let rest = if variance < 1e-9 {
        off
    } else {
        let k = 1.0 / variance;
        (seen + k) * ((seen + k) / (mean + k)).ln()
    };
    ((own - rest) / std::f64::consts::LN_10).max(0.0) as f32
}

/// The same bound of no message where `mean` were expected.
pub(crate) fn silence(mean: f32, variance: f32) -> f32 {
    let nats = if variance < 1e-6 {
        mean
    } else {
        (1.0 + mean * variance).ln() / variance
    };
    nats / std::f32::consts::LN_10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_bounds_the_tail() {
        // P(X >= 20) of a Poisson with mean 5 is 3.5e-7; the Chernoff bound is 3.0e-6 (scipy.stats).
        let score = tail(20.0, 5.0, 0.0);
        assert!((5.4..5.7).contains(&score), "{score}");
        // The same mean with a deviation of half of it: a twentieth in a hundred.
        assert!(tail(20.0, 5.0, 0.25) < 3.0);
        assert_eq!(tail(6.0, 5.0, 0.0), 0.0);
        assert!((silence(20.0, 0.0) - tail(0.0, 20.0, 0.0)).abs() < 1e-3);
        assert!((silence(20.0, 0.1) - tail(0.0, 20.0, 0.1)).abs() < 1e-3);
    }

    #[test]
    fn silence_at_once_is_silence_tick_by_tick() {
        let length = Length {
            ticks: 36.0,
            keep: 1.0 - 1.0 / 36.0,
            is_long: false,
        };
        let expected = Expected {
            season: 0.2,
            local: 0.3,
            low: 0.1,
            high: 0.4,
        };
        let (mut one_by_one, mut at_once) = (Span::default(), Span::default());
        one_by_one.add(&length, 7.0, &expected, 0.1);
        at_once.add(&length, 7.0, &expected, 0.1);
        for _ in 0..50 {
            one_by_one.add(&length, 0.0, &expected, 0.1);
        }
        at_once.add_silence(&length, 50.0, &expected, 0.1);
        for (a, b) in [
            (one_by_one.seen, at_once.seen),
            (one_by_one.high, at_once.high),
            (one_by_one.unknown, at_once.unknown),
        ] {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
