//! Connections that do nothing: what each costs the server in memory, and company for the other scenarios.

use std::time::Duration;

use tokio::task::{JoinSet, LocalSet};

use crate::bench::client::{Badge, Link, Target};
use crate::bench::process::{raise_file_limit, rss_bytes};
use crate::bench::report::{IdleStep, Report};
use crate::bench::{BenchError, Options, Progress, Scenario, cast};

/// How many connections are measured, one after the other.
const STEPS: [usize; 3] = [1_000, 5_000, 10_000];

/// Files that the load generator needs besides its sockets.
const OTHER_FILES: u64 = 64;

/// Connections opened at the same time. Fewer than a server's bound for half-open ones from one address.
const AT_ONCE: usize = 32;

/// Connections before the first measurement, so that what the server makes once is not counted.
const WARM_UP: usize = 64;

/// Plays it.
pub(super) fn run(target: &Target, options: &Options, progress: &Progress) -> Result<Report, BenchError> {
    let pid = options.pid.ok_or_else(|| {
        BenchError::Fixture(
            "`idle` measures the memory of the server's process; say which with --pid".to_owned(),
        )
    })?;
    let files = raise_file_limit().saturating_sub(OTHER_FILES);
    let mut crowd = Bystanders::gather(target, WARM_UP)?;
    let before = settled_rss_bytes(pid)?;
    let mut steps = Vec::new();
    for step in STEPS {
        if step > options.idle_max || (step + WARM_UP) as u64 > files {
            break;
        }
        crowd.grow(target, step + WARM_UP, |count| {
            #[expect(clippy::cast_precision_loss, reason = "for the eye")]
            progress.show(
                count as f64 / options.idle_max as f64,
                format!("{count} connections"),
            );
        })?;
        let grown = settled_rss_bytes(pid)?.saturating_sub(before);
        steps.push(IdleStep {
            connections: step,
            bytes_per_connection: grown / step as u64,
        });
    }
    Ok(Report::unmeasured(Scenario::Idle, options).with_idle(steps))
}

/// The server's memory once it no longer shrinks: it may give buffers back a little later.
fn settled_rss_bytes(pid: u32) -> Result<u64, BenchError> {
    let mut least = rss_bytes(pid)?;
    let mut unchanged = 0;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        let now = rss_bytes(pid)?;
        unchanged = if now < least { 0 } else { unchanged + 1 };
        least = now;
        if unchanged >= 5 {
            break;
        }
    }
    Ok(least)
}

/// Connections that are open, subscribed, and silent.
pub(super) struct Bystanders {
    links: Vec<Link>,
    badges: Vec<Badge>,
    runtime: tokio::runtime::Runtime,
}

impl Bystanders {
    /// Opens so many.
    pub(super) fn gather(target: &Target, count: usize) -> Result<Self, BenchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| BenchError::System {
                what: "cannot start a runtime",
                error,
            })?;
        let mut gathered = Self {
            links: Vec::new(),
            badges: Vec::new(),
            runtime,
        };
        if count > 0 {
            raise_file_limit();
            gathered.grow(target, count, |_| {})?;
        }
        Ok(gathered)
    }

    /// Opens more, until there are so many.
    fn grow(&mut self, target: &Target, count: usize, show: impl Fn(usize)) -> Result<(), BenchError> {
        if self.badges.is_empty() {
            let badges = cast::idlers().map(|service| Badge::read(target, &service));
            self.badges = badges.collect::<Result<_, _>>()?;
        }
        let mut badges = self.badges.iter().cycle();
        let links = &mut self.links;
        LocalSet::new().block_on(&self.runtime, async {
            let mut opening = JoinSet::new();
            while links.len() < count {
                while opening.len() < AT_ONCE && links.len() + opening.len() < count {
                    let Some(badge) = badges.next().cloned() else {
                        break;
                    };
                    let target = target.clone();
                    opening.spawn_local(async move {
                        let mut link = Link::open(&target, &badge).await?;
                        link.subscribe(cast::IDLE_NAME, 1).await?;
                        link.shrink();
                        Ok::<_, BenchError>(link)
                    });
                }
                match opening.join_next().await {
                    Some(Ok(opened)) => links.push(opened?),
                    Some(Err(error)) => {
                        return Err(BenchError::Stuck(format!(
                            "opening a connection failed ({error}); nothing"
                        )));
                    }
                    None => break,
                }
                show(links.len());
            }
            Ok(())
        })
    }
}
