//! Waits until everything is over that was begun before: the turns of each thread, and the deliveries of the keeper.
//!
//! What was changed before the wait holds for all that happens after it. It changes nothing itself.

use std::sync::Arc;

use tokio::runtime;

use crate::net::worker::Worker;
use crate::serve::keeper::{Counter, Keeper};

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Passage {
    runtimes: Arc<[runtime::Handle]>,
    /// The way to the store, where there is one.
    pub(super) counter: Option<Counter>,
}

impl Passage {
    /// Of these threads, and of the store's.
    pub(super) fn new(keeper: Option<&Keeper>, workers: &[Worker]) -> Self {
        Self {
            runtimes: workers.iter().map(|worker| worker.runtime().clone()).collect(),
            counter: keeper.map(Keeper::counter),
        }
    }

    /// Waits.
    pub(super) async fn wait(&self) {
        let passed: Vec<_> = self
            .runtimes
            .iter()
            .map(|runtime| runtime.spawn(async {}))
            .collect();
        for task in passed {
            // One that has ended has nothing under way.
            drop(task.await);
        }
        if let Some(counter) = &self.counter {
            // One that is stopping says nothing, and sends nothing any more.
            counter.ask(|_, _, _| Ok(())).await.unwrap_or_default();
        }
    }
}
