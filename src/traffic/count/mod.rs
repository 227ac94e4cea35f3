//! Counts: whether the messages of a flow are as many as usual.
//!
//! A [`CountDetector`] is fed one count a tick and knows nothing else: not whose flow it is, nor what time it is
//! but by the tick's number. It never looks ahead. `docs/alarms.md` explains the whole.

mod channel;
mod detector;
mod incident;
mod level;
mod measure;
mod pause;
mod reading;
mod run;
mod season;
mod span;
mod tail;
mod timer;

pub use channel::{Channel, Sensitivity};
pub use detector::CountDetector;
pub use reading::{Change, Onset, Reading};
