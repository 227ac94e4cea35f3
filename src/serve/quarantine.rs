//! The quarantine: who is held, kept in a file, put in force at once, and ended by people alone. Alarms hold
//! a few at the most, and only those of which the policy says so.
//!
//! A change is recorded and on disk before it takes effect, so that no restart undoes it. A list that cannot be read
//! keeps the broker from starting: without it, what is held would go on its way.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::audit::Record;
use crate::console::quarantine::{HeldMessageStatus, HeldStatus, QuarantineAnswer, QuarantineVerb};
use crate::delivery::{HeldMessage, Seq};
use crate::disk::state;
use crate::exchange::session::give_up_held;
use crate::identity::Role;
use crate::limits::{ADMIN_TEXT_BYTES_MAX, QUARANTINE_BYTES_MAX, QUARANTINE_MAX};
use crate::net::broker::Broker;
use crate::net::clock::Clock;
use crate::policy::OnAlarm;
use crate::policy::quarantine::{Hold, Quarantine, what};
use crate::serve::auditor::Recorder;
use crate::serve::passage::Passage;
use crate::traffic::alarm::AlarmKind;
use crate::traffic::desk::{Alarm, Measure};
use crate::wire::name::Pattern;
use crate::wire::printable;

/// Its name in the folder of state.
const FILE: &str = "quarantine.json";

/// Messages that are shown at once.
const SHOWN_MAX: usize = 1_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    held: Vec<Hold>,
}

/// What is held since before the start; nothing where nothing ever was.
pub(super) fn read(folder: &Path) -> Result<Quarantine, String> {
    let path = folder.join(FILE);
    let failed = |error: String| {
        format!(
            "{}: cannot read what is held: {error}; restore the file from a copy, or move it away to hold nothing",
            path.display()
        )
    };
    let bytes = state::read(&path, QUARANTINE_BYTES_MAX).map_err(|error| failed(error.to_string()))?;
    let Some(bytes) = bytes else {
        return Ok(Quarantine::default());
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    if kept.version != 1 {
        return Err(failed(format!(
            "version {} of it is not known here",
            kept.version
        )));
    }
    for hold in &kept.held {
        tracing::warn!(held = %hold, by = hold.who, reason = hold.reason, "held since before the start: `exocom quarantine list`");
    }
    Ok(Quarantine::new(kept.held))
}

/// Where the quarantine is changed. The list in force is the world's.
#[derive(Debug, Clone)]
pub(super) struct QuarantineDesk {
    path: PathBuf,
    broker: Arc<Broker>,
    recorder: Option<Recorder>,
    passage: Passage,
    /// How many services alarms may hold at once.
    by_alarms_max: usize,
    /// Held while the list is changed.
    changing: Arc<Mutex<()>>,
}

impl QuarantineDesk {
    pub(super) fn new(
        folder: &Path,
        broker: &Arc<Broker>,
        recorder: Option<Recorder>,
        passage: Passage,
        by_alarms_max: usize,
    ) -> Self {
        Self {
            path: folder.join(FILE),
            broker: Arc::clone(broker),
            recorder,
            passage,
            by_alarms_max,
            changing: Arc::default(),
        }
    }

    /// Does what an operator asks. Returns after it is in force.
    pub(super) async fn carry_out(self, verb: QuarantineVerb, who: String) -> QuarantineAnswer {
        let answer = match verb {
            QuarantineVerb::List => Ok(self.list().await),
            QuarantineVerb::Show { service, message } => self.show(&service, message.as_ref()).await,
            QuarantineVerb::Add {
                service,
                message,
                reason,
            } => self.add_by(service, message, reason, who).await,
            QuarantineVerb::Release {
                service,
                message,
                reason,
            } => self.release(&service, message.as_ref(), reason, who).await,
            QuarantineVerb::Discard {
                service,
                message,
                seq,
                ..
            } => self.discard(&service, message.as_ref(), seq.map(Seq)).await,
        };
        answer.unwrap_or_else(|reason| QuarantineAnswer::Refused { reason })
    }

    /// Holds a service, or a part of its messages. Returns after everything is over that was begun before, and those
    /// who waited for its answers have been told.
    pub(super) async fn add(&self, hold: Hold) -> Result<(), String> {
        let this = self.clone();
        // It waits for the disk.
        let changed = tokio::task::spawn_blocking(move || this.change(&hold, true)).await;
        changed.map_err(|error| error.to_string())??;
        self.passage.wait().await;
        self.give_up_answers();
        Ok(())
    }

    /// Holds the service that an alarm is about, where the policy says so: never more than a few, and none that a person
    /// holds already. To be called by one task alone.
    pub(super) async fn hold_for(&self, alarm: &Alarm) {
        let (world, service) = (&self.broker.world, &alarm.stream.sender);
        let policy = world.policy();
        let on_alarm = policy.service(service).map(|service| service.on_alarm());
        if on_alarm != Some(OnAlarm::Quarantine) || alarm.is_muted || !is_too_much(alarm) {
            return;
        }
        let (id, current) = (alarm.id, world.quarantine());
        if current.get(service, None).is_some() {
            return;
        }
        let by_alarms: BTreeSet<_> = current
            .holds()
            .filter(|hold| hold.alarm.is_some())
            .map(|hold| &hold.service)
            .collect();
        if by_alarms.len() >= self.by_alarms_max {
            tracing::warn!(
                alarm = id, %service, held = by_alarms.len(),
                "an alarm would hold this service, but as many are held by alarms as may be (quarantine-max); look at                  them with `exocom quarantine list`"
            );
            return;
        }
        let hold = Hold {
            service: Arc::clone(service),
            message: None,
            reason: format!("{}: {}", alarm.finding.kind.name(), alarm.stream),
            who: "on-alarm of the policy".to_owned(),
            at_unix_s: Clock::unix_s(),
            alarm: Some(id),
        };
        match self.add(hold).await {
            Ok(()) => tracing::warn!(
                alarm = id, %service,
                "an alarm holds this service: `exocom quarantine show {service}`, then discard and release"
            ),
            Err(error) => {
                tracing::error!(alarm = id, %service, error, "an alarm could not hold this service")
            }
        }
    }

    async fn add_by(
        &self,
        service: String,
        message: Option<Pattern>,
        reason: String,
        who: String,
    ) -> Result<QuarantineAnswer, String> {
        let Ok(Role::Service(service)) = Role::service(&service) else {
            let service = printable(service.as_bytes(), ADMIN_TEXT_BYTES_MAX);
            return Err(format!("{service} cannot be the name of a service"));
        };
        let hold = Hold {
            service,
            message,
            reason: printable(reason.as_bytes(), ADMIN_TEXT_BYTES_MAX),
            who,
            at_unix_s: Clock::unix_s(),
            alarm: None,
        };
        let policy = self.broker.world.policy();
        let is_known = policy.service(&hold.service).is_some();
        let note = (!is_known).then(|| {
            format!(
                "the policy lists no service {}; is it spelled right?",
                hold.service
            )
        });
        let what = format!("{hold} is held");
        self.add(hold).await?;
        Ok(QuarantineAnswer::Done { what, note })
    }

    async fn release(
        &self,
        service: &str,
        message: Option<&Pattern>,
        reason: String,
        who: String,
    ) -> Result<QuarantineAnswer, String> {
        let found = self.find(service, message)?;
        let waiting = self.count(std::slice::from_ref(&found)).await;
        let waiting = waiting.first().map_or(0, |(sent, to_receive)| sent + to_receive);
        let what = format!("{found} is no longer held; {waiting} messages go on");
        let order = Hold {
            reason: printable(reason.as_bytes(), ADMIN_TEXT_BYTES_MAX),
            who,
            ..found
        };
        let this = self.clone();
        let changed = tokio::task::spawn_blocking(move || this.change(&order, false)).await;
        changed.map_err(|error| error.to_string())??;
        Ok(QuarantineAnswer::Done { what, note: None })
    }

    async fn discard(
        &self,
        service: &str,
        message: Option<&Pattern>,
        seq: Option<Seq>,
    ) -> Result<QuarantineAnswer, String> {
        let hold = self.find(service, message)?;
        let Some(counter) = &self.passage.counter else {
            return Err(String::from("this broker has no store, so that nothing waits"));
        };
        let done = counter.ask(move |store, _, _| {
            let count = store.discard_held(&hold, seq);
            store.commit()?;
            Ok((count, store.is_all_written()))
        });
        match done.await {
            None => Err(String::from("the broker is stopping")),
            Some((0, _)) => Err(String::from(
                "no such message of it waits; `exocom quarantine show` tells what does",
            )),
            Some((_, false)) => Err(String::from(
                "done, but not written down: the disk is full, and a crash would undo it",
            )),
            Some((count, true)) => Ok(QuarantineAnswer::Done {
                what: format!("{count} messages of {} dropped", what(service, message)),
                note: None,
            }),
        }
    }

    async fn list(&self) -> QuarantineAnswer {
        let holds: Vec<_> = self.broker.world.quarantine().holds().cloned().collect();
        let counts = self.count(&holds).await;
        let held = holds.into_iter().zip(counts);
        QuarantineAnswer::List {
            held: held
                .map(|(hold, (sent, to_receive))| HeldStatus {
                    hold,
                    sent,
                    to_receive,
                })
                .collect(),
        }
    }

    async fn show(&self, service: &str, message: Option<&Pattern>) -> Result<QuarantineAnswer, String> {
        let hold = self.find(service, message)?;
        let (sent, to_receive) = self
            .count(std::slice::from_ref(&hold))
            .await
            .pop()
            .unwrap_or_default();
        let asked = hold.clone();
        let messages = match &self.passage.counter {
            None => None,
            Some(counter) => {
                let shown = counter.ask(move |store, _, now_ms| {
                    let held = store.deliveries().held_by(&asked).take(SHOWN_MAX);
                    Ok(held.map(|held| shown(&held, now_ms)).collect())
                });
                shown.await
            }
        };
        Ok(QuarantineAnswer::Held {
            held: HeldStatus {
                hold,
                sent,
                to_receive,
            },
            messages: messages.unwrap_or_default(),
        })
    }

    /// How many messages wait because of each: sent by it, and for it.
    async fn count(&self, holds: &[Hold]) -> Vec<(usize, usize)> {
        let none = vec![(0, 0); holds.len()];
        let Some(counter) = &self.passage.counter else {
            return none;
        };
        let holds = holds.to_vec();
        let counted = counter.ask(move |store, _, _| {
            let counts = holds.iter().map(|hold| {
                let is_sent = |held: &HeldMessage| held.sender == hold.service;
                let held = store.deliveries().held_by(hold);
                held.fold((0, 0), |(sent, to_receive), held| match is_sent(&held) {
                    true => (sent + 1, to_receive),
                    false => (sent, to_receive + 1),
                })
            });
            Ok(counts.collect())
        });
        counted.await.unwrap_or(none)
    }

    fn find(&self, service: &str, message: Option<&Pattern>) -> Result<Hold, String> {
        let quarantine = self.broker.world.quarantine();
        let found = quarantine.get(service, message).cloned();
        found.ok_or_else(|| {
            format!(
                "{} is not held; `exocom quarantine list` tells what is, with the words to write for it",
                what(service, message)
            )
        })
    }

    /// Puts a hold on the list, or takes it off: recorded first, then on disk, then in force.
    fn change(&self, hold: &Hold, is_held: bool) -> Result<(), String> {
        let _changing = self.changing.lock();
        let (service, message) = (&hold.service, hold.message.as_ref());
        let current = self.broker.world.quarantine();
        let changed = match (is_held, current.get(service, message)) {
            (true, None) if current.len() >= QUARANTINE_MAX => {
                return Err(format!(
                    "{QUARANTINE_MAX} entries are held already; release some, or revoke the service"
                ));
            }
            (true, _) => current.with(hold.clone()),
            (false, _) => current.without(service, message),
        };
        let record = |is_held, why: String| Record::Quarantine {
            sender: service.to_string(),
            message: message.map(ToString::to_string),
            is_held,
            who: hold.who.clone(),
            why,
            alarm: hold.alarm.filter(|_| is_held),
        };
        if let Some(recorder) = &self.recorder {
            recorder.record(record(is_held, hold.reason.clone()))?;
        }
        if let Err(error) = self.keep(&changed) {
            self.broker.note(|| record(!is_held, error.clone()));
            return Err(error);
        }
        self.broker.world.set_quarantine(Arc::new(changed));
        Ok(())
    }

    fn keep(&self, quarantine: &Quarantine) -> Result<(), String> {
        let kept = Kept {
            version: 1,
            held: quarantine.holds().cloned().collect(),
        };
        let json = serde_json::to_vec_pretty(&kept).expect("the list is plain data");
        state::replace(&self.path, &json).map_err(|error| {
            format!(
                "{}: cannot be written, so nothing was changed: {error}; make room or repair the disk, and try again",
                self.path.display()
            )
        })
    }

    /// Tells those who wait for the answers of a held service that there will be none.
    fn give_up_answers(&self) {
        let world = &self.broker.world;
        let (quarantine, policy) = (world.quarantine(), world.policy());
        for (_, handle) in self.broker.connections() {
            if let Role::Service(service) = &handle.identity.role {
                give_up_held(
                    &handle,
                    |name| quarantine.is_held(service, name),
                    policy.version(),
                );
            }
        }
    }
}

/// Whether an alarm says that its sender does more than it should. That a receiver is slow, or somebody silent, is no reason
/// to hold anybody.
fn is_too_much(alarm: &Alarm) -> bool {
    let is_of_sender = matches!(
        alarm.stream.measure,
        Measure::Messages | Measure::Denials | Measure::OverLimit
    );
    let is_more = matches!(
        alarm.finding.kind,
        AlarmKind::Burst | AlarmKind::More | AlarmKind::NewFlow | AlarmKind::OverLimit
    );
    is_of_sender && is_more
}

fn shown(held: &HeldMessage, now_ms: u64) -> HeldMessageStatus {
    HeldMessageStatus {
        seq: held.seq.0,
        message: held.name.to_string(),
        sender: held.sender.to_string(),
        receiver: held.receiver.to_string(),
        age_s: now_ms.saturating_sub(held.stored_ms) / 1_000,
        bytes: held.bytes,
    }
}
