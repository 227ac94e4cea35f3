//! The one layout of a policy's text: what `exocom policy fmt` makes of it.
//!
//! Changes only white space and quotes: what is said, in which order, and every comment stay. Laid out once, a text is
//! laid out for good.

use std::fmt::Write as _;

use toml_edit::{Array, Decor, DocumentMut, Item, KeyMut, RawString, Table, Value};

/// Text that is not TOML.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not TOML: {0}")]
pub struct NotToml(String);

/// Columns of a line with a list; a longer list has an entry a line.
const COLUMNS_MAX: usize = 110;

/// Columns between code and the comment behind it, at least.
const GAP_MIN: usize = 2;

const INDENT: &str = "    ";

/// Not aligned with the other keys of its section: it would push them all to the right.
const LONG_KEY: &str = "receives-except";

/// Lays a policy's text out.
pub fn layout(text: &str) -> Result<String, NotToml> {
    let mut document: DocumentMut = text
        .parse()
        .map_err(|error: toml_edit::TomlError| NotToml(error.message().replace('\n', " ")))?;
    let last = lines(&format!("{}\n", raw(Some(document.trailing()))));
    section(document.as_table_mut(), Section::Root);
    document.set_trailing(if last.iter().all(String::is_empty) {
        String::new()
    } else {
        block(&last, Blank::Before, "")
    });
    let text = document.to_string();
    let text = text.trim_matches('\n');
    Ok(if text.is_empty() {
        String::new()
    } else {
        format!("{text}\n")
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Section {
    Root,
    Headed,
}

/// The blank line in front of a block.
#[derive(Clone, Copy, PartialEq)]
enum Blank {
    Before,
    Kept,
    None,
}

fn section(table: &mut Table, kind: Section) {
    if table.is_dotted() {
        return;
    }
    if kind == Section::Headed {
        let decor = table.decor_mut();
        let before = block(&lines(raw(decor.prefix())), Blank::Before, "");
        let behind = behind(raw(decor.suffix())).map(|(gap, comment)| set_off(gap, &comment));
        *decor = Decor::new(before, behind.unwrap_or_default());
    }
    let is_value = |item: &Item| item.is_value();
    let key_width = match kind {
        Section::Root => 0,
        Section::Headed => {
            let keys = table
                .iter()
                .filter(|(key, item)| is_value(item) && *key != LONG_KEY);
            keys.map(|(key, _)| key.chars().count()).max().unwrap_or_default()
        }
    };
    let mut blank = match kind {
        Section::Root => Blank::Kept,
        Section::Headed => Blank::None,
    };
    for (key, item) in table.iter_mut() {
        match item {
            Item::Value(value) => {
                entry(key, value, key_width, blank);
                blank = Blank::Kept;
            }
            Item::Table(table) => section(table, Section::Headed),
            Item::ArrayOfTables(_) | Item::None => {}
        }
    }
}

/// A key with its value, and the comments before and behind it. A comment behind stays in its column, unless the
/// code has come to reach it.
fn entry(mut key: KeyMut<'_>, value: &mut Value, key_width: usize, blank: Blank) {
    let prefix = raw(key.leaf_decor().prefix()).to_owned();
    let indent = prefix.rsplit('\n').next().unwrap_or_default();
    let code = format!(
        "{indent}{}{}={}{}",
        key.display_repr(),
        raw(key.leaf_decor().suffix()),
        raw(value.decor().prefix()),
        bare(value)
    );
    let behind = behind(raw(value.decor().suffix()));
    let comment = behind.map(|(gap, comment)| (last_line_width(&code) + gap, comment));

    let name = key.display_repr().into_owned();
    let padding = key_width.saturating_sub(name.chars().count());
    let padding = if key.get() == LONG_KEY { 0 } else { padding };
    let padding = " ".repeat(padding + 1);
    *key.leaf_decor_mut() = Decor::new(block(&lines(&prefix), blank, ""), &*padding);

    let before = format!("{name}{padding}= ");
    match value {
        Value::Array(array) => list(array, before.chars().count()),
        _ => quoted_once(value),
    }
    let width = last_line_width(&format!("{before}{}", bare(value)));
    let behind = comment.map(|(column, comment)| set_off(column.saturating_sub(width), &comment));
    *value.decor_mut() = Decor::new(" ", behind.unwrap_or_default());
}

/// A list: in one line if it was, has no comments and fits; else an entry a line.
fn list(array: &mut Array, column: usize) {
    if !array.iter().all(Value::is_str) {
        return;
    }
    let mut entries = vec![Vec::new()];
    let mut behinds: Vec<Option<(usize, String)>> = Vec::new();
    // What stands behind an entry, up to the end of its line, is about it; the lines after that are about the next.
    let mut gaps: Vec<String> = array
        .iter()
        .map(|entry| raw(entry.decor().prefix()).to_owned())
        .collect();
    gaps.push(raw(Some(array.trailing())).to_owned());
    for (gap, entry) in gaps.iter_mut().skip(1).zip(array.iter()) {
        gap.insert_str(0, raw(entry.decor().suffix()));
    }
    let is_broken = gaps.iter().any(|gap| gap.contains('\n'));
    for (at, gap) in gaps.iter().enumerate() {
        let (same_line, below) = gap.split_once('\n').unwrap_or((gap, ""));
        let mut before = lines(below);
        match behind(same_line) {
            Some((_, comment)) if at == 0 => before.insert(0, comment),
            Some(comment) => behinds.push(Some(comment)),
            None if at > 0 => behinds.push(None),
            None => {}
        }
        entries.push(before);
    }
    entries.remove(0);
    array.iter_mut().for_each(quoted_once);
    if !is_broken {
        one_line(array);
        if column + bare(&Value::Array(array.clone())).chars().count() <= COLUMNS_MAX {
            return;
        }
    }
    let last = entries.pop().unwrap_or_default();
    let mut carried = String::new();
    for (at, (entry, before)) in array.iter_mut().zip(&entries).enumerate() {
        let blank = if at == 0 { Blank::None } else { Blank::Kept };
        let prefix = format!("{carried}\n{}{INDENT}", block(before, blank, INDENT));
        carried = match behinds.get(at) {
            Some(Some((gap, comment))) => set_off(*gap, comment),
            _ => String::new(),
        };
        *entry.decor_mut() = Decor::new(prefix, "");
    }
    let is_empty = array.is_empty();
    let mut last = block(&last, if is_empty { Blank::None } else { Blank::Kept }, INDENT);
    while last.ends_with("\n\n") {
        last.pop();
    }
    if is_empty && last.is_empty() {
        array.set_trailing("");
    } else {
        array.set_trailing(format!("{carried}\n{}", if last == "\n" { "" } else { &last }));
    }
    array.set_trailing_comma(!is_empty);
}

fn one_line(array: &mut Array) {
    for (at, entry) in array.iter_mut().enumerate() {
        *entry.decor_mut() = Decor::new(if at == 0 { "" } else { " " }, "");
    }
    array.set_trailing("");
    array.set_trailing_comma(false);
}

/// Text in double quotes, on one line, where it can be.
fn quoted_once(value: &mut Value) {
    if let Value::String(text) = value
        && text
            .as_repr()
            .and_then(|repr| repr.as_raw().as_str())
            .is_some_and(|repr| !repr.starts_with('"') || repr.starts_with("\"\"\""))
    {
        let decor = text.decor().clone();
        *value = Value::from(text.value().as_str());
        *value.decor_mut() = decor;
    }
}

/// The value without what is around it.
fn bare(value: &Value) -> String {
    let mut value = value.clone();
    value.decor_mut().clear();
    let text = value.to_string();
    text.trim().to_owned()
}

fn raw(text: Option<&RawString>) -> &str {
    text.and_then(RawString::as_str).unwrap_or_default()
}

/// The whole lines of white space and comments; what comes after the last of them is an indentation.
fn lines(text: &str) -> Vec<String> {
    let Some((lines, _)) = text.rsplit_once('\n') else {
        return Vec::new();
    };
    lines.split('\n').map(|line| line.trim().to_owned()).collect()
}

/// Comment lines, with no two blank lines in a row.
fn block(lines: &[String], blank: Blank, indent: &str) -> String {
    let mut text = String::new();
    let mut is_blank = match blank {
        Blank::Before => {
            text.push('\n');
            true
        }
        Blank::Kept => false,
        Blank::None => true,
    };
    for line in lines {
        match line.is_empty() {
            true if is_blank => {}
            true => text.push('\n'),
            false => writeln!(text, "{indent}{line}").expect("writing to a string cannot fail"),
        }
        is_blank = line.is_empty();
    }
    text
}

/// The comment behind code, and how many columns behind.
fn behind(text: &str) -> Option<(usize, String)> {
    let comment = text.trim();
    let gap = text.chars().take_while(|char| char.is_whitespace()).count();
    (!comment.is_empty()).then(|| (gap, comment.to_owned()))
}

/// A comment behind code, so many columns behind if they are enough.
fn set_off(gap: usize, comment: &str) -> String {
    format!("{}{comment}", " ".repeat(gap.max(GAP_MIN)))
}

fn last_line_width(code: &str) -> usize {
    code.rsplit('\n').next().unwrap_or_default().chars().count()
}
