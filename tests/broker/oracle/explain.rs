//! When two servers have said the same, and what deliberate differences can make of bytes that no client sends.

use super::run::Outcome;
use super::trace::{Item, Message, Segment};

/// Whether two segments are the same, but for what is said right before both servers close.
pub fn is_same_but_for_last_words(ours: &Segment, theirs: &Segment) -> bool {
    if ours == theirs {
        return true;
    }
    if !(ours.is_closed
        && theirs.is_closed
        && ours.messages == theirs.messages
        && ours.refusals == theirs.refusals)
    {
        return false;
    }
    let said = |texts: &[&str], item: Option<&Item>| matches!(item, Some(Item::Err(text)) if texts.contains(&text.as_str()));
    let Some((last, before)) = ours.control.split_last() else {
        return false;
    };
    // A word before the end, where nats-server has none.
    let is_more = said(
        &["Unknown Protocol Operation", "Authorization Violation"],
        Some(last),
    ) && before == theirs.control;
    let is_other = said(&["Unknown Protocol Operation"], Some(last))
        && said(&["maximum control line exceeded"], theirs.control.last())
        && Some(before) == theirs.control.split_last().map(|(_, before)| before);
    is_more || is_other
}

/// Whether one of the deliberate differences can explain why bytes that were changed at random led to different
/// answers. What nats-server denies, we never let pass: that is never explained.
pub fn can_explain(said: &[u8], ours: &Outcome, theirs: &Outcome) -> bool {
    let ended = |outcome: &Outcome| outcome.heard.iter().flatten().any(|segment| segment.is_closed);
    if has_bare_return(said) || has_line_feed_for_space(said) {
        return true;
    }
    match (ended(ours), ended(theirs)) {
        (true, true) => true,
        (false, false) => is_stricter(ours, theirs),
        (true, false) => has_long_word(said),
        (false, true) => has_json(said),
    }
}

/// We deny more, and so less is delivered.
fn is_stricter(ours: &Outcome, theirs: &Outcome) -> bool {
    let denials = |outcome: &Outcome| -> Vec<String> {
        let control = outcome
            .heard
            .iter()
            .flatten()
            .flat_map(|segment| &segment.control);
        control
            .filter_map(|item| match item {
                // Where only we listen, nobody else is heard.
                Item::Err(text) if text.starts_with("Permissions Violation for Subscription to \"_") => None,
                Item::Err(text) if text.starts_with("Permissions Violation") => Some(text.clone()),
                _ => None,
            })
            .collect()
    };
    let messages = |outcome: &Outcome| -> Vec<Message> {
        let plain = outcome
            .heard
            .iter()
            .flatten()
            .flat_map(|segment| segment.messages.clone());
        let grouped = outcome
            .groups
            .values()
            .flatten()
            .map(|(message, _)| message.clone());
        plain.chain(grouped).collect()
    };
    let (ours_denied, theirs_denied) = (denials(ours), denials(theirs));
    is_part(&theirs_denied, &ours_denied) && is_part(&messages(ours), &messages(theirs))
}

fn is_part<T: PartialEq + Clone>(part: &[T], whole: &[T]) -> bool {
    let mut left = whole.to_vec();
    part.iter().all(|item| {
        let place = left.iter().position(|other| other == item);
        place.map(|place| left.remove(place)).is_some()
    })
}

/// A carriage return that ends no line.
fn has_bare_return(said: &[u8]) -> bool {
    said.split(|&byte| byte == b'\r')
        .skip(1)
        .any(|after| after.first() != Some(&b'\n'))
}

fn has_long_word(said: &[u8]) -> bool {
    said.split(u8::is_ascii_whitespace).any(|word| word.len() > 64)
}

fn has_json(said: &[u8]) -> bool {
    let text = said.to_ascii_uppercase();
    [b"INFO".as_slice(), b"CONNECT"]
        .iter()
        .any(|verb| text.windows(verb.len()).any(|part| part == *verb))
}

fn has_line_feed_for_space(said: &[u8]) -> bool {
    said.windows(2).any(|two| matches!(two, b" \n" | b"\t\n"))
}
