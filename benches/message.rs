//! What a message costs between two sockets: decoding, the cached decision and route, encoding, and the whole turn.
//! Each measurement is of one message.
//!
//! `message --count NAME ROUNDS` runs one of them so many times and measures nothing: bench/instructions runs it
//! under callgrind, whose counts do not depend on what else the machine does.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use std::ops::DerefMut;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use exocom::exchange::mailbox::{ConnId, Mailbox, Peer};
use exocom::exchange::replies::PendingReplies;
use exocom::exchange::session::{Next, Session};
use exocom::exchange::turn::Turn;
use exocom::exchange::world::World;
use exocom::identity::{Identity, Role};
use exocom::limits::PAYLOAD_BYTES_MAX;
use exocom::policy::{Policy, Source};
use exocom::traffic::flow::FlowRegistry;
use exocom::wire::decode::{ClientOp, Step, decode};
use exocom::wire::encode::{self, Content, Head, ReplyToken, Stamp};
use parking_lot::Mutex;

/// Messages of a turn: about what a read of 16 KiB holds.
const MESSAGES: usize = 100;

/// A connection without a socket: what it is sent is forgotten at once.
#[derive(Debug, Clone)]
struct Quiet {
    id: ConnId,
    mailbox: Arc<Mutex<Mailbox>>,
    replies: Arc<Mutex<PendingReplies<Self>>>,
    /// What its client has heard, where that is of interest.
    heard: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Peer for Quiet {
    fn id(&self) -> ConnId {
        self.id
    }

    fn with_mailbox<R>(&self, f: impl FnOnce(&mut Mailbox) -> R) -> R {
        let mut mailbox = self.mailbox.lock();
        let result = f(&mut mailbox);
        let waiting = black_box(mailbox.outbox.waiting());
        if let Some(heard) = &self.heard {
            heard.lock().extend_from_slice(waiting);
        }
        let bytes = waiting.len();
        mailbox.outbox.take(bytes);
        result
    }

    fn replies(&self) -> impl DerefMut<Target = PendingReplies<Self>> {
        self.replies.lock()
    }

    fn is_ready(&self) -> bool {
        true
    }
}

struct Client {
    session: Session<Quiet>,
    peer: Quiet,
}

/// The clients of one policy, which take turns.
struct Town {
    world: World<Quiet>,
    flows: FlowRegistry,
    turn: Turn<Quiet>,
    clients: u64,
}

impl Town {
    fn new() -> Self {
        let mut text = String::from(
            "version = 1\ntrust-domain = \"bench.example\"\n\
             [service.web]\nsends = [\"todos.*\"]\n[service.todos]\nreceives = [\"todos.*\"]\n",
        );
        for index in 0..100 {
            write!(text, "[service.other-{index}]\nsends = [\"others.s{index}.*\"]\n")
                .expect("a string takes everything");
        }
        let sources = [Source {
            name: "bench.toml".into(),
            text,
        }];
        let policy = Policy::compile(&sources).expect("a valid policy").policy;
        Self {
            world: World::new(Arc::new(policy), None),
            flows: FlowRegistry::default(),
            turn: Turn::default(),
            clients: 0,
        }
    }

    fn join(&mut self, service: &str, greeting: &str, heard: Option<Arc<Mutex<Vec<u8>>>>) -> Client {
        self.clients += 1;
        let share = self.world.share(&service.into());
        let peer = Quiet {
            id: ConnId(self.clients),
            mailbox: Arc::default(),
            replies: Arc::new(Mutex::new(PendingReplies::new(7, &share.pending_replies))),
            heard,
        };
        let identity = Arc::new(Identity {
            trust_domain: "bench.example".into(),
            role: Role::Service(service.into()),
            serial: "1".into(),
            expires_unix_s: 0,
        });
        let flows = self.flows.open_book(&Arc::from(service), 1);
        let session = Session::new(peer.clone(), identity, None, flows, share, &self.world);
        let mut client = Client { session, peer };
        let greeting = format!("CONNECT {{\"headers\":true,\"no_responders\":true}}\r\n{greeting}");
        self.turn(&mut client, greeting.as_bytes());
        client
    }

    /// What `net/connection` does with what it has read and decrypted.
    fn turn(&mut self, client: &mut Client, said: &[u8]) {
        let turn = &mut self.turn;
        assert_eq!(client.session.begin(&self.world, turn, 0), Next::GoOn);
        let mut used = 0;
        while let Some(rest) = said.get(used..).filter(|rest| !rest.is_empty()) {
            let Ok(Step::Op(op, bytes)) = decode(rest, PAYLOAD_BYTES_MAX) else {
                panic!("what is said is whole");
            };
            assert_eq!(client.session.handle(&self.world, said, op, turn, 1), Next::GoOn);
            used += bytes;
        }
        client.session.finish(&self.world, said, turn, 1);
        client.session.finish_control(turn);
    }
}

/// So many messages, one after the other.
fn messages(line: &str, payload_bytes: usize) -> Vec<u8> {
    let payload = "x".repeat(payload_bytes);
    format!("{line} {payload_bytes}\r\n{payload}\r\n")
        .repeat(MESSAGES)
        .into_bytes()
}

/// One measurement: a name, and what is done for [`MESSAGES`] messages.
type Measurement = (&'static str, Box<dyn FnMut()>);

fn measurements() -> Vec<Measurement> {
    vec![
        ("decode", decoding(messages("PUB todos.list", 128))),
        (
            "decode, with headers and reply",
            decoding(
                format!(
                    "HPUB todos.list _INBOX.abc.1 26 154\r\nNATS/1.0\r\ntrace: 12345\r\n\r\n{}\r\n",
                    "x".repeat(128)
                )
                .repeat(MESSAGES)
                .into_bytes(),
            ),
        ),
        ("encode", encoding(None)),
        (
            "encode, with reply",
            encoding(Some(ReplyToken {
                slot: 17,
                generation: 12_345,
            })),
        ),
        ("turn, 1 receiver", turns(1, messages("PUB todos.list", 128))),
        ("turn, 8 receivers", turns(8, messages("PUB todos.list", 128))),
        ("turn, 1 KiB payloads", turns(1, messages("PUB todos.list", 1024))),
        ("turn, 50 names", turns(1, fifty_names())),
        ("request and reply", requests()),
    ]
}

fn decoding(said: Vec<u8>) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut used = 0;
        while let Some(rest) = said.get(used..).filter(|rest| !rest.is_empty()) {
            match decode(black_box(rest), PAYLOAD_BYTES_MAX) {
                Ok(Step::Op(op, bytes)) => {
                    assert!(matches!(black_box(op), ClientOp::Publish(_)));
                    used += bytes;
                }
                other => panic!("what is said is whole: {other:?}"),
            }
        }
    })
}

fn encoding(reply: Option<ReplyToken>) -> Box<dyn FnMut()> {
    let stamp = Stamp::new("web");
    let payload = vec![b'x'; 128];
    let head = Head::new(b"todos.list", b"1");
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for _ in 0..MESSAGES {
            let content = Content {
                stamp: &stamp,
                headers: b"",
                payload: black_box(&payload),
            };
            encode::message(&mut out, true, black_box(&head), reply, &content);
        }
        black_box(&out);
    })
}

fn fifty_names() -> Vec<u8> {
    let payload = "x".repeat(128);
    (0..MESSAGES).fold(Vec::new(), |mut said, number| {
        let name = format!("todos.list-{}", number % 50);
        said.extend_from_slice(format!("PUB {name} 128\r\n{payload}\r\n").as_bytes());
        said
    })
}

fn turns(receivers: usize, said: Vec<u8>) -> Box<dyn FnMut()> {
    let mut town = Town::new();
    let mut sender = town.join("web", "", None);
    let receivers: Vec<Client> = (0..receivers)
        .map(|_| town.join("todos", "SUB todos.* 1\r\n", None))
        .collect();
    Box::new(move || {
        town.turn(&mut sender, black_box(&said));
        black_box(&receivers);
    })
}

fn requests() -> Box<dyn FnMut()> {
    let mut town = Town::new();
    let mut requester = town.join("web", "SUB _INBOX.me.* 1\r\n", None);
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let mut responder = town.join("todos", "SUB todos.* 1\r\n", Some(Arc::clone(&heard)));
    let questions = messages("PUB todos.list _INBOX.me.1", 128);
    let payload = "x".repeat(128);
    Box::new(move || {
        town.turn(&mut requester, black_box(&questions));
        // The tokens, as a client finds them.
        let mut heard = heard.lock();
        let mut answers = Vec::with_capacity(questions.len());
        for start in memchr::memmem::find_iter(&heard, b" _R.") {
            let token = heard
                .get(start + 1..)
                .and_then(|rest| rest.split(|&byte| byte == b' ').next());
            answers.extend_from_slice(b"PUB ");
            answers.extend_from_slice(token.expect("a reply subject"));
            answers.extend_from_slice(b" 128\r\n");
            answers.extend_from_slice(payload.as_bytes());
            answers.extend_from_slice(b"\r\n");
        }
        heard.clear();
        drop(heard);
        town.turn(&mut responder, black_box(&answers));
        assert!(responder.peer.replies.lock().is_empty(), "all are answered");
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, rounds] = arguments.as_slice()
        && flag == "--count"
    {
        let rounds: u32 = rounds.parse().expect("a number of rounds");
        let mut measurements = measurements();
        let (_, run) = measurements
            .iter_mut()
            .find(|(known, _)| known == name)
            .expect("one of the names");
        (0..rounds).for_each(|_| run());
        return;
    }
    if arguments.first().is_some_and(|flag| flag == "--names") {
        let names: Vec<_> = measurements().into_iter().map(|(name, _)| name).collect();
        writeln!(std::io::stdout(), "{}", names.join("\n")).expect("somebody reads the names");
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("message");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, mut run) in measurements() {
        group.bench_function(name, |bencher| bencher.iter(&mut run));
    }
    group.finish();
    criterion.final_summary();
}
