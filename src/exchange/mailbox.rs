//! What lies behind a connection's lock: the bytes that wait for its socket, and the inboxes on which it hears
//! answers.
//!
//! Any publisher pushes a whole batch under one lock. Nothing here blocks, and nothing grows without bound: a
//! message that does not fit is given back with the reason.

use std::ops::DerefMut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::exchange::inbox::Inboxes;
use crate::exchange::replies::PendingReplies;
use crate::limits::{OUTBOX_BYTES_BACK_PRESSURE, OUTBOX_BYTES_MAX, OUTBOX_OWN_BYTES_MAX};
use crate::wire::encode::{self, Content, Head, Refusal, ReplyToken};

/// A connection's number, never used twice while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A connection, as others see it: a handle to its mailbox.
pub trait Peer: Clone {
    /// The connection's number.
    fn id(&self) -> ConnId;

    /// Runs `f` on the mailbox under its lock, then writes what the socket takes.
    fn with_mailbox<R>(&self, f: impl FnOnce(&mut Mailbox) -> R) -> R;

    /// The requests that wait for its answer, under a lock of their own. Whoever holds that locks nothing more, and
    /// soon lets go; the mailbox may be locked before it.
    fn replies(&self) -> impl DerefMut<Target = PendingReplies<Self>>;

    /// Whether its outbox is short. A hint, read without the lock.
    fn is_ready(&self) -> bool;
}

/// A subscription to messages. Shared by its connection, the directory and the routes that lead to it.
#[derive(Debug)]
pub struct Subscription {
    /// The client's own id of it.
    pub sid: Box<[u8]>,
    /// Its queue group.
    pub queue: Option<Box<[u8]>>,
    /// Deliveries so far. Written under the mailbox's lock.
    delivered: AtomicU64,
    /// Deliveries after which it ends; 0: never. Written under the mailbox's lock.
    delivered_max: AtomicU64,
    /// Whether it has ended. Written under the mailbox's lock.
    ended: AtomicBool,
}

impl Subscription {
    /// A new one.
    pub fn new(sid: &[u8], queue: Option<&[u8]>) -> Self {
        Self {
            sid: sid.into(),
            queue: queue.map(Into::into),
            delivered: AtomicU64::new(0),
            delivered_max: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// Whether it takes no more messages.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Lets it end after `max` deliveries in all. Says whether it has had them already.
    /// To be called under the mailbox's lock.
    pub fn end_after(&self, max: u64) -> bool {
        self.delivered_max.store(max, Relaxed);
        self.delivered.load(Relaxed) >= max
    }

    /// Ends it. To be called under the mailbox's lock.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }

    /// Counts a delivery; says whether it was the last.
    fn count(&self) -> bool {
        let delivered = self.delivered.load(Relaxed) + 1;
        self.delivered.store(delivered, Relaxed);
        let max = self.delivered_max.load(Relaxed);
        let is_last = max > 0 && delivered >= max;
        if is_last {
            self.end();
        }
        is_last
    }
}

/// Why a mailbox did not take a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The outbox or the table of pending replies is full.
    Full,
    /// The subscription, or the whole connection, has ended.
    Gone,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// Bytes on their way to the socket.
    pub outbox: Outbox,
    /// Where this connection hears answers.
    pub inboxes: Inboxes,
    takes_headers: bool,
    takes_refusals: bool,
    ended: Vec<Arc<Subscription>>,
    closed: bool,
}

impl Mailbox {
    /// Sets what the client said in `CONNECT`.
    pub const fn set_options(&mut self, takes_headers: bool, takes_refusals: bool) {
        self.takes_headers = takes_headers;
        self.takes_refusals = takes_refusals;
    }

    /// Puts a message for one subscription into the outbox. With `open`, the receiver is asked for an answer and gets
    /// the token that is opened; `None` of it means that the table of pending replies is full.
    pub fn deliver(
        &mut self,
        subscription: &Arc<Subscription>,
        head: &Head,
        content: &Content<'_>,
        open: Option<impl FnOnce() -> Option<ReplyToken>>,
    ) -> Result<(), NotTaken> {
        if self.closed || subscription.has_ended() {
            return Err(NotTaken::Gone);
        }
        if self.outbox.is_full() {
            return Err(NotTaken::Full);
        }
        let token = match open {
            Some(open) => Some(open().ok_or(NotTaken::Full)?),
            None => None,
        };
        encode::message(self.outbox.bytes_mut(), self.takes_headers, head, token, content);
        if subscription.count() {
            self.ended.push(Arc::clone(subscription));
        }
        Ok(())
    }

    /// Puts an answer on the requester's own inbox. [`NotTaken::Gone`] where it no longer listens there.
    pub fn answer(&mut self, inbox: &[u8], content: &Content<'_>) -> Result<(), NotTaken> {
        if self.closed {
            return Err(NotTaken::Gone);
        }
        let (takes_headers, outbox) = (self.takes_headers, &mut self.outbox);
        self.inboxes.hear(inbox, |sid| {
            // Asked for each: one answer may be heard by thousands of subscriptions.
            let has_room = !outbox.is_full();
            if has_room {
                encode::answer(outbox.bytes_mut(), takes_headers, inbox, sid, content);
            }
            has_room
        })
    }

    /// Puts a word of the broker itself on the requester's own inbox, if it still listens there and there is room.
    pub fn tell(&mut self, inbox: &[u8], payload: &[u8]) {
        if self.closed {
            return;
        }
        let outbox = &mut self.outbox;
        self.inboxes
            .hear(inbox, |sid| {
                let has_room = !outbox.is_full();
                if has_room {
                    encode::word(outbox.bytes_mut(), inbox, sid, payload);
                }
                has_room
            })
            .unwrap_or_default();
    }

    /// Tells the requester that its request cannot succeed, if it can be told.
    pub fn refuse(&mut self, inbox: &[u8], refusal: &Refusal<'_>) {
        if self.closed || !self.takes_refusals {
            return;
        }
        let outbox = &mut self.outbox;
        // Whether it was heard changes nothing: a requester that cannot be told waits until its own time is up.
        self.inboxes
            .hear(inbox, |sid| {
                let has_room = !outbox.is_full();
                if has_room {
                    encode::refusal(outbox.bytes_mut(), inbox, sid, refusal);
                }
                has_room
            })
            .unwrap_or_default();
    }

    /// Ends the mailbox: it takes nothing more, and opens no request.
    pub fn close(&mut self) {
        self.closed = true;
        self.inboxes = Inboxes::default();
    }

    /// Whether subscriptions have had all their deliveries, so that their connection should take them out.
    pub const fn has_ended_subscriptions(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Takes the subscriptions that have had all their deliveries.
    pub fn take_ended_subscriptions(&mut self) -> Vec<Arc<Subscription>> {
        std::mem::take(&mut self.ended)
    }
}

/// Bytes that wait for a socket, oldest first.
#[derive(Debug)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
    bytes_max: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            sent: 0,
            bytes_max: OUTBOX_BYTES_MAX,
        }
    }
}

impl Outbox {
    /// Capacity that an empty outbox may keep.
    const KEPT_BYTES: usize = 4096;

    /// Where new bytes are appended.
    pub const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes not yet taken.
    pub fn waiting(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    /// Marks the first `count` waiting bytes as taken.
    pub fn take(&mut self, count: usize) {
        self.sent += count;
        if self.sent >= self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
        } else if self.sent > OUTBOX_BYTES_BACK_PRESSURE && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives an empty outbox's memory back.
    pub fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > Self::KEPT_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// How many bytes wait.
    pub const fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets from how many bytes on it takes no more messages.
    pub const fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Whether it takes no more messages.
    pub const fn is_full(&self) -> bool {
        self.len() >= self.bytes_max
    }

    /// Whether it should not even take answers to what its own client does.
    pub const fn is_stuffed(&self) -> bool {
        self.len() >= self.bytes_max + OUTBOX_OWN_BYTES_MAX
    }

    /// Whether publishers should wait a moment.
    pub const fn is_long(&self) -> bool {
        self.len() >= OUTBOX_BYTES_BACK_PRESSURE
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::wire::encode::Stamp;

    static STAMP: LazyLock<Stamp> = LazyLock::new(|| Stamp::new("web"));
    static CONTENT: LazyLock<Content<'_>> = LazyLock::new(|| Content {
        stamp: &STAMP,
        headers: b"",
        payload: b"x",
    });
    static HEAD: LazyLock<Head> = LazyLock::new(|| Head::new(b"a", b"1"));
    const NO_REPLY: Option<fn() -> Option<ReplyToken>> = None;

    #[test]
    fn a_subscription_ends_after_its_last_delivery() {
        let mut mailbox = Mailbox::default();
        let subscription = Arc::new(Subscription::new(b"1", None));
        assert!(!subscription.end_after(2));
        assert_eq!(mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY), Ok(()));
        assert!(!mailbox.has_ended_subscriptions());
        assert_eq!(mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY), Ok(()));
        assert_eq!(mailbox.take_ended_subscriptions().len(), 1);
        assert_eq!(
            mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY),
            Err(NotTaken::Gone)
        );
        assert_eq!(mailbox.outbox.waiting(), b"MSG a 1 1\r\nx\r\nMSG a 1 1\r\nx\r\n");
    }

    #[test]
    fn a_full_outbox_takes_nothing_until_it_is_read() {
        let mut mailbox = Mailbox::default();
        let subscription = Arc::new(Subscription::new(b"1", None));
        mailbox.outbox.bytes_mut().resize(OUTBOX_BYTES_MAX, b'x');
        assert_eq!(
            mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY),
            Err(NotTaken::Full)
        );
        mailbox.outbox.take(OUTBOX_BYTES_MAX);
        assert_eq!(mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY), Ok(()));
        mailbox.close();
        assert_eq!(
            mailbox.deliver(&subscription, &HEAD, &CONTENT, NO_REPLY),
            Err(NotTaken::Gone)
        );
    }

    #[test]
    fn answers_are_heard_only_on_ones_own_inboxes() {
        let mut mailbox = Mailbox::default();
        mailbox.inboxes.listen("_INBOX.me.*", b"1");
        mailbox.inboxes.listen("_INBOX.once", b"2");
        mailbox.inboxes.stop(b"2", Some(1));
        assert_eq!(mailbox.answer(b"_INBOX.me.7", &CONTENT), Ok(()));
        assert_eq!(mailbox.answer(b"_INBOX.once", &CONTENT), Ok(()));
        assert_eq!(mailbox.answer(b"_INBOX.once", &CONTENT), Err(NotTaken::Gone));
        assert_eq!(mailbox.answer(b"_INBOX.you.7", &CONTENT), Err(NotTaken::Gone));
        mailbox.inboxes.stop(b"1", None);
        assert_eq!(mailbox.answer(b"_INBOX.me.7", &CONTENT), Err(NotTaken::Gone));
        assert!(mailbox.inboxes.is_empty());
    }

    #[test]
    fn an_outbox_gives_bytes_in_order() {
        let mut outbox = Outbox::default();
        outbox.bytes_mut().extend_from_slice(b"abcdef");
        outbox.take(2);
        assert_eq!(outbox.waiting(), b"cdef");
        outbox.bytes_mut().extend_from_slice(b"gh");
        outbox.take(6);
        assert!(outbox.is_empty());
    }
}
