//! The right edge of a growing tree: all that is needed to append leaves, to know the root, and to write the tiles.
//!
//! The same code grows the tree that is written and the tree that is checked, so that both have the same tiles by
//! construction. It holds one partial tile a level, and never a full one.

use crate::audit::tile::{HEIGHT, Tile, WIDTH};
use crate::audit::tree::{Hash, empty_root, fold, node_hash};

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    size: u64,
    /// By level, the hashes of the tile that is not full yet.
    levels: Vec<Vec<Hash>>,
}

impl Edge {
    /// The edge of a tree of `size` leaves, from its partial tiles: those of level 0 first, one for each level that
    /// has one. `None` where they do not fit the size.
    pub fn resume(size: u64, mut partial: impl FnMut(Tile) -> Option<Vec<Hash>>) -> Option<Self> {
        let mut levels = Vec::new();
        let mut level = 0;
        while size.checked_shr(HEIGHT * level).unwrap_or(0) > 0 {
            let (index, width) = Tile::row(level, size);
            let hashes = match width {
                0 => Vec::new(),
                width => partial(Tile {
                    level: Some(level),
                    index,
                    width,
                })?,
            };
            if hashes.len() != width {
                return None;
            }
            levels.push(hashes);
            level += 1;
        }
        Some(Self { size, levels })
    }

    /// How many leaves there are.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; `full` is given each tile that becomes full by it.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile, &[Hash])) {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::with_capacity(WIDTH));
            }
            let Some(hashes) = self.levels.get_mut(level) else {
                return;
            };
            hashes.push(hash);
            if hashes.len() < WIDTH {
                return;
            }
            let level = level as u32;
            let tile = Tile {
                level: Some(level),
                index: (self.size >> (HEIGHT * (level + 1))) - 1,
                width: WIDTH,
            };
            full(tile, hashes);
            hash = tile_root(hashes);
            hashes.clear();
        }
    }

    /// The tiles that are not full, with at least one hash each.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        let rows = (0_u32..)
            .zip(&self.levels)
            .filter(|(_, hashes)| !hashes.is_empty());
        rows.map(|(level, hashes)| {
            let (index, width) = Tile::row(level, self.size);
            let tile = Tile {
                level: Some(level),
                index,
                width,
            };
            (tile, hashes.as_slice())
        })
    }

    /// The root of the tree.
    pub fn root(&self) -> Hash {
        let mut peaks = Vec::new();
        for hashes in self.levels.iter().rev() {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (perfect, after) = rest.split_at(1 << rest.len().ilog2());
                peaks.push(tile_root(perfect));
                rest = after;
            }
        }
        fold(peaks.into_iter()).unwrap_or_else(empty_root)
    }
}

/// The root over the hashes of a perfect subtree.
pub fn tile_root(hashes: &[Hash]) -> Hash {
    let mut row = hashes.to_vec();
    while row.len() > 1 {
        row = row
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node_hash(left, right),
                [alone] => *alone,
                _ => empty_root(),
            })
            .collect();
    }
    row.first().copied().unwrap_or_else(empty_root)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::audit::tree::{Subtree, leaf_hash, root};

    #[test]
    fn it_has_the_root_and_the_tiles_of_the_whole_tree_and_can_be_resumed() {
        let mut edge = Edge::default();
        let mut leaves = Vec::new();
        let mut full = BTreeMap::new();
        for number in 0..70_000_u32 {
            let leaf = leaf_hash(&number.to_be_bytes());
            leaves.push(leaf);
            edge.push(leaf, |tile, hashes| {
                assert_eq!(full.insert(tile, hashes.to_vec()), None);
            });
            let size = u64::from(number) + 1;
            let is_looked_at =
                size < 600 || size % 4_999 == 0 || size.is_multiple_of(65_536) || size == 70_000;
            if !is_looked_at {
                continue;
            }
            let Ok(whole) = root(size, |Subtree { level, index }| {
                let start = (index << level) as usize;
                Ok::<_, Infallible>(tile_root(&leaves[start..start + (1 << level)]))
            });
            assert_eq!(edge.root(), whole, "size {size}");
            let partial: BTreeMap<_, _> = edge
                .partial()
                .map(|(tile, hashes)| (tile, hashes.to_vec()))
                .collect();
            let resumed = Edge::resume(size, |tile| partial.get(&tile).cloned()).unwrap();
            assert_eq!((resumed.size(), resumed.root()), (size, whole));
            assert!(partial.is_empty() || Edge::resume(size, |_| None).is_none());
            assert!(Edge::resume(size + 1, |tile| partial.get(&tile).cloned()).is_none());
        }
        assert_eq!(full.len(), 273 + 1);
        for (tile, hashes) in full {
            let span = 1 << (HEIGHT * tile.level.unwrap());
            let start = tile.index as usize * WIDTH * span;
            for (place, hash) in hashes.iter().enumerate() {
                let start = start + place * span;
                assert_eq!(*hash, tile_root(&leaves[start..start + span]));
            }
        }
    }
}
