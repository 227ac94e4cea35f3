//! Client bytes to operations, borrowed from the caller's buffer.
//!
//! [`decode`] keeps no state: it is called with a buffer that begins at an operation and says either what is
//! there or how many bytes it wants before it is asked again. It never copies, never allocates, and never asks
//! for more than the announced limits. The grammar is that of nats-server's parser, where it closes a
//! connection included; docs/protocol.md lists the differences.

use memchr::memchr;

use crate::limits::{CONTROL_LINE_BYTES_MAX, HEADER_BYTES_MAX, INBOX_BYTES_MAX, SID_BYTES_MAX};

/// One operation of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientOp<'a> {
    /// `CONNECT {…}`; the JSON text as it came.
    Connect(&'a [u8]),
    /// `PUB` or `HPUB`.
    Publish(Publish<'a>),
    /// `SUB subject [queue] sid`.
    Subscribe {
        /// The pattern asked for, unchecked.
        subject: &'a [u8],
        /// The queue group, unchecked.
        queue: Option<&'a [u8]>,
        /// The client's own id of the subscription.
        sid: &'a [u8],
    },
    /// `UNSUB sid [max]`.
    Unsubscribe {
        /// The client's own id of the subscription.
        sid: &'a [u8],
        /// Deliveries in all after which it ends; `None`: now.
        max: Option<u64>,
    },
    /// `PING`, to be answered.
    Ping,
    /// `PONG`, the answer to ours.
    Pong,
    /// `+OK` or `INFO`, which mean nothing from a client.
    Ignored,
}

/// A message as a client sent it: nothing in it is checked but its lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// The message name, unchecked.
    pub subject: &'a [u8],
    /// The subject to answer to, unchecked.
    pub reply: Option<&'a [u8]>,
    /// The header block, from `NATS/1.0` to the empty line, unchecked; `None` for `PUB`.
    pub headers: Option<&'a [u8]>,
    /// The payload.
    pub payload: &'a [u8],
}

/// What [`decode`] found at the start of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A whole operation, and how many bytes it took.
    Op(ClientOp<'a>, usize),
    /// Not whole yet: ask again when the buffer holds at least this many bytes.
    Incomplete {
        /// Bytes from the start of the buffer, always more than it holds now.
        bytes_wanted: usize,
    },
}

/// Why a connection cannot go on. Each is answered with `-ERR` and ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No operation begins like this.
    #[error("unknown protocol operation")]
    UnknownOperation,
    /// A line longer than [`CONTROL_LINE_BYTES_MAX`].
    #[error("control line longer than {CONTROL_LINE_BYTES_MAX} bytes")]
    ControlLineTooLong,
    /// Too few or too many arguments, or one that is not what it should be.
    #[error("malformed arguments of {0}")]
    BadArguments(&'static str),
    /// More than the announced `max_payload`.
    #[error("payload of {bytes} bytes, more than the announced {bytes_max}")]
    PayloadTooLarge {
        /// What the client announced.
        bytes: usize,
        /// What was announced to it.
        bytes_max: usize,
    },
    /// The payload is not followed by CR LF, so its length was a lie.
    #[error("payload does not end where its length says")]
    PayloadNotTerminated,
    /// The client sent `-ERR`.
    #[error("the client reported an error of its own")]
    ClientError,
}

/// Reads the operation at the start of `buf`.
pub fn decode(buf: &[u8], payload_bytes_max: usize) -> Result<Step<'_>, DecodeError> {
    let head = buf.get(..CONTROL_LINE_BYTES_MAX + 2).unwrap_or(buf);
    let Some(newline) = memchr(b'\n', head) else {
        Verb::of(head)?;
        // Of a line that is as long as it may be, all but the last byte may be here.
        let line = buf.strip_suffix(b"\r").unwrap_or(buf);
        if line.len() > CONTROL_LINE_BYTES_MAX {
            return Err(DecodeError::ControlLineTooLong);
        }
        return Ok(Step::Incomplete {
            bytes_wanted: buf.len() + 1,
        });
    };
    let (line, after) = buf.split_at(newline);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let body = after.get(1..).unwrap_or_default();
    // Nearly all that ever comes, as all clients write it.
    if line.len() <= CONTROL_LINE_BYTES_MAX
        && let Some(arguments) = line.strip_prefix(b"PUB ")
    {
        return publish(arguments, body, newline + 1, Headers::No, payload_bytes_max);
    }
    let Some((verb, arguments)) = Verb::of(line)? else {
        return Err(DecodeError::UnknownOperation);
    };
    if line.len() > CONTROL_LINE_BYTES_MAX {
        return Err(DecodeError::ControlLineTooLong);
    }
    let op = match verb {
        Verb::Pub => return publish(arguments, body, newline + 1, Headers::No, payload_bytes_max),
        Verb::Hpub => return publish(arguments, body, newline + 1, Headers::Yes, payload_bytes_max),
        Verb::Ping => ClientOp::Ping,
        Verb::Pong => ClientOp::Pong,
        Verb::Sub => subscribe(arguments)?,
        Verb::Unsub => unsubscribe(arguments)?,
        Verb::Connect => ClientOp::Connect(arguments.trim_ascii()),
        Verb::Info | Verb::Ok => ClientOp::Ignored,
        Verb::Err => return Err(DecodeError::ClientError),
    };
    Ok(Step::Op(op, newline + 1))
}

#[derive(Clone, Copy, PartialEq)]
enum Headers {
    No,
    Yes,
}

fn publish<'a>(
    arguments: &'a [u8],
    body: &'a [u8],
    line_bytes: usize,
    headers: Headers,
    payload_bytes_max: usize,
) -> Result<Step<'a>, DecodeError> {
    let malformed = DecodeError::BadArguments(if headers == Headers::Yes { "HPUB" } else { "PUB" });
    let ([subject, second, third, fourth], count) = words(arguments).ok_or(malformed)?;
    let (reply, header_bytes, total_bytes) = match (headers, count) {
        (Headers::No, 2) => (None, None, second),
        (Headers::No, 3) => (Some(second), None, third),
        (Headers::Yes, 3) => (None, Some(second), third),
        (Headers::Yes, 4) => (Some(second), Some(third), fourth),
        _ => return Err(malformed),
    };
    let total_bytes = size(total_bytes).ok_or(malformed)?;
    let header_bytes = match header_bytes {
        Some(word) => size(word)
            .filter(|&bytes| bytes <= total_bytes)
            .ok_or(malformed)?,
        None => 0,
    };
    if total_bytes > payload_bytes_max {
        return Err(DecodeError::PayloadTooLarge {
            bytes: total_bytes,
            bytes_max: payload_bytes_max,
        });
    }
    if header_bytes > HEADER_BYTES_MAX {
        return Err(DecodeError::PayloadTooLarge {
            bytes: header_bytes,
            bytes_max: HEADER_BYTES_MAX,
        });
    }
    if reply.is_some_and(|reply| reply.len() > INBOX_BYTES_MAX) {
        return Err(malformed);
    }
    let end = body.get(total_bytes..).unwrap_or_default();
    match end {
        [b'\r', b'\n', ..] => {}
        [] | [b'\r'] => {
            return Ok(Step::Incomplete {
                bytes_wanted: line_bytes + total_bytes + 1 + end.len(),
            });
        }
        _ => return Err(DecodeError::PayloadNotTerminated),
    }
    let message = body.get(..total_bytes).unwrap_or_default();
    let (header_block, payload) = message.split_at(header_bytes);
    let headers = (header_bytes > 0).then_some(header_block);
    let op = ClientOp::Publish(Publish {
        subject,
        reply,
        headers,
        payload,
    });
    Ok(Step::Op(op, line_bytes + total_bytes + 2))
}

fn subscribe(arguments: &[u8]) -> Result<ClientOp<'_>, DecodeError> {
    let malformed = DecodeError::BadArguments("SUB");
    let ([subject, second, third], count) = words(arguments).ok_or(malformed)?;
    let (queue, sid) = match count {
        2 => (None, second),
        3 => (Some(second), third),
        _ => return Err(malformed),
    };
    if sid.len() > SID_BYTES_MAX {
        return Err(malformed);
    }
    Ok(ClientOp::Subscribe { subject, queue, sid })
}

fn unsubscribe(arguments: &[u8]) -> Result<ClientOp<'_>, DecodeError> {
    let malformed = DecodeError::BadArguments("UNSUB");
    let ([sid, max], count) = words(arguments).ok_or(malformed)?;
    let max = match count {
        1 => None,
        // As in nats-server, a count that is none, or zero, ends the subscription at once.
        2 => size(max).filter(|&max| max > 0).map(|max| max as u64),
        _ => return Err(malformed),
    };
    Ok(ClientOp::Unsubscribe { sid, max })
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Connect,
    Pub,
    Hpub,
    Sub,
    Unsub,
    Ping,
    Pong,
    Info,
    Ok,
    Err,
}

impl Verb {
    const ALL: [(&'static [u8], Self); 10] = [
        (b"PUB", Self::Pub),
        (b"HPUB", Self::Hpub),
        (b"SUB", Self::Sub),
        (b"UNSUB", Self::Unsub),
        (b"PING", Self::Ping),
        (b"PONG", Self::Pong),
        (b"CONNECT", Self::Connect),
        (b"INFO", Self::Info),
        (b"+OK", Self::Ok),
        (b"-ERR", Self::Err),
    ];

    /// The verb a line begins with and what follows it; `None` where the line may still become one.
    fn of(line: &[u8]) -> Result<Option<(Self, &[u8])>, DecodeError> {
        for (word, verb) in Self::ALL {
            let common = line.len().min(word.len());
            let (Some(start), Some(word_start)) = (line.get(..common), word.get(..common)) else {
                continue;
            };
            if !start.eq_ignore_ascii_case(word_start) {
                continue;
            }
            if common < word.len() {
                return Ok(None);
            }
            let arguments = line.get(common..).unwrap_or_default();
            // As in nats-server, which reads `PINGS` as `PING` and `CONNECT{}` as `CONNECT {}`.
            let stands_apart = !matches!(
                verb,
                Self::Ping | Self::Pong | Self::Ok | Self::Connect | Self::Info
            );
            if stands_apart && !matches!(arguments.first(), None | Some(b' ' | b'\t' | b'\r')) {
                return Err(DecodeError::UnknownOperation);
            }
            return Ok(Some((verb, arguments)));
        }
        Err(DecodeError::UnknownOperation)
    }
}

/// The words of a line, apart by spaces or tabs, and how many there are; `None` where there are more than `N`.
fn words<const N: usize>(line: &[u8]) -> Option<([&[u8]; N], usize)> {
    let mut words: [&[u8]; N] = [&[]; N];
    let mut count = 0;
    let mut rest = line;
    loop {
        while let [b' ' | b'\t' | b'\r', after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() {
            return Some((words, count));
        }
        let (word, after) = rest.split_at(word_bytes(rest));
        *words.get_mut(count)? = word;
        count += 1;
        rest = after;
    }
}

/// How far the first word of a text goes. Eight bytes at a time: this is done for each word of each message.
fn word_bytes(text: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH_BITS: u64 = 0x80 * ONES;
    let mut passed = 0;
    let mut rest = text;
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let eight = u64::from_le_bytes(*eight);
        // The high bit of each byte up to a space; above the first of those it may be wrong, but that one is right.
        let low = eight.wrapping_sub(0x21 * ONES) & !eight & HIGH_BITS;
        if low != 0 {
            let place = passed + low.trailing_zeros() as usize / 8;
            if text.get(place).is_some_and(is_space) {
                return place;
            }
            // A control character, which no honest client puts there.
            break;
        }
        passed += 8;
        rest = after;
    }
    passed + rest.iter().position(is_space).unwrap_or(rest.len())
}

const fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r')
}

/// A decimal number of at most nine digits.
fn size(word: &[u8]) -> Option<usize> {
    if word.is_empty() || word.len() > 9 {
        return None;
    }
    word.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + usize::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: usize = 1024;

    fn op(bytes: &[u8]) -> Result<ClientOp<'_>, DecodeError> {
        match decode(bytes, MAX)? {
            Step::Op(op, used) => {
                assert_eq!(used, bytes.len());
                Ok(op)
            }
            Step::Incomplete { bytes_wanted } => panic!("incomplete, wants {bytes_wanted}"),
        }
    }

    // protocol: P-030, P-031
    #[test]
    fn operations() {
        let check =
            |text: &str, expected: ClientOp<'_>| assert_eq!(op(text.as_bytes()), Ok(expected), "{text:?}");
        check("PING\r\n", ClientOp::Ping);
        check("ping\n", ClientOp::Ping);
        check("PONG\r\n", ClientOp::Pong);
        check("+OK\r\n", ClientOp::Ignored);
        check("INFO {}\r\n", ClientOp::Ignored);
        check("CONNECT {\"a\":1}\r\n", ClientOp::Connect(b"{\"a\":1}"));
        check("connect{}\n", ClientOp::Connect(b"{}"));
        check("INFO{}\r\n", ClientOp::Ignored);
        check(
            "SUB a.b 1\r\n",
            ClientOp::Subscribe {
                subject: b"a.b",
                queue: None,
                sid: b"1",
            },
        );
        check(
            "sub\ta.b  q\t1 \r\n",
            ClientOp::Subscribe {
                subject: b"a.b",
                queue: Some(b"q"),
                sid: b"1",
            },
        );
        check("UNSUB 1\r\n", ClientOp::Unsubscribe { sid: b"1", max: None });
        check(
            "UNSUB 1 5\r\n",
            ClientOp::Unsubscribe {
                sid: b"1",
                max: Some(5),
            },
        );
        check("UNSUB 1 0\r\n", ClientOp::Unsubscribe { sid: b"1", max: None });
        check(
            "PUB a 3\r\nxyz\r\n",
            ClientOp::Publish(Publish {
                subject: b"a",
                reply: None,
                headers: None,
                payload: b"xyz",
            }),
        );
        check(
            "PUB a r 0\r\n\r\n",
            ClientOp::Publish(Publish {
                subject: b"a",
                reply: Some(b"r"),
                headers: None,
                payload: b"",
            }),
        );
        check(
            "HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            ClientOp::Publish(Publish {
                subject: b"a",
                reply: None,
                headers: Some(b"NATS/1.0\r\n\r\n"),
                payload: b"hi",
            }),
        );
    }

    // protocol: P-042, P-043, P-090, P-091, P-092
    #[test]
    fn mistakes() {
        let check =
            |text: &str, expected: DecodeError| assert_eq!(op(text.as_bytes()), Err(expected), "{text:?}");
        check("\r\n", DecodeError::UnknownOperation);
        check("GET / HTTP/1.1\r\n", DecodeError::UnknownOperation);
        check("PUBLISH a 1\r\nx\r\n", DecodeError::UnknownOperation);
        check("PU\r\n", DecodeError::UnknownOperation);
        check("-ERR 'x'\r\n", DecodeError::ClientError);
        check("PUB\r\n", DecodeError::BadArguments("PUB"));
        check("PUB a\r\n", DecodeError::BadArguments("PUB"));
        check("PUB a b c 1\r\nx\r\n", DecodeError::BadArguments("PUB"));
        check("PUB a -1\r\n", DecodeError::BadArguments("PUB"));
        check("PUB a 99999999999\r\n", DecodeError::BadArguments("PUB"));
        check("HPUB a 5 4\r\n", DecodeError::BadArguments("HPUB"));
        check("SUB a\r\n", DecodeError::BadArguments("SUB"));
        check("SUB a b c d\r\n", DecodeError::BadArguments("SUB"));
        check("UNSUB\r\n", DecodeError::BadArguments("UNSUB"));
        check(
            "PUB a 1025\r\n",
            DecodeError::PayloadTooLarge {
                bytes: 1025,
                bytes_max: MAX,
            },
        );
        for text in ["PUB a 1\r\nxyz\r\n", "PUB a 1\r\nx\n", "PUB a 1\r\nx\rx"] {
            check(text, DecodeError::PayloadNotTerminated);
        }
        check(
            &format!("PUB {} 1\r\n", "a".repeat(4096)),
            DecodeError::ControlLineTooLong,
        );
        check(
            &format!("PUB {} 1\n", "a".repeat(CONTROL_LINE_BYTES_MAX - 5)),
            DecodeError::ControlLineTooLong,
        );
        let longest = [
            b"UNSUB ".as_slice(),
            &b"1".repeat(CONTROL_LINE_BYTES_MAX - 6),
            b"\r\n",
        ]
        .concat();
        assert!(op(&longest).is_ok());
        let bytes_wanted = longest.len();
        let but_one = decode(&longest[..bytes_wanted - 1], MAX);
        assert_eq!(but_one, Ok(Step::Incomplete { bytes_wanted }));
        assert_eq!(decode(&b"P".repeat(2), MAX), Err(DecodeError::UnknownOperation));
        assert_eq!(
            decode(&[b"PUB ".as_slice(), &b"a".repeat(5000)].concat(), MAX),
            Err(DecodeError::ControlLineTooLong)
        );
    }

    #[test]
    fn words_end_at_spaces_and_nothing_else() {
        let check = |text: &[u8], expected: usize| assert_eq!(word_bytes(text), expected, "{text:?}");
        check(b"", 0);
        check(b"a", 1);
        check(b"a b", 1);
        check(b"todos.list 128", 10);
        check(b"12345678", 8);
        check(b"12345678 ", 8);
        check(b"1234567\t9", 7);
        check(b"12345678\r", 8);
        check(b"12345678901234567", 17);
        check(b"12\x0145678 0", 8);
        check(b"12\x00\x7f\xff\x80\x1f8\x01 1", 9);
    }

    /// Decodes all of `bytes`, as a connection would that receives them in these pieces.
    fn in_pieces(pieces: &[&[u8]]) -> (Vec<String>, Option<DecodeError>) {
        let (mut ops, mut held, mut wanted) = (Vec::new(), Vec::new(), 1);
        for piece in pieces {
            held.extend_from_slice(piece);
            while held.len() >= wanted {
                match decode(&held, MAX) {
                    Ok(Step::Op(op, used)) => {
                        ops.push(format!("{op:?}"));
                        held.drain(..used);
                        wanted = 1;
                    }
                    Ok(Step::Incomplete { bytes_wanted }) => {
                        assert!(bytes_wanted > held.len());
                        assert!(bytes_wanted <= CONTROL_LINE_BYTES_MAX + 4 + MAX);
                        wanted = bytes_wanted;
                    }
                    Err(error) => return (ops, Some(error)),
                }
            }
        }
        (ops, None)
    }

    // protocol: P-033
    #[test]
    fn every_split_of_the_input_decodes_the_same() {
        let text = b"CONNECT {}\r\nPING\r\nSUB a.* q 7\r\nPUB a.b _INBOX.1 5\r\nhe\r\no\r\n\
            HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 7 3\r\n";
        let whole = in_pieces(&[text]);
        assert_eq!(whole.0.len(), 6);
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(in_pieces(&pieces), whole, "split at {first} and {second}");
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(in_pieces(&bytes), whole);
    }

    fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(vec![
            "PUB",
            "HPUB",
            "SUB",
            "UNSUB",
            "PING",
            "CONNECT",
            "{}",
            "a.b",
            "_INBOX.x",
            "0",
            "3",
            "12",
            "2000",
            "abc",
            " ",
            "\t",
            "\r\n",
            "\r",
            "\n",
            "NATS/1.0\r\n\r\n",
            "-ERR",
            "+OK",
            "\u{0}",
            "*",
            ">",
        ]);
        prop::collection::vec(word, 0..40).prop_map(|words| words.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn words_end_where_a_plain_search_says(text in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b' '), Just(b'a'), Just(b'!'), Just(0x1f)], 0..40))
        {
            let plain = text.iter().position(is_space).unwrap_or(text.len());
            prop_assert_eq!(word_bytes(&text), plain);
        }

        #[test]
        fn any_split_of_hostile_bytes_decodes_the_same(text in hostile_bytes(), cut in any::<prop::sample::Index>()) {
            let at = cut.index(text.len() + 1);
            let (ops, error) = in_pieces(&[&text]);
            let split = in_pieces(&[&text[..at], &text[at..]]);
            prop_assert_eq!(split, (ops, error));
        }

        #[test]
        fn garbage_never_panics(text in prop::collection::vec(any::<u8>(), 0..300)) {
            in_pieces(&[&text]);
        }
    }
}
