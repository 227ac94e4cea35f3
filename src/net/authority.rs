//! Authority while a connection is open: it ends when the earliest certificate of its chain expires, when operators
//! revoke it, and when roots or revocation lists have changed so that a handshake would refuse it.
//!
//! A change is noticed by each thread, which asks about its connections in short slices between everything else that
//! it does. Nothing here decides anew: it is the verifier of the handshake that is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use ring::digest::{Context, SHA256};
use rustls::pki_types::CertificateDer;

use crate::limits::{EXPIRY_NOTICE_PART, EXPIRY_NOTICE_S_MAX};
use crate::net::clock::Clock;
use crate::net::handle::{Connection, order};
use crate::net::listener::Listener;
use crate::net::tls::RefusedHandshake;

/// What may have changed for open connections. Counted up, never down.
#[derive(Debug, Default)]
pub struct Authority {
    revoked: AtomicU64,
    trust: AtomicU64,
}

/// How often each has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations {
    revoked: u64,
    trust: u64,
}

impl Authority {
    /// To be called after all listeners know what operators have revoked.
    pub fn revoked_changed(&self) {
        self.revoked.fetch_add(1, Release);
    }

    /// To be called after listeners have other roots or revocation lists.
    pub fn trust_changed(&self) {
        self.trust.fetch_add(1, Release);
    }

    pub(super) fn generations(&self) -> Generations {
        Generations {
            revoked: self.revoked.load(Acquire),
            trust: self.trust.load(Acquire),
        }
    }
}

/// One round of questions. Those who show the same chain at the same listener get the same answer.
pub(super) struct Round {
    is_full: bool,
    answers: HashMap<(*const Listener, Vec<u8>), Option<RefusedHandshake>>,
}

impl Round {
    /// A round after everything may have changed.
    pub(super) fn full() -> Self {
        Self {
            is_full: true,
            answers: HashMap::new(),
        }
    }

    /// A round for what has changed since; `None` where nothing has.
    pub(super) fn since(before: Generations, now: Generations) -> Option<Self> {
        (before != now).then(|| Self {
            is_full: before.trust != now.trust,
            ..Self::full()
        })
    }

    /// Asks about a connection. One whose authority has ended is told to end; says whether it has.
    pub(super) fn ask(&mut self, connection: &Connection, listener: &Listener) -> bool {
        let tls = listener.tls.load();
        let Some(chain) = connection.chain() else {
            return false;
        };
        let refused = if self.is_full {
            self.answers
                .entry((std::ptr::from_ref(listener), digest(&chain)))
                .or_insert_with(|| tls.recheck(&chain, Clock::unix_s()).err())
                .clone()
        } else {
            tls.check_revoked(&connection.identity, &chain).err()
        };
        let has_ended = refused.is_some();
        if let Some(refused) = refused {
            connection.end_authority(refused);
        }
        has_ended
    }
}

fn digest(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    context.finish().as_ref().to_vec()
}

impl Connection {
    /// What the client has shown, the leaf first, while there is a connection.
    pub fn chain(&self) -> Option<Vec<CertificateDer<'static>>> {
        let io = self.io.lock();
        Some(io.as_ref()?.tls.peer_certificates()?.to_vec())
    }

    fn end_authority(&self, refused: RefusedHandshake) {
        *self.lost_authority.lock() = Some(refused);
        self.order(order::NO_AUTHORITY);
    }

    /// Ends the connection when its certificate has expired, and tells ahead of it, once.
    pub(super) fn watch_expiry(&self, now_us: u64, now_unix_s: i64) {
        let expires_unix_s = self.identity.expires_unix_s;
        if now_unix_s > expires_unix_s {
            let message =
                format!("expired at {expires_unix_s} (seconds since 1970); renew it and connect again");
            self.end_authority(RefusedHandshake {
                rule: "expired",
                message,
                whose: None,
            });
        } else if now_unix_s >= self.notice_unix_s
            && !self.is_noticed.swap(true, Relaxed)
            && let Some(withheld) = self.share.connection_lines.take(now_us)
        {
            tracing::warn!(
                connection = self.id.0, sender = %self.identity.role, serial = %self.identity.serial,
                expires_in_s = expires_unix_s - now_unix_s, withheld = (withheld > 0).then_some(withheld),
                "a certificate expires soon, and its connection ends then; renew it"
            );
        }
    }
}

/// When to tell that a certificate expires, for a connection that begins now.
pub(super) fn notice_unix_s(expires_unix_s: i64) -> i64 {
    let left_s = expires_unix_s.saturating_sub(Clock::unix_s()).max(0);
    expires_unix_s.saturating_sub((left_s / EXPIRY_NOTICE_PART).min(EXPIRY_NOTICE_S_MAX))
}
