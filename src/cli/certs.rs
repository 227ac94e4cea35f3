//! `exocom certs`: makes and lists certificates for development.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authority::{Authority, Issue, Issued, key_is_exposed, root_file};
use super::inventory::{self, Kind, Listed};
use super::p12::P12Args;
use super::revoke::{RevokeArgs, RevokedArgs, UnrevokeArgs};
use super::show::ShowArgs;
use crate::cli::answer::print_json;
use crate::limits::{CERT_LIFE_DAYS_ISSUED, CERT_LIFE_DAYS_MAX};

const DAY_S: i64 = 86_400;

/// Make and list certificates for development; revoke them on a running broker
#[derive(Debug, Args)]
pub struct CertsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a root for a trust domain
    ///
    /// Writes ca.pem, which ExoCom and the services are given, and ca.key, which only this command needs.
    #[command(after_long_help = "Example:\n  exocom certs init --trust-domain todo.example --dir certs")]
    Init {
        /// The trust domain, such as todo.example: lower case, without a scheme
        #[arg(long, value_name = "NAME")]
        trust_domain: String,
        #[command(flatten)]
        folder: Folder,
        /// Replace a root that is there; everything it issued becomes worthless
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate to a service, an operator or ExoCom itself
    ///
    /// Writes NAME.pem and NAME.key; for ExoCom itself server.pem and server.key.
    #[command(after_long_help = "Examples:
  exocom certs issue --service web
  exocom certs issue --operator alice --days 30
  exocom certs issue --server --name broker.todo.example --name 10.0.0.7")]
    Issue {
        #[command(flatten)]
        whom: Whom,
        /// A DNS name or IP address of the server, besides localhost, 127.0.0.1 and ::1; may be repeated
        #[arg(long = "name", value_name = "DNS_OR_IP", conflicts_with_all = ["service", "operator"])]
        names: Vec<String>,
        /// How long the certificate is valid, in days
        #[arg(
            long,
            default_value_t = CERT_LIFE_DAYS_ISSUED,
            value_parser = clap::value_parser!(u32).range(1..=i64::from(CERT_LIFE_DAYS_MAX)),
        )]
        days: u32,
        #[command(flatten)]
        folder: Folder,
        /// Replace a certificate of the same identity
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate anew, to the same identity and for as long
    ///
    /// Replaces NAME.pem and NAME.key. Relays and brokers that use them take the new ones by themselves; the old
    /// certificate stays valid until it expires.
    #[command(after_long_help = "Examples:
  exocom certs renew web
  exocom certs renew server alice --days 30
  exocom certs renew --within 2                    all that expire within two days, for a timer")]
    Renew {
        /// Names of files, without .pem
        #[arg(value_name = "NAME", required_unless_present = "within")]
        names: Vec<String>,
        /// All that expire within so many days
        #[arg(long, value_name = "DAYS", conflicts_with = "names")]
        within: Option<u32>,
        /// How long they are valid, in days; otherwise as long as before
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(CERT_LIFE_DAYS_MAX)))]
        days: Option<u32>,
        #[command(flatten)]
        folder: Folder,
    },
    Show(ShowArgs),
    P12(P12Args),
    Revoke(RevokeArgs),
    Unrevoke(UnrevokeArgs),
    Revoked(RevokedArgs),
    /// List the certificates of a folder, and whether ExoCom would accept them
    ///
    /// Ends with 1 when it would refuse one of them, so that a script can watch over expiry.
    #[command(after_long_help = "Example:\n  exocom certs list --json")]
    List {
        #[command(flatten)]
        folder: Folder,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Folder {
    /// The folder of the certificates
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// The service's name: 1 to 63 of A-Z, a-z, 0-9, '_' and '-'
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// The operator's name, likewise
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// ExoCom itself
    #[arg(long)]
    server: bool,
}

/// Runs the command. What it tells goes to `out`, warnings go to `err`.
pub fn run(
    args: &CertsArgs,
    now_unix_s: i64,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Init {
            trust_domain,
            folder,
            force,
        } => {
            let issue = Issue {
                force: *force,
                ..Issue::at(now_unix_s)
            };
            let authority = Authority::init(&folder.dir, trust_domain, issue)?;
            let root = authority.root_file();
            writeln!(out, "{}  root of {}", root.display(), authority.trust_domain())?;
            writeln!(out, "Keep {} to yourself.", root.with_extension("key").display())?;
        }
        Command::Issue {
            whom,
            names,
            days,
            folder,
            force,
        } => {
            let issue = Issue {
                now_unix_s,
                days: *days,
                force: *force,
            };
            warn_of_exposed_key(&folder.dir, err)?;
            let authority = Authority::open(&folder.dir)?;
            let issued = whom.issue(&authority, names, issue)?;
            let until = date(issued.not_after_unix_s)?;
            writeln!(out, "{}  valid until {until}", issued.certificate.display())?;
            writeln!(out, "{}", issued.key.display())?;
        }
        Command::Renew {
            names,
            within,
            days,
            folder,
        } => {
            warn_of_exposed_key(&folder.dir, err)?;
            let names = match within {
                Some(within) => expiring(&folder.dir, *within, now_unix_s)?,
                None => names.clone(),
            };
            let authority = Authority::open(&folder.dir)?;
            for name in names {
                let issued = authority.renew(&name, now_unix_s, *days)?;
                let until = date(issued.not_after_unix_s)?;
                writeln!(out, "{}  valid until {until}", issued.certificate.display())?;
            }
        }
        Command::Show(args) => return args.run(now_unix_s, out),
        Command::P12(args) => return args.run(out),
        Command::Revoke(args) => return args.run(out, err),
        Command::Unrevoke(args) => return args.run(out, err),
        Command::Revoked(args) => return args.run(out, err),
        Command::List { folder, json } => {
            warn_of_exposed_key(&folder.dir, err)?;
            let listed = inventory::list(&folder.dir, now_unix_s)?;
            let rows = listed.iter().map(|listed| Row::new(listed, now_unix_s));
            let rows = rows.collect::<anyhow::Result<Vec<_>>>()?;
            if *json {
                print_json(out, &rows)?;
            } else {
                print_table(&rows, out)?;
            }
            if rows.iter().any(|row| !row.accepted) {
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Whom {
    fn issue(&self, authority: &Authority, names: &[String], issue: Issue) -> anyhow::Result<Issued> {
        Ok(match (&self.service, &self.operator) {
            (Some(service), _) => authority.issue_service(service, issue)?,
            (None, Some(operator)) => authority.issue_operator(operator, issue)?,
            (None, None) => authority.issue_server(names, issue)?,
        })
    }
}

/// The names of certificates other than the root that expire within so many days.
fn expiring(dir: &Path, within_days: u32, now_unix_s: i64) -> anyhow::Result<Vec<String>> {
    let until_unix_s = now_unix_s.saturating_add(i64::from(within_days) * DAY_S);
    let listed = inventory::list(dir, now_unix_s)?;
    let due = listed
        .into_iter()
        .filter(|listed| matches!(listed.kind, Kind::Server | Kind::Service | Kind::Operator))
        .filter(|listed| listed.not_after_unix_s <= until_unix_s);
    Ok(due
        .filter_map(|listed| Some(listed.file.file_stem()?.to_string_lossy().into_owned()))
        .collect())
}

fn warn_of_exposed_key(dir: &Path, err: &mut dyn Write) -> io::Result<()> {
    if key_is_exposed(dir) {
        let key = root_file(dir).with_extension("key");
        let key = key.display();
        writeln!(
            err,
            "warning: others can read {key}, and so issue certificates; run `chmod 600 {key}`"
        )?;
    }
    Ok(())
}

/// A line of the list.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    file: String,
    kind: Kind,
    identity: String,
    serial: String,
    not_before: String,
    not_after: String,
    days_left: i64,
    accepted: bool,
    rule: Option<&'static str>,
    reason: Option<String>,
}

impl Row {
    fn new(listed: &Listed, now_unix_s: i64) -> anyhow::Result<Self> {
        let refused = listed.refused.clone();
        Ok(Self {
            file: listed.file.display().to_string(),
            kind: listed.kind,
            identity: listed.identity.clone(),
            serial: listed.serial.clone(),
            not_before: date(listed.not_before_unix_s)?,
            not_after: date(listed.not_after_unix_s)?,
            days_left: listed
                .not_after_unix_s
                .saturating_sub(now_unix_s)
                .div_euclid(DAY_S),
            accepted: refused.is_none(),
            rule: refused.as_ref().map(|(rule, _)| *rule),
            reason: refused.map(|(_, reason)| reason),
        })
    }
}

fn print_table(rows: &[Row], out: &mut dyn Write) -> anyhow::Result<()> {
    for row in rows {
        let kind = serde_json::to_value(row.kind)?;
        writeln!(
            out,
            "{}  {}  {}",
            row.file,
            kind.as_str().unwrap_or_default(),
            row.identity
        )?;
        writeln!(out, "    serial {}", row.serial)?;
        writeln!(
            out,
            "    valid {} to {}, {} days left",
            row.not_before, row.not_after, row.days_left
        )?;
        match (row.rule, &row.reason) {
            (Some(rule), Some(reason)) => writeln!(out, "    would be REFUSED: {rule}: {reason}")?,
            _ => writeln!(out, "    would be accepted")?,
        }
    }
    Ok(())
}

pub(super) fn date(unix_s: i64) -> anyhow::Result<String> {
    let moment = OffsetDateTime::from_unix_timestamp(unix_s).context("a date beyond the calendar")?;
    Ok(moment.format(&Rfc3339)?)
}
