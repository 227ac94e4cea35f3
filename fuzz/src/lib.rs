//! What must hold for any bytes at all: for each target a function that panics where it does not, and seeds.
//!
//! libFuzzer calls the functions from `fuzz_targets/`; `rounds` calls them on stable Rust, with seeds changed at
//! random. Nothing here judges by itself: each function says which naive model, other reader or invariant it judges
//! by.

pub mod audit;
pub mod certificate;
pub mod config;
pub mod decoder;
pub mod headers;
pub mod mutate;
pub mod policy;
pub mod spiffe;

// The naive models of the library's own tests, which name their neighbours by these paths.
use std::fs;
use std::path::Path;

use exocom::limits;
#[path = "../../src/wire/naive.rs"]
#[allow(dead_code, reason = "each target uses its own part")]
mod naive;

/// A function that must hold for any bytes, and what to begin with.
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words worth putting anywhere.
    pub words: &'static [&'static [u8]],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "decoder",
        check: decoder::check,
        seeds: decoder::seeds,
        words: decoder::WORDS,
    },
    Target {
        name: "headers",
        check: headers::check,
        seeds: headers::seeds,
        words: headers::WORDS,
    },
    Target {
        name: "certificate",
        check: certificate::check,
        seeds: certificate::seeds,
        words: certificate::WORDS,
    },
    Target {
        name: "spiffe",
        check: spiffe::check,
        seeds: spiffe::seeds,
        words: spiffe::WORDS,
    },
    Target {
        name: "policy",
        check: policy::check,
        seeds: policy::seeds,
        words: policy::WORDS,
    },
    Target {
        name: "config",
        check: config::check,
        seeds: config::seeds,
        words: config::WORDS,
    },
    Target {
        name: "audit",
        check: audit::check,
        seeds: audit::seeds,
        words: audit::WORDS,
    },
];

/// Writes a target's seeds to where libFuzzer begins, unless they are there.
pub fn plant(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("it is listed");
    fs::create_dir_all(&folder).expect("the folder can be made");
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let file = folder.join(format!("seed-{number}"));
        if !file.exists() {
            fs::write(file, seed).expect("the folder takes a file");
        }
    }
}

/// Seeds that are text.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
