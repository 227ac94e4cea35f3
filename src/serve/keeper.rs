//! The task that owns the tracked messages: one thread, between the connections and the store.
//!
//! It takes what has come, writes it down once for all of it, and only then answers publishers and sends. It never
//! decides who may send or receive: a message comes with its permit, and before each attempt the policy in force is
//! asked about the receiver.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::audit::Record;
use crate::audit::each::{EachMessage, Outcome, payload_digest};
use crate::console::queue::{QueueAnswer, QueueVerb};
use crate::delivery::{Admitted, Cause, DeliveryTerms, InstanceId, NewMessage, Seq};
use crate::disk::LogError;
use crate::disk::files::Folder;
use crate::disk::store::{Made, NotStored, Store};
use crate::exchange::replies::Asker;
use crate::exchange::tracked::{Happened, Intake, TrackedPublish, Verdict};
use crate::limits::{LOG_LINES_AT_ONCE, LOG_LINES_PER_S};
use crate::net::broker::Broker;
use crate::net::handle::Handle;
use crate::policy::Kind;
use crate::serve::operate;
use crate::serve::post::Post;
use crate::traffic::budget::LineBudget;
use crate::wire::encode::Reason;

/// The longest wait for something to happen, in milliseconds.
const IDLE_MS_MAX: u64 = 1_000;

/// How long after a segment could not be prepared it is tried again, in milliseconds.
const PREPARE_AGAIN_MS: u64 = 1_000;

/// An order of an operator: what it does with the store, at a time in milliseconds since 1970. The flag tells that no
/// further segment can be prepared.
type Order = Box<dyn FnOnce(&mut Store<Folder>, bool, u64) -> Result<(), LogError> + Send>;

/// A handle to the task.
#[derive(Debug)]
pub(super) struct Keeper {
    counter: Counter,
    failure: Arc<Failure>,
    thread: Option<JoinHandle<()>>,
}

/// How the task ended, if it could not go on.
#[derive(Debug, Default)]
pub(super) struct Failure {
    error: Mutex<Option<LogError>>,
    happened: Notify,
}

impl Failure {
    /// Waits until the task cannot go on.
    pub(super) async fn wait(&self) -> String {
        loop {
            self.happened.notified().await;
            if let Some(error) = &*self.error.lock() {
                return error.to_string();
            }
        }
    }
}

impl Keeper {
    /// Starts the task.
    pub(super) fn start(
        store: Store<Folder>,
        intake: Arc<Intake<Handle>>,
        broker: Arc<Broker>,
        stream: String,
    ) -> io::Result<Self> {
        let orders = Arc::new(Mutex::new(Vec::new()));
        let failure = Arc::new(Failure::default());
        let (made, segments) = mpsc::channel();
        let work = Work {
            post: Post::new(Arc::clone(&broker)),
            store,
            intake: Arc::clone(&intake),
            broker,
            stream,
            askers: Askers::default(),
            orders: Arc::clone(&orders),
            made,
            segments,
            is_preparing: false,
            prepare_at_ms: 0,
            is_disk_full: false,
            lines: LineBudget::new(LOG_LINES_AT_ONCE, LOG_LINES_PER_S),
            stored: Vec::new(),
            is_closing: false,
        };
        let failed = Arc::clone(&failure);
        let thread = std::thread::Builder::new()
            .name("exocom-store".to_owned())
            .spawn(move || {
                let intake = Arc::clone(&work.intake);
                if let Err(error) = work.run() {
                    // From now on publishers are refused at once.
                    intake.close();
                    tracing::error!("{error}");
                    *failed.error.lock() = Some(error);
                    failed.happened.notify_one();
                }
            })?;
        Ok(Self {
            counter: Counter { orders, intake },
            failure,
            thread: Some(thread),
        })
    }

    /// Where it is told that the task cannot go on.
    pub(super) fn failure(&self) -> Arc<Failure> {
        Arc::clone(&self.failure)
    }

    /// Where an operator's orders go.
    pub(super) fn counter(&self) -> Counter {
        self.counter.clone()
    }

    /// Takes no more messages, writes everything down and ends. Returns after it is on disk.
    pub(super) fn close(&mut self) {
        self.counter.intake.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread has panicked; the next start recovers");
        }
    }
}

/// Takes the orders of operators.
#[derive(Clone)]
pub(super) struct Counter {
    orders: Arc<Mutex<Vec<Order>>>,
    intake: Arc<Intake<Handle>>,
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counter")
    }
}

impl Counter {
    /// Gives an order about the queues and waits for what came of it.
    pub(super) async fn order(&self, verb: QueueVerb) -> QueueAnswer {
        let ask = move |store: &mut Store<Folder>, is_disk_full, now_ms| {
            operate::carry_out(store, verb, is_disk_full, now_ms)
        };
        let answer = self.ask(ask).await;
        answer.unwrap_or_else(|| QueueAnswer::refused("the broker is stopping"))
    }

    /// Has something done with the store; `None` where the broker is stopping. What the store sends after this returns
    /// goes by the policy and the list of holds that were in force when it was called, or by later ones.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Store<Folder>, bool, u64) -> Result<T, LogError> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.orders
            .lock()
            .push(Box::new(move |store, is_disk_full, now_ms| {
                let done = work(store, is_disk_full, now_ms)?;
                // Whoever asked may have left.
                drop(answer.send(done));
                Ok(())
            }));
        self.intake.wake();
        answered.await.ok()
    }
}

/// Who waits for the answers of tracked commands, and until when.
#[derive(Debug, Default)]
struct Askers {
    by_seq: HashMap<Seq, (Asker<Handle>, u64)>,
    deadlines: BTreeSet<(u64, Seq)>,
}

impl Askers {
    fn insert(&mut self, seq: Seq, asker: Asker<Handle>, deadline_ms: u64) {
        self.by_seq.insert(seq, (asker, deadline_ms));
        self.deadlines.insert((deadline_ms, seq));
    }

    fn remove(&mut self, seq: Seq) -> Option<Asker<Handle>> {
        let (asker, deadline_ms) = self.by_seq.remove(&seq)?;
        self.deadlines.remove(&(deadline_ms, seq));
        Some(asker)
    }

    fn take_late(&mut self, now_ms: u64) -> Vec<Asker<Handle>> {
        let mut late = Vec::new();
        while let Some(&(deadline_ms, seq)) = self.deadlines.first()
            && deadline_ms <= now_ms
        {
            late.extend(self.remove(seq));
        }
        late
    }
}

/// What a publisher hears once everything is on disk.
enum Publication {
    Stored(Seq),
    Duplicate(Seq),
    Refused(Reason),
}

struct Work {
    store: Store<Folder>,
    intake: Arc<Intake<Handle>>,
    broker: Arc<Broker>,
    /// What publishers are told that their messages are in.
    stream: String,
    post: Post,
    askers: Askers,
    orders: Arc<Mutex<Vec<Order>>>,
    made: mpsc::Sender<io::Result<Made<std::fs::File>>>,
    segments: mpsc::Receiver<io::Result<Made<std::fs::File>>>,
    is_preparing: bool,
    prepare_at_ms: u64,
    is_disk_full: bool,
    lines: LineBudget,
    /// Messages of this turn that are recorded by themselves.
    stored: Vec<EachMessage>,
    is_closing: bool,
}

impl Work {
    fn run(mut self) -> Result<(), LogError> {
        let mut happened = Vec::new();
        while !self.is_closing {
            self.intake.take(&mut happened, self.patience());
            self.turn(&mut happened)?;
        }
        if self.is_preparing {
            // Nothing of ours writes into the folder once this has ended. What came of it the next start finds out.
            drop(self.segments.recv());
        }
        let now_ms = self.broker.clock.now_unix_ms();
        self.store.close(now_ms)
    }

    fn patience(&self) -> Duration {
        let now_ms = self.broker.clock.now_unix_ms();
        let due_ms = self.store.next_deadline_ms().unwrap_or(u64::MAX);
        Duration::from_millis(due_ms.saturating_sub(now_ms).min(IDLE_MS_MAX))
    }

    fn turn(&mut self, happened: &mut Vec<Happened<Handle>>) -> Result<(), LogError> {
        let now_ms = self.broker.clock.now_unix_ms();
        self.is_closing = self.intake.is_closed();
        self.prepare(now_ms);
        let mut answers = Vec::new();
        for happened in happened.drain(..) {
            self.take(happened, now_ms, &mut answers)?;
        }
        self.store.handle_time(now_ms);
        self.store.commit()?;
        if let Some(audit) = self.broker.audit.as_ref().filter(|_| !self.stored.is_empty()) {
            audit.note_each(&mut self.stored);
        }
        self.prepare(now_ms);
        self.answer(answers);
        self.give_up();
        let late = self.askers.take_late(now_ms);
        self.post.refuse(late, Reason::Expired);
        self.carry_out_orders(now_ms)?;
        self.send(now_ms);
        // A few steps now, the rest after what has come meanwhile.
        for _ in 0..4 {
            if !self.store.tidy()? {
                break;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        happened: Happened<Handle>,
        now_ms: u64,
        answers: &mut Vec<(Asker<Handle>, Publication)>,
    ) -> Result<(), LogError> {
        match happened {
            Happened::Published(message) => return self.publish(*message, now_ms, answers),
            Happened::Said {
                seq,
                receiver,
                from,
                verdict,
            } => match verdict {
                Verdict::Ack => {
                    self.store.handle_ack(seq, receiver);
                    self.askers.remove(seq);
                }
                Verdict::Nak(delay_ms) => self.store.handle_nak(seq, receiver, from, delay_ms, now_ms),
                Verdict::Progress => self.store.handle_progress(seq, receiver, from, now_ms),
                Verdict::Term => self.store.handle_term(seq, receiver, from, now_ms),
            },
            Happened::Gone(instance) => self.store.handle_gone(instance, now_ms),
        }
        Ok(())
    }

    fn publish(
        &mut self,
        message: TrackedPublish<Handle>,
        now_ms: u64,
        answers: &mut Vec<(Asker<Handle>, Publication)>,
    ) -> Result<(), LogError> {
        let TrackedPublish {
            asker,
            sender,
            name,
            terms,
            receivers,
            id,
            each,
            headers,
            payload,
            ..
        } = message;
        let each = each
            .filter(|_| self.broker.audit.is_some())
            .map(|connection| EachMessage {
                at_us: self.broker.clock.now_us(),
                sender: Arc::clone(&sender),
                sender_connection: connection.0,
                message: Arc::clone(&name),
                receiver: None,
                receiver_connection: 0,
                bytes: payload.len() as u64,
                digest: payload_digest(&payload),
                outcome: Outcome::Stored,
                seq: 0,
                attempt: 0,
            });
        let new = NewMessage {
            sender: &sender,
            name: &name,
            terms,
            receivers: &receivers,
            id: id.as_ref(),
            bytes: headers.len() + payload.len() + name.len() + sender.len(),
        };
        if self.store.awaits_segment(&new, &headers, &payload) {
            self.wait_for_segment(now_ms);
        }
        let outcome = match self.store.publish(&new, headers, payload, now_ms)? {
            Ok(Admitted::New(seq)) => {
                self.stored
                    .extend(each.map(|each| EachMessage { seq: seq.0, ..each }));
                Publication::Stored(seq)
            }
            Ok(Admitted::Duplicate(seq)) => Publication::Duplicate(seq),
            Err(why) => {
                self.post.count_dropped(&sender, &name);
                self.say_full(why);
                Publication::Refused(Reason::Overloaded)
            }
        };
        let Some(asker) = asker else { return Ok(()) };
        match (&outcome, terms.kind) {
            // The answer of a command is all that its sender hears; that it is stored is implied.
            (Publication::Stored(seq), Kind::Command) => {
                self.askers.insert(*seq, asker, deadline_ms(&terms, now_ms));
            }
            _ => answers.push((asker, outcome)),
        }
        Ok(())
    }

    /// Tells publishers what became of their messages: what is stored is on disk now.
    fn answer(&mut self, answers: Vec<(Asker<Handle>, Publication)>) {
        let stream = &self.stream;
        self.post.answer(answers, |outcome| match outcome {
            Publication::Stored(seq) => Ok(format!(r#"{{"stream":"{stream}","seq":{seq}}}"#)),
            Publication::Duplicate(seq) => {
                Ok(format!(r#"{{"stream":"{stream}","seq":{seq},"duplicate":true}}"#))
            }
            Publication::Refused(reason) => Err(*reason),
        });
    }

    fn give_up(&mut self) {
        let mut expired = Vec::new();
        let mut dead = Vec::new();
        for given_up in self.store.take_given_up() {
            let name = self.store.deliveries().name_of(given_up.seq);
            let service = self
                .store
                .deliveries()
                .service_of(given_up.seq, given_up.receiver);
            if let Some(withheld) = self.lines.take(self.broker.clock.now_us()) {
                tracing::warn!(
                    message = %given_up.seq,
                    name = name.map_or("", |(name, _)| name),
                    receiver = service.map_or("", |service| service),
                    cause = %given_up.cause,
                    withheld,
                    "dead letter: `exocom queue show {}` shows it, `exocom queue replay` sends it again", given_up.seq
                );
            }
            let deliveries = self.store.deliveries();
            let attempts = deliveries.kept(given_up.seq).and_then(|kept| {
                let receivers = kept.receivers.iter();
                receivers
                    .filter(|receiver| Some(&receiver.service) == service)
                    .map(|receiver| receiver.attempts)
                    .next()
            });
            self.broker.note(|| Record::DeadLetter {
                seq: given_up.seq.0,
                receiver: service.map(ToString::to_string).unwrap_or_default(),
                message: name.map(|(name, _)| name.to_string()).unwrap_or_default(),
                cause: given_up.cause.to_string(),
                attempts: attempts.unwrap_or_default(),
            });
            let asker = self.askers.remove(given_up.seq);
            match given_up.cause {
                Cause::Expired => expired.extend(asker),
                Cause::Attempts | Cause::Terminated => dead.extend(asker),
            }
        }
        self.post.refuse(expired, Reason::Expired);
        self.post.refuse(dead, Reason::DeadLetter);
    }

    fn carry_out_orders(&mut self, now_ms: u64) -> Result<(), LogError> {
        let orders = std::mem::take(&mut *self.orders.lock());
        orders
            .into_iter()
            .try_for_each(|order| order(&mut self.store, self.is_disk_full, now_ms))
    }

    fn send(&mut self, now_ms: u64) {
        let mut out = Vec::new();
        let quarantine = self.broker.world.quarantine();
        self.store.set_quarantine(&quarantine, now_ms);
        let epoch = self.post.epoch();
        let post = &mut self.post;
        self.store.dispatch(
            epoch,
            now_ms,
            |service, name, found| post.listening(service, name, found),
            &mut out,
        );
        let askers = &self.askers.by_seq;
        let asker = |seq: Seq| askers.get(&seq).map(|(asker, _)| asker.clone());
        let not_taken = self.post.send(&self.store, &out, asker);
        for outgoing in not_taken {
            self.store.handle_not_taken(&outgoing, now_ms);
        }
    }

    /// Sees to it that the next segment is ready before it is needed: by a thread of its own, since it takes a
    /// while to fill one with zeros.
    fn prepare(&mut self, now_ms: u64) {
        while let Ok(made) = self.segments.try_recv() {
            self.take_prepared(made, now_ms);
        }
        if self.is_preparing || now_ms < self.prepare_at_ms {
            return;
        }
        let Some(wanted) = self.store.wanted() else { return };
        let (files, made, intake) = (
            self.store.files().clone(),
            self.made.clone(),
            Arc::clone(&self.intake),
        );
        let spawned = std::thread::Builder::new()
            .name("exocom-segment".to_owned())
            .spawn(move || {
                // Nobody waits for it once the store is closed.
                drop(made.send(wanted.make(&files)));
                intake.wake();
            });
        match spawned {
            Ok(_) => self.is_preparing = true,
            Err(error) => {
                self.prepare_at_ms = now_ms + PREPARE_AGAIN_MS;
                tracing::error!(%error, "cannot start a thread to prepare a segment of the store");
            }
        }
    }

    fn take_prepared(&mut self, made: io::Result<Made<std::fs::File>>, now_ms: u64) {
        self.is_preparing = false;
        match made {
            Ok(made) => {
                self.store.provide(made);
                if std::mem::take(&mut self.is_disk_full) {
                    tracing::info!("there is space on the disk again; tracked messages are taken");
                }
            }
            Err(error) => {
                self.prepare_at_ms = now_ms + PREPARE_AGAIN_MS;
                if !std::mem::replace(&mut self.is_disk_full, true) {
                    tracing::error!(
                        folder = %self.store.files().path().display(), %error,
                        "cannot prepare a segment of the store; when the current one is full, publishers of \
                         tracked messages are told `overloaded` until there is space"
                    );
                }
            }
        }
    }

    /// Waits for the next segment where messages come faster than it can be prepared: a disk that is slow is not
    /// full. What comes meanwhile waits in the intake, which has a bound.
    fn wait_for_segment(&mut self, now_ms: u64) {
        self.prepare(now_ms);
        if self.is_preparing
            && !self.is_disk_full
            && let Ok(made) = self.segments.recv()
        {
            self.take_prepared(made, now_ms);
        }
    }

    fn say_full(&self, why: NotStored) {
        if let Some(withheld) = self.lines.take(self.broker.clock.now_us()) {
            tracing::warn!(withheld, "a tracked message is refused: {why}");
        }
    }
}

/// Until when the sender of a command waits for its answer, in milliseconds since 1970.
const fn deadline_ms(terms: &DeliveryTerms, now_ms: u64) -> u64 {
    now_ms.saturating_add(terms.attempt_ms_max)
}

/// The instance that a connection is.
pub(super) const fn instance(id: crate::exchange::mailbox::ConnId) -> InstanceId {
    InstanceId(id.0)
}
