//! Detectors to compare with: one that knows everything, and one that everybody writes first. Neither is ours.

use super::generator::{Flow, HOUR, MINUTE};

/// Raw flags less than ten minutes apart are one alarm.
const ONE_ALARM: usize = 10 * MINUTE;

/// Knows the true mean of each tick, attacks apart; the tail of the Poisson distribution over four spans, and
/// silence, each at one in ten million.
pub fn oracle(flow: &Flow) -> Vec<usize> {
    let mut sums = [1.0, 6.0, 36.0, 216.0].map(|span: f64| (1.0 - 1.0 / span, 0.0, 0.0));
    let mut missing = 0.0;
    let flags = flow.counts.iter().zip(&flow.truth).map(|(&count, &mean)| {
        let (count, mean) = (f64::from(count), f64::from(mean).max(1e-4));
        let mut is_odd = false;
        for (keep, seen, expected) in &mut sums {
            *seen = *keep * *seen + count;
            *expected = *keep * *expected + mean;
            let (seen, expected) = ((1.0 + *keep) * *seen, (1.0 + *keep) * *expected);
            let own = if seen > 0.0 {
                seen * (seen / expected).ln()
            } else {
                0.0
            };
            is_odd |= own - (seen - expected) > 16.0 && (seen - expected).abs() > 4.0;
        }
        missing = if count > 0.0 { 0.0 } else { missing + mean };
        is_odd || missing > 16.0
    });
    alarms(flags)
}

/// The deviation from a fading mean, in fading deviations, of an hour; beyond 8.
pub fn z_score(flow: &Flow) -> Vec<usize> {
    let (mut mean, mut variance) = (0.0, 0.0_f64);
    let flags = flow.counts.iter().map(|&count| {
        let off = f64::from(count) - mean;
        let is_odd = off.abs() / (variance.sqrt() + 0.5) > 8.0;
        mean += off / HOUR as f64;
        variance += (off * off - variance) / HOUR as f64;
        is_odd
    });
    alarms(flags)
}

/// The ticks at which an alarm begins.
fn alarms(flags: impl Iterator<Item = bool>) -> Vec<usize> {
    let (mut alarms, mut last) = (Vec::new(), None);
    for (tick, _) in flags.enumerate().filter(|&(tick, is_odd)| is_odd && tick > HOUR) {
        if last.is_none_or(|last| tick - last > ONE_ALARM) {
            alarms.push(tick);
        }
        last = Some(tick);
    }
    alarms
}
