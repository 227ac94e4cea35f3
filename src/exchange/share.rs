//! What all connections of one service hold together, and what they may.
//!
//! A bound for each connection is none for a service that can open thousands. One share bounds what a compromised
//! service can take from the others; it never decides on a message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::exchange::limiter::Buckets;
use crate::limits::{
    CACHED_ROUTES_PER_SERVICE_MAX, LOG_LINES_AT_ONCE, LOG_LINES_PER_S, PENDING_REPLIES_PER_SERVICE_MAX,
    REQUESTS_PER_SERVICE_MAX, SUBSCRIPTION_TOKENS_PER_SERVICE_MAX,
};
use crate::traffic::budget::LineBudget;

/// See the module's documentation. Shared by the connections of one service.
#[derive(Debug)]
pub struct Share {
    /// Connections; how many there may be is for the configuration to say.
    pub connections: Arc<Allowance>,
    /// Tokens of the patterns that they subscribe to.
    pub subscription_tokens: Arc<Allowance>,
    /// Requests of theirs that wait for an answer.
    pub requests: Arc<Allowance>,
    /// Places in their tables for requests that wait for their answers.
    pub pending_replies: Arc<Allowance>,
    /// Routes, with their receivers, that they keep at hand.
    pub cached_routes: Arc<Allowance>,
    /// What its messages take from, where the policy limits them.
    pub buckets: Arc<Buckets>,
    /// Lines about what it was denied.
    pub denial_lines: LineBudget,
    /// Lines about its coming and going.
    pub connection_lines: LineBudget,
}

impl Default for Share {
    fn default() -> Self {
        let lines = || LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S);
        let allow = |max: usize| Arc::new(Allowance::new(max));
        Self {
            connections: allow(usize::MAX),
            subscription_tokens: allow(SUBSCRIPTION_TOKENS_PER_SERVICE_MAX),
            requests: allow(REQUESTS_PER_SERVICE_MAX),
            pending_replies: allow(PENDING_REPLIES_PER_SERVICE_MAX),
            cached_routes: allow(CACHED_ROUTES_PER_SERVICE_MAX),
            buckets: Arc::default(),
            denial_lines: lines(),
            connection_lines: lines(),
        }
    }
}

/// So much of something as may be held together.
#[derive(Debug)]
pub struct Allowance {
    held: AtomicUsize,
    max: usize,
}

impl Allowance {
    /// Of which nothing is held yet.
    pub const fn new(max: usize) -> Self {
        Self {
            held: AtomicUsize::new(0),
            max,
        }
    }

    /// Takes one more, if fewer than `max` are held.
    pub fn take_one_below(self: &Arc<Self>, max: usize) -> Option<Holding> {
        let mut holding = self.hold_none();
        holding.grow_up_to(1, max).then_some(holding)
    }

    /// Takes one more, if there is one left.
    pub fn take_one(self: &Arc<Self>) -> Option<Holding> {
        self.take_one_below(self.max)
    }

    /// Takes so much, if there is as much left. To be given back by the caller.
    pub(super) fn take(&self, more: usize) -> bool {
        self.take_up_to(more, self.max)
    }

    /// Gives so much back.
    pub(super) fn give_back(&self, less: usize) {
        self.held.fetch_sub(less, Relaxed);
    }

    fn take_up_to(&self, more: usize, max: usize) -> bool {
        let add = |held: usize| held.checked_add(more).filter(|&sum| sum <= max);
        self.held.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// A holding of nothing, which can grow.
    pub fn hold_none(self: &Arc<Self>) -> Holding {
        Holding {
            of: Arc::clone(self),
            amount: 0,
        }
    }
}

/// A part of an allowance. It is given back when it is dropped.
#[derive(Debug)]
pub struct Holding {
    of: Arc<Allowance>,
    amount: usize,
}

impl Holding {
    /// How much it is.
    pub const fn amount(&self) -> usize {
        self.amount
    }

    /// Takes so much more, if there is as much left.
    pub fn grow(&mut self, more: usize) -> bool {
        self.grow_up_to(more, self.of.max)
    }

    /// Gives so much back, at most all.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.amount);
        self.amount -= less;
        self.of.give_back(less);
    }

    fn grow_up_to(&mut self, more: usize, max: usize) -> bool {
        let has_grown = self.of.take_up_to(more, max);
        if has_grown {
            self.amount += more;
        }
        has_grown
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.shrink(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let allowance = Arc::new(Allowance::new(3));
        let (mut first, mut second) = (allowance.hold_none(), allowance.hold_none());
        assert!(first.grow(2));
        assert!(!second.grow(2));
        assert!(second.grow(1));
        assert!(allowance.take_one().is_none());
        first.shrink(1);
        assert!(allowance.take_one_below(2).is_none());
        let third = allowance.take_one().unwrap();
        assert_eq!((first.amount(), second.amount(), third.amount()), (1, 1, 1));
        drop((first, second, third));
        assert!(allowance.hold_none().grow(3));
        assert!(!allowance.hold_none().grow(usize::MAX));
    }
}
