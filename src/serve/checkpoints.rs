//! Answers services that keep a checkpoint of the audit log: with the newest that is on disk, and the proof that it
//! continues theirs.
//!
//! A thread of its own reads the tree's files for that. It judges nothing: whoever asked checks the answer, by the
//! log's key.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::audit::Checkpoint;
use crate::audit::checkpoint::continuation;
use crate::audit::key::PublicKey;
use crate::disk::audit::Archive;
use crate::exchange::checkpoints::CheckpointDesk;
use crate::exchange::mailbox::Peer;
use crate::net::broker::Broker;
use crate::net::handle::Handle;
use crate::serve::witness::Witnesses;
use crate::wire::encode::{Reason, Refusal};

/// A handle to the thread.
#[derive(Debug)]
pub(super) struct Checkpoints {
    desk: Arc<CheckpointDesk<Handle>>,
    thread: JoinHandle<()>,
}

struct Clerk {
    broker: Arc<Broker>,
    archive: Archive,
    key: PublicKey,
    /// They are told each checkpoint that is on disk.
    witnesses: Arc<Witnesses>,
    is_failing: bool,
}

impl Checkpoints {
    /// Starts it; `None` where the broker has no audit log.
    pub(super) fn start(
        broker: &Arc<Broker>,
        folder: &Path,
        key: PublicKey,
        witnesses: &Arc<Witnesses>,
    ) -> std::io::Result<Option<Self>> {
        let Some(desk) = broker.world.checkpoints.clone() else {
            return Ok(None);
        };
        let mut clerk = Clerk {
            broker: Arc::clone(broker),
            archive: Archive::new(folder),
            key,
            witnesses: Arc::clone(witnesses),
            is_failing: false,
        };
        let asked = Arc::clone(&desk);
        let work = move || {
            while let Some(questions) = asked.take() {
                for question in questions {
                    let answer = clerk.answer(question.kept);
                    let asker = &question.asker;
                    asker.peer.with_mailbox(|mailbox| match answer {
                        Some(text) => mailbox.tell(&asker.inbox, text.as_bytes()),
                        None => mailbox.refuse(
                            &asker.inbox,
                            &Refusal {
                                reason: Reason::Overloaded,
                                rule: None,
                                policy: clerk.broker.world.policy().version(),
                            },
                        ),
                    });
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("exocom-proofs".to_owned())
            .spawn(work)?;
        Ok(Some(Self { desk, thread }))
    }

    /// Ends it.
    pub(super) fn close(self) {
        self.desk.close();
        if self.thread.join().is_err() {
            tracing::error!("the thread that proves checkpoints of the audit log has panicked");
        }
    }
}

impl Clerk {
    /// `None` where the tree cannot be read, which the log says once.
    fn answer(&mut self, kept: u64) -> Option<String> {
        let note = self.witnesses.newest();
        let proven = Checkpoint::open(note.as_bytes(), &self.key)
            .map_err(|error| error.to_string())
            .and_then(|newest| {
                let proof = self.archive.prove_continuation(kept, newest.size);
                proof.map_err(|error| error.to_string())
            });
        let was_failing = std::mem::replace(&mut self.is_failing, proven.is_err());
        match proven {
            Ok(hashes) => Some(continuation(kept, &hashes, &note)),
            Err(error) => {
                if !was_failing {
                    tracing::error!(
                        error,
                        "cannot prove to services that the audit log continues what they keep of it"
                    );
                }
                None
            }
        }
    }
}
