//! The scenarios in which messages flow one way: senders as fast as their receivers let them, and receivers
//! that check every message.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::bench::board::{Board, Counter, Phase, Player};
use crate::bench::check::{Expected, Frame, fill_payload, number_payload};
use crate::bench::client::{Badge, Link, Target};
use crate::bench::report::{Checked, Report};
use crate::bench::time::{now_ns, seconds_since};
use crate::bench::{BenchError, Options, Progress, Scenario, cast, idle, protocol};

/// Who sends to whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    senders: usize,
    receivers_each: usize,
}

impl Shape {
    /// So many senders, each with a receiver of its own.
    pub(super) const fn pairs(count: usize) -> Self {
        Self {
            senders: count,
            receivers_each: 1,
        }
    }

    /// One sender whose messages all receivers get.
    pub(super) const fn fan_out(receivers: usize) -> Self {
        Self {
            senders: 1,
            receivers_each: receivers,
        }
    }

    const fn receivers(self) -> usize {
        self.senders * self.receivers_each
    }

    /// The receivers of one sender.
    const fn receivers_of(self, sender: usize) -> Range<usize> {
        sender * self.receivers_each..(sender + 1) * self.receivers_each
    }
}

/// Bytes that a sender says at once.
const BATCH_BYTES: usize = 16 << 10;

/// Silence after which what has not arrived is lost, in seconds.
const QUIET_S: f64 = 5.0;

/// Plays it.
pub(super) fn run(
    scenario: Scenario,
    shape: Shape,
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> Result<Report, BenchError> {
    // Counters: what each receiver got; one more than what each sender sent in all, once it has ended.
    let board = Board::new(shape.receivers() + shape.senders);
    let threads = options.threads.max(1);
    let mut players: Vec<Vec<Player>> = (0..threads).map(|_| Vec::new()).collect();
    let mut place = |thread: usize, player: Player| {
        if let Some(players) = players.get_mut(thread % threads) {
            players.push(player);
        }
    };
    for sender in 0..shape.senders {
        let service = cast::sender(sender);
        for receiver in shape.receivers_of(sender) {
            let names = (0..options.names)
                .map(|number| cast::name(sender, number))
                .collect();
            let frame = Frame::new(&service, options.payload_bytes, target.is_exocom);
            let number = u32::try_from(sender).expect("a few");
            let part = Receiver {
                badge: Badge::read(target, &cast::receiver(receiver))?,
                target: target.clone(),
                pattern: cast::pattern(sender),
                expected: Expected::new(number, names, frame),
                board: Arc::clone(&board),
                received: receiver,
                last: shape.receivers() + sender,
            };
            place(sender + receiver + 1, Box::new(move || Box::pin(part.play())));
        }
        let part = Sender {
            badge: Badge::read(target, &service)?,
            target: target.clone(),
            ring: Ring::new(sender, options),
            board: Arc::clone(&board),
            received: shape.receivers_of(sender),
            last: shape.receivers() + sender,
            messages_ahead_max: (options.ahead_bytes / options.payload_bytes).max(2) as u64,
        };
        place(sender, Box::new(move || Box::pin(part.play())));
    }
    let _bystanders = idle::Bystanders::gather(target, options.bystanders)?;
    let measured = board.play(players, 0..shape.receivers(), options, progress)?;
    let count = |counters: Range<usize>| counters.map(|index| board.counter(index).get()).sum();
    Checked {
        sent: count(shape.receivers()..shape.receivers() + shape.senders) - shape.senders as u64,
        received: count(0..shape.receivers()),
        receivers_each: shape.receivers_each as u64,
    }
    .holds()
    .map(|checked| Report::new(scenario, options, measured).checked(checked))
}

/// A sender's messages, encoded once and renumbered each time round: one for each name, or several.
struct Ring {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    /// Where each message's payload begins.
    payloads: Vec<usize>,
    payload_bytes: usize,
    sender: u32,
    names: u64,
    /// The message that is next.
    next: usize,
    sent: u64,
}

impl Ring {
    fn new(sender: usize, options: &Options) -> Self {
        let rounds = (2 * BATCH_BYTES / (options.names * options.payload_bytes)).max(1);
        let mut ring = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            payloads: Vec::new(),
            payload_bytes: options.payload_bytes,
            sender: u32::try_from(sender).expect("a few"),
            names: options.names as u64,
            next: 0,
            sent: 0,
        };
        for number in (0..rounds).flat_map(|_| 0..options.names) {
            let name = cast::name(sender, number);
            let payload = protocol::publish(&mut ring.bytes, &name, None, options.payload_bytes);
            if let Some(payload) = ring.bytes.get_mut(payload..payload + options.payload_bytes) {
                fill_payload(payload);
            }
            ring.payloads.push(payload);
            ring.ends.push(ring.bytes.len());
        }
        ring
    }

    /// Appends up to so many messages, and not much more than a batch. Says how many.
    fn write(&mut self, out: &mut Vec<u8>, messages_max: u64) -> u64 {
        let mut written = 0;
        while written < messages_max && out.len() < BATCH_BYTES {
            let start = self.next.checked_sub(1).and_then(|last| self.ends.get(last));
            let first = start.copied().unwrap_or(0);
            // As many in one copy as there is room for.
            let mut end = first;
            while written < messages_max && out.len() + (end - first) < BATCH_BYTES {
                let (Some(&next_end), Some(&payload)) =
                    (self.ends.get(self.next), self.payloads.get(self.next))
                else {
                    break;
                };
                if let Some(payload) = self.bytes.get_mut(payload..payload + self.payload_bytes) {
                    let name = u32::try_from(self.sent % self.names).unwrap_or(0);
                    number_payload(payload, self.sender, name, self.sent / self.names);
                }
                end = next_end;
                self.next += 1;
                self.sent += 1;
                written += 1;
            }
            out.extend_from_slice(self.bytes.get(first..end).unwrap_or_default());
            if self.next == self.ends.len() {
                self.next = 0;
            }
        }
        written
    }
}

struct Sender {
    badge: Badge,
    target: Target,
    ring: Ring,
    board: Arc<Board>,
    received: Range<usize>,
    last: usize,
    messages_ahead_max: u64,
}

impl Sender {
    async fn play(mut self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        let board = Arc::clone(&self.board);
        board.ready().await;
        let mut nothing =
            |_: protocol::Message<'_>, _: &mut Vec<u8>| Err("a message for a sender".to_owned());
        while board.phase() == Phase::Play {
            let ahead = self.ring.sent - self.slowest();
            let room = self.messages_ahead_max.saturating_sub(ahead);
            if room == 0 {
                // Not for each message that arrives, but when there is room for a good part of a batch.
                let due = self.ring.sent - self.messages_ahead_max * 3 / 4;
                link.turn(&mut nothing)?;
                self.reaches(&link, due).await?;
                continue;
            }
            self.ring.write(link.out(), room);
            while !link.flush()? {
                link.turn(&mut nothing)?;
                link.writable().await?;
            }
            // The receivers on this thread have their turn.
            tokio::task::yield_now().await;
        }
        link.until_pong(nothing).await?;
        board.counter(self.last).set(self.ring.sent + 1);
        board.drained().await;
        Ok(())
    }

    fn slowest(&self) -> u64 {
        self.received
            .clone()
            .map(|receiver| self.board.counter(receiver).get())
            .min()
            .unwrap_or(0)
    }

    /// Waits until all receivers have so many, or the server says something, or the run is over.
    async fn reaches(&self, link: &Link, count: u64) -> Result<(), BenchError> {
        let all = async {
            for receiver in self.received.clone() {
                self.board.counter(receiver).reaches(count).await;
            }
        };
        tokio::select! {
            () = all => Ok(()),
            () = self.board.reaches(Phase::Drain) => Ok(()),
            readable = link.readable() => readable,
        }
    }
}

struct Receiver {
    badge: Badge,
    target: Target,
    pattern: String,
    expected: Expected,
    board: Arc<Board>,
    received: usize,
    last: usize,
}

impl Receiver {
    async fn play(mut self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        link.subscribe(&self.pattern, 1).await?;
        let board = Arc::clone(&self.board);
        let received = board.counter(self.received);
        board.ready().await;
        let over = board.reaches(Phase::Drain);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                readable = link.readable() => readable?,
                () = &mut over => break,
            }
            self.hear(&mut link, received)?;
        }
        self.drain(&mut link, received).await?;
        board.drained().await;
        // Whatever is delivered twice comes before this PONG at the latest.
        link.until_pong(|message, _| self.expected.check(&message))
            .await?;
        received.set(self.expected.count());
        Ok(())
    }

    fn hear(&mut self, link: &mut Link, received: &Counter) -> Result<bool, BenchError> {
        let heard =
            link.turn(&mut |message: protocol::Message<'_>, _: &mut Vec<u8>| self.expected.check(&message))?;
        if heard.bytes > 0 {
            received.set(self.expected.count());
            // Nothing to say but the answer to a PING.
            link.flush()?;
        }
        Ok(heard.bytes > 0)
    }

    /// Receives what is on its way: all that the sender says it sent.
    async fn drain(&mut self, link: &mut Link, received: &Counter) -> Result<(), BenchError> {
        let mut quiet_since_ns = now_ns();
        loop {
            let last = self.board.counter(self.last).get();
            let count = self.expected.count();
            if last > 0 && count >= last - 1 {
                return Ok(());
            }
            if self.hear(link, received)? {
                quiet_since_ns = now_ns();
            } else if seconds_since(quiet_since_ns) > QUIET_S {
                return Err(BenchError::Violation {
                    who: cast::receiver(self.received),
                    seen: format!(
                        "{count} messages arrived of {} sent; nothing more for {QUIET_S} s",
                        last.saturating_sub(1)
                    ),
                });
            }
            // Also looks again at what the sender says.
            drop(tokio::time::timeout(Duration::from_millis(10), link.readable()).await);
        }
    }
}
