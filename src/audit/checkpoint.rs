//! A checkpoint: what a log signs of its tree. The format is C2SP tlog-checkpoint: origin, size and root, each on a
//! line, as the text of a signed note.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::audit::key::{PublicKey, SecretKey};
use crate::audit::note::{self, NoteError};
use crate::audit::tree::Hash;

/// See the module's documentation. The origin is the key's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// How many entries the log has.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Hash,
}

/// Why a checkpoint is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not signed as it should be.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// What is signed is no checkpoint.
    #[error("what is signed is no checkpoint: an origin, a size, and a root")]
    Form,
    /// It is one of another log.
    #[error("it is a checkpoint of the log {0}, not of the key's")]
    Origin(String),
}

impl Checkpoint {
    /// The signed note.
    pub fn sign(&self, key: &SecretKey) -> String {
        let root = STANDARD.encode(self.root.0);
        note::sign(&format!("{}\n{}\n{root}\n", key.public().name(), self.size), key)
    }

    /// The checkpoint in a note that the key has signed.
    pub fn open(note: &[u8], key: &PublicKey) -> Result<Self, CheckpointError> {
        let text = note::open(note, key)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Form);
        };
        if origin != key.name() {
            return Err(CheckpointError::Origin(origin.escape_debug().to_string()));
        }
        let parsed: u64 = size.parse().map_err(|_| CheckpointError::Form)?;
        let root = STANDARD.decode(root).ok().and_then(|bytes| Hash::read(&bytes));
        match root {
            Some(root) if parsed.to_string() == size => Ok(Self { size: parsed, root }),
            _ => Err(CheckpointError::Form),
        }
    }
}

/// The answer to somebody who keeps a checkpoint of `kept` entries, 0 for none: the proof that the newest continues it,
/// and that newest, in the form of C2SP tlog-witness: `old N`, the hashes, an empty line, the signed note.
pub fn continuation(kept: u64, proof: &[Hash], note: &str) -> String {
    let mut text = format!("old {kept}\n");
    for hash in proof {
        text.push_str(&STANDARD.encode(hash.0));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(note);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_seed("todo.example/exocom-1", [9; 32]).unwrap()
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_signed() {
        let checkpoint = Checkpoint {
            size: 20_852_163,
            root: Hash([0xab; 32]),
        };
        let note = checkpoint.sign(&key());
        let lines: Vec<_> = note.lines().collect();
        assert_eq!(lines[..2], ["todo.example/exocom-1", "20852163"]);
        assert_eq!(Checkpoint::open(note.as_bytes(), key().public()), Ok(checkpoint));
    }

    #[test]
    fn what_the_key_signed_beside_checkpoints_is_none() {
        let root = STANDARD.encode([7; 32]);
        let check = |text: &str| Checkpoint::open(note::sign(text, &key()).as_bytes(), key().public());
        let origin = "todo.example/exocom-1";
        assert!(check(&format!("{origin}\n5\n{root}\nan extension\n")).is_ok());
        for text in [
            format!("{origin}\n05\n{root}\n"),
            format!("{origin}\n+5\n{root}\n"),
            format!("{origin}\n5\n{}\n", STANDARD.encode([7; 31])),
            format!("{origin}\n5\n"),
            format!("{origin}\n-1\n{root}\n"),
        ] {
            assert_eq!(check(&text), Err(CheckpointError::Form), "{text}");
        }
        let other = check(&format!("another\n5\n{root}\n"));
        assert_eq!(other, Err(CheckpointError::Origin("another".to_owned())));
    }

    /// The newest checkpoint of a public log on some day, with the signatures of its witnesses.
    #[test]
    fn the_example_of_the_specification_has_the_form() {
        let note = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n";
        let stranger = SecretKey::from_seed("example.com/behind-the-sofa", [9; 32]).unwrap();
        let opened = Checkpoint::open(note.as_bytes(), stranger.public());
        assert_eq!(opened, Err(CheckpointError::Note(NoteError::NotSigned)));
    }
}
