//! Whether docs/protocol.md and the tests belong together: every numbered sentence has a test that names it, and no
//! test names a number that there is not.
//!
//! Reads text; runs none of it. A test names what it shows in a comment right above it: `// protocol: P-001, P-002`,
//! in Python `# protocol: P-001`.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MARKER: &str = "protocol:";

#[test]
fn every_sentence_of_the_protocol_is_tested() {
    let document = read(&project().join("docs/protocol.md"));
    let (numbers, mut wrong) = numbers_of(&document);
    assert!(numbers.len() > 50, "the document has its numbers");
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in sources() {
        let place = file
            .strip_prefix(project())
            .unwrap_or(&file)
            .display()
            .to_string();
        let (markers, mistakes) = markers_of(&read(&file));
        wrong.extend(mistakes.into_iter().map(|mistake| format!("{place}:{mistake}")));
        for (line, number) in markers {
            named.entry(number).or_default().push(format!("{place}:{line}"));
        }
    }
    let untested = numbers.iter().filter(|number| !named.contains_key(*number));
    wrong.extend(untested.map(|number| format!("docs/protocol.md: no test names {number}")));
    for (number, places) in named.iter().filter(|(number, _)| !numbers.contains(*number)) {
        wrong.push(format!("{}: docs/protocol.md has no {number}", places.join(", ")));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The numbers of the document, and what is wrong with it: after the first heading of a section, everything is a
/// numbered sentence, an explanation, or the frame of a table.
fn numbers_of(document: &str) -> (BTreeSet<String>, Vec<String>) {
    let mut numbers = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut last = String::new();
    let sections = document
        .lines()
        .enumerate()
        .skip_while(|(_, line)| !line.starts_with("## "));
    for (index, line) in sections {
        let line_number = index + 1;
        if line.starts_with("## ") {
            last.clear();
        } else if let Some(sentence) = line.strip_prefix("- **") {
            let number = sentence.split_once("** ").map(|(number, _)| number.to_owned());
            match number.filter(|number| is_number(number)) {
                None => wrong.push(format!(
                    "docs/protocol.md:{line_number}: expected - **P-000** and a sentence"
                )),
                Some(number) => {
                    if number <= last {
                        wrong.push(format!(
                            "docs/protocol.md:{line_number}: {number} comes after {last}"
                        ));
                    } else if numbers.contains(&number) {
                        wrong.push(format!("docs/protocol.md:{line_number}: a second {number}"));
                    }
                    last.clone_from(&number);
                    numbers.insert(number);
                }
            }
        } else if !(line.is_empty() || ["  ", ">", "|"].iter().any(|start| line.starts_with(start))) {
            wrong.push(format!(
                "docs/protocol.md:{line_number}: neither a numbered sentence nor an explanation: {line:?}"
            ));
        }
    }
    (numbers, wrong)
}

/// The numbers that tests name, with their lines, and the markers that are none.
fn markers_of(source: &str) -> (Vec<(usize, String)>, Vec<String>) {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    let mut markers = Vec::new();
    let mut wrong = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let comment = ["// ", "# "].iter().find_map(|start| line.strip_prefix(start));
        let Some(list) = comment.and_then(|text| text.strip_prefix(MARKER)) else {
            continue;
        };
        let below = lines.get(index + 1..).unwrap_or_default();
        if !is_test(below) {
            wrong.push(format!(
                "{}: a marker stands right above a test that runs",
                index + 1
            ));
        }
        for number in list.split(',').map(str::trim) {
            if is_number(number) {
                markers.push((index + 1, number.to_owned()));
            } else {
                wrong.push(format!("{}: {number:?} is not a number such as P-001", index + 1));
            }
        }
    }
    (markers, wrong)
}

/// Whether a test begins here, in Rust, JavaScript or Python, after further comments and attributes.
fn is_test(lines: &[&str]) -> bool {
    let mut is_rust_test = false;
    for line in lines {
        let is_comment = line.starts_with("//") || line.starts_with("# ");
        let is_attribute = line.starts_with("#[") || line.starts_with("@pytest.mark.parametrize");
        if line.contains("ignore") || line.contains("skip") {
            return false;
        }
        is_rust_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        if is_comment || is_attribute || line.is_empty() {
            continue;
        }
        let is_argument = line.starts_with('(') || line.starts_with(')') || line.starts_with('"');
        if is_argument {
            continue;
        }
        let is_function = line.starts_with("fn ") || line.starts_with("async fn ");
        let is_python_test = line.starts_with("def test_") || line.starts_with("async def test_");
        return (is_rust_test && is_function) || line.starts_with("test(\"") || is_python_test;
    }
    false
}

/// `P-` and three digits.
fn is_number(text: &str) -> bool {
    text.strip_prefix("P-")
        .is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// All files that may hold tests.
fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders: Vec<_> = ["src", "tests", "relays"]
        .map(|folder| project().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_ours = !name.starts_with('.') && name != "node_modules" && name != "target";
            let is_this = path == project().join("tests/docs.rs");
            let is_source = path
                .extension()
                .is_some_and(|extension| ["rs", "mjs", "js", "py"].iter().any(|known| extension == *known));
            if is_ours && path.is_dir() {
                folders.push(path);
            } else if is_ours && is_source && !is_this {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn markers_are_found_above_tests_alone() {
    let check = |source: &str, expected: &[&str], mistakes: usize| {
        let (markers, wrong) = markers_of(source);
        let numbers: Vec<_> = markers.iter().map(|(_, number)| number.as_str()).collect();
        assert_eq!(
            (numbers.as_slice(), wrong.len()),
            (expected, mistakes),
            "{source}"
        );
    };
    check(
        "// protocol: P-001, P-002\n#[test]\nfn a() {",
        &["P-001", "P-002"],
        0,
    );
    check(
        "    // protocol: P-001\n    // And why.\n    #[tokio::test]\n    async fn a() {",
        &["P-001"],
        0,
    );
    check("// protocol: P-001\ntest(\"a\", async (t) => {", &["P-001"], 0);
    check("# protocol: P-001\nasync def test_a(client):", &["P-001"], 0);
    check(
        "# protocol: P-001\n@pytest.mark.parametrize(\n    (\"a\"), [1]\n)\nasync def test_a(a):",
        &["P-001"],
        0,
    );
    check("let text = \"// protocol: P-001\";", &[], 0);
    check("// protocol: P-001\nfn helper() {", &["P-001"], 1);
    check("// protocol: P-001\n#[test]\n#[ignore]\nfn a() {", &["P-001"], 1);
    check("// protocol: P-001\ntest.skip(\"a\", () => {", &["P-001"], 1);
    check("// protocol: P-1\n#[test]\nfn a() {", &[], 1);
    check("// protocol: P-001", &["P-001"], 1);
}

#[test]
fn numbers_are_found_and_everything_else_is_explained() {
    let check = |document: &str, expected: &[&str], mistakes: usize| {
        let (numbers, wrong) = numbers_of(document);
        let numbers: Vec<_> = numbers.iter().map(String::as_str).collect();
        assert_eq!(
            (numbers.as_slice(), wrong.len()),
            (expected, mistakes),
            "{wrong:?}"
        );
    };
    let good = "# Title\n\nWords.\n\n## One\n\n- **P-001** A sentence\n  in two lines.\n- **P-003** Another.\n\n> Why.\n";
    check(good, &["P-001", "P-003"], 0);
    check("## One\n- **P-002** A.\n- **P-001** B.\n", &["P-001", "P-002"], 1);
    check("## One\n- **P-001** A.\n- **P-001** B.\n", &["P-001"], 1);
    check(
        "## One\n- **P-002** A.\n## Two\n- **P-001** B.\n",
        &["P-001", "P-002"],
        0,
    );
    check("## One\n- **P-001** A.\n## Two\n- **P-001** B.\n", &["P-001"], 1);
    check("## One\n- A sentence without a number.\n", &[], 1);
    check("## One\nThe server must.\n", &[], 1);
    check("## One\n- **P-1** A.\n", &[], 1);
}
