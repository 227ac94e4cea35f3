//! Text from outside, made safe to repeat in a message or a log line: escaped and bounded.

use std::fmt;

use crate::limits::QUOTED_BYTES_MAX;

/// Shows bytes in double quotes, with everything but printable ASCII escaped, and cut after
/// [`QUOTED_BYTES_MAX`].
pub(super) struct Quoted<'a>(pub(super) &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get(..QUOTED_BYTES_MAX) {
            Some(start) if start.len() < self.0.len() => {
                write!(f, "\"{}\"… ({} bytes)", start.escape_ascii(), self.0.len())
            }
            _ => write!(f, "\"{}\"", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Quoted;

    #[test]
    fn escapes_and_bounds() {
        let check = |bytes: &[u8], expected: &str| assert_eq!(Quoted(bytes).to_string(), expected);
        check(b"", r#""""#);
        check(b"spiffe://a/b", r#""spiffe://a/b""#);
        check(b"a\n\x1b[31m\"\0\xff", r#""a\n\x1b[31m\"\x00\xff""#);
        check(&[b'a'; 128], &format!("\"{}\"", "a".repeat(128)));
        check(&[b'a'; 129], &format!("\"{}\"… (129 bytes)", "a".repeat(128)));
    }
}
