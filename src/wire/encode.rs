//! Operations to bytes: what ExoCom says to a client. Every function appends to the caller's buffer.

use serde::Serialize;

/// What the server says of itself before anything else. The field names are the protocol's.
#[derive(Debug, Clone, Serialize)]
#[expect(
    missing_docs,
    reason = "the NATS client protocol's INFO fields, documented by NATS"
)]
pub struct Info<'a> {
    pub server_id: &'a str,
    pub server_name: &'a str,
    pub version: &'a str,
    pub proto: u8,
    pub host: &'a str,
    pub port: u16,
    pub headers: bool,
    pub max_payload: usize,
    pub tls_required: bool,
    pub tls_verify: bool,
    pub client_id: u64,
    pub client_ip: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ldm: bool,
}

/// `INFO {…}`.
pub fn info(out: &mut Vec<u8>, info: &Info<'_>) {
    out.extend_from_slice(b"INFO ");
    serde_json::to_writer(&mut *out, info).expect("plain fields serialize, and a Vec takes every byte");
    out.extend_from_slice(b"\r\n");
}

/// `+OK`, which verbose clients want after each operation.
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// `PING`, to see whether the client is still there.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PING\r\n");
}

/// `PONG`, the answer to a client's `PING`.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

/// The only error texts that ExoCom sends: clients parse them, and some close for ever on one they do not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrText<'a> {
    /// `Permissions Violation for Publish to "…"`; the connection goes on.
    PublishDenied(&'a [u8]),
    /// `Permissions Violation for Subscription to "…" [using queue "…"]`; the connection goes on.
    SubscriptionDenied(&'a [u8], Option<&'a [u8]>),
    /// The first operation was not a usable `CONNECT`.
    AuthorizationViolation,
    /// The connection ends; clients reconnect.
    StaleConnection,
    /// More bytes than announced.
    MaximumPayloadViolation,
    /// Not the protocol.
    UnknownProtocolOperation,
}

/// `-ERR '…'`.
pub fn err(out: &mut Vec<u8>, text: ErrText<'_>) {
    out.extend_from_slice(b"-ERR '");
    match text {
        ErrText::PublishDenied(subject) => {
            out.extend_from_slice(b"Permissions Violation for Publish to ");
            quoted(out, subject);
        }
        ErrText::SubscriptionDenied(subject, queue) => {
            out.extend_from_slice(b"Permissions Violation for Subscription to ");
            quoted(out, subject);
            if let Some(queue) = queue {
                out.extend_from_slice(b" using queue ");
                quoted(out, queue);
            }
        }
        ErrText::AuthorizationViolation => out.extend_from_slice(b"Authorization Violation"),
        ErrText::StaleConnection => out.extend_from_slice(b"Stale Connection"),
        ErrText::MaximumPayloadViolation => out.extend_from_slice(b"Maximum Payload Violation"),
        ErrText::UnknownProtocolOperation => out.extend_from_slice(b"Unknown Protocol Operation"),
    }
    out.extend_from_slice(b"'\r\n");
}

/// A client's word in quotes, escaped as nats-server does it: whatever it holds, what comes out is text.
fn quoted(out: &mut Vec<u8>, word: &[u8]) {
    out.push(b'"');
    for chunk in word.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' | '\\' => out.extend([b'\\', char as u8]),
                '\x07' => out.extend_from_slice(b"\\a"),
                '\x08' => out.extend_from_slice(b"\\b"),
                '\x0b' => out.extend_from_slice(b"\\v"),
                '\x0c' => out.extend_from_slice(b"\\f"),
                '\0'..=' ' | '\x7f' => {
                    out.extend_from_slice(format!("\\x{:02x}", u32::from(char)).as_bytes())
                }
                _ if char.is_control() => {
                    out.extend_from_slice(format!("\\u{:04x}", u32::from(char)).as_bytes());
                }
                _ => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    out.push(b'"');
}

const CR_LF: &[u8] = b"\r\n";

/// What a message carries, ready to be written for any number of receivers.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    /// Who sent it.
    pub stamp: &'a Stamp,
    /// The client's header lines that may pass, each ending in CR LF.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// What a receiver is told of an attempt to deliver a tracked message.
#[derive(Debug, Clone, Copy)]
pub struct TrackedStamp {
    /// The message's sequence.
    pub seq: u64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether an answer is expected, or only an acknowledgement.
    pub is_command: bool,
    /// How long this attempt may take, in milliseconds.
    pub within_ms: u64,
}

/// ExoCom's own headers on the messages of one sender, written once: the version line, and who sent it.
#[derive(Debug)]
pub struct Stamp {
    /// All that stands between the first line and the payload where the client sent no headers: the first line's
    /// end, the headers, and the empty line.
    block: Box<[u8]>,
    /// The size of that header block, and a space.
    size: Box<[u8]>,
}

impl Stamp {
    /// That of a sender.
    pub fn new(sender: &str) -> Self {
        Self::of_block(["\r\nNATS/1.0\r\nExo-Sender: ", sender, "\r\n\r\n"].concat())
    }

    /// The same for an attempt to deliver a tracked message.
    pub fn tracked(sender: &str, tracked: TrackedStamp) -> Self {
        let TrackedStamp {
            seq,
            attempt,
            is_command,
            within_ms,
        } = tracked;
        let wanted = if is_command { "Reply" } else { "Ack" };
        Self::of_block(format!(
            "\r\nNATS/1.0\r\nExo-Sender: {sender}\r\nExo-Id: {seq}\r\nExo-Attempt: {attempt}\r\n\
             Exo-{wanted}-Within: {within_ms}\r\n\r\n"
        ))
    }

    fn of_block(block: String) -> Self {
        let size = format!("{} ", block.len() - CR_LF.len());
        Self {
            block: block.into_bytes().into(),
            size: size.into_bytes().into(),
        }
    }

    /// The first line's end and the headers, without the empty line: more follow.
    fn lines(&self) -> &[u8] {
        let end = self.block.len() - CR_LF.len();
        self.block.get(..end).unwrap_or_default()
    }

    /// The header block where the client sent none.
    fn header_bytes(&self) -> usize {
        self.block.len() - CR_LF.len()
    }
}

/// How the first line of every message on one subject begins for one subscription, written once.
#[derive(Debug)]
pub struct Head(Box<[u8]>);

impl Head {
    /// `HMSG subject sid `.
    pub fn new(subject: &[u8], sid: &[u8]) -> Self {
        Self([b"HMSG ", subject, b" ", sid, b" "].concat().into())
    }
}

/// `HMSG subject sid [reply] header-bytes total-bytes`, the headers and the payload; `MSG` without headers for
/// a client that takes none.
pub fn message(
    out: &mut Vec<u8>,
    takes_headers: bool,
    head: &Head,
    reply: Option<ReplyToken>,
    content: &Content<'_>,
) {
    let Head(head) = head;
    out.reserve(head.len() + bytes_after_head_max(content));
    // What `MSG` lacks is the first letter.
    let start = usize::from(!takes_headers);
    out.extend_from_slice(head.get(start..).unwrap_or_default());
    if let Some(token) = reply {
        token.write(out);
        out.push(b' ');
    }
    after_head(out, takes_headers, content);
}

/// The same on a subject that is not used again, without a reply subject.
pub fn answer(out: &mut Vec<u8>, takes_headers: bool, subject: &[u8], sid: &[u8], content: &Content<'_>) {
    out.reserve(subject.len() + sid.len() + 8 + bytes_after_head_max(content));
    out.extend_from_slice(if takes_headers { b"HMSG " } else { b"MSG " });
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    after_head(out, takes_headers, content);
}

/// `MSG` with a word of the broker itself, which nobody sent.
pub fn word(out: &mut Vec<u8>, subject: &[u8], sid: &[u8], payload: &[u8]) {
    for part in [b"MSG ", subject, b" ", sid, b" "] {
        out.extend_from_slice(part);
    }
    number(out, payload.len());
    for part in [CR_LF, payload, CR_LF] {
        out.extend_from_slice(part);
    }
}

/// A reply token, two sizes, the headers and the payload.
fn bytes_after_head_max(content: &Content<'_>) -> usize {
    content.stamp.block.len() + content.headers.len() + content.payload.len() + 80
}

fn after_head(out: &mut Vec<u8>, takes_headers: bool, content: &Content<'_>) {
    let Content {
        stamp,
        headers,
        payload,
    } = *content;
    if !takes_headers {
        number(out, payload.len());
        out.extend_from_slice(b"\r\n");
    } else if headers.is_empty() {
        out.extend_from_slice(&stamp.size);
        number(out, stamp.header_bytes() + payload.len());
        out.extend_from_slice(&stamp.block);
    } else {
        let header_bytes = stamp.header_bytes() + headers.len();
        number(out, header_bytes);
        out.push(b' ');
        number(out, header_bytes + payload.len());
        out.extend_from_slice(stamp.lines());
        out.extend_from_slice(headers);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

/// Why a request cannot succeed, as the requester is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The policy does not allow it.
    Denied,
    /// Nobody is subscribed who may receive it.
    NoReceiver,
    /// The receiver's connection ended before it answered.
    ReceiverLost,
    /// No answer within the message's reply-within.
    Expired,
    /// A bound was reached: the receiver's outbox or its pending replies are full, or the store; or the sender is past
    /// the policy's limits.
    Overloaded,
    /// The command was given up after all its attempts, and is kept for an operator.
    DeadLetter,
    /// The sender or the receiver is held until an operator has looked at it.
    Quarantined,
}

impl Reason {
    /// The word in the `Exo-Reason` header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NoReceiver => "no-receiver",
            Self::ReceiverLost => "receiver-lost",
            Self::Expired => "expired",
            Self::Overloaded => "overloaded",
            Self::DeadLetter => "dead-letter",
            Self::Quarantined => "quarantined",
        }
    }
}

/// The answer to a request that cannot succeed: status 503, an empty body, and why.
#[derive(Debug, Clone, Copy)]
pub struct Refusal<'a> {
    /// Why.
    pub reason: Reason,
    /// The policy's line, for a denial, and where it limits the sender.
    pub rule: Option<&'a str>,
    /// The version of the policy that decided.
    pub policy: &'a str,
}

/// `HMSG` with status line `NATS/1.0 503`, on the requester's inbox.
pub fn refusal(out: &mut Vec<u8>, inbox: &[u8], sid: &[u8], refusal: &Refusal<'_>) {
    let mut headers = Vec::with_capacity(128);
    headers.extend_from_slice(b"NATS/1.0 503\r\nExo-Reason: ");
    headers.extend_from_slice(refusal.reason.as_str().as_bytes());
    if let Some(rule) = refusal.rule {
        headers.extend_from_slice(b"\r\nExo-Rule: ");
        headers.extend(rule.bytes().filter(|byte| !byte.is_ascii_control()));
    }
    headers.extend_from_slice(b"\r\nExo-Policy: ");
    headers.extend_from_slice(refusal.policy.as_bytes());
    headers.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(b"HMSG ");
    out.extend_from_slice(inbox);
    out.push(b' ');
    out.extend_from_slice(sid);
    out.push(b' ');
    number(out, headers.len());
    out.push(b' ');
    number(out, headers.len());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&headers);
    out.extend_from_slice(b"\r\n");
}

/// The reply subject that a receiver sees: a place in the table of its own connection, and how often that
/// place has been used, so that an old token never names a new request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyToken {
    /// Place in the table.
    pub slot: u32,
    /// Uses of the place before this one.
    pub generation: u32,
}

impl ReplyToken {
    /// Reads a token from the subject of a reply; `None` if it is not one that [`ReplyToken::write`] made.
    pub fn parse(subject: &[u8]) -> Option<Self> {
        let numbers = subject.strip_prefix(super::REPLY_PREFIX)?;
        let dot = memchr::memchr(b'.', numbers)?;
        let (slot, generation) = numbers.split_at(dot);
        Some(Self {
            slot: exact_number(slot)?,
            generation: exact_number(generation.get(1..)?)?,
        })
    }

    /// Appends the token as a subject.
    pub fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(super::REPLY_PREFIX);
        number(out, self.slot);
        out.push(b'.');
        number(out, self.generation);
    }
}

/// A number written in the one way that we write it.
fn exact_number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || (digits.len() > 1 && digits.first() == Some(&b'0')) {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn messages() {
        let sender = Stamp::new("web");
        let content = |headers| Content {
            stamp: &sender,
            headers,
            payload: b"hi",
        };
        let token = ReplyToken {
            slot: 3,
            generation: 12,
        };
        let check = |takes_headers, reply, headers, expected: &str| {
            let head = Head::new(b"a.b", b"7");
            assert_eq!(
                written(|out| message(out, takes_headers, &head, reply, &content(headers))),
                expected
            );
            if reply.is_none() {
                assert_eq!(
                    written(|out| answer(out, takes_headers, b"a.b", b"7", &content(headers))),
                    expected
                );
            }
        };
        check(
            true,
            Some(token),
            b"A: 1\r\n",
            "HMSG a.b 7 _R.3.12 35 37\r\nNATS/1.0\r\nExo-Sender: web\r\nA: 1\r\n\r\nhi\r\n",
        );
        check(
            true,
            None,
            b"",
            "HMSG a.b 7 29 31\r\nNATS/1.0\r\nExo-Sender: web\r\n\r\nhi\r\n",
        );
        check(false, None, b"A: 1\r\n", "MSG a.b 7 2\r\nhi\r\n");
        assert_eq!(
            written(|out| word(out, b"a.b", b"7", b"hi")),
            "MSG a.b 7 2\r\nhi\r\n"
        );
    }

    #[test]
    fn a_tracked_message_says_which_attempt_it_is() {
        let tracked = TrackedStamp {
            seq: 12,
            attempt: 3,
            is_command: false,
            within_ms: 30_000,
        };
        let content = Content {
            stamp: &Stamp::tracked("web", tracked),
            headers: b"",
            payload: b"",
        };
        assert_eq!(
            written(|out| message(out, true, &Head::new(b"a", b"1"), None, &content)),
            "HMSG a 1 80 80\r\nNATS/1.0\r\nExo-Sender: web\r\nExo-Id: 12\r\nExo-Attempt: 3\r\n\
             Exo-Ack-Within: 30000\r\n\r\n\r\n"
        );
    }

    // protocol: P-080
    #[test]
    fn refusals() {
        let denied = Refusal {
            reason: Reason::Denied,
            rule: Some("todo.toml:7"),
            policy: "ab12",
        };
        assert_eq!(
            written(|out| refusal(out, b"_INBOX.1", b"2", &denied)),
            "HMSG _INBOX.1 2 77 77\r\nNATS/1.0 503\r\nExo-Reason: denied\r\nExo-Rule: todo.toml:7\r\n\
             Exo-Policy: ab12\r\n\r\n\r\n"
        );
    }

    // protocol: P-040
    #[test]
    fn error_texts() {
        let check = |text: ErrText<'_>, expected: &str| assert_eq!(written(|out| err(out, text)), expected);
        check(
            ErrText::PublishDenied(b"a"),
            "-ERR 'Permissions Violation for Publish to \"a\"'\r\n",
        );
        check(
            ErrText::SubscriptionDenied(b"a.*", Some(b"q")),
            "-ERR 'Permissions Violation for Subscription to \"a.*\" using queue \"q\"'\r\n",
        );
        check(ErrText::StaleConnection, "-ERR 'Stale Connection'\r\n");
        check(
            ErrText::PublishDenied(b"a\0\x07\x7f\xff\"\\'\xc3\xa9\xc2\x9b"),
            "-ERR 'Permissions Violation for Publish to \"a\\x00\\a\\x7f\\xff\\\"\\\\'\u{e9}\\u009b\"'\r\n",
        );
    }

    // protocol: P-072
    #[test]
    fn reply_tokens_are_read_only_as_written() {
        let token = ReplyToken {
            slot: 40,
            generation: u32::MAX,
        };
        assert_eq!(
            ReplyToken::parse(written(|out| token.write(out)).as_bytes()),
            Some(token)
        );
        for forged in [
            "_R.",
            "_R.1",
            "_R.1.",
            "_R..1",
            "_R.01.1",
            "_R.+1.1",
            "_R.1.4294967296",
            "_r.1.1",
            "_R.1.1.1",
        ] {
            assert_eq!(ReplyToken::parse(forged.as_bytes()), None, "{forged}");
        }
    }
}
