//! Whether the tree is as ARCHITECTURE.md says: who imports whom, what the pure rooms never name, what a person can
//! read in one sitting, and whether the documents tell the truth about files.
//!
//! Reads the source as text; runs none of it. Each test collects everything that is wrong before it fails.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test may fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The rooms of `src/`, by floors. A room imports only from floors below its own: never from its own floor, so that
/// `net`, `disk` and `console` do not know each other, and nothing knows the floor above.
const FLOORS: &[&[&str]] = &[
    &["main", "lib"],
    &["cli"],
    &["serve", "bench", "screen"],
    &["net", "disk", "console", "config", "policy_files"],
    &["exchange"],
    &["delivery", "review"],
    &["policy", "traffic", "audit"],
    &["identity"],
    &["wire"],
    &["limits"],
];

/// The rooms that decide. Time, bytes and randomness come in as arguments.
const PURE: &[&str] = &[
    "exchange", "delivery", "review", "policy", "traffic", "audit", "identity", "wire", "limits",
];

/// What a pure room never names.
const IMPURE_NAMES: &[&str] = &[
    "tokio",
    "mio",
    "rustix",
    "socket2",
    "notify",
    "Instant",
    "SystemTime",
    "OffsetDateTime",
    "rand",
    "getrandom",
    "SystemRandom",
    "print",
    "println",
    "eprint",
    "eprintln",
];

/// What a pure room never takes from the standard library.
const IMPURE_MODULES: &[&str] = &["env", "fs", "io", "net", "os", "process", "thread"];

/// Calls that mean that something is not done yet.
const UNDONE: &[&str] = &["todo", "unimplemented", "dbg"];

/// The lines of a file that a person reads in one sitting.
const FILE_LINES_MAX: usize = 600;

/// No room holds more than this part of the code: one that does has two jobs ...
const ROOM_PART_MAX: usize = 6;

/// ... once it has so many lines. A smaller one can be read whole, however small the rest is.
const ROOM_LINES_MIN: usize = 3000;

#[test]
fn imports_run_only_downwards() {
    let mut faults = Faults::default();
    for file in rust_files("src/") {
        let room = room_of(&file);
        let Some(floor) = floor_of(&room) else {
            faults.add(
                &file,
                1,
                format!("`{room}` is on no floor: give it one in tests/tidy.rs and ARCHITECTURE.md"),
            );
            continue;
        };
        for (target, line) in imports(&tokens_of(&file, Tests::Included)) {
            // What `lib.rs` itself offers has no room.
            let Some(below) = floor_of(&target) else { continue };
            if target != room && below <= floor {
                faults.add(&file, line, format!("`{room}` may not import from `{target}`"));
            }
        }
    }
    faults.judge();
}

#[test]
fn pure_rooms_name_no_socket_file_clock_or_chance() {
    let mut faults = Faults::default();
    for file in rust_files("src/").filter(|file| PURE.contains(&room_of(file).as_str())) {
        let tokens = tokens_of(&file, Tests::LeftOut);
        for (at, token) in tokens.iter().enumerate() {
            let from_std = at >= 3 && tokens[at - 3].text == "std" && tokens[at - 1].text == ":";
            if IMPURE_NAMES.contains(&token.text.as_str())
                || (from_std && IMPURE_MODULES.contains(&token.text.as_str()))
            {
                faults.add(&file, token.line, format!("a pure room names `{}`", token.text));
            }
            if from_std && token.text == "{" {
                faults.add(
                    &file,
                    token.line,
                    "import from std one by one, so that this test sees what".into(),
                );
            }
        }
    }
    faults.judge();
}

#[test]
fn no_room_holds_more_than_a_sixth_of_the_code() {
    let mut lines_of: BTreeMap<String, BTreeSet<(PathBuf, usize)>> = BTreeMap::new();
    for file in rust_files("src/") {
        let lines = tokens_of(&file, Tests::LeftOut)
            .into_iter()
            .map(|token| (file.clone(), token.line));
        lines_of.entry(room_of(&file)).or_default().extend(lines);
    }
    let all: usize = lines_of.values().map(BTreeSet::len).sum();
    let mut faults = Faults::default();
    for (room, lines) in &lines_of {
        if lines.len() > ROOM_LINES_MIN.max(all / ROOM_PART_MAX) {
            let fault = format!(
                "{} of {all} lines of code: it has two jobs; split it",
                lines.len()
            );
            faults.add(Path::new("src").join(room).as_path(), 1, fault);
        }
    }
    faults.judge();
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut faults = Faults::default();
    for file in files()
        .into_iter()
        .filter(|file| has_extension(file, &["rs", "js", "ts", "py", "md", "sh"]))
    {
        let lines = read(&file).lines().count();
        if lines > FILE_LINES_MAX {
            faults.add(
                &file,
                lines,
                format!("longer than {FILE_LINES_MAX} lines: split it by what it owns"),
            );
        }
    }
    faults.judge();
}

#[test]
fn modules_say_what_they_are() {
    let mut faults = Faults::default();
    for file in rust_files("") {
        let is_example_file = file.starts_with("examples");
        if !is_example_file && !read(&file).starts_with("//! ") {
            faults.add(
                &file,
                1,
                "open it with what it does and what it never does: //! ...".into(),
            );
        }
    }
    faults.judge();
}

#[test]
fn nothing_is_left_undone() {
    let mut faults = Faults::default();
    for file in rust_files("") {
        let tokens = tokens_of(&file, Tests::Included);
        for pair in tokens.windows(2) {
            if UNDONE.contains(&pair[0].text.as_str()) && pair[1].text == "!" {
                faults.add(&file, pair[0].line, format!("`{}!` is left", pair[0].text));
            }
        }
    }
    let marks = [
        ["// TO", "DO"],
        ["# TO", "DO"],
        ["FIX", "ME"],
        ["XX", "X"],
        ["@VER", "SION@"],
    ]
    .map(|halves| halves.concat());
    for file in text_files() {
        for (line, text) in numbered(&read(&file)) {
            for mark in marks.iter().filter(|mark| has_word(text, mark)) {
                faults.add(&file, line, format!("`{mark}` is left"));
            }
        }
    }
    faults.judge();
}

#[test]
fn no_path_of_a_developers_machine_is_named() {
    let homes =
        [["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"], ["/wo", "rk/"]].map(|halves| halves.concat());
    let mut faults = Faults::default();
    for file in text_files() {
        for (line, text) in numbered(&read(&file)) {
            for home in &homes {
                let begins = |at: usize| at == 0 || !is_path_char(text.as_bytes()[at - 1]);
                if text.match_indices(home.as_str()).any(|(at, _)| begins(at)) {
                    faults.add(&file, line, format!("a path of somebody's machine: {home}"));
                }
            }
        }
    }
    faults.judge();
}

#[test]
fn lock_files_name_no_mirror() {
    let mut faults = Faults::default();
    for file in files()
        .into_iter()
        .filter(|file| file.ends_with("package-lock.json"))
    {
        for (line, text) in numbered(&read(&file)) {
            if text.trim_start().starts_with("\"resolved\": \"http") {
                let remedy =
                    "put omit-lockfile-registry-resolved=true into .npmrc and make the lock file anew";
                faults.add(&file, line, format!("an address of a registry: {remedy}"));
            }
        }
    }
    let crates = read(Path::new("Cargo.lock"));
    for (line, text) in numbered(&crates) {
        let is_ours = |source: &str| source == "\"registry+https://github.com/rust-lang/crates.io-index\"";
        if let Some(source) = text.strip_prefix("source = ").filter(|source| !is_ours(source)) {
            let fault = format!("a source that is not crates.io: {source}");
            faults.add(Path::new("Cargo.lock"), line, fault);
        }
    }
    faults.judge();
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut faults = Faults::default();
    for file in files().into_iter().filter(|file| has_extension(file, &["md"])) {
        let text = read(&file);
        for (line, target) in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let linked = if path.is_empty() {
                file.clone()
            } else {
                normal(&file.parent().unwrap().join(path))
            };
            if !root().join(&linked).exists() {
                faults.add(&file, line, format!("`{target}` leads nowhere"));
            } else if !heading.is_empty() && !headings(&read(&linked)).any(|known| known == heading) {
                faults.add(
                    &file,
                    line,
                    format!("`{}` has no heading `#{heading}`", linked.display()),
                );
            }
        }
    }
    faults.judge();
}

#[test]
fn the_changelog_tells_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let text = read(Path::new("CHANGELOG.md"));
    let heading = text
        .lines()
        .find(|line| line.starts_with("## "))
        .unwrap_or_default();
    assert!(
        heading.contains(version),
        "CHANGELOG.md begins with `{heading}`, and Cargo.toml says {version}"
    );
}

#[test]
fn the_architecture_is_told_in_two_pages() {
    let text = read(Path::new("ARCHITECTURE.md"));
    assert!(
        text.lines().count() <= 130,
        "longer than two pages: {} lines",
        text.lines().count()
    );
    for room in fs::read_dir(root().join("src")).unwrap() {
        let path = room.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let shown = if path.is_dir() {
            format!("{name}/")
        } else {
            name.to_owned()
        };
        assert!(
            text.contains(&shown),
            "ARCHITECTURE.md does not say what src/{shown} is"
        );
    }
}

/// Everything that is wrong, to be told at once.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, file: &Path, line: usize, fault: String) {
        self.0.push(format!("{}:{line}: {fault}", file.display()));
    }

    fn judge(self) {
        assert!(self.0.is_empty(), "\n{}\n", self.0.join("\n"));
    }
}

/// A word or sign of Rust, and its line.
struct Token {
    text: String,
    line: usize,
}

/// Whether `#[cfg(test)]` items are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Tests {
    Included,
    LeftOut,
}

/// The tokens of a file, without comments.
fn tokens_of(file: &Path, tests: Tests) -> Vec<Token> {
    let is_test_file = file
        .file_stem()
        .is_some_and(|stem| stem == "tests" || stem == "testing")
        || file.components().any(|part| part.as_os_str() == "tests");
    if tests == Tests::LeftOut && is_test_file {
        return Vec::new();
    }
    let text = read(file);
    let stream: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let mut tokens = Vec::new();
    flatten(stream, tests, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, tests: Tests, tokens: &mut Vec<Token>) {
    let mut trees = stream.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        let mut push = |text: String, line: usize| tokens.push(Token { text, line });
        match tree {
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_attribute(trees.peek(), "doc = ") => {
                trees.next();
            }
            TokenTree::Punct(punct) if punct.as_char() == '#' && is_attribute(trees.peek(), "cfg (test)") => {
                trees.next();
                if tests == Tests::LeftOut {
                    // The item ends with its body or with a semicolon.
                    let _item = trees.find(|tree| match tree {
                        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                        TokenTree::Punct(punct) => punct.as_char() == ';',
                        _ => false,
                    });
                }
            }
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                push(open.to_owned(), line);
                flatten(group.stream(), tests, tokens);
                let line = group.span_close().start().line;
                tokens.push(Token {
                    text: close.to_owned(),
                    line,
                });
            }
            other => push(other.to_string(), line),
        }
    }
}

fn is_attribute(tree: Option<&TokenTree>, start: &str) -> bool {
    let Some(TokenTree::Group(group)) = tree else {
        return false;
    };
    group.delimiter() == Delimiter::Bracket && group.stream().to_string().starts_with(start)
}

/// The first names of all paths that begin with `crate`, with their lines.
fn imports(tokens: &[Token]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.text != "crate" || tokens.get(at + 1).is_none_or(|next| next.text != ":") {
            continue;
        }
        let Some(first) = tokens.get(at + 3) else { continue };
        if first.text != "{" {
            found.push((first.text.clone(), first.line));
            continue;
        }
        let mut depth = 0;
        for (before, token) in tokens[at + 3..].iter().zip(&tokens[at + 4..]) {
            match before.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && ["{", ","].contains(&before.text.as_str()) {
                found.push((token.text.clone(), token.line));
            }
        }
    }
    found
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// The room of a file of `src/`: its folder, or itself.
fn room_of(file: &Path) -> String {
    let room = file.components().nth(1).unwrap();
    Path::new(room.as_os_str())
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files that git knows or would take, from the project's root.
fn files() -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the project's files");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let names = String::from_utf8(output.stdout).unwrap();
    let mut files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    files.retain(|file| root().join(file).is_file());
    files.sort();
    files.dedup();
    files
}

fn rust_files(under: &str) -> impl Iterator<Item = PathBuf> {
    files()
        .into_iter()
        .filter(move |file| file.starts_with(under) && has_extension(file, &["rs"]))
}

/// Files that people write and read.
fn text_files() -> impl Iterator<Item = PathBuf> {
    files()
        .into_iter()
        .filter(|file| fs::read(root().join(file)).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok()))
}

fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension()
        .is_some_and(|own| extensions.iter().any(|extension| own == *extension))
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let bytes = text.as_bytes();
        let is_bound =
            |byte: Option<&u8>| byte.is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
        is_bound(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && is_bound(bytes.get(at + word.len()))
    })
}

fn is_path_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-/~}*".contains(&byte)
}

/// The lines of a document that are not in a fenced block, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    numbered(text).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        fenced ^= is_fence;
        !fenced && !is_fence
    })
}

/// The targets of a document's links, with their lines.
fn links(text: &str) -> Vec<(usize, &str)> {
    prose(text)
        .flat_map(|(line, text)| {
            text.match_indices("](").filter_map(move |(at, mark)| {
                let target = &text[at + mark.len()..];
                Some((line, &target[..target.find([')', ' '])?]))
            })
        })
        .collect()
}

/// A document's headings as they are linked to.
fn headings(text: &str) -> impl Iterator<Item = String> {
    prose(text)
        .filter(|(_, line)| line.starts_with('#'))
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|char| char.is_alphanumeric() || " -_".contains(*char));
            kept.map(|char| if char == ' ' { '-' } else { char }).collect()
        })
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}
