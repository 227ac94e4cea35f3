//! What people ask of a policy: what a change gives and takes, why something may be or not, whether expectations are met.
//!
//! Pure, and it decides nothing that the broker acts on: `policy` does. Every answer is exact, so that "nothing" is a
//! proof, or it is refused.

mod diff;
mod expect;
mod explain;
mod layout;
mod near;
mod reach;
mod replay;
mod schema;
mod suggest;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod travel;

pub use diff::{Change, Diff, Effect, Listeners, diff};
pub use expect::{Failure, Verdict, judge};
pub use explain::{Beside, Edit, EditVerb, Explanation, explain};
pub use layout::{NotToml, layout};
pub use near::NearMiss;
pub use reach::{Missing, Part, Reach, TooIntricate};
pub use replay::{Otherwise, RefusedParty, Replayed, Sent, replay};
pub use schema::schema;
pub use suggest::{Denied, Evidence, Suggestion, Suggestions, Wildcard, suggest};
