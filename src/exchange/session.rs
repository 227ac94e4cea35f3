//! One connection's session: what its operations do.
//!
//! Owned by the connection's task alone. Operations come in with [`Session::handle`], which gathers what they
//! lead to in a [`Turn`]; [`Session::finish`] hands that to the receivers. The session never waits and never
//! writes to a socket; it reads no clock.

use std::rc::Rc;
use std::sync::Arc;

use crate::delivery::InstanceId;
use crate::exchange::checkpoints::Question;
use crate::exchange::handover::{Handover, give_up};
use crate::exchange::inbox::is_inbox;
use crate::exchange::mailbox::{Mailbox, Peer};
use crate::exchange::options::ConnectOptions;
use crate::exchange::replies::{Asker, Attempt, InboxName, Pending, PendingReplies};
use crate::exchange::route::{Route, Tracked};
use crate::exchange::share::Share;
use crate::exchange::subscriptions::Subscriptions;
use crate::exchange::tracked::{Happened, Verdict};
use crate::exchange::turn::{MessageRef, Turn};
use crate::exchange::ways::{Denied, Way, Ways};
use crate::exchange::world::World;
use crate::identity::Identity;
use crate::limits::{DELIVERIES_PER_BATCH_MAX, MSG_ID_BYTES_MAX};
use crate::traffic::flow::FlowBook;
use crate::wire::REPLY_PREFIX;
use crate::wire::decode::{ClientOp, Publish};
use crate::wire::encode::{self, ErrText, Reason, ReplyToken, Stamp};
use crate::wire::headers;

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
    /// As of the turn's beginning.
    is_halted: bool,
    options: ConnectOptions,
    subscriptions: Subscriptions<P>,
    ways: Ways<P>,
    handover: Handover<P>,
}

impl<P: Peer> Session<P> {
    /// The session of a connection that has been admitted to `zone`.
    pub fn new(
        peer: P,
        identity: Arc<Identity>,
        zone: Option<Arc<str>>,
        flows: Arc<FlowBook>,
        share: Arc<Share>,
        world: &World<P>,
    ) -> Self {
        let service: Arc<str> = identity.role.to_string().into();
        let stamp = Stamp::new(&service);
        Self {
            zone,
            state: State::ExpectConnect,
            is_halted: false,
            options: ConnectOptions::default(),
            subscriptions: Subscriptions::new(peer.clone(), Arc::clone(&identity), &share),
            ways: Ways::new(peer.id(), Arc::clone(&identity), flows, &share, world),
            handover: Handover::new(peer.clone(), service, stamp, Arc::clone(&share.requests)),
            peer,
            identity,
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

    /// Whether an operation that begins with this byte may come now: before `CONNECT`, nothing else is waited for.
    pub fn may_begin_with(&self, byte: u8) -> bool {
        self.is_ready() || byte.eq_ignore_ascii_case(&b'C')
    }

    /// To be called before the first operation of a turn: takes notice of a changed policy, of what is held and of
    /// changed subscriptions. Where the policy no longer lets the service connect, or listen as it does, it ends, or the
    /// subscription does.
    pub fn begin(&mut self, world: &World<P>, turn: &mut Turn<P>, now_us: u64) -> Next {
        self.is_halted = world.is_halted();
        self.ways.notice_subscriptions(world);
        if !self.ways.notice_policy(world) {
            return Next::GoOn;
        }
        let law = self.ways.law_for_open(now_us);
        let zone = self.zone.as_deref();
        if let Some(shadow) = law.shadow {
            shadow.count_connection(law.policy, &self.identity, zone, now_us);
        }
        if law.policy.admit(&self.identity, zone).is_err() {
            return Next::End(ErrText::StaleConnection);
        }
        self.subscriptions.apply_policy(world, law, turn);
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
                if self
                    .subscriptions
                    .subscribe(world, self.ways.law(now_us), subject, queue, sid, turn)
                {
                    self.say_ok(turn);
                }
                // What follows in this turn may be for the client itself.
                self.ways.notice_subscriptions(world);
            }
            ClientOp::Unsubscribe { sid, max } => {
                self.finish(world, buffer, turn, now_us);
                self.subscriptions.unsubscribe(world, sid, max);
                self.ways.notice_subscriptions(world);
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
        let Some(options) = self.options.changed_by(json) else {
            return Next::End(ErrText::AuthorizationViolation);
        };
        self.peer
            .with_mailbox(|mailbox| mailbox.set_options(options.headers, options.takes_refusals()));
        self.handover.echo = options.echo;
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
        if message.subject.starts_with(REPLY_PREFIX) {
            self.answer(buffer, message, turn, now_us);
        } else {
            self.send(world, buffer, message, turn, now_us);
        }
        if turn.deliveries >= DELIVERIES_PER_BATCH_MAX {
            self.finish(world, buffer, turn, now_us);
        }
        Next::GoOn
    }

    fn send(
        &mut self,
        world: &World<P>,
        buffer: &[u8],
        message: &Publish<'_>,
        turn: &mut Turn<P>,
        now_us: u64,
    ) {
        let reference = turn.remember(buffer, message);
        let route = match self.ways.find(world, message.subject, turn) {
            Way::Denied(denied) => return deny(&denied, message, reference, turn, now_us),
            Way::Held(flow) => {
                flow.count_quarantined();
                turn.count_denial("quarantined", message.subject, "the sender is held");
                return turn.refuse(reference, Reason::Quarantined, None);
            }
            Way::Open(route) => route,
            Way::Checkpoint => return self.ask_checkpoint(world, message, reference, turn),
        };
        if let Some(reply) = message.reply.filter(|reply| !is_inbox(reply)) {
            route.count_denied();
            turn.notice("reply-to", reply, "not an inbox");
            turn.count_denial("reply-to", reply, "not an inbox");
            return encode::err(&mut turn.control, ErrText::PublishDenied(reply));
        }
        if self.is_halted {
            route.nobody().count_dropped();
            return turn.refuse(reference, Reason::Overloaded, None);
        }
        if let Err(rule) = route.admit(now_us) {
            let rule = Rc::clone(rule);
            route.nobody().count_over_limit();
            turn.count_denial("over-limit", message.subject, &rule);
            return turn.refuse(reference, Reason::Overloaded, Some(rule));
        }
        route.count_beside(message.payload.len(), now_us);
        let payload_max = route.permit().terms().payload_max;
        if payload_max.is_some_and(|max| message.payload.len() > max) {
            route.count_denied();
            let rule: Rc<str> = Rc::from(route.permit().rule().to_string());
            turn.count_denial("publish", message.subject, &rule);
            encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
            return turn.refuse(reference, Reason::Denied, Some(rule));
        }
        if let Some(tracked) = route.tracked() {
            return self.track(&route, tracked, message, reference, buffer, turn);
        }
        self.say_ok(turn);
        self.handover
            .send(world, &mut self.ways, buffer, &route, reference, turn, now_us);
    }

    /// A question about the audit log is no message: it is counted nowhere, and the broker itself answers.
    fn ask_checkpoint(
        &self,
        world: &World<P>,
        message: &Publish<'_>,
        reference: MessageRef,
        turn: &mut Turn<P>,
    ) {
        let kept = std::str::from_utf8(message.payload).ok();
        let kept = kept.and_then(|text| {
            if text.is_empty() {
                Some(0)
            } else {
                text.parse().ok()
            }
        });
        let Some((kept, inbox)) = kept.zip(message.reply.filter(|reply| is_inbox(reply))) else {
            let rule = "a number of entries or nothing, and an inbox";
            turn.notice("publish", message.subject, rule);
            turn.count_denial("publish", message.subject, rule);
            encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
            return turn.refuse(reference, Reason::Denied, Some(Rc::from(rule)));
        };
        let asker = Asker {
            peer: self.peer.clone(),
            inbox: InboxName::from_slice(inbox),
        };
        let desk = world.checkpoints.as_ref();
        if desk.is_some_and(|desk| desk.ask(Question { asker, kept })) {
            self.say_ok(turn);
        } else {
            turn.refuse(reference, Reason::Overloaded, None);
        }
    }

    fn track(
        &self,
        route: &Route<P>,
        tracked: &Tracked,
        message: &Publish<'_>,
        reference: MessageRef,
        buffer: &[u8],
        turn: &mut Turn<P>,
    ) {
        if tracked.receivers.is_empty() {
            route.count_no_receiver();
            return turn.refuse(reference, Reason::NoReceiver, None);
        }
        let id = message
            .headers
            .and_then(|block| headers::value(block, "Nats-Msg-Id"));
        if id.is_some_and(|id| id.len() > MSG_ID_BYTES_MAX) {
            route.count_denied();
            encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
            let rule: Rc<str> = Rc::from(format!("Nats-Msg-Id has more than {MSG_ID_BYTES_MAX} bytes"));
            turn.count_denial("publish", message.subject, &rule);
            return turn.refuse(reference, Reason::Denied, Some(rule));
        }
        let id = id.map(Arc::from);
        self.say_ok(turn);
        self.handover.track(
            tracked,
            route.each().is_some(),
            id,
            reference,
            buffer,
            Arc::clone(route.nobody()),
            turn,
        );
    }

    fn answer(&self, buffer: &[u8], message: &Publish<'_>, turn: &mut Turn<P>, now_us: u64) {
        let token = ReplyToken::parse(message.subject);
        let heard = token.and_then(|token| hear(&mut self.peer.replies(), token, message.payload, now_us));
        let Some(Heard { pending, said }) = heard else {
            turn.notice("reply", message.subject, "no such request");
            // The token is a secret of whoever was given it, and different each time.
            turn.count_denial("reply", REPLY_PREFIX, "no such request");
            return encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
        };
        self.say_ok(turn);
        if let Some((attempt, verdict)) = said {
            turn.happened.push(Happened::Said {
                seq: attempt.seq,
                receiver: attempt.receiver,
                from: InstanceId(self.peer.id().0),
                verdict,
            });
        }
        let is_answer = said.is_none_or(|(_, verdict)| verdict == Verdict::Ack);
        let Some(pending) = pending.filter(|_| is_answer) else {
            return;
        };
        if pending.asker().is_some() {
            let reference = turn.remember(buffer, message);
            turn.add_answer(pending, reference);
        } else {
            let response_us = now_us.saturating_sub(pending.opened_us);
            pending.request.flow.count_response(response_us);
        }
    }

    /// Hands everything that the turn gathered to its receivers, each locked once. After this returns, it is in
    /// their outboxes, or accounted for with the reason why not.
    pub fn finish(&mut self, world: &World<P>, buffer: &[u8], turn: &mut Turn<P>, now_us: u64) {
        self.handover.finish(world, &mut self.ways, buffer, turn, now_us);
    }

    /// Puts the turn's bytes for the connection's own client into its outbox.
    pub fn finish_control(&self, turn: &mut Turn<P>) {
        self.handover.say(&mut turn.control);
    }

    #[cfg(test)]
    pub(super) fn targets_kept(&self) -> usize {
        self.ways.targets_kept()
    }

    /// Takes out the subscriptions that have had all their deliveries.
    pub fn reap(&mut self, world: &World<P>) {
        self.subscriptions.reap(world);
    }

    /// Tells the requesters of all that has expired.
    pub fn expire(&self, now_us: u64) {
        let expired = self.peer.replies().take_expired(now_us);
        give_up(&expired, Reason::Expired, self.ways.policy().version());
    }

    /// Ends the session: nobody finds it any more, whoever waits for its answer is told, and the attempts that it
    /// had go to others.
    pub fn end(&mut self, world: &World<P>) {
        self.subscriptions.end(world);
        if let Some(intake) = &world.intake {
            let gone = Happened::Gone(InstanceId(self.peer.id().0));
            intake.give(&mut vec![gone]);
        }
        self.peer.with_mailbox(Mailbox::close);
        let lost = self.peer.replies().take_all();
        give_up(&lost, Reason::ReceiverLost, self.ways.policy().version());
        self.ways.clear();
    }
}

/// Gives up what a connection of a held service was asked and has not answered: those who wait are told. What the
/// store delivers waits there.
pub fn give_up_held<P: Peer>(peer: &P, is_held: impl Fn(&str) -> bool, policy: &str) {
    let held = peer
        .replies()
        .take_where(|pending| is_held(&pending.request.name));
    give_up(&held, Reason::Quarantined, policy);
}

/// What an answer on a token means.
struct Heard<P> {
    /// What the token stood for, unless it stays open.
    pending: Option<Pending<P>>,
    /// What it says of the attempt, where it stood for one.
    said: Option<(Attempt, Verdict)>,
}

/// Hears an answer on a token: closes it, unless the answer is that more time is needed.
fn hear<P>(
    replies: &mut PendingReplies<P>,
    token: ReplyToken,
    payload: &[u8],
    now_us: u64,
) -> Option<Heard<P>> {
    let attempt = replies.attempt(token);
    let said = attempt.map(|attempt| (attempt, Verdict::parse(payload)));
    if let Some((attempt, Verdict::Progress)) = said {
        replies.extend(token, attempt.deadline_us(now_us));
        return Some(Heard { pending: None, said });
    }
    let pending = replies.close(token)?;
    Some(Heard {
        pending: Some(pending),
        said,
    })
}

fn deny<P>(denied: &Denied, message: &Publish<'_>, reference: MessageRef, turn: &mut Turn<P>, now_us: u64) {
    denied.flow.count_denied();
    if let Some(shadow) = &denied.shadow {
        shadow.count(message.payload.len(), now_us);
    }
    turn.count_denial("publish", message.subject, &denied.rule);
    encode::err(&mut turn.control, ErrText::PublishDenied(message.subject));
    turn.refuse(reference, Reason::Denied, Some(Rc::clone(&denied.rule)));
}
