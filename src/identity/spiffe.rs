//! SPIFFE IDs: `spiffe://<trust-domain>/<service>` and `spiffe://<trust-domain>/operator/<name>`.
//!
//! Follows SPIFFE-ID, sections 2.1 to 2.4, and takes nothing that needs normalising: two IDs name the same
//! service only when their bytes are equal. It never decodes, lower-cases or resolves anything.

use std::sync::Arc;

use super::Role;
use super::quoted::Quoted;
use crate::limits::{LABEL_BYTES_MAX, SPIFFE_ID_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};

/// The first path segment of an operator's ID, and so no service's name.
const OPERATOR: &str = "operator";

/// What is wrong with a SPIFFE ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Longer than [`SPIFFE_ID_BYTES_MAX`].
    #[error("expected at most {SPIFFE_ID_BYTES_MAX} bytes, came {0}")]
    Length(usize),
    /// Not `spiffe://` in lower case.
    #[error("expected it to begin with \"spiffe://\", in lower case")]
    Scheme,
    /// A `%`.
    #[error("percent-encoding is not allowed in a SPIFFE ID")]
    PercentEncoding,
    /// A `?`.
    #[error("a query ('?') is not allowed in a SPIFFE ID")]
    Query,
    /// A `#`.
    #[error("a fragment ('#') is not allowed in a SPIFFE ID")]
    Fragment,
    /// A `user@` before the trust domain.
    #[error("a user ('@') is not allowed in a SPIFFE ID")]
    User,
    /// A `:port` after the trust domain.
    #[error("a port (':') is not allowed in a SPIFFE ID")]
    Port,
    /// Empty, longer than [`TRUST_DOMAIN_BYTES_MAX`], or with a byte that is not in `[a-z0-9._-]`.
    #[error("expected a trust domain of 1 to {TRUST_DOMAIN_BYTES_MAX} bytes of a-z, 0-9, '.', '_' and '-'")]
    TrustDomain,
    /// A path that ends in `/`.
    #[error("a slash at the end is not allowed in a SPIFFE ID")]
    TrailingSlash,
    /// `//` in the path.
    #[error("an empty path segment is not allowed in a SPIFFE ID")]
    EmptySegment,
    /// `.` or `..` as a path segment.
    #[error("the path segments '.' and '..' are not allowed in a SPIFFE ID")]
    DotSegment,
    /// A byte of the path that is not in `[A-Za-z0-9._-]`.
    #[error("expected path segments of A-Z, a-z, 0-9, '.', '_' and '-', came {}", Quoted(&[*.0]))]
    PathByte(u8),
    /// A path that is neither `/<service>` nor `/operator/<name>`.
    #[error("expected the path to be \"/<service>\" or \"/operator/<name>\"")]
    Role,
    /// The name of a service or operator that is not safe.
    #[error("expected a name of 1 to {LABEL_BYTES_MAX} characters of A-Z, a-z, 0-9, '_' and '-'")]
    Name,
}

impl SpiffeError {
    /// The rule that is broken, as a stable name for logs and alarms.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Length(_) => "spiffe-length",
            Self::Scheme => "spiffe-scheme",
            Self::PercentEncoding => "spiffe-percent-encoding",
            Self::Query => "spiffe-query",
            Self::Fragment => "spiffe-fragment",
            Self::User => "spiffe-user",
            Self::Port => "spiffe-port",
            Self::TrustDomain => "spiffe-trust-domain",
            Self::TrailingSlash => "spiffe-trailing-slash",
            Self::EmptySegment => "spiffe-empty-segment",
            Self::DotSegment => "spiffe-dot-segment",
            Self::PathByte(_) => "spiffe-path",
            Self::Role => "spiffe-role",
            Self::Name => "spiffe-name",
        }
    }
}

/// A valid SPIFFE ID. It borrows the bytes that it was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpiffeId<'a> {
    trust_domain: &'a str,
    path: &'a str,
}

impl<'a> SpiffeId<'a> {
    /// Checks an ID as a certificate gives it. One without a path is valid: it names the trust domain itself.
    pub fn parse(id: &'a [u8]) -> Result<Self, SpiffeError> {
        if id.len() > SPIFFE_ID_BYTES_MAX {
            return Err(SpiffeError::Length(id.len()));
        }
        let rest = id.strip_prefix(b"spiffe://").ok_or(SpiffeError::Scheme)?;
        for byte in rest {
            match byte {
                b'%' => return Err(SpiffeError::PercentEncoding),
                b'?' => return Err(SpiffeError::Query),
                b'#' => return Err(SpiffeError::Fragment),
                _ => {}
            }
        }
        let (domain, path) = match rest.iter().position(|byte| *byte == b'/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, &b""[..]),
        };
        if domain.contains(&b'@') {
            return Err(SpiffeError::User);
        }
        if domain.contains(&b':') {
            return Err(SpiffeError::Port);
        }
        let id = Self {
            trust_domain: trust_domain(domain)?,
            path: checked_path(path)?,
        };
        Ok(id)
    }

    /// The trust domain, such as `todo.example`.
    pub fn trust_domain(&self) -> &'a str {
        self.trust_domain
    }

    /// Who the ID is within its trust domain.
    pub fn role(&self) -> Result<Role, SpiffeError> {
        let path = self.path.strip_prefix('/').ok_or(SpiffeError::Role)?;
        match path.split_once('/') {
            None if path == OPERATOR => Err(SpiffeError::Role),
            None => Ok(Role::Service(name(path)?)),
            Some((OPERATOR, operator)) if !operator.contains('/') => Ok(Role::Operator(name(operator)?)),
            Some(_) => Err(SpiffeError::Role),
        }
    }
}

impl Role {
    /// The role of a service of this name, if that is a safe name and not `operator`.
    pub fn service(service: &str) -> Result<Self, SpiffeError> {
        if service == OPERATOR {
            return Err(SpiffeError::Role);
        }
        Ok(Self::Service(name(service)?))
    }

    /// The role of an operator of this name, if that is a safe name.
    pub fn operator(operator: &str) -> Result<Self, SpiffeError> {
        Ok(Self::Operator(name(operator)?))
    }
}

/// Checks a trust domain as a SPIFFE ID or the configuration gives it.
pub fn trust_domain(domain: &[u8]) -> Result<&str, SpiffeError> {
    let is_allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if domain.is_empty() || domain.len() > TRUST_DOMAIN_BYTES_MAX || !domain.iter().all(is_allowed) {
        return Err(SpiffeError::TrustDomain);
    }
    Ok(ascii(domain))
}

/// Checks a path, which is empty or begins with a slash.
fn checked_path(path: &[u8]) -> Result<&str, SpiffeError> {
    let is_refused =
        |byte: &&u8| !matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    if path.last() == Some(&b'/') {
        return Err(SpiffeError::TrailingSlash);
    }
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        match segment {
            b"" => return Err(SpiffeError::EmptySegment),
            b"." | b".." => return Err(SpiffeError::DotSegment),
            _ => {}
        }
        if let Some(byte) = segment.iter().find(is_refused) {
            return Err(SpiffeError::PathByte(*byte));
        }
    }
    Ok(ascii(path))
}

/// Checks the name of a service or operator.
fn name(name: &str) -> Result<Arc<str>, SpiffeError> {
    let is_allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if name.is_empty() || name.len() > LABEL_BYTES_MAX || !name.bytes().all(is_allowed) {
        return Err(SpiffeError::Name);
    }
    Ok(name.into())
}

fn ascii(checked: &[u8]) -> &str {
    str::from_utf8(checked).expect("every byte was found to be ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each ID with who it is, or the rule that it breaks.
    fn check(id: impl AsRef<[u8]>, expected: Result<(&str, Role), &str>) {
        let id = id.as_ref();
        let found = SpiffeId::parse(id).and_then(|id| Ok((id.trust_domain(), id.role()?)));
        assert_eq!(
            found.map_err(SpiffeError::rule),
            expected,
            "{}",
            id.escape_ascii()
        );
    }

    #[test]
    fn an_id_names_a_service_or_an_operator_and_nothing_else() {
        let service = |name: &str| Role::Service(name.into());
        check("spiffe://shop.example/web", Ok(("shop.example", service("web"))));
        check("spiffe://a_b-c.1/W_e-b9", Ok(("a_b-c.1", service("W_e-b9"))));
        check(
            "spiffe://shop.example/operator/alice",
            Ok(("shop.example", Role::Operator("alice".into()))),
        );
        check(
            "spiffe://shop.example/operators",
            Ok(("shop.example", service("operators"))),
        );
        for path in [
            "",
            "/operator",
            "/operator/alice/x",
            "/web/alice",
            "/Operator/alice",
        ] {
            check(format!("spiffe://shop.example{path}"), Err("spiffe-role"));
        }
        for path in ["/a.b", "/...", "/operator/a.b", "/operator/..."] {
            check(format!("spiffe://shop.example{path}"), Err("spiffe-name"));
        }
    }

    #[test]
    fn an_id_that_would_need_normalising_is_none() {
        for id in [
            "",
            "web",
            "https://shop.example/web",
            "SPIFFE://shop.example/web",
            "spiffe:/shop.example/web",
        ] {
            check(id, Err("spiffe-scheme"));
        }
        check("spiffe://shop.example/w%65b", Err("spiffe-percent-encoding"));
        check("spiffe://shop.example/web?", Err("spiffe-query"));
        check("spiffe://shop.example/web#", Err("spiffe-fragment"));
        check("spiffe://web@shop.example/web", Err("spiffe-user"));
        check("spiffe://shop.example:443/web", Err("spiffe-port"));
        for domain in ["", "Shop.example", "shop example", "sh\u{f6}p.example"] {
            check(format!("spiffe://{domain}/web"), Err("spiffe-trust-domain"));
        }
        for path in ["/", "/web/", "//"] {
            check(
                format!("spiffe://shop.example{path}"),
                Err("spiffe-trailing-slash"),
            );
        }
        check("spiffe://shop.example//web", Err("spiffe-empty-segment"));
        for path in ["/./web", "/../web", "/operator/.", "/.."] {
            check(format!("spiffe://shop.example{path}"), Err("spiffe-dot-segment"));
        }
        for path in ["/w b", "/web@x", "/w:b", "/*", "/w\u{f6}b", "/web\n", "/web\0"] {
            check(format!("spiffe://shop.example{path}"), Err("spiffe-path"));
        }
    }

    #[test]
    fn an_id_is_as_long_as_it_may_be_and_no_longer() {
        let id = |bytes: usize| format!("{:a<bytes$}", "spiffe://shop.example/");
        assert!(SpiffeId::parse(id(SPIFFE_ID_BYTES_MAX).as_bytes()).is_ok());
        check(id(SPIFFE_ID_BYTES_MAX), Err("spiffe-name"));
        check(id(SPIFFE_ID_BYTES_MAX + 1), Err("spiffe-length"));
    }

    #[test]
    fn a_role_is_made_of_a_safe_name() {
        assert_eq!(Role::service("web"), Ok(Role::Service("web".into())));
        assert_eq!(Role::service("operator"), Err(SpiffeError::Role));
        assert_eq!(Role::operator("operator"), Ok(Role::Operator("operator".into())));
        for name in ["", "a.b", "a/b", "*", "w\u{f6}b"] {
            assert_eq!(Role::service(name), Err(SpiffeError::Name), "{name}");
            assert_eq!(Role::operator(name), Err(SpiffeError::Name), "{name}");
        }
        assert_eq!(Role::Service("web".into()).to_string(), "web");
        assert_eq!(Role::Operator("alice".into()).to_string(), "operator/alice");
    }
}
