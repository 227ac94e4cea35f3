//! A running broker: the only place where the rooms meet. Starts them, reloads what changes, stops them.

mod alarms;
mod auditor;
mod certificates;
mod checkpoints;
mod desk;
mod error;
mod keeper;
mod load;
mod operate;
mod operators;
mod outside;
mod passage;
mod policy;
mod post;
mod quarantine;
mod revoked;
mod shadow;
mod status;
mod watch;
mod webhook;
mod witness;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::config::{Config, ListenerConfig, StoreConfig};
use crate::console::admin::AdminSocket;
use crate::console::metrics;
use crate::delivery::Bounds;
use crate::disk;
use crate::disk::files::Folder;
use crate::disk::store::Store;
use crate::limits::{
    CONNECTIONS_MAX, HEADER_BYTES_MAX, MSG_ID_WINDOW_MS, MSG_IDS_MAX, SEGMENT_BYTES, STORE_CACHE_BYTES_MAX,
    WINDOW_BYTES_MAX, WINDOW_MESSAGES_MAX,
};
use crate::net::broker::{Broker, Settings};
use crate::net::clock::Clock;
use crate::net::listener::{Listener, accept};
use crate::net::tls::TlsServer;
use crate::net::worker::Worker;
use crate::policy_files::load_sources;
use crate::serve::alarms::AlarmDesk;
use crate::serve::auditor::{Auditor, Recorder};
use crate::serve::certificates::{FilesSeen, load_tls};
use crate::serve::desk::Desk;
use crate::serve::keeper::Keeper;
use crate::serve::passage::Passage;
use crate::serve::policy::{Reload, compile_policy, digest, log_warnings};
use crate::serve::quarantine::QuarantineDesk;
use crate::serve::revoked::RevokedList;
use crate::serve::shadow::Trial;
use crate::serve::watch::watch;
use crate::serve::webhook::Webhook;

pub use crate::serve::error::ServeError;
pub use crate::serve::policy::{PolicyLoadError, load_policy};

/// Open files that are no connections: logs, listeners, the runtimes' own.
const FILES_RESERVED: usize = 64;

/// Connections waiting to be accepted by one listener.
const BACKLOG: u32 = 1024;

/// A running broker.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    lame_duck_ms: u64,
    accepting: Vec<AbortHandle>,
    watching: Vec<AbortHandle>,
    workers: Arc<[Worker]>,
    threads: Vec<JoinHandle<()>>,
    keeper: Option<Keeper>,
    auditor: Option<Auditor>,
    alarms: AlarmDesk,
    _watcher: Option<notify::RecommendedWatcher>,
}

/// What a reload and a status need.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    config: Config,
    listeners: Vec<Arc<Listener>>,
    /// The port for operators, if there is one.
    admin: Option<Arc<Listener>>,
    revoked: RevokedList,
    desk: Desk,
    trial: Trial,
    files_seen: FilesSeen,
    /// Where what is about to change is written down first.
    recorder: Option<Recorder>,
    webhook: Option<Arc<Webhook>>,
    refused_change: Mutex<Option<String>>,
    /// What the policy's files held when they were last read, or why they could not be.
    policy_seen: Mutex<Option<Result<Vec<u8>, String>>>,
}

impl Server {
    /// Starts everything; from then on the broker serves. Nothing is left behind when it fails.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let desk = Desk::open(&config.state);
        desk.finish(&config.policy).map_err(ServeError::HalfReplaced)?;
        let sources = load_sources(std::slice::from_ref(&config.policy)).map_err(PolicyLoadError::Load)?;
        let compiled = compile_policy(&sources, config.store.is_some())?;
        log_warnings(&compiled);
        let policy = compiled.policy;
        let revoked = RevokedList::open(&config.state).map_err(ServeError::State)?;
        let held = quarantine::read(&config.state).map_err(ServeError::State)?;
        let now_revoked = Arc::clone(&revoked.lock());
        let listen = |listener: &ListenerConfig| {
            let tls = load_tls(&config, listener, policy.trust_domain())?;
            listen(listener, tls.with_revoked(Arc::clone(&now_revoked)))
        };
        let (listeners, sockets): (Vec<_>, Vec<_>) = config
            .listeners
            .iter()
            .map(listen)
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .unzip();
        let (admin_listener, admin_port) = config.admin.as_ref().map(listen).transpose()?.unzip();
        let metrics_port = config.metrics.map(bind_metrics).transpose()?;
        let admin_socket = AdminSocket::bind(&config.admin_socket)?;
        if let Err(error) = desk.keep(&policy, &sources, "its files, at a start", None) {
            tracing::warn!(error, "`exocom policy log` will not tell of this policy");
        }
        let policy_read = digest(&sources);
        let services = policy.services().len();
        let version = policy.version().to_owned();
        let store = config
            .store
            .as_ref()
            .map(|store| open_store(store, &config))
            .transpose()?;
        let intake = store.is_some().then(Arc::default);
        let audit = config.audit.as_ref().map(|_| Arc::default());
        let broker = Broker::new(
            Arc::new(policy),
            intake.clone(),
            audit,
            settings(&config),
            server_id()?,
        );
        broker.world.set_quarantine(Arc::new(held));
        let https = outside::https(&config)?;
        let auditor = match &config.audit {
            Some(audit) => Some(Auditor::start(audit, &config.name, &broker, https.as_ref())?),
            None => None,
        };
        let webhook = match (&config.webhook, https) {
            (Some(webhook), Some(https)) => {
                let started = Webhook::start(webhook, https, &broker, &config.name);
                let failed = |error| ServeError::Outside {
                    section: "alarms",
                    error,
                };
                Some(Arc::new(started.map_err(failed)?))
            }
            _ => None,
        };
        let keeper = match (store, intake) {
            (Some(store), Some(intake)) => {
                let keeper = Keeper::start(store, intake, Arc::clone(&broker), config.name.clone());
                Some(keeper.map_err(ServeError::Thread)?)
            }
            _ => None,
        };
        let threads = config
            .threads
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
        let started: Vec<_> = (0..threads)
            .map(|index| Worker::start(index, Arc::clone(&broker)))
            .collect::<Result<_, _>>()
            .map_err(ServeError::Thread)?;
        let (workers, threads): (Vec<_>, Vec<_>) = started.into_iter().unzip();
        let workers: Arc<[Worker]> = workers.into();
        let accepting = listeners
            .iter()
            .zip(sockets)
            .map(|(listener, socket)| {
                let task = accept(
                    Arc::clone(listener),
                    socket,
                    Arc::clone(&broker),
                    Arc::clone(&workers),
                );
                tokio::spawn(task).abort_handle()
            })
            .collect();
        let lame_duck_ms = config.limits.lame_duck_ms;
        let shared = Arc::new(Shared {
            broker,
            config,
            listeners,
            admin: admin_listener,
            revoked,
            desk,
            trial: Trial::default(),
            files_seen: FilesSeen::default(),
            recorder: auditor.as_ref().map(Auditor::recorder),
            webhook,
            refused_change: Mutex::default(),
            policy_seen: Mutex::new(Some(Ok(policy_read))),
        });
        let alarms = AlarmDesk::open(&shared.config.state, &shared.broker, shared.webhook.clone());
        let passage = Passage::new(keeper.as_ref(), &workers);
        let state = &shared.config.state;
        let held = QuarantineDesk::new(
            state,
            &shared.broker,
            shared.recorder.clone(),
            passage.clone(),
            shared.config.quarantine_max,
        );
        let access = operators::access(&shared, keeper.as_ref(), passage, alarms.clone(), held.clone());
        let (watcher, reloading) = watch(&shared);
        let counter = keeper.as_ref().map(Keeper::counter);
        let mut watching = vec![
            reloading,
            tokio::spawn(alarms.clone().watch(held, counter)).abort_handle(),
        ];
        if let (Some(listener), Some(port)) = (&shared.admin, admin_port) {
            let broker = Arc::clone(&shared.broker);
            let task = operators::accept(Arc::clone(listener), port, broker, access.clone());
            watching.push(tokio::spawn(task).abort_handle());
            tracing::info!(address = %listener.address, "operators may connect");
        }
        if let Some(port) = metrics_port {
            let address = port.local_addr().map_err(ServeError::Thread)?;
            let task = metrics::serve(port, Arc::clone(&access.status));
            watching.push(tokio::spawn(task).abort_handle());
            tracing::info!(%address, "metrics may be read by everybody who reaches it");
        }
        watching.push(tokio::spawn(admin_socket.serve(access)).abort_handle());
        for listener in &shared.listeners {
            let zone = listener.zone.as_deref().unwrap_or("all");
            tracing::info!(listener = listener.name, address = %listener.address, zone, "listening");
        }
        tracing::info!(policy = version, services, "ready");
        Ok(Self {
            shared,
            lame_duck_ms,
            accepting,
            watching,
            workers,
            threads,
            keeper,
            auditor,
            alarms,
            _watcher: watcher,
        })
    }

    /// Waits until the broker cannot go on, and says why: the store has failed.
    pub fn failure(&self) -> impl Future<Output = String> + use<> {
        let failure = self.keeper.as_ref().map(Keeper::failure);
        async move {
            match failure {
                Some(failure) => failure.wait().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Where each listener really listens, in the order of their names.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared
            .listeners
            .iter()
            .map(|listener| listener.address)
            .collect()
    }

    /// Takes what has changed in the policy's and the certificates' files. What cannot be used leaves the old
    /// in force, with a line in the log.
    pub fn reload(&self) {
        self.shared.reload_policy(Reload::Asked);
        self.shared.reload_tls(Reload::Asked);
    }

    /// Stops: no more connections, a notice to all clients, then an end to each, spread over the configured
    /// time; returns when all have ended.
    pub async fn stop(self) {
        for task in self.accepting.iter().chain(&self.watching) {
            task.abort();
        }
        self.shared.end_trial("the broker's end");
        let broker = &self.shared.broker;
        let mut left = broker.connections();
        tracing::info!(connections = left.len(), "stopping");
        for (_, handle) in &left {
            handle.announce_lame_duck();
        }
        // A fifth of the time for clients to leave by themselves, the rest to end those that stay one by one.
        tokio::time::sleep(Duration::from_millis(self.lame_duck_ms / 5)).await;
        left.retain(|(_, handle)| !handle.has_ended());
        let pause =
            Duration::from_millis(self.lame_duck_ms * 4 / 5) / u32::try_from(left.len()).unwrap_or(1).max(1);
        for (_, handle) in left {
            handle.end();
            tokio::time::sleep(pause).await;
        }
        for (_, handle) in broker.connections() {
            handle.end();
        }
        drop(self.workers);
        let threads = self.threads;
        let joined =
            tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        if tokio::time::timeout(Duration::from_secs(5), joined)
            .await
            .is_err()
        {
            tracing::warn!("some connections did not end in time");
        }
        if let Some(mut keeper) = self.keeper
            && tokio::task::spawn_blocking(move || keeper.close()).await.is_err()
        {
            tracing::error!("the store was not closed in order; the next start recovers");
        }
        let alarms = self.alarms;
        if tokio::task::spawn_blocking(move || alarms.close()).await.is_err() {
            tracing::error!(
                "what was learned about the traffic was not written; the next start knows an older state"
            );
        }
        // The last to end: it writes down what all others did.
        if let Some(auditor) = self.auditor
            && tokio::task::spawn_blocking(move || auditor.close())
                .await
                .is_err()
        {
            tracing::error!("the audit log was not closed in order; the next start says so in it");
        }
        tracing::info!("stopped");
    }
}

/// The listeners of a configuration as a client would meet them, the admin listener last: name, zone, TLS with what
/// operators have revoked.
pub fn client_tls(
    config: &Config,
    trust_domain: &str,
) -> Result<Vec<(String, Option<String>, TlsServer)>, ServeError> {
    let revoked = RevokedList::open(&config.state).map_err(ServeError::State)?;
    let listeners = config.listeners.iter().chain(&config.admin);
    let met = listeners.map(|listener| {
        let tls = load_tls(config, listener, trust_domain)?;
        let tls = tls.with_revoked(Arc::clone(&revoked.lock()));
        Ok((listener.name.clone(), listener.zone.clone(), tls))
    });
    met.collect()
}

/// Opens a listener's port.
fn listen(listener: &ListenerConfig, tls: TlsServer) -> Result<(Arc<Listener>, TcpListener), ServeError> {
    let failed = |error| ServeError::Bind {
        section: listener.section.clone(),
        address: listener.address,
        error,
    };
    let socket = bind(listener.address).map_err(failed)?;
    let listener = Listener {
        name: listener.name.clone(),
        zone: listener.zone.as_deref().map(Arc::from),
        address: socket.local_addr().map_err(failed)?,
        tls: ArcSwap::from_pointee(tls),
    };
    Ok((Arc::new(listener), socket))
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, ServeError> {
    bind(address).map_err(|error| ServeError::Bind {
        section: "metrics".to_owned(),
        address,
        error,
    })
}

/// Opens the store, and says what it found.
fn open_store(store: &StoreConfig, config: &Config) -> Result<Store<Folder>, ServeError> {
    let failed = |error: String| ServeError::Store {
        folder: store.folder.display().to_string(),
        error,
    };
    let folder = Folder::open(&store.folder).map_err(|error| failed(error.to_string()))?;
    let mut random = [0; 8];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| ServeError::Random)?;
    // A segment holds the largest message, whatever else is written with it.
    let segment_bytes = SEGMENT_BYTES.max(config.limits.payload_bytes + HEADER_BYTES_MAX + (1 << 20));
    let store_config = disk::store::StoreConfig {
        bounds: Bounds {
            messages_max: store.messages,
            bytes_max: store.bytes,
            queue_messages_max: store.queue_messages,
            window_messages_max: WINDOW_MESSAGES_MAX,
            window_bytes_max: WINDOW_BYTES_MAX,
            ids_window_ms: MSG_ID_WINDOW_MS,
            ids_max: MSG_IDS_MAX,
        },
        segment_bytes: segment_bytes as u64,
        cache_bytes_max: STORE_CACHE_BYTES_MAX,
    };
    let now_ms = Clock::default().now_unix_ms();
    let (opened_store, opened) = Store::open(folder, store_config, u64::from_le_bytes(random), now_ms)
        .map_err(|error| failed(error.to_string()))?;
    if let Some(cut) = &opened.cut {
        tracing::warn!(
            file = cut.file,
            offset = cut.offset,
            bytes = cut.bytes,
            "the end of the message log was torn and has been cut off: what was written when the machine stopped, \
             and had not been acknowledged"
        );
    }
    tracing::info!(
        folder = %store.folder.display(), messages = opened.messages, stopped_in_order = opened.was_closed,
        "store opened"
    );
    Ok(opened_store)
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4(),
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn settings(config: &Config) -> Settings {
    let connections_max = connections_max(config.limits.connections);
    Settings {
        server_name: config.name.clone(),
        payload_bytes_max: config.limits.payload_bytes,
        handshake_ms_max: config.limits.handshake_ms,
        half_open_max: config.limits.half_open,
        half_open_per_address_max: config.limits.half_open_per_address,
        connections_max,
        connections_per_service_max: config
            .limits
            .connections_per_service
            .unwrap_or_else(|| connections_max.div_ceil(2)),
    }
}

fn server_id() -> Result<String, ServeError> {
    let mut random = [0; 20];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| ServeError::Random)?;
    Ok(random.iter().map(|byte| format!("{byte:02X}")).collect())
}

/// How many connections there may be: every one is an open file, of which the system's soft limit is often 1,024.
fn connections_max(asked: Option<usize>) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit on open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let possible = usize::try_from(files)
        .unwrap_or(usize::MAX)
        .saturating_sub(FILES_RESERVED)
        .max(1);
    if let Some(connections) = asked.filter(|&asked| asked > possible) {
        tracing::warn!(
            files,
            connections,
            "the system lets this process open fewer files than the connections it may have; raise `ulimit -n`"
        );
    }
    asked.unwrap_or(CONNECTIONS_MAX.min(possible))
}
