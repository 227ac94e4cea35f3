//! The files behind TLS while the broker runs: read at the start, read again when they change or when asked.
//!
//! The server's certificate is one piece, what each listener believes another; a piece that cannot be used leaves the
//! old one in force, with one line, and is tried again. Nobody is asked anything where only the server's certificate
//! has changed; where roots or revocation lists have, each open connection is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::{Config, ListenerConfig};
use crate::net::clock::Clock;
use crate::net::listener::Listener;
use crate::net::tls::{Expiry, ShownFiles, TlsConfigError, TlsServer, TrustFiles};
use crate::serve::policy::Reload;
use crate::serve::{ServeError, Shared};

/// Ahead of an expiry of the broker's own the log tells of it: the part of its life that is left then, and how long that
/// is at the most, in seconds.
const NOTICES: [(i64, i64); 2] = [(10, 30 * 86_400), (100, 86_400)];

/// What has been seen of the files.
#[derive(Debug, Default)]
pub(super) struct FilesSeen {
    state: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    signature: Option<Signature>,
    /// What could not be used when they were last read.
    refused: Vec<String>,
    /// What the log has told of: what expires, when, and which notice.
    told: BTreeSet<(String, i64, usize)>,
}

/// Which files there are behind the names, how long, and when they were changed.
type Signature = Vec<Option<(u64, u64, u64, i64, i64)>>;

/// Reads what a listener needs.
pub(super) fn load_tls(
    config: &Config,
    listener: &ListenerConfig,
    trust_domain: &str,
) -> Result<TlsServer, ServeError> {
    let load = || {
        TlsServer::new(
            shown(config).load()?,
            trust(config, listener, trust_domain).load()?,
        )
    };
    load().map_err(|error| ServeError::Tls {
        section: listener.section.clone(),
        error,
    })
}

fn shown(config: &Config) -> ShownFiles {
    ShownFiles {
        certificate: config.certificate.clone(),
        key: config.key.clone(),
    }
}

fn trust(config: &Config, listener: &ListenerConfig, trust_domain: &str) -> TrustFiles {
    let roots = listener
        .roots
        .iter()
        .map(|(domain, file)| (domain.as_deref().unwrap_or(trust_domain).to_owned(), file.clone()));
    TrustFiles {
        roots: roots.collect(),
        crls: listener.crls.clone(),
        lifetime_max_days: config.limits.certificate_life_days,
    }
}

/// All files behind TLS.
pub(super) fn files(config: &Config) -> BTreeSet<PathBuf> {
    let listeners = config.listeners.iter().chain(&config.admin);
    let trusted = listeners.flat_map(|listener| {
        let files = trust(config, listener, "");
        files.files().cloned().collect::<Vec<_>>()
    });
    shown(config).files().cloned().chain(trusted).collect()
}

impl Shared {
    /// Takes what has changed in the files. What cannot be used leaves the old in force.
    pub(super) fn reload_tls(&self, why: Reload) {
        let mut seen = self.files_seen.state.lock();
        let signature = signature(&self.config);
        let is_same = seen.signature.as_ref() == Some(&signature);
        if why == Reload::Noticed && is_same && seen.refused.is_empty() {
            return;
        }
        seen.signature = Some(signature);
        let mut refused = Vec::new();
        self.reload_shown(&mut refused);
        self.reload_trust(&mut refused);
        // What all listeners have in common is told once, and not again before it changes.
        refused.sort();
        refused.dedup();
        let is_news = |error: &&String| why == Reload::Asked || !seen.refused.contains(error);
        for error in refused.iter().filter(is_news) {
            tracing::error!("certificates not reloaded, the old ones stay: {error}");
        }
        seen.refused = refused;
    }

    /// What could not be used when the files were last read.
    pub(super) fn refused_certificates(&self) -> Option<String> {
        let seen = self.files_seen.state.lock();
        (!seen.refused.is_empty()).then(|| seen.refused.join("\n"))
    }

    fn reload_shown(&self, refused: &mut Vec<String>) {
        let shown = match shown(&self.config).load() {
            Ok(shown) => shown,
            Err(error) => return refused.push(error.to_string()),
        };
        let mut is_changed = false;
        for listener in self.all_listeners() {
            let _changing = self.revoked.lock();
            if let Some(tls) = listener.tls.load().with_shown(&shown) {
                listener.tls.store(Arc::new(tls));
                is_changed = true;
            }
        }
        if is_changed {
            tracing::info!(file = %self.config.certificate.display(), "the server's certificate has changed");
        }
    }

    fn reload_trust(&self, refused: &mut Vec<String>) {
        let policy = self.broker.world.policy();
        let configs = self.config.listeners.iter().chain(&self.config.admin);
        let mut is_changed = false;
        for (listener, config) in self.all_listeners().zip(configs) {
            let files = trust(&self.config, config, policy.trust_domain());
            match self.trust(listener, &files) {
                Ok(false) => {}
                Ok(true) => {
                    is_changed = true;
                    tracing::info!(listener = listener.name, "roots or revocation lists have changed");
                }
                Err(error) => refused.push(error.to_string()),
            }
        }
        if is_changed {
            self.broker.authority.trust_changed();
        }
    }

    /// Lets a listener believe what is in the files. Says whether that is something else than before.
    fn trust(&self, listener: &Listener, files: &TrustFiles) -> Result<bool, TlsConfigError> {
        let verifier = files.load()?;
        let _changing = self.revoked.lock();
        let changed = listener.tls.load().with_trust(verifier, Clock::unix_s());
        match changed.map_err(|error| files.name_files(error))? {
            Some(tls) => {
                listener.tls.store(Arc::new(tls));
                Ok(true)
            }
            None => Ok(false),
        }
    }

    pub(super) fn all_listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.listeners.iter().chain(&self.admin)
    }

    /// When what the listeners show and believe expires.
    pub(super) fn own_expiries(&self) -> impl Iterator<Item = Expiry> {
        self.all_listeners().flat_map(|listener| {
            let expiries = listener.tls.load().expiries();
            let of_listener = expiries.into_iter().map(|expiry| Expiry {
                what: format!("{} of listener {}", expiry.what, listener.name),
                ..expiry
            });
            of_listener.collect::<Vec<_>>()
        })
    }

    /// Tells ahead of expiries of the broker's own, each time once.
    pub(super) fn tell_of_expiries(&self) {
        let now_unix_s = Clock::unix_s();
        let mut seen = self.files_seen.state.lock();
        let mut told = BTreeSet::new();
        for expiry in self.own_expiries() {
            let left_s = expiry.unix_s - now_unix_s;
            let is_due = |(part, s_max): &(i64, i64)| left_s < (expiry.life_s / part).min(*s_max);
            let notices = NOTICES.iter().filter(|notice| is_due(notice)).count() + usize::from(left_s < 0);
            if notices == 0 {
                continue;
            }
            let this = (expiry.what, expiry.unix_s, notices);
            if !seen.told.contains(&this) {
                let what = &this.0;
                if left_s < 0 {
                    tracing::error!(
                        expired_for_s = -left_s,
                        "expired: {what}; put a new one in its place"
                    );
                } else {
                    tracing::warn!(
                        expires_in_s = left_s,
                        "expires soon: {what}; put a new one in its place"
                    );
                }
            }
            told.insert(this);
        }
        seen.told = told;
    }
}

fn signature(config: &Config) -> Signature {
    files(config).iter().map(|file| signature_of(file)).collect()
}

/// Follows links: what lies behind them is what counts.
fn signature_of(file: &Path) -> Option<(u64, u64, u64, i64, i64)> {
    let metadata = fs::metadata(file).ok()?;
    let changed_ns = metadata
        .mtime()
        .wrapping_mul(1_000_000_000)
        .wrapping_add(metadata.mtime_nsec());
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        changed_ns,
        metadata
            .ctime()
            .wrapping_mul(1_000_000_000)
            .wrapping_add(metadata.ctime_nsec()),
    ))
}

/// Whether the files stay as they are for the length of a pause: whoever writes them may need several steps.
pub(super) async fn have_settled(config: &Config, pause: std::time::Duration) -> bool {
    let before = signature(config);
    tokio::time::sleep(pause).await;
    signature(config) == before
}
