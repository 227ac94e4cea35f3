//! C2SP signed notes: a text, an empty line, and lines of signatures over the text.
//!
//! A note is taken only where the wanted key has signed it, once. Signatures of others, such as witnesses, are left
//! aside, as the format asks; they say nothing here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::audit::key::{PublicKey, SecretKey, is_name};

/// A note, in bytes: a checkpoint has 200, and one with the signatures of many witnesses some thousand.
pub const NOTE_BYTES_MAX: usize = 64 << 10;

const SIGNATURE_START: &str = "\u{2014} ";

/// Why a note is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a text, an empty line and signatures.
    #[error("it is no signed note: a text, an empty line, and lines of signatures")]
    Form,
    /// The key has not signed it.
    #[error("it is not signed by this key: another key was given, or the note is of another log")]
    NotSigned,
    /// There is a signature that claims to be of the key, and is not over this text.
    #[error("its signature is not over this text: the note was changed, or another signed it")]
    BadSignature,
}

/// Signs a text, which ends with a line end.
pub fn sign(text: &str, key: &SecretKey) -> String {
    let signature = key.sign(text.as_bytes());
    let bytes = [&key.public().hash()[..], &signature[..]].concat();
    format!(
        "{text}\n{SIGNATURE_START}{} {}\n",
        key.public().name(),
        STANDARD.encode(bytes)
    )
}

/// The text of a note that the key has signed.
pub fn open<'a>(note: &'a [u8], key: &PublicKey) -> Result<&'a str, NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::Form);
    }
    let note = std::str::from_utf8(note).map_err(|_| NoteError::Form)?;
    if note.chars().any(|char| char.is_ascii_control() && char != '\n') {
        return Err(NoteError::Form);
    }
    let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
    let (text, signatures) = (note.get(..split + 1), note.get(split + 2..));
    let (Some(text), Some(signatures)) = (text, signatures.and_then(|lines| lines.strip_suffix('\n'))) else {
        return Err(NoteError::Form);
    };
    let mut is_signed = false;
    for line in signatures.split('\n') {
        let (name, signature) = line
            .strip_prefix(SIGNATURE_START)
            .and_then(|line| line.split_once(' '))
            .ok_or(NoteError::Form)?;
        let bytes = STANDARD.decode(signature).map_err(|_| NoteError::Form)?;
        let Some((hash, signature)) = bytes.split_first_chunk::<4>().filter(|_| is_name(name)) else {
            return Err(NoteError::Form);
        };
        if name != key.name() || *hash != key.hash() {
            continue;
        }
        if is_signed || !key.has_signed(text.as_bytes(), signature) {
            return Err(NoteError::BadSignature);
        }
        is_signed = true;
    }
    if is_signed {
        Ok(text)
    } else {
        Err(NoteError::NotSigned)
    }
}

/// The notes in a text that has several, one after the other. Each is to be opened; what is none is given as it is.
pub fn split(bytes: &[u8]) -> Vec<&[u8]> {
    let mut notes = Vec::new();
    let (mut start, mut at, mut has_signature) = (0, 0, false);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let is_signature = line.starts_with(SIGNATURE_START.as_bytes());
        if has_signature && !is_signature {
            notes.extend(bytes.get(start..at));
            start = at;
        }
        has_signature = is_signature;
        at += line.len();
    }
    if start < at {
        notes.extend(bytes.get(start..at));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const TEXT: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    /// What the reference implementation makes of it.
    const SIGNED: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann \
        x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn the_published_note_comes_out() {
        let key = SecretKey::parse(SECRET).unwrap();
        assert_eq!(sign(TEXT, &key), SIGNED);
        assert_eq!(open(SIGNED.as_bytes(), key.public()), Ok(TEXT));
    }

    #[test]
    fn every_change_of_a_byte_is_noticed() {
        let key = SecretKey::parse(SECRET).unwrap();
        for at in 0..SIGNED.len() {
            for bit in 0..8 {
                let mut note = SIGNED.as_bytes().to_vec();
                note[at] ^= 1 << bit;
                assert!(open(&note, key.public()).is_err(), "bit {bit} of byte {at}");
            }
            assert!(
                open(&SIGNED.as_bytes()[..at], key.public()).is_err(),
                "{at} bytes"
            );
        }
    }

    #[test]
    fn notes_of_one_file_are_told_apart() {
        let key = SecretKey::parse(SECRET).unwrap();
        let notes = [SIGNED.to_owned(), sign("one\n\ntwo\n", &key), SIGNED.to_owned()];
        let file = notes.concat();
        assert_eq!(
            split(file.as_bytes()),
            notes.each_ref().map(|note| note.as_bytes())
        );
        assert!(
            split(file.as_bytes())
                .iter()
                .all(|note| open(note, key.public()).is_ok())
        );
        assert!(split(b"").is_empty());
        assert_eq!(
            split(&file.as_bytes()[..file.len() - 3]).len(),
            3,
            "what is none is not left out"
        );
    }

    #[test]
    fn signatures_of_others_count_for_nothing() {
        let key = SecretKey::parse(SECRET).unwrap();
        let other = SecretKey::from_seed("witness.example", [7; 32]).unwrap();
        let same_name = SecretKey::from_seed("PeterNeumann", [7; 32]).unwrap();
        let line_of = |key| sign(TEXT, key).rsplit_once("\n\n").unwrap().1.to_owned();
        let both = format!("{SIGNED}{}{}", line_of(&other), line_of(&same_name));
        assert_eq!(open(both.as_bytes(), key.public()), Ok(TEXT));
        assert_eq!(open(both.as_bytes(), other.public()), Ok(TEXT));
        for other in [&other, &same_name] {
            let note = sign(TEXT, other);
            assert_eq!(open(note.as_bytes(), key.public()), Err(NoteError::NotSigned));
        }
        let twice = format!("{SIGNED}{}", line_of(&key));
        assert_eq!(open(twice.as_bytes(), key.public()), Err(NoteError::BadSignature));
    }
}
