//! Messages: one that was received, and one that is about to be sent.
//!
//! The sender of a received message is ExoCom's word, taken from its certificate, never the message's own claim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::AcqRel};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message as Frame};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Failure};
use crate::limits::TRACESTATE_BYTES_MAX;
use crate::name::check_name;
use crate::relay::ExoRelay;

const SENDER: &str = "Exo-Sender";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// A received message. Clones are the same message.
#[derive(Clone)]
pub struct Message(Arc<Received>);

struct Received {
    relay: ExoRelay,
    frame: Frame,
    sender: String,
    /// The connection it came on, by how many had ended before.
    connection: u64,
    is_answered: AtomicBool,
}

impl Message {
    /// Takes a message as it came; `None` where it does not say who sent it, and so did not come through ExoCom.
    pub(crate) fn new(relay: &ExoRelay, frame: Frame) -> Option<Self> {
        let sender = frame.headers.as_ref()?.get(SENDER)?.as_str().to_owned();
        Some(Self(Arc::new(Received {
            relay: relay.clone(),
            connection: relay.link().ended(),
            frame,
            sender,
            is_answered: AtomicBool::new(false),
        })))
    }

    /// Its name, such as `todos.list`.
    pub fn name(&self) -> &str {
        &self.0.frame.subject
    }

    /// The service that sent it, proven by its certificate.
    pub fn sender(&self) -> &str {
        &self.0.sender
    }

    /// The payload as it came.
    pub fn payload(&self) -> &Bytes {
        &self.0.frame.payload
    }

    /// The payload as JSON; an empty one is `null`.
    ///
    /// # Errors
    /// The decoder's, which may repeat parts of the payload.
    pub fn json<P: DeserializeOwned>(&self) -> Result<P, serde_json::Error> {
        decode(&self.0.frame.payload)
    }

    /// A header's first value; upper and lower case are the same in its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.0.frame.headers.as_ref(), name)
    }

    /// The `traceparent` header, which ties the messages of one activity together.
    pub fn traceparent(&self) -> Option<&str> {
        self.header(TRACEPARENT)
    }

    /// Whether the sender waits for an answer.
    pub fn expects_answer(&self) -> bool {
        self.0.frame.reply.is_some()
    }

    /// Answers. A handler that returns a value need not: the value is the answer.
    ///
    /// # Errors
    /// [`Error::NotExpected`] where nobody waits for an answer, [`Error::AlreadyAnswered`] for a second one,
    /// [`Error::ConnectionLost`] where the connection on which the message came has ended: then ExoCom has told
    /// the sender.
    pub async fn reply(&self, payload: &impl Serialize) -> Result<(), Error> {
        let payload = encode(self.name(), payload)?;
        self.reply_bytes(payload).await
    }

    /// Answers with a payload that need not be JSON.
    ///
    /// # Errors
    /// As [`Message::reply`].
    pub async fn reply_bytes(&self, payload: Bytes) -> Result<(), Error> {
        self.respond(HeaderMap::new(), payload).await
    }

    /// Answers that it could not be done.
    ///
    /// # Errors
    /// As [`Message::reply`].
    pub async fn fail(&self, failure: &Failure) -> Result<(), Error> {
        self.respond(failure.headers(), Bytes::new()).await
    }

    /// Sends an event that belongs to the same activity: with this message's trace.
    ///
    /// # Errors
    /// As [`ExoRelay::send`].
    pub async fn send(&self, name: &str, payload: &impl Serialize) -> Result<(), Error> {
        self.message(name).json(payload).send().await
    }

    /// Sends a command that belongs to the same activity: with this message's trace.
    ///
    /// # Errors
    /// As [`ExoRelay::request`].
    pub async fn request<R: DeserializeOwned>(
        &self,
        name: &str,
        payload: &impl Serialize,
    ) -> Result<R, Error> {
        self.message(name).json(payload).request().await
    }

    /// A message that belongs to the same activity, to be completed and sent.
    pub fn message(&self, name: &str) -> Outgoing {
        let mut message = Outgoing::new(&self.0.relay, name);
        if let Some(parent) = self.traceparent() {
            message = message.header(TRACEPARENT, parent);
            let state = self.header(TRACESTATE);
            if let Some(state) = state.filter(|state| state.len() <= TRACESTATE_BYTES_MAX) {
                message = message.header(TRACESTATE, state);
            }
        }
        message
    }

    /// Whether an answer is still to be given.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.expects_answer() && !self.0.is_answered.load(std::sync::atomic::Ordering::Acquire)
    }

    async fn respond(&self, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        let name = || self.name().to_owned();
        let Some(reply) = &self.0.frame.reply else {
            return Err(Error::NotExpected { name: name() });
        };
        if self.0.is_answered.swap(true, AcqRel) {
            return Err(Error::AlreadyAnswered { name: name() });
        }
        if self.0.relay.link().ended() != self.0.connection {
            return Err(Error::ConnectionLost { name: name() });
        }
        let sent = self
            .0
            .relay
            .respond(self.name(), reply.clone(), headers, payload)
            .await;
        if matches!(sent, Err(Error::TooLarge { .. })) {
            // Nothing has been sent, and the sender still waits for a word.
            self.0
                .is_answered
                .store(false, std::sync::atomic::Ordering::Release);
        }
        sent
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("name", &self.name())
            .field("sender", &self.sender())
            .field("payload_bytes", &self.payload().len())
            .field("expects_answer", &self.expects_answer())
            .finish()
    }
}

/// A message that is about to be sent. What is wrong with it is told when it is.
#[must_use = "a message does nothing until `send` or `request`"]
pub struct Outgoing {
    relay: ExoRelay,
    name: String,
    headers: HeaderMap,
    payload: Bytes,
    within: Duration,
    fault: Option<Error>,
}

impl Outgoing {
    pub(crate) fn new(relay: &ExoRelay, name: &str) -> Self {
        let fault = check_name(name).err().map(|error| Error::Name {
            name: name.to_owned(),
            error,
        });
        Self {
            relay: relay.clone(),
            name: name.to_owned(),
            headers: HeaderMap::new(),
            payload: Bytes::new(),
            within: relay.answer_within(),
            fault,
        }
    }

    /// With a payload in JSON.
    pub fn json(mut self, payload: &impl Serialize) -> Self {
        match encode(&self.name, payload) {
            Ok(payload) => self.payload = payload,
            Err(fault) => self.fault = self.fault.or(Some(fault)),
        }
        self
    }

    /// With a payload that need not be JSON.
    pub fn bytes(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// With a header. Those that begin with `Exo-` are ExoCom's own, and cannot be sent.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let is_ours = name
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("exo-"));
        let is_plain = !value.chars().any(|c| c.is_control() && c != '\t');
        match (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            (Ok(parsed), Ok(value)) if !name.is_empty() && !is_ours && is_plain => {
                self.headers.append(parsed, value);
            }
            _ => {
                self.fault = self.fault.or_else(|| {
                    Some(Error::Header {
                        name: name.to_owned(),
                    })
                });
            }
        }
        self
    }

    /// Wait for the answer at most this long, instead of what the options say.
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Sends it as an event.
    ///
    /// # Errors
    /// As [`ExoRelay::send`].
    pub async fn send(self) -> Result<(), Error> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.relay
            .publish(&self.name, None, self.headers, self.payload)
            .await
    }

    /// Sends it as a command, and gives the answer, which is JSON.
    ///
    /// # Errors
    /// As [`ExoRelay::request`].
    pub async fn request<R: DeserializeOwned>(self) -> Result<R, Error> {
        let answer = self.request_answer().await?;
        answer.json()
    }

    /// Sends it as a command, and gives the answer as it came.
    ///
    /// # Errors
    /// As [`ExoRelay::request`], except that nothing is decoded.
    pub async fn request_answer(self) -> Result<Answer, Error> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let asked = self
            .relay
            .ask(&self.name, self.headers, self.payload, self.within)
            .await;
        asked.map(|frame| Answer {
            name: self.name,
            frame,
        })
    }
}

/// The answer to a command.
pub struct Answer {
    name: String,
    frame: Frame,
}

impl Answer {
    /// The service that answered, proven by its certificate.
    pub fn sender(&self) -> Option<&str> {
        self.header(SENDER)
    }

    /// The payload as it came.
    pub fn payload(&self) -> &Bytes {
        &self.frame.payload
    }

    /// The payload as JSON; an empty one is `null`.
    ///
    /// # Errors
    /// [`Error::Decode`].
    pub fn json<R: DeserializeOwned>(&self) -> Result<R, Error> {
        decode(&self.frame.payload).map_err(|source| Error::Decode {
            name: self.name.clone(),
            source,
        })
    }

    /// A header's first value; upper and lower case are the same in its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(self.frame.headers.as_ref(), name)
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("name", &self.name)
            .field("sender", &self.sender())
            .field("payload_bytes", &self.payload().len())
            .finish()
    }
}

/// JSON, as both relays write it.
pub(crate) fn encode(name: &str, payload: &impl Serialize) -> Result<Bytes, Error> {
    let encoded = serde_json::to_vec(payload).map_err(|source| Error::Encode {
        name: name.to_owned(),
        source,
    })?;
    Ok(encoded.into())
}

/// JSON; nothing at all is `null`, since the relay for JavaScript sends `undefined` so.
fn decode<P: DeserializeOwned>(payload: &[u8]) -> Result<P, serde_json::Error> {
    serde_json::from_slice(if payload.is_empty() { b"null" } else { payload })
}

fn header<'a>(headers: Option<&'a HeaderMap>, wanted: &str) -> Option<&'a str> {
    let named = |name: &HeaderName| {
        let name: &str = name.as_ref();
        name.eq_ignore_ascii_case(wanted)
    };
    let (_, values) = headers?.iter().find(|(name, _)| named(name))?;
    values.first().map(HeaderValue::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_payload_is_null() {
        decode::<()>(b"").unwrap();
        assert_eq!(decode::<Option<u8>>(b"").unwrap(), None);
        assert_eq!(decode::<Vec<u8>>(b"[1]").unwrap(), [1]);
        assert!(decode::<Vec<u8>>(b"").is_err());
        assert_eq!(encode("a", &()).unwrap(), "null");
    }

    #[test]
    fn headers_are_found_in_any_case() {
        let headers: HeaderMap = [("Traceparent".parse().unwrap(), "00-ab".parse().unwrap())]
            .into_iter()
            .collect();
        assert_eq!(header(Some(&headers), "traceparent"), Some("00-ab"));
        assert_eq!(header(Some(&headers), "tracestate"), None);
        assert_eq!(header(None, "traceparent"), None);
    }
}
