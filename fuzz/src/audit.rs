//! The verifier of audit logs. Whatever the bytes: nothing panics, and what it accepts is what an honest log with this
//! key has held: the whole log, a proof, or a checkpoint. The key has signed two checkpoints and nothing else.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use exocom::audit::edge::{Edge, tile_root};
use exocom::audit::flows::FlowReader;
use exocom::audit::key::{PublicKey, SecretKey};
use exocom::audit::note;
use exocom::audit::proof::Proof;
use exocom::audit::record::{Entry, Record};
use exocom::audit::tile::{self, Tile, hashes_to_bytes, put_entry};
use exocom::audit::tree::{self, Hash, Subtree, leaf_hash};
use exocom::audit::verify::{Fault, Verifier};
use exocom::audit::Checkpoint;

const SIZES: [u64; 2] = [40, 300];

pub const WORDS: &[&[u8]] = &[
    b"checkpoint",
    b"tile/entries/000",
    b"tile/entries/001.p/44",
    b"tile/0/000",
    b"tile/1/000.p/1",
    b"c2sp.org/tlog-proof@v1\n",
    b"\nindex ",
    b"\xe2\x80\x94 log.example ",
    b"\n\n",
    b"\"kind\":\"prune\",\"before\":256",
    b"{\"at_unix_ms\":1,\"kind\":\"flows\",\"chapter\":1,\"policy\":\"p\",\"counts\":[[",
    b"\0\0",
];

type Files = BTreeMap<String, Vec<u8>>;

struct Honest {
    key: SecretKey,
    entries: Vec<Vec<u8>>,
    leaves: Vec<Hash>,
    notes: Vec<String>,
    /// One for each size.
    files: Vec<Files>,
}

/// Any bytes: a note, a proof, an entry, or the files of a log.
pub fn check(data: &[u8]) {
    let honest = honest();
    let key = honest.key.public();
    if let Ok(text) = note::open(data, key) {
        assert!(honest.notes.iter().any(|note| note.starts_with(text)), "signed: {text}");
    }
    let notes = note::split(data);
    assert_eq!(notes.concat(), data, "no byte of a file of notes is left out");
    if let Ok(proof) = Proof::parse(data)
        && proof.check(key).is_ok()
    {
        assert_eq!(honest.entries.get(proof.index as usize), Some(&proof.entry));
        assert_eq!(Proof::parse(proof.to_text().as_bytes()), Ok(proof));
    }
    if let Ok(entry) = Entry::parse(data) {
        assert_eq!(Entry::parse(&entry.to_line()).expect("what was read can be written"), entry);
        if let Record::Flows(flows) = &entry.record {
            assert_eq!(FlowReader::default().read(flows).len(), flows.counts.len());
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(read) = PublicKey::parse(text) {
            assert_eq!(PublicKey::parse(&read.to_string()), Ok(read));
        }
        if let Some(tile) = Tile::parse(text) {
            assert_eq!(tile.path(), text);
        }
    }
    let whole = tile::entries(data).flatten().map(|entry| entry.len() + 2).sum::<usize>();
    assert!(whole <= data.len());
    let files = unpack(data);
    if let Some(size) = files.get("checkpoint").and_then(|_| verify(&files, key)) {
        let kept: Vec<_> = read_entries(&files, size);
        assert_eq!(kept, honest.entries[..size as usize], "accepted, and not what was recorded");
    }
}

/// The size of the log, where it is taken.
fn verify(files: &Files, key: &PublicKey) -> Option<u64> {
    let checkpoint = Checkpoint::open(&files["checkpoint"], key).ok()?;
    let mut verifier = Verifier::new(checkpoint, Vec::new());
    let read = |tile: &Tile| Ok::<_, Fault>(files.get(&tile.path()).cloned());
    while let Some(bundle) = verifier.next_bundle() {
        verifier
            .handle(files.get(&bundle.path()).map(Vec::as_slice), read)
            .ok()?;
    }
    verifier.finish(read).ok().map(|verdict| verdict.entries)
}

fn read_entries(files: &Files, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    while (entries.len() as u64) < size {
        let left = size - entries.len() as u64;
        let place = Tile {
            level: None,
            index: entries.len() as u64 / 256,
            width: left.min(256) as usize,
        };
        let bundle = &files[&place.path()];
        entries.extend(tile::entries(bundle).map(|entry| entry.expect("it was verified").to_vec()));
    }
    entries
}

fn honest() -> &'static Honest {
    static HONEST: OnceLock<Honest> = OnceLock::new();
    HONEST.get_or_init(|| {
        let key = SecretKey::from_seed("log.example", [8; 32]).expect("a good name");
        let entry = |number: u64| {
            let record = Record::Disconnected {
                connection: number,
                sender: "web".to_owned(),
                reason: "x".to_owned(),
            };
            let entry = Entry {
                at_unix_ms: number,
                record,
            };
            entry.to_line()
        };
        let entries: Vec<_> = (0..SIZES[1]).map(entry).collect();
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let (mut notes, mut files) = (Vec::new(), Vec::new());
        for size in SIZES {
            let (mut edge, mut log) = (Edge::default(), Files::new());
            for (number, chunk) in entries[..size as usize].chunks(256).enumerate() {
                let place = Tile {
                    level: None,
                    index: number as u64,
                    width: chunk.len(),
                };
                let mut bundle = Vec::new();
                for entry in chunk {
                    put_entry(&mut bundle, entry);
                    edge.push(leaf_hash(entry), |tile, hashes| {
                        log.insert(tile.path(), hashes_to_bytes(hashes));
                    });
                }
                log.insert(place.path(), bundle);
            }
            for (tile, hashes) in edge.partial() {
                log.insert(tile.path(), hashes_to_bytes(hashes));
            }
            let root = edge.root();
            let note = Checkpoint { size, root }.sign(&key);
            log.insert("checkpoint".to_owned(), note.clone().into_bytes());
            notes.push(note);
            files.push(log);
        }
        Honest {
            key,
            entries,
            leaves,
            notes,
            files,
        }
    })
}

/// Files as one run of bytes: for each its name and content, with their lengths before them.
fn pack(files: &Files) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&(content.len() as u16).to_be_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

fn unpack(mut bytes: &[u8]) -> Files {
    let mut files = Files::new();
    while let Some((length, rest)) = bytes.split_first() {
        let Some((name, rest)) = rest.split_at_checked((*length).into()) else {
            break;
        };
        let Some((length, rest)) = rest.split_first_chunk() else { break };
        let end = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (content, rest) = rest.split_at(end);
        files.insert(String::from_utf8_lossy(name).into_owned(), content.to_vec());
        bytes = rest;
    }
    files
}

pub fn seeds() -> Vec<Vec<u8>> {
    let honest = honest();
    let size = SIZES[1];
    let find = |subtree: Subtree| {
        let start = (subtree.index << subtree.level) as usize;
        Ok::<_, std::convert::Infallible>(tile_root(&honest.leaves[start..start + (1 << subtree.level)]))
    };
    let Ok(hashes) = tree::prove_inclusion(7, size, find);
    let proof = Proof {
        index: 7,
        entry: honest.entries[7].clone(),
        hashes,
        note: honest.notes[1].clone(),
    };
    let mut seeds = vec![
        pack(&honest.files[0]),
        proof.to_text().into_bytes(),
        honest.notes.concat().into_bytes(),
        honest.key.public().to_string().into_bytes(),
        honest.entries[3].clone(),
        honest.files[0]["tile/entries/000.p/40"].clone(),
    ];
    seeds.extend(honest.notes.iter().map(|note| note.clone().into_bytes()));
    seeds.extend(crate::texts(&[
        r#"{"at_unix_ms":1,"kind":"flows","chapter":9,"policy":"p","named":[[0,"a","b",null]],"counts":[[0,1,2,3,4],[7,1]]}"#,
        r#"{"at_unix_ms":1,"kind":"gap","cause":"unclean-stop","after_unix_ms":5}"#,
        "tile/entries/x001/067.p/3",
    ]));
    // The honest ones are accepted, or nothing is shown.
    assert_eq!(verify(&unpack(&seeds[0]), honest.key.public()), Some(SIZES[0]));
    assert_eq!(verify(&honest.files[1], honest.key.public()), Some(SIZES[1]));
    seeds
}
