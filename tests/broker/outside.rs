//! What a broker tells servers outside: checkpoints of the audit log, and alarms. The server is a real one, by HTTPS.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use exocom::net::tls::{provider, read_certificates, read_private_key};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use ring::hmac;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::config::config;
use crate::support::{Broker, EXOCOM, wait_for};

const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
sends = ["few"]
limits = {rate = "1/h", burst = 5}

[service.todos]
receives = ["few"]
"#;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn config(port: u16) -> String {
    config!(
        r#"
[audit]
folder = "trail"
interval-s = 1
witnesses = ["https://localhost:PORT/checkpoints"]

[alarms]
webhook = "https://localhost:PORT/alarms"
webhook-secret = "secret"

[https]
roots = ["certs/ca.pem"]
"#
    )
    .replace("PORT", &port.to_string())
}

/// One call that a server has had.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: String,
}

/// A server that answers by a function of the calls before, and remembers them.
#[derive(Debug, Clone, Default)]
struct Server(Arc<Mutex<Vec<Call>>>);

impl Server {
    /// Serves at a port of its own, with the broker's certificate.
    async fn start(broker: &Broker, port: TcpListener, answer: fn(&[Call]) -> StatusCode) -> Self {
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                read_certificates(&broker.path("certs/server.pem")).unwrap(),
                read_private_key(&broker.path("certs/server.key")).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let server = Self::default();
        let calls = server.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = port.accept().await {
                let (acceptor, calls) = (acceptor.clone(), calls.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let service = service_fn(|request: Request<Incoming>| {
                        let calls = calls.clone();
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let status = {
                                let mut calls = calls.0.lock();
                                let same: Vec<_> = calls
                                    .iter()
                                    .filter(|call| call.path == head.uri.path())
                                    .cloned()
                                    .collect();
                                calls.push(Call {
                                    path: head.uri.path().to_owned(),
                                    headers: head.headers,
                                    body: String::from_utf8(body.to_vec()).unwrap(),
                                });
                                answer(&same)
                            };
                            let answer = Response::builder().status(status).body(Full::<Bytes>::default());
                            Ok::<_, hyper::Error>(answer.unwrap())
                        }
                    });
                    let connection = hyper::server::conn::http1::Builder::new();
                    drop(connection.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        server
    }

    fn calls(&self, path: &str) -> Vec<Call> {
        self.0
            .lock()
            .iter()
            .filter(|call| call.path == path)
            .cloned()
            .collect()
    }
}

/// A broker that knows the server at a port.
async fn broker(answer: fn(&[Call]) -> StatusCode) -> (Broker, Server) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = config(port.local_addr().unwrap().port());
    let broker = Broker::dev(POLICY);
    std::fs::write(broker.path("secret"), SECRET).unwrap();
    let server = Server::start(&broker, port, answer).await;
    (broker.then_serve(&config), server)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..600 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain for {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_told_once_it_is_heard_and_signed_each_time() {
    let (broker, server) = broker(|calls| match calls.len() {
        // Away, and then unwilling, before it takes what comes.
        0 => StatusCode::INTERNAL_SERVER_ERROR,
        1 => StatusCode::NOT_FOUND,
        _ => StatusCode::NO_CONTENT,
    })
    .await;
    let web = broker.client("web").await;
    for _ in 0..100 {
        web.publish("few", "x".into()).await.unwrap();
    }
    web.flush().await.unwrap();
    until("the alarm", || server.calls("/alarms").len() >= 3).await;
    let calls = server.calls("/alarms");
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    for call in &calls {
        let header = |name: &str| call.headers[name].to_str().unwrap();
        let (time, signature) = header("exocom-signature").split_once(",v1=").unwrap();
        let time = time.strip_prefix("t=").unwrap();
        let tag = ring::test::from_hex(signature).unwrap();
        let signed = format!("{time}.{}", call.body);
        hmac::verify(&key, signed.as_bytes(), &tag).expect("signed with the secret");
        assert!(hmac::verify(&key, format!("{time}.{} ", call.body).as_bytes(), &tag).is_err());
        let body: Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!(body["event"], header("exocom-event"));
        assert_eq!(body["step"], "opened");
        assert_eq!(body["alarm"]["finding"]["kind"], "over-limit");
        assert!(
            body["text"]
                .as_str()
                .unwrap()
                .starts_with("web → few, over its limit: 95 messages refused"),
            "{body}"
        );
    }
    let events: BTreeSet<_> = calls
        .iter()
        .map(|call| call.headers["exocom-event"].clone())
        .collect();
    let events: Vec<_> = events.iter().collect();
    assert_eq!(
        events.len(),
        1,
        "it is the same event until it is taken: {events:?}"
    );
    let status = broker.status();
    assert_eq!(status["webhook"]["error"], Value::Null, "{status}");
    assert!(
        broker.log().contains("a webhook of alarms hears nothing"),
        "{}",
        broker.log()
    );
    assert!(!broker.log().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_witnesses_the_audit_log() {
    let (mut broker, server) = broker(|_| StatusCode::OK).await;
    until("a checkpoint", || !server.calls("/checkpoints").is_empty()).await;
    let web = broker.client("web").await;
    web.flush().await.unwrap();
    let entries = || broker.status()["audit"]["entries"].as_u64().unwrap();
    let before = entries();
    drop(web);
    until("another entry", || entries() > before).await;
    assert!(broker.stop());
    // The last checkpoint is told before the broker ends.
    let last = server.calls("/checkpoints").last().unwrap().body.clone();
    assert_eq!(
        last,
        std::fs::read_to_string(broker.path("trail/checkpoint")).unwrap()
    );
    std::fs::write(broker.path("kept"), &last).unwrap();
    let mut compare = std::process::Command::new(EXOCOM);
    let compare = compare.args([
        "audit",
        "compare",
        "kept",
        "--dir",
        "trail",
        "--key",
        "trail/log.pub",
    ]);
    let compared = compare.current_dir(broker.path("")).output().unwrap();
    assert!(
        compared.status.success(),
        "{}",
        String::from_utf8_lossy(&compared.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_that_cannot_be_trusted_hear_nothing_and_hold_nobody_up() {
    let (mut broker, server) = broker(|_| StatusCode::OK).await;
    assert!(broker.stop());
    // Another root: nothing vouches for the server any more.
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(broker.path("stranger.pem"), stranger.cert.pem()).unwrap();
    let config = std::fs::read_to_string(broker.path("serve.toml")).unwrap();
    let (before, https) = config.split_once("[https]").unwrap();
    let https = https.replace("certs/ca.pem", "stranger.pem");
    std::fs::write(broker.path("serve.toml"), format!("{before}[https]{https}")).unwrap();
    let heard = server.calls("/checkpoints").len();
    let broker = broker.restart();
    wait_for("the witness to fail", || {
        broker.status()["audit"]["witnesses"][0]["error"].is_string()
    });
    let web = broker.client("web").await;
    web.publish("few", "x".into()).await.unwrap();
    web.flush().await.unwrap();
    assert_eq!(server.calls("/checkpoints").len(), heard);
    assert!(broker.log().contains("a witness of the audit log hears nothing"));
}

#[test]
fn addresses_that_are_none_or_show_a_secret_are_refused() {
    let check = |from: &str, to: &str, expected: &str| {
        let mut broker = Broker::dev(POLICY);
        broker.stop();
        std::fs::write(broker.path("secret"), SECRET).unwrap();
        std::fs::write(broker.path("short"), "secret").unwrap();
        let config = config(1).replace(from, to);
        std::fs::write(broker.path("serve.toml"), config).unwrap();
        let mut serve = std::process::Command::new(EXOCOM);
        let output = serve
            .args(["serve", "--config"])
            .arg(broker.path("serve.toml"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(expected), "{told}");
    };
    check(
        "https://localhost:1/alarms",
        "http://localhost:1/alarms",
        "HTTPS alone",
    );
    check(
        "https://localhost:1/alarms",
        "https://u:p@localhost:1/alarms",
        "user or password",
    );
    check(
        "https://localhost:1/checkpoints",
        "ftp://localhost",
        "HTTPS alone",
    );
    check("webhook-secret = \"secret\"", "", "add webhook-secret");
    check(
        "webhook-secret = \"secret\"",
        "webhook-secret = \"short\"",
        "at least 32 characters",
    );
    check("webhook-secret = \"secret\"", "webhook-secret = \"none\"", "none");
    check(
        "roots = [\"certs/ca.pem\"]\n",
        "roots = [\"none.pem\"]\n",
        "none.pem",
    );
}
