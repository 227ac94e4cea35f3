//! Checks a log: every entry, every tile, and the root that was signed. Names the first entry that is not as it was
//! recorded.
//!
//! The files come in one by one, in the log's order; what is held is one bundle and the edge of a tree. Nothing in
//! them is believed, and nothing is followed by a length that they claim.

use crate::audit::checkpoint::Checkpoint;
use crate::audit::edge::Edge;
use crate::audit::record::{Entry, Record};
use crate::audit::tile::{Tile, WIDTH, bytes_to_hashes, entries};
use crate::audit::tree::{Hash, leaf_hash};

/// What is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// An entry is not what was hashed.
    #[error("entry {entry} is not as it was recorded: it was changed, removed, swapped or repeated ({file})")]
    Entry {
        /// Its number.
        entry: u64,
        /// The bundle that it is in.
        file: String,
    },
    /// A file of the tree is not what the entries make it.
    #[error(
        "{file}: not the hashes of entries {first} to {last}; the file was changed, or entries and their hashes were"
    )]
    Tile {
        /// The file.
        file: String,
        /// The first entry below it.
        first: u64,
        /// The last.
        last: u64,
    },
    /// A file is not there.
    #[error("{file}: missing, with entries {first} to {last}; no record says that they were pruned")]
    Missing {
        /// The file.
        file: String,
        /// The first entry in or below it.
        first: u64,
        /// The last.
        last: u64,
    },
    /// All files agree with each other, and the signed root is of another tree.
    #[error(
        "the entries and their hashes agree, and are not those that were signed: somewhere in entries 0 to {last} \
         history was rewritten; a kept checkpoint (`exocom audit compare`) or a witness tells more closely where"
    )]
    Root {
        /// The last entry.
        last: u64,
    },
    /// A witness has seen another tree.
    #[error(
        "entries {agreed} to {last} are not those of a checkpoint that was kept elsewhere: history was rewritten \
         there, or before, and signed again"
    )]
    Rewritten {
        /// Up to here a checkpoint that was kept agrees.
        agreed: u64,
        /// The last entry under the one that does not.
        last: u64,
    },
    /// A witness has seen more.
    #[error(
        "the log ends after {size} entries, and a checkpoint that was kept elsewhere has {witnessed}: the end was cut off"
    )]
    Cut {
        /// The entries that the log has.
        size: u64,
        /// Those that it had.
        witnessed: u64,
    },
}

/// What a whole log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Its entries.
    pub entries: u64,
    /// Those that have been pruned, and of which only the hashes are left.
    pub pruned: u64,
    /// The entries up to which a checkpoint that was kept elsewhere agrees.
    pub witnessed: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Verifier {
    checkpoint: Checkpoint,
    edge: Edge,
    /// The last entry before which the log says that it was pruned.
    pruned_before: u64,
    /// The first bundle that is missing, and the end of the last.
    missing: Option<(Tile, u64)>,
    /// Checkpoints kept elsewhere, the largest first.
    witnesses: Vec<Checkpoint>,
    witnessed: u64,
}

impl Verifier {
    /// Begins with the log that a checkpoint has signed. `witnesses` are checkpoints of it that were kept elsewhere.
    pub fn new(checkpoint: Checkpoint, mut witnesses: Vec<Checkpoint>) -> Self {
        witnesses.retain(|witness| witness.size > 0);
        witnesses.sort_by_key(|witness| std::cmp::Reverse(witness.size));
        Self {
            checkpoint,
            witnesses,
            witnessed: 0,
            edge: Edge::default(),
            pruned_before: 0,
            missing: None,
        }
    }

    /// The next bundle to give to [`Verifier::handle`]; `None` when there are no more.
    pub fn next_bundle(&self) -> Option<Tile> {
        let left = self.checkpoint.size.saturating_sub(self.edge.size());
        (left > 0).then(|| Tile {
            level: None,
            index: self.edge.size() / WIDTH as u64,
            width: usize::try_from(left).map_or(WIDTH, |left| left.min(WIDTH)),
        })
    }

    /// Takes the bundle that [`Verifier::next_bundle`] named, where there is one, and looks at its tile, and at those
    /// that it makes full. `tile` reads a file.
    pub fn handle<E: From<Fault>>(
        &mut self,
        bundle: Option<&[u8]>,
        mut tile: impl FnMut(&Tile) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<(), E> {
        let Some(place) = self.next_bundle() else {
            return Ok(());
        };
        let hashes_tile = Tile {
            level: Some(0),
            ..place
        };
        let kept = hashes_of(&hashes_tile, &mut tile)?;
        match bundle {
            Some(bundle) => self.compare(&place, bundle, &kept)?,
            None => {
                let end = self.edge.size() + place.width as u64;
                self.missing = Some((self.missing.map_or(place, |(first, _)| first), end));
            }
        }
        let mut full = Vec::new();
        for hash in kept {
            self.edge.push(hash, |tile, hashes| {
                if tile.level != Some(0) {
                    full.push((tile, hashes.to_vec()));
                }
            });
            self.ask_witnesses()?;
        }
        for (place, hashes) in full {
            if hashes_of(&place, &mut tile)? != hashes {
                return Err(wrong_tile(&place).into());
            }
        }
        Ok(())
    }

    fn compare(&mut self, place: &Tile, bundle: &[u8], kept: &[Hash]) -> Result<(), Fault> {
        let first = self.edge.size();
        let wrong = |number: usize| Fault::Entry {
            entry: first + number as u64,
            file: place.path(),
        };
        let mut count = 0;
        for (number, entry) in entries(bundle).enumerate() {
            let entry = entry.map_err(wrong)?;
            if kept.get(number) != Some(&leaf_hash(entry)) {
                return Err(wrong(number));
            }
            if memchr::memmem::find(entry, br#""kind":"prune""#).is_some()
                && let Ok(Entry {
                    record: Record::Prune { before },
                    ..
                }) = Entry::parse(entry)
            {
                self.pruned_before = self.pruned_before.max(before);
            }
            count += 1;
        }
        if count < kept.len() {
            return Err(wrong(count));
        }
        Ok(())
    }

    fn ask_witnesses(&mut self) -> Result<(), Fault> {
        let size = self.edge.size();
        while let Some(witness) = self.witnesses.pop_if(|witness| witness.size == size) {
            if witness.root != self.edge.root() {
                return Err(Fault::Rewritten {
                    agreed: self.witnessed,
                    last: size - 1,
                });
            }
            self.witnessed = size;
        }
        Ok(())
    }

    /// Ends after the last bundle: looks at the tiles that are not full, and at the root.
    pub fn finish<E: From<Fault>>(
        self,
        mut tile: impl FnMut(&Tile) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Verdict, E> {
        for (place, hashes) in self.edge.partial() {
            if place.level != Some(0) && hashes_of(&place, &mut tile)? != hashes {
                return Err(wrong_tile(&place).into());
            }
        }
        if self.edge.root() != self.checkpoint.root || self.edge.size() != self.checkpoint.size {
            let last = self.checkpoint.size.saturating_sub(1);
            return Err(Fault::Root { last }.into());
        }
        if let Some(witness) = self.witnesses.first() {
            let (size, witnessed) = (self.checkpoint.size, witness.size);
            return Err(Fault::Cut { size, witnessed }.into());
        }
        let pruned = self.missing.map_or(0, |(_, end)| end);
        if let Some((first, _)) = self.missing.filter(|_| pruned > self.pruned_before) {
            return Err(missing(&first).into());
        }
        Ok(Verdict {
            entries: self.edge.size(),
            pruned,
            witnessed: self.witnessed,
        })
    }
}

fn hashes_of<E: From<Fault>>(
    place: &Tile,
    tile: &mut impl FnMut(&Tile) -> Result<Option<Vec<u8>>, E>,
) -> Result<Vec<Hash>, E> {
    let bytes = tile(place)?.ok_or_else(|| missing(place))?;
    let hashes = bytes_to_hashes(&bytes).filter(|hashes| hashes.len() == place.width);
    hashes.ok_or_else(|| wrong_tile(place).into())
}

fn missing(place: &Tile) -> Fault {
    let (first, last) = below(place);
    Fault::Missing {
        file: place.path(),
        first,
        last,
    }
}

fn wrong_tile(place: &Tile) -> Fault {
    let (first, last) = below(place);
    Fault::Tile {
        file: place.path(),
        first,
        last,
    }
}

/// The first and the last entry below a tile.
fn below(place: &Tile) -> (u64, u64) {
    let span = 1_u64
        .checked_shl(crate::audit::tile::HEIGHT * place.level.unwrap_or(0))
        .unwrap_or(u64::MAX);
    let first = place.index.saturating_mul(WIDTH as u64).saturating_mul(span);
    let count = (place.width as u64).saturating_mul(span);
    (first, first.saturating_add(count - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::audit::tile::{hashes_to_bytes, put_entry};

    type Files = BTreeMap<String, Vec<u8>>;

    fn entry(number: u64) -> Vec<u8> {
        let entry = Entry {
            at_unix_ms: number,
            record: if number == 900 {
                Record::Prune { before: 512 }
            } else {
                Record::Stop
            },
        };
        entry.to_line()
    }

    fn log(size: u64) -> (Checkpoint, Files) {
        let mut files = Files::new();
        let mut edge = Edge::default();
        for index in 0..size {
            let place = |width| Tile {
                level: None,
                index: index / 256,
                width,
            };
            let mut bundle = files
                .remove(&place((index % 256) as usize).path())
                .unwrap_or_default();
            put_entry(&mut bundle, &entry(index));
            files.insert(place((index % 256) as usize + 1).path(), bundle);
            edge.push(leaf_hash(&entry(index)), |tile, hashes| {
                files.insert(tile.path(), hashes_to_bytes(hashes));
            });
        }
        for (tile, hashes) in edge.partial() {
            files.insert(tile.path(), hashes_to_bytes(hashes));
        }
        let root = edge.root();
        (Checkpoint { size, root }, files)
    }

    fn verify(checkpoint: Checkpoint, files: &Files) -> Result<Verdict, Fault> {
        verify_by(checkpoint, files, &[])
    }

    fn verify_by(checkpoint: Checkpoint, files: &Files, witnesses: &[Checkpoint]) -> Result<Verdict, Fault> {
        let mut verifier = Verifier::new(checkpoint, witnesses.to_vec());
        let read = |tile: &Tile| Ok::<_, Fault>(files.get(&tile.path()).cloned());
        while let Some(bundle) = verifier.next_bundle() {
            verifier.handle(files.get(&bundle.path()).map(Vec::as_slice), read)?;
        }
        verifier.finish(read)
    }

    #[test]
    fn whole_logs_are_taken() {
        for size in [0, 1, 2, 255, 256, 257, 1000] {
            let (checkpoint, files) = log(size);
            let verdict = Verdict {
                entries: size,
                pruned: 0,
                witnessed: 0,
            };
            assert_eq!(verify(checkpoint, &files), Ok(verdict), "size {size}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed_and_the_entry_named() {
        let (checkpoint, files) = log(300);
        for (name, bytes) in &files {
            for at in 0..bytes.len() {
                let mut changed = files.clone();
                changed.get_mut(name).unwrap()[at] ^= 0x20;
                let fault = verify(checkpoint, &changed).unwrap_err();
                if name.contains("entries") {
                    assert!(
                        matches!(&fault, Fault::Entry { file, .. } if file == name),
                        "{fault}"
                    );
                }
            }
            let mut longer = files.clone();
            longer.get_mut(name).unwrap().push(0);
            verify(checkpoint, &longer).unwrap_err();
            let mut shorter = files.clone();
            shorter.get_mut(name).unwrap().pop();
            verify(checkpoint, &shorter).unwrap_err();
            let mut without = files.clone();
            without.remove(name);
            let fault = verify(checkpoint, &without).unwrap_err();
            assert!(
                matches!(&fault, Fault::Missing { file, .. } if file == name),
                "{fault}"
            );
        }
    }

    #[test]
    fn entries_removed_swapped_and_repeated_are_named() {
        let (checkpoint, files) = log(300);
        let name = "tile/entries/000";
        let old: Vec<_> = (0..256).map(entry).collect();
        let check = |new: Vec<Vec<u8>>, named: u64| {
            let mut changed = files.clone();
            let bundle = changed.get_mut(name).unwrap();
            bundle.clear();
            new.iter().for_each(|entry| put_entry(bundle, entry));
            let file = name.to_owned();
            assert_eq!(
                verify(checkpoint, &changed),
                Err(Fault::Entry { entry: named, file })
            );
        };
        let mut removed = old.clone();
        removed.remove(17);
        check(removed, 17);
        let mut swapped = old.clone();
        swapped.swap(3, 200);
        check(swapped, 3);
        let mut repeated = old.clone();
        repeated.insert(99, old[98].clone());
        check(repeated, 99);
        check(old[..255].to_vec(), 255);
        check([&old[..], &[entry(256)]].concat(), 256);
    }

    #[test]
    fn a_rewritten_history_does_not_have_the_signed_root() {
        let (checkpoint, _) = log(300);
        let (longer, files) = log(301);
        assert!(
            verify(
                Checkpoint {
                    root: checkpoint.root,
                    ..longer
                },
                &files
            )
            .is_err()
        );
        let (_, cut) = log(299);
        assert!(verify(checkpoint, &cut).is_err());
    }

    #[test]
    fn a_witness_notices_what_was_signed_again() {
        let (honest, files) = log(300);
        let at = |size| log(size).0;
        let kept = [at(300), at(7), at(256), at(100)];
        assert_eq!(verify_by(honest, &files, &kept).unwrap().witnessed, 300);
        assert_eq!(verify_by(honest, &files, &kept[1..]).unwrap().witnessed, 256);
        let (cut, cut_files) = log(200);
        verify(cut, &cut_files).unwrap();
        let fault = Fault::Cut {
            size: 200,
            witnessed: 300,
        };
        assert_eq!(verify_by(cut, &cut_files, &kept), Err(fault));
        let mut forged = kept;
        forged[2].root.0[0] ^= 1;
        let fault = Fault::Rewritten {
            agreed: 100,
            last: 255,
        };
        assert_eq!(verify_by(honest, &files, &forged), Err(fault));
    }

    #[test]
    fn only_what_a_record_says_may_have_been_pruned() {
        let (checkpoint, mut files) = log(1000);
        files.remove("tile/entries/000");
        assert_eq!(verify(checkpoint, &files).unwrap().pruned, 256);
        files.remove("tile/entries/001");
        assert_eq!(verify(checkpoint, &files).unwrap().pruned, 512);
        files.remove("tile/entries/002");
        assert!(matches!(
            verify(checkpoint, &files),
            Err(Fault::Missing { first: 0, .. })
        ));
        let (checkpoint, mut files) = log(800);
        files.remove("tile/entries/000");
        assert!(
            matches!(verify(checkpoint, &files), Err(Fault::Missing { .. })),
            "no record says so"
        );
    }
}
