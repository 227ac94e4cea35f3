//! The way from the connections to the task that owns the tracked messages: what they publish, and what they say
//! of the attempts that they have.
//!
//! Sessions give whole batches and never wait; what finds no room is given back at once, to be refused. The one
//! who takes is woken by the first thing that comes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::delivery::{DeliveryTerms, InstanceId, ReceiverNo, Seq};
use crate::exchange::mailbox::ConnId;
use crate::exchange::replies::Asker;
use crate::limits::{INTAKE_BYTES_MAX, INTAKE_MESSAGES_MAX};
use crate::traffic::flow::FlowCounters;

/// A permitted message that wants to be stored.
#[derive(Debug)]
pub struct TrackedPublish<P> {
    /// Who hears that it is stored or, for a command, its answer.
    pub asker: Option<Asker<P>>,
    /// The verified sender.
    pub sender: Arc<str>,
    /// The message name.
    pub name: Arc<str>,
    /// How it is delivered.
    pub terms: DeliveryTerms,
    /// The services that receive it.
    pub receivers: Arc<[Arc<str>]>,
    /// Its `Nats-Msg-Id`.
    pub id: Option<Arc<str>>,
    /// The sender's connection, where the message is recorded by itself.
    pub each: Option<ConnId>,
    /// Its header lines, made safe.
    pub headers: Box<[u8]>,
    /// Its payload.
    pub payload: Box<[u8]>,
    /// Where its sender counts it when it finds no room.
    pub flow: Arc<FlowCounters>,
}

impl<P> TrackedPublish<P> {
    fn bytes(&self) -> usize {
        self.headers.len() + self.payload.len()
    }
}

/// What a receiver says of an attempt (the acknowledgements of NATS JetStream).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Done: an empty answer, `+ACK`, or for a command any answer.
    Ack,
    /// Not now: `-NAK`, or `-NAK {"delay": nanoseconds}`; the wait in milliseconds.
    Nak(Option<u64>),
    /// Still at it: `+WPI`.
    Progress,
    /// Never: `+TERM`.
    Term,
}

impl Verdict {
    /// What an answer on the token of an attempt says. What is none of the words is an answer, and so means that
    /// it is done.
    pub fn parse(payload: &[u8]) -> Self {
        let payload = payload.trim_ascii();
        if payload == b"+WPI" {
            return Self::Progress;
        }
        if payload == b"+TERM" || payload.starts_with(b"+TERM ") {
            return Self::Term;
        }
        match payload.strip_prefix(b"-NAK") {
            Some(b"") => Self::Nak(None),
            Some(rest) if rest.starts_with(b" ") => Self::Nak(delay_ms(rest)),
            _ => Self::Ack,
        }
    }
}

fn delay_ms(json: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Options {
        delay: Option<u64>,
    }
    let options: Options = serde_json::from_slice(json).ok()?;
    options.delay.map(|delay_ns| delay_ns / 1_000_000)
}

/// Something that has happened.
#[derive(Debug)]
pub enum Happened<P> {
    /// A message was published.
    Published(Box<TrackedPublish<P>>),
    /// An instance spoke of an attempt.
    Said {
        /// Which message.
        seq: Seq,
        /// Which of its receivers.
        receiver: ReceiverNo,
        /// Which instance.
        from: InstanceId,
        /// What it said.
        verdict: Verdict,
    },
    /// An instance has gone.
    Gone(InstanceId),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Intake<P> {
    waiting: Mutex<Waiting<P>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Waiting<P> {
    happened: Vec<Happened<P>>,
    messages: usize,
    bytes: usize,
    is_woken: bool,
    is_closed: bool,
}

impl<P> Default for Intake<P> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                happened: Vec::new(),
                messages: 0,
                bytes: 0,
                is_woken: false,
                is_closed: false,
            }),
            arrived: Condvar::new(),
        }
    }
}

impl<P> Intake<P> {
    /// Gives what has happened, and empties `happened`. Messages that find no room come back. All else always
    /// finds some, since there is at most one for each attempt and connection; but for words that an instance is
    /// still at it, which it may say as often as it likes.
    pub fn give(&self, happened: &mut Vec<Happened<P>>) -> Vec<Box<TrackedPublish<P>>> {
        let mut given_back = Vec::new();
        let mut waiting = self.waiting.lock();
        for happened in happened.drain(..) {
            if let Happened::Published(message) = happened {
                let fits = waiting.messages < INTAKE_MESSAGES_MAX
                    && waiting.bytes + message.bytes() <= INTAKE_BYTES_MAX
                    && !waiting.is_closed;
                if !fits {
                    given_back.push(message);
                    continue;
                }
                waiting.messages += 1;
                waiting.bytes += message.bytes();
                waiting.happened.push(Happened::Published(message));
            } else if !(is_progress(&happened) && waiting.happened.len() >= INTAKE_MESSAGES_MAX) {
                waiting.happened.push(happened);
            }
        }
        drop(waiting);
        self.arrived.notify_one();
        given_back
    }

    /// Wakes the one who takes, though nothing has come.
    pub fn wake(&self) {
        self.waiting.lock().is_woken = true;
        self.arrived.notify_one();
    }

    /// Whether it takes no more.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }

    /// Takes no more messages: they come back from now on.
    pub fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.wake();
    }

    /// Waits until something comes, but not longer than `limit`, and takes all that there is. `into` is empty.
    pub fn take(&self, into: &mut Vec<Happened<P>>, limit: Duration) {
        let mut waiting = self.waiting.lock();
        if waiting.happened.is_empty() && !waiting.is_woken {
            self.arrived.wait_for(&mut waiting, limit);
        }
        std::mem::swap(into, &mut waiting.happened);
        waiting.messages = 0;
        waiting.bytes = 0;
        waiting.is_woken = false;
    }
}

fn is_progress<P>(happened: &Happened<P>) -> bool {
    let verdict = match happened {
        Happened::Said { verdict, .. } => Some(*verdict),
        _ => None,
    };
    verdict == Some(Verdict::Progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_receivers_say() {
        let check = |payload: &str, expected: Verdict| {
            assert_eq!(Verdict::parse(payload.as_bytes()), expected, "{payload}");
        };
        check("", Verdict::Ack);
        check("+ACK", Verdict::Ack);
        check("{\"todos\": []}", Verdict::Ack);
        check("-NAK", Verdict::Nak(None));
        check("-NAK {\"delay\": 2500000000}", Verdict::Nak(Some(2500)));
        check("-NAK {\"delay\": -1}", Verdict::Nak(None));
        check("-NAKED", Verdict::Ack);
        check("+WPI", Verdict::Progress);
        check("+TERM", Verdict::Term);
        check("+TERM because", Verdict::Term);
    }

    #[test]
    fn what_finds_no_room_comes_back() {
        let intake = Intake::<()>::default();
        let message = |bytes: usize| {
            Happened::Published(Box::new(TrackedPublish {
                asker: None,
                sender: "web".into(),
                name: "a".into(),
                terms: DeliveryTerms::of(&crate::policy::Terms::default()),
                receivers: Arc::new([]),
                id: None,
                each: None,
                headers: Box::default(),
                payload: vec![0; bytes].into(),
                flow: Arc::default(),
            }))
        };
        let mut batch = vec![
            message(INTAKE_BYTES_MAX),
            message(1),
            Happened::Gone(InstanceId(1)),
        ];
        assert_eq!(intake.give(&mut batch).len(), 1);
        let mut taken = Vec::new();
        intake.take(&mut taken, Duration::ZERO);
        assert_eq!(taken.len(), 2);
        assert!(intake.give(&mut vec![message(1)]).is_empty());
        let said = |verdict| Happened::Said {
            seq: Seq(1),
            receiver: ReceiverNo(0),
            from: InstanceId(1),
            verdict,
        };
        let mut words: Vec<_> = (0..2 * INTAKE_MESSAGES_MAX)
            .map(|_| said(Verdict::Progress))
            .collect();
        words.push(said(Verdict::Ack));
        intake.give(&mut words);
        intake.take(&mut taken, Duration::ZERO);
        assert_eq!(
            taken.len(),
            INTAKE_MESSAGES_MAX + 1,
            "as much as there is room, and what matters"
        );
        intake.close();
        assert_eq!(intake.give(&mut vec![message(1)]).len(), 1);
    }
}
