//! How fast traffic goes: what was counted up to two moments, and what came between them.
//!
//! Whoever asks brings the counts and the time. Nothing here adds anything to the way of a message.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::limits::RATES_US_MIN;
use crate::traffic::flow::{FlowKey, FlowTotals};

/// What all flows had counted at a moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// When, in microseconds of the broker's clock.
    pub at_us: u64,
    /// What.
    pub totals: Arc<BTreeMap<FlowKey, FlowTotals>>,
}

/// The last two samples. They are far enough apart that one of them always tells a rate.
#[derive(Debug, Default)]
pub struct Samples {
    older: Sample,
    newer: Sample,
}

impl Samples {
    /// Takes a sample, and returns the one to compare it with: the last that is old enough.
    pub fn handle_sample(&mut self, sample: Sample) -> Sample {
        if sample.at_us < self.newer.at_us + RATES_US_MIN {
            return self.older.clone();
        }
        let before = std::mem::replace(&mut self.newer, sample);
        self.older = before.clone();
        before
    }
}

impl FlowTotals {
    /// What was counted since then. The longest response time is that of all time.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            messages: self.messages.saturating_sub(before.messages),
            bytes: self.bytes.saturating_sub(before.bytes),
            denied: self.denied.saturating_sub(before.denied),
            dropped: self.dropped.saturating_sub(before.dropped),
            no_receiver: self.no_receiver.saturating_sub(before.no_receiver),
            over_limit: self.over_limit.saturating_sub(before.over_limit),
            quarantined: self.quarantined.saturating_sub(before.quarantined),
            responses: self.responses.saturating_sub(before.responses),
            response_us_sum: self.response_us_sum.saturating_sub(before.response_us_sum),
            response_us_max: self.response_us_max,
            unanswered: self.unanswered.saturating_sub(before.unanswered),
            replies_dropped: self.replies_dropped.saturating_sub(before.replies_dropped),
        }
    }

    /// The mean response time, in microseconds; 0 where nothing was answered.
    pub fn response_us_mean(&self) -> u64 {
        self.response_us_sum.checked_div(self.responses).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_never_told_over_less_than_a_second_once_there_was_one() {
        let mut samples = Samples::default();
        let mut check = |at_ms: u64, expected_ms: u64| {
            let sample = Sample {
                at_us: at_ms * 1_000,
                totals: Arc::default(),
            };
            assert_eq!(
                samples.handle_sample(sample).at_us,
                expected_ms * 1_000,
                "{at_ms}"
            );
        };
        // Since the start, until something else is known.
        check(300, 0);
        check(10_000, 0);
        check(10_400, 0);
        check(11_000, 10_000);
        check(11_500, 10_000);
        check(12_000, 11_000);
        check(12_000, 11_000);
        check(22_000, 12_000);
    }
}
