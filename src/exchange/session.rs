//! One connection's session: what its operations do.
//!
//! Owned by the connection's task alone. Operations come in with [`Session::handle`], which gathers what they
//! lead to in a [`Turn`]; [`Session::finish`] hands that to the receivers. The session never waits and never
//! writes to a socket; it reads no clock.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};

use arc_swap::ArcSwap;

use crate::exchange::directory::{Directory, Entry, RouteVersion};
use crate::exchange::mailbox::{NotTaken, Peer, Subscription};
use crate::exchange::options::ConnectOptions;
use crate::exchange::replies::{Pending, Siblings};
use crate::exchange::route::Route;
use crate::exchange::turn::{Answer, Batch, Delivery, DenialNotice, MessageRef, Turn, range_in};
use crate::identity::Identity;
use crate::limits::{
    CACHED_ROUTES_PER_CONNECTION_MAX, DELIVERIES_PER_BATCH_MAX, INBOX_BYTES_MAX,
    SUBSCRIPTIONS_PER_CONNECTION_MAX,
};
use crate::policy::{Action, Policy};
use crate::traffic::flow::{FlowBook, FlowCounters};
use crate::wire::REPLY_PREFIX;
use crate::wire::decode::{ClientOp, Publish};
use crate::wire::encode::{self, ErrText, Reason, Refusal, ReplyToken};
use crate::wire::name::{MessageName, Pattern};
use crate::wire::printable;

/// How often a message is routed anew because its receiver left while it was on its way.
const RETRIES_MAX: u8 = 3;

/// How much of a hostile name goes into a log line, in bytes.
const SHOWN_BYTES_MAX: usize = 128;

/// What all sessions share: the policy in force and the live subscriptions.
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

/// What the connection has to do after an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    GoOn,
    /// Send what is in the turn, then this error, and end.
    End(ErrText<'static>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    ExpectConnect,
    Ready,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session<P> {
    peer: P,
    identity: Arc<Identity>,
    zone: Option<Arc<str>>,
    state: State,
    options: ConnectOptions,
    stamp: Box<[u8]>,
    subscriptions: HashMap<Box<[u8]>, Listening>,
    subscriptions_made: u64,
    routes: HashMap<Box<[u8]>, Cached<P>, foldhash::fast::RandomState>,
    flows: Arc<FlowBook>,
    policy: Arc<Policy>,
    policy_generation: u64,
    epoch: u64,
}

/// A subscription to messages. Those to answers are in the mailbox alone.
#[derive(Debug)]
struct Listening {
    pattern: Pattern,
    number: u64,
    subscription: Arc<Subscription>,
}

#[derive(Debug)]
struct Cached<P> {
    way: Way<P>,
    seen_epoch: u64,
    version: RouteVersion,
}

#[derive(Debug)]
enum Way<P> {
    Open(Rc<Route<P>>),
    Denied(Denied),
}

#[derive(Debug, Clone)]
struct Denied {
    rule: Rc<str>,
    flow: Arc<FlowCounters>,
}

impl<P> Clone for Way<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Open(route) => Self::Open(Rc::clone(route)),
            Self::Denied(denied) => Self::Denied(denied.clone()),
        }
    }
}

impl<P: Peer> Session<P> {
    /// The session of a connection that has been admitted to `zone`.
    pub fn new(
        peer: P,
        identity: Arc<Identity>,
        zone: Option<Arc<str>>,
        flows: Arc<FlowBook>,
        world: &World<P>,
    ) -> Self {
        let stamp = encode::stamp(&identity.role.to_string());
        let policy_generation = world.policy_generation();
        Self {
            peer,
            identity,
            zone,
            state: State::ExpectConnect,
            options: ConnectOptions::default(),
            stamp,
            subscriptions: HashMap::new(),
            subscriptions_made: 0,
            routes: HashMap::default(),
            flows,
            policy: world.policy(),
            policy_generation,
            epoch: world.directory.epoch(),
        }
    }

    /// What the client asked for in `CONNECT`.
    pub const fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// How many subscriptions to messages there are.
    pub fn subscription_count(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether `CONNECT` has come.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// To be called before the first operation of a turn: takes notice of a changed policy and of changed
    /// subscriptions. Where the policy no longer lets the service connect, or listen as it does, it ends, or the
    /// subscription does.
    pub fn begin(&mut self, world: &World<P>, turn: &mut Turn<P>) -> Next {
        self.epoch = world.directory.epoch();
        let generation = world.policy_generation();
        if generation == self.policy_generation {
            return Next::GoOn;
        }
        self.policy_generation = generation;
        self.policy = world.policy();
        self.routes.clear();
        if self.policy.admit(&self.identity, self.zone.as_deref()).is_err() {
            return Next::End(ErrText::StaleConnection);
        }
        let refused: Vec<Box<[u8]>> = self
            .subscriptions
            .iter()
            .filter(|(_, listening)| {
                self.policy
                    .decide_subscription(&self.identity, &listening.pattern)
                    .is_err()
            })
            .map(|(sid, _)| sid.clone())
            .collect();
        for sid in refused {
            if let Some(Listening {
                pattern,
                subscription,
                ..
            }) = self.subscriptions.get(&sid)
            {
                let (pattern, queue) = (pattern.as_str().as_bytes(), subscription.queue.as_deref());
                notice(turn, "subscribe", pattern, "the policy has changed");
                encode::err(&mut turn.control, ErrText::SubscriptionDenied(pattern, queue));
            }
            self.stop_listening(world, &sid);
        }
        Next::GoOn
    }

    /// Does one operation, which lies in `buffer`. What it leads to is in the turn until [`Session::finish`].
    pub fn handle(
        &mut self,
        world: &World<P>,
        buffer: &[u8],
        op: ClientOp<'_>,
        turn: &mut Turn<P>,
        now_us: u64,
    ) -> Next {
        if self.state == State::ExpectConnect && !matches!(op, ClientOp::Connect(_)) {
            return Next::End(ErrText::AuthorizationViolation);
        }
        match op {
            ClientOp::Publish(message) => return self.publish(world, buffer, &message, turn, now_us),
            ClientOp::Connect(json) => return self.connect(json, turn),
            ClientOp::Subscribe { subject, queue, sid } => {
                self.finish(world, buffer, turn, now_us);
                self.subscribe(world, subject, queue, sid, turn);
            }
            ClientOp::Unsubscribe { sid, max } => {
                self.finish(world, buffer, turn, now_us);
                self.unsubscribe(world, sid, max);
                self.say_ok(turn);
            }
            ClientOp::Ping => {
                self.finish(world, buffer, turn, now_us);
                encode::pong(&mut turn.control);
            }
            ClientOp::Pong | ClientOp::Ignored => {}
        }
        Next::GoOn
    }

    fn say_ok(&self, turn: &mut Turn<P>) {
        if self.options.verbose {
            encode::ok(&mut turn.control);
        }
    }

    fn connect(&mut self, json: &[u8], turn: &mut Turn<P>) -> Next {
        let Some(options) = ConnectOptions::parse(json) else {
            return Next::End(ErrText::AuthorizationViolation);
        };
        self.peer
            .with_mailbox(|mailbox| mailbox.set_options(options.headers, options.takes_refusals()));
        self.options = options;
        self.state = State::Ready;
        self.say_ok(turn);
        Next::GoOn
    }

    fn publish(
        &mut self,
        world: &World<P>,
        buffer: &[u8],
        message: &Publish<'_>,
        turn: &mut Turn<P>,
        now_us: u64,
    ) -> Next {
        if message.headers.is_some() && !self.options.headers {
            return Next::End(ErrText::UnknownProtocolOperation);
        }
        self.say_ok(turn);
        if message.subject.starts_with(REPLY_PREFIX) {
            self.answer(buffer, message, turn);
            return Next::GoOn;
        }
        let reference = turn.remember(buffer, message);
        match self.way(world, message.subject, turn) {
            Way::Denied(denied) => self.deny(&denied, message, &reference, turn),
            Way::Open(route) => {
                if let Some(reply) = message.reply.filter(|reply| !is_inbox(reply)) {
                    route.count_denied();
                    notice(turn, "reply-to", reply, "not an inbox");
                    encode::err(&mut turn.control, ErrText::PublishDenied(reply));
                } else if route
                    .permit()
                    .terms()
                    .payload_max
                    .is_some_and(|max| message.payload.len() > max)
                {
                    route.count_denied();
                    let rule = Rc::from(route.permit().rule().to_string());
                    encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
                    turn.refuse(&reference, Reason::Denied, Some(rule));
                } else {
                    self.send(&route, &reference, 0, turn);
                }
            }
        }
        if turn.deliveries >= DELIVERIES_PER_BATCH_MAX {
            self.finish(world, buffer, turn, now_us);
        }
        Next::GoOn
    }

    /// The decision on a message name and, for a permit, its route; from the cache while nothing has changed.
    fn way(&mut self, world: &World<P>, subject: &[u8], turn: &mut Turn<P>) -> Way<P> {
        if let Some(cached) = self.routes.get_mut(subject) {
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
            return Way::Denied(self.denied(">", subject, "no grant", turn));
        };
        let version = world.directory.version(name.as_str());
        let way = match self.policy.decide(&self.identity, Action::Send, &name) {
            Ok(permit) => {
                let seed = self.peer.id().0;
                Way::Open(Route::find(
                    name,
                    permit,
                    &self.policy,
                    &world.directory,
                    &self.flows,
                    seed,
                ))
            }
            Err(denial) => Way::Denied(self.denied(
                name.as_str(),
                subject,
                &denial.rule_or_no_grant().to_string(),
                turn,
            )),
        };
        if self.routes.len() >= CACHED_ROUTES_PER_CONNECTION_MAX {
            self.routes.clear();
        }
        self.routes.insert(
            subject.into(),
            Cached {
                way: way.clone(),
                seen_epoch: self.epoch,
                version,
            },
        );
        way
    }

    fn denied(&self, counted_as: &str, subject: &[u8], rule: &str, turn: &mut Turn<P>) -> Denied {
        notice(turn, "publish", subject, rule);
        Denied {
            rule: Rc::from(rule),
            flow: self.flows.counters(counted_as, None),
        }
    }

    fn deny(&self, denied: &Denied, message: &Publish<'_>, reference: &MessageRef, turn: &mut Turn<P>) {
        denied.flow.count_denied();
        encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
        turn.refuse(reference, Reason::Denied, Some(Rc::clone(&denied.rule)));
    }

    /// Gives a permitted message to the batches of its receivers.
    fn send(&self, route: &Rc<Route<P>>, message: &MessageRef, retries: u8, turn: &mut Turn<P>) {
        let skipped = (!self.options.echo).then(|| self.peer.id());
        let mut chosen = std::mem::take(&mut turn.chosen);
        route.choose(skipped, |target| chosen.push(target));
        if chosen.is_empty() {
            route.count_no_receiver();
            turn.refuse(message, Reason::NoReceiver, None);
        }
        let siblings = message.reply.as_ref().and_then(|_| Siblings::of(chosen.len()));
        let used = turn.use_route(route);
        for target in chosen.drain(..) {
            let delivery = Delivery {
                route: used,
                target,
                message: message.clone(),
                siblings: siblings.clone(),
                retries,
            };
            turn.add(&route.target(target).peer, delivery);
        }
        turn.chosen = chosen;
    }

    fn answer(&self, buffer: &[u8], message: &Publish<'_>, turn: &mut Turn<P>) {
        let subject = range_in(buffer, message.subject);
        match ReplyToken::parse(message.subject) {
            Some(token) => {
                let message = turn.remember(buffer, message);
                turn.answers.push(Answer {
                    token,
                    subject,
                    message,
                });
            }
            None => {
                notice(turn, "reply", message.subject, "no such request");
                encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
            }
        }
    }

    /// Hands everything that the turn gathered to its receivers, each locked once. After this returns, it is in
    /// their outboxes, or accounted for with the reason why not.
    pub fn finish(&mut self, world: &World<P>, buffer: &[u8], turn: &mut Turn<P>, now_us: u64) {
        if !turn.has_messages() {
            return;
        }
        self.hand_over_answers(buffer, turn, now_us);
        while turn.has_messages() {
            self.tell_refusals(buffer, turn);
            for (delivery, why) in self.hand_over_batches(buffer, turn, now_us) {
                self.account_for(world, &delivery, why, turn);
            }
        }
        turn.clear();
    }

    /// Puts the turn's bytes for the connection's own client into its outbox.
    pub fn finish_control(&self, turn: &mut Turn<P>) {
        if !turn.control.is_empty() {
            self.peer
                .with_mailbox(|mailbox| mailbox.outbox.bytes_mut().extend_from_slice(&turn.control));
            turn.control.clear();
        }
    }

    fn hand_over_answers(&self, buffer: &[u8], turn: &mut Turn<P>, now_us: u64) {
        if turn.answers.is_empty() {
            return;
        }
        let answers = std::mem::take(&mut turn.answers);
        let mut closed: Vec<(Pending<P>, Answer)> = Vec::with_capacity(answers.len());
        let mut unknown = Vec::new();
        self.peer.with_mailbox(|mailbox| {
            for answer in answers {
                match mailbox.replies.close(answer.token) {
                    Some(pending) => closed.push((pending, answer)),
                    None => unknown.push(answer),
                }
            }
        });
        for answer in unknown {
            let subject = buffer.get(answer.subject).unwrap_or_default();
            notice(turn, "reply", subject, "no such request");
            encode::err(&mut turn.control, ErrText::PublishDenied(subject));
        }
        closed.sort_by_key(|(pending, _)| pending.requester.id());
        for same in closed.chunk_by(|(a, _), (b, _)| a.requester.id() == b.requester.id()) {
            let Some((first, _)) = same.first() else { continue };
            first.requester.with_mailbox(|mailbox| {
                for (pending, answer) in same {
                    pending
                        .flow
                        .count_response(now_us.saturating_sub(pending.opened_us));
                    if let Some(siblings) = &pending.siblings {
                        siblings.answered();
                    }
                    let content = turn.content(&self.stamp, buffer, &answer.message);
                    if mailbox.answer(&pending.inbox, &content).is_err() {
                        pending.flow.count_reply_dropped();
                    }
                }
            });
        }
    }

    /// Tells the client which of its requests cannot succeed, after the errors that belong to them.
    fn tell_refusals(&self, buffer: &[u8], turn: &mut Turn<P>) {
        if turn.control.is_empty() && turn.refusals.is_empty() {
            return;
        }
        let Turn {
            control, refusals, ..
        } = turn;
        self.peer.with_mailbox(|mailbox| {
            mailbox.outbox.bytes_mut().extend_from_slice(control);
            for refused in refusals.drain(..) {
                let inbox = buffer.get(refused.inbox).unwrap_or_default();
                let rule = refused.rule.as_deref();
                mailbox.refuse(
                    inbox,
                    &Refusal {
                        reason: refused.reason,
                        rule,
                        policy: self.policy.version(),
                    },
                );
            }
        });
        control.clear();
    }

    /// Gives each receiver its batch; gives back what was not taken.
    fn hand_over_batches(&self, buffer: &[u8], turn: &mut Turn<P>, now_us: u64) -> Vec<(Delivery, NotTaken)> {
        let batches = turn.take_batches();
        let mut not_taken = Vec::new();
        for Batch { peer, deliveries } in batches {
            peer.with_mailbox(|mailbox| {
                for delivery in deliveries {
                    let route = turn.route(&delivery);
                    let target = route.target(delivery.target);
                    let content = turn.content(&self.stamp, buffer, &delivery.message);
                    let pending = delivery.message.reply.clone().map(|inbox| {
                        || Pending {
                            requester: self.peer.clone(),
                            inbox: buffer.get(inbox).unwrap_or_default().to_vec(),
                            flow: Arc::clone(&target.flow),
                            opened_us: now_us,
                            deadline_us: now_us.saturating_add(reply_within_us(route)),
                            siblings: delivery.siblings.clone(),
                        }
                    });
                    let name = route.name().as_str().as_bytes();
                    match mailbox.deliver(&target.subscription, name, &content, pending) {
                        Ok(()) => target.flow.count_delivered(content.payload.len()),
                        Err(why) => not_taken.push((delivery, why)),
                    }
                }
            });
            if !peer.is_ready() {
                turn.slow.push(peer);
            }
        }
        not_taken
    }

    /// A delivery that its receiver did not take: goes to another instance where the first has left, or is
    /// counted and, for a request, told.
    fn account_for(&mut self, world: &World<P>, delivery: &Delivery, why: NotTaken, turn: &mut Turn<P>) {
        let route = Rc::clone(turn.route(delivery));
        let target = route.target(delivery.target);
        if why == NotTaken::Gone && target.subscription.queue.is_some() && delivery.retries < RETRIES_MAX {
            self.epoch = world.directory.epoch();
            if let Way::Open(route) = self.way(world, route.name().as_str().as_bytes(), turn) {
                return self.send_to_group(&route, delivery, target.subscription.queue.as_deref(), turn);
            }
        }
        target.flow.count_dropped();
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
            turn.refuse(&delivery.message, reason, None);
        }
    }

    /// Sends a message that one of a group did not take to another of the same group.
    fn send_to_group(
        &self,
        route: &Rc<Route<P>>,
        delivery: &Delivery,
        queue: Option<&[u8]>,
        turn: &mut Turn<P>,
    ) {
        let skipped = (!self.options.echo).then(|| self.peer.id());
        let mut chosen = None;
        route.choose(skipped, |target| {
            if route.target(target).subscription.queue.as_deref() == queue {
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
                turn.refuse(&delivery.message, Reason::NoReceiver, None);
            }
            return;
        };
        let used = turn.use_route(route);
        let retry = Delivery {
            route: used,
            target,
            retries: delivery.retries + 1,
            ..delivery.clone()
        };
        turn.add(&route.target(target).peer, retry);
    }

    fn subscribe(
        &mut self,
        world: &World<P>,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
        turn: &mut Turn<P>,
    ) {
        let inboxes = self
            .peer
            .with_mailbox(|mailbox| (mailbox.inboxes.len(), mailbox.inboxes.has(sid)));
        if inboxes.1 || self.subscriptions.contains_key(sid) {
            // As in nats-server, an id in use keeps its first subscription.
            return self.say_ok(turn);
        }
        let rule = if inboxes.0 + self.subscriptions.len() >= SUBSCRIPTIONS_PER_CONNECTION_MAX {
            Some("too many subscriptions".to_owned())
        } else if let Some(pattern) = inbox_pattern(subject) {
            let listens = self
                .peer
                .with_mailbox(|mailbox| mailbox.inboxes.listen(pattern, sid));
            (!listens).then(|| "too many inboxes with wildcards".to_owned())
        } else {
            self.listen(world, subject, queue, sid).err()
        };
        match rule {
            None => self.say_ok(turn),
            Some(rule) => {
                notice(turn, "subscribe", subject, &rule);
                encode::err(&mut turn.control, ErrText::SubscriptionDenied(subject, queue));
            }
        }
    }

    /// Enters a subscription to messages, or says which rule forbids it.
    fn listen(
        &mut self,
        world: &World<P>,
        subject: &[u8],
        queue: Option<&[u8]>,
        sid: &[u8],
    ) -> Result<(), String> {
        let pattern = Pattern::parse(subject).map_err(|error| error.to_string())?;
        let decided = self.policy.decide_subscription(&self.identity, &pattern);
        decided.map_err(|denial| denial.rule_or_no_grant().to_string())?;
        let subscription = Arc::new(Subscription::new(sid, queue));
        self.subscriptions_made += 1;
        let number = self.subscriptions_made;
        let entry = Entry {
            peer: self.peer.clone(),
            identity: Arc::clone(&self.identity),
            subscription: Arc::clone(&subscription),
        };
        world.directory.insert(&pattern, (self.peer.id(), number), entry);
        self.subscriptions.insert(
            sid.into(),
            Listening {
                pattern,
                number,
                subscription,
            },
        );
        Ok(())
    }

    fn unsubscribe(&mut self, world: &World<P>, sid: &[u8], max: Option<u64>) {
        let Some(listening) = self.subscriptions.get(sid) else {
            return self.peer.with_mailbox(|mailbox| mailbox.inboxes.stop(sid, max));
        };
        let subscription = &listening.subscription;
        let is_over = max.is_none_or(|max| self.peer.with_mailbox(|_| subscription.end_after(max)));
        if is_over {
            self.stop_listening(world, sid);
        }
    }

    fn stop_listening(&mut self, world: &World<P>, sid: &[u8]) {
        if let Some(Listening {
            pattern,
            number,
            subscription,
        }) = self.subscriptions.remove(sid)
        {
            // Out of the directory first: whoever finds that it has ended can then find another.
            world.directory.remove(&pattern, (self.peer.id(), number));
            self.peer.with_mailbox(|_| subscription.end());
        }
    }

    /// Takes out the subscriptions that have had all their deliveries.
    pub fn reap(&mut self, world: &World<P>) {
        for subscription in self
            .peer
            .with_mailbox(|mailbox| mailbox.take_ended_subscriptions())
        {
            self.stop_listening(world, &subscription.sid);
        }
    }

    /// Tells the requesters of all that has expired.
    pub fn expire(&self, now_us: u64) {
        let expired = self
            .peer
            .with_mailbox(|mailbox| mailbox.replies.take_expired(now_us));
        give_up(expired, Reason::Expired, self.policy.version());
    }

    /// Ends the session: nobody finds it any more, and whoever waits for its answer is told.
    pub fn end(&mut self, world: &World<P>) {
        for Listening { pattern, number, .. } in std::mem::take(&mut self.subscriptions).into_values() {
            world.directory.remove(&pattern, (self.peer.id(), number));
        }
        let lost = self.peer.with_mailbox(|mailbox| mailbox.close());
        give_up(lost, Reason::ReceiverLost, self.policy.version());
        self.routes.clear();
    }
}

fn give_up<P: Peer>(mut requests: Vec<Pending<P>>, reason: Reason, policy: &str) {
    requests.retain(Pending::give_up);
    requests.sort_by_key(|pending| pending.requester.id());
    for same in requests.chunk_by(|a, b| a.requester.id() == b.requester.id()) {
        let Some(first) = same.first() else { continue };
        first.requester.with_mailbox(|mailbox| {
            for pending in same {
                mailbox.refuse(
                    &pending.inbox,
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

fn reply_within_us<P: Peer>(route: &Route<P>) -> u64 {
    u64::try_from(route.permit().terms().reply_within.as_micros()).unwrap_or(u64::MAX)
}

fn notice<P>(turn: &mut Turn<P>, action: &'static str, subject: &[u8], rule: &str) {
    turn.denials.push(DenialNotice {
        action,
        subject: printable(subject, SHOWN_BYTES_MAX),
        rule: rule.to_owned(),
    });
}

/// Whether a client may ask to be answered there: a reserved name of its own, not one of our tokens.
fn is_inbox(subject: &[u8]) -> bool {
    inbox_pattern(subject).is_some_and(|text| !text.contains(['*', '>']))
}

/// A pattern of reply subjects: reserved names, which no message can have.
fn inbox_pattern(subject: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(subject).ok()?;
    let is_ours = subject.starts_with(REPLY_PREFIX);
    let is_valid = text.starts_with('_')
        && text.len() <= INBOX_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text
            .split('.')
            .rev()
            .enumerate()
            .all(|(from_end, token)| match token {
                "" => false,
                "*" => true,
                ">" => from_end == 0,
                token => !token.contains(['*', '>']),
            });
    (is_valid && !is_ours).then_some(text)
}
