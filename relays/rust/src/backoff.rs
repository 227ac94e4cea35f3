//! Pauses that grow and differ: a thousand relays must not come back in the same instant.
//!
//! Never sleeps; only says how long.

use std::time::Duration;

/// The pause before attempt `attempt`, counted from 1: doubles from the first of `range` to the second, and is
/// a random one from the upper half of that.
pub(crate) fn pause(attempt: usize, range: (Duration, Duration)) -> Duration {
    spread(attempt, range, fastrand::f64())
}

fn spread(attempt: usize, (shortest, longest): (Duration, Duration), random: f64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(31);
    let full = shortest.saturating_mul(1_u32 << doublings).min(longest);
    full.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_end_and_spreads_over_half() {
        let range = (Duration::from_millis(100), Duration::from_secs(2));
        let check = |attempt, random, expected_ms| {
            assert_eq!(
                spread(attempt, range, random),
                Duration::from_millis(expected_ms),
                "{attempt} {random}"
            );
        };
        check(0, 1.0, 100);
        check(1, 0.0, 50);
        check(1, 1.0, 100);
        check(2, 1.0, 200);
        check(5, 0.0, 800);
        check(6, 1.0, 2_000);
        check(usize::MAX, 1.0, 2_000);
    }
}
