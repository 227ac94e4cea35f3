//! Requests that wait for their answer, all on one inbox.
//!
//! The client library has such a table too, but it keeps ExoCom's reasons to itself. Never waits and never sends.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::Message as Frame;
use tokio::sync::oneshot;

use crate::limits::REQUESTS_MAX;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// An answer, or a refusal.
    Answer(Frame),
    /// The connection has ended.
    ConnectionLost,
    /// The relay has been shut down.
    Closed,
}

/// The table. See the module's documentation.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Subjects of answers begin so; what follows is the request's number.
    prefix: String,
    made: AtomicU64,
    open: Mutex<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Requests {
    /// An empty table for an inbox of this relay's own.
    pub(crate) fn new(inbox: &str) -> Self {
        Self {
            prefix: format!("{inbox}."),
            made: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// What to subscribe to.
    pub(crate) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Opens a request; `None` where too many are open.
    pub(crate) fn open(self: &Arc<Self>) -> Option<Ticket> {
        let (sender, outcome) = oneshot::channel();
        let number = self.made.fetch_add(1, Relaxed);
        let mut open = self.lock();
        if open.len() >= REQUESTS_MAX {
            return None;
        }
        open.insert(number, sender);
        Some(Ticket {
            number,
            outcome,
            requests: Arc::clone(self),
        })
    }

    /// Gives an answer to the request that it belongs to. One that has been given up is not missed.
    pub(crate) fn answer(&self, frame: Frame) {
        let number = frame
            .subject
            .strip_prefix(self.prefix.as_str())
            .and_then(|number| number.parse().ok());
        let waiting = number.and_then(|number: u64| self.lock().remove(&number));
        if let Some(waiting) = waiting {
            // It may have been given up in this moment.
            drop(waiting.send(Outcome::Answer(frame)));
        }
    }

    /// Ends all requests.
    pub(crate) fn end_all(&self, why: impl Fn() -> Outcome) {
        let open = std::mem::take(&mut *self.lock());
        for waiting in open.into_values() {
            drop(waiting.send(why()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Outcome>>> {
        // Nothing panics between two states of the table.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An open request; given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    outcome: oneshot::Receiver<Outcome>,
    requests: Arc<Requests>,
}

impl Ticket {
    /// Where the answer is awaited.
    pub(crate) fn inbox(&self) -> String {
        format!("{}{}", self.requests.prefix, self.number)
    }

    /// Waits for the outcome.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or(Outcome::Closed)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.requests.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(subject: &str) -> Frame {
        Frame {
            subject: subject.into(),
            reply: None,
            payload: bytes::Bytes::from_static(b"1"),
            headers: None,
            status: None,
            description: None,
            length: 1,
        }
    }

    #[tokio::test]
    async fn an_answer_finds_its_request_and_no_other() {
        let requests = Arc::new(Requests::new("_INBOX.x"));
        let (mut first, mut second) = (requests.open().unwrap(), requests.open().unwrap());
        assert_ne!(first.inbox(), second.inbox());
        requests.answer(frame("_INBOX.x.99"));
        requests.answer(frame("_INBOX.y.0"));
        requests.answer(frame(&second.inbox()));
        requests.end_all(|| Outcome::ConnectionLost);
        assert!(matches!(second.outcome().await, Outcome::Answer(_)));
        assert!(matches!(first.outcome().await, Outcome::ConnectionLost));
    }

    #[tokio::test]
    async fn the_table_is_bounded_and_forgets_what_is_given_up() {
        let requests = Arc::new(Requests::new("_INBOX.x"));
        let mut tickets: Vec<_> = (0..REQUESTS_MAX).map(|_| requests.open().unwrap()).collect();
        assert!(requests.open().is_none());
        let given_up = tickets.pop().unwrap().inbox();
        requests.answer(frame(&given_up));
        assert!(requests.open().is_some());
    }
}
