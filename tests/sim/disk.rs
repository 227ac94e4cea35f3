//! A disk that fails: what was not synced may be there after a crash, or not, or in part; calls fail when told.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use exocom::disk::files::Files;

use crate::random::Random;

const SECTOR: usize = 512;

/// How often calls fail: once in so many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) read: u64,
    pub(crate) write: u64,
    pub(crate) sync: u64,
    pub(crate) names: u64,
    pub(crate) short: u64,
}

impl Faults {
    pub(crate) const NONE: Self = Self {
        read: u64::MAX,
        write: u64::MAX,
        sync: u64::MAX,
        names: u64::MAX,
        short: u64::MAX,
    };
}

#[derive(Debug, Clone)]
pub(crate) struct Disk(Rc<RefCell<State>>);

#[derive(Debug)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
    random: Random,
    faults: Faults,
    /// Bytes that all files together may have.
    capacity: usize,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that differ, perhaps, from what is durable.
    unsynced: Vec<usize>,
}

#[derive(Debug)]
enum NameChange {
    Set(String, usize),
    Gone(String),
}

/// An open file.
#[derive(Debug)]
pub(crate) struct File(usize);

impl Disk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(State {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            random: Random::new(seed),
            faults: Faults::NONE,
            capacity: usize::MAX,
        })))
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.0.borrow_mut().faults = faults;
    }

    pub(crate) fn set_capacity(&self, capacity: usize) {
        self.0.borrow_mut().capacity = capacity;
    }

    /// The process ends: what it wrote is there.
    pub(crate) fn kill(&self) {}

    /// The machine stops: each sector and name that was not synced is there or not.
    pub(crate) fn cut_power(&self) {
        let mut state = self.0.borrow_mut();
        let State {
            files,
            names,
            durable_names,
            unsynced_names,
            random,
            ..
        } = &mut *state;
        for file in files {
            lose(file, random);
            file.bytes.clone_from(&file.durable);
        }
        for change in unsynced_names.drain(..) {
            if random.once_in(2) {
                apply(durable_names, change);
            }
        }
        names.clone_from(durable_names);
    }

    /// All files, as they are now.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.borrow();
        let names = state.names.iter();
        names
            .map(|(name, &file)| (name.clone(), state.files[file].bytes.clone()))
            .collect()
    }

    /// A disk with these files, all of them durable.
    pub(crate) fn with(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::new(0);
        let mut state = disk.0.borrow_mut();
        for (name, bytes) in files {
            let place = state.files.len();
            state.files.push(Content {
                bytes: bytes.clone(),
                durable: bytes.clone(),
                unsynced: Vec::new(),
            });
            state.names.insert(name.clone(), place);
            state.durable_names.insert(name.clone(), place);
        }
        drop(state);
        disk
    }
}

/// Lets each unsynced sector reach the disk, or not, or in part.
fn lose(file: &mut Content, random: &mut Random) {
    for sector in file.unsynced.drain(..) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(file.bytes.len());
        let end = match random.below(5) {
            0 | 1 => continue,
            2 => {
                start + (usize::try_from(random.below(SECTOR as u64)).unwrap()).min(end.saturating_sub(start))
            }
            _ => end,
        };
        if file.durable.len() < end {
            file.durable.resize(end, 0);
        }
        if start < end {
            file.durable[start..end].copy_from_slice(&file.bytes[start..end]);
        }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Set(name, file) => {
            names.insert(name, file);
        }
        NameChange::Gone(name) => {
            names.remove(&name);
        }
    }
}

impl State {
    fn fails(&mut self, times: u64, kind: io::ErrorKind) -> io::Result<()> {
        if times < u64::MAX && self.random.once_in(times) {
            return Err(kind.into());
        }
        Ok(())
    }

    fn set_name(&mut self, name: &str, file: usize) {
        self.names.insert(name.to_owned(), file);
        self.unsynced_names.push(NameChange::Set(name.to_owned(), file));
    }

    fn remove_name(&mut self, name: &str) -> io::Result<usize> {
        let file = self.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        self.unsynced_names.push(NameChange::Gone(name.to_owned()));
        Ok(file)
    }
}

impl Files for Disk {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let mut state = self.0.borrow_mut();
        let times = state.faults.names;
        state.fails(times, io::ErrorKind::StorageFull)?;
        let place = state.files.len();
        state.files.push(Content::default());
        state.set_name(name, place);
        Ok(File(place))
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let state = self.0.borrow();
        let file = state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(File(*file))
    }

    fn len(&self, file: &File) -> io::Result<u64> {
        Ok(self.0.borrow().files[file.0].bytes.len() as u64)
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let times = state.faults.read;
        state.fails(times, io::ErrorKind::Other)?;
        let content = &state.files[file.0].bytes;
        let start = usize::try_from(offset).unwrap().min(content.len());
        let count = bytes.len().min(content.len() - start);
        bytes[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.borrow_mut();
        let Faults { write, short, .. } = state.faults;
        state.fails(write, io::ErrorKind::Other)?;
        let used: usize = state
            .names
            .values()
            .map(|&file| state.files[file].bytes.len())
            .sum();
        let start = usize::try_from(offset).unwrap();
        let grows = (start + bytes.len()).saturating_sub(state.files[file.0].bytes.len());
        if grows > 0 && used + grows > state.capacity {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_short = short < u64::MAX && state.random.once_in(short);
        let count = if is_short {
            bytes.len().div_ceil(2)
        } else {
            bytes.len()
        };
        let content = &mut state.files[file.0];
        if content.bytes.len() < start + count {
            content.bytes.resize(start + count, 0);
        }
        content.bytes[start..start + count].copy_from_slice(&bytes[..count]);
        content
            .unsynced
            .extend(start / SECTOR..(start + count).div_ceil(SECTOR));
        Ok(count)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let times = state.faults.sync;
        let failed = state.fails(times, io::ErrorKind::Other);
        let State { files, random, .. } = &mut *state;
        let content = &mut files[file.0];
        content.unsynced.sort_unstable();
        content.unsynced.dedup();
        if failed.is_err() {
            // The kernel forgets what it could not write, and the next sync says that all is well.
            lose(content, random);
            return failed;
        }
        if content.durable.len() < content.bytes.len() {
            content.durable.resize(content.bytes.len(), 0);
        }
        for sector in content.unsynced.drain(..) {
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.bytes.len()));
            content.durable[start..end].copy_from_slice(&content.bytes[start..end]);
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let times = state.faults.names;
        state.fails(times, io::ErrorKind::Other)?;
        let file = state.remove_name(from)?;
        state.set_name(to, file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.borrow_mut().remove_name(name).map(|_| ())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.borrow_mut();
        let State {
            durable_names,
            unsynced_names,
            ..
        } = &mut *state;
        for change in unsynced_names.drain(..) {
            apply(durable_names, change);
        }
        Ok(())
    }

    fn sync_everything(&self) -> io::Result<()> {
        let count = self.0.borrow().files.len();
        for file in 0..count {
            self.sync(&File(file))?;
        }
        self.sync_names()
    }
}
