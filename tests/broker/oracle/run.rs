//! Runs a case at both servers and compares what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use super::Pair;
use super::case::{Case, Op, SERVICES, Step};
use super::differences::Script;
use super::explain;
use super::trace::{Groups, Heard, Item, Message, heard};
use super::wire::Wire;
use crate::support::PATIENCE;

/// How long an answer is waited for before it is made to come. Nothing is concluded from it.
const PAUSE: Duration = Duration::from_millis(250);

/// More than any payload or line that a client may have begun: it ends whatever hangs.
const FILLER_BYTES: usize = 8192;

/// How often a failing case is run again to make it smaller.
const SMALLER_TRIES: usize = 200;

/// Our broker, and nats-server.
const OURS: usize = 0;
const THEIRS: usize = 1;

/// Runs a case; tells what differs.
pub fn run(pair: &Pair, case: &Case) -> Result<(), String> {
    let mut sides = [pair.ours.address(), pair.theirs.address()].map(Side::new);
    let mut requests = Requests::default();
    for (number, step) in case.steps.iter().enumerate() {
        for side in &mut sides {
            // Only now: both servers cut a client that takes its time to say CONNECT.
            let address = side.address;
            let certificate = &pair.certificates[case.connections[step.connection]];
            side.wires
                .entry(step.connection)
                .or_insert_with(|| Wire::connect(address, certificate));
        }
        if sides
            .iter_mut()
            .any(|side| side.wire(step.connection).is_closed())
        {
            continue;
        }
        let said = step.says.iter().fold([Vec::new(), Vec::new()], |said, op| {
            requests.resolve(step.connection, op, said)
        });
        speak(&mut sides, number, step, &said).map_err(|error| format!("at step {number}: {error}"))?;
        let connections = 0..case.connections.len();
        let [ours, theirs] = [OURS, THEIRS].map(|side| {
            let mut groups = Groups::new();
            let heard = connections
                .clone()
                .map(|connection| sides[side].heard(connection, number, &mut groups, &requests))
                .collect();
            groups.values_mut().for_each(|group| group.sort());
            Outcome { heard, groups }
        });
        let is_explained = step.is_garbled && explain::can_explain(&said[OURS], &ours, &theirs);
        if !is_explained && !ours.is_same(&theirs) {
            return Err(format!(
                "at step {number}\n  ours   {ours:?}\n  theirs {theirs:?}"
            ));
        }
        requests.note(&ours, &theirs);
    }
    Ok(())
}

/// Sends a step's bytes to both, and waits until both have said all that it leads to, on every connection.
fn speak(sides: &mut [Side; 2], number: usize, step: &Step, said: &[Vec<u8>; 2]) -> Result<(), String> {
    let ask = format!("PUB fence.{number} 0\r\n\r\nPING\r\n");
    let has_answer = |items: &[Item]| end_of_answers(items, number).is_some();
    for (side, bytes) in sides.iter_mut().zip(said) {
        let wire = side.wire(step.connection);
        wire.send(pieces(bytes, &step.cuts));
        wire.send([ask.as_bytes()]);
    }
    let hangs = sides
        .iter_mut()
        .map(|side| !side.wire(step.connection).wait(PAUSE, has_answer))
        .fold(false, |hangs, this| hangs | this);
    if hangs {
        // Perhaps in the middle of an operation; at both, or one of them differs. Perhaps only slow.
        for side in sides.iter_mut() {
            let wire = side.wire(step.connection);
            wire.send([[b'x'; FILLER_BYTES].as_slice()]);
            if !wire.wait(PATIENCE, |_| false) {
                return Err(format!("no answer and no end; heard {:?}", wire.take()));
            }
        }
    }
    for side in sides.iter_mut() {
        if !side.wire(step.connection).is_closed() {
            side.ready.insert(step.connection);
        }
        for other in side.ready.clone() {
            let wire = side.wire(other);
            if other == step.connection || wire.is_closed() {
                continue;
            }
            wire.send([ask.as_bytes()]);
            if !wire.wait(PATIENCE, has_answer) {
                return Err(format!(
                    "connection {other} gets no answer; heard {:?}",
                    wire.take()
                ));
            }
        }
    }
    Ok(())
}

/// Where the answers of a step end: at the refusal of a message that nobody may send, and the `PONG` after it. What
/// was sent before is delivered before that `PONG`; the refusal tells it from others.
fn end_of_answers(items: &[Item], step: usize) -> Option<(usize, usize)> {
    let refusal = format!("Permissions Violation for Publish to \"fence.{step}\"");
    let at = items
        .iter()
        .position(|item| matches!(item, Item::Err(text) if *text == refusal))?;
    let after = items.iter().skip(at).position(|item| *item == Item::Pong)?;
    Some((at, at + after))
}

fn without_fence(mut items: Vec<Item>, step: usize) -> Vec<Item> {
    if let Some((refusal, pong)) = end_of_answers(&items, step) {
        items.remove(pong);
        items.remove(refusal);
    }
    items
}

fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().copied().filter(|&cut| cut < bytes.len()).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|ends| &bytes[ends[0]..ends[1]])
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// One server, and the connections of a case to it.
struct Side {
    address: SocketAddr,
    wires: BTreeMap<usize, Wire>,
    /// Those that have been answered since CONNECT.
    ready: BTreeSet<usize>,
}

impl Side {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            wires: BTreeMap::new(),
            ready: BTreeSet::new(),
        }
    }

    fn wire(&mut self, connection: usize) -> &mut Wire {
        self.wires.get_mut(&connection).expect("it has connected")
    }

    fn heard(&mut self, connection: usize, step: usize, groups: &mut Groups, requests: &Requests) -> Heard {
        let items = self.wires.get_mut(&connection).map(Wire::take);
        let items = without_fence(items.unwrap_or_default(), step);
        heard(items, connection, groups, |subject| {
            requests.inbox_of(connection, subject)
        })
    }
}

/// What a step led to at one server.
#[derive(Debug)]
pub struct Outcome {
    /// Of each connection.
    pub heard: Vec<Heard>,
    pub groups: Groups,
}

impl Outcome {
    fn is_same(&self, theirs: &Self) -> bool {
        let messages = |groups: &Groups| -> Vec<_> {
            groups
                .iter()
                .map(|(name, group)| {
                    (
                        name.clone(),
                        group
                            .iter()
                            .map(|(message, _)| message.clone())
                            .collect::<Vec<_>>(),
                    )
                })
                .collect()
        };
        let pairs = self.heard.iter().zip(&theirs.heard);
        pairs.into_iter().all(|(ours, theirs)| {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(theirs)
                    .all(|(ours, theirs)| explain::is_same_but_for_last_words(ours, theirs))
        }) && messages(&self.groups) == messages(&theirs.groups)
    }

    /// The messages of each connection, in order.
    fn messages(&self) -> impl Iterator<Item = (usize, &Message)> {
        self.heard.iter().enumerate().flat_map(|(connection, heard)| {
            heard
                .iter()
                .flat_map(move |segment| segment.messages.iter().map(move |message| (connection, message)))
        })
    }
}

/// Requests that reached a connection, with the reply subjects by which each server knows them.
#[derive(Default)]
struct Requests(Vec<Request>);

struct Request {
    connection: usize,
    replies: [String; 2],
    is_answered: bool,
}

impl Requests {
    /// Appends an operation as each server is told it.
    fn resolve(&mut self, connection: usize, op: &Op, mut said: [Vec<u8>; 2]) -> [Vec<u8>; 2] {
        match op {
            Op::Bytes(bytes) => said.iter_mut().for_each(|said| said.extend_from_slice(bytes)),
            Op::Answer {
                nth,
                is_first,
                payload,
            } => {
                let own = self
                    .0
                    .iter_mut()
                    .rev()
                    .filter(|request| request.connection == connection);
                let mut fitting = own.filter(|request| !(*is_first && request.is_answered));
                if let Some(request) = fitting.nth(*nth) {
                    request.is_answered = true;
                    for (said, reply) in said.iter_mut().zip(&request.replies) {
                        said.extend_from_slice(
                            format!("PUB {reply} {}\r\n{payload}\r\n", payload.len()).as_bytes(),
                        );
                    }
                }
            }
        }
        said
    }

    /// Takes note of the requests in what was heard, which is the same at both.
    fn note(&mut self, ours: &Outcome, theirs: &Outcome) {
        let plain = ours
            .messages()
            .zip(theirs.messages())
            .map(|((connection, ours), (_, theirs))| (connection, ours, theirs));
        let members = ours
            .groups
            .values()
            .flatten()
            .zip(theirs.groups.values().flatten());
        // Where a group chose differently, there is nobody who could answer at both.
        let grouped = members
            .filter(|(ours, theirs)| ours.1 == theirs.1)
            .map(|(ours, theirs)| (ours.1, &ours.0, &theirs.0));
        let mut fresh = Vec::new();
        for (connection, ours, theirs) in plain.chain(grouped) {
            if let (Some(ours), Some(theirs)) = (&ours.reply, &theirs.reply) {
                fresh.push(Request {
                    connection,
                    replies: [ours.0.clone(), theirs.0.clone()],
                    is_answered: false,
                });
            }
        }
        // One that reached a connection twice is one request for nats-server, and two for us: see `differences`.
        let is_same =
            |a: &Request, b: &Request| a.connection == b.connection && a.replies[THEIRS] == b.replies[THEIRS];
        let is_single: Vec<_> = fresh
            .iter()
            .map(|a| fresh.iter().filter(|b| is_same(a, b)).count() == 1)
            .collect();
        self.0.extend(
            fresh
                .into_iter()
                .zip(is_single)
                .filter(|(_, is_single)| *is_single)
                .map(|(request, _)| request),
        );
    }

    /// The inbox behind one of our broker's tokens.
    fn inbox_of(&self, connection: usize, token: &str) -> Option<String> {
        let named = |request: &&Request| request.connection == connection && request.replies[OURS] == token;
        self.0
            .iter()
            .find(named)
            .map(|request| request.replies[THEIRS].clone())
    }
}

/// Leaves out of a failing case what it can fail without.
pub fn smaller(pair: &Pair, mut case: Case, mut difference: String) -> (Case, String) {
    let mut at = 0;
    for _ in 0..SMALLER_TRIES {
        let Some(fewer) = without(&case, at) else { break };
        match run(pair, &fewer) {
            Err(still) => (case, difference) = (fewer, still),
            Ok(()) => at += 1,
        }
    }
    (case, difference)
}

/// A case without one of its parts: whole steps come first, then single operations, then the cuts.
fn without(case: &Case, at: usize) -> Option<Case> {
    let mut fewer = case.clone();
    let steps = case.steps.len();
    if at < steps {
        fewer.steps.remove(steps - 1 - at);
        return Some(fewer);
    }
    let mut nth = at - steps;
    for step in &mut fewer.steps {
        if nth < step.says.len() {
            step.says.remove(nth);
            return Some(fewer);
        }
        nth -= step.says.len();
    }
    let mut cut = fewer.steps.iter_mut().filter(|step| !step.cuts.is_empty());
    cut.nth(nth)?.cuts.clear();
    Some(fewer)
}

/// Plays a script at both servers; gives what each says in the end, a line for each item.
pub fn play(pair: &Pair, script: &Script) -> [Vec<String>; 2] {
    [pair.ours.address(), pair.theirs.address()].map(|address| {
        let who = script.connections.iter().map(|name| {
            let service = SERVICES.iter().position(|service| service.name == *name);
            Wire::connect(address, &pair.certificates[service.expect("one of the services")])
        });
        let mut wires: Vec<_> = who.collect();
        let mut last_reply = vec![String::new(); wires.len()];
        let hello =
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true}\r\n";
        let hellos = (0..wires.len()).map(|connection| (connection, hello));
        let all: Vec<_> = hellos
            .chain(script.before.iter().copied())
            .chain([script.says])
            .collect();
        let mut heard = Vec::new();
        for (number, (connection, text)) in all.into_iter().enumerate() {
            let text = text
                .replace("<reply>", &last_reply[connection])
                .replace("<long>", &"a".repeat(5000));
            wires[connection].send([text.as_bytes()]);
            // Who has not said CONNECT has nothing to hear yet.
            let present: Vec<_> = (0..wires.len()).filter(|&other| number >= other).collect();
            let ask = format!("PUB fence.{number} 0\r\n\r\nPING\r\n");
            heard = vec![Vec::new(); wires.len()];
            let speaker_first = [connection]
                .into_iter()
                .chain(present.into_iter().filter(|&other| other != connection));
            for other in speaker_first {
                let wire = &mut wires[other];
                wire.send([ask.as_bytes()]);
                assert!(
                    wire.wait(PATIENCE, |items| end_of_answers(items, number).is_some()),
                    "no answer"
                );
                heard[other] = without_fence(wire.take(), number);
                for item in &heard[other] {
                    if let Item::Message(Message {
                        reply: Some(reply), ..
                    }) = item
                    {
                        last_reply[other].clone_from(&reply.0);
                    }
                }
            }
        }
        let lines = heard.iter().enumerate().flat_map(|(connection, items)| {
            items
                .iter()
                .map(move |item| format!("{connection} {}", without_chance(&format!("{item:?}"))))
        });
        lines.collect()
    })
}

/// What differs from run to run, left out: reply tokens, and the version of the policy.
fn without_chance(line: &str) -> String {
    let mut text = line.to_owned();
    for (start, end) in [("reply=_R.", " "), ("Exo-Policy: ", "\\r")] {
        if let Some((before, after)) = text.split_once(start)
            && let Some((_, rest)) = after.split_once(end)
        {
            text = format!("{before}{start}…{end}{rest}");
        }
    }
    text
}
