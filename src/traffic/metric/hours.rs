//! What a series is like at each hour of the day: its mean there, and how far from it values usually are. Judges nothing.

use serde::{Deserialize, Serialize};

/// The part of the way that the mean of an hour goes towards a value of it.
const MEAN_GAIN: f32 = 0.014;
/// The mean distance of an hour remembers so many points of it.
const DISTANCE_POINTS: u8 = 80;
/// No hour counts as calmer than this part of the mean distance over all hours.
const CALM_MIN: f32 = 0.3;
/// How many points the mean and the distance over all hours remember.
const ALL_POINTS: f32 = 2_000.0;

/// The hours of a day.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Hours {
    means: [f32; 24],
    distances: [f32; 24],
    /// Points of each hour so far, as far as it matters.
    points: [u8; 24],
    mean: Mean,
    distance: Mean,
}

/// What an hour was like before a value.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Hour {
    pub(super) mean: f32,
    /// How far from it values usually are.
    pub(super) distance: f32,
}

/// A mean that fades.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Mean(pub(super) f32);

impl Mean {
    /// Takes the `points`-th value in; the mean of all while there are fewer than `span`.
    pub(super) fn add(&mut self, value: f32, points: u32, span: f32) {
        self.0 += (value - self.0) / (points as f32).min(span);
    }
}

impl Hours {
    /// What the hour of a value, the `points`-th of all, was like before it; then takes the value in.
    pub(super) fn pass(&mut self, unix_s: u64, value: f32, points: u32) -> Hour {
        self.mean.add(value, points, ALL_POINTS);
        self.distance.add((value - self.mean.0).abs(), points, ALL_POINTS);
        let at = (unix_s / 3_600 % 24) as usize;
        let (Some(mean), Some(distance), Some(points)) = (
            self.means.get_mut(at),
            self.distances.get_mut(at),
            self.points.get_mut(at),
        ) else {
            unreachable!("a day has 24 hours");
        };
        if *points == 0 {
            *mean = value;
        }
        let hour = Hour {
            mean: *mean,
            distance: distance.max(CALM_MIN * self.distance.0),
        };
        let off = value - *mean;
        *points = (*points + 1).min(DISTANCE_POINTS);
        *mean += MEAN_GAIN * off;
        *distance += (off.abs() - *distance) / f32::from(*points);
        hour
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hour_has_a_mean_and_a_distance_of_its_own() {
        let mut hours = Hours::default();
        // By night 10 ± 1, by day 100 ± 20.
        let mut hour_at = |point: u32| {
            let is_day = point / 12 % 24 >= 12;
            let sign = if point.is_multiple_of(2) { 1.0 } else { -1.0 };
            let value = if is_day { 100.0 + 20.0 * sign } else { 10.0 + sign };
            hours.pass(u64::from(point) * 300, value, point + 1)
        };
        (0..5_760).for_each(|point| {
            hour_at(point);
        });
        let (night, day) = (hour_at(5_760), hour_at(5_760 + 144));
        assert!((night.mean - 10.0).abs() < 1.0, "{night:?}");
        assert!((day.mean - 100.0).abs() < 5.0, "{day:?}");
        assert!((15.0..25.0).contains(&day.distance), "{day:?}");
        assert!(
            night.distance < 20.0,
            "calm, and not quite as calm as it is: {night:?}"
        );
    }
}
