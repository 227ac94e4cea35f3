//! The webhook: a server that hears of each alarm, in order, each event until it is taken.
//!
//! Each call is signed, so that the server can tell that it is this broker's, and not an old one again. It holds up
//! nobody.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ring::hmac;
use serde_json::json;

use crate::config::WebhookConfig;
use crate::console::status::HearingStatus;
use crate::limits::WEBHOOK_EVENTS_MAX;
use crate::net::broker::Broker;
use crate::net::https::{Https, PostError};
use crate::serve::outside::{Teller, Unheard};
use crate::traffic::desk::{Alarm, Step};

/// What a secret has at the least, in bytes: fewer can be tried out.
const SECRET_BYTES_MIN: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Webhook {
    broker_name: String,
    teller: Teller<Event>,
}

/// Something that happened to an alarm. The same each time that it is told.
#[derive(Debug, Clone)]
struct Event {
    id: String,
    body: Arc<str>,
}

impl Webhook {
    /// Starts it; an error says what is wrong with the configuration.
    pub(super) fn start(
        config: &WebhookConfig,
        https: Https,
        broker: &Arc<Broker>,
        name: &str,
    ) -> Result<Self, String> {
        let key = read_secret(&config.secret)?;
        let (url, clock) = (config.url.clone(), Arc::clone(broker));
        let tell = move |event: &Event| {
            let signature = sign(&key, clock.clock.now_unix_ms() / 1_000, &event.body);
            let headers = [
                ("content-type", "application/json"),
                ("exocom-event", event.id.as_str()),
                ("exocom-signature", signature.as_str()),
            ];
            let posted = https.post(&url, &headers, event.body.as_bytes());
            posted.map_err(|PostError { status, text }| match status {
                // What it makes of this very event will not change.
                Some(400 | 413 | 422) => Unheard::Never(text),
                _ => Unheard::Retry(text),
            })
        };
        let shown = host_of(&config.url).to_owned();
        let teller = Teller::start("webhook of alarms", shown, WEBHOOK_EVENTS_MAX, tell);
        Ok(Self {
            broker_name: name.to_owned(),
            teller: teller.map_err(|error| error.to_string())?,
        })
    }

    /// Tells of an alarm, unless it is muted. `text` is the alarm in words.
    pub(super) fn tell(&self, step: Step, alarm: &Alarm, text: &str, unix_s: u64) {
        if alarm.is_muted {
            return;
        }
        let step = match step {
            Step::Opened => "opened",
            Step::Updated => "updated",
            Step::Closed => "closed",
        };
        let id = format!("{}-{}-{step}-{unix_s}", self.broker_name, alarm.id);
        let body =
            json!({"event": id, "broker": self.broker_name, "step": step, "text": text, "alarm": alarm});
        self.teller.tell(Event {
            id,
            body: body.to_string().into(),
        });
    }

    /// How it goes with it.
    pub(super) fn hearing(&self) -> HearingStatus {
        self.teller.hearing()
    }

    /// Tells what waits, if it is heard, and ends.
    pub(super) fn close(&self) {
        self.teller.close();
    }
}

/// An address as it is shown, without its path: with many services that is a secret.
fn host_of(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(start..).unwrap_or_default();
    let end = rest.find(['/', '?']).map_or(url.len(), |at| start + at);
    url.get(..end).unwrap_or_default()
}

/// `t=TIME,v1=HMAC`: HMAC-SHA-256, in hexadecimal, of the time in seconds since 1970, a dot, and the body.
fn sign(key: &hmac::Key, unix_s: u64, body: &str) -> String {
    let tag = hmac::sign(key, format!("{unix_s}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={unix_s},v1={hex}")
}

fn read_secret(file: &Path) -> Result<hmac::Key, String> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    let text = std::fs::read_to_string(file).map_err(failed)?;
    let secret = text.trim().as_bytes();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(format!(
            "{}: a secret has at least {SECRET_BYTES_MIN} characters, such as from `openssl rand -hex 32`",
            file.display()
        ));
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_other_tools_make_of_it() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
        let signature = sign(&key, 1_700_000_000, r#"{"a":1}"#);
        assert_eq!(
            signature,
            "t=1700000000,v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177"
        );
    }

    #[test]
    fn of_an_address_only_the_host_is_shown() {
        let check = |url: &str, expected: &str| assert_eq!(host_of(url), expected, "{url}");
        check(
            "https://hooks.example/services/T0/secret",
            "https://hooks.example",
        );
        check(
            "https://hooks.example:8443?token=secret",
            "https://hooks.example:8443",
        );
        check("https://[2001:db8::1]/secret", "https://[2001:db8::1]");
        check("https://hooks.example", "https://hooks.example");
    }
}
