//! A handler's messages: taken from its subscription, worked on a bounded number at a time, the next ones in a
//! bounded queue, the rest refused at once.
//!
//! One task for each handler owns subscription, queue and running work. Never leaves a request without a word.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_nats::{Message as Frame, Subscriber};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::pause;
use crate::error::{Error, Failure};
use crate::event::Event;
use crate::limits::{RESUBSCRIBE_PAUSE, WAITING_BYTES_MAX};
use crate::message::Message;
use crate::relay::ExoRelay;

/// Does everything that one message asks for, its answer included.
pub(crate) type Work = Arc<dyn Fn(Message) -> BoxFuture<'static, ()> + Send + Sync>;

/// Makes the work of a handler that gives an answer's payload or a failure.
pub(crate) fn work<F, Fut>(relay: &ExoRelay, handler: F) -> Work
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Bytes, Failure>> + Send + 'static,
{
    let (relay, handler) = (relay.clone(), Arc::new(handler));
    Arc::new(move |message| {
        let (relay, handler) = (relay.clone(), Arc::clone(&handler));
        async move {
            let _working = relay.link().begin_work();
            let handled = AssertUnwindSafe(async { handler(message.clone()).await }).catch_unwind();
            let outcome = handled
                .await
                .unwrap_or_else(|_| Err(Failure::from(std::io::Error::other("it panicked"))));
            finish(&relay, &message, outcome).await;
        }
        .boxed()
    })
}

async fn finish(relay: &ExoRelay, message: &Message, outcome: Result<Bytes, Failure>) {
    let failure = match outcome {
        Ok(payload) if message.awaits_answer() => match message.reply_bytes(payload).await {
            // Tried again, it would be too large again.
            Err(Error::TooLarge { problem, .. }) => {
                Failure::never(format!("the answer is too large: {problem}"))
            }
            // With the connection, the request has gone; ExoCom has told its sender.
            _ => return,
        },
        Ok(_) => return message.acknowledge().await,
        Err(failure) => failure,
    };
    if failure.code() >= 500 || message.is_tracked() && !message.expects_answer() {
        let told = failure.message().to_owned();
        relay.link().emit(&Event::HandlerFailed {
            name: message.name().to_owned(),
            error: failure.cause().map_or(told, ToString::to_string),
        });
    }
    if !message.is_tracked() {
        if message.awaits_answer() {
            // As above.
            drop(message.fail(&failure).await);
        }
    } else if failure.is_final() || failure.code() < 500 && !message.expects_answer() {
        message.terminate().await;
    } else if failure.code() >= 500 {
        message.put_off().await;
    } else {
        // Trying it again would change nothing, and its sender wants to know.
        drop(message.fail(&failure).await);
    }
}

/// See the module's documentation.
pub(crate) struct Handler {
    pub(crate) relay: ExoRelay,
    pub(crate) pattern: String,
    pub(crate) work: Work,
    pub(crate) refused: Arc<Notify>,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Handler {
    /// Runs until it is told to stop, and then until all that has come is done.
    pub(crate) async fn run(mut self, subscriber: Subscriber) {
        let mut subscriber = Some(subscriber);
        let mut pool = Pool::new(&self.relay, Arc::clone(&self.work));
        let (mut refusals, mut again_at, mut stops) = (0, None, false);
        while !(stops && subscriber.is_none() && pool.is_idle()) {
            tokio::select! {
                frame = next(&mut subscriber), if subscriber.is_some() => match frame {
                    Some(frame) => {
                        refusals = 0;
                        pool.take(frame).await;
                    }
                    // Drained, or the relay's client has ended.
                    None => {
                        subscriber = None;
                        stops = true;
                    }
                },
                Some(_) = pool.running.join_next() => pool.work_on(),
                () = at(pool.extend_at) => pool.extend().await,
                () = self.refused.notified(), if !stops => {
                    refusals += 1;
                    subscriber = None;
                    again_at = Some(Instant::now() + pause(refusals, RESUBSCRIBE_PAUSE));
                }
                () = at(again_at), if again_at.is_some() && !stops => {
                    again_at = None;
                    subscriber = self.relay.subscribe(&self.pattern).await.ok();
                }
                () = told(&mut self.stop), if !stops => {
                    stops = true;
                    stop_intake(&self.relay, &mut subscriber).await;
                }
            }
        }
    }
}

/// Works on a tracked message, and tells ExoCom so until it is done.
async fn extending(message: Message, mut extend_at: Instant, mut work: BoxFuture<'static, ()>) {
    while tokio::time::timeout_at(extend_at, &mut work).await.is_err() {
        let Some(every) = message.extend_every() else {
            return work.await;
        };
        message.extend().await;
        extend_at = Instant::now() + every;
    }
}

async fn told(stop: &mut watch::Receiver<bool>) {
    // An error says that the relay has gone, which is a reason to stop too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Tells the broker that no more is wanted. What it has sent before still comes.
async fn stop_intake(relay: &ExoRelay, subscriber: &mut Option<Subscriber>) {
    let Some(taken) = subscriber else { return };
    if !relay.link().is_online() || taken.drain().await.is_err() {
        *subscriber = None;
    }
}

async fn next(subscriber: &mut Option<Subscriber>) -> Option<Frame> {
    match subscriber {
        Some(subscriber) => subscriber.next().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Pool {
    relay: ExoRelay,
    work: Work,
    running: JoinSet<()>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// When the first of those that wait must be extended.
    extend_at: Option<Instant>,
}

struct Waiting {
    message: Message,
    extend_at: Option<Instant>,
}

impl Pool {
    fn new(relay: &ExoRelay, work: Work) -> Self {
        Self {
            relay: relay.clone(),
            work,
            running: JoinSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            extend_at: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    async fn take(&mut self, frame: Frame) {
        let Some(message) = Message::new(&self.relay, frame) else {
            tracing::error!("a message that names no sender did not come through ExoCom; it was dropped");
            return;
        };
        // Places of work that has ended in this moment are free.
        while self.running.try_join_next().is_some() {}
        self.work_on();
        let has_room = self.waiting.len() < self.relay.waiting_max()
            && self.waiting_bytes + message.payload().len() <= WAITING_BYTES_MAX;
        // One that can be worked on at once needs no room.
        if has_room || self.has_place() {
            self.waiting_bytes += message.payload().len();
            let extend_at = message.extend_every().map(|every| Instant::now() + every);
            self.extend_at = self.extend_at.into_iter().chain(extend_at).min();
            self.waiting.push_back(Waiting { message, extend_at });
            self.work_on();
        } else {
            self.refuse(&message).await;
        }
    }

    fn has_place(&self) -> bool {
        self.waiting.is_empty() && self.running.len() < self.relay.concurrency()
    }

    /// Starts what waits, as far as there are free places.
    fn work_on(&mut self) {
        while self.running.len() < self.relay.concurrency() {
            let Some(Waiting { message, extend_at }) = self.waiting.pop_front() else {
                self.extend_at = None;
                return;
            };
            self.waiting_bytes -= message.payload().len();
            let work = (self.work)(message.clone());
            match extend_at {
                Some(extend_at) => self.running.spawn(extending(message, extend_at, work)),
                None => self.running.spawn(work),
            };
        }
    }

    /// Tells ExoCom of the tracked messages that wait: their time would be over before their turn comes.
    async fn extend(&mut self) {
        let now = Instant::now();
        for Waiting { message, extend_at } in &mut self.waiting {
            if extend_at.is_some_and(|at| at <= now) {
                message.extend().await;
                *extend_at = message.extend_every().map(|every| now + every);
            }
        }
        self.extend_at = self.waiting.iter().filter_map(|waiting| waiting.extend_at).min();
    }

    async fn refuse(&self, message: &Message) {
        self.relay.link().emit(&Event::Dropped {
            name: Some(message.name().to_owned()),
        });
        if message.is_tracked() {
            message.put_off().await;
        } else if message.expects_answer() {
            // With the connection, the request has gone; ExoCom has told its sender.
            drop(message.fail(&Failure::overloaded()).await);
        }
    }
}
