//! Writes docs/alarms.md's tables: what was measured, by the command that stands there.

use std::fs;
use std::path::Path;

use super::{counts, nab};

const BEGIN: &str = "<!-- measured: just alarms-report -->";
const END: &str = "<!-- end of measured -->";

/// Replaces what stands between the marks.
#[test]
#[ignore = "minutes, and writes docs/alarms.md: `just alarms-report`"]
fn write() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alarms.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the page has the mark");
    let (_, after) = rest.split_once(END).expect("the page has the mark");
    let counts = counts::full_report();
    let recorded = nab::report();
    let measured =
        format!("{counts}\n### Metrics: the Numenta Anomaly Benchmark, its dev half\n\n{recorded}");
    println!("{measured}");
    fs::write(&path, format!("{before}{BEGIN}\n\n{measured}\n{END}{after}")).unwrap();
}
