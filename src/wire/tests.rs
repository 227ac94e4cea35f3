//! The room as a whole: the decoder against a naive one, everything written read back, and headers as the official
//! clients read them.

use proptest::prelude::*;

use super::decode::{ClientOp, DecodeError, Publish, Step, decode};
use super::encode::{self, Content, ErrText, Head, Info, Reason, Refusal, ReplyToken, Stamp};
use super::headers;
use super::naive::{self, End, Fields, clients};

const MAX: usize = 600;

/// Bytes that may begin an operation, follow it, or break it.
const PIECES: &[&str] = &[
    "PUB ",
    "pub\t",
    "HPUB ",
    "SUB ",
    "sUb ",
    "UNSUB ",
    "PING",
    "PONG",
    "CONNECT ",
    "CONNECT",
    "INFO ",
    "+OK",
    "-ERR ",
    "-ERR",
    "{}",
    "a.b",
    "a",
    "_INBOX.x",
    "0",
    "1",
    "3",
    "12",
    "13",
    "14",
    "600",
    "601",
    "2000",
    "999999999",
    "9999999999",
    "-1",
    " ",
    "\t",
    "  ",
    "\r\n",
    "\r\n",
    "\r\n",
    "\n",
    "\r",
    "NATS/1.0\r\n\r\n",
    "x",
    "xyz",
    "\0",
    "\u{ff}",
    "*",
    ">",
    "P",
    "PU",
    "H",
    "S",
    "U",
    "C",
    "I",
    "+",
    "-",
    "PUBX",
    "PINGX",
    "PUB a 000000003\r\n",
    "PUB a 0000000003\r\n",
    "PUB a 999999999\r\n",
    "HPUB a 12 ",
    "PUB a b ",
    "SUB a ",
    "UNSUB 1 ",
];

fn whole_operation() -> impl Strategy<Value = Vec<u8>> {
    let space = prop::sample::select(vec![" ", "\t", "  ", " \r"]);
    let end = prop::sample::select(vec!["\r\n", "\n", " \r\n"]);
    let payload = prop::collection::vec(any::<u8>(), 0..20);
    let message = (any::<bool>(), any::<bool>(), payload, space, end).prop_map(
        |(reply, headers, payload, space, end)| {
            let block: &[u8] = if headers { b"NATS/1.0\r\nA: 1\r\n\r\n" } else { b"" };
            let mut line = if headers { "HPUB" } else { "PUB" }.to_owned();
            line += &format!("{space}a.b");
            if reply {
                line += &format!("{space}_INBOX.1");
            }
            if headers {
                line += &format!("{space}{}", block.len());
            }
            line += &format!("{space}{}{end}", block.len() + payload.len());
            [line.as_bytes(), block, &payload, b"\r\n"].concat()
        },
    );
    let other = prop::sample::select(vec![
        "PING\r\n",
        "PONG\n",
        "SUB a 1\r\n",
        "SUB a.* q 1\r\n",
        "UNSUB 1\r\n",
        "UNSUB 1 7\r\n",
        "UNSUB 1 0\n",
        "CONNECT {}\r\n",
        "+OK\r\n",
        "INFO {}\r\n",
    ]);
    prop_oneof![message, other.prop_map(|text| text.as_bytes().to_vec())]
}

/// Mostly whole operations, and among them what breaks them.
fn hostile_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(PIECES.to_vec()).prop_map(|text| text.as_bytes().to_vec());
    let part = prop_oneof![8 => whole_operation(), 8 => piece, 1 => long_line()];
    let many = prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat());
    prop_oneof![3 => many, 1 => long_line()]
}

/// A word about as long as a bound.
fn long_line() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        "SUB a ", "SUB ", "PUB a ", "PUB ", "UNSUB ", "CONNECT ", "PING",
    ]);
    let bytes = prop_oneof![60_usize..70, 250_usize..260, 4084_usize..4100];
    let end = prop::sample::select(vec!["\r\n", "\n", " 1\r\n", " 1\r\nx\r\n", ""]);
    (start, bytes, end)
        .prop_map(|(start, bytes, end)| format!("{start}{}{end}", "a".repeat(bytes)).into_bytes())
}

/// What a connection makes of bytes that come in pieces.
fn read(pieces: &[&[u8]]) -> (Vec<Fields>, End) {
    let (mut operations, mut held, mut wanted) = (Vec::new(), Vec::new(), 1);
    for piece in pieces {
        held.extend_from_slice(piece);
        while held.len() >= wanted {
            match decode(&held, MAX) {
                Ok(Step::Op(op, used)) => {
                    operations.push(fields(&op));
                    held.drain(..used);
                    wanted = 1;
                }
                Ok(Step::Incomplete { bytes_wanted }) => {
                    assert!(bytes_wanted > held.len());
                    wanted = bytes_wanted;
                }
                Err(error) => return (operations, end(error)),
            }
        }
    }
    (operations, End::Open)
}

fn fields(op: &ClientOp<'_>) -> Fields {
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    let verb = |verb: &str| some(verb.as_bytes());
    match *op {
        ClientOp::Connect(json) => vec![verb("CONNECT"), some(json)],
        ClientOp::Publish(Publish {
            subject,
            reply,
            headers,
            payload,
        }) => vec![
            None,
            some(subject),
            reply.and_then(some),
            some(headers.unwrap_or_default()),
            some(payload),
        ],
        ClientOp::Subscribe { subject, queue, sid } => {
            vec![verb("SUB"), some(subject), queue.and_then(some), some(sid)]
        }
        ClientOp::Unsubscribe { sid, max } => {
            vec![
                verb("UNSUB"),
                some(sid),
                max.map(|max| max.to_string().into_bytes()),
            ]
        }
        ClientOp::Ping => vec![verb("PING")],
        ClientOp::Pong => vec![verb("PONG")],
        ClientOp::Ignored => vec![None],
    }
}

fn end(error: DecodeError) -> End {
    match error {
        DecodeError::UnknownOperation => End::Unknown,
        DecodeError::ControlLineTooLong => End::LongLine,
        DecodeError::BadArguments(_) => End::Arguments,
        DecodeError::PayloadTooLarge { .. } => End::Size,
        DecodeError::PayloadNotTerminated => End::Unterminated,
        DecodeError::ClientError => End::Theirs,
    }
}

/// The naive decoder's operations, without the verbs that the fast one does not tell apart.
fn naive_read(bytes: &[u8]) -> (Vec<Fields>, End) {
    let (mut operations, end) = naive::read(bytes, MAX);
    for fields in &mut operations {
        let verb = fields.first_mut().expect("a verb comes first");
        if verb
            .as_deref()
            .is_some_and(|verb| [b"PUB".as_slice(), b"HPUB", b"+OK", b"INFO"].contains(&verb))
        {
            *verb = None;
        }
    }
    (operations, end)
}

fn header_block() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "NATS/1.0",
        "NATS/1.0\r\n",
        " 503",
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "\r\n ",
        "\r\n\t",
        "Exo-Sender",
        "exo-",
        "EXO-id",
        "Exo",
        "-",
        "Sender",
        ": ",
        ":",
        ": 1\r\n",
        "A: 1\r\n",
        "a",
        " ",
        "\t",
        "\0",
        "\u{b}",
        "\u{c}",
        "\u{1c}",
        "\u{85}",
        "\u{2028}",
        "\u{a0}",
        "é",
        "(",
        "\"",
    ]);
    let byte = any::<u8>().prop_map(|byte| vec![byte]);
    let part = prop_oneof![12 => piece.prop_map(|text| text.as_bytes().to_vec()), 1 => byte];
    (any::<bool>(), prop::collection::vec(part, 0..30), any::<bool>()).prop_map(|(starts, parts, ends)| {
        let start: &[u8] = if starts { b"NATS/1.0\r\n" } else { b"" };
        let end: &[u8] = if ends { b"\r\n\r\n" } else { b"" };
        [start, &parts.concat(), end].concat()
    })
}

/// An operation of the server, as its first words and what follows the line.
fn read_back(bytes: &[u8]) -> (Vec<String>, Vec<u8>) {
    let end = bytes.windows(2).position(|two| two == b"\r\n").expect("a line");
    let line = String::from_utf8(bytes[..end].to_vec()).expect("a line of text");
    (
        line.split(' ').map(str::to_owned).collect(),
        bytes[end + 2..].to_vec(),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_decoder_agrees_with_a_naive_one(bytes in hostile_bytes()) {
        prop_assert_eq!(read(&[&bytes]), naive_read(&bytes));
    }

    #[test]
    fn headers_agree_with_a_naive_model(block in header_block()) {
        let lines = headers::clean(&block);
        let naive = naive::clean(&block);
        prop_assert_eq!(String::from_utf8_lossy(lines.as_bytes()), String::from_utf8_lossy(&naive));
    }

    #[test]
    fn no_client_sees_a_forged_header(block in header_block()) {
        let lines = headers::clean(&block);
        let content = Content { stamp: &Stamp::new("web"), headers: lines.as_bytes(), payload: b"" };
        let mut out = Vec::new();
        encode::message(&mut out, true, &Head::new(b"a", b"1"), None, &content);
        let (_, body) = read_back(&out);
        let delivered = body.strip_suffix(b"\r\n").expect("after an empty payload").to_vec();
        let seen = [clients::rust, clients::javascript, clients::python, clients::go].map(|parse| parse(&delivered));
        for headers in &seen {
            let headers = headers.as_ref().expect("no client gives up");
            let ours: Vec<_> = headers.iter().filter(|(name, _)| name.to_lowercase().starts_with("exo-")).collect();
            prop_assert_eq!(ours, [&("Exo-Sender".to_owned(), "web".to_owned())]);
            prop_assert!(!headers.iter().any(|(name, value)| name == "Status" && value.contains("503")));
        }
        let names = |headers: &Option<Vec<clients::Header>>| -> Vec<String> {
            headers.iter().flatten().map(|(name, _)| name.clone()).collect()
        };
        let [rust, others @ ..] = &seen;
        for other in others {
            prop_assert_eq!(names(other), names(rust), "no two clients read it differently");
        }
    }

    #[test]
    fn messages_are_read_as_they_were_written(
        takes_headers in any::<bool>(),
        token in prop::option::of(any::<(u32, u32)>()),
        block in header_block(),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let token = token.map(|(slot, generation)| ReplyToken { slot, generation });
        let stamp = Stamp::new("web");
        let lines = headers::clean(&block);
        let content = Content { stamp: &stamp, headers: lines.as_bytes(), payload: &payload };
        let mut out = b"before".to_vec();
        encode::message(&mut out, takes_headers, &Head::new(b"a.b", b"sid"), token, &content);
        let written = out.strip_prefix(b"before").expect("what was there stays");
        if token.is_none() {
            let mut answered = Vec::new();
            encode::answer(&mut answered, takes_headers, b"a.b", b"sid", &content);
            prop_assert_eq!(&answered, written);
        }
        let (words, body) = read_back(written);
        let stamped = b"NATS/1.0\r\nExo-Sender: web\r\n";
        let headers = if takes_headers { [stamped, lines.as_bytes(), b"\r\n"].concat() } else { Vec::new() };
        let mut expected = vec![if takes_headers { "HMSG" } else { "MSG" }.to_owned(), "a.b".into(), "sid".into()];
        if let Some(token) = token {
            let subject = &words[3];
            prop_assert_eq!(ReplyToken::parse(subject.as_bytes()), Some(token));
            expected.push(subject.clone());
        }
        if takes_headers {
            expected.push(headers.len().to_string());
        }
        expected.push((headers.len() + payload.len()).to_string());
        prop_assert_eq!(words, expected);
        prop_assert_eq!(body, [&headers, payload.as_slice(), b"\r\n"].concat());
    }

    #[test]
    fn an_error_is_one_line_of_text_whatever_it_names(
        subject in prop::collection::vec(any::<u8>(), 0..40),
        queue in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
    ) {
        for text in [ErrText::PublishDenied(&subject), ErrText::SubscriptionDenied(&subject, queue.as_deref())] {
            let mut out = Vec::new();
            encode::err(&mut out, text);
            let line = String::from_utf8(out).expect("it is text");
            let line = line.strip_prefix("-ERR '").and_then(|rest| rest.strip_suffix("'\r\n"));
            prop_assert!(line.is_some_and(|line| !line.contains(char::is_control)), "{:?}", line);
        }
    }

    #[test]
    fn a_refusal_is_read_as_it_was_written(rule in prop::option::of("\\PC{0,40}"), policy in "[0-9a-f]{12}") {
        let refusal = Refusal { reason: Reason::Denied, rule: rule.as_deref(), policy: &policy };
        let mut out = Vec::new();
        encode::refusal(&mut out, b"_INBOX.1", b"2", &refusal);
        let (words, body) = read_back(&out);
        let block = body.strip_suffix(b"\r\n").expect("it ends with its line");
        let bytes = block.len().to_string();
        prop_assert_eq!(words, ["HMSG", "_INBOX.1", "2", &bytes, &bytes]);
        let headers = clients::javascript(block).expect("clients read it");
        let value = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        prop_assert_eq!(value("Status"), Some("503".to_owned()));
        prop_assert_eq!(value("Exo-Reason"), Some("denied".to_owned()));
        prop_assert_eq!(value("Exo-Policy"), Some(policy));
        prop_assert_eq!(value("Exo-Rule"), rule.map(|rule| rule.trim().to_owned()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn hostile_bytes_decode_the_same_at_every_split(bytes in hostile_bytes()) {
        let whole = read(&[&bytes]);
        // Every one, but in a long line.
        let step = if bytes.len() > 700 { 31 } else { 1 };
        for at in (0..=bytes.len()).step_by(step) {
            prop_assert_eq!(&read(&[&bytes[..at], &bytes[at..]]), &whole, "split at {}", at);
        }
        let single: Vec<_> = bytes.chunks(1).collect();
        prop_assert_eq!(read(&single), whole);
    }
}

#[test]
fn info_is_read_as_it_was_written() {
    let info = Info {
        server_id: "id",
        server_name: "name \"quoted\"",
        version: "2.11.0",
        proto: 1,
        host: "::1",
        port: 4222,
        headers: true,
        max_payload: 1 << 20,
        tls_required: true,
        tls_verify: true,
        client_id: u64::MAX,
        client_ip: "127.0.0.1",
        ldm: false,
    };
    let mut out = Vec::new();
    encode::info(&mut out, &info);
    let text = String::from_utf8(out).unwrap();
    let json = text
        .strip_prefix("INFO ")
        .and_then(|rest| rest.strip_suffix("\r\n"))
        .unwrap();
    let read: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(read["server_name"], "name \"quoted\"");
    assert_eq!(read["client_id"], u64::MAX);
    assert!(read.get("ldm").is_none());
}
