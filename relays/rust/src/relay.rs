//! The relay itself: sends, asks, registers handlers, shuts down.
//!
//! Nothing is queued while there is no connection: a message that could not be sent in time is an error, and is
//! not sent later.

use std::future::Future;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Client, HeaderMap, PublishError, PublishErrorKind, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use crate::checkpoint;
use crate::error::{Error, Failure, failure_of};
use crate::event::Status;
use crate::handlers::{Handler, Work, work};
use crate::link::Link;
use crate::message::{Message, Outgoing, Stored, encode};
use crate::name::check_pattern;
use crate::options::{Credentials, Options, provider};
use crate::renew::{self, signature};
use crate::requests::{Outcome, Ticket};

/// A connection to ExoCom for one service. Clones are the same relay.
#[derive(Clone)]
pub struct ExoRelay(Arc<Shared>);

pub(crate) struct Shared {
    service: String,
    client: Client,
    link: Arc<Link>,
    options: Options,
    expires_unix_s: AtomicI64,
    stop: watch::Sender<bool>,
    handlers: Mutex<Vec<JoinHandle<()>>>,
}

impl ExoRelay {
    /// Connects as the environment says: see [`Options::from_env`].
    ///
    /// # Errors
    /// As [`Options::from_env`] and [`Options::connect`].
    pub async fn connect() -> Result<Self, Error> {
        Options::from_env()?.connect().await
    }

    pub(crate) async fn with_options(options: Options) -> Result<Self, Error> {
        let checked = options.clone();
        let in_use = signature(&options);
        let (credentials, keep) = tokio::task::spawn_blocking(move || {
            // Before the client library needs one.
            provider();
            Ok((checked.check()?, checked.keep()?))
        })
        .await
        .expect("checking options does not panic")?;
        let inbox = format!("_INBOX.{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let link = Link::new(&options, &inbox);
        let client = link.connect(&options, &credentials.service).await?;
        let mut answers = client
            .subscribe(link.requests.pattern())
            .await
            .map_err(|_| Error::Closed)?;
        let answered = Arc::clone(&link);
        tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                answered.requests.answer(answer);
            }
            // The client has ended, and nothing is answered any more.
            answered.requests.end_all(|| Outcome::Closed);
        });
        let shared = Arc::new(Shared {
            service: credentials.service.clone(),
            client,
            link,
            options,
            expires_unix_s: AtomicI64::new(credentials.expires_unix_s),
            stop: watch::Sender::new(false),
            handlers: Mutex::default(),
        });
        tokio::spawn(renew::watch(Arc::downgrade(&shared), in_use, credentials));
        if let Some(keep) = keep {
            let status = shared.link.status();
            tokio::spawn(checkpoint::watch(Arc::downgrade(&shared), keep, status));
        }
        Ok(Self(shared))
    }

    /// When the certificate expires, in seconds since 1970. A renewed one is used by itself, when its file has taken the
    /// place of the old one; ahead of the expiry there is
    /// [`Event::CertificateExpires`](crate::Event::CertificateExpires).
    pub fn certificate_expires_unix_s(&self) -> i64 {
        self.0.expires_unix_s.load(Relaxed)
    }

    /// The service that this relay is, as its certificate says.
    pub fn service(&self) -> &str {
        &self.0.service
    }

    /// Sends an event: every service that receives it gets it. Returns when it is on its way, which is no proof
    /// that anybody got it.
    ///
    /// # Errors
    /// [`Error::Offline`] where there is no connection in time; then it was not sent. That the policy denies it
    /// comes as [`Event::SendDenied`](crate::Event::SendDenied).
    pub async fn send(&self, name: &str, payload: &impl Serialize) -> Result<(), Error> {
        self.message(name).json(payload).send().await
    }

    /// Publishes a tracked event, one whose policy says `kind = "event"` and `delivery = "at-least-once"`, and waits
    /// until ExoCom has it on disk. From then on every service that receives it gets it, also those that are away
    /// now, and also if ExoCom crashes.
    ///
    /// [`message`](Self::message) with [`Outgoing::id`] makes it safe to publish again after an error.
    ///
    /// # Errors
    /// What ExoCom says: [`Error::Denied`] with the rule, [`Error::Overloaded`] where its store or a receiver's
    /// queue is full, [`Error::NoReceiver`]; then it is not stored. [`Error::ConnectionLost`] and
    /// [`Error::TimedOut`], after which it may be; [`Error::Offline`]; [`Error::NotTracked`].
    pub async fn publish(&self, name: &str, payload: &impl Serialize) -> Result<Stored, Error> {
        self.message(name).json(payload).publish().await
    }

    /// Sends a command, and gives its answer.
    ///
    /// # Errors
    /// What ExoCom says: [`Error::Denied`] with the rule, [`Error::NoReceiver`], [`Error::ReceiverLost`],
    /// [`Error::Expired`], [`Error::Overloaded`]; what the receiver says: [`Error::Failed`]; and what happens on
    /// the way: [`Error::Offline`], [`Error::ConnectionLost`], [`Error::TimedOut`], [`Error::Decode`].
    pub async fn request<R: DeserializeOwned>(
        &self,
        name: &str,
        payload: &impl Serialize,
    ) -> Result<R, Error> {
        self.message(name).json(payload).request().await
    }

    /// A message to be completed, with headers, a deadline or a payload that is not JSON, and sent.
    pub fn message(&self, name: &str) -> Outgoing {
        Outgoing::new(self, name)
    }

    /// Handles messages of a name or pattern, shared with the other instances of this service. What the handler
    /// returns is the answer, where one is expected. It gets the message and its payload from JSON; a payload
    /// that cannot be that is refused for it, with code 400.
    ///
    /// A tracked message ([`Message::id`]) is acknowledged when the handler returns. What becomes of one whose
    /// handler fails is up to the [`Failure`]: it is delivered again, after the policy's `backoff`, or answered, or
    /// given up. A handler may get the same message twice, such as when ExoCom could not hear that it was done.
    ///
    /// At most [`Options::concurrency`] messages are worked on at the same time. Whether the policy lets the
    /// service receive the messages is told as [`Event::ReceiveDenied`](crate::Event::ReceiveDenied).
    ///
    /// # Errors
    /// [`Error::Name`] for what is no pattern, [`Error::Closed`] after a shutdown.
    pub async fn handle<P, R, F, Fut>(&self, pattern: &str, handler: F) -> Result<(), Error>
    where
        P: DeserializeOwned + Send,
        R: Serialize + Send,
        F: Fn(Message, P) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, Failure>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        self.handle_bytes(pattern, move |message| {
            let handler = Arc::clone(&handler);
            async move {
                let payload = message.json().map_err(|error| {
                    Failure::bad_request(format!("the payload is not the expected JSON: {error}"))
                })?;
                let answer = handler(message.clone(), payload).await?;
                if message.expects_answer() {
                    Ok(encode(message.name(), &answer)?)
                } else {
                    Ok(Bytes::new())
                }
            }
        })
        .await
    }

    /// As [`handle`](Self::handle), with payloads that need not be JSON: the message has the one, and what the
    /// handler returns is the other.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub async fn handle_bytes<F, Fut>(&self, pattern: &str, handler: F) -> Result<(), Error>
    where
        F: Fn(Message) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Bytes, Failure>> + Send + 'static,
    {
        self.register(pattern, work(self, handler)).await
    }

    /// Whether the relay is connected; changes can be awaited.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.link.status()
    }

    /// Waits until the relay is connected.
    ///
    /// # Errors
    /// [`Error::Closed`] after a shutdown.
    pub async fn online(&self) -> Result<(), Error> {
        let mut status = self.status();
        let settled = status
            .wait_for(|status| !matches!(status, Status::Offline { .. }))
            .await;
        match settled.as_deref() {
            Ok(Status::Online) => Ok(()),
            _ => Err(Error::Closed),
        }
    }

    /// Shuts down in order: takes no new messages, finishes those that have come and sends their answers, and
    /// closes the connection. A request that reaches this instance too late is told to its sender as
    /// [`Error::ReceiverLost`].
    ///
    /// # Errors
    /// [`Error::Unfinished`] where handlers took longer than [`Options::shutdown_within`] and were ended. The
    /// relay is closed then too.
    pub async fn shutdown(&self) -> Result<(), Error> {
        if *self.status().borrow() == Status::Closed {
            return Ok(());
        }
        let within = self.0.options.shutdown_within;
        let deadline = Instant::now() + within;
        self.0.link.begin_closing();
        self.0.stop.send_replace(true);
        let handlers = std::mem::take(&mut *self.handlers());
        let mut unfinished = 0;
        for mut handler in handlers {
            if timeout_at(deadline, &mut handler).await.is_err() {
                handler.abort();
                unfinished += 1;
            }
        }
        self.close(deadline).await;
        if unfinished > 0 {
            return Err(Error::Unfinished {
                handlers: unfinished,
                within,
            });
        }
        Ok(())
    }

    async fn close(&self, deadline: Instant) {
        if self.0.link.is_online() {
            // The answers must be out before the connection ends.
            let flushed = timeout_at(deadline, self.0.client.flush()).await;
            tracing::debug!(in_time = flushed.is_ok(), "flushed");
        }
        // Where there is no connection, the client does this as the first thing on its next one.
        let drained = timeout(Duration::from_millis(100), self.0.client.drain()).await;
        tracing::debug!(in_time = drained.is_ok(), "drained");
        self.0.link.close();
    }

    async fn register(&self, pattern: &str, work: Work) -> Result<(), Error> {
        check_pattern(pattern).map_err(|error| Error::Name {
            name: pattern.to_owned(),
            error,
        })?;
        if *self.0.stop.borrow() {
            return Err(Error::Closed);
        }
        let handler = Handler {
            relay: self.clone(),
            pattern: pattern.to_owned(),
            work,
            refused: self.0.link.listen(pattern),
            stop: self.0.stop.subscribe(),
        };
        let subscriber = self.subscribe(pattern).await?;
        self.handlers().push(tokio::spawn(handler.run(subscriber)));
        Ok(())
    }

    pub(crate) async fn subscribe(&self, pattern: &str) -> Result<Subscriber, Error> {
        let group = self.0.service.clone();
        let subscribed = self.0.client.queue_subscribe(pattern.to_owned(), group).await;
        // The pattern and the group have been checked.
        subscribed.map_err(|_| Error::Closed)
    }

    pub(crate) async fn ask(
        &self,
        name: &str,
        headers: HeaderMap,
        payload: Bytes,
        within: Duration,
    ) -> Result<async_nats::Message, Error> {
        let overloaded = || Error::Overloaded {
            name: name.to_owned(),
        };
        let mut ticket: Ticket = self.0.link.requests.open().ok_or_else(overloaded)?;
        let asking = async {
            self.put(name, Some(ticket.inbox().into()), headers, payload)
                .await?;
            Ok(ticket.outcome().await)
        };
        let outcome = timeout(within, asking).await.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                name: name.to_owned(),
                after: within,
            })
        });
        match outcome? {
            Outcome::Answer(answer) => failure_of(name, &answer).map_or(Ok(answer), Err),
            Outcome::ConnectionLost => Err(Error::ConnectionLost {
                name: name.to_owned(),
            }),
            Outcome::Closed => Err(Error::Closed),
        }
    }

    pub(crate) async fn put(
        &self,
        name: &str,
        reply: Option<Subject>,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), Error> {
        let offline = || match &*self.0.link.status().borrow() {
            Status::Offline { reason } => Error::Offline {
                name: name.to_owned(),
                reason: reason.clone(),
            },
            // The broker takes nothing for so long that it comes to the same.
            Status::Online => Error::Overloaded {
                name: name.to_owned(),
            },
            Status::Closed => Error::Closed,
        };
        let client = &self.0.client;
        let sending = async {
            self.online().await?;
            let sent = match (reply, headers.is_empty()) {
                (Some(reply), true) => client.publish_with_reply(name.to_owned(), reply, payload).await,
                (Some(reply), false) => {
                    client
                        .publish_with_reply_and_headers(name.to_owned(), reply, headers, payload)
                        .await
                }
                (None, true) => client.publish(name.to_owned(), payload).await,
                (None, false) => {
                    client
                        .publish_with_headers(name.to_owned(), headers, payload)
                        .await
                }
            };
            sent.map_err(|error| not_published(name, &error))
        };
        timeout(self.0.options.online_within, sending)
            .await
            .unwrap_or_else(|_| Err(offline()))
    }

    /// Answers on a subject that ExoCom gave.
    pub(crate) async fn respond(
        &self,
        name: &str,
        reply: Subject,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<(), Error> {
        let client = &self.0.client;
        let sent = if headers.is_empty() {
            client.publish(reply, payload).await
        } else {
            client.publish_with_headers(reply, headers, payload).await
        };
        sent.map_err(|error| not_published(name, &error))
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.0.options.concurrency
    }

    pub(crate) fn waiting_max(&self) -> usize {
        self.0.options.waiting_max
    }

    pub(crate) fn extend_for(&self) -> Duration {
        self.0.options.extend_for
    }

    pub(crate) fn answer_within(&self) -> Duration {
        self.0.options.answer_within
    }

    fn handlers(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        // Nothing panics between two states of the list.
        self.0.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) fn set_expiry(&self, credentials: &Credentials) {
        self.expires_unix_s.store(credentials.expires_unix_s, Relaxed);
    }
}

impl std::fmt::Debug for ExoRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExoRelay")
            .field("service", &self.0.service)
            .field("status", &*self.status().borrow())
            .finish_non_exhaustive()
    }
}

fn not_published(name: &str, error: &PublishError) -> Error {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => {
            let source = std::error::Error::source(error);
            Error::TooLarge {
                name: name.to_owned(),
                problem: source.unwrap_or(error).to_string(),
            }
        }
        // The client has ended; names have been checked before.
        PublishErrorKind::Send | PublishErrorKind::InvalidSubject => Error::Closed,
    }
}
