//! The way from sessions to who answers for the audit log's checkpoints: services that keep one ask for the newest,
//! and for the proof that it continues theirs.
//!
//! Bounded: of each connection one question waits at a time. Nothing here reads the log.

use std::collections::HashSet;

use parking_lot::{Condvar, Mutex};

use crate::exchange::mailbox::{ConnId, Peer};
use crate::exchange::replies::Asker;
use crate::limits::CHECKPOINT_QUESTIONS_MAX;

/// A question.
#[derive(Debug)]
pub struct Question<P> {
    /// Who hears the answer.
    pub asker: Asker<P>,
    /// How many entries the log had at the checkpoint that the asker keeps; 0 where it keeps none.
    pub kept: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct CheckpointDesk<P> {
    waiting: Mutex<Waiting<P>>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Waiting<P> {
    questions: Vec<Question<P>>,
    connections: HashSet<ConnId, foldhash::fast::RandomState>,
    is_closed: bool,
}

impl<P> Default for CheckpointDesk<P> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                questions: Vec::new(),
                connections: HashSet::default(),
                is_closed: false,
            }),
            arrived: Condvar::new(),
        }
    }
}

impl<P: Peer> CheckpointDesk<P> {
    /// Takes a question; says whether there was room for it.
    pub fn ask(&self, question: Question<P>) -> bool {
        let mut waiting = self.waiting.lock();
        let has_room = !waiting.is_closed && waiting.questions.len() < CHECKPOINT_QUESTIONS_MAX;
        let is_taken = has_room && waiting.connections.insert(question.asker.peer.id());
        if is_taken {
            waiting.questions.push(question);
            drop(waiting);
            self.arrived.notify_one();
        }
        is_taken
    }

    /// Waits for questions and takes all that there are; `None` once it is closed.
    pub fn take(&self) -> Option<Vec<Question<P>>> {
        let mut waiting = self.waiting.lock();
        let is_idle = |waiting: &mut Waiting<P>| waiting.questions.is_empty() && !waiting.is_closed;
        self.arrived.wait_while(&mut waiting, is_idle);
        if waiting.is_closed {
            return None;
        }
        waiting.connections.clear();
        Some(std::mem::take(&mut waiting.questions))
    }

    /// Takes no more questions.
    pub fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.arrived.notify_one();
    }
}
