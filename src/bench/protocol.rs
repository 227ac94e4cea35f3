//! What a server says, as a client reads it, and what a client says. Written apart from the broker's own
//! decoder, so that one mistake cannot hide in both. Does no IO.

use memchr::memchr;

/// One thing that a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerOp<'a> {
    Info,
    Message(Message<'a>),
    Ping,
    Pong,
    Ok,
    Err(&'a [u8]),
}

/// `MSG` or `HMSG`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) subject: &'a [u8],
    pub(super) reply: Option<&'a [u8]>,
    /// The header block with its version line and its empty line; empty for `MSG`.
    pub(super) headers: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// What lies at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// Something whole, and how many bytes it took.
    Op(ServerOp<'a>, usize),
    /// Ask again when the buffer holds this many bytes.
    Wants(usize),
}

/// A line longer than this is not the protocol. Both ends allow 4 KiB; INFO may be longer.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Reads what is at the start of `buffer`; the error says what is wrong with it.
pub(super) fn read(buffer: &[u8]) -> Result<Found<'_>, String> {
    let Some(line_end) = memchr(b'\n', buffer) else {
        if buffer.len() > LINE_BYTES_MAX {
            return Err("a line without an end".to_owned());
        }
        return Ok(Found::Wants(buffer.len() + 1));
    };
    let used = line_end + 1;
    let line = buffer.get(..line_end).unwrap_or_default();
    let line = line
        .strip_suffix(b"\r")
        .ok_or_else(|| shown("a line that ends without CR", line))?;
    if let Some(arguments) = line.strip_prefix(b"HMSG ") {
        return message(buffer, used, arguments, true);
    }
    if let Some(arguments) = line.strip_prefix(b"MSG ") {
        return message(buffer, used, arguments, false);
    }
    let op = match line {
        b"PING" => ServerOp::Ping,
        b"PONG" => ServerOp::Pong,
        b"+OK" => ServerOp::Ok,
        _ if line.starts_with(b"INFO ") => ServerOp::Info,
        _ if line.starts_with(b"-ERR ") => ServerOp::Err(line.get(5..).unwrap_or_default()),
        _ => return Err(shown("unknown operation", line)),
    };
    Ok(Found::Op(op, used))
}

fn message<'a>(
    buffer: &'a [u8],
    start: usize,
    arguments: &'a [u8],
    has_headers: bool,
) -> Result<Found<'a>, String> {
    let bad = || shown("arguments of a message", arguments);
    let mut words = arguments.split(|&byte| byte == b' ');
    let mut rest: [&[u8]; 5] = [&[]; 5];
    let mut count = 0;
    for word in words.by_ref() {
        *rest.get_mut(count).ok_or_else(bad)? = word;
        count += 1;
    }
    let sizes = if has_headers { 2 } else { 1 };
    let reply = match count.checked_sub(2 + sizes) {
        Some(0) => None,
        Some(1) => rest.get(2).copied(),
        _ => return Err(bad()),
    };
    let size = |from_end: usize| count.checked_sub(from_end).and_then(|at| number(rest.get(at)?));
    let total = size(1).ok_or_else(bad)?;
    let header_bytes = if has_headers { size(2).ok_or_else(bad)? } else { 0 };
    let whole = start + total + 2;
    if buffer.len() < whole {
        return Ok(Found::Wants(whole));
    }
    let body = buffer.get(start..start + total).unwrap_or_default();
    if buffer.get(start + total..whole) != Some(b"\r\n") {
        return Err(shown(
            "a payload that does not end where its size says",
            arguments,
        ));
    }
    let (headers, payload) = body.split_at_checked(header_bytes).ok_or_else(bad)?;
    let message = Message {
        subject: rest.first().copied().unwrap_or_default(),
        reply,
        headers,
        payload,
    };
    Ok(Found::Op(ServerOp::Message(message), whole))
}

/// A decimal number.
pub(super) fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| {
        digit
            .is_ascii_digit()
            .then(|| sum * 10 + usize::from(digit - b'0'))
    })
}

fn shown(what: &str, bytes: &[u8]) -> String {
    let short = bytes.get(..bytes.len().min(120)).unwrap_or_default();
    format!("{what}: {}", short.escape_ascii())
}

/// `PUB name [reply] size` with a payload of zeros. Gives where the payload begins.
pub(super) fn publish(out: &mut Vec<u8>, name: &str, reply: Option<&str>, payload_bytes: usize) -> usize {
    let line = match reply {
        Some(reply) => format!("PUB {name} {reply} {payload_bytes}\r\n"),
        None => format!("PUB {name} {payload_bytes}\r\n"),
    };
    out.extend_from_slice(line.as_bytes());
    let payload = out.len();
    out.resize(payload + payload_bytes, 0);
    out.extend_from_slice(b"\r\n");
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says() {
        let check = |text: &str, expected: ServerOp<'_>| {
            assert_eq!(
                read(text.as_bytes()),
                Ok(Found::Op(expected, text.len())),
                "{text:?}"
            );
            for cut in 0..text.len() {
                let part = text.as_bytes().get(..cut).unwrap();
                match read(part) {
                    Ok(Found::Wants(bytes)) => {
                        assert!(bytes > cut && bytes <= text.len(), "{text:?} at {cut}")
                    }
                    other => panic!("{text:?} cut at {cut}: {other:?}"),
                }
            }
        };
        check("PING\r\n", ServerOp::Ping);
        check("INFO {\"a\":1}\r\n", ServerOp::Info);
        check("-ERR 'no'\r\n", ServerOp::Err(b"'no'"));
        check(
            "MSG a.b 7 2\r\nhi\r\n",
            ServerOp::Message(Message {
                subject: b"a.b",
                reply: None,
                headers: b"",
                payload: b"hi",
            }),
        );
        check(
            "HMSG a.b 7 _R.1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
            ServerOp::Message(Message {
                subject: b"a.b",
                reply: Some(b"_R.1"),
                headers: b"NATS/1.0\r\n\r\n",
                payload: b"hi",
            }),
        );
    }

    #[test]
    fn what_no_server_says() {
        for text in [
            "HELLO\r\n",
            "PING\n",
            "MSG a 1\r\n",
            "MSG a 1 b c 2\r\nhi\r\n",
            "MSG a 1 x\r\n",
            "MSG a 1 1\r\nhi\r\n",
            "HMSG a 1 5 2\r\nhi\r\n",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text:?}");
        }
    }
}
