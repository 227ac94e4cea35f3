//! What operators hear of a candidate policy that is tried beside the one in force.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::console::status::rfc3339;

/// What a candidate would have done otherwise than the policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowReport {
    /// The candidate's version, as it would be were it applied.
    pub candidate: String,
    /// Its files, as the operator named them.
    pub files: Vec<String>,
    /// The version of the policy in force; where the trial has ended, of the one that was.
    pub in_force: String,
    /// Who tries it.
    pub who: String,
    /// Why, where somebody said so.
    pub why: Option<String>,
    /// Since when, in seconds since 1970.
    pub since_unix_s: i64,
    /// When and why the trial ended, if it has.
    pub ended: Option<ShadowEnd>,
    /// All that it would have done otherwise: what it would have denied first, the most first.
    pub flows: Vec<ShadowFlowStatus>,
}

/// How a trial ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowEnd {
    /// When, in seconds since 1970.
    pub at_unix_s: i64,
    /// Who or what ended it.
    pub by: String,
}

/// One flow that would have fared otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowFlowStatus {
    /// `deny` or `allow`: what the candidate would have done.
    pub would: String,
    /// The service.
    pub service: String,
    /// `connect`, `subscribe`, `send` or `receive`.
    pub action: String,
    /// The message name; of a subscription its pattern, of a connection the listener's zone. `None` for all those that
    /// were too many to be told apart.
    pub name: Option<String>,
    /// How often.
    pub count: u64,
    /// When first, in seconds since 1970.
    pub first_unix_s: i64,
    /// When last.
    pub last_unix_s: i64,
    /// The line by which the policy in force decided, or `no grant`.
    pub rule_in_force: String,
    /// The line by which the candidate would have decided, or `no grant`.
    pub rule_of_candidate: String,
    /// The version of the policy that was in force.
    pub in_force: Option<String>,
}

impl ShadowReport {
    /// In a few words, for the log.
    pub fn outcome(&self) -> String {
        let state = if self.ended.is_some() {
            "was tried"
        } else {
            "is tried"
        };
        format!(
            "{} {state}: {} would have been denied, {} allowed",
            self.candidate,
            self.count("deny"),
            self.count("allow")
        )
    }

    /// How much the candidate would have denied or allowed.
    pub fn count(&self, would: &str) -> u64 {
        let flows = self.flows.iter().filter(|flow| flow.would == would);
        flows.map(|flow| flow.count).sum()
    }

    /// The report as text for people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text).expect("a String takes all text");
        text
    }

    fn write_text(&self, out: &mut String) -> std::fmt::Result {
        let why = self.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
        let (verb, until) = match &self.ended {
            None => ("is", String::new()),
            Some(end) => ("was", format!(", until {} ({})", rfc3339(end.at_unix_s), end.by)),
        };
        writeln!(
            out,
            "{} ({}) {verb} tried beside {}, without effect, since {}{until}, by {}{why}",
            self.candidate,
            self.files.join(", "),
            self.in_force,
            rfc3339(self.since_unix_s),
            self.who
        )?;
        if self.flows.is_empty() {
            return writeln!(out, "so far it would have decided all as the policy in force did");
        }
        for (would, title) in [("deny", "would have denied"), ("allow", "would have allowed")] {
            let flows: Vec<_> = self.flows.iter().filter(|flow| flow.would == would).collect();
            if flows.is_empty() {
                continue;
            }
            writeln!(out, "{title}: {}", self.count(would))?;
            table(&flows, out)?;
        }
        if self.flows.iter().any(|flow| flow.name.is_none()) {
            writeln!(
                out,
                "a row of `>` with rules `several` counts what was too much to be told apart; the counts are exact"
            )?;
        }
        Ok(())
    }
}

/// A row a flow, its columns as wide as they must be.
fn table(flows: &[&ShadowFlowStatus], out: &mut String) -> std::fmt::Result {
    let head = [
        "COUNT",
        "SERVICE",
        "ACTION",
        "NAME",
        "IN FORCE",
        "CANDIDATE",
        "FIRST",
        "LAST",
    ];
    let rows = flows.iter().map(|flow| {
        [
            flow.count.to_string(),
            flow.service.clone(),
            flow.action.clone(),
            flow.name.clone().unwrap_or_else(|| ">".to_owned()),
            flow.rule_in_force.clone(),
            flow.rule_of_candidate.clone(),
            rfc3339(flow.first_unix_s),
            rfc3339(flow.last_unix_s),
        ]
    });
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    for row in &rows {
        let mut line = String::new();
        for (place, (cell, width)) in row.iter().zip(widths).enumerate() {
            match place {
                0 => write!(line, "  {cell:>width$}")?,
                _ => write!(line, "  {cell:width$}")?,
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(would: &str, name: Option<&str>, count: u64) -> ShadowFlowStatus {
        ShadowFlowStatus {
            would: would.to_owned(),
            service: "web".to_owned(),
            action: "send".to_owned(),
            name: name.map(str::to_owned),
            count,
            first_unix_s: 0,
            last_unix_s: 60,
            rule_in_force: "policy.toml:9".to_owned(),
            rule_of_candidate: "no grant".to_owned(),
            in_force: None,
        }
    }

    #[test]
    fn a_report_has_a_table_for_each_effect() {
        let mut report = ShadowReport {
            candidate: "0a1b2c3d4e5f".to_owned(),
            files: vec!["next.toml".to_owned()],
            in_force: "5f4e3d2c1b0a".to_owned(),
            who: "alice".to_owned(),
            why: Some("less is enough".to_owned()),
            since_unix_s: 0,
            ended: None,
            flows: Vec::new(),
        };
        let head = "0a1b2c3d4e5f (next.toml) is tried beside 5f4e3d2c1b0a, without effect, since 1970-01-01T00:00:00Z, \
                    by alice: less is enough\n";
        assert_eq!(
            report.to_text(),
            format!("{head}so far it would have decided all as the policy in force did\n")
        );
        report.flows = vec![
            flow("deny", Some("todos.purge"), 12),
            flow("deny", None, 3),
            flow("allow", Some("todos.list"), 1),
        ];
        assert_eq!(
            report.to_text(),
            format!(
                "{head}would have denied: 15\n\
                 \x20 COUNT  SERVICE  ACTION  NAME         IN FORCE       CANDIDATE  FIRST                 LAST\n\
                 \x20    12  web      send    todos.purge  policy.toml:9  no grant   1970-01-01T00:00:00Z  1970-01-01T00:01:00Z\n\
                 \x20     3  web      send    >            policy.toml:9  no grant   1970-01-01T00:00:00Z  1970-01-01T00:01:00Z\n\
                 would have allowed: 1\n\
                 \x20 COUNT  SERVICE  ACTION  NAME        IN FORCE       CANDIDATE  FIRST                 LAST\n\
                 \x20     1  web      send    todos.list  policy.toml:9  no grant   1970-01-01T00:00:00Z  1970-01-01T00:01:00Z\n\
                 a row of `>` with rules `several` counts what was too much to be told apart; the counts are exact\n"
            )
        );
        assert_eq!(
            report.outcome(),
            "0a1b2c3d4e5f is tried: 15 would have been denied, 1 allowed"
        );
    }
}
