//! Renewed credentials: notices that their files have changed, and moves to a connection that uses them.
//!
//! Looks at the files, since not every file system tells. Credentials that cannot be used leave the connection as it is.
//! It moves at a moment in which nothing is under way, and waits for one only so long; what is tracked is delivered
//! again if it has to be.

use std::fs;
use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep, timeout};

use crate::event::Event;
use crate::limits;
use crate::options::{Credentials, Options};
use crate::relay::Shared;

/// How long each file is, and when it was changed; `None` where it cannot be looked at.
pub(crate) type Signature = Vec<Option<(u64, SystemTime)>>;

/// The files as they are now. Links are followed: what lies behind them is what counts.
pub(crate) fn signature(options: &Options) -> Signature {
    let files = [&options.ca, &options.certificate, &options.key];
    let look = |file: &std::path::PathBuf| {
        let metadata = fs::metadata(file).ok()?;
        Some((metadata.len(), metadata.modified().ok()?))
    };
    files.into_iter().map(look).collect()
}

/// Watches over the credentials of a relay until it is shut down or nobody has it any more. `in_use` is how the files
/// were before they were first read.
pub(crate) async fn watch(relay: Weak<Shared>, mut in_use: Signature, mut credentials: Credentials) {
    let mut seen = in_use.clone();
    let mut is_told = false;
    loop {
        sleep(limits::CREDENTIALS_EVERY).await;
        let Some(relay) = relay.upgrade() else { return };
        if relay.is_stopping() {
            return;
        }
        if !is_told && tell_of_expiry(&relay, &credentials) {
            is_told = true;
        }
        let now = signature(relay.options());
        // Whoever writes them may need several steps: they are read when they have not changed since the last look.
        let has_settled = std::mem::replace(&mut seen, now.clone()) == now;
        if now == in_use || !has_settled {
            continue;
        }
        in_use = now;
        let options = relay.options().clone();
        let checked = tokio::task::spawn_blocking(move || options.check())
            .await
            .expect("checking options does not panic");
        let problem = match checked {
            Ok(new) if new.service == relay.service() => {
                credentials = new;
                is_told = false;
                relay.set_expiry(&credentials);
                move_over(&relay).await;
                continue;
            }
            Ok(new) => format!(
                "they are of {}, and this relay is {}",
                new.service,
                relay.service()
            ),
            Err(error) => error.to_string(),
        };
        relay.link().emit(&Event::CredentialsUnusable { problem });
    }
}

/// Tells when the certificate expires soon; says whether it has.
fn tell_of_expiry(relay: &Arc<Shared>, credentials: &Credentials) -> bool {
    let left_s = credentials.expires_unix_s - unix_s();
    let notice_s = (credentials.life_s / limits::EXPIRY_NOTICE_PART).min(limits::EXPIRY_NOTICE_S_MAX);
    let is_soon = left_s < notice_s;
    if is_soon {
        relay.link().emit(&Event::CertificateExpires { in_s: left_s });
    }
    is_soon
}

/// Connects anew. What has been sent is out before, and for a bounded time nothing is interrupted.
async fn move_over(relay: &Arc<Shared>) {
    if !relay.link().is_online() {
        // The next attempt reads the files.
        return;
    }
    let deadline = Instant::now() + limits::RENEW_WITHIN;
    while !relay.link().is_quiet() && Instant::now() < deadline {
        sleep(limits::QUIET_EVERY).await;
    }
    relay.link().emit(&Event::CredentialsRenewed);
    let flushed = timeout(limits::ONLINE_WITHIN, relay.client().flush()).await;
    tracing::debug!(in_time = flushed.is_ok(), "flushed before connecting anew");
    // An error says that the client has ended.
    drop(relay.client().force_reconnect().await);
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates expire by the machine's clock"
)]
fn unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
