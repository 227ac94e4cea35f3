//! Writes docs/alarms.md's tables: what was measured, by the command that stands there.

use std::fs;
use std::path::Path;

use super::{counts, metrics, nab};

const BEGIN: &str = "<!-- measured: just alarms-report -->";
/// From here on it is of metrics.
const METRICS: &str = "<!-- measured: just alarms-report-metrics -->";
const END: &str = "<!-- end of measured -->";

/// Replaces what stands between the marks.
#[test]
#[ignore = "minutes, and writes docs/alarms.md: `just alarms-report`"]
fn of_counts() {
    write(BEGIN, METRICS, &counts::full_report());
}

/// As above, of metrics alone.
#[test]
#[ignore = "a minute, and writes docs/alarms.md: `just alarms-report-metrics`"]
fn of_metrics() {
    let (recorded, made_up) = (nab::report(), metrics::report());
    let text = format!(
        "### Metrics: the Numenta Anomaly Benchmark, its dev half\n\n{recorded}\n### Metrics: made up series\n\n{made_up}"
    );
    write(METRICS, END, &text);
}

fn write(begin: &str, end: &str, measured: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alarms.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(begin).expect("the page has the mark");
    let (_, after) = rest.split_once(end).expect("the page has the mark");
    println!("{measured}");
    fs::write(&path, format!("{before}{begin}\n\n{measured}\n{end}{after}")).unwrap();
}
