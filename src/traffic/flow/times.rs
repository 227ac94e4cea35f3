//! How the response times of a flow are spread: a histogram whose buckets grow with the time, so that a percentile is
//! known to an eighth whatever its size, in memory that never grows.
//!
//! Keeps no single time, and forgets none.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Octaves, each in so many buckets of equal width.
const BUCKETS_PER_OCTAVE: u32 = 4;
/// Below this many microseconds there is one bucket: 2^5, 32 µs.
const FIRST_OCTAVE: u32 = 5;
/// From this many on there is one: 2^26, 67 s.
const LAST_OCTAVE: u32 = 26;
const BUCKETS: usize = ((LAST_OCTAVE - FIRST_OCTAVE) * BUCKETS_PER_OCTAVE) as usize + 2;

/// The counters of a flow that is answered. Any thread may count.
#[derive(Debug)]
pub(super) struct TimesCounters([AtomicU64; BUCKETS]);

impl Default for TimesCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl TimesCounters {
    /// Counts an answer that took so long.
    pub(super) fn count(&self, us: u64) {
        if let Some(bucket) = self.0.get(bucket(us)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// How many answers there are.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    pub(super) fn times(&self) -> ResponseTimes {
        ResponseTimes(std::array::from_fn(|at| {
            self.0.get(at).map_or(0, |bucket| bucket.load(Relaxed))
        }))
    }
}

/// How response times are spread, of one flow or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseTimes([u64; BUCKETS]);

impl Default for ResponseTimes {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl ResponseTimes {
    /// Adds those of another flow.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// What a part of them, such as 0.99, does not exceed, in microseconds and to an eighth; `longest_us` is the longest of
    /// them. `None` where there are none.
    pub fn percentile_us(&self, part: f64, longest_us: u64) -> Option<u64> {
        let wanted = (part * self.count() as f64).ceil().max(1.0) as u64;
        let mut counted = 0;
        for (bucket, &count) in self.0.iter().enumerate() {
            counted += count;
            if counted >= wanted {
                let middle = match bounds_us(bucket) {
                    (low, Some(high)) => low + (high - low) / 2,
                    (_, None) => longest_us,
                };
                return Some(middle.min(longest_us));
            }
        }
        None
    }

    /// How many there are of each octave: below which time, in microseconds, and of all times that are longer, without.
    pub fn by_octave(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let (first, others) = self.0.split_at(1);
        let octaves = others.chunks(BUCKETS_PER_OCTAVE as usize).enumerate();
        let last = (LAST_OCTAVE - FIRST_OCTAVE) as usize;
        let of_octaves = octaves.map(move |(at, counts)| {
            let below_us = (at < last).then(|| 1 << (FIRST_OCTAVE as usize + 1 + at));
            (below_us, counts.iter().sum())
        });
        let of_first = first.iter().map(|&count| (Some(1 << FIRST_OCTAVE), count));
        of_first.chain(of_octaves)
    }
}

fn bucket(us: u64) -> usize {
    let Some(octave) = us.checked_ilog2().filter(|&octave| octave >= FIRST_OCTAVE) else {
        return 0;
    };
    if octave >= LAST_OCTAVE {
        return BUCKETS - 1;
    }
    let part = (us >> (octave - BUCKETS_PER_OCTAVE.ilog2())) as u32 % BUCKETS_PER_OCTAVE;
    (1 + (octave - FIRST_OCTAVE) * BUCKETS_PER_OCTAVE + part) as usize
}

/// From which time on, in microseconds, and below which.
fn bounds_us(bucket: usize) -> (u64, Option<u64>) {
    let start_us = |bucket: usize| match bucket.checked_sub(1) {
        None => 0,
        Some(at) => {
            let (octave, part) = (
                at as u32 / BUCKETS_PER_OCTAVE,
                at as u64 % u64::from(BUCKETS_PER_OCTAVE),
            );
            let width_us = 1 << (FIRST_OCTAVE + octave - BUCKETS_PER_OCTAVE.ilog2());
            (u64::from(BUCKETS_PER_OCTAVE) + part) * width_us
        }
    };
    let is_last = bucket + 1 >= BUCKETS;
    (start_us(bucket), (!is_last).then(|| start_us(bucket + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_has_one_bucket_and_lies_within_its_bounds() {
        let mut times: Vec<u64> = (0..3_000).collect();
        times.extend((5..40).flat_map(|octave| [(1 << octave) - 1, 1 << octave, (1 << octave) + 1]));
        times.push(u64::MAX);
        for us in times {
            let (low, high) = bounds_us(bucket(us));
            assert!(
                low <= us && high.is_none_or(|high| us < high),
                "{us}: {low} to {high:?}"
            );
        }
        for at in 1..BUCKETS {
            assert_eq!(bounds_us(at - 1).1, Some(bounds_us(at).0));
        }
    }

    #[test]
    fn percentiles_are_those_of_all_times_to_an_eighth() {
        for seed in 0..20_u64 {
            let counters = TimesCounters::default();
            let mut all: Vec<u64> = (0..1_000 + seed)
                .map(|number| {
                    let random = (number + seed * 7_919).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
                    // From 50 µs to 20 s, as many in each octave.
                    (50.0 * (random as f64 / f64::from(1 << 24) * 12.9).exp()) as u64
                })
                .collect();
            all.iter().for_each(|&us| counters.count(us));
            all.sort_unstable();
            let times = counters.times();
            assert_eq!(times.count(), all.len() as u64);
            for part in [0.0, 0.5, 0.9, 0.99, 1.0] {
                let at = ((part * all.len() as f64).ceil() as usize).max(1) - 1;
                let found = times.percentile_us(part, all[all.len() - 1]).unwrap();
                let off = found.abs_diff(all[at]) as f64 / all[at] as f64;
                assert!(off <= 0.125, "{part} of seed {seed}: {found}, and is {}", all[at]);
            }
        }
        assert_eq!(ResponseTimes::default().percentile_us(0.5, 0), None);
    }

    #[test]
    fn the_longest_is_never_exceeded_and_octaves_are_the_whole() {
        let counters = TimesCounters::default();
        for us in [3, 100, 1_000_000_000] {
            counters.count(us);
        }
        let mut times = counters.times();
        times.add(&counters.times());
        assert_eq!(times.percentile_us(0.1, 1_000_000_000), Some(16));
        assert_eq!(times.percentile_us(0.99, 1_000_000_000), Some(1_000_000_000));
        assert_eq!(times.percentile_us(0.1, 3), Some(3));
        let octaves: Vec<_> = times.by_octave().filter(|&(_, count)| count > 0).collect();
        assert_eq!(octaves, [(Some(32), 2), (Some(128), 2), (None, 2)]);
    }
}
