//! A proof that an entry is in a log, as one small text that is checked alone: C2SP tlog-proof, with the entry itself
//! as its extra data.
//!
//! Nothing in it is believed: the entry is hashed, the path is followed to a root, and the root is one that the key
//! has signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::audit::checkpoint::{Checkpoint, CheckpointError};
use crate::audit::key::PublicKey;
use crate::audit::note::NOTE_BYTES_MAX;
use crate::audit::tile::ENTRY_BYTES_MAX;
use crate::audit::tree::{Hash, check_inclusion, leaf_hash};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// A proof, in bytes.
pub const PROOF_BYTES_MAX: usize = 2 * ENTRY_BYTES_MAX + NOTE_BYTES_MAX;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The entry's number.
    pub index: u64,
    /// The entry.
    pub entry: Vec<u8>,
    /// The path to the root.
    pub hashes: Vec<Hash>,
    /// The signed checkpoint.
    pub note: String,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is none.
    #[error("it is no proof of an entry, as `exocom audit prove` writes it")]
    Form,
    /// The checkpoint is not the log's.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The entry is not in that tree, at that place.
    #[error("the entry is not number {0} of the log with this checkpoint: the entry or its path was changed")]
    NotIncluded(u64),
}

impl Proof {
    /// Whether a text is meant to be one.
    pub fn begins(text: &[u8]) -> bool {
        text.starts_with(FIRST_LINE.as_bytes())
    }

    /// The text.
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nextra {}\nindex {}\n",
            STANDARD.encode(&self.entry),
            self.index
        );
        for hash in &self.hashes {
            text.push_str(&STANDARD.encode(hash.0));
            text.push('\n');
        }
        text.push('\n');
        text.push_str(&self.note);
        text
    }

    /// Reads the text; checks nothing yet.
    pub fn parse(text: &[u8]) -> Result<Self, ProofError> {
        if text.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Form);
        }
        let text = std::str::from_utf8(text).map_err(|_| ProofError::Form)?;
        let (head, note) = text.split_once("\n\n").ok_or(ProofError::Form)?;
        let mut lines = head.split('\n');
        let first = lines.next();
        let entry = lines.next().and_then(|line| line.strip_prefix("extra "));
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let (Some(FIRST_LINE), Some(entry), Some(index)) = (first, entry, index) else {
            return Err(ProofError::Form);
        };
        let number: u64 = index.parse().map_err(|_| ProofError::Form)?;
        if number.to_string() != index {
            return Err(ProofError::Form);
        }
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| ProofError::Form);
        Ok(Self {
            index: number,
            entry: decode(entry)?,
            hashes: lines
                .map(|line| Hash::read(&decode(line)?).ok_or(ProofError::Form))
                .collect::<Result<_, _>>()?,
            note: note.to_owned(),
        })
    }

    /// Checks it by the log's key alone. Gives the checkpoint that the entry is under.
    pub fn check(&self, key: &PublicKey) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(self.note.as_bytes(), key)?;
        let leaf = leaf_hash(&self.entry);
        if check_inclusion(&leaf, self.index, checkpoint.size, &self.hashes, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(ProofError::NotIncluded(self.index))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::audit::edge::tile_root;
    use crate::audit::key::SecretKey;
    use crate::audit::tree;

    fn proof() -> (Proof, SecretKey) {
        let key = SecretKey::from_seed("log.example", [3; 32]).unwrap();
        let entries: Vec<_> = (0..11).map(|n| format!("entry {n}").into_bytes()).collect();
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let find = |subtree: tree::Subtree| {
            let start = (subtree.index << subtree.level) as usize;
            Ok::<_, Infallible>(tile_root(&leaves[start..start + (1 << subtree.level)]))
        };
        let Ok(root) = tree::root(11, find);
        let Ok(hashes) = tree::prove_inclusion(6, 11, find);
        let proof = Proof {
            index: 6,
            entry: entries[6].clone(),
            hashes,
            note: Checkpoint { size: 11, root }.sign(&key),
        };
        (proof, key)
    }

    #[test]
    fn a_proof_is_read_as_it_was_written_and_holds() {
        let (proof, key) = proof();
        let read = Proof::parse(proof.to_text().as_bytes()).unwrap();
        assert_eq!(read, proof);
        assert_eq!(read.check(key.public()).unwrap().size, 11);
    }

    #[test]
    fn every_change_of_a_byte_makes_it_prove_nothing() {
        let (proof, key) = proof();
        let text = proof.to_text().into_bytes();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                let verdict = Proof::parse(&changed).and_then(|proof| proof.check(key.public()));
                assert!(verdict.is_err(), "bit {bit} of byte {at}");
            }
        }
    }
}
