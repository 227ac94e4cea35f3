//! The live view of a running broker in a terminal, behind `exocom top`.
//!
//! A thread asks the broker again and again; this one draws what came last, and hears keys. Neither waits for the
//! other: a broker that does not answer is told on the screen, and asked again. Nothing here knows how it is reached.

mod view;

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use time::OffsetDateTime;

use crate::console::figures::Wanted;
use crate::console::status::Status;
use crate::net::clock::Clock;

use self::view::{Heard, View, draw};

/// How long a key may wait at the most, in milliseconds.
const KEY_MS_MAX: u64 = 50;

/// Shows what `ask` hears of the broker at each interval, until somebody has seen enough. The terminal is restored
/// whatever happens, also in a panic.
pub fn show(
    ask: impl Fn(&Wanted) -> Result<Status, String> + Send + 'static,
    interval: Duration,
    wanted: Wanted,
    has_colours: bool,
) -> io::Result<()> {
    let mut view = View::new(wanted, has_colours);
    let mut terminal = ratatui::try_init()?;
    let asker = Asker::start(ask, interval, view.wanted.clone());
    let watched = watch(&mut terminal, &asker, &mut view);
    ratatui::try_restore()?;
    watched
}

/// Draws and hears keys until somebody has seen enough.
fn watch(terminal: &mut DefaultTerminal, asker: &Asker, view: &mut View) -> io::Result<()> {
    let mut heard = Heard::default();
    let mut is_changed = true;
    loop {
        while let Ok(answer) = asker.answers.try_recv() {
            is_changed = true;
            heard.handle_answer(answer, &time_of_day());
        }
        if std::mem::take(&mut is_changed) {
            terminal.draw(|frame| draw(frame, &heard, view))?;
        }
        if !event::poll(Duration::from_millis(KEY_MS_MAX))? {
            continue;
        }
        is_changed = true;
        if let Event::Key(key) = event::read()? {
            let before = view.wanted.clone();
            if view.handle_key(key, &mut heard) {
                return Ok(());
            }
            if view.wanted != before {
                asker.ask(view.wanted.clone());
            }
        }
    }
}

/// The thread that asks.
struct Asker {
    wanted: mpsc::Sender<Wanted>,
    answers: mpsc::Receiver<Result<Box<Status>, String>>,
}

impl Asker {
    /// Starts it. It ends with the process: an answer may take long.
    fn start(
        ask: impl Fn(&Wanted) -> Result<Status, String> + Send + 'static,
        interval: Duration,
        first: Wanted,
    ) -> Self {
        let (wanted, changes) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            let mut wanted = first;
            loop {
                if answer.send(ask(&wanted).map(Box::new)).is_err() {
                    return;
                }
                match changes.recv_timeout(interval) {
                    Ok(changed) => wanted = changed,
                    Err(mpsc::RecvTimeoutError::Timeout) => {}
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
                // Of many the last counts.
                while let Ok(changed) = changes.try_recv() {
                    wanted = changed;
                }
            }
        });
        Self { wanted, answers }
    }

    /// Asks at once, for other rows.
    fn ask(&self, wanted: Wanted) {
        // A thread that has ended is heard of by its silence.
        drop(self.wanted.send(wanted));
    }
}

/// `14:03:20`, UTC.
fn time_of_day() -> String {
    let moment = OffsetDateTime::from_unix_timestamp(Clock::unix_s()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let time = moment.time();
    format!("{:02}:{:02}:{:02} UTC", time.hour(), time.minute(), time.second())
}
