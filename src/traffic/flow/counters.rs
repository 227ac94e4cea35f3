//! What is counted of one flow: the counters that are written on the way of a message, and what is read of them.
//!
//! Knows neither the flow's name nor its connection.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::times::{ResponseTimes, TimesCounters};

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
    response_us_sum: AtomicU64,
    response_us_max: AtomicU64,
    unanswered: AtomicU64,
    replies_dropped: AtomicU64,
    /// The answers themselves are not counted apart. There are none before the first: most flows have none at all.
    times: OnceLock<Box<TimesCounters>>,
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
        self.response_us_sum.fetch_add(response_us, Relaxed);
        self.times.get_or_init(Box::default).count(response_us);
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

    /// How the response times are spread, if there are any.
    pub(super) fn times(&self) -> Option<ResponseTimes> {
        self.times.get().map(|times| times.times())
    }

    /// What has been sent so far, as far as it is recorded.
    pub(super) fn sent(&self) -> FlowSent {
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
            responses: self.times.get().map_or(0, |times| times.total()),
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
    /// All of them together: a number that changes whenever one of them does, as none ever falls.
    pub(super) fn sum(&self) -> u64 {
        let Self {
            messages,
            bytes,
            denied,
            dropped,
            no_receiver,
            over_limit,
            quarantined,
            responses,
            response_us_sum,
            response_us_max,
            unanswered,
            replies_dropped,
        } = *self;
        let counts = [
            messages,
            bytes,
            denied,
            dropped,
            no_receiver,
            over_limit,
            quarantined,
            responses,
            response_us_sum,
            response_us_max,
            unanswered,
            replies_dropped,
        ];
        counts.into_iter().fold(0, u64::wrapping_add)
    }

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
    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            bytes: self.bytes - before.bytes,
            denied: self.denied - before.denied,
            dropped: self.dropped - before.dropped,
            no_receiver: self.no_receiver - before.no_receiver,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
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
    pub(super) fn add(&mut self, sent: &FlowSent, connection: u64) {
        self.sent.add(sent);
        self.first = if self.first == 0 {
            connection
        } else {
            self.first.min(connection)
        };
        self.last = self.last.max(connection);
    }
}
