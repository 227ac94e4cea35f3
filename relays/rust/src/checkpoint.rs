//! Keeps the newest checkpoint of the broker's audit log, and has it proven that each later one continues it: whoever
//! rewrites the log, even with its secret key, contradicts what this service keeps.
//!
//! The broker is believed nothing but what the log's key has signed. A checkpoint that contradicts the kept one never
//! takes its place; it is kept beside it, as evidence.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use async_nats::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::event::{Event, Status};
use crate::limits;
use crate::relay::Shared;
use crate::requests::Outcome;

/// What the broker answers for its log.
pub(crate) const SUBJECT: &str = "$EXO.audit.checkpoint";

const NOT_A_CHECKPOINT: &str = "the broker's answer is no checkpoint that the log's key has signed";

/// Where the checkpoint is kept, and the log's public key.
#[derive(Debug, Clone)]
pub(crate) struct Keep {
    pub(crate) file: PathBuf,
    pub(crate) key: LogKey,
}

/// Why a checkpoint is not kept.
#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// Nothing is known about the log.
    Unchecked(String),
    /// It contradicts the kept one: how many entries each says that there are.
    Rewritten { kept: u64, now: u64 },
}

impl Problem {
    fn other(problem: impl ToString) -> Self {
        Self::Unchecked(problem.to_string())
    }
}

/// Asks at each connection, and now and then, until the relay is shut down or nobody has it any more.
pub(crate) async fn watch(relay: Weak<Shared>, keep: Keep, mut status: watch::Receiver<Status>) {
    let mut told = None;
    loop {
        let settled = status
            .wait_for(|status| !matches!(status, Status::Offline { .. }))
            .await;
        if settled.map_or(true, |status| *status == Status::Closed) {
            return;
        }
        let Some(shared) = relay.upgrade() else { return };
        let link = Arc::clone(shared.link());
        let connection = link.ended();
        let outcome = check(&shared, &keep).await;
        drop(shared);
        // What is wrong is told once for each connection; that one has ended is told elsewhere.
        if let Err(problem) = outcome
            && link.ended() == connection
            && told.replace(connection) != Some(connection)
        {
            link.emit(&match problem {
                Problem::Unchecked(problem) => Event::HistoryUnchecked { problem },
                Problem::Rewritten { kept, now } => Event::HistoryRewritten { kept, now },
            });
        }
        drop(link);
        // Whether it is time, or the connection is another.
        drop(timeout(limits::CHECKPOINT_EVERY, status.changed()).await);
    }
}

/// Asks for the newest checkpoint, and keeps it if it continues the kept one.
async fn check(shared: &Shared, keep: &Keep) -> Result<(), Problem> {
    let kept = on_disk(keep, Keep::read).await?;
    let size = kept.as_ref().map_or(0, |(tree, _)| tree.size);
    let asked = if size == 0 {
        String::new()
    } else {
        size.to_string()
    };
    let requests = &shared.link().requests;
    let mut ticket = requests
        .open()
        .ok_or_else(|| Problem::other("too many requests wait already"))?;
    let sent = shared
        .client()
        .publish_with_reply(SUBJECT, ticket.inbox(), asked.into());
    sent.await.map_err(Problem::other)?;
    let outcome = timeout(limits::CHECKPOINT_WITHIN, ticket.outcome()).await;
    let frame = match outcome {
        Ok(Outcome::Answer(frame)) => frame,
        Ok(_) => return Err(Problem::other("the connection ended before the answer came")),
        Err(_) => return Err(Problem::other("the broker does not answer")),
    };
    if frame.status == Some(StatusCode::NO_RESPONDERS) {
        let header = |name: &str| Some(frame.headers.as_ref()?.get(name)?.as_str().to_owned());
        let reason = header("Exo-Reason").unwrap_or_default();
        let text = match &*reason {
            "denied" => "the broker keeps no audit log".to_owned(),
            _ => format!("the broker does not answer now: {reason}"),
        };
        return Err(Problem::Unchecked(text));
    }
    let answer = String::from_utf8(frame.payload.to_vec()).map_err(|_| Problem::other(NOT_A_CHECKPOINT))?;
    on_disk(keep, move |keep| {
        keep.judge(kept.as_ref().map(|(tree, _)| tree), &answer)
    })
    .await
}

async fn on_disk<T: Send + 'static>(
    keep: &Keep,
    work: impl FnOnce(&Keep) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let keep = keep.clone();
    let done = tokio::task::spawn_blocking(move || work(&keep)).await;
    done.unwrap_or_else(|error| Err(Problem::other(error)))
}

impl Keep {
    /// The kept checkpoint, if there is one.
    fn read(&self) -> Result<Option<(Tree, String)>, Problem> {
        let text = match read_text(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.problem(&error)),
        };
        let wrong = "it is no checkpoint that the log's key has signed; find out why, then remove the file to begin anew";
        let tree = self.key.open(&text).ok_or_else(|| self.problem(&wrong))?;
        Ok(Some((tree, text)))
    }

    /// Judges the broker's answer, and keeps what it says.
    fn judge(&self, kept: Option<&Tree>, answer: &str) -> Result<(), Problem> {
        let parsed = answer.split_once("\n\n").and_then(|(head, note)| {
            let mut lines = head.split('\n');
            let old = lines.next()?.strip_prefix("old ")?;
            let hashes: Option<Vec<Hash>> = lines
                .map(|line| STANDARD.decode(line).ok()?.try_into().ok())
                .collect();
            Some((old.parse::<u64>().ok()?, hashes?, note, self.key.open(note)?))
        });
        let (old, proof, note, newest) = parsed.ok_or_else(|| Problem::other(NOT_A_CHECKPOINT))?;
        let Some(kept) = kept else {
            return self.write(note).map_err(|error| self.problem(&error));
        };
        if old == kept.size && kept.continues_as(&newest, &proof) {
            if newest.size > kept.size {
                self.write(note).map_err(|error| self.problem(&error))?;
            }
            return Ok(());
        }
        if let Err(error) = replace(&beside(&self.file, "contradiction"), note) {
            tracing::error!(%error, "the checkpoint that contradicts the kept one cannot be kept beside it");
        }
        Err(Problem::Rewritten {
            kept: kept.size,
            now: newest.size,
        })
    }

    /// Keeps a checkpoint, unless another instance of the service has kept a newer one meanwhile.
    fn write(&self, note: &str) -> io::Result<()> {
        let size_of = |text: &str| self.key.open(text).map_or(0, |tree| tree.size);
        let is_newer = read_text(&self.file).map_or(true, |kept| size_of(&kept) < size_of(note));
        if is_newer {
            replace(&self.file, note)
        } else {
            Ok(())
        }
    }

    fn problem(&self, error: &dyn std::fmt::Display) -> Problem {
        Problem::Unchecked(format!("{}: {error}", self.file.display()))
    }
}

fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?
        .take(limits::CHECKPOINT_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces a file whole.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let draft = beside(file, &format!("{:016x}", fastrand::u64(..)));
    let written = File::create_new(&draft).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let replaced = written.and_then(|()| fs::rename(&draft, file));
    if replaced.is_err() {
        // It may not even have been made.
        drop(fs::remove_file(&draft));
    }
    replaced
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

type Hash = [u8; 32];

/// The public key of an audit log, as its file `log.pub` has it: `NAME+ID+KEY` (C2SP signed-note).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogKey {
    name: String,
    id: [u8; 4],
    key: Hash,
}

impl LogKey {
    /// `None` for what is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_end().splitn(3, '+');
        let (name, id, key) = (parts.next()?, parts.next()?, STANDARD.decode(parts.next()?).ok()?);
        let (&1, key) = key.split_first()? else {
            return None;
        };
        let whole = digest(&SHA256, &[name.as_bytes(), b"\n\x01", key].concat());
        let parsed = Self {
            name: name.to_owned(),
            id: *whole.as_ref().first_chunk()?,
            key: key.try_into().ok()?,
        };
        let shown: String = parsed.id.iter().map(|byte| format!("{byte:02x}")).collect();
        (shown == id).then_some(parsed)
    }

    /// The tree of a checkpoint that this key has signed (C2SP tlog-checkpoint).
    fn open(&self, note: &str) -> Option<Tree> {
        let end = note.rfind("\n\n")?;
        let (text, signatures) = (note.get(..=end)?, note.get(end + 2..)?);
        let signed = signatures.lines().any(|line| {
            let signature = line
                .strip_prefix("\u{2014} ")
                .and_then(|line| line.split_once(' '));
            let signature = signature.filter(|(name, _)| *name == self.name);
            let bytes = signature.and_then(|(_, signature)| STANDARD.decode(signature).ok());
            bytes.is_some_and(|bytes| {
                let signature = bytes.strip_prefix(&self.id);
                let key = UnparsedPublicKey::new(&ED25519, &self.key);
                signature.is_some_and(|signature| key.verify(text.as_bytes(), signature).is_ok())
            })
        });
        let mut lines = text.lines();
        let is_its_own = signed && lines.next() == Some(&self.name);
        let (size, root) = (lines.next()?, STANDARD.decode(lines.next()?).ok()?);
        is_its_own.then_some(Tree {
            size: size.parse().ok()?,
            root: root.try_into().ok()?,
        })
    }
}

/// A Merkle tree, as a checkpoint tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tree {
    size: u64,
    root: Hash,
}

impl Tree {
    /// Whether the proof shows that `newer` has these entries at its beginning (RFC 6962, section 2.1.2).
    fn continues_as(&self, newer: &Self, proof: &[Hash]) -> bool {
        if self.size == 0 {
            return true;
        }
        let mut rest = proof;
        let found = (self.size <= newer.size)
            .then(|| roots(self.size, newer.size, Some(self.root), &mut rest))
            .flatten();
        rest.is_empty() && found == Some((self.root, newer.root))
    }
}

/// The roots of the trees of `old` and of `new` leaves that a proof leads to, read from its end. `whole` is the root of
/// the old tree, as long as this part of it is all of it.
fn roots(old: u64, new: u64, whole: Option<Hash>, proof: &mut &[Hash]) -> Option<(Hash, Hash)> {
    let pop = |proof: &mut &[Hash]| {
        let (last, rest) = proof.split_last()?;
        *proof = rest;
        Some(*last)
    };
    if old == new {
        let root = whole.or_else(|| pop(proof))?;
        return Some((root, root));
    }
    // Where the new tree splits: the largest power of two below its size.
    let left = 1 << (new - 1).ilog2();
    if old <= left {
        let right = pop(proof)?;
        let (old_root, new_left) = roots(old, left, whole, proof)?;
        return Some((old_root, node(&new_left, &right)));
    }
    let common = pop(proof)?;
    let (old_right, new_right) = roots(old - left, new - left, None, proof)?;
    Some((node(&common, &old_right), node(&common, &new_right)))
}

fn node(left: &Hash, right: &Hash) -> Hash {
    let hash = digest(&SHA256, &[&[1], &left[..], &right[..]].concat());
    hash.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    const NAME: &str = "todo.example/exocom";

    fn leaf(number: u64) -> Hash {
        let hash = digest(&SHA256, format!("\0entry {number}").as_bytes());
        hash.as_ref().try_into().unwrap()
    }

    /// The definition, word for word: MTH of RFC 6962.
    fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => digest(&SHA256, b"").as_ref().try_into().unwrap(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
                node(&root(left), &root(right))
            }
        }
    }

    /// The definition, word for word: SUBPROOF of RFC 6962.
    fn prove(old: usize, leaves: &[Hash], is_whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if is_whole { vec![] } else { vec![root(leaves)] };
        }
        let (left, right) = leaves.split_at(1 << (leaves.len() - 1).ilog2());
        if old <= left.len() {
            [prove(old, left, is_whole), vec![root(right)]].concat()
        } else {
            [prove(old - left.len(), right, false), vec![root(left)]].concat()
        }
    }

    fn tree(leaves: &[Hash]) -> Tree {
        Tree {
            size: leaves.len() as u64,
            root: root(leaves),
        }
    }

    #[test]
    fn what_continues_is_told_from_what_was_rewritten() {
        let leaves: Vec<_> = (0..40).map(leaf).collect();
        for new in 1..=leaves.len() {
            for old in 1..=new {
                let (before, after) = (tree(&leaves[..old]), tree(&leaves[..new]));
                let proof = prove(old, &leaves[..new], true);
                assert!(before.continues_as(&after, &proof), "{old} to {new}");
                assert!(
                    !after.continues_as(&before, &proof) || old == new,
                    "{new} cut to {old}"
                );
                let mut other = before.clone();
                other.root[7] ^= 1;
                assert!(!other.continues_as(&after, &proof), "{old} to {new}");
                for at in 0..proof.len() {
                    let mut wrong = proof.clone();
                    wrong[at][3] ^= 1;
                    assert!(!before.continues_as(&after, &wrong), "hash {at}, {old} to {new}");
                }
                let more = [proof.clone(), vec![leaf(0)]].concat();
                assert!(!before.continues_as(&after, &more), "{old} to {new}");
            }
        }
    }

    fn signed(pair: &Ed25519KeyPair, key: &LogKey, leaves: &[Hash]) -> String {
        let tree = tree(leaves);
        let text = format!("{NAME}\n{}\n{}\n", tree.size, STANDARD.encode(tree.root));
        let signature = [&key.id[..], pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n\u{2014} {NAME} {}\n", STANDARD.encode(signature))
    }

    fn keys() -> (Ed25519KeyPair, LogKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = pair.public_key().as_ref();
        let whole = digest(&SHA256, &[NAME.as_bytes(), b"\n\x01", public].concat());
        let id: String = whole.as_ref()[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let key = STANDARD.encode([&[1], public].concat());
        (pair, LogKey::parse(&format!("{NAME}+{id}+{key}\n")).unwrap())
    }

    #[test]
    fn only_what_the_key_signed_is_a_checkpoint() {
        let (pair, key) = keys();
        let leaves: Vec<_> = (0..5).map(leaf).collect();
        let note = signed(&pair, &key, &leaves);
        assert_eq!(key.open(&note), Some(tree(&leaves)));
        for at in 0..note.len() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1;
            let changed = String::from_utf8(bytes).ok();
            assert_eq!(changed.and_then(|note| key.open(&note)), None, "byte {at}");
        }
        for text in ["", "a+b+c", "PRIVATE+KEY+x+00000000+AAAA", "name+00000000+AQ=="] {
            assert_eq!(LogKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_kept_one_stays_when_it_is_contradicted() {
        let folder = std::env::temp_dir().join(format!("exorelay-{:016x}", fastrand::u64(..)));
        fs::create_dir(&folder).unwrap();
        let (pair, key) = keys();
        let keep = Keep {
            file: folder.join("kept"),
            key: key.clone(),
        };
        let leaves: Vec<_> = (0..9).map(leaf).collect();
        let answer = |old: usize, leaves: &[Hash]| {
            let proof = if (1..leaves.len()).contains(&old) {
                prove(old, leaves, true)
            } else {
                vec![]
            };
            let proof: String = proof
                .iter()
                .map(|hash| format!("{}\n", STANDARD.encode(hash)))
                .collect();
            format!("old {old}\n{proof}\n{}", signed(&pair, &key, leaves))
        };
        let judge = |answer: &str| keep.judge(keep.read().unwrap().as_ref().map(|(tree, _)| tree), answer);
        assert_eq!(keep.read(), Ok(None));
        judge(&answer(0, &leaves[..4])).unwrap();
        judge(&answer(4, &leaves)).unwrap();
        assert_eq!(keep.read().unwrap().unwrap().0, tree(&leaves));
        judge(&answer(9, &leaves)).unwrap();
        let cut = judge(&answer(9, &leaves[..7]));
        assert_eq!(cut, Err(Problem::Rewritten { kept: 9, now: 7 }));
        let other: Vec<_> = (0..12)
            .map(|number| leaf(number + u64::from(number == 5)))
            .collect();
        let forged = judge(&answer(9, &other));
        assert_eq!(forged, Err(Problem::Rewritten { kept: 9, now: 12 }));
        assert_eq!(keep.read().unwrap().unwrap().0, tree(&leaves), "it stays");
        let evidence = read_text(&folder.join("kept.contradiction")).unwrap();
        assert_eq!(key.open(&evidence), Some(tree(&other)));
        assert!(matches!(judge("nonsense"), Err(Problem::Unchecked(_))));
        fs::write(&keep.file, "nonsense").unwrap();
        assert!(
            matches!(keep.read(), Err(Problem::Unchecked(_))),
            "it is not taken for none"
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
