//! What all answers to operators' orders have in common: they are JSON for programs, text for people, and an outcome
//! for the log.

use serde::Serialize;

/// The answer to an order.
pub trait Answer: Serialize {
    /// What was done, or why not, for the log.
    fn outcome(&self) -> Result<String, String>;

    /// Writes it for people.
    fn write_text(&self, out: &mut String) -> std::fmt::Result;

    /// It as text for people.
    fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("a String takes all text");
        text
    }

    /// It was not done.
    fn is_refused(&self) -> bool {
        self.outcome().is_err()
    }
}
