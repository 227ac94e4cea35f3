//! The append-only log: where the next batch goes, what is durable, which message lies where, and which segments
//! nobody needs any more. It knows places and bytes, and not what a delivery is.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use super::batch;
use super::files::{Files, read_full, write_full};
use super::record::{self, Record};
use super::segment;
use crate::delivery::Seq;

/// The record of a removal, in bytes.
const REMOVING_BYTES: usize = 32;

/// Why the log cannot go on. It is not tried again: after a failed sync nobody knows what is on disk.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {verb} {file}: {error}; the broker stops, since nobody knows what is on disk, and recovers when it starts again"
)]
pub struct LogError {
    /// What was tried.
    pub verb: &'static str,
    /// On which file.
    pub file: String,
    /// What the system says.
    pub error: io::Error,
}

/// How large the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes of all segments, the prepared one included.
    pub disk_bytes: u64,
    /// Bytes of the messages that are still needed.
    pub live_bytes: u64,
    /// Bytes of one segment.
    pub segment_bytes: u64,
}

/// What room is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Messages,
    Changes,
    Removals,
}

/// Where a message lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// What of each segment is still needed.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: HashMap<Seq, Place, foldhash::fast::RandomState>,
    segments: BTreeMap<u64, Contents>,
    live_bytes: u64,
}

#[derive(Debug, Default)]
struct Contents {
    live_bytes: u64,
    /// Messages that were written here, as far as they have not moved on or gone.
    live: BTreeSet<Seq>,
    /// Messages whose id was written here.
    ids: HashSet<Seq, foldhash::fast::RandomState>,
}

impl Index {
    /// Notes where a message lies now.
    pub(super) fn place(&mut self, seq: Seq, place: Place) {
        self.release(seq);
        self.places.insert(seq, place);
        self.live_bytes += place.bytes;
        let contents = self.segments.entry(place.segment).or_default();
        contents.live_bytes += place.bytes;
        contents.live.insert(seq);
    }

    /// Notes that a message is no longer needed.
    pub(super) fn release(&mut self, seq: Seq) {
        let Some(place) = self.places.remove(&seq) else {
            return;
        };
        self.live_bytes -= place.bytes;
        if let Some(contents) = self.segments.get_mut(&place.segment) {
            contents.live_bytes -= place.bytes;
            contents.live.remove(&seq);
        }
    }

    /// Notes in which segment an id was written.
    pub(super) fn place_id(&mut self, seq: Seq, segment: u64) {
        self.segments.entry(segment).or_default().ids.insert(seq);
    }
}

/// A segment that is not written to any more.
#[derive(Debug)]
pub(super) struct Sealed<F> {
    pub(super) file: F,
    pub(super) bytes: u64,
}

/// A prepared segment.
#[derive(Debug)]
pub(super) struct Spare<F> {
    pub(super) header: segment::Header,
    pub(super) file: F,
}

/// What [`Log::new`] continues from.
#[derive(Debug)]
pub(super) struct Parts<F> {
    pub(super) store: u64,
    pub(super) segment_bytes: u64,
    pub(super) sealed: BTreeMap<u64, Sealed<F>>,
    pub(super) current: Spare<F>,
    pub(super) end: u64,
    pub(super) spare: Option<Spare<F>>,
    pub(super) batch: u64,
    pub(super) index: Index,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Log<F: Files> {
    files: F,
    store: u64,
    segment_bytes: u64,
    sealed: BTreeMap<u64, Sealed<F::File>>,
    current: Spare<F::File>,
    /// Where the next batch goes in the current segment.
    end: u64,
    spare: Option<Spare<F::File>>,
    /// The batch that is being gathered, with room for its header before it.
    pending: Vec<u8>,
    last_batch: u64,
    durable_batch: u64,
    /// Segments before the current one that have batches which may not be on disk.
    to_sync: Vec<u64>,
    /// A batch after the last sync says that all before it is on disk.
    is_marked: bool,
    index: Index,
}

impl<F: Files> Log<F> {
    /// Continues a log. The caller has made sure that all of it is on disk.
    pub(super) fn new(files: F, parts: Parts<F::File>) -> Self {
        Self {
            files,
            store: parts.store,
            segment_bytes: parts.segment_bytes,
            sealed: parts.sealed,
            current: parts.current,
            end: parts.end,
            spare: parts.spare,
            pending: vec![0; batch::HEADER_BYTES],
            last_batch: parts.batch,
            durable_batch: parts.batch,
            to_sync: Vec::new(),
            is_marked: true,
            index: parts.index,
        }
    }

    pub(super) const fn files(&self) -> &F {
        &self.files
    }

    /// Whether a record of so many bytes can be appended. Without a prepared segment, a part of the current one
    /// is kept for changes, since acknowledgements are what makes room, and a last bit for removals.
    pub(super) fn has_room(&self, record_bytes: usize, what: For) -> bool {
        let reserve = match what {
            For::Messages => self.current.header.capacity / 16,
            For::Changes => 4 * REMOVING_BYTES as u64,
            For::Removals => 0,
        };
        self.spare.is_some() || self.left() >= batch::batch_bytes(record_bytes) as u64 + reserve
    }

    /// The largest record that fits into a segment.
    pub(super) const fn record_bytes_max(&self) -> usize {
        self.segment_bytes as usize - segment::HEADER_BYTES - 2 * batch::HEADER_BYTES - 64
    }

    /// Bytes left in the current segment after what is gathered, for a batch that ends there.
    fn left(&self) -> u64 {
        let used = self.end + batch::batch_bytes(self.pending.len() - batch::HEADER_BYTES) as u64;
        self.current.header.capacity.saturating_sub(used)
    }

    /// Appends a record to the batch that is being gathered; `write` encodes it. The caller has asked
    /// [`Log::has_room`]. Gives its place.
    pub(super) fn append(
        &mut self,
        last_seq: Seq,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Place, LogError> {
        let start = self.pending.len();
        write(&mut self.pending);
        let end = self.end + batch::batch_bytes(self.pending.len() - batch::HEADER_BYTES) as u64;
        let mut start = start;
        if end > self.current.header.capacity {
            let record = self.pending.split_off(start);
            self.roll(last_seq)?;
            start = self.pending.len();
            self.pending.extend_from_slice(&record);
        }
        Ok(Place {
            segment: self.current.header.number,
            offset: self.end + start as u64,
            bytes: (self.pending.len() - start) as u64,
        })
    }

    /// Goes on in the prepared segment.
    fn roll(&mut self, last_seq: Seq) -> Result<(), LogError> {
        self.write_pending()?;
        let Some(spare) = self.spare.take() else {
            let file = segment::name(self.current.header.number + 1);
            let error = io::Error::from(io::ErrorKind::StorageFull);
            return Err(LogError {
                verb: "go on in",
                file,
                error,
            });
        };
        let full = std::mem::replace(&mut self.current, spare);
        self.to_sync.push(full.header.number);
        let sealed = Sealed {
            file: full.file,
            bytes: full.header.capacity,
        };
        self.sealed.insert(full.header.number, sealed);
        self.end = segment::HEADER_BYTES as u64;
        let oldest = *self
            .sealed
            .first_key_value()
            .map_or(&full.header.number, |(oldest, _)| oldest);
        record::put(&mut self.pending, &Record::Begun { last_seq, oldest });
        Ok(())
    }

    /// Writes what is gathered. After this it survives a kill of the process, and not yet a power cut.
    pub(super) fn write_pending(&mut self) -> Result<(), LogError> {
        if self.pending.len() == batch::HEADER_BYTES {
            return Ok(());
        }
        self.write_batch()
    }

    fn write_batch(&mut self) -> Result<(), LogError> {
        let number = self.current.header.number;
        let header = batch::Header {
            number: self.last_batch + 1,
            durable: self.durable_batch,
        };
        batch::seal(&mut self.pending, header, number, self.end);
        write_full(&self.files, &self.current.file, &self.pending, self.end)
            .map_err(failed("write to", number))?;
        self.last_batch += 1;
        self.end += self.pending.len() as u64;
        self.pending.clear();
        self.pending.resize(batch::HEADER_BYTES, 0);
        self.is_marked = self.durable_batch + 1 == self.last_batch;
        Ok(())
    }

    /// Writes what is gathered and returns after all of the log is on disk.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.write_pending()?;
        if self.durable_batch == self.last_batch {
            return Ok(());
        }
        for number in std::mem::take(&mut self.to_sync) {
            if let Some(sealed) = self.sealed.get(&number) {
                self.files.sync(&sealed.file).map_err(failed("sync", number))?;
            }
        }
        let number = self.current.header.number;
        self.files
            .sync(&self.current.file)
            .map_err(failed("sync", number))?;
        self.durable_batch = self.last_batch;
        self.is_marked = false;
        Ok(())
    }

    /// Writes an empty batch after the last sync, unless there is one: it tells a later start that what lies
    /// before it was on disk, so that damage there is not taken for a crash.
    pub(super) fn mark(&mut self) -> Result<(), LogError> {
        let fits = self.left() >= batch::HEADER_BYTES as u64;
        if self.is_marked || self.durable_batch != self.last_batch || !fits {
            return Ok(());
        }
        self.write_batch()?;
        self.is_marked = true;
        Ok(())
    }

    /// Reads a record again.
    pub(super) fn read(&self, seq: Seq) -> io::Result<Option<Record>> {
        let Some(place) = self.index.places.get(&seq) else {
            return Ok(None);
        };
        let file = if place.segment == self.current.header.number {
            &self.current.file
        } else {
            match self.sealed.get(&place.segment) {
                Some(sealed) => &sealed.file,
                None => return Ok(None),
            }
        };
        let length = usize::try_from(place.bytes).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        read_full(&self.files, file, &mut bytes, place.offset)?;
        let (record, _) = record::read(&bytes).map_err(|error| {
            let file = segment::name(place.segment);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{file}, offset {}: {error}", place.offset),
            )
        })?;
        Ok(Some(record))
    }

    /// Notes where a message lies now.
    pub(super) fn place(&mut self, seq: Seq, place: Place) {
        self.index.place(seq, place);
    }

    /// Notes where an id was written.
    pub(super) fn place_id(&mut self, seq: Seq, place: Place) {
        self.index.place_id(seq, place.segment);
    }

    /// Notes that a message is no longer needed.
    pub(super) fn release(&mut self, seq: Seq) {
        self.index.release(seq);
    }

    /// The next segment to prepare, if one is missing.
    pub(super) fn wanted(&self) -> Option<segment::Header> {
        self.spare.is_none().then_some(segment::Header {
            number: self.current.header.number + 1,
            capacity: self.segment_bytes,
            store: self.store,
        })
    }

    /// Takes a prepared segment.
    pub(super) fn provide(&mut self, header: segment::Header, file: F::File) {
        if self.wanted() == Some(header) {
            self.spare = Some(Spare { header, file });
        }
    }

    /// A message to carry forward, so that the oldest segment can go: where the sealed ones are more than twice
    /// what is needed.
    pub(super) fn next_to_carry(&self) -> Option<Seq> {
        let (oldest, _) = self.sealed.first_key_value()?;
        let sealed_bytes: u64 = self.sealed.values().map(|sealed| sealed.bytes).sum();
        if sealed_bytes <= 2 * self.index.live_bytes {
            return None;
        }
        self.index.segments.get(oldest)?.live.first().copied()
    }

    /// The messages whose ids were written in the oldest segment, where it has nothing else that is needed.
    pub(super) fn ids_to_carry(&self) -> Option<&HashSet<Seq, foldhash::fast::RandomState>> {
        let (oldest, _) = self.sealed.first_key_value()?;
        let contents = self.index.segments.get(oldest)?;
        contents.live.is_empty().then_some(&contents.ids)
    }

    /// Forgets the ids of the oldest segment: they have been carried forward, or have left the window.
    pub(super) fn release_ids(&mut self) {
        if let Some((oldest, _)) = self.sealed.first_key_value()
            && let Some(contents) = self.index.segments.get_mut(oldest)
        {
            contents.ids.clear();
        }
    }

    /// Removes the oldest segment if nothing in it is needed and all that was carried forward is on disk. Says
    /// whether it did.
    ///
    /// Only ever the oldest: a younger one has acknowledgements of messages in older ones.
    pub(super) fn remove_oldest(&mut self, last_seq: Seq) -> Result<bool, LogError> {
        let Some((&oldest, _)) = self.sealed.first_key_value() else {
            return Ok(false);
        };
        let is_needed = self
            .index
            .segments
            .get(&oldest)
            .is_some_and(|contents| !contents.live.is_empty() || !contents.ids.is_empty());
        if is_needed || !self.has_room(REMOVING_BYTES, For::Removals) {
            return Ok(false);
        }
        self.append(last_seq, |out| record::put(out, &Record::Removing(oldest)))?;
        self.sync()?;
        // The name first, and each on its own: an older segment that came back without a younger one would bring
        // acknowledged messages with it.
        self.files
            .remove(&segment::name(oldest))
            .and_then(|()| self.files.sync_names())
            .map_err(failed("remove", oldest))?;
        self.sealed.remove(&oldest);
        self.index.segments.remove(&oldest);
        Ok(true)
    }

    pub(super) fn size(&self) -> LogSize {
        let sealed: u64 = self.sealed.values().map(|sealed| sealed.bytes).sum();
        let spare = self.spare.as_ref().map_or(0, |spare| spare.header.capacity);
        LogSize {
            disk_bytes: sealed + self.current.header.capacity + spare,
            live_bytes: self.index.live_bytes,
            segment_bytes: self.segment_bytes,
        }
    }
}

pub(super) fn failed(verb: &'static str, number: u64) -> impl Fn(io::Error) -> LogError {
    move |error| LogError {
        verb,
        file: segment::name(number),
        error,
    }
}
