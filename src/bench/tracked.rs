//! The scenarios of tracked messages: one service publishes, with so many on their way, and each counts when the
//! broker says that it is stored. In scenario `e`, another service receives and acknowledges them, and each counts
//! then.
//!
//! Against another NATS server the messages go to a JetStream stream in a file, which is made anew for each run. How
//! often it is written to disk is that server's configuration.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use hdrhistogram::Histogram;
use memchr::memmem;

use crate::bench::board::{Board, Phase, Player};
use crate::bench::check::{Frame, fill_payload, number_payload};
use crate::bench::client::{Badge, Link, Target};
use crate::bench::report::{Checked, Latency, Report};
use crate::bench::time::now_ns;
use crate::bench::{BenchError, Options, Progress, Scenario, cast, protocol};

/// Counters of the board.
const STORED: usize = 0;
const SENT: usize = 1;
const RECEIVED: usize = 2;

/// Plays it. `is_received`: whether somebody receives what is stored.
pub(super) fn run(
    scenario: Scenario,
    in_flight: usize,
    is_received: bool,
    target: &Target,
    options: &Options,
    progress: &Progress,
) -> Result<Report, BenchError> {
    let board = Board::new(3);
    let result = Arc::new(OnceLock::new());
    let publisher = Publisher {
        badge: Badge::read(target, cast::PUBLISHER)?,
        target: target.clone(),
        desk: Desk::new(in_flight, options.payload_bytes, is_received),
        board: Arc::clone(&board),
        in_flight: is_received.then_some(in_flight as u64),
        result: Arc::clone(&result),
    };
    let publisher: Player = Box::new(move || Box::pin(publisher.play()));
    let mut players = vec![vec![publisher]];
    if is_received {
        let worker = Worker {
            badge: Badge::read(target, cast::WORKER)?,
            target: target.clone(),
            frame: Frame::new(cast::PUBLISHER, options.payload_bytes, target.is_exocom),
            board: Arc::clone(&board),
        };
        let worker: Player = Box::new(move || Box::pin(worker.play()));
        match players.first_mut() {
            Some(first) if options.threads < 2 => first.push(worker),
            _ => players.push(vec![worker]),
        }
    }
    let counted = if is_received { RECEIVED } else { STORED };
    let measured = board.play(players, counted..counted + 1, options, progress)?;
    Checked {
        sent: board.counter(SENT).get(),
        received: board.counter(counted).get(),
        receivers_each: 1,
    }
    .holds()
    .map(|checked| {
        Report::new(scenario, options, measured)
            .checked(checked)
            .with_latency(result.get().map(Latency::of))
    })
}

/// The messages on their way to the store.
struct Desk {
    slots: Vec<Slot>,
    free: Vec<usize>,
    sent: u64,
    stored: u64,
    last_seq: u64,
    histogram: Histogram<u64>,
    /// When what is heard in this turn arrived.
    turn_ns: u64,
    measures: bool,
}

struct Slot {
    /// The whole message, encoded once.
    bytes: Vec<u8>,
    payload: usize,
    is_awaited: bool,
    sent_ns: u64,
}

impl Desk {
    fn new(in_flight: usize, payload_bytes: usize, is_received: bool) -> Self {
        let slot = |index: usize| {
            let mut bytes = Vec::new();
            let name = if is_received {
                cast::WORK.to_owned()
            } else {
                cast::kept_name(index)
            };
            let inbox = format!("{}{index}", cast::INBOX);
            let payload = protocol::publish(&mut bytes, &name, Some(&inbox), payload_bytes);
            if let Some(payload) = bytes.get_mut(payload..payload + payload_bytes) {
                fill_payload(payload);
            }
            Slot {
                bytes,
                payload,
                is_awaited: false,
                sent_ns: 0,
            }
        };
        Self {
            slots: (0..in_flight).map(slot).collect(),
            free: (0..in_flight).rev().collect(),
            sent: 0,
            stored: 0,
            last_seq: 0,
            histogram: Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("a fixed range"),
            turn_ns: 0,
            measures: false,
        }
    }

    /// Sends one message. Says whether there was a free slot.
    fn send(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(index) = self.free.pop() else {
            return false;
        };
        let slot = self.slots.get_mut(index).expect("free slots exist");
        if let Some(payload) = slot.bytes.get_mut(slot.payload..) {
            number_payload(payload, 0, 0, self.sent);
        }
        slot.is_awaited = true;
        slot.sent_ns = self.turn_ns;
        self.sent += 1;
        out.extend_from_slice(&slot.bytes);
        true
    }

    /// Takes the word that a message is stored.
    fn take(&mut self, message: &protocol::Message<'_>) -> Result<(), String> {
        let subject = message.subject;
        let index = subject
            .strip_prefix(cast::INBOX.as_bytes())
            .and_then(protocol::number);
        let slot = index.and_then(|index| Some((index, self.slots.get_mut(index)?)));
        let Some((index, slot)) = slot.filter(|(_, slot)| slot.is_awaited) else {
            return Err(format!(
                "an answer on {}, where none is awaited",
                subject.escape_ascii()
            ));
        };
        let seq = stored_seq(message)?;
        if seq <= self.last_seq {
            return Err(format!("message {seq} is stored after message {}", self.last_seq));
        }
        self.last_seq = seq;
        slot.is_awaited = false;
        self.stored += 1;
        self.free.push(index);
        if self.measures {
            self.histogram
                .saturating_record(self.turn_ns.saturating_sub(slot.sent_ns));
        }
        Ok(())
    }
}

/// The sequence in the word that a message is stored.
fn stored_seq(message: &protocol::Message<'_>) -> Result<u64, String> {
    let text = || message.payload.escape_ascii().to_string();
    if !message.headers.is_empty() {
        return Err(format!(
            "a message is refused: {}. Is the store full? Then take fewer --seconds, or a broker with larger bounds",
            message.headers.escape_ascii()
        ));
    }
    if memmem::find(message.payload, b"\"duplicate\"").is_some() {
        return Err(format!("a message without an id is a duplicate: {}", text()));
    }
    let key = b"\"seq\":";
    let rest = memmem::find(message.payload, key).and_then(|at| message.payload.get(at + key.len()..));
    let digits = rest.unwrap_or_default().trim_ascii_start();
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    protocol::number(digits.get(..length).unwrap_or_default())
        .map(|seq| seq as u64)
        .ok_or_else(|| format!("not the word that a message is stored: {}", text()))
}

struct Publisher {
    badge: Badge,
    target: Target,
    desk: Desk,
    board: Arc<Board>,
    /// Where somebody receives: how many it may be behind.
    in_flight: Option<u64>,
    result: Arc<OnceLock<Histogram<u64>>>,
}

impl Publisher {
    async fn play(mut self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        link.subscribe(&format!("{}*", cast::INBOX), 1).await?;
        if !self.target.is_exocom {
            make_stream(&mut link, self.in_flight).await?;
        }
        let board = Arc::clone(&self.board);
        board.ready().await;
        let desk = &mut self.desk;
        let received = board.counter(RECEIVED);
        loop {
            desk.turn_ns = now_ns();
            let sends_on = board.phase() == Phase::Play;
            let may_send = |sent: u64| {
                let room = self.in_flight.is_none_or(|count| sent < received.get() + count);
                sends_on && room
            };
            while may_send(desk.sent) && desk.send(link.out()) {}
            link.write_all().await?;
            if !sends_on && desk.stored == desk.sent {
                break;
            }
            let lags = self
                .in_flight
                .map_or(u64::MAX, |count| (desk.sent + 1).saturating_sub(count));
            tokio::select! {
                biased;
                readable = link.readable() => readable?,
                () = received.reaches(lags), if sends_on && !desk.free.is_empty() => {}
            }
            desk.turn_ns = now_ns();
            desk.measures = board.measures.load(Relaxed);
            link.turn(&mut |message: protocol::Message<'_>, _: &mut Vec<u8>| desk.take(&message))?;
            board.counter(STORED).set(desk.stored);
        }
        board.counter(SENT).set(desk.sent);
        if self.in_flight.is_some() {
            received.reaches(desk.sent).await;
        }
        board.drained().await;
        link.until_pong(|message, _| desk.take(&message)).await?;
        // Nobody else sets it.
        drop(self.result.set(self.desk.histogram));
        Ok(())
    }
}

/// Makes the stream anew and, where somebody receives, its consumer.
async fn make_stream(link: &mut Link, in_flight: Option<u64>) -> Result<(), BenchError> {
    let stream = cast::STREAM;
    // There may be none from an earlier run.
    ask(link, &format!("$JS.API.STREAM.DELETE.{stream}"), "").await?;
    // Like the store of ExoCom: what is acknowledged goes.
    let retention = if in_flight.is_some() {
        "workqueue"
    } else {
        "limits"
    };
    let config = format!(
        r#"{{"name":"{stream}","subjects":["{}","{}"],"retention":"{retention}","storage":"file","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_age":0,"discard":"new"}}"#,
        cast::KEPT_PATTERN,
        cast::WORK
    );
    made(link, &format!("$JS.API.STREAM.CREATE.{stream}"), &config).await?;
    let Some(in_flight) = in_flight else { return Ok(()) };
    let (consumer, deliver) = (cast::CONSUMER, cast::DELIVER);
    let config = format!(
        r#"{{"stream_name":"{stream}","config":{{"name":"{consumer}","durable_name":"{consumer}","deliver_subject":"{deliver}","ack_policy":"explicit","deliver_policy":"all","max_ack_pending":{in_flight}}}}}"#
    );
    made(
        link,
        &format!("$JS.API.CONSUMER.CREATE.{stream}.{consumer}"),
        &config,
    )
    .await
}

async fn made(link: &mut Link, subject: &str, body: &str) -> Result<(), BenchError> {
    let answer = ask(link, subject, body).await?;
    if answer.is_empty() || answer.contains("\"error\"") {
        return Err(BenchError::Fixture(format!(
            "{subject} is answered by {answer:?}; is JetStream enabled there, and may {} use it?",
            cast::PUBLISHER
        )));
    }
    Ok(())
}

/// One request of JetStream's interface, and its answer.
async fn ask(link: &mut Link, subject: &str, body: &str) -> Result<String, BenchError> {
    let line = format!("PUB {subject} {}api {}\r\n{body}\r\n", cast::INBOX, body.len());
    link.out().extend_from_slice(line.as_bytes());
    let mut answer = None;
    while answer.is_none() {
        link.write_all().await?;
        link.readable().await?;
        link.turn(&mut |message: protocol::Message<'_>, _: &mut Vec<u8>| {
            answer = Some(String::from_utf8_lossy(message.payload).into_owned());
            Ok(())
        })?;
    }
    Ok(answer.unwrap_or_default())
}

struct Worker {
    badge: Badge,
    target: Target,
    frame: Frame,
    board: Arc<Board>,
}

impl Worker {
    async fn play(self) -> Result<(), BenchError> {
        let mut link = Link::open(&self.target, &self.badge).await?;
        let is_exocom = self.target.is_exocom;
        let name = if is_exocom { cast::WORK } else { cast::DELIVER };
        link.subscribe(name, 1).await?;
        self.board.ready().await;
        let mut next = 0;
        let mut acknowledge = |message: protocol::Message<'_>, out: &mut Vec<u8>| {
            let (_, _, number) = self.frame.check_payload(&message)?;
            let headers = message.headers;
            if is_exocom && !is_first_attempt(headers) {
                return Err(format!("headers of a second attempt: {}", headers.escape_ascii()));
            }
            if number != next {
                return Err(format!("message {number} instead of {next}"));
            }
            next += 1;
            let reply = message.reply.ok_or("a tracked message without a reply subject")?;
            for part in [b"PUB ", reply, b" 4\r\n+ACK\r\n"] {
                out.extend_from_slice(part);
            }
            self.board.counter(RECEIVED).set(next);
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
            link.turn(&mut acknowledge)?;
            link.write_all().await?;
        }
        link.until_pong(acknowledge).await
    }
}

fn is_first_attempt(headers: &[u8]) -> bool {
    let stamp = format!("NATS/1.0\r\nExo-Sender: {}\r\n", cast::PUBLISHER);
    headers.starts_with(stamp.as_bytes()) && memmem::find(headers, b"\r\nExo-Attempt: 1\r\n").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_that_a_message_is_stored() {
        let check = |payload: &str, expected: Option<u64>| {
            let message = protocol::Message {
                subject: b"",
                reply: None,
                headers: b"",
                payload: payload.as_bytes(),
            };
            assert_eq!(stored_seq(&message).ok(), expected, "{payload}");
        };
        check(r#"{"stream":"dev","seq":12}"#, Some(12));
        check(r#"{"stream":"BENCH", "seq": 7}"#, Some(7));
        check(r#"{"stream":"dev","seq":12,"duplicate":true}"#, None);
        check(r#"{"error":{"code":503},"stream":"dev","seq":}"#, None);
        check("", None);
    }
}
