//! The range in which something stayed so far, which is slowly forgotten. Knows not what it is the range of.

use serde::{Deserialize, Serialize};

/// How many points the middle remembers.
const MIDDLE_POINTS: f32 = 5_000.0;

/// A range: its ends creep towards its middle, so that what is exceptional once may be so again.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Range {
    low: f32,
    high: f32,
    middle: f32,
}

impl Range {
    /// By how much of its own width, and at least of `width_min`, a value lies outside that came after `points` others;
    /// then takes the value in.
    pub(super) fn exceed(&mut self, value: f32, width_min: f32, creep: f32, points: u32) -> f32 {
        if points == 0 {
            (self.low, self.high, self.middle) = (value, value, value);
        }
        let width = (self.high - self.low).max(width_min).max(f32::MIN_POSITIVE);
        let outside = (value - self.high).max(self.low - value).max(0.0) / width;
        self.middle += (value - self.middle) / (points as f32 + 1.0).min(MIDDLE_POINTS);
        self.low = self.low.min(value);
        self.high = self.high.max(value);
        self.low += creep * (self.middle - self.low);
        self.high -= creep * (self.high - self.middle);
        outside
    }

    /// Its ends.
    pub(super) fn ends(&self) -> (f32, f32) {
        (self.low, self.high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_inside_until_it_is_forgotten() {
        let mut range = Range::default();
        for (points, value) in (0..).zip([0.0, 10.0, 4.0, 6.0, 10.0]) {
            range.exceed(value, 0.0, 1e-3, points);
        }
        let outside = range.exceed(20.0, 0.0, 1e-3, 5);
        assert!((0.9..1.1).contains(&outside), "{outside}");
        assert_eq!(range.exceed(19.0, 0.0, 1e-3, 6), 0.0);
        for points in 7..5_007 {
            range.exceed(5.0, 0.0, 1e-3, points);
        }
        assert!(range.exceed(19.0, 0.0, 1e-3, 5_007) > 0.5, "forgotten");
    }

    #[test]
    fn a_constant_has_a_width() {
        let mut range = Range::default();
        for points in 0..100 {
            range.exceed(5.0, 0.5, 1e-3, points);
        }
        assert_eq!(range.exceed(5.25, 0.5, 1e-3, 100), 0.5);
    }
}
