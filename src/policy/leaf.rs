//! The leaves of a policy's TOML: texts, words, numbers, lists and small tables, each with its place; what is wrong
//! with one is noted, with what to write instead.
//!
//! Knows no section of a policy; which leaf stands where is for `parse`.

use std::borrow::Cow;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::alarms::{ALARMS, Alarms, SENSITIVITIES};
use super::diagnostic::quote;
use super::parse::{Key, Value, Walk};
use super::rate::{self, Limits};
use super::source::{Span, Spanned};
use super::suggest::did_you_mean;
use super::syntax;
use super::value::{self, BadValue};
use crate::limits::{ATTEMPTS_MAX, LIMIT_BURST_MAX};

const LIMITS_KEYS: [&str; 2] = ["rate", "burst"];
const LIMITS_HELP: &str = "write limits = {rate = \"500/s\", burst = 1000}";
const ALARMS_KEYS: [&str; 1] = ["sensitivity"];
const ALARMS_HELP: &str =
    "write alarms = \"default\", \"off\" or {sensitivity = \"low\"}; it may be low, normal or high";

impl Walk<'_, '_> {
    pub(super) fn duration(&mut self, value: &Value<'_>, ms_max: u64) -> Option<Spanned<Duration>> {
        self.parsed(value, "write a string with a unit, such as \"10s\"", |text| {
            value::duration(text, ms_max)
        })
    }

    pub(super) fn attempts(&mut self, value: &Value<'_>) -> Option<Spanned<u32>> {
        self.whole_number(value, "attempts", ATTEMPTS_MAX)
    }

    /// A number from 1 on.
    pub(super) fn whole_number(&mut self, value: &Value<'_>, key: &str, max: u32) -> Option<Spanned<u32>> {
        let span = self.span(value);
        let DeValue::Integer(number) = value.get_ref() else {
            self.wrong_type(
                span,
                value.get_ref(),
                "a whole number",
                &format!("write {key} = 5"),
            );
            return None;
        };
        match u32::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if (1..=max).contains(&value) => Some(Spanned { value, span }),
            _ => {
                self.findings
                    .error(
                        span,
                        format_args!("{key} = {} is out of range", cut(&number.to_string())),
                    )
                    .help(format!("it may be 1 to {max}"));
                None
            }
        }
    }

    pub(super) fn word<T: Copy>(
        &mut self,
        value: &Value<'_>,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<Spanned<T>> {
        let allowed: Vec<_> = words.iter().map(|&(word, _)| word).collect();
        let help = format!("write one of {}", listed(&allowed));
        let text = self.text(value, &help)?;
        if let Some(&(_, value)) = words.iter().find(|(word, _)| *word == &*text.value) {
            return Some(Spanned {
                value,
                span: text.span,
            });
        }
        self.findings
            .error(text.span, format_args!("{} is not {what}", quote(&text.value)))
            .help(suggestion(&text.value, &allowed));
        None
    }

    pub(super) fn parsed<T>(
        &mut self,
        value: &Value<'_>,
        help: &str,
        parse: impl FnOnce(&str) -> Result<T, BadValue>,
    ) -> Option<Spanned<T>> {
        let text = self.text(value, help)?;
        let value = self.check(text.span, parse(&text.value))?;
        Some(Spanned {
            value,
            span: text.span,
        })
    }

    pub(super) fn check<T>(&mut self, span: Span, result: Result<T, BadValue>) -> Option<T> {
        result
            .map_err(|bad| self.findings.error(span, bad.message).help(bad.help))
            .ok()
    }

    pub(super) fn text(&mut self, value: &Value<'_>, help: &str) -> Option<Spanned<Box<str>>> {
        let span = self.span(value);
        match value.get_ref() {
            DeValue::String(text) => Some(Spanned {
                value: text.as_ref().into(),
                span,
            }),
            other => {
                self.wrong_type(span, other, "text in double quotes", help);
                None
            }
        }
    }

    pub(super) fn list<'v, 't>(&mut self, value: &'v Value<'t>, help: &str) -> Vec<&'v Value<'t>> {
        match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            other => {
                self.wrong_type(self.span(value), other, "a list", help);
                Vec::new()
            }
        }
    }

    pub(super) fn table<'v, 't>(&mut self, value: &'v Value<'t>, help: &str) -> Option<&'v DeTable<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                self.wrong_type(self.span(value), other, "a section", help);
                None
            }
        }
    }

    pub(super) fn wrong_type(&mut self, span: Span, found: &DeValue<'_>, expected: &str, help: &str) {
        let found = match found {
            DeValue::String(_) => "text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a section",
        };
        self.findings
            .error(span, format_args!("expected {expected}, found {found}"))
            .help(help);
    }

    pub(super) fn unknown_key(&mut self, key: &Key<'_>, whose: &str, allowed: &[&str]) {
        let key = self.key(key);
        self.findings
            .error(
                key.span,
                format_args!("{} is not a key {whose}", quote(key.value)),
            )
            .help(suggestion(key.value, allowed));
    }

    pub(super) fn key<'k>(&self, key: &'k Key<'_>) -> Spanned<&'k str> {
        Spanned {
            value: key.get_ref(),
            span: syntax::span(self.file, &key.span()),
        }
    }

    pub(super) fn span(&self, value: &Value<'_>) -> Span {
        syntax::span(self.file, &value.span())
    }

    /// `{rate = "500/s", burst = 1000}`.
    pub(super) fn limits(&mut self, value: &Value<'_>) -> Option<Spanned<Limits>> {
        let span = self.span(value);
        let (mut rate, mut burst) = (None, None);
        for (key, value) in self.table(value, LIMITS_HELP)? {
            match key.get_ref().as_ref() {
                "rate" => rate = Some(self.parsed(value, "write rate = \"500/s\"", rate::rate)?),
                "burst" => burst = Some(self.whole_number(value, "burst", LIMIT_BURST_MAX)?.value),
                _ => {
                    self.unknown_key(key, "of limits", &LIMITS_KEYS);
                    return None;
                }
            }
        }
        match rate {
            Some(rate) => Some(Spanned {
                value: Limits::new(rate.value, burst),
                span,
            }),
            None => {
                self.findings
                    .error(span, "these limits give no rate")
                    .help(LIMITS_HELP);
                None
            }
        }
    }

    /// `"default"`, `"off"` or `{sensitivity = "low"}`.
    pub(super) fn alarms(&mut self, value: &Value<'_>) -> Option<Spanned<Alarms>> {
        let span = self.span(value);
        let DeValue::Table(table) = value.get_ref() else {
            let text = self.text(value, ALARMS_HELP)?;
            let known = ALARMS.iter().find(|(word, _)| *word == &*text.value);
            if known.is_none() {
                self.findings
                    .error(span, format_args!("{} is no word for alarms", quote(&text.value)))
                    .help(ALARMS_HELP);
            }
            return known.map(|&(_, value)| Spanned { value, span });
        };
        let mut sensitivity = None;
        for (key, value) in table {
            if key.get_ref().as_ref() != "sensitivity" {
                self.unknown_key(key, "of alarms", &ALARMS_KEYS);
                return None;
            }
            sensitivity = Some(self.word(value, "a sensitivity", &SENSITIVITIES)?.value);
        }
        if sensitivity.is_none() {
            self.findings
                .error(span, "these alarms give no sensitivity")
                .help(ALARMS_HELP);
        }
        sensitivity.map(|sensitivity| Spanned {
            value: Alarms::On(sensitivity),
            span,
        })
    }
}

fn suggestion(word: &str, allowed: &[&str]) -> String {
    match did_you_mean(word, allowed) {
        Some(meant) => format!("did you mean \"{meant}\"? allowed: {}", listed(allowed)),
        None => format!("allowed: {}", listed(allowed)),
    }
}

pub(super) fn listed(words: &[&str]) -> String {
    words.join(", ")
}

/// A number as written, not longer than anyone reads.
fn cut(digits: &str) -> Cow<'_, str> {
    const DIGITS_SHOWN: usize = 20;
    match digits.get(..DIGITS_SHOWN) {
        Some(start) if digits.len() > DIGITS_SHOWN => Cow::Owned(format!("{start}...")),
        _ => Cow::Borrowed(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_whole_up_to_twenty_digits() {
        assert_eq!(cut("7"), "7");
        assert_eq!(cut("12345678901234567890"), "12345678901234567890");
        assert_eq!(cut("123456789012345678901"), "12345678901234567890...");
    }
}
