//! TOML: text to a table with spans, or what is wrong with the text.
//!
//! Knows nothing of what a policy contains, except that a name written twice is a mistake in two places.

use std::ops::Range;

use toml::de::{DeTable, Error};

use super::diagnostic::{Finding, Findings, quote};
use super::source::Span;

/// The table, where the text is TOML; else all that is wrong with it is found.
pub(super) fn parse<'t>(file: u32, text: &'t str, findings: &mut Findings<'_>) -> Option<DeTable<'t>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Some(table.into_inner());
    }
    for error in errors {
        report(file, text, &error, findings);
    }
    None
}

fn report(file: u32, text: &str, error: &Error, findings: &mut Findings<'_>) {
    let range = error.span().unwrap_or(text.len()..text.len());
    let span = span(file, &range);
    if error.message() == "duplicate key" {
        let key = text.get(range.clone()).unwrap_or_default();
        let key = quote(key.trim_matches(['"', '\'']));
        findings
            .error(span, format_args!("{key} is defined twice"))
            .help("keep one of them, with the entries of both")
            .also(|finding| match first_definition(text, range) {
                Some(first) => finding.second(self::span(file, &first), "first defined here"),
                None => finding,
            });
    } else if error.message().starts_with("invalid boolean")
        || error.message().starts_with("string values must be quoted")
    {
        let bare = text.get(range).unwrap_or_default();
        findings
            .error(span, "text must stand in double quotes")
            .help(format!("write {}", quote(bare)));
    } else {
        findings
            .error(span, error.message().replace('\n', " "))
            .help("a policy is TOML: [service.web] opens a section, and text stands in double quotes");
    }
}

pub(super) fn span(file: u32, range: &Range<usize>) -> Span {
    Span {
        file,
        start: range.start as u32,
        end: range.end as u32,
    }
}

/// The earlier line that has the same header or, in the same section, the same key: the parser does not tell.
fn first_definition(text: &str, second: Range<usize>) -> Option<Range<usize>> {
    let before = text.get(..second.start)?;
    let (earlier, line) = text.split_at(before.trim_end_matches(|char| char != '\n').len());
    let sought = defined(line.lines().next()?)?;
    let mut first = None;
    let mut end = 0;
    for line in earlier.split_inclusive('\n') {
        end += line.len();
        match (&sought, defined(line)) {
            (sought, Some(found)) if found == *sought => {
                first.get_or_insert(end - line.trim_start().len()..end);
            }
            (Defined::Key(_), Some(Defined::Header(_))) => first = None,
            _ => {}
        }
    }
    first
}

#[derive(PartialEq)]
enum Defined {
    Header(String),
    Key(String),
}

fn defined(line: &str) -> Option<Defined> {
    let bare = |text: &str| text.replace([' ', '\t', '"', '\''], "");
    let line = line.trim();
    match line.strip_prefix('[') {
        Some(header) => Some(Defined::Header(bare(header.split_once(']')?.0))),
        None => Some(Defined::Key(bare(line.split_once('=')?.0))),
    }
}

impl Finding<'_> {
    /// Adds what is costly to find, only where the diagnostic is kept.
    fn also(self, add: impl FnOnce(Self) -> Self) -> Self {
        if self.is_kept() { add(self) } else { self }
    }
}
