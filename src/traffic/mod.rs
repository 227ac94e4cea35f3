//! Traffic: the flows, how they are counted, and what is unusual about them.
//!
//! Pure: no socket, clock or file; the time is the number of a tick. The counters of a flow are written by the
//! connection that sends it and read by whoever asks; a detector is owned by whoever feeds it.

pub mod alarm;
pub mod budget;
pub mod count;
pub mod crowd;
pub mod desk;
pub mod flow;
pub mod metric;
pub mod pace;
pub mod rates;
