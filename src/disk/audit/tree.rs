//! The seam's folder with folders in it, as the layout of an audit log has them: a name may have slashes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::files::{Files, Folder};

/// See the module's documentation. Locked like the folder that it is made of.
#[derive(Debug, Clone)]
pub struct Tree {
    folder: Folder,
    /// Folders in which a name was made or removed since the last sync.
    touched: Arc<Mutex<BTreeSet<String>>>,
}

impl Tree {
    /// Opens a folder, which is made where it is missing, for this process alone.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            folder: Folder::open(path)?,
            touched: Arc::default(),
        })
    }

    /// Makes the folders above a name, and notes which of them have to be synced.
    fn make_folders(&self, name: &str) -> io::Result<()> {
        let Some((parent, _)) = name.rsplit_once('/') else {
            return Ok(());
        };
        let path = self.folder.file(parent);
        if !path.is_dir() {
            fs::create_dir_all(path)?;
            let above = parent.match_indices('/').filter_map(|(at, _)| parent.get(..at));
            self.touched.lock().extend(above.map(str::to_owned));
        }
        self.touch(name);
        Ok(())
    }

    fn touch(&self, name: &str) {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.touched.lock().insert(parent.to_owned());
        }
    }
}

impl Files for Tree {
    type File = fs::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(self.folder.file(&folder))? {
                let entry = entry?;
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                if entry.file_type()?.is_dir() {
                    folders.push(format!("{name}/"));
                } else {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<fs::File> {
        self.make_folders(name)?;
        self.folder.create(name)
    }

    fn open(&self, name: &str) -> io::Result<fs::File> {
        self.folder.open(name)
    }

    fn len(&self, file: &fs::File) -> io::Result<u64> {
        self.folder.len(file)
    }

    fn read_at(&self, file: &fs::File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.folder.read_at(file, bytes, offset)
    }

    fn write_at(&self, file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.folder.write_at(file, bytes, offset)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        self.folder.sync(file)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.touch(from);
        self.touch(to);
        self.folder.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.folder.remove(name)?;
        // The folder of partial tiles is empty when the last of them goes.
        if let Some((parent, _)) = name.rsplit_once('/').filter(|(parent, _)| parent.ends_with(".p"))
            && fs::remove_dir(self.folder.file(parent)).is_ok()
        {
            self.touched.lock().remove(parent);
            self.touch(parent);
        } else {
            self.touch(name);
        }
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let touched = std::mem::take(&mut *self.touched.lock());
        for folder in &touched {
            match fs::File::open(self.folder.file(folder)) {
                Ok(folder) => folder.sync_all()?,
                // It was removed meanwhile, which its parent's sync says.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.folder.sync_names()
    }

    fn sync_everything(&self) -> io::Result<()> {
        self.touched.lock().clear();
        self.folder.sync_everything()
    }
}
