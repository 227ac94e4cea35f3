//! The service that keeps the todos. Reads, for its ExoRelay, `EXOCOM_HOST`, `EXOCOM_PORT`, `EXOCOM_CA`,
//! `EXOCOM_CERT` and `EXOCOM_KEY`.

use std::process::ExitCode;

use exocom_todo::program::{run, say, signalled, todos};
use exorelay::Options;

fn main() -> ExitCode {
    run(async {
        let stop = signalled().map_err(|error| error.to_string())?;
        let options = Options::from_env().map_err(|error| error.to_string())?;
        let relay = options
            .wait_for_broker()
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        todos(&relay, || say("Todo service running"), stop).await
    })
}
