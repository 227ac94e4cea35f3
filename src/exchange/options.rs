//! What a client asks for in `CONNECT`. What it says about who it is is not read.
//!
//! Read as leniently as nats-server reads it, since clients were tested against that: names of fields in any
//! case, `null` for a field that is not set, the last of a field that comes twice.

use serde_json::{Map, Value};

/// The options of `CONNECT` that change how ExoCom speaks to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectOptions {
    /// `+OK` after every operation that was not refused.
    pub verbose: bool,
    /// Whether its own messages come back to it where it subscribes to them.
    pub echo: bool,
    /// Whether it takes `HMSG`.
    pub headers: bool,
    /// Whether it takes a status 503 for a request that cannot succeed.
    pub no_responders: bool,
    /// What it calls itself; shown to operators, trusted by nobody.
    pub name: Option<String>,
    /// The client library.
    pub lang: Option<String>,
    /// The client library's version.
    pub version: Option<String>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            verbose: true,
            echo: true,
            headers: false,
            no_responders: false,
            name: None,
            lang: None,
            version: None,
        }
    }
}

impl ConnectOptions {
    /// These, changed by what the JSON text of a `CONNECT` sets; `None` if that is no object, or a field that we
    /// read is of another type.
    pub fn changed_by(&self, json: &[u8]) -> Option<Self> {
        let fields: Map<String, Value> = serde_json::from_slice(json).ok()?;
        let mut options = self.clone();
        for (field, value) in fields {
            match field.to_ascii_lowercase().as_str() {
                "verbose" => set(&mut options.verbose, value.as_bool(), &value)?,
                "echo" => set(&mut options.echo, value.as_bool(), &value)?,
                "headers" => set(&mut options.headers, value.as_bool(), &value)?,
                "no_responders" => set(&mut options.no_responders, value.as_bool(), &value)?,
                "name" => set(&mut options.name, text(&value), &value)?,
                "lang" => set(&mut options.lang, text(&value), &value)?,
                "version" => set(&mut options.version, text(&value), &value)?,
                _ => {}
            }
        }
        Some(options)
    }

    /// Whether the client can be told that a request failed.
    pub const fn takes_refusals(&self) -> bool {
        self.headers && self.no_responders
    }
}

/// Sets a field to what was read, or leaves it for `null`; `None` where it was of another type.
fn set<T>(field: &mut T, read: Option<T>, value: &Value) -> Option<()> {
    match read {
        Some(read) => *field = read,
        None => value.as_null()?,
    }
    Some(())
}

fn text(value: &Value) -> Option<Option<String>> {
    value.as_str().map(|text| Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Option<ConnectOptions> {
        ConnectOptions::default().changed_by(json.as_bytes())
    }

    // protocol: P-023
    #[test]
    fn options_have_the_defaults_of_nats_server() {
        let defaults = ConnectOptions::default();
        assert!(defaults.verbose && defaults.echo && !defaults.headers && !defaults.takes_refusals());
        for json in [
            "{}",
            r#"{"verbose":null,"name":null,"echo":null}"#,
            r#"{"user":"admin","tls":1}"#,
        ] {
            assert_eq!(parse(json), Some(defaults.clone()), "{json}");
        }
    }

    // protocol: P-021, P-022, P-024
    #[test]
    fn fields_are_read_as_nats_server_reads_them() {
        let options =
            parse(r#" {"Verbose":false,"ECHO":false,"headers":true,"no_responders":true,"lang":"x"} "#);
        let options = options.unwrap();
        assert!(!options.verbose && !options.echo && options.takes_refusals());
        assert_eq!(options.lang.as_deref(), Some("x"));
        let again = options.changed_by(br#"{"echo":true}"#).unwrap();
        assert!(
            !again.verbose && again.echo && again.takes_refusals(),
            "the rest stays as it was"
        );
        assert!(!parse(r#"{"verbose":true,"verbose":false}"#).unwrap().verbose);
        for json in [
            "",
            "{",
            "[]",
            "null",
            "3",
            "{} x",
            r#"{"verbose":3}"#,
            r#"{"name":[]}"#,
        ] {
            assert_eq!(parse(json), None, "{json}");
        }
    }
}
