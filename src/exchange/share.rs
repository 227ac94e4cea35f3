//! What all connections of one service hold together, and what they may.
//!
//! A bound for each connection is none for a service that can open thousands. One share bounds what a compromised
//! service can take from the others; it never decides on a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::limits::{LOG_LINES_AT_ONCE, LOG_LINES_PER_S, SUBSCRIPTION_TOKENS_PER_SERVICE_MAX};
use crate::traffic::budget::LineBudget;

/// See the module's documentation. Shared by the connections of one service.
#[derive(Debug)]
pub struct Share {
    connections: AtomicUsize,
    subscription_tokens: AtomicUsize,
    /// Lines about what it was denied.
    pub denial_lines: LineBudget,
    /// Lines about its coming and going.
    pub connection_lines: LineBudget,
}

impl Default for Share {
    fn default() -> Self {
        let lines = || LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S);
        Self {
            connections: AtomicUsize::new(0),
            subscription_tokens: AtomicUsize::new(0),
            denial_lines: lines(),
            connection_lines: lines(),
        }
    }
}

impl Share {
    /// Takes a place for one more connection, if there are fewer than `max`. It is given back when it is dropped.
    pub fn take_place(self: &Arc<Self>, max: usize) -> Option<Place> {
        take(&self.connections, 1, max).then(|| Place(Arc::clone(self)))
    }

    /// Takes room for a subscription's pattern, if there is.
    pub(super) fn take_tokens(&self, tokens: usize) -> bool {
        take(
            &self.subscription_tokens,
            tokens,
            SUBSCRIPTION_TOKENS_PER_SERVICE_MAX,
        )
    }

    /// Gives room back.
    pub(super) fn give_back_tokens(&self, tokens: usize) {
        self.subscription_tokens.fetch_sub(tokens, Relaxed);
    }
}

/// The place of one connection.
#[derive(Debug)]
pub struct Place(Arc<Share>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

fn take(counter: &AtomicUsize, more: usize, max: usize) -> bool {
    let add = |count: usize| count.checked_add(more).filter(|&sum| sum <= max);
    counter.fetch_update(Relaxed, Relaxed, add).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let share = Arc::new(Share::default());
        let places: Vec<_> = (0..2).map(|_| share.take_place(2).unwrap()).collect();
        assert!(share.take_place(2).is_none());
        drop(places);
        assert!(share.take_place(2).is_some());
    }

    #[test]
    fn tokens_are_bounded() {
        let share = Share::default();
        assert!(share.take_tokens(SUBSCRIPTION_TOKENS_PER_SERVICE_MAX));
        assert!(!share.take_tokens(1));
        share.give_back_tokens(5);
        assert!(!share.take_tokens(6));
        assert!(share.take_tokens(5));
    }
}
