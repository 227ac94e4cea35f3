//! Which way each message name of one connection goes: the decisions and routes it keeps at hand.
//!
//! Owned by the connection's session. A cached way holds while the policy and the subscriptions that it depends
//! on stay as they were; a denial is cached like a permit. Nothing here sends a message.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::exchange::directory::RouteVersion;
use crate::exchange::limiter::Buckets;
use crate::exchange::mailbox::{ConnId, Peer};
use crate::exchange::route::Route;
use crate::exchange::shadow::{Judged, Shadow};
use crate::exchange::share::{Holding, Share};
use crate::exchange::turn::Turn;
use crate::exchange::world::World;
use crate::identity::{Identity, Role};
use crate::limits::{CACHED_ROUTES_PER_CONNECTION_MAX, CACHED_TARGETS_PER_CONNECTION_MAX};
use crate::policy::quarantine::Quarantine;
use crate::policy::{Action, Delivery, Denial, Permit, Policy, SubscriptionPermit};
use crate::traffic::flow::{FlowBook, FlowCounters};
use crate::wire::CHECKPOINT_SUBJECT;
use crate::wire::name::{MessageName, Pattern};

/// See the module's documentation.
#[derive(Debug)]
pub struct Ways<P> {
    sender: ConnId,
    identity: Arc<Identity>,
    flows: Arc<FlowBook>,
    buckets: Arc<Buckets>,
    policy: Arc<Policy>,
    shadow: Option<Arc<Shadow>>,
    /// Whether the policy or the candidate is another than at the notice before: else what is open has been judged.
    is_judged_anew: bool,
    quarantine: Arc<Quarantine>,
    /// `None` before the first look.
    policy_generation: Option<u64>,
    epoch: u64,
    /// Targets of all cached routes together.
    cached_targets: usize,
    /// One for each cached way, and for each target.
    held: Holding,
    cached: HashMap<Box<[u8]>, Cached<P>, foldhash::fast::RandomState>,
}

/// Where a message goes, or why it may not.
#[derive(Debug)]
pub enum Way<P> {
    /// It may pass: along this route.
    Open(Rc<Route<P>>),
    /// It may not.
    Denied(Denied),
    /// To the broker itself, which answers for its audit log.
    Checkpoint,
    /// It may, but its sender is held, and nobody would keep it: it is counted here, and refused.
    Held(Arc<FlowCounters>),
}

/// Why a message may not pass, and where that is counted.
#[derive(Debug, Clone)]
pub struct Denied {
    /// The policy's line, or `no grant`.
    pub(super) rule: Rc<str>,
    /// Where it is counted.
    pub(super) flow: Arc<FlowCounters>,
    /// Where it is counted too, if a candidate policy would allow it.
    pub(super) shadow: Option<Judged>,
}

/// By what is decided now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Law<'a> {
    /// The policy in force.
    pub(super) policy: &'a Policy,
    /// The candidate beside it, which decides nothing.
    pub(super) shadow: Option<&'a Shadow>,
    pub(super) now_us: u64,
}

impl Law<'_> {
    /// Whether a service may receive every name that a pattern matches.
    pub(super) fn decide_subscription(
        &self,
        service: &Identity,
        pattern: &Pattern,
    ) -> Result<SubscriptionPermit, Denial> {
        if let Some(shadow) = self.shadow {
            shadow.count_subscription(self.policy, service, pattern, self.now_us);
        }
        self.policy.decide_subscription(service, pattern)
    }
}

#[derive(Debug)]
struct Cached<P> {
    way: Way<P>,
    seen_epoch: u64,
    version: RouteVersion,
}

impl<P> Clone for Way<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Open(route) => Self::Open(Rc::clone(route)),
            Self::Denied(denied) => Self::Denied(denied.clone()),
            Self::Checkpoint => Self::Checkpoint,
            Self::Held(flow) => Self::Held(Arc::clone(flow)),
        }
    }
}

impl<P: Peer> Way<P> {
    fn target_count(&self) -> usize {
        match self {
            Self::Open(route) => route.target_count(),
            Self::Denied(_) | Self::Held(_) | Self::Checkpoint => 0,
        }
    }
}

impl<P: Peer> Ways<P> {
    /// None yet, under the policy in force.
    pub fn new(
        sender: ConnId,
        identity: Arc<Identity>,
        flows: Arc<FlowBook>,
        share: &Share,
        world: &World<P>,
    ) -> Self {
        Self {
            sender,
            identity,
            flows,
            buckets: Arc::clone(&share.buckets),
            policy: world.policy(),
            shadow: None,
            is_judged_anew: true,
            quarantine: world.quarantine(),
            policy_generation: None,
            epoch: world.directory.epoch(),
            cached_targets: 0,
            held: share.cached_routes.hold_none(),
            cached: HashMap::default(),
        }
    }

    /// The policy by which they are decided.
    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The same, with the candidate beside it.
    pub(super) fn law(&self, now_us: u64) -> Law<'_> {
        Law {
            policy: &self.policy,
            shadow: self.shadow.as_deref(),
            now_us,
        }
    }

    /// The same for what is open already. The candidate is asked of it once, not whenever something else has changed.
    pub(super) fn law_for_open(&self, now_us: u64) -> Law<'_> {
        Law {
            shadow: self.shadow.as_deref().filter(|_| self.is_judged_anew),
            ..self.law(now_us)
        }
    }

    /// Takes notice of changed subscriptions.
    pub(super) fn notice_subscriptions(&mut self, world: &World<P>) {
        self.epoch = world.directory.epoch();
    }

    /// Takes notice of a changed policy, of a candidate beside it, or of what is held; says whether one has changed. The first time it says so always: the
    /// policy that admitted the connection may be another already.
    pub(super) fn notice_policy(&mut self, world: &World<P>) -> bool {
        let generation = Some(world.policy_generation());
        if generation == self.policy_generation {
            return false;
        }
        let (policy, shadow) = (world.policy(), world.shadow());
        let is_same = Arc::ptr_eq(&policy, &self.policy)
            && shadow.as_ref().map(Arc::as_ptr) == self.shadow.as_ref().map(Arc::as_ptr);
        self.is_judged_anew = self.policy_generation.is_none() || !is_same;
        self.policy_generation = generation;
        self.policy = policy;
        self.shadow = shadow;
        self.quarantine = world.quarantine();
        self.clear();
        true
    }

    /// Forgets them all.
    pub(super) fn clear(&mut self) {
        self.cached.clear();
        self.cached_targets = 0;
        self.held.shrink(self.held.amount());
    }

    #[cfg(test)]
    pub(super) fn targets_kept(&self) -> usize {
        self.cached.values().map(|cached| cached.way.target_count()).sum()
    }

    /// The decision on a message name and, for a permit, its route; from the cache while nothing has changed.
    pub fn find(&mut self, world: &World<P>, subject: &[u8], turn: &mut Turn<P>) -> Way<P> {
        if let Some(cached) = self.cached.get_mut(subject) {
            if cached.seen_epoch == self.epoch {
                return cached.way.clone();
            }
            if let Way::Open(route) = &cached.way {
                if world.directory.version(route.name().as_str()) == cached.version {
                    cached.seen_epoch = self.epoch;
                    return cached.way.clone();
                }
            } else {
                return cached.way.clone();
            }
        }
        let Ok(name) = MessageName::parse(subject) else {
            if subject == CHECKPOINT_SUBJECT && world.checkpoints.is_some() {
                return Way::Checkpoint;
            }
            return Way::Denied(self.denied(">", subject, "no grant", None, turn));
        };
        let version = world.directory.version(name.as_str());
        let decided = self.policy.decide(&self.identity, Action::Send, &name);
        let judged = self
            .shadow
            .as_ref()
            .and_then(|shadow| shadow.judge_send(&self.policy, &self.identity, &name, &decided));
        let way = match decided {
            Ok(permit) if self.is_held(&permit, &name) => Way::Held(self.flows.counters(name.as_str(), None)),
            Ok(permit) => {
                let seed = self.sender.0;
                let shadow = self.shadow.as_deref().map(|shadow| (shadow, judged));
                Way::Open(Route::find(
                    name,
                    permit,
                    (&self.policy, &self.quarantine),
                    &world.directory,
                    (&self.flows, &self.buckets),
                    seed,
                    shadow,
                ))
            }
            Err(denial) => Way::Denied(self.denied(
                name.as_str(),
                subject,
                &denial.rule_or_no_grant().to_string(),
                judged,
                turn,
            )),
        };
        self.keep(subject, &way, version);
        way
    }

    /// Whether a message waits because of its sender, and has nowhere to wait: tracked ones do so in the store.
    fn is_held(&self, permit: &Permit, name: &MessageName) -> bool {
        let Role::Service(service) = &self.identity.role else {
            return false;
        };
        permit.terms().delivery == Delivery::AtMostOnce && self.quarantine.is_held(service, name.as_str())
    }

    fn keep(&mut self, subject: &[u8], way: &Way<P>, version: RouteVersion) {
        if self.cached.len() >= CACHED_ROUTES_PER_CONNECTION_MAX
            || self.cached_targets >= CACHED_TARGETS_PER_CONNECTION_MAX
        {
            self.clear();
        }
        let cost = 1 + way.target_count();
        if !self.held.grow(cost) {
            // The service's connections together keep too much; this one gives all that it keeps.
            self.clear();
            if !self.held.grow(cost) {
                return;
            }
        }
        self.cached_targets += way.target_count();
        let cached = Cached {
            way: way.clone(),
            seen_epoch: self.epoch,
            version,
        };
        if let Some(old) = self.cached.insert(subject.into(), cached) {
            self.cached_targets -= old.way.target_count();
            self.held.shrink(1 + old.way.target_count());
        }
    }

    fn denied(
        &self,
        counted_as: &str,
        subject: &[u8],
        rule: &str,
        shadow: Option<Judged>,
        turn: &mut Turn<P>,
    ) -> Denied {
        turn.notice("publish", subject, rule);
        Denied {
            rule: Rc::from(rule),
            flow: self.flows.denied_counters(counted_as),
            shadow,
        }
    }
}
