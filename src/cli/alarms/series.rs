//! Reads recorded series: CSV files with a header line, a time and a value a row. Knows no detector.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::SERIES_LINE_BYTES_MAX;

/// How tools write that a value is missing.
const MISSING: [&str; 6] = ["", "nan", "na", "n/a", "null", "none"];
/// Times from here on are in milliseconds: as seconds, they would be after the year 5000.
const MILLISECONDS_FROM: f64 = 1e11;

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// The number of its line, from 1.
    pub(super) line: usize,
    /// The time, as it stands there.
    pub(super) time: String,
    /// The value, as it stands there.
    pub(super) text: String,
    /// The time, in seconds since 1970.
    pub(super) unix_s: u64,
    /// The value; `None` where it is missing.
    pub(super) value: Option<f64>,
}

/// Why a series cannot be read. Each names the file and the line.
#[derive(Debug, thiserror::Error)]
pub(super) enum SeriesError {
    #[error("{path}: cannot be read: {error}")]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{path}:{line}: {reason}")]
    Malformed {
        path: PathBuf,
        line: usize,
        reason: String,
    },
}

/// A file that is being read, row by row: it may be larger than memory.
pub(super) struct Series<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    line: usize,
    time_column: usize,
    value_column: usize,
}

impl Series {
    /// Opens a file and reads its header line.
    pub(super) fn open(path: &Path) -> Result<Self, SeriesError> {
        let file = File::open(path).map_err(|error| SeriesError::Unreadable {
            path: path.to_owned(),
            error,
        })?;
        Self::new(path, BufReader::new(file))
    }
}

impl<R: BufRead> Series<R> {
    fn new(path: &Path, input: R) -> Result<Self, SeriesError> {
        let mut series = Self {
            path: path.to_owned(),
            input,
            line: 0,
            time_column: 0,
            value_column: 1,
        };
        let header = series.next_line()?.unwrap_or_default();
        let names: Vec<_> = fields(&header)
            .iter()
            .map(|name| name.to_ascii_lowercase())
            .collect();
        let column = |name: &str| names.iter().position(|column| column == name);
        match (column("timestamp"), column("value")) {
            (Some(time), Some(value)) => (series.time_column, series.value_column) = (time, value),
            _ => {
                let reason = format!(
                    "the first line names the columns, and must name `timestamp` and `value`: found {}",
                    quote(&header)
                );
                return Err(series.malformed(reason));
            }
        }
        Ok(series)
    }

    /// The next row, unless there is none. Empty lines are none.
    pub(super) fn next_row(&mut self) -> Result<Option<Row>, SeriesError> {
        loop {
            let Some(line) = self.next_line()? else {
                return Ok(None);
            };
            if line.trim().is_empty() {
                continue;
            }
            let fields = fields(&line);
            let column = |index: usize| fields.get(index).map(AsRef::as_ref);
            let (Some(time), Some(text)) = (column(self.time_column), column(self.value_column)) else {
                return Err(self.malformed(format!(
                    "a row has a timestamp and a value: found {}",
                    quote(&line)
                )));
            };
            let unix_s = unix_s(time).ok_or_else(|| {
                let wanted = "write 2014-04-01 00:00:00, 2014-04-01T00:00:00Z or seconds since 1970";
                self.malformed(format!("{} is no time; {wanted}", quote(time)))
            })?;
            let value = if MISSING.iter().any(|missing| text.eq_ignore_ascii_case(missing)) {
                None
            } else {
                let value = text.parse().ok().filter(|value: &f64| value.is_finite());
                Some(value.ok_or_else(|| self.malformed(format!("{} is no number", quote(text))))?)
            };
            return Ok(Some(Row {
                line: self.line,
                time: time.to_owned(),
                text: text.to_owned(),
                unix_s,
                value,
            }));
        }
    }

    /// What is wrong with the line that was read last.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> SeriesError {
        self.malformed_at(self.line, reason)
    }

    /// What is wrong with a line.
    pub(super) fn malformed_at(&self, line: usize, reason: impl Into<String>) -> SeriesError {
        SeriesError::Malformed {
            path: self.path.clone(),
            line,
            reason: reason.into(),
        }
    }

    fn next_line(&mut self) -> Result<Option<String>, SeriesError> {
        let mut bytes = Vec::new();
        let mut limited = (&mut self.input).take(SERIES_LINE_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        self.line += 1;
        let read = read.map_err(|error| SeriesError::Unreadable {
            path: self.path.clone(),
            error,
        })?;
        if read == 0 {
            return Ok(None);
        }
        if read > SERIES_LINE_BYTES_MAX {
            return Err(self.malformed(format!("a line is longer than {SERIES_LINE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.malformed("the line is not UTF-8"))?;
        let text = if self.line == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            &text
        };
        Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
    }
}

/// The fields of a line, as in RFC 4180, but for line ends within a field.
fn fields(line: &str) -> Vec<Cow<'_, str>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let begin = rest.trim_start();
        let Some(quoted) = begin.strip_prefix('"') else {
            let (field, after) = begin.split_once(',').unzip();
            fields.push(Cow::Borrowed(field.unwrap_or(begin).trim()));
            match after {
                Some(after) => rest = after,
                None => return fields,
            }
            continue;
        };
        // A quote within a field is written twice.
        let mut end = 0;
        loop {
            let rest = quoted.get(end..).unwrap_or_default();
            end += rest.find('"').unwrap_or(rest.len());
            if !quoted.get(end..).is_some_and(|text| text.starts_with("\"\"")) {
                break;
            }
            end += 2;
        }
        let (field, after) = quoted.split_at_checked(end).unwrap_or((quoted, ""));
        let field = field.trim();
        fields.push(if field.contains('"') {
            Cow::Owned(field.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(field)
        });
        match after.split_once(',') {
            Some((_, after)) => rest = after,
            None => return fields,
        }
    }
}

/// A time as people and programs write it, in seconds since 1970. What names no zone is UTC.
fn unix_s(text: &str) -> Option<u64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let is_time = (0.0..1e3 * MILLISECONDS_FROM).contains(&seconds);
        let seconds = if seconds < MILLISECONDS_FROM {
            seconds
        } else {
            seconds / 1e3
        };
        return is_time.then_some(seconds as u64);
    }
    let (date, time) = text.split_once([' ', 'T', 't']).unwrap_or((text, "00:00:00Z"));
    let time = time.trim();
    let zone_at = time.find(['Z', 'z', '+', '-']);
    let (clock, zone) = time.split_at(zone_at.unwrap_or(time.len()));
    let clock = clock.trim();
    let seconds = if clock.len() == 5 { ":00" } else { "" };
    let zone = match zone {
        "" => "Z".to_owned(),
        zone if zone.len() == 5 && !zone.contains(':') => {
            let (hours, minutes) = zone.split_at(3);
            format!("{hours}:{minutes}")
        }
        zone => zone.to_ascii_uppercase(),
    };
    let whole = format!("{date}T{clock}{seconds}{zone}");
    let moment = OffsetDateTime::parse(&whole, &Rfc3339).ok()?;
    u64::try_from(moment.unix_timestamp()).ok()
}

/// Something from the file, as much as a line of an error bears.
fn quote(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", shown.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for text in [
            "2014-04-01 00:00:00",
            "2014-04-01T00:00:00",
            "2014-04-01T00:00:00Z",
            "2014-04-01 00:00:00.750",
            "2014-04-01T02:00:00+02:00",
            "2014-03-31 19:00:00-0500",
            "2014-04-01 00:00",
            "2014-04-01",
            "1396310400",
            "1396310400.5",
            "1396310400000",
        ] {
            assert_eq!(unix_s(text), Some(1_396_310_400), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2014-13-01 00:00:00",
            "01.04.2014 00:00",
            "-5",
            "1e300",
            "NaN",
        ] {
            assert_eq!(unix_s(text), None, "{text}");
        }
    }

    fn read(text: &str) -> Result<Vec<(u64, Option<f64>)>, String> {
        let read = || {
            let mut series = Series::new(Path::new("x.csv"), text.as_bytes())?;
            let mut rows = Vec::new();
            while let Some(row) = series.next_row()? {
                rows.push((row.unix_s, row.value));
            }
            Ok(rows)
        };
        read().map_err(|error: SeriesError| error.to_string())
    }

    #[test]
    fn fields_are_split_as_they_were_joined() {
        let check = |line: &str, wanted: &[&str]| assert_eq!(fields(line), wanted, "{line}");
        check("", &[""]);
        check("a, b ,", &["a", "b", ""]);
        check(r#""a,b","c""d",e"#, &["a,b", "c\"d", "e"]);
        check(r#" "a" , "" ,"""" "#, &["a", "", "\""]);
        check(r#""never closed, ""#, &["never closed,"]);
        check(r#""never closed, é"#, &["never closed, é"]);
    }

    #[test]
    fn rows_are_read_and_mistakes_are_placed() {
        let good = "\u{feff}timestamp,value\r\n100,1\r\n\r\n\"110\", 2.5e1 \n";
        assert_eq!(read(good), Ok(vec![(100, Some(1.0)), (110, Some(25.0))]));
        let other = "host,\"Value\",timestamp\n\"a, \"\"b\"\"\",7,100\nc,,110\nd,NaN,120\n";
        assert_eq!(read(other), Ok(vec![(100, Some(7.0)), (110, None), (120, None)]));
        let check = |text: &str, place: &str, reason: &str| {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(place) && error.contains(reason), "{error}");
        };
        check("", "x.csv:1: ", "must name `timestamp` and `value`");
        check("100,1\n110,2\n", "x.csv:1: ", "found `100,1`");
        check(
            "timestamp,value\n100,1\nsoon,2\n",
            "x.csv:3: ",
            "`soon` is no time",
        );
        check("timestamp,value\n100,one\n", "x.csv:2: ", "`one` is no number");
        check("timestamp,value\n100,inf\n", "x.csv:2: ", "`inf` is no number");
        check("timestamp,value\n100\n", "x.csv:2: ", "found `100`");
        let long = format!("timestamp,value\n100,{}\n", "1".repeat(SERIES_LINE_BYTES_MAX));
        check(&long, "x.csv:2: ", "longer than");
    }
}
