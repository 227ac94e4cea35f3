//! `exocom alarms backtest`: what it flags, what it writes, what it refuses.

use std::fmt::Write as _;
use std::fs;

use serde_json::Value;
use time::OffsetDateTime;

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

/// However a series is written, its scores are the same, and the times stand as they were given.
#[test]
fn series_are_read_as_tools_write_them() {
    let folder = folder();
    let folder = folder.path();
    let plain = counts(TICKS);
    let rows: Vec<_> = plain
        .lines()
        .skip(1)
        .map(|row| row.split_once(',').unwrap())
        .collect();
    let time = |unix_s: &str, form: usize| {
        let moment = OffsetDateTime::from_unix_timestamp(unix_s.parse().unwrap()).unwrap();
        let (date, (hour, minute, second)) = (moment.date(), moment.time().as_hms());
        match form {
            0 => format!("{date} {hour:02}:{minute:02}:{second:02}"),
            1 => format!("{date}T{hour:02}:{minute:02}:{second:02}.000Z"),
            2 => format!("{date}T{hour:02}:{minute:02}:{second:02}+00:00"),
            _ => format!("{unix_s}000"),
        }
    };
    let header = "\u{feff}\"host\",\"timestamp\",\"value\"\r\n".to_owned();
    let quoted = rows.iter().fold(header, |text, (unix_s, count)| {
        text + &format!("\"a, \"\"b\"\"\",\"{unix_s}\",\"{count}\"\r\n")
    });
    write(folder, "plain.csv", &plain);
    write(folder, "quoted.csv", &quoted);
    let mut files = vec!["plain.csv".to_owned(), "quoted.csv".to_owned()];
    for form in 0..4 {
        let lines = rows
            .iter()
            .map(|(unix_s, count)| format!("{},{count}\n", time(unix_s, form)));
        files.push(format!("form{form}.csv"));
        write(
            folder,
            files.last().unwrap(),
            &("timestamp,value\n".to_owned() + &lines.collect::<String>()),
        );
    }
    for kind in ["count", "metric"] {
        let mut args = vec!["alarms", "backtest", "--kind", kind, "--scores", "out"];
        args.extend(files.iter().map(String::as_str));
        succeeds(folder, &args);
        let read = |name: &str| -> Vec<(String, String)> {
            let text = fs::read_to_string(folder.join("out").join(name)).unwrap();
            let rows = text.lines().skip(1).map(|row| row.split_once(',').unwrap());
            rows.map(|(time, rest)| (time.to_owned(), rest.to_owned()))
                .collect()
        };
        let first = read("plain.csv");
        assert!(first.iter().any(|(_, rest)| rest.ends_with(",1")), "{kind}");
        for (form, name) in files.iter().enumerate() {
            let others = read(name);
            assert_eq!(others.len(), first.len(), "{kind} {name}");
            for ((unix_s, rest), (other, same)) in first.iter().zip(&others) {
                assert_eq!(rest, same, "{kind} {name} {other}");
                let given = if form < 2 {
                    unix_s.clone()
                } else {
                    time(unix_s, form - 2)
                };
                assert_eq!(*other, given, "{kind} {name}");
            }
        }
    }
}

#[test]
fn what_is_missing_says_nothing_and_has_a_row() {
    let folder = folder();
    let folder = folder.path();
    let missing = TICKS - 1_000..TICKS - 20;
    let text = counts(TICKS);
    let text = text.lines().enumerate().map(|(line, row)| {
        let is_missing = missing.contains(&(line as u64));
        let value = if line % 2 == 0 { "" } else { "NaN" };
        let row = if is_missing {
            format!("{},{value}", row.split_once(',').unwrap().0)
        } else {
            row.to_owned()
        };
        row + "\n"
    });
    write(folder, "missing.csv", &text.collect::<String>());
    for kind in ["count", "metric"] {
        let args = [
            "alarms",
            "backtest",
            "--kind",
            kind,
            "--scores",
            "out",
            "missing.csv",
        ];
        let said = succeeds(folder, &args);
        assert!(!said.contains(" silence: "), "{said}");
        let scores = fs::read_to_string(folder.join("out/missing.csv")).unwrap();
        let rows: Vec<_> = scores.lines().skip(1).collect();
        assert_eq!(rows.len() as u64, TICKS, "{kind}");
        for row in &rows[TICKS as usize - 900..TICKS as usize - 100] {
            assert!(row.ends_with(",0.0000,0"), "{kind}: {row}");
        }
    }
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
