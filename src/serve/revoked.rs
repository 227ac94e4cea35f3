//! What operators have revoked: kept in a file, known to every listener, and cut off at once.
//!
//! A change is on disk before it takes effect, so that no restart undoes it. A list that cannot be read keeps the broker
//! from starting: without it the revoked would be let in again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::console::revoked::{RevokeAnswer, RevokeVerb};
use crate::disk::state;
use crate::identity::revoked::{Revocation, Revoked, Target};
use crate::limits::{ADMIN_TEXT_BYTES_MAX, REVOKE_MS_MAX, REVOKED_BYTES_MAX, REVOKED_MAX};
use crate::net::clock::Clock;
use crate::net::handle::Handle;
use crate::net::tls::fingerprint;
use crate::serve::Shared;
use crate::wire::printable;

/// Its name in the folder of state.
const FILE: &str = "revoked.json";

/// The list, and where it is kept. Whoever holds its lock may change what listeners know of it.
#[derive(Debug)]
pub(super) struct RevokedList {
    path: PathBuf,
    current: Mutex<Arc<Revoked>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    revoked: Vec<Revocation>,
}

impl RevokedList {
    /// Reads the list; none has been kept where nothing was ever revoked.
    pub(super) fn open(folder: &std::path::Path) -> Result<Self, String> {
        let path = folder.join(FILE);
        let failed = |error: String| {
            format!(
                "{}: cannot read what is revoked: {error}; restore the file from a copy. Without it, revoked certificates \
                 would be let in again",
                path.display()
            )
        };
        let bytes = state::read(&path, REVOKED_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
        let revoked = match bytes {
            None => Revoked::default(),
            Some(bytes) => {
                let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
                if kept.version != 1 {
                    return Err(failed(format!(
                        "version {} of it is not known here",
                        kept.version
                    )));
                }
                Revoked::new(kept.revoked)
            }
        };
        if !revoked.is_empty() {
            tracing::info!(entries = revoked.len(), file = %path.display(), "what is revoked stays so");
        }
        Ok(Self {
            path,
            current: Mutex::new(Arc::new(revoked)),
        })
    }

    /// The list, which does not change while this is held.
    pub(super) fn lock(&self) -> MutexGuard<'_, Arc<Revoked>> {
        self.current.lock()
    }

    /// Writes another list down.
    fn keep(&self, revoked: &Revoked) -> Result<(), String> {
        let kept = Kept {
            version: 1,
            revoked: revoked.entries().cloned().collect(),
        };
        let json = serde_json::to_vec_pretty(&kept).expect("the list is plain data");
        state::replace(&self.path, &json).map_err(|error| {
            format!(
                "{}: cannot be written, so nothing was changed: {error}; make room or repair the disk, and try again",
                self.path.display()
            )
        })
    }
}

impl Shared {
    /// Does what an operator asks of the list. Returns after it is on disk and those it cuts off have ended.
    pub(super) async fn carry_out_revocation(self: Arc<Self>, verb: RevokeVerb, who: String) -> RevokeAnswer {
        let (what, entry) = match verb {
            RevokeVerb::List => {
                let revoked = self.revoked.lock().entries().cloned().collect();
                return RevokeAnswer::List { revoked };
            }
            RevokeVerb::Revoke { what, reason } => {
                let entry = Revocation {
                    what: what.clone(),
                    reason: printable(reason.as_bytes(), ADMIN_TEXT_BYTES_MAX),
                    who,
                    at_unix_s: Clock::unix_s(),
                };
                (what, Some(entry))
            }
            RevokeVerb::Unrevoke { what, .. } => (what, None),
        };
        let is_revoked = entry.is_some();
        let note = entry.as_ref().and_then(|_| self.note_about(&what));
        let shared = Arc::clone(&self);
        let target = what.clone();
        // It waits for the disk.
        let changed = tokio::task::spawn_blocking(move || shared.change_revoked(&target, entry)).await;
        let cut_off = match changed {
            Ok(Ok(cut_off)) => cut_off,
            Ok(Err(reason)) => return RevokeAnswer::Refused { reason },
            Err(error) => {
                return RevokeAnswer::Refused {
                    reason: error.to_string(),
                };
            }
        };
        let connections_ending = wait_until_ended(&cut_off).await;
        RevokeAnswer::Changed {
            what,
            is_revoked,
            connections_ended: cut_off.len() - connections_ending,
            connections_ending,
            note,
        }
    }

    /// Puts an entry on the list, or takes one off. Says which connections it cuts off.
    fn change_revoked(&self, what: &Target, entry: Option<Revocation>) -> Result<Vec<Handle>, String> {
        let mut current = self.revoked.lock();
        let is_new = entry.is_some();
        let changed = match entry {
            Some(_) if current.len() >= REVOKED_MAX && current.get(what).is_none() => {
                return Err(format!(
                    "{REVOKED_MAX} entries are on the list already; take off those whose certificates have expired"
                ));
            }
            Some(entry) => current.with(entry),
            None if current.get(what).is_none() => {
                return Err(format!(
                    "{what} is not revoked; `exocom certs revoked` lists what is"
                ));
            }
            None => current.without(what),
        };
        self.revoked.keep(&changed)?;
        *current = Arc::new(changed);
        for listener in self.all_listeners() {
            let tls = listener.tls.load().with_revoked(Arc::clone(&current));
            listener.tls.store(Arc::new(tls));
        }
        if !is_new {
            return Ok(Vec::new());
        }
        self.broker.authority.revoked_changed();
        let is_cut_off = |handle: &Handle| {
            let chain = handle.chain().unwrap_or_default();
            let fingerprints = chain.iter().map(|certificate| fingerprint(certificate));
            current.find(&handle.identity, fingerprints).is_some()
        };
        let connections = self.broker.connections().into_iter().map(|(_, handle)| handle);
        Ok(connections.filter(is_cut_off).collect())
    }

    /// A name that nobody has is probably a mistake, and worth a word.
    fn note_about(&self, what: &Target) -> Option<String> {
        let policy = self.broker.world.policy();
        let (kind, name, is_known) = match what {
            Target::Service(name) => ("service", name, policy.service(name).is_some()),
            Target::Operator(name) => (
                "operator",
                name,
                policy.operators().any(|operator| **operator.name() == **name),
            ),
            Target::Serial(_) | Target::Fingerprint(_) => return None,
        };
        (!is_known).then(|| format!("the policy lists no {kind} {name}; is it spelled right?"))
    }
}

/// Waits until connections have ended, for a bounded time. How many have not.
async fn wait_until_ended(connections: &[Handle]) -> usize {
    let mut pauses = REVOKE_MS_MAX / 10;
    loop {
        let left = connections.iter().filter(|handle| !handle.has_ended()).count();
        if left == 0 || pauses == 0 {
            return left;
        }
        pauses -= 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
