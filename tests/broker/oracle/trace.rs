//! What a server said, as items; and when two servers have said the same.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use exocom::wire::headers;

/// One thing that a server said.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// `INFO`; what it holds is tested elsewhere.
    Info,
    /// `+OK`.
    Ok,
    /// `PONG`.
    Pong,
    /// `-ERR` and its text.
    Err(String),
    /// `MSG` or `HMSG`.
    Message(Message),
    /// The end of the connection.
    Closed,
}

/// A delivered message.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub subject: String,
    pub payload: Vec<u8>,
    /// The header block, from `NATS/1.0` to the empty line.
    pub headers: Option<Vec<u8>>,
    pub reply: Option<Reply>,
    pub sid: String,
}

/// A reply subject. All are equal: an inbox at one server, a token of one delivery at the other.
#[derive(Clone, Debug)]
pub struct Reply(pub String);

impl PartialEq for Reply {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Reply {}

impl PartialOrd for Reply {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Reply {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Message {
    /// The status of a message that carries one.
    pub fn status(&self) -> Option<&str> {
        let block = std::str::from_utf8(self.headers.as_deref()?).ok()?;
        let status = block.lines().next()?.strip_prefix("NATS/1.0")?.trim();
        (!status.is_empty()).then_some(status)
    }

    /// Whether it is a 503 that nats-server does not send: for a request that was denied, or whose receiver left.
    fn is_our_refusal(&self) -> bool {
        let block = self.headers.as_deref().unwrap_or_default();
        let has = |reason: &[u8]| block.windows(reason.len()).any(|part| part == reason);
        self.status() == Some("503") && (has(b"Exo-Reason: denied\r") || has(b"Exo-Reason: receiver-lost\r"))
    }

    /// Without what our broker puts there, and what it takes away.
    fn normal(self) -> Self {
        let status = self.status().map(str::to_owned);
        let lines = match (&status, &self.headers) {
            // Of a message that says only that nobody is there, the headers are the server's own.
            (Some(status), _) => format!("NATS/1.0 {status}").into_bytes(),
            (None, Some(block)) => headers::clean(block).as_bytes().to_vec(),
            (None, None) => Vec::new(),
        };
        Self {
            headers: Some(lines),
            ..self
        }
    }
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Info => f.write_str("INFO"),
            Self::Ok => f.write_str("+OK"),
            Self::Pong => f.write_str("PONG"),
            Self::Err(text) => write!(f, "-ERR {text:?}"),
            Self::Closed => f.write_str("closed"),
            Self::Message(message) => message.fmt(f),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MSG {} {}", self.subject, self.sid)?;
        if let Some(reply) = &self.reply {
            write!(f, " reply={}", reply.0)?;
        }
        if let Some(headers) = self.headers.as_ref().filter(|headers| !headers.is_empty()) {
            write!(f, " headers={:?}", String::from_utf8_lossy(headers))?;
        }
        let payload = String::from_utf8_lossy(&self.payload);
        match self.payload.len() {
            0..200 => write!(f, " {payload:?}"),
            bytes => write!(
                f,
                " {:?}... ({bytes} bytes)",
                payload.chars().take(50).collect::<String>()
            ),
        }
    }
}

/// Takes the whole items from the start of what was read. A server's own `PING` is none: we do not wait for it.
pub fn parse(bytes: &mut Vec<u8>) -> Vec<Item> {
    let (mut items, mut used) = (Vec::new(), 0);
    while let Some((item, taken)) = bytes.get(used..).and_then(item) {
        items.extend(item);
        used += taken;
    }
    bytes.drain(..used);
    items
}

fn item(bytes: &[u8]) -> Option<(Option<Item>, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let line = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let after = end + 2;
    let words: Vec<_> = line.split(' ').collect();
    let item = match words.as_slice() {
        ["INFO", ..] => Some(Item::Info),
        ["+OK"] => Some(Item::Ok),
        ["PING"] => None,
        ["PONG"] => Some(Item::Pong),
        ["-ERR", ..] => Some(Item::Err(line.get(6..line.len() - 1)?.to_owned())),
        ["MSG", subject, sid, reply @ .., bytes_text] | ["HMSG", subject, sid, reply @ .., bytes_text] => {
            let total: usize = bytes_text.parse().expect("a size at the end");
            let (reply, header_bytes) = match (words.first(), reply) {
                (Some(&"MSG"), []) => (None, 0),
                (Some(&"MSG"), [reply]) => (Some(Reply((*reply).to_owned())), 0),
                (_, [header]) => (None, header.parse().expect("a size")),
                (_, [reply, header]) => (Some(Reply((*reply).to_owned())), header.parse().expect("a size")),
                _ => panic!("not a message: {line}"),
            };
            let body = bytes.get(after..after + total)?;
            assert_eq!(bytes.get(after + total..after + total + 2)?, b"\r\n", "{line}");
            let (headers, payload) = body.split_at(header_bytes);
            let message = Message {
                subject: (*subject).to_owned(),
                sid: (*sid).to_owned(),
                reply,
                headers: (header_bytes > 0).then(|| headers.to_vec()),
                payload: payload.to_vec(),
            };
            return Some((Some(Item::Message(message)), after + total + 2));
        }
        _ => panic!("a server does not say {line:?}"),
    };
    Some((item, after))
}

/// Between two `PONG`s: what a client can rely on the order of.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// `+OK` and `-ERR`, in order.
    pub control: Vec<Item>,
    /// Requests that found nobody, in order.
    pub refusals: Vec<Message>,
    /// Messages on plain subscriptions, in order; of one message for several subscriptions, by their ids.
    pub messages: Vec<Message>,
    /// Whether the connection ended.
    pub is_closed: bool,
}

/// What one connection heard, in the form in which two servers can be compared.
pub type Heard = Vec<Segment>;

/// The deliveries of queue groups, by group, with the connection that got each. Which member gets one is up to the
/// server.
pub type Groups = BTreeMap<String, Vec<(Message, usize)>>;

/// Brings what one connection heard into a comparable form. A subscription belongs to a group if its id says so:
/// `QGROUP-…`. `name_of` gives a reply subject a name that does not depend on the server.
pub fn heard(
    items: Vec<Item>,
    connection: usize,
    groups: &mut Groups,
    name_of: impl Fn(&str) -> Option<String>,
) -> Heard {
    let mut segments = vec![Segment::default()];
    for item in items {
        let last = segments.last_mut().expect("there is always one");
        match item {
            Item::Info => {}
            Item::Pong => segments.push(Segment::default()),
            Item::Closed => last.is_closed = true,
            Item::Ok => last.control.push(item),
            Item::Err(text) => {
                let name = text
                    .split('"')
                    .nth(1)
                    .and_then(|subject| Some((subject, name_of(subject)?)));
                let text = name.map_or(text.clone(), |(subject, name)| text.replace(subject, &name));
                last.control.push(Item::Err(text));
            }
            Item::Message(message) if message.is_our_refusal() => {}
            Item::Message(message) => {
                let message = message.normal();
                if message.status().is_some() {
                    last.refusals.push(message);
                    continue;
                }
                let group = message.sid.strip_prefix('Q').and_then(|sid| sid.split_once('-'));
                match group.map(|(group, _)| group.to_owned()) {
                    None => last.messages.push(message),
                    Some(group) => {
                        // Not every member takes headers.
                        let message = Message {
                            sid: String::new(),
                            headers: None,
                            ..message
                        };
                        let member = (message, connection);
                        groups.entry(group).or_default().push(member);
                    }
                }
            }
        }
    }
    for segment in &mut segments {
        let same = |a: &Message, b: &Message| a.subject == b.subject && a.payload == b.payload;
        segment.messages.chunk_by_mut(same).for_each(<[Message]>::sort);
    }
    segments
}
