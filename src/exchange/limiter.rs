//! The policy's limits on what a service sends, on the way of its messages. All connections of the service take from
//! the same buckets.
//!
//! Says whether one more may pass, and counts nothing; it reads no clock.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::policy::{Limit, Limits, Scope};

/// When the next message of a scope is on time, in nanoseconds: see [`Limits::admit`].
type Bucket = AtomicU64;

/// The buckets of one service: one for each scope that a policy has limited so far. They outlast connections and
/// policies, since neither makes up for what was sent.
#[derive(Debug, Default)]
pub struct Buckets(Mutex<HashMap<Scope, Arc<Bucket>>>);

impl Buckets {
    /// What limits messages to which these limits apply.
    pub(super) fn limiters(&self, limits: &[Limit]) -> Box<[Limiter]> {
        let limiter = |limit: &Limit| {
            let mut buckets = self.0.lock();
            Limiter {
                limits: limit.limits,
                bucket: Arc::clone(buckets.entry(limit.scope.clone()).or_default()),
                rule: limit.rule.to_string().into(),
            }
        };
        limits.iter().map(limiter).collect()
    }
}

/// One limit on the way of a message.
#[derive(Debug)]
pub(super) struct Limiter {
    limits: Limits,
    bucket: Arc<Bucket>,
    rule: Rc<str>,
}

/// Takes one message from each bucket; or from none, and says which line of the policy limits it.
pub(super) fn admit(limiters: &[Limiter], now_us: u64) -> Result<(), &Rc<str>> {
    let now_ns = now_us.saturating_mul(1_000);
    let is_exhausted = |limiter: &&Limiter| {
        let next_ns = limiter.bucket.load(Relaxed);
        limiter.limits.admit(next_ns, now_ns).is_none()
    };
    if let Some(limiter) = limiters.iter().find(is_exhausted) {
        return Err(&limiter.rule);
    }
    for limiter in limiters {
        let take = |next_ns| limiter.limits.admit(next_ns, now_ns);
        if limiter.bucket.fetch_update(Relaxed, Relaxed, take).is_err() {
            // Another connection was quicker.
            return Err(&limiter.rule);
        }
    }
    Ok(())
}
