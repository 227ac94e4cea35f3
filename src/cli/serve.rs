//! `exocom serve`: the broker, until a signal ends it.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::limits::CONFIG_BYTES_MAX;
use crate::serve::Server;

/// Runs the broker.
#[derive(Debug, Args)]
#[command(
    long_about = "Runs the broker in the foreground until SIGTERM or Ctrl-C.\n\n\
        The policy is read again whenever its file changes. SIGHUP reads policy, certificates, roots and \
        revocation lists again. What cannot be used leaves the old in force, and says so in the log.\n\n\
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
        let server = Server::start(config).await?;
        serve_until_signal(server).await
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
pub(super) async fn serve_until_signal(server: Server) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = hang_up.recv() => server.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => tracing::warn!("second signal: stopped at once"),
        _ = interrupt.recv() => tracing::warn!("second signal: stopped at once"),
    }
    Ok(ExitCode::SUCCESS)
}
