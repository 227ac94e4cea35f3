//! `exocom audit verify`, `prove` and `compare`: what can be shown of a log by its public key alone.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{Where, read_key};
use crate::audit::Checkpoint;
use crate::audit::key::PublicKey;
use crate::audit::note::{self, NOTE_BYTES_MAX};
use crate::audit::proof::{PROOF_BYTES_MAX, Proof};
use crate::disk::audit::{Archive, ArchiveError};
use crate::limits::AUDIT_WITNESS_BYTES_MAX;

#[derive(Debug, Args)]
#[command(
    long_about = "Checks a log, offline: every entry against its hash, every hash against the tree, the tree against \
        the signed checkpoint, and with --witness against each checkpoint that was kept elsewhere. Names the first \
        entry that is not as it was recorded.\n\n\
        Given the file of a proof, checks that; the entry is printed.\n\n\
        Without a witness it cannot show that the holder of the secret key has not signed another history, or cut \
        off the end of this one.",
    after_long_help = "Examples:\n  \
        exocom audit verify /var/lib/exocom/audit --key log.pub\n  \
        exocom audit verify audit --key log.pub --witness /mnt/other/checkpoints\n  \
        exocom audit verify 4711.tlog-proof --key log.pub\n\n\
        Exit codes:\n  \
        0  the log, or the proof, is as it was signed\n  \
        1  it is not\n  \
        2  it could not be checked: a file is missing or unreadable"
)]
pub(super) struct VerifyArgs {
    /// The log's folder, or the file of a proof
    path: PathBuf,
    /// The log's public key: log.pub, as you got it from whom you trust
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Checkpoints that were kept elsewhere: one or many in a file; may be given several times
    #[arg(long, value_name = "FILE")]
    witness: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Writes the proof that an entry is in the log, as a small text of its own: the entry, its path in the \
        Merkle tree, and the signed checkpoint (the format is C2SP tlog-proof). Whoever has the log's public key \
        checks it with `exocom audit verify`, without the log.",
    after_long_help = "Example:\n  exocom audit prove 4711 --dir audit > 4711.tlog-proof"
)]
pub(super) struct ProveArgs {
    /// The number of the entry, as `tail` and `query` show it
    entry: u64,
    /// The log's public key; otherwise log.pub in its folder
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
}

#[derive(Debug, Args)]
#[command(
    long_about = "Checks that the log, as it is now, continues what it was when a checkpoint was kept: that nothing \
        before it was changed, and that the end was not cut off. It reads a few files, however long the log is.\n\n\
        Keep a checkpoint by copying the file `checkpoint` of the log's folder to where the broker cannot write.",
    after_long_help = "Example:\n  cp audit/checkpoint /mnt/other/monday\n  exocom audit compare /mnt/other/monday --dir audit\n\n\
        Exit codes:\n  \
        0  the log continues what was kept\n  \
        1  it is not\n  \
        2  it could not be checked: a file is missing or unreadable"
)]
pub(super) struct CompareArgs {
    /// The checkpoint that was kept; of several in the file, each
    old: PathBuf,
    /// The log's public key; otherwise log.pub in its folder
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    place: Where,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Checks a log or a proof.
pub(super) fn verify(
    args: &VerifyArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let key = read_key(&args.key)?;
    if !args.path.is_dir() {
        return verify_proof(args, &key, out, err);
    }
    let archive = Archive::new(&args.path);
    let mut witnesses = Vec::new();
    for file in &args.witness {
        witnesses.extend(read_checkpoints(file, &key)?);
    }
    let bar = progress_bar(archive.claimed_size()?);
    let mut bytes = 0;
    let verdict = check_own_key(&args.path, &key).and_then(|()| {
        let verdict = archive.verify(&key, witnesses, |entries, more| {
            bytes += more as u64;
            bar.set_position(entries);
        });
        Ok(verdict?)
    });
    bar.finish_and_clear();
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return refuse(&error, args.json, out, err),
    };
    if args.json {
        let answer = json!({
            "verified": true, "log": key.name(), "entries": verdict.entries, "pruned": verdict.pruned,
            "witnessed": verdict.witnessed, "bytes": bytes,
        });
        writeln!(out, "{answer}")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        out,
        "verified: {} entries of the log {}, {bytes} bytes, are as they were signed",
        verdict.entries,
        key.name()
    )?;
    if verdict.pruned > 0 {
        writeln!(
            out,
            "the entries before {} have been pruned; their hashes hold",
            verdict.pruned
        )?;
    }
    if verdict.witnessed > 0 {
        writeln!(
            out,
            "a checkpoint that was kept elsewhere agrees up to entry {}",
            verdict.witnessed - 1
        )?;
    } else {
        writeln!(
            out,
            "no witness was asked (--witness): the holder of the secret key could have signed another history"
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn verify_proof(
    args: &VerifyArgs,
    key: &PublicKey,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let text = read_bounded(&args.path, PROOF_BYTES_MAX)?;
    if !Proof::begins(&text) {
        bail!(
            "{}: neither the folder of an audit log nor the file of a proof",
            args.path.display()
        );
    }
    let checked =
        Proof::parse(&text).and_then(|proof| proof.check(key).map(|checkpoint| (proof, checkpoint)));
    let (proof, checkpoint) = match checked {
        Ok(checked) => checked,
        Err(error) => return refuse(&error.into(), args.json, out, err),
    };
    let entry = String::from_utf8_lossy(&proof.entry);
    if args.json {
        let answer = json!({
            "verified": true, "log": key.name(), "index": proof.index, "size": checkpoint.size, "entry": entry,
        });
        writeln!(out, "{answer}")?;
    } else {
        writeln!(
            out,
            "verified: entry {} of the log {} is",
            proof.index,
            key.name()
        )?;
        writeln!(out, "{}", crate::wire::printable(entry.as_bytes(), usize::MAX))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a proof.
pub(super) fn prove(args: &ProveArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let (archive, folder) = args.place.archive()?;
    let key = key_of(args.key.as_deref(), &folder)?;
    let proof = archive.prove(args.entry, &key)?;
    // Of a log that was changed there is no proof, and a text that proves nothing helps nobody.
    proof.check(&key).with_context(|| {
        format!(
            "{}: the log has been changed; `exocom audit verify` tells where",
            folder.display()
        )
    })?;
    out.write_all(proof.to_text().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Compares a log with what was kept of it.
pub(super) fn compare(
    args: &CompareArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    let (archive, folder) = args.place.archive()?;
    let key = key_of(args.key.as_deref(), &folder)?;
    let mut kept = read_checkpoints(&args.old, &key)?;
    kept.sort_by_key(|checkpoint| checkpoint.size);
    let mut now = 0;
    for old in &kept {
        now = match archive.continues(old, &key) {
            Ok(now) => now,
            Err(error) => return refuse(&error.into(), args.json, out, err),
        };
    }
    let last = kept.last().map_or(0, |old| old.size);
    if args.json {
        let answer = json!({ "continues": true, "log": key.name(), "old": last, "now": now });
        writeln!(out, "{answer}")?;
    } else {
        writeln!(
            out,
            "consistent: the log {} has {now} entries, and its first {last} are those of the checkpoint that was kept",
            key.name()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn refuse(
    error: &anyhow::Error,
    is_json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    // What cannot be read is no verdict about the log.
    if let Some(ArchiveError::Io { .. } | ArchiveError::NoLog(_)) = error.downcast_ref() {
        bail!("{error:#}");
    }
    if is_json {
        writeln!(
            out,
            "{}",
            json!({ "verified": false, "fault": format!("{error:#}") })
        )?;
    } else {
        writeln!(err, "exocom: NOT verified: {error:#}")?;
    }
    Ok(ExitCode::FAILURE)
}

/// The key in the log's own folder is that for others to copy: one that is not the log's would mislead them.
fn check_own_key(folder: &Path, key: &PublicKey) -> anyhow::Result<()> {
    let own = folder.join("log.pub");
    let Ok(text) = std::fs::read(&own) else {
        return Ok(());
    };
    if text != format!("{key}\n").as_bytes() {
        bail!(
            "{}: not the key that was given; either it or the file was changed",
            own.display()
        );
    }
    Ok(())
}

fn key_of(given: Option<&Path>, folder: &Path) -> anyhow::Result<PublicKey> {
    match given {
        Some(path) => read_key(path),
        None => read_key(&folder.join("log.pub")).context("name the log's public key with --key"),
    }
}

/// The checkpoints in a file, one after the other, as a witness writes them.
fn read_checkpoints(path: &Path, key: &PublicKey) -> anyhow::Result<Vec<Checkpoint>> {
    let bytes = read_bounded(path, AUDIT_WITNESS_BYTES_MAX)?;
    let mut found = Vec::new();
    for note in note::split(&bytes) {
        let checkpoint = Checkpoint::open(note, key);
        found.push(checkpoint.with_context(|| format!("{}: a checkpoint in it", path.display()))?);
    }
    anyhow::ensure!(
        !found.is_empty(),
        "{}: there is no checkpoint in it",
        path.display()
    );
    Ok(found)
}

fn read_bounded(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .with_context(|| path.display().to_string())?;
    anyhow::ensure!(
        bytes.len() <= bytes_max,
        "{}: longer than it can be, {bytes_max} bytes",
        path.display()
    );
    Ok(bytes)
}

fn progress_bar(entries: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(entries), ProgressDrawTarget::stderr_with_hz(10));
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) =
        ProgressStyle::with_template("verifying {bar:40} {percent:>3} %  {pos} of {len} entries  {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

const _: () = assert!(NOTE_BYTES_MAX <= AUDIT_WITNESS_BYTES_MAX);
