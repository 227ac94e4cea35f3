//! Witnesses: files and servers elsewhere that hear of each checkpoint, so that a history that is signed again later
//! contradicts them.
//!
//! One that is slow or gone never holds up the log. Of checkpoints that it has no time for, only the newest counts.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::WitnessConfig;
use crate::console::status::HearingStatus;
use crate::net::https::{Https, PostError};
use crate::serve::outside::{Teller, Unheard};

const WHAT: &str = "witness of the audit log";

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Witnesses {
    tellers: Vec<Teller<String>>,
    newest: Mutex<Arc<str>>,
}

impl Witnesses {
    /// Those of the configuration.
    pub(super) fn start(configs: &[WitnessConfig], https: Option<&Https>) -> io::Result<Self> {
        let start = |config: &WitnessConfig| match config {
            WitnessConfig::File(file) => {
                let file = file.clone();
                let name = file.display().to_string();
                Teller::start(WHAT, name, 1, move |note: &String| {
                    append(&file, note).map_err(|error| Unheard::Retry(error.to_string()))
                })
            }
            WitnessConfig::Https(url) => {
                let https = https.cloned();
                let address = url.clone();
                Teller::start(WHAT, url.clone(), 1, move |note: &String| {
                    let Some(https) = &https else { return Ok(()) };
                    let headers = [("content-type", "text/plain; charset=utf-8")];
                    let posted = https.post(&address, &headers, note.as_bytes());
                    posted.map_err(|PostError { text, .. }| Unheard::Retry(text))
                })
            }
        };
        Ok(Self {
            tellers: configs.iter().map(start).collect::<io::Result<_>>()?,
            newest: Mutex::new(Arc::from("")),
        })
    }

    /// Tells them of a checkpoint, which is on disk.
    pub(super) fn tell(&self, note: &str) {
        *self.newest.lock() = note.into();
        for witness in &self.tellers {
            witness.tell(note.to_owned());
        }
    }

    /// How it goes with each.
    pub(super) fn hearing(&self) -> Vec<HearingStatus> {
        self.tellers.iter().map(Teller::hearing).collect()
    }

    /// The newest checkpoint.
    pub(super) fn newest(&self) -> Arc<str> {
        Arc::clone(&self.newest.lock())
    }

    /// Tells them of the last one, and returns when they know, or cannot be told.
    pub(super) fn close(&self, note: &str) {
        self.tell(note);
        for witness in &self.tellers {
            witness.close();
        }
    }
}

fn append(file: &Path, note: &str) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(file)?;
    file.write_all(note.as_bytes())?;
    match file.sync_data() {
        // Standard output, as /dev/stdout, has no disk.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}
