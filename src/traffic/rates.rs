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

/// The last two samples that somebody asked for, as long as somebody goes on asking. Whoever asks for the first time
/// compares with the last tick.
#[derive(Debug, Default)]
pub struct Samples {
    older: Sample,
    newer: Sample,
}

/// Whether what was counted at a time tells a rate now.
fn is_old(at_us: u64, now_us: u64) -> bool {
    at_us > 0 && at_us + RATES_US_MIN <= now_us
}

impl Samples {
    /// Takes a sample that somebody has asked for.
    pub fn handle_sample(&mut self, sample: Sample) {
        if self.newer.at_us == 0 || is_old(self.newer.at_us, sample.at_us) {
            self.older = std::mem::replace(&mut self.newer, sample);
        }
    }

    /// The sample to compare with now: the last that is old enough. `None`: the last tick, at `tick_us`; or the start,
    /// where there was none.
    pub fn before(&self, now_us: u64, tick_us: u64) -> Option<&Sample> {
        let mut asked_for = [&self.newer, &self.older].into_iter();
        let last = asked_for.find(|sample| is_old(sample.at_us, now_us))?;
        (last.at_us >= tick_us || !is_old(tick_us, now_us)).then_some(last)
    }

    /// How long to wait until there is something to compare with, in microseconds.
    pub fn wait_us(&self, now_us: u64, tick_us: u64) -> u64 {
        if tick_us == 0 || self.before(now_us, tick_us).is_some() {
            return 0;
        }
        (tick_us + RATES_US_MIN).saturating_sub(now_us)
    }

    /// Forgets samples that are as old as the tick before the last: nobody goes on asking, and they are large.
    pub fn handle_tick(&mut self, tick_us: u64) {
        if self.newer.at_us < tick_us {
            *self = Self::default();
        }
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
        let mut check = |at_ms: u64, tick_ms: u64, expected_ms: Option<u64>, wait_ms: u64| {
            let (at_us, tick_us) = (at_ms * 1_000, tick_ms * 1_000);
            let before = samples.before(at_us, tick_us).map(|sample| sample.at_us / 1_000);
            let waited = samples.wait_us(at_us, tick_us) / 1_000;
            assert_eq!((before, waited), (expected_ms, wait_ms), "{at_ms}");
            let totals = Arc::default();
            samples.handle_sample(Sample { at_us, totals });
        };
        // Since the start, until something else is known.
        check(300, 0, None, 0);
        check(700, 0, None, 0);
        check(1_400, 0, Some(300), 0);
        check(10_400, 10_000, Some(1_400), 0);
        check(10_900, 10_000, Some(1_400), 0);
        check(11_000, 10_000, None, 0);
        check(12_000, 10_000, Some(10_400), 0);
        check(12_500, 10_000, Some(10_400), 0);
        check(13_000, 10_000, Some(12_000), 0);
        samples.handle_tick(10_000_000);
        assert_eq!(samples.newer.at_us, 13_000_000);
        samples.handle_tick(20_000_000);
        let check = |at_ms: u64, wait_ms: u64| {
            let waited = samples.wait_us(at_ms * 1_000, 30_000_000) / 1_000;
            assert_eq!(waited, wait_ms, "{at_ms}");
        };
        check(30_400, 600);
        check(31_000, 0);
    }
}
