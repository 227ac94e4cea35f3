//! Network partitions for real: three network namespaces that cannot reach each other, and ExoCom with a listener
//! in each. All traffic stays in namespaces that the test has made itself.
//!
//! Needs root and Debian's iproute2. Without root it is skipped, with a word.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use crate::support::{EXOCOM, PATIENCE, has, wait_for};

/// The todo application's policy, and a third zone that has no part in it.
const POLICY: &str = r#"
version = 1
trust-domain = "todo.example"

[service.web]
zone     = "dmz"
sends    = ["todos.list", "todos.create"]
receives = ["todos.created"]

[service.todos]
zone     = "data"
sends    = ["todos.created"]
receives = ["todos.list", "todos.create"]

[service.clerk]
zone     = "office"
sends    = ["todos.list"]

[message."todos.created"]
kind = "event"
"#;

const ZONES: [&str; 3] = ["data", "dmz", "office"];

/// How long a connection attempt that should fail may take to do so.
const UNREACHABLE_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn the_zones_cannot_reach_each_other() {
    let Some(partitions) = Partitions::new() else {
        return;
    };
    for listening in ZONES {
        let address = SocketAddr::new(partitions.service_address(listening), 7000);
        let listener = within(&partitions.namespace(listening), move || {
            TcpListener::bind(address)
        });
        let _listener = listener.expect("the zone has this address");
        let reaches = |from: &str| {
            within(from, move || {
                TcpStream::connect_timeout(&address, UNREACHABLE_WITHIN)
            })
            .is_ok()
        };
        assert!(
            reaches(&partitions.namespace("hub")),
            "the broker's host reaches {listening}"
        );
        for from in ZONES.into_iter().filter(|from| *from != listening) {
            assert!(
                !reaches(&partitions.namespace(from)),
                "{from} reaches {listening}"
            );
        }
    }
}

#[test]
fn the_todo_application_works_across_partitions() {
    let Some(broker) = Broker::start() else { return };
    let mut todos = broker.run("data", "todos");
    assert_eq!(todos.line(), "ready");
    let mut web = broker.run("dmz", "web");
    let page = web.line();
    let page = page.strip_prefix("ready ").expect("where the page is follows");
    let page: SocketAddr = page.parse().expect("it is an address");
    let browse = |request: &str| broker.browse("dmz", page, request);

    let empty = browse("GET / HTTP/1.0\r\n\r\n");
    assert!(
        empty.starts_with("HTTP/1.0 200 ") && !empty.contains("<li>"),
        "{empty}"
    );
    for title in ["milk", "bread"] {
        let body = format!("title={title}");
        let head = "POST /todos HTTP/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n";
        let answer = browse(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
        assert!(answer.starts_with("HTTP/1.0 303 "), "{answer}");
    }
    let listed = browse("GET / HTTP/1.0\r\n\r\n");
    assert!(
        listed.contains("<li>milk</li>") && listed.contains("<li>bread</li>"),
        "{listed}"
    );

    let status = broker.status();
    let flow = |sender: &str, message: &str| {
        let flows = status["flows"].as_array().expect("a list");
        let flow = flows
            .iter()
            .find(|flow| flow["sender"] == sender && flow["message"] == message);
        flow.unwrap_or_else(|| panic!("no flow {message} in {status:#}"))
            .clone()
    };
    assert_eq!(flow("web", "todos.create")["responses"], 2);
    assert_eq!(flow("web", "todos.create")["receiver"], "todos");
    assert_eq!(flow("todos", "todos.created")["messages"], 2);
    let connections = status["connections"].as_array().expect("a list");
    let zones: Vec<_> = connections
        .iter()
        .map(|one| (&one["sender"], &one["zone"]))
        .collect();
    assert_eq!(
        zones,
        [(&json!("todos"), &json!("data")), (&json!("web"), &json!("dmz"))]
    );

    // A partition has no way round the broker: the page cannot be reached from where the todos are.
    let outside = SocketAddr::new(broker.partitions.service_address("dmz"), page.port());
    let data = broker.partitions.namespace("data");
    assert!(within(&data, || TcpStream::connect_timeout(&outside, UNREACHABLE_WITHIN)).is_err());
}

#[test]
fn a_service_in_the_wrong_zone_is_refused() {
    let Some(broker) = Broker::start() else { return };
    let at_home = [("data", "todos"), ("dmz", "web"), ("office", "clerk")];
    for (zone, service) in at_home {
        assert_eq!(broker.connects(zone, service), Ok(()), "{service} in {zone}");
    }
    let mut refused = 0;
    for zone in ZONES {
        for (_, service) in at_home.into_iter().filter(|(home, _)| *home != zone) {
            let error = broker
                .connects(zone, service)
                .expect_err("it is in the wrong zone");
            assert_eq!(
                error,
                async_nats::ConnectErrorKind::AuthorizationViolation,
                "{service} in {zone}"
            );
            refused += 1;
            assert_eq!(broker.status()["counts"]["refused"]["wrong-zone"], refused);
        }
    }
    assert!(broker.log().contains("reason=\"wrong-zone\""), "{}", broker.log());
}

/// ExoCom in a namespace of its own, with a listener for each zone.
struct Broker {
    process: Child,
    folder: tempfile::TempDir,
    partitions: Partitions,
}

impl Broker {
    fn start() -> Option<Self> {
        let partitions = Partitions::new()?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("policy.toml"), POLICY).expect("the folder takes a file");
        let mut config = String::from(
            "version = 1\npolicy = \"policy.toml\"\nadmin-socket = \"admin.sock\"\n\
             [tls]\ncertificate = \"certs/server.pem\"\nkey = \"certs/server.key\"\n\
             [limits]\nlame-duck-ms = 0\n",
        );
        let certs = path("certs");
        let certs = certs.to_str().expect("a temporary folder has a plain name");
        run(
            EXOCOM,
            &["certs", "init", "--trust-domain", "todo.example", "--dir", certs],
        );
        let mut server = vec![
            "certs".to_owned(),
            "issue".into(),
            "--server".into(),
            "--dir".into(),
            certs.into(),
        ];
        for zone in ZONES {
            let address = partitions.broker_address(zone);
            config += &format!(
                "[listener.{zone}]\naddress = \"{address}:4222\"\nzone = \"{zone}\"\nroots = [\"certs/ca.pem\"]\n"
            );
            server.extend(["--name".into(), address.to_string()]);
        }
        run(EXOCOM, &server);
        for service in ["web", "todos", "clerk"] {
            run(EXOCOM, &["certs", "issue", "--service", service, "--dir", certs]);
        }
        fs::write(path("exocom.toml"), config).expect("the folder takes a file");
        let process = Command::new("ip")
            .args([
                "netns",
                "exec",
                &partitions.namespace("hub"),
                EXOCOM,
                "serve",
                "--config",
            ])
            .arg(path("exocom.toml"))
            .stdin(Stdio::null())
            .stderr(File::create(path("log")).expect("the folder takes a file"))
            .env("NO_COLOR", "1")
            .spawn()
            .expect("ip starts it");
        let broker = Self {
            process,
            folder,
            partitions,
        };
        wait_for("the broker to be ready", || broker.log().contains(" ready "));
        Some(broker)
    }

    /// Starts a service of the todo application in a zone's namespace.
    fn run(&self, zone: &str, service: &str) -> Service {
        let mut process = Command::new("ip")
            .args(["netns", "exec", &self.partitions.namespace(zone)])
            .args([EXOCOM, "demo-service", service, "--listen", "0.0.0.0:0"])
            .env("EXOCOM_HOST", self.partitions.broker_address(zone).to_string())
            .env("EXOCOM_PORT", "4222")
            .env("EXOCOM_CA", self.cert("ca.pem"))
            .env("EXOCOM_CERT", self.cert(&format!("{service}.pem")))
            .env("EXOCOM_KEY", self.cert(&format!("{service}.key")))
            // It ends when this does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("ip starts it");
        let output = BufReader::new(process.stdout.take().expect("it was piped"));
        Service { process, output }
    }

    /// What a browser in a zone gets from a page that listens there.
    fn browse(&self, zone: &str, page: SocketAddr, request: &str) -> String {
        within(&self.partitions.namespace(zone), || {
            let mut stream =
                TcpStream::connect((Ipv4Addr::LOCALHOST, page.port())).expect("the page is there");
            stream
                .set_read_timeout(Some(PATIENCE))
                .expect("a socket has this option");
            stream.write_all(request.as_bytes()).expect("the page takes it");
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .expect("the page answers in UTF-8");
            answer
        })
    }

    /// Whether a service can connect from a zone's namespace to that zone's listener.
    fn connects(&self, zone: &str, service: &str) -> Result<(), async_nats::ConnectErrorKind> {
        let connecting = self.connecting(zone, service);
        within(&self.partitions.namespace(zone), || {
            block_on(connecting).map(drop).map_err(|error| error.kind())
        })
    }

    fn connecting(
        &self,
        zone: &str,
        service: &str,
    ) -> impl Future<Output = Result<async_nats::Client, async_nats::ConnectError>> + Send + 'static {
        let options = async_nats::ConnectOptions::new()
            .require_tls(true)
            .tls_first()
            .add_root_certificates(self.cert("ca.pem"))
            .add_client_certificate(
                self.cert(&format!("{service}.pem")),
                self.cert(&format!("{service}.key")),
            )
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE));
        let url = format!("tls://{}:4222", self.partitions.broker_address(zone));
        async move { options.connect(url).await }
    }

    fn cert(&self, name: &str) -> PathBuf {
        self.folder.path().join("certs").join(name)
    }

    fn status(&self) -> serde_json::Value {
        let socket = self.folder.path().join("admin.sock");
        let socket = socket.to_str().expect("a temporary folder has a plain name");
        serde_json::from_str(&run(EXOCOM, &["status", "--json", "--admin", socket]))
            .expect("status prints JSON")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // `ip netns exec` has become the broker: this ends it. It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            eprintln!("--- the broker's log ---\n{}", self.log());
        }
    }
}

/// A service in its process.
struct Service {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Service {
    /// The next line of its output.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it prints text");
        line.trim_end().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A namespace for the broker's host, `hub`, and one for each zone. Each zone has one cable, to the hub; the hub
/// forwards nothing. The namespaces go when this is dropped.
struct Partitions {
    prefix: String,
}

impl Partitions {
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        remove_leftovers();
        let prefix = format!("exocom-{}-{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let partitions = Self { prefix };
        let is_permitted = Command::new("ip")
            .args(["netns", "add", &partitions.namespace("hub")])
            .output()
            .is_ok_and(|output| output.status.success());
        if !has(
            "the right to make network namespaces (iproute2, CAP_SYS_ADMIN)",
            is_permitted,
        ) {
            return None;
        }
        let hub = partitions.namespace("hub");
        within(&hub, || fs::write("/proc/sys/net/ipv4/ip_forward", "0")).expect("the hub's own setting");
        for zone in ZONES {
            let namespace = partitions.namespace(zone);
            ip(&["netns", "add", &namespace]);
            // Made within the namespaces: nothing of it is ever seen outside.
            ip(&[
                "-n", &hub, "link", "add", zone, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
            ]);
            for (namespace, link, address) in [
                (&hub, zone, partitions.broker_address(zone)),
                (&namespace, "eth0", partitions.service_address(zone)),
            ] {
                ip(&[
                    "-n",
                    namespace,
                    "address",
                    "add",
                    &format!("{address}/24"),
                    "dev",
                    link,
                ]);
                ip(&["-n", namespace, "link", "set", link, "up"]);
                ip(&["-n", namespace, "link", "set", "lo", "up"]);
            }
        }
        Some(partitions)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn broker_address(&self, zone: &str) -> IpAddr {
        self.address(zone, 1)
    }

    fn service_address(&self, zone: &str) -> IpAddr {
        self.address(zone, 2)
    }

    #[expect(clippy::unused_self, reason = "addresses are meant within these namespaces")]
    fn address(&self, zone: &str, host: u8) -> IpAddr {
        let net = ZONES
            .iter()
            .position(|known| *known == zone)
            .expect("a zone of ours");
        Ipv4Addr::new(10, 77, u8::try_from(net).expect("few zones"), host).into()
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        for name in ["hub"].into_iter().chain(ZONES) {
            // It may not have been made.
            drop(
                Command::new("ip")
                    .args(["netns", "del", &self.namespace(name)])
                    .output(),
            );
        }
    }
}

/// Removes the namespaces of test runs that were killed.
fn remove_leftovers() {
    let listed = Command::new("ip").args(["netns", "list"]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for name in listed
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| line.split(' ').next())
    {
        let process = name
            .strip_prefix("exocom-")
            .and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            drop(Command::new("ip").args(["netns", "del", name]).output());
        }
    }
}

/// Runs something in a namespace: in a thread, since a namespace belongs to the thread.
fn within<R: Send>(namespace: &str, what: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            what()
        });
        thread.join().expect("the thread ends well")
    })
}

/// Moves this thread, and those that it starts, into a namespace. What it opens stays there.
fn enter(namespace: &str) {
    let file = File::open(Path::new("/run/netns").join(namespace)).expect("the namespace is there");
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
        .expect("root may enter it");
}

fn block_on<R>(what: impl Future<Output = R>) -> R {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("the system gives a runtime").block_on(what)
}

fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// Runs a program to its end; returns what it prints.
fn run(program: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
    String::from_utf8(output.stdout).expect("it prints text")
}
