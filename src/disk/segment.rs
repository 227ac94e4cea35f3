//! A segment: one preallocated file of the log, filled with zeros before it is used, so that a batch that is
//! written into it changes no metadata.

use std::io;

use super::files::{Files, read_full, write_full};

/// `magic, version, capacity, number, store, checksum`, then zeros.
pub(super) const HEADER_BYTES: usize = 64;

/// The version of the format that this program writes and reads.
pub(super) const FORMAT_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"EXOCOMLG";
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) capacity: u64,
    /// Which store it belongs to.
    pub(super) store: u64,
}

/// Why a file is no segment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHeader {
    #[error("it does not begin with the header of a segment")]
    Damaged,
    #[error(
        "it is of format {0}, and this program reads format {FORMAT_VERSION}; docs/delivery.md tells how to upgrade"
    )]
    Version(u32),
}

pub(super) fn name(number: u64) -> String {
    format!("{number:012}.seg")
}

/// The number in a segment's name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".seg")?;
    (digits.len() == 12).then(|| digits.parse().ok()).flatten()
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.capacity.to_le_bytes());
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.store.to_le_bytes());
        bytes.resize(HEADER_BYTES - 4, 0);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the header has this length")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BadHeader> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(BadHeader::Damaged)?;
        let (content, checksum) = bytes.split_at(HEADER_BYTES - 4);
        if !content.starts_with(MAGIC) || checksum != crc32fast::hash(content).to_le_bytes() {
            return Err(BadHeader::Damaged);
        }
        let u64_at = |at: usize| {
            let bytes = content.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.expect("the content has this length"))
        };
        let version = u64_at(8) as u32;
        if version != FORMAT_VERSION {
            return Err(BadHeader::Version(version));
        }
        Ok(Self {
            capacity: u64_at(16),
            number: u64_at(24),
            store: u64_at(32),
        })
    }
}

/// Makes a segment. Returns after it is on disk under its name, whole: a crash leaves it out, or a file with
/// another name.
pub(super) fn make<F: Files>(files: &F, header: Header) -> io::Result<F::File> {
    let name = name(header.number);
    let draft = format!("{name}.new");
    let made = (|| {
        let file = files.create(&draft)?;
        fill_with_zeros(files, &file, 0, header.capacity)?;
        write_full(files, &file, &header.encode(), 0)?;
        files.sync(&file)?;
        files.rename(&draft, &name)?;
        files.sync_names()?;
        Ok(file)
    })();
    if made.is_err() {
        // What there is of it takes the space that is missing. If it cannot be removed, the next start does it.
        drop(files.remove(&draft));
    }
    made
}

/// Writes zeros from one offset to another.
pub(super) fn fill_with_zeros<F: Files>(files: &F, file: &F::File, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let count = usize::try_from(to - offset).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        write_full(files, file, ZEROS.get(..count).unwrap_or_default(), offset)?;
        offset += count as u64;
    }
    Ok(())
}

/// Reads a whole segment.
pub(super) fn read_all<F: Files>(files: &F, file: &F::File) -> io::Result<Vec<u8>> {
    let length = usize::try_from(files.len(file)?).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    let read = read_full(files, file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
