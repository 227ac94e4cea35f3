//! Keeps one service of the demo running, as a process of its own: starts it, passes its log on, starts it again
//! when it dies, and ends it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::LogOptions;
use super::service::{READY, Service};
use crate::cli::say;
use crate::limits::{DEMO_END_MS_MAX, DEMO_LINE_BYTES_MAX, DEMO_START_MS_MAX};

/// How a service is started.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    pub(super) service: Service,
    /// Where the broker listens.
    pub(super) broker: SocketAddr,
    /// Where everybody's certificates are.
    pub(super) certs: PathBuf,
    /// Where the page is, for the service that shows it.
    pub(super) listen: SocketAddr,
    pub(super) log: LogOptions,
    pub(super) restart_after: Duration,
}

/// A service that has said that it is ready. Its process is killed when this is dropped.
pub(super) struct Running {
    keeper: Keeper,
    id: u32,
    child: Child,
    /// The service ends when this does.
    stdin: ChildStdin,
}

impl Keeper {
    /// Starts the process, and waits until it says in its first line that it is ready, and where.
    pub(super) async fn start(mut self) -> anyhow::Result<Running> {
        let name = self.service.name();
        let mut child = self
            .command()?
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let id = child.id().context("it has not been waited for")?;
        let stdin = child.stdin.take().context("standard input was piped")?;
        let log = child.stderr.take().context("standard error was piped")?;
        let prefix = if self.log.is_text {
            format!("{name}: ")
        } else {
            String::new()
        };
        tokio::spawn(pass_on(BufReader::new(log), prefix));
        let mut output = BufReader::new(child.stdout.take().context("standard output was piped")?);
        let first = timeout(Duration::from_millis(DEMO_START_MS_MAX), line(&mut output)).await;
        let first = first.ok().flatten().unwrap_or_default();
        let Some(place) = first.trim_end().strip_prefix(READY) else {
            // It may be about to end; then its end says more.
            let why = match timeout(Duration::from_secs(1), child.wait()).await {
                Ok(status) => format!("it ended at once ({})", described(status)),
                Err(_) => format!("it was not ready after {DEMO_START_MS_MAX} ms"),
            };
            bail!("{name} did not start: {why}; what it says is beside this line");
        };
        // Where it is started again, the page stays where it was.
        self.listen = place.trim().parse().unwrap_or(self.listen);
        // Nothing more is expected, but a full pipe would block it.
        tokio::spawn(async move { tokio::io::copy(&mut output, &mut tokio::io::sink()).await });
        Ok(Running {
            keeper: self,
            id,
            child,
            stdin,
        })
    }

    fn command(&self) -> anyhow::Result<Command> {
        let name = self.service.name();
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let mut command = Command::new(program);
        command
            .args(&self.log.arguments)
            .args(["demo-service", name, "--listen", &self.listen.to_string()])
            .env("SERVICE_NAME", name)
            .env("EXOCOM_HOST", self.broker.ip().to_string())
            .env("EXOCOM_PORT", self.broker.port().to_string())
            .env("EXOCOM_CA", self.certs.join("ca.pem"))
            .env("EXOCOM_CERT", self.certs.join(format!("{name}.pem")))
            .env("EXOCOM_KEY", self.certs.join(format!("{name}.key")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C goes to this process alone, which ends the services in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command)
    }
}

impl Running {
    /// The process.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Where the page is.
    pub(super) fn listen(&self) -> SocketAddr {
        self.keeper.listen
    }

    /// Starts it again whenever it ends, until it is told to end.
    pub(super) fn keep(self) -> Kept {
        let (stop, stopped) = oneshot::channel();
        Kept {
            stop,
            task: tokio::spawn(keep(self, stopped)),
        }
    }

    /// Asks it to end, and ends it where it does not.
    async fn end(mut self) {
        drop(self.stdin);
        let ended = timeout(Duration::from_millis(DEMO_END_MS_MAX), self.child.wait()).await;
        if ended.is_err() {
            let name = self.keeper.service.name();
            tracing::warn!(service = name, "it did not end in time, and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::error!(service = name, %error, "it cannot be killed");
            }
        }
    }
}

/// A service that is kept running. Without an end in order its process is killed.
pub(super) struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Ends it; returns when its process has ended.
    pub(super) async fn end(self) {
        // Closed is as good as told.
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a service was not looked after");
        }
    }
}

async fn keep(mut running: Running, mut stopped: oneshot::Receiver<()>) {
    loop {
        let status = tokio::select! {
            status = running.child.wait() => status,
            _ = &mut stopped => return running.end().await,
        };
        let (name, away) = (running.keeper.service.name(), running.keeper.restart_after);
        tell(&format!(
            "{name} (process {}) has ended: {}. It is started again in {} s.",
            running.id,
            described(status),
            away.as_secs()
        ));
        running = tokio::select! {
            again = start_again(&running.keeper) => again,
            _ = &mut stopped => return,
        };
        tell(&format!("{name} is back, as process {}.", running.id));
    }
}

/// Starts a service again, however often that has to be tried.
async fn start_again(keeper: &Keeper) -> Running {
    loop {
        sleep(keeper.restart_after.max(PAUSE_MIN)).await;
        match keeper.clone().start().await {
            Ok(running) => return running,
            Err(error) => tell(&format!("{error:#}")),
        }
    }
}

/// A service that cannot start must not take all of the processor to try.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// Says it; the demo goes on where nobody reads it.
fn tell(text: &str) {
    if let Err(error) = say(text) {
        tracing::debug!(%error, text, "standard output is closed");
    }
}

fn described(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Passes a service's log on, line by line, each with whose it is.
async fn pass_on(mut log: impl AsyncBufRead + Unpin, prefix: String) {
    while let Some(line) = line(&mut log).await {
        // Nobody is left to tell when standard error is closed.
        drop(writeln!(std::io::stderr(), "{prefix}{}", line.trim_end()));
    }
}

/// A line, or as much of it as a line may have; `None` at the end.
async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let read = from.take(DEMO_LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
    matches!(read, Ok(1..)).then(|| String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_bounded_and_end() {
        let long = "x".repeat(usize::try_from(DEMO_LINE_BYTES_MAX).unwrap());
        let text = format!("one\n{long}y\nlast");
        let mut from = BufReader::new(text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = line(&mut from).await {
            lines.push(line);
        }
        assert_eq!(lines, ["one\n", long.as_str(), "y\n", "last"]);
    }
}
