//! The names that a service may send, or receive, as a set: what of it lies beyond another such set.
//!
//! Exact for all names of at most [`NAME_BYTES_MAX`] bytes. A set is patterns without other patterns; a difference
//! of two is a union of parts, each one pattern without some others. A part is walked token by token, all its patterns
//! in step. Where a wildcard takes any token, a token that none of the others spells out leaves no more of them alive
//! than any other token would; if it is also as short as a token can be, the walk needs no second branch, and costs the
//! product of the patterns' lengths. It branches only where every token of one byte is spelled out at one place: then
//! up to [`REVIEW_STEPS_MAX`] steps, after which the answer is that there is none.

use std::collections::BTreeSet;

use crate::limits::{NAME_BYTES_MAX, REVIEW_STEPS_MAX};
use crate::policy::{Action, Grant, Rule, Service};
use crate::wire::name::{MessageName, Pattern, Token};

/// The names that a service may send, or receive: what is granted, without what is taken away.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'p> {
    granted: &'p [Grant],
    taken: &'p [Grant],
}

/// Some names of a difference: those of a pattern, or some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'p> {
    /// The pattern; no name of this part is outside it.
    pub pattern: Pattern,
    /// Whether all names of the pattern are in this part.
    pub whole: bool,
    /// A shortest name of the part.
    pub example: MessageName,
    /// The line that grants them.
    pub rule: &'p Rule,
}

/// Sets that differ too little for what this can search through.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot say within {REVIEW_STEPS_MAX} steps whether \"{0}\" adds a name of at most {NAME_BYTES_MAX} bytes; grant \
     shorter patterns, or fewer tokens of one letter"
)]
pub struct TooIntricate(Pattern);

impl<'p> Reach<'p> {
    /// Of a service; of one that is not listed, nothing.
    pub fn of(service: Option<&'p Service>, action: Action) -> Self {
        match (service, action) {
            (None, _) => Self::new(&[], &[]),
            (Some(service), Action::Send) => Self::new(service.sends(), &[]),
            (Some(service), Action::Receive) => Self::new(service.receives(), service.receives_except()),
        }
    }

    pub(super) fn new(granted: &'p [Grant], taken: &'p [Grant]) -> Self {
        Self { granted, taken }
    }

    /// The names of this set that are not in the other, in the order of their patterns: each is in a part. Empty
    /// exactly if there is none.
    pub fn beyond(&self, other: &Self) -> Result<Vec<Part<'p>>, TooIntricate> {
        if patterns(self.granted).eq(patterns(other.granted))
            && patterns(self.taken).eq(patterns(other.taken))
        {
            return Ok(Vec::new());
        }
        // Either the other set does not grant the name ...
        let not_granted: Vec<_> = patterns(self.taken).chain(patterns(other.granted)).collect();
        let known: BTreeSet<_> = patterns(other.granted).collect();
        let new = self
            .granted
            .iter()
            .filter(|grant| !known.contains(&grant.pattern))
            .map(|grant| (grant.pattern.clone(), &grant.rule));
        let mut parts = parts(new, &not_granted)?;
        // ... or it grants the name and takes it away.
        let taken: Vec<_> = patterns(self.taken).collect();
        let regained = self.granted.iter().flat_map(|grant| {
            let excepted = patterns(other.taken).filter_map(|except| grant.pattern.common(except));
            let granted = excepted.flat_map(|excepted| {
                let common = patterns(other.granted).filter_map(move |theirs| excepted.common(theirs));
                common.collect::<Vec<_>>()
            });
            granted.map(|pattern| (pattern, &grant.rule))
        });
        parts.extend(self::parts(regained, &taken)?);
        parts.sort_by(|a, b| a.pattern.cmp(&b.pattern));
        Ok(parts)
    }

    /// A name of the pattern that is not in this set, unless all are.
    pub fn missing(&self, pattern: &Pattern) -> Result<Option<Missing<'p>>, TooIntricate> {
        for except in self.taken {
            if let Some(common) = except.pattern.common(pattern)
                && let Some(example) = shortest(&common, &[])?
            {
                return Ok(Some(Missing {
                    example,
                    except: Some(except),
                }));
            }
        }
        let granted: Vec<_> = patterns(self.granted).collect();
        let example = shortest(pattern, &granted)?;
        Ok(example.map(|example| Missing {
            example,
            except: None,
        }))
    }

    /// The names of a pattern that are in this set; see [`Self::beyond`].
    pub fn within(&self, pattern: &Pattern) -> Result<Vec<Part<'p>>, TooIntricate> {
        let common = self
            .granted
            .iter()
            .filter_map(|grant| Some((grant.pattern.common(pattern)?, &grant.rule)));
        parts(common, &patterns(self.taken).collect::<Vec<_>>())
    }
}

/// A name of a pattern that is not in a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing<'p> {
    /// A shortest such name, of those that are missing for the same reason.
    pub example: MessageName,
    /// What takes it away; none if nothing grants it.
    pub except: Option<&'p Grant>,
}

fn patterns(grants: &[Grant]) -> impl Iterator<Item = &Pattern> + Clone {
    grants.iter().map(|grant| &grant.pattern)
}

/// What is left of each pattern without the others; a pattern inside another one is not told again.
fn parts<'p>(
    of: impl Iterator<Item = (Pattern, &'p Rule)>,
    without: &[&Pattern],
) -> Result<Vec<Part<'p>>, TooIntricate> {
    let mut parts: Vec<Part<'p>> = Vec::new();
    for (pattern, rule) in of {
        if parts.iter().any(|part| pattern.is_included_in([&part.pattern])) {
            continue;
        }
        if let Some(example) = shortest(&pattern, without)? {
            parts.retain(|part| !part.pattern.is_included_in([&pattern]));
            parts.push(Part {
                whole: !without.iter().any(|other| other.overlaps(&pattern)),
                pattern,
                example,
                rule,
            });
        }
    }
    parts.sort_by(|a, b| a.pattern.cmp(&b.pattern));
    Ok(parts)
}

/// A shortest name that the pattern matches and none of the others does.
pub(super) fn shortest(pattern: &Pattern, without: &[&Pattern]) -> Result<Option<MessageName>, TooIntricate> {
    let ours: Vec<_> = pattern.tokens().collect();
    let theirs: Vec<Vec<_>> = without
        .iter()
        .filter(|other| other.overlaps(pattern))
        .map(|other| other.tokens().collect())
        .collect();
    let live: Vec<&[Token<'_>]> = theirs.iter().map(Vec::as_slice).collect();
    let mut search = Search {
        name: String::new(),
        best: None,
        branches_left: REVIEW_STEPS_MAX,
        is_cut: false,
    };
    search.walk(&ours, &live);
    // What was cut off could only have held a shorter name, or the only one.
    match search.best {
        None if search.is_cut => Err(TooIntricate(pattern.clone())),
        best => Ok(best.map(|name| MessageName::new(&name).expect("it is made of tokens, and not too long"))),
    }
}

struct Search {
    /// The tokens so far.
    name: String,
    best: Option<String>,
    branches_left: usize,
    /// Whether a branch was left out.
    is_cut: bool,
}

impl Search {
    /// Goes on from here: our tokens that are left, and those of every other pattern that matches the name so far.
    fn walk(&mut self, ours: &[Token<'_>], live: &[&[Token<'_>]]) {
        let Some((token, rest)) = ours.split_first() else {
            if !live.iter().any(|theirs| theirs.is_empty()) {
                self.best = Some(self.name.clone());
            }
            return;
        };
        if live.iter().any(|theirs| theirs.first() == Some(&Token::Rest)) {
            return;
        }
        match token {
            Token::Literal(literal) => {
                self.step(literal, bytes_min(rest), live, |search, live| {
                    search.walk(rest, live)
                });
            }
            Token::One => self.branch(bytes_min(rest), live, |search, live| search.walk(rest, live)),
            Token::Rest => self.branch(0, live, |search, live| {
                search.walk(&[], live);
                search.walk(ours, live);
            }),
        }
    }

    /// Takes every token that a wildcard may have to take.
    fn branch(
        &mut self,
        bytes_after: usize,
        live: &[&[Token<'_>]],
        mut then: impl FnMut(&mut Self, &[&[Token<'_>]]),
    ) {
        let spelled: BTreeSet<&str> = live
            .iter()
            .filter_map(|theirs| match theirs.first() {
                Some(Token::Literal(literal)) => Some(*literal),
                _ => None,
            })
            .collect();
        let fresh = fresh_token(&spelled, self.name.is_empty());
        self.step(&fresh, bytes_after, live, &mut then);
        for token in spelled.iter().filter(|token| token.len() < fresh.len()) {
            if self.branches_left == 0 {
                self.is_cut = true;
                return;
            }
            self.branches_left -= 1;
            self.step(token, bytes_after, live, &mut then);
        }
    }

    /// Takes one token, unless the name, with what must come after it, would be too long, or no shorter than the best.
    fn step(
        &mut self,
        token: &str,
        bytes_after: usize,
        live: &[&[Token<'_>]],
        then: impl FnOnce(&mut Self, &[&[Token<'_>]]),
    ) {
        let before = self.name.len();
        if before > 0 {
            self.name.push('.');
        }
        self.name.push_str(token);
        let bytes_max = self
            .best
            .as_ref()
            .map_or(NAME_BYTES_MAX, |best| best.len().saturating_sub(1));
        if self.name.len() + bytes_after <= bytes_max {
            let live: Vec<_> = live
                .iter()
                .filter_map(|theirs| match theirs.split_first() {
                    Some((Token::One, rest)) => Some(rest),
                    Some((Token::Literal(literal), rest)) if *literal == token => Some(rest),
                    _ => None,
                })
                .collect();
            then(self, &live);
        }
        self.name.truncate(before);
    }
}

/// The fewest bytes that tokens take, each with the dot before it.
fn bytes_min(tokens: &[Token<'_>]) -> usize {
    let bytes = tokens.iter().map(|token| match token {
        Token::Literal(literal) => 1 + literal.len(),
        Token::One | Token::Rest => 2,
    });
    bytes.sum()
}

/// The shortest token that is not spelled out; no name begins with `_`.
fn fresh_token(spelled: &BTreeSet<&str>, is_first: bool) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut count: usize = 0;
    loop {
        let mut number = count;
        let mut token = String::new();
        loop {
            let letter = LETTERS.get(number % LETTERS.len()).copied();
            token.insert(0, letter.map_or('a', char::from));
            number /= LETTERS.len();
            if number == 0 {
                break;
            }
            number -= 1;
        }
        if !(spelled.contains(&*token) || is_first && token.starts_with('_')) {
            return token;
        }
        count += 1;
    }
}
