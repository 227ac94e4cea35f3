//! Services that keep a checkpoint of the audit log: what the broker answers them, and that an ExoRelay notices a
//! history that was signed again with the log's own key.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exocom::audit::checkpoint::Checkpoint;
use exocom::audit::key::{PublicKey, SecretKey};
use exocom::audit::tree::{Hash, check_consistency};
use exocom::disk::audit::{Archive, AuditLog, Tree};
use exorelay::{Event, Options};

use crate::config::config;
use crate::support::{Broker, EXOCOM, Raw, TODO_POLICY, wait_for, wait_until};

const CONFIG: &str = config!(
    r#"
[store]
folder = "store"

[audit]
folder = "trail"
interval-s = 1
"#
);

/// Asks, and gives the answer.
fn ask(raw: &mut Raw, payload: &str) -> String {
    let bytes = payload.len();
    raw.send(format!("PUB $EXO.audit.checkpoint _INBOX.a {bytes}\r\n{payload}\r\n").as_bytes());
    raw.message()
}

struct Answer {
    proof: Vec<Hash>,
    newest: Checkpoint,
}

fn parse(answer: &str, old: u64, key: &PublicKey) -> Answer {
    let text = answer
        .strip_prefix("MSG _INBOX.a 1 ")
        .expect("it is on the inbox");
    let (_, text) = text.split_once("\r\n").unwrap();
    let (head, note) = text.trim_end_matches("\r\n").split_once("\n\n").unwrap();
    let mut lines = head.lines();
    assert_eq!(lines.next(), Some(&*format!("old {old}")));
    let hash = |line: &str| Hash::read(&STANDARD.decode(line).unwrap()).unwrap();
    Answer {
        proof: lines.map(hash).collect(),
        newest: Checkpoint::open(note.as_bytes(), key).unwrap(),
    }
}

fn key(broker: &Broker) -> PublicKey {
    PublicKey::parse(&fs::read_to_string(broker.path("trail/log.pub")).unwrap()).unwrap()
}

/// Has something recorded, so that the log grows.
fn grow(broker: &Broker, raw: &mut Raw) {
    let size = || broker.status()["audit"]["entries"].as_u64().unwrap();
    let before = size();
    raw.send(b"PUB not.allowed 1\r\nx\r\n");
    assert!(raw.line().starts_with("-ERR"));
    wait_for("the log to grow", || size() > before);
}

// protocol: P-130, P-131, P-132, P-133, P-135
#[test]
fn a_service_gets_the_newest_checkpoint_with_the_proof_that_it_continues_an_older_one() {
    let broker = Broker::serve(TODO_POLICY, CONFIG);
    let key = key(&broker);
    let mut raw = broker.raw_ready("web");
    raw.send(b"SUB _INBOX.a 1\r\n");
    let mut kept = vec![parse(&ask(&mut raw, ""), 0, &key).newest];
    assert!(kept[0].size > 0);
    for _ in 0..5 {
        grow(&broker, &mut raw);
        for old in &kept {
            let Answer { proof, newest } = parse(&ask(&mut raw, &old.size.to_string()), old.size, &key);
            assert!(newest.size > old.size);
            assert!(check_consistency(
                old.size,
                newest.size,
                &old.root,
                &newest.root,
                &proof
            ));
        }
        kept.push(parse(&ask(&mut raw, "0"), 0, &key).newest);
    }
    let more = u64::MAX.to_string();
    assert_eq!(parse(&ask(&mut raw, &more), u64::MAX, &key).proof, []);
    let many = 200;
    raw.send(
        "PUB $EXO.audit.checkpoint _INBOX.a 0\r\n\r\n"
            .repeat(many)
            .as_bytes(),
    );
    let answers: Vec<_> = (0..many).map(|_| raw.message()).collect();
    let overloaded = answers
        .iter()
        .filter(|answer| answer.contains("Exo-Reason: overloaded"))
        .count();
    assert!((1..many).contains(&overloaded), "{overloaded} of {many}");
    let refused = |raw: &mut Raw, sent: &str| {
        raw.send(sent.as_bytes());
        assert!(
            raw.line().starts_with("-ERR 'Permissions Violation for Publish"),
            "{sent}"
        );
        let answer = raw.message();
        assert!(
            answer.contains("NATS/1.0 503") && answer.contains("Exo-Reason: denied"),
            "{answer}"
        );
    };
    refused(&mut raw, "PUB $EXO.audit.checkpoint _INBOX.a 2\r\n-1\r\n");
    refused(
        &mut raw,
        "PUB $EXO.audit.checkpoint _INBOX.a 21\r\n111111111111111111111\r\n",
    );
    refused(&mut raw, "PUB $EXO.audit _INBOX.a 0\r\n\r\n");
    // No flow has it: it is no message between services.
    let status = broker.status();
    let flows = status["flows"].as_array().unwrap();
    assert!(
        flows
            .iter()
            .all(|flow| !flow["message"].as_str().unwrap().contains("EXO")),
        "{flows:?}"
    );
}

// protocol: P-134
#[test]
fn without_an_audit_log_there_is_no_checkpoint() {
    let config = CONFIG.split("[audit]").next().unwrap();
    let broker = Broker::serve(TODO_POLICY, config);
    let mut raw = broker.raw_ready("web");
    raw.send(b"SUB _INBOX.a 1\r\nPUB $EXO.audit.checkpoint _INBOX.a 0\r\n\r\n");
    assert!(raw.line().starts_with("-ERR 'Permissions Violation for Publish"));
    assert!(raw.message().contains("Exo-Reason: denied"));
}

/// Another history of the same log: its third entry was never what it says, and all is signed with the log's key.
fn forge(trail: &Path) {
    let key = SecretKey::parse(&fs::read_to_string(trail.join("log.key")).unwrap()).unwrap();
    let size = Archive::new(trail).checkpoint(key.public()).unwrap().size;
    let mut lines = Vec::new();
    for page in Archive::new(trail).pages(0, size) {
        lines.extend(page.unwrap().1);
    }
    let third = String::from_utf8(lines[2].clone()).unwrap();
    lines[2] = third.replacen("\"kind\":\"", "\"kind\":\"not-", 1).into_bytes();
    for name in ["tile", "checkpoint"] {
        let path = trail.join(name);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    let (mut log, _) = AuditLog::open(Tree::open(trail).unwrap(), key, 1).unwrap();
    for line in lines {
        log.append(&line);
    }
    log.commit().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_notices_a_history_that_was_signed_again() {
    let broker = Broker::serve(TODO_POLICY, CONFIG);
    // The relay is to find it again.
    let config = CONFIG.replace("127.0.0.1:0", &broker.address().to_string());
    fs::write(broker.path("serve.toml"), config).unwrap();
    let kept = broker.path("kept");
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let seen = Arc::clone(&events);
    let relay = Options::new(
        broker.cert("ca.pem"),
        broker.cert("web.pem"),
        broker.cert("web.key"),
    )
    .broker("localhost", broker.address().port())
    .keep_checkpoint(&kept, broker.path("trail/log.pub"))
    .on_event(move |event| seen.lock().unwrap().push(event.clone()))
    .connect()
    .await
    .unwrap();
    let log_key = key(&broker);
    let size = || {
        let note = fs::read(&kept).unwrap_or_default();
        Checkpoint::open(&note, &log_key).map_or(0, |checkpoint| checkpoint.size)
    };
    let history = || {
        let events = events.lock().unwrap();
        let about = |event: &&Event| {
            matches!(
                event,
                Event::HistoryRewritten { .. } | Event::HistoryUnchecked { .. }
            )
        };
        events.iter().filter(about).cloned().collect::<Vec<_>>()
    };
    wait_until("the first checkpoint to be kept", || size() > 0).await;
    let first = size();

    // What the broker continues in order, contradicts nothing.
    let mut broker = broker.restart();
    wait_until("a newer checkpoint to be kept", || size() > first).await;
    assert_eq!(history(), []);

    assert!(broker.stop());
    forge(&broker.path("trail"));
    let honest = (fs::read(&kept).unwrap(), size());
    let broker = broker.restart();
    wait_until("the relay to notice", || !history().is_empty()).await;
    let noticed = history().remove(0);
    assert!(
        matches!(noticed, Event::HistoryRewritten { kept, now } if kept == honest.1 && now > kept),
        "{noticed:?}"
    );
    assert!(noticed.to_string().contains("REWRITTEN"), "{noticed}");
    assert_eq!(fs::read(&kept).unwrap(), honest.0, "what it keeps stays");
    let evidence = fs::read(broker.path("kept.contradiction")).unwrap();
    assert!(Checkpoint::open(&evidence, &log_key).unwrap().size > honest.1);
    let verify = |more: &[&str]| {
        let output = std::process::Command::new(EXOCOM)
            .args(["audit", "verify", "trail", "--key", "trail/log.pub"])
            .args(more)
            .current_dir(broker.dir())
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    assert!(verify(&[]).0, "by itself it is a good log");
    let (is_ok, told) = verify(&["--witness", "kept"]);
    assert!(!is_ok && told.contains("rewritten"), "{told}");
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_says_when_it_cannot_check() {
    let config = CONFIG.split("[audit]").next().unwrap();
    let broker = Broker::serve(TODO_POLICY, config);
    let options = |kept: &Path, key: &Path| {
        Options::new(
            broker.cert("ca.pem"),
            broker.cert("web.pem"),
            broker.cert("web.key"),
        )
        .broker("localhost", broker.address().port())
        .keep_checkpoint(kept, key)
    };
    let error = options(&broker.path("kept"), &broker.cert("ca.pem"))
        .connect()
        .await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("EXOCOM_LOG_KEY") && error.contains("log.pub"),
        "{error}"
    );
    let log_key = broker.path("audit/log.pub");
    let error = options(&broker.path("nowhere/kept"), &log_key).connect().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("its folder does not exist"), "{error}");
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&events);
    let relay = options(&broker.path("kept"), &log_key)
        .on_event(move |event| seen.lock().unwrap().push(event.to_string()))
        .connect()
        .await
        .unwrap();
    let all = || events.lock().unwrap().join("\n");
    wait_until("the word", || all().contains("keeps no audit log")).await;
    assert!(!all().contains("denied"), "{}", all());
    relay.shutdown().await.unwrap();
}
