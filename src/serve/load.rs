//! What the broker itself bears, for the detectors: a few figures, taken once a tick.
//!
//! Reads what is there, and keeps no message waiting. A figure that cannot be had is left out.

use crate::net::broker::Broker;
use crate::net::clock::Clock;
use crate::serve::keeper::Counter;
use crate::serve::status::queues;
use crate::traffic::desk::Measure;

/// Takes the figures; knows the processor time up to the tick before.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// When, and how much it was, in microseconds.
    before: Option<(u64, u64)>,
}

impl Load {
    /// The figures of now.
    pub(super) async fn take(&mut self, broker: &Broker, counter: Option<&Counter>) -> Vec<(Measure, f64)> {
        let mut figures = vec![
            (Measure::Connections, broker.connection_count() as f64),
            (Measure::OutboxBytes, broker.counts().waiting_bytes as f64),
        ];
        let now = (broker.clock.now_us(), Clock::processor_us());
        if let Some((at_us, used_us)) = self.before.replace(now)
            && now.0 > at_us
        {
            let used_us = now.1.saturating_sub(used_us) as f64;
            figures.push((Measure::Processors, used_us / (now.0 - at_us) as f64));
        }
        if let Some(counter) = counter
            && let Some(queues) = queues(counter).await
        {
            let waiting: usize = queues.iter().map(|queue| queue.pending).sum();
            figures.push((Measure::TrackedWaiting, waiting as f64));
        }
        figures
    }
}
