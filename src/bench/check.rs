//! What a message must be when it arrives: the next of its sender and name, unchanged, stamped with the right
//! sender. Does no IO.

use crate::bench::PAYLOAD_BYTES_MIN;
use crate::bench::protocol::Message;

/// Writes the parts of a payload that tell messages apart.
pub(super) fn number_payload(payload: &mut [u8], sender: u32, name: u32, number: u64) {
    let (ids, rest) = payload.split_at_mut(8);
    let (numbers, _) = rest.split_at_mut(8);
    let id = (u64::from(sender) << 32) | u64::from(name);
    ids.copy_from_slice(&id.to_le_bytes());
    numbers.copy_from_slice(&number.to_le_bytes());
}

/// Fills a payload's rest, which is the same in every message.
pub(super) fn fill_payload(payload: &mut [u8]) {
    let filler = filler(payload.len());
    for (byte, filler) in payload.iter_mut().zip(filler).skip(PAYLOAD_BYTES_MIN) {
        *byte = filler;
    }
}

fn filler(bytes: usize) -> Vec<u8> {
    (b' '..=b'~').cycle().take(bytes).collect()
}

/// Reads what [`number_payload`] wrote: sender, name, number.
pub(super) fn payload_numbers(payload: &[u8]) -> Option<(u32, u32, u64)> {
    let (ids, rest) = payload.split_first_chunk::<8>()?;
    let (number, _) = rest.split_first_chunk::<8>()?;
    let ids = u64::from_le_bytes(*ids);
    let sender = u32::try_from(ids >> 32).ok()?;
    let name = u32::try_from(ids & 0xffff_ffff).ok()?;
    Some((sender, name, u64::from_le_bytes(*number)))
}

/// What the receiver of one sender's messages expects.
#[derive(Debug)]
pub(super) struct Expected {
    sender: u32,
    names: Vec<Box<[u8]>>,
    /// For each name, how many came.
    counts: Vec<u64>,
    count: u64,
    frame: Frame,
}

/// What every message of one sender looks like, whatever it carries.
#[derive(Debug)]
pub(super) struct Frame {
    headers: Box<[u8]>,
    rest: Box<[u8]>,
    payload_bytes: usize,
}

impl Frame {
    /// Messages of a service, with payloads of a size. `is_stamped`: the server is ExoCom, and says who sent
    /// it.
    pub(super) fn new(service: &str, payload_bytes: usize, is_stamped: bool) -> Self {
        let headers = if is_stamped {
            format!("NATS/1.0\r\nExo-Sender: {service}\r\n\r\n")
        } else {
            String::new()
        };
        Self {
            headers: headers.into_bytes().into(),
            rest: filler(payload_bytes).split_off(PAYLOAD_BYTES_MIN).into(),
            payload_bytes,
        }
    }

    /// Checks all but what the message says of itself, which it gives.
    pub(super) fn check(&self, message: &Message<'_>) -> Result<(u32, u32, u64), String> {
        if message.headers != &*self.headers {
            return Err(format!(
                "headers {:?} instead of {:?}",
                message.headers.escape_ascii().to_string(),
                self.headers.escape_ascii().to_string()
            ));
        }
        self.check_payload(message)
    }

    /// The same, but for the headers.
    pub(super) fn check_payload(&self, message: &Message<'_>) -> Result<(u32, u32, u64), String> {
        let numbers =
            payload_numbers(message.payload).filter(|_| message.payload.len() == self.payload_bytes);
        let numbers = numbers.ok_or_else(|| {
            format!(
                "a payload of {} bytes instead of {}",
                message.payload.len(),
                self.payload_bytes
            )
        })?;
        if message.payload.get(PAYLOAD_BYTES_MIN..) != Some(&*self.rest) {
            return Err(format!("message {} has a changed payload", numbers.2));
        }
        Ok(numbers)
    }
}

impl Expected {
    /// Messages of one sender, each name's numbered from 0.
    pub(super) fn new(sender: u32, names: Vec<String>, frame: Frame) -> Self {
        let names: Vec<Box<[u8]>> = names.into_iter().map(|name| name.into_bytes().into()).collect();
        Self {
            sender,
            counts: vec![0; names.len()],
            count: 0,
            names,
            frame,
        }
    }

    /// Checks the next message to arrive.
    pub(super) fn check(&mut self, message: &Message<'_>) -> Result<(), String> {
        let (sender, name, number) = self.frame.check(message)?;
        let place = name as usize;
        let (Some(expected_name), Some(count)) = (self.names.get(place), self.counts.get_mut(place)) else {
            return Err(format!("a message of name {name}, which nobody sent"));
        };
        if sender != self.sender || message.subject != &**expected_name {
            return Err(format!(
                "sender {sender}'s message on {:?} instead of sender {}'s on {:?}",
                message.subject.escape_ascii().to_string(),
                self.sender,
                expected_name.escape_ascii().to_string()
            ));
        }
        let expected = *count;
        if number != expected {
            let what = if number < expected {
                "came again or late"
            } else {
                "came too early, or those before it are lost"
            };
            return Err(format!(
                "on {:?}, message {number} {what}: expected {expected}",
                message.subject.escape_ascii().to_string()
            ));
        }
        *count += 1;
        self.count += 1;
        Ok(())
    }

    /// How many messages came.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(sender: u32, name: u32, number: u64) -> Vec<u8> {
        let mut payload = vec![0; 40];
        fill_payload(&mut payload);
        number_payload(&mut payload, sender, name, number);
        payload
    }

    fn arrives(expected: &mut Expected, subject: &str, headers: &str, payload: &[u8]) -> Result<(), String> {
        expected.check(&Message {
            subject: subject.as_bytes(),
            reply: None,
            headers: headers.as_bytes(),
            payload,
        })
    }

    const STAMP: &str = "NATS/1.0\r\nExo-Sender: web\r\n\r\n";

    fn two_names() -> Expected {
        let names = vec!["a".to_owned(), "b".to_owned()];
        Expected::new(3, names, Frame::new("web", 40, true))
    }

    #[test]
    fn each_name_has_its_own_order() {
        let mut expected = two_names();
        for (name, subject, number) in [(0, "a", 0), (1, "b", 0), (1, "b", 1), (0, "a", 1)] {
            assert_eq!(
                arrives(&mut expected, subject, STAMP, &payload(3, name, number)),
                Ok(())
            );
        }
        assert_eq!(expected.count(), 4);
    }

    #[test]
    fn what_must_not_arrive() {
        let refused = |subject: &str, headers: &str, payload: &[u8], expected_words: &str| {
            let mut expected = two_names();
            arrives(&mut expected, "a", STAMP, &self::payload(3, 0, 0)).unwrap();
            let seen = arrives(&mut expected, subject, headers, payload).unwrap_err();
            assert!(seen.contains(expected_words), "{seen}");
        };
        refused("a", STAMP, &payload(3, 0, 0), "again");
        refused("a", STAMP, &payload(3, 0, 2), "lost");
        refused("b", STAMP, &payload(3, 0, 1), "instead of");
        refused("a", STAMP, &payload(2, 0, 1), "instead of");
        refused("a", STAMP, &payload(3, 9, 0), "nobody sent");
        refused("a", "", &payload(3, 0, 1), "headers");
        refused(
            "a",
            "NATS/1.0\r\nExo-Sender: api\r\n\r\n",
            &payload(3, 0, 1),
            "headers",
        );
        refused("a", STAMP, payload(3, 0, 1).get(..39).unwrap(), "39 bytes");
        let mut changed = payload(3, 0, 1);
        *changed.last_mut().unwrap() ^= 1;
        refused("a", STAMP, &changed, "changed");
    }
}
