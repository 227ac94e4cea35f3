//! One turn of one connection: what the messages of one read lead to, gathered so that each receiver is locked
//! once, and not once a message.
//!
//! A turn owns no message: it remembers where in the read buffer each lies. Its memory is reused from turn to
//! turn, by all connections of a thread.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::audit::each::{Digest, EachMessage, payload_digest};
use crate::audit::intake::Intake;
use crate::exchange::mailbox::{ConnId, Peer};
use crate::exchange::replies::{Pending, Siblings};
use crate::exchange::route::Route;
use crate::exchange::tracked::Happened;
use crate::limits::{AUDIT_DENIALS_PER_TURN_MAX, DENIAL_LINES_PER_TURN_MAX};
use crate::wire::decode::Publish;
use crate::wire::encode::{Content, Reason, Stamp};
use crate::wire::headers::{self, CleanLines};
use crate::wire::printable;

/// How much of a hostile name goes into a log line, in bytes.
const SHOWN_BYTES_MAX: usize = 128;

/// Batches, and items of one, whose memory is kept from turn to turn.
const SPARE_BATCHES_MAX: usize = 64;
const SPARE_ITEMS_MAX: usize = 1024;

/// See the module's documentation.
#[derive(Debug)]
pub struct Turn<P> {
    /// Bytes for the connection's own client, in order.
    pub control: Vec<u8>,
    /// Where each message lies.
    messages: Vec<Message>,
    /// The requests that are answered.
    answers: Vec<Pending<P>>,
    /// The routes that this turn's messages take.
    routes: Vec<RouteUse<P>>,
    /// A batch for each receiver.
    receivers: Vec<Batch<P>>,
    /// The memory of earlier batches.
    spare: Vec<Vec<Item>>,
    receiver_index: HashMap<ConnId, u32, foldhash::fast::RandomState>,
    /// Requests of this connection that cannot succeed.
    pub(super) refusals: Vec<Refused>,
    pub(super) deliveries: usize,
    /// The targets of the message at hand.
    pub(super) chosen: Vec<u32>,
    /// Header lines that were rebuilt.
    rebuilt: Vec<u8>,
    /// Receivers whose outbox is long after this turn: their publisher should wait a moment.
    pub slow: Vec<P>,
    /// Denials that are new to this connection, for a log line each.
    pub denials: Vec<DenialNotice>,
    /// Further ones, past the bound on lines of a turn.
    pub denials_unsaid: u64,
    /// Single messages for the audit log.
    pub(super) each: EachNotes,
    /// All that was denied in this turn, also what was denied before, counted for the audit log.
    pub denied: Vec<DenialCount>,
    /// Tracked messages, and what was said of attempts.
    pub(super) happened: Vec<Happened<P>>,
}

impl<P> Default for Turn<P> {
    fn default() -> Self {
        Self {
            control: Vec::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            routes: Vec::new(),
            receivers: Vec::new(),
            spare: Vec::new(),
            receiver_index: HashMap::default(),
            refusals: Vec::new(),
            deliveries: 0,
            chosen: Vec::new(),
            rebuilt: Vec::new(),
            slow: Vec::new(),
            denials: Vec::new(),
            denials_unsaid: 0,
            each: EachNotes::default(),
            denied: Vec::new(),
            happened: Vec::new(),
        }
    }
}

/// Records of single messages, and the digest of the last payload: one message may have many receivers.
#[derive(Debug, Default)]
pub(super) struct EachNotes {
    pub(super) messages: Vec<EachMessage>,
    last: Option<(MessageRef, Digest)>,
}

impl EachNotes {
    /// The digest of a message's payload.
    pub(super) fn digest(&mut self, message: MessageRef, payload: &[u8]) -> Digest {
        match self.last {
            Some((last, digest)) if last == message => digest,
            _ => {
                let digest = payload_digest(payload);
                self.last = Some((message, digest));
                digest
            }
        }
    }

    /// Gives them to the audit log.
    pub(super) fn give(&mut self, audit: Option<&Intake>) {
        if !self.messages.is_empty()
            && let Some(audit) = audit
        {
            audit.note_each(&mut self.messages);
        }
        self.messages.clear();
        // Places in the turn are given anew.
        self.last = None;
    }
}

/// What was denied to one connection in one turn, of one kind.
#[derive(Debug)]
pub struct DenialCount {
    /// What the client tried.
    pub action: &'static str,
    /// On what, as the client wrote it.
    pub subject: Box<[u8]>,
    /// The policy's line, or the reason.
    pub rule: Box<str>,
    /// How often.
    pub count: u64,
}

/// A denial, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenialNotice {
    /// What was tried: `publish`, `subscribe`, `reply`.
    pub action: &'static str,
    /// The name or pattern, escaped.
    pub subject: String,
    /// The policy's line, or `no grant`.
    pub rule: String,
}

#[derive(Debug)]
struct RouteUse<P> {
    route: Rc<Route<P>>,
    /// For each target of the route, its place in `receivers`, once it is used in this turn.
    places: Vec<Option<u32>>,
}

#[derive(Debug)]
pub(super) struct Batch<P> {
    pub(super) peer: P,
    /// In the order in which they came.
    pub(super) items: Vec<Item>,
}

/// What a receiver gets.
#[derive(Debug)]
pub(super) enum Item {
    /// A message.
    Message(Delivery),
    /// The answer to a request of its own, by its place among those of this turn.
    Answer(u32, MessageRef),
}

/// One message for one receiver.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) route: u32,
    pub(super) target: u32,
    pub(super) message: MessageRef,
    /// The other receivers of the same request.
    pub(super) siblings: Option<Arc<Siblings>>,
    pub(super) retries: u8,
}

/// A request of this connection that cannot succeed.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) message: MessageRef,
    pub(super) reason: Reason,
    pub(super) rule: Option<Rc<str>>,
}

/// A message of this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageRef(u32);

/// Where in the read buffer a message lies. Small: every message is one.
#[derive(Debug)]
struct Message {
    reply: Option<Span>,
    headers: HeaderRef,
    payload: Span,
}

#[derive(Debug, Clone, Copy)]
enum HeaderRef {
    AsSent(Span),
    Rebuilt(Span),
}

/// A part of a buffer, which is far smaller than 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    const EMPTY: Self = Self { start: 0, end: 0 };

    fn new(start: usize, end: usize) -> Self {
        let bound = |place: usize| u32::try_from(place).expect("a turn's buffer is bounded far below 4 GiB");
        Self {
            start: bound(start),
            end: bound(end),
        }
    }

    /// Where `part` lies in `whole`, of which it is a slice.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        Self::new(start, start + part.len())
    }

    fn of_buffer(self, buffer: &[u8]) -> &[u8] {
        buffer
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl<P> Turn<P> {
    /// Remembers where a message lies, its headers made safe.
    pub(super) fn remember(&mut self, buffer: &[u8], message: &Publish<'_>) -> MessageRef {
        let headers = match message.headers.map(headers::clean) {
            None => HeaderRef::AsSent(Span::EMPTY),
            Some(CleanLines::AsSent(lines)) => HeaderRef::AsSent(Span::of(lines, buffer)),
            Some(CleanLines::Rebuilt(lines)) => {
                let start = self.rebuilt.len();
                self.rebuilt.extend_from_slice(&lines);
                HeaderRef::Rebuilt(Span::new(start, self.rebuilt.len()))
            }
        };
        let place = u32::try_from(self.messages.len()).expect("fewer messages than bytes");
        self.messages.push(Message {
            reply: message.reply.map(|reply| Span::of(reply, buffer)),
            headers,
            payload: Span::of(message.payload, buffer),
        });
        MessageRef(place)
    }

    fn message(&self, MessageRef(place): MessageRef) -> &Message {
        self.messages
            .get(place as usize)
            .expect("a reference does not outlive its turn")
    }

    /// A remembered message, ready to be encoded.
    pub(super) fn content<'a>(
        &'a self,
        stamp: &'a Stamp,
        buffer: &'a [u8],
        message: MessageRef,
    ) -> Content<'a> {
        let message = self.message(message);
        let headers = match message.headers {
            HeaderRef::AsSent(span) => span.of_buffer(buffer),
            HeaderRef::Rebuilt(span) => span.of_buffer(&self.rebuilt),
        };
        Content {
            stamp,
            headers,
            payload: message.payload.of_buffer(buffer),
        }
    }

    /// Whether a message wants an answer.
    pub(super) fn is_request(&self, message: MessageRef) -> bool {
        self.message(message).reply.is_some()
    }

    /// Where a message wants its answer.
    pub(super) fn inbox<'a>(&self, buffer: &'a [u8], message: MessageRef) -> Option<&'a [u8]> {
        let reply = self.message(message).reply?;
        Some(reply.of_buffer(buffer))
    }

    /// One of the requests that this turn answers.
    pub(super) fn answered(&self, place: u32) -> &Pending<P> {
        self.answers
            .get(place as usize)
            .expect("items name answers of this turn")
    }

    /// The place of a route among those of this turn.
    pub(super) fn use_route(&mut self, route: &Rc<Route<P>>) -> u32 {
        let same = |used: &RouteUse<P>| Rc::ptr_eq(&used.route, route);
        let place = match self.routes.last() {
            Some(last) if same(last) => self.routes.len() - 1,
            _ => self.routes.iter().position(same).unwrap_or_else(|| {
                self.routes.push(RouteUse {
                    route: Rc::clone(route),
                    places: Vec::new(),
                });
                self.routes.len() - 1
            }),
        };
        u32::try_from(place).expect("fewer routes in a turn than bytes")
    }

    /// The route of a delivery.
    pub(super) fn route(&self, delivery: &Delivery) -> &Rc<Route<P>> {
        &self
            .routes
            .get(delivery.route as usize)
            .expect("deliveries name routes of this turn")
            .route
    }

    /// Puts a delivery into its receiver's batch.
    pub(super) fn add(&mut self, peer: &P, delivery: Delivery)
    where
        P: Peer,
    {
        let target = delivery.target as usize;
        let known = self.route_use(&delivery).places.get(target).copied().flatten();
        let place = known.unwrap_or_else(|| {
            let place = self.place_of(peer);
            let places = &mut self.route_use(&delivery).places;
            if places.len() <= target {
                places.resize(target + 1, None);
            }
            *places.get_mut(target).expect("resized above") = Some(place);
            place
        });
        self.push(place, Item::Message(delivery));
    }

    /// Puts the answer to a request into the requester's batch; nothing to do where nobody hears it.
    pub(super) fn add_answer(&mut self, pending: Pending<P>, message: MessageRef)
    where
        P: Peer,
    {
        let Some((peer, _)) = pending.asker() else { return };
        let place = self.place_of(peer);
        let answer = u32::try_from(self.answers.len()).expect("fewer answers than bytes");
        self.answers.push(pending);
        self.push(place, Item::Answer(answer, message));
    }

    fn route_use(&mut self, delivery: &Delivery) -> &mut RouteUse<P> {
        self.routes
            .get_mut(delivery.route as usize)
            .expect("deliveries name routes of this turn")
    }

    /// The place of a receiver's batch.
    fn place_of(&mut self, peer: &P) -> u32
    where
        P: Peer,
    {
        *self.receiver_index.entry(peer.id()).or_insert_with(|| {
            self.receivers.push(Batch {
                peer: peer.clone(),
                items: self.spare.pop().unwrap_or_default(),
            });
            u32::try_from(self.receivers.len() - 1).expect("fewer receivers than 2^32")
        })
    }

    fn push(&mut self, place: u32, item: Item) {
        self.receivers
            .get_mut(place as usize)
            .expect("places come from this turn")
            .items
            .push(item);
        self.deliveries += 1;
    }

    /// Takes the batches; what is added after this goes into new ones.
    pub(super) fn take_batches(&mut self) -> Vec<Batch<P>> {
        self.deliveries = 0;
        self.receiver_index.clear();
        for used in &mut self.routes {
            used.places.clear();
        }
        std::mem::take(&mut self.receivers)
    }

    /// Takes back a batch's memory, for the next.
    pub(super) fn reuse(&mut self, mut items: Vec<Item>) {
        if self.spare.len() < SPARE_BATCHES_MAX && items.capacity() <= SPARE_ITEMS_MAX {
            items.clear();
            self.spare.push(items);
        }
    }

    /// Remembers that a request cannot succeed; nothing to do where no answer is awaited.
    pub(super) fn refuse(&mut self, message: MessageRef, reason: Reason, rule: Option<Rc<str>>) {
        if self.is_request(message) {
            self.refusals.push(Refused {
                message,
                reason,
                rule,
            });
        }
    }

    /// Remembers a denial for the log.
    pub(super) fn notice(&mut self, action: &'static str, subject: &[u8], rule: &str) {
        if self.denials.len() >= DENIAL_LINES_PER_TURN_MAX {
            self.denials_unsaid += 1;
            return;
        }
        self.denials.push(DenialNotice {
            action,
            subject: printable(subject, SHOWN_BYTES_MAX),
            rule: rule.to_owned(),
        });
    }

    /// Counts a denial, whether or not there is a line about it.
    pub(super) fn count_denial(&mut self, action: &'static str, subject: &[u8], rule: &str) {
        let is_same = |denied: &DenialCount, subject: &[u8]| {
            denied.action == action && *denied.subject == *subject && *denied.rule == *rule
        };
        let subject = if self.denied.len() < AUDIT_DENIALS_PER_TURN_MAX
            || self.denied.iter().any(|denied| is_same(denied, subject))
        {
            subject
        } else {
            b">"
        };
        match self.denied.iter_mut().find(|denied| is_same(denied, subject)) {
            Some(denied) => denied.count += 1,
            None => self.denied.push(DenialCount {
                action,
                subject: subject.into(),
                rule: rule.into(),
                count: 1,
            }),
        }
    }

    /// Forgets everything. To be called before a connection's turn: were the one before it cut off in its middle,
    /// what it left would be taken for this one's.
    pub fn reset(&mut self) {
        self.control.clear();
        drop(self.take_batches());
        self.refusals.clear();
        self.happened.clear();
        self.chosen.clear();
        self.clear();
        self.slow.clear();
        self.denials.clear();
        self.denials_unsaid = 0;
        self.denied.clear();
        self.each.messages.clear();
        self.each.last = None;
    }

    /// Forgets the messages, which have all been handed over.
    pub(super) fn clear(&mut self) {
        self.routes.clear();
        self.rebuilt.clear();
        self.answers.clear();
        self.messages.clear();
    }

    #[cfg(test)]
    pub(super) fn has_messages(&self) -> bool {
        self.deliveries > 0 || !self.refusals.is_empty()
    }

    #[cfg(test)]
    pub(super) fn bytes_kept(&self) -> usize {
        self.rebuilt.len() + self.control.len()
    }

    #[cfg(test)]
    pub(super) fn routes_kept(&self) -> usize {
        self.routes.len()
    }
}
