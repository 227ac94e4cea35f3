//! The header block of a message: what a client sent, made safe to pass on.
//!
//! Headers beginning `Exo-` are ExoCom's word, and so is the status line; neither may come from a client.
//! Receivers' parsers differ (some fold lines, some take a bare LF for a line's end), so a block passes as it
//! is only when no parser can read it in two ways; any other is rebuilt line by line.

use memchr::{memchr2, memchr3_iter};

const VERSION_LINE: &[u8] = b"NATS/1.0\r\n";
const OURS: &[u8] = b"exo-";

/// A client's header lines, each ending in CR LF, without the version line and the empty last one.
#[derive(Debug, PartialEq, Eq)]
pub enum CleanLines<'a> {
    /// As the client sent them.
    AsSent(&'a [u8]),
    /// Rebuilt, without what may not pass.
    Rebuilt(Vec<u8>),
}

impl CleanLines<'_> {
    /// The lines' bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::AsSent(lines) => lines,
            Self::Rebuilt(lines) => lines,
        }
    }
}

/// Takes the lines of a header block that may pass: no `Exo-` header in any case or folding, no status, no
/// line that is not `name: value`.
pub fn clean(block: &[u8]) -> CleanLines<'_> {
    plain_lines(block).map_or_else(|| CleanLines::Rebuilt(rebuild(block)), CleanLines::AsSent)
}

/// The value of the first header of this name, as clients of NATS write it: the name to the letter. `None` where
/// there is none, or one that is no UTF-8 or empty.
pub fn value<'a>(block: &'a [u8], name: &str) -> Option<&'a str> {
    let mut lines = block.split(|&byte| byte == b'\n').skip(1);
    let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
    let value = std::str::from_utf8(value).ok()?.trim();
    (!value.is_empty()).then_some(value)
}

/// The lines, if the block is well formed in every reading and holds nothing of ours.
fn plain_lines(block: &[u8]) -> Option<&[u8]> {
    let lines = block.strip_prefix(VERSION_LINE)?.strip_suffix(b"\r\n")?;
    let mut rest = lines;
    while !rest.is_empty() {
        let end = memchr2(b'\r', b'\n', rest)?;
        let line = rest.get(..end)?;
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
        if !may_pass(line) {
            return None;
        }
    }
    Some(lines)
}

fn rebuild(block: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut start = 0;
    let ends = memchr3_iter(b'\r', b'\n', 0, block).chain(std::iter::once(block.len()));
    for (index, end) in ends.enumerate() {
        let line = block.get(start..end).unwrap_or_default();
        start = end + 1;
        match line.first() {
            // The version line, with whatever status it claims.
            _ if index == 0 => {}
            None => {}
            // A folded line continues the one before it, whether that may pass or not.
            Some(b' ' | b'\t') => {
                if let Some(last) = lines.last_mut() {
                    last.push(b' ');
                    last.extend_from_slice(line.trim_ascii());
                }
            }
            Some(_) => lines.push(line.to_vec()),
        }
    }
    lines.retain(|line| may_pass(line));
    lines
        .into_iter()
        .flat_map(|line| [line.as_slice(), b"\r\n"].concat())
        .collect()
}

/// Whether a line is `name: value`, its name a token (RFC 9110, section 5.6.2) that is not ours, its value
/// UTF-8 without control characters. Other encodings would do harm: clients in Rust end their connection at
/// the first byte that is not UTF-8, so that any sender could cut off any of its receivers.
fn may_pass(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else {
        return false;
    };
    let (name, value) = line.split_at(colon);
    let is_ours = name
        .get(..OURS.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(OURS));
    !name.is_empty()
        && !is_ours
        && name.iter().all(|&byte| is_token_byte(byte))
        && value
            .iter()
            .all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
        && std::str::from_utf8(value).is_ok()
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // protocol: P-053, P-054, P-055, P-056
    #[test]
    fn values_are_found_by_name() {
        let block = b"NATS/1.0\r\nNats-Msg-Id-2: x\r\nNats-Msg-Id: a b \r\nNats-Msg-Id: c\r\n\r\n";
        assert_eq!(value(block, "Nats-Msg-Id"), Some("a b"));
        assert_eq!(value(block, "nats-msg-id"), None);
        assert_eq!(value(b"NATS/1.0\r\nNats-Msg-Id:\r\n\r\n", "Nats-Msg-Id"), None);
        assert_eq!(value(b"Nats-Msg-Id: x", "Nats-Msg-Id"), None);
    }

    #[test]
    fn what_passes_and_what_does_not() {
        let check = |block: &str, expected: &str| {
            let lines = clean(block.as_bytes());
            assert_eq!(String::from_utf8_lossy(lines.as_bytes()), expected, "{block:?}");
        };
        check("NATS/1.0\r\n\r\n", "");
        check("NATS/1.0\r\nA: 1\r\nb:2\r\n\r\n", "A: 1\r\nb:2\r\n");
        check(
            "NATS/1.0\r\ntraceparent: 00-ab-cd-01\r\n\r\n",
            "traceparent: 00-ab-cd-01\r\n",
        );
        for forged in ["Exo-Sender", "exo-sender", "EXO-SENDER", "eXo-Anything"] {
            check(
                &format!("NATS/1.0\r\n{forged}: admin\r\nA: 1\r\n\r\n"),
                "A: 1\r\n",
            );
            check(
                &format!("NATS/1.0\r\nA: 1\r\n{forged}: x\r\n{forged}: y\r\n\r\n"),
                "A: 1\r\n",
            );
            check(&format!("NATS/1.0\r\nA: 1\n{forged}: admin\r\n\r\n"), "A: 1\r\n");
            check(&format!("NATS/1.0\r\nA: 1\r{forged}: admin\r\n\r\n"), "A: 1\r\n");
            check(
                &format!("NATS/1.0\r\n{forged}:\r\n admin\r\n\tsecond\r\nA: 1\r\n\r\n"),
                "A: 1\r\n",
            );
            check(
                &format!("NATS/1.0\r\n{forged} : admin\r\nA: 1\r\n\r\n"),
                "A: 1\r\n",
            );
            check(
                &format!("NATS/1.0\r\n {forged}: admin\r\nA: 1\r\n\r\n"),
                "A: 1\r\n",
            );
            check(
                &format!("NATS/1.0\r\nA: 1\r\n {forged}: admin\r\n\r\n"),
                &format!("A: 1 {forged}: admin\r\n"),
            );
            check(&format!("{forged}: admin\r\nA: 1\r\n\r\n"), "A: 1\r\n");
            check(
                &format!("NATS/1.0\r\nA: 1\u{0}{forged}: admin\r\n\r\n"),
                "A: 1\r\n",
            );
        }
        check("NATS/1.0 503\r\nA: 1\r\n\r\n", "A: 1\r\n");
        check("NATS/1.0\r\nno colon\r\nA: 1\r\n\r\n", "A: 1\r\n");
        check("NATS/1.0\r\n: empty\r\n\r\n", "");
        check("NATS/1.0\r\nA: a\u{b}b\r\n\r\n", "");
        check("NATS/1.0\r\nA: 1\r\n", "A: 1\r\n");
        check("", "");
    }

    // protocol: P-055
    #[test]
    fn only_utf8_passes() {
        let check = |value: &[u8], passes: bool| {
            let line = [b"A: ".as_slice(), value, b"\r\n"].concat();
            let block = [VERSION_LINE, line.as_slice(), b"\r\n"].concat();
            let expected = if passes { line.as_slice() } else { b"" };
            assert_eq!(clean(&block).as_bytes(), expected, "{value:?}");
        };
        check("Grüße".as_bytes(), true);
        check(b"\xff", false);
        check(b"cut \xc3", false);
        check(b"overlong \xc0\xaf", false);
        check(b"surrogate \xed\xa0\x80", false);
    }

    #[test]
    fn well_formed_lines_are_not_copied() {
        assert_eq!(
            clean(b"NATS/1.0\r\nA: 1\r\n\r\n"),
            CleanLines::AsSent(b"A: 1\r\n")
        );
    }

    proptest! {
        #[test]
        fn whatever_passes_is_plain_and_not_ours(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "NATS/1.0", " 503", "\r\n", "\n", "\r", "Exo-", "exo-", "Sender", ": ", ":", "a", " ", "\t",
                    "\u{0}", "\u{b}", "\u{85}",
                ]),
                0..30,
            ),
        ) {
            let block = parts.concat().into_bytes();
            let lines = clean(&block);
            let whole = [VERSION_LINE, lines.as_bytes(), b"\r\n"].concat();
            prop_assert_eq!(plain_lines(&whole), Some(lines.as_bytes()));
            let text = String::from_utf8_lossy(lines.as_bytes()).to_lowercase();
            prop_assert!(!text.split(['\r', '\n']).any(|line| line.trim().starts_with("exo-")));
        }
    }
}
