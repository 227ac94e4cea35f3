//! What the wire's fast code replaces: the same, written to be seen to be right. For tests and fuzzing alone.
//!
//! Nothing here is shared with the code that it judges but the bounds.
#![allow(
    unreachable_pub,
    reason = "the fuzz targets take this file as a module of theirs, and use all of it"
)]

use crate::limits::{CONTROL_LINE_BYTES_MAX, HEADER_BYTES_MAX, INBOX_BYTES_MAX, SID_BYTES_MAX};

/// One operation, as the words that matter: the verb first, absent ones as `None`.
pub type Fields = Vec<Option<Vec<u8>>>;

/// How a client's bytes end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Between two operations or in the middle of one, which may go on.
    Open,
    /// No operation begins like this.
    Unknown,
    /// A line that is too long.
    LongLine,
    /// Arguments that cannot be.
    Arguments,
    /// An announced size that is too large.
    Size,
    /// A payload that is longer than announced.
    Unterminated,
    /// The client's own `-ERR`.
    Theirs,
}

/// Reads everything that a client has sent so far.
pub fn read(mut bytes: &[u8], payload_bytes_max: usize) -> (Vec<Fields>, End) {
    let mut operations = Vec::new();
    while !bytes.is_empty() {
        match first(bytes, payload_bytes_max) {
            Ok(Some((fields, taken))) => {
                operations.push(fields);
                bytes = &bytes[taken..];
            }
            Ok(None) => return (operations, End::Open),
            Err(end) => return (operations, end),
        }
    }
    (operations, End::Open)
}

fn first(bytes: &[u8], payload_bytes_max: usize) -> Result<Option<(Fields, usize)>, End> {
    let verbs = [
        "HPUB", "PUB", "UNSUB", "SUB", "PING", "PONG", "CONNECT", "INFO", "+OK", "-ERR",
    ];
    // What no verb begins with is wrong before the line is whole.
    let starts: Vec<_> = bytes.iter().map(u8::to_ascii_uppercase).take(7).collect();
    let may_become = |verb: &str| {
        let verb = verb.as_bytes();
        starts.starts_with(verb) || (verb.starts_with(&starts) && !starts.is_empty())
    };
    let verb = verbs
        .into_iter()
        .find(|verb| may_become(verb))
        .ok_or(End::Unknown)?;
    let Some(newline) = bytes.iter().position(|&byte| byte == b'\n') else {
        let rest = bytes.get(verb.len()..).unwrap_or_default();
        if !stands_apart(verb, rest) {
            return Err(End::Unknown);
        }
        let is_all_but_newline = bytes.last() == Some(&b'\r');
        return if bytes.len() > CONTROL_LINE_BYTES_MAX + usize::from(is_all_but_newline) {
            Err(End::LongLine)
        } else {
            Ok(None)
        };
    };
    let mut line = &bytes[..newline];
    if line.last() == Some(&b'\r') {
        line = &line[..line.len() - 1];
    }
    if newline >= CONTROL_LINE_BYTES_MAX + 2 {
        // The newline is not looked for so far away.
        let is_verb = bytes.len() >= verb.len() && stands_apart(verb, &bytes[verb.len()..]);
        return Err(if is_verb { End::LongLine } else { End::Unknown });
    }
    if line.len() < verb.len() || !stands_apart(verb, &line[verb.len()..]) {
        return Err(End::Unknown);
    }
    if line.len() > CONTROL_LINE_BYTES_MAX {
        return Err(End::LongLine);
    }
    let arguments = &line[verb.len()..];
    let words: Vec<&[u8]> = arguments
        .split(|byte| b" \t\r".contains(byte))
        .filter(|word| !word.is_empty())
        .collect();
    let some = |word: &[u8]| Some(word.to_vec());
    let name = some(verb.as_bytes());
    let body = &bytes[newline + 1..];
    let fields = match (verb, words.as_slice()) {
        ("PING" | "PONG" | "INFO" | "+OK", _) => vec![name],
        ("-ERR", _) => return Err(End::Theirs),
        ("CONNECT", _) => vec![name, some(arguments.trim_ascii())],
        ("SUB", [subject, queue @ .., sid]) if queue.len() < 2 => {
            if sid.len() > SID_BYTES_MAX {
                return Err(End::Arguments);
            }
            vec![
                name,
                some(subject),
                queue.first().and_then(|word| some(word)),
                some(sid),
            ]
        }
        ("UNSUB", [sid]) => vec![name, some(sid), None],
        ("UNSUB", [sid, max]) => {
            let max = number(max).filter(|&max| max > 0);
            vec![name, some(sid), max.map(|max| max.to_string().into_bytes())]
        }
        ("PUB", [subject, reply @ .., size]) if reply.len() < 2 => {
            return message(
                name,
                subject,
                reply,
                None,
                size,
                body,
                newline + 1,
                payload_bytes_max,
            );
        }
        ("HPUB", [subject, reply @ .., headers, size]) if reply.len() < 2 => {
            return message(
                name,
                subject,
                reply,
                Some(headers),
                size,
                body,
                newline + 1,
                payload_bytes_max,
            );
        }
        _ => return Err(End::Arguments),
    };
    Ok(Some((fields, newline + 1)))
}

#[expect(
    clippy::too_many_arguments,
    reason = "the words of one line, and where it lies"
)]
fn message(
    verb: Option<Vec<u8>>,
    subject: &[u8],
    reply: &[&[u8]],
    headers: Option<&[u8]>,
    size: &[u8],
    body: &[u8],
    line_bytes: usize,
    payload_bytes_max: usize,
) -> Result<Option<(Fields, usize)>, End> {
    let total = number(size).ok_or(End::Arguments)?;
    let header_bytes = match headers {
        None => 0,
        Some(word) => number(word)
            .filter(|&bytes| bytes <= total)
            .ok_or(End::Arguments)?,
    };
    if total > payload_bytes_max || header_bytes > HEADER_BYTES_MAX {
        return Err(End::Size);
    }
    if reply.iter().any(|reply| reply.len() > INBOX_BYTES_MAX) {
        return Err(End::Arguments);
    }
    for (place, wanted) in [(total, b'\r'), (total + 1, b'\n')] {
        match body.get(place) {
            None => return Ok(None),
            Some(&byte) if byte != wanted => return Err(End::Unterminated),
            Some(_) => {}
        }
    }
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let fields = vec![
        verb,
        some(subject),
        reply.first().and_then(|reply| some(reply)),
        some(&body[..header_bytes]),
        some(&body[header_bytes..total]),
    ];
    Ok(Some((fields, line_bytes + total + 2)))
}

/// Whether what follows a verb does not make another word of it.
fn stands_apart(verb: &str, rest: &[u8]) -> bool {
    let takes_anything = ["PING", "PONG", "+OK", "CONNECT", "INFO"].contains(&verb);
    takes_anything || rest.first().is_none_or(|byte| b" \t\r\n".contains(byte))
}

fn number(word: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(word).ok()?;
    let is_number = text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// The header lines that may pass.
pub fn clean(block: &[u8]) -> Vec<u8> {
    let mut lines: Vec<String> = Vec::new();
    // One character for each byte.
    let text: String = block.iter().copied().map(char::from).collect();
    for line in text.split(['\r', '\n', '\0']).skip(1) {
        if line.starts_with([' ', '\t']) {
            if let Some(last) = lines.last_mut() {
                *last = format!("{last} {}", line.trim_matches([' ', '\t', '\n', '\r', '\u{c}']));
            }
        } else if !line.is_empty() {
            lines.push(line.to_owned());
        }
    }
    let may_pass = |line: &String| {
        let Some((name, value)) = line.split_once(':') else {
            return false;
        };
        let is_token = |char: char| char.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(char);
        let bytes: Vec<u8> = value.chars().map(|char| char as u8).collect();
        let is_text = String::from_utf8(bytes).is_ok();
        !name.is_empty()
            && name.chars().all(is_token)
            && !name.to_lowercase().starts_with("exo-")
            && is_text
            && !value.chars().any(|char| char != '\t' && char.is_ascii_control())
    };
    let passing = lines.iter().filter(|line| may_pass(line));
    let lines: String = passing.map(|line| format!("{line}\r\n")).collect();
    lines.chars().map(|char| char as u8).collect()
}

/// How the official clients read the header block of an `HMSG`: the name and value of each header that they find,
/// or `None` where the client gives up. Written after their sources, and checked against them over real
/// connections by the behaviour tests.
pub mod clients {
    /// A header's name and value.
    pub type Header = (String, String);

    /// async-nats 0.51.
    pub fn rust(block: &[u8]) -> Option<Vec<Header>> {
        let mut lines = std::str::from_utf8(block).ok()?.lines().peekable();
        let status = lines.next()?.strip_prefix("NATS/1.0")?.trim();
        let mut headers = Vec::new();
        if !status.is_empty() {
            headers.push(("Status".to_owned(), status.to_owned()));
        }
        while let Some(line) = lines.next() {
            if line.is_empty() {
                continue;
            }
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || !name.bytes().all(|byte| (33..127).contains(&byte)) {
                return None;
            }
            let mut value = value.trim_start().to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
                value.push_str(more);
            }
            headers.push((name.to_owned(), value.trim_end().to_owned()));
        }
        Some(headers)
    }

    /// nats.js 3, which throws at a name that is none.
    pub fn javascript(block: &[u8]) -> Option<Vec<Header>> {
        let text = String::from_utf8_lossy(block).into_owned();
        let mut lines = text.split("\r\n");
        let status = lines.next()?.replacen("NATS/1.0", "", 1);
        let mut headers = Vec::new();
        if !status.trim().is_empty() {
            headers.push(("Status".to_owned(), status.trim().to_owned()));
        }
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim();
            if !name.bytes().all(|byte| (33..127).contains(&byte)) || value.contains(['\r', '\n']) {
                return None;
            }
            headers.push((name.to_owned(), value.to_owned()));
        }
        Some(headers)
    }

    /// nats-py 2.16.
    pub fn python(block: &[u8]) -> Option<Vec<Header>> {
        let after = block.get(8..)?;
        let mut headers = Vec::new();
        if after.first() == Some(&b' ') {
            headers.push(("Status".to_owned(), String::from_utf8_lossy(after).into_owned()));
        }
        let text: String = after.iter().copied().map(char::from).collect();
        for line in text.split("\r\n").skip(1) {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let name = name.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
            let is_space = |char: char| char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char);
            if name.is_ascii() && !name.contains(is_space) {
                headers.push((name.to_owned(), value.trim().to_owned()));
            }
        }
        Some(headers)
    }

    /// Go's `textproto.Reader.ReadMIMEHeader`, and so nats.go and nats-server itself: lines may end in LF, folded
    /// lines go on, and the first line that is no header ends the reading.
    pub fn go(block: &[u8]) -> Option<Vec<Header>> {
        let text: String = block.iter().copied().map(char::from).collect();
        let mut lines = text
            .split('\n')
            .map(|line| line.trim_end_matches('\r'))
            .peekable();
        let status = lines.next()?.strip_prefix("NATS/1.0")?.trim();
        let mut headers = Vec::new();
        if !status.is_empty() {
            headers.push(("Status".to_owned(), status.to_owned()));
        }
        if lines.peek().is_some_and(|line| line.starts_with([' ', '\t'])) {
            return None;
        }
        while let Some(line) = lines.next() {
            if line.is_empty() {
                break;
            }
            let mut line = line.trim_matches([' ', '\t']).to_owned();
            while let Some(more) = lines.next_if(|line| line.starts_with([' ', '\t'])) {
                line = format!("{line} {}", more.trim_matches([' ', '\t']));
            }
            let (name, value) = line.split_once(':')?;
            let is_token = |char: char| char.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(char);
            if name.is_empty() || !name.chars().all(is_token) {
                return None;
            }
            headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Some(headers)
    }
}
