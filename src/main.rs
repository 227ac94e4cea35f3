//! The `exocom` binary: command line in, exit code out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use exocom::cli::Cli;
use exocom::cli::answer::is_broken_pipe;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => ExitCode::FAILURE,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            drop(writeln!(std::io::stderr(), "exocom: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
