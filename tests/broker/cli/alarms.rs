//! `exocom alarms backtest`: what it flags, what it writes, what it refuses.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::{fails, folder, succeeds, write};

const TICKS: u64 = 3 * 8_640;
const BURST: std::ops::Range<u64> = 24_000..24_030;
/// 2026-01-05T00:00:00Z, in ticks.
const FIRST: u64 = 176_757_120;

/// A number that looks like chance, 0 to 1.
fn chance(tick: u64) -> f64 {
    (tick.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 24)
}

/// Some 20 a tick for three days, and five minutes of 200.
fn counts(ticks: u64) -> String {
    (0..ticks).fold("timestamp,value\n".to_owned(), |mut text, tick| {
        let usual = 15.0 + 10.0 * chance(tick);
        let count = if BURST.contains(&tick) {
            10.0 * usual
        } else {
            usual
        } as u32;
        writeln!(text, "{},{count}", 10 * (FIRST + tick)).unwrap();
        text
    })
}

#[test]
fn a_burst_is_one_alarm_in_words_in_json_and_in_the_scores() {
    let folder = folder();
    let folder = folder.path();
    write(folder, "web.csv", &counts(TICKS));
    let said = succeeds(folder, &["alarms", "backtest", "--kind", "count", "web.csv"]);
    let [alarm, summary] = said.lines().collect::<Vec<_>>()[..] else {
        panic!("{said}")
    };
    assert_eq!(summary, "web.csv: 1 alarm in 25920 rows");
    assert!(
        alarm.starts_with("web.csv: 2026-01-07T18:40:") && alarm.contains(" burst: "),
        "{alarm}"
    );
    assert!(
        alarm.contains(" over 10 s, expected ") && alarm.contains(", over 2026-01-07T18:5"),
        "{alarm}"
    );

    let json = [
        "alarms", "backtest", "--kind", "count", "--json", "--scores", "out", "web.csv",
    ];
    let json: Value = serde_json::from_str(&succeeds(folder, &json)).expect("it is JSON");
    let [alarm] = &json["files"][0]["alarms"].as_array().expect("a list")[..] else {
        panic!("{json}")
    };
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((15.0..30.0).contains(&number(&alarm["seen"])), "{alarm}");
    assert!(
        number(&alarm["expected"][0]) < 2.0 && number(&alarm["expected"][1]) > 2.0,
        "{alarm}"
    );
    assert_eq!(alarm["since_unix_s"], 10 * (FIRST + BURST.start));

    let scores = fs::read_to_string(folder.join("out/web.csv")).expect("it was written");
    let rows: Vec<_> = scores.lines().collect();
    assert_eq!(
        (rows[0], rows.len() as u64),
        ("timestamp,value,score,alarm", TICKS + 1)
    );
    let flagged: Vec<_> = rows[1..].iter().filter(|row| row.ends_with(",1")).collect();
    let [flagged] = flagged[..] else {
        panic!("{flagged:?}")
    };
    let cells: Vec<f64> = flagged.split(',').map(|cell| cell.parse().unwrap()).collect();
    assert!(
        BURST.contains(&(cells[0] as u64 / 10 - FIRST)) && cells[2] >= 1.0,
        "{flagged}"
    );
}

#[test]
fn a_score_depends_on_nothing_that_comes_later() {
    let folder = folder();
    let folder = folder.path();
    for kind in ["count", "metric"] {
        write(folder, "whole.csv", &counts(TICKS));
        write(folder, "half.csv", &counts(TICKS / 2));
        succeeds(
            folder,
            &[
                "alarms",
                "backtest",
                "--kind",
                kind,
                "--scores",
                "out",
                "whole.csv",
                "half.csv",
            ],
        );
        let read = |name: &str| fs::read_to_string(folder.join("out").join(name)).unwrap();
        let (whole, half) = (read("whole.csv"), read("half.csv"));
        assert!(half.len() > 100_000 && whole.starts_with(&half), "{kind}");
    }
}

#[test]
fn ticks_that_are_left_out_had_no_message() {
    let folder = folder();
    let folder = folder.path();
    let silent = TICKS - 200..TICKS - 20;
    let text = counts(TICKS);
    let rows = text
        .lines()
        .enumerate()
        .filter(|&(line, _)| !silent.contains(&(line as u64)));
    let text: Vec<_> = rows.map(|(_, row)| row).collect();
    write(folder, "gap.csv", &text.join("\n"));
    let said = succeeds(
        folder,
        &[
            "alarms",
            "backtest",
            "--kind",
            "count",
            "--interval",
            "10s",
            "gap.csv",
        ],
    );
    assert!(
        said.contains(" silence: nothing for ") && said.contains("gap.csv: 2 alarms in 25740 rows"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let folder = folder();
    let folder = folder.path();
    let check = |text: &str, kind: &str, told: &str| {
        write(folder, "bad.csv", text);
        fails(
            folder,
            &["alarms", "backtest", "--kind", kind, "bad.csv"],
            1,
            &[told],
        );
    };
    check("10,1\n", "count", "bad.csv:1: the first line names the columns");
    check(
        "timestamp,value\n10,1.5\n20,2\n",
        "count",
        "bad.csv:2: `1.5` is no count",
    );
    check(
        "timestamp,value\n10,1\n20,-2\n",
        "count",
        "bad.csv:3: `-2` is no count",
    );
    check(
        "timestamp,value\n20,1\n10,2\n",
        "count",
        "bad.csv:3: the time goes back",
    );
    check(
        "timestamp,value\n20,1\n10,x\n",
        "metric",
        "bad.csv:3: `x` is no number",
    );
    check(
        "timestamp,value\n10,1\n20,2\n9000000000,3\n",
        "count",
        "bad.csv:4: ",
    );
    let missing = ["alarms", "backtest", "--kind", "count", "none.csv"];
    fails(folder, &missing, 1, &["none.csv: cannot be read"]);
    write(folder, "good.csv", "timestamp,value\n10,1\n");
    let itself = [
        "alarms", "backtest", "--kind", "count", "--scores", ".", "good.csv",
    ];
    fails(folder, &itself, 1, &["would replace the input"]);
}
