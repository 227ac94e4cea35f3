//! Records of single messages, for those whose policy says `audit = "each"`: made where the message passes, in as few
//! steps as can be, and written as lines without the detour over a [`Record`](crate::audit::Record).

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// What became of a message, or of one attempt to deliver it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It went to its receiver's outbox.
    Delivered,
    /// The receiver's outbox or table was full, or it was gone.
    Dropped,
    /// Nobody was there to receive it.
    NoReceiver,
    /// It is kept for its receivers.
    Stored,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Delivered => "delivered",
            Self::Dropped => "dropped",
            Self::NoReceiver => "no receiver",
            Self::Stored => "stored",
        })
    }
}

/// The SHA-256 digest of a payload.
pub type Digest = [u8; 32];

/// One message to one receiver.
#[derive(Debug, Clone)]
pub struct EachMessage {
    /// When, in microseconds since the broker started.
    pub at_us: u64,
    /// The verified sender.
    pub sender: Arc<str>,
    /// Its connection; 0 for what the broker sends again by itself.
    pub sender_connection: u64,
    /// The message name.
    pub message: Arc<str>,
    /// The verified receiver, where there is one.
    pub receiver: Option<Arc<str>>,
    /// Its connection; 0 where there is none.
    pub receiver_connection: u64,
    /// The size of the payload.
    pub bytes: u64,
    /// Its digest.
    pub digest: Digest,
    /// What became of it.
    pub outcome: Outcome,
    /// The sequence of a tracked message; 0 for others.
    pub seq: u64,
    /// The number of the attempt; 0 where there are none.
    pub attempt: u32,
}

/// The digest of a payload.
pub fn payload_digest(payload: &[u8]) -> Digest {
    let digest = digest(&SHA256, payload);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// What is written: the fields of [`Record::Message`](crate::audit::Record::Message), in its order.
#[derive(Serialize)]
struct Line<'a> {
    at_unix_ms: u64,
    kind: &'a str,
    sender: &'a str,
    sender_connection: u64,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    receiver: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    receiver_connection: u64,
    bytes: u64,
    digest: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "is_zero")]
    seq: u64,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: u32,
}

/// Whether a number says nothing.
pub(super) fn is_zero<N: PartialEq + Default>(number: &N) -> bool {
    *number == N::default()
}

impl EachMessage {
    /// Writes the line of JSON of this message over what is in `line`.
    pub fn write_line(&self, at_unix_ms: u64, line: &mut Vec<u8>) {
        line.clear();
        let digest = hex(&self.digest);
        let written = Line {
            at_unix_ms,
            kind: "message",
            sender: &self.sender,
            sender_connection: self.sender_connection,
            message: &self.message,
            receiver: self.receiver.as_deref(),
            receiver_connection: self.receiver_connection,
            bytes: self.bytes,
            digest: std::str::from_utf8(&digest).unwrap_or_default(),
            outcome: self.outcome,
            seq: self.seq,
            attempt: self.attempt,
        };
        serde_json::to_writer(line, &written).expect("memory takes plain data");
    }
}

fn hex(digest: &Digest) -> [u8; 64] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        if let ([high, low], Some(h), Some(l)) = (
            pair,
            DIGITS.get(usize::from(byte >> 4)),
            DIGITS.get(usize::from(byte & 15)),
        ) {
            (*high, *low) = (*h, *l);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Entry, Record};

    #[test]
    fn the_line_is_that_of_the_record() {
        for (receiver, seq) in [(Some("todos"), 0), (None, 7)] {
            let each = EachMessage {
                at_us: 1,
                sender: "web".into(),
                sender_connection: 3,
                message: "todos.created".into(),
                receiver: receiver.map(Arc::from),
                receiver_connection: receiver.map_or(0, |_| 4),
                bytes: 3,
                digest: payload_digest(b"abc"),
                outcome: Outcome::Delivered,
                seq,
                attempt: 0,
            };
            let mut line = b"what was there".to_vec();
            each.write_line(1_700_000_000_000, &mut line);
            let entry = Entry::parse(&line).unwrap();
            assert_eq!(entry.to_line(), line, "the same bytes");
            let Record::Message { digest, outcome, .. } = entry.record else {
                panic!("{}", String::from_utf8_lossy(&line))
            };
            assert_eq!(outcome, Outcome::Delivered);
            // FIPS 180-2, appendix B.1.
            let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
            assert_eq!(digest, expected);
        }
    }
}
