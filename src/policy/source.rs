//! The text of a policy: files, the spans in them, and the line and column that a span starts at.
//!
//! Text is handed in by whoever read it; nothing here opens a file.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::limits::POLICY_BYTES_MAX;

/// One file of a policy, read by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What diagnostics and denials call the file, such as `policies/todo.toml`.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Why bytes cannot be the text of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// TOML is UTF-8, whole.
    #[error("{name}:{line}:{column}: not UTF-8; save the file as UTF-8 without other encodings in it")]
    NotUtf8 {
        /// The file.
        name: String,
        /// The line of the first bad byte, from 1.
        line: u32,
        /// Its column in characters, from 1.
        column: u32,
    },
    /// More than [`POLICY_BYTES_MAX`].
    #[error(
        "{name}: a policy has at most {POLICY_BYTES_MAX} bytes, all its files together; this makes {bytes}"
    )]
    TooLarge {
        /// The file that goes over the bound.
        name: String,
        /// How many bytes there are with it.
        bytes: u64,
    },
}

impl Source {
    /// Takes a file's bytes, if they are UTF-8 and no more than a policy may have.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Result<Self, SourceError> {
        let name = name.into();
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(SourceError::TooLarge {
                name,
                bytes: bytes.len() as u64,
            });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { name, text }),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
                let Position { line, column } = Lines::new(&text).position(&text, text.len());
                Err(SourceError::NotUtf8 { name, line, column })
            }
        }
    }
}

/// A line of a policy: what grants or forbids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// The file's name, as the caller gave it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A stretch of one file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) file: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

/// A value, and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

/// A place in a file, as editors count: both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u32,
    pub(super) column: u32,
}

/// The files of one policy, in the order of their names, with the start of every line.
#[derive(Debug, Clone)]
pub(super) struct Sources(Vec<File>);

#[derive(Debug, Clone)]
struct File {
    name: Arc<str>,
    text: Arc<str>,
    lines: Lines,
}

impl Sources {
    /// Sorted by name, so that the order in which files were listed changes nothing.
    pub(super) fn new(sources: &[Source]) -> Self {
        let mut files: Vec<_> = sources
            .iter()
            .map(|source| File {
                name: source.name.as_str().into(),
                text: source.text.as_str().into(),
                lines: Lines::new(&source.text),
            })
            .collect();
        files.sort_by(|a, b| (&a.name, &a.text).cmp(&(&b.name, &b.text)));
        Self(files)
    }

    /// Name and text of every file, in order.
    pub(super) fn files(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.0.iter().map(|file| (&file.name, &*file.text))
    }

    pub(super) fn name(&self, span: Span) -> Arc<str> {
        self.0
            .get(span.file as usize)
            .map_or_else(|| "".into(), |file| Arc::clone(&file.name))
    }

    pub(super) fn position(&self, span: Span) -> Position {
        self.0
            .get(span.file as usize)
            .map_or(Position { line: 1, column: 1 }, |file| {
                file.lines.position(&file.text, span.start as usize)
            })
    }

    pub(super) fn rule(&self, span: Span) -> Rule {
        let line = self
            .0
            .get(span.file as usize)
            .map_or(1, |file| file.lines.line(span.start as usize));
        Rule {
            file: self.name(span),
            line,
        }
    }

    /// The text of the lines from the one where the first span starts to the one where the last starts, with
    /// the number of the first line, and the spans moved into it and cut at the end of their first line.
    pub(super) fn excerpt(&self, spans: &[Span]) -> Excerpt<'_> {
        let file = spans.first().and_then(|span| self.0.get(span.file as usize));
        let Some(file) = file else {
            return Excerpt {
                text: "",
                line: 1,
                spans: Vec::new(),
            };
        };
        let first = spans
            .iter()
            .map(|span| file.lines.line(span.start as usize))
            .min()
            .unwrap_or(1);
        let last = spans
            .iter()
            .map(|span| file.lines.line(span.start as usize))
            .max()
            .unwrap_or(1);
        let window = file.lines.start(first)..file.lines.range(last, &file.text).end;
        let spans = spans
            .iter()
            .map(|span| {
                let line = file.lines.range(file.lines.line(span.start as usize), &file.text);
                let start = (span.start as usize).min(line.end);
                let end = (span.end as usize).clamp(start, line.end);
                start - window.start..end - window.start
            })
            .collect();
        Excerpt {
            text: file.text.get(window).unwrap_or_default(),
            line: first,
            spans,
        }
    }
}

/// Some lines of a file.
pub(super) struct Excerpt<'a> {
    pub(super) text: &'a str,
    pub(super) line: u32,
    pub(super) spans: Vec<Range<usize>>,
}

/// The byte at which each line starts.
#[derive(Debug, Clone)]
struct Lines(Vec<u32>);

impl Lines {
    fn new(text: &str) -> Self {
        let after_newlines = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at as u32 + 1);
        Self(std::iter::once(0).chain(after_newlines).collect())
    }

    fn line(&self, at: usize) -> u32 {
        self.0.partition_point(|&start| start as usize <= at) as u32
    }

    fn start(&self, line: u32) -> usize {
        self.0
            .get(line.saturating_sub(1) as usize)
            .map_or(0, |&start| start as usize)
    }

    /// The bytes of a line, without its end.
    fn range(&self, line: u32, text: &str) -> Range<usize> {
        let start = self.start(line);
        let end = self
            .0
            .get(line as usize)
            .map_or(text.len(), |&next| next as usize);
        let trimmed = text
            .get(start..end)
            .unwrap_or_default()
            .trim_end_matches(['\n', '\r']);
        start..start + trimmed.len()
    }

    fn position(&self, text: &str, at: usize) -> Position {
        let line = self.line(at);
        let before = text.get(self.start(line)..at).unwrap_or_default();
        Position {
            line,
            column: before.chars().count() as u32 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let text = "a\r\né = \"x\"\n";
        let lines = Lines::new(text);
        let check = |at: usize, line: u32, column: u32| {
            assert_eq!(lines.position(text, at), Position { line, column }, "byte {at}");
        };
        check(0, 1, 1);
        check(3, 2, 1);
        check(5, 2, 2);
        check(text.len(), 3, 1);
        assert_eq!(lines.range(1, text), 0..1);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_at_their_place() {
        let error = Source::from_bytes("p.toml", b"a = 1\nb\xc3\xa9 = \xff".to_vec()).unwrap_err();
        assert_eq!(
            error,
            SourceError::NotUtf8 {
                name: "p.toml".into(),
                line: 2,
                column: 6
            }
        );
    }

    #[test]
    fn a_file_over_the_bound_is_refused() {
        assert!(Source::from_bytes("p.toml", vec![b'#'; POLICY_BYTES_MAX]).is_ok());
        let error = Source::from_bytes("p.toml", vec![b'#'; POLICY_BYTES_MAX + 1]).unwrap_err();
        assert!(matches!(error, SourceError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_line_is_one_word_for_people_and_for_programs() {
        let rule = Rule {
            file: "p.toml".into(),
            line: 7,
        };
        assert_eq!(rule.to_string(), "p.toml:7");
        assert_eq!(serde_json::to_value(&rule).unwrap(), "p.toml:7");
    }
}
