//! What a detector's alarms on known traffic are worth: recall, false alarms, delays. Knows no detector.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::generator::{AttackKind, DAY, Flow, HOUR, MINUTE, TICK_S, TICKS};

/// An alarm as late as this after the end of an attack still counts as its detection: one minute.
const LATE: usize = MINUTE;
/// For as long after an attack, an alarm is neither right nor false: the return to the usual is news too.
const SETTLING: usize = HOUR;

/// What was found, missed and made up, in a number of flows.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    /// Weeks of traffic without attack that were watched.
    pub weeks: f64,
    /// Alarms without attack.
    pub false_alarms: usize,
    /// Alarms soon after an attack.
    pub after: usize,
    /// Alarms within an attack, in all.
    pub within: usize,
    /// Attacks.
    pub attacks: usize,
    /// Seconds until each attack that was found was found, ramps apart.
    pub delays_s: Vec<u64>,
    /// The same of ramps.
    pub ramp_delays_s: Vec<u64>,
}

impl Tally {
    /// Adds what alarms, given as ticks at which one begins, say about a flow.
    pub fn add(&mut self, flow: &Flow, alarms: &[usize]) {
        for (attack, delay_s) in found(flow, alarms) {
            self.attacks += 1;
            self.add_delay(attack, delay_s);
        }
        self.add_alarms(flow, alarms);
    }

    fn add_delay(&mut self, attack: AttackKind, delay_s: Option<u64>) {
        match attack {
            AttackKind::Ramp => self.ramp_delays_s.extend(delay_s),
            _ => self.delays_s.extend(delay_s),
        }
    }

    fn add_alarms(&mut self, flow: &Flow, alarms: &[usize]) {
        let attacked: usize = flow.attacks.iter().map(|a| a.end - a.start + SETTLING).sum();
        self.weeks += (TICKS - attacked) as f64 / (7 * DAY) as f64;
        for &alarm in alarms {
            let near = flow
                .attacks
                .iter()
                .rfind(|a| (a.start..a.end + SETTLING).contains(&alarm));
            match near {
                None => self.false_alarms += 1,
                Some(attack) if alarm < attack.end + LATE => self.within += 1,
                Some(_) => self.after += 1,
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.weeks += other.weeks;
        self.false_alarms += other.false_alarms;
        self.after += other.after;
        self.within += other.within;
        self.attacks += other.attacks;
        self.delays_s.extend(&other.delays_s);
        self.ramp_delays_s.extend(&other.ramp_delays_s);
    }

    /// The part of the attacks that was found.
    pub fn recall(&self) -> f64 {
        (self.delays_s.len() + self.ramp_delays_s.len()) as f64 / self.attacks.max(1) as f64
    }

    /// False alarms per flow and week.
    pub fn false_alarms_per_week(&self) -> f64 {
        self.false_alarms as f64 / self.weeks.max(1e-9)
    }

    /// The delay that a part of the found attacks, ramps apart, stayed below.
    pub fn delay_s(&self, part: f64) -> u64 {
        quantile(&self.delays_s, part)
    }
}

/// Each attack, and how long it took to find it.
pub fn found(flow: &Flow, alarms: &[usize]) -> Vec<(AttackKind, Option<u64>)> {
    flow.attacks
        .iter()
        .map(|attack| {
            let alarm = alarms
                .iter()
                .find(|&&a| (attack.start..attack.end + LATE).contains(&a));
            // A tick is known when it is over.
            let delay_s = alarm.map(|a| (a - attack.start + 1) as u64 * TICK_S);
            (attack.kind, delay_s)
        })
        .collect()
}

fn quantile(values: &[u64], part: f64) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

/// Tallies by kind of flow and by kind of attack.
#[derive(Debug, Default)]
pub struct Report {
    kinds: BTreeMap<super::generator::Kind, Tally>,
    attacks: BTreeMap<AttackKind, Tally>,
}

impl Report {
    /// Adds a flow.
    pub fn add(&mut self, flow: &Flow, alarms: &[usize]) {
        self.kinds.entry(flow.kind).or_default().add(flow, alarms);
        for (attack, delay_s) in found(flow, alarms) {
            let tally = self.attacks.entry(attack).or_default();
            tally.attacks += 1;
            tally.add_delay(attack, delay_s);
        }
    }

    /// Everything together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.kinds.values().for_each(|tally| total.merge(tally));
        total
    }

    /// The most false alarms per flow and week of any kind of flow.
    pub fn worst_false_alarms_per_week(&self) -> f64 {
        self.kinds
            .values()
            .map(Tally::false_alarms_per_week)
            .fold(0.0, f64::max)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(
            text,
            "| kind of flow | attacks | recall | false alarms per flow-week | soon after an attack | delay p50 | p90 |"
        )?;
        writeln!(text, "|---|---|---|---|---|---|---|")?;
        for (kind, tally) in &self.kinds {
            row(&mut text, &format!("{kind:?}").to_lowercase(), tally)?;
        }
        row(&mut text, "**all**", &self.total())?;
        writeln!(text, "\n| attack | number | recall | delay p50 | p90 |")?;
        writeln!(text, "|---|---|---|---|---|")?;
        for (attack, tally) in &self.attacks {
            let delays = if tally.delays_s.is_empty() {
                &tally.ramp_delays_s
            } else {
                &tally.delays_s
            };
            writeln!(
                text,
                "| {} | {} | {:.3} | {} s | {} s |",
                format!("{attack:?}").to_lowercase(),
                tally.attacks,
                tally.recall(),
                quantile(delays, 0.5),
                quantile(delays, 0.9)
            )?;
        }
        f.write_str(&text)
    }
}

fn row(text: &mut String, name: &str, tally: &Tally) -> fmt::Result {
    writeln!(
        text,
        "| {name} | {} | {:.3} | {:.2} | {} | {} s | {} s |",
        tally.attacks,
        tally.recall(),
        tally.false_alarms_per_week(),
        tally.after,
        tally.delay_s(0.5),
        tally.delay_s(0.9)
    )
}
