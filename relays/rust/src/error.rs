//! What can go wrong, told apart so that a program can decide, and worded so that a person can.
//!
//! ExoCom's own word comes first: a refused request carries its reason, the line of policy and the policy's
//! version. No text here repeats a payload.

use std::time::Duration;

use async_nats::{HeaderMap, Message as Frame, StatusCode};

use crate::limits::FAILURE_TEXT_BYTES_MAX;
use crate::name::NameError;

/// The header in which a handler's failure travels, and that of its code: the convention of NATS services
/// (ADR-32), which other clients read too.
pub(crate) const FAILURE_HEADER: &str = "Nats-Service-Error";
pub(crate) const FAILURE_CODE_HEADER: &str = "Nats-Service-Error-Code";

/// Why a message did not go its way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The policy does not allow this service to send the message.
    #[error(
        "ExoCom denied {name}: {rule} (policy version {policy}); whoever keeps the policy can add it to what \
         this service `sends`"
    )]
    Denied {
        /// The message name.
        name: String,
        /// The line of policy that denied it, as `file:line`, or `no grant` where no line allows it.
        rule: String,
        /// The version of the policy that decided.
        policy: String,
    },
    /// No service that may receive the message is connected and listens for it.
    #[error("nobody answers {name}: no service that receives it is connected")]
    NoReceiver {
        /// The message name.
        name: String,
    },
    /// The receiver's connection ended before it answered. It may have done the work.
    #[error("the receiver of {name} was lost before it answered; it may have done the work")]
    ReceiverLost {
        /// The message name.
        name: String,
    },
    /// The receiver did not answer within the policy's `reply-within`. It may still do the work.
    #[error("nobody answered {name} within the policy's `reply-within`; the receiver may still do the work")]
    Expired {
        /// The message name.
        name: String,
    },
    /// The receiver, or the broker on its behalf, has more to do than it can hold. Nothing was done.
    #[error("the receiver of {name} is overloaded; try again later")]
    Overloaded {
        /// The message name.
        name: String,
    },
    /// The message was given up after its last attempt, and is kept for an operator.
    #[error("{name} was given up after its last attempt and is kept as a dead letter for an operator")]
    DeadLetter {
        /// The message name.
        name: String,
    },
    /// This service, or the one that would receive the message, is held until an operator has looked at it. Nothing
    /// was done; of a command that was under way, nobody knows.
    #[error("{name} was refused: this service, or its receiver, is held by an operator")]
    Quarantined {
        /// The message name.
        name: String,
    },
    /// It was published, but ExoCom does not store it: the policy does not make it a tracked event. It may have gone
    /// its way, unstored.
    #[error(
        "{name} was not stored: the policy does not say kind = \"event\" and delivery = \"at-least-once\" \
         of it; use `send` or `request`"
    )]
    NotTracked {
        /// The message name.
        name: String,
    },
    /// ExoCom refused the request for a reason that this version of the relay does not know.
    #[error("ExoCom refused {name}: {reason}")]
    Refused {
        /// The message name.
        name: String,
        /// ExoCom's word for the reason.
        reason: String,
    },
    /// The receiver's handler failed, and says so.
    #[error("the receiver of {name} failed: {message} (code {code})")]
    Failed {
        /// The message name.
        name: String,
        /// Its code, with HTTP's meaning: 400 for a fault of the sender, 500 for one of the receiver.
        code: u16,
        /// What it says.
        message: String,
    },
    /// No word from the broker in the time that the sender set. The receiver may still do the work.
    #[error("no answer to {name} within {after:?}; the receiver may still do the work")]
    TimedOut {
        /// The message name.
        name: String,
        /// How long the sender waited.
        after: Duration,
    },
    /// The connection to the broker ended before the answer came. The receiver may have done the work.
    #[error(
        "the connection to ExoCom was lost before the answer to {name} came; the receiver may have done the \
         work"
    )]
    ConnectionLost {
        /// The message name.
        name: String,
    },
    /// There is no connection to the broker; the message was not sent.
    #[error("{name} was not sent: no connection to ExoCom{}", because(.reason.as_deref()))]
    Offline {
        /// The message name.
        name: String,
        /// Why the last attempt to connect failed, if one did.
        reason: Option<String>,
    },
    /// The relay has been shut down.
    #[error("the relay has been shut down")]
    Closed,
    /// A name that cannot be one of a message.
    #[error("{name:?} cannot be a message's name: {error}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        error: NameError,
    },
    /// A header that cannot be sent.
    #[error(
        "header {name:?} cannot be sent: a name is made of visible ASCII characters without ':', a value has no \
         control characters, and names that begin with Exo- are ExoCom's own"
    )]
    Header {
        /// The header's name.
        name: String,
    },
    /// More bytes than the broker takes.
    #[error("{name} is too large: {problem}")]
    TooLarge {
        /// The message name.
        name: String,
        /// How large it is and may be.
        problem: String,
    },
    /// A payload that cannot be written as JSON.
    #[error("the payload of {name} cannot be written as JSON")]
    Encode {
        /// The message name.
        name: String,
        /// What the encoder says.
        source: serde_json::Error,
    },
    /// An answer that is not what was asked for. The source says what, and may repeat parts of the payload.
    #[error("the answer to {name} is not the expected JSON (line {}, column {})", .source.line(), .source.column())]
    Decode {
        /// The message name.
        name: String,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// A reply to a message whose sender expects none.
    #[error("{name} expects no answer")]
    NotExpected {
        /// The message name.
        name: String,
    },
    /// A second reply to the same message.
    #[error("{name} has been answered already")]
    AlreadyAnswered {
        /// The message name.
        name: String,
    },
    /// The handlers did not finish in time and were ended.
    #[error("{handlers} handlers had not finished within {within:?} and were ended")]
    Unfinished {
        /// How many patterns still had messages in work.
        handlers: usize,
        /// How long the shutdown waited.
        within: Duration,
    },
    /// A setting that is missing or cannot be used.
    #[error("{setting} {problem}")]
    Setting {
        /// The environment variable, which names the setting in code too.
        setting: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file of certificates or keys that cannot be used.
    #[error("{setting} names {file}, which cannot be used: {problem}")]
    Credentials {
        /// The environment variable, which names the setting in code too.
        setting: &'static str,
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The first connection could not be made.
    #[error("cannot connect to ExoCom at {address}: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
}

/// What a handler gives back when it cannot do what it was asked: a text and a code for the sender.
///
/// Any error becomes one with `?`: the sender then only hears that the receiver failed, with code 500, and the
/// error itself goes to this service's log and [`Event`](crate::Event)s.
///
/// What it means for a tracked message ([`Message::id`](crate::Message::id)):
///
/// | | command | event |
/// |---|---|---|
/// | code from 500, any error | delivered again after the policy's `backoff` | the same |
/// | code below 500: the sender's fault | it is the answer, and the command is done | a dead letter at once |
/// | [`Failure::never`] | a dead letter at once, which its sender is told | a dead letter at once |
///
/// An operator can look at dead letters, and send them again or drop them.
#[derive(Debug)]
pub struct Failure {
    code: u16,
    message: String,
    is_final: bool,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure that the sender is told, with a code in HTTP's meaning: below 500 it is the sender's fault.
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            is_final: false,
            cause: None,
        }
    }

    /// 400: the sender asked for something that cannot be.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 500: the receiver could not do it.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// The message can never be handled, however often it is tried: a tracked one is given up at once, and kept as
    /// a dead letter for an operator. Otherwise as [`Failure::internal`].
    pub fn never(message: impl Into<String>) -> Self {
        Self {
            is_final: true,
            ..Self::internal(message)
        }
    }

    /// Whether the message can never be handled.
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    pub(crate) fn overloaded() -> Self {
        Self::new(503, "overloaded")
    }

    /// The code.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// What the sender is told.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What the sender is not told.
    pub fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync)> {
        self.cause.as_deref()
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        let mut text = String::new();
        for character in self.message.chars() {
            let character = if character.is_control() { ' ' } else { character };
            if text.len() + character.len_utf8() > FAILURE_TEXT_BYTES_MAX {
                break;
            }
            text.push(character);
        }
        let mut headers = HeaderMap::new();
        headers.insert(FAILURE_HEADER, text);
        headers.insert(FAILURE_CODE_HEADER, self.code.to_string());
        headers
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self {
            cause: Some(Box::new(cause)),
            ..Self::internal("the receiver's handler failed")
        }
    }
}

/// What an answer says of a failure: the broker's refusal or the handler's.
pub(crate) fn failure_of(name: &str, answer: &Frame) -> Option<Error> {
    let name = || name.to_owned();
    let header = |wanted: &str| {
        let headers = answer.headers.as_ref()?;
        headers.get(wanted).map(|value| value.as_str().to_owned())
    };
    // A status comes from the broker alone: it takes those of clients away.
    if answer.status.is_some_and(|status| status != StatusCode::OK) {
        let reason = header("Exo-Reason").unwrap_or_else(|| "no-receiver".to_owned());
        return Some(match reason.as_str() {
            "denied" => Error::Denied {
                name: name(),
                rule: header("Exo-Rule").unwrap_or_else(|| "no grant".to_owned()),
                policy: header("Exo-Policy").unwrap_or_else(|| "unknown".to_owned()),
            },
            "no-receiver" => Error::NoReceiver { name: name() },
            "receiver-lost" => Error::ReceiverLost { name: name() },
            "expired" => Error::Expired { name: name() },
            "overloaded" => Error::Overloaded { name: name() },
            "dead-letter" => Error::DeadLetter { name: name() },
            "quarantined" => Error::Quarantined { name: name() },
            _ => Error::Refused { name: name(), reason },
        });
    }
    let message = header(FAILURE_HEADER)?;
    let code = header(FAILURE_CODE_HEADER)
        .and_then(|code| code.parse().ok())
        .unwrap_or(500);
    Some(if code == 503 {
        Error::Overloaded { name: name() }
    } else {
        Error::Failed {
            name: name(),
            code,
            message,
        }
    })
}

/// Adds to the words of the TLS and socket layers what they mean here.
pub(crate) fn explain(words: &str) -> String {
    let hint = if words.contains("received fatal alert") {
        "the broker refused this service's certificate; its log names the rule"
    } else if words.contains("expected INFO, got nothing") {
        "the broker closed the connection: it may be full, or this service may be unwelcome in its zone; its \
         log says why"
    } else if words.contains("UnknownIssuer") || words.contains("BadSignature") {
        "the broker's certificate is not from the root in EXOCOM_CA"
    } else if words.contains("NotValidForName") {
        "the broker's certificate is not for the name in EXOCOM_HOST"
    } else if words.contains("Connection refused") || words.contains("os error 61") {
        "nothing listens there; is ExoCom running, and are EXOCOM_HOST and EXOCOM_PORT right?"
    } else if words.contains("uthorization violation") {
        "the broker's policy does not let this service connect"
    } else {
        return words.to_owned();
    };
    format!("{words} ({hint})")
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!(" ({reason})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(status: Option<u16>, headers: &[(&str, &str)]) -> Frame {
        Frame {
            subject: "_INBOX.1".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: Some(
                headers
                    .iter()
                    .map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                    .collect(),
            ),
            status: status.map(|status| StatusCode::from_u16(status).unwrap()),
            description: None,
            length: 0,
        }
    }

    #[test]
    fn every_reason_of_the_broker_is_told_apart() {
        let check = |reason: &str, expected: &str| {
            let answer = frame(Some(503), &[("Exo-Reason", reason)]);
            let error = failure_of("a.b", &answer).unwrap();
            assert!(format!("{error:?}").starts_with(expected), "{reason}: {error:?}");
        };
        check("denied", "Denied");
        check("no-receiver", "NoReceiver");
        check("receiver-lost", "ReceiverLost");
        check("expired", "Expired");
        check("overloaded", "Overloaded");
        check("dead-letter", "DeadLetter");
        check("quarantined", "Quarantined");
        check("unheard-of", "Refused { name: \"a.b\", reason: \"unheard-of\"");
        // A NATS server has no word for it.
        let bare = failure_of("a.b", &frame(Some(503), &[])).unwrap();
        assert!(matches!(bare, Error::NoReceiver { .. }));
    }

    #[test]
    fn a_denial_says_rule_and_policy() {
        let headers = [
            ("Exo-Reason", "denied"),
            ("Exo-Rule", "todo.toml:7"),
            ("Exo-Policy", "ab12"),
        ];
        let error = failure_of("todos.purge", &frame(Some(503), &headers)).unwrap();
        assert_eq!(
            error.to_string(),
            "ExoCom denied todos.purge: todo.toml:7 (policy version ab12); whoever keeps the policy can add it to \
             what this service `sends`"
        );
    }

    #[test]
    fn a_plain_answer_is_no_failure_and_cannot_claim_a_refusal() {
        assert!(failure_of("a", &frame(None, &[])).is_none());
        assert!(failure_of("a", &frame(None, &[("Exo-Reason", "denied")])).is_none());
    }

    #[test]
    fn an_error_becomes_a_failure_that_hides_it() {
        let handler = || -> Result<(), Failure> { Err(std::io::Error::other("table users is locked"))? };
        let failure = handler().unwrap_err();
        assert_eq!(
            (failure.code(), failure.message()),
            (500, "the receiver's handler failed")
        );
        assert_eq!(failure.cause().unwrap().to_string(), "table users is locked");
    }

    #[test]
    fn a_failure_travels_in_headers() {
        let check = |failure: &Failure, expected_code: u16, expected: &str| {
            let answer = Frame {
                headers: Some(failure.headers()),
                ..frame(None, &[])
            };
            match failure_of("a", &answer) {
                Some(Error::Failed { code, message, .. }) => {
                    assert_eq!((code, message.as_str()), (expected_code, expected));
                }
                other => panic!("{other:?}"),
            }
        };
        check(&Failure::bad_request("no title"), 400, "no title");
        check(&Failure::internal("two\r\nlines\u{0}"), 500, "two  lines ");
        let long = "ä".repeat(FAILURE_TEXT_BYTES_MAX);
        check(
            &Failure::new(409, long),
            409,
            &"ä".repeat(FAILURE_TEXT_BYTES_MAX / 2),
        );
        let overloaded = Frame {
            headers: Some(Failure::overloaded().headers()),
            ..frame(None, &[])
        };
        assert!(matches!(
            failure_of("a", &overloaded),
            Some(Error::Overloaded { .. })
        ));
    }
}
