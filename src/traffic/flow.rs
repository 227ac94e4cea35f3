//! Flows and their counters. A flow is (sender, message name, receiver): the unit of counting, audit and
//! anomaly detection.
//!
//! Each connection has a [`FlowBook`] that it alone writes; the [`FlowRegistry`] knows all books and keeps what
//! those of ended connections held, so that no count is lost.

mod counters;
mod times;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::Serialize;

use crate::limits::{
    DENIED_FLOWS_PER_CONNECTION_MAX, FLOWS_KEPT_MAX, FLOWS_KEPT_PER_SENDER_MAX, FLOWS_PER_CONNECTION_MAX,
    FLOWS_PER_SENDER_MAX, RESPONSE_TIMES_KEPT_MAX,
};

pub use counters::{FlowCounters, FlowSent, FlowTotals, NewlySent};
pub use times::ResponseTimes;

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

    fn add_times_to(&self, each: &mut impl FnMut(FlowKey, &ResponseTimes)) {
        for ((message, receiver), counted) in &self.flows.lock().by_key {
            if let Some(times) = counted.counters.times() {
                each(self.key(message, receiver), &times);
            }
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
    kept_times: BTreeMap<FlowKey, ResponseTimes>,
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
            kept_times,
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
        book.add_times_to(&mut |key, times| {
            let is_full = kept_times.len() >= RESPONSE_TIMES_KEPT_MAX && !kept_times.contains_key(&key);
            let key = if is_full {
                // Still of the service that answered.
                FlowKey {
                    sender: Arc::from(">"),
                    message: Arc::from(">"),
                    ..key
                }
            } else {
                key
            };
            kept_times.entry(key).or_default().add(times);
        });
        let flows = book.flows.lock().by_key.len();
        book.of_sender.fetch_sub(flows, Relaxed);
    }

    /// How the response times of every flow that was answered are spread since the start: in any order, and a flow in
    /// parts.
    pub fn response_times(&self, each: &mut impl FnMut(&FlowKey, &ResponseTimes)) {
        let books = self.books.lock();
        books.kept_times.iter().for_each(|(key, times)| each(key, times));
        let open: Vec<_> = books.open.values().map(Arc::clone).collect();
        drop(books);
        for book in open {
            book.add_times_to(&mut |key, times| each(&key, times));
        }
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
mod tests;
