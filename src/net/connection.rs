//! One client's connection after its handshake: reads turns, runs its session, does what others order.
//!
//! This is the connection's own task. It alone reads; it writes only what a publisher could not because the
//! socket was full. See [`Handle`] for what other threads do with a connection.

use std::cell::RefCell;
use std::io::{self, BufRead};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustls::ServerConnection;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::audit::intake::Denied;
use crate::exchange::mailbox::Peer;
use crate::exchange::options::ConnectOptions;
use crate::exchange::session::{Next, Session};
use crate::exchange::turn::Turn;
use crate::limits::{
    BACKLOG_BYTES, NAME_BYTES_MAX, OPERATION_BYTES_PER_S_MIN, OPERATION_MS_MAX, READ_BYTES_PER_TURN,
    READ_BYTES_PER_TURN_MAX, TURNS_IN_A_ROW_MAX,
};
use crate::net::broker::Broker;
use crate::net::handle::{Handle, Io, order, wait_until_drained};
use crate::wire::decode::{DecodeError, Step, decode};
use crate::wire::encode::{self, ErrText};
use crate::wire::printable;

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
    /// An operation began and did not end.
    #[error("too slow: an operation that did not end")]
    TooSlow,
    /// It did not answer our `PING`s.
    #[error("stale: no answer to PING")]
    Stale,
    /// Its certificate would be refused today, by this rule.
    #[error("authority ended: {0}")]
    NoAuthority(&'static str),
    /// The policy no longer admits it.
    #[error("no longer admitted by the policy")]
    NotAdmitted,
    /// The broker shuts down.
    #[error("shutdown")]
    Shutdown,
}

/// Buffers that all connections of one thread share, each for the length of a turn. What another left in them, where
/// it was cut off in its middle, is nobody's.
struct Scratch {
    cipher: Box<[u8]>,
    plain: Vec<u8>,
    turn: Turn<Handle>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        cipher: vec![0; READ_BYTES_PER_TURN_MAX].into(),
        plain: Vec::with_capacity(READ_BYTES_PER_TURN_MAX),
        turn: Turn::default(),
    });
}

impl Handle {
    /// Runs the connection until it ends, and accounts for what it leaves. Never fails: an end has a reason.
    pub async fn run(self, broker: &Broker, info: &[u8]) -> Ended {
        let flows = broker
            .flows
            .open_book(&Arc::from(self.identity.role.to_string()), self.id.0);
        let zone = self.zone.clone();
        let identity = Arc::clone(&self.identity);
        let mut session = Session::new(
            self.clone(),
            identity,
            zone,
            Arc::clone(&flows),
            Arc::clone(&self.share),
            &broker.world,
        );
        self.with_mailbox(|mailbox| mailbox.outbox.bytes_mut().extend_from_slice(info));
        let ended = match self.socket() {
            Some(socket) => self.turns(broker, &mut session, info, &socket).await,
            None => Ended::Lost,
        };
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

    async fn turns(
        &self,
        broker: &Broker,
        session: &mut Session<Self>,
        info: &[u8],
        socket: &TcpStream,
    ) -> Ended {
        let mut held = Held::default();
        let mut turns_in_a_row = 0;
        // The handshake may have left bytes that are decrypted already.
        let mut is_readable = true;
        loop {
            let (outcome, slow) = SCRATCH.with_borrow_mut(|scratch| {
                scratch.plain.clear();
                scratch.turn.reset();
                let outcome = match self.obey(broker, session, info, &mut scratch.turn) {
                    Some(ended) => Err(ended),
                    None if is_readable => self.turn(broker, session, &mut held, scratch, socket),
                    None => Ok(Did::Nothing),
                };
                (outcome, std::mem::take(&mut scratch.turn.slow))
            });
            let did = match outcome {
                Ok(did) => did,
                Err(ended) => return ended,
            };
            if !slow.is_empty() {
                wait_until_drained(&slow).await;
            }
            is_readable = match did {
                // There may be more.
                Did::ReadAll if !self.is_stuffed.load(Relaxed) => {
                    turns_in_a_row += 1;
                    if turns_in_a_row >= TURNS_IN_A_ROW_MAX {
                        turns_in_a_row = 0;
                        // Let the other connections of this thread have their turn first.
                        tokio::task::yield_now().await;
                    }
                    true
                }
                _ => {
                    turns_in_a_row = 0;
                    self.wait(socket).await
                }
            };
        }
    }

    /// Waits for bytes, for room in a full socket, or for an order. Says whether to read. A client that does not
    /// read the answers to what it does is not read either: further answers would go into memory.
    async fn wait(&self, socket: &TcpStream) -> bool {
        loop {
            let is_blocked = self.is_blocked.load(Relaxed);
            let interest = match (is_blocked, self.is_stuffed.load(Relaxed)) {
                (false, _) => Interest::READABLE,
                (true, false) => Interest::READABLE | Interest::WRITABLE,
                (true, true) => Interest::WRITABLE,
            };
            tokio::select! {
                biased;
                ready = socket.ready(interest) => {
                    let Ok(ready) = ready else { return true };
                    if is_blocked && ready.is_writable() {
                        self.write_on();
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
        if orders & order::NO_AUTHORITY != 0
            && let Some(refused) = self.lost_authority.lock().take()
        {
            if let Some(withheld) = self.share.connection_lines.take(broker.clock.now_us()) {
                tracing::warn!(
                    connection = self.id.0, sender = %self.identity.role, serial = %self.identity.serial,
                    rule = refused.rule, withheld = told(withheld), "authority ended, connection closed: {}",
                    refused.message
                );
            }
            self.end_with(session, turn, ErrText::StaleConnection);
            return Some(Ended::NoAuthority(refused.rule));
        }
        if orders & order::EXPIRE != 0 {
            session.expire(broker.clock.now_us());
        }
        if orders & order::REAP != 0 {
            session.reap(&broker.world);
        }
        if orders & order::CHECK_POLICY != 0 {
            if let Next::End(text) = session.begin(&broker.world, turn, broker.clock.now_us()) {
                return Some(self.end_with(session, turn, text));
            }
            self.log_denials(broker, turn, broker.clock.now_us());
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
        if orders & order::TOO_SLOW != 0 {
            self.end_with(session, turn, ErrText::StaleConnection);
            return Some(Ended::TooSlow);
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
            let is_broken = self.io.lock().is_none();
            return Some(if is_broken { Ended::Lost } else { Ended::Shutdown });
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
        socket: &TcpStream,
    ) -> Result<Did, Ended> {
        let Scratch { cipher, plain, turn } = scratch;
        // Only a connection with a part of an operation has a buffer of its own.
        let mut owned = std::mem::take(&mut held.bytes);
        let is_own = !owned.is_empty();
        let buffer = if is_own { &mut owned } else { &mut *plain };
        let bytes_before = buffer.len();
        let bytes_max = match held.is_streaming && has_backlog(socket) {
            true => READ_BYTES_PER_TURN_MAX,
            false => READ_BYTES_PER_TURN,
        };
        let cipher = cipher.get_mut(..bytes_max).unwrap_or_default();
        let (bytes, is_eof) = self.read(socket, cipher, buffer)?;
        held.is_streaming = bytes >= READ_BYTES_PER_TURN;
        let now_us = broker.clock.now_us();
        if buffer.len() > bytes_before {
            self.last_heard_us.store(now_us, Relaxed);
            self.pings_unanswered.store(0, Relaxed);
        }
        let mut used = 0;
        let mut end = session.begin(&broker.world, turn, now_us);
        while end == Next::GoOn && buffer.len() - used >= held.bytes_wanted.max(1) {
            let rest = buffer.get(used..).unwrap_or_default();
            if !rest.first().is_some_and(|&byte| session.may_begin_with(byte)) {
                end = Next::End(ErrText::AuthorizationViolation);
                break;
            }
            match decode(rest, broker.settings.payload_bytes_max) {
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
                    if let Some(withheld) = self.share.connection_lines.take(now_us) {
                        let (who, withheld) = (&self.identity.role, told(withheld));
                        tracing::warn!(
                            connection = self.id.0, sender = %who, %error, withheld,
                            "protocol error, connection closed"
                        );
                    }
                    end = Next::End(error_text(error));
                }
            }
        }
        session.finish(&broker.world, buffer, turn, now_us);
        session.finish_control(turn);
        self.log_denials(broker, turn, now_us);
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
        if used > 0 || !is_own {
            held.since_us = now_us;
        }
        self.operation_deadline_us.store(held.deadline_us(), Relaxed);
        match (is_eof, bytes == bytes_max) {
            (true, _) => Err(Ended::ByClient),
            (false, true) => Ok(Did::ReadAll),
            (false, false) => Ok(Did::Read),
        }
    }

    /// Reads what the socket has, up to a turn's worth, and appends what it decrypts to. Says how many bytes came, and
    /// whether that was the end.
    fn read(
        &self,
        socket: &TcpStream,
        cipher: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<(usize, bool), Ended> {
        let (bytes, mut is_eof) = read_once(socket, cipher).map_err(|_| Ended::Lost)?;
        let mut rest = cipher.get(..bytes).unwrap_or_default();
        let mut io = self.io.lock();
        let Some(Io { tls, .. }) = &mut *io else {
            return Err(Ended::Lost);
        };
        loop {
            drain_plaintext(tls, plain).map_err(|_| Ended::Lost)?;
            if rest.is_empty() {
                break;
            }
            tls.read_tls(&mut rest).map_err(|_| Ended::Lost)?;
            let Ok(state) = tls.process_new_packets() else {
                drop(io);
                // The alert that says what was wrong.
                self.write_on();
                return Err(Ended::Lost);
            };
            is_eof |= state.peer_has_closed();
        }
        let wants_write = tls.wants_write();
        drop(io);
        if wants_write {
            self.write_on();
        }
        Ok((bytes, is_eof))
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

    fn log_denials(&self, broker: &Broker, turn: &mut Turn<Self>, now_us: u64) {
        if let Some(audit) = broker.audit.as_ref().filter(|_| !turn.denied.is_empty()) {
            let (sender, policy) = (self.identity.role.to_string(), broker.world.policy());
            for denied in &turn.denied {
                audit.deny(&Denied {
                    sender: &sender,
                    connection: self.id.0,
                    action: denied.action,
                    subject: &printable(&denied.subject, NAME_BYTES_MAX),
                    rule: &denied.rule,
                    policy: policy.version(),
                    count: denied.count,
                });
            }
        }
        turn.denied.clear();
        let lines = &self.share.denial_lines;
        for denial in turn.denials.drain(..) {
            let Some(withheld) = lines.take(now_us) else {
                continue;
            };
            tracing::warn!(
                connection = self.id.0,
                sender = %self.identity.role,
                action = denial.action,
                subject = denial.subject,
                rule = denial.rule,
                withheld = told(withheld),
                "denied"
            );
        }
        lines.withhold(std::mem::take(&mut turn.denials_unsaid));
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

/// What a connection keeps from one turn to the next: above all a part of an operation, until the rest of it comes.
#[derive(Debug, Default)]
struct Held {
    /// The last turn read as much as a turn reads of most clients.
    is_streaming: bool,
    bytes: Vec<u8>,
    bytes_wanted: usize,
    /// When its first byte came.
    since_us: u64,
}

impl Held {
    /// When it must be whole.
    fn deadline_us(&self) -> u64 {
        if self.bytes.is_empty() {
            return u64::MAX;
        }
        let transfer_us = (self.bytes_wanted as u64).saturating_mul(1_000_000) / OPERATION_BYTES_PER_S_MIN;
        self.since_us
            .saturating_add(OPERATION_MS_MAX * 1000)
            .saturating_add(transfer_us)
    }
}

/// Whether so much waits to be read that a client's window will not end in it.
fn has_backlog(socket: &TcpStream) -> bool {
    rustix::io::ioctl_fionread(socket).is_ok_and(|bytes| bytes >= BACKLOG_BYTES)
}

/// Reads once. Says how many bytes came, and whether that was the end.
fn read_once(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
    let mut read = 0;
    let done = socket.try_io(Interest::READABLE, || {
        read = rustix::io::read(socket, &mut *buffer)?;
        if 0 < read && read < buffer.len() {
            // All there was. To say so saves the read that would find nothing: the system tells of what comes later.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    });
    match done {
        Ok(()) => Ok((read, read == 0)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((read, false)),
        Err(error) => Err(error),
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

/// How many lines were withheld before this one, where there were some.
pub(super) fn told(withheld: u64) -> Option<u64> {
    (withheld > 0).then_some(withheld)
}

/// The connection's own INFO, with the lame-duck flag.
fn lame_duck(info: &[u8]) -> Vec<u8> {
    let body = info.strip_suffix(b"}\r\n").unwrap_or(info);
    [body, b",\"ldm\":true}\r\n"].concat()
}
