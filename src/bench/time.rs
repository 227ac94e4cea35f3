//! The load generator's clock: nanoseconds since it started, and seconds as people read them.

use std::sync::LazyLock;
use std::time::Instant;

#[expect(clippy::disallowed_methods, reason = "the load generator's clock enters here")]
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call; never goes back.
pub(super) fn now_ns() -> u64 {
    u64::try_from(STARTED.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// From a time of [`now_ns`] until now, in seconds.
#[expect(clippy::cast_precision_loss, reason = "a measured time has far fewer digits")]
pub(super) fn seconds_since(start_ns: u64) -> f64 {
    now_ns().saturating_sub(start_ns) as f64 / 1e9
}
