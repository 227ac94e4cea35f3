//! A service of the demo, in its own process: one of the todo application's two, until its standard input ends.
//!
//! The demo holds the other end of that pipe, and so the service ends with it, even where the demo is killed.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use exocom_todo::program;
use exorelay::Options;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::cli::serve::runtime;
use crate::limits::DEMO_SHUTDOWN_MS_MAX;

/// How a service begins its first line; where the page is follows, if there is one.
pub(super) const READY: &str = "ready";

/// A service of the demo. Its relay reads the environment, as every relay does.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Which one
    service: Service,
    /// Where the page is
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

/// The services of the todo application, by their names in the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Shows the todos.
    Web,
    /// Keeps the todos.
    Todos,
}

impl Service {
    /// Its name in the policy, and as an argument.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Todos => "todos",
        }
    }
}

/// Does it.
pub fn run(args: &ServiceArgs) -> anyhow::Result<ExitCode> {
    runtime()?.block_on(async {
        let stop = told_to_stop()?;
        let options = Options::from_env()?.shutdown_within(Duration::from_millis(DEMO_SHUTDOWN_MS_MAX));
        let relay = options.connect().await?;
        let served = match args.service {
            Service::Web => {
                let listen = args.listen.to_string();
                let ready = |page| program::say(&format!("{READY} {page}"));
                program::web(&relay, &listen, ready, stop).await
            }
            Service::Todos => program::todos(&relay, || program::say(READY), stop).await,
        };
        served.map_err(|error| anyhow!(error))?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Waits for SIGTERM, or for the end of standard input.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let (ended, input_ended) = oneshot::channel::<()>();
    // A thread, which the end of the process does not wait for.
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while matches!(input.read(&mut [0; 64]), Ok(1..)) {}
        drop(ended);
    });
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = input_ended => {}
        }
    })
}
