//! Bytes to operations and back: the NATS client protocol, names and patterns, headers.
//!
//! Pure: bytes come in as slices and go out as slices. Nothing here reads a socket, a clock or a file.

pub mod decode;
pub mod encode;
pub mod headers;
#[cfg(test)]
mod naive;
pub mod name;
#[cfg(test)]
mod tests;

/// What a reply subject that ExoCom hands out begins with. It means something only on the connection to which
/// the message was delivered.
pub const REPLY_PREFIX: &[u8] = b"_R.";

/// What a service asks the broker itself: for the newest checkpoint of its audit log. No message has such a name.
pub const CHECKPOINT_SUBJECT: &[u8] = b"$EXO.audit.checkpoint";

/// Bytes from elsewhere as text that is safe in a log line or an error: control characters and everything
/// outside ASCII escaped, and cut at `bytes_max`.
pub fn printable(bytes: &[u8], bytes_max: usize) -> String {
    let shown = bytes.get(..bytes_max).unwrap_or(bytes);
    let mut text = shown.escape_ascii().to_string();
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}
