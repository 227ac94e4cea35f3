//! SPIFFE IDs. One that is taken is made of its own parts alone, holds nothing that would need normalising, and its
//! role is a name that is safe in a file's name and in a header.

use exocom::identity::Role;
use exocom::identity::spiffe::SpiffeId;
use exocom::limits::{LABEL_BYTES_MAX, SPIFFE_ID_BYTES_MAX};

pub const WORDS: &[&[u8]] = &[
    b"spiffe://",
    b"/operator/",
    b"operator",
    b"/",
    b"//",
    b"..",
    b"/../",
    b"%2f",
    b"@",
    b":443",
    b"?",
    b"#",
    b"todo.example",
    b"\0",
    b"\xff",
    b"A",
    b"_",
];

pub fn check(id: &[u8]) {
    let parsed = match SpiffeId::parse(id) {
        Ok(parsed) => parsed,
        Err(error) => return is_plain(&error.to_string()),
    };
    let text = std::str::from_utf8(id).expect("an ID that is taken is ASCII");
    assert!(text.len() <= SPIFFE_ID_BYTES_MAX);
    let rest = text.strip_prefix("spiffe://").expect("the scheme in lower case");
    let (domain, path) = rest
        .split_once('/')
        .map_or((rest, None), |(domain, path)| (domain, Some(path)));
    assert_eq!(parsed.trust_domain(), domain);
    assert!(!domain.is_empty() && domain.len() <= 255 && !domain.contains(|c: char| c.is_ascii_uppercase()));
    assert!(!rest.contains(['@', ':', '?', '#', '%', '\\', ' ']) && rest.is_ascii());
    let segments: Vec<_> = path.into_iter().flat_map(|path| path.split('/')).collect();
    assert!(segments.iter().all(|segment| !["", ".", ".."].contains(segment)));
    let Ok(role) = parsed.role() else { return };
    let name = match (&role, segments.as_slice()) {
        (Role::Service(service), [name]) if **service == **name => name,
        (Role::Operator(operator), ["operator", name]) if **operator == **name => name,
        _ => panic!("{role:?} is not what {text} says"),
    };
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    assert!(name.len() <= LABEL_BYTES_MAX && name.chars().all(is_safe));
    assert!(!(*name == "operator" && matches!(role, Role::Service(_))));
}

/// Text that may go into a log: one short line without control characters.
pub fn is_plain(text: &str) {
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.len() < 2000, "{} bytes", text.len());
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "spiffe://todo.example/web",
        "spiffe://todo.example/operator/alice",
        "spiffe://todo.example",
        "spiffe://todo.example/a/b/c",
        "SPIFFE://todo.example/web",
        "spiffe://Todo.example/web",
        "spiffe://todo.example:443/web",
        "spiffe://root@todo.example/web",
        "spiffe://todo.example/%77eb",
        "spiffe://todo.example/../web",
        "spiffe://todo.example/web/",
        "spiffe://todo.example/operator",
    ])
}
