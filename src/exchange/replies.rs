//! Requests that were delivered to one connection and wait for its answer.
//!
//! A token names a place in this table and how often the place has been used, so it means something only here,
//! only once, and only until it expires. The count of uses begins elsewhere in each table: a client that has
//! reconnected may still answer on a token of its old connection, and that must not answer a new request. The
//! table belongs to the receiving connection and lives behind a lock of its own, which nobody holds for long: its
//! connection answers while others send to it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::AcqRel};

use smallvec::SmallVec;

use crate::delivery::{ReceiverNo, Seq};
use crate::exchange::share::{Allowance, Holding};
use crate::limits::{PENDING_REPLIES_KEPT, PENDING_REPLIES_PER_CONNECTION_MAX};
use crate::traffic::flow::FlowCounters;
use crate::wire::encode::ReplyToken;

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Pending<P> {
    /// Where it comes from.
    pub request: Request<P>,
    /// The subject on which the sender hears the answer; none, where that only acknowledges an event.
    pub inbox: Option<InboxName>,
    /// When it was delivered, in microseconds of the broker's clock.
    pub opened_us: u64,
    /// When it expires, in microseconds of the broker's clock.
    pub deadline_us: u64,
    /// The receivers that can still answer, where the request went to several.
    pub siblings: Option<Arc<Siblings>>,
    /// The attempt of a tracked message that the answer is about.
    pub attempt: Option<Attempt>,
}

/// Where requests come from. Made once for all that take one route to one receiver: what they share is counted once.
#[derive(Debug)]
pub struct Origin<P> {
    /// The sender's connection; `None` for an event that the store delivers.
    pub peer: Option<P>,
    /// The sender's service.
    pub service: Arc<str>,
    /// The message name.
    pub name: Arc<str>,
    /// The flow, which counts the answers.
    pub flow: Arc<FlowCounters>,
    /// The requests that the service's connections may have together; `None` where their number is bounded elsewhere.
    pub requests: Option<Arc<Allowance>>,
}

/// One request of an origin. It counts among those of its service until it is dropped.
#[derive(Debug)]
pub struct Request<P>(Arc<Origin<P>>);

impl<P> Origin<P> {
    /// Makes one more, if its service may have one more.
    pub fn request(self: &Arc<Self>) -> Option<Request<P>> {
        let may = self.requests.as_ref().is_none_or(|requests| requests.take(1));
        may.then(|| Request(Arc::clone(self)))
    }
}

impl<P> Deref for Request<P> {
    type Target = Origin<P>;

    fn deref(&self) -> &Origin<P> {
        &self.0
    }
}

impl<P> Drop for Request<P> {
    fn drop(&mut self) {
        if let Some(requests) = &self.requests {
            requests.give_back(1);
        }
    }
}

/// A subject on which one client hears answers. Those that clients make fit in.
pub type InboxName = SmallVec<[u8; 56]>;

/// Who asked, and where it hears the answer.
#[derive(Debug, Clone)]
pub struct Asker<P> {
    /// The connection.
    pub peer: P,
    /// The subject on which it, and only it, hears the answer.
    pub inbox: InboxName,
}

/// An attempt to deliver a tracked message.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// The message.
    pub seq: Seq,
    /// Which of its receivers.
    pub receiver: ReceiverNo,
    /// How long it may take, in microseconds; as long again it is remembered, since late is better than never.
    pub us_max: u64,
}

impl Attempt {
    /// When its token goes, if the attempt begins now.
    pub const fn deadline_us(&self, now_us: u64) -> u64 {
        now_us.saturating_add(self.us_max.saturating_mul(2))
    }
}

impl<P> Pending<P> {
    /// Who hears the answer, and on which subject; nobody, where it only acknowledges an event.
    pub fn asker(&self) -> Option<(&P, &[u8])> {
        self.request.peer.as_ref().zip(self.inbox.as_deref())
    }

    /// Gives up on this receiver's answer. Says whether the requester should hear of it: not where another
    /// receiver has answered or still may.
    pub fn give_up(&self) -> bool {
        self.request.flow.count_unanswered();
        self.siblings.as_ref().is_none_or(|siblings| siblings.one_less())
    }
}

/// How many receivers of one request have neither answered nor been given up.
#[derive(Debug)]
pub struct Siblings {
    left: AtomicU32,
}

impl Siblings {
    /// Set once somebody has answered: it keeps the count from ever reaching the last one.
    const ANSWERED: u32 = 1 << 31;

    /// For a request to this many receivers; `None` for a single one.
    pub fn of(receivers: usize) -> Option<Arc<Self>> {
        let left = u32::try_from(receivers)
            .unwrap_or(u32::MAX)
            .min(Self::ANSWERED - 1);
        (receivers > 1).then(|| {
            Arc::new(Self {
                left: AtomicU32::new(left),
            })
        })
    }

    /// One receiver will not answer. Says whether it was the last that could, and none had.
    pub fn one_less(&self) -> bool {
        self.left.fetch_sub(1, AcqRel) == 1
    }

    /// One receiver has answered: the requester no longer hears of those that do not.
    pub fn answered(&self) {
        self.left.fetch_or(Self::ANSWERED, AcqRel);
    }
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub struct PendingReplies<P> {
    slots: Vec<Slot<P>>,
    free: Vec<u32>,
    first_generation: u32,
    /// The places of each requesting service, counted only once the table is half full.
    by_service: Option<HashMap<Arc<str>, usize>>,
    /// One for each place, of those that the receiving service's connections may have together.
    held: Holding,
    /// No pending request expires before this time; `u64::MAX` where there is none.
    next_deadline_us: u64,
}

#[derive(Debug)]
struct Slot<P> {
    generation: u32,
    pending: Option<Pending<P>>,
}

impl<P> PendingReplies<P> {
    /// An empty table, whose places count their uses from `first_generation`. It should be random: tables of two
    /// connections that count alike would take each other's tokens.
    pub fn new(first_generation: u32, places: &Arc<Allowance>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            first_generation,
            by_service: None,
            held: places.hold_none(),
            next_deadline_us: u64::MAX,
        }
    }

    /// Whether another request can be opened.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() || self.slots.len() < PENDING_REPLIES_PER_CONNECTION_MAX
    }

    /// Whether another request of this service can be opened: none may hold more places than it leaves free, so
    /// that one whose requests are never answered leaves room for the others.
    fn has_room_for(&mut self, service: &str) -> bool {
        let taken = self.len();
        if taken < PENDING_REPLIES_PER_CONNECTION_MAX / 2 {
            if taken < PENDING_REPLIES_PER_CONNECTION_MAX / 4 {
                self.by_service = None;
            }
            return true;
        }
        let slots = &self.slots;
        let by_service = self.by_service.get_or_insert_with(|| {
            let mut by_service = HashMap::new();
            for pending in slots.iter().filter_map(|slot| slot.pending.as_ref()) {
                *by_service
                    .entry(Arc::clone(&pending.request.service))
                    .or_default() += 1;
            }
            by_service
        });
        let held = by_service.get(service).copied().unwrap_or(0);
        held < PENDING_REPLIES_PER_CONNECTION_MAX - taken
    }

    /// Opens a request and gives its token; none where the table has no room for it.
    pub fn open(&mut self, pending: Pending<P>) -> Option<ReplyToken> {
        if !self.has_room() || !self.has_room_for(&pending.request.service) {
            return None;
        }
        if self.free.is_empty() && !self.held.grow(1) {
            return None;
        }
        if let Some(by_service) = &mut self.by_service {
            *by_service
                .entry(Arc::clone(&pending.request.service))
                .or_default() += 1;
        }
        self.next_deadline_us = self.next_deadline_us.min(pending.deadline_us);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: self.first_generation,
                pending: None,
            });
            u32::try_from(self.slots.len() - 1).expect("the table is bounded far below 2^32")
        });
        let entry = self
            .slots
            .get_mut(slot as usize)
            .expect("free places lie in the table");
        entry.pending = Some(pending);
        Some(ReplyToken {
            slot,
            generation: entry.generation,
        })
    }

    /// Takes the request that a token names, if it still waits.
    pub fn close(&mut self, token: ReplyToken) -> Option<Pending<P>> {
        let slot = self
            .slots
            .get_mut(token.slot as usize)
            .filter(|slot| slot.generation == token.generation)?;
        let pending = slot.pending.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(token.slot);
        uncount(&mut self.by_service, &pending);
        Some(pending)
    }

    /// The attempt that a token stands for, if it stands for one.
    pub fn attempt(&self, token: ReplyToken) -> Option<Attempt> {
        let slot = self.slots.get(token.slot as usize)?;
        let pending = slot
            .pending
            .as_ref()
            .filter(|_| slot.generation == token.generation)?;
        pending.attempt
    }

    /// Lets a token live longer.
    pub fn extend(&mut self, token: ReplyToken, deadline_us: u64) {
        if let Some(slot) = self.slots.get_mut(token.slot as usize)
            && slot.generation == token.generation
            && let Some(pending) = &mut slot.pending
        {
            pending.deadline_us = deadline_us;
        }
    }

    /// Takes all requests that have expired.
    pub fn take_expired(&mut self, now_us: u64) -> Vec<Pending<P>> {
        if now_us < self.next_deadline_us {
            return Vec::new();
        }
        self.take_where(|pending| pending.deadline_us <= now_us)
    }

    /// Takes all requests of which this is true.
    pub fn take_where(&mut self, mut is_taken: impl FnMut(&Pending<P>) -> bool) -> Vec<Pending<P>> {
        self.next_deadline_us = u64::MAX;
        let mut taken = Vec::new();
        for (index, slot) in (0..).zip(&mut self.slots) {
            if let Some(pending) = slot.pending.take_if(|pending| is_taken(pending)) {
                uncount(&mut self.by_service, &pending);
                taken.push(pending);
                slot.generation = slot.generation.wrapping_add(1);
                self.free.push(index);
            } else if let Some(pending) = &slot.pending {
                self.next_deadline_us = self.next_deadline_us.min(pending.deadline_us);
            }
        }
        taken
    }

    /// Takes all requests, since the connection has ended.
    pub fn take_all(&mut self) -> Vec<Pending<P>> {
        let taken = std::mem::take(&mut self.slots);
        self.free = Vec::new();
        self.by_service = None;
        self.next_deadline_us = u64::MAX;
        self.held.shrink(taken.len());
        self.first_generation = next_generation(self.first_generation, &taken);
        taken.into_iter().filter_map(|slot| slot.pending).collect()
    }

    /// Gives the places back where no request waits.
    pub fn shrink(&mut self) {
        if self.is_empty() && self.slots.len() > PENDING_REPLIES_KEPT {
            drop(self.take_all());
        }
    }

    /// When the next request may expire, in microseconds of the broker's clock; `u64::MAX` for never.
    pub const fn next_deadline_us(&self) -> u64 {
        self.next_deadline_us
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A count of uses that no token of these places has: were they to begin anew, an old token could name a new request.
fn next_generation<P>(first: u32, slots: &[Slot<P>]) -> u32 {
    let uses = slots.iter().map(|slot| slot.generation.wrapping_sub(first)).max();
    first.wrapping_add(uses.unwrap_or(0)).wrapping_add(1)
}

fn uncount<P>(by_service: &mut Option<HashMap<Arc<str>, usize>>, pending: &Pending<P>) {
    if let Some(held) = by_service
        .as_mut()
        .and_then(|by_service| by_service.get_mut(&pending.request.service))
    {
        *held -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(service: &str) -> Request<()> {
        let origin = Arc::new(Origin {
            peer: Some(()),
            service: service.into(),
            name: "a".into(),
            flow: Arc::default(),
            requests: None,
        });
        origin.request().unwrap()
    }

    fn inbox_of(pending: Option<Pending<()>>) -> Vec<u8> {
        pending.unwrap().inbox.unwrap().to_vec()
    }

    fn pending(inbox: &str, deadline_us: u64) -> Pending<()> {
        Pending {
            request: request("web"),
            inbox: Some(inbox.as_bytes().into()),
            opened_us: 0,
            deadline_us,
            siblings: None,
            attempt: None,
        }
    }

    fn table(first_generation: u32) -> PendingReplies<()> {
        PendingReplies::new(first_generation, &Arc::new(Allowance::new(usize::MAX)))
    }

    #[test]
    fn places_are_bounded_over_all_tables_of_a_service() {
        let places = Arc::new(Allowance::new(100));
        let (mut first, mut second) = (PendingReplies::new(0, &places), PendingReplies::new(0, &places));
        let tokens: Vec<_> = (0..90).map(|_| first.open(pending("a", 10)).unwrap()).collect();
        assert_eq!(
            (0..90)
                .filter(|_| second.open(pending("a", 10)).is_some())
                .count(),
            10
        );
        // A place is used again without another; an empty table gives all back, and knows its old tokens.
        first.close(tokens[89]).unwrap();
        assert!(first.open(pending("a", 10)).is_some());
        first.shrink();
        assert!(
            second.open(pending("a", 10)).is_none(),
            "a table in use keeps what it has"
        );
        first.take_expired(10);
        first.shrink();
        assert!(second.open(pending("a", 10)).is_some());
        let new = first.open(pending("b", 10)).unwrap();
        for old in tokens {
            assert!(first.close(old).is_none());
        }
        assert_eq!(inbox_of(first.close(new)), b"b");
        drop((first, second));
        assert!(places.hold_none().grow(100));
    }

    // protocol: P-073
    #[test]
    fn a_token_works_once() {
        let mut replies = table(0);
        let first = replies.open(pending("a", 10)).unwrap();
        assert_eq!(inbox_of(replies.close(first)), b"a");
        assert!(replies.close(first).is_none());
        let second = replies.open(pending("b", 10)).unwrap();
        assert_eq!(
            (second.slot, second.generation),
            (first.slot, first.generation + 1)
        );
        assert!(replies.close(first).is_none());
        assert!(
            replies
                .close(ReplyToken {
                    slot: 99,
                    generation: 0
                })
                .is_none()
        );
        assert_eq!(inbox_of(replies.close(second)), b"b");
    }

    #[test]
    fn a_token_of_another_connection_means_nothing() {
        let (mut old, mut new) = (table(7), table(70));
        let stale = old.open(pending("a", 10)).unwrap();
        let fresh = new.open(pending("b", 10)).unwrap();
        assert_eq!(stale.slot, fresh.slot);
        assert!(new.close(stale).is_none());
        assert_eq!(inbox_of(new.close(fresh)), b"b");
    }

    #[test]
    fn expiry_takes_the_old_and_leaves_the_young() {
        let mut replies = table(0);
        let old = replies.open(pending("old", 10)).unwrap();
        let young = replies.open(pending("young", 20)).unwrap();
        assert!(replies.take_expired(9).is_empty());
        assert_eq!(replies.take_expired(10).len(), 1);
        assert_eq!(replies.next_deadline_us(), 20);
        assert!(replies.close(old).is_none());
        assert_eq!(inbox_of(replies.close(young)), b"young");
        assert!(replies.take_expired(100).is_empty());
        assert_eq!(replies.next_deadline_us(), u64::MAX);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut replies = table(0);
        for index in 0..PENDING_REPLIES_PER_CONNECTION_MAX {
            replies
                .open(Pending {
                    request: request(&index.to_string()),
                    ..pending("a", 1)
                })
                .unwrap();
        }
        assert!(replies.open(pending("a", 1)).is_none());
        replies.take_expired(1);
        assert!(replies.open(pending("a", 1)).is_some());
    }

    // protocol: P-094
    #[test]
    fn a_service_that_is_never_answered_leaves_room_for_the_others() {
        let mut replies = table(0);
        let of = |service: &str, deadline_us| Pending {
            request: request(service),
            ..pending("a", deadline_us)
        };
        let mut tokens = Vec::new();
        while let Some(token) = replies.open(of("greedy", 10)) {
            tokens.push(token);
        }
        assert_eq!(tokens.len(), PENDING_REPLIES_PER_CONNECTION_MAX / 2);
        for _ in 0..1000 {
            replies.open(of("modest", 5)).unwrap();
        }
        assert!(replies.open(of("greedy", 10)).is_none());
        // What is answered or has expired is counted no more.
        assert_eq!(replies.take_expired(5).len(), 1000);
        for token in tokens {
            replies.close(token).unwrap();
        }
        assert!(replies.is_empty());
        let mut opened = 0;
        while replies.open(of("greedy", 10)).is_some() {
            opened += 1;
        }
        assert_eq!(opened, PENDING_REPLIES_PER_CONNECTION_MAX / 2);
    }

    // protocol: P-087
    #[test]
    fn of_several_receivers_only_the_last_loss_is_told() {
        let siblings = Siblings::of(3);
        let request = || Pending {
            siblings: siblings.clone(),
            ..pending("a", 1)
        };
        assert_eq!(
            [request().give_up(), request().give_up(), request().give_up()],
            [false, false, true]
        );
        let siblings = Siblings::of(2);
        siblings.as_ref().unwrap().answered();
        let request = || Pending {
            siblings: siblings.clone(),
            ..pending("a", 1)
        };
        assert_eq!([request().give_up(), request().give_up()], [false, false]);
        let siblings = Siblings::of(3).unwrap();
        siblings.answered();
        siblings.answered();
        assert!(!siblings.one_less(), "a loss after two answers is not told");
        assert!(pending("a", 1).give_up());
    }
}
