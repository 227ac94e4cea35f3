//! Telling somebody outside the broker: a file on another disk, or a server. A thread for each tries again until it is
//! heard.
//!
//! It never holds up those who have something to tell: so much may wait, and past that the oldest is given up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::config::{Config, WitnessConfig};
use crate::console::status::HearingStatus;
use crate::limits::{OUTSIDE_BACKOFF_MS, OUTSIDE_BACKOFF_MS_MAX, OUTSIDE_LAST_MAX};
use crate::net::https::Https;
use crate::serve::ServeError;

/// Why somebody has not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unheard {
    /// The same may be heard later.
    Retry(String),
    /// It would never be taken.
    Never(String),
}

/// The way to servers, if the configuration names one.
pub(super) fn https(config: &Config) -> Result<Option<Https>, ServeError> {
    let is_server = |witness: &WitnessConfig| matches!(witness, WitnessConfig::Https(_));
    let audit = config.audit.as_ref();
    let is_wanted =
        config.webhook.is_some() || audit.is_some_and(|audit| audit.witnesses.iter().any(is_server));
    if !is_wanted {
        return Ok(None);
    }
    let https = Https::new(config.https_roots.as_deref());
    https.map(Some).map_err(|error| ServeError::Outside {
        section: "https",
        error,
    })
}

/// Somebody outside who is told things.
#[derive(Debug)]
pub(super) struct Teller<T> {
    shared: Arc<Shared<T>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared<T> {
    /// What they are to the broker, in a log line.
    what: &'static str,
    name: String,
    /// How many may wait.
    max: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    lost: u64,
    error: Option<String>,
    is_closing: bool,
}

impl<T: Clone + Send + 'static> Teller<T> {
    /// Starts its thread. Where of many only the newest counts, `max` is 1.
    pub(super) fn start(
        what: &'static str,
        name: String,
        max: usize,
        mut tell: impl FnMut(&T) -> Result<(), Unheard> + Send + 'static,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            what,
            name,
            max,
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                lost: 0,
                error: None,
                is_closing: false,
            }),
            changed: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("exocom-outside".to_owned())
            .spawn(move || of_thread.run(&mut tell))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Has it told, as soon as what came before has been.
    pub(super) fn tell(&self, thing: T) {
        let mut state = self.shared.state.lock();
        if state.waiting.len() >= self.shared.max {
            state.waiting.pop_front();
            state.lost += 1;
        }
        state.waiting.push_back(thing);
        self.shared.changed.notify_one();
    }

    /// How it goes.
    pub(super) fn hearing(&self) -> HearingStatus {
        let state = self.shared.state.lock();
        HearingStatus {
            name: self.shared.name.clone(),
            error: state.error.clone(),
            waiting: state.waiting.len(),
            lost: state.lost,
        }
    }

    /// Tells what waits, without trying again, and ends.
    pub(super) fn close(&self) {
        self.shared.state.lock().is_closing = true;
        self.shared.changed.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(
                name = self.shared.name,
                "the thread of a {} has panicked",
                self.shared.what
            );
        }
    }
}

impl<T: Clone> Shared<T> {
    fn run(&self, tell: &mut dyn FnMut(&T) -> Result<(), Unheard>) {
        let mut pause_ms = OUTSIDE_BACKOFF_MS;
        let mut last = 0;
        while let Some(thing) = self.next() {
            let outcome = tell(&thing);
            let mut state = self.state.lock();
            last += usize::from(state.is_closing);
            self.log(&mut state, &outcome);
            match outcome {
                Ok(()) => pause_ms = OUTSIDE_BACKOFF_MS,
                Err(Unheard::Never(_)) => state.lost += 1,
                Err(Unheard::Retry(_)) => {
                    if state.waiting.len() < self.max {
                        state.waiting.push_front(thing);
                    } else {
                        state.lost += 1;
                    }
                    let pause = Duration::from_millis(pause_ms);
                    self.changed
                        .wait_while_for(&mut state, |state| !state.is_closing, pause);
                    pause_ms = (2 * pause_ms).min(OUTSIDE_BACKOFF_MS_MAX);
                }
            }
            let has_had_its_chance = state.error.is_some() || last >= OUTSIDE_LAST_MAX;
            if state.is_closing && last > 0 && has_had_its_chance {
                return;
            }
        }
    }

    /// The next thing to tell; `None` at the end.
    fn next(&self) -> Option<T> {
        let mut state = self.state.lock();
        let is_idle = |state: &mut State<T>| state.waiting.is_empty() && !state.is_closing;
        self.changed.wait_while(&mut state, is_idle);
        state.waiting.pop_front()
    }

    /// Logs it when somebody begins to hear nothing, and when they are back.
    fn log(&self, state: &mut State<T>, outcome: &Result<(), Unheard>) {
        let (what, name) = (self.what, &self.name);
        match outcome {
            Ok(()) => {
                if state.error.take().is_some() {
                    tracing::info!(name, "a {what} hears again");
                }
            }
            Err(Unheard::Retry(error)) => {
                if state.error.replace(error.clone()).is_none() {
                    tracing::error!(name, error, "a {what} hears nothing; it is tried again");
                }
            }
            Err(Unheard::Never(error)) => {
                tracing::error!(name, error, "a {what} does not take what it is told")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn teller(
        max: usize,
    ) -> (
        Teller<u32>,
        mpsc::Sender<Result<(), Unheard>>,
        mpsc::Receiver<u32>,
    ) {
        let (answer, answers) = mpsc::channel();
        let (heard, hearing) = mpsc::channel();
        let tell = move |thing: &u32| {
            heard.send(*thing).unwrap();
            answers.recv().unwrap()
        };
        (
            Teller::start("witness", "w".to_owned(), max, tell).unwrap(),
            answer,
            hearing,
        )
    }

    #[test]
    fn what_is_not_heard_is_told_again_and_the_oldest_are_given_up() {
        let (teller, answer, heard) = teller(2);
        teller.tell(1);
        assert_eq!(heard.recv().unwrap(), 1);
        // While that is under way.
        (2..6).for_each(|thing| teller.tell(thing));
        answer.send(Err(Unheard::Retry("away".to_owned()))).unwrap();
        assert_eq!(heard.recv().unwrap(), 4);
        let hearing = teller.hearing();
        assert_eq!(hearing.error.as_deref(), Some("away"));
        assert_eq!((hearing.waiting, hearing.lost), (1, 3));
        answer.send(Ok(())).unwrap();
        assert_eq!(heard.recv().unwrap(), 5);
        answer.send(Err(Unheard::Never("what?".to_owned()))).unwrap();
        teller.tell(6);
        assert_eq!(heard.recv().unwrap(), 6);
        answer.send(Ok(())).unwrap();
        teller.close();
        let hearing = teller.hearing();
        assert_eq!((hearing.error, hearing.waiting, hearing.lost), (None, 0, 4));
    }

    #[test]
    fn the_end_does_not_wait_for_somebody_who_hears_nothing() {
        let (teller, answer, heard) = teller(10);
        (1..5).for_each(|thing| teller.tell(thing));
        assert_eq!(heard.recv().unwrap(), 1);
        answer.send(Err(Unheard::Retry("away".to_owned()))).unwrap();
        // Else the end may come first, and this be the one chance that it leaves.
        while teller.hearing().error.is_none() {
            std::thread::yield_now();
        }
        answer.send(Err(Unheard::Retry("away".to_owned()))).unwrap();
        teller.close();
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), [1]);
    }
}
