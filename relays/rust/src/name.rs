//! Message names and patterns, checked before they are sent: the broker would only deny them, or cut the
//! connection for a line that is too long.
//!
//! Decides nothing: whether a name may be sent is for the broker's policy.

use crate::limits::NAME_BYTES_MAX;

/// What is wrong with a name or pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing at all.
    #[error("a name cannot be empty")]
    Empty,
    /// Too many bytes.
    #[error("a name has at most {NAME_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// `a..b`, `.a` or `a.`.
    #[error("a token between dots cannot be empty")]
    EmptyToken,
    /// A character that is not in `[A-Za-z0-9_-]`.
    #[error("{0:?} is not allowed in a name; a token is made of A-Z, a-z, 0-9, '_' and '-'")]
    BadCharacter(char),
    /// `$…` or `_…`.
    #[error("names that begin with '$' or '_' are reserved")]
    Reserved,
    /// `a*`, `>` before the end, or a wildcard where a name is wanted.
    #[error("'*' stands for a whole token and '>' for the last ones; neither may stand here")]
    BadWildcard,
}

/// Checks a concrete name.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    check(name, false)
}

/// Checks a name in which wildcards may stand.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), NameError> {
    check(pattern, true)
}

fn check(text: &str, wildcards: bool) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    if text.starts_with(['$', '_']) {
        return Err(NameError::Reserved);
    }
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let is_last = tokens.peek().is_none();
        match token {
            "" => return Err(NameError::EmptyToken),
            "*" if wildcards => {}
            ">" if wildcards && is_last => {}
            _ if token.contains(['*', '>']) => return Err(NameError::BadWildcard),
            _ => {
                let is_bad = |&c: &char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-');
                if let Some(bad) = token.chars().find(is_bad) {
                    return Err(NameError::BadCharacter(bad));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expected: Result<(), NameError>| {
            assert_eq!(check_name(name), expected, "{name:?}");
        };
        check("todos.list", Ok(()));
        check("a-b.C_1", Ok(()));
        check(&"a".repeat(255), Ok(()));
        check(&"a".repeat(256), Err(NameError::TooLong(256)));
        check("", Err(NameError::Empty));
        check("a..b", Err(NameError::EmptyToken));
        check("a.", Err(NameError::EmptyToken));
        check("_INBOX.x", Err(NameError::Reserved));
        check("$SYS", Err(NameError::Reserved));
        check("a b", Err(NameError::BadCharacter(' ')));
        check("a\r\nPUB b", Err(NameError::BadCharacter('\r')));
        check("größe", Err(NameError::BadCharacter('ö')));
        check("todos.*", Err(NameError::BadWildcard));
        check(">", Err(NameError::BadWildcard));
    }

    #[test]
    fn patterns() {
        let check = |pattern: &str, expected: Result<(), NameError>| {
            assert_eq!(check_pattern(pattern), expected, "{pattern:?}");
        };
        check("todos.*", Ok(()));
        check("todos.*.x", Ok(()));
        check(">", Ok(()));
        check("todos.>", Ok(()));
        check("todos.>.x", Err(NameError::BadWildcard));
        check("todos.a*", Err(NameError::BadWildcard));
        check("_R.>", Err(NameError::Reserved));
    }
}
