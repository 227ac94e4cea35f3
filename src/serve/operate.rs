//! What operators do with the queues of the services: look, replay, drop, purge. What changes something is on disk
//! before it is answered.

use crate::console::queue::{DeadStatus, MessageStatus, QueueAnswer, QueueStatus, QueueVerb};
use crate::delivery::{ReceiverNo, Seq};
use crate::disk::LogError;
use crate::disk::files::Folder;
use crate::disk::store::Store;

/// Dead letters that are listed at once.
const LISTED_MAX: usize = 1_000;

/// Carries an order out. `is_disk_full` tells that no further segment can be prepared. An error is one of the log: the store cannot go on.
pub(super) fn carry_out(
    store: &mut Store<Folder>,
    verb: QueueVerb,
    is_disk_full: bool,
    now_ms: u64,
) -> Result<QueueAnswer, LogError> {
    let answer = match verb {
        QueueVerb::List => return Ok(list(store, is_disk_full, now_ms, LISTED_MAX)),
        QueueVerb::Depths => return Ok(list(store, is_disk_full, now_ms, 0)),
        QueueVerb::Show { seq, payload } => return Ok(show(store, Seq(seq), payload)),
        QueueVerb::Replay { seq, service, .. } => {
            let replayed = each_dead(store, seq, service.as_deref(), |store, seq, receiver| {
                store.replay(seq, receiver, now_ms)
            });
            changed(replayed, "dead letter")
        }
        QueueVerb::Drop { seq, service, .. } => {
            let dropped = each_dead(store, seq, service.as_deref(), |store, seq, receiver| {
                store.drop_dead(seq, receiver)
            });
            changed(dropped, "dead letter")
        }
        QueueVerb::Purge { service, .. } => changed(store.purge(&service).len(), "waiting message"),
    };
    store.commit()?;
    if !store.is_all_written() {
        return Ok(QueueAnswer::refused(
            "done, but not written down: the disk is full, and a crash would undo it",
        ));
    }
    Ok(answer)
}

fn changed(count: usize, what: &str) -> QueueAnswer {
    if count == 0 {
        return QueueAnswer::refused(&format!(
            "there is no such {what}; `exocom queue list` shows what there is"
        ));
    }
    QueueAnswer::Changed { count }
}

/// Does something with the dead letters of a message, or of a service, or of both.
fn each_dead(
    store: &mut Store<Folder>,
    seq: Option<u64>,
    service: Option<&str>,
    act: impl Fn(&mut Store<Folder>, Seq, ReceiverNo) -> bool,
) -> usize {
    let dead: Vec<_> = store
        .dead_letters()
        .filter(|letter| seq.is_none_or(|seq| letter.seq.0 == seq))
        .filter(|letter| service.is_none_or(|service| *letter.service == *service))
        .map(|letter| (letter.seq, letter.receiver))
        .collect();
    let acted = dead
        .into_iter()
        .filter(|&(seq, receiver)| act(store, seq, receiver));
    acted.count()
}

fn list(store: &Store<Folder>, is_disk_full: bool, now_ms: u64, dead_max: usize) -> QueueAnswer {
    let mut queues: Vec<_> = store
        .depths()
        .map(|(service, depth)| QueueStatus {
            service: service.to_string(),
            pending: depth.pending,
            in_flight: depth.in_flight,
            dead: depth.dead,
            // To find it may take long.
            oldest_s: (dead_max > 0)
                .then(|| store.deliveries().oldest_ms(service))
                .flatten()
                .map(|stored_ms| now_ms.saturating_sub(stored_ms) / 1000),
        })
        .collect();
    queues.sort_by(|a, b| a.service.cmp(&b.service));
    let dead = store.dead_letters().take(dead_max).map(|letter| DeadStatus {
        seq: letter.seq.0,
        service: letter.service.to_string(),
        message: letter.name.to_string(),
        cause: letter.cause.to_string(),
        attempts: letter.attempts,
        dead_for_s: now_ms.saturating_sub(letter.since_ms) / 1000,
    });
    let size = store.size();
    QueueAnswer::Queues {
        queues,
        dead: dead.collect(),
        messages: store.deliveries().len(),
        live_bytes: size.live_bytes,
        disk_bytes: size.disk_bytes,
        is_disk_full: is_disk_full || store.is_disk_full(),
    }
}

fn show(store: &Store<Folder>, seq: Seq, with_payload: bool) -> QueueAnswer {
    let (Some(kept), Ok(Some(content))) = (store.deliveries().kept(seq), store.content(seq)) else {
        return QueueAnswer::refused(&format!(
            "there is no message {seq}: it has been delivered or dropped, or never was"
        ));
    };
    let receivers = kept.receivers.iter().map(|receiver| {
        let state = match (receiver.is_settled, receiver.dead) {
            (true, _) => "done".to_owned(),
            (false, Some((cause, _))) => format!("dead: {cause}"),
            (false, None) => "waiting".to_owned(),
        };
        (receiver.service.to_string(), state, receiver.attempts)
    });
    QueueAnswer::Message(Box::new(MessageStatus {
        seq: seq.0,
        message: kept.name.to_string(),
        sender: content.sender.to_string(),
        stored_unix_ms: kept.stored_ms,
        expires_unix_ms: kept.expires_at_ms,
        receivers: receivers.collect(),
        headers: String::from_utf8_lossy(&content.headers).into_owned(),
        payload_bytes: content.payload.len(),
        payload: with_payload.then(|| String::from_utf8_lossy(&content.payload).into_owned()),
    }))
}
