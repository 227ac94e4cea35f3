//! The Ed25519 keys of a log, in the text forms of C2SP signed notes: `NAME+HASH+KEY`, and with `PRIVATE+KEY+`
//! before it the secret one.
//!
//! The secret half is never shown: not by `Debug`, and not in an error.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

/// The byte that says Ed25519.
const ED25519_ALGORITHM: u8 = 1;

const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";

/// Bytes of a secret seed, and of a public key.
pub const KEY_BYTES: usize = 32;

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It looks otherwise.
    #[error("expected NAME+HASH+KEY on one line, as in the file log.pub of an audit log")]
    Form,
    /// The secret one was expected.
    #[error("expected a secret key, which begins with PRIVATE+KEY+, as in the file log.key of an audit log")]
    NotSecret,
    /// The secret one was given.
    #[error(
        "this is the secret key; the public one is expected, the file log.pub: never give the other away"
    )]
    Secret,
    /// Name, hash and key do not belong together.
    #[error("its parts do not belong together: a character was changed or lost")]
    Damaged,
    /// The name would break the format.
    #[error("a key's name has at least one character, and neither spaces nor `+`")]
    Name,
}

/// The public half: checks signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    name: String,
    hash: [u8; 4],
    key: [u8; KEY_BYTES],
}

/// The secret half: signs.
pub struct SecretKey {
    public: PublicKey,
    seed: [u8; KEY_BYTES],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretKey({})", self.public)
    }
}

impl PublicKey {
    fn new(name: &str, key: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        if !is_name(name) {
            return Err(KeyError::Name);
        }
        Ok(Self {
            hash: key_hash(name, &key),
            name: name.to_owned(),
            key,
        })
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        if text.starts_with(PRIVATE_PREFIX) {
            return Err(KeyError::Secret);
        }
        let (name, hash, key) = parts(text)?;
        let public = Self::new(name, key)?;
        if public.hash != hash {
            return Err(KeyError::Damaged);
        }
        Ok(public)
    }

    /// The log that it belongs to.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The four bytes that stand before a signature, so that the right key is found.
    pub const fn hash(&self) -> [u8; 4] {
        self.hash
    }

    /// Whether the signature is one of this key over `message`.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(message, signature)
            .is_ok()
    }
}

impl std::fmt::Display for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", text(&self.name, self.hash, &self.key))
    }
}

impl SecretKey {
    /// The key that this seed makes, which must come from a random source.
    pub fn from_seed(name: &str, seed: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Damaged)?;
        let key = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::Damaged)?;
        let public = PublicKey::new(name, key)?;
        Ok(Self { public, seed, pair })
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::NotSecret)?;
        let (name, hash, seed) = parts(text)?;
        let secret = Self::from_seed(name, seed)?;
        if secret.public.hash != hash {
            return Err(KeyError::Damaged);
        }
        Ok(secret)
    }

    /// The public half.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The text that [`SecretKey::parse`] reads, for a file that only its owner can read.
    pub fn secret_text(&self) -> String {
        let text = text(&self.public.name, self.public.hash, &self.seed);
        format!("{PRIVATE_PREFIX}{text}\n")
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        signature
            .as_ref()
            .try_into()
            .expect("an Ed25519 signature has 64 bytes")
    }
}

/// Whether it can be the name of a key.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|char| char.is_whitespace() || char.is_control() || char == '+')
}

fn key_hash(name: &str, key: &[u8; KEY_BYTES]) -> [u8; 4] {
    let message = [name.as_bytes(), b"\n", &[ED25519_ALGORITHM], key].concat();
    let hash = digest(&SHA256, &message);
    hash.as_ref()
        .first_chunk()
        .copied()
        .expect("SHA-256 has 32 bytes")
}

fn text(name: &str, hash: [u8; 4], key: &[u8; KEY_BYTES]) -> String {
    let key = STANDARD.encode([&[ED25519_ALGORITHM], &key[..]].concat());
    format!("{name}+{:08x}+{key}", u32::from_be_bytes(hash))
}

fn parts(text: &str) -> Result<(&str, [u8; 4], [u8; KEY_BYTES]), KeyError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    let is_hash = hash.len() == 8 && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let hash = u32::from_str_radix(hash, 16).map_err(|_| KeyError::Form)?;
    let bytes = STANDARD.decode(key).map_err(|_| KeyError::Form)?;
    match bytes.split_first() {
        Some((&ED25519_ALGORITHM, key)) if is_hash => Ok((
            name,
            hash.to_be_bytes(),
            key.try_into().map_err(|_| KeyError::Form)?,
        )),
        _ => Err(KeyError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of the examples that come with the reference implementation of signed notes.
    const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn the_published_keys_are_read_and_belong_together() {
        let secret = SecretKey::parse(SECRET).unwrap();
        assert_eq!(secret.public().to_string(), PUBLIC);
        assert_eq!(secret.secret_text(), format!("{SECRET}\n"));
        assert_eq!(PublicKey::parse(PUBLIC).unwrap(), *secret.public());
        assert_eq!(
            format!("{secret:?}"),
            format!("SecretKey({PUBLIC})"),
            "no secret is shown"
        );
    }

    #[test]
    fn signatures_are_those_of_rfc_8032() {
        let unhex = |text: &str| -> Vec<u8> {
            let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            (0..text.len()).step_by(2).map(digit).collect()
        };
        // Section 7.1, test 2.
        let seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let secret = SecretKey::from_seed("rfc", seed.try_into().unwrap()).unwrap();
        assert_eq!(
            secret.public().key.to_vec(),
            unhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
        );
        assert_eq!(
            secret.sign(&[0x72]).to_vec(),
            unhex(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                 085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            )
        );
    }

    #[test]
    fn a_changed_key_is_none() {
        // Wrong length or unknown algorithm, with the hash put right.
        for wrong in [
            "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "",
            "++",
        ] {
            assert!(PublicKey::parse(wrong).is_err(), "{wrong}");
        }
        for at in 0..PUBLIC.len() {
            let mut bytes = PUBLIC.as_bytes().to_vec();
            bytes[at] += 1;
            let text = String::from_utf8(bytes).unwrap();
            assert!(PublicKey::parse(&text).is_err(), "{text}");
            assert!(PublicKey::parse(&PUBLIC[..at]).is_err(), "{at} bytes");
        }
        assert_eq!(PublicKey::parse(SECRET), Err(KeyError::Secret));
        assert_eq!(SecretKey::parse(PUBLIC).unwrap_err(), KeyError::NotSecret);
        for name in ["", "a b", "a+b", "a\nb"] {
            assert_eq!(SecretKey::from_seed(name, [7; 32]).unwrap_err(), KeyError::Name);
        }
    }
}
