//! The link to the broker: connects, reconnects, and turns what the client library reports into the relay's own
//! events.
//!
//! Owns the status and the open requests. Never sends a message.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event as ClientEvent, ServerError};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::backoff::pause;
use crate::checkpoint;
use crate::error::{Error, explain};
use crate::event::{Event, Status};
use crate::limits;
use crate::options::{OnEvent, Options};
use crate::requests::{Outcome, Requests};

/// A connection that lived this long was a good one: the pauses between attempts start from the shortest again.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Subjects under which ExoCom lets a receiver answer begin so.
const REPLY_PREFIX: &str = "_R.";

/// See the module's documentation.
pub(crate) struct Link {
    pub(crate) requests: Arc<Requests>,
    status: watch::Sender<Status>,
    on_event: Option<OnEvent>,
    /// Connections that have ended: a reply means nothing on a later connection than its message came on.
    ended: AtomicU64,
    /// Connections in a row that ended soon.
    short_lived: AtomicUsize,
    connected_at: Mutex<Option<Instant>>,
    is_closing: AtomicBool,
    /// Messages that handlers work on.
    working: AtomicUsize,
    listeners: Mutex<Vec<Listener>>,
}

struct Listener {
    pattern: String,
    refused: Arc<Notify>,
}

impl Link {
    pub(crate) fn new(options: &Options, inbox: &str) -> Arc<Self> {
        // Without waiting, nobody sees the status before there is a connection; with it, the first word that
        // counts is the client library's.
        let status = if options.waits_for_broker {
            Status::Offline { reason: None }
        } else {
            Status::Online
        };
        Arc::new(Self {
            requests: Arc::new(Requests::new(inbox)),
            status: watch::Sender::new(status),
            on_event: options.on_event.clone(),
            ended: AtomicU64::new(0),
            short_lived: AtomicUsize::new(0),
            connected_at: Mutex::default(),
            is_closing: AtomicBool::new(false),
            working: AtomicUsize::new(0),
            listeners: Mutex::default(),
        })
    }

    /// Connects, or begins to where the options say so.
    pub(crate) async fn connect(self: &Arc<Self>, options: &Options, service: &str) -> Result<Client, Error> {
        let url = options.url()?;
        let client = self.client_options(options, service).connect(&url).await;
        client.map_err(|error| Error::Connect {
            address: format!("{}:{}", options.host, options.port),
            reason: explain(&error.to_string()),
        })
    }

    fn client_options(self: &Arc<Self>, options: &Options, service: &str) -> ConnectOptions {
        let (on_event, on_attempt, on_pause) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let is_first = AtomicBool::new(true);
        let client = ConnectOptions::new()
            .name(service)
            .require_tls(true)
            .tls_first()
            .add_root_certificates(options.ca.clone())
            .add_client_certificate(options.certificate.clone(), options.key.clone())
            .connection_timeout(limits::CONNECT_WITHIN)
            .ping_interval(limits::PING_EVERY)
            .subscription_capacity(limits::INTAKE_MESSAGES_MAX)
            .client_capacity(limits::OUTGOING_MESSAGES_MAX)
            .max_reconnects(None)
            .ignore_discovered_servers()
            .event_callback(move |event| {
                on_event.happened(&event);
                std::future::ready(())
            })
            // Never chooses a server: it is the only place that tells why the last attempt failed.
            .reconnect_to_server_callback(move |servers, _| {
                let failed = servers.first().and_then(|server| server.last_error.as_deref());
                if let Some(words) = failed {
                    on_attempt.unreachable(words);
                }
                std::future::ready(None)
            })
            .reconnect_delay_callback(move |attempt| {
                if on_pause.is_closing.load(Relaxed) {
                    // Nobody wants this connection any more, and there is no other way to say so.
                    return Duration::MAX;
                }
                if is_first.swap(false, Relaxed) {
                    return Duration::ZERO;
                }
                pause(
                    attempt + on_pause.short_lived.load(Relaxed),
                    limits::RECONNECT_PAUSE,
                )
            });
        if options.waits_for_broker {
            client.retry_on_initial_connect()
        } else {
            client
        }
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(crate) fn is_online(&self) -> bool {
        *self.status.borrow() == Status::Online
    }

    /// Whether nothing is under way: no request waits, and no handler works.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.is_empty() && self.working.load(Relaxed) == 0
    }

    /// Counts a message that a handler works on, until what it gives back is dropped.
    pub(crate) fn begin_work(self: &Arc<Self>) -> Working {
        self.working.fetch_add(1, Relaxed);
        Working(Arc::clone(self))
    }

    /// How many connections have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Relaxed)
    }

    /// Registers a handler's pattern; what it gives back is notified when the broker refuses the subscription.
    pub(crate) fn listen(&self, pattern: &str) -> Arc<Notify> {
        let refused = Arc::new(Notify::new());
        lock(&self.listeners).push(Listener {
            pattern: pattern.to_owned(),
            refused: Arc::clone(&refused),
        });
        refused
    }

    /// From now on no new connection is made.
    pub(crate) fn begin_closing(&self) {
        self.is_closing.store(true, Relaxed);
    }

    /// The relay has been shut down.
    pub(crate) fn close(&self) {
        self.status.send_replace(Status::Closed);
        self.requests.end_all(|| Outcome::Closed);
        self.emit(&Event::Closed);
    }

    /// Logs an event and tells the program's listener.
    pub(crate) fn emit(&self, event: &Event) {
        match event {
            Event::Online | Event::Closed | Event::CredentialsRenewed => tracing::info!("{event}"),
            Event::ReceiveDenied { .. } | Event::HandlerFailed { .. } | Event::HistoryRewritten { .. } => {
                tracing::error!("{event}");
            }
            _ => tracing::warn!("{event}"),
        }
        if let Some(listener) = &self.on_event {
            listener(event);
        }
    }

    fn happened(&self, event: &ClientEvent) {
        match event {
            ClientEvent::Connected => {
                *lock(&self.connected_at) = Some(Instant::now());
                self.set_status(Status::Online);
                self.emit(&Event::Online);
            }
            ClientEvent::Disconnected => self.disconnected(),
            ClientEvent::LameDuckMode => self.emit(&Event::BrokerLeaving),
            ClientEvent::SlowConsumer(_) => self.emit(&Event::Dropped { name: None }),
            ClientEvent::ServerError(ServerError::Other(words)) => self.refused(words),
            // Attempts that failed are told with their reason elsewhere, shutting down by who does it.
            _ => {}
        }
    }

    fn disconnected(&self) {
        self.ended.fetch_add(1, Relaxed);
        let lived = lock(&self.connected_at).take().map(|since| since.elapsed());
        if lived.is_some_and(|lived| lived < GOOD_AFTER) {
            self.short_lived.fetch_add(1, Relaxed);
        } else {
            self.short_lived.store(0, Relaxed);
        }
        self.set_status(Status::Offline { reason: None });
        self.requests.end_all(|| Outcome::ConnectionLost);
        if !self.is_closing.load(Relaxed) {
            self.emit(&Event::Offline);
        }
    }

    fn unreachable(&self, words: &str) {
        let reason = explain(words);
        let status = Status::Offline {
            reason: Some(reason.clone()),
        };
        // The same reason again and again is said once.
        if self.set_status(status) {
            self.emit(&Event::Unreachable { reason });
        }
    }

    /// Says whether it has changed.
    fn set_status(&self, status: Status) -> bool {
        self.status.send_if_modified(|current| {
            let changes = *current != status && *current != Status::Closed;
            if changes {
                *current = status;
            }
            changes
        })
    }

    fn refused(&self, words: &str) {
        if let Some(name) = quoted_after(words, "Permissions Violation for Publish to ") {
            if name.starts_with(REPLY_PREFIX) {
                self.emit(&Event::LateReply);
            } else if name != checkpoint::SUBJECT {
                self.emit(&Event::SendDenied {
                    name: name.to_owned(),
                });
            }
        } else if let Some(pattern) = quoted_after(words, "Permissions Violation for Subscription to ") {
            for listener in lock(&self.listeners).iter() {
                if listener.pattern == pattern {
                    listener.refused.notify_one();
                }
            }
            self.emit(&Event::ReceiveDenied {
                pattern: pattern.to_owned(),
            });
        } else {
            tracing::warn!(error = words, "ExoCom reports an error");
        }
    }
}

/// A message that a handler works on.
pub(crate) struct Working(Arc<Link>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics between two states of what these guard.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The text in double quotes that follows `start`.
fn quoted_after<'a>(words: &'a str, start: &str) -> Option<&'a str> {
    let rest = words.strip_prefix(start)?.strip_prefix('"')?;
    rest.split_once('"').map(|(quoted, _)| quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_words_are_understood() {
        let check = |words: &str, start: &str, expected: Option<&str>| {
            assert_eq!(quoted_after(words, start), expected, "{words}");
        };
        let (publish, subscribe) = (
            "Permissions Violation for Publish to ",
            "Permissions Violation for Subscription to ",
        );
        check(
            "Permissions Violation for Publish to \"a.b\"",
            publish,
            Some("a.b"),
        );
        check(
            "Permissions Violation for Subscription to \"a.*\" using queue \"todos\"",
            subscribe,
            Some("a.*"),
        );
        check("Stale Connection", publish, None);
        check("Permissions Violation for Publish to \"a", publish, None);
    }
}
