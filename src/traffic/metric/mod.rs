//! Metrics: what is unusual of a continuous value, such as a response time, a size or a load.
//!
//! Pure. A value is looked at in several ways, each of which has a range in which it stayed so far; an alarm begins
//! where one leaves its range by more than is ordinary for it. Counts have a detector of their own.

mod detector;
mod hours;
mod patience;
mod range;
mod sample;
mod views;

pub use detector::MetricDetector;
pub use patience::{Onset, Patience, Reading, Tuning};
pub use views::{Look, Looks, View, Views};
