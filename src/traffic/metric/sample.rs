//! A small sample of all values so far, evenly spread over time, that tells what rank a value has.
//!
//! While the series is young the sample holds every value of it; as it grows, every second is given up and every
//! second taken, until the sample spans some thousands of points. From then on the oldest makes room.

use serde::{Deserialize, Serialize};

const VALUES: usize = 32;
/// At the most, every so many-th value is taken: 32 values span 4,096 points.
const APART_MAX: u16 = 128;

/// The sample. Its values are read in no order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sample {
    values: [f32; VALUES],
    len: u8,
    oldest: u8,
    apart: u16,
    waited: u16,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            values: [0.0; VALUES],
            len: 0,
            oldest: 0,
            apart: 1,
            waited: 0,
        }
    }
}

impl Sample {
    /// The rank of a value among those before it, 0 to 1.
    pub(super) fn rank(&self, value: f32) -> f32 {
        let seen = self.values.iter().take(self.len.into());
        let (less, same) = seen.fold((0_u16, 0_u16), |(less, same), &other| {
            (less + u16::from(other < value), same + u16::from(other == value))
        });
        (f32::from(less) + 0.5 * f32::from(same) + 0.5) / (f32::from(self.len) + 1.0)
    }

    /// Takes a value in, or not.
    pub(super) fn offer(&mut self, value: f32) {
        self.waited += 1;
        if self.waited < self.apart {
            return;
        }
        self.waited = 0;
        if usize::from(self.len) == VALUES && self.apart < APART_MAX {
            self.thin();
        }
        let at = if usize::from(self.len) < VALUES {
            self.len += 1;
            self.len - 1
        } else {
            let oldest = self.oldest;
            self.oldest = (oldest + 1) % VALUES as u8;
            oldest
        };
        if let Some(slot) = self.values.get_mut(usize::from(at)) {
            *slot = value;
        }
    }

    /// Gives up every second value.
    fn thin(&mut self) {
        let values = &mut self.values;
        for index in 0..VALUES / 2 {
            values.copy_within(2 * index + 1..2 * index + 2, index);
        }
        self.len = (VALUES / 2) as u8;
        self.apart *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_the_whole_series() {
        let mut sample = Sample::default();
        // Numbers from 0 to 4,095, without order.
        for index in 0..4_096_u64 {
            sample.offer((index.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31) % 4_093) as f32);
        }
        for part in [0.1, 0.5, 0.9] {
            let rank = sample.rank(4_096.0 * part);
            assert!((rank - part).abs() < 0.15, "{rank} of {part}");
        }
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut sample = Sample::default();
        (0..10_000).for_each(|_| sample.offer(1.0));
        (0..5_000).for_each(|_| sample.offer(2.0));
        assert!(sample.rank(1.5) < 0.02);
    }
}
