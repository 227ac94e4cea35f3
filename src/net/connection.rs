//! One client's connection after its handshake: reads turns, runs its session, writes its outbox.
//!
//! The socket and the TLS state live behind the connection's lock together with its mailbox, so that any
//! publisher's thread can encrypt and write. The connection's own task reads, and writes only what a publisher
//! could not because the socket was full.

use std::cell::RefCell;
use std::io::{self, BufRead, IoSlice, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::exchange::mailbox::{ConnId, Mailbox, Peer};
use crate::exchange::options::ConnectOptions;
use crate::exchange::session::{Next, Session};
use crate::exchange::turn::Turn;
use crate::identity::Identity;
use crate::limits::{
    BACK_PRESSURE_MS_MAX, CONNECT_MS_MAX, DENIAL_LINES_PER_TURN_MAX, ENCRYPTED_AHEAD_BYTES_MAX,
    LINGER_MS_MAX, PING_AFTER_MS, PINGS_UNANSWERED_MAX, READ_BYTES_PER_TURN,
};
use crate::net::broker::Broker;
use crate::wire::decode::{DecodeError, Step, decode};
use crate::wire::encode::{self, ErrText};
use crate::wire::printable;

/// A handle to a connection; what the exchange knows as a peer.
#[derive(Debug, Clone)]
pub struct Handle(Arc<Connection>);

/// See the module's documentation.
#[derive(Debug)]
pub struct Connection {
    id: ConnId,
    socket: TcpStream,
    /// Where the client connects from.
    pub address: SocketAddr,
    /// Whose certificate it showed.
    pub identity: Arc<Identity>,
    /// The zone of its listener.
    pub zone: Option<Arc<str>>,
    /// When its handshake ended, in microseconds of the broker's clock.
    pub since_us: u64,
    locked: Mutex<Locked>,
    /// Wakes the connection's own task.
    wake: Notify,
    /// Wakes publishers that wait for the outbox to drain.
    drained: Notify,
    orders: AtomicU8,
    /// The socket would block with bytes still to write.
    is_blocked: AtomicBool,
    /// The outbox is long, so publishers should wait or choose another.
    is_long: AtomicBool,
    /// A publisher has waited in vain; none waits again until the outbox has been empty.
    is_slow: AtomicBool,
    next_deadline_us: AtomicU64,
    last_heard_us: AtomicU64,
    pings_unanswered: AtomicU8,
    is_ready: AtomicBool,
    has_ended: AtomicBool,
    used_since_tick: AtomicBool,
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
struct Locked {
    mailbox: Mailbox<Handle>,
    tls: ServerConnection,
    is_broken: bool,
}

/// What others ask of a connection's own task.
mod order {
    pub(super) const EXPIRE: u8 = 1;
    pub(super) const REAP: u8 = 2;
    pub(super) const CHECK_POLICY: u8 = 4;
    pub(super) const PING: u8 = 8;
    pub(super) const LAME_DUCK: u8 = 16;
    pub(super) const END: u8 = 32;
    pub(super) const CUT: u8 = 64;
}

/// Why a connection ended; each is counted and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Ended {
    /// The client closed it.
    #[error("closed by the client")]
    ByClient,
    /// The socket or TLS failed.
    #[error("connection lost")]
    Lost,
    /// Not the protocol.
    #[error("protocol error")]
    Protocol,
    /// A payload above the limit.
    #[error("payload above the limit")]
    Payload,
    /// No usable `CONNECT` came first, or in time.
    #[error("no usable CONNECT")]
    NoConnect,
    /// It did not answer our `PING`s.
    #[error("stale: no answer to PING")]
    Stale,
    /// The policy no longer admits it.
    #[error("no longer admitted by the policy")]
    NotAdmitted,
    /// The broker shuts down.
    #[error("shutdown")]
    Shutdown,
}

/// Buffers that all connections of one thread share, each for the length of a turn.
struct Scratch {
    cipher: Box<[u8]>,
    plain: Vec<u8>,
    turn: Turn<Handle>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        cipher: vec![0; READ_BYTES_PER_TURN].into(),
        plain: Vec::with_capacity(READ_BYTES_PER_TURN),
        turn: Turn::default(),
    });
}

impl Peer for Handle {
    fn id(&self) -> ConnId {
        self.0.id
    }

    fn with_mailbox<R>(&self, f: impl FnOnce(&mut Mailbox<Self>) -> R) -> R {
        let connection = &*self.0;
        let mut locked = connection.locked.lock();
        let result = f(&mut locked.mailbox);
        connection.flush(&mut locked);
        connection
            .next_deadline_us
            .store(locked.mailbox.replies.next_deadline_us(), Relaxed);
        if locked.mailbox.has_ended_subscriptions() {
            connection.order(order::REAP);
        }
        result
    }

    fn is_ready(&self) -> bool {
        !self.0.is_long.load(Relaxed)
    }
}

impl std::ops::Deref for Handle {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Handle {
    /// A connection whose handshake has ended.
    pub fn new(
        id: ConnId,
        socket: TcpStream,
        tls: ServerConnection,
        address: SocketAddr,
        identity: Arc<Identity>,
        zone: Option<Arc<str>>,
        now_us: u64,
    ) -> Self {
        Self(Arc::new(Connection {
            id,
            socket,
            address,
            identity,
            zone,
            since_us: now_us,
            locked: Mutex::new(Locked {
                mailbox: Mailbox::default(),
                tls,
                is_broken: false,
            }),
            wake: Notify::new(),
            drained: Notify::new(),
            orders: AtomicU8::new(0),
            is_blocked: AtomicBool::new(false),
            is_long: AtomicBool::new(false),
            is_slow: AtomicBool::new(false),
            next_deadline_us: AtomicU64::new(u64::MAX),
            last_heard_us: AtomicU64::new(now_us),
            pings_unanswered: AtomicU8::new(0),
            is_ready: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            used_since_tick: AtomicBool::new(true),
            about: Mutex::default(),
        }))
    }

    /// Runs the connection until it ends, and accounts for what it leaves. Never fails: an end has a reason.
    pub async fn run(self, broker: &Broker, info: &[u8]) -> Ended {
        let flows = broker.flows.open_book(&Arc::from(self.identity.role.to_string()));
        let zone = self.zone.clone();
        let identity = Arc::clone(&self.identity);
        let mut session = Session::new(self.clone(), identity, zone, Arc::clone(&flows), &broker.world);
        self.with_mailbox(|mailbox| mailbox.outbox.bytes_mut().extend_from_slice(info));
        let ended = self.turns(broker, &mut session, info).await;
        session.end(&broker.world);
        self.has_ended.store(true, Relaxed);
        broker.flows.close_book(&flows);
        self.close(ended != Ended::Lost).await;
        ended
    }

    /// Tells a client that is not admitted why, and closes.
    pub async fn say_and_close(self, words: &[u8]) {
        self.with_mailbox(|mailbox| mailbox.outbox.bytes_mut().extend_from_slice(words));
        self.close(true).await;
    }

    async fn turns(&self, broker: &Broker, session: &mut Session<Self>, info: &[u8]) -> Ended {
        let mut held = Held::default();
        // The handshake may have left bytes that are decrypted already.
        let mut is_readable = true;
        loop {
            let outcome = SCRATCH.with_borrow_mut(|scratch| {
                if let Some(ended) = self.obey(broker, session, info, &mut scratch.turn) {
                    return Err(ended);
                }
                if is_readable {
                    self.turn(broker, session, &mut held, scratch)
                } else {
                    Ok(Did::Nothing)
                }
            });
            let did = match outcome {
                Ok(did) => did,
                Err(ended) => return ended,
            };
            let slow = SCRATCH.with_borrow_mut(|scratch| std::mem::take(&mut scratch.turn.slow));
            for peer in slow {
                peer.wait_until_drained().await;
            }
            is_readable = match did {
                // There may be more: let the other connections of this thread have their turn first.
                Did::ReadAll => {
                    tokio::task::yield_now().await;
                    true
                }
                Did::Read | Did::Nothing => self.wait().await,
            };
        }
    }

    /// Waits for bytes, for room in a full socket, or for an order. Says whether to read.
    async fn wait(&self) -> bool {
        loop {
            let is_blocked = self.is_blocked.load(Relaxed);
            let interest = if is_blocked {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            tokio::select! {
                biased;
                ready = self.socket.ready(interest) => {
                    let Ok(ready) = ready else { return true };
                    if is_blocked && ready.is_writable() {
                        self.flush(&mut self.locked.lock());
                    }
                    if ready.is_readable() || ready.is_read_closed() {
                        return true;
                    }
                }
                () = self.wake.notified() => {
                    if self.orders.load(Relaxed) != 0 {
                        return false;
                    }
                }
            }
        }
    }

    /// Does what others have asked of this connection.
    fn obey(
        &self,
        broker: &Broker,
        session: &mut Session<Self>,
        info: &[u8],
        turn: &mut Turn<Self>,
    ) -> Option<Ended> {
        let orders = self.orders.swap(0, Relaxed);
        if orders == 0 {
            return None;
        }
        if orders & order::EXPIRE != 0 {
            session.expire(broker.clock.now_us());
        }
        if orders & order::REAP != 0 {
            session.reap(&broker.world);
        }
        if orders & order::CHECK_POLICY != 0 {
            if let Next::End(text) = session.begin(&broker.world, turn) {
                return Some(self.end_with(session, turn, text));
            }
            self.log_denials(turn);
            session.finish_control(turn);
        }
        if orders & order::PING != 0 {
            encode::ping(&mut turn.control);
            session.finish_control(turn);
        }
        if orders & order::LAME_DUCK != 0 {
            turn.control.extend_from_slice(&lame_duck(info));
            session.finish_control(turn);
        }
        if orders & order::CUT != 0 {
            let ended = if self.is_ready.load(Relaxed) {
                Ended::Stale
            } else {
                Ended::NoConnect
            };
            self.end_with(session, turn, ErrText::StaleConnection);
            return Some(ended);
        }
        if orders & order::END != 0 {
            return Some(Ended::Shutdown);
        }
        None
    }

    /// Reads once and does all whole operations that there are.
    fn turn(
        &self,
        broker: &Broker,
        session: &mut Session<Self>,
        held: &mut Held,
        scratch: &mut Scratch,
    ) -> Result<Did, Ended> {
        let Scratch { cipher, plain, turn } = scratch;
        // What another connection of this thread left when it broke in the middle of a read is nobody's.
        plain.clear();
        // Only a connection with a part of an operation has a buffer of its own.
        let mut owned = std::mem::take(&mut held.bytes);
        let is_own = !owned.is_empty();
        let buffer = if is_own { &mut owned } else { &mut *plain };
        let (did, is_eof) = self.read(cipher, buffer)?;
        let now_us = broker.clock.now_us();
        if !buffer.is_empty() {
            self.last_heard_us.store(now_us, Relaxed);
            self.pings_unanswered.store(0, Relaxed);
        }
        let mut used = 0;
        let mut end = session.begin(&broker.world, turn);
        while end == Next::GoOn && buffer.len() - used >= held.bytes_wanted.max(1) {
            match decode(
                buffer.get(used..).unwrap_or_default(),
                broker.settings.payload_bytes_max,
            ) {
                Ok(Step::Op(op, bytes)) => {
                    let was_ready = session.is_ready();
                    end = session.handle(&broker.world, buffer, op, turn, now_us);
                    if !was_ready && session.is_ready() {
                        self.note_ready(session.options());
                    }
                    used += bytes;
                    held.bytes_wanted = 0;
                }
                Ok(Step::Incomplete { bytes_wanted }) => held.bytes_wanted = bytes_wanted,
                Err(error) => {
                    broker.count_protocol_error();
                    let who = &self.identity.role;
                    tracing::warn!(connection = self.id.0, sender = %who, %error, "protocol error, connection closed");
                    end = Next::End(error_text(error));
                }
            }
        }
        session.finish(&broker.world, buffer, turn, now_us);
        session.finish_control(turn);
        self.log_denials(turn);
        self.about.lock().subscriptions = session.subscription_count();
        if let Next::End(text) = end {
            return Err(self.end_with(session, turn, text));
        }
        let rest = buffer.get(used..).unwrap_or_default();
        if is_own && !rest.is_empty() {
            owned.drain(..used);
            owned.reserve(held.bytes_wanted.saturating_sub(owned.len()));
            held.bytes = owned;
        } else if !rest.is_empty() {
            let mut bytes = Vec::with_capacity(held.bytes_wanted.max(rest.len()));
            bytes.extend_from_slice(rest);
            held.bytes = bytes;
        }
        if is_eof { Err(Ended::ByClient) } else { Ok(did) }
    }

    /// Reads what the socket has, up to a turn's worth, and appends what it decrypts to. Says also whether that
    /// was the end.
    fn read(&self, cipher: &mut [u8], plain: &mut Vec<u8>) -> Result<(Did, bool), Ended> {
        let (bytes, mut is_eof) = match self.socket.try_read(cipher) {
            Ok(0) => (0, true),
            Ok(bytes) => (bytes, false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (0, false),
            Err(_) => return Err(Ended::Lost),
        };
        let mut rest = cipher.get(..bytes).unwrap_or_default();
        let mut locked = self.locked.lock();
        if locked.is_broken {
            return Err(Ended::Lost);
        }
        loop {
            drain_plaintext(&mut locked.tls, plain).map_err(|_| Ended::Lost)?;
            if rest.is_empty() {
                break;
            }
            locked.tls.read_tls(&mut rest).map_err(|_| Ended::Lost)?;
            let Ok(state) = locked.tls.process_new_packets() else {
                // The alert that says what was wrong.
                self.flush(&mut locked);
                return Err(Ended::Lost);
            };
            is_eof |= state.peer_has_closed();
        }
        if locked.tls.wants_write() {
            self.flush(&mut locked);
        }
        drop(locked);
        let did = if bytes == cipher.len() {
            Did::ReadAll
        } else {
            Did::Read
        };
        Ok((did, is_eof))
    }

    fn end_with(&self, session: &Session<Self>, turn: &mut Turn<Self>, text: ErrText<'_>) -> Ended {
        encode::err(&mut turn.control, text);
        session.finish_control(turn);
        match text {
            ErrText::AuthorizationViolation => Ended::NoConnect,
            ErrText::StaleConnection => Ended::NotAdmitted,
            ErrText::MaximumPayloadViolation => Ended::Payload,
            _ => Ended::Protocol,
        }
    }

    fn note_ready(&self, options: &ConnectOptions) {
        self.is_ready.store(true, Relaxed);
        let shown = |text: &Option<String>| text.as_ref().map(|text| printable(text.as_bytes(), 64));
        let client = shown(&options.lang).map(|lang| match shown(&options.version) {
            Some(version) => format!("{lang} {version}"),
            None => lang,
        });
        let mut about = self.about.lock();
        about.name = shown(&options.name);
        about.client = client;
    }

    fn log_denials(&self, turn: &mut Turn<Self>) {
        for denial in turn.denials.drain(..).take(DENIAL_LINES_PER_TURN_MAX) {
            tracing::warn!(
                connection = self.id.0,
                sender = %self.identity.role,
                action = denial.action,
                subject = denial.subject,
                rule = denial.rule,
                "denied"
            );
        }
    }

    /// Waits, for a bounded time and once, until the outbox is short again.
    async fn wait_until_drained(&self) {
        if self.is_slow.load(Relaxed) {
            return;
        }
        let drained = self.drained.notified();
        if !self.is_long.load(Relaxed) {
            return;
        }
        if tokio::time::timeout(Duration::from_millis(BACK_PRESSURE_MS_MAX), drained)
            .await
            .is_err()
        {
            self.is_slow.store(true, Relaxed);
        }
    }

    /// Closes the socket. With `lingers`, first lets what is in the outbox reach the client, and reads on for a
    /// moment: a socket closed with bytes unread makes the client lose our last words.
    async fn close(&self, lingers: bool) {
        {
            let mut locked = self.locked.lock();
            locked.tls.send_close_notify();
            self.flush(&mut locked);
        }
        if lingers
            && tokio::time::timeout(Duration::from_millis(LINGER_MS_MAX), self.linger())
                .await
                .is_err()
        {
            tracing::debug!(connection = self.id.0, "closed before the client did");
        }
    }

    async fn linger(&self) {
        while self.is_blocked.load(Relaxed) && self.socket.writable().await.is_ok() {
            self.flush(&mut self.locked.lock());
        }
        if rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write).is_err() {
            return;
        }
        let mut unread = [0; 1024];
        while self.socket.readable().await.is_ok() {
            match self.socket.try_read(&mut unread) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

impl Connection {
    /// What the thread's tick asks of the connection, if anything is due.
    pub fn tick(&self, now_us: u64, policy_changed: bool) {
        if now_us >= self.next_deadline_us.load(Relaxed) {
            self.order(order::EXPIRE);
        }
        if policy_changed {
            self.order(order::CHECK_POLICY);
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
        if !self.used_since_tick.swap(false, Relaxed)
            && let Some(mut locked) = self.locked.try_lock()
        {
            locked.mailbox.outbox.shrink();
        }
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
        self.locked.lock().mailbox.replies.len()
    }

    fn order(&self, order: u8) {
        self.orders.fetch_or(order, Relaxed);
        self.wake.notify_one();
    }

    /// Encrypts and writes as much as the socket takes. What remains is the connection's own task's work.
    fn flush(&self, locked: &mut Locked) {
        let Locked {
            mailbox,
            tls,
            is_broken,
        } = locked;
        let outbox = &mut mailbox.outbox;
        if *is_broken {
            outbox.take(outbox.len());
            return;
        }
        if outbox.is_empty() && !tls.wants_write() {
            return;
        }
        self.used_since_tick.store(true, Relaxed);
        let blocked = loop {
            let mut writer = SocketWriter(&self.socket);
            let written = loop {
                if !tls.wants_write() {
                    break Ok(());
                }
                if let Err(error) = tls.write_tls(&mut writer) {
                    break Err(error);
                }
            };
            match written {
                Ok(()) if outbox.is_empty() => break false,
                Ok(()) => {
                    let ahead = outbox.waiting().len().min(ENCRYPTED_AHEAD_BYTES_MAX);
                    let encrypted = tls
                        .writer()
                        .write(outbox.waiting().get(..ahead).unwrap_or_default());
                    outbox.take(encrypted.unwrap_or(0));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break true,
                Err(_) => {
                    *is_broken = true;
                    outbox.take(outbox.len());
                    self.order(order::END);
                    break false;
                }
            }
        };
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

#[derive(Debug, Clone, Copy)]
enum Did {
    /// As much as a turn reads: there may be more.
    ReadAll,
    /// All there was.
    Read,
    /// Nothing was to be read.
    Nothing,
}

/// A part of an operation, kept until the rest of it comes.
#[derive(Debug, Default)]
struct Held {
    bytes: Vec<u8>,
    bytes_wanted: usize,
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

fn drain_plaintext(tls: &mut ServerConnection, plain: &mut Vec<u8>) -> io::Result<()> {
    let mut reader = tls.reader();
    loop {
        let bytes = match reader.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(chunk) => {
                plain.extend_from_slice(chunk);
                chunk.len()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // Closed without close_notify: the socket's own end says the same.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        reader.consume(bytes);
    }
}

const fn error_text(error: DecodeError) -> ErrText<'static> {
    match error {
        DecodeError::PayloadTooLarge { .. } => ErrText::MaximumPayloadViolation,
        _ => ErrText::UnknownProtocolOperation,
    }
}

/// The connection's own INFO, with the lame-duck flag.
fn lame_duck(info: &[u8]) -> Vec<u8> {
    let body = info.strip_suffix(b"}\r\n").unwrap_or(info);
    [body, b",\"ldm\":true}\r\n"].concat()
}
