//! The policy while the broker runs: read at the start, read again when its files change or when asked, swapped
//! whole. One that cannot be used leaves the old in force; nothing is judged twice.

use std::path::Path;

use ring::digest::{Context, SHA256};

use crate::policy::{Compiled, Policy, Source};
use crate::policy_files::{LoadError, load_sources};
use crate::serve::Shared;

/// Why a policy is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyLoadError {
    /// Its files cannot be read.
    #[error("the policy cannot be read: {0}")]
    Load(LoadError),
    /// It has mistakes; the text shows each with its place.
    #[error("the policy is refused, as `exocom policy check` would without a broker:\n{0}")]
    Compile(String),
    /// It asks for what there is no store for.
    #[error(
        "{rule}: [message.\"{pattern}\"] asks for delivery = \"at-least-once\", but the configuration has no store to \
         keep messages in. Add to it: [store] folder = \"store\". The broker would rather not start than deliver less \
         than asked."
    )]
    AtLeastOnce {
        /// The line that asks.
        rule: String,
        /// The names it asks for.
        pattern: String,
    },
}

/// Reads and compiles the policy. Without a store, refuses one that needs it.
pub fn load_policy(path: &Path, has_store: bool) -> Result<Compiled, PolicyLoadError> {
    let sources = load_sources(&[path.to_owned()]).map_err(PolicyLoadError::Load)?;
    compile_policy(&sources, has_store)
}

pub(super) fn compile_policy(sources: &[Source], has_store: bool) -> Result<Compiled, PolicyLoadError> {
    let compiled = Policy::compile(sources).map_err(|errors| {
        PolicyLoadError::Compile(errors.diagnostics().render(false).trim_end().to_owned())
    })?;
    let needs_store = compiled.policy.requires_durable_delivery().next();
    if let Some((pattern, rule)) = needs_store.filter(|_| !has_store) {
        return Err(PolicyLoadError::AtLeastOnce {
            rule: rule.to_string(),
            pattern: pattern.to_string(),
        });
    }
    Ok(compiled)
}

/// Logs what is probably not meant in a policy that is about to be in force.
pub(super) fn log_warnings(compiled: &Compiled) {
    for warning in compiled.warnings.iter() {
        let place = warning.place();
        tracing::warn!(
            "policy {}:{}:{}: {}",
            place.file,
            place.line,
            place.column,
            warning.message()
        );
    }
}

/// Why the policy is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reload {
    /// Somebody asks for it.
    Asked,
    /// Something in its folder has changed; perhaps a log that lies there too.
    Noticed,
}

impl Reload {
    /// Who changes the policy, as the audit log tells it.
    const fn who(self) -> &'static str {
        match self {
            Self::Asked => "SIGHUP",
            Self::Noticed => "its files",
        }
    }
}

impl Shared {
    pub(super) fn reload_policy(&self, why: Reload) {
        // Held from before the files are read to the end: two at once would take one change twice, and what was read
        // before an operator has applied a policy would undo it.
        let mut policy_seen = self.policy_seen.lock();
        let sources = load_sources(std::slice::from_ref(&self.config.policy));
        let seen = Some(sources.as_deref().map(digest).map_err(ToString::to_string));
        if std::mem::replace(&mut *policy_seen, seen.clone()) == seen && why == Reload::Noticed {
            return;
        }
        let old = self.broker.world.policy();
        match sources.map_err(PolicyLoadError::Load).and_then(|sources| {
            let compiled = compile_policy(&sources, self.config.store.is_some())?;
            Ok((sources, compiled))
        }) {
            Ok((read, compiled)) => {
                *self.refused_change.lock() = None;
                if compiled.policy.version() == old.version() {
                    // Whoever writes it into the file keeps it.
                    self.desk.forget_unconfirmed();
                    return;
                }
                let recorded = self.tell_of_policy(&old, &compiled.policy, why.who(), None);
                if let Err(error) = recorded {
                    tracing::error!(
                        kept = old.version(),
                        "the changed policy is not taken, the old one stays: {error}"
                    );
                    *self.refused_change.lock() = Some(error);
                    // It is read again as soon as somebody asks.
                    *policy_seen = None;
                    return;
                }
                if let Err(error) = self.desk.keep(&compiled.policy, &read, why.who(), None) {
                    tracing::error!(
                        error,
                        "the policy that comes into force is not in `exocom policy log`"
                    );
                }
                self.desk.forget_unconfirmed();
                self.put_in_force(&old, compiled);
            }
            Err(error) => {
                tracing::error!(
                    kept = old.version(),
                    "the changed policy is refused, the old one stays: {error}"
                );
                *self.refused_change.lock() = Some(error.to_string());
            }
        }
    }
}

/// Equal only for the same names and texts.
pub(super) fn digest(sources: &[Source]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().to_vec()
}
