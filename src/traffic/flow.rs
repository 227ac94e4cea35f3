//! Flows and their counters. A flow is (sender, message name, receiver): the unit of counting, audit and
//! anomaly detection.
//!
//! Each connection has a [`FlowBook`] that it alone writes; the [`FlowRegistry`] knows all books and keeps what
//! those of ended connections held, so that no count is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

use crate::limits::{
    DENIED_FLOWS_PER_CONNECTION_MAX, FLOWS_KEPT_MAX, FLOWS_KEPT_PER_SENDER_MAX, FLOWS_PER_CONNECTION_MAX,
    FLOWS_PER_SENDER_MAX,
};

/// Who sends what to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct FlowKey {
    /// The sending service.
    pub sender: Arc<str>,
    /// The message name; `>` for those past the bound.
    pub message: Arc<str>,
    /// The receiving service; `None` where a message found no receiver or was denied.
    pub receiver: Option<Arc<str>>,
}

/// What happened in one flow. All but the response times are written by one thread, the sender's; nothing
/// here orders anything, so every access is relaxed.
#[derive(Debug, Default)]
pub struct FlowCounters {
    messages: AtomicU64,
    bytes: AtomicU64,
    denied: AtomicU64,
    dropped: AtomicU64,
    no_receiver: AtomicU64,
    over_limit: AtomicU64,
    quarantined: AtomicU64,
    responses: AtomicU64,
    response_us_sum: AtomicU64,
    response_us_max: AtomicU64,
    unanswered: AtomicU64,
    replies_dropped: AtomicU64,
}

impl FlowCounters {
    /// Counts a message that went to its receiver's outbox.
    pub fn count_delivered(&self, payload_bytes: usize) {
        add_alone(&self.messages, 1);
        add_alone(&self.bytes, payload_bytes as u64);
    }

    /// Counts a message that the policy denied.
    pub fn count_denied(&self) {
        add_alone(&self.denied, 1);
    }

    /// Counts a message that its receiver's full outbox or table, or its end, made impossible to deliver.
    pub fn count_dropped(&self) {
        add_alone(&self.dropped, 1);
    }

    /// Counts a message that nobody was there to receive.
    pub fn count_no_receiver(&self) {
        add_alone(&self.no_receiver, 1);
    }

    /// Counts a message that was one more than the policy's limits allow.
    pub fn count_over_limit(&self) {
        add_alone(&self.over_limit, 1);
    }

    /// Counts a message that was refused because its sender is held.
    pub fn count_quarantined(&self) {
        add_alone(&self.quarantined, 1);
    }

    /// Counts an answer and how long it took. Any thread may call it.
    pub fn count_response(&self, response_us: u64) {
        self.responses.fetch_add(1, Relaxed);
        self.response_us_sum.fetch_add(response_us, Relaxed);
        if response_us > self.response_us_max.load(Relaxed) {
            self.response_us_max.fetch_max(response_us, Relaxed);
        }
    }

    /// Counts a request that expired, or whose receiver was lost. Any thread may call it.
    pub fn count_unanswered(&self) {
        self.unanswered.fetch_add(1, Relaxed);
    }

    /// Counts an answer that the requester did not get: it had left, or its outbox was full. Any thread may
    /// call it.
    pub fn count_reply_dropped(&self) {
        self.replies_dropped.fetch_add(1, Relaxed);
    }

    /// What has been sent so far, as far as it is recorded.
    fn sent(&self) -> FlowSent {
        FlowSent {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            denied: self.denied.load(Relaxed),
            // Recorded as one: each is a message that nobody got, though it might have been sent.
            dropped: self.dropped.load(Relaxed)
                + self.over_limit.load(Relaxed)
                + self.quarantined.load(Relaxed),
            no_receiver: self.no_receiver.load(Relaxed),
        }
    }

    /// What has been counted so far.
    pub fn totals(&self) -> FlowTotals {
        FlowTotals {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            denied: self.denied.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            no_receiver: self.no_receiver.load(Relaxed),
            over_limit: self.over_limit.load(Relaxed),
            quarantined: self.quarantined.load(Relaxed),
            responses: self.responses.load(Relaxed),
            response_us_sum: self.response_us_sum.load(Relaxed),
            response_us_max: self.response_us_max.load(Relaxed),
            unanswered: self.unanswered.load(Relaxed),
            replies_dropped: self.replies_dropped.load(Relaxed),
        }
    }
}

/// Adds to a counter that one thread alone writes: a load and a store cost a tenth of a locked addition.
fn add_alone(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(more), Relaxed);
}

/// The counts of one flow, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FlowTotals {
    /// Messages handed to a receiver's outbox.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages that the policy denied.
    pub denied: u64,
    /// Messages dropped at a full outbox, a full table, or a receiver that was gone.
    pub dropped: u64,
    /// Messages that nobody was there to receive.
    pub no_receiver: u64,
    /// Messages that were more than the policy's limits allow.
    pub over_limit: u64,
    /// Messages that were refused because their sender is held.
    pub quarantined: u64,
    /// Requests answered.
    pub responses: u64,
    /// The sum of the response times, in microseconds.
    pub response_us_sum: u64,
    /// The longest response time, in microseconds.
    pub response_us_max: u64,
    /// Requests that expired or whose receiver was lost.
    pub unanswered: u64,
    /// Answers that the requester did not get.
    pub replies_dropped: u64,
}

impl FlowTotals {
    /// Adds the counts of another flow, or of another connection of the same.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.denied += other.denied;
        self.dropped += other.dropped;
        self.no_receiver += other.no_receiver;
        self.over_limit += other.over_limit;
        self.quarantined += other.quarantined;
        self.responses += other.responses;
        self.response_us_sum += other.response_us_sum;
        self.response_us_max = self.response_us_max.max(other.response_us_max);
        self.unanswered += other.unanswered;
        self.replies_dropped += other.replies_dropped;
    }
}

/// What was sent in a flow: the counts that are written down, each once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowSent {
    /// Messages handed to a receiver's outbox.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages that the policy denied.
    pub denied: u64,
    /// Messages dropped at a full outbox, a full table, or a receiver that was gone.
    pub dropped: u64,
    /// Messages that nobody was there to receive.
    pub no_receiver: u64,
}

impl FlowSent {
    fn since(&self, before: &Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            denied: self.denied - before.denied,
            dropped: self.dropped - before.dropped,
            no_receiver: self.no_receiver - before.no_receiver,
        }
    }

    fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.denied += other.denied;
        self.dropped += other.dropped;
        self.no_receiver += other.no_receiver;
    }
}

/// What was sent in a flow and has not been taken before, and the lowest and highest number of the connections that
/// sent it; 0 where it was no connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewlySent {
    /// How much.
    pub sent: FlowSent,
    /// The lowest.
    pub first: u64,
    /// The highest.
    pub last: u64,
}

impl NewlySent {
    fn add(&mut self, sent: &FlowSent, connection: u64) {
        self.sent.add(sent);
        self.first = if self.first == 0 {
            connection
        } else {
            self.first.min(connection)
        };
        self.last = self.last.max(connection);
    }
}

type NewByKey = HashMap<FlowKey, NewlySent, foldhash::fast::RandomState>;

/// A flow of one book.
#[derive(Debug, Default)]
struct Counted {
    counters: Arc<FlowCounters>,
    /// What has been taken of it.
    taken: FlowSent,
}

/// By message name and receiver, sorted, since those who read them all want them so.
type CountersByKey = BTreeMap<(Arc<str>, Option<Arc<str>>), Counted>;

/// The flows that one connection sends.
#[derive(Debug)]
pub struct FlowBook {
    sender: Arc<str>,
    /// The connection's number; 0 for what the broker sends again by itself.
    connection: u64,
    flows: Mutex<Flows>,
    /// Flows in all open books of the sender.
    of_sender: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Flows {
    by_key: CountersByKey,
    /// How many of them are of names that were denied when they first came.
    denied: usize,
}

impl FlowBook {
    /// The counters of the flow to `receiver`, the same each time. Past the bounds on flows, those of the name
    /// `>`: still counted, no longer apart.
    pub fn counters(&self, message: &str, receiver: Option<&Arc<str>>) -> Arc<FlowCounters> {
        self.flows.lock().counters(self, message, receiver.cloned())
    }

    /// The counters of a name that the policy denies. Since a client can make such names up, few are kept apart.
    pub fn denied_counters(&self, message: &str) -> Arc<FlowCounters> {
        let mut flows = self.flows.lock();
        let known = flows.by_key.len();
        let message = if flows.denied < DENIED_FLOWS_PER_CONNECTION_MAX {
            message
        } else {
            ">"
        };
        let counters = flows.counters(self, message, None);
        flows.denied += flows.by_key.len() - known;
        counters
    }

    fn add_to(&self, each: &mut impl FnMut(FlowKey, &FlowTotals)) {
        for ((message, receiver), counted) in &self.flows.lock().by_key {
            each(self.key(message, receiver), &counted.counters.totals());
        }
    }

    fn key(&self, message: &Arc<str>, receiver: &Option<Arc<str>>) -> FlowKey {
        FlowKey {
            sender: Arc::clone(&self.sender),
            message: Arc::clone(message),
            receiver: receiver.clone(),
        }
    }

    /// Takes what was sent since it was taken the last time.
    fn take_new(&self, new: &mut NewByKey) {
        for ((message, receiver), counted) in &mut self.flows.lock().by_key {
            let sent = counted.counters.sent();
            if sent == counted.taken {
                continue;
            }
            let since = sent.since(&counted.taken);
            counted.taken = sent;
            let mut key = self.key(message, receiver);
            if new.len() >= FLOWS_KEPT_MAX && !new.contains_key(&key) {
                key.message = Arc::from(">");
            }
            new.entry(key).or_default().add(&since, self.connection);
        }
    }
}

impl Flows {
    fn counters(&mut self, book: &FlowBook, message: &str, receiver: Option<Arc<str>>) -> Arc<FlowCounters> {
        let key = (Arc::from(message), receiver);
        if let Some(counted) = self.by_key.get(&key) {
            return Arc::clone(&counted.counters);
        }
        let has_room = self.by_key.len() < FLOWS_PER_CONNECTION_MAX
            && book.of_sender.load(Relaxed) < FLOWS_PER_SENDER_MAX;
        let key = if has_room { key } else { (Arc::from(">"), key.1) };
        let known = self.by_key.len();
        let counters = Arc::clone(&self.by_key.entry(key).or_default().counters);
        book.of_sender.fetch_add(self.by_key.len() - known, Relaxed);
        counters
    }
}

/// All flows of the broker. Owned by `serve`; connections open and close their books.
#[derive(Debug, Default)]
pub struct FlowRegistry {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// By the address of the book, which is its own while it is open.
    open: HashMap<usize, Arc<FlowBook>>,
    kept: BTreeMap<FlowKey, FlowTotals>,
    /// One for each service that ever sent.
    senders: HashMap<Arc<str>, Sender>,
    /// What connections that have ended had sent and nobody has taken yet; `None` where nobody ever will.
    new: Option<NewByKey>,
}

#[derive(Debug, Default)]
struct Sender {
    /// Flows in its open books.
    open: Arc<AtomicUsize>,
    /// Of those kept, how many are its own.
    kept: usize,
}

impl FlowRegistry {
    /// Keeps from now on what ended connections had sent until [`FlowRegistry::take_new`] takes it.
    pub fn record(&self) {
        self.books.lock().new.get_or_insert_default();
    }

    /// Takes what was sent since this was called the last time: every count comes here once, also those of
    /// connections that have ended.
    pub fn take_new(&self) -> BTreeMap<FlowKey, NewlySent> {
        let mut books = self.books.lock();
        let mut new = books.new.as_mut().map(std::mem::take).unwrap_or_default();
        for book in books.open.values() {
            book.take_new(&mut new);
        }
        drop(books);
        new.into_iter().collect()
    }

    /// A book for a new connection of `sender`, with its number.
    pub fn open_book(&self, sender: &Arc<str>, connection: u64) -> Arc<FlowBook> {
        let mut books = self.books.lock();
        let of_sender = Arc::clone(&books.senders.entry(Arc::clone(sender)).or_default().open);
        let book = Arc::new(FlowBook {
            sender: Arc::clone(sender),
            connection,
            flows: Mutex::default(),
            of_sender,
        });
        books.open.insert(Arc::as_ptr(&book).addr(), Arc::clone(&book));
        book
    }

    /// Keeps what the book of an ended connection holds.
    pub fn close_book(&self, book: &Arc<FlowBook>) {
        let mut books = self.books.lock();
        let Books {
            open,
            kept,
            senders,
            new,
        } = &mut *books;
        if open.remove(&Arc::as_ptr(book).addr()).is_none() {
            return;
        }
        if let Some(new) = new {
            book.take_new(new);
        }
        let sender = senders.entry(Arc::clone(&book.sender)).or_default();
        book.add_to(&mut |key, totals| {
            let is_full = sender.kept >= FLOWS_KEPT_PER_SENDER_MAX || kept.len() >= FLOWS_KEPT_MAX;
            let key = if is_full && !kept.contains_key(&key) {
                FlowKey {
                    message: Arc::from(">"),
                    ..key
                }
            } else {
                key
            };
            let known = kept.len();
            kept.entry(key).or_default().add(totals);
            sender.kept += kept.len() - known;
        });
        let flows = book.flows.lock().by_key.len();
        book.of_sender.fetch_sub(flows, Relaxed);
    }

    /// The totals of every flow since the start, in the order of their keys.
    pub fn totals(&self) -> BTreeMap<FlowKey, FlowTotals> {
        let books = self.books.lock();
        let kept = books.kept.iter().map(|(key, totals)| (key.clone(), *totals));
        let mut all: Vec<_> = kept.collect();
        for book in books.open.values() {
            book.add_to(&mut |key, totals| all.push((key, *totals)));
        }
        drop(books);
        // Each book is sorted: sorting finds these runs, and merges them.
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.dedup_by(|(later, more), (key, totals)| {
            let is_same = later == key;
            if is_same {
                totals.add(more);
            }
            is_same
        });
        all.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_their_connection() {
        let registry = FlowRegistry::default();
        let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
        let first = registry.open_book(&web, 1);
        let second = registry.open_book(&web, 2);
        for book in [&first, &second] {
            let counters = book.counters("todos.list", Some(&todos));
            counters.count_delivered(100);
            counters.count_response(7);
            book.counters("todos.list", Some(&todos)).count_delivered(1);
        }
        second.counters("todos.purge", None).count_denied();
        registry.close_book(&second);
        let totals = registry.totals();
        assert_eq!(totals.len(), 2);
        let sums: Vec<_> = totals
            .values()
            .map(|t| (t.messages, t.bytes, t.denied, t.responses))
            .collect();
        assert_eq!(sums, [(4, 202, 0, 2), (0, 0, 1, 0)]);
        registry.close_book(&first);
        assert_eq!(registry.totals(), totals);
    }

    #[test]
    fn flows_of_a_connection_are_bounded_and_still_counted() {
        let registry = FlowRegistry::default();
        let book = registry.open_book(&"web".into(), 1);
        for index in 0..FLOWS_PER_CONNECTION_MAX + 500 {
            book.counters(&format!("name.{index}"), None).count_no_receiver();
        }
        let totals = registry.totals();
        assert_eq!(totals.len(), FLOWS_PER_CONNECTION_MAX + 1);
        let sum: u64 = totals.values().map(|t| t.no_receiver).sum();
        assert_eq!(sum, FLOWS_PER_CONNECTION_MAX as u64 + 500);
    }

    #[test]
    fn denied_names_that_a_client_makes_up_are_counted_and_not_kept_apart() {
        let registry = FlowRegistry::default();
        let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
        for round in 0..200 {
            let book = registry.open_book(&web, 1);
            for index in 0..500 {
                book.denied_counters(&format!("made-up.{round}.{index}"))
                    .count_denied();
            }
            let own = book.flows.lock().by_key.len();
            assert_eq!(own, DENIED_FLOWS_PER_CONNECTION_MAX + 1);
            registry.close_book(&book);
        }
        let totals = registry.totals();
        assert!(totals.len() <= FLOWS_KEPT_PER_SENDER_MAX + 1, "{}", totals.len());
        assert_eq!(totals.values().map(|t| t.denied).sum::<u64>(), 200 * 500);
        // Another sender's are still kept apart.
        let book = registry.open_book(&todos, 1);
        book.counters("todos.created", Some(&web)).count_delivered(1);
        registry.close_book(&book);
        let key = FlowKey {
            sender: todos,
            message: "todos.created".into(),
            receiver: Some(web),
        };
        assert_eq!(registry.totals().get(&key).map(|t| t.messages), Some(1));
    }

    #[test]
    fn flows_of_a_sender_are_bounded_over_all_its_connections() {
        let registry = FlowRegistry::default();
        let books: Vec<_> = (0..=FLOWS_PER_SENDER_MAX / FLOWS_PER_CONNECTION_MAX)
            .map(|_| registry.open_book(&"web".into(), 1))
            .collect();
        for (number, book) in books.iter().enumerate() {
            for index in 0..FLOWS_PER_CONNECTION_MAX {
                book.counters(&format!("name.{number}.{index}"), None)
                    .count_no_receiver();
            }
        }
        assert_eq!(registry.totals().len(), FLOWS_PER_SENDER_MAX + 1);
        for book in &books {
            registry.close_book(book);
        }
        let book = registry.open_book(&"web".into(), 1);
        book.counters("name", None).count_no_receiver();
        assert_eq!(book.of_sender.load(Relaxed), 1, "what has ended counts no more");
    }

    #[test]
    fn every_count_is_taken_once_whatever_becomes_of_its_connection() {
        let registry = FlowRegistry::default();
        registry.record();
        let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
        let mut books: Vec<_> = (1..=3).map(|number| registry.open_book(&web, number)).collect();
        let mut taken = NewlySent::default();
        let mut sent = 0;
        for round in 1..=50_u64 {
            for book in &books {
                for _ in 0..round {
                    book.counters("todos.list", Some(&todos)).count_delivered(10);
                    sent += 1;
                }
                book.denied_counters("todos.purge").count_denied();
            }
            if round % 7 == 0 {
                registry.close_book(&books.remove(0));
                books.push(registry.open_book(&web, round * 10));
            }
            if round % 3 == 0 {
                let new = registry.take_new();
                assert!(new.len() <= 2);
                for more in new.values() {
                    taken.sent.add(&more.sent);
                    assert!(0 < more.first && more.first <= more.last && more.last <= 490);
                }
            }
        }
        books.iter().for_each(|book| registry.close_book(book));
        registry
            .take_new()
            .values()
            .for_each(|more| taken.sent.add(&more.sent));
        assert_eq!(
            (taken.sent.messages, taken.sent.bytes, taken.sent.denied),
            (sent, sent * 10, 150)
        );
        assert!(registry.take_new().is_empty());
    }
}
