//! `exocom queue`: what waits for services, and the dead letters.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::admin::AdminArgs;
use crate::cli::answer::tell;
use crate::console::queue::{QueueAnswer, QueueVerb};

/// Looks after tracked messages: queues and dead letters.
#[derive(Debug, Args)]
#[command(
    long_about = "Looks after tracked messages, those whose policy says delivery = \"at-least-once\": what waits for \
        each service, and the dead letters, which were given up and are kept for you.\n\n\
        A message becomes a dead letter when all its attempts failed, when it expired, or when its receiver refused \
        it for good. Replay it when the cause is gone, or drop it. Both are logged with who and why.\n\n\
        Operators need view to list and show, replay to replay, drop and purge.",
    after_long_help = "Examples:\n  \
        exocom queue list\n  \
        exocom queue show 4711 --payload\n  \
        exocom queue replay 4711 --why \"database is back\"\n  \
        exocom queue replay --service billing\n  \
        exocom queue drop 4711 --why \"sent twice by hand\"\n  \
        exocom queue purge billing --why \"test data\""
)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: Command,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what waits for each service, and the dead letters
    List,
    /// Show one message: its sender, its receivers, its headers
    Show {
        /// Its sequence, which `list` and the header Exo-Id tell
        seq: u64,
        /// Show the payload too
        #[arg(long)]
        payload: bool,
    },
    /// Send dead letters again, with as many attempts as new messages have
    Replay(Which),
    /// Drop dead letters for good
    Drop(Which),
    /// Drop all that waits for a service, but not its dead letters
    Purge {
        /// The service
        service: String,
        /// Why, for the log
        #[arg(long, value_name = "TEXT")]
        why: Option<String>,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The sequence of one message
    #[arg(required_unless_present = "service")]
    seq: Option<u64>,
    /// All dead letters of a service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

/// Does it.
pub fn run(args: &QueueArgs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer: QueueAnswer = args.admin.post("/v1/queue", &args.command.verb())?;
    Ok(tell(&answer, args.json, out, err)?)
}

impl Command {
    fn verb(&self) -> QueueVerb {
        match self {
            Self::List => QueueVerb::List,
            Self::Show { seq, payload } => QueueVerb::Show {
                seq: *seq,
                payload: *payload,
            },
            Self::Replay(which) => QueueVerb::Replay {
                seq: which.seq,
                service: which.service.clone(),
                why: which.why.clone(),
            },
            Self::Drop(which) => QueueVerb::Drop {
                seq: which.seq,
                service: which.service.clone(),
                why: which.why.clone(),
            },
            Self::Purge { service, why } => QueueVerb::Purge {
                service: service.clone(),
                why: why.clone(),
            },
        }
    }
}
