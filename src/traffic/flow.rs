//! Flows and their counters. A flow is (sender, message name, receiver): the unit of counting, audit and
//! anomaly detection.
//!
//! Each connection has a [`FlowBook`] that it alone writes; the [`FlowRegistry`] knows all books and keeps what
//! those of ended connections held, so that no count is lost.

mod counters;
mod times;

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::limits::{
    DENIED_FLOWS_PER_CONNECTION_MAX, FLOWS_KEPT_MAX, FLOWS_KEPT_PER_SENDER_MAX, FLOWS_PER_CONNECTION_MAX,
    FLOWS_PER_SENDER_MAX, RESPONSE_TIMES_KEPT_MAX,
};

pub use counters::{FlowCounters, FlowSent, FlowTotals, NewlySent};
pub use times::ResponseTimes;

/// Who sends what to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// The sending service.
    pub sender: Arc<str>,
    /// The message name; `>` for those past the bound.
    pub message: Arc<str>,
    /// The receiving service; `None` where a message found no receiver or was denied.
    pub receiver: Option<Arc<str>>,
}

/// What stands for a flow where its names would be dear to compare. Whoever reads changes gives them out.
pub type FlowNumber = NonZeroU32;

type NewByKey = HashMap<FlowKey, NewlySent, foldhash::fast::RandomState>;
type ChangeByKey = HashMap<FlowKey, FlowTotals, foldhash::fast::RandomState>;

/// A flow of one book.
#[derive(Debug, Default)]
struct Counted {
    counters: Arc<FlowCounters>,
    /// What has been taken of it to be written down.
    taken: FlowSent,
    /// What had been counted when changes were read the last time, and the sum of it all.
    seen: FlowTotals,
    seen_sum: u64,
    number: Option<FlowNumber>,
}

impl Counted {
    /// What was counted since changes were read the last time, if anything was. To see that there is nothing takes no more
    /// than the counters themselves: no count ever falls, so their sum tells.
    fn take_change(&mut self) -> Option<FlowTotals> {
        let now = self.counters.totals();
        let sum = now.sum();
        if sum == self.seen_sum {
            return None;
        }
        self.seen_sum = sum;
        let more = now.since(&self.seen);
        self.seen = now;
        Some(more)
    }
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

    /// Tells what has changed since this was asked the last time.
    fn read_changes(
        &self,
        each: &mut impl FnMut(&mut Option<FlowNumber>, &FlowTotals, &dyn Fn() -> FlowKey),
    ) {
        for ((message, receiver), counted) in &mut self.flows.lock().by_key {
            if let Some(more) = counted.take_change() {
                each(&mut counted.number, &more, &|| self.key(message, receiver));
            }
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
    /// What of that nobody has read as a change yet.
    changed: ChangeByKey,
    /// When changes were read the last time.
    read_us: u64,
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
            changed,
            senders,
            new,
            ..
        } = &mut *books;
        if open.remove(&Arc::as_ptr(book).addr()).is_none() {
            return;
        }
        if let Some(new) = new {
            book.take_new(new);
        }
        let sender = senders.entry(Arc::clone(&book.sender)).or_default();
        let mut keep = |key: FlowKey, totals: &FlowTotals, more: Option<FlowTotals>| {
            let is_full = sender.kept >= FLOWS_KEPT_PER_SENDER_MAX || kept.len() >= FLOWS_KEPT_MAX;
            let key = if is_full && !kept.contains_key(&key) {
                FlowKey {
                    message: Arc::from(">"),
                    ..key
                }
            } else {
                key
            };
            if let Some(more) = more {
                changed.entry(key.clone()).or_default().add(&more);
            }
            let known = kept.len();
            kept.entry(key).or_default().add(totals);
            sender.kept += kept.len() - known;
        };
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
        let mut flows = book.flows.lock();
        for ((message, receiver), counted) in &mut flows.by_key {
            let more = counted.take_change();
            keep(book.key(message, receiver), &counted.seen, more);
        }
        book.of_sender.fetch_sub(flows.by_key.len(), Relaxed);
    }

    /// Tells of every flow what was counted since this was called the last time, at a time of the broker's clock: every
    /// count comes here once. A flow comes once for each connection that sends it, with the number that `each` has given
    /// it there, and a way to its names.
    pub fn read_changes(
        &self,
        now_us: u64,
        mut each: impl FnMut(&mut Option<FlowNumber>, &FlowTotals, &dyn Fn() -> FlowKey),
    ) {
        let mut books = self.books.lock();
        books.read_us = now_us;
        let changed = std::mem::take(&mut books.changed);
        let open: Vec<_> = books.open.values().map(Arc::clone).collect();
        drop(books);
        for (key, more) in &changed {
            each(&mut None, more, &|| key.clone());
        }
        for book in open {
            book.read_changes(&mut each);
        }
    }

    /// When changes were read the last time; 0 where never.
    pub fn read_us(&self) -> u64 {
        self.books.lock().read_us
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
        books.add_to(&mut all, |counted| counted.counters.totals());
        drop(books);
        summed_up(all)
    }

    /// The same as they were when changes were read the last time, and when that was.
    pub fn totals_before(&self) -> (u64, BTreeMap<FlowKey, FlowTotals>) {
        let books = self.books.lock();
        let kept = books.kept.iter().map(|(key, totals)| {
            let more = books.changed.get(key).copied().unwrap_or_default();
            (key.clone(), totals.since(&more))
        });
        let mut all: Vec<_> = kept.collect();
        books.add_to(&mut all, |counted| counted.seen);
        let read_us = books.read_us;
        drop(books);
        (read_us, summed_up(all))
    }
}

impl Books {
    fn add_to(&self, all: &mut Vec<(FlowKey, FlowTotals)>, of: impl Fn(&Counted) -> FlowTotals) {
        for book in self.open.values() {
            for ((message, receiver), counted) in &book.flows.lock().by_key {
                all.push((book.key(message, receiver), of(counted)));
            }
        }
    }
}

/// Each flow once, in the order of their keys.
fn summed_up(mut all: Vec<(FlowKey, FlowTotals)>) -> BTreeMap<FlowKey, FlowTotals> {
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

#[cfg(test)]
mod tests;
