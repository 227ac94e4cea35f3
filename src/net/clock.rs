//! Where the clock enters: microseconds since the broker started. Everything above takes the time as a number.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The broker's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
}

impl Default for Clock {
    #[expect(clippy::disallowed_methods, reason = "the clock enters here")]
    fn default() -> Self {
        Self {
            started: Instant::now(),
        }
    }
}

impl Clock {
    /// Microseconds since the start; never goes back.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Seconds since 1970, as the machine has it.
    #[expect(clippy::disallowed_methods, reason = "the clock enters here")]
    pub fn unix_s() -> i64 {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
    }
}
