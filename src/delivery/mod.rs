//! Tracked messages: who still has to get each, which attempt is under way, when to try again, when to give up.
//!
//! Pure: no file, socket, clock or randomness. Time comes in as milliseconds, live instances as a question that
//! the caller answers, and what must survive a crash goes out as [`Change`]s for the caller to write down
//! before it acts on anything else. `docs/delivery.md` says in prose what is promised.

mod deliveries;
mod held;
mod ids;
mod lane;
mod message;
mod operator;
mod ports;
mod recovery;
#[cfg(test)]
mod tests;

pub use deliveries::Deliveries;
pub use held::{HeldAmount, HeldMessage};
pub use message::{
    Cause, Change, DeadLetter, DeliveryTerms, InstanceId, Kept, KeptReceiver, ReceiverNo, Seq,
};
pub use ports::{Admitted, Bounds, Full, GivenUp, NewMessage, Outgoing, QueueDepth};
