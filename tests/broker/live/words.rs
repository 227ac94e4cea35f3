//! What operators write where people will read it, and what strangers leave in the audit log: in no reason and no name can
//! anybody write a line of the log, move a terminal's cursor, or become a pattern. Certificates otherwise are the matter of
//! `identity/characters.rs`.

use std::fs;

use super::*;
use crate::pki::raw_uri;

/// What a terminal, a log, a shell or a pattern would take for more than a letter.
const NASTY: &[&str] = &[
    "*",
    ">",
    "web.>",
    "a.b",
    "web\nforged: a line",
    "web\r\nforged: a line",
    "web\u{85}forged: a line",
    "web\u{2028}forged: a line",
    "\u{1b}[31mred\u{1b}[2J",
    "\u{9b}31mred",
    "\u{1b}]0;title\u{7}",
    "\u{202e}bew",
    "\u{2066}bew",
    "\0web",
    "\u{8}\u{8}\u{8}web",
    "\"quoted\" sender=\"web\"",
    "'quoted'",
    "\\u001b[31m\\n",
    "web' || true; $(true) `true`",
    "{\"kind\":\"admin\"}",
    "%s%n",
];

const AUDITED: &str = "\n[audit]\nfolder = \"audit\"\n";

/// Nothing in it moves anything but the next letter: no control characters but the ends of lines that the program itself
/// writes, and nothing that turns the direction of the text.
#[track_caller]
fn check_clean(what: &str, text: &str) {
    let is_bad = |character: char| {
        (character.is_control() && character != '\n')
            || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let found = text
        .lines()
        .find(|line| line.contains(is_bad) || line.trim_start().starts_with("forged"));
    assert_eq!(
        found.map(str::escape_debug).map(|line| line.to_string()),
        None,
        "{what}"
    );
}

impl Shop {
    /// Each thing that tells people or programs what was written.
    fn check_all_clean(&self) {
        check_clean("the log", &self.broker.log());
        for verb in [
            &["status"][..],
            &["certs", "revoked"],
            &["queue", "list"],
            &["alarms", "list"],
            &["policy", "log"],
        ] {
            check_clean(&verb.join(" "), &self.succeeds(verb));
            check_clean(&verb.join(" "), &self.succeeds(&[verb, &["--json"]].concat()));
        }
        for verb in [&["tail", "-n", "1000"][..], &["query"]] {
            check_clean("the audit log", &self.audit(verb));
            check_clean("the audit log", &self.audit(&[verb, &["--json"]].concat()));
        }
    }

    /// What `exocom audit` says.
    #[track_caller]
    fn audit(&self, arguments: &[&str]) -> String {
        let output = Command::new(EXOCOM)
            .arg("audit")
            .args(arguments)
            .arg("--dir")
            .arg(self.broker.path("audit"))
            .output()
            .expect("the binary was built for the tests");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{text}");
        text
    }
}

#[test]
fn what_a_stranger_calls_itself_is_harmless_in_the_audit_log() {
    let shop = Shop::open_with(AUDITED);
    for nasty in NASTY {
        for id in [
            format!("spiffe://shop.example/web{nasty}"),
            format!("spiffe://shop.example/operator/{nasty}"),
            (*nasty).to_owned(),
        ] {
            let shown = shop.ca.leaf(|params| {
                params.subject_alt_names.clear();
                params.custom_extensions = vec![raw_uri(id.as_bytes())];
            });
            let heard = shop
                .shake(shop.broker.address(), &shown)
                .and_then(|mut raw| raw.try_line());
            assert!(!matches!(heard, Ok(Some(_))), "{id:?}: {heard:?}");
        }
    }
    // They are counted by the rule, with one of them as the example.
    wait_for("the records", || {
        let text = shop.audit(&["query", "--kind", "refused"]);
        ["spiffe-scheme", "spiffe-path"]
            .iter()
            .all(|rule| text.contains(rule))
    });
    shop.check_all_clean();
}

#[test]
fn what_operators_write_is_harmless_wherever_it_is_shown() {
    let shop = Shop::open_with(AUDITED);
    let web = shop.issue("web");
    let mut receiving = shop.connect(&shop.issue("orders"));
    receiving.send(b"SUB orders.track orders 1\r\nPING\r\n");
    assert_eq!(receiving.line(), "PONG");
    let policy = shop.broker.path("policy.toml");
    for nasty in NASTY.iter().filter(|nasty| !nasty.contains('\0')) {
        let exocom = |arguments: &[&str]| {
            let output = Command::new(EXOCOM)
                .args(arguments)
                .arg("--admin")
                .arg(shop.broker.path("admin.sock"))
                // What people call themselves.
                .env("USER", nasty)
                .env("SUDO_USER", nasty)
                .output()
                .expect("the binary was built for the tests");
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            // What cannot be a word of the command is shown to whoever wrote it, as they wrote it.
            if output.status.code() != Some(2) {
                check_clean(&format!("{arguments:?}"), &text);
            }
            (output.status.success(), text)
        };
        let (is_done, text) = exocom(&["certs", "revoke", "web", "--reason", nasty]);
        assert!(is_done, "{text}");
        shop.check_refused(&web, "revoked");
        assert!(exocom(&["certs", "revoked"]).0);
        // As a target it is nothing at all, and least of all a pattern for several.
        assert!(!exocom(&["certs", "revoke", &format!("service:{nasty}"), "--reason", "x"]).0);
        assert!(!exocom(&["certs", "revoke", nasty, "--reason", "x"]).0);
        assert!(exocom(&["certs", "unrevoke", "web", "--reason", nasty]).0);
        let mut sending = shop.connect(&web);
        sending.send(b"PUB orders.track 1\r\nx\r\nPING\r\n");
        assert_eq!(sending.line(), "PONG");
        let message = receiving.message();
        let reply = message.split(' ').nth(3).expect("a reply subject").to_owned();
        receiving.send(format!("PUB {reply} 5\r\n+TERM\r\nPING\r\n").as_bytes());
        assert_eq!(receiving.line(), "PONG");
        wait_for("the dead letter", || {
            shop.json(&["queue", "list"])["dead"]
                .as_array()
                .map_or(0, Vec::len)
                == 1
        });
        assert!(!exocom(&["queue", "purge", nasty, "--why", "x"]).1.contains("1 "));
        exocom(&["queue", "drop", "--service", nasty]);
        let dead = &shop.json(&["queue", "list"])["dead"];
        assert_eq!(
            dead.as_array().map_or(0, Vec::len),
            1,
            "{nasty:?} is no pattern for services"
        );
        assert!(exocom(&["queue", "drop", "--service", "orders", "--why", nasty]).0);
        let next = fs::read_to_string(&policy).expect("it is there") + "# again\n";
        fs::write(shop.broker.path("next.toml"), next).expect("a file");
        let next = shop.broker.path("next.toml");
        let next = next.to_str().expect("it is text");
        let (is_done, text) = exocom(&["policy", "apply", next, "--yes", "--why", nasty]);
        assert!(is_done, "{text}");
        assert!(!exocom(&["policy", "confirm", nasty]).0);
        assert!(!exocom(&["policy", "rollback", nasty, "--yes"]).0);
    }
    shop.check_all_clean();
}
