//! A policy's files on disk: the one place that reads them, for every command that needs a policy, and that replaces one.
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
    let mut temporary = tempfile::Builder::new().prefix(".exocom-").tempfile_in(folder)?;
    temporary.write_all(text.as_bytes())?;
    let file = temporary.as_file();
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    file.set_permissions(metadata.permissions())?;
    file.sync_all()?;
    // As late as can be: what is written between here and the renaming is lost.
    if fs::read(&path)? != read.as_bytes() {
        return Err(io::Error::other("somebody has changed the file meanwhile"));
    }
    temporary.persist(&path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
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
