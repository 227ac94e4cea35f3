//! What is wrong with a policy, for a person at a terminal and for a program.
//!
//! A diagnostic names its place and, in `help`, what to write instead. It decides nothing: whoever finds a
//! mistake says how grave it is.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::source::{Sources, Span};
use crate::limits::POLICY_DIAGNOSTICS_MAX;

/// How grave a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is taken; somebody should look.
    Warning,
}

/// One thing that is wrong, where, and what to write instead.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnostic {
    severity: Severity,
    #[serde(flatten)]
    place: Place,
    message: String,
    help: Option<String>,
    #[serde(rename = "related")]
    secondary: Option<Secondary>,
    #[serde(skip)]
    span: Span,
}

/// A place in a policy, as editors count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file's name, as the caller gave it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column, in characters, from 1.
    pub column: u32,
}

#[derive(Debug, Clone, Serialize)]
struct Secondary {
    #[serde(flatten)]
    place: Place,
    label: String,
    #[serde(skip)]
    span: Span,
}

impl Diagnostic {
    /// How grave it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Where it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What is wrong, in one line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }
}

/// The diagnostics of one policy, in the order of their places, with the text that they point into.
#[derive(Debug, Clone)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    /// Those past [`POLICY_DIAGNOSTICS_MAX`].
    uncounted: usize,
    sources: Arc<Sources>,
}

impl Diagnostics {
    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many there are, those too many to keep included.
    pub fn len(&self) -> usize {
        self.list.len() + self.uncounted
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// As text for a terminal or a log: each with the lines it points at. Colours only if asked for.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut text = String::new();
        for diagnostic in &self.list {
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push_str("\n\n");
        }
        if self.uncounted > 0 {
            text.push_str(&format!("... and {} more like these\n", self.uncounted));
        }
        text
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = level.primary_title(shown(&diagnostic.message));
        let group = match &diagnostic.secondary {
            Some(second) if are_close(diagnostic, second) => {
                let excerpt = self.sources.excerpt(&[diagnostic.span, second.span]);
                let mut spans = excerpt.spans.into_iter();
                let (first, other) = (spans.next().unwrap_or(0..0), spans.next().unwrap_or(0..0));
                group.element(
                    snippet(&diagnostic.place, excerpt.text, excerpt.line)
                        .annotation(AnnotationKind::Primary.span(first))
                        .annotation(AnnotationKind::Context.span(other).label(second.label.as_str())),
                )
            }
            Some(second) => group
                .element(self.lone(&diagnostic.place, diagnostic.span, |span| {
                    AnnotationKind::Primary.span(span)
                }))
                .element(self.lone(&second.place, second.span, |span| {
                    AnnotationKind::Context.span(span).label(second.label.as_str())
                })),
            None => group.element(self.lone(&diagnostic.place, diagnostic.span, |span| {
                AnnotationKind::Primary.span(span)
            })),
        };
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    fn lone<'a>(
        &'a self,
        place: &'a Place,
        span: Span,
        annotate: impl Fn(Range<usize>) -> annotate_snippets::Annotation<'a>,
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let excerpt = self.sources.excerpt(&[span]);
        let range = excerpt.spans.into_iter().next().unwrap_or(0..0);
        snippet(place, excerpt.text, excerpt.line).annotation(annotate(range))
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

/// Why a policy is refused: every error found, with the warnings of the way.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", summary(.0))]
pub struct PolicyErrors(Diagnostics);

impl PolicyErrors {
    /// Errors and warnings, in the order of their places.
    pub fn diagnostics(&self) -> &Diagnostics {
        &self.0
    }
}

fn summary(diagnostics: &Diagnostics) -> String {
    let errors = || {
        diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.severity == Severity::Error)
    };
    let Some(first) = errors().next() else {
        return "the policy is refused".to_owned();
    };
    let Place { file, line, column } = &first.place;
    match errors().count() + diagnostics.uncounted {
        1 => format!("{file}:{line}:{column}: {}", first.message),
        count => format!(
            "{file}:{line}:{column}: {} (and {} more)",
            first.message,
            count - 1
        ),
    }
}

/// Collects diagnostics while a policy is read.
pub(super) struct Findings<'a> {
    sources: &'a Arc<Sources>,
    list: Vec<Diagnostic>,
    uncounted: usize,
    refused: bool,
}

impl<'a> Findings<'a> {
    pub(super) fn new(sources: &'a Arc<Sources>) -> Self {
        Self {
            sources,
            list: Vec::new(),
            uncounted: 0,
            refused: false,
        }
    }

    /// The policy is refused for this.
    pub(super) fn error(&mut self, span: Span, message: impl fmt::Display) -> Finding<'_> {
        self.refused = true;
        self.add(Severity::Error, span, &message)
    }

    /// Somebody should look at this.
    pub(super) fn warning(&mut self, span: Span, message: impl fmt::Display) -> Finding<'_> {
        self.add(Severity::Warning, span, &message)
    }

    fn add(&mut self, severity: Severity, span: Span, message: &dyn fmt::Display) -> Finding<'_> {
        let sources = self.sources;
        // An error is always kept: the list must say why a policy is refused.
        let room =
            self.list.len() < POLICY_DIAGNOSTICS_MAX || (severity == Severity::Error && self.make_room());
        let diagnostic = if room {
            self.list.push(Diagnostic {
                severity,
                place: place(sources, span),
                message: message.to_string(),
                help: None,
                secondary: None,
                span,
            });
            self.list.last_mut()
        } else {
            self.uncounted += 1;
            None
        };
        Finding { diagnostic, sources }
    }

    /// Gives up a warning, so that an error fits.
    fn make_room(&mut self) -> bool {
        let warning = self
            .list
            .iter()
            .rposition(|diagnostic| diagnostic.severity == Severity::Warning);
        if let Some(warning) = warning {
            self.list.remove(warning);
            self.uncounted += 1;
        }
        warning.is_some()
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    pub(super) fn into_diagnostics(mut self) -> Diagnostics {
        self.list.sort_by_key(|diagnostic| diagnostic.span);
        Diagnostics {
            list: self.list,
            uncounted: self.uncounted,
            sources: Arc::clone(self.sources),
        }
    }

    pub(super) fn into_errors(self) -> PolicyErrors {
        PolicyErrors(self.into_diagnostics())
    }
}

/// A diagnostic just found, to which its help and a second place can be added.
pub(super) struct Finding<'f> {
    diagnostic: Option<&'f mut Diagnostic>,
    sources: &'f Arc<Sources>,
}

impl Finding<'_> {
    /// Whether it will be shown, or only counted.
    pub(super) fn is_kept(&self) -> bool {
        self.diagnostic.is_some()
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        if let Some(diagnostic) = &mut self.diagnostic {
            diagnostic.help = Some(help.into());
        }
        self
    }

    pub(super) fn second(mut self, span: Span, label: impl Into<String>) -> Self {
        if let Some(diagnostic) = &mut self.diagnostic {
            diagnostic.secondary = Some(Secondary {
                place: place(self.sources, span),
                label: label.into(),
                span,
            });
        }
        self
    }
}

/// Text of the file for a message: quoted, escaped and not too long to read.
pub(super) fn quote(text: &str) -> String {
    const CHARS_SHOWN: usize = 60;
    match text.char_indices().nth(CHARS_SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", text.get(..end).unwrap_or_default()),
    }
}

/// Text of a file as it may go to a terminal, of the same length. What a control character of ASCII is shown as,
/// annotate-snippets knows; of the others, which some terminals obey too, it does not.
pub fn shown(text: &str) -> Cow<'_, str> {
    const SHOWN_AS: &str = "\u{bf}";
    let is_control = |char: char| ('\u{80}'..='\u{9f}').contains(&char);
    if text.contains(is_control) {
        Cow::Owned(text.replace(is_control, SHOWN_AS))
    } else {
        Cow::Borrowed(text)
    }
}

fn place(sources: &Sources, span: Span) -> Place {
    let position = sources.position(span);
    Place {
        file: sources.name(span),
        line: position.line,
        column: position.column,
    }
}

/// Near enough to be shown as one piece of text.
fn are_close(diagnostic: &Diagnostic, second: &Secondary) -> bool {
    const LINES_APART_MAX: u32 = 12;
    diagnostic.span.file == second.span.file
        && diagnostic.place.line.abs_diff(second.place.line) <= LINES_APART_MAX
}

fn snippet<'a>(place: &'a Place, text: &'a str, line: u32) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    Snippet::source(shown(text))
        .line_start(line as usize)
        .path(&*place.file)
}
