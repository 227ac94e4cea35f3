//! Bytes changed at random, from a seed: what a fuzzer without coverage can do.

/// Numbers from a seed (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 where that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end.max(1) as u64).expect("below a usize")
    }
}

/// One of the seeds, changed in a few places.
pub fn mutated(chance: &mut Chance, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    const BYTES_MAX: usize = 1 << 16;
    let mut bytes = seeds[chance.below(seeds.len())].clone();
    for _ in 0..=chance.below(8) {
        let (at, to) = (chance.below(bytes.len()), chance.below(bytes.len()));
        let part = at.min(to)..at.max(to);
        match chance.below(10) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << chance.below(8),
            1 if !bytes.is_empty() => bytes[at] = chance.number().to_le_bytes()[0],
            2 if !bytes.is_empty() => {
                bytes[at] = bytes[at].wrapping_add(1).wrapping_sub(2 * u8::from(to % 2 == 0))
            }
            3 => drop(bytes.drain(part.start..part.end.min(part.start + 1 + to % 40))),
            4 => bytes.truncate(at.max(1)),
            5 => {
                let copy = bytes[part].to_vec();
                bytes.splice(at..at, copy);
            }
            6 | 7 => {
                let word = words[chance.below(words.len())];
                let replaced = if to % 2 == 0 {
                    at
                } else {
                    (at + word.len()).min(bytes.len())
                };
                bytes.splice(at..replaced, word.iter().copied());
            }
            8 => {
                let other = &seeds[chance.below(seeds.len())];
                let from = chance.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => {
                let some: Vec<u8> = (0..=chance.below(8))
                    .map(|_| chance.number().to_le_bytes()[0])
                    .collect();
                bytes.splice(at..at, some);
            }
        }
        bytes.truncate(BYTES_MAX);
    }
    bytes
}
