//! Where a message of one connection goes: the decision, and for a permit the receivers.
//!
//! A connection keeps a route for each message name it uses, until the policy or the subscriptions that it
//! depends on change. A route exists only with a permit.

use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::delivery::DeliveryTerms;
use crate::exchange::directory::Directory;
use crate::exchange::limiter::{self, Buckets, Limiter};
use crate::exchange::mailbox::{ConnId, Peer, Subscription};
use crate::exchange::replies::Origin;
use crate::exchange::shadow::{Judged, Seen, Shadow};
use crate::exchange::share::Allowance;
use crate::identity::{Identity, Role};
use crate::policy::quarantine::Quarantine;
use crate::policy::{Action, Audit, Delivery, Permit, Policy};
use crate::traffic::flow::{FlowBook, FlowCounters};
use crate::wire::encode::{Head, Reason};
use crate::wire::name::MessageName;

/// The way of one message name from one sender.
#[derive(Debug)]
pub struct Route<P> {
    name: MessageName,
    permit: Permit,
    targets: Vec<Target<P>>,
    /// Targets that each get every message.
    plain: Vec<u32>,
    /// Of each group's targets, one gets a message.
    groups: Vec<Group>,
    nobody: Arc<FlowCounters>,
    tracked: Option<Tracked>,
    /// The message name, where each message is recorded by itself.
    each: Option<Arc<str>>,
    limiters: Box<[Limiter]>,
    /// Whether somebody would receive it who is held.
    is_withheld: bool,
    shadow: Option<Box<Beside>>,
}

/// What is counted beside each message while a candidate policy is tried that would treat it otherwise.
#[derive(Debug)]
struct Beside {
    /// The message.
    judged: Option<Judged>,
    /// That it would be kept for further services.
    kept_for: Box<[Arc<Seen>]>,
}

/// What a tracked message needs in place of live subscriptions: the services that receive it, there or not.
#[derive(Debug)]
pub struct Tracked {
    /// The message name.
    pub name: Arc<str>,
    /// How it is delivered.
    pub terms: DeliveryTerms,
    /// The services that receive it.
    pub receivers: Arc<[Arc<str>]>,
}

/// One subscription that a route leads to.
#[derive(Debug)]
pub struct Target<P> {
    /// Whose it is.
    pub peer: P,
    /// The subscription.
    pub subscription: Arc<Subscription>,
    /// How each message begins there.
    pub head: Head,
    /// Its service.
    pub service: Arc<str>,
    /// The flow to that.
    pub flow: Arc<FlowCounters>,
    /// Where deliveries are counted that a candidate policy would deny.
    pub(super) shadow: Option<Arc<Seen>>,
    /// What its requests have in common, made with the first.
    origin: OnceCell<Arc<Origin<P>>>,
}

impl<P: Clone> Target<P> {
    /// What the requests have in common that the owner of this route sends there.
    pub(super) fn origin(
        &self,
        sender: &P,
        service: &Arc<str>,
        name: &MessageName,
        requests: &Arc<Allowance>,
    ) -> &Arc<Origin<P>> {
        self.origin.get_or_init(|| {
            Arc::new(Origin {
                peer: Some(sender.clone()),
                service: Arc::clone(service),
                name: name.as_str().into(),
                flow: Arc::clone(&self.flow),
                requests: Some(Arc::clone(requests)),
            })
        })
    }

    /// Whether both are of one group: of the same service, whose flow is the same, under the same name.
    pub fn shares_group_with(&self, other: &Self) -> bool {
        self.subscription.queue.is_some()
            && self.subscription.queue == other.subscription.queue
            && Arc::ptr_eq(&self.flow, &other.flow)
    }
}

#[derive(Debug)]
struct Group {
    members: Vec<u32>,
    next: Cell<usize>,
}

impl<P: Peer> Route<P> {
    /// Finds the receivers of a permitted message: every live subscription whose service may receive it under
    /// the same policy, and is not held. It is counted and limited by what the sender has for that; `seed` spreads senders over the
    /// members of a group.
    pub(super) fn find(
        name: MessageName,
        permit: Permit,
        (policy, quarantine): (&Policy, &Quarantine),
        directory: &Directory<P>,
        (flows, buckets): (&FlowBook, &Buckets),
        seed: u64,
        shadow: Option<(&Shadow, Option<Judged>)>,
    ) -> Rc<Self> {
        let nobody = flows.counters(name.as_str(), None);
        let tracked = (permit.terms().delivery == Delivery::AtLeastOnce).then(|| Tracked {
            name: name.as_str().into(),
            terms: DeliveryTerms::of(permit.terms()),
            receivers: policy.receivers(&name).cloned().collect(),
        });
        let (shadow, judged) = shadow.unzip();
        let beside = Beside {
            judged: judged.flatten(),
            kept_for: match (shadow, &tracked) {
                (Some(shadow), Some(_)) => shadow.judge_receivers(policy, &name),
                _ => Box::default(),
            },
        };
        let each = (permit.terms().audit == Audit::Each).then(|| Arc::from(name.as_str()));
        let mut route = Self {
            limiters: buckets.limiters(permit.limits()),
            is_withheld: false,
            name,
            permit,
            targets: Vec::new(),
            plain: Vec::new(),
            groups: Vec::new(),
            nobody,
            tracked,
            each,
            shadow: beside.is_otherwise().then(|| Box::new(beside)),
        };
        if route.tracked.is_some() {
            return Rc::new(route);
        }
        let mut group_of: HashMap<(Arc<str>, Box<[u8]>), usize> = HashMap::new();
        let mut known: Option<Known> = None;
        for entry in directory.find(&route.name) {
            let known = match &mut known {
                Some(last) if same_party(&last.identity, &entry.identity) => last,
                _ => known.insert(Known::decide(&route.name, &entry.identity, policy, flows, shadow)),
            };
            let Some(receiver) = known.receiver.clone() else {
                continue;
            };
            let Receiver {
                service,
                flow,
                shadow,
            } = receiver;
            if quarantine.is_held(&service, route.name.as_str()) {
                route.is_withheld = true;
                continue;
            }
            let index = u32::try_from(route.targets.len()).expect("far fewer subscriptions than 2^32");
            match &entry.subscription.queue {
                None => route.plain.push(index),
                Some(queue) => {
                    // A group belongs to one service: another could take its messages by naming it.
                    let group = *group_of
                        .entry((Arc::clone(&service), queue.clone()))
                        .or_insert_with(|| {
                            route.groups.push(Group {
                                members: Vec::new(),
                                next: Cell::new(0),
                            });
                            route.groups.len() - 1
                        });
                    route
                        .groups
                        .get_mut(group)
                        .expect("one for each queue")
                        .members
                        .push(index);
                }
            }
            route.targets.push(Target {
                origin: OnceCell::new(),
                peer: entry.peer,
                head: Head::new(route.name.as_str().as_bytes(), &entry.subscription.sid),
                subscription: entry.subscription,
                service,
                flow,
                shadow,
            });
        }
        for group in &route.groups {
            group
                .next
                .set(usize::try_from(seed).unwrap_or(0) % group.members.len());
        }
        Rc::new(route)
    }

    /// The message name.
    pub const fn name(&self) -> &MessageName {
        &self.name
    }

    /// The evidence that the message may pass.
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The subscription at a place of this route.
    pub fn target(&self, index: u32) -> &Target<P> {
        self.targets
            .get(index as usize)
            .expect("indices come from this route")
    }

    /// How many subscriptions it leads to.
    pub const fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// What the message needs if it is tracked.
    pub const fn tracked(&self) -> Option<&Tracked> {
        self.tracked.as_ref()
    }

    /// The message name, where each message is recorded by itself.
    pub const fn each(&self) -> Option<&Arc<str>> {
        self.each.as_ref()
    }

    /// Counts what a candidate policy would do otherwise with a message about which the policy in force has decided.
    pub(super) fn count_beside(&self, payload_bytes: usize, now_us: u64) {
        if let Some(beside) = &self.shadow {
            beside.count(payload_bytes, now_us);
        }
    }

    /// Whether one more message may come now; if not, the line of the policy that limits it.
    pub(super) fn admit(&self, now_us: u64) -> Result<(), &Rc<str>> {
        if self.limiters.is_empty() {
            return Ok(());
        }
        limiter::admit(&self.limiters, now_us)
    }

    /// Where messages are counted that reach nobody.
    pub const fn nobody(&self) -> &Arc<FlowCounters> {
        &self.nobody
    }

    /// How long its requests wait for an answer, in microseconds.
    pub(super) fn reply_within_us(&self) -> u64 {
        u64::try_from(self.permit.terms().reply_within.as_micros()).unwrap_or(u64::MAX)
    }

    /// Why a message that reaches nobody does not.
    pub(super) const fn missing(&self) -> Reason {
        if self.is_withheld {
            Reason::Quarantined
        } else {
            Reason::NoReceiver
        }
    }

    /// Counts a message that nobody is there to receive.
    pub fn count_no_receiver(&self) {
        self.nobody.count_no_receiver();
    }

    /// Counts a message that was denied for what it carries, not for its name.
    pub fn count_denied(&self) {
        self.nobody.count_denied();
    }

    /// Chooses who gets the next message: all plain targets, and one of each group, in turn, and rather one
    /// whose outbox is short. `skipped` is the sender itself where it wants no echo.
    pub fn choose(&self, skipped: Option<ConnId>, mut each: impl FnMut(u32)) {
        let may_get = |index: u32| {
            let target = self.target(index);
            skipped.is_none_or(|sender| target.peer.id() != sender) && !target.subscription.has_ended()
        };
        self.plain
            .iter()
            .copied()
            .filter(|&index| may_get(index))
            .for_each(&mut each);
        for group in &self.groups {
            let count = group.members.len();
            let start = group.next.get();
            let in_turn = (0..count).map(|step| (start + step) % count);
            let mut fallback = None;
            let mut chosen = None;
            for place in in_turn {
                let Some(&index) = group.members.get(place) else {
                    continue;
                };
                if !may_get(index) {
                    continue;
                }
                if self.target(index).peer.is_ready() {
                    chosen = Some((place, index));
                    break;
                }
                fallback.get_or_insert((place, index));
            }
            if let Some((place, index)) = chosen.or(fallback) {
                group.next.set((place + 1) % count);
                each(index);
            }
        }
    }
}

impl Beside {
    fn is_otherwise(&self) -> bool {
        self.judged.is_some() || !self.kept_for.is_empty()
    }

    #[cold]
    fn count(&self, payload_bytes: usize, now_us: u64) {
        if let Some(judged) = &self.judged {
            judged.count(payload_bytes, now_us);
        }
        for seen in &self.kept_for {
            seen.count(now_us);
        }
    }
}

/// Whether one service may receive the message, asked once for all its instances in a row.
struct Known {
    identity: Arc<Identity>,
    /// The service, if it may.
    receiver: Option<Receiver>,
}

/// A service that may receive the message.
#[derive(Clone)]
struct Receiver {
    service: Arc<str>,
    flow: Arc<FlowCounters>,
    /// Where deliveries are counted that a candidate policy would deny.
    shadow: Option<Arc<Seen>>,
}

impl Known {
    fn decide(
        name: &MessageName,
        identity: &Arc<Identity>,
        policy: &Policy,
        flows: &FlowBook,
        shadow: Option<&Shadow>,
    ) -> Self {
        let permit = policy.decide(identity, Action::Receive, name);
        let receiver = match (&identity.role, permit) {
            (Role::Service(service), Ok(permit)) => Some(Receiver {
                service: Arc::clone(service),
                flow: flows.counters(name.as_str(), Some(service)),
                shadow: shadow.and_then(|shadow| shadow.judge_receive(policy, identity, name, &permit)),
            }),
            _ => None,
        };
        Self {
            identity: Arc::clone(identity),
            receiver,
        }
    }
}

fn same_party(a: &Identity, b: &Identity) -> bool {
    a.role == b.role && a.trust_domain == b.trust_domain
}
