//! Traffic: the flows, how they are counted, and (in time) what is unusual about them.
//!
//! Pure: no socket, clock or file. The counters of a flow are written by the connection that sends it and read
//! by whoever asks.

pub mod budget;
pub mod flow;
