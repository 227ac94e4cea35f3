//! A broker of the load generator's own: another process of this same program, with a policy made for the
//! occasion. It ends with the run.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::bench::client::{Target, Tls};
use crate::bench::process::raise_file_limit;
use crate::bench::{Audited, BenchError, cast};

/// See the module's documentation.
#[derive(Debug)]
pub struct Fixture {
    child: Child,
    address: String,
    certs: PathBuf,
    // Last: it is removed after the process has ended.
    dir: tempfile::TempDir,
}

impl Fixture {
    /// Starts `exocom dev` with the bench's services, and `others` services that play no part.
    pub fn start(names: usize, others: usize, audit: Audited) -> Result<Self, BenchError> {
        let fault = |what: &str, error: std::io::Error| BenchError::Fixture(format!("{what}: {error}"));
        let dir = tempfile::Builder::new()
            .prefix("exocom-bench-")
            .tempdir()
            .map_err(|error| fault("temporary folder", error))?;
        let policy = dir.path().join("bench.toml");
        fs::write(&policy, cast::exocom_policy(names, others, audit))
            .map_err(|error| fault("policy", error))?;
        // The broker inherits it.
        raise_file_limit();
        let program = std::env::current_exe().map_err(|error| fault("this program's file", error))?;
        let mut child = Command::new(program)
            .arg("dev")
            .args((audit == Audited::Off).then_some("--no-audit"))
            .arg("--policy")
            .arg(&policy)
            .arg("--dir")
            .arg(dir.path())
            // A line for each connection would be measured too.
            .env("EXOCOM_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| fault("this program as a broker", error))?;
        let mut line = String::new();
        let read = child
            .stdout
            .take()
            .map(|out| BufReader::new(out).read_line(&mut line));
        let certs = dir.path().join("certs");
        let mut fixture = Self {
            child,
            address: String::new(),
            certs,
            dir,
        };
        match (read, line.trim().strip_prefix("ready ")) {
            (Some(Ok(_)), Some(address)) => fixture.address = address.to_owned(),
            _ => {
                return Err(BenchError::Fixture(format!(
                    "it says {line:?} instead of `ready`"
                )));
            }
        }
        Ok(fixture)
    }

    /// How to reach it.
    pub fn target(&self) -> Target {
        Target {
            address: self.address.clone(),
            tls: Tls::First,
            certs: self.certs.clone(),
            is_exocom: true,
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // It may have ended by itself, which is as good.
        if self.child.kill().is_ok() {
            drop(self.child.wait());
        }
        tracing::debug!(dir = %self.dir.path().display(), "broker stopped");
    }
}
