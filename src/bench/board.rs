//! Where the players of one run meet: its phase, who is ready, how many messages came. The players run on
//! threads of their own, each with a runtime of its own; the board is all that they share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::LocalSet;

use crate::bench::process;
use crate::bench::time::{now_ns, seconds_since};
use crate::bench::{BenchError, Options, Progress};

/// How long a run waits for something that should happen at once, in seconds.
pub(super) const PATIENCE_S: u64 = 30;

/// Before it is measured, a run goes on for this part of its time, and at least a fifth of a second.
const WARM_UP: f64 = 0.2;

/// What the players do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Connect and subscribe.
    Setup,
    /// Send and receive.
    Play,
    /// Send no more; receive what is on its way.
    Drain,
    /// See that nothing more comes, and end.
    Finish,
}

/// See the module's documentation.
pub(super) struct Board {
    phase: watch::Sender<Phase>,
    ready: AtomicUsize,
    drained: AtomicUsize,
    failed: AtomicBool,
    /// Whether what happens now is measured.
    pub(super) measures: AtomicBool,
    counters: Vec<Counter>,
}

/// How many messages one player has sent or received.
#[derive(Default)]
#[repr(align(128))]
pub(super) struct Counter {
    count: AtomicU64,
    /// At which count somebody wants to be woken; `u64::MAX`: nobody does.
    wake_at: AtomicU64,
    wake: Notify,
}

impl Counter {
    pub(super) fn get(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// Sets the count. Written by one player alone.
    pub(super) fn set(&self, count: u64) {
        self.count.store(count, SeqCst);
        if count >= self.wake_at.load(SeqCst) {
            self.wake_at.store(u64::MAX, SeqCst);
            self.wake.notify_one();
        }
    }

    /// Waits until the count is at least this. For one waiter.
    pub(super) async fn reaches(&self, count: u64) {
        while self.get() < count {
            self.wake_at.store(count, SeqCst);
            if self.get() >= count {
                break;
            }
            self.wake.notified().await;
        }
        self.wake_at.store(u64::MAX, SeqCst);
    }
}

/// What one player does, on its thread.
pub(super) type Player = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Result<(), BenchError>>>> + Send>;

/// What the clock and the system said while it was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    /// By how much the sum of the counters that count has grown.
    pub(super) messages: u64,
    pub(super) client_cpu_s: f64,
    pub(super) server_cpu_s: Option<f64>,
}

impl Board {
    /// A board with a number of counters.
    pub(super) fn new(counters: usize) -> Arc<Self> {
        Arc::new(Self {
            phase: watch::Sender::new(Phase::Setup),
            ready: AtomicUsize::new(0),
            drained: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            measures: AtomicBool::new(false),
            counters: (0..counters)
                .map(|_| Counter {
                    wake_at: AtomicU64::new(u64::MAX),
                    ..Counter::default()
                })
                .collect(),
        })
    }

    /// One of the counters.
    pub(super) fn counter(&self, index: usize) -> &Counter {
        self.counters.get(index).expect("the run made as many as it uses")
    }

    /// To be called by each player when it could begin; returns when all are.
    pub(super) async fn ready(&self) {
        self.ready.fetch_add(1, SeqCst);
        self.reaches(Phase::Play).await;
    }

    /// To be called by each player when nothing of its own is on its way any more; returns when all say so.
    pub(super) async fn drained(&self) {
        self.drained.fetch_add(1, SeqCst);
        self.reaches(Phase::Finish).await;
    }

    /// Waits for a phase.
    pub(super) async fn reaches(&self, phase: Phase) {
        let mut phases = self.phase.subscribe();
        // An error would mean that the board is gone, and whoever waits holds it.
        drop(phases.wait_for(|now| *now >= phase).await);
    }

    /// The phase now.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Runs all players on so many threads; `counted` are the counters whose sum is measured.
    pub(super) fn play(
        self: &Arc<Self>,
        players: Vec<Vec<Player>>,
        counted: std::ops::Range<usize>,
        options: &Options,
        progress: &Progress,
    ) -> Result<Measured, BenchError> {
        let count = players.iter().map(Vec::len).sum();
        let threads: Vec<_> = players
            .into_iter()
            .map(|players| self.start_thread(players))
            .collect::<Result<_, _>>()?;
        let measured = self.conduct(count, counted, options, progress);
        if measured.is_err() {
            self.failed.store(true, SeqCst);
        }
        // Whoever waits goes on, and finds out that it is over.
        self.phase.send_replace(Phase::Finish);
        let mut first_error = None;
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| {
                Err(BenchError::Stuck(
                    "a thread of the load generator failed; nothing".to_owned(),
                ))
            });
            if let Err(error) = ended {
                first_error.get_or_insert(error);
            }
        }
        match (measured, first_error) {
            (_, Some(error)) => Err(error),
            (measured, None) => measured,
        }
    }

    fn start_thread(
        self: &Arc<Self>,
        players: Vec<Player>,
    ) -> Result<JoinHandle<Result<(), BenchError>>, BenchError> {
        let system = |error| BenchError::System {
            what: "cannot start a thread",
            error,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(system)?;
        let board = Arc::clone(self);
        std::thread::Builder::new()
            .name("bench".to_owned())
            .spawn(move || {
                let ended = LocalSet::new().block_on(&runtime, run_together(players, &board));
                if ended.is_err() {
                    board.failed.store(true, SeqCst);
                }
                ended
            })
            .map_err(system)
    }

    fn conduct(
        &self,
        players: usize,
        counted: std::ops::Range<usize>,
        options: &Options,
        progress: &Progress,
    ) -> Result<Measured, BenchError> {
        let sum = || -> u64 { counted.clone().map(|index| self.counter(index).get()).sum() };
        self.wait_for("not everybody connected", || self.ready.load(SeqCst) >= players)?;
        self.phase.send_replace(Phase::Play);
        let warm_up_s = (options.seconds * WARM_UP).max(0.2);
        let whole_s = warm_up_s + options.seconds;
        let started_ns = now_ns();
        self.pass(warm_up_s, |passed_s| {
            progress.show(passed_s / whole_s, "warming up".to_owned());
        });
        let snapshot = || -> Result<_, BenchError> {
            let server = options.pid.map(process::cpu_s).transpose()?;
            Ok((now_ns(), sum(), process::cpu_s(std::process::id())?, server))
        };
        let before = snapshot()?;
        self.measures.store(true, Relaxed);
        self.pass(options.seconds, |passed_s| {
            #[expect(clippy::cast_precision_loss, reason = "for the eye")]
            let rate = (sum() - before.1) as f64 / passed_s.max(0.001);
            progress.show((warm_up_s + passed_s) / whole_s, format!("{rate:.0}/s"));
        });
        self.measures.store(false, Relaxed);
        let after = snapshot()?;
        self.phase.send_replace(Phase::Drain);
        progress.show(1.0, format!("{:.1} s, draining", seconds_since(started_ns)));
        self.wait_for("not everything arrived", || self.drained.load(SeqCst) >= players)?;
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let seconds = (after.0 - before.0) as f64 / 1e9;
        Ok(Measured {
            seconds,
            messages: after.1 - before.1,
            client_cpu_s: after.2 - before.2,
            server_cpu_s: after.3.zip(before.3).map(|(after, before)| after - before),
        })
    }

    /// Waits for a condition; gives up when a player has failed, or when it takes too long.
    fn wait_for(&self, otherwise: &str, condition: impl Fn() -> bool) -> Result<(), BenchError> {
        let started_ns = now_ns();
        while !condition() {
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            let is_over = seconds_since(started_ns) > PATIENCE_S as f64;
            if is_over || self.failed.load(SeqCst) {
                return Err(BenchError::Stuck(otherwise.to_owned()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Lets time pass; ends early when a player has failed.
    fn pass(&self, seconds: f64, mut show: impl FnMut(f64)) {
        let started_ns = now_ns();
        while !self.failed.load(SeqCst) {
            let passed_s = seconds_since(started_ns);
            if passed_s >= seconds {
                break;
            }
            show(passed_s);
            std::thread::sleep(Duration::from_secs_f64((seconds - passed_s).min(0.1)));
        }
    }
}

/// Runs all players of a thread; the first failure ends them all.
async fn run_together(players: Vec<Player>, board: &Arc<Board>) -> Result<(), BenchError> {
    let mut tasks = tokio::task::JoinSet::new();
    for player in players {
        tasks.spawn_local(player());
    }
    loop {
        let ended = tokio::select! {
            ended = tasks.join_next() => ended,
            () = failure(board) => return Ok(()),
        };
        match ended {
            None => return Ok(()),
            Some(Ok(Ok(()))) => {}
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(error)) => return Err(BenchError::Stuck(format!("a player failed ({error}); nothing"))),
        }
    }
}

/// Returns when a player of another thread has failed.
async fn failure(board: &Board) {
    while !board.failed.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
