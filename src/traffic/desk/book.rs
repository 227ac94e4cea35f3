//! The alarms that are kept, what is muted, and what happened to which alarm since somebody asked.
//!
//! Keeps so many and forgets the oldest; decides nothing.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::limits::ALARMS_KEPT_MAX;
use crate::traffic::alarm::Finding;
use crate::traffic::desk::Stream;

/// One alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// Its number.
    pub id: u64,
    /// What it is about.
    pub stream: Stream,
    /// What was found; while it is open, as it is now.
    pub finding: Finding,
    /// When it was raised, in seconds since 1970.
    pub opened_unix_s: u64,
    /// When it was over; `None`: it is open.
    pub closed_unix_s: Option<u64>,
    /// What became of it.
    pub outcome: Option<String>,
    /// Who has taken note of it.
    pub acknowledged_by: Option<String>,
    /// Its stream was muted when it was raised: nobody was told.
    pub is_muted: bool,
}

/// What happened to an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It was raised.
    Opened,
    /// It goes on.
    Updated,
    /// It is over.
    Closed,
}

/// See the module's documentation. Owned by the desk.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct AlarmBook {
    /// Until when each is muted, in seconds since 1970.
    pub(super) muted: BTreeMap<Stream, u64>,
    pub(super) alarms: VecDeque<Alarm>,
    next_id: u64,
    #[serde(skip)]
    events: Vec<(Step, u64)>,
}

impl AlarmBook {
    /// Raises an alarm. Returns its number.
    pub(super) fn open(&mut self, stream: Stream, finding: Finding, unix_s: u64) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let muted_until = self.muted.get(&stream).copied();
        self.alarms.push_back(Alarm {
            id,
            stream,
            finding,
            opened_unix_s: unix_s,
            closed_unix_s: None,
            outcome: None,
            acknowledged_by: None,
            is_muted: muted_until.is_some_and(|until| until > unix_s),
        });
        if self.alarms.len() > ALARMS_KEPT_MAX {
            self.alarms.pop_front();
        }
        self.events.push((Step::Opened, id));
        id
    }

    /// Ends an alarm; without an outcome, nobody is told.
    pub(super) fn close(&mut self, id: u64, unix_s: u64, outcome: Option<&str>) {
        if let Some(alarm) = self.alarms.iter_mut().find(|alarm| alarm.id == id) {
            alarm.closed_unix_s = Some(unix_s);
            alarm.outcome = outcome.map(str::to_owned);
            if outcome.is_some() {
                self.events.push((Step::Closed, id));
            }
        }
    }

    /// Ends all open alarms about something: one may have come on top of another.
    pub(super) fn close_all(&mut self, stream: &Stream, unix_s: u64, outcome: &str) {
        for alarm in &mut self.alarms {
            if alarm.closed_unix_s.is_none() && alarm.stream == *stream {
                alarm.closed_unix_s = Some(unix_s);
                alarm.outcome = Some(outcome.to_owned());
                self.events.push((Step::Closed, alarm.id));
            }
        }
    }

    /// Changes what was found as an alarm goes on. Whether somebody is told is for the caller to say.
    pub(super) fn update(&mut self, id: u64, is_told: bool, change: impl FnOnce(&mut Finding)) {
        if let Some(alarm) = self.alarms.iter_mut().find(|alarm| alarm.id == id) {
            change(&mut alarm.finding);
            if is_told {
                self.events.push((Step::Updated, id));
            }
        }
    }

    /// What happened since this was asked the last time.
    pub(super) fn poll(&mut self) -> Vec<(Step, Alarm)> {
        let events = std::mem::take(&mut self.events);
        let alarm = |(step, id)| Some((step, self.get(id)?.clone()));
        events.into_iter().filter_map(alarm).collect()
    }

    pub(super) fn get(&self, id: u64) -> Option<&Alarm> {
        self.alarms.iter().find(|alarm| alarm.id == id)
    }
}
