//! The task that owns the audit log: one thread, between those who see something and the disk.
//!
//! It writes in rounds of half a second, flow records at their interval, and at once where somebody must not go on
//! before it is on disk. While the log cannot be written nothing is dropped that there is room for: flows stay in
//! their counters, records in the intake. It never holds up a message.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ring::rand::{SecureRandom, SystemRandom};

use crate::audit::flows::{FlowSum, FlowWriter};
use crate::audit::intake::Intake;
use crate::audit::key::{KEY_BYTES, SecretKey};
use crate::audit::record::{FlowCount, Gap, GapCause};
use crate::audit::tile::CHECKPOINT;
use crate::audit::{Entry, Record};
use crate::config::{AuditConfig, OnFailure};
use crate::console::action::{self, Asked, Told, Who};
use crate::console::status::AuditStatus;
use crate::disk::audit::{AuditLog, LogError, Tree};
use crate::limits::{AUDIT_PENDING_BYTES_MAX, AUDIT_PRUNE_EVERY_MS, AUDIT_ROUND_MS};
use crate::net::broker::Broker;
use crate::net::https::Https;
use crate::serve::ServeError;
use crate::serve::checkpoints::Checkpoints;
use crate::serve::witness::Witnesses;

/// Something that must be on disk before it takes effect, and who waits for that.
struct Order {
    record: Record,
    done: mpsc::SyncSender<Result<(), String>>,
}

/// A handle to the task.
#[derive(Debug)]
pub(super) struct Auditor {
    recorder: Recorder,
    checkpoints: Option<Checkpoints>,
    thread: JoinHandle<()>,
}

/// The way to have something written down before it takes effect.
#[derive(Clone)]
pub(super) struct Recorder {
    broker: Arc<Broker>,
    intake: Arc<Intake>,
    orders: Orders,
    state: Arc<Mutex<AuditStatus>>,
    witnesses: Arc<Witnesses>,
}

/// What waits to be written down; `None` once nobody will.
type Orders = Arc<Mutex<Option<Vec<Order>>>>;

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recorder")
    }
}

impl Auditor {
    /// Opens the log, and returns after it says on disk that the broker starts.
    pub(super) fn start(
        config: &AuditConfig,
        name: &str,
        broker: &Arc<Broker>,
        https: Option<&Https>,
    ) -> Result<Self, ServeError> {
        let failed = |error: String| ServeError::Audit {
            folder: config.folder.display().to_string(),
            error,
        };
        let policy = broker.world.policy();
        let key = secret_key(config, &format!("{}/{name}", policy.trust_domain())).map_err(failed)?;
        let now_unix_ms = broker.clock.now_unix_ms();
        let tree = Tree::open(&config.folder).map_err(|error| failed(error.to_string()))?;
        let public_key = key.public().clone();
        let public = public_key.to_string();
        let (log, opened) =
            AuditLog::open(tree, key, now_unix_ms).map_err(|error| failed(error.to_string()))?;
        write_public_key(&config.folder.join("log.pub"), &public)
            .map_err(|error| failed(error.to_string()))?;
        if let Some(cut) = opened.cut {
            tracing::warn!(
                entries = cut.entries,
                "the end of the audit log was torn and has been cut off: what was written when the broker or the \
                 machine stopped, and had not been signed"
            );
        }
        if !opened.was_closed {
            tracing::warn!("the audit log says that the broker did not stop in order; a gap is recorded");
        }
        tracing::info!(folder = %config.folder.display(), entries = opened.size, log = public, "audit log opened");
        broker.flows.record();
        let intake = broker.audit.clone().unwrap_or_default();
        let witnesses = Arc::new(Witnesses::start(&config.witnesses, https).map_err(ServeError::Thread)?);
        let state = Arc::new(Mutex::new(AuditStatus {
            folder: config.folder.display().to_string(),
            ..AuditStatus::default()
        }));
        let mut work = Work {
            log,
            intake: Arc::clone(&intake),
            orders: Arc::new(Mutex::new(Some(Vec::new()))),
            broker: Arc::clone(broker),
            flows: FlowWriter::default(),
            interval_ms: config.interval_ms,
            flows_at_ms: next_multiple(config.interval_ms, now_unix_ms),
            on_failure: config.on_failure,
            keep_ms: config.keep_ms,
            keep_bytes: config.keep_bytes,
            prune_at_ms: now_unix_ms,
            witnesses: Arc::clone(&witnesses),
            state: Arc::clone(&state),
            failure: None,
            last_unix_ms: now_unix_ms,
        };
        work.append(Entry {
            at_unix_ms: now_unix_ms,
            record: Record::Start {
                name: name.to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                policy: policy.version().to_owned(),
            },
        });
        let committed = work.log.commit().map_err(|error| failed(error.to_string()))?;
        if let Some(note) = committed {
            work.witnesses.tell(note);
        }
        work.say_state();
        let recorder = Recorder {
            state,
            witnesses,
            broker: Arc::clone(broker),
            intake,
            orders: Arc::clone(&work.orders),
        };
        let thread = std::thread::Builder::new()
            .name("exocom-audit".to_owned())
            .spawn(move || work.run())
            .map_err(ServeError::Thread)?;
        let checkpoints = Checkpoints::start(broker, &config.folder, public_key, &recorder.witnesses);
        let checkpoints = checkpoints.map_err(ServeError::Thread)?;
        Ok(Self {
            recorder,
            checkpoints,
            thread,
        })
    }

    /// The way to have something written down.
    pub(super) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Writes down what there is, and that the broker stops. Returns after it is on disk.
    pub(super) fn close(self) {
        if let Some(checkpoints) = self.checkpoints {
            checkpoints.close();
        }
        self.recorder.intake.close();
        if self.thread.join().is_err() {
            tracing::error!("the audit log's thread has panicked; the next start says so in the log");
        }
    }
}

impl Recorder {
    /// Returns after the record is on disk; an error says why it is not, and then what it tells of must not happen.
    pub(super) fn record(&self, record: Record) -> Result<(), String> {
        let closed = || "the audit log is closed, since the broker stops".to_owned();
        let (done, outcome) = mpsc::sync_channel(1);
        let order = Order { record, done };
        self.orders.lock().as_mut().ok_or_else(closed)?.push(order);
        self.intake.wake();
        outcome.recv().unwrap_or_else(|_| Err(closed()))
    }

    /// How it goes with the log.
    pub(super) fn status(&self) -> AuditStatus {
        AuditStatus {
            witnesses: self.witnesses.hearing(),
            ..self.state.lock().clone()
        }
    }

    /// Records the actions of operators.
    pub(super) fn of_operators(self) -> action::Recorder {
        Box::new(move |told, who, asked| {
            let record = record_of(told, who, asked);
            let recorder = self.clone();
            if !matches!(told, Told::Begins(_)) {
                recorder.broker.note(|| record);
                return Box::pin(std::future::ready(Ok(())));
            }
            Box::pin(async move {
                let recorded = tokio::task::spawn_blocking(move || recorder.record(record)).await;
                recorded.unwrap_or_else(|error| Err(error.to_string()))
            })
        })
    }
}

fn record_of(told: Told<'_>, who: &Who, asked: &Asked) -> Record {
    let (who, verb, about) = (who.name(), asked.verb.to_owned(), asked.about.clone());
    match told {
        Told::Begins(policy) => Record::Admin {
            who,
            why: asked.why.clone(),
            verb,
            about,
            policy: policy.to_owned(),
        },
        Told::Done(outcome) => Record::AdminDone {
            who,
            verb,
            about,
            is_done: outcome.is_ok(),
            outcome: match outcome {
                Ok(outcome) | Err(outcome) => outcome.clone(),
            },
        },
        Told::Refused(reason) => Record::AdminRefused {
            who,
            verb,
            about,
            reason: reason.to_owned(),
        },
    }
}

/// Since when the log cannot be written.
struct Failure {
    /// The last record before.
    after_unix_ms: u64,
}

struct Work {
    log: AuditLog<Tree>,
    intake: Arc<Intake>,
    orders: Orders,
    broker: Arc<Broker>,
    flows: FlowWriter,
    interval_ms: u64,
    flows_at_ms: u64,
    on_failure: OnFailure,
    keep_ms: Option<u64>,
    keep_bytes: Option<u64>,
    prune_at_ms: u64,
    witnesses: Arc<Witnesses>,
    state: Arc<Mutex<AuditStatus>>,
    failure: Option<Failure>,
    /// The time of the last entry.
    last_unix_ms: u64,
}

impl Work {
    fn run(mut self) {
        while !self.intake.is_closed() {
            self.intake.wait(Duration::from_millis(AUDIT_ROUND_MS));
            self.round();
        }
        self.close();
    }

    fn round(&mut self) {
        let now_unix_ms = self.broker.clock.now_unix_ms();
        let orders = self
            .orders
            .lock()
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default();
        if !self.can_write(now_unix_ms) {
            for order in orders {
                answer(&order, Err(self.told_failure()));
            }
            return;
        }
        self.take(now_unix_ms);
        let changes_policy = |order: &Order| matches!(order.record, Record::Policy { .. });
        // Under the policy by which it was sent, as far as a tick can tell.
        if now_unix_ms >= self.flows_at_ms || orders.iter().any(changes_policy) {
            self.take_flows(now_unix_ms);
        }
        self.carry_out(orders, now_unix_ms);
        self.prune(now_unix_ms);
    }

    /// Whether the log can be written. Where it could not, tries again.
    fn can_write(&mut self, now_unix_ms: u64) -> bool {
        let Some(failure) = &self.failure else {
            return true;
        };
        let after_unix_ms = failure.after_unix_ms;
        if self.log.commit().is_err() {
            return false;
        }
        self.failure = None;
        self.say_state();
        self.broker.world.set_halted(false);
        tracing::warn!("the audit log can be written again; it tells of the gap");
        let gap = Gap {
            cause: GapCause::CannotWrite,
            after_unix_ms,
            records: None,
        };
        self.append(Entry {
            at_unix_ms: now_unix_ms,
            record: Record::Gap(gap),
        });
        true
    }

    fn told_failure(&self) -> String {
        let since = self.failure.as_ref().map_or(0, |failure| failure.after_unix_ms);
        format!(
            "the audit log cannot be written since {} s ago (see the broker's log), so nothing may be changed",
            self.broker.clock.now_unix_ms().saturating_sub(since) / 1000
        )
    }

    /// Appends what has come.
    fn take(&mut self, now_unix_ms: u64) {
        let arrived = self.intake.take(now_unix_ms);
        let after_unix_ms = self.last_unix_ms;
        for entry in arrived.entries {
            self.append(entry);
            if self.failure.is_none() && self.log.pending_bytes() > AUDIT_PENDING_BYTES_MAX {
                self.commit();
            }
        }
        let mut line = Vec::new();
        for message in arrived.each {
            let at_unix_ms = self.broker.clock.unix_ms_at(message.at_us);
            message.write_line(at_unix_ms, &mut line);
            self.last_unix_ms = at_unix_ms;
            self.log.append(&line);
            if self.failure.is_none() && self.log.pending_bytes() > AUDIT_PENDING_BYTES_MAX {
                self.commit();
            }
        }
        if arrived.lost > 0 {
            tracing::error!(
                records = arrived.lost,
                "more happened than the audit log could take"
            );
            let gap = Gap {
                cause: GapCause::Overflow,
                after_unix_ms,
                records: Some(arrived.lost),
            };
            self.append(Entry {
                at_unix_ms: now_unix_ms,
                record: Record::Gap(gap),
            });
        }
    }

    /// Appends what was sent since the last time.
    fn take_flows(&mut self, now_unix_ms: u64) {
        self.flows_at_ms = next_multiple(self.interval_ms, now_unix_ms);
        let sums = self
            .broker
            .flows
            .take_new()
            .into_iter()
            .map(|(key, new)| FlowSum {
                sender: key.sender,
                message: key.message,
                receiver: key.receiver,
                count: FlowCount {
                    flow: 0,
                    messages: new.sent.messages,
                    bytes: new.sent.bytes,
                    first: new.first,
                    last: new.last,
                    denied: new.sent.denied,
                    dropped: new.sent.dropped,
                    unreceived: new.sent.no_receiver,
                },
            });
        let policy = self.broker.world.policy();
        for record in self.flows.write(sums.collect(), policy.version(), now_unix_ms) {
            self.append(Entry {
                at_unix_ms: now_unix_ms,
                record,
            });
        }
    }

    /// Writes everything down, and tells those who wait.
    fn carry_out(&mut self, orders: Vec<Order>, now_unix_ms: u64) {
        let orders: Vec<_> = orders
            .into_iter()
            .map(|order| {
                let entry = Entry {
                    at_unix_ms: now_unix_ms,
                    record: order.record.clone(),
                };
                (self.append(entry), order)
            })
            .collect();
        let is_written = self.commit();
        for (number, order) in orders {
            if is_written {
                answer(&order, Ok(()));
            } else {
                // It will be written with all the rest, and must not be taken for something that happened.
                self.append(Entry {
                    at_unix_ms: now_unix_ms,
                    record: Record::Withdrawn { entry: number },
                });
                answer(&order, Err(self.told_failure()));
            }
        }
    }

    fn append(&mut self, entry: Entry) -> u64 {
        self.last_unix_ms = entry.at_unix_ms;
        self.log.append(&entry.to_line())
    }

    /// Whether everything is on disk now.
    fn commit(&mut self) -> bool {
        let after_unix_ms = self.last_unix_ms;
        match self.log.commit() {
            Ok(Some(note)) => {
                self.witnesses.tell(note);
                self.say_state();
            }
            Ok(None) => {}
            Err(error) => {
                self.fail(&error, after_unix_ms);
                return false;
            }
        }
        true
    }

    /// Lets operators see how it goes.
    fn say_state(&self) {
        let mut state = self.state.lock();
        state.entries = self.log.size();
        state.signed_unix_ms = self.broker.clock.now_unix_ms();
        state.failing_since_unix_ms = self.failure.as_ref().map(|failure| failure.after_unix_ms);
    }

    fn fail(&mut self, error: &LogError, after_unix_ms: u64) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(Failure { after_unix_ms });
        self.state.lock().failing_since_unix_ms = Some(after_unix_ms);
        match self.on_failure {
            OnFailure::Stop => {
                self.broker.world.set_halted(true);
                tracing::error!(
                    %error,
                    "the audit log cannot be written: messages are refused as overloaded, and nothing may be \
                     changed, until it can be written again"
                );
            }
            OnFailure::Continue => tracing::error!(
                %error,
                "the audit log cannot be written: messages pass, nothing may be changed, and the log will tell of \
                 the gap"
            ),
        }
    }

    /// Removes what is older, or more, than the configuration keeps: first the record of it, then the entries.
    fn prune(&mut self, now_unix_ms: u64) {
        let is_wanted = self.keep_bytes.is_some() || self.keep_ms.is_some();
        if !is_wanted || now_unix_ms < self.prune_at_ms || self.failure.is_some() {
            return;
        }
        self.prune_at_ms = now_unix_ms + AUDIT_PRUNE_EVERY_MS;
        let since_unix_ms = self.keep_ms.map(|keep_ms| now_unix_ms.saturating_sub(keep_ms));
        let before = match self.log.prunable(self.keep_bytes, since_unix_ms) {
            Ok(Some(before)) => before,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "the audit log was not pruned"),
        };
        self.append(Entry {
            at_unix_ms: now_unix_ms,
            record: Record::Prune { before },
        });
        if self.commit()
            && let Err(error) = self.log.prune(before)
        {
            tracing::warn!(%error, "some of the audit log was not pruned; it is tried again");
        }
    }

    /// Nobody waits for what nobody will write.
    fn refuse_orders(&self) {
        drop(self.orders.lock().take());
    }

    fn close(mut self) {
        let now_unix_ms = self.broker.clock.now_unix_ms();
        self.refuse_orders();
        if !self.can_write(now_unix_ms) {
            tracing::error!("the audit log could not be written at the end; the next start says so in it");
            return;
        }
        self.take(now_unix_ms);
        self.take_flows(now_unix_ms);
        self.append(Entry {
            at_unix_ms: now_unix_ms,
            record: Record::Stop,
        });
        if self.commit() {
            self.witnesses.close(self.log.note());
        }
    }
}

impl Drop for Work {
    /// However the task ends.
    fn drop(&mut self) {
        self.refuse_orders();
    }
}

/// When the next interval begins, by the clock on the wall: so intervals of all brokers, and of all days, are the same.
fn next_multiple(interval_ms: u64, now_unix_ms: u64) -> u64 {
    (now_unix_ms / interval_ms + 1) * interval_ms
}

/// Whoever ordered may have left.
fn answer(order: &Order, outcome: Result<(), String>) {
    drop(order.done.send(outcome));
}

/// Reads the log's secret key, or makes one for a new log.
fn secret_key(config: &AuditConfig, name: &str) -> Result<SecretKey, String> {
    let file = &config.key;
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    match std::fs::read_to_string(file) {
        Ok(text) => return SecretKey::parse(&text).map_err(|error| format!("{}: {error}", file.display())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Err(_) => {}
    }
    if config.folder.join(CHECKPOINT).exists() {
        return Err(format!(
            "{}: the log's secret key is missing, and the log cannot be continued with another. Put it back, or move \
             the folder away to begin a new log",
            file.display()
        ));
    }
    let mut seed = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut seed)
        .map_err(|_| "the system gives no random bytes".to_owned())?;
    let key = SecretKey::from_seed(name, seed).map_err(|error| error.to_string())?;
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut options = std::fs::File::options();
    let mut opened = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(failed)?;
    opened
        .write_all(key.secret_text().as_bytes())
        .and_then(|()| opened.sync_all())
        .map_err(failed)?;
    Ok(key)
}

fn write_public_key(file: &PathBuf, key: &str) -> io::Result<()> {
    let text = format!("{key}\n");
    if std::fs::read(file).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(());
    }
    write_whole(file, &text)
}

fn write_whole(file: &Path, text: &str) -> io::Result<()> {
    let draft = file.with_extension("pub.draft");
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, file)
}
