//! Whether what is odd about a mean is worth an alarm: it is if the mean itself is much more than was expected, at once
//! or soon.
//!
//! A detector says once that something is odd, often when it has hardly begun, and then takes it in: what was expected
//! before is what the means after it are held against. Never looks at more than one mean at a time.

use crate::traffic::alarm::Finding;
use crate::traffic::desk::Measure;

/// For so long after a mean was odd, or beyond what was expected, others are held against that, in seconds: for longer
/// than the detector rests after it has said so.
const WARY_S: u64 = 5_400;
/// What has lasted for so long is the usual, in seconds: a day.
const USUAL_S: u64 = 86_400;

/// What is remembered of what was odd about the means of one series.
#[derive(Debug, Clone, Default)]
pub(super) struct Worth {
    odd: Option<Box<Odd>>,
}

#[derive(Debug, Clone)]
struct Odd {
    finding: Finding,
    until_unix_s: u64,
}

/// What one mean is worth.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Usual,
    /// An alarm, or its going on.
    Alarm(Finding),
    /// It goes on for so long that it is the usual from now on.
    Rebased,
}

impl Worth {
    /// Takes a mean at a time, in seconds since 1970, and what was odd about it.
    pub(super) fn judge(
        &mut self,
        measure: Measure,
        effect: f64,
        unix_s: u64,
        mean: f64,
        found: Option<Finding>,
    ) -> Verdict {
        if self.odd.as_ref().is_some_and(|odd| unix_s > odd.until_unix_s) {
            self.odd = None;
        }
        if let Some(finding) = found {
            let until_unix_s = unix_s + WARY_S;
            let odd = self.odd.get_or_insert_with(|| {
                Box::new(Odd {
                    finding,
                    until_unix_s,
                })
            });
            odd.until_unix_s = until_unix_s;
        }
        let Some(odd) = &mut self.odd else {
            return Verdict::Usual;
        };
        if !is_beyond(measure, effect, mean, odd.finding.expected) {
            return Verdict::Usual;
        }
        if unix_s >= odd.finding.since_unix_s + USUAL_S {
            self.odd = None;
            return Verdict::Rebased;
        }
        odd.until_unix_s = unix_s + WARY_S;
        odd.finding.seen = mean;
        odd.finding.over_s = unix_s.saturating_sub(odd.finding.since_unix_s);
        Verdict::Alarm(odd.finding.clone())
    }
}

/// Whether a mean is so many times what was expected, and so much more that anybody minds. Only sizes may be too small.
fn is_beyond(measure: Measure, effect: f64, mean: f64, (low, high): (f64, f64)) -> bool {
    let is_more = mean > effect * high.max(0.0) && mean - high > measure.difference_min();
    let is_less = measure == Measure::PayloadSize && mean * effect < low;
    is_more || is_less
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::alarm::{AlarmKind, Unit};

    const NOW: u64 = 1_767_794_600;
    const POINT_S: u64 = 300;

    fn odd(since_unix_s: u64) -> Option<Finding> {
        Some(Finding {
            kind: AlarmKind::Level,
            seen: 0.0,
            expected: (4.0, 6.0),
            unit: Unit::Milliseconds,
            over_s: POINT_S,
            since_unix_s,
            severity: 1.0,
            detector: "mean".to_owned(),
        })
    }

    /// A mean each five minutes, of which some are odd: whether each is worth an alarm.
    fn judged(measure: Measure, means: &[(f64, bool)]) -> Vec<bool> {
        let mut worth = Worth::default();
        let times = (0..).map(|point| NOW + point * POINT_S);
        let verdicts = means.iter().zip(times).map(|(&(mean, is_odd), unix_s)| {
            let found = odd(unix_s).filter(|_| is_odd);
            worth.judge(measure, 1.5, unix_s, mean, found)
        });
        verdicts
            .map(|verdict| matches!(verdict, Verdict::Alarm(_)))
            .collect()
    }

    #[test]
    fn it_takes_an_oddity_and_a_difference() {
        let check = |measure, means: &[(f64, bool)], expected: &[bool]| {
            assert_eq!(judged(measure, means), expected, "{measure:?} {means:?}");
        };
        let response = Measure::ResponseTime;
        // Much, but nothing is odd; odd, but not much; both.
        check(response, &[(15.0, false)], &[false]);
        check(response, &[(8.9, true)], &[false]);
        check(response, &[(9.1, true)], &[true]);
        // It goes on, though the detector has got used to it; and it begins, though the detector had said so before.
        check(
            response,
            &[(15.0, true), (15.0, false), (5.0, false)],
            &[true, true, false],
        );
        check(
            response,
            &[(7.0, true), (8.0, false), (12.0, false)],
            &[false, false, true],
        );
        // Two oddities after each other are held against what was expected at first.
        let mut worth = Worth::default();
        worth.judge(response, 1.5, NOW, 7.0, odd(NOW));
        let later = odd(NOW + 300).map(|later| Finding {
            expected: (4.0, 12.0),
            ..later
        });
        let found = worth.judge(response, 1.5, NOW + 300, 15.0, later);
        assert!(
            matches!(&found, Verdict::Alarm(finding) if finding.expected == (4.0, 6.0) && finding.seen == 15.0),
            "{found:?}"
        );
        // Fast is no harm, small may be one; and a few connections more are none.
        check(response, &[(0.1, true)], &[false]);
        check(Measure::PayloadSize, &[(2.0, true)], &[true]);
        check(Measure::Connections, &[(15.0, true)], &[false]);
        check(Measure::Connections, &[(17.0, true)], &[true]);
    }

    #[test]
    fn some_time_after_an_oddity_it_is_forgotten() {
        let mut means = vec![(7.0, true)];
        means.extend([(5.0, false)].repeat(17));
        means.push((15.0, false));
        assert!(judged(Measure::ResponseTime, &means).ends_with(&[true]));
        means.insert(1, (5.0, false));
        assert!(judged(Measure::ResponseTime, &means).ends_with(&[false]));
    }

    #[test]
    fn what_has_lasted_for_a_day_is_the_usual() {
        let mut worth = Worth::default();
        let mut verdicts = (0..=290).map(|point| {
            let unix_s = NOW + point * POINT_S;
            worth.judge(
                Measure::ResponseTime,
                1.5,
                unix_s,
                15.0,
                odd(NOW).filter(|_| point == 0),
            )
        });
        let alarms = verdicts.by_ref().take(288);
        assert!(
            alarms
                .into_iter()
                .all(|verdict| matches!(verdict, Verdict::Alarm(_)))
        );
        assert_eq!(
            verdicts.collect::<Vec<_>>(),
            [Verdict::Rebased, Verdict::Usual, Verdict::Usual]
        );
    }
}
