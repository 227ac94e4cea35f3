//! Opening a log: reads it from its oldest batch to its last, tells a crash from damage, and cuts a torn end.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::batch;
use super::files::{Files, write_full};
use super::log::{Index, Log, Parts, Place, Sealed, Spare};
use super::record::{self, Record};
use super::segment;

/// Why a log cannot be opened. Nothing has been changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system does not let it be read or written.
    #[error("cannot {verb} {file}: {error}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On which file.
        file: String,
        /// What the system says.
        error: io::Error,
    },
    /// Something that was on disk is damaged.
    #[error(
        "{file}, offset {offset}: {what}. This was on disk once, so it is no crash that damaged it, and messages \
         would be lost without a word. Restore the folder from a copy, or move it away to begin with an empty store."
    )]
    Damaged {
        /// Which file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

/// The torn end of a log that was cut off: what was written when the machine stopped, and had not been
/// acknowledged to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// In which file.
    pub file: String,
    /// From which offset.
    pub offset: u64,
    /// How many bytes were not zero there.
    pub bytes: u64,
}

struct Segment<F> {
    header: segment::Header,
    file: F,
    bytes: Vec<u8>,
}

/// How far the log can be read.
struct End {
    /// In which of the segments.
    at: usize,
    offset: usize,
    last_batch: u64,
    /// Where the first batch begins of which no later one says that it is on disk.
    unsure_from: (usize, usize),
}

/// Opens the log in a folder, or begins one. `each` is given every record in order, with its place, and the index
/// to note what it means there.
pub(super) fn open<F: Files>(
    files: F,
    segment_bytes: u64,
    store_if_new: u64,
    mut each: impl FnMut(Record, Place, &mut Index),
) -> Result<(Log<F>, Option<Cut>), OpenError> {
    let mut segments = read_segments(&files)?;
    if segments.is_empty() {
        let header = segment::Header {
            number: 1,
            capacity: segment_bytes,
            store: store_if_new,
        };
        let file = segment::make(&files, header).map_err(io_error("make", segment::name(1)))?;
        segments.push(Segment {
            header,
            file,
            bytes: Vec::new(),
        });
    }
    let mut index = Index::default();
    let mut oldest = 1;
    let end = read_batches(&segments, |record, place| {
        match &record {
            Record::Begun { oldest: then, .. } => oldest = oldest.max(*then),
            Record::Removing(number) => oldest = oldest.max(number + 1),
            _ => {}
        }
        each(record, place, &mut index);
    })?;
    if let Some(first) = segments.first().filter(|first| first.header.number > oldest) {
        let missing = segment::name(first.header.number - 1);
        return Err(damaged(&missing, 0, &"the file is missing"));
    }
    let cut = cut_after(&files, &mut segments, &end)?;
    let store = segments
        .first()
        .map_or(store_if_new, |segment| segment.header.store);
    let (mut sealed, mut current, mut spare) = (BTreeMap::new(), None, None);
    for (place, Segment { header, file, .. }) in segments.into_iter().enumerate() {
        if place < end.at {
            let bytes = header.capacity;
            sealed.insert(header.number, Sealed { file, bytes });
        } else if place == end.at {
            current = Some(Spare { header, file });
        } else {
            spare = Some(Spare { header, file });
        }
    }
    let parts = Parts {
        store,
        segment_bytes,
        sealed,
        current: current.expect("the log ends in one of its segments"),
        end: end.offset as u64,
        spare,
        batch: end.last_batch,
        index,
    };
    let log = Log::new(files, parts);
    Ok((log, cut))
}

/// Reads all segments; a draft that was not finished is removed.
fn read_segments<F: Files>(files: &F) -> Result<Vec<Segment<F::File>>, OpenError> {
    let names = files.names().map_err(io_error("list", "the folder".to_owned()))?;
    for draft in names.iter().filter(|name| name.ends_with(".seg.new")) {
        files.remove(draft).map_err(io_error("remove", draft.clone()))?;
    }
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut segments: Vec<Segment<F::File>> = Vec::new();
    for number in numbers {
        let name = segment::name(number);
        let file = files.open(&name).map_err(io_error("open", name.clone()))?;
        let bytes = segment::read_all(files, &file).map_err(io_error("read", name.clone()))?;
        let header = segment::Header::decode(&bytes).map_err(|error| damaged(&name, 0, &error))?;
        if let Some(last) = segments.last() {
            let next = last.header.number + 1;
            if next != number {
                let missing = segment::name(next);
                return Err(damaged(&missing, 0, &"the file is missing"));
            }
            if last.header.store != header.store {
                return Err(damaged(&name, 0, &"it belongs to another store"));
            }
        }
        if bytes.len() as u64 != header.capacity {
            // A segment has its full length before it has its name.
            let what = format!("the file should have {} bytes", header.capacity);
            return Err(damaged(&name, bytes.len() as u64, &what));
        }
        if header.number != number {
            return Err(damaged(&name, 0, &"it is another segment under this name"));
        }
        segments.push(Segment { header, file, bytes });
    }
    Ok(segments)
}

fn read_batches<F>(segments: &[Segment<F>], mut each: impl FnMut(Record, Place)) -> Result<End, OpenError> {
    let mut last_batch = None;
    let mut end = End {
        at: 0,
        offset: segment::HEADER_BYTES,
        last_batch: 0,
        unsure_from: (0, segment::HEADER_BYTES),
    };
    let mut starts = VecDeque::new();
    for (at, segment) in segments.iter().enumerate() {
        let number = segment.header.number;
        let mut offset = segment::HEADER_BYTES;
        while let Some((header, body, next)) = batch::read(&segment.bytes, number, offset) {
            // Only the oldest segment may begin with any number.
            let follows = last_batch.map_or(at == 0, |last| header.number == last + 1);
            if !follows {
                break;
            }
            read_records(body, number, offset, &mut each)?;
            starts.push_back((header.number, (at, offset)));
            while starts
                .front()
                .is_some_and(|(number, _)| *number <= header.durable)
            {
                starts.pop_front();
            }
            last_batch = Some(header.number);
            offset = next;
            end = End {
                at,
                offset,
                last_batch: header.number,
                unsure_from: starts.front().map_or((at, offset), |(_, place)| *place),
            };
        }
    }
    check_that_nothing_durable_follows(segments, &end)?;
    Ok(end)
}

fn read_records(
    body: &[u8],
    segment: u64,
    batch_offset: usize,
    each: &mut impl FnMut(Record, Place),
) -> Result<(), OpenError> {
    let mut rest = body;
    while !rest.is_empty() {
        let offset = batch_offset + batch::HEADER_BYTES + body.len() - rest.len();
        let (record, used) =
            record::read(rest).map_err(|error| damaged(&segment::name(segment), offset as u64, &error))?;
        let place = Place {
            segment,
            offset: offset as u64,
            bytes: used as u64,
        };
        each(record, place);
        rest = rest.get(used..).unwrap_or_default();
    }
    Ok(())
}

/// A batch further on that was written when the missing one was known to be on disk says that it is damage, and
/// not a crash.
fn check_that_nothing_durable_follows<F>(segments: &[Segment<F>], end: &End) -> Result<(), OpenError> {
    let missing = end.last_batch + 1;
    for (at, segment) in segments.iter().enumerate().skip(end.at) {
        let number = segment.header.number;
        let start = if at == end.at {
            end.offset
        } else {
            segment::HEADER_BYTES
        };
        if is_zero(segment.bytes.get(start..).unwrap_or_default()) {
            continue;
        }
        for offset in (start..segment.bytes.len()).step_by(batch::ALIGNMENT) {
            if let Some((header, ..)) = batch::read(&segment.bytes, number, offset)
                && header.durable >= missing
            {
                let damaged_at = segments
                    .get(end.at)
                    .map_or(number, |segment| segment.header.number);
                let what = format!(
                    "batch {missing} is missing or damaged, but batch {} follows",
                    header.number
                );
                return Err(damaged(&segment::name(damaged_at), end.offset as u64, &what));
            }
        }
    }
    Ok(())
}

/// Overwrites what is left of torn batches with zeros, so that no later start takes it for something. Keeps one
/// prepared segment.
fn cut_after<F: Files>(
    files: &F,
    segments: &mut Vec<Segment<F::File>>,
    end: &End,
) -> Result<Option<Cut>, OpenError> {
    let mut cut: Option<Cut> = None;
    let mut removed = false;
    let later = segments.split_off(end.at + 1);
    if let Some(last) = segments.last() {
        let name = segment::name(last.header.number);
        let tail = last.bytes.get(end.offset..).unwrap_or_default();
        if !is_zero(tail) {
            segment::fill_with_zeros(files, &last.file, end.offset as u64, last.header.capacity)
                .map_err(io_error("write to", name.clone()))?;
            cut = Some(Cut {
                file: name.clone(),
                offset: end.offset as u64,
                bytes: nonzero(tail),
            });
        }
    }
    for (place, segment) in later.into_iter().enumerate() {
        let name = segment::name(segment.header.number);
        let content = segment.bytes.get(segment::HEADER_BYTES..).unwrap_or_default();
        if is_zero(content) && place == 0 {
            segments.push(segment);
            continue;
        }
        files.remove(&name).map_err(io_error("remove", name.clone()))?;
        removed = true;
        if !is_zero(content) && cut.is_none() {
            cut = Some(Cut {
                file: name,
                offset: segment::HEADER_BYTES as u64,
                bytes: nonzero(content),
            });
        }
    }
    if removed {
        files
            .sync_names()
            .map_err(io_error("sync", "the folder".to_owned()))?;
    }
    write_again(files, segments, end)?;
    Ok(cut)
}

/// Makes sure that what was read is on disk. It may be in the system's memory only: the process was killed before
/// it synced, or a sync failed, after which the system takes for written what is not. So it is written again.
fn write_again<F: Files>(files: &F, segments: &[Segment<F::File>], end: &End) -> Result<(), OpenError> {
    let (first, first_offset) = end.unsure_from;
    for (at, segment) in segments.iter().enumerate().skip(first).take(end.at + 1 - first) {
        let name = segment::name(segment.header.number);
        let start = if at == first {
            first_offset
        } else {
            segment::HEADER_BYTES
        };
        let stop = if at == end.at {
            end.offset
        } else {
            segment.bytes.len()
        };
        let unsure = segment.bytes.get(start..stop).unwrap_or_default();
        write_full(files, &segment.file, unsure, start as u64)
            .and_then(|()| files.sync(&segment.file))
            .map_err(io_error("write to", name))?;
    }
    Ok(())
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

fn nonzero(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte != 0).count() as u64
}

fn io_error(verb: &'static str, file: String) -> impl Fn(io::Error) -> OpenError {
    move |error| OpenError::Io {
        verb,
        file: file.clone(),
        error,
    }
}

fn damaged(file: &str, offset: u64, what: &impl ToString) -> OpenError {
    OpenError::Damaged {
        file: file.to_owned(),
        offset,
        what: what.to_string(),
    }
}
