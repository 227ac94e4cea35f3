//! Which reply subjects a client may name as its own.
//!
//! An inbox is a reserved name, which no message can have, and never one of our own reply tokens.

use crate::limits::INBOX_BYTES_MAX;
use crate::wire::REPLY_PREFIX;

/// Whether a client may ask to be answered there: a reserved name of its own, not one of our tokens.
pub(super) fn is_inbox(subject: &[u8]) -> bool {
    inbox_pattern(subject).is_some_and(|text| !text.contains(['*', '>']))
}

/// A pattern of reply subjects: reserved names, which no message can have.
pub(super) fn inbox_pattern(subject: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(subject).ok()?;
    let is_ours = subject.starts_with(REPLY_PREFIX);
    let is_valid = text.starts_with('_')
        && text.len() <= INBOX_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && text
            .split('.')
            .rev()
            .enumerate()
            .all(|(from_end, token)| match token {
                "" => false,
                "*" => true,
                ">" => from_end == 0,
                token => !token.contains(['*', '>']),
            });
    (is_valid && !is_ours).then_some(text)
}
