//! One connection as a sender: gives what its turn gathered to the receivers, and accounts for what they did not
//! take.
//!
//! Owned by the connection's session. Each receiver is locked once; nothing is handed over without the route of a
//! permit, or the token that a request left. Nothing here decides.

use std::rc::Rc;
use std::sync::Arc;

use crate::audit::each::{EachMessage, Outcome};
use crate::exchange::mailbox::{ConnId, Mailbox, NotTaken, Peer};
use crate::exchange::replies::{Asker, InboxName, Pending, Siblings};
use crate::exchange::route::{Route, Target, Tracked};
use crate::exchange::share::Allowance;
use crate::exchange::tracked::{Happened, TrackedPublish};
use crate::exchange::turn::{Batch, Delivery, EachNotes, Item, MessageRef, Turn};
use crate::exchange::ways::{Way, Ways};
use crate::exchange::world::World;
use crate::limits::DELIVERIES_PER_BATCH_MAX;
use crate::traffic::flow::FlowCounters;
use crate::wire::encode::{Content, Reason, Refusal, ReplyToken, Stamp};

/// How often a message is routed anew because its receiver left while it was on its way.
const RETRIES_MAX: u8 = 3;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Handover<P> {
    peer: P,
    service: Arc<str>,
    /// The headers that name the sender.
    stamp: Stamp,
    /// The requests of all connections of its service.
    requests: Arc<Allowance>,
    /// Whether its own messages come back to it.
    pub(super) echo: bool,
}

impl<P: Peer> Handover<P> {
    /// That of a connection of this service, whose messages are stamped so.
    pub(super) fn new(peer: P, service: Arc<str>, stamp: Stamp, requests: Arc<Allowance>) -> Self {
        Self {
            peer,
            service,
            stamp,
            requests,
            echo: true,
        }
    }

    /// Gives a permitted message to the batches of its receivers, and hands these over where they have become many:
    /// one message may have more receivers than a turn has messages.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a turn needs, and the message of which it is about"
    )]
    pub(super) fn send(
        &self,
        world: &World<P>,
        ways: &mut Ways<P>,
        buffer: &[u8],
        route: &Rc<Route<P>>,
        message: MessageRef,
        turn: &mut Turn<P>,
        now_us: u64,
    ) {
        let mut chosen = std::mem::take(&mut turn.chosen);
        route.choose(self.skipped(), |target| chosen.push(target));
        if chosen.is_empty() {
            route.count_no_receiver();
            let noted = Noted {
                route,
                target: None,
                message,
                outcome: Outcome::NoReceiver,
            };
            self.note_loss(turn, buffer, &noted, now_us);
            turn.refuse(message, route.missing(), None);
        }
        let siblings = if chosen.len() > 1 && turn.is_request(message) {
            Siblings::of(chosen.len())
        } else {
            None
        };
        let used = turn.use_route(route);
        for target in chosen.drain(..) {
            let delivery = Delivery {
                route: used,
                target,
                message,
                siblings: siblings.clone(),
                retries: 0,
            };
            turn.add(&route.target(target).peer, delivery);
            if turn.deliveries >= DELIVERIES_PER_BATCH_MAX {
                self.hand_over(world, ways, buffer, turn, now_us);
            }
        }
        turn.chosen = chosen;
    }

    /// Hands over everything that the turn gathered. After this returns, it is in the receivers' outboxes, or
    /// accounted for with the reason why not.
    pub(super) fn finish(
        &self,
        world: &World<P>,
        ways: &mut Ways<P>,
        buffer: &[u8],
        turn: &mut Turn<P>,
        now_us: u64,
    ) {
        self.hand_over(world, ways, buffer, turn, now_us);
        self.give_to_intake(world, turn);
        // Last: whoever reads that a request failed may rely on all that it sent before having been handed over.
        self.tell_refusals(ways.policy().version(), buffer, turn);
        turn.clear();
    }

    fn hand_over(
        &self,
        world: &World<P>,
        ways: &mut Ways<P>,
        buffer: &[u8],
        turn: &mut Turn<P>,
        now_us: u64,
    ) {
        if turn.deliveries > 0 {
            self.say(&mut turn.control);
        }
        while turn.deliveries > 0 {
            for (delivery, why) in self.hand_over_batches(buffer, turn, now_us) {
                self.account_for(world, ways, buffer, &delivery, why, turn, now_us);
            }
        }
        turn.each.give(world.audit.as_deref());
    }

    /// Puts bytes for the connection's own client into its outbox.
    pub(super) fn say(&self, control: &mut Vec<u8>) {
        if !control.is_empty() {
            self.peer
                .with_mailbox(|mailbox| mailbox.outbox.bytes_mut().extend_from_slice(control));
            control.clear();
        }
    }

    /// Tells the client which of its requests cannot succeed, after the errors that belong to them.
    fn tell_refusals(&self, policy: &str, buffer: &[u8], turn: &mut Turn<P>) {
        if turn.refusals.is_empty() {
            return;
        }
        let refusals = std::mem::take(&mut turn.refusals);
        self.peer.with_mailbox(|mailbox| {
            mailbox.outbox.bytes_mut().extend_from_slice(&turn.control);
            for refused in refusals {
                let inbox = turn.inbox(buffer, refused.message).unwrap_or_default();
                let rule = refused.rule.as_deref();
                mailbox.refuse(
                    inbox,
                    &Refusal {
                        reason: refused.reason,
                        rule,
                        policy,
                    },
                );
            }
        });
        turn.control.clear();
    }

    /// Gives each receiver its batch; gives back what was not taken.
    fn hand_over_batches(&self, buffer: &[u8], turn: &mut Turn<P>, now_us: u64) -> Vec<(Delivery, NotTaken)> {
        let batches = turn.take_batches();
        let mut each = std::mem::take(&mut turn.each);
        let mut not_taken = Vec::new();
        for Batch { peer, mut items } in batches {
            peer.with_mailbox(|mailbox| {
                // Locked at the first request.
                let mut replies = None;
                let mut open = |pending| {
                    let replies = replies.get_or_insert_with(|| peer.replies());
                    replies.open(pending)
                };
                for item in items.drain(..) {
                    match item {
                        Item::Message(delivery) => {
                            match self.deliver(mailbox, &mut open, &delivery, buffer, turn, now_us) {
                                Ok(()) => {
                                    let route = turn.route(&delivery);
                                    if route.each().is_some() {
                                        let noted = Noted {
                                            route,
                                            target: Some(route.target(delivery.target)),
                                            message: delivery.message,
                                            outcome: Outcome::Delivered,
                                        };
                                        self.note(&mut each, turn, buffer, &noted, now_us);
                                    }
                                }
                                Err(why) => not_taken.push((delivery, why)),
                            }
                        }
                        Item::Answer(place, message) => {
                            let content = turn.content(&self.stamp, buffer, message);
                            answer(mailbox, turn.answered(place), &content, now_us);
                        }
                    }
                }
            });
            turn.reuse(items);
            if !peer.is_ready() {
                turn.slow.push(peer);
            }
        }
        turn.each = each;
        not_taken
    }

    /// Notes what became of a message, where its policy asks for that.
    #[cold]
    fn note(&self, each: &mut EachNotes, turn: &Turn<P>, buffer: &[u8], noted: &Noted<'_, P>, now_us: u64) {
        let Some(name) = noted.route.each() else { return };
        let payload = turn.content(&self.stamp, buffer, noted.message).payload;
        let digest = each.digest(noted.message, payload);
        each.messages.push(EachMessage {
            at_us: now_us,
            sender: Arc::clone(&self.service),
            sender_connection: self.peer.id().0,
            message: Arc::clone(name),
            receiver: noted.target.map(|target| Arc::clone(&target.service)),
            receiver_connection: noted.target.map_or(0, |target| target.peer.id().0),
            bytes: payload.len() as u64,
            digest,
            outcome: noted.outcome,
            seq: 0,
            attempt: 0,
        });
    }

    /// Notes a message that was not delivered.
    fn note_loss(&self, turn: &mut Turn<P>, buffer: &[u8], noted: &Noted<'_, P>, now_us: u64) {
        let mut each = std::mem::take(&mut turn.each);
        self.note(&mut each, turn, buffer, noted, now_us);
        turn.each = each;
    }

    fn deliver(
        &self,
        mailbox: &mut Mailbox,
        open: impl FnOnce(Pending<P>) -> Option<ReplyToken>,
        delivery: &Delivery,
        buffer: &[u8],
        turn: &Turn<P>,
        now_us: u64,
    ) -> Result<(), NotTaken> {
        let route = turn.route(delivery);
        let target = route.target(delivery.target);
        let content = turn.content(&self.stamp, buffer, delivery.message);
        let open = turn.inbox(buffer, delivery.message).map(|inbox| {
            || {
                let origin = target.origin(&self.peer, &self.service, route.name(), &self.requests);
                open(Pending {
                    request: origin.request()?,
                    inbox: Some(InboxName::from_slice(inbox)),
                    opened_us: now_us,
                    deadline_us: now_us.saturating_add(route.reply_within_us()),
                    siblings: delivery.siblings.clone(),
                    attempt: None,
                })
            }
        });
        mailbox.deliver(&target.subscription, &target.head, &content, open)?;
        target.flow.count_delivered(content.payload.len());
        if let Some(seen) = &target.shadow {
            seen.count(now_us);
        }
        Ok(())
    }

    /// A delivery that its receiver did not take: goes to another instance where the first has left, or is
    /// counted and, for a request, told.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a turn needs, and the delivery of which it is about"
    )]
    fn account_for(
        &self,
        world: &World<P>,
        ways: &mut Ways<P>,
        buffer: &[u8],
        delivery: &Delivery,
        why: NotTaken,
        turn: &mut Turn<P>,
        now_us: u64,
    ) {
        let route = Rc::clone(turn.route(delivery));
        let target = route.target(delivery.target);
        if why == NotTaken::Gone && target.subscription.queue.is_some() && delivery.retries < RETRIES_MAX {
            ways.notice_subscriptions(world);
            if let Way::Open(route) = ways.find(world, route.name().as_str().as_bytes(), turn) {
                if !self.send_to_group(&route, delivery, target, turn) {
                    let noted = Noted {
                        route: &route,
                        target: None,
                        message: delivery.message,
                        outcome: Outcome::NoReceiver,
                    };
                    self.note_loss(turn, buffer, &noted, now_us);
                }
                return;
            }
        }
        target.flow.count_dropped();
        let noted = Noted {
            route: &route,
            target: Some(target),
            message: delivery.message,
            outcome: Outcome::Dropped,
        };
        self.note_loss(turn, buffer, &noted, now_us);
        if delivery
            .siblings
            .as_ref()
            .is_none_or(|siblings| siblings.one_less())
        {
            let reason = if why == NotTaken::Full {
                Reason::Overloaded
            } else {
                Reason::ReceiverLost
            };
            turn.refuse(delivery.message, reason, None);
        }
    }

    /// Sends a message that one of a group did not take to another of the same group. Says whether there is one.
    fn send_to_group(
        &self,
        route: &Rc<Route<P>>,
        delivery: &Delivery,
        left: &Target<P>,
        turn: &mut Turn<P>,
    ) -> bool {
        let mut chosen = None;
        route.choose(self.skipped(), |target| {
            if route.target(target).shares_group_with(left) {
                chosen = Some(target);
            }
        });
        let Some(target) = chosen else {
            route.count_no_receiver();
            if delivery
                .siblings
                .as_ref()
                .is_none_or(|siblings| siblings.one_less())
            {
                turn.refuse(delivery.message, route.missing(), None);
            }
            return false;
        };
        let used = turn.use_route(route);
        let retry = Delivery {
            route: used,
            target,
            retries: delivery.retries + 1,
            ..delivery.clone()
        };
        turn.add(&route.target(target).peer, retry);
        true
    }

    /// Makes a permitted message ready to be stored.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is the message, and where it goes"
    )]
    pub(super) fn track(
        &self,
        tracked: &Tracked,
        is_each: bool,
        id: Option<Arc<str>>,
        message: MessageRef,
        buffer: &[u8],
        flow: Arc<FlowCounters>,
        turn: &mut Turn<P>,
    ) {
        let content = turn.content(&self.stamp, buffer, message);
        let message = TrackedPublish {
            asker: turn.inbox(buffer, message).map(|inbox| self.asker(inbox)),
            sender: Arc::clone(&self.service),
            name: Arc::clone(&tracked.name),
            terms: tracked.terms,
            receivers: Arc::clone(&tracked.receivers),
            id,
            each: is_each.then(|| self.peer.id()),
            headers: content.headers.into(),
            payload: content.payload.into(),
            flow,
        };
        turn.happened.push(Happened::Published(Box::new(message)));
    }

    /// Gives tracked messages and what was said of attempts to their owner. What finds no room there is refused.
    fn give_to_intake(&self, world: &World<P>, turn: &mut Turn<P>) {
        if turn.happened.is_empty() {
            return;
        }
        let given_back = match &world.intake {
            Some(intake) => intake.give(&mut turn.happened),
            None => Vec::new(),
        };
        turn.happened.clear();
        let policy = world.policy();
        for message in given_back {
            message.flow.count_dropped();
            if let Some(asker) = message.asker {
                let refusal = Refusal {
                    reason: Reason::Overloaded,
                    rule: None,
                    policy: policy.version(),
                };
                asker
                    .peer
                    .with_mailbox(|mailbox| mailbox.refuse(&asker.inbox, &refusal));
            }
        }
    }

    fn asker(&self, inbox: &[u8]) -> Asker<P> {
        Asker {
            peer: self.peer.clone(),
            inbox: InboxName::from_slice(inbox),
        }
    }

    /// The connection itself, where it wants no echo.
    fn skipped(&self) -> Option<ConnId> {
        (!self.echo).then(|| self.peer.id())
    }
}

/// What became of a message.
struct Noted<'a, P> {
    route: &'a Route<P>,
    target: Option<&'a Target<P>>,
    message: MessageRef,
    outcome: Outcome,
}

/// Gives an answer to the one who asked, and counts it.
fn answer<P>(mailbox: &mut Mailbox, pending: &Pending<P>, content: &Content<'_>, now_us: u64) {
    let flow = &pending.request.flow;
    flow.count_response(now_us.saturating_sub(pending.opened_us));
    if let Some(siblings) = &pending.siblings {
        siblings.answered();
    }
    let inbox = pending.inbox.as_deref().unwrap_or_default();
    if mailbox.answer(inbox, content).is_err() {
        flow.count_reply_dropped();
    }
}

/// Tells the requesters of requests that cannot succeed any more. An attempt of a tracked message is none: its own
/// task tries again.
pub(super) fn give_up<P: Peer>(lost: &[Pending<P>], reason: Reason, policy: &str) {
    let mut askers: Vec<(&P, &[u8])> = lost
        .iter()
        .filter(|pending| pending.attempt.is_none() && pending.give_up())
        .filter_map(Pending::asker)
        .collect();
    askers.sort_by_key(|(peer, _)| peer.id());
    for same in askers.chunk_by(|(a, _), (b, _)| a.id() == b.id()) {
        let Some((peer, _)) = same.first() else { continue };
        peer.with_mailbox(|mailbox| {
            for (_, inbox) in same {
                mailbox.refuse(
                    inbox,
                    &Refusal {
                        reason,
                        rule: None,
                        policy,
                    },
                );
            }
        });
    }
}
