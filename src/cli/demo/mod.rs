//! `exocom demo`: a broker and the todo application, each service a process of its own.
//!
//! Starts them in order, starts again what dies, and ends all of it. The services end with this process, however
//! it ends: see [`service`].

mod keeper;
pub mod service;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use self::keeper::{Keeper, Kept, Running};
use self::service::Service;
use crate::cli::dev::{self, Folder};
use crate::cli::say;
use crate::cli::serve::{Signals, runtime};
use crate::serve::Server;

/// The policy that the demo starts with, in any folder.
const POLICY: &str = include_str!("../../../policies/todo.toml");

/// Show ExoCom at work: the todo application on a broker of its own
#[derive(Debug, Args)]
#[command(
    long_about = "Shows ExoCom at work: runs a broker, and the todo application on it. The web server and the \
        service that keeps the todos are processes of their own; each proves who it is by its certificate, and \
        they know each other only by the names of their messages.\n\n\
        Nothing has to be prepared. What it makes lies under DIR and is used again on the next start: todo.toml \
        (the policy, yours to change while it runs), certs/, exocom.toml and admin.sock. Without --dir it is a \
        temporary folder, removed at the end.\n\n\
        Ctrl-C ends all of it.",
    after_long_help = "Examples:\n  \
        exocom demo                              the page is on http://127.0.0.1:3000\n  \
        exocom demo --listen 127.0.0.1:8080      the page is there\n  \
        exocom demo --dir /tmp/todo              keeps the policy and the certificates\n  \
        exocom demo -v                           says more of what happens"
)]
pub struct DemoArgs {
    /// Where the page is; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:3000", value_parser = dev::address)]
    listen: SocketAddr,
    /// The folder for everything; a temporary one if left out
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long a service that has ended stays away: time to see what the others do without it
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(..=3600))]
    restart_after: u64,
}

/// Does it. The services log as `log` says, too.
pub fn run(args: &DemoArgs, log: &LogOptions) -> anyhow::Result<ExitCode> {
    check_port(args.listen)?;
    let folder = Folder::open(args.dir.as_deref())?;
    runtime()?.block_on(async {
        let mut signals = Signals::new()?;
        let show = tokio::select! {
            started = Show::start(args, folder.path(), log) => started?,
            // Whatever has been started ends with its handle.
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        // Also the terminal's end, since there is nothing to reload by hand.
        signals.next().await;
        tokio::select! {
            () = show.end() => {}
            again = again() => {
                again?;
                tracing::warn!("second signal: stopped at once");
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Waits for a further signal. Some supervisors send the first to the process and to its group, which is twice.
async fn again() -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(1)).await;
    Signals::new()?.next().await;
    Ok(())
}

/// How the services log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// The options of this command line.
    pub arguments: Vec<String>,
    /// Lines are for people, who want to know whose they are.
    pub is_text: bool,
}

/// Everything that runs.
struct Show {
    server: Server,
    todos: Kept,
    web: Kept,
}

impl Show {
    async fn start(args: &DemoArgs, dir: &Path, log: &LogOptions) -> anyhow::Result<Self> {
        let policy = dir.join("todo.toml");
        if !policy.exists() {
            std::fs::write(&policy, POLICY)
                .with_context(|| format!("{}: cannot write the policy", policy.display()))?;
        }
        let server = dev::start(&policy, SocketAddr::from(([127, 0, 0, 1], 0)), dir, true).await?;
        let broker = server
            .addresses()
            .first()
            .copied()
            .context("the configuration has one listener")?;
        let keeper = |service: Service| Keeper {
            service,
            broker,
            certs: dir.join("certs"),
            listen: args.listen,
            log: log.clone(),
            restart_after: Duration::from_secs(args.restart_after),
        };
        let todos = keeper(Service::Todos).start().await?;
        let web = keeper(Service::Web).start().await?;
        introduce(args, dir, broker, &todos, &web)?;
        Ok(Self {
            server,
            todos: todos.keep(),
            web: web.keep(),
        })
    }

    /// Ends who asks before who answers, and the broker last.
    async fn end(self) {
        self.web.end().await;
        self.todos.end().await;
        self.server.stop().await;
    }
}

/// Says it before anything is started, where it is easily said.
fn check_port(listen: SocketAddr) -> anyhow::Result<()> {
    match TcpListener::bind(listen) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "{listen} is in use by another program; stop that one, or choose another port for the page: \
             exocom demo --listen {}:0 takes a free one",
            listen.ip()
        ),
        Err(error) => Err(error).with_context(|| format!("{listen}: the page cannot be there; see --listen")),
    }
}

fn introduce(
    args: &DemoArgs,
    dir: &Path,
    broker: SocketAddr,
    todos: &Running,
    web: &Running,
) -> anyhow::Result<()> {
    // As the person called it, to be copied.
    let exocom = std::env::args().next().unwrap_or_else(|| "exocom".to_owned());
    let (policy, socket) = (dir.join("todo.toml"), dir.join("admin.sock"));
    let (policy, socket) = (policy.display(), socket.display());
    let (page, todos, web) = (web.listen(), todos.id(), web.id());
    let away_s = args.restart_after;
    say(&format!(
        "The todo application runs on ExoCom. Open\n\n    \
             http://{page}\n\n  \
           broker  {broker}, decides by {policy}\n  \
           todos   process {todos}, keeps the todos\n  \
           web     process {web}, shows them\n\n\
         Try this\n\n  \
           Add a todo. web asks todos.create through ExoCom; todos answers, and tells everybody.\n\n  \
           See who said what to whom, how often and how fast:\n    \
             {exocom} status --admin {socket}\n\n  \
           Stop the service that keeps the todos; the page says so until it is back, in {away_s} s:\n    \
             kill {todos}\n\n  \
           Take \"todos.create\" from what web `sends` in the policy, and add a todo; the page names the rule:\n    \
             {policy}\n\n\
         Ctrl-C ends all of it."
    ))
}
