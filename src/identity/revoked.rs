//! What operators have revoked: certificates by serial number or fingerprint, and whole services or operators.
//!
//! Pure: who keeps it on disk, and who is cut off by it, is decided elsewhere. It takes authority away and never
//! gives any.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Identity, Role};
use crate::limits::{CERT_SERIAL_BYTES_MAX, QUOTED_BYTES_MAX};

/// The bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// From so many hexadecimal digits on, a word without a prefix is a serial number; a shorter one may be a name.
const SERIAL_DIGITS_MIN: usize = 16;

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Each certificate with this serial number, in lower-case hexadecimal without leading zero bytes.
    Serial(Box<str>),
    /// The certificate with this SHA-256, or each that it issued.
    Fingerprint([u8; DIGEST_BYTES]),
    /// All certificates of a service.
    Service(Arc<str>),
    /// All certificates of an operator.
    Operator(Arc<str>),
}

/// Why a word names nothing that could be revoked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It could be two things.
    #[error("{0} may be a serial number or a name; write serial:{0} or service:{0}")]
    Ambiguous(String),
    /// It is neither.
    #[error(
        "{0} is no serial number, fingerprint or name; write serial:HEX, sha256:HEX, service:NAME or operator:NAME"
    )]
    Unknown(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let unknown = || {
            TargetError::Unknown(
                text.chars()
                    .take(QUOTED_BYTES_MAX)
                    .collect::<String>()
                    .escape_default()
                    .to_string(),
            )
        };
        if let Some((kind, word)) = text.split_once(':') {
            let named = match kind {
                "serial" => serial(word),
                "sha256" => fingerprint(word),
                "service" => Role::service(word).ok().map(Self::from),
                "operator" => Role::operator(word).ok().map(Self::from),
                // As openssl prints them: in pairs, with colons.
                _ => fingerprint(text).or_else(|| serial(text)),
            };
            return named.ok_or_else(unknown);
        }
        // A fingerprint with a digit too few would be a name that nobody has.
        let is_number = text.len() >= SERIAL_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let role = Role::service(text).ok().filter(|_| !is_number);
        match (fingerprint(text).or_else(|| serial(text)), role) {
            (Some(_), Some(_)) => Err(TargetError::Ambiguous(text.to_owned())),
            (Some(digits), None) => Ok(digits),
            (None, Some(role)) => Ok(role.into()),
            (None, None) => Err(unknown()),
        }
    }
}

impl From<Role> for Target {
    fn from(role: Role) -> Self {
        match role {
            Role::Service(name) => Self::Service(name),
            Role::Operator(name) => Self::Operator(name),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "serial:{serial}"),
            Self::Fingerprint(digest) => {
                f.write_str("sha256:")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Operator(name) => write!(f, "operator:{name}"),
        }
    }
}

/// A serial number as [`Identity`] has it.
fn serial(text: &str) -> Option<Target> {
    let bytes = hexadecimal(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = bytes.get(zeros.min(bytes.len() - 1)..)?;
    let fits = digits.len() <= CERT_SERIAL_BYTES_MAX;
    fits.then(|| Target::Serial(digits.iter().map(|byte| format!("{byte:02x}")).collect()))
}

fn fingerprint(text: &str) -> Option<Target> {
    Some(Target::Fingerprint(hexadecimal(text)?.try_into().ok()?))
}

/// Bytes in hexadecimal, with or without colons; at least one.
fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    if text.len() > 3 * DIGEST_BYTES {
        return None;
    }
    let digits: String = if text.contains(':') {
        text.split(':')
            .all(|pair| pair.len() == 2)
            .then(|| text.replace(':', ""))?
    } else {
        text.to_owned()
    };
    let digits = if digits.len() % 2 == 1 {
        format!("0{digits}")
    } else {
        digits
    };
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let is_hex = pair.iter().all(u8::is_ascii_hexdigit);
        is_hex.then(|| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())?
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// What is revoked.
    pub what: Target,
    /// Why, in the operator's words, escaped.
    pub reason: String,
    /// Who revoked it.
    pub who: String,
    /// When, in seconds since 1970.
    pub at_unix_s: i64,
}

/// The list. Immutable: a change makes a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked(BTreeMap<Target, Revocation>);

impl Revoked {
    /// A list of these.
    pub fn new(entries: impl IntoIterator<Item = Revocation>) -> Self {
        let entries = entries.into_iter().map(|entry| (entry.what.clone(), entry));
        Self(entries.collect())
    }

    /// All entries, in a fixed order.
    pub fn entries(&self) -> impl Iterator<Item = &Revocation> {
        self.0.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entry for exactly this.
    pub fn get(&self, what: &Target) -> Option<&Revocation> {
        self.0.get(what)
    }

    /// The same list with one more.
    pub fn with(&self, entry: Revocation) -> Self {
        let mut list = self.clone();
        list.0.insert(entry.what.clone(), entry);
        list
    }

    /// The same list without one.
    pub fn without(&self, what: &Target) -> Self {
        let mut list = self.clone();
        list.0.remove(what);
        list
    }

    /// What revokes an identity, if anything does. `fingerprints` are the SHA-256 of the certificates of its chain;
    /// they are asked for only where the list has some.
    pub fn find(
        &self,
        identity: &Identity,
        fingerprints: impl IntoIterator<Item = [u8; DIGEST_BYTES]>,
    ) -> Option<&Revocation> {
        if self.0.is_empty() {
            return None;
        }
        self.get(&identity.role.clone().into())
            .or_else(|| self.get(&Target::Serial(identity.serial.clone())))
            .or_else(|| {
                let has_some = self.0.keys().any(|what| matches!(what, Target::Fingerprint(_)));
                let mut fingerprints = fingerprints.into_iter();
                if !has_some {
                    return None;
                }
                fingerprints.find_map(|digest| self.get(&Target::Fingerprint(digest)))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_one_thing_or_is_refused() {
        let check = |text: &str, expected: Result<&str, &str>| match (text.parse::<Target>(), expected) {
            (Ok(target), Ok(expected)) => {
                assert_eq!(target.to_string(), expected, "{text}");
                assert_eq!(target.to_string().parse(), Ok(target), "it reads what it writes");
            }
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{text}: {error}"),
            (came, _) => panic!("{text}: {came:?}"),
        };
        let digest = "0123456789abcdef".repeat(4);
        check("web", Ok("service:web"));
        check("service:beef", Ok("service:beef"));
        check("operator:alice", Ok("operator:alice"));
        check("beef", Err("write serial:beef or service:beef"));
        check("17", Err("serial:17"));
        check("serial:17", Ok("serial:17"));
        check("serial:0", Ok("serial:00"));
        check("serial:00017", Ok("serial:17"));
        check("00C0FFEE00112233", Ok("serial:c0ffee00112233"));
        check("C0:FF:EE", Ok("serial:c0ffee"));
        check(&digest, Ok(&format!("sha256:{digest}")));
        check(
            &format!("sha256:{}", digest.to_uppercase()),
            Ok(&format!("sha256:{digest}")),
        );
        let pairs: Vec<_> = digest
            .as_bytes()
            .chunks(2)
            .map(|pair| str::from_utf8(pair).unwrap())
            .collect();
        check(&pairs.join(":"), Ok(&format!("sha256:{digest}")));
        for nothing in [
            "",
            ":",
            "serial:",
            "serial:xyz",
            "sha256:abcd",
            "C0:F:EE",
            "service:",
            "service:a.b",
            "service:operator",
            "*",
            ">",
            "a b",
            "\u{1b}[31m",
            "serial:+1",
            &"a".repeat(100),
            &"f".repeat(41),
        ] {
            check(nothing, Err("write serial:HEX"));
        }
    }

    #[test]
    fn an_identity_is_found_by_each_of_its_names() {
        let identity = Identity {
            trust_domain: "shop.example".into(),
            role: Role::Service("web".into()),
            serial: "c0ffee".into(),
            expires_unix_s: 0,
        };
        let check = |what: &str, is_found: bool| {
            let entry = Revocation {
                what: what.parse().unwrap(),
                reason: String::new(),
                who: String::new(),
                at_unix_s: 0,
            };
            let list = Revoked::new([entry.clone()]);
            let found = list.find(&identity, [[1; 32], [2; 32]]);
            assert_eq!(found, is_found.then_some(&entry), "{what}");
            assert!(list.without(&entry.what).find(&identity, [[1; 32]]).is_none());
        };
        check("service:web", true);
        check("serial:c0ffee", true);
        check(&format!("sha256:{}", "02".repeat(32)), true);
        check("service:webs", false);
        check("operator:web", false);
        check("serial:c0ff", false);
        check(&format!("sha256:{}", "03".repeat(32)), false);
    }
}
