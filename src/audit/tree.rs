//! The Merkle tree of RFC 6962, section 2.1: hashes of leaves and nodes, proofs that an entry is in a tree and that
//! one tree continues another, and their checks (the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2).
//!
//! Never holds a tree: whoever asks for a proof says how to find the hash of a perfect subtree.

use ring::digest::{Context, SHA256};

/// A SHA-256 hash of a leaf, a node or a whole tree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; HASH_BYTES]);

/// Its length.
pub const HASH_BYTES: usize = 32;

impl Hash {
    /// Reads one; `None` where the length is wrong.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A perfect subtree: the leaves from `index << level`, `1 << level` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subtree {
    /// Its height; 0 is a leaf.
    pub level: u32,
    /// Its number among those of its height.
    pub index: u64,
}

/// The hash of an entry.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    hash(&[&[0], entry])
}

/// The hash of the node over two subtrees.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    hash(&[&[1], &left.0, &right.0])
}

/// The hash of the tree without entries.
pub fn empty_root() -> Hash {
    hash(&[])
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    Hash(
        context
            .finish()
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes"),
    )
}

/// The hash over perfect subtrees that stand side by side, the largest first.
pub fn fold(peaks: impl DoubleEndedIterator<Item = Hash>) -> Option<Hash> {
    peaks.rev().reduce(|right, left| node_hash(&left, &right))
}

/// The perfect subtrees over the leaves from `start` to `end`. `start` is where a subtree of the tree begins that
/// holds them all, as it is wherever a proof splits a tree.
fn peaks(mut start: u64, end: u64) -> impl DoubleEndedIterator<Item = Subtree> {
    let mut found = Vec::new();
    while start < end {
        let level = (end - start).ilog2();
        found.push(Subtree {
            level,
            index: start >> level,
        });
        start += 1 << level;
    }
    found.into_iter()
}

/// The hash over the leaves from `start` to `end`.
fn range_hash<E>(start: u64, end: u64, find: &mut impl FnMut(Subtree) -> Result<Hash, E>) -> Result<Hash, E> {
    let hashes = peaks(start, end).map(find).collect::<Result<Vec<_>, _>>()?;
    Ok(fold(hashes.into_iter()).unwrap_or_else(empty_root))
}

/// The root of the tree over the first `size` leaves.
pub fn root<E>(size: u64, mut find: impl FnMut(Subtree) -> Result<Hash, E>) -> Result<Hash, E> {
    range_hash(0, size, &mut find)
}

/// Where a tree of `size` leaves, more than one, splits: the largest power of two below it.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The proof that leaf `index` is in the tree of `size` leaves. `index` must be below `size`.
pub fn prove_inclusion<E>(
    index: u64,
    size: u64,
    mut find: impl FnMut(Subtree) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(range_hash(middle, end, &mut find)?);
            end = middle;
        } else {
            proof.push(range_hash(start, middle, &mut find)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of `new` leaves continues that of `old`, which has at least one, and no more than `new`.
pub fn prove_consistency<E>(
    old: u64,
    new: u64,
    mut find: impl FnMut(Subtree) -> Result<Hash, E>,
) -> Result<Vec<Hash>, E> {
    let (mut start, mut end) = (0, new);
    let mut proof = Vec::new();
    while end > old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(range_hash(middle, end, &mut find)?);
            end = middle;
        } else {
            proof.push(range_hash(start, middle, &mut find)?);
            start = middle;
        }
    }
    if start > 0 {
        proof.push(range_hash(start, end, &mut find)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` shows that the leaf is number `index` of the tree with this root.
pub fn check_inclusion(leaf: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> bool {
    if index >= size {
        return false;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for step in proof {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(step, &hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `new` leaves continues that of `old`.
pub fn check_consistency(old: u64, new: u64, old_root: &Hash, new_root: &Hash, proof: &[Hash]) -> bool {
    if old > new {
        return false;
    }
    if old == new {
        return proof.is_empty() && old_root == new_root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let (mut node, mut last) = (old - 1, new - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let mut steps = proof.iter();
    let first = if old.is_power_of_two() {
        Some(old_root)
    } else {
        steps.next()
    };
    let Some(first) = first else { return false };
    let (mut old_hash, mut new_hash) = (*first, *first);
    for step in steps {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_hash = node_hash(step, &old_hash);
            new_hash = node_hash(step, &new_hash);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            new_hash = node_hash(&new_hash, step);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && new_hash == *new_root
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The leaves of the test vectors that come with the reference implementation of Certificate Transparency.
    const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];

    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn unhex(text: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
        (0..text.len()).step_by(2).map(digit).collect()
    }

    fn unhash(text: &str) -> Hash {
        Hash::read(&unhex(text)).unwrap()
    }

    /// The definition, word for word: MTH of RFC 6962.
    fn naive(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(split(leaves.len() as u64) as usize);
                node_hash(&naive(left), &naive(right))
            }
        }
    }

    fn finder(leaves: &[Hash]) -> impl FnMut(Subtree) -> Result<Hash, Infallible> {
        |subtree| {
            let start = (subtree.index << subtree.level) as usize;
            Ok(naive(&leaves[start..start + (1 << subtree.level)]))
        }
    }

    fn vectors() -> Vec<Hash> {
        LEAVES.iter().map(|leaf| leaf_hash(&unhex(leaf))).collect()
    }

    #[test]
    fn the_published_roots_come_out() {
        let leaves = vectors();
        for (size, expected) in ROOTS.iter().enumerate() {
            let Ok(root) = root(size as u64, finder(&leaves));
            assert_eq!(root, unhash(expected), "size {size}");
        }
    }

    #[test]
    fn the_published_proofs_come_out() {
        let leaves = vectors();
        let inclusion = |index, size, expected: &[&str]| {
            let Ok(proof) = prove_inclusion(index, size, finder(&leaves));
            let expected: Vec<_> = expected.iter().map(|hash| unhash(hash)).collect();
            assert_eq!(proof, expected, "entry {index} of {size}");
        };
        inclusion(
            0,
            8,
            &[
                "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
            ],
        );
        inclusion(
            5,
            8,
            &[
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        );
        let consistency = |old, new, expected: &[&str]| {
            let Ok(proof) = prove_consistency(old, new, finder(&leaves));
            let expected: Vec<_> = expected.iter().map(|hash| unhash(hash)).collect();
            assert_eq!(proof, expected, "{old} to {new}");
        };
        consistency(
            6,
            8,
            &[
                "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            ],
        );
        consistency(
            2,
            5,
            &[
                "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            ],
        );
    }

    /// The other implementation's words for the same proofs and verdicts, for every size up to 70.
    #[test]
    fn another_implementation_agrees() {
        use ct_merkle::mem_backed_tree::MemoryBackedTree;
        use sha2::Sha256;

        let mut oracle: MemoryBackedTree<Sha256, Vec<u8>> = MemoryBackedTree::new();
        let mut leaves = Vec::new();
        let mut roots = vec![empty_root()];
        for size in 1..=70_u64 {
            let entry = format!("entry {size}").into_bytes();
            leaves.push(leaf_hash(&entry));
            oracle.push(entry);
            let Ok(ours) = root(size, finder(&leaves));
            assert_eq!(ours.0, **oracle.root().as_bytes(), "root of {size}");
            roots.push(ours);
            for index in 0..size {
                let Ok(proof) = prove_inclusion(index, size, finder(&leaves));
                let theirs = oracle.prove_inclusion(index as usize);
                let flat: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
                assert_eq!(flat, theirs.as_bytes(), "entry {index} of {size}");
                assert!(check_inclusion(
                    &leaves[index as usize],
                    index,
                    size,
                    &proof,
                    &ours
                ));
            }
            for old in 1..=size {
                let Ok(proof) = prove_consistency(old, size, finder(&leaves));
                let theirs = oracle.prove_consistency((size - old) as usize);
                let flat: Vec<u8> = proof.iter().flat_map(|hash| hash.0).collect();
                assert_eq!(flat, theirs.as_bytes(), "{old} to {size}");
                assert!(check_consistency(old, size, &roots[old as usize], &ours, &proof));
            }
        }
    }

    #[test]
    fn a_proof_shows_one_thing_and_nothing_else() {
        let leaves: Vec<_> = (0..40_u8).map(|n| leaf_hash(&[n])).collect();
        for size in 1..=40_u64 {
            let Ok(whole) = root(size, finder(&leaves));
            for index in 0..size {
                let Ok(proof) = prove_inclusion(index, size, finder(&leaves));
                let leaf = leaves[index as usize];
                for other in (0..size + 2).filter(|other| *other != index) {
                    assert!(!check_inclusion(&leaf, other, size, &proof, &whole));
                }
                for cut in 0..proof.len() {
                    assert!(!check_inclusion(&leaf, index, size, &proof[..cut], &whole));
                    let mut changed = proof.clone();
                    changed[cut].0[7] ^= 1;
                    assert!(!check_inclusion(&leaf, index, size, &changed, &whole));
                }
                let longer = [&proof[..], &[leaf]].concat();
                assert!(!check_inclusion(&leaf, index, size, &longer, &whole));
            }
            for old in 1..size {
                let Ok(old_root) = root(old, finder(&leaves));
                let Ok(proof) = prove_consistency(old, size, finder(&leaves));
                for wrong in 0..=size {
                    assert!(
                        !check_consistency(wrong, size, &old_root, &whole, &proof) || wrong == old,
                        "{wrong} for {old} of {size}"
                    );
                }
                assert!(!check_consistency(old, size, &whole, &whole, &proof));
                assert!(!check_consistency(old, size, &old_root, &old_root, &proof));
                for cut in 0..proof.len() {
                    assert!(!check_consistency(old, size, &old_root, &whole, &proof[..cut]));
                }
                let longer = [&proof[..], &[whole]].concat();
                assert!(!check_consistency(old, size, &old_root, &whole, &longer));
            }
        }
        assert!(check_consistency(0, 5, &empty_root(), &leaves[0], &[]));
        assert!(!check_consistency(0, 5, &leaves[0], &leaves[0], &[]));
    }
}
