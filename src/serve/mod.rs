//! A running broker: the only place where the rooms meet. Starts them, reloads what changes, stops them.

mod keeper;
mod operate;
mod post;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{EventKind, RecursiveMode, Watcher, event::AccessKind};
use parking_lot::Mutex;
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::config::{Config, ListenerConfig, StoreConfig};
use crate::console::admin::{Access, AdminError, AdminSocket, QueueOrders};
use crate::console::status::{ConnectionStatus, FlowStatus, ListenerStatus, PolicyStatus, Status};
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
use crate::net::tls::{ServerTlsFiles, TlsConfigError, TlsServer};
use crate::net::worker::Worker;
use crate::policy::{Policy, Source};
use crate::policy_files::{LoadError, load_sources};
use crate::serve::keeper::Keeper;
use crate::traffic::flow::FlowTotals;

/// How long changes of the policy's files must have settled before they are read, in milliseconds.
const SETTLED_MS: u64 = 200;

/// Open files that are no connections: logs, listeners, the runtimes' own.
const FILES_RESERVED: usize = 64;

/// Connections waiting to be accepted by one listener.
const BACKLOG: u32 = 1024;

/// Why the broker does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyLoadError),
    /// A certificate, key or root cannot be used.
    #[error("[listener.{listener}] {error}")]
    Tls {
        /// The listener.
        listener: String,
        /// What is wrong.
        error: TlsConfigError,
    },
    /// A port cannot be opened.
    #[error("[listener.{listener}] cannot listen on {address}: {error}{}", remedy(.error))]
    Bind {
        /// The listener.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The store cannot be used.
    #[error("[store] {folder}: {error}")]
    Store {
        /// Its folder.
        folder: String,
        /// What is wrong.
        error: String,
    },
    /// The system gives no thread, timer or randomness.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The system gives no randomness.
    #[error("the system gives no random bytes")]
    Random,
}

/// Why a policy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLoadError {
    /// Its files cannot be read.
    #[error("the policy cannot be read: {0}")]
    Load(LoadError),
    /// It has mistakes; the text shows each with its place.
    #[error("the policy is refused, as `exocom policy check` would without a broker:\n{0}")]
    Compile(String),
    /// It asks for what there is no store for.
    #[error(
        "{rule}: [message.\"{pattern}\"] asks for delivery = \"at-least-once\", but the configuration has no store to \
         keep messages in. Add to it: [store] folder = \"store\". The broker would rather not start than deliver less \
         than asked."
    )]
    AtLeastOnce {
        /// The line that asks.
        rule: String,
        /// The names it asks for.
        pattern: String,
    },
}

fn remedy(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or set another address",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        std::io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    }
}

/// Reads and compiles the policy. Without a store, refuses one that needs it.
pub fn load_policy(path: &Path, has_store: bool) -> Result<Policy, PolicyLoadError> {
    let sources = load_sources(&[path.to_owned()]).map_err(PolicyLoadError::Load)?;
    compile_policy(&sources, has_store)
}

fn compile_policy(sources: &[Source], has_store: bool) -> Result<Policy, PolicyLoadError> {
    let compiled = Policy::compile(sources).map_err(|errors| {
        PolicyLoadError::Compile(errors.diagnostics().render(false).trim_end().to_owned())
    })?;
    for warning in compiled.warnings.iter() {
        let place = warning.place();
        tracing::warn!(
            "policy {}:{}:{}: {}",
            place.file,
            place.line,
            place.column,
            warning.message()
        );
    }
    let needs_store = compiled.policy.requires_durable_delivery().next();
    if let Some((pattern, rule)) = needs_store.filter(|_| !has_store) {
        return Err(PolicyLoadError::AtLeastOnce {
            rule: rule.to_string(),
            pattern: pattern.to_string(),
        });
    }
    Ok(compiled.policy)
}

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
    _watcher: Option<notify::RecommendedWatcher>,
}

/// What a reload and a status need.
#[derive(Debug)]
struct Shared {
    broker: Arc<Broker>,
    config: Config,
    listeners: Vec<Arc<Listener>>,
    refused_change: Mutex<Option<String>>,
    /// What the policy's files held when they were last read, or why they could not be.
    policy_seen: Mutex<Option<Result<Vec<u8>, String>>>,
}

/// Why the policy is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reload {
    /// Somebody asks for it.
    Asked,
    /// Something in its folder has changed; perhaps a log that lies there too.
    Noticed,
}

impl Server {
    /// Starts everything; from then on the broker serves. Nothing is left behind when it fails.
    pub async fn start(config: Config) -> Result<Self, ServeError> {
        let policy = load_policy(&config.policy, config.store.is_some())?;
        let mut listeners = Vec::new();
        let mut sockets = Vec::new();
        for listener in &config.listeners {
            let tls = load_tls(&config, listener, policy.trust_domain())?;
            let failed = |error| ServeError::Bind {
                listener: listener.name.clone(),
                address: listener.address,
                error,
            };
            let socket = bind(listener.address).map_err(failed)?;
            let address = socket.local_addr().map_err(failed)?;
            listeners.push(Arc::new(Listener {
                name: listener.name.clone(),
                zone: listener.zone.as_deref().map(Arc::from),
                address,
                tls: ArcSwap::from_pointee(tls),
            }));
            sockets.push(socket);
        }
        let admin = AdminSocket::bind(&config.admin_socket)?;
        let services = policy.services().len();
        let version = policy.version().to_owned();
        let store = config
            .store
            .as_ref()
            .map(|store| open_store(store, &config))
            .transpose()?;
        let intake = store.is_some().then(Arc::default);
        let broker = Broker::new(Arc::new(policy), intake.clone(), settings(&config), server_id()?);
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
            refused_change: Mutex::default(),
            policy_seen: Mutex::default(),
        });
        let status = Arc::clone(&shared);
        let access = Access {
            status: Arc::new(move || status.status()),
            queue: keeper.as_ref().map(queue_orders),
        };
        let admin = tokio::spawn(admin.serve(access)).abort_handle();
        let (watcher, reloading) = watch(&shared);
        for listener in &shared.listeners {
            let zone = listener.zone.as_deref().unwrap_or("all");
            tracing::info!(listener = listener.name, address = %listener.address, zone, "listening");
        }
        tracing::info!(policy = version, services, "ready");
        let watching = vec![admin, reloading];
        Ok(Self {
            shared,
            lame_duck_ms,
            accepting,
            watching,
            workers,
            threads,
            keeper,
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
        self.shared.reload_tls();
    }

    /// Stops: no more connections, a notice to all clients, then an end to each, spread over the configured
    /// time; returns when all have ended.
    pub async fn stop(self) {
        for task in self.accepting.iter().chain(&self.watching) {
            task.abort();
        }
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
        tracing::info!("stopped");
    }
}

impl Shared {
    fn reload_policy(&self, why: Reload) {
        let sources = load_sources(std::slice::from_ref(&self.config.policy));
        let seen = Some(sources.as_deref().map(digest).map_err(ToString::to_string));
        if std::mem::replace(&mut *self.policy_seen.lock(), seen.clone()) == seen && why == Reload::Noticed {
            return;
        }
        let old = self.broker.world.policy();
        match sources
            .map_err(PolicyLoadError::Load)
            .and_then(|sources| compile_policy(&sources, self.config.store.is_some()))
        {
            Ok(policy) => {
                *self.refused_change.lock() = None;
                if policy.version() == old.version() {
                    return;
                }
                tracing::info!(from = old.version(), to = policy.version(), "policy changed");
                let moved = policy.trust_domain() != old.trust_domain();
                self.broker.world.set_policy(Arc::new(policy));
                if moved {
                    self.reload_tls();
                }
            }
            Err(error) => {
                tracing::error!(
                    kept = old.version(),
                    "the changed policy is refused, the old one stays: {error}"
                );
                *self.refused_change.lock() = Some(error.to_string());
            }
        }
    }

    fn reload_tls(&self) {
        let policy = self.broker.world.policy();
        for (listener, config) in self.listeners.iter().zip(&self.config.listeners) {
            match load_tls(&self.config, config, policy.trust_domain()) {
                Ok(tls) => listener.tls.store(Arc::new(tls)),
                Err(error) => tracing::error!("certificates not reloaded, the old ones stay: {error}"),
            }
        }
    }

    fn status(&self) -> Status {
        let broker = &self.broker;
        let policy = broker.world.policy();
        let now_us = broker.clock.now_us();
        let mut connections: Vec<_> = broker
            .connections()
            .into_iter()
            .map(|(id, handle)| {
                let about = handle.about.lock().clone();
                ConnectionStatus {
                    id: id.0,
                    sender: handle.identity.role.to_string(),
                    address: handle.address.to_string(),
                    zone: handle.zone.as_deref().map(str::to_owned),
                    name: about.name,
                    client: about.client,
                    age_s: now_us.saturating_sub(handle.since_us) / 1_000_000,
                    expires_unix_s: handle.identity.expires_unix_s,
                    subscriptions: about.subscriptions,
                    pending_replies: handle.pending_replies(),
                    outbox_bytes: handle.outbox_bytes(),
                }
            })
            .collect();
        connections.sort_by_key(|connection| connection.id);
        let flows = broker
            .flows
            .totals()
            .into_iter()
            .filter(|(_, totals)| *totals != FlowTotals::default());
        let flows = flows.map(|(key, totals)| FlowStatus {
            sender: key.sender.to_string(),
            message: key.message.to_string(),
            receiver: key.receiver.map(|receiver| receiver.to_string()),
            messages: totals.messages,
            bytes: totals.bytes,
            denied: totals.denied,
            dropped: totals.dropped,
            no_receiver: totals.no_receiver,
            responses: totals.responses,
            response_us_mean: totals.response_us_sum.checked_div(totals.responses).unwrap_or(0),
            response_us_max: totals.response_us_max,
            unanswered: totals.unanswered,
            replies_dropped: totals.replies_dropped,
        });
        Status {
            name: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now_us / 1_000_000,
            policy: PolicyStatus {
                path: self.config.policy.display().to_string(),
                version: policy.version().to_owned(),
                services: policy.services().len(),
                refused_change: self.refused_change.lock().clone(),
            },
            listeners: self
                .listeners
                .iter()
                .map(|listener| ListenerStatus {
                    name: listener.name.clone(),
                    address: listener.address.to_string(),
                    zone: listener.zone.as_deref().map(str::to_owned),
                })
                .collect(),
            counts: serde_json::to_value(broker.counts()).expect("counts are plain numbers"),
            connections,
            flows: flows.collect(),
        }
    }
}

/// Watches the policy's files and reloads when they have changed. Where the system cannot watch, SIGHUP still
/// works.
fn watch(shared: &Arc<Shared>) -> (Option<notify::RecommendedWatcher>, AbortHandle) {
    let changed = Arc::new(Notify::new());
    let changes = Arc::clone(&changed);
    let reloading = Arc::clone(shared);
    let task = tokio::spawn(async move {
        loop {
            changes.notified().await;
            // An editor writes in several steps.
            tokio::time::sleep(Duration::from_millis(SETTLED_MS)).await;
            let shared = Arc::clone(&reloading);
            if tokio::task::spawn_blocking(move || shared.reload_policy(Reload::Noticed))
                .await
                .is_err()
            {
                tracing::error!("reloading the policy failed; the old one stays");
            }
        }
    });
    let on_event = move |event: notify::Result<notify::Event>| {
        let is_read = |kind: &EventKind| matches!(kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(notify::event::AccessMode::Write)));
        if event.is_ok_and(|event| !is_read(&event.kind)) {
            changed.notify_one();
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(
            &watched_folder(&shared.config.policy),
            RecursiveMode::NonRecursive,
        )?;
        Ok(watcher)
    });
    let watcher = watcher
        .inspect_err(|error| tracing::warn!(%error, "cannot watch the policy; send SIGHUP after a change"))
        .ok();
    (watcher, task.abort_handle())
}

/// A file is replaced by renaming another onto it, so it is its folder that is watched.
fn watched_folder(policy: &Path) -> PathBuf {
    if policy.is_dir() {
        return policy.to_owned();
    }
    match policy.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Equal only for the same names and texts.
fn digest(sources: &[Source]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().to_vec()
}

fn load_tls(config: &Config, listener: &ListenerConfig, trust_domain: &str) -> Result<TlsServer, ServeError> {
    let roots = listener
        .roots
        .iter()
        .map(|(domain, file)| (domain.as_deref().unwrap_or(trust_domain).to_owned(), file.clone()));
    let files = ServerTlsFiles {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
        roots: roots.collect(),
        crls: listener.crls.clone(),
        lifetime_max_days: config.limits.certificate_life_days,
    };
    files.load().map_err(|error| ServeError::Tls {
        listener: listener.name.clone(),
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

fn queue_orders(keeper: &Keeper) -> QueueOrders {
    let counter = keeper.counter();
    Arc::new(move |verb| {
        let counter = counter.clone();
        Box::pin(async move { counter.order(verb).await })
    })
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
