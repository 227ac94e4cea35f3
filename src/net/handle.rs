//! A connection as all threads know it: its mailbox, its pending replies, and its socket and TLS state, each behind a
//! lock of its own.
//!
//! Any publisher's thread pushes into the mailbox, encrypts and writes. What the socket does not take is left to
//! the connection's own task, which also does what others order. Nothing here reads from the socket, but for the
//! moment in which it closes. What has ended holds nothing any more: others keep handles to it for long.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rustls::ServerConnection;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::exchange::mailbox::{ConnId, Mailbox, Outbox, Peer};
use crate::exchange::replies::PendingReplies;
use crate::exchange::share::Share;
use crate::identity::Identity;
use crate::limits::{
    BACK_PRESSURE_MS_MAX, CONNECT_MS_MAX, ENCRYPTED_AHEAD_BYTES_MAX, LINGER_MS_MAX, PING_AFTER_MS,
    PINGS_UNANSWERED_MAX,
};
use crate::net::authority::notice_unix_s;
use crate::net::tls::RefusedHandshake;
use crate::net::waiting::WaitingBytes;

/// A handle to a connection; what the exchange knows as a peer.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Connection>);

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    pub(super) id: ConnId,
    /// Where the client connects from.
    pub address: SocketAddr,
    /// Whose certificate it showed.
    pub identity: Arc<Identity>,
    /// The zone of its listener.
    pub zone: Option<Arc<str>>,
    /// When its handshake ended, in microseconds of the broker's clock.
    pub since_us: u64,
    pub(super) locked: Mutex<Locked>,
    /// The way to the client; `None` once it is broken or has ended. Locked after `locked`, where both are.
    pub(super) io: Mutex<Option<Io>>,
    replies: Mutex<PendingReplies<Handle>>,
    /// Wakes the connection's own task.
    pub(super) wake: Notify,
    /// Wakes publishers that wait for the outbox to drain.
    drained: Notify,
    pub(super) orders: AtomicU16,
    /// The socket would block with bytes still to write.
    pub(super) is_blocked: AtomicBool,
    /// The outbox is long, so publishers should wait or choose another.
    is_long: AtomicBool,
    /// The outbox is so full that nothing is read that would be answered into it.
    pub(super) is_stuffed: AtomicBool,
    /// A publisher has waited in vain; none waits again until the outbox has been empty.
    is_slow: AtomicBool,
    next_deadline_us: AtomicU64,
    /// When the operation that has come in part must be whole.
    pub(super) operation_deadline_us: AtomicU64,
    pub(super) last_heard_us: AtomicU64,
    pub(super) pings_unanswered: AtomicU8,
    pub(super) is_ready: AtomicBool,
    pub(super) has_ended: AtomicBool,
    used_since_tick: AtomicBool,
    /// What waits for all sockets together.
    waiting: Arc<WaitingBytes>,
    /// What its service's connections hold together.
    pub(super) share: Arc<Share>,
    /// Why its authority has ended, once it has.
    pub(super) lost_authority: Mutex<Option<RefusedHandshake>>,
    /// When to tell that its certificate expires, in seconds since 1970.
    pub(super) notice_unix_s: i64,
    pub(super) is_noticed: AtomicBool,
    /// What the client said of itself, for operators.
    pub about: Mutex<About>,
}

/// What a client said of itself, and how much it listens to; for operators, trusted by nobody.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// `CONNECT`'s name, escaped.
    pub name: Option<String>,
    /// The client library and its version, escaped.
    pub client: Option<String>,
    /// Subscriptions to messages.
    pub subscriptions: usize,
}

#[derive(Debug)]
pub(super) struct Locked {
    mailbox: Mailbox,
    /// How many bytes of the outbox are counted in `waiting`.
    counted_bytes: usize,
}

/// The way to the client.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) socket: Arc<TcpStream>,
    pub(super) tls: ServerConnection,
}

/// What others ask of a connection's own task.
pub(super) mod order {
    pub(in crate::net) const EXPIRE: u16 = 1;
    pub(in crate::net) const REAP: u16 = 2;
    pub(in crate::net) const CHECK_POLICY: u16 = 4;
    pub(in crate::net) const PING: u16 = 8;
    pub(in crate::net) const LAME_DUCK: u16 = 16;
    pub(in crate::net) const END: u16 = 32;
    pub(in crate::net) const CUT: u16 = 64;
    pub(in crate::net) const TOO_SLOW: u16 = 128;
    pub(in crate::net) const NO_AUTHORITY: u16 = 256;
}

impl Peer for Handle {
    fn id(&self) -> ConnId {
        self.0.id
    }

    fn with_mailbox<R>(&self, f: impl FnOnce(&mut Mailbox) -> R) -> R {
        let connection = &*self.0;
        let mut locked = connection.locked.lock();
        let bytes_max = connection.waiting.bytes_max_of_one();
        locked.mailbox.outbox.set_bytes_max(bytes_max);
        let result = f(&mut locked.mailbox);
        connection.flush(&mut locked);
        if locked.mailbox.has_ended_subscriptions() {
            connection.order(order::REAP);
        }
        result
    }

    fn replies(&self) -> impl DerefMut<Target = PendingReplies<Self>> {
        Replies {
            locked: self.0.replies.lock(),
            next_deadline_us: &self.0.next_deadline_us,
        }
    }

    fn is_ready(&self) -> bool {
        !self.0.is_long.load(Relaxed)
    }
}

/// The table of pending replies, locked. When it is let go, the thread's tick knows when the next one is due.
struct Replies<'a> {
    locked: MutexGuard<'a, PendingReplies<Handle>>,
    next_deadline_us: &'a AtomicU64,
}

impl Deref for Replies<'_> {
    type Target = PendingReplies<Handle>;

    fn deref(&self) -> &Self::Target {
        &self.locked
    }
}

impl DerefMut for Replies<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.locked
    }
}

impl Drop for Replies<'_> {
    fn drop(&mut self) {
        self.next_deadline_us
            .store(self.locked.next_deadline_us(), Relaxed);
    }
}

impl Deref for Handle {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Handle {
    /// A connection whose handshake has ended.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is known only where the connection is made"
    )]
    pub fn new(
        id: ConnId,
        socket: TcpStream,
        tls: ServerConnection,
        address: SocketAddr,
        identity: Arc<Identity>,
        zone: Option<Arc<str>>,
        now_us: u64,
        waiting: Arc<WaitingBytes>,
        share: Arc<Share>,
    ) -> Self {
        let socket = Arc::new(socket);
        // Random for each connection, also across restarts of the broker.
        let first_generation = (RandomState::new().hash_one(id.0) >> 32) as u32;
        Self(Arc::new(Connection {
            id,
            address,
            notice_unix_s: notice_unix_s(identity.expires_unix_s),
            is_noticed: AtomicBool::new(false),
            lost_authority: Mutex::default(),
            identity,
            zone,
            since_us: now_us,
            locked: Mutex::new(Locked {
                mailbox: Mailbox::default(),
                counted_bytes: 0,
            }),
            io: Mutex::new(Some(Io { socket, tls })),
            replies: Mutex::new(PendingReplies::new(first_generation, &share.pending_replies)),
            wake: Notify::new(),
            drained: Notify::new(),
            orders: AtomicU16::new(0),
            is_blocked: AtomicBool::new(false),
            is_long: AtomicBool::new(false),
            is_stuffed: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            next_deadline_us: AtomicU64::new(u64::MAX),
            operation_deadline_us: AtomicU64::new(u64::MAX),
            last_heard_us: AtomicU64::new(now_us),
            pings_unanswered: AtomicU8::new(0),
            is_ready: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            used_since_tick: AtomicBool::new(true),
            waiting,
            share,
            about: Mutex::default(),
        }))
    }

    /// The socket, while there is one.
    pub(super) fn socket(&self) -> Option<Arc<TcpStream>> {
        self.io.lock().as_ref().map(|io| Arc::clone(&io.socket))
    }

    /// Closes the socket and gives back what the connection holds. With `lingers`, first lets what is in the outbox
    /// reach the client, and reads on for a moment: a socket closed with bytes unread makes the client lose our
    /// last words.
    pub(super) async fn close(&self, lingers: bool) {
        if lingers
            && let Some(socket) = self.socket()
            && tokio::time::timeout(Duration::from_millis(LINGER_MS_MAX), self.linger(&socket))
                .await
                .is_err()
        {
            tracing::debug!(connection = self.id.0, "closed before the client did");
        }
        let mut locked = self.locked.lock();
        self.say_goodbye(&mut locked);
        *self.io.lock() = None;
        self.flush(&mut locked);
        locked.mailbox.outbox.shrink();
    }

    async fn linger(&self, socket: &TcpStream) {
        while self.is_blocked.load(Relaxed) && socket.writable().await.is_ok() {
            self.write_on();
        }
        self.say_goodbye(&mut self.locked.lock());
        if rustix::net::shutdown(socket, rustix::net::Shutdown::Write).is_err() {
            return;
        }
        let mut unread = [0; 1024];
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut unread) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

/// Waits, for a bounded time in all, until the outboxes of these receivers are short again. One that is not by then
/// is not waited for again before it has been empty.
pub(super) async fn wait_until_drained(receivers: &[Handle]) {
    let mut time_is_up = pin!(tokio::time::sleep(Duration::from_millis(BACK_PRESSURE_MS_MAX)));
    for (place, receiver) in receivers.iter().enumerate() {
        let drained = receiver.drained.notified();
        if receiver.is_slow.load(Relaxed) || !receiver.is_long.load(Relaxed) {
            continue;
        }
        tokio::select! {
            () = drained => {}
            () = &mut time_is_up => {
                let left = receivers.iter().skip(place);
                for late in left.filter(|receiver| receiver.is_long.load(Relaxed)) {
                    late.is_slow.store(true, Relaxed);
                }
                return;
            }
        }
    }
}

impl Connection {
    /// What the thread's tick asks of the connection, if anything is due.
    pub fn tick(&self, now_us: u64, now_unix_s: i64) {
        self.watch_expiry(now_us, now_unix_s);
        if now_us >= self.next_deadline_us.load(Relaxed) {
            self.order(order::EXPIRE);
        }
        if now_us >= self.operation_deadline_us.load(Relaxed) {
            self.order(order::TOO_SLOW);
        }
        let silent_us = now_us.saturating_sub(self.last_heard_us.load(Relaxed));
        if !self.is_ready.load(Relaxed) {
            if now_us.saturating_sub(self.since_us) > CONNECT_MS_MAX * 1000 {
                self.order(order::CUT);
            }
        } else if silent_us > PING_AFTER_MS * 1000 * (1 + u64::from(self.pings_unanswered.load(Relaxed))) {
            let unanswered = self.pings_unanswered.load(Relaxed);
            if unanswered >= PINGS_UNANSWERED_MAX {
                self.order(order::CUT);
            } else {
                self.pings_unanswered.store(unanswered + 1, Relaxed);
                self.order(order::PING);
            }
        }
        if !self.used_since_tick.swap(false, Relaxed) {
            if let Some(mut locked) = self.locked.try_lock() {
                locked.mailbox.outbox.shrink();
            }
            if let Some(mut replies) = self.replies.try_lock() {
                replies.shrink();
            }
        }
    }

    /// Lets its session take notice of another policy.
    pub(super) fn check_policy(&self) {
        self.order(order::CHECK_POLICY);
    }

    /// Tells the client that this broker is about to leave.
    pub fn announce_lame_duck(&self) {
        self.order(order::LAME_DUCK);
    }

    /// Ends the connection.
    pub fn end(&self) {
        self.order(order::END);
    }

    /// Whether its session has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }

    /// Bytes that wait for the socket.
    pub fn outbox_bytes(&self) -> usize {
        self.locked.lock().mailbox.outbox.len()
    }

    /// Requests that wait for this client's answer.
    pub fn pending_replies(&self) -> usize {
        self.replies.lock().len()
    }

    /// Writes what could not be written before, or what TLS has to say.
    pub(super) fn write_on(&self) {
        self.push_out(&mut self.locked.lock());
    }

    pub(super) fn order(&self, order: u16) {
        self.orders.fetch_or(order, Relaxed);
        self.wake.notify_one();
    }

    /// Says that nothing more will come, once all has left that was to come.
    fn say_goodbye(&self, locked: &mut Locked) {
        if !locked.mailbox.outbox.is_empty() {
            return;
        }
        if let Some(io) = &mut *self.io.lock() {
            io.tls.send_close_notify();
        }
        self.push_out(locked);
    }

    /// Encrypts and writes as much as the socket takes. What remains is the connection's own task's work.
    fn flush(&self, locked: &mut Locked) {
        if !locked.mailbox.outbox.is_empty() || locked.counted_bytes > 0 {
            self.push_out(locked);
        }
    }

    /// The same, also where TLS alone may have something to say.
    fn push_out(&self, locked: &mut Locked) {
        let Locked {
            mailbox,
            counted_bytes,
        } = locked;
        let outbox = &mut mailbox.outbox;
        self.used_since_tick.store(true, Relaxed);
        let written = {
            let mut io = self.io.lock();
            let written = match &mut *io {
                Some(io) => io.write(outbox),
                None => Err(io::ErrorKind::NotConnected.into()),
            };
            if written.is_err() && io.take().is_some() {
                self.order(order::END);
            }
            written
        };
        if written.is_err() {
            outbox.take(outbox.len());
        }
        self.waiting.change(*counted_bytes, outbox.len());
        *counted_bytes = outbox.len();
        self.is_stuffed.store(outbox.is_stuffed(), Relaxed);
        let blocked = written.unwrap_or(false);
        if blocked != self.is_blocked.load(Relaxed) {
            self.is_blocked.store(blocked, Relaxed);
            if blocked {
                self.wake.notify_one();
            }
        }
        let is_long = outbox.is_long();
        if is_long != self.is_long.load(Relaxed) {
            self.is_long.store(is_long, Relaxed);
            if !is_long {
                self.drained.notify_waiters();
            }
        }
        if outbox.is_empty() && self.is_slow.load(Relaxed) {
            self.is_slow.store(false, Relaxed);
        }
    }
}

impl Io {
    /// Encrypts and writes as much as the socket takes. Says whether it would block.
    fn write(&mut self, outbox: &mut Outbox) -> io::Result<bool> {
        let mut writer = SocketWriter(&self.socket);
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut writer) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                    Err(error) => return Err(error),
                }
            }
            if outbox.is_empty() {
                return Ok(false);
            }
            let waiting = outbox.waiting();
            let ahead = waiting.get(..ENCRYPTED_AHEAD_BYTES_MAX).unwrap_or(waiting);
            match self.tls.writer().write(ahead)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                encrypted => outbox.take(encrypted),
            }
        }
    }
}

struct SocketWriter<'a>(&'a TcpStream);

impl Write for SocketWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Role;
    use rustls::pki_types::PrivateKeyDer;

    async fn handle(now_us: u64) -> Handle {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (socket, _) = tokio::join!(TcpStream::connect(address), listener.accept());
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let config = rustls::ServerConfig::builder_with_provider(crate::net::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.into()], key)
            .unwrap();
        let identity = Identity {
            trust_domain: "shop.example".into(),
            role: Role::Service("web".into()),
            serial: "1".into(),
            expires_unix_s: i64::MAX,
        };
        Handle::new(
            ConnId(1),
            socket.unwrap(),
            ServerConnection::new(Arc::new(config)).unwrap(),
            address,
            Arc::new(identity),
            None,
            now_us,
            Arc::default(),
            Arc::default(),
        )
    }

    // protocol: P-038
    #[tokio::test]
    async fn a_silent_client_is_asked_twice_and_then_cut() {
        let start_us = 5_000_000;
        let client = handle(start_us).await;
        client.is_ready.store(true, Relaxed);
        let ordered_after = |silent_s: u64| {
            client.tick(start_us + silent_s * 1_000_000 + 1, 0);
            client.orders.swap(0, Relaxed)
        };
        let asked = [59, 60, 61, 119, 120, 179, 180].map(ordered_after);
        assert_eq!(asked, [0, order::PING, 0, 0, order::PING, 0, order::CUT]);
    }

    #[tokio::test]
    async fn a_client_without_connect_is_cut() {
        let client = handle(0).await;
        client.tick(CONNECT_MS_MAX * 1000, 0);
        assert_eq!(client.orders.swap(0, Relaxed), 0);
        client.tick(CONNECT_MS_MAX * 1000 + 1, 0);
        assert_eq!(client.orders.swap(0, Relaxed), order::CUT);
    }
}
