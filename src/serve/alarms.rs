//! The task that watches the traffic: once a tick it gives the flows' counts to the desk, tells what became of which
//! alarm, and now and then writes down what was learned.
//!
//! It never holds up a message. What was learned and cannot be read again is given up with a word: it is learned anew.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::audit::Record;
use crate::console::alarms::{AlarmAnswer, AlarmVerb};
use crate::disk::state;
use crate::limits::{ALARM_MUTE_S_MAX, ALARM_SNAPSHOT_BYTES_MAX, ALARM_SNAPSHOT_S, ALARM_TICK_S};
use crate::net::broker::Broker;
use crate::policy::{Alarms, NewFlows, Policy, Sensitivity};
use crate::serve::keeper::Counter;
use crate::serve::load::Load;
use crate::serve::quarantine::QuarantineDesk;
use crate::serve::webhook::Webhook;
use crate::traffic::desk::{Alarm, Attention, Desk, Measure, Step, Stream, Wishes};
use crate::traffic::pace::Pace;
use crate::traffic::rates::{Sample, Samples};

/// The file's name in the folder of state.
const FILE: &str = "alarms";
/// What it begins with: its format.
const MAGIC: &[u8; 8] = b"EXOALRM5";

/// A handle to the desk.
#[derive(Debug, Clone)]
pub(super) struct AlarmDesk {
    desk: Arc<Mutex<Desk>>,
    broker: Arc<Broker>,
    path: PathBuf,
    webhook: Option<Arc<Webhook>>,
    samples: Arc<Mutex<Samples>>,
    /// The policy that the desk goes by.
    policy: Arc<Mutex<Option<Arc<Policy>>>>,
}

impl AlarmDesk {
    /// A desk that goes on where the last stopped, if that can be read.
    pub(super) fn open(folder: &Path, broker: &Arc<Broker>, webhook: Option<Arc<Webhook>>) -> Self {
        let path = folder.join(FILE);
        let pace = Pace::new(ALARM_TICK_S);
        let tick = pace.tick_at(broker.clock.now_unix_ms() / 1_000);
        let desk = match read(&path, &pace, tick) {
            Ok(Some(desk)) => desk,
            Ok(None) => Desk::new(pace),
            Err(reason) => {
                tracing::warn!(
                    path = %path.display(), reason,
                    "what was learned about the traffic cannot be read; it is learned anew, and until then there are few alarms"
                );
                Desk::new(pace)
            }
        };
        Self {
            desk: Arc::new(Mutex::new(desk)),
            broker: Arc::clone(broker),
            path,
            webhook,
            samples: Arc::default(),
            policy: Arc::default(),
        }
    }

    /// Watches until the task is dropped; holds whom the policy says. `counter` counts what the store holds.
    pub(super) async fn watch(self, quarantine: QuarantineDesk, counter: Option<Counter>) {
        let mut load = Load::default();
        let tick_ms = u64::from(ALARM_TICK_S) * 1_000;
        let mut written_ms = self.broker.clock.now_unix_ms();
        loop {
            let now_ms = self.broker.clock.now_unix_ms();
            tokio::time::sleep(Duration::from_millis(tick_ms - now_ms % tick_ms)).await;
            let now_ms = self.broker.clock.now_unix_ms();
            let load = load.take(&self.broker, counter.as_ref()).await;
            let this = self.clone();
            let is_due = now_ms >= written_ms + ALARM_SNAPSHOT_S * 1_000;
            let work = move || {
                let opened = this.tick((now_ms / tick_ms).saturating_sub(1), &load);
                if is_due {
                    this.write();
                }
                opened
            };
            if is_due {
                written_ms = now_ms;
            }
            let Ok(opened) = tokio::task::spawn_blocking(work).await else {
                tracing::error!("the alarms' task has failed; the traffic is no longer watched");
                return;
            };
            for alarm in opened {
                quarantine.hold_for(&alarm).await;
            }
        }
    }

    /// Writes down what was learned, and tells the webhook what it has not heard yet.
    pub(super) fn close(&self) {
        self.write();
        if let Some(webhook) = &self.webhook {
            webhook.close();
        }
    }

    fn write(&self) {
        let written = state::replace_with(&self.path, |file| {
            file.write_all(MAGIC)?;
            let mut sum = crc32fast::Hasher::new();
            // Operators reach the desk between two parts.
            let part = |part| self.desk.lock().learned_part(part);
            for bytes in (0..).map_while(part) {
                sum.update(&bytes);
                file.write_all(&bytes)?;
            }
            file.write_all(&sum.finalize().to_le_bytes())
        });
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "what was learned about the traffic cannot be written");
        }
    }

    /// Carries an order out.
    pub(super) fn carry_out(&self, verb: AlarmVerb, who: &str) -> AlarmAnswer {
        let now_unix_s = self.broker.clock.now_unix_ms() / 1_000;
        let mut desk = self.desk.lock();
        match verb {
            AlarmVerb::List { all } => {
                let (watched, since_unix_s) = desk.watched();
                let muted = desk
                    .muted(now_unix_s)
                    .map(|(stream, until)| (stream.clone(), until));
                AlarmAnswer::Alarms {
                    muted: muted.collect(),
                    alarms: desk
                        .alarms()
                        .filter(|alarm| all || alarm.closed_unix_s.is_none())
                        .cloned()
                        .collect(),
                    watched,
                    since_unix_s,
                }
            }
            AlarmVerb::Show { id } => match desk.alarm(id) {
                Some(alarm) => AlarmAnswer::Alarm(Box::new(alarm.clone())),
                None => AlarmAnswer::unknown(id),
            },
            AlarmVerb::Ack { id, .. } => match desk.acknowledge(id, who) {
                true => AlarmAnswer::Done {
                    what: format!("alarm {id} acknowledged"),
                },
                false => AlarmAnswer::unknown(id),
            },
            AlarmVerb::Mute { for_s, .. } if for_s > ALARM_MUTE_S_MAX => AlarmAnswer::Refused {
                reason: format!(
                    "it may be muted for {} days at the most",
                    ALARM_MUTE_S_MAX / 86_400
                ),
            },
            AlarmVerb::Mute { id, for_s, .. } => match desk.mute(id, now_unix_s + for_s) {
                Some(stream) if for_s == 0 => AlarmAnswer::Done {
                    what: format!("{stream}: no longer muted"),
                },
                Some(stream) => AlarmAnswer::Done {
                    what: format!("{stream}: muted for {for_s} s"),
                },
                None => AlarmAnswer::unknown(id),
            },
        }
    }

    /// Waits until a rate can be told: a second after a tick at the most.
    pub(super) async fn wait_for_rates(&self) {
        let tick_us = self.broker.flows.read_us();
        let wait_us = self.samples.lock().wait_us(self.broker.clock.now_us(), tick_us);
        tokio::time::sleep(Duration::from_micros(wait_us)).await;
    }

    /// What all flows have counted by now, after what they had counted some time ago: a second at least for who has waited,
    /// and a tick at the most, unless the broker has just started.
    pub(super) fn sample(&self) -> (Sample, Sample) {
        let Broker { flows, clock, .. } = &*self.broker;
        let before = self
            .samples
            .lock()
            .before(clock.now_us(), flows.read_us())
            .cloned();
        let before = before.unwrap_or_else(|| {
            let (at_us, totals) = flows.totals_before();
            let totals = Arc::new(totals);
            Sample { at_us, totals }
        });
        let now = Sample {
            totals: Arc::new(flows.totals()),
            at_us: clock.now_us(),
        };
        self.samples.lock().handle_sample(now.clone());
        (before, now)
    }

    /// The alarms that are open.
    pub(super) fn open_alarms(&self) -> Vec<Alarm> {
        let desk = self.desk.lock();
        let open = desk.alarms().filter(|alarm| alarm.closed_unix_s.is_none());
        open.cloned().collect()
    }

    /// Gives back the alarms that have begun.
    fn tick(&self, tick: u64, load: &[(Measure, f64)]) -> Vec<Alarm> {
        self.samples.lock().handle_tick(self.broker.flows.read_us());
        let (refused, of_others) = self.broker.take_refused();
        // An IPv6 address stands for its network, of which everybody has a whole one.
        let refused = refused.into_iter().map(|(address, count)| match address {
            IpAddr::V4(address) => (address.to_string(), count),
            IpAddr::V6(network) => (format!("{network}/64"), count),
        });
        let events = {
            let mut desk = self.desk.lock();
            self.go_by_policy(&mut desk);
            let now_us = self.broker.clock.now_us();
            let flows = &self.broker.flows;
            flows.read_changes(now_us, |number, more, key| desk.handle_flow(number, more, key));
            desk.handle_refused(refused, of_others);
            desk.handle_load(load);
            desk.handle_tick(tick);
            desk.poll()
        };
        for (step, alarm) in &events {
            self.tell(*step, alarm);
        }
        let opened = events.into_iter().filter(|(step, _)| *step == Step::Opened);
        opened.map(|(_, alarm)| alarm).collect()
    }

    /// Tells the desk what the policy wishes, where that may be something else than before.
    fn go_by_policy(&self, desk: &mut Desk) {
        let policy = self.broker.world.policy();
        let before = self.policy.lock().replace(Arc::clone(&policy));
        if !before.is_some_and(|before| Arc::ptr_eq(&before, &policy)) {
            desk.handle_wishes(wishes(policy), self.broker.clock.now_unix_ms() / 1_000);
        }
    }

    fn tell(&self, step: Step, alarm: &Alarm) {
        let since = time_of_day(alarm.finding.since_unix_s);
        let text = format!("{}: {}", alarm.stream, alarm.finding.words(&since));
        let (id, kind, by) = (alarm.id, alarm.finding.kind.name(), &*alarm.finding.detector);
        let outcome = alarm.outcome.as_deref();
        match step {
            Step::Opened if alarm.is_muted => tracing::info!(id, kind, by, "alarm, muted: {text}"),
            Step::Opened => tracing::warn!(id, kind, by, "alarm: {text}"),
            Step::Updated => tracing::debug!(id, kind, "alarm goes on: {text}"),
            Step::Closed => tracing::info!(id, kind, outcome, "alarm closed: {text}"),
        }
        if let Some(webhook) = &self.webhook {
            let unix_s = self.broker.clock.now_unix_ms() / 1_000;
            webhook.tell(step, alarm, &text, unix_s);
        }
        if step != Step::Updated {
            self.broker.note(|| Record::Alarm {
                id,
                is_closed: step == Step::Closed,
                what: kind.to_owned(),
                text,
                outcome: alarm.outcome.clone(),
            });
        }
    }
}

fn wishes(policy: Arc<Policy>) -> Wishes {
    let new_flow_after_s = match policy.new_flows() {
        NewFlows::After(time) => Some(time.as_secs()),
        NewFlows::Never => None,
    };
    Wishes {
        attention: Box::new(move |stream| attention(&policy, stream)),
        new_flow_after_s,
    }
}

/// How closely the policy has a stream watched. Of what no service does, it says nothing.
fn attention(policy: &Policy, stream: &Stream) -> Attention {
    if stream.measure == Measure::Refused || stream.measure.is_of_broker() {
        return Attention::default();
    }
    match policy.alarms(&stream.sender, stream.message.as_deref()) {
        Alarms::Off => Attention::Off,
        Alarms::On(Sensitivity::Low) => Attention::Low,
        Alarms::On(Sensitivity::Normal) => Attention::Normal,
        Alarms::On(Sensitivity::High) => Attention::High,
    }
}

fn read(path: &Path, pace: &Pace, tick: u64) -> Result<Option<Desk>, String> {
    let bytes = state::read(path, ALARM_SNAPSHOT_BYTES_MAX).map_err(|error| error.to_string())?;
    let Some(bytes) = bytes else { return Ok(None) };
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it is of another version, or no such file")?;
    let (learned, sum) = rest.split_last_chunk().ok_or("it is too short")?;
    if crc32fast::hash(learned) != u32::from_le_bytes(*sum) {
        return Err("its checksum is wrong".to_owned());
    }
    Desk::restore(pace.clone(), learned, tick).map(Some)
}

/// `14:03:20`, UTC.
fn time_of_day(unix_s: u64) -> String {
    let moment = i64::try_from(unix_s).ok();
    let moment = moment.and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    let time = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH).time();
    format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}
