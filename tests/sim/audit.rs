//! Lives of an audit log on a disk that fails: whatever happens, what a commit said is on disk is there after the
//! next start, the whole log verifies, and a life that did not end in order leaves a gap.
//!
//! Judged by a list of entries, and by the verifier, which shares no file handling with the writer.

use std::collections::BTreeMap;

use exocom::audit::key::SecretKey;
use exocom::audit::record::{Entry, Gap, GapCause, Record};
use exocom::audit::tile::{self, Tile};
use exocom::audit::verify::{Fault, Verdict, Verifier};
use exocom::audit::{Checkpoint, Hash};
use exocom::disk::audit::{AuditLog, OpenError};

use crate::disk::{Disk, Faults};
use crate::random::Random;

const NAME: &str = "log.example";

fn key() -> SecretKey {
    SecretKey::from_seed(NAME, [5; 32]).unwrap()
}

/// Checks a log with nothing but its files and the public key.
fn verify(files: &BTreeMap<String, Vec<u8>>) -> Result<Verdict, Fault> {
    let checkpoint =
        Checkpoint::open(&files["checkpoint"], key().public()).expect("the checkpoint is signed");
    let mut verifier = Verifier::new(checkpoint, Vec::new());
    let read = |tile: &Tile| Ok::<_, Fault>(files.get(&tile.path()).cloned());
    while let Some(bundle) = verifier.next_bundle() {
        verifier.handle(files.get(&bundle.path()).map(Vec::as_slice), read)?;
    }
    verifier.finish(read)
}

/// All entries that the files hold; `None` for those that were pruned.
fn entries(files: &BTreeMap<String, Vec<u8>>) -> Vec<Option<Vec<u8>>> {
    let checkpoint = Checkpoint::open(&files["checkpoint"], key().public()).unwrap();
    let mut all = Vec::new();
    while (all.len() as u64) < checkpoint.size {
        let left = checkpoint.size - all.len() as u64;
        let place = Tile {
            level: None,
            index: all.len() as u64 / 256,
            width: left.min(256) as usize,
        };
        match files.get(&place.path()) {
            Some(bundle) => all.extend(tile::entries(bundle).map(|entry| Some(entry.unwrap().to_vec()))),
            None => all.extend(vec![None; place.width]),
        }
    }
    all
}

struct Life {
    random: Random,
    disk: Disk,
    /// What was appended, in order, as far as it may still come to be there.
    appended: Vec<Vec<u8>>,
    /// Of these, how many are on disk for sure.
    durable: usize,
    pruned_before: u64,
    now_ms: u64,
    is_closed: bool,
}

impl Life {
    fn faults(&mut self) -> Faults {
        match self.random.below(3) {
            0 => Faults {
                write: 60,
                sync: 40,
                names: 50,
                short: 3,
                ..Faults::NONE
            },
            1 => Faults {
                short: 2,
                ..Faults::NONE
            },
            _ => Faults::NONE,
        }
    }

    fn entry(&mut self) -> Vec<u8> {
        self.now_ms += self.random.below(1000);
        let record = Record::Admin {
            who: "nobody".to_owned(),
            why: None,
            verb: String::new(),
            about: "x".repeat(self.random.below(300) as usize),
            policy: String::new(),
        };
        let entry = Entry {
            at_unix_ms: self.now_ms,
            record,
        };
        entry.to_line()
    }

    /// One start, some work, one end of whatever kind.
    fn live(&mut self) {
        let faults = self.faults();
        let Some(mut log) = self.start(faults) else { return };
        for _ in 0..self.random.below(12) {
            let most = if self.random.once_in(4) { 700 } else { 20 };
            for _ in 0..self.random.below(most) {
                let entry = self.entry();
                log.append(&entry);
                self.appended.push(entry);
            }
            self.commit(&mut log);
            if self.random.once_in(6) {
                self.prune(&mut log);
            }
        }
        self.is_closed = self.random.once_in(3);
        if self.is_closed {
            self.disk.set_faults(Faults::NONE);
            let stop = Entry {
                at_unix_ms: self.now_ms,
                record: Record::Stop,
            };
            log.append(&stop.to_line());
            self.appended.push(stop.to_line());
            self.commit(&mut log);
        }
        drop(log);
        if self.random.once_in(2) {
            self.disk.kill();
        } else {
            self.disk.cut_power();
        }
    }

    fn commit(&mut self, log: &mut AuditLog<Disk>) {
        match log.commit() {
            Ok(note) => {
                assert_eq!(note.is_some(), self.appended.len() > self.durable);
                self.durable = self.appended.len();
                assert_eq!(log.durable_size(), self.durable as u64);
            }
            Err(_) => assert!(log.size() == self.appended.len() as u64, "nothing is forgotten"),
        }
    }

    fn prune(&mut self, log: &mut AuditLog<Disk>) {
        let bytes_max = self.random.below(100_000);
        let Ok(Some(before)) = log.prunable(Some(bytes_max), None) else {
            return;
        };
        assert!(before <= self.durable as u64);
        let record = Entry {
            at_unix_ms: self.now_ms,
            record: Record::Prune { before },
        };
        log.append(&record.to_line());
        self.appended.push(record.to_line());
        self.commit(log);
        if self.durable == self.appended.len() {
            self.pruned_before = self.pruned_before.max(before);
            drop(log.prune(before));
        }
    }

    fn start(&mut self, faults: Faults) -> Option<AuditLog<Disk>> {
        self.disk.set_faults(Faults::NONE);
        let (log, opened) = match AuditLog::open(self.disk.clone(), key(), self.now_ms) {
            Ok(opened) => opened,
            Err(error) => panic!("a log that crashed can be opened: {error}"),
        };
        let files = self.disk.snapshot();
        let found = entries(&files);
        assert_eq!(found.len() as u64, opened.size);
        assert!(
            found.len() >= self.durable,
            "{} of {} are there",
            found.len(),
            self.durable
        );
        assert!(found.len() <= self.appended.len());
        for (number, entry) in found.iter().enumerate() {
            match entry {
                Some(entry) => assert_eq!(*entry, self.appended[number], "entry {number}"),
                None => assert!((number as u64) < self.pruned_before, "entry {number} is gone"),
            }
        }
        let verdict = verify(&files).unwrap();
        assert_eq!(verdict.entries, opened.size);
        assert!(verdict.pruned <= self.pruned_before);
        self.appended.truncate(found.len());
        self.durable = found.len();
        let last = self.appended.last().map(|line| Entry::parse(line).unwrap());
        let should_be_closed = last.as_ref().is_none_or(|last| last.record == Record::Stop);
        assert_eq!(opened.was_closed, should_be_closed);
        assert!(
            !self.is_closed || opened.was_closed,
            "a life that ended in order leaves no gap"
        );
        if let Some(last) = last.filter(|_| !opened.was_closed) {
            let gap = Gap {
                cause: GapCause::UncleanStop,
                after_unix_ms: last.at_unix_ms,
                records: None,
            };
            let entry = Entry {
                at_unix_ms: self.now_ms,
                record: Record::Gap(gap),
            };
            self.appended.push(entry.to_line());
        }
        assert_eq!(log.size(), self.appended.len() as u64);
        self.disk.set_faults(faults);
        Some(log)
    }
}

#[test]
fn what_was_committed_is_there_after_any_crash_and_verifies() {
    let lives: u64 =
        std::env::var("EXOCOM_SIM_SEEDS").map_or(150, |seeds| seeds.parse::<u64>().unwrap() / 100);
    for seed in 0..lives.max(1) {
        let mut life = Life {
            random: Random::new(seed),
            disk: Disk::new(seed),
            appended: Vec::new(),
            durable: 0,
            pruned_before: 0,
            now_ms: 1,
            is_closed: true,
        };
        for _ in 0..5 {
            life.live();
        }
        life.start(Faults::NONE);
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_when_there_is_room_again() {
    let disk = Disk::new(1);
    let (mut log, _) = AuditLog::open(disk.clone(), key(), 1).unwrap();
    let line = |number: u64| {
        let entry = Entry {
            at_unix_ms: number,
            record: Record::Stop,
        };
        entry.to_line()
    };
    for number in 0..300 {
        log.append(&line(number));
    }
    log.commit().unwrap();
    disk.set_capacity(40_000);
    for number in 300..2000 {
        log.append(&line(number));
    }
    for _ in 0..3 {
        let error = log.commit().unwrap_err();
        assert!(error.to_string().contains("audit log"), "{error}");
        assert_eq!(log.durable_size(), 300);
        assert_eq!(verify(&disk.snapshot()).unwrap().entries, 300);
    }
    disk.set_capacity(usize::MAX);
    assert!(log.commit().unwrap().is_some());
    let files = disk.snapshot();
    assert_eq!(verify(&files).unwrap().entries, 2000);
    assert!(
        entries(&files)
            .into_iter()
            .zip(0..)
            .all(|(entry, number)| entry == Some(line(number)))
    );
    let strays = files.keys().filter(|name| name.contains(".p/")).count();
    assert_eq!(
        strays,
        3,
        "one bundle and two tiles are not full: {:?}",
        files.keys()
    );
}

#[test]
fn a_log_that_was_changed_is_not_continued() {
    let disk = Disk::new(1);
    let (mut log, opened) = AuditLog::open(disk.clone(), key(), 1).unwrap();
    assert!(opened.was_closed && opened.size == 0);
    for number in 0..300_u64 {
        log.append(format!("entry {number}").as_bytes());
    }
    log.commit().unwrap();
    let files = disk.snapshot();
    let open = |files: &BTreeMap<String, Vec<u8>>| {
        AuditLog::open(Disk::with(files), key(), 2).map(|(log, _)| log.size())
    };
    assert_eq!(open(&files).unwrap(), 301, "with the gap");
    for name in ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"] {
        let mut changed = files.clone();
        changed.get_mut(name).unwrap()[20] ^= 1;
        assert!(matches!(open(&changed), Err(OpenError::Damaged { .. })), "{name}");
        changed.remove(name);
        assert!(matches!(open(&changed), Err(OpenError::Damaged { .. })), "{name}");
    }
    let mut headless = files.clone();
    headless.remove("checkpoint");
    assert!(matches!(open(&headless), Err(OpenError::NoCheckpoint)));
    let mut forged = files;
    let root = Hash([0; 32]);
    let stranger = SecretKey::from_seed(NAME, [6; 32]).unwrap();
    forged.insert(
        "checkpoint".to_owned(),
        Checkpoint { size: 300, root }.sign(&stranger).into_bytes(),
    );
    assert!(matches!(open(&forged), Err(OpenError::Checkpoint(_))));
}
