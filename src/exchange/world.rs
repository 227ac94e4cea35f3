//! What all sessions share: the policy in force, what is held, the live subscriptions, and what each service may
//! hold.
//!
//! `serve` swaps the policy whole; every session reads the current one when its turn begins. Nothing here decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use crate::exchange::checkpoints::CheckpointDesk;
use crate::exchange::directory::Directory;
use crate::exchange::shadow::Shadow;
use crate::exchange::share::Share;
use crate::exchange::tracked::Intake;
use crate::policy::Policy;
use crate::policy::quarantine::Quarantine;

/// See the module's documentation.
#[derive(Debug)]
pub struct World<P> {
    /// The live subscriptions.
    pub directory: Directory<P>,
    policy: ArcSwap<Policy>,
    quarantine: ArcSwap<Quarantine>,
    policy_generation: AtomicU64,
    shadow: ArcSwapOption<Shadow>,
    is_halted: AtomicBool,
    shares: Mutex<HashMap<Arc<str>, Arc<Share>>>,
    /// The way to the audit log, where there is one.
    pub audit: Option<Arc<crate::audit::intake::Intake>>,
    /// The way to who answers for the audit log's checkpoints, where there is one.
    pub checkpoints: Option<Arc<CheckpointDesk<P>>>,
    /// The way to the owner of the tracked messages; `None` where no store is configured.
    pub intake: Option<Arc<Intake<P>>>,
}

impl<P> World<P>
where
    P: Clone,
{
    /// A world under a policy, with nobody in it. Without an intake the policy must ask for no durable delivery.
    pub fn new(policy: Arc<Policy>, intake: Option<Arc<Intake<P>>>) -> Self {
        Self {
            directory: Directory::default(),
            policy: ArcSwap::new(policy),
            quarantine: ArcSwap::default(),
            policy_generation: AtomicU64::new(0),
            shadow: ArcSwapOption::empty(),
            is_halted: AtomicBool::new(false),
            shares: Mutex::default(),
            audit: None,
            checkpoints: None,
            intake,
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
        self.wake_deliveries();
    }

    /// The candidate that is tried beside the policy in force.
    pub fn shadow(&self) -> Option<Arc<Shadow>> {
        self.shadow.load_full()
    }

    /// Tries a candidate beside the policy in force, or none any more. Every turn that begins after this returns asks
    /// it.
    pub fn set_shadow(&self, shadow: Option<Arc<Shadow>>) {
        self.shadow.store(shadow);
        self.policy_generation.fetch_add(1, Release);
        self.wake_deliveries();
    }

    /// What is held.
    pub fn quarantine(&self) -> Arc<Quarantine> {
        self.quarantine.load_full()
    }

    /// Holds this and nothing else. Every turn that begins after this returns goes by it.
    pub fn set_quarantine(&self, quarantine: Arc<Quarantine>) {
        self.quarantine.store(quarantine);
        self.policy_generation.fetch_add(1, Release);
        self.wake_deliveries();
    }

    /// Whether what services send is refused, since it could not be accounted for.
    pub fn is_halted(&self) -> bool {
        self.is_halted.load(Acquire)
    }

    /// Refuses all that services send from their next turns on, or lets it pass again.
    pub fn set_halted(&self, is_halted: bool) {
        self.is_halted.store(is_halted, Release);
    }

    /// Tells the owner of the tracked messages that a receiver may have come.
    pub fn wake_deliveries(&self) {
        if let Some(intake) = &self.intake {
            intake.wake();
        }
    }

    /// The share of a service that the policy lists; the same each time.
    pub fn share(&self, service: &Arc<str>) -> Arc<Share> {
        Arc::clone(self.shares.lock().entry(Arc::clone(service)).or_default())
    }

    /// Changes whenever the policy does, the candidate beside it, or what is held: what was decided before is decided
    /// anew.
    pub fn policy_generation(&self) -> u64 {
        self.policy_generation.load(Acquire)
    }
}
