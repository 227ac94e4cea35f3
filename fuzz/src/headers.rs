//! Header blocks made safe. What passes is what a naive model lets pass; it passes again unchanged; and no official
//! client, as its parser reads it, sees another sender, a status, or less than another client sees.

use exocom::wire::headers::{CleanLines, clean};

use crate::naive::{self, clients};

pub const WORDS: &[&[u8]] = &[
    b"NATS/1.0\r\n",
    b"NATS/1.0 503",
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n ",
    b"\r\n\t",
    b"Exo-Sender: ",
    b"exo-",
    b"EXO-ID:",
    b": ",
    b":",
    b"\0",
    b"\x0b",
    b"\x1c",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"\xc2\xa0",
    b"\xff",
    b"A: 1\r\n",
];

pub fn check(block: &[u8]) {
    let lines = clean(block);
    assert_eq!(
        lines.as_bytes(),
        naive::clean(block),
        "{} instead of what the naive model lets pass",
        lines.as_bytes().escape_ascii()
    );
    let again = [b"NATS/1.0\r\n", lines.as_bytes(), b"\r\n"].concat();
    assert_eq!(clean(&again), CleanLines::AsSent(lines.as_bytes()));
    let delivered = [b"NATS/1.0\r\nExo-Sender: web\r\n", lines.as_bytes(), b"\r\n"].concat();
    let seen = [clients::rust, clients::javascript, clients::python, clients::go].map(|parse| {
        let headers = parse(&delivered).expect("no client gives up");
        let is_ours = |(name, _): &&clients::Header| name.to_lowercase().starts_with("exo-");
        let ours: Vec<_> = headers.iter().filter(is_ours).collect();
        assert_eq!(ours, [&("Exo-Sender".to_owned(), "web".to_owned())]);
        headers.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    });
    assert!(
        seen.windows(2).all(|two| two[0] == two[1]),
        "clients differ: {seen:?}"
    );
    let status = seen[0].iter().filter(|name| *name == "Status").count();
    let sent = lines
        .as_bytes()
        .split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(b"Status:"));
    assert_eq!(status, sent.count(), "a status that is no header");
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "NATS/1.0\r\n\r\n",
        "NATS/1.0\r\nA: 1\r\nb:2\r\nA: again\r\n\r\n",
        "NATS/1.0 503 No Responders\r\nA: 1\r\n\r\n",
        "NATS/1.0\r\nA: 1\r\n folded\r\n\tagain\r\nExo-Sender: root\r\n\r\n",
        "NATS/1.0\r\nexo-sender:\r\n root\r\nB: 2\nEXO-ID: 1\rC: 3\0D: 4\r\n\r\n",
        "NATS/1.0\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        "NATS/1.0\r\nname\r\n: empty\r\nein Name: 1\r\nA: Gr\u{fc}\u{df}e\u{85}\u{2028}x\r\n\r\n",
        "Exo-Sender: root\r\n\r\n",
    ])
}
