//! `exocom alarms backtest`: runs the broker's own detectors over recorded values, row by row as if they came now.
//! Reads no label and looks no row ahead.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::alarms::series::{Row, Series, SeriesError};
use crate::cli::answer::print_json;
use crate::limits::{BACKTEST_GAP_TICKS_MAX, BACKTEST_ROWS_ALIKE_MAX};
use crate::traffic::alarm::{Finding, Unit};
use crate::traffic::count::{Change, CountDetector, Sensitivity};
use crate::traffic::metric::{MetricDetector, Tuning};
use crate::traffic::pace::Pace;

/// Run the detectors over recorded values
#[derive(Debug, Args)]
#[command(
    long_about = "Runs the broker's own detectors over recorded values, and prints the alarms that they would have \
        raised.\n\n\
        A file is CSV with a header line that names the columns `timestamp` and `value`. Times are written \
        `2014-04-01 00:00:00` (UTC), as in RFC 3339, or in seconds since 1970. A row of counts is one tick; ticks that \
        are left out had no message, and the time never goes back. A row of a metric is one measurement. A value that is \
        empty or `NaN` is missing, and says nothing.\n\n\
        The values are read one after the other: what comes later changes nothing.",
    after_long_help = "Examples:\n  \
        exocom alarms backtest --kind count requests.csv\n  \
        exocom alarms backtest --kind count --interval 1m denials/*.csv\n  \
        exocom alarms backtest --kind metric --scores out latency.csv    writes out/latency.csv\n  \
        exocom alarms backtest --kind metric --json load.csv | jq '.files[].alarms[].text'\n\n\
        The files of --scores have the columns timestamp,value,score,alarm. An alarm begins where `alarm` is 1; its score is 1 or more there, and less \
        elsewhere."
)]
pub(super) struct BacktestArgs {
    /// The recorded values
    #[arg(required = true, value_name = "FILE.csv")]
    files: Vec<PathBuf>,
    /// What the values are
    #[arg(long, value_enum)]
    kind: SeriesKind,
    /// How long a tick of counts lasts, such as 10s, 1m or 1h; otherwise as far as the first two rows are apart
    #[arg(long, value_name = "TIME", value_parser = interval_s)]
    interval: Option<u32>,
    /// A folder for the scores: one CSV for each input, under the same file name
    #[arg(long, value_name = "DIR")]
    scores: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SeriesKind {
    /// How many in each tick: messages, denials, errors
    Count,
    /// Continuous values: response times, sizes, load
    Metric,
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Outcome {
    files: Vec<FileOutcome>,
}

#[derive(Debug, Serialize)]
struct FileOutcome {
    file: PathBuf,
    rows: usize,
    alarms: Vec<Alarm>,
}

#[derive(Debug, Serialize)]
struct Alarm {
    /// When it was raised, in seconds since 1970.
    unix_s: u64,
    /// The same for people.
    time: String,
    /// What a person reads.
    text: String,
    #[serde(flatten)]
    finding: Finding,
    /// When it was over, in seconds since 1970, where that is known.
    closed_unix_s: Option<u64>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
}

/// Does it.
pub(super) fn run(args: &BacktestArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let sinks = sinks(args)?;
    let mut outcome = Outcome { files: Vec::new() };
    for (path, sink) in args.files.iter().zip(sinks) {
        let series = Series::open(path)?;
        let mut scores = sink.map(Scores::create).transpose()?;
        let (rows, alarms) = match args.kind {
            SeriesKind::Count => counts(series, args.interval, &mut scores)?,
            SeriesKind::Metric => metric(series, &mut scores)?,
        };
        if let Some(scores) = scores {
            scores.finish()?;
        }
        let file = FileOutcome {
            file: path.clone(),
            rows,
            alarms,
        };
        if !args.json {
            file.print(out)?;
        }
        outcome.files.push(file);
    }
    if args.json {
        print_json(out, &outcome)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl FileOutcome {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let file = self.file.display();
        for alarm in &self.alarms {
            let end = alarm.closed_unix_s.map_or_else(String::new, |unix_s| {
                let what = alarm.outcome.unwrap_or("over");
                format!(", {what} {}", rfc_3339(unix_s))
            });
            writeln!(
                out,
                "{file}: {} {}: {}{end} ({})",
                alarm.time,
                alarm.finding.kind.name(),
                alarm.text,
                alarm.finding.detector
            )?;
        }
        let alarms = match self.alarms.len() {
            1 => "1 alarm".to_owned(),
            number => format!("{number} alarms"),
        };
        writeln!(out, "{file}: {alarms} in {} rows", self.rows)
    }
}

/// Where the scores of each input go; made before anything is read, so that nothing is half done.
fn sinks(args: &BacktestArgs) -> anyhow::Result<Vec<Option<PathBuf>>> {
    let Some(folder) = &args.scores else {
        return Ok(args.files.iter().map(|_| None).collect());
    };
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot make the folder", folder.display()))?;
    let mut names = HashSet::new();
    let mut sinks = Vec::new();
    for input in &args.files {
        let Some(name) = input.file_name() else {
            bail!("{}: is no file", input.display());
        };
        if !names.insert(name) {
            bail!(
                "{}: two inputs have this file name, and their scores would go to one file; give them one by one",
                name.display()
            );
        }
        let sink = folder.join(name);
        if let (Ok(a), Ok(b)) = (sink.canonicalize(), input.canonicalize())
            && a == b
        {
            bail!(
                "{}: the scores would replace the input; name another folder",
                input.display()
            );
        }
        sinks.push(Some(sink));
    }
    Ok(sinks)
}

/// A file of scores being written.
struct Scores {
    path: PathBuf,
    output: BufWriter<File>,
}

impl Scores {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&path).with_context(|| format!("{}: cannot be written", path.display()))?;
        let mut scores = Self {
            output: BufWriter::new(file),
            path,
        };
        scores.write(|output| writeln!(output, "timestamp,value,score,alarm"))?;
        Ok(scores)
    }

    fn row(&mut self, row: &Row, score: f32) -> anyhow::Result<()> {
        let alarm = u8::from(score >= 1.0);
        let (time, text) = (cell(&row.time), cell(&row.text));
        self.write(|output| writeln!(output, "{time},{text},{score:.4},{alarm}"))
    }

    fn finish(mut self) -> anyhow::Result<()> {
        self.write(Write::flush)
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
    ) -> anyhow::Result<()> {
        write(&mut self.output).with_context(|| format!("{}: cannot be written", self.path.display()))
    }
}

/// A field as CSV writes it.
fn cell(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

/// Runs the count detector. Rows of one tick are one count, whose score stands at the last of them; the worst score
/// of ticks that were left out stands at the row after.
fn counts(
    mut series: Series,
    interval_s: Option<u32>,
    scores: &mut Option<Scores>,
) -> anyhow::Result<(usize, Vec<Alarm>)> {
    let mut waiting: Vec<Row> = Vec::new();
    if let Some(first) = series.next_row()? {
        waiting.push(first);
    }
    // Rows that share the first one's time say nothing of a tick's length.
    let mut next = series.next_row()?;
    let mut apart_s = 0;
    while let (Some(first), Some(row)) = (waiting.first(), &next) {
        apart_s = row.unix_s.saturating_sub(first.unix_s);
        if row.unix_s != first.unix_s || interval_s.is_some() {
            break;
        }
        if waiting.len() == BACKTEST_ROWS_ALIKE_MAX {
            let reason = format!(
                "{} rows share one time; say how long a tick is with --interval",
                waiting.len()
            );
            return Err(series.malformed_at(row.line, reason).into());
        }
        waiting.extend(next.take());
        next = series.next_row()?;
    }
    let pace = Pace::new(interval_s.unwrap_or_else(|| u32::try_from(apart_s).unwrap_or(u32::MAX)));
    let mut watch = CountWatch {
        pace,
        detector: CountDetector::default(),
        next_tick: None,
        alarms: Vec::new(),
        open: None,
    };
    let mut rows = 0;
    while let Some(last) = waiting.last() {
        let tick = watch.pace.tick_at(last.unix_s);
        if let Some(row) = next.take() {
            if row.unix_s < last.unix_s {
                return Err(series
                    .malformed_at(row.line, "the time goes back; sort the file by time")
                    .into());
            }
            if watch.pace.tick_at(row.unix_s) == tick {
                waiting.push(row);
                next = series.next_row()?;
                continue;
            }
            next = Some(row);
        }
        let mut count = None;
        for row in &waiting {
            if let Some(more) = whole(&series, row)? {
                count = Some(count.unwrap_or(0_u64).saturating_add(more));
            }
        }
        let count = count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let score = watch
            .take(tick, count)
            .map_err(|reason| series.malformed_at(last.line, reason))?;
        rows += waiting.len();
        if let Some(scores) = scores {
            let at = waiting.len() - 1;
            for (index, row) in waiting.iter().enumerate() {
                scores.row(row, if index == at { score } else { 0.0 })?;
            }
        }
        waiting.clear();
        if let Some(row) = next.take() {
            waiting.push(row);
            next = series.next_row()?;
        }
    }
    Ok((rows, watch.alarms))
}

/// The count of a row; `None` where it is missing.
fn whole(series: &Series, row: &Row) -> Result<Option<u64>, SeriesError> {
    let Some(value) = row.value else {
        return Ok(None);
    };
    if value >= 0.0 && value.fract() == 0.0 && value <= f64::from(u32::MAX) {
        return Ok(Some(value as u64));
    }
    let reason = format!(
        "`{}` is no count: it is a whole number from 0 to {}; use --kind metric for other values",
        row.text,
        u32::MAX
    );
    Err(series.malformed_at(row.line, reason))
}

struct CountWatch {
    pace: Pace,
    detector: CountDetector,
    next_tick: Option<u64>,
    alarms: Vec<Alarm>,
    /// The alarm of the incident under way.
    open: Option<usize>,
}

impl CountWatch {
    /// Takes the count of a tick, and none for each tick left out before it. A missing count says nothing.
    fn take(&mut self, tick: u64, count: Option<u32>) -> Result<f32, String> {
        let first = self.next_tick.unwrap_or(tick);
        let gap = tick.saturating_sub(first);
        if gap > BACKTEST_GAP_TICKS_MAX {
            return Err(format!(
                "{gap} ticks were left out before this row; name a longer --interval, or split the file"
            ));
        }
        let mut score = 0.0_f32;
        for silent in first..tick {
            score = score.max(self.observe(silent, 0));
        }
        self.next_tick = Some(tick + 1);
        match count {
            Some(count) => score = score.max(self.observe(tick, count)),
            None => self.detector.resume(tick + 1),
        }
        Ok(score)
    }

    fn observe(&mut self, tick: u64, count: u32) -> f32 {
        let reading = self
            .detector
            .observe(&self.pace, &Sensitivity::default(), tick, count);
        let end_unix_s = self.pace.unix_s(tick + 1);
        if let Some(onset) = &reading.onset {
            let finding = Finding::of_count(&self.pace, tick, onset);
            self.open = Some(self.alarms.len());
            self.alarms.push(alarm(finding, end_unix_s));
        }
        if let Some(change) = reading.change
            && let Some(open) = self.open.take().and_then(|open| self.alarms.get_mut(open))
        {
            open.closed_unix_s = Some(end_unix_s);
            open.outcome = Some(match change {
                Change::Over => "over",
                Change::OverAndHabitual => "over, and taken for usual from now on,",
                Change::Rebased => "the usual level since",
                Change::Begun => "the beginning of this flow until",
            });
        }
        reading.score
    }
}

/// Runs the metric detector.
fn metric(mut series: Series, scores: &mut Option<Scores>) -> anyhow::Result<(usize, Vec<Alarm>)> {
    let tuning = Tuning::default();
    let mut detector = MetricDetector::default();
    let mut alarms = Vec::new();
    let mut rows = 0;
    while let Some(row) = series.next_row()? {
        rows += 1;
        // What is no number changes nothing.
        let value = row.value.map_or(f32::NAN, |value| value as f32);
        let reading = detector.observe(&tuning, row.unix_s, value);
        if let Some(onset) = &reading.onset {
            alarms.push(alarm(
                Finding::of_metric(Unit::Plain, row.unix_s, onset),
                row.unix_s,
            ));
        }
        if let Some(scores) = scores {
            scores.row(&row, reading.score)?;
        }
    }
    Ok((rows, alarms))
}

fn alarm(finding: Finding, unix_s: u64) -> Alarm {
    let text = finding.words(&rfc_3339(finding.since_unix_s)).to_string();
    Alarm {
        unix_s,
        time: rfc_3339(unix_s),
        text,
        finding,
        closed_unix_s: None,
        outcome: None,
    }
}

fn rfc_3339(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s)
        .ok()
        .and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    moment
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix_s.to_string())
}

/// `10s`, `1m`, `1h`, or a number of seconds.
fn interval_s(text: &str) -> Result<u32, String> {
    let (number, times) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 3_600),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let seconds = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(times));
    let valid = seconds.filter(|seconds| (1..=3_600).contains(seconds));
    valid.ok_or_else(|| "write a time from 1s to 1h, such as 10s, 1m or 1h".to_owned())
}
