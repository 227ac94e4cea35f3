//! The narrow seam to the file system: one folder, flat names, positioned reads and writes.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of files. Two implementations are tested: [`Folder`], and the simulated disk of `tests/sim`.
pub trait Files {
    /// An open file.
    type File: std::fmt::Debug;

    /// The names of all files.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file, in place of one that is there.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file to read and write.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Its length in bytes.
    fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Reads at an offset; may read less, and reads nothing at the end.
    fn read_at(&self, file: &Self::File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes at an offset; may write less.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Returns after what was written to the file is on disk.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives a file another name, in place of one that has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns after what was created, renamed and removed is on disk.
    fn sync_names(&self) -> io::Result<()>;

    /// Returns after all of that is on disk, for all files: cheaper than each by itself where there are many.
    fn sync_everything(&self) -> io::Result<()>;
}

/// Reads from an offset until `bytes` are full or the file ends; says how many it read.
pub(super) fn read_full<F: Files>(
    files: &F,
    file: &F::File,
    bytes: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match files.read_at(file, rest, offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Writes all bytes at an offset.
pub(super) fn write_full<F: Files>(files: &F, file: &F::File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match files.write_at(file, rest, offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A real folder, locked: two brokers on one would destroy it.
#[derive(Debug, Clone)]
pub struct Folder(Arc<Locked>);

#[derive(Debug)]
struct Locked {
    path: PathBuf,
    folder: fs::File,
}

impl Folder {
    /// Opens a folder, which is made where it is missing, for this process alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let folder = fs::File::open(path)?;
        rustix::fs::flock(&folder, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| io::Error::new(io::ErrorKind::ResourceBusy, "another broker is using it"))?;
        let path = path.to_owned();
        Ok(Self(Arc::new(Locked { path, folder })))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }
}

impl Files for Folder {
    type File = fs::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.0.path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        let mut options = fs::File::options();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600);
        options.open(self.file(name))
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        fs::File::options().read(true).write(true).open(self.file(name))
    }

    fn len(&self, file: &fs::File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &fs::File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }

    fn write_at(&self, file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        file.sync_data()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.file(from), self.file(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.file(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        self.0.folder.sync_all()
    }

    fn sync_everything(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        rustix::fs::syncfs(&self.0.folder)?;
        #[cfg(not(target_os = "linux"))]
        rustix::fs::sync();
        Ok(())
    }
}
