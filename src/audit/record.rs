//! What is recorded. An entry of the log is one of these records with its time, as one line of JSON.
//!
//! A record names identities, message names, sizes, digests and reasons; never a payload, a header value or a key.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::audit::each::{Outcome, is_zero};
use crate::audit::tile::ENTRY_BYTES_MAX;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was recorded, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// What.
    #[serde(flatten)]
    pub record: Record,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Record {
    /// The broker started.
    Start {
        /// Its name.
        name: String,
        /// ExoCom's version.
        version: String,
        /// The policy in force.
        policy: String,
    },
    /// The broker stopped in order: everything before this has been recorded.
    Stop,
    /// Something was not recorded.
    Gap(Gap),
    /// A service connected.
    Connected {
        /// The connection's number since the start.
        connection: u64,
        /// The verified service.
        sender: String,
        /// The serial number of its certificate.
        serial: String,
        /// Its address.
        address: String,
        /// The listener.
        listener: String,
    },
    /// A connection ended.
    Disconnected {
        /// Its number.
        connection: u64,
        /// The verified service.
        sender: String,
        /// Why.
        reason: String,
    },
    /// Clients that got no session.
    Refused {
        /// The listener.
        listener: String,
        /// Where the first came from.
        address: String,
        /// The rule that they broke.
        rule: String,
        /// Whose certificate the first showed, as far as that could be read; it proves nothing.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        certificate: Option<String>,
        /// How many, since the record before this of the same listener and rule.
        count: u64,
    },
    /// What the policy denied to a service.
    Denial {
        /// The verified service.
        sender: String,
        /// The connection of the last.
        connection: u64,
        /// `publish`, `subscribe`, `reply` or `reply-to`; `over-limit` for what was more than may come.
        action: String,
        /// The name, made printable; `>` for those of a service that tries too many.
        subject: String,
        /// The policy's line, or the reason.
        rule: String,
        /// The policy's version.
        policy: String,
        /// How many, since the record before this of the same sender, action, subject and rule.
        count: u64,
    },
    /// What was sent.
    Flows(Flows),
    /// One message, where its policy says `audit = "each"`.
    Message {
        /// The verified sender.
        sender: String,
        /// Its connection; 0 for what the broker sends again by itself.
        sender_connection: u64,
        /// The message name.
        message: String,
        /// The verified receiver, where there is one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        receiver: Option<String>,
        /// Its connection.
        #[serde(skip_serializing_if = "is_zero", default)]
        receiver_connection: u64,
        /// The size of the payload.
        bytes: u64,
        /// The SHA-256 digest of the payload, in hexadecimal.
        digest: String,
        /// What became of it.
        outcome: Outcome,
        /// The sequence of a tracked message.
        #[serde(skip_serializing_if = "is_zero", default)]
        seq: u64,
        /// The number of the attempt to deliver it.
        #[serde(skip_serializing_if = "is_zero", default)]
        attempt: u32,
    },
    /// Another policy is in force after this.
    Policy {
        /// The version before.
        from: String,
        /// The version after.
        to: String,
        /// Who changed it.
        who: String,
        /// Why, where somebody said so.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why: Option<String>,
    },
    /// An operator's order, which takes effect after this.
    Admin {
        /// Who.
        who: String,
        /// Why, where somebody said so.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        why: Option<String>,
        /// The command.
        verb: String,
        /// What it is done to.
        about: String,
        /// The policy that lets them.
        policy: String,
    },
    /// What became of an operator's order.
    AdminDone {
        /// Who.
        who: String,
        /// The command.
        verb: String,
        /// What it was done to.
        about: String,
        /// Whether it was done.
        is_done: bool,
        /// What was done, or why nothing was.
        outcome: String,
    },
    /// An order that somebody may not give.
    AdminRefused {
        /// Who.
        who: String,
        /// The command.
        verb: String,
        /// What it would have been done to.
        about: String,
        /// Why not.
        reason: String,
    },
    /// A policy or an order did not take effect: the log could not be written at that moment.
    Withdrawn {
        /// Its entry.
        entry: u64,
    },
    /// A tracked message that was given up.
    DeadLetter {
        /// Its sequence.
        seq: u64,
        /// The service that did not take it.
        receiver: String,
        /// Its name.
        message: String,
        /// Why.
        cause: String,
        /// Attempts made.
        attempts: u32,
    },
    /// Something unusual in the traffic has begun, or is over.
    Alarm {
        /// The alarm's number.
        id: u64,
        /// Whether it is over.
        is_closed: bool,
        /// Its kind.
        what: String,
        /// What was seen, what was expected, and since when.
        text: String,
        /// What became of it, where it is over.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        outcome: Option<String>,
    },
    /// A service is held after this, or a part of its messages, or no longer is.
    Quarantine {
        /// The service.
        sender: String,
        /// Which of its messages; all of them where there is none.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        message: Option<String>,
        /// Whether they are held from here on.
        is_held: bool,
        /// By whose order.
        who: String,
        /// Why.
        why: String,
        /// The alarm that did it, where no person did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        alarm: Option<u64>,
    },
    /// The entries before this number have been removed, after this; their hashes stay.
    Prune {
        /// The first entry that stays.
        before: u64,
    },
}

/// Something that was not recorded, and what bounds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub cause: GapCause,
    /// When the last record before it was made: nothing earlier is missing.
    pub after_unix_ms: u64,
    /// Records that were made and could not be kept, where they were counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub records: Option<u64>,
}

/// Why something was not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// The broker, or its machine, stopped without saying so.
    UncleanStop,
    /// The log could not be written.
    CannotWrite,
    /// More happened than could be kept until it was written.
    Overflow,
}

/// What was sent since the flow record before this one: the sum over all of them is what was sent in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flows {
    /// The chapter, in which each flow has a number: the time of its first record, in milliseconds since 1970.
    pub chapter: u64,
    /// The policy in force.
    pub policy: String,
    /// The flows that have their numbers from here on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub named: Vec<NamedFlow>,
    /// What was sent in each flow in which something was.
    pub counts: Vec<FlowCount>,
}

/// A flow and its number: `[number, sender, message, receiver]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedFlow(
    /// Its number in the chapter.
    pub u32,
    /// The verified sender.
    pub String,
    /// The message name; `>` for those past the bound on flows.
    pub String,
    /// The receiver; `None` for what was denied or found nobody.
    pub Option<String>,
);

/// What was sent in one flow: `[number, messages, bytes, first connection, last connection, denied, dropped,
/// unreceived]`. Zeros at the end are left out, and so are connections that are those of the flow's count before
/// this one in the chapter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// The flow's number.
    pub flow: u32,
    /// Messages handed to the receiver.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// The lowest number of a connection that had sent in this flow; 0: as in the count before.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// Messages that the policy denied.
    pub denied: u64,
    /// Messages that were dropped at a full outbox, or at a receiver that was gone.
    pub dropped: u64,
    /// Messages that nobody was there to receive.
    pub unreceived: u64,
}

const COUNTS: usize = 8;

impl Serialize for FlowCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbers: [u64; COUNTS] = [
            self.flow.into(),
            self.messages,
            self.bytes,
            self.first,
            self.last,
            self.denied,
            self.dropped,
            self.unreceived,
        ];
        let end = numbers
            .iter()
            .rposition(|number| *number > 0)
            .map_or(1, |at| at + 1);
        serializer.collect_seq(numbers.iter().take(end))
    }
}

impl<'de> Deserialize<'de> for FlowCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::<u64>::deserialize(deserializer)?;
        if numbers.is_empty() || numbers.len() > COUNTS {
            return Err(Error::invalid_length(numbers.len(), &"1 to 8 numbers"));
        }
        numbers.resize(COUNTS, 0);
        match *numbers.as_slice() {
            [flow, messages, bytes, first, last, denied, dropped, unreceived] => Ok(Self {
                flow: u32::try_from(flow).map_err(Error::custom)?,
                messages,
                bytes,
                first,
                last,
                denied,
                dropped,
                unreceived,
            }),
            _ => Err(Error::invalid_length(numbers.len(), &"8 numbers")),
        }
    }
}

/// Why bytes are no entry.
#[derive(Debug, thiserror::Error)]
#[error("it is no record of this version: {0}")]
pub struct EntryError(#[from] serde_json::Error);

impl Entry {
    /// The line of JSON that is hashed and kept, without a line end. Its maker sees to it that it is not longer
    /// than [`ENTRY_BYTES_MAX`]: texts of records are bounded, and flow records are split.
    pub fn to_line(&self) -> Vec<u8> {
        let line = serde_json::to_vec(self).expect("a record is plain data");
        debug_assert!(line.len() <= ENTRY_BYTES_MAX, "a record of {} bytes", line.len());
        line
    }

    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, EntryError> {
        Ok(serde_json::from_slice(line)?)
    }
}

impl Record {
    /// The word that stands for it in the log.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Stop => "stop",
            Self::Gap(_) => "gap",
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Refused { .. } => "refused",
            Self::Denial { .. } => "denial",
            Self::Flows(_) => "flows",
            Self::Message { .. } => "message",
            Self::Policy { .. } => "policy",
            Self::Admin { .. } => "admin",
            Self::AdminDone { .. } => "admin-done",
            Self::AdminRefused { .. } => "admin-refused",
            Self::Withdrawn { .. } => "withdrawn",
            Self::DeadLetter { .. } => "dead-letter",
            Self::Alarm { .. } => "alarm",
            Self::Quarantine { .. } => "quarantine",
            Self::Prune { .. } => "prune",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_and_is_read_back() {
        let check = |record: Record, line: &str| {
            let entry = Entry {
                at_unix_ms: 1_700_000_000_123,
                record,
            };
            let start = format!(r#"{{"at_unix_ms":1700000000123,"kind":"{}""#, entry.record.kind());
            let written = String::from_utf8(entry.to_line()).unwrap();
            assert_eq!(written, format!("{start}{line}}}"));
            assert!(!written.contains('\n'));
            assert_eq!(Entry::parse(written.as_bytes()).unwrap(), entry);
        };
        check(Record::Stop, "");
        let gap = Gap {
            cause: GapCause::UncleanStop,
            after_unix_ms: 5,
            records: None,
        };
        check(Record::Gap(gap), r#","cause":"unclean-stop","after_unix_ms":5"#);
        let denial = Record::Denial {
            sender: "web".into(),
            connection: 3,
            action: "publish".into(),
            subject: "a\nb\"".into(),
            rule: "no grant".into(),
            policy: "1f".into(),
            count: 17,
        };
        check(
            denial,
            r#","sender":"web","connection":3,"action":"publish","subject":"a\nb\"","rule":"no grant","policy":"1f","count":17"#,
        );
        let count = |flow, messages, bytes, first, last, dropped| FlowCount {
            flow,
            messages,
            bytes,
            first,
            last,
            dropped,
            ..FlowCount::default()
        };
        let flows = Flows {
            chapter: 9,
            policy: "1f".into(),
            named: vec![NamedFlow(0, "web".into(), "todos.list".into(), None)],
            counts: vec![
                count(0, 5, 640, 1, 2, 0),
                count(7, 1, 2, 0, 0, 4),
                count(3, 0, 0, 0, 0, 0),
            ],
        };
        check(
            Record::Flows(flows),
            r#","chapter":9,"policy":"1f","named":[[0,"web","todos.list",null]],"counts":[[0,5,640,1,2],[7,1,2,0,0,0,4],[3]]"#,
        );
        check(Record::Prune { before: 512 }, r#","before":512"#);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for wrong in [
            "",
            "{}",
            r#"{"at_unix_ms":1}"#,
            r#"{"at_unix_ms":1,"kind":"unheard-of"}"#,
            r#"{"at_unix_ms":-1,"kind":"stop"}"#,
            r#"{"at_unix_ms":1,"kind":"flows","chapter":1,"policy":"","counts":[[]]}"#,
            r#"{"at_unix_ms":1,"kind":"flows","chapter":1,"policy":"","counts":[[1,2,3,4,5,6,7,8,9]]}"#,
            r#"{"at_unix_ms":1,"kind":"stop"} "x""#,
        ] {
            assert!(Entry::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
