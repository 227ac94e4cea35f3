//! What both programs have in common: a runtime, a log on standard error, an end in order, and an exit code.

use std::fmt::Display;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use exorelay::ExoRelay;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Runs a program, and tells a person why it failed.
pub fn run<E: Display>(program: impl Future<Output = Result<(), E>>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(program).map_err(|error| error.to_string()),
        Err(error) => Err(format!("cannot start the runtime: {error}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            drop(writeln!(io::stderr(), "{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Serves the page on an address until `stop`. `ready` is told where, which matters for port 0.
///
/// # Errors
/// What a person should read.
pub async fn web(
    relay: &ExoRelay,
    address: &str,
    ready: impl FnOnce(std::net::SocketAddr) -> io::Result<()>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{address} is in use by another program; choose another port")
            }
            _ => format!("cannot listen on {address}: {error}"),
        })?;
    listener
        .local_addr()
        .and_then(ready)
        .map_err(|error| format!("cannot say where the page is: {error}"))?;
    let served = crate::web::serve(relay, listener, stop).await;
    let ended = relay.shutdown().await;
    served.map_err(|error| format!("the page cannot be served: {error}"))?;
    ended.map_err(|error| error.to_string())
}

/// Keeps todos until `stop`. `ready` is called when it does.
///
/// # Errors
/// What a person should read.
pub async fn todos(
    relay: &ExoRelay,
    ready: impl FnOnce() -> io::Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    crate::todos::serve(relay)
        .await
        .map_err(|error| error.to_string())?;
    ready().map_err(|error| format!("cannot say that the service is ready: {error}"))?;
    stop.await;
    relay.shutdown().await.map_err(|error| error.to_string())
}

/// Waits for SIGTERM or Ctrl-C.
///
/// # Errors
/// The system's, where it takes no handlers.
pub fn signalled() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Prints one line at once, also into a pipe.
///
/// # Errors
/// Standard output's.
pub fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}
