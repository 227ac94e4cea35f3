//! The scenarios of requests and replies: one service asks, another answers with what it was asked, and so many
//! questions are on their way at any time.

use std::sync::{Arc, OnceLock};

use hdrhistogram::Histogram;

use crate::bench::board::{Board, Phase, Player};
use crate::bench::check::{Frame, fill_payload, number_payload};
use crate::bench::client::{Badge, Link, Target};
use crate::bench::report::{Checked, Latency, Report};
use crate::bench::time::now_ns;
use crate::bench::{BenchError, Options, Progress, Scenario, cast, idle, protocol};

/// Counters of the board.
const ANSWERED: usize = 0;
const ASKED: usize = 1;

/// Plays it.
pub(super) fn run(
    scenario: Scenario,
    in_flight: usize,
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> Result<Report, BenchError> {
    let board = Board::new(2);
    let result = Arc::new(OnceLock::new());
    let requester = Requester {
        badge: Badge::read(target, cast::REQUESTER)?,
        target: target.clone(),
        desk: Desk::new(in_flight, options.payload_bytes, target.is_exocom),
        board: Arc::clone(&board),
        result: Arc::clone(&result),
    };
    let responder = Responder {
        badge: Badge::read(target, cast::RESPONDER)?,
        target: target.clone(),
        frame: Frame::new(cast::REQUESTER, options.payload_bytes, target.is_exocom),
        board: Arc::clone(&board),
    };
    let requester: Player = Box::new(move || Box::pin(requester.play()));
    let responder: Player = Box::new(move || Box::pin(responder.play()));
    let players = if options.threads > 1 {
        vec![vec![requester], vec![responder]]
    } else {
        vec![vec![requester, responder]]
    };
    let _bystanders = idle::Bystanders::gather(target, options.bystanders)?;
    let measured = board.play(players, ANSWERED..ANSWERED + 1, options, progress)?;
    let latency = result.get().map(Latency::of);
    Checked {
        sent: board.counter(ASKED).get(),
        received: board.counter(ANSWERED).get(),
        receivers_each: 1,
    }
    .holds()
    .map(|checked| {
        Report::new(scenario, options, measured)
            .checked(checked)
            .with_latency(latency)
    })
}

/// The questions on their way.
struct Desk {
    slots: Vec<Slot>,
    frame: Frame,
    asked: u64,
    answered: u64,
    histogram: Histogram<u64>,
    /// When what is heard in this turn arrived.
    turn_ns: u64,
    measures: bool,
    asks_on: bool,
}

struct Slot {
    /// The whole question, encoded once.
    bytes: Vec<u8>,
    payload: usize,
    /// The number of the question on its way.
    waits_for: Option<u64>,
    asked_ns: u64,
}

impl Desk {
    fn new(in_flight: usize, payload_bytes: usize, is_stamped: bool) -> Self {
        let slot = |index: usize| {
            let mut bytes = Vec::new();
            let inbox = format!("{}{index}", cast::INBOX);
            let payload = protocol::publish(&mut bytes, cast::ASK, Some(&inbox), payload_bytes);
            if let Some(payload) = bytes.get_mut(payload..payload + payload_bytes) {
                fill_payload(payload);
            }
            Slot {
                bytes,
                payload,
                waits_for: None,
                asked_ns: 0,
            }
        };
        Self {
            slots: (0..in_flight).map(slot).collect(),
            frame: Frame::new(cast::RESPONDER, payload_bytes, is_stamped),
            asked: 0,
            answered: 0,
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a fixed range"),
            turn_ns: 0,
            measures: false,
            asks_on: true,
        }
    }

    fn ask(&mut self, index: usize, out: &mut Vec<u8>) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(payload) = slot.bytes.get_mut(slot.payload..) {
            number_payload(payload, 0, u32::try_from(index).unwrap_or(0), self.asked);
        }
        slot.waits_for = Some(self.asked);
        slot.asked_ns = self.turn_ns;
        self.asked += 1;
        out.extend_from_slice(&slot.bytes);
    }

    /// Takes an answer, and asks the next question in its place.
    fn take(&mut self, message: &protocol::Message<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let (_, _, number) = self.frame.check(message)?;
        let subject = message.subject;
        let index = subject
            .strip_prefix(cast::INBOX.as_bytes())
            .and_then(protocol::number)
            .filter(|&index| index < self.slots.len())
            .ok_or_else(|| format!("an answer on {}", subject.escape_ascii()))?;
        let slot = self.slots.get_mut(index).expect("checked above");
        if slot.waits_for.take() != Some(number) {
            return Err(format!(
                "answer {number} on {}, where it is not awaited",
                subject.escape_ascii()
            ));
        }
        self.answered += 1;
        if self.measures {
            self.histogram
                .saturating_record(self.turn_ns.saturating_sub(slot.asked_ns));
        }
        if self.asks_on {
            self.ask(index, out);
        }
        Ok(())
    }
}

struct Requester {
    badge: Badge,
    target: Target,
    desk: Desk,
    board: Arc<Board>,
    result: Arc<OnceLock<Histogram<u64>>>,
}

impl Requester {
    async fn play(mut self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        link.subscribe(&format!("{}*", cast::INBOX), 1).await?;
        let board = Arc::clone(&self.board);
        board.ready().await;
        let desk = &mut self.desk;
        desk.turn_ns = now_ns();
        for index in 0..desk.slots.len() {
            desk.ask(index, link.out());
        }
        link.write_all().await?;
        while desk.answered < desk.asked {
            link.readable().await?;
            desk.turn_ns = now_ns();
            desk.measures = board.measures.load(std::sync::atomic::Ordering::Relaxed);
            desk.asks_on = board.phase() == Phase::Play;
            link.turn(&mut |message: protocol::Message<'_>, out: &mut Vec<u8>| desk.take(&message, out))?;
            board.counter(ANSWERED).set(desk.answered);
            link.write_all().await?;
        }
        board.counter(ASKED).set(desk.asked);
        board.drained().await;
        link.until_pong(|message, out| desk.take(&message, out)).await?;
        // Nobody else sets it.
        drop(self.result.set(self.desk.histogram));
        Ok(())
    }
}

struct Responder {
    badge: Badge,
    target: Target,
    frame: Frame,
    board: Arc<Board>,
}

impl Responder {
    async fn play(self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        link.subscribe(cast::ASK, 1).await?;
        self.board.ready().await;
        let mut next = 0;
        let mut answer = |message: protocol::Message<'_>, out: &mut Vec<u8>| {
            let (_, _, number) = self.frame.check(&message)?;
            if number != next {
                return Err(format!("question {number} instead of {next}"));
            }
            next += 1;
            let reply = message.reply.ok_or("a question without a reply subject")?;
            let mut size = itoa::Buffer::new();
            for part in [
                b"PUB ",
                reply,
                b" ",
                size.format(message.payload.len()).as_bytes(),
                b"\r\n",
            ] {
                out.extend_from_slice(part);
            }
            out.extend_from_slice(message.payload);
            out.extend_from_slice(b"\r\n");
            Ok(())
        };
        let over = self.board.drained();
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                readable = link.readable() => readable?,
                () = &mut over => break,
            }
            link.turn(&mut answer)?;
            link.write_all().await?;
        }
        link.until_pong(answer).await
    }
}
