//! Where the clock enters: microseconds since the broker started. Everything above takes the time as a number.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The broker's clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_unix_ms: u64,
}

impl Default for Clock {
    #[expect(clippy::disallowed_methods, reason = "the clock enters here")]
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_unix_ms: unix_ms(),
        }
    }
}

impl Clock {
    /// Microseconds since the start; never goes back.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since 1970, as the machine had it at the start and as time has passed since: never goes back,
    /// whatever is done to the machine's clock.
    pub fn now_unix_ms(&self) -> u64 {
        self.started_unix_ms.saturating_add(self.now_us() / 1000)
    }

    /// The time, in milliseconds since 1970, so many microseconds after the start.
    pub const fn unix_ms_at(&self, us: u64) -> u64 {
        self.started_unix_ms.saturating_add(us / 1000)
    }

    /// Microseconds of processor time that this process has used, all its threads together.
    pub fn processor_us() -> u64 {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let micros = i128::from(used.tv_sec) * 1_000_000 + i128::from(used.tv_nsec) / 1_000;
        u64::try_from(micros).unwrap_or_default()
    }

    /// Seconds since 1970, as the machine has it.
    pub fn unix_s() -> i64 {
        i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock enters here")]
fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
