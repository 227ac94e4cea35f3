//! Writes random cases: what clients say, legal and illegal, from a seed.
//!
//! What nats-server and our broker deliberately answer differently is left out here: `differences` has it.

use super::case::{Case, Op, PAYLOAD_BYTES_MAX, Step};

/// Of each service: what it may publish and subscribe to, and what neither server lets it.
struct Reach {
    publish: &'static [&'static str],
    subscribe: &'static [&'static str],
    denied_publish: &'static [&'static str],
    denied_subscribe: &'static [&'static str],
}

const REACH: [Reach; 2] = [
    Reach {
        publish: &["a.x", "a.y", "b.x", "b.y.z", "x", "both", "both", "c.d.e"],
        subscribe: &["c.x", "c.y", "d.>", "d.*", "d.x", "both", "e.*.f", "e.a.f"],
        denied_publish: &[
            "nope",
            "c.x",
            "d",
            "a",
            "a.x.y",
            "A.x",
            "c.d",
            "_INBOX.c9.1",
            "$SYS.x",
        ],
        denied_subscribe: &[
            "nope", ">", "*", "a.x", "c.secret", "e.>", "d", "both.x", "c..x", ".d", "c.",
        ],
    },
    Reach {
        publish: &[
            "c.x", "c.y", "c.secret", "d.x", "d.y.z", "both", "both", "e.a.f", "e.q",
        ],
        subscribe: &["a.*", "a.x", "b.>", "b.*", "b.x", "b.y.z", "x", "both"],
        denied_publish: &["nope", "a.x", "c", "Both", "c.x.y", "_INBOX.c9.1"],
        denied_subscribe: &["nope", ">", "*.*", "c.x", "e.q", "A.*", "x.x", "a..", "..a"],
    },
];

/// Numbers from a seed (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.number() % end as u64).expect("below a usize")
    }

    /// Whether something happens that happens once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of<'a, T: ?Sized>(&mut self, choices: &[&'a T]) -> &'a T {
        choices[self.below(choices.len())]
    }
}

/// The case of a seed.
pub fn case(seed: u64) -> Case {
    let mut chance = Chance(seed);
    let connections: Vec<_> = (0..1 + chance.below(3)).map(|_| chance.below(2)).collect();
    let speakers: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(number, &service)| Speaker {
            number,
            reach: &REACH[service],
            takes_headers: false,
            has_subscribed: false,
            has_ended: false,
        })
        .collect();
    let mut writer = Writer {
        chance,
        messages: 0,
        speakers,
        steps: Vec::new(),
    };
    for connection in 0..connections.len() {
        writer.first_step(connection);
    }
    for _ in 0..2 + writer.chance.below(8) {
        let connection = writer.chance.below(connections.len());
        if !writer.speakers[connection].has_ended {
            writer.step(connection);
        }
    }
    if writer.chance.once_in(2) {
        writer.garble();
    }
    Case {
        connections,
        steps: writer.steps,
    }
}

struct Writer {
    chance: Chance,
    messages: usize,
    speakers: Vec<Speaker>,
    steps: Vec<Step>,
}

struct Speaker {
    number: usize,
    reach: &'static Reach,
    takes_headers: bool,
    has_subscribed: bool,
    has_ended: bool,
}

impl Writer {
    /// Mostly CONNECT as clients send it; sometimes as none does.
    fn first_step(&mut self, connection: usize) {
        let mut says = Vec::new();
        match self.chance.below(20) {
            0 => says.push(self.before_connect()),
            1 => says.push(self.odd_connect()),
            _ => {}
        }
        says.push(self.connect(connection));
        for _ in 0..self.chance.below(4) {
            says.push(self.op(connection));
        }
        self.add(connection, says);
    }

    fn step(&mut self, connection: usize) {
        let mut says = Vec::new();
        for _ in 0..1 + self.chance.below(6) {
            says.push(self.op(connection));
        }
        if self.chance.once_in(12) {
            says.push(self.last_words(connection));
            if self.chance.once_in(2) {
                says.push(self.op(connection));
            }
            self.speakers[connection].has_ended = true;
        }
        self.add(connection, says);
    }

    fn add(&mut self, connection: usize, says: Vec<Op>) {
        let cuts = match self.chance.below(3) {
            0 => Vec::new(),
            1 => vec![self.chance.below(200)],
            _ => (0..self.chance.below(12))
                .map(|_| self.chance.below(300))
                .collect(),
        };
        self.steps.push(Step {
            connection,
            says,
            cuts,
            is_garbled: false,
        });
    }

    /// Changes bytes of the last step at random. Nothing can follow: who listens to what may be another thing now.
    fn garble(&mut self) {
        let Some(step) = self.steps.last_mut() else { return };
        step.is_garbled = true;
        for _ in 0..1 + self.chance.below(3) {
            let op = self.chance.below(step.says.len());
            let Op::Bytes(bytes) = &mut step.says[op] else {
                continue;
            };
            if bytes.is_empty() {
                continue;
            }
            let at = self.chance.below(bytes.len());
            match self.chance.below(6) {
                0 => bytes[at] ^= 1 << self.chance.below(8),
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b" \t\r\n\0.*>0a{}\"'-+_$"[self.chance.below(18)]),
                3 => bytes.truncate(at),
                4 => {
                    let part: Vec<u8> = bytes[at..]
                        .iter()
                        .copied()
                        .take(1 + self.chance.below(9))
                        .collect();
                    bytes.splice(at..at, part);
                }
                _ => bytes[at] = u8::try_from(self.chance.below(256)).expect("below 256"),
            }
        }
    }

    /// One operation that both servers answer alike, and after which the connection goes on.
    fn op(&mut self, connection: usize) -> Op {
        match self.chance.below(24) {
            0 | 1 => self.line(&["PING"]),
            2 => self.line(&["PONG"]),
            3 => self.ignored(),
            4..=7 => self.subscribe(connection),
            8 | 9 => self.unsubscribe(),
            10..=14 => self.publish(connection, None),
            15..=18 => self.request(connection),
            19..=21 => Op::Answer {
                nth: self.chance.below(3),
                is_first: !self.chance.once_in(5),
                payload: self.payload(),
            },
            22 => self.denied(connection),
            _ if self.chance.once_in(3) && !self.speakers[connection].has_subscribed => {
                self.connect(connection)
            }
            _ if self.chance.once_in(3) => Op::Bytes(b"PING\r\n".repeat(1 + self.chance.below(200))),
            _ => self.subscribe_denied(connection),
        }
    }

    fn connect(&mut self, connection: usize) -> Op {
        let headers = !self.chance.once_in(5);
        self.speakers[connection].takes_headers = headers;
        let mut fields = vec![format!("\"verbose\":{}", self.chance.once_in(3))];
        fields.push(format!("\"pedantic\":{}", self.chance.once_in(3)));
        fields.push(format!("\"headers\":{headers}"));
        fields.push(format!(
            "\"no_responders\":{}",
            headers && !self.chance.once_in(4)
        ));
        match self.chance.below(3) {
            0 => fields.push("\"echo\":false".into()),
            1 => fields.push("\"echo\":true".into()),
            _ => {}
        }
        for extra in [
            "\"name\":null",
            "\"lang\":\"x\",\"version\":\"1.2.3\"",
            "\"protocol\":1",
            "\"unknown\":[{}]",
        ] {
            if self.chance.once_in(4) {
                fields.push(extra.into());
            }
        }
        let json = format!("{{{}}}", fields.join(","));
        self.line(&["CONNECT", &json])
    }

    fn odd_connect(&mut self) -> Op {
        let text = self.chance.of(&[
            "CONNECT {}\r\n",
            "CONNECT{}\r\n",
            "connect\t {} \r\n",
            "CONNECT {\"Verbose\":false,\"ECHO\":null}\r\n",
            "CONNECT {\"verbose\":false,\"verbose\":true}\r\n",
            "CONNECT {\"verbose\":1}\r\n",
            "CONNECT {\"lang\":3}\r\n",
            "CONNECT {\"name\":{}}\r\n",
            "CONNECT []\r\n",
            "CONNECT 3\r\n",
            "CONNECT \"x\"\r\n",
            "CONNECT {\r\n",
            "CONNECT {} x\r\n",
            "CONNECT {}{}\r\n",
            "CONNECT\r\n",
            "CONNECT \r\n",
            "CONNEC {}\r\n",
            "CONNECTED {}\r\n",
            "C\r\n",
        ]);
        Op::Bytes(text.into())
    }

    fn before_connect(&mut self) -> Op {
        let text = self.chance.of(&[
            "PING\r\n",
            "PUB a.x 1\r\nx\r\n",
            "PUB a.x 100\r\nx",
            "SUB a.x 1\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "\r\n",
            " ",
            "+OK\r\n",
            "INFO {}\r\n",
            "\0\0\0\0",
            "x",
        ]);
        Op::Bytes(text.into())
    }

    fn ignored(&mut self) -> Op {
        let text = self.chance.of(&[
            "+OK\r\n",
            "+ok and more\n",
            "INFO {}\r\n",
            "info {\"server_id\":\"x\"}\r\n",
            "PONG and more\r\n",
            "PINGS\r\n",
        ]);
        Op::Bytes(text.into())
    }

    fn subscribe(&mut self, connection: usize) -> Op {
        self.speakers[connection].has_subscribed = true;
        let Speaker { number, reach, .. } = self.speakers[connection];
        match self.chance.below(6) {
            0 => {
                let subject = format!("_INBOX.c{number}.{}", self.chance.of(&["*", ">"]));
                self.line(&["SUB", &subject, "50"])
            }
            1 | 2 => {
                // A group belongs to one service, and its sids say that they are of a group.
                let group = format!("{}{}", reach.subscribe[0], self.chance.below(2));
                let sid = format!("Q{group}-{}", self.chance.below(3));
                let subject = self.chance.of(reach.subscribe);
                self.line(&["SUB", subject, &group, &sid])
            }
            _ => {
                let subject = self.chance.of(reach.subscribe);
                let sid = self.sid();
                self.line(&["SUB", subject, &sid])
            }
        }
    }

    fn subscribe_denied(&mut self, connection: usize) -> Op {
        let subject = self.chance.of(self.speakers[connection].reach.denied_subscribe);
        if self.chance.once_in(3) {
            self.line(&["SUB", subject, "group", "Qdenied"])
        } else {
            let sid = self.sid();
            self.line(&["SUB", subject, &sid])
        }
    }

    fn sid(&mut self) -> String {
        self.chance.of(&["1", "2", "3", "4", "sid-5", "6."]).to_owned()
    }

    fn unsubscribe(&mut self) -> Op {
        if self.chance.once_in(6) {
            let sid = self.chance.of(&["50", "Qc.x0-0", "Qa.*0-1", "Qa.*1-0", "nobody"]);
            return self.line(&["UNSUB", sid]);
        }
        let sid = self.sid();
        if self.chance.once_in(3) {
            return self.line(&["UNSUB", &sid]);
        }
        let max = self.chance.of(&[
            "0",
            "1",
            "2",
            "2",
            "3",
            "03",
            "5",
            "x",
            "-1",
            "999999999",
            "9999999999",
            "1.5",
        ]);
        self.line(&["UNSUB", &sid, max])
    }

    fn publish(&mut self, connection: usize, reply: Option<&str>) -> Op {
        let subject = self.chance.of(self.speakers[connection].reach.publish);
        self.message(connection, subject, reply)
    }

    /// With a reply subject that no other request has.
    fn request(&mut self, connection: usize) -> Op {
        self.messages += 1;
        let number = self.messages;
        if self.chance.once_in(4) {
            self.speakers[connection].has_subscribed = true;
            let inbox = format!("_INBOX.x{connection}.{number}");
            let Op::Bytes(mut bytes) = self.line(&["SUB", &inbox, &format!("x{number}")]) else {
                unreachable!("lines are bytes")
            };
            if let Op::Bytes(request) = self.publish(connection, Some(&inbox)) {
                bytes.extend(request);
            }
            return Op::Bytes(bytes);
        }
        let inbox = format!("_INBOX.c{connection}.{number}");
        self.publish(connection, Some(&inbox))
    }

    fn denied(&mut self, connection: usize) -> Op {
        let subject = self.chance.of(self.speakers[connection].reach.denied_publish);
        if self.chance.once_in(2) {
            return self.message(connection, subject, None);
        }
        self.messages += 1;
        let inbox = format!("_INBOX.c{connection}.{}", self.messages);
        self.message(connection, subject, Some(&inbox))
    }

    fn message(&mut self, connection: usize, subject: &str, reply: Option<&str>) -> Op {
        let mut payload = self.payload();
        let mut words = vec!["PUB", subject];
        words.extend(reply);
        let mut headers = String::new();
        if self.speakers[connection].takes_headers && self.chance.once_in(3) {
            words[0] = "HPUB";
            headers = "NATS/1.0\r\n".to_owned();
            for _ in 0..self.chance.below(3) {
                headers += self.chance.of(&[
                    "A: 1\r\n",
                    "b:2\r\n",
                    "A: again\r\n",
                    "traceparent: 00-1-2-01\r\n",
                    "C: \r\n",
                ]);
            }
            headers += "\r\n";
        }
        if self.chance.once_in(20) {
            payload += &".".repeat(PAYLOAD_BYTES_MAX - headers.len() - payload.len());
        }
        let (header_bytes, total_bytes) = (
            headers.len().to_string(),
            (headers.len() + payload.len()).to_string(),
        );
        if !headers.is_empty() {
            words.push(&header_bytes);
        }
        words.push(&total_bytes);
        let Op::Bytes(mut bytes) = self.line(&words) else {
            unreachable!("lines are bytes")
        };
        bytes.extend(headers.bytes().chain(payload.bytes()).chain(*b"\r\n"));
        Op::Bytes(bytes)
    }

    /// A payload that no other message has.
    fn payload(&mut self) -> String {
        self.messages += 1;
        let rest = self
            .chance
            .of(&["", "\r\n", "\0\u{ff}", "PING\r\n", "x\r\nPUB a.x 1\r\ny"]);
        format!("{}{rest}", self.messages)
    }

    /// A line of these words, written as no client writes it.
    fn line(&mut self, words: &[&str]) -> Op {
        let mut line = String::new();
        let is_plain = !self.chance.once_in(4);
        for (number, word) in words.iter().enumerate() {
            if number > 0 {
                line += if is_plain {
                    " "
                } else {
                    self.chance.of(&[" ", "\t", "  ", " \t "])
                };
            }
            if number == 0 && !is_plain {
                line.extend(word.chars().map(|letter| {
                    if self.chance.once_in(2) {
                        letter.to_ascii_lowercase()
                    } else {
                        letter
                    }
                }));
            } else {
                line += word;
            }
        }
        line += if is_plain {
            "\r\n"
        } else {
            self.chance.of(&["\r\n", "\n", " \r\n", "\t\n"])
        };
        Op::Bytes(line.into())
    }

    /// After which both servers close.
    fn last_words(&mut self, connection: usize) -> Op {
        let Speaker {
            takes_headers, reach, ..
        } = self.speakers[connection];
        let subject = reach.publish[0];
        let texts = [
            "\r\n",
            "\n",
            " PING\r\n",
            "FOO\r\n",
            "P",
            "PIN\r\n",
            "PUBLISH a 1\r\n",
            "PUB\r\n",
            "PUB \r\n",
            "SUB\r\n",
            "SUB \t\r\n",
            "SUB x\r\n",
            "SUB a b c d\r\n",
            "UNSUB\r\n",
            "UNSUB \r\n",
            "UNSUB 1 2 3\r\n",
            "-ERR 'x'\r\n",
            "-ERR\r\n",
            "MSG a 1 1\r\nx\r\n",
            "HMSG a 1 1 1\r\nx\r\n",
            "RS+ x\r\n",
            "LS+ x\r\n",
            "A+ x\r\n",
            "CONNECT {\r\n",
            "CONNECT []\r\n",
            "HPUB\r\n",
            "\u{feff}PING\r\n",
            "\0",
        ];
        let arguments = [
            "",
            " -1",
            " x",
            " 1x",
            " 1.0",
            " 0x1",
            " +1",
            " 4097",
            " 99999999",
            " 999999999",
            " 9999999999",
            " 99999999999999999999999",
            " r s 1",
            " r s t 1",
            " 1\r\nxyz",
            " 1\r\nx\n",
            " 1\r\nx\rx",
            " 3\r\na\r\nb",
            " 20\r\nshort\r\n",
            " 1\nxy",
        ];
        let header_arguments = [
            " 12",
            " 13 12",
            " -1 12",
            " x 12",
            " 12 x",
            " 12 4097",
            " 12 -1",
            " 9999999999 12",
            " 12 9999999999",
            " r s 12 12",
            " 12 12\r\nNATS/1.0\r\n\r\nx\r\n",
        ];
        let text = match self.chance.below(6) {
            0 | 1 => self.chance.of(&texts).to_owned(),
            2 | 3 => format!("PUB {subject}{}\r\n", self.chance.of(&arguments)),
            4 if takes_headers => format!("HPUB {subject}{}\r\n", self.chance.of(&header_arguments)),
            4 => format!("HPUB {subject} 12 12\r\nNATS/1.0\r\n\r\n\r\n"),
            _ => {
                let verb = self.chance.of(&["PUB ", "SUB ", "UNSUB ", "CONNECT ", "HPUB "]);
                let end = self.chance.of(&["", "\r\n", " 1\r\n"]);
                format!("{verb}{}{end}", "a".repeat(4097 + self.chance.below(3000)))
            }
        };
        Op::Bytes(text.into())
    }
}
