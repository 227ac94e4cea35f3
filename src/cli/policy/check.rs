//! `exocom policy check`: whether the broker would take a policy.
//!
//! Tells every mistake, and judges none: what is wrong is `policy`'s to say.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::test::tell_failures;
use super::{REFUSED, Streams, UNUSABLE, counted, shown, unusable};
use crate::cli::answer::print_json;
use crate::policy::{Diagnostics, Policy};
use crate::policy_files::{LoadError, load_expectations, load_sources};
use crate::review::{Verdict, judge};

/// Check a policy without running it
#[derive(Debug, Args)]
#[command(
    long_about = "Check a policy without running it.\n\n\
        Reads the policy as the broker would and prints every mistake with its file, line and column, and \
        what to write instead. Warnings tell what is allowed and probably not meant, such as a message \
        that nobody receives; they do not make the check fail unless --deny-warnings is given. Expectations in \
        a file beside the policy are tested too: see `exocom policy test --help`.\n\n\
        Nothing is changed, and no running broker is asked.",
    after_long_help = "Examples:\n  \
        exocom policy check policies/todo.toml\n  \
        exocom policy check --deny-warnings policies/        all *.toml of a folder, as one policy\n  \
        exocom policy check --json policies/ | jq '.diagnostics[].message'\n\n\
        Exit codes:\n  \
        0  the policy is sound\n  \
        1  the policy is refused, or not as expected\n  \
        2  a file is missing or unreadable, or the command line is wrong"
)]
pub struct CheckArgs {
    /// Files, or folders of *.toml files; together they are one policy
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
    /// Refuse a policy that has warnings
    #[arg(long)]
    deny_warnings: bool,
}

/// Does it.
pub(super) fn run(args: &CheckArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let CheckArgs {
        paths,
        json,
        deny_warnings,
    } = args;
    let sources = match load_sources(paths) {
        Ok(sources) => sources,
        Err(error) => {
            let refused = matches!(error, LoadError::NotAPolicy(_));
            if *json {
                print_json(
                    streams.out,
                    &Outcome {
                        error: Some(error.to_string()),
                        ..Outcome::default()
                    },
                )?;
            } else {
                writeln!(streams.err, "error: {error}")?;
            }
            return Ok(ExitCode::from(if refused { REFUSED } else { UNUSABLE }));
        }
    };
    let compiled = Policy::compile(&sources);
    let (policy, diagnostics) = match &compiled {
        Ok(compiled) => (Some(&compiled.policy), &compiled.warnings),
        Err(errors) => (None, errors.diagnostics()),
    };
    let expectations = match load_expectations(paths) {
        Ok(expectations) => expectations,
        Err(error) => return unusable(&error, *json, streams),
    };
    let verdict = policy.map(|policy| judge(policy, &expectations));
    let is_as_expected = verdict.as_ref().is_none_or(|verdict| verdict.failed == 0);
    let accepted = policy.filter(|_| is_as_expected && (!deny_warnings || diagnostics.is_empty()));
    let Streams {
        out, err, err_colour, ..
    } = streams;
    if *json {
        let summary = policy.map(Summary::of);
        print_json(
            *out,
            &Outcome {
                ok: accepted.is_some(),
                summary,
                diagnostics: Some(diagnostics),
                expectations: verdict.as_ref().filter(|_| !expectations.is_empty()),
                error: None,
            },
        )?;
    } else {
        err.write_all(diagnostics.render(*err_colour).as_bytes())?;
        let verdict = verdict.unwrap_or_default();
        tell_failures(&verdict, *err)?;
        match accepted {
            Some(policy) => {
                let met = match verdict.met {
                    0 => String::new(),
                    met => format!(", {} met", counted(met, "expectation")),
                };
                writeln!(out, "{}: ok, {}{met}", shown(paths), Summary::of(policy))?;
            }
            None => writeln!(
                err,
                "{}: refused, {}",
                shown(paths),
                counted(diagnostics.len() + verdict.failed, "finding")
            )?,
        }
    }
    Ok(if accepted.is_some() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Outcome<'a> {
    ok: bool,
    /// Why the files could not be read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    summary: Option<Summary>,
    diagnostics: Option<&'a Diagnostics>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expectations: Option<&'a Verdict>,
}

/// A policy in numbers.
#[derive(Serialize)]
struct Summary {
    services: usize,
    /// Patterns that a service sends or receives.
    grants: usize,
    /// Different names or patterns that are sent.
    messages: usize,
    version: String,
}

impl Summary {
    fn of(policy: &Policy) -> Self {
        let sent = policy.services().flat_map(|service| service.sends());
        Self {
            services: policy.services().len(),
            grants: policy
                .services()
                .map(|service| service.sends().len() + service.receives().len())
                .sum(),
            messages: sent.map(|grant| &grant.pattern).collect::<BTreeSet<_>>().len(),
            version: policy.version().to_owned(),
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            services,
            grants,
            messages,
            version,
        } = self;
        let (services, grants) = (counted(*services, "service"), counted(*grants, "grant"));
        write!(
            f,
            "{services}, {grants}, {}, version {version}",
            counted(*messages, "message")
        )
    }
}
