//! The records of the message log: bytes and meaning.
//!
//! Pure. Each record is `length, checksum, type, body`, so that one can be read alone. Numbers are
//! little-endian; texts and blocks have their length before them.

use std::sync::Arc;

use crate::delivery::{Cause, Change, DeliveryTerms, Kept, KeptReceiver, ReceiverNo, Seq};
use crate::policy::Kind;

/// `length, checksum, type`.
pub(super) const HEADER_BYTES: usize = 9;

/// A message as it is kept: its state, its sender, and what it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What is known of its deliveries.
    pub kept: Kept,
    /// The verified sender.
    pub sender: Arc<str>,
    /// Its `Nats-Msg-Id`.
    pub id: Option<Arc<str>>,
    /// Its header lines, made safe.
    pub headers: Box<[u8]>,
    /// Its payload.
    pub payload: Box<[u8]>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The log was opened; the last sequence that had been given.
    Opened(Seq),
    /// The broker stopped in order.
    Closed,
    /// A segment begins: the last sequence that had been given, and the oldest segment that there was.
    Begun {
        /// The last sequence.
        last_seq: Seq,
        /// The number of the oldest segment.
        oldest: u64,
    },
    /// A segment is about to be removed.
    Removing(u64),
    /// A message, new or carried forward.
    Message(Box<Stored>),
    /// What has become of one.
    Change(Change),
    /// An id of the window whose message is gone.
    Id {
        sender: Arc<str>,
        id: Arc<str>,
        seq: Seq,
        at_ms: u64,
    },
}

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record that cannot be read")]
pub(super) struct BadRecord;

const OPENED: u8 = 1;
const CLOSED: u8 = 2;
const BEGUN: u8 = 3;
const MESSAGE: u8 = 4;
const CHANGE: u8 = 5;
const ID: u8 = 6;
const REMOVING: u8 = 7;

/// Appends a message as a record.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    kept: &Kept,
    sender: &str,
    id: Option<&str>,
    headers: &[u8],
    payload: &[u8],
) {
    put_record(out, MESSAGE, |out| {
        put_u64(out, kept.seq.0);
        put_u64(out, kept.stored_ms);
        put_u64(out, kept.expires_at_ms);
        out.push(match kept.terms.kind {
            Kind::Command => 0,
            Kind::Event => 1,
        });
        put_u64(out, kept.terms.attempt_ms_max);
        put_u32(out, kept.terms.attempts_max);
        put_u64(out, kept.terms.backoff_first_ms);
        put_u64(out, kept.terms.backoff_longest_ms);
        put_u64(out, kept.terms.expires_ms);
        put_u64(out, kept.bytes as u64);
        put_block(out, kept.name.as_bytes());
        put_block(out, sender.as_bytes());
        put_block(out, id.unwrap_or_default().as_bytes());
        put_u32(
            out,
            u32::try_from(kept.receivers.len()).expect("receivers are numbered by u16"),
        );
        for receiver in &kept.receivers {
            put_block(out, receiver.service.as_bytes());
            out.push(u8::from(receiver.is_settled));
            put_u32(out, receiver.attempts);
            put_u32(out, receiver.attempts_max);
            out.push(receiver.dead.map_or(0, |(cause, _)| cause_byte(cause)));
            put_u64(out, receiver.dead.map_or(0, |(_, since_ms)| since_ms));
        }
        put_block(out, headers);
        put_block(out, payload);
    });
}

/// Appends any other record.
pub(super) fn put(out: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Opened(seq) => put_record(out, OPENED, |out| put_u64(out, seq.0)),
        Record::Closed => put_record(out, CLOSED, |_| {}),
        Record::Begun { last_seq, oldest } => put_record(out, BEGUN, |out| {
            put_u64(out, last_seq.0);
            put_u64(out, *oldest);
        }),
        Record::Removing(number) => put_record(out, REMOVING, |out| put_u64(out, *number)),
        Record::Message(stored) => put_message(
            out,
            &stored.kept,
            &stored.sender,
            stored.id.as_deref(),
            &stored.headers,
            &stored.payload,
        ),
        Record::Change(change) => put_record(out, CHANGE, |out| put_change(out, *change)),
        Record::Id {
            sender,
            id,
            seq,
            at_ms,
        } => put_record(out, ID, |out| {
            put_u64(out, seq.0);
            put_u64(out, *at_ms);
            put_block(out, sender.as_bytes());
            put_block(out, id.as_bytes());
        }),
    }
}

/// Reads the record at the start of `bytes`, and says how many it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Record, usize), BadRecord> {
    let mut reader = Reader(bytes);
    let length = reader.u32()? as usize;
    let checksum = reader.u32()?;
    let body = reader.0.get(..length).ok_or(BadRecord)?;
    if crc32fast::hash(body) != checksum {
        return Err(BadRecord);
    }
    let mut reader = Reader(body);
    let record = match reader.u8()? {
        OPENED => Record::Opened(Seq(reader.u64()?)),
        CLOSED => Record::Closed,
        BEGUN => Record::Begun {
            last_seq: Seq(reader.u64()?),
            oldest: reader.u64()?,
        },
        REMOVING => Record::Removing(reader.u64()?),
        MESSAGE => Record::Message(Box::new(reader.message()?)),
        CHANGE => Record::Change(reader.change()?),
        ID => {
            let (seq, at_ms) = (Seq(reader.u64()?), reader.u64()?);
            Record::Id {
                sender: reader.text()?,
                id: reader.text()?,
                seq,
                at_ms,
            }
        }
        _ => return Err(BadRecord),
    };
    if !reader.0.is_empty() {
        return Err(BadRecord);
    }
    Ok((record, HEADER_BYTES - 1 + length))
}

fn put_record(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(kind);
    body(out);
    let content = out.get(start + 8..).unwrap_or_default();
    let length = u32::try_from(content.len()).expect("a record fits in a segment");
    let checksum = crc32fast::hash(content);
    if let Some(head) = out.get_mut(start..start + 8) {
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&length.to_le_bytes());
        second.copy_from_slice(&checksum.to_le_bytes());
    }
}

fn put_change(out: &mut Vec<u8>, change: Change) {
    let (kind, seq, receiver, small, large) = match change {
        Change::Acknowledged(seq, receiver) => (1, seq, receiver, 0, 0),
        Change::Failed(seq, receiver, attempts) => (2, seq, receiver, 0, u64::from(attempts)),
        Change::Died(seq, receiver, cause, since_ms) => (3, seq, receiver, cause_byte(cause), since_ms),
        Change::Replayed(seq, receiver, expires_at_ms) => (4, seq, receiver, 0, expires_at_ms),
        Change::Dropped(seq, receiver) => (5, seq, receiver, 0, 0),
    };
    out.push(kind);
    put_u64(out, seq.0);
    out.extend_from_slice(&receiver.0.to_le_bytes());
    out.push(small);
    put_u64(out, large);
}

const fn cause_byte(cause: Cause) -> u8 {
    match cause {
        Cause::Attempts => 1,
        Cause::Expired => 2,
        Cause::Terminated => 3,
    }
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_block(out: &mut Vec<u8>, block: &[u8]) {
    put_u32(
        out,
        u32::try_from(block.len()).expect("blocks are bounded far below 4 GiB"),
    );
    out.extend_from_slice(block);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], BadRecord> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(BadRecord)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRecord> {
        self.take(N)?.try_into().map_err(|_| BadRecord)
    }

    fn u8(&mut self) -> Result<u8, BadRecord> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, BadRecord> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, BadRecord> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, BadRecord> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn block(&mut self) -> Result<&'a [u8], BadRecord> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    fn text(&mut self) -> Result<Arc<str>, BadRecord> {
        let text = std::str::from_utf8(self.block()?).map_err(|_| BadRecord)?;
        Ok(text.into())
    }

    fn cause(&mut self) -> Result<Option<Cause>, BadRecord> {
        Ok(match self.u8()? {
            0 => None,
            1 => Some(Cause::Attempts),
            2 => Some(Cause::Expired),
            3 => Some(Cause::Terminated),
            _ => return Err(BadRecord),
        })
    }

    fn message(&mut self) -> Result<Stored, BadRecord> {
        let (seq, stored_ms, expires_at_ms) = (Seq(self.u64()?), self.u64()?, self.u64()?);
        let kind = match self.u8()? {
            0 => Kind::Command,
            1 => Kind::Event,
            _ => return Err(BadRecord),
        };
        let terms = DeliveryTerms {
            kind,
            attempt_ms_max: self.u64()?,
            attempts_max: self.u32()?,
            backoff_first_ms: self.u64()?,
            backoff_longest_ms: self.u64()?,
            expires_ms: self.u64()?,
        };
        let bytes = usize::try_from(self.u64()?).map_err(|_| BadRecord)?;
        let (name, sender, id): (_, Arc<str>, _) = (self.text()?, self.text()?, self.text()?);
        let count = self.u32()?;
        let mut receivers = Vec::new();
        for _ in 0..count {
            receivers.push(KeptReceiver {
                service: self.text()?,
                is_settled: self.u8()? != 0,
                attempts: self.u32()?,
                attempts_max: self.u32()?,
                dead: {
                    let (cause, since_ms) = (self.cause()?, self.u64()?);
                    cause.map(|cause| (cause, since_ms))
                },
            });
        }
        Ok(Stored {
            kept: Kept {
                seq,
                sender: Arc::clone(&sender),
                name,
                terms,
                stored_ms,
                expires_at_ms,
                bytes,
                receivers,
            },
            sender,
            id: (!id.is_empty()).then_some(id),
            headers: self.block()?.into(),
            payload: self.block()?.into(),
        })
    }

    fn change(&mut self) -> Result<Change, BadRecord> {
        let kind = self.u8()?;
        let (seq, receiver) = (Seq(self.u64()?), ReceiverNo(self.u16()?));
        let (cause, large) = (self.cause()?, self.u64()?);
        Ok(match (kind, cause) {
            (1, None) => Change::Acknowledged(seq, receiver),
            (2, None) => Change::Failed(seq, receiver, u32::try_from(large).map_err(|_| BadRecord)?),
            (3, Some(cause)) => Change::Died(seq, receiver, cause, large),
            (4, None) => Change::Replayed(seq, receiver, large),
            (5, None) => Change::Dropped(seq, receiver),
            _ => return Err(BadRecord),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        Stored {
            kept: Kept {
                seq: Seq(7),
                sender: "todos".into(),
                name: "todos.created".into(),
                terms: DeliveryTerms {
                    kind: Kind::Event,
                    attempt_ms_max: 1,
                    attempts_max: 2,
                    backoff_first_ms: 3,
                    backoff_longest_ms: 4,
                    expires_ms: 5,
                },
                stored_ms: 6,
                expires_at_ms: 11,
                bytes: 100,
                receivers: vec![
                    KeptReceiver {
                        service: "web".into(),
                        is_settled: true,
                        attempts: 1,
                        attempts_max: 2,
                        dead: None,
                    },
                    KeptReceiver {
                        service: "mail".into(),
                        is_settled: false,
                        attempts: 2,
                        attempts_max: 2,
                        dead: Some((Cause::Terminated, 9)),
                    },
                ],
            },
            sender: "todos".into(),
            id: Some("id-1".into()),
            headers: b"a: b\r\n".as_slice().into(),
            payload: b"hello".as_slice().into(),
        }
    }

    #[test]
    fn records_come_back_as_they_went() {
        let (seq, receiver) = (Seq(3), ReceiverNo(1));
        let records = [
            Record::Opened(seq),
            Record::Closed,
            Record::Begun {
                last_seq: seq,
                oldest: 2,
            },
            Record::Removing(5),
            Record::Message(Box::new(stored())),
            Record::Change(Change::Acknowledged(seq, receiver)),
            Record::Change(Change::Failed(seq, receiver, 4)),
            Record::Change(Change::Died(seq, receiver, Cause::Expired, 5)),
            Record::Change(Change::Replayed(seq, receiver, 6)),
            Record::Change(Change::Dropped(seq, receiver)),
            Record::Id {
                sender: "web".into(),
                id: "x".into(),
                seq,
                at_ms: 8,
            },
        ];
        let mut bytes = Vec::new();
        records.iter().for_each(|record| put(&mut bytes, record));
        let mut rest = bytes.as_slice();
        for record in &records {
            let (read, used) = read(rest).unwrap();
            assert_eq!(read, *record);
            rest = &rest[used..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn no_changed_bit_is_overlooked() {
        let mut bytes = Vec::new();
        put(&mut bytes, &Record::Message(Box::new(stored())));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes), Err(BadRecord), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
