//! The load generator: plays services against a broker, checks what arrives, and measures what it costs.
//!
//! It speaks the NATS client protocol by code of its own, so that it shares no mistake with the broker and can
//! be pointed at any NATS server. It never looks inside a broker: it sees sockets and, by the process's id,
//! what the system says of its processor time and memory.

mod board;
mod cast;
mod check;
mod client;
mod fixture;
mod floor;
mod flow;
mod handshakes;
mod idle;
mod process;
mod protocol;
mod report;
mod requests;
mod time;
mod tracked;

use std::io;
use std::path::PathBuf;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

pub use cast::{Audited, exocom_policy, nats_users};
pub use client::{Target, Tls};
pub use fixture::Fixture;
pub use report::Report;

/// What is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One sender, one receiver
    A,
    /// Four senders, four receivers, four message names
    B,
    /// One sender, eight receivers that each get every message
    C,
    /// Requests and replies, one in flight
    D1,
    /// Requests and replies, 256 in flight
    D256,
    /// Full TLS handshakes, each to the first PONG
    Handshakes,
    /// Memory of connections that do nothing
    Idle,
    /// Tracked messages to the store, one in flight
    P1,
    /// Tracked messages to the store, 64 in flight
    P64,
    /// Tracked messages to the store, 1,024 in flight
    P1024,
    /// Tracked messages stored, received and acknowledged, 1,024 in flight
    E1024,
    /// Requests through a bare TCP relay, without TLS: the least that scenario d1 could take
    Floor,
}

impl Scenario {
    /// All of them that need no store.
    pub const ALL: [Self; 7] = [
        Self::A,
        Self::B,
        Self::C,
        Self::D1,
        Self::D256,
        Self::Handshakes,
        Self::Idle,
    ];

    /// All of tracked messages.
    pub const TRACKED: [Self; 4] = [Self::P1, Self::P64, Self::P1024, Self::E1024];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
            Self::C => "c",
            Self::D1 => "d1",
            Self::D256 => "d256",
            Self::Handshakes => "handshakes",
            Self::Idle => "idle",
            Self::P1 => "p1",
            Self::P64 => "p64",
            Self::P1024 => "p1024",
            Self::E1024 => "e1024",
            Self::Floor => "floor",
        }
    }
}

/// How it is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// Bytes of a payload.
    pub payload_bytes: usize,
    /// How long is measured, in seconds.
    pub seconds: f64,
    /// Bytes of payload that a sender may be ahead of its slowest receiver.
    pub ahead_bytes: usize,
    /// Message names that each sender goes round.
    pub names: usize,
    /// Receivers of each message in scenario `c`.
    pub receivers: usize,
    /// Connections that do nothing meanwhile.
    pub bystanders: usize,
    /// Threads of the load generator.
    pub threads: usize,
    /// How many idle connections scenario `idle` goes up to.
    pub idle_max: usize,
    /// The broker's process, for its processor time and memory.
    pub pid: Option<u32>,
}

/// The smallest payload: it holds the sender's number, the name's number and the message's.
pub const PAYLOAD_BYTES_MIN: usize = 16;

/// Why a run gave no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The server cannot be reached.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where it should be.
        address: String,
        /// What the system says.
        error: io::Error,
    },
    /// TLS files that cannot be used.
    #[error("{file}: {fault}; `exocom bench --print-policy` and `exocom dev` make a folder that fits")]
    Files {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// The connection ended.
    #[error("{who}: connection lost: {error}")]
    Lost {
        /// The service.
        who: String,
        /// What the system says.
        error: io::Error,
    },
    /// The server said `-ERR`.
    #[error("{who}: the server says {text}")]
    Refused {
        /// The service.
        who: String,
        /// Its words.
        text: String,
    },
    /// The server does not keep to the protocol.
    #[error("{who}: not the protocol: {fault}")]
    Protocol {
        /// The service.
        who: String,
        /// What came.
        fault: String,
    },
    /// A message came twice, not at all, out of order, changed, or from the wrong sender.
    #[error("{who}: {seen}")]
    Violation {
        /// Who saw it.
        who: String,
        /// What was seen.
        seen: String,
    },
    /// Nothing happened for too long.
    #[error("{0} within {seconds} s", seconds = board::PATIENCE_S)]
    Stuck(String),
    /// The broker of its own cannot be started.
    #[error("cannot start a broker: {0}")]
    Fixture(String),
    /// The system refuses something.
    #[error("{what}: {error}")]
    System {
        /// What was asked of it.
        what: &'static str,
        /// What it says.
        error: io::Error,
    },
}

/// Plays one scenario. [`Scenario::Floor`] is played without the target.
pub fn run(scenario: Scenario, target: &Target, options: &Options) -> Result<Report, BenchError> {
    let progress = Progress::start(scenario);
    let report = match scenario {
        Scenario::A => flow::run(scenario, flow::Shape::pairs(1), target, options, &progress),
        Scenario::B => flow::run(scenario, flow::Shape::pairs(4), target, options, &progress),
        Scenario::C => {
            let shape = flow::Shape::fan_out(options.receivers);
            flow::run(scenario, shape, target, options, &progress)
        }
        Scenario::D1 => requests::run(scenario, 1, target, options, &progress),
        Scenario::D256 => requests::run(scenario, 256, target, options, &progress),
        Scenario::Handshakes => handshakes::run(target, options, &progress),
        Scenario::Idle => idle::run(target, options, &progress),
        Scenario::P1 => tracked::run(scenario, 1, false, target, options, &progress),
        Scenario::P64 => tracked::run(scenario, 64, false, target, options, &progress),
        Scenario::P1024 => tracked::run(scenario, 1024, false, target, options, &progress),
        Scenario::E1024 => tracked::run(scenario, 1024, true, target, options, &progress),
        Scenario::Floor => floor::run(options, &progress),
    };
    progress.0.finish_and_clear();
    report
}

/// A bar on the terminal while something runs; nothing where there is no terminal.
struct Progress(ProgressBar);

impl Progress {
    fn start(scenario: Scenario) -> Self {
        let style = ProgressStyle::with_template("{prefix:>12} [{bar:40}] {msg}")
            .expect("a fixed template")
            .progress_chars("=> ");
        let bar = ProgressBar::new(1000).with_style(style);
        bar.set_prefix(scenario.name());
        Self(bar)
    }

    /// `done` of the whole, from 0 to 1, and what there is to say.
    fn show(&self, done: f64, message: String) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 1000"
        )]
        self.0.set_position((done.clamp(0.0, 1.0) * 1000.0) as u64);
        self.0.set_message(message);
    }
}
