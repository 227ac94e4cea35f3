//! The detector of counts: five spans of time, silence, and what becomes of an incident.
//!
//! Each tick it says what it expects, takes away what a backlog or a timer explains, judges the rest, and learns
//! from it: as it is in ordinary times, cut where it is excessive, and hardly at all during an incident.

use serde::{Deserialize, Serialize};

use crate::traffic::count::channel::{CHANNELS, Channel, Score, Sensitivity, Weighing, Worst};
use crate::traffic::count::incident::{Course, Incident, Tick};
use crate::traffic::count::level::{Levels, Local, VARIANCE};
use crate::traffic::count::measure::Measure;
use crate::traffic::count::pause::Pauses;
use crate::traffic::count::reading::{Change, Onset, Reading};
use crate::traffic::count::run::{Run, Spike};
use crate::traffic::count::season::Season;
use crate::traffic::count::span::{Expected, Span, silence};
use crate::traffic::count::tail::Tail;
use crate::traffic::count::timer::{Day, Explained, Seen, Timers, Youth};
use crate::traffic::pace::{LOCAL_SPANS, Moment, Pace, SPANS};

/// Nothing is judged before, in seconds: an hour; nor over a span before so many of its lengths.
const WARM_UP_S: u32 = 3_600;
const WARM_UP_SPANS: f32 = 3.0;
/// On its first day, a flow is not judged before so many messages: it has not begun yet.
const KNOWN_MESSAGES: f32 = 100.0;
/// Nor, later, on the first weekday or the first day of a weekend, before so many.
const BEGUN_MESSAGES: f32 = 2.0;
/// A flow is young for so many days: what raises alarms is learned as a habit too, and timers are believed soon.
const YOUNG_DAYS: f32 = 2.2;
/// Thresholds on the first day, on the second, and on the two after are so many times higher.
const FIRST_DAY: f32 = 10.0;
const SECOND_DAY: f32 = 3.0;
const FIRST_DAYS: f32 = 1.15;
/// A gap shorter than this is a restart, in seconds: nobody is missed yet, and its backlog is let pass.
const RESTART_S: u32 = 110;
/// How long a backlog may take, in seconds; and how much larger than what was missed it may be.
const BACKLOG_S: u32 = 300;
const BACKLOG_MARGIN: f32 = 1.3;
/// Below so many messages a tick, gaps are ordinary and say nothing of a restart.
const GAP_RATE_MIN: f32 = 0.3;
/// So many messages that did not come are a pause.
const PAUSE_MESSAGES: f32 = 10.0;
/// Where less than this part of the busiest hour is usual, nobody is missed.
const OFF_HOURS: f32 = 0.02;
/// An incident so old was another level, in seconds; what one says of the levels that the flow is known to have.
const LEVEL_S: u32 = 3_000;
const LEVEL_GAIN: f32 = 0.5;
/// A tick is learned from no further down than so many deviations.
const CUT: f32 = 5.0;
/// A run of more (or fewer) is one of half as many again (or a third fewer).
const RUN_RATIO: f32 = 1.5;
/// A flow that was silent for so long needs no attention each tick, in seconds.
const REST_S: u32 = 3_600;

/// A count detector of one flow: below 1 KiB, whatever it sees.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CountDetector {
    /// The tick that comes next; 0 before the first.
    next: u64,
    season: Season,
    spans: [Span; SPANS],
    tails: [Tail; CHANNELS],
    timers: Timers,
    local: Local,
    incident: Incident,
    more: Run,
    fewer: Run,
    /// Messages expected since the last one.
    missing: f32,
    silent_ticks: u32,
    backlog: f32,
    spike: Spike,
    levels: Levels,
    pauses: Pauses,
}

impl CountDetector {
    /// Takes the count of a tick. Ticks come in order; those left out had no message.
    pub fn observe(&mut self, pace: &Pace, sensitivity: &Sensitivity, tick: u64, count: u32) -> Reading {
        if self.next > 0 && tick > self.next {
            self.rest(pace, sensitivity, tick);
        }
        self.next = tick + 1;
        let moment = pace.moment(tick);
        if moment.starts_hour || self.season.ticks() == 0 {
            self.season.enter_hour(&moment);
        }
        let measure = self.measure(pace, &moment);
        let raw = count as f32;
        let explained = self.explain(pace, &moment, &measure, raw);
        self.add(pace, &moment, &measure, raw, explained.judged);
        let scores = self.score(pace, &measure, raw);
        let reading = self.decide(pace, sensitivity, &measure, explained.judged, &scores);
        self.learn(pace, &moment, &measure, explained.learned);
        reading
    }

    /// The tick that must be observed at the latest, if there are no messages: the next one, or for a flow that
    /// was silent for long, the end of the hour. What was left out until then is made up for.
    pub fn due(&self, pace: &Pace) -> u64 {
        let next = self.next;
        let is_busy = self.incident.is_on() || u64::from(self.silent_ticks) < pace.ticks(REST_S);
        if is_busy {
            return next;
        }
        let mut until = next + pace.ticks_to_hour_end(next);
        if let Some(timer) = self.timers.next(pace) {
            until = until.min(next + u64::from(timer.saturating_sub(self.season.ticks())));
        }
        // The silence may become alarming before: not while fewer are missed than any alarm takes.
        let moment = pace.moment(next);
        let usual = self.season.usual(pace, &moment, self.wandering(pace));
        let spare = std::f32::consts::LN_10 * Sensitivity::HIGH.score_min - self.missing;
        let soon = spare / (4.0 * usual.mean).max(1e-9);
        if soon < 1.0 {
            next
        } else {
            until.min(next + soon as u64)
        }
    }

    /// Goes on at a tick after nobody has looked for a while: what came between was not seen, and says nothing.
    pub fn resume(&mut self, tick: u64) {
        if self.next > 0 {
            self.next = tick.max(self.next);
            self.silent_ticks = 0;
            self.missing = 0.0;
        }
    }

    /// Messages a tick in the incident under way, on the mean, and since when.
    pub fn incident_seen(&self) -> Option<(f32, u64)> {
        if !self.incident.is_on() {
            return None;
        }
        let run = if self.incident.is_up() {
            &self.more
        } else {
            &self.fewer
        };
        let ticks = self.season.ticks().saturating_sub(run.since).max(1);
        Some((
            run.seen / ticks as f32,
            self.next.saturating_sub(u64::from(ticks)),
        ))
    }

    fn wandering(&self, pace: &Pace) -> f32 {
        let [_, _, _, half_an_hour, _] = pace.lengths();
        let [_, _, _, span, _] = &self.spans;
        span.variance_now(half_an_hour)
    }

    fn measure(&self, pace: &Pace, moment: &Moment) -> Measure {
        let [tick, _, minutes, _, _] = pace.lengths();
        let [this, _, lately, _, _] = &self.spans;
        let usual = self.season.usual(pace, moment, self.wandering(pace));
        let (expected, _) = lately.season_and_seen(minutes);
        let lump = 1.0 + lately.variance_now(minutes) * expected;
        // During an incident the local level follows at once.
        let variance = if self.incident.is_on() {
            *VARIANCE.end()
        } else {
            (usual.wandering + usual.ignorance).clamp(*VARIANCE.start(), *VARIANCE.end())
        };
        let trust = 1.0 / variance;
        let local = self.local.level(trust, lump);
        // The last hour corrects the season, or is all there is: where the season is wrong about the hour.
        let flat = self.local.flat_level(usual.mean, trust, lump);
        let [known_low, known_high] = self.levels.known();
        let views = [1.0, local, flat, self.incident.level(), known_low, known_high];
        let may_pause = self.pauses.expects(moment);
        let least = if may_pause {
            0.0
        } else {
            views.into_iter().fold(f32::MAX, f32::min)
        };
        let local_variance = self.local.variance(trust, lump);
        let unknown = this.variance_now(tick) + local_variance + self.season.level_variance(pace, 0.0);
        Measure {
            expected: Expected {
                season: usual.mean,
                local: usual.mean * local,
                low: usual.mean * least,
                high: usual.mean * views.into_iter().fold(0.0, f32::max),
            },
            local,
            local_variance,
            lump,
            deviation: (usual.mean + usual.mean * usual.mean * unknown).sqrt(),
            may_pause,
            usual,
        }
    }

    /// Whether nobody is missed: out of hours, in an hour that was never seen, and on a first weekend if nobody was
    /// heard in the last hour either.
    fn is_off(&self, measure: &Measure) -> bool {
        let usual = &measure.usual;
        let is_weekend = usual.is_new_kind() && self.local.is_below(0.5);
        measure.may_pause || is_weekend || usual.is_new_hour || usual.of_peak < OFF_HOURS
    }

    fn days(&self, pace: &Pace) -> f32 {
        self.season.ticks() as f32 / pace.day_ticks()
    }

    fn youth(&self, pace: &Pace) -> Youth {
        match self.days(pace) {
            days if days < 1.0 => Youth::FirstDay,
            days if days < YOUNG_DAYS => Youth::FirstDays,
            _ => Youth::Over,
        }
    }

    /// What is left of a count after a backlog's part and a timer's.
    fn explain(&mut self, pace: &Pace, moment: &Moment, measure: &Measure, raw: f32) -> Explained {
        if raw > 0.0 && self.silent_ticks > 0 {
            self.come_back(pace, moment, measure);
        } else if measure.may_pause && raw > 0.5 * measure.usual.mean {
            self.pauses.forget(moment);
        }
        let usual = measure.expected.high;
        let mut count = raw;
        if self.backlog > 1.0 && count > usual {
            let explained = (count - usual).min(self.backlog);
            count -= explained;
            self.backlog -= explained;
        }
        self.backlog *= 1.0 - 1.0 / pace.ticks(BACKLOG_S) as f32;
        let at = self.season.ticks();
        let youth = match self.youth(pace) {
            Youth::Over if measure.usual.is_first_of_kind => Youth::FirstDays,
            youth => youth,
        };
        let day = Day {
            is_weekend: moment.is_weekend(),
        };
        let seen = Seen {
            at,
            count,
            usual,
            bound: measure.bound(),
        };
        self.timers.explain(pace, &seen, youth, day)
    }

    /// A message comes after ticks without: a restart lets a backlog pass, and a pause is noted.
    fn come_back(&mut self, pace: &Pace, moment: &Moment, measure: &Measure) {
        let ticks = self.silent_ticks as f32;
        let is_restart = u64::from(self.silent_ticks) < pace.ticks(RESTART_S);
        let missed = ticks * measure.expected.local.min(measure.expected.season);
        if is_restart && self.missing > 0.0 && missed > 3.0 {
            self.backlog += BACKLOG_MARGIN * missed + 3.0 * missed.sqrt();
            for (span, length) in self.spans.iter_mut().zip(pace.lengths()).skip(1) {
                span.fill(length, missed, ticks);
            }
        }
        if !is_restart && ticks * measure.usual.mean > PAUSE_MESSAGES {
            self.pauses.note(moment, ticks * pace.tick_s() as f32 / 60.0);
            if measure.may_pause {
                self.spans.iter_mut().for_each(|span| span.settle(measure.local));
            }
        }
    }

    /// Adds a tick to what is judged.
    fn add(&mut self, pace: &Pace, moment: &Moment, measure: &Measure, raw: f32, judged: f32) {
        if raw > 0.0 {
            self.silent_ticks = 0;
            self.missing = 0.0;
        } else {
            self.silent_ticks = self.silent_ticks.saturating_add(1);
            if !self.is_off(measure) {
                self.missing += measure.expected.low;
            }
        }
        let lasting = self.spike.lasting(judged, measure.bound());
        for (index, (span, length)) in self.spans.iter_mut().zip(pace.lengths()).enumerate() {
            let (expected, ignorance) = measure.views(moment, length.is_long);
            let seen = if index == 0 { judged } else { lasting };
            span.add(length, seen, &expected, ignorance);
        }
        let at = self.season.ticks();
        // An incident's own level is no bound for how long it has lasted.
        let (low, high) = if self.incident.is_on() {
            let usual = measure.usual.mean * self.incident.local();
            (usual, usual)
        } else {
            (measure.expected.low, measure.expected.high)
        };
        self.more.add(at, judged, high, RUN_RATIO);
        self.fewer.add(at, judged, low, 1.0 / RUN_RATIO);
    }

    fn score(&self, pace: &Pace, measure: &Measure, raw: f32) -> [Score; CHANNELS] {
        let mut scores = [Score::default(); CHANNELS];
        let ticks = self.season.ticks() as f32;
        let warm_up = pace.ticks(WARM_UP_S) as f32;
        let usual = &measure.usual;
        let is_new_kind = usual.is_new_kind();
        let is_off = self.is_off(measure);
        let is_restart = u64::from(self.silent_ticks) < pace.ticks(RESTART_S);
        let is_in_gap = raw == 0.0 && is_restart && measure.usual.mean > GAP_RATE_MIN;
        let (more, rest) = scores.split_at_mut(SPANS);
        let (fewer, last) = rest.split_at_mut(SPANS);
        for (((more, fewer), span), length) in more.iter_mut().zip(fewer).zip(&self.spans).zip(pace.lengths())
        {
            if ticks <= warm_up.max(WARM_UP_SPANS * length.ticks) {
                continue;
            }
            let verdict = span.judge(length);
            let score = |score| Score {
                score,
                ratio: verdict.ratio,
                is_small: verdict.is_small,
            };
            *more = score(verdict.more);
            // Too few is not judged in what may be a restart, nor where nobody knows yet what is usual.
            let is_unjudged = is_in_gap || is_off || (is_new_kind && length.is_long);
            *fewer = score(if is_unjudged { 0.0 } else { verdict.fewer });
        }
        if let [silent] = last {
            silent.ratio = 0.0;
            let is_known = self.youth(pace) != Youth::FirstDay && !is_new_kind;
            if ticks > warm_up && !is_restart && self.missing > 2.0 && is_known {
                let [tick, ..] = pace.lengths();
                let [this, ..] = &self.spans;
                let unknown = measure.local_variance.max(usual.ignorance) + usual.edge;
                silent.score = silence(self.missing, this.variance_now(tick) + unknown);
            }
            silent.score = silent.score.max(self.timers.missing());
        }
        scores
    }

    fn decide(
        &mut self,
        pace: &Pace,
        sensitivity: &Sensitivity,
        measure: &Measure,
        judged: f32,
        scores: &[Score; CHANNELS],
    ) -> Reading {
        let incident = self.incident;
        let weighing = self.weighing(pace, sensitivity);
        let (mut worst, fresh) =
            weighing.weigh(&mut self.tails, scores, 1, |channel| incident.admits(channel));
        if worst.channel == Channel::Silence && self.timers.missing() >= worst.score {
            worst.channel = Channel::Missed;
        }
        let mut reading = Reading {
            score: worst.part,
            ..Reading::default()
        };
        // Who was silent for all of a first weekend begins on Monday.
        let is_beginning = measure.usual.is_first_of_kind && self.season.messages() < BEGUN_MESSAGES;
        if incident.is_on() {
            let course = self.follow(pace, measure, judged, fresh);
            if course == Course::Topped && !is_beginning {
                reading.onset = Some(self.onset(pace, &worst, true));
            }
            reading.change = self.end(pace, measure, course);
        } else if worst.part >= 1.0 {
            let is_news = self
                .incident
                .begin(pace, self.season.ticks(), &worst, measure.local);
            self.season.doubt();
            if is_news && !is_beginning {
                reading.onset = Some(self.onset(pace, &worst, false));
            }
        }
        if reading
            .onset
            .is_some_and(|onset| onset.channel == Channel::Missed)
        {
            self.timers.tell();
        }
        if reading.onset.is_none() {
            reading.score = reading.score.min(0.99);
        }
        reading
    }

    fn weighing<'a>(&self, pace: &'a Pace, sensitivity: &'a Sensitivity) -> Weighing<'a> {
        let days = self.days(pace);
        Weighing {
            pace,
            sensitivity,
            weeks: days / 7.0,
            caution: match days {
                days if days >= 4.0 => 1.0,
                days if days >= 2.0 => FIRST_DAYS,
                days if days >= 1.0 => SECOND_DAY,
                _ if self.season.messages() >= KNOWN_MESSAGES => FIRST_DAY,
                _ => f32::MAX,
            },
            young: days < YOUNG_DAYS,
            in_incident: self.incident.is_on(),
        }
    }

    fn onset(&self, pace: &Pace, worst: &Worst, on_top: bool) -> Onset {
        let index = worst.channel.span();
        let (Some(span), Some(length)) = (self.spans.get(index), pace.lengths().get(index)) else {
            unreachable!("a channel's span is one of the spans");
        };
        let now = self.season.ticks();
        let run = match worst.channel {
            Channel::More(_) => Some(&self.more),
            Channel::Fewer(_) => Some(&self.fewer),
            Channel::Silence | Channel::Missed => None,
        };
        let run = run.filter(|run| run.evidence > 0.0 && run.since <= now);
        let (ticks, seen) = match (worst.channel, run) {
            (Channel::Silence, _) => (self.silent_ticks.max(1), 0.0),
            (Channel::Missed, _) => (1, 0.0),
            (_, Some(run)) => (now - run.since + 1, run.seen / (now - run.since + 1) as f32),
            (_, None) => {
                let (_, seen) = span.season_and_seen(length);
                (length.ticks as u32, seen / length.weight() / length.ticks)
            }
        };
        Onset {
            channel: worst.channel,
            score: worst.score,
            threshold: worst.threshold,
            seen,
            expected: match worst.channel {
                Channel::Missed => self.timers.missed().unwrap_or_default(),
                _ => span.expected_a_tick(length),
            },
            since: self.next.saturating_sub(u64::from(ticks)),
            on_top,
        }
    }

    fn follow(&mut self, pace: &Pace, measure: &Measure, judged: f32, fresh: f32) -> Course {
        let [_, _, minutes, _, _] = pace.lengths();
        let [_, _, lately, _, _] = &self.spans;
        let (season, seen) = lately.season_and_seen(minutes);
        let tick = Tick {
            seen: judged,
            usual: measure.usual.mean,
            ratio: (seen + 0.02) / (season + 0.02),
            lump: measure.lump,
            fresh,
            is_known: self.season.messages() > KNOWN_MESSAGES || self.timers.are_known(),
        };
        self.incident.follow(pace, &tick)
    }

    fn end(&mut self, pace: &Pace, measure: &Measure, course: Course) -> Option<Change> {
        let [_, _, _, half_an_hour, hours] = pace.lengths();
        match course {
            Course::On | Course::Topped => return None,
            Course::Over => {
                if u64::from(self.incident.ticks()) > pace.ticks(LEVEL_S) {
                    self.learn_level(pace, measure, LEVEL_GAIN);
                }
                let before = self.incident.local();
                self.spans.iter_mut().for_each(|span| span.settle(before));
                self.local.settle(before, measure.usual.mean);
            }
            Course::Rebased => {
                let [.., span] = &self.spans;
                let (season, seen) = span.season_and_seen(hours);
                let times = (seen + 1.0) / (season + 1.0);
                self.season.rebase(times);
                self.spans.iter_mut().for_each(|span| span.rebase(times));
                self.local.rebase();
            }
            Course::Begun => {
                *self = Self {
                    next: self.next,
                    ..Self::default()
                };
                return Some(Change::Begun);
            }
        }
        let at = self.season.ticks();
        self.incident.end(at, half_an_hour.ticks);
        (self.more, self.fewer) = (Run::default(), Run::default());
        (self.more.since, self.fewer.since) = (at + 1, at + 1);
        let is_habitual = self.tails.iter().any(Tail::is_habitual);
        Some(match course {
            Course::Rebased => Change::Rebased,
            _ if is_habitual => Change::OverAndHabitual,
            _ => Change::Over,
        })
    }

    fn learn(&mut self, pace: &Pace, moment: &Moment, measure: &Measure, count: f32) {
        let ticks = self.season.ticks();
        let is_paused = measure.may_pause && u64::from(self.silent_ticks) >= pace.ticks(RESTART_S);
        let is_odd = self.incident.is_on() || is_paused;
        if !is_odd && ticks > 0 {
            for (span, length) in self.spans.iter_mut().zip(pace.lengths()) {
                if ticks.is_multiple_of(length.ticks as u32) {
                    span.learn(length, 1.0);
                }
            }
        }
        let low = (measure.expected.low - CUT * measure.deviation).max(0.0);
        let cut = count.clamp(low, measure.bound());
        let learned = if is_odd { count } else { cut };
        if !is_paused {
            self.local.learn(pace, learned, measure.usual.mean);
        }
        self.season.learn(pace, moment, &measure.usual, learned, is_odd);
        if moment.ends_hour {
            self.levels.end_hour();
            // What is odd in a flow's youth is its own.
            if self.incident.is_on() && self.days(pace) < YOUNG_DAYS {
                self.learn_level(pace, measure, 1.0);
            }
        }
        if moment.ends_day {
            let weeks = self.days(pace) / 7.0;
            self.tails.iter_mut().for_each(|tail| tail.end_day(weeks));
        }
    }

    /// Learns the last hour's level as one that the flow has, if so much is known of the season that it means something.
    fn learn_level(&mut self, pace: &Pace, measure: &Measure, gain: f32) {
        if self.youth(pace) != Youth::FirstDay && !measure.usual.is_new_kind() {
            self.levels.learn(&self.local, gain);
        }
    }

    /// Makes up for ticks without a message, up to and without `until`: one by one for an hour, then an hour
    /// at a time, whose last tick is observed as any other.
    fn rest(&mut self, pace: &Pace, sensitivity: &Sensitivity, until: u64) {
        while self.next < until {
            let is_busy = self.incident.is_on() || u64::from(self.silent_ticks) < pace.ticks(REST_S);
            let left = (until - self.next).min(pace.ticks_to_hour_end(self.next) + 1);
            if !is_busy && left > 2 {
                self.rest_within_hour(pace, sensitivity, left - 1);
            }
            self.observe(pace, sensitivity, self.next, 0);
        }
    }

    /// Makes up for ticks without a message, all in one hour.
    fn rest_within_hour(&mut self, pace: &Pace, sensitivity: &Sensitivity, ticks: u64) {
        let moment = pace.moment(self.next + ticks / 2);
        if pace.moment(self.next).starts_hour {
            self.season.enter_hour(&moment);
        }
        let measure = self.measure(pace, &moment);
        let (count, long) = (ticks as f32, ticks as u32);
        if !self.is_off(&measure) {
            self.missing += count * measure.expected.low;
        }
        self.silent_ticks = self.silent_ticks.saturating_add(long);
        for (span, length) in self.spans.iter_mut().zip(pace.lengths()) {
            let (expected, ignorance) = measure.views(&moment, length.is_long);
            span.add_silence(length, count, &expected, ignorance);
            if count >= length.ticks {
                span.learn(length, count / length.ticks);
            }
        }
        let scores = [Score::default(); CHANNELS];
        let weighing = self.weighing(pace, sensitivity);
        weighing.weigh(&mut self.tails, &scores, ticks as u16, |_| false);
        self.backlog = 0.0;
        self.local.rest(pace, count, measure.usual.mean);
        self.season
            .learn_ticks(pace, &moment, &measure.usual, 0.0, count, false);
        self.more = Run {
            since: self.season.ticks(),
            ..Run::default()
        };
        self.fewer.evidence += count * measure.expected.low * (1.0 - 1.0 / RUN_RATIO);
        self.next += ticks;
    }
}

const _: () = assert!(LOCAL_SPANS == 3 && SPANS == 5, "spans are named by their place");
const _: () = assert!(size_of::<CountDetector>() <= 1_024, "a flow costs at most 1 KiB");
