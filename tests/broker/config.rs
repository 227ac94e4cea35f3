//! The configuration that most tests begin with.

/// The configuration of a broker with one listener, which ends at once, and whatever else a test wants of it. `[limits]`
/// is the last section here, so that what follows may begin with keys of it.
macro_rules! config {
    ($more:literal) => {
        concat!(
            r#"
version = 1
policy = "policy.toml"
admin-socket = "admin.sock"

[tls]
certificate = "certs/server.pem"
key = "certs/server.key"

[listener.main]
address = "127.0.0.1:0"
roots = ["certs/ca.pem"]

[limits]
lame-duck-ms = 0
"#,
            $more
        )
    };
}
pub(crate) use config;
