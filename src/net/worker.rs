//! One thread of the broker: a single-threaded runtime, the connections that live on it, and the tick that
//! looks after them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;

use crate::audit::Record;
use crate::exchange::mailbox::ConnId;
use crate::limits::{AUTHORITY_SLICE_US, AUTHORITY_SLICE_WOKEN, TICK_MS};
use crate::net::authority::{Generations, Round};
use crate::net::broker::Broker;
use crate::net::clock::Clock;
use crate::net::connection::{Ended, told};
use crate::net::handle::Handle;
use crate::net::listener::{Accepted, Listener};
use crate::net::tls::HandshakeError;
use crate::net::usher::Usher;
use crate::policy::{Denial, DenialReason};
use crate::wire::encode::{self, ErrText};

/// A thread, as listeners see it.
#[derive(Debug)]
pub struct Worker {
    arrivals: mpsc::UnboundedSender<Accepted>,
    load: Arc<AtomicUsize>,
    runtime: runtime::Handle,
}

impl Worker {
    /// Starts a thread. It ends when the worker is dropped and its last connection has ended.
    pub fn start(index: usize, broker: Arc<Broker>) -> std::io::Result<(Self, JoinHandle<()>)> {
        // Unbounded, but each arrival holds a place among the half-open handshakes, and those are bounded.
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let load = Arc::new(AtomicUsize::new(0));
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let counted = Arc::clone(&load);
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new()
            .name(format!("exocom-{index}"))
            .spawn(move || {
                let room = Room {
                    broker,
                    load: counted,
                    connections: RefCell::default(),
                    changed: Notify::new(),
                    usher: Usher::default(),
                };
                LocalSet::new().block_on(&runtime, Rc::new(room).live(receiver));
            })?;
        let worker = Self {
            arrivals,
            load,
            runtime: handle,
        };
        Ok((worker, thread))
    }

    /// Its runtime. A task that runs there runs after every turn that had begun, since a turn is never interrupted.
    pub fn runtime(&self) -> &runtime::Handle {
        &self.runtime
    }

    /// How many connections and handshakes it has.
    pub fn load(&self) -> usize {
        self.load.load(Relaxed)
    }

    /// Hands over a socket.
    pub fn take(&self, accepted: Accepted) {
        self.load.fetch_add(1, Relaxed);
        if self.arrivals.send(accepted).is_err() {
            tracing::error!("a thread of the broker has ended; its share of new connections is lost");
        }
    }
}

struct Room {
    broker: Arc<Broker>,
    load: Arc<AtomicUsize>,
    connections: RefCell<HashMap<ConnId, Open>>,
    /// The policy or the authority of connections may have changed.
    changed: Notify,
    usher: Usher,
}

/// An open connection, and where it came in.
#[derive(Clone)]
struct Open {
    handle: Handle,
    listener: Arc<Listener>,
}

impl Room {
    async fn live(self: Rc<Self>, mut arrivals: mpsc::UnboundedReceiver<Accepted>) {
        let room = Rc::clone(&self);
        tokio::task::spawn_local(async move { room.usher.work().await });
        let room = Rc::clone(&self);
        tokio::task::spawn_local(async move { room.apply_changes().await });
        let mut tick = tokio::time::interval(Duration::from_millis(TICK_MS));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut generations = self.generations();
        let mut takes_arrivals = true;
        while takes_arrivals || self.load.load(Relaxed) > 0 {
            tokio::select! {
                accepted = arrivals.recv(), if takes_arrivals => match accepted {
                    Some(accepted) => {
                        tokio::task::spawn_local(Rc::clone(&self).welcome(accepted));
                    }
                    None => takes_arrivals = false,
                },
                _ = tick.tick() => {
                    let (now_us, now_unix_s) = (self.broker.clock.now_us(), Clock::unix_s());
                    for open in self.connections.borrow().values() {
                        open.handle.tick(now_us, now_unix_s);
                    }
                    let now = self.generations();
                    if std::mem::replace(&mut generations, now) != now {
                        self.changed.notify_one();
                    }
                }
            }
        }
    }

    fn generations(&self) -> (u64, Generations) {
        let broker = &self.broker;
        (broker.world.policy_generation(), broker.authority.generations())
    }

    /// Brings changes of the policy, of what is revoked and of who is believed to the open connections, in slices, for
    /// ever. Those that come meanwhile see to it themselves.
    async fn apply_changes(&self) {
        let mut before = self.generations();
        loop {
            self.changed.notified().await;
            let now = self.generations();
            let mut round = Round::since(before.1, now.1);
            let open: Vec<Open> = self.connections.borrow().values().cloned().collect();
            let mut slice_began_us = self.broker.clock.now_us();
            let mut woken = 0;
            for Open { handle, listener } in open {
                if before.0 != now.0 {
                    handle.check_policy();
                    woken += 1;
                }
                if let Some(round) = &mut round {
                    woken += usize::from(round.ask(&handle, &listener));
                }
                let now_us = self.broker.clock.now_us();
                if now_us - slice_began_us >= AUTHORITY_SLICE_US || woken >= AUTHORITY_SLICE_WOKEN {
                    tokio::task::yield_now().await;
                    slice_began_us = self.broker.clock.now_us();
                    woken = 0;
                }
            }
            before = now;
        }
    }

    /// From an accepted socket to the end of its connection.
    async fn welcome(self: Rc<Self>, accepted: Accepted) {
        let _counted = Counted(&self.load);
        let Accepted {
            socket,
            address,
            listener,
            place,
        } = accepted;
        let broker = &self.broker;
        let Ok(socket) = TcpStream::from_std(socket) else {
            return;
        };
        let limit = Duration::from_millis(broker.settings.handshake_ms_max);
        let generations = broker.authority.generations();
        let tls = listener.tls.load_full();
        // On the heap: a handshake needs far more room than the connection after it.
        let handshake = tokio::time::timeout(limit, self.usher.lead(tls.accept(socket)));
        let Some(handshake) = Box::pin(place.hold(handshake)).await else {
            broker.refuse(&listener.name, address, "handshake-gave-way", None);
            tracing::debug!(listener = listener.name, %address, "a handshake gave way to a newcomer");
            return;
        };
        let (stream, identity) = match handshake {
            Ok(Ok(done)) => done,
            Ok(Err(HandshakeError::Refused(refused))) => {
                broker.refuse(&listener.name, address, refused.rule, refused.whose.as_deref());
                if let Some(withheld) = broker.stranger_lines.take(broker.clock.now_us()) {
                    let (whose, withheld) = (refused.whose.as_deref().unwrap_or("nobody"), told(withheld));
                    tracing::warn!(
                        listener = listener.name, %address, rule = refused.rule, certificate = whose, withheld,
                        "handshake refused: {}", refused.message
                    );
                }
                return;
            }
            Ok(Err(HandshakeError::Lost(error))) => {
                broker.refuse(&listener.name, address, "handshake-lost", None);
                tracing::debug!(listener = listener.name, %address, %error, "connection lost in the handshake");
                return;
            }
            Err(_) => {
                broker.refuse(&listener.name, address, "handshake-timeout", None);
                if let Some(withheld) = broker.stranger_lines.take(broker.clock.now_us()) {
                    let withheld = told(withheld);
                    tracing::warn!(
                        listener = listener.name, %address, withheld,
                        "handshake took too long, connection closed"
                    );
                }
                return;
            }
        };
        let (socket, tls) = stream.into_inner();
        let identity = Arc::new(identity);
        let id = broker.next_id();
        let info = broker.info(id, listener.address, address);
        let admitted = broker.world.policy().admit(&identity, listener.zone.as_deref());
        if let (Err(_), Some(shadow)) = (&admitted, broker.world.shadow()) {
            let (zone, now_us) = (listener.zone.as_deref(), broker.clock.now_us());
            shadow.count_connection(&broker.world.policy(), &identity, zone, now_us);
        }
        let share = match &admitted {
            Ok(admission) => broker.world.share(admission.service()),
            // Whoever is not admitted has no part in anything.
            Err(_) => Arc::default(),
        };
        let handle = Handle::new(
            id,
            socket,
            tls,
            address,
            Arc::clone(&identity),
            listener.zone.clone(),
            broker.clock.now_us(),
            Arc::clone(&broker.waiting),
            Arc::clone(&share),
        );
        let entered = admitted.map_err(NotEntered::NotAdmitted).and_then(|_| {
            let place = share
                .connections
                .take_one_below(broker.settings.connections_per_service_max)
                .ok_or(NotEntered::TooManyOfTheService)?;
            if broker.enter(&handle, id) {
                Ok(place)
            } else {
                Err(NotEntered::TooMany)
            }
        });
        let _place_of_the_service = match entered {
            Ok(place) => place,
            Err(why) => {
                broker.refuse(
                    &listener.name,
                    address,
                    why.rule(),
                    Some(&identity.role.to_string()),
                );
                let lines = match &why {
                    NotEntered::NotAdmitted(_) => &broker.stranger_lines,
                    NotEntered::TooMany | NotEntered::TooManyOfTheService => &share.connection_lines,
                };
                if let Some(withheld) = lines.take(broker.clock.now_us()) {
                    tracing::warn!(
                        listener = listener.name, %address, sender = %identity.role, reason = why.rule(),
                        withheld = told(withheld), "connection refused: {why}"
                    );
                }
                let mut last_words = info;
                encode::err(&mut last_words, why.text());
                // It keeps its place until it has gone: those that may not enter must not be more than may knock.
                handle.say_and_close(&last_words).await;
                return;
            }
        };
        drop(place);
        if let Some(withheld) = share.connection_lines.take(broker.clock.now_us()) {
            tracing::info!(
                connection = id.0, listener = listener.name, %address, sender = %identity.role,
                serial = %identity.serial, withheld = told(withheld), "connected"
            );
        }
        let open = Open {
            handle: handle.clone(),
            listener: Arc::clone(&listener),
        };
        self.connections.borrow_mut().insert(id, open);
        // What has changed while it shook hands it may have missed.
        if broker.authority.generations() != generations {
            Round::full().ask(&handle, &listener);
        }
        broker.note(|| Record::Connected {
            connection: id.0,
            sender: identity.role.to_string(),
            serial: identity.serial.to_string(),
            address: address.to_string(),
            listener: listener.name.clone(),
        });
        let ended: Ended = Box::pin(handle.run(broker, &info)).await;
        self.connections.borrow_mut().remove(&id);
        broker.leave(id, ended);
        broker.note(|| Record::Disconnected {
            connection: id.0,
            sender: identity.role.to_string(),
            reason: ended.to_string(),
        });
        if let Some(withheld) = share.connection_lines.take(broker.clock.now_us()) {
            tracing::info!(
                connection = id.0, sender = %identity.role, reason = %ended, withheld = told(withheld),
                "disconnected"
            );
        }
    }
}

/// Why a client with a good certificate gets no session.
#[derive(Debug, thiserror::Error)]
enum NotEntered {
    #[error("{0}")]
    NotAdmitted(Denial),
    #[error("too many connections in all; raise connections in [limits]")]
    TooMany,
    #[error("too many connections of this service; raise connections-per-service in [limits]")]
    TooManyOfTheService,
}

impl NotEntered {
    /// The stable name under which it is counted.
    fn rule(&self) -> &'static str {
        match self {
            Self::NotAdmitted(denial) => admission_rule(denial.reason()),
            Self::TooMany => "connections",
            Self::TooManyOfTheService => "connections-per-service",
        }
    }

    /// What the client is told. One that found no room should try again; some clients that hear of their
    /// authority never do.
    const fn text(&self) -> ErrText<'static> {
        match self {
            Self::NotAdmitted(_) => ErrText::AuthorizationViolation,
            Self::TooMany | Self::TooManyOfTheService => ErrText::StaleConnection,
        }
    }
}

/// The stable name under which a refusal by the policy is counted.
const fn admission_rule(reason: DenialReason) -> &'static str {
    match reason {
        DenialReason::UnknownService => "unknown-service",
        DenialReason::WrongZone => "wrong-zone",
        DenialReason::WrongTrustDomain => "wrong-trust-domain",
        DenialReason::NotAService => "not-a-service",
        _ => "not-admitted",
    }
}

/// One connection or handshake less when it is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
