//! The web server of the todo application. Reads `LISTEN` (default `127.0.0.1:3000`) and, for its ExoRelay,
//! `EXOCOM_HOST`, `EXOCOM_PORT`, `EXOCOM_CA`, `EXOCOM_CERT` and `EXOCOM_KEY`.

use std::process::ExitCode;

use exocom_todo::program::{run, say, signalled, web};
use exorelay::Options;

fn main() -> ExitCode {
    run(async {
        let stop = signalled().map_err(|error| error.to_string())?;
        let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:3000".to_owned());
        let options = Options::from_env().map_err(|error| error.to_string())?;
        let relay = options
            .wait_for_broker()
            .connect()
            .await
            .map_err(|error| error.to_string())?;
        let ready = |address| say(&format!("Todo web server listening on http://{address}"));
        web(&relay, &address, ready, stop).await
    })
}
