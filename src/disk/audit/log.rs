//! The writer of the audit log: takes entries, and makes them durable with the checkpoint that signs them.
//!
//! What could not be written is kept in memory and written anew, into new files, by the next commit: nothing that a
//! failed sync may have lost is ever counted as written. Nothing here looks into what is recorded, but for the last
//! entry at the start.

use std::collections::VecDeque;
use std::io;

use crate::audit::checkpoint::CheckpointError;
use crate::audit::edge::Edge;
use crate::audit::key::SecretKey;
use crate::audit::record::{Entry, Gap, GapCause, Record};
use crate::audit::tile::{self, CHECKPOINT, ENTRY_BYTES_MAX, Tile, WIDTH, bytes_to_hashes, hashes_to_bytes};
use crate::audit::tree::leaf_hash;
use crate::audit::{Checkpoint, note};
use crate::disk::files::{Files, read_full, write_full};

/// What the name of a file ends with until the file is whole and takes the place of another.
const DRAFT_SUFFIX: &str = ".new";

/// Files of one commit from which one sync of the whole file system is cheaper than one for each.
const SYNCED_ONE_BY_ONE_MAX: usize = 32;

/// Why the audit log cannot be written now. What was appended is kept, and tried again by the next commit.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {file} of the audit log: {error}")]
pub struct LogError {
    /// What was tried.
    pub verb: &'static str,
    /// On which file.
    pub file: String,
    /// What the system says.
    pub error: io::Error,
}

/// Why an audit log cannot be continued. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system does not let it be read or written.
    #[error(transparent)]
    Io(#[from] LogError),
    /// Its newest checkpoint is missing.
    #[error(
        "there are entries and no checkpoint: somebody removed it. Put it back, or move the folder away to begin a \
         new log; `exocom audit verify` shows what can be shown"
    )]
    NoCheckpoint,
    /// Its newest checkpoint is not of this key.
    #[error(
        "its checkpoint: {0}. Name the key with which the log was begun, or move the folder away to begin a new log"
    )]
    Checkpoint(#[from] CheckpointError),
    /// Its end is not what was signed.
    #[error(
        "{file}: not what its checkpoint signed, so it was changed or lost after it was on disk. Run `exocom audit \
         verify` on it, keep it, and move the folder away to begin a new log"
    )]
    Damaged {
        /// Which file.
        file: String,
    },
}

/// The torn end of a log that was cut off: what was written when the machine stopped, and no checkpoint had signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Entries that were at least begun.
    pub entries: u64,
}

/// What was found.
#[derive(Debug)]
pub struct Opened {
    /// The durable entries.
    pub size: u64,
    /// What was cut off behind them.
    pub cut: Option<Cut>,
    /// Whether the last entry says that the broker stopped in order; a new log begins so.
    pub was_closed: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct AuditLog<F: Files> {
    files: F,
    key: SecretKey,
    edge: Edge,
    /// The entries of the bundle that is not full.
    bundle: Vec<u8>,
    /// Full bundles and tiles that are not on disk yet.
    full: Vec<(Tile, Vec<u8>)>,
    full_bytes: usize,
    durable: Checkpoint,
    note: String,
    /// Partial files that the durable checkpoint needs.
    partial: Vec<Tile>,
    /// Partial files that nothing needs any more.
    stale: Vec<Tile>,
    /// The last commit failed, perhaps only in saying that it was done: what it wrote may be needed, and is replaced
    /// whole or not at all.
    is_retry: bool,
    /// Full bundles that are there: the number of the first, and the bytes of each.
    oldest: u64,
    bundle_bytes: VecDeque<u64>,
}

impl<F: Files> AuditLog<F> {
    /// Opens a log, or begins one. What no checkpoint has signed is cut off; where the last entry is not that the
    /// broker stopped, the first new entry is a gap that says since when nothing was recorded.
    pub fn open(files: F, key: SecretKey, now_unix_ms: u64) -> Result<(Self, Opened), OpenError> {
        let names = files.names().map_err(failed("list", "the files"))?;
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let tiles: Vec<_> = names.iter().filter_map(|name| Tile::parse(name)).collect();
        let mut log = Self {
            durable: Checkpoint {
                size: 0,
                root: Edge::default().root(),
            },
            files,
            key,
            edge: Edge::default(),
            bundle: Vec::new(),
            full: Vec::new(),
            full_bytes: 0,
            note: String::new(),
            partial: Vec::new(),
            stale: Vec::new(),
            is_retry: false,
            oldest: 0,
            bundle_bytes: VecDeque::new(),
        };
        if has(CHECKPOINT) {
            let bytes = log.read(CHECKPOINT, note::NOTE_BYTES_MAX)?;
            log.durable = Checkpoint::open(&bytes, log.key.public())?;
            log.note = String::from_utf8_lossy(&bytes).into_owned();
            log.resume()?;
        } else if !tiles.is_empty() {
            return Err(OpenError::NoCheckpoint);
        } else {
            log.write_checkpoint(log.durable)?;
        }
        for draft in names.iter().filter(|name| name.ends_with(DRAFT_SUFFIX)) {
            log.files.remove(draft).map_err(failed("remove", draft))?;
        }
        let cut = log.cut_off(&tiles)?;
        log.measure(&tiles)?;
        let last = log.last_entry()?;
        let was_closed = last.as_ref().is_none_or(|last| last.record == Record::Stop);
        if let Some(last) = last.filter(|_| !was_closed) {
            let gap = Gap {
                cause: GapCause::UncleanStop,
                after_unix_ms: last.at_unix_ms,
                records: None,
            };
            let entry = Entry {
                at_unix_ms: now_unix_ms,
                record: Record::Gap(gap),
            };
            log.append(&entry.to_line());
        }
        let opened = Opened {
            size: log.durable.size,
            cut,
            was_closed,
        };
        Ok((log, opened))
    }

    /// Appends an entry and gives its number. It is durable after the next [`AuditLog::commit`]. An entry is at most
    /// [`ENTRY_BYTES_MAX`] bytes; a longer one is cut there.
    pub fn append(&mut self, line: &[u8]) -> u64 {
        let number = self.edge.size();
        let line = line.get(..ENTRY_BYTES_MAX).unwrap_or(line);
        tile::put_entry(&mut self.bundle, line);
        let full = &mut self.full;
        let before = full.len();
        self.edge.push(leaf_hash(line), |tile, hashes| {
            full.push((tile, hashes_to_bytes(hashes)));
        });
        if (number + 1).is_multiple_of(WIDTH as u64) {
            let place = Tile {
                level: None,
                index: number / WIDTH as u64,
                width: WIDTH,
            };
            let bundle = std::mem::take(&mut self.bundle);
            self.bundle_bytes.push_back(bundle.len() as u64);
            self.full.push((place, bundle));
        }
        let added = self.full.get(before..).unwrap_or_default();
        self.full_bytes += added.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        number
    }

    /// Returns after all appended entries are on disk, with a checkpoint over them; gives its signed note, or `None`
    /// where there was nothing to do. After an error nothing is lost: the next commit writes all of it again.
    pub fn commit(&mut self) -> Result<Option<&str>, LogError> {
        if self.edge.size() == self.durable.size {
            return Ok(None);
        }
        let is_retry = std::mem::replace(&mut self.is_retry, true);
        let mut partial: Vec<(Tile, Vec<u8>)> = self
            .edge
            .partial()
            .map(|(tile, hashes)| (tile, hashes_to_bytes(hashes)))
            .collect();
        if !self.bundle.is_empty() {
            let (index, width) = Tile::row(0, self.edge.size());
            let place = Tile {
                level: None,
                index,
                width,
            };
            partial.push((place, self.bundle.clone()));
        }
        // A level that did not grow has its partial tile already.
        partial.retain(|(tile, _)| !self.partial.contains(tile));
        let is_many = self.full.len() + partial.len() > SYNCED_ONE_BY_ONE_MAX;
        for (tile, bytes) in self.full.iter().chain(&partial) {
            let path = tile.path();
            if is_retry {
                let draft = format!("{path}{DRAFT_SUFFIX}");
                self.write(&draft, bytes, true)?;
                self.files
                    .rename(&draft, &path)
                    .map_err(failed("replace", &path))?;
            } else {
                self.write(&path, bytes, !is_many)?;
            }
        }
        if is_many {
            self.files
                .sync_everything()
                .map_err(failed("sync", "the files"))?;
        } else {
            self.files.sync_names().map_err(failed("sync", "the folders"))?;
        }
        self.write_checkpoint(Checkpoint {
            size: self.edge.size(),
            root: self.edge.root(),
        })?;
        self.is_retry = false;
        self.full.clear();
        self.full_bytes = 0;
        let needed: Vec<_> = self.partial_places().collect();
        let old = std::mem::replace(&mut self.partial, needed);
        self.stale
            .extend(old.into_iter().filter(|tile| !self.partial.contains(tile)));
        // A file that cannot be removed harms nobody, and is tried again.
        let files = &self.files;
        self.stale.retain(|tile| files.remove(&tile.path()).is_err());
        Ok(Some(&self.note))
    }

    /// The newest checkpoint on disk, as a signed note.
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The entries that are on disk, and signed.
    pub const fn durable_size(&self) -> u64 {
        self.durable.size
    }

    /// The entries that have been appended.
    pub const fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The bytes of memory that wait for the next commit.
    pub const fn pending_bytes(&self) -> usize {
        self.full_bytes + self.bundle.len()
    }

    /// The bytes of entries in full bundles on disk.
    pub fn bytes(&self) -> u64 {
        self.bundle_bytes.iter().sum()
    }

    /// The entry before which everything may go, so that at most `bytes_max` of entries stay, and none that is older
    /// than `since_unix_ms`; `None` where all may stay. Whole bundles only, and never the last full one.
    pub fn prunable(
        &self,
        bytes_max: Option<u64>,
        since_unix_ms: Option<u64>,
    ) -> Result<Option<u64>, LogError> {
        let durable = self.durable.size / WIDTH as u64;
        let mut bytes = self.bytes();
        let mut end = self.oldest;
        for bundle in &self.bundle_bytes {
            let is_too_much = bytes_max.is_some_and(|max| bytes > max);
            let is_last = end + 1 >= durable;
            if is_last || !(is_too_much || self.is_before(end, since_unix_ms)?) {
                break;
            }
            bytes -= bundle;
            end += 1;
        }
        Ok((end > self.oldest).then_some(end * WIDTH as u64))
    }

    /// Whether the last entry of a bundle is older than that.
    fn is_before(&self, bundle: u64, since_unix_ms: Option<u64>) -> Result<bool, LogError> {
        let Some(since_unix_ms) = since_unix_ms else {
            return Ok(false);
        };
        let last = self.last_of(Tile {
            level: None,
            index: bundle,
            width: WIDTH,
        })?;
        Ok(last.is_some_and(|last| last.at_unix_ms < since_unix_ms))
    }

    /// Removes the bundles before an entry, of which a durable [`Record::Prune`] tells. Their hashes stay, so that
    /// the log still verifies and all proofs can be made.
    pub fn prune(&mut self, before: u64) -> Result<(), LogError> {
        while (self.oldest + 1) * WIDTH as u64 <= before && self.bundle_bytes.len() > 1 {
            let tile = Tile {
                level: None,
                index: self.oldest,
                width: WIDTH,
            };
            match self.files.remove(&tile.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("remove", &tile.path())(error));
                }
                _ => {}
            }
            self.oldest += 1;
            self.bundle_bytes.pop_front();
        }
        Ok(())
    }

    /// Goes on after the durable checkpoint: reads the edge of its tree.
    fn resume(&mut self) -> Result<(), OpenError> {
        let size = self.durable.size;
        let mut failure = None;
        let edge = Edge::resume(size, |tile| match self.read(&tile.path(), WIDTH * 32) {
            Ok(bytes) => bytes_to_hashes(&bytes),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        if let Some(error) = failure.filter(|failure| failure.error.kind() != io::ErrorKind::NotFound) {
            return Err(error.into());
        }
        let damaged = |file: String| OpenError::Damaged { file };
        let edge = edge
            .filter(|edge| edge.root() == self.durable.root)
            .ok_or_else(|| damaged("tile/".to_owned()))?;
        self.edge = edge;
        self.partial = self.partial_places().collect();
        let Some(place) = self.partial.iter().find(|tile| tile.level.is_none()).copied() else {
            return Ok(());
        };
        let path = place.path();
        let bundle = self.read(&path, WIDTH * (ENTRY_BYTES_MAX + 2)).map_err(|error| {
            if error.error.kind() == io::ErrorKind::NotFound {
                return damaged(path.clone());
            }
            error.into()
        })?;
        let hashes = self.edge.partial().find(|(tile, _)| tile.level == Some(0));
        let hashes = hashes.map(|(_, hashes)| hashes).unwrap_or_default();
        let entries: Result<Vec<_>, _> = tile::entries(&bundle).map(|entry| entry.map(leaf_hash)).collect();
        if entries.as_deref() != Ok(hashes) {
            return Err(damaged(path));
        }
        self.bundle = bundle;
        Ok(())
    }

    /// The partial files of the tree as it is now.
    fn partial_places(&self) -> impl Iterator<Item = Tile> {
        let (index, width) = Tile::row(0, self.edge.size());
        let bundle = Tile {
            level: None,
            index,
            width,
        };
        self.edge
            .partial()
            .map(|(tile, _)| tile)
            .chain((width > 0).then_some(bundle))
    }

    /// Removes what lies behind the durable checkpoint.
    fn cut_off(&mut self, tiles: &[Tile]) -> Result<Option<Cut>, LogError> {
        let size = self.durable.size;
        let mut end = size;
        for tile in tiles {
            let (full, _) = Tile::row(tile.level.unwrap_or(0), size);
            let is_needed = if tile.width == WIDTH {
                tile.index < full
            } else {
                self.partial.contains(tile)
            };
            if is_needed {
                continue;
            }
            if tile.level.is_none() {
                end = end.max(tile.index * WIDTH as u64 + tile.width as u64);
            }
            let path = tile.path();
            self.files.remove(&path).map_err(failed("remove", &path))?;
        }
        Ok((end > size).then_some(Cut { entries: end - size }))
    }

    /// Looks how large the bundles are.
    fn measure(&mut self, tiles: &[Tile]) -> Result<(), LogError> {
        let durable = self.durable.size / WIDTH as u64;
        let bundles = tiles
            .iter()
            .filter(|tile| tile.level.is_none() && tile.width == WIDTH && tile.index < durable);
        let mut found: Vec<_> = bundles.copied().collect();
        found.sort_unstable();
        self.oldest = found.first().map_or(durable, |tile| tile.index);
        self.bundle_bytes = VecDeque::from(vec![
            0;
            usize::try_from(durable - self.oldest).unwrap_or_default()
        ]);
        for tile in found {
            let path = tile.path();
            let file = self.files.open(&path).map_err(failed("open", &path))?;
            let bytes = self.files.len(&file).map_err(failed("read", &path))?;
            let at = usize::try_from(tile.index - self.oldest).unwrap_or(usize::MAX);
            if let Some(place) = self.bundle_bytes.get_mut(at) {
                *place = bytes;
            }
        }
        Ok(())
    }

    fn last_entry(&self) -> Result<Option<Entry>, LogError> {
        if !self.bundle.is_empty() {
            return Ok(last_of(&self.bundle));
        }
        let Some(index) = (self.durable.size / WIDTH as u64).checked_sub(1) else {
            return Ok(None);
        };
        self.last_of(Tile {
            level: None,
            index,
            width: WIDTH,
        })
    }

    fn last_of(&self, bundle: Tile) -> Result<Option<Entry>, LogError> {
        let bytes = self.read(&bundle.path(), WIDTH * (ENTRY_BYTES_MAX + 2))?;
        Ok(last_of(&bytes))
    }

    fn write_checkpoint(&mut self, checkpoint: Checkpoint) -> Result<(), LogError> {
        let note = checkpoint.sign(&self.key);
        let draft = format!("{CHECKPOINT}{DRAFT_SUFFIX}");
        self.write(&draft, note.as_bytes(), true)?;
        self.files
            .rename(&draft, CHECKPOINT)
            .and_then(|()| self.files.sync_names())
            .map_err(failed("replace", CHECKPOINT))?;
        self.durable = checkpoint;
        self.note = note;
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8], is_synced: bool) -> Result<(), LogError> {
        let file = self.files.create(name).map_err(failed("make", name))?;
        write_full(&self.files, &file, bytes, 0).map_err(failed("write", name))?;
        if is_synced {
            self.files.sync(&file).map_err(failed("sync", name))?;
        }
        Ok(())
    }

    fn read(&self, name: &str, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let file = self.files.open(name).map_err(failed("open", name))?;
        let length = self.files.len(&file).map_err(failed("read", name))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(bytes_max + 1);
        let mut bytes = vec![0; length];
        let read = read_full(&self.files, &file, &mut bytes, 0).map_err(failed("read", name))?;
        bytes.truncate(read);
        Ok(bytes)
    }
}

fn last_of(bundle: &[u8]) -> Option<Entry> {
    let last = tile::entries(bundle).last()?.ok()?;
    // A later version may have records that this one does not know: it did not say that it stopped.
    Some(Entry::parse(last).unwrap_or(Entry {
        at_unix_ms: 0,
        record: Record::Prune { before: 0 },
    }))
}

fn failed(verb: &'static str, file: &str) -> impl FnOnce(io::Error) -> LogError {
    move |error| LogError {
        verb,
        file: file.to_owned(),
        error,
    }
}
