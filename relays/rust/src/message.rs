//! Messages: one that was received, and one that is about to be sent.
//!
//! The sender of a received message is ExoCom's word, taken from its certificate, never the message's own claim.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::Duration;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Message as Frame};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::{Error, Failure, failure_of};
use crate::limits::{EXTEND_EVERY_MIN, PUBLISH_ID_BYTES_MAX, TRACESTATE_BYTES_MAX};
use crate::name::check_name;
use crate::relay::ExoRelay;

const SENDER: &str = "Exo-Sender";
const ID: &str = "Exo-Id";
const ATTEMPT: &str = "Exo-Attempt";
const ACK_WITHIN: &str = "Exo-Ack-Within";
const REPLY_WITHIN: &str = "Exo-Reply-Within";
const PUBLISH_ID: &str = "Nats-Msg-Id";

/// What a receiver says of an attempt to deliver a tracked message: the acknowledgements of NATS JetStream.
const DONE: &[u8] = b"+ACK";
const NOT_NOW: &[u8] = b"-NAK";
const AT_WORK: &[u8] = b"+WPI";
const NEVER: &[u8] = b"+TERM";

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
    tracking: Option<Tracking>,
}

/// What ExoCom says of an attempt to deliver a tracked message.
#[derive(Clone, Copy)]
struct Tracking {
    id: u64,
    attempt: u32,
    is_command: bool,
    within: Duration,
    came: Instant,
}

impl Tracking {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let number = |name: &str| headers.get(name)?.as_str().parse::<u64>().ok();
        let reply_ms = number(REPLY_WITHIN);
        Some(Self {
            id: number(ID)?,
            attempt: number(ATTEMPT)?.try_into().ok()?,
            is_command: reply_ms.is_some(),
            within: Duration::from_millis(reply_ms.or_else(|| number(ACK_WITHIN))?),
            came: Instant::now(),
        })
    }
}

impl Message {
    /// Takes a message as it came; `None` where it does not say who sent it, and so did not come through ExoCom.
    pub(crate) fn new(relay: &ExoRelay, frame: Frame) -> Option<Self> {
        let headers = frame.headers.as_ref()?;
        let sender = headers.get(SENDER)?.as_str().to_owned();
        let tracking = Tracking::of(headers);
        Some(Self(Arc::new(Received {
            relay: relay.clone(),
            connection: relay.link().ended(),
            frame,
            sender,
            is_answered: AtomicBool::new(false),
            tracking,
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

    /// The number under which ExoCom keeps a tracked message (`delivery = "at-least-once"`): the same in each of
    /// its attempts, and never used twice. `None` for a message that is not tracked.
    pub fn id(&self) -> Option<u64> {
        self.0.tracking.map(|tracking| tracking.id)
    }

    /// Which attempt to deliver the message this is. From 2 on, one before it may have done the work; 1 for a
    /// message that is not tracked.
    pub fn attempt(&self) -> u32 {
        self.0.tracking.map_or(1, |tracking| tracking.attempt)
    }

    /// Whether the sender may wait for an answer.
    pub fn expects_answer(&self) -> bool {
        self.0.frame.reply.is_some() && self.0.tracking.is_none_or(|tracking| tracking.is_command)
    }

    /// Answers. A handler that returns a value need not: the value is the answer. The answer acknowledges a tracked
    /// command: ExoCom does not deliver it again.
    ///
    /// # Errors
    /// [`Error::NotExpected`] where nobody waits for an answer, [`Error::AlreadyAnswered`] for a second one,
    /// [`Error::ConnectionLost`] where the connection on which the message came has ended: then ExoCom has told
    /// the sender.
    pub async fn reply(&self, payload: &impl Serialize) -> Result<(), Error> {
        let payload = encode(self.name(), payload)?;
        self.reply_bytes(payload).await
    }

    /// Answers with a payload that need not be JSON. To a tracked command it should not begin with `+WPI`, `-NAK` or
    /// `+TERM`: these are words for ExoCom, and not answers.
    ///
    /// # Errors
    /// As [`Message::reply`].
    pub async fn reply_bytes(&self, payload: Bytes) -> Result<(), Error> {
        self.respond(HeaderMap::new(), payload).await
    }

    /// Answers that it could not be done. This is an answer, too: it acknowledges a tracked command. A handler that
    /// wants it tried again returns an error instead.
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
        self.expects_answer() && !self.is_answered()
    }

    /// Whether ExoCom keeps it until it is acknowledged.
    pub(crate) fn is_tracked(&self) -> bool {
        self.0.tracking.is_some()
    }

    /// How long after it came ExoCom is to be told that it is still worked on, for the first time and between two
    /// times; `None` where that means nothing, or has been done long enough.
    pub(crate) fn extend_every(&self) -> Option<Duration> {
        let tracking = self.0.tracking.as_ref()?;
        let is_over = self.is_answered() || tracking.came.elapsed() >= self.0.relay.extend_for();
        (!is_over).then(|| (tracking.within / 3).max(EXTEND_EVERY_MIN))
    }

    /// Tells ExoCom that a tracked message has been handled.
    pub(crate) async fn acknowledge(&self) {
        self.say(DONE).await;
    }

    /// Tells ExoCom to try a tracked message again, after the policy's `backoff`.
    pub(crate) async fn put_off(&self) {
        self.say(NOT_NOW).await;
    }

    /// Tells ExoCom that a tracked message can never be handled.
    pub(crate) async fn terminate(&self) {
        self.say(NEVER).await;
    }

    /// Tells ExoCom that a tracked message is still being worked on, or waits for it.
    pub(crate) async fn extend(&self) {
        if let Some(reply) = &self.0.frame.reply
            && !self.is_answered()
            && self.0.relay.link().ended() == self.0.connection
        {
            let word = Bytes::from_static(AT_WORK);
            let sent = self
                .0
                .relay
                .respond(self.name(), reply.clone(), HeaderMap::new(), word);
            // With the connection, the attempt has ended.
            drop(sent.await);
        }
    }

    async fn say(&self, word: &'static [u8]) {
        // With the connection, the attempt has ended, and ExoCom makes another.
        drop(self.tell(HeaderMap::new(), Bytes::from_static(word)).await);
    }

    fn is_answered(&self) -> bool {
        self.0.is_answered.load(Acquire)
    }

    async fn respond(&self, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
        if !self.expects_answer() {
            return Err(Error::NotExpected {
                name: self.name().to_owned(),
            });
        }
        self.tell(headers, payload).await
    }

    async fn tell(&self, headers: HeaderMap, payload: Bytes) -> Result<(), Error> {
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
            self.0.is_answered.store(false, Release);
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
            .field("id", &self.id())
            .field("attempt", &self.attempt())
            .finish()
    }
}

/// What ExoCom says once it has stored a tracked event.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[non_exhaustive]
pub struct Stored {
    /// The name of the broker's store.
    pub stream: String,
    /// The number under which it is kept there; receivers see it as [`Message::id`].
    pub seq: u64,
    /// Whether it had been published before, with the same id: then `seq` is that of the first time, and nothing
    /// is delivered again.
    #[serde(default)]
    pub duplicate: bool,
}

/// A message that is about to be sent. What is wrong with it is told when it is.
#[must_use = "a message does nothing until `send`, `publish` or `request`"]
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

    /// With an id of the sender's choice (`Nats-Msg-Id`), at most 255 bytes. A tracked message that this service
    /// publishes again with the same id, within two minutes, is stored once.
    pub fn id(mut self, id: &str) -> Self {
        if id.is_empty() || id.len() > PUBLISH_ID_BYTES_MAX {
            self.fault = self.fault.or_else(|| {
                Some(Error::Header {
                    name: PUBLISH_ID.to_owned(),
                })
            });
            return self;
        }
        self.header(PUBLISH_ID, id)
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
        self.relay.put(&self.name, None, self.headers, self.payload).await
    }

    /// Publishes it as a tracked event, and waits until ExoCom has stored it.
    ///
    /// # Errors
    /// As [`ExoRelay::publish`].
    pub async fn publish(self) -> Result<Stored, Error> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let name = self.name;
        let told = self
            .relay
            .ask(&name, self.headers, self.payload, self.within)
            .await?;
        // What has a sender is the answer of a service. ExoCom itself says that it is stored.
        let is_answer = header(told.headers.as_ref(), SENDER).is_some();
        match serde_json::from_slice(&told.payload) {
            Ok(stored) if !is_answer => Ok(stored),
            _ => Err(failure_of(&name, &told).unwrap_or(Error::NotTracked { name })),
        }
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
