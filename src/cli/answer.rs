//! How commands print what a broker answers: for people or as JSON, and with which exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::console::answer::Answer;

/// Prints an answer. As JSON it goes to `out`, whatever it says; for people a refusal goes to `err`.
pub fn tell(
    answer: &impl Answer,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> io::Result<ExitCode> {
    let is_refused = answer.is_refused();
    if json {
        print_json(out, answer)?;
    } else if is_refused {
        write!(err, "exocom: {}", answer.to_text())?;
    } else {
        write!(out, "{}", answer.to_text())?;
    }
    Ok(if is_refused {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// Prints a value as JSON that a person can read too.
pub fn print_json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

/// Whether nothing is wrong but that whoever read our output, such as `head`, has had enough of it.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = match error.downcast_ref::<serde_json::Error>() {
        Some(error) => error.io_error_kind(),
        None => error.downcast_ref::<io::Error>().map(io::Error::kind),
    };
    kind == Some(io::ErrorKind::BrokenPipe) && error.chain().count() == 1
}
