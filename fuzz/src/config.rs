//! The configuration file. Reading is repeatable; a refusal names the file and may go to a terminal; and what is
//! taken keeps its bounds, whoever wrote it.

use std::path::Path;

use exocom::config::Config;
use exocom::limits::{PAYLOAD_BYTES_MAX_CONFIGURABLE, THREADS_MAX};

pub const WORDS: &[&[u8]] = &[
    b"version = 1\n",
    b"policy = \"p.toml\"\n",
    b"admin-socket = \"a.sock\"\n",
    b"[tls]\n",
    b"certificate = \"c.pem\"\n",
    b"key = \"c.key\"\n",
    b"[listener.main]\n",
    b"address = \"[::]:4222\"\n",
    b"roots = [\"ca.pem\"]\n",
    b"zone = \"z\"\n",
    b"crls = [\"crl.pem\"]\n",
    b"[limits]\n",
    b"payload-bytes = ",
    b"handshake-ms = ",
    b"threads = ",
    b"name = \"",
    b"{ trust-domain = \"p\", file = \"f\" }",
    b"0",
    b"1048576",
    b"-1",
    b"99999999999999999999",
    b"\x1b[31m",
];

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let file = Path::new("/etc/exocom/exocom.toml");
    let read = || Config::parse(file, text);
    let config = match (read(), read()) {
        (Ok(config), Ok(again)) => {
            assert_eq!(format!("{config:?}"), format!("{again:?}"));
            config
        }
        (Err(error), Err(again)) => {
            assert_eq!(error.to_string(), again.to_string());
            let told = error.to_string();
            assert!(told.contains("/etc/exocom/exocom.toml"), "{told}");
            let control = told.chars().find(|char| char.is_control() && *char != '\n');
            assert_eq!(control, None, "{told}");
            return;
        }
        _ => panic!("taken once and refused once"),
    };
    assert!(!config.name.is_empty() && config.name.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(
        config
            .threads
            .is_none_or(|threads| (1..=THREADS_MAX).contains(&threads))
    );
    assert!(!config.listeners.is_empty());
    for listener in &config.listeners {
        assert!(!listener.roots.is_empty() && listener.crls.as_ref().is_none_or(|crls| !crls.is_empty()));
        assert!(listener.zone.as_ref().is_none_or(|zone| !zone.is_empty()));
    }
    let limits = &config.limits;
    assert!((1..=PAYLOAD_BYTES_MAX_CONFIGURABLE).contains(&limits.payload_bytes));
    assert!((100..=60_000).contains(&limits.handshake_ms) && limits.lame_duck_ms <= 600_000);
    assert!(limits.half_open > 0 && limits.half_open_per_address > 0 && limits.connections != Some(0));
    for path in [
        &config.policy,
        &config.admin_socket,
        &config.certificate,
        &config.key,
    ] {
        assert!(
            path.is_absolute(),
            "{path:?} depends on where the broker was started"
        );
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n[tls]\ncertificate = \"c.pem\"\nkey = \"c.key\"\n\
         [listener.main]\naddress = \"127.0.0.1:4222\"\nroots = [\"ca.pem\"]\n",
        "version = 1\nname = \"x\"\nthreads = 2\npolicy = \"/p\"\nadmin-socket = \"a\"\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n\
         [listener.a]\naddress = \"[::]:1\"\nzone = \"dmz\"\nroots = [\"a\", { trust-domain = \"p.example\", file = \"b\" }]\n\
         crls = [\"x\"]\n[listener.b]\naddress = \"0.0.0.0:0\"\nroots = [\"a\"]\n[limits]\npayload-bytes = 1024\n\
         handshake-ms = 1000\nhalf-open = 10\nhalf-open-per-address = 2\nconnections = 5\ncertificate-life-days = 7\n\
         lame-duck-ms = 0\n",
        "version = 2\n[listener]\nx = 1\n",
        "version = 1\npolicy = \"\u{1b}[31m\"\n[listener.\"\\u001b\"]\naddress = \"\"\n",
    ])
}
