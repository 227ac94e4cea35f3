//! Where operators put policies in force, and what was in force before: each change is kept by its version, with who,
//! when and why.
//!
//! A policy is written down before it takes effect. One that waits to be confirmed is not yet in the policy's file, so
//! that a broker that ends meanwhile begins with the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::audit::Record;
use crate::console::policy::{PolicyAnswer, PolicyChange, PolicyVerb};
use crate::console::status::UnconfirmedStatus;
use crate::disk::state;
use crate::limits::{ADMIN_TEXT_BYTES_MAX, POLICY_BYTES_MAX, POLICY_CHANGES_KEPT_MAX, POLICY_CONFIRM_MS_MAX};
use crate::net::clock::Clock;
use crate::policy::{Compiled, Policy, Source};
use crate::policy_files::{load_sources, name_in, replace, replace_all};
use crate::serve::Shared;
use crate::serve::policy::{compile_policy, digest, log_warnings};
use crate::wire::printable;

/// Its folder in the folder of state.
const FOLDER: &str = "policies";

/// The list of changes, in that folder.
const LOG: &str = "log.json";

/// What tells that the files of a policy are being replaced, in that folder.
const REPLACING: &str = "replacing.json";

/// Bytes of that list, at most.
const LOG_BYTES_MAX: u64 = (POLICY_CHANGES_KEPT_MAX * 2048) as u64;

/// Bytes of a kept policy, at most: in JSON no character of TOML takes more than twice its room.
const KEPT_BYTES_MAX: u64 = 2 * POLICY_BYTES_MAX as u64 + (1 << 20);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Desk {
    folder: PathBuf,
    state: Mutex<DeskState>,
}

#[derive(Debug, Default)]
struct DeskState {
    /// The latest last.
    changes: Vec<PolicyChange>,
    unconfirmed: Option<Unconfirmed>,
}

/// A policy in force that waits to be confirmed.
#[derive(Debug)]
struct Unconfirmed {
    version: String,
    until_unix_s: i64,
    sources: Vec<Source>,
    before: Arc<Policy>,
    sources_before: Vec<Source>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptLog {
    version: u32,
    changes: Vec<PolicyChange>,
}

/// What is on disk while a folder of files is replaced.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replacing {
    folder: PathBuf,
    before: Vec<(String, String)>,
    after: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptPolicy {
    files: Vec<(String, String)>,
}

impl Desk {
    /// Reads what was in force. A list that cannot be read is begun anew, with a line in the log: it is for people.
    pub(super) fn open(state_folder: &Path) -> Self {
        let folder = state_folder.join(FOLDER);
        let path = folder.join(LOG);
        let kept = state::read(&path, LOG_BYTES_MAX).map_err(|error| error.to_string());
        let changes = kept.and_then(|bytes| match bytes {
            None => Ok(Vec::new()),
            Some(bytes) => serde_json::from_slice::<KeptLog>(&bytes)
                .map(|kept| kept.changes)
                .map_err(|error| error.to_string()),
        });
        let changes = changes.unwrap_or_else(|error| {
            tracing::error!(file = %path.display(), error, "cannot read which policies were in force; the list begins anew");
            Vec::new()
        });
        let state = DeskState {
            changes,
            unconfirmed: None,
        };
        Self {
            folder,
            state: Mutex::new(state),
        }
    }

    /// Writes down that a policy comes into force. Returns after it is on disk.
    pub(super) fn keep(
        &self,
        policy: &Policy,
        sources: &[Source],
        who: &str,
        why: Option<&str>,
    ) -> Result<(), String> {
        let mut state = self.state.lock();
        let from = state.changes.last().map(|change| change.version.clone());
        if from.as_deref() == Some(policy.version()) {
            return Ok(());
        }
        let kept = KeptPolicy {
            files: by_name(sources),
        };
        let mut changes = state.changes.clone();
        changes.push(PolicyChange {
            version: policy.version().to_owned(),
            from,
            who: who.to_owned(),
            why: why.map(|why| printable(why.as_bytes(), ADMIN_TEXT_BYTES_MAX)),
            at_unix_s: Clock::unix_s(),
        });
        let too_many = changes.len().saturating_sub(POLICY_CHANGES_KEPT_MAX);
        let forgotten: Vec<_> = changes.drain(..too_many).collect();
        self.write(&self.file_of(policy.version()), &kept)?;
        let log = KeptLog {
            version: 1,
            changes: changes.clone(),
        };
        self.write(&self.folder.join(LOG), &log)?;
        for old in forgotten {
            if !changes.iter().any(|change| change.version == old.version)
                && let Err(error) = std::fs::remove_file(self.file_of(&old.version))
            {
                tracing::debug!(version = old.version, %error, "an old policy was gone already");
            }
        }
        state.changes = changes;
        Ok(())
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), String> {
        let bytes = serde_json::to_vec(value).expect("it is plain data");
        state::replace(path, &bytes)
            .map_err(|error| format!("{}: cannot be written: {error}", path.display()))
    }

    fn file_of(&self, version: &str) -> PathBuf {
        self.folder.join(format!("{version}.json"))
    }

    /// The files of a policy that was in force. Only what is in the list is looked for: a version is no path.
    fn files(&self, version: &str) -> Result<Vec<(String, String)>, String> {
        let unknown = || {
            let version = printable(version.as_bytes(), ADMIN_TEXT_BYTES_MAX);
            format!("no policy of version {version} is kept; `exocom policy log` lists them")
        };
        let is_known = self
            .state
            .lock()
            .changes
            .iter()
            .any(|change| change.version == version);
        if !is_known {
            return Err(unknown());
        }
        let path = self.file_of(version);
        let failed = |error: String| format!("{}: {error}", path.display());
        let bytes = state::read(&path, KEPT_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
        let kept: KeptPolicy =
            serde_json::from_slice(&bytes.ok_or_else(unknown)?).map_err(|error| failed(error.to_string()))?;
        Ok(kept.files)
    }

    /// Writes a policy over another, in its file or its folder: the whole of it, or nothing. After a crash
    /// [`Desk::finish`] sees to that.
    fn replace(&self, path: &Path, before: &[Source], after: &[Source]) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: cannot be replaced: {error}", path.display());
        if path.is_file() {
            let ([before], [after]) = (before, after) else {
                return Err(format!("{}: is one file, and the policy is not", path.display()));
            };
            return replace(path, &before.text, &after.text).map_err(failed);
        }
        let mark = self.folder.join(REPLACING);
        let replacing = Replacing {
            folder: path.canonicalize().map_err(failed)?,
            before: by_name(before),
            after: by_name(after),
        };
        self.write(&mark, &replacing)?;
        let replaced = replace_all(path, before, after).map_err(failed);
        remove(&mark)?;
        replaced
    }

    /// After a crash in the middle of replacing a folder's files: puts the old ones back, unless all the new ones are
    /// there already.
    pub(super) fn finish(&self, path: &Path) -> Result<(), String> {
        let mark = self.folder.join(REPLACING);
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", mark.display());
        let Some(bytes) = state::read(&mark, 2 * KEPT_BYTES_MAX).map_err(|error| failed(&error))? else {
            return Ok(());
        };
        let Replacing {
            folder,
            before,
            after,
        } = serde_json::from_slice(&bytes).map_err(|error| failed(&error))?;
        let is_this = path.canonicalize().is_ok_and(|path| path == folder);
        if is_this {
            let found = load_sources(&[path.to_owned()]).map_err(|error| error.to_string())?;
            let there = by_name(&found);
            let is_known = |name: &String| {
                let text_in = |files: &[(String, String)]| {
                    let file = files.iter().find(|(other, _)| other == name);
                    file.map(|(_, text)| text.clone())
                };
                let text = text_in(&there);
                text == text_in(&before) || text == text_in(&after)
            };
            let names = [&there, &before, &after];
            if !names.into_iter().flatten().all(|(name, _)| is_known(name)) {
                return Err(format!(
                    "{}: the broker had ended while it replaced these files, and they have been changed since, so that \
                     it cannot tell which policy is meant; see that they are right, and remove {}",
                    path.display(),
                    mark.display()
                ));
            }
            if there != after {
                let before = name_in(path, before)?;
                replace_all(path, &found, &before).map_err(|error| failed(&error))?;
                tracing::warn!(
                    folder = %path.display(),
                    "the broker had ended while it replaced the policy's files; the old ones are back"
                );
            }
        }
        remove(&mark)
    }

    /// What waits to be confirmed, and until when.
    pub(super) fn unconfirmed(&self) -> Option<UnconfirmedStatus> {
        let state = self.state.lock();
        state.unconfirmed.as_ref().map(|waits| UnconfirmedStatus {
            until_unix_s: waits.until_unix_s,
            before: waits.before.version().to_owned(),
        })
    }

    /// A policy that came from its files waits for nobody.
    pub(super) fn forget_unconfirmed(&self) {
        self.state.lock().unconfirmed = None;
    }
}

fn remove(path: &Path) -> Result<(), String> {
    std::fs::remove_file(path).map_err(|error| format!("{}: cannot be removed: {error}", path.display()))
}

/// Files by the names that they have in their folder.
fn by_name(sources: &[Source]) -> Vec<(String, String)> {
    let file = |source: &Source| {
        let name = Path::new(&source.name).file_name();
        let name = name.map_or(source.name.clone(), |name| name.to_string_lossy().into_owned());
        (name, source.text.clone())
    };
    sources.iter().map(file).collect()
}

impl Shared {
    /// Does what an operator asks about the policy. What it says is in force is in force for every decision that begins
    /// after this; those that had begun are for the caller to wait for.
    pub(super) async fn carry_out_policy(self: Arc<Self>, verb: PolicyVerb, who: String) -> PolicyAnswer {
        let done = match verb {
            PolicyVerb::Show { version } => self.show_policy(version),
            PolicyVerb::Log => Ok(self.policy_log()),
            PolicyVerb::ShadowReport => self.report_shadow(),
            PolicyVerb::ShadowStop { .. } => self.stop_shadow(&who),
            PolicyVerb::ShadowStart { files, why } => {
                let shared = Arc::clone(&self);
                in_background(move || shared.start_shadow(files, &who, why.as_deref())).await
            }
            PolicyVerb::Apply {
                against,
                files,
                why,
                confirm_within_ms,
            } => {
                let shared = Arc::clone(&self);
                let work =
                    move || shared.apply_policy(&against, files, &who, why.as_deref(), confirm_within_ms);
                in_background(work).await
            }
            PolicyVerb::Confirm { version } => {
                let shared = Arc::clone(&self);
                in_background(move || shared.confirm_policy(version)).await
            }
        };
        if let Ok(PolicyAnswer::Applied {
            to,
            confirm_within_ms: Some(ms),
            ..
        }) = &done
        {
            let (version, wait) = (to.clone(), Duration::from_millis(*ms));
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                // It waits for the disk.
                if tokio::task::spawn_blocking(move || self.roll_back(&version))
                    .await
                    .is_err()
                {
                    tracing::error!("an unconfirmed policy was not taken back");
                }
            });
        }
        done.unwrap_or_else(|reason| PolicyAnswer::Refused { reason })
    }

    fn show_policy(&self, version: Option<String>) -> Result<PolicyAnswer, String> {
        let version = version.unwrap_or_else(|| self.broker.world.policy().version().to_owned());
        let files = self.desk.files(&version)?;
        Ok(PolicyAnswer::Policy { version, files })
    }

    fn policy_log(&self) -> PolicyAnswer {
        let state = self.desk.state.lock();
        PolicyAnswer::Log {
            changes: state.changes.iter().rev().cloned().collect(),
            unconfirmed: state.unconfirmed.as_ref().map(|waits| waits.version.clone()),
        }
    }

    fn apply_policy(
        &self,
        against: &str,
        files: Vec<(String, String)>,
        who: &str,
        why: Option<&str>,
        confirm_within_ms: Option<u64>,
    ) -> Result<PolicyAnswer, String> {
        // Held to the end: nothing else puts a policy in force meanwhile.
        let mut policy_seen = self.policy_seen.lock();
        let live = self.broker.world.policy();
        if live.version() != against {
            return Err(format!(
                "the policy in force is {}, and not {against}, which yours was compared with; compare again",
                live.version()
            ));
        }
        if let Some(waits) = &self.desk.state.lock().unconfirmed {
            return Err(format!(
                "{} waits to be confirmed; confirm it first, or wait until it is taken back",
                waits.version
            ));
        }
        if confirm_within_ms.is_some_and(|ms| !(1_000..=POLICY_CONFIRM_MS_MAX).contains(&ms)) {
            return Err("a policy waits to be confirmed for 1 s to 1 day".to_owned());
        }
        let path = &self.config.policy;
        let on_disk = load_sources(std::slice::from_ref(path)).map_err(|error| error.to_string())?;
        let is_in_force = compile_policy(&on_disk, self.config.store.is_some())
            .is_ok_and(|compiled| compiled.policy.version() == live.version());
        if !is_in_force {
            return Err(format!(
                "{}: somebody has changed it, and the broker has not taken it; see `exocom status`",
                path.display()
            ));
        }
        let sources = self.own_sources(files)?;
        let compiled =
            compile_policy(&sources, self.config.store.is_some()).map_err(|error| error.to_string())?;
        if compiled.policy.version() == live.version() {
            return Err("it is in force already".to_owned());
        }
        self.tell_of_policy(&live, &compiled.policy, who, why)?;
        self.desk.keep(&compiled.policy, &sources, who, why)?;
        let unconfirmed = confirm_within_ms.map(|ms| Unconfirmed {
            version: compiled.policy.version().to_owned(),
            until_unix_s: Clock::unix_s().saturating_add_unsigned(ms / 1_000),
            sources: sources.clone(),
            before: Arc::clone(&live),
            sources_before: on_disk.clone(),
        });
        if unconfirmed.is_none() {
            if let Err(error) = self.desk.replace(path, &on_disk, &sources) {
                let reason = format!("{error}; the old policy stays");
                self.take_back(&compiled.policy, &live, &on_disk, &reason);
                return Err(reason);
            }
            *policy_seen = Some(Ok(digest(&sources)));
        }
        self.desk.state.lock().unconfirmed = unconfirmed;
        let to = compiled.policy.version().to_owned();
        self.put_in_force(&live, compiled);
        Ok(PolicyAnswer::Applied {
            from: live.version().to_owned(),
            to,
            confirm_within_ms,
        })
    }

    fn confirm_policy(&self, version: String) -> Result<PolicyAnswer, String> {
        let mut policy_seen = self.policy_seen.lock();
        let mut state = self.desk.state.lock();
        let Some(waits) = state.unconfirmed.take_if(|waits| waits.version == version) else {
            let version = printable(version.as_bytes(), ADMIN_TEXT_BYTES_MAX);
            return Err(format!(
                "{version} does not wait to be confirmed; `exocom policy log` tells what is in force"
            ));
        };
        let path = &self.config.policy;
        if let Err(error) = self.desk.replace(path, &waits.sources_before, &waits.sources) {
            state.unconfirmed = Some(waits);
            return Err(error);
        }
        *policy_seen = Some(Ok(digest(&waits.sources)));
        Ok(PolicyAnswer::Confirmed { version })
    }

    /// Puts the old policy in force again, if the new one still waits.
    fn roll_back(&self, version: &str) {
        let _policy_seen = self.policy_seen.lock();
        let waits = self
            .desk
            .state
            .lock()
            .unconfirmed
            .take_if(|waits| waits.version == version);
        let Some(waits) = waits else { return };
        let live = self.broker.world.policy();
        let why = "nobody has confirmed the new one in time";
        self.take_back(&live, &waits.before, &waits.sources_before, why);
        tracing::warn!(
            from = live.version(),
            to = waits.before.version(),
            "policy taken back: {why}"
        );
        let moved = live.trust_domain() != waits.before.trust_domain();
        self.end_trial_of(&waits.before);
        self.broker.world.set_policy(waits.before);
        if moved {
            self.reload_tls(super::policy::Reload::Asked);
        }
    }

    /// Writes down that an older policy is in force again. It is, whether that can be written down or not.
    fn take_back(&self, from: &Policy, to: &Policy, sources: &[Source], why: &str) {
        let told = self.tell_of_policy(from, to, "exocom", Some(why));
        if let Err(error) = told.and_then(|()| self.desk.keep(to, sources, "exocom", Some(why))) {
            tracing::error!(error, "cannot write down which policy is in force");
        }
    }

    /// Tells the audit log, before it is so.
    pub(super) fn tell_of_policy(
        &self,
        from: &Policy,
        to: &Policy,
        who: &str,
        why: Option<&str>,
    ) -> Result<(), String> {
        let change = Record::Policy {
            from: from.version().to_owned(),
            to: to.version().to_owned(),
            who: who.to_owned(),
            why: why.map(|why| printable(why.as_bytes(), ADMIN_TEXT_BYTES_MAX)),
        };
        self.recorder
            .as_ref()
            .map_or(Ok(()), |recorder| recorder.record(change))
    }

    /// The files of a policy as they would be on this machine, in their order: in the broker's file, or in its folder.
    pub(super) fn own_sources(&self, files: Vec<(String, String)>) -> Result<Vec<Source>, String> {
        let path = &self.config.policy;
        if !path.is_file() {
            return name_in(path, files);
        }
        match <[_; 1]>::try_from(files) {
            Ok([(_, text)]) => Ok(vec![Source {
                name: path.display().to_string(),
                text,
            }]),
            Err(files) => Err(format!(
                "{}: the broker's policy is one file, and this one has {}; put them into one, or name a folder in the \
                 broker's configuration",
                path.display(),
                files.len()
            )),
        }
    }

    /// Swaps the policy. Whatever begins after this is decided by the new one.
    pub(super) fn put_in_force(&self, old: &Policy, compiled: Compiled) {
        *self.refused_change.lock() = None;
        log_warnings(&compiled);
        let policy = compiled.policy;
        tracing::info!(from = old.version(), to = policy.version(), "policy changed");
        let moved = policy.trust_domain() != old.trust_domain();
        self.end_trial_of(&policy);
        self.broker.world.set_policy(Arc::new(policy));
        if moved {
            self.reload_tls(super::policy::Reload::Asked);
        }
    }
}

/// Does what waits for the disk where it holds nobody up.
async fn in_background(
    work: impl FnOnce() -> Result<PolicyAnswer, String> + Send + 'static,
) -> Result<PolicyAnswer, String> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err("the broker has failed at it; see its log".to_owned()))
}
