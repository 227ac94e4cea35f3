//! Reads an audit log, also one that a broker is writing at this moment: its checkpoint, entries, hashes and proofs.
//!
//! Changes nothing, takes no lock, and believes nothing: what it reads is bounded, and [`Archive::verify`] checks it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::audit::Checkpoint;
use crate::audit::checkpoint::CheckpointError;
use crate::audit::edge::tile_root;
use crate::audit::key::PublicKey;
use crate::audit::note::NOTE_BYTES_MAX;
use crate::audit::proof::Proof;
use crate::audit::tile::{self, CHECKPOINT, ENTRY_BYTES_MAX, HEIGHT, Tile, WIDTH, bytes_to_hashes};
use crate::audit::tree::{self, HASH_BYTES, Hash, Subtree};
use crate::audit::verify::{Fault, Verdict, Verifier};

/// Why a log cannot be read, or is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system does not let it be read.
    #[error("{file}: {error}")]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// There is no log.
    #[error("{0}: no audit log: there is no file `checkpoint` in it")]
    NoLog(PathBuf),
    /// Its checkpoint is not the key's.
    #[error("{file}: {error}")]
    Checkpoint {
        /// The checkpoint's file.
        file: PathBuf,
        /// What is wrong with it.
        error: CheckpointError,
    },
    /// It is not as it was recorded.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// There is no such entry.
    #[error("there is no entry {index}: the log has {size}, numbered from 0")]
    NoEntry {
        /// The number asked for.
        index: u64,
        /// How many there are.
        size: u64,
    },
    /// The entry has been pruned.
    #[error("entry {0} has been pruned, and only its hash is left")]
    Pruned(u64),
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Archive {
    folder: PathBuf,
}

impl Archive {
    /// The log in a folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The signed note of the newest checkpoint.
    pub fn note(&self) -> Result<Vec<u8>, ArchiveError> {
        let note = self.read(CHECKPOINT, NOTE_BYTES_MAX)?;
        note.ok_or_else(|| ArchiveError::NoLog(self.folder.clone()))
    }

    /// The newest checkpoint, where the key has signed it.
    pub fn checkpoint(&self, key: &PublicKey) -> Result<Checkpoint, ArchiveError> {
        let file = self.folder.join(CHECKPOINT);
        Checkpoint::open(&self.note()?, key).map_err(|error| ArchiveError::Checkpoint { file, error })
    }

    /// The number of entries that the newest checkpoint claims, whoever signed it.
    pub fn claimed_size(&self) -> Result<u64, ArchiveError> {
        let note = self.note()?;
        let size = note.split(|byte| *byte == b'\n').nth(1).unwrap_or_default();
        let size = std::str::from_utf8(size).ok().and_then(|size| size.parse().ok());
        size.ok_or_else(|| ArchiveError::NoLog(self.folder.clone()))
    }

    /// Checks all of it. `progress` is told how many entries have been looked at after each bundle, and its bytes.
    pub fn verify(
        &self,
        key: &PublicKey,
        witnesses: Vec<Checkpoint>,
        mut progress: impl FnMut(u64, usize),
    ) -> Result<Verdict, ArchiveError> {
        let checkpoint = self.checkpoint(key)?;
        let mut verifier = Verifier::new(checkpoint, witnesses);
        let mut looked_at = 0;
        while let Some(place) = verifier.next_bundle() {
            let bundle = self.read_tile(&place)?;
            let bytes = bundle.as_ref().map_or(0, Vec::len);
            verifier.handle(bundle.as_deref(), |tile| self.read_tile(tile))?;
            looked_at += place.width as u64;
            progress(looked_at, bytes);
        }
        verifier.finish(|tile| self.read_tile(tile))
    }

    /// One entry of a log of `size` entries.
    pub fn entry(&self, index: u64, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if index >= size {
            return Err(ArchiveError::NoEntry { index, size });
        }
        let place = bundle_place(index / WIDTH as u64, size);
        let bundle = self.read_tile(&place)?.ok_or(ArchiveError::Pruned(index))?;
        let entry = tile::entries(&bundle).nth((index % WIDTH as u64) as usize);
        let file = place.path();
        let entry = entry.and_then(Result::ok).map(<[u8]>::to_vec);
        entry.ok_or_else(|| Fault::Entry { entry: index, file }.into())
    }

    /// The proof that an entry is in the log, under its newest checkpoint.
    pub fn prove(&self, index: u64, key: &PublicKey) -> Result<Proof, ArchiveError> {
        let note = self.note()?;
        let file = self.folder.join(CHECKPOINT);
        let checkpoint =
            Checkpoint::open(&note, key).map_err(|error| ArchiveError::Checkpoint { file, error })?;
        let entry = self.entry(index, checkpoint.size)?;
        let hashes = tree::prove_inclusion(index, checkpoint.size, |subtree| {
            self.subtree(subtree, checkpoint.size)
        })?;
        Ok(Proof {
            index,
            entry,
            hashes,
            note: String::from_utf8_lossy(&note).into_owned(),
        })
    }

    /// Whether the log, at its newest checkpoint, continues what it was at an older one: the proof is made from the
    /// log's hashes and then checked, so that a log that has been rewritten has none. Says the entries it has now.
    pub fn continues(&self, old: &Checkpoint, key: &PublicKey) -> Result<u64, ArchiveError> {
        let new = self.checkpoint(key)?;
        if new.size < old.size {
            let (size, witnessed) = (new.size, old.size);
            return Err(Fault::Cut { size, witnessed }.into());
        }
        let proof = self.prove_continuation(old.size, new.size)?;
        if tree::check_consistency(old.size, new.size, &old.root, &new.root, &proof) {
            return Ok(new.size);
        }
        let last = old.size.saturating_sub(1);
        Err(Fault::Rewritten { agreed: 0, last }.into())
    }

    /// The proof that the log at `new` entries continues what it was at `old`; empty where there is nothing to prove, or
    /// there are no more than `new`.
    pub fn prove_continuation(&self, old: u64, new: u64) -> Result<Vec<Hash>, ArchiveError> {
        if old == 0 || old >= new {
            return Ok(Vec::new());
        }
        tree::prove_consistency(old, new, |subtree| self.subtree(subtree, new))
    }

    /// The bundles of a log of `size` entries from the one with entry `from`, those that are there.
    pub fn pages(&self, from: u64, size: u64) -> Pages<'_> {
        Pages {
            archive: self,
            next: from / WIDTH as u64,
            size,
        }
    }

    /// The hash of a perfect subtree of the tree over `size` leaves, from the tile that has it.
    fn subtree(&self, subtree: Subtree, size: u64) -> Result<Hash, ArchiveError> {
        let level = subtree.level / HEIGHT;
        let span = subtree.level % HEIGHT;
        let first = subtree.index << span;
        let (full, width) = Tile::row(level, size);
        let index = first / WIDTH as u64;
        let place = Tile {
            level: Some(level),
            index,
            width: if index < full { WIDTH } else { width },
        };
        let start = (first % WIDTH as u64) as usize;
        let hashes = self.read_tile(&place)?.as_deref().and_then(bytes_to_hashes);
        let hashes = hashes
            .as_ref()
            .and_then(|hashes| hashes.get(start..start + (1 << span)));
        let missing = || Fault::Tile {
            file: place.path(),
            first: subtree.index << subtree.level,
            last: ((subtree.index + 1) << subtree.level) - 1,
        };
        Ok(tile_root(hashes.ok_or_else(missing)?))
    }

    /// A tile or bundle. Where a partial one is not there any more, since the broker has written on, the beginning
    /// of one that has more.
    fn read_tile(&self, place: &Tile) -> Result<Option<Vec<u8>>, ArchiveError> {
        let bytes_max = match place.level {
            Some(_) => WIDTH * HASH_BYTES,
            None => WIDTH * (ENTRY_BYTES_MAX + 2),
        };
        let exact = self.read(&place.path(), bytes_max)?;
        if exact.is_some() || place.width == WIDTH {
            return Ok(exact);
        }
        // The fuller ones first: what is there stays at least until the next is.
        for width in (place.width + 1..=WIDTH).rev() {
            let wider = Tile { width, ..*place };
            if let Some(mut bytes) = self.read(&wider.path(), bytes_max)? {
                let end = match place.level {
                    Some(_) => place.width * HASH_BYTES,
                    None => {
                        let entries = tile::entries(&bytes).take(place.width);
                        entries.flatten().map(|entry| entry.len() + 2).sum()
                    }
                };
                bytes.truncate(end);
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Vec<u8>>, ArchiveError> {
        let path = self.folder.join(name);
        let failed = |error| ArchiveError::Io {
            file: path.clone(),
            error,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        Ok(Some(bytes))
    }
}

fn bundle_place(index: u64, size: u64) -> Tile {
    let left = size.saturating_sub(index.saturating_mul(WIDTH as u64));
    Tile {
        level: None,
        index,
        width: usize::try_from(left).map_or(WIDTH, |left| left.min(WIDTH)),
    }
}

/// Bundle by bundle: the number of the first entry, and the entries.
#[derive(Debug)]
pub struct Pages<'a> {
    archive: &'a Archive,
    next: u64,
    size: u64,
}

impl Iterator for Pages<'_> {
    type Item = Result<(u64, Vec<Vec<u8>>), ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let first = self.next * WIDTH as u64;
            if first >= self.size {
                return None;
            }
            let place = bundle_place(self.next, self.size);
            self.next += 1;
            match self.archive.read_tile(&place) {
                // It has been pruned.
                Ok(None) => {}
                Ok(Some(bundle)) => {
                    let entries = tile::entries(&bundle).map_while(Result::ok);
                    return Some(Ok((first, entries.map(<[u8]>::to_vec).collect())));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
