//! The detector of metrics: views of a value, the range of each, and a patience that grows with the alarms.
//!
//! Only puts them together.

use serde::{Deserialize, Serialize};

use crate::traffic::metric::patience::{Patience, Reading, Tuning};
use crate::traffic::metric::views::Views;

/// A metric detector of one series: below 1 KiB, whatever it sees.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MetricDetector {
    views: Views,
    patience: Patience,
}

impl MetricDetector {
    /// Takes a value, measured at a time that says the hour of the day. What is no finite number is left out.
    pub fn observe(&mut self, tuning: &Tuning, unix_s: u64, value: f32) -> Reading {
        let looks = self.views.look(unix_s, value);
        looks.map_or_else(Reading::default, |looks| self.patience.judge(tuning, &looks))
    }
}

const _: () = assert!(
    size_of::<MetricDetector>() <= 1_024,
    "a series costs at most 1 KiB"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::metric::Onset;

    /// A day's shape with some noise, in steps of five minutes.
    fn ordinary(point: u64) -> f32 {
        let noise = (point.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f32 / (1 << 24) as f32;
        let wave = (std::f32::consts::TAU * (point % 288) as f32 / 288.0).sin();
        100.0 + 20.0 * wave + 5.0 * noise
    }

    fn alarms(points: u64, change: impl Fn(u64, f32) -> f32) -> Vec<(u64, Onset)> {
        let mut detector = MetricDetector::default();
        let mut alarms = Vec::new();
        for point in 0..points {
            let reading = detector.observe(&Tuning::default(), point * 300, change(point, ordinary(point)));
            assert_eq!(
                reading.onset.is_some(),
                reading.score >= 1.0,
                "point {point}: {reading:?}"
            );
            alarms.extend(reading.onset.map(|onset| (point, onset)));
        }
        alarms.retain(|&(point, _)| point > 3 * 288);
        alarms
    }

    #[test]
    fn what_is_ordinary_raises_little() {
        let quiet = alarms(20 * 288, |_, value| value);
        assert!(quiet.len() <= 2, "{quiet:?}");
    }

    #[test]
    fn what_is_odd_is_seen_at_once_and_in_its_own_numbers() {
        const AT: u64 = 10 * 288 + 100;
        let first = |change: &dyn Fn(f32) -> f32| {
            let found = alarms(
                AT + 50,
                |point, value| if point >= AT { change(value) } else { value },
            );
            let found = found.into_iter().find(|&(point, _)| point >= AT);
            found.expect("an alarm").1
        };
        let spike = first(&|value| 3.0 * value);
        assert!(
            spike.seen > 250.0 && spike.expected.1 < 150.0 && spike.expected.0 > 50.0,
            "{spike:?}"
        );
        let zero = first(&|_| 0.0);
        assert!(zero.seen < 1.0 && zero.expected.0 > 50.0, "{zero:?}");
        let flat = first(&|_| 100.0);
        assert!(flat.score >= 1.0, "{flat:?}");
    }

    #[test]
    fn a_shift_is_one_alarm_or_two_and_not_hundreds() {
        let shifted = alarms(
            20 * 288,
            |point, value| if point >= 2_500 { value + 60.0 } else { value },
        );
        let after = shifted.iter().filter(|(point, _)| *point >= 2_500).count();
        assert!((1..=4).contains(&after), "{shifted:?}");
    }

    #[test]
    fn points_inside_all_ranges_change_no_judgement() {
        let (mut views, mut patience) = (Views::default(), Patience::default());
        let noise = |point: u64| if point.is_multiple_of(701) { 90.0 } else { 0.0 };
        let all = alarms(20 * 288, |point, value| value + noise(point));
        let mut outside = Vec::new();
        for point in 0..20 * 288 {
            let looks = views.look(point * 300, ordinary(point) + noise(point));
            if let Some(looks) = looks.filter(|looks| looks.iter().any(|look| look.outside > 0.0)) {
                let reading = patience.judge(&Tuning::default(), &looks);
                outside.extend(reading.onset.map(|onset| (point, onset)));
            }
        }
        outside.retain(|&(point, _)| point > 3 * 288);
        assert!(!all.is_empty());
        assert_eq!(outside, all);
    }

    #[test]
    fn numbers_that_are_none_change_nothing() {
        let with = alarms(5 * 288, |_, value| value);
        let mut detector = MetricDetector::default();
        for value in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN, 0.0, -1.0] {
            for point in 0..500 {
                let reading = detector.observe(&Tuning::default(), point, value);
                assert!(reading.score.is_finite());
            }
        }
        assert!(with.len() <= 2);
    }
}
