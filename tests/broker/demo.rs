//! `exocom demo` as a person sees it: the page, what it says when something is missing, and that nothing stays behind.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::{EXOCOM, PATIENCE, wait_for};

/// A running demo; it ends when this is dropped.
pub struct Demo {
    child: Child,
    output: Arc<Mutex<String>>,
    page: SocketAddr,
}

impl Demo {
    pub fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(EXOCOM);
        command
            .args(["demo", "--listen", "127.0.0.1:0", "--dir"])
            .arg(dir)
            .args(arguments);
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary was built for the tests");
        let output = Arc::new(Mutex::new(String::new()));
        let (lines, written) = (child.stdout.take().expect("it was piped"), Arc::clone(&output));
        std::thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let mut demo = Self {
            child,
            output,
            page: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        demo.wait_for_line("Ctrl-C ends all of it.");
        demo.page = demo.word_after("http://").parse().expect("the page's address");
        demo
    }

    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    fn wait_for_line(&self, text: &str) {
        wait_for(&format!("{text:?} in the demo's output"), || {
            self.output().contains(text)
        });
    }

    /// The word that follows the last such text in the output.
    fn word_after(&self, text: &str) -> String {
        let output = self.output();
        let (_, rest) = output
            .rsplit_once(text)
            .unwrap_or_else(|| panic!("no {text:?} in {output}"));
        let word = rest.split(|c: char| c.is_whitespace() || c == ',').next();
        word.expect("something follows").trim_end_matches('.').to_owned()
    }

    pub fn todos_pid(&self) -> u32 {
        self.word_after("todos   process ").parse().expect("a process")
    }

    fn web_pid(&self) -> u32 {
        self.word_after("web     process ").parse().expect("a process")
    }

    pub fn get(&self) -> Answer {
        self.ask("GET / HTTP/1.1", "", "")
    }

    pub fn post(&self, form: &str) -> Answer {
        self.post_with(form, "")
    }

    fn post_with(&self, form: &str, headers: &str) -> Answer {
        let headers = format!("Content-Type: application/x-www-form-urlencoded\r\n{headers}");
        self.ask("POST /todos HTTP/1.1", &headers, form)
    }

    fn ask(&self, line: &str, headers: &str, body: &str) -> Answer {
        let mut socket = TcpStream::connect(self.page).expect("the page is there");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a socket has time limits");
        let request = format!(
            "{line}\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            self.page,
            body.len()
        );
        socket.write_all(request.as_bytes()).expect("the page reads");
        let mut text = String::new();
        socket
            .read_to_string(&mut text)
            .expect("the page answers and closes");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_else(|| panic!("no status in {text:?}")),
            text,
        }
    }

    fn wait_for_page(&self, text: &str) {
        wait_for(&format!("{text:?} on the page"), || {
            self.get().text.contains(text)
        });
    }

    fn end_by(&mut self, name: &str) -> Option<i32> {
        signal(self.child.id(), name);
        let mut status = None;
        wait_for("the demo's end", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.and_then(|status| status.code())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // The services notice by themselves.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the demo's output ---\n{}", self.output());
        }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

pub fn signal(process: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &process.to_string()])
        .status()
        .expect("kill is there");
    assert!(status.success(), "kill -s {name} {process}");
}

/// Whether a process has ended; where nobody waits for an orphan, its entry may stay.
fn has_ended(process: u32) -> bool {
    if cfg!(target_os = "linux") {
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else {
            return true;
        };
        let state = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.starts_with(['Z', 'X']));
        return state.expect("a state follows the name");
    }
    let still = Command::new("kill")
        .args(["-0", &process.to_string()])
        .stderr(Stdio::null())
        .status();
    !still.expect("kill is there").success()
}

#[test]
fn a_todo_is_added_and_shown() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Demo::start(folder.path(), &[]);
    let empty = demo.get();
    assert_eq!(empty.status, 200);
    assert!(empty.text.contains("Nothing to do."), "{}", empty.text);
    assert!(
        empty.text.contains("content-security-policy: default-src 'none'"),
        "{}",
        empty.text
    );

    let added = demo.post("title=buy+milk+%26+%3Cscript%3E");
    assert_eq!(added.status, 303, "{}", added.text);
    assert!(added.text.contains("location: /\r\n"), "{}", added.text);
    let page = demo.get().text;
    assert!(
        page.contains("<li>buy milk &#38; &#60;script&#62;</li>"),
        "{page}"
    );
    assert!(!page.contains("Nothing to do."), "{page}");
    demo.wait_for_page("Events heard: 1 ");

    // What is refused leaves the list as it is, and what was typed in its field.
    let long = "x".repeat(201);
    let refused = demo.post(&format!("title={long}"));
    assert_eq!(refused.status, 422);
    assert!(
        refused.text.contains("a title has at most 200 characters"),
        "{}",
        refused.text
    );
    assert!(
        refused.text.contains(&format!("value=\"{long}\"")),
        "{}",
        refused.text
    );
    assert_eq!(demo.post("title=+").status, 422);
    assert_eq!(demo.post(&format!("title={}", "x".repeat(8 << 10))).status, 413);
    assert_eq!(demo.post("nonsense").status, 422);
    assert_eq!(
        demo.post_with("title=forged", "Sec-Fetch-Site: cross-site\r\n")
            .status,
        403
    );
    assert_eq!(demo.get().text.matches("<li>").count(), 1);

    let status = Command::new(EXOCOM)
        .args(["status", "--json", "--admin", &demo.word_after("--admin ")])
        .output()
        .expect("the binary was built for the tests");
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("status prints JSON");
    let flows = status["flows"].as_array().expect("a list");
    let created = flows.iter().find(|flow| flow["message"] == "todos.create");
    let created = created.expect("the page asked for it");
    assert_eq!(
        (&created["sender"], &created["receiver"]),
        (&"web".into(), &"todos".into())
    );

    let (todos, web) = (demo.todos_pid(), demo.web_pid());
    assert!(!has_ended(todos) && !has_ended(web));
    assert_eq!(demo.end_by("TERM"), Some(0));
    assert!(has_ended(todos) && has_ended(web));
    assert!(folder.path().join("todo.toml").exists());
}

#[test]
fn the_page_says_who_is_away_and_recovers() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Demo::start(folder.path(), &["--restart-after", "4"]);
    assert_eq!(demo.post("title=one").status, 303);
    let first = demo.todos_pid();
    signal(first, "KILL");
    wait_for("the page to say it", || {
        let page = demo.get();
        page.status == 503 && page.text.contains("Nobody answers: the todo service is away.")
    });
    demo.wait_for_line(&format!("todos (process {first}) has ended"));
    demo.wait_for_line("todos is back, as process ");
    // It kept them in memory.
    demo.wait_for_page("Nothing to do.");
    assert_eq!(demo.post("title=two").status, 303);
    demo.wait_for_page("<li>two</li>");

    // The web server comes back to the same address.
    let web = demo.web_pid();
    signal(web, "TERM");
    demo.wait_for_line(&format!("web (process {web}) has ended"));
    demo.wait_for_line("web is back, as process ");
    demo.wait_for_page("<li>two</li>");
}

#[test]
fn a_todo_waits_for_the_service_that_is_away() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Demo::start(folder.path(), &["--restart-after", "2"]);
    let first = demo.todos_pid();
    signal(first, "KILL");
    demo.wait_for_line(&format!("todos (process {first}) has ended"));
    // It comes back while the page waits, or later; the todo is not lost.
    let created = demo.post("title=patience");
    assert!([303, 504].contains(&created.status), "{}", created.text);
    demo.wait_for_page("<li>patience</li>");
}

#[test]
fn a_change_of_the_policy_shows_on_the_page() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let demo = Demo::start(folder.path(), &[]);
    assert_eq!(demo.post("title=one").status, 303);
    let policy = folder.path().join("todo.toml");
    let text = fs::read_to_string(&policy).expect("the demo wrote it");
    let less = text.replace("[\"todos.list\", \"todos.create\"]", "[\"todos.list\"]");
    assert_ne!(text, less);
    fs::write(&policy, less).expect("the folder takes a file");
    let mut denied = demo.post("title=two");
    wait_for("the denial", || {
        denied = demo.post("title=two");
        denied.status == 403
    });
    let words = "ExoCom does not let the web server do that (no grant).";
    assert!(denied.text.contains(words), "{}", denied.text);
    assert!(denied.text.contains("<li>one</li>"), "{}", denied.text);
    fs::write(&policy, text).expect("the folder takes a file");
    wait_for("the permit", || demo.post("title=three").status == 303);
}

#[test]
fn nothing_stays_behind_when_the_demo_is_killed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut demo = Demo::start(folder.path(), &[]);
    let (todos, web) = (demo.todos_pid(), demo.web_pid());
    assert!(!has_ended(todos) && !has_ended(web));
    assert_eq!(demo.end_by("KILL"), None);
    wait_for("the end of both services", || has_ended(todos) && has_ended(web));
}

#[test]
fn ctrl_c_removes_the_temporary_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(EXOCOM);
    command
        .args(["demo", "--listen", "127.0.0.1:0"])
        .env("TMPDIR", folder.path());
    let mut demo = Demo::spawn(&mut command);
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
    assert_eq!(demo.end_by("INT"), Some(0));
    assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 0);
}

#[test]
fn a_port_in_use_is_one_line_that_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let output = Command::new(EXOCOM)
        .args(["demo", "--listen", &address])
        .stdin(Stdio::null())
        .output()
        .expect("the binary was built for the tests");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains(&address) && error.contains("exocom demo --listen"),
        "{error}"
    );
}
