//! `exocom policy schema`: the JSON Schema of a policy, for editors.
//!
//! Prints it; it is made by `review`.

use std::io;
use std::process::ExitCode;

use clap::Args;

use super::Streams;
use crate::cli::answer::print_json;
use crate::review::schema;

/// Print the JSON Schema of a policy, for editors
#[derive(Debug, Args)]
#[command(
    long_about = "Print the JSON Schema of a policy, for editors.\n\n\
        An editor that knows TOML and this schema completes keys and words, and marks what is wrong while you type. Its \
        shape alone is in it: `exocom policy check` says more, and decides.",
    after_long_help = "Examples:\n  \
        exocom policy schema > policy.schema.json\n  \
        #:schema ./policy.schema.json                 the first line of a policy, for editors with Taplo"
)]
pub struct SchemaArgs {}

/// Does it.
pub(super) fn run(streams: &mut Streams<'_>) -> io::Result<ExitCode> {
    print_json(streams.out, &schema())?;
    Ok(ExitCode::SUCCESS)
}
