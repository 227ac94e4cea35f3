//! A log that is damaged: cut anywhere, or with any bit changed. It is recovered, or refused with the place; it
//! never says silently something else than it said.

use std::collections::BTreeMap;
use std::sync::Arc;

use exocom::delivery::{Bounds, DeliveryTerms, NewMessage, Seq};
use exocom::disk::OpenError;
use exocom::disk::store::{Store, StoreConfig};
use exocom::policy::Kind;

use crate::disk::Disk;
use crate::random::Random;

const NOW_MS: u64 = 1_000_000;

fn config(segment_bytes: u64) -> StoreConfig {
    StoreConfig {
        bounds: Bounds {
            messages_max: 100_000,
            bytes_max: 1 << 30,
            queue_messages_max: 100_000,
            window_messages_max: 10,
            window_bytes_max: 1 << 20,
            ids_window_ms: 120_000,
            ids_max: 100,
        },
        segment_bytes,
        cache_bytes_max: 0,
    }
}

/// A log of so many messages in batches of three, closed in order.
fn log(segment_bytes: u64, messages: usize, payload_bytes: usize) -> BTreeMap<String, Vec<u8>> {
    let disk = Disk::new(1);
    let (mut store, _) = Store::open(disk.clone(), config(segment_bytes), 1, NOW_MS).unwrap();
    let terms = DeliveryTerms {
        kind: Kind::Event,
        attempt_ms_max: 1_000,
        attempts_max: 3,
        backoff_first_ms: 1,
        backoff_longest_ms: 1,
        expires_ms: 1 << 40,
    };
    for number in 0..messages {
        if let Some(wanted) = store.wanted() {
            store.provide(wanted.make(&disk).unwrap());
        }
        let new = NewMessage {
            sender: &"web".into(),
            name: &"a".into(),
            terms,
            receivers: &["x".into()],
            id: None,
            bytes: payload_bytes,
        };
        let payload = format!("{number}:{}", "x".repeat(payload_bytes)).into_bytes();
        store
            .publish(&new, Box::default(), payload.into(), NOW_MS)
            .unwrap()
            .unwrap();
        if number % 3 == 2 {
            store.commit().unwrap();
        }
    }
    store.close(NOW_MS).unwrap();
    disk.snapshot()
}

/// What a damaged log says: its messages, or the refusal.
fn contents(files: &BTreeMap<String, Vec<u8>>, segment_bytes: u64) -> Result<(Vec<String>, bool), OpenError> {
    let disk = Disk::with(files);
    let (store, opened) = Store::open(disk, config(segment_bytes), 1, NOW_MS)?;
    let last = store.deliveries().last_seq().0;
    let held = (1..=last).map(Seq).filter(|seq| store.deliveries().holds(*seq));
    let texts = held.map(|seq| {
        let content: Arc<_> = store.content(seq).unwrap().unwrap();
        String::from_utf8(content.payload.to_vec()).unwrap()
    });
    Ok((texts.collect(), opened.cut.is_some()))
}

fn check(files: &BTreeMap<String, Vec<u8>>, segment_bytes: u64, whole: &[String], what: &str) -> bool {
    match contents(files, segment_bytes) {
        Ok((texts, was_cut)) => {
            assert!(
                whole.starts_with(&texts),
                "{what}: other messages than were written"
            );
            assert!(
                texts.len() == whole.len() || was_cut,
                "{what}: messages are missing silently"
            );
            true
        }
        Err(OpenError::Damaged { .. }) => false,
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn a_log_cut_anywhere_is_recovered_up_to_there_or_refused() {
    let segment_bytes = 8 << 10;
    let files = log(segment_bytes, 60, 50);
    let (whole, _) = contents(&files, segment_bytes).unwrap();
    assert_eq!(whole.len(), 60);
    assert!(files.len() > 1, "several segments");
    for (name, bytes) in &files {
        for end in 0..bytes.len() {
            let mut cut = files.clone();
            cut.get_mut(name).unwrap().truncate(end);
            check(&cut, segment_bytes, &whole, &format!("{name} cut to {end}"));
        }
        let mut without = files.clone();
        without.remove(name);
        check(&without, segment_bytes, &whole, &format!("without {name}"));
    }
}

#[test]
fn a_log_with_any_bit_changed_is_recovered_whole_or_refused() {
    let segment_bytes = 8 << 10;
    let files = log(segment_bytes, 40, 50);
    let (whole, _) = contents(&files, segment_bytes).unwrap();
    let (mut recovered, mut refused) = (0, 0);
    for (name, bytes) in &files {
        for bit in 0..bytes.len() * 8 {
            let mut changed = files.clone();
            changed.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            if check(&changed, segment_bytes, &whole, &format!("{name} bit {bit}")) {
                recovered += 1;
            } else {
                refused += 1;
            }
        }
    }
    assert!(
        recovered > 1_000 && refused > 1_000,
        "{recovered} recovered, {refused} refused"
    );
}

/// All of them with `EXOCOM_SIM_BITS=all`.
#[test]
fn a_log_of_a_mebibyte_with_a_bit_changed_is_recovered_whole_or_refused() {
    let segment_bytes = 512 << 10;
    let files = log(segment_bytes, 3_000, 280);
    let bytes: usize = files.values().map(Vec::len).sum();
    assert!(bytes >= 1 << 20, "{bytes}");
    let (whole, _) = contents(&files, segment_bytes).unwrap();
    let all = std::env::var("EXOCOM_SIM_BITS").is_ok_and(|bits| bits == "all");
    let mut random = Random::new(11);
    let names: Vec<_> = files.keys().cloned().collect();
    let bits = bytes * 8;
    let mut changed = files.clone();
    let mut flip = |name: &str, bit: usize| {
        let flip = |changed: &mut BTreeMap<String, Vec<u8>>| {
            changed.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
        };
        flip(&mut changed);
        check(&changed, segment_bytes, &whole, &format!("{name} bit {bit}"));
        flip(&mut changed);
    };
    if all {
        for name in &names {
            (0..files[name].len() * 8).for_each(|bit| flip(name, bit));
        }
        return;
    }
    for _ in 0..60 {
        let name = random.pick(&names).unwrap().clone();
        let bit = usize::try_from(random.below(bits as u64)).unwrap() % (files[&name].len() * 8);
        flip(&name, bit);
    }
}
