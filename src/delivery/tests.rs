//! The deliveries against a small world of live instances and a clock of its own; no file and no socket.

use std::sync::Arc;

use super::*;
use crate::policy::Kind;

const BOUNDS: Bounds = Bounds {
    messages_max: 100,
    bytes_max: 10_000,
    queue_messages_max: 50,
    window_messages_max: 4,
    window_bytes_max: 1_000,
    ids_window_ms: 120_000,
    ids_max: 10,
};

const TERMS: DeliveryTerms = DeliveryTerms {
    kind: Kind::Event,
    attempt_ms_max: 1_000,
    attempts_max: 3,
    backoff_first_ms: 100,
    backoff_longest_ms: 150,
    expires_ms: 60_000,
};

/// A service with live instances, all listening to everything.
struct World {
    deliveries: Deliveries,
    instances: Vec<u64>,
    epoch: u64,
    now_ms: u64,
}

impl World {
    fn new(instances: &[u64]) -> Self {
        Self {
            deliveries: Deliveries::new(BOUNDS),
            instances: instances.to_vec(),
            epoch: 1,
            now_ms: 1_000_000,
        }
    }

    fn publish(&mut self, name: &str, id: Option<&str>) -> Result<Admitted, Full> {
        let (sender, name, receivers) = (Arc::from("web"), Arc::from(name), [Arc::from("todos")]);
        let id = id.map(Arc::from);
        let new = NewMessage {
            sender: &sender,
            name: &name,
            terms: TERMS,
            receivers: &receivers,
            id: id.as_ref(),
            bytes: 100,
        };
        self.deliveries.handle_publish(&new, self.now_ms)
    }

    fn stored(&mut self, name: &str) -> Seq {
        match self.publish(name, None) {
            Ok(Admitted::New(seq)) => seq,
            other => panic!("{other:?}"),
        }
    }

    /// What is sent now: sequence, instance, attempt.
    fn sent(&mut self) -> Vec<(u64, u64, u32)> {
        let mut out = Vec::new();
        let instances = &self.instances;
        let listening = |_: &Arc<str>, _: &Arc<str>, found: &mut Vec<InstanceId>| {
            found.extend(instances.iter().copied().map(InstanceId));
        };
        self.deliveries
            .dispatch(self.epoch, self.now_ms, listening, &mut out);
        out.iter()
            .map(|sent| (sent.seq.0, sent.to.0, sent.attempt))
            .collect()
    }

    fn after(&mut self, ms: u64) -> &mut Self {
        self.now_ms += ms;
        self.deliveries.handle_time(self.now_ms);
        self
    }

    fn changed(&mut self, instances: &[u64]) -> &mut Self {
        self.instances = instances.to_vec();
        self.epoch += 1;
        self
    }
}

const FIRST: ReceiverNo = ReceiverNo(0);

#[test]
fn instances_take_turns_within_their_windows() {
    let mut world = World::new(&[1, 2]);
    for _ in 0..10 {
        world.stored("a");
    }
    let sent = world.sent();
    assert_eq!(sent.len(), 8);
    assert_eq!(sent[2..6], [(3, 1, 1), (4, 1, 1), (5, 2, 1), (6, 2, 1)]);
    assert!(world.sent().is_empty());
    assert!(world.deliveries.handle_ack(Seq(6), FIRST));
    assert_eq!(world.sent(), [(9, 2, 1)]);
    assert!(!world.deliveries.handle_ack(Seq(6), FIRST), "acknowledged once");
    assert_eq!(world.deliveries.take_forgotten(), [Seq(6)]);
}

#[test]
fn a_lane_that_waits_for_room_is_served_when_another_lane_makes_it() {
    let mut world = World::new(&[1]);
    for name in ["a", "a", "a", "a", "b"] {
        world.stored(name);
    }
    assert_eq!(world.sent().len(), 4);
    world.deliveries.handle_ack(Seq(1), FIRST);
    assert_eq!(world.sent(), [(5, 1, 1)]);
}

#[test]
fn what_a_gone_instance_had_goes_to_another_at_once() {
    let mut world = World::new(&[1, 2]);
    world.stored("a");
    assert_eq!(world.sent(), [(1, 1, 1)]);
    world.deliveries.handle_gone(InstanceId(1), world.now_ms);
    assert_eq!(world.changed(&[2]).sent(), [(1, 2, 2)]);
    assert_eq!(
        world.deliveries.take_changes(),
        [Change::Failed(Seq(1), FIRST, 1)]
    );
}

#[test]
fn a_refusal_waits_and_goes_to_another_instance() {
    let mut world = World::new(&[1, 2]);
    world.stored("a");
    assert_eq!(world.sent(), [(1, 1, 1)]);
    world
        .deliveries
        .handle_nak(Seq(1), FIRST, InstanceId(2), None, world.now_ms);
    assert_eq!(
        world.deliveries.take_changes(),
        [],
        "only the instance that has it may refuse"
    );
    world
        .deliveries
        .handle_nak(Seq(1), FIRST, InstanceId(1), None, world.now_ms);
    assert!(world.after(99).sent().is_empty());
    assert_eq!(world.after(1).sent(), [(1, 2, 2)]);
    world
        .deliveries
        .handle_nak(Seq(1), FIRST, InstanceId(2), Some(7), world.now_ms);
    assert_eq!(world.after(7).sent(), [(1, 1, 3)]);
}

#[test]
fn after_the_last_attempt_it_is_a_dead_letter_that_can_be_replayed_or_dropped() {
    let mut world = World::new(&[1]);
    world.stored("a");
    for (attempt, wait_ms) in [(1, 100), (2, 150), (3, 0)] {
        assert_eq!(world.sent(), [(1, 1, attempt)]);
        world.after(1_000).after(wait_ms);
    }
    assert!(world.sent().is_empty());
    let dead: Vec<_> = world.deliveries.dead_letters().collect();
    assert_eq!((dead[0].cause, dead[0].attempts), (Cause::Attempts, 3));
    assert_eq!(world.deliveries.take_given_up().len(), 1);
    assert!(world.deliveries.replay(Seq(1), FIRST, world.now_ms));
    assert_eq!(world.sent(), [(1, 1, 4)]);
    world
        .deliveries
        .handle_term(Seq(1), FIRST, InstanceId(1), world.now_ms);
    assert_eq!(
        world.deliveries.dead_letters().next().unwrap().cause,
        Cause::Terminated
    );
    assert!(!world.deliveries.handle_ack(Seq(1), FIRST));
    assert!(world.deliveries.drop_dead(Seq(1), FIRST));
    assert!(world.deliveries.is_empty());
    assert_eq!(world.deliveries.depths().count(), 0);
}

#[test]
fn progress_gives_time() {
    let mut world = World::new(&[1]);
    world.stored("a");
    world.sent();
    for _ in 0..5 {
        world.after(900);
        world
            .deliveries
            .handle_progress(Seq(1), FIRST, InstanceId(1), world.now_ms);
    }
    assert_eq!(world.deliveries.take_changes(), []);
    world.after(1_000);
    assert_eq!(
        world.deliveries.take_changes(),
        [Change::Failed(Seq(1), FIRST, 1)]
    );
}

#[test]
fn it_expires_wherever_it_is() {
    let mut world = World::new(&[]);
    world.stored("a");
    assert!(world.sent().is_empty());
    world.after(59_999);
    assert_eq!(world.deliveries.dead_letters().count(), 0);
    world.after(1);
    assert_eq!(
        world.deliveries.dead_letters().next().unwrap().cause,
        Cause::Expired
    );
    assert!(world.changed(&[1]).sent().is_empty());
}

#[test]
fn an_outbox_that_is_full_is_left_alone_and_tried_again() {
    let mut world = World::new(&[1]);
    world.stored("a");
    let mut out = Vec::new();
    let listening = |_: &Arc<str>, _: &Arc<str>, found: &mut Vec<InstanceId>| found.push(InstanceId(1));
    world.deliveries.dispatch(1, world.now_ms, listening, &mut out);
    world.deliveries.handle_not_taken(&out[0], world.now_ms);
    assert!(world.sent().is_empty());
    assert_eq!(world.deliveries.next_deadline_ms(), Some(world.now_ms + 20));
    assert_eq!(world.after(20).sent(), [(1, 1, 1)], "it was no attempt");
}

#[test]
fn bounds_hold_and_say_which() {
    let mut world = World::new(&[]);
    for _ in 0..50 {
        world.stored("a");
    }
    assert_eq!(world.publish("a", None), Err(Full::Queue));
    let mut world = World::new(&[]);
    for id in 0..10 {
        world.publish("a", Some(&id.to_string())).unwrap();
    }
    assert_eq!(world.publish("a", Some("11")), Err(Full::Ids));
    assert_eq!(world.publish("a", Some("3")), Ok(Admitted::Duplicate(Seq(4))));
    world.now_ms += 120_000;
    assert_eq!(world.publish("a", Some("3")), Ok(Admitted::New(Seq(11))));
    let mut world = World::new(&[]);
    world.deliveries = Deliveries::new(Bounds {
        bytes_max: 250,
        ..BOUNDS
    });
    world.stored("a");
    world.stored("a");
    assert_eq!(world.publish("a", None), Err(Full::Bytes));
}

#[test]
fn a_restart_keeps_what_was_written_down_and_counts_the_attempt_that_nobody_knows_of() {
    let mut world = World::new(&[1]);
    let seq = world.stored("a");
    let kept = world.deliveries.kept(seq).unwrap();
    world.sent();
    world.after(1_000);
    let changes = world.deliveries.take_changes();
    let mut again = World::new(&[1]);
    again.deliveries.recover_message(kept);
    changes
        .iter()
        .for_each(|change| again.deliveries.recover_change(*change));
    again.deliveries.recover_crash();
    again.deliveries.recovered(again.now_ms);
    assert_eq!(again.sent(), [(1, 1, 3)]);
    assert_eq!(again.stored("a"), Seq(2));
    again.deliveries.recover_change(Change::Acknowledged(seq, FIRST));
    assert!(!again.deliveries.holds(seq));
}

#[test]
fn a_clock_that_was_wrong_revives_what_it_had_expired() {
    let mut world = World::new(&[]);
    let seq = world.stored("a");
    world.after(61_000);
    let kept = world.deliveries.kept(seq).unwrap();
    let mut again = World::new(&[1]);
    again.deliveries.recover_message(kept.clone());
    again.deliveries.recovered(again.now_ms + 61_000);
    assert!(again.sent().is_empty(), "the clock was right");
    again.deliveries.recover_message(kept);
    again.deliveries.recovered(again.now_ms);
    assert_eq!(again.sent(), [(1, 1, 1)]);
}

#[test]
fn what_a_clock_that_was_ahead_stored_is_kept_no_longer_than_what_is_stored_now() {
    let mut world = World::new(&[]);
    let right_ms = world.now_ms;
    world.now_ms += 31_536_000_000;
    world.publish("a", Some("x")).unwrap();
    let kept = world.deliveries.kept(Seq(1)).unwrap();
    let mut again = World::new(&[]);
    assert_eq!(again.now_ms, right_ms);
    again
        .deliveries
        .recover_id("web".into(), "x".into(), Seq(1), kept.stored_ms);
    again.deliveries.recover_message(kept.clone());
    again.deliveries.recovered(right_ms);
    assert_eq!(again.publish("a", Some("x")), Ok(Admitted::Duplicate(Seq(1))));
    let now = again.deliveries.kept(Seq(1)).unwrap();
    assert_eq!(now.stored_ms, right_ms);
    assert_eq!(now.expires_at_ms, right_ms + kept.terms.expires_ms);
    again.after(kept.terms.expires_ms + 120_000);
    assert_eq!(
        again.deliveries.take_given_up().len(),
        1,
        "it expires when it should"
    );
    assert_eq!(
        again.publish("a", Some("x")),
        Ok(Admitted::New(Seq(2))),
        "the window is over"
    );
}

#[test]
fn what_is_held_keeps_its_place_and_takes_no_room_from_others() {
    use crate::policy::quarantine::{Hold, Quarantine};
    let hold = |service: &str| Hold {
        service: service.into(),
        message: None,
        reason: String::new(),
        who: String::new(),
        at_unix_s: 0,
        alarm: None,
    };
    let quarantine = |services: &[&str]| Arc::new(Quarantine::new(services.iter().map(|name| hold(name))));
    let mut world = World::new(&[1]);
    let (first, second) = (world.stored("a"), world.stored("a"));
    assert_eq!(world.sent(), [(1, 1, 1), (2, 1, 1)]);
    // Its sender: what is with a receiver stays there, what comes back waits.
    let now_ms = world.now_ms;
    world.deliveries.set_quarantine(&quarantine(&["web"]), now_ms);
    world
        .deliveries
        .handle_nak(first, FIRST, InstanceId(1), Some(0), now_ms);
    world.stored("a");
    assert!(world.sent().is_empty());
    let held = |world: &World, of: &str| {
        let hold = hold(of);
        let held = world.deliveries.held_by(&hold);
        held.map(|held| held.seq.0).collect::<Vec<_>>()
    };
    assert_eq!(held(&world, "web"), [1, 3]);
    assert_eq!(held(&world, "mail"), [0; 0]);
    // Its receiver: what that has in hand was an attempt.
    world
        .deliveries
        .set_quarantine(&quarantine(&["todos", "web"]), now_ms);
    assert_eq!(held(&world, "todos"), [1, 2, 3]);
    assert!(!world.deliveries.handle_ack(Seq(9), FIRST));
    world.deliveries.set_quarantine(&quarantine(&["todos"]), now_ms);
    assert_eq!(
        world.deliveries.discard_held(&hold("todos"), None),
        0,
        "others sent it"
    );
    assert_eq!(world.deliveries.discard_held(&hold("web"), Some(second)), 1);
    world.deliveries.set_quarantine(&quarantine(&[]), now_ms);
    assert_eq!(world.sent(), [(1, 1, 2), (3, 1, 1)]);
    // A quarter of the bytes, and no more; released, it is in the receiver's queue again.
    let mut world = World::new(&[]);
    world.deliveries.set_quarantine(&quarantine(&["web"]), now_ms);
    let stored = (0..50).filter(|_| world.publish("a", None).is_ok()).count();
    assert_eq!(stored, 25);
    world.deliveries.set_quarantine(&quarantine(&["other"]), now_ms);
    let stored = (0..50).filter(|_| world.publish("a", None).is_ok()).count();
    assert_eq!(stored, 25, "of 50 in the queue");
}
