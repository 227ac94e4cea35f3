//! `exocom quarantine`: holds what a service sends, lets it go on, or drops it.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::cli::admin::AdminArgs;
use crate::cli::answer::tell;
use crate::console::quarantine::{QuarantineAnswer, QuarantineVerb};
use crate::wire::name::Pattern;

/// Hold the messages of a service until somebody has looked at them
#[derive(Debug, Args)]
#[command(
    long_about = "Holds the messages of a service on a running broker, at once and until somebody ends it, also over a \
        restart. Its connections stay open.\n\n\
        Tracked messages that it sends are stored and acknowledged, and wait. Others are refused, and requests told \
        so, with Exo-Reason: quarantined. It gets nothing new: tracked messages for it wait too, and what it was asked \
        and has not answered is refused.\n\n\
        Look at what waits, drop what should not arrive, and release the rest: it goes on in its order. Each order is \
        recorded with who and why.\n\n\
        Operators need view to list and show, quarantine for the rest.",
    after_long_help = "Examples:\n  \
        exocom quarantine add web --reason \"sends ten times as much since 14:03\"\n  \
        exocom quarantine add web --message 'payments.>' --reason \"odd amounts\"\n  \
        exocom quarantine list\n  \
        exocom quarantine show web\n  \
        exocom queue show 4711 --payload\n  \
        exocom quarantine discard web --seq 4711 --reason \"forged\"\n  \
        exocom quarantine release web --reason \"was a load test\""
)]
pub struct QuarantineArgs {
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
    /// List what is held, by whom and why, and how much waits
    List,
    /// Show the messages that wait because a service is held
    Show(Which),
    /// Hold a service, or a part of its messages
    Add(Order),
    /// End a hold: what waits goes on, in its order
    Release(Order),
    /// Drop what a held service has sent and waits, for good
    Discard {
        #[command(flatten)]
        order: Order,
        /// Only the message of this sequence, which `show` tells
        #[arg(long)]
        seq: Option<u64>,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The service
    service: String,
    /// Only its messages of this name or pattern
    #[arg(long, value_name = "PATTERN", value_parser = pattern)]
    message: Option<Pattern>,
}

#[derive(Debug, Args)]
struct Order {
    #[command(flatten)]
    which: Which,
    /// Why, for the list and the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Does it.
pub fn run(args: &QuarantineArgs, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer: QuarantineAnswer = args.admin.post("/v1/quarantine", &args.command.verb())?;
    Ok(tell(&answer, args.json, out, err)?)
}

impl Command {
    fn verb(&self) -> QuarantineVerb {
        match self {
            Self::List => QuarantineVerb::List,
            Self::Show(which) => QuarantineVerb::Show {
                service: which.service.clone(),
                message: which.message.clone(),
            },
            Self::Add(order) => QuarantineVerb::Add {
                service: order.which.service.clone(),
                message: order.which.message.clone(),
                reason: order.reason.clone(),
            },
            Self::Release(order) => QuarantineVerb::Release {
                service: order.which.service.clone(),
                message: order.which.message.clone(),
                reason: order.reason.clone(),
            },
            Self::Discard { order, seq } => QuarantineVerb::Discard {
                service: order.which.service.clone(),
                message: order.which.message.clone(),
                seq: *seq,
                reason: order.reason.clone(),
            },
        }
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::new(text).map_err(|error| format!("{error}; write a name, or a pattern such as 'todos.>'"))
}
