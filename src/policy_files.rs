//! A policy's files on disk: the one place that reads them, for every command that needs a policy, and that replaces them.
//!
//! Reads no more than a policy may have, and judges nothing but that it is text.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::limits::POLICY_BYTES_MAX;
use crate::policy::{Source, SourceError};

/// Why a policy's files could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A path that is missing, forbidden or unreadable.
    #[error("{}: {error}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A path that is neither a file nor a folder, such as a pipe.
    #[error("{}: neither a file nor a folder", .0.display())]
    NotAFile(PathBuf),
    /// A folder without a policy file.
    #[error("{}: the folder has no file whose name ends in .toml", .0.display())]
    EmptyFolder(PathBuf),
    /// Bytes that are not the text of a policy, or too many of them.
    #[error(transparent)]
    NotAPolicy(#[from] SourceError),
}

/// Reads a policy of files, and of folders of `*.toml` (not of folders within them; hidden files are left out).
/// A file that is reached twice is read once. Sources are named as their paths are given.
pub fn load_sources(paths: &[PathBuf]) -> Result<Vec<Source>, LoadError> {
    let mut seen = Vec::new();
    let mut sources = Vec::new();
    let mut bytes_left = POLICY_BYTES_MAX as u64;
    for path in paths {
        for file in files_of(path)? {
            let canonical = file.canonicalize().map_err(|error| unreadable(&file, error))?;
            if seen.contains(&canonical) {
                continue;
            }
            seen.push(canonical);
            let source = read(&file, bytes_left)?;
            bytes_left = bytes_left.saturating_sub(source.text.len() as u64);
            sources.push(source);
        }
    }
    Ok(sources)
}

/// Replaces the text of a file, whole or not at all, keeping its mode and owner; through a symbolic link, the file that
/// it leads to. Returns after the new text is on disk. Refuses it if the file no longer has the text that was read.
pub fn replace(path: &Path, read: &str, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::other("the file is in no folder"))?;
    let metadata = fs::metadata(&path)?;
    let temporary = temporary(folder, text, Some(&metadata))?;
    // As late as can be: what is written between here and the renaming is lost.
    if fs::read(&path)? != read.as_bytes() {
        return Err(io::Error::other("somebody has changed the file meanwhile"));
    }
    temporary.persist(&path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

/// The files of a policy as they would be in a folder, in their order. The names come from outside: each must be that of
/// a file which [`load_sources`] reads there. A single file takes the name of a single file that is there.
pub fn name_in(folder: &Path, files: Vec<(String, String)>) -> Result<Vec<Source>, String> {
    let there = files_in(folder, POLICIES).map_err(|error| error.to_string())?;
    if let ([(_, text)], [only]) = (files.as_slice(), there.as_slice()) {
        return Ok(vec![Source {
            name: only.display().to_string(),
            text: text.clone(),
        }]);
    }
    let mut named: Vec<(PathBuf, String)> = Vec::new();
    for (name, text) in files {
        let base = Path::new(&name).file_name().and_then(|base| base.to_str());
        let base = base.filter(|base| {
            let is_plain = !base.starts_with('.') && !base.chars().any(|c| c.is_control() || c == '/');
            is_plain
                && base.len() <= FILE_NAME_BYTES_MAX
                && Path::new(base).extension() == Some(POLICIES.as_ref())
        });
        let Some(base) = base else {
            return Err(format!(
                "{name:?}: the files of a policy in a folder are called NAME.toml"
            ));
        };
        let path = folder.join(base);
        if named.iter().any(|(other, _)| *other == path) {
            return Err(format!("{base}: two files of the policy have this name"));
        }
        named.push((path, text));
    }
    if named.is_empty() {
        return Err("the policy has no files".to_owned());
    }
    named.sort();
    let source = |(path, text): (PathBuf, String)| Source {
        name: path.display().to_string(),
        text,
    };
    Ok(named.into_iter().map(source).collect())
}

/// Replaces the files of a policy in a folder by others: writes what is new or changed, and removes what is no more.
/// Refuses it if they no longer are as they were read. If one cannot be written, all stay as they were; a crash in the
/// middle leaves some of each.
pub fn replace_all(folder: &Path, read: &[Source], new: &[Source]) -> io::Result<()> {
    let there = load_sources(&[folder.to_owned()]).map_err(io::Error::other)?;
    if there != read {
        return Err(io::Error::other("somebody has changed the files meanwhile"));
    }
    let mut done = 0;
    let steps = steps(read, new);
    let taken = steps.iter().try_for_each(|step| {
        step.take(folder, read)?;
        done += 1;
        Ok(())
    });
    if let Err(error) = taken {
        for step in steps.iter().take(done).rev() {
            if let Err(undo) = step.reversed().take(folder, read) {
                return Err(io::Error::other(format!(
                    "{error}; and {}, which had been replaced, cannot be put back: {undo}",
                    step.name
                )));
            }
        }
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// What becomes of one file.
struct Step<'a> {
    name: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
}

/// What is to be done, what is written before what is removed: an error is likelier there.
fn steps<'a>(read: &'a [Source], new: &'a [Source]) -> Vec<Step<'a>> {
    let text_in = |sources: &'a [Source], name: &str| {
        let source = sources.iter().find(|source| source.name == name);
        source.map(|source| source.text.as_str())
    };
    let written = new.iter().map(|source| Step {
        name: &source.name,
        before: text_in(read, &source.name),
        after: Some(&source.text),
    });
    let gone = read.iter().filter(|source| text_in(new, &source.name).is_none());
    let removed = gone.map(|source| Step {
        name: &source.name,
        before: Some(&source.text),
        after: None,
    });
    written
        .chain(removed)
        .filter(|step| step.before != step.after)
        .collect()
}

impl Step<'_> {
    const fn reversed(&self) -> Self {
        Self {
            name: self.name,
            before: self.after,
            after: self.before,
        }
    }

    fn take(&self, folder: &Path, read: &[Source]) -> io::Result<()> {
        let path = Path::new(self.name);
        match (self.before, self.after) {
            (Some(before), Some(after)) => replace(path, before, after),
            (None, Some(after)) => {
                // Whoever may read the policy may read all of it.
                let like = read.first().and_then(|source| fs::metadata(&source.name).ok());
                let temporary = temporary(folder, after, like.as_ref())?;
                temporary.persist_noclobber(path).map_err(|error| error.error)?;
                Ok(())
            }
            (_, None) => fs::remove_file(path),
        }
    }
}

/// A file that has its text, on disk, and is not yet where it belongs; with the mode and owner of another.
fn temporary(folder: &Path, text: &str, like: Option<&fs::Metadata>) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::Builder::new().prefix(".exocom-").tempfile_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    let file = temporary.as_file();
    if let Some(like) = like {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (like.uid(), like.gid()) {
            std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
        }
        file.set_permissions(like.permissions())?;
    }
    file.sync_all()?;
    Ok(temporary)
}

/// Reads the expectations beside a policy: of a file `todo.toml`, the file `todo.expect` if there is one; of a folder,
/// its files `*.expect`, but for hidden ones.
pub fn load_expectations(paths: &[PathBuf]) -> Result<Vec<Source>, LoadError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(files_in(path, EXPECTATIONS)?);
        } else {
            let beside = path.with_extension(EXPECTATIONS);
            files.extend(beside.is_file().then_some(beside));
        }
    }
    files.sort();
    files.dedup();
    load_files(&files)
}

/// Reads files, all together no more than a policy may have.
pub fn load_files(files: &[PathBuf]) -> Result<Vec<Source>, LoadError> {
    let mut bytes_left = POLICY_BYTES_MAX as u64;
    let mut sources = Vec::new();
    for file in files {
        let source = read(file, bytes_left)?;
        bytes_left = bytes_left.saturating_sub(source.text.len() as u64);
        sources.push(source);
    }
    Ok(sources)
}

/// What file systems allow.
const FILE_NAME_BYTES_MAX: usize = 255;

const POLICIES: &str = "toml";
const EXPECTATIONS: &str = "expect";

fn files_of(path: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    if !metadata.is_dir() {
        return Err(LoadError::NotAFile(path.to_owned()));
    }
    let files = files_in(path, POLICIES)?;
    if files.is_empty() {
        return Err(LoadError::EmptyFolder(path.to_owned()));
    }
    Ok(files)
}

/// The files of a folder whose names end so, in order.
fn files_in(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, LoadError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let file = entry.map_err(|error| unreadable(folder, error))?.path();
        if is_shown_file(&file, extension) {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn is_shown_file(path: &Path, wanted: &str) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.extension().is_some_and(|extension| extension == wanted) && path.is_file()
}

fn read(path: &Path, bytes_left: u64) -> Result<Source, LoadError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(path, error))?;
    // One byte over the bound tells a file that is too large; the rest of it need not be read.
    file.take(bytes_left + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, error))?;
    if bytes.len() as u64 > bytes_left {
        let bytes = POLICY_BYTES_MAX as u64 - bytes_left + bytes.len() as u64;
        return Err(SourceError::TooLarge { name, bytes }.into());
    }
    Ok(Source::from_bytes(name, bytes)?)
}

fn unreadable(path: &Path, error: io::Error) -> LoadError {
    LoadError::Unreadable {
        path: path.to_owned(),
        error,
    }
}
