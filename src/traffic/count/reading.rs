//! What a count detector says of a tick. Decides nothing.

use crate::traffic::count::channel::Channel;

/// What one tick said.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// How far towards an alarm. It is 1 or more only where an alarm begins.
    pub score: f32,
    /// An alarm that begins.
    pub onset: Option<Onset>,
    /// What became of the incident under way.
    pub change: Option<Change>,
}

/// How an alarm began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Onset {
    /// What it came from.
    pub channel: Channel,
    /// How unlikely that is, in powers of ten.
    pub score: f32,
    /// The score at which an alarm begins.
    pub threshold: f32,
    /// Messages a tick that were seen, on the mean since `since`.
    pub seen: f32,
    /// Between what they were expected: two deviations about the usual. For a missed spike, its size and its
    /// period in ticks.
    pub expected: (f32, f32),
    /// The first tick of it.
    pub since: u64,
    /// It comes on top of another incident.
    pub on_top: bool,
}

/// The end of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The usual is back.
    Over,
    /// The usual is back, and this happens so often that it will be taken for usual.
    OverAndHabitual,
    /// It lasted for so long that it is the usual now.
    Rebased,
    /// The flow had hardly spoken before: it has begun, and is learned anew.
    Begun,
}
