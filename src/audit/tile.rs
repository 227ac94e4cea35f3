//! The files of a log, as C2SP tlog-tiles names and fills them: tiles of hashes, and bundles of entries.
//!
//! Pure: names and bytes.

use crate::audit::tree::{HASH_BYTES, Hash};

/// Hashes of a full tile, and entries of a full bundle.
pub const WIDTH: usize = 256;

/// The height of a tile: `1 << HEIGHT == WIDTH`.
pub const HEIGHT: u32 = 8;

/// What a bundle's length prefix can say, and so the largest entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// The name of the file that holds the newest checkpoint.
pub const CHECKPOINT: &str = "checkpoint";

/// One file of hashes or entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Which row of tiles; `None` for the bundles of entries.
    pub level: Option<u32>,
    /// Its number in that row.
    pub index: u64,
    /// How many hashes or entries it has, 1 to [`WIDTH`].
    pub width: usize,
}

impl Tile {
    /// Its name below the log's folder.
    pub fn path(&self) -> String {
        let mut path = match self.level {
            Some(level) => format!("tile/{level}/"),
            None => "tile/entries/".to_owned(),
        };
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        path.push_str(&groups.join("/"));
        if self.width < WIDTH {
            path.push_str(&format!(".p/{}", self.width));
        }
        path
    }

    /// The tile with this name; `None` where it is not exactly the name of one.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(level.parse().ok().filter(|level| *level < 64)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok()?),
            None => (rest, WIDTH),
        };
        let mut index: u64 = 0;
        for group in number.split('/') {
            let digits: u64 = group.strip_prefix('x').unwrap_or(group).parse().ok()?;
            index = index.checked_mul(1000)?.checked_add(digits)?;
        }
        let tile = Self { level, index, width };
        ((1..=WIDTH).contains(&width) && tile.path() == path).then_some(tile)
    }

    /// The tiles of a log of `size` entries at one level of hashes: how many are full, and how wide the last is.
    pub fn row(level: u32, size: u64) -> (u64, usize) {
        let hashes = size.checked_shr(HEIGHT * level).unwrap_or(0);
        (hashes / WIDTH as u64, (hashes % WIDTH as u64) as usize)
    }
}

/// The bytes of a tile of hashes.
pub fn hashes_to_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// The hashes of a tile; `None` where the bytes are not whole hashes.
pub fn bytes_to_hashes(bytes: &[u8]) -> Option<Vec<Hash>> {
    let hashes = bytes.chunks_exact(HASH_BYTES);
    hashes
        .remainder()
        .is_empty()
        .then(|| bytes.chunks_exact(HASH_BYTES).filter_map(Hash::read).collect())
}

/// Adds an entry to a bundle. It has at most [`ENTRY_BYTES_MAX`] bytes; a longer one is cut, which its maker must
/// not let happen.
pub fn put_entry(bundle: &mut Vec<u8>, entry: &[u8]) {
    let entry = entry.get(..ENTRY_BYTES_MAX).unwrap_or(entry);
    let length = u16::try_from(entry.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(entry);
}

/// The entries of a bundle, in order. A bundle that ends in the middle of an entry yields an `Err` with the place
/// of that entry, and then nothing more.
pub fn entries(bundle: &[u8]) -> impl Iterator<Item = Result<&[u8], usize>> {
    let mut rest = bundle;
    let mut number = 0;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let entry = rest.split_first_chunk().and_then(|(length, after)| {
            let (entry, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
            rest = after;
            Some(entry)
        });
        number += 1;
        Some(entry.ok_or_else(|| {
            rest = &[];
            number - 1
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_specification() {
        let check = |level, index, width, path: &str| {
            let tile = Tile { level, index, width };
            assert_eq!(tile.path(), path);
            assert_eq!(Tile::parse(path), Some(tile));
        };
        // From C2SP tlog-tiles: the tile with index 1234067, and partial ones.
        check(Some(0), 1_234_067, 256, "tile/0/x001/x234/067");
        check(None, 0, 256, "tile/entries/000");
        check(Some(1), 0, 112, "tile/1/000.p/112");
        check(None, 273, 1, "tile/entries/273.p/1");
        check(Some(0), u64::MAX, 256, "tile/0/x018/x446/x744/x073/x709/x551/615");
        for wrong in [
            "tile/0/1",
            "tile/0/x000/001",
            "tile/00/001",
            "tile/0/001.p/256",
            "tile/0/001.p/0",
            "tile/64/001",
            "tile/0/001/",
            "tile/0/x001/x234",
            "tile/0/+01",
            "/tile/0/001",
            "tile/entries/001.p/01",
            "tile/0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(Tile::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_rows_of_a_log_are_those_of_the_specification() {
        // From C2SP tlog-tiles: a tree of size 70,000 has 273 full tiles and one of 112 at level 0, one full and
        // one of 17 at level 1, and one of 1 at level 2.
        assert_eq!(Tile::row(0, 70_000), (273, 112));
        assert_eq!(Tile::row(1, 70_000), (1, 17));
        assert_eq!(Tile::row(2, 70_000), (0, 1));
        assert_eq!(Tile::row(3, 70_000), (0, 0));
        assert_eq!(Tile::row(9, 70_000), (0, 0));
    }

    #[test]
    fn a_bundle_gives_back_its_entries() {
        let mut bundle = Vec::new();
        let texts: [&[u8]; 4] = [b"", b"a", b"\0\0", &[7; 300]];
        for text in texts {
            put_entry(&mut bundle, text);
        }
        assert_eq!(&bundle[..5], b"\0\0\0\x01a");
        let read: Vec<_> = entries(&bundle).collect();
        assert_eq!(read, texts.map(Ok));
        for cut in 1..bundle.len() {
            let read: Vec<_> = entries(&bundle[..cut]).collect();
            let whole = read.iter().filter(|entry| entry.is_ok()).count();
            assert!(
                read.iter()
                    .flatten()
                    .zip(texts)
                    .all(|(entry, text)| **entry == *text)
            );
            if read.len() > whole {
                assert_eq!(read.last(), Some(&Err(whole)), "cut at {cut}");
            }
        }
    }
}
