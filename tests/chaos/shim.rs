//! A library that the broker's process is started with: it makes a disk fail and a clock wrong, and no line of the
//! broker is there for it. See `shim.c`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::support::{Environment, has};

pub struct Shim {
    library: PathBuf,
    _folder: tempfile::TempDir,
}

impl Shim {
    /// Compiles it; `None` without a C compiler, where the test is skipped.
    pub fn compile() -> Option<Self> {
        let is_there = Command::new("cc").arg("--version").output().is_ok();
        if !has("a C compiler, cc,", is_there) {
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        let library = folder.path().join("shim.so");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/chaos/shim.c"))
            .output()
            .expect("cc is there");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Some(Self {
            library,
            _folder: folder,
        })
    }

    /// The environment in which it does something.
    pub fn with(&self, name: &'static str, value: impl Into<OsString>) -> Environment {
        vec![("LD_PRELOAD", self.library.clone().into()), (name, value.into())]
    }
}
