//! `exocom certs revoke`, `unrevoke`, `revoked`: ends the authority of certificates on a running broker.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use crate::cli::admin::AdminArgs;
use crate::cli::answer::tell;
use crate::console::revoked::{RevokeAnswer, RevokeVerb};
use crate::identity::revoked::Target;

/// End the authority of a certificate, a service or an operator, at once
#[derive(Debug, Args)]
#[command(
    long_about = "Ends the authority of a certificate, a service or an operator on a running broker: it is on the broker's \
        disk before this command ends, its connections are cut off, and no handshake lets it in again, also after a \
        restart.\n\n\
        WHAT is a serial number or a SHA-256 fingerprint in hexadecimal, with or without colons, or the name of a service. \
        Where it could be two things write serial:HEX, sha256:HEX, service:NAME or operator:NAME. The fingerprint of an \
        intermediate revokes all that it issued.\n\n\
        Operators need revoke.",
    after_long_help = "Examples:\n  \
        exocom certs revoke web --reason \"host was stolen\"\n  \
        exocom certs revoke 5f1c0a88e3d24b7790a1b2c3d4e5f607 --reason \"key in a log\"\n  \
        exocom certs revoke operator:alice --reason \"has left\" --admin /run/exocom/admin.sock"
)]
pub struct RevokeArgs {
    /// What to revoke
    #[arg(value_name = "SERIAL|FINGERPRINT|SERVICE")]
    what: Target,
    /// Why, for the list and the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Take something off the list of what is revoked
#[derive(Debug, Args)]
#[command(
    long_about = "Takes something off the list of what is revoked: its certificates are accepted again, if nothing else \
        is wrong with them. Operators need revoke.",
    after_long_help = "Example:\n  exocom certs unrevoke web --reason \"new certificates are out\""
)]
pub struct UnrevokeArgs {
    /// What to take off, as `certs revoked` shows it
    #[arg(value_name = "SERIAL|FINGERPRINT|SERVICE")]
    what: Target,
    /// Why, for the log
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// List what is revoked on a running broker, who revoked it and why
#[derive(Debug, Args)]
#[command(after_long_help = "Example:\n  exocom certs revoked --json")]
pub struct RevokedArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

impl RevokeArgs {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let verb = RevokeVerb::Revoke {
            what: self.what.clone(),
            reason: self.reason.clone(),
        };
        self.output.tell(&verb, out, err)
    }
}

impl UnrevokeArgs {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let verb = RevokeVerb::Unrevoke {
            what: self.what.clone(),
            reason: self.reason.clone(),
        };
        self.output.tell(&verb, out, err)
    }
}

impl RevokedArgs {
    /// Does it.
    pub fn run(&self, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        self.output.tell(&RevokeVerb::List, out, err)
    }
}

impl OutputArgs {
    fn tell(&self, verb: &RevokeVerb, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<ExitCode> {
        let answer: RevokeAnswer = self.admin.post("/v1/revoked", verb)?;
        Ok(tell(&answer, self.json, out, err)?)
    }
}
