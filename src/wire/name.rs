//! Message names and patterns: dotted tokens, and the wildcards `*` (one token) and `>` (one or more, last).
//!
//! A [`MessageName`] or [`Pattern`] is valid once built; nothing downstream checks again. Inclusion of a
//! pattern in a *set* of patterns lives here too, since subscriptions are decided by it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::NAME_BYTES_MAX;

/// What is wrong with a name or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a name cannot be empty")]
    Empty,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// `a..b`, `.a` or `a.`.
    #[error("a token between dots cannot be empty")]
    EmptyToken,
    /// A byte that is not in `[A-Za-z0-9_-]`.
    #[error("{:?} is not allowed in a name; a token is made of A-Z, a-z, 0-9, '_' and '-'", char::from(*.0))]
    BadByte(u8),
    /// `$…` or `_…`.
    #[error("names that begin with '$' or '_' are reserved")]
    Reserved,
    /// `a*`, `>` before the end, or a wildcard where a name is wanted.
    #[error("'*' stands for a whole token and '>' for the last ones; neither may stand here")]
    BadWildcard,
}

/// A concrete message name, such as `todos.list`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageName(Box<str>);

impl MessageName {
    /// Checks and takes a name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::parse(name.as_bytes())
    }

    /// Checks and takes a name as it came over the wire.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let text = checked(bytes, Wildcards::Refused)?;
        Ok(Self(text.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, first to last.
    pub fn tokens(&self) -> impl Iterator<Item = &str> {
        self.0.split('.')
    }
}

impl fmt::Display for MessageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One token of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Token<'a> {
    /// Stands for itself.
    Literal(&'a str),
    /// `*`: any one token.
    One,
    /// `>`: one token or more, always last.
    Rest,
}

/// A name in which `*` stands for one token and a final `>` for one or more. A plain name is a pattern too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Checks and takes a pattern.
    pub fn new(pattern: &str) -> Result<Self, NameError> {
        Self::parse(pattern.as_bytes())
    }

    /// Checks and takes a pattern as it came over the wire.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let text = checked(bytes, Wildcards::Allowed)?;
        Ok(Self(text.into()))
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its tokens, first to last.
    pub fn tokens(&self) -> impl Iterator<Item = Token<'_>> {
        tokens(&self.0)
    }

    /// Whether it has no wildcard, and so stands for one name alone.
    pub fn is_literal(&self) -> bool {
        !self.tokens().any(|token| !matches!(token, Token::Literal(_)))
    }

    /// Whether the pattern stands for this name.
    pub fn matches(&self, name: &MessageName) -> bool {
        matches_text(&self.0, name.as_str())
    }

    /// Whether at least one name is matched by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.tokens(), other.tokens());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some(Token::Rest), Some(_)) | (Some(_), Some(Token::Rest)) => return true,
                (Some(Token::Literal(a)), Some(Token::Literal(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
                _ => return false,
            }
        }
    }

    /// The pattern of exactly the names that both match; `None` where there is none.
    pub fn common(&self, other: &Self) -> Option<Self> {
        if !self.overlaps(other) {
            return None;
        }
        let (mut left, mut right) = (self.tokens().peekable(), other.tokens().peekable());
        let mut tokens = Vec::new();
        let mut push = |token| {
            tokens.push(match token {
                Token::Literal(literal) => literal,
                Token::One => "*",
                Token::Rest => ">",
            });
        };
        loop {
            match (left.peek().copied(), right.peek().copied()) {
                (Some(Token::Rest), _) => {
                    right.for_each(&mut push);
                    break;
                }
                (_, Some(Token::Rest)) => {
                    left.for_each(&mut push);
                    break;
                }
                (Some(Token::One), Some(token)) | (Some(token), _) => push(token),
                (None, _) => break,
            }
            left.next();
            right.next();
        }
        // Too long for a pattern is too long for a name: no token of a name is shorter than the pattern's.
        Self::new(&tokens.join(".")).ok()
    }

    /// How specific it is, among patterns that match one name: smaller is more specific. Token by token from the
    /// left, a literal comes before `*`, and `*` before `>`.
    pub fn specificity(&self) -> Vec<u8> {
        let rank = |token| match token {
            Token::Literal(_) => 0,
            Token::One => 1,
            Token::Rest => 2,
        };
        self.tokens().map(rank).collect()
    }

    /// Whether every name that this pattern matches is matched by at least one of `set`.
    ///
    /// Exact for names of any length. Since a wildcard stands for any token, and there are more tokens than a
    /// set of patterns can list, it is enough to follow a token that no pattern spells out: whatever accepts
    /// that one accepts every other.
    pub fn is_included_in<'a>(&self, set: impl IntoIterator<Item = &'a Self>) -> bool {
        let mut live: Vec<_> = set
            .into_iter()
            .map(Self::tokens)
            .map(Iterator::peekable)
            .collect();
        let mut ours = self.tokens().peekable();
        loop {
            let Some(token) = ours.peek().copied() else {
                return live.iter_mut().any(|pattern| pattern.peek().is_none());
            };
            if live
                .iter_mut()
                .any(|pattern| pattern.peek() == Some(&Token::Rest))
            {
                return true;
            }
            live.retain_mut(|pattern| match (pattern.next(), token) {
                (Some(Token::One), _) => true,
                (Some(Token::Literal(theirs)), Token::Literal(mine)) => theirs == mine,
                _ => false,
            });
            if live.is_empty() {
                return false;
            }
            match token {
                // After one token of the rest, the name may end here, and it may go on.
                Token::Rest => {
                    if !live.iter_mut().any(|pattern| pattern.peek().is_none()) {
                        return false;
                    }
                }
                Token::Literal(_) | Token::One => {
                    ours.next();
                }
            }
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for MessageName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl From<MessageName> for Pattern {
    fn from(name: MessageName) -> Self {
        Self(name.0)
    }
}

/// The tokens of a pattern that is known to be valid.
pub fn tokens(pattern: &str) -> impl Iterator<Item = Token<'_>> {
    pattern.split('.').map(|token| match token {
        "*" => Token::One,
        ">" => Token::Rest,
        literal => Token::Literal(literal),
    })
}

/// Whether a pattern stands for a name, both in text that has been checked by its owner.
pub fn matches_text(pattern: &str, name: &str) -> bool {
    let mut names = name.split('.');
    for token in tokens(pattern) {
        match (token, names.next()) {
            (Token::Rest, Some(_)) => return true,
            (Token::One, Some(_)) => {}
            (Token::Literal(ours), Some(theirs)) if ours == theirs => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[derive(Clone, Copy, PartialEq)]
enum Wildcards {
    Allowed,
    Refused,
}

fn checked(bytes: &[u8], wildcards: Wildcards) -> Result<&str, NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(bytes.len()));
    }
    if matches!(bytes.first(), Some(b'$' | b'_')) {
        return Err(NameError::Reserved);
    }
    let mut tokens = bytes.split(|&byte| byte == b'.').peekable();
    while let Some(token) = tokens.next() {
        match token {
            [] => return Err(NameError::EmptyToken),
            [b'*'] if wildcards == Wildcards::Allowed => {}
            [b'>'] if wildcards == Wildcards::Allowed && tokens.peek().is_none() => {}
            _ => {
                for &byte in token {
                    match byte {
                        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => {}
                        b'*' | b'>' => return Err(NameError::BadWildcard),
                        _ => return Err(NameError::BadByte(byte)),
                    }
                }
            }
        }
    }
    Ok(std::str::from_utf8(bytes).expect("only ASCII passed the check"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_checked() {
        let check = |text: &str, expected: Result<(), NameError>| {
            assert_eq!(MessageName::new(text).map(drop), expected, "{text:?}");
        };
        check("todos.list", Ok(()));
        check("a", Ok(()));
        check("A-b_c.0", Ok(()));
        check("", Err(NameError::Empty));
        check(".", Err(NameError::EmptyToken));
        check("a.", Err(NameError::EmptyToken));
        check(".a", Err(NameError::EmptyToken));
        check("a..b", Err(NameError::EmptyToken));
        check("a b", Err(NameError::BadByte(b' ')));
        check("a\u{e9}", Err(NameError::BadByte(0xc3)));
        check("$SYS.x", Err(NameError::Reserved));
        check("_INBOX.x", Err(NameError::Reserved));
        check("a.*", Err(NameError::BadWildcard));
        check("a.>", Err(NameError::BadWildcard));
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(NameError::TooLong(256)));
    }

    #[test]
    fn patterns_are_checked() {
        let check = |text: &str, expected: Result<(), NameError>| {
            assert_eq!(Pattern::new(text).map(drop), expected, "{text:?}");
        };
        check("*", Ok(()));
        check(">", Ok(()));
        check("a.*.b.>", Ok(()));
        check("a.>.b", Err(NameError::BadWildcard));
        check("a*", Err(NameError::BadWildcard));
        check("_INBOX.>", Err(NameError::Reserved));
    }

    #[test]
    fn inclusion_in_a_set() {
        let check = |pattern: &str, set: &[&str], expected: bool| {
            let set: Vec<_> = set.iter().map(|text| Pattern::new(text).unwrap()).collect();
            assert_eq!(
                Pattern::new(pattern).unwrap().is_included_in(&set),
                expected,
                "{pattern} in {set:?}"
            );
        };
        check("a", &["a"], true);
        check("a", &[], false);
        check("a.*", &["a.b"], false);
        check("a.b", &["a.*"], true);
        check("a.>", &["a.*"], false);
        check("a.>", &["a.*", "a.*.>"], true);
        check("a.>", &["a.*", "a.*.*", "a.*.*.>"], true);
        check("a.>", &["a.*", "a.*.*.>"], false);
        check(">", &["*", "*.>"], true);
        check(">", &[">"], true);
        check("*", &[">"], true);
        check("*.b", &["a.b", "*.*"], true);
        check("*.b", &["a.b", "c.b"], false);
    }

    #[test]
    fn what_two_patterns_have_in_common() {
        let check = |a: &str, b: &str, expected: Option<&str>| {
            let (a, b) = (Pattern::new(a).unwrap(), Pattern::new(b).unwrap());
            let expected = expected.map(|text| Pattern::new(text).unwrap());
            assert_eq!(a.common(&b), expected, "{a} and {b}");
            assert_eq!(b.common(&a), expected, "{b} and {a}");
        };
        check("a.b", "a.*", Some("a.b"));
        check("a.b", "a.c", None);
        check("a.*", "*.b", Some("a.b"));
        check("a.>", "*.b.*", Some("a.b.*"));
        check("a.>", "*.*.>", Some("a.*.>"));
        check("a", "a.>", None);
        // One token and ten more make a name of 261 bytes.
        check(
            &format!("*.{}", "b".repeat(250)),
            &format!("{}.*", "a".repeat(10)),
            None,
        );
    }

    fn any_pattern() -> impl Strategy<Value = Pattern> {
        (
            prop::collection::vec(prop::sample::select(vec!["a", "b", "*"]), 1..4),
            any::<bool>(),
        )
            .prop_map(|(mut tokens, rest)| {
                if rest {
                    *tokens.last_mut().unwrap() = ">";
                }
                Pattern::new(&tokens.join(".")).unwrap()
            })
    }

    /// Every name over three tokens, one of which no pattern spells out, up to five tokens long.
    fn all_names() -> Vec<MessageName> {
        let mut names = vec![String::new()];
        let mut all = Vec::new();
        for _ in 0..5 {
            names = names
                .iter()
                .flat_map(|name| {
                    ["a", "b", "z"].map(|token| {
                        if name.is_empty() {
                            token.to_owned()
                        } else {
                            format!("{name}.{token}")
                        }
                    })
                })
                .collect();
            all.extend(names.iter().map(|name| MessageName::new(name).unwrap()));
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn inclusion_agrees_with_enumeration(
            pattern in any_pattern(),
            set in prop::collection::vec(any_pattern(), 0..5),
        ) {
            let brute = all_names()
                .iter()
                .filter(|name| pattern.matches(name))
                .all(|name| set.iter().any(|other| other.matches(name)));
            prop_assert_eq!(pattern.is_included_in(&set), brute);
        }

        #[test]
        fn overlap_agrees_with_enumeration(a in any_pattern(), b in any_pattern()) {
            let brute = all_names().iter().any(|name| a.matches(name) && b.matches(name));
            prop_assert_eq!(a.overlaps(&b), brute);
            prop_assert_eq!(b.overlaps(&a), brute);
        }
    }
}
