//! What is held: services whose messages wait until somebody has looked at them, by order of an operator, or of an
//! alarm where the policy says so.
//!
//! Pure: who keeps the list on disk, and who is told, is for others. A hold is no denial: it gives nothing, and takes
//! nothing away for good.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::wire::name::{Pattern, matches_text};

/// One service that is held, or the part of its messages that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// The service.
    pub service: Arc<str>,
    /// Which of its messages; `None`: all of them.
    pub message: Option<Pattern>,
    /// Why.
    pub reason: String,
    /// By whose order.
    pub who: String,
    /// Since when, in seconds since 1970.
    pub at_unix_s: i64,
    /// The alarm that did it; `None` where a person did.
    pub alarm: Option<u64>,
}

impl Hold {
    /// Whether it is about a message name.
    pub fn covers(&self, name: &str) -> bool {
        let Some(pattern) = &self.message else { return true };
        matches_text(pattern.as_str(), name)
    }

    /// Whether it is the one of a service and a pattern.
    fn is_of(&self, service: &str, message: Option<&Pattern>) -> bool {
        *self.service == *service && self.message.as_ref() == message
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&what(&self.service, self.message.as_ref()))
    }
}

/// A service and a part of its messages, in words.
pub fn what(service: &str, message: Option<&Pattern>) -> String {
    message.map_or_else(
        || service.to_owned(),
        |pattern| format!("{service}, {}", pattern.as_str()),
    )
}

/// All that is held: an immutable list, to be shared in an [`Arc`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quarantine(BTreeMap<Arc<str>, Vec<Hold>>);

impl Quarantine {
    /// A list of these.
    pub fn new(holds: impl IntoIterator<Item = Hold>) -> Self {
        let mut all = Self::default();
        for hold in holds {
            all.0.entry(Arc::clone(&hold.service)).or_default().push(hold);
        }
        all
    }

    /// All of them, by service.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.0.values().flatten()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The hold of a service and a part of its messages, or of all of them.
    pub fn get(&self, service: &str, message: Option<&Pattern>) -> Option<&Hold> {
        self.0
            .get(service)?
            .iter()
            .find(|hold| hold.is_of(service, message))
    }

    /// Whether messages of this name wait that the service sends, or would receive.
    pub fn is_held(&self, service: &str, name: &str) -> bool {
        self.0
            .get(service)
            .is_some_and(|holds| holds.iter().any(|hold| hold.covers(name)))
    }

    /// The list with one more, in place of the one of the same service and messages.
    pub fn with(&self, hold: Hold) -> Self {
        let kept = self.without(&hold.service, hold.message.as_ref());
        Self::new(kept.0.into_values().flatten().chain([hold]))
    }

    /// The list without one.
    pub fn without(&self, service: &str, message: Option<&Pattern>) -> Self {
        Self::new(self.holds().filter(|hold| !hold.is_of(service, message)).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(service: &str, message: Option<&str>) -> Hold {
        Hold {
            service: service.into(),
            message: message.map(|pattern| Pattern::new(pattern).unwrap()),
            reason: "test".to_owned(),
            who: "alice".to_owned(),
            at_unix_s: 1,
            alarm: None,
        }
    }

    #[test]
    fn a_service_or_a_part_of_its_messages_is_held() {
        let list = Quarantine::new([hold("web", Some("todos.*")), hold("mail", None)]);
        let check = |service: &str, name: &str, expected: bool| {
            assert_eq!(list.is_held(service, name), expected, "{service} {name}");
        };
        check("web", "todos.list", true);
        check("web", "todos.list.all", false);
        check("web", "orders", false);
        check("mail", "orders", true);
        check("todos", "todos.list", false);
        let read: Hold =
            serde_json::from_str(&serde_json::to_string(&hold("web", Some("a.>"))).unwrap()).unwrap();
        assert_eq!(read, hold("web", Some("a.>")));
    }

    #[test]
    fn a_hold_is_told_in_words() {
        assert_eq!(hold("mail", None).to_string(), "mail");
        assert_eq!(hold("web", Some("todos.*")).to_string(), "web, todos.*");
    }

    #[test]
    fn each_is_put_on_the_list_and_taken_off_by_itself() {
        let list = Quarantine::default()
            .with(hold("web", Some("a")))
            .with(hold("web", None))
            .with(hold("web", Some("a")));
        assert_eq!((list.len(), list.is_empty()), (2, false));
        let a = Pattern::new("a").unwrap();
        let check = |service: &str, message: Option<&Pattern>, is_there: bool| {
            assert_eq!(
                list.get(service, message).is_some(),
                is_there,
                "{service} {message:?}"
            );
        };
        check("web", Some(&a), true);
        check("web", None, true);
        check("web", Some(&Pattern::new("b").unwrap()), false);
        check("mail", None, false);
        let list = list.without("mail", None).without("web", None);
        assert_eq!(
            (list.is_held("web", "a"), list.is_held("web", "b")),
            (true, false)
        );
        assert!(list.without("web", Some(&a)).is_empty());
    }
}
