//! A batch: the records that are written together. The unit of recovery: it is whole, or it is not there.
//!
//! Pure: bytes in, bytes out.

/// `magic, body length, number, durable, records, checksum`, all little-endian.
pub(super) const HEADER_BYTES: usize = 32;

/// Where batches begin.
pub(super) const ALIGNMENT: usize = 8;

const MAGIC: u32 = u32::from_le_bytes(*b"EXBA");

/// What a batch says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// One more than that of the batch before it.
    pub(super) number: u64,
    /// The last batch that was known to be on disk when this one was written: if that one is damaged, it is not
    /// by a crash.
    pub(super) durable: u64,
}

/// Bytes of a batch with such a body, padding included.
pub(super) const fn batch_bytes(body: usize) -> usize {
    (HEADER_BYTES + body).next_multiple_of(ALIGNMENT)
}

/// Writes the header before a body that begins at [`HEADER_BYTES`], and the padding after it. `offset` is where
/// the batch will lie in segment `segment`: a batch that was moved is no batch.
pub(super) fn seal(batch: &mut Vec<u8>, header: Header, segment: u64, offset: u64) {
    let body = u32::try_from(batch.len() - HEADER_BYTES).expect("a batch fits in a segment");
    let mut head = [0; HEADER_BYTES];
    put(&mut head, 0, &MAGIC.to_le_bytes());
    put(&mut head, 4, &body.to_le_bytes());
    put(&mut head, 8, &header.number.to_le_bytes());
    put(&mut head, 16, &header.durable.to_le_bytes());
    if let Some(start) = batch.get_mut(..HEADER_BYTES) {
        start.copy_from_slice(&head);
    }
    let checksum = checksum(
        &head,
        batch.get(HEADER_BYTES..).unwrap_or_default(),
        segment,
        offset,
    );
    if let Some(place) = batch.get_mut(24..28) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    batch.resize(batch_bytes(body as usize), 0);
}

/// Reads the batch at `offset` of a segment's bytes: its header, body, and the offset after it.
pub(super) fn read(segment_bytes: &[u8], segment: u64, offset: usize) -> Option<(Header, &[u8], usize)> {
    let rest = segment_bytes.get(offset..)?;
    let head: [u8; HEADER_BYTES] = rest.get(..HEADER_BYTES)?.try_into().ok()?;
    if number::<4>(&head, 0).map(u32::from_le_bytes)? != MAGIC {
        return None;
    }
    let body_bytes = number::<4>(&head, 4).map(u32::from_le_bytes)? as usize;
    let body = rest.get(HEADER_BYTES..HEADER_BYTES.checked_add(body_bytes)?)?;
    let mut bare = head;
    put(&mut bare, 24, &[0; 8]);
    let stored = number::<4>(&head, 24).map(u32::from_le_bytes)?;
    if number::<4>(&head, 28)? != [0; 4] || stored != checksum(&bare, body, segment, offset as u64) {
        return None;
    }
    let padding = rest.get(HEADER_BYTES + body_bytes..batch_bytes(body_bytes))?;
    if padding.iter().any(|&byte| byte != 0) {
        return None;
    }
    let header = Header {
        number: number::<8>(&head, 8).map(u64::from_le_bytes)?,
        durable: number::<8>(&head, 16).map(u64::from_le_bytes)?,
    };
    Some((header, body, offset + batch_bytes(body_bytes)))
}

fn checksum(head: &[u8; HEADER_BYTES], body: &[u8], segment: u64, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn put(head: &mut [u8; HEADER_BYTES], at: usize, bytes: &[u8]) {
    if let Some(place) = head.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn number<const N: usize>(head: &[u8], at: usize) -> Option<[u8; N]> {
    head.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(body: &[u8]) -> Vec<u8> {
        let mut batch = vec![0; HEADER_BYTES];
        batch.extend_from_slice(body);
        let header = Header {
            number: 7,
            durable: 5,
        };
        seal(&mut batch, header, 3, 64);
        batch
    }

    #[test]
    fn a_batch_is_read_where_it_was_written_and_nowhere_else() {
        let mut segment = vec![0; 64];
        segment.extend(batch(b"hello"));
        let (header, body, end) = read(&segment, 3, 64).unwrap();
        assert_eq!((header.number, header.durable, body), (7, 5, &b"hello"[..]));
        assert_eq!(end, segment.len());
        assert!(read(&segment, 4, 64).is_none());
        assert!(read(&segment, 3, 0).is_none());
        let moved = [vec![0; 72], batch(b"hello")].concat();
        assert!(read(&moved, 3, 72).is_none());
    }

    #[test]
    fn a_changed_bit_or_a_missing_byte_makes_it_no_batch() {
        let mut segment = vec![0; 64];
        segment.extend(batch(b"hello world"));
        for bit in 64 * 8..segment.len() * 8 {
            segment[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&segment, 3, 64).is_none(), "bit {bit}");
            segment[bit / 8] ^= 1 << (bit % 8);
        }
        for end in 0..segment.len() {
            assert!(read(&segment[..end], 3, 64).is_none(), "{end} bytes");
        }
    }
}
