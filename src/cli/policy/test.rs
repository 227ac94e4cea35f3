//! `exocom policy test`: whether a policy allows and denies what is expected of it.
//!
//! Only shows: expectations are judged by `review`.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{REFUSED, Streams, counted, load, shown, unusable};
use crate::cli::answer::print_json;
use crate::policy_files::{load_expectations, load_files};
use crate::review::{Verdict, judge};

/// Test a policy against what is expected of it
#[derive(Debug, Args)]
#[command(
    long_about = "Test a policy against what is expected of it.\n\n\
        Expectations stand in a file beside the policy, policies/todo.expect beside policies/todo.toml, or *.expect in \
        the policy's folder. `exocom policy check` tests them too. A line each:\n\n  \
        allow web send todos.list        the service may send it\n  \
        deny  web receive payments.>     it receives no message that the pattern matches\n  \
        deny  web connect data           it does not connect to listeners of the zone\n  \
        allow alice may revoke           the operator may\n\n\
        # begins a comment. Patterns are tested exactly: allow is about every name, deny about each.\n\n\
        Nothing is changed, and no running broker is asked.",
    after_long_help = "Examples:\n  \
        exocom policy test policies/todo.toml\n  \
        exocom policy test --expect rules-of-the-house.expect policies/\n\n\
        Exit codes:\n  \
        0  all expectations are met\n  \
        1  one is not, or cannot be read\n  \
        2  there are none, the policy is missing, unreadable or has mistakes, or the command line is wrong"
)]
pub struct TestArgs {
    /// Files, or folders of *.toml files; together they are one policy
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A file of expectations, in place of those beside the policy; may be given several times
    #[arg(long, value_name = "FILE")]
    expect: Vec<PathBuf>,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
}

/// Does it.
pub(super) fn run(args: &TestArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let expectations = if args.expect.is_empty() {
        load_expectations(&args.paths)
    } else {
        load_files(&args.expect)
    };
    let expectations = match expectations {
        Ok(expectations) => expectations,
        Err(error) => return unusable(&error, args.json, streams),
    };
    let policy = match load(&args.paths) {
        Ok(policy) => policy,
        Err(none) => return none.tell(args.json, streams),
    };
    let verdict = judge(&policy, &expectations);
    if verdict.met + verdict.failed == 0 {
        let none = format!(
            "{}: nothing is expected; write lines such as `deny web send todos.purge` into a file *.expect beside it",
            shown(&args.paths)
        );
        return unusable(&none, args.json, streams);
    }
    let met = counted(verdict.met, "expectation");
    if args.json {
        print_json(streams.out, &verdict)?;
    } else if verdict.failed == 0 {
        writeln!(streams.out, "{}: {met} met", shown(&args.paths))?;
    } else {
        tell_failures(&verdict, streams.err)?;
        writeln!(
            streams.err,
            "{}: {} failed, {met} met",
            shown(&args.paths),
            verdict.failed
        )?;
    }
    Ok(if verdict.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(REFUSED)
    })
}

/// The expectations that are not met, a line each.
pub(super) fn tell_failures(verdict: &Verdict, err: &mut dyn Write) -> io::Result<()> {
    for failure in &verdict.failures {
        writeln!(err, "failed: {failure}")?;
    }
    match verdict.failed - verdict.failures.len() {
        0 => Ok(()),
        more => writeln!(err, "... and {more} more like these"),
    }
}
