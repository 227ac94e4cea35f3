//! `exocom serve`: the broker, until a signal ends it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::limits::CONFIG_BYTES_MAX;
use crate::serve::Server;

/// Run the broker
#[derive(Debug, Args)]
#[command(
    long_about = "Runs the broker in the foreground until SIGTERM or Ctrl-C.\n\n\
        Policy, certificates, roots and revocation lists are read again whenever their files change, and on \
        SIGHUP. What cannot be used leaves the old in force, and says so in the log.\n\n\
        On SIGTERM clients are told to leave (lame duck) and are ended gradually; a second signal ends at once.",
    after_long_help = "Example:\n  exocom serve --config /etc/exocom/exocom.toml\n\n\
        docs/configuration.md lists every key. `exocom dev` writes a working file to start from."
)]
pub struct ServeArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "exocom.toml")]
    config: PathBuf,
}

/// Does it.
pub fn run(args: &ServeArgs) -> anyhow::Result<ExitCode> {
    let config = read_config(&args.config)?;
    runtime()?.block_on(async {
        let signals = Signals::new()?;
        let server = Server::start(config).await?;
        serve_until(signals, server).await
    })
}

/// Reads a configuration file.
pub(super) fn read_config(path: &Path) -> anyhow::Result<Config> {
    let cannot_read = || {
        format!(
            "{}: cannot read the configuration; `exocom dev --dir DIR` writes one to start from",
            path.display()
        )
    };
    let file = File::open(path).with_context(cannot_read)?;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .with_context(cannot_read)?;
    anyhow::ensure!(
        text.len() <= CONFIG_BYTES_MAX,
        "{}: longer than a configuration can be",
        path.display()
    );
    Ok(Config::parse(path, &text)?)
}

/// The runtime of everything but the connections: those have threads of their own.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// Serves until SIGTERM or SIGINT, reloads on SIGHUP; a second signal ends at once.
pub(super) async fn serve_until(mut signals: Signals, server: Server) -> anyhow::Result<ExitCode> {
    let failure = server.failure();
    tokio::pin!(failure);
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => server.reload(),
                Asked::End => break,
            },
            error = &mut failure => anyhow::bail!("stopped: {error}"),
        }
    }
    tokio::select! {
        () = server.stop() => {}
        () = signals.end() => tracing::warn!("second signal: stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}

/// The signals that a command waits for, from the moment that this is made. A command makes it before it says
/// that it is ready: whoever reads that may send one at once.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        let wait_for = |kind| signal(kind).context("cannot wait for signals");
        Ok(Self {
            terminate: wait_for(SignalKind::terminate())?,
            interrupt: wait_for(SignalKind::interrupt())?,
            hang_up: wait_for(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::End,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    /// Waits for SIGTERM or SIGINT.
    async fn end(&mut self) {
        while self.next().await != Asked::End {}
    }
}
