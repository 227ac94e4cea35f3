//! Entries that a broker removes since they are too old, or too many: the log still verifies, says what is gone, and
//! proves what is left.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use exocom::audit::Record;
use exocom::audit::key::SecretKey;
use exocom::audit::record::Entry;
use exocom::disk::audit::{AuditLog, Tree};

use super::{CONFIG, POLICY, audit, audit_ok, query};
use crate::support::{Broker, wait_for};

const DAY_MS: u64 = 86_400_000;
/// Entries of a file of the log.
const BUNDLE: u64 = 256;

#[test]
fn what_is_too_old_or_too_much_is_removed_and_the_rest_is_proven() {
    let mut broker = Broker::serve(POLICY, CONFIG);
    assert!(broker.stop());
    // Four files and a bit from ten days ago, and some 2 MiB of today.
    #[expect(clippy::disallowed_methods, reason = "what is old is so by the clock")]
    let now_unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let trail = broker.path("trail");
    let key = SecretKey::parse(&fs::read_to_string(trail.join("log.key")).unwrap()).unwrap();
    let (mut log, opened) = AuditLog::open(Tree::open(&trail).unwrap(), key, now_unix_ms).unwrap();
    let old = 4 * BUNDLE + 17 - opened.size;
    for number in 0..old + 5_000 {
        let entry = Entry {
            at_unix_ms: if number < old {
                now_unix_ms - 10 * DAY_MS
            } else {
                now_unix_ms
            },
            record: Record::Disconnected {
                connection: number,
                sender: "web".to_owned(),
                reason: "x".repeat(300),
            },
        };
        log.append(&entry.to_line());
    }
    log.append(
        &Entry {
            at_unix_ms: now_unix_ms,
            record: Record::Stop,
        }
        .to_line(),
    );
    log.commit().unwrap();
    drop(log);

    let start = |broker: Broker, more: &str| {
        fs::write(broker.path("serve.toml"), format!("{CONFIG}{more}")).unwrap();
        let before = broker.log().len();
        let mut broker = broker.restart();
        wait_for("something to be removed", || {
            !query(broker.dir(), "trail", &["--kind", "prune"]).is_empty()
        });
        assert!(broker.stop());
        assert!(!broker.log()[before..].contains("not pruned"), "{}", broker.log());
        broker
    };
    // The broker's own entries at the very beginning are of today, and lie in a file whose last is old.
    let broker = start(broker, "keep-days = 5\n");
    let pruned = query(broker.dir(), "trail", &["--kind", "prune"]);
    assert_eq!(pruned.len(), 1);
    assert_eq!(
        pruned[0]["before"],
        4 * BUNDLE,
        "whole files, and nothing that is younger"
    );
    let oldest = query(broker.dir(), "trail", &[]);
    assert_eq!(oldest[0]["entry"].as_u64(), Some(4 * BUNDLE), "{}", oldest[0]);
    let verify = [
        "verify",
        "trail",
        "--key",
        "trail/log.pub",
        "--witness",
        "witness",
    ];
    let told = audit_ok(broker.dir(), &verify);
    assert!(
        told.contains(&format!("entries before {} have been pruned", 4 * BUNDLE)),
        "{told}"
    );
    let proof = audit_ok(broker.dir(), &["prove", "1024", "--dir", "trail"]);
    fs::write(broker.path("proof"), proof).unwrap();
    audit_ok(broker.dir(), &["verify", "proof", "--key", "trail/log.pub"]);
    let (is_ok, told) = audit(broker.dir(), &["prove", "0", "--dir", "trail"]);
    assert!(!is_ok && told.contains("pruned"), "{told}");

    let broker = start(broker, "keep-bytes = 1_048_576\n");
    wait_for("more to be removed", || {
        query(broker.dir(), "trail", &["--kind", "prune"]).len() == 2
    });
    let entries = trail.join("tile/entries");
    let mut bytes = 0;
    let mut folders = vec![entries];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                bytes += entry.metadata().unwrap().len();
            }
        }
    }
    // The file that is not full does not count.
    let file = 256 * 400;
    assert!((1_048_576 - file..1_048_576 + file).contains(&bytes), "{bytes}");
    let told = audit_ok(broker.dir(), &verify);
    assert!(told.contains("have been pruned"), "{told}");
    // A file that is gone without such an entry is a fault.
    let last = query(broker.dir(), "trail", &[]).len() as u64;
    assert!(last > 0);
    let mut full: Vec<_> = fs::read_dir(trail.join("tile/entries"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    full.sort();
    fs::remove_file(full.pop().unwrap()).unwrap();
    let (is_ok, told) = audit(broker.dir(), &verify);
    assert!(!is_ok && told.contains("missing"), "{told}");
}
