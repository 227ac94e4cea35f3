//! Notices that the files of the policy or of TLS have changed, and has them read again.
//!
//! It watches folders, since a file is replaced by renaming another onto it, and since Kubernetes swaps a link in the
//! folder for all files at once. It looks by itself too, every few seconds: not every file system tells, and what could
//! not be read for want of file descriptors is there later.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher, event::AccessKind};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::serve::Shared;
use crate::serve::certificates::{files, have_settled};
use crate::serve::policy::Reload;

/// How long changes of files must have settled before they are read, in milliseconds.
const SETTLED_MS: u64 = 200;

/// How often they are given that time before they are read all the same: somebody may write for ever.
const SETTLED_ROUNDS: u32 = 25;

/// How often files are looked at without notice, in milliseconds.
const LOOK_MS: u64 = 10_000;

/// Watches, and reloads. Where the system cannot watch, files are looked at all the same.
pub(super) fn watch(shared: &Arc<Shared>) -> (Option<notify::RecommendedWatcher>, AbortHandle) {
    let changed = Arc::new(Notify::new());
    let task = tokio::spawn(reload(Arc::clone(shared), Arc::clone(&changed)));
    let on_event = move |event: notify::Result<notify::Event>| {
        let is_read = |kind: &EventKind| matches!(kind, EventKind::Access(kind) if !matches!(kind, AccessKind::Close(notify::event::AccessMode::Write)));
        if event.is_ok_and(|event| !is_read(&event.kind)) {
            changed.notify_one();
        }
    };
    let mut folders: BTreeSet<PathBuf> = files(&shared.config).iter().map(|file| folder_of(file)).collect();
    folders.insert(match shared.config.policy.is_dir() {
        true => shared.config.policy.clone(),
        false => folder_of(&shared.config.policy),
    });
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        for folder in &folders {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    });
    let watcher = watcher
        .inspect_err(|error| {
            tracing::warn!(%error, "cannot watch the policy; send SIGHUP after a change. Certificates are looked at");
        })
        .ok();
    (watcher, task.abort_handle())
}

async fn reload(shared: Arc<Shared>, changed: Arc<Notify>) {
    let mut look = tokio::time::interval(Duration::from_millis(LOOK_MS));
    loop {
        let is_told = tokio::select! {
            () = changed.notified() => true,
            _ = look.tick() => false,
        };
        if is_told {
            // An editor writes in several steps, and a certificate comes with its key.
            let mut rounds = 0;
            while !have_settled(&shared.config, Duration::from_millis(SETTLED_MS)).await
                && rounds < SETTLED_ROUNDS
            {
                rounds += 1;
            }
        }
        let reloading = Arc::clone(&shared);
        let reloaded = tokio::task::spawn_blocking(move || {
            if is_told {
                reloading.reload_policy(Reload::Noticed);
            }
            reloading.reload_tls(Reload::Noticed);
            reloading.tell_of_expiries();
        });
        if reloaded.await.is_err() {
            tracing::error!("reloading failed; policy and certificates stay as they are");
        }
    }
}

/// A file is replaced by renaming another onto it, so it is its folder that is watched.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
