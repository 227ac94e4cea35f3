//! What a client asks for in `CONNECT`. What it says about who it is is not read.

use serde::Deserialize;

/// The options of `CONNECT` that change how ExoCom speaks to the client.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ConnectOptions {
    /// `+OK` after every operation.
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
            verbose: false,
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
    /// Reads the JSON text of `CONNECT`; `None` if it is none.
    pub fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Whether the client can be told that a request failed.
    pub const fn takes_refusals(&self) -> bool {
        self.headers && self.no_responders
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_the_defaults_of_the_protocol() {
        assert_eq!(ConnectOptions::parse(b"{}"), Some(ConnectOptions::default()));
        let options =
            ConnectOptions::parse(br#"{"verbose":true,"echo":false,"user":"admin","tls":1}"#).unwrap();
        assert!(options.verbose && !options.echo && !options.headers);
        assert_eq!(ConnectOptions::parse(b"{"), None);
        assert_eq!(ConnectOptions::parse(br#"{"verbose":3}"#), None);
    }
}
