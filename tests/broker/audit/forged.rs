//! What somebody who can write to the log's folder may try: every byte, entries, the tail, and with the secret key
//! a whole other history.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use exocom::audit::key::{PublicKey, SecretKey};
use exocom::audit::record::{Entry, Record};
use exocom::audit::tile;
use exocom::disk::audit::{Archive, AuditLog, Tree};

use super::{audit, audit_ok};
use crate::support::EXOCOM;

const ENTRIES: u64 = 300;

fn entry(number: u64, name: &str) -> Entry {
    Entry {
        at_unix_ms: number,
        record: Record::Disconnected {
            connection: number,
            sender: name.to_owned(),
            reason: "closed by the client".to_owned(),
        },
    }
}

/// A log of some entries, of which `forge` makes others, and a witness that saw every hundredth.
fn make(folder: &Path, entries: u64, forge: impl Fn(u64, Entry) -> Entry) -> PublicKey {
    let key = SecretKey::from_seed("todo.example/exocom", [4; 32]).unwrap();
    let public = key.public().clone();
    let dir = folder.join("log");
    let (mut log, _) = AuditLog::open(Tree::open(&dir).unwrap(), key, 1).unwrap();
    let mut witness = String::new();
    for number in 0..entries {
        log.append(&forge(number, entry(number, "web")).to_line());
        if (number + 1) % 100 == 0 {
            witness.push_str(log.commit().unwrap().unwrap());
        }
    }
    log.commit().unwrap();
    fs::write(folder.join("witness"), witness).unwrap();
    fs::write(dir.join("log.pub"), format!("{public}\n")).unwrap();
    fs::write(folder.join("key"), format!("{public}\n")).unwrap();
    public
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    found
}

#[test]
fn every_changed_byte_of_a_log_and_its_checkpoint_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let key = make(folder.path(), 270, |_, entry| entry);
    let dir = folder.path().join("log");
    let archive = Archive::new(&dir);
    archive.verify(&key, Vec::new(), |_, _| {}).unwrap();
    let files = files(&dir);
    assert_eq!(
        files.len(),
        7,
        "a full bundle and tile, three partial files, checkpoint and key: {:?}",
        files.keys()
    );
    for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with("log.pub")) {
        // All bytes of the small files, and some of the large.
        let step = bytes.len() / 400 + 1;
        for at in (0..bytes.len()).step_by(step) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 7);
            fs::write(path, &changed).unwrap();
            let verdict = archive.verify(&key, Vec::new(), |_, _| {});
            assert!(verdict.is_err(), "byte {at} of {}", path.display());
        }
        fs::write(path, bytes).unwrap();
    }
    archive.verify(&key, Vec::new(), |_, _| {}).unwrap();
}

#[test]
fn the_command_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), ENTRIES, |_, entry| entry);
    let verify = ["verify", "log", "--key", "key"];
    let told = audit_ok(folder.path(), &verify);
    assert!(told.contains("verified: 300 entries"), "{told}");
    assert!(told.contains("no witness was asked"), "{told}");
    let bundle = folder.path().join("log/tile/entries/000");
    let good = fs::read(&bundle).unwrap();
    let lines: Vec<_> = tile::entries(&good)
        .map(|entry| entry.unwrap().to_vec())
        .collect();
    let check = |new: &[Vec<u8>], named: &str| {
        let mut bytes = Vec::new();
        new.iter().for_each(|line| tile::put_entry(&mut bytes, line));
        fs::write(&bundle, bytes).unwrap();
        let (is_ok, told) = audit(folder.path(), &verify);
        assert!(
            !is_ok && told.contains(named) && told.contains("NOT verified"),
            "{named}: {told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
        let (_, told) = audit(folder.path(), &["verify", "log", "--key", "key", "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["verified"], false);
    };
    let mut changed = lines.clone();
    changed[42] = entry(42, "someone-else").to_line();
    check(&changed, "entry 42 ");
    changed = lines.clone();
    changed.remove(7);
    check(&changed, "entry 7 ");
    changed = lines.clone();
    changed.swap(100, 101);
    check(&changed, "entry 100 ");
    changed = lines.clone();
    changed[9] = changed[8].clone();
    check(&changed, "entry 9 ");
    fs::remove_file(&bundle).unwrap();
    let (is_ok, told) = audit(folder.path(), &verify);
    assert!(!is_ok && told.contains("missing"), "{told}");
    fs::write(&bundle, good).unwrap();
    fs::write(folder.path().join("log/log.pub"), "another\n").unwrap();
    let (is_ok, told) = audit(folder.path(), &verify);
    assert!(!is_ok && told.contains("log.pub"), "{told}");
}

#[test]
fn what_the_secret_key_signs_again_is_noticed_by_a_witness_alone() {
    let honest = tempfile::tempdir().unwrap();
    make(honest.path(), ENTRIES, |_, entry| entry);
    let witness = honest.path().join("witness").display().to_string();
    let by_witness = ["verify", "log", "--key", "key", "--witness", &*witness];
    let told = audit_ok(honest.path(), &by_witness);
    assert!(told.contains("agrees up to entry 299"), "{told}");
    let forged = tempfile::tempdir().unwrap();
    let forge = |number, line| {
        if number == 150 {
            entry(number, "nobody")
        } else {
            line
        }
    };
    make(forged.path(), ENTRIES + 20, forge);
    audit_ok(forged.path(), &["verify", "log", "--key", "key"]);
    let (is_ok, told) = audit(forged.path(), &by_witness);
    assert!(
        !is_ok && told.contains("entries 100 to 199"),
        "the place is named: {told}"
    );
    let compare = ["compare", &*witness, "--dir", "log"];
    let (is_ok, told) = audit(forged.path(), &compare);
    assert!(!is_ok && told.contains("history was rewritten"), "{told}");
    let told = audit_ok(honest.path(), &compare);
    assert!(told.contains("consistent"), "{told}");
    // The end cut off, and signed again.
    let cut = tempfile::tempdir().unwrap();
    make(cut.path(), 250, |_, entry| entry);
    audit_ok(cut.path(), &["verify", "log", "--key", "key"]);
    for arguments in [&by_witness[..], &compare[..]] {
        let (is_ok, told) = audit(cut.path(), arguments);
        assert!(!is_ok && told.contains("the end was cut off"), "{told}");
    }
}

#[test]
fn a_proof_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), ENTRIES, |_, entry| entry);
    for number in [0, 255, 256, 299] {
        let proof = audit_ok(folder.path(), &["prove", &number.to_string(), "--dir", "log"]);
        fs::write(folder.path().join("proof"), &proof).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["proof", "key"] {
            fs::copy(folder.path().join(name), elsewhere.path().join(name)).unwrap();
        }
        let told = audit_ok(elsewhere.path(), &["verify", "proof", "--key", "key"]);
        assert!(
            told.contains(&format!("entry {number} of the log todo.example/exocom")),
            "{told}"
        );
        assert!(
            told.contains(&format!("connection\\\":{number},"))
                || told.contains(&format!("connection\":{number},")),
            "{told}"
        );
        fs::write(elsewhere.path().join("proof"), proof.replace("index ", "index 1")).unwrap();
        let (is_ok, told) = audit(elsewhere.path(), &["verify", "proof", "--key", "key"]);
        assert!(!is_ok && told.contains("NOT verified"), "{told}");
    }
    let (is_ok, told) = audit(folder.path(), &["prove", "300", "--dir", "log"]);
    assert!(!is_ok && told.contains("the log has 300"), "{told}");
}

#[test]
fn what_cannot_be_read_is_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), 3, |_, entry| entry);
    let code = |arguments: &[&str]| {
        let output = std::process::Command::new(EXOCOM)
            .arg("audit")
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        output.status.code()
    };
    let kept = folder.path().join("kept");
    fs::copy(folder.path().join("log/checkpoint"), &kept).unwrap();
    let verify = |path, key| code(&["verify", path, "--key", key]);
    let compare = || code(&["compare", "kept", "--dir", "log", "--key", "key"]);
    assert_eq!((verify("log", "key"), compare()), (Some(0), Some(0)));
    assert_eq!(verify("nowhere", "key"), Some(2));
    assert_eq!(verify("log", "nowhere"), Some(2));

    let other = SecretKey::from_seed("todo.example/exocom", [5; 32]).unwrap();
    fs::write(folder.path().join("other"), format!("{}\n", other.public())).unwrap();
    assert_eq!(verify("log", "other"), Some(1), "it is signed by somebody else");

    fs::remove_dir_all(folder.path().join("log")).unwrap();
    assert_eq!((verify("log", "key"), compare()), (Some(2), Some(2)));
    make(folder.path(), 3, |number, entry| Entry {
        at_unix_ms: number + 1,
        ..entry
    });
    assert_eq!(compare(), Some(1), "history is another one");
}

#[test]
fn whoever_has_read_enough_of_a_verdict_is_told_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), 3, |_, entry| entry);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = std::process::Command::new(EXOCOM)
        .args(["audit", "verify", "log", "--key", "key"])
        .current_dir(folder.path())
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*told), (Some(1), ""));
}
