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
            Err(Error::TooLarge { problem, .. }) => {
                Failure::internal(format!("the answer is too large: {problem}"))
            }
            // With the connection, the request has gone; ExoCom has told its sender.
            _ => return,
        },
        Ok(_) => return,
        Err(failure) => failure,
    };
    if failure.code() >= 500 {
        let told = failure.message().to_owned();
        relay.link().emit(&Event::HandlerFailed {
            name: message.name().to_owned(),
            error: failure.cause().map_or(told, ToString::to_string),
        });
    }
    if message.awaits_answer() {
        // As above.
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
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
}

impl Pool {
    fn new(relay: &ExoRelay, work: Work) -> Self {
        Self {
            relay: relay.clone(),
            work,
            running: JoinSet::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
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
            self.waiting.push_back(message);
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
            let Some(message) = self.waiting.pop_front() else {
                return;
            };
            self.waiting_bytes -= message.payload().len();
            self.running.spawn((self.work)(message));
        }
    }

    async fn refuse(&self, message: &Message) {
        self.relay.link().emit(&Event::Dropped {
            name: Some(message.name().to_owned()),
        });
        if message.expects_answer() {
            // With the connection, the request has gone; ExoCom has told its sender.
            drop(message.fail(&Failure::overloaded()).await);
        }
    }
}
