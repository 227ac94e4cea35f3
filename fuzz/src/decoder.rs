//! Client bytes to operations. In whatever pieces they come, the operations and the end are those that a naive
//! decoder finds in the whole; and no more is asked for than the limits allow.

use exocom::limits::CONTROL_LINE_BYTES_MAX;
use exocom::wire::decode::{ClientOp, DecodeError, Publish, Step, decode};

use crate::naive::{self, End, Fields};

/// Small, so that the limit is met.
const PAYLOAD_BYTES_MAX: usize = 300;

pub const WORDS: &[&[u8]] = &[
    b"PUB ",
    b"HPUB ",
    b"SUB ",
    b"UNSUB ",
    b"PING",
    b"PONG",
    b"CONNECT ",
    b"INFO ",
    b"+OK",
    b"-ERR ",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"0",
    b"12",
    b"300",
    b"301",
    b"000000003",
    b"999999999",
    b"NATS/1.0\r\n\r\n",
    b"_INBOX.x",
    b"a.b",
];

/// The first byte says in how many pieces the rest comes.
pub fn check(data: &[u8]) {
    let Some((&pieces, bytes)) = data.split_first() else {
        return;
    };
    let (expected, expected_end) = naive::read(bytes, PAYLOAD_BYTES_MAX);
    for size in [bytes.len().max(1), usize::from(pieces) + 1, 1] {
        // Byte by byte is slow in a long line, and no other than in short pieces.
        let size = if bytes.len() > 2000 { size.max(7) } else { size };
        let (found, end) = read(bytes.chunks(size));
        assert_eq!(end, expected_end, "in pieces of {size} bytes");
        assert_eq!(found.len(), expected.len(), "in pieces of {size} bytes");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(is_same(found, expected), "{found:?} instead of {expected:?}");
        }
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Fields>, End) {
    let (mut operations, mut held, mut wanted) = (Vec::new(), Vec::new(), 1);
    for piece in pieces {
        held.extend_from_slice(piece);
        while held.len() >= wanted {
            match decode(&held, PAYLOAD_BYTES_MAX) {
                Ok(Step::Op(op, used)) => {
                    assert!(0 < used && used <= held.len());
                    operations.push(fields(&op));
                    held.drain(..used);
                    wanted = 1;
                }
                Ok(Step::Incomplete { bytes_wanted }) => {
                    assert!(bytes_wanted > held.len(), "it wants no more than it has");
                    assert!(bytes_wanted <= CONTROL_LINE_BYTES_MAX + 4 + PAYLOAD_BYTES_MAX);
                    wanted = bytes_wanted;
                }
                Err(error) => return (operations, end(error)),
            }
        }
    }
    (operations, End::Open)
}

/// As the naive decoder has them; without the verb where the decoder does not tell two apart.
fn fields(op: &ClientOp<'_>) -> Fields {
    let some = |bytes: &[u8]| Some(bytes.to_vec());
    match *op {
        ClientOp::Connect(json) => vec![some(b"CONNECT"), some(json)],
        ClientOp::Publish(Publish {
            subject,
            reply,
            headers,
            payload,
        }) => {
            let headers = headers.unwrap_or_default();
            vec![
                None,
                some(subject),
                reply.and_then(some),
                some(headers),
                some(payload),
            ]
        }
        ClientOp::Subscribe { subject, queue, sid } => {
            vec![some(b"SUB"), some(subject), queue.and_then(some), some(sid)]
        }
        ClientOp::Unsubscribe { sid, max } => {
            vec![
                some(b"UNSUB"),
                some(sid),
                max.map(|max| max.to_string().into_bytes()),
            ]
        }
        ClientOp::Ping => vec![some(b"PING")],
        ClientOp::Pong => vec![some(b"PONG")],
        ClientOp::Ignored => vec![None],
    }
}

fn is_same(found: &Fields, expected: &Fields) -> bool {
    let is_verb = found.first() == expected.first() || found.first() == Some(&None);
    is_verb && found.get(1..) == expected.get(1..)
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

pub fn seeds() -> Vec<Vec<u8>> {
    let long = format!(
        "\u{5}UNSUB {}\r\nPING\r\n",
        "1".repeat(CONTROL_LINE_BYTES_MAX - 6)
    );
    let mut seeds = crate::texts(&[
        "\u{1}CONNECT {\"verbose\":false}\r\nPING\r\nSUB a.* q 7\r\nPUB a.b _INBOX.1 5\r\nhe\r\no\r\n",
        "\u{2}HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 7 3\r\nUNSUB 7\r\n",
        "\u{3}pub\ta.b  3\nxyz\r\nHPUB a r 14 17\r\nNATS/1.0\r\nA:\r\n\r\n1\r\n",
        "\u{4}PUB a 300\r\n",
        "\u{6}PUB a 301\r\n",
        "\u{7}+OK\r\nINFO {}\r\nPONG\r\n-ERR 'x'\r\n",
        "\u{0}GET / HTTP/1.1\r\n\r\n",
    ]);
    seeds.push(long.into_bytes());
    seeds
}
