//! The bytes that wait for all sockets together, and what one outbox may hold of them.
//!
//! A bound for each connection alone is none for the broker: thousands that do not read would fill its memory.
//! Nothing here is exact to the byte; it is read without a lock by every publisher.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::limits::{OUTBOX_BYTES_MAX, OUTBOX_BYTES_MIN, OUTBOXES_BYTES_MAX};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct WaitingBytes {
    total: AtomicUsize,
}

impl WaitingBytes {
    /// What one outbox may hold now: a quarter of what is left for all, so that those who do not read leave room
    /// for those who do (Choudhury and Hahne, "Dynamic queue length thresholds", 1998).
    pub(super) fn bytes_max_of_one(&self) -> usize {
        let left = OUTBOXES_BYTES_MAX.saturating_sub(self.total());
        (left / 4).clamp(OUTBOX_BYTES_MIN, OUTBOX_BYTES_MAX)
    }

    /// How many bytes wait in all.
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    /// Takes notice that an outbox has grown or shrunk. Most never change: what the socket takes does not wait.
    pub(super) fn change(&self, from: usize, to: usize) {
        if to > from {
            self.total.fetch_add(to - from, Relaxed);
        } else if to < from {
            self.total.fetch_sub(from - to, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuller_all_are_the_less_one_may_hold() {
        let waiting = WaitingBytes::default();
        assert_eq!(waiting.bytes_max_of_one(), OUTBOX_BYTES_MAX);
        waiting.change(0, OUTBOXES_BYTES_MAX - 4 * OUTBOX_BYTES_MAX);
        assert_eq!(waiting.bytes_max_of_one(), OUTBOX_BYTES_MAX);
        waiting.change(0, 2 * OUTBOX_BYTES_MAX);
        assert_eq!(waiting.bytes_max_of_one(), OUTBOX_BYTES_MAX / 2);
        waiting.change(0, OUTBOXES_BYTES_MAX);
        assert_eq!(waiting.bytes_max_of_one(), OUTBOX_BYTES_MIN);
        waiting.change(OUTBOXES_BYTES_MAX, 0);
        assert_eq!(waiting.bytes_max_of_one(), OUTBOX_BYTES_MAX / 2);
    }
}
