//! Witnesses: files elsewhere to which each checkpoint is appended, so that a history that is signed again later
//! contradicts them.
//!
//! A thread of its own writes them: one that is slow or gone never holds up the log. Of checkpoints that it has no
//! time for, only the newest counts.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Witnesses {
    /// `None` where there are none.
    notes: Option<mpsc::SyncSender<String>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Witnesses {
    /// Those files.
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        if files.is_empty() {
            return Self {
                notes: None,
                thread: None,
            };
        }
        let (notes, come) = mpsc::sync_channel::<String>(1);
        let thread = std::thread::Builder::new()
            .name("exocom-witness".to_owned())
            .spawn(move || {
                let mut failing = vec![false; files.len()];
                while let Ok(note) = come.recv() {
                    for (file, is_failing) in files.iter().zip(&mut failing) {
                        say(file, append(file, &note), is_failing);
                    }
                }
            });
        match thread {
            Ok(thread) => Self {
                notes: Some(notes),
                thread: Some(thread),
            },
            Err(error) => {
                tracing::error!(%error, "cannot start a thread for the witnesses of the audit log; they hear nothing");
                Self {
                    notes: None,
                    thread: None,
                }
            }
        }
    }

    /// Tells them of a checkpoint, unless they are still busy: the next one tells more.
    pub(super) fn tell(&self, note: &str) {
        if let Some(notes) = &self.notes {
            drop(notes.try_send(note.to_owned()));
        }
    }

    /// Tells them of the last one, and returns when they know.
    pub(super) fn close(&mut self, note: &str) {
        if let Some(notes) = self.notes.take() {
            drop(notes.send(note.to_owned()));
        }
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of the audit log's witnesses has panicked");
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

/// Logs it when a witness begins to fail, and when it is back.
fn say(file: &Path, outcome: io::Result<()>, is_failing: &mut bool) {
    let was_failing = std::mem::replace(is_failing, outcome.is_err());
    match outcome {
        Err(error) if !was_failing => {
            tracing::error!(witness = %file.display(), %error, "a witness of the audit log hears nothing; it is tried again");
        }
        Ok(()) if was_failing => {
            tracing::info!(witness = %file.display(), "a witness of the audit log hears again")
        }
        _ => {}
    }
}
