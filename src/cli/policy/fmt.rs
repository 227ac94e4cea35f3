//! `exocom policy fmt`: one layout for all policies.
//!
//! Changes white space and quotes of files, never what they say.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{REFUSED, Streams, counted, unusable};
use crate::cli::answer::print_json;
use crate::policy_files::{load_sources, replace};
use crate::review::layout;

/// Lay out policies in one way
#[derive(Debug, Args)]
#[command(
    long_about = "Lay out policies in one way.\n\n\
        Aligns the keys of a section, puts one blank line between sections, breaks lists that are too long, and writes \
        text in double quotes. Order and comments stay, and what the policy says stays. A file that changes is replaced \
        whole, with its mode and owner.",
    after_long_help = "Examples:\n  \
        exocom policy fmt policies/todo.toml\n  \
        exocom policy fmt --check policies/        for CI: changes nothing, fails if something would change\n\n\
        Exit codes:\n  \
        0  done; with --check: nothing would change\n  \
        1  with --check: something would change\n  \
        2  a file is missing, unreadable or not TOML, or cannot be replaced"
)]
pub struct FmtArgs {
    /// Files, or folders of *.toml files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Change nothing; tell which files would change
    #[arg(long)]
    check: bool,
    /// Print the result as JSON, on standard output, for programs
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Outcome {
    /// The files that were changed, or with `--check` would be.
    changed: Vec<String>,
    unchanged: Vec<String>,
}

/// Does it.
pub(super) fn run(args: &FmtArgs, streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    let sources = match load_sources(&args.paths) {
        Ok(sources) => sources,
        Err(error) => return unusable(&error, args.json, streams),
    };
    let mut outcome = Outcome::default();
    let mut laid_out = Vec::new();
    // All of them before any is touched.
    for source in &sources {
        match layout(&source.text) {
            Ok(text) => laid_out.push(text),
            Err(error) => return unusable(&format!("{}: {error}", source.name), args.json, streams),
        }
    }
    for (source, text) in sources.into_iter().zip(laid_out) {
        if text == source.text {
            outcome.unchanged.push(source.name);
            continue;
        }
        if !args.check
            && let Err(error) = replace(Path::new(&source.name), &source.text, &text)
        {
            return unusable(&format!("{}: {error}", source.name), args.json, streams);
        }
        outcome.changed.push(source.name);
    }
    let verb = if args.check { "would change" } else { "changed" };
    if args.json {
        print_json(streams.out, &outcome)?;
    } else {
        for file in &outcome.changed {
            writeln!(streams.out, "{verb} {file}")?;
        }
        if outcome.changed.is_empty() {
            let count = outcome.unchanged.len();
            let are = if count == 1 {
                "as it should be"
            } else {
                "as they should be"
            };
            writeln!(streams.out, "{} {are}", counted(count, "file"))?;
        }
    }
    Ok(if args.check && !outcome.changed.is_empty() {
        ExitCode::from(REFUSED)
    } else {
        ExitCode::SUCCESS
    })
}
