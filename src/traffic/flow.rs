//! Flows and their counters. A flow is (sender, message name, receiver): the unit of counting, audit and
//! anomaly detection.
//!
//! Each connection has a [`FlowBook`] that it alone writes; the [`FlowRegistry`] knows all books and keeps what
//! those of ended connections held, so that no count is lost.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

use crate::limits::{FLOWS_KEPT_MAX, FLOWS_PER_CONNECTION_MAX};

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

    /// What has been counted so far.
    pub fn totals(&self) -> FlowTotals {
        FlowTotals {
            messages: self.messages.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            denied: self.denied.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            no_receiver: self.no_receiver.load(Relaxed),
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
        self.responses += other.responses;
        self.response_us_sum += other.response_us_sum;
        self.response_us_max = self.response_us_max.max(other.response_us_max);
        self.unanswered += other.unanswered;
        self.replies_dropped += other.replies_dropped;
    }
}

type Flows = HashMap<(Arc<str>, Option<Arc<str>>), Arc<FlowCounters>, foldhash::fast::RandomState>;

/// The flows that one connection sends.
#[derive(Debug)]
pub struct FlowBook {
    sender: Arc<str>,
    flows: Mutex<Flows>,
}

impl FlowBook {
    /// The counters of the flow to `receiver`, the same each time. Past the bound on flows, those of the name
    /// `>`: still counted, no longer apart.
    pub fn counters(&self, message: &str, receiver: Option<&Arc<str>>) -> Arc<FlowCounters> {
        let mut flows = self.flows.lock();
        let key = (Arc::from(message), receiver.cloned());
        if let Some(counters) = flows.get(&key) {
            return Arc::clone(counters);
        }
        let key = if flows.len() < FLOWS_PER_CONNECTION_MAX {
            key
        } else {
            (Arc::from(">"), key.1)
        };
        Arc::clone(flows.entry(key).or_default())
    }

    fn add_to(&self, all: &mut BTreeMap<FlowKey, FlowTotals>) {
        for ((message, receiver), counters) in &*self.flows.lock() {
            let key = FlowKey {
                sender: Arc::clone(&self.sender),
                message: Arc::clone(message),
                receiver: receiver.clone(),
            };
            add_bounded(all, key, &counters.totals());
        }
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
}

impl FlowRegistry {
    /// A book for a new connection of `sender`.
    pub fn open_book(&self, sender: &Arc<str>) -> Arc<FlowBook> {
        let book = Arc::new(FlowBook {
            sender: Arc::clone(sender),
            flows: Mutex::default(),
        });
        self.books
            .lock()
            .open
            .insert(Arc::as_ptr(&book).addr(), Arc::clone(&book));
        book
    }

    /// Keeps what the book of an ended connection holds.
    pub fn close_book(&self, book: &Arc<FlowBook>) {
        let mut books = self.books.lock();
        if books.open.remove(&Arc::as_ptr(book).addr()).is_some() {
            book.add_to(&mut books.kept);
        }
    }

    /// The totals of every flow since the start, in the order of their keys.
    pub fn totals(&self) -> BTreeMap<FlowKey, FlowTotals> {
        let books = self.books.lock();
        let mut all = books.kept.clone();
        for book in books.open.values() {
            book.add_to(&mut all);
        }
        all
    }
}

fn add_bounded(all: &mut BTreeMap<FlowKey, FlowTotals>, key: FlowKey, totals: &FlowTotals) {
    let is_full = all.len() >= FLOWS_KEPT_MAX && !all.contains_key(&key);
    let key = if is_full {
        FlowKey {
            message: Arc::from(">"),
            ..key
        }
    } else {
        key
    };
    all.entry(key).or_default().add(totals);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_outlive_their_connection() {
        let registry = FlowRegistry::default();
        let (web, todos): (Arc<str>, Arc<str>) = ("web".into(), "todos".into());
        let first = registry.open_book(&web);
        let second = registry.open_book(&web);
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
        let book = registry.open_book(&"web".into());
        for index in 0..FLOWS_PER_CONNECTION_MAX + 500 {
            book.counters(&format!("name.{index}"), None).count_no_receiver();
        }
        let totals = registry.totals();
        assert_eq!(totals.len(), FLOWS_PER_CONNECTION_MAX + 1);
        let sum: u64 = totals.values().map(|t| t.no_receiver).sum();
        assert_eq!(sum, FLOWS_PER_CONNECTION_MAX as u64 + 500);
    }
}
