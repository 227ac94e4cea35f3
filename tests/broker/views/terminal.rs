//! A program in a pseudo-terminal: what its screen shows, what is typed, and whether it leaves the terminal as it was.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::support::wait_for;

const ROWS: u16 = 24;
const COLUMNS: u16 = 130;

/// The terminal, with the program in it.
pub struct Terminal {
    child: Child,
    keyboard: File,
    /// The program's end, kept open so that it can be asked what the program left.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a program in a terminal of its own.
    pub fn start(program: &str, arguments: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("the system has pseudo-terminals");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let size = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&master, size).expect("it takes a size");
        let path = ptsname(&master, Vec::new()).expect("it has a name");
        let path = path.to_str().expect("a path in ASCII");
        let line = File::options()
            .read(true)
            .write(true)
            .open(path)
            .expect("it is ours");
        let end = || Stdio::from(OwnedFd::from(line.try_clone().expect("a file can be shared")));
        // Its own session: the terminal of whoever runs the tests stays theirs.
        let child = Command::new("setsid")
            .args(["--ctty", program])
            .args(arguments)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("setsid is there");
        let keyboard = File::from(master);
        let [rows, columns] = [ROWS, COLUMNS].map(|cells| cells.try_into().expect("there are some"));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let (mut output, shown) = (
            keyboard.try_clone().expect("a file can be shared"),
            Arc::clone(&screen),
        );
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                shown.lock().process(&bytes[..length]);
            }
        });
        Self {
            child,
            keyboard,
            line,
            screen,
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// What it shows.
    pub fn text(&self) -> String {
        self.screen.lock().screen().contents()
    }

    /// Waits until it shows something.
    pub fn wait_until(&self, what: &str, is_shown: impl Fn(&str) -> bool) {
        let mut text = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, || {
                text = self.text();
                is_shown(&text)
            });
        }));
        assert!(shown.is_ok(), "not shown: {what}; but:\n{}", self.text());
    }

    /// Whether the screen is the program's own, and keys come one by one.
    pub fn is_taken(&self) -> bool {
        let modes = tcgetattr(&self.line).expect("it is a terminal").local_modes;
        let is_raw = !modes.intersects(LocalModes::ICANON | LocalModes::ECHO);
        is_raw && self.screen.lock().screen().alternate_screen()
    }

    /// Waits for the program's end, after which the terminal is as it was. Its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        wait_for("the program's end", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        wait_for("the screen as it was", || {
            let modes = tcgetattr(&self.line).expect("it is a terminal").local_modes;
            let is_usual = modes.contains(LocalModes::ICANON | LocalModes::ECHO);
            is_usual && !self.screen.lock().screen().alternate_screen()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
