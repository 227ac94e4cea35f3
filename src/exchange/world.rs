//! What all sessions share: the policy in force and the live subscriptions.
//!
//! `serve` swaps the policy whole; every session reads the current one when its turn begins. Nothing here decides.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use arc_swap::ArcSwap;

use crate::exchange::directory::Directory;
use crate::policy::Policy;

/// See the module's documentation.
#[derive(Debug)]
pub struct World<P> {
    /// The live subscriptions.
    pub directory: Directory<P>,
    policy: ArcSwap<Policy>,
    policy_generation: AtomicU64,
}

impl<P> World<P>
where
    P: Clone,
{
    /// A world under a policy, with nobody in it.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            directory: Directory::default(),
            policy: ArcSwap::new(policy),
            policy_generation: AtomicU64::new(0),
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Puts another policy in force. Every turn that begins after this returns is decided by it.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.policy.store(policy);
        self.policy_generation.fetch_add(1, Release);
    }

    /// Changes whenever the policy does.
    pub fn policy_generation(&self) -> u64 {
        self.policy_generation.load(Acquire)
    }
}
