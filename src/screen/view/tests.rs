//! What is drawn, character by character, and what keys change of it.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::*;

fn figures(messages: u64, per_s: f64, denied: u64, response_us: Option<u64>) -> Value {
    json!({
        "messages": messages, "bytes": 100 * messages, "denied": denied, "dropped": 0, "no_receiver": 0, "over_limit": 0, "quarantined": 0,
        "responses": 0, "response_us_sum": 0, "response_us_mean": 0, "response_us_p50": response_us, "response_us_p99": response_us.map(|us| 4 * us),
        "response_us_max": 9_000, "unanswered": 2, "replies_dropped": 0,
        "rates": {
            "messages_per_s": per_s, "bytes_per_s": 100.0 * per_s, "denied_per_s": 0.0, "lost_per_s": 0.0,
            "response_us_mean": response_us
        }
    })
}

fn flow(sender: &str, message: &str, receiver: Option<&str>, figures: Value) -> Value {
    let mut flow = json!({ "sender": sender, "message": message, "receiver": receiver });
    let fields = flow.as_object_mut().unwrap();
    fields.extend(figures.as_object().unwrap().clone());
    flow
}

fn status(alarms: usize) -> Box<Status> {
    let alarm = |id: usize| {
        json!({
            "id": id, "opened_unix_s": 1_767_794_600, "closed_unix_s": null, "outcome": null, "acknowledged_by": null,
            "is_muted": false,
            "stream": { "measure": "messages", "sender": "web", "message": "list", "receiver": "todos" },
            "finding": {
                "kind": "burst", "seen": 412.0, "expected": [20.0, 35.0], "unit": "per-second", "over_s": 60,
                "since_unix_s": 1_767_794_600, "severity": 3.0, "detector": "counts over 1 min: 1 in 10^40"
            }
        })
    };
    let service = |name: &str, connections: usize, sent: Value, received: Value| json!({ "service": name, "connections": connections, "sent": sent, "received": received });
    let none = || figures(0, 0.0, 0, None);
    let status = json!({
        "name": "exocom-1", "version": "0.1.0", "uptime_s": 3_723,
        "policy": { "path": "policy.toml", "version": "1f0c", "services": 3, "refused_change": null },
        "soonest_expiry": { "expires_unix_s": 1_767_794_600, "what": "the certificate of web (connection 7)" },
        "soonest_expiries": {}, "refused_certificates": null, "audit": null, "webhook": null, "revoked": 0, "held": 0, "listeners": [],
        "counts": {
            "accepted": 2, "open": 2, "half_open": 0, "waiting_bytes": 0, "protocol_errors": 0, "refused": {}, "ended": {}
        },
        "queues": [{ "service": "todos", "pending": 4, "in_flight": 1, "dead": 2, "oldest_s": null }],
        "alarms": (1..=alarms).map(alarm).collect::<Vec<_>>(),
        "traffic": figures(1_007, 412.0, 3, Some(1_500)), "rates_over_s": 2.0,
        "services": [
            service("billing", 0, none(), figures(7, 0.0, 0, None)),
            service("todos", 1, figures(7, 0.0, 0, None), figures(1_000, 412.0, 0, Some(1_500))),
            service("web", 1, figures(1_000, 412.0, 3, None), none()),
        ],
        "connections": [{
            "id": 7, "sender": "web", "address": "127.0.0.1:40000", "zone": null, "name": null, "client": "rust 0.51",
            "age_s": 61, "expires_unix_s": 1_767_794_600, "subscriptions": 1, "pending_replies": 0, "outbox_bytes": 2_048
        }],
        "flows": [
            flow("todos", "pay", Some("billing"), figures(7, 0.0, 0, None)),
            flow("web", "list", Some("todos"), figures(1_000, 412.0, 0, Some(1_500))),
            flow("web", "purge", None, figures(0, 0.0, 3, None)),
        ],
        "left_out": { "services": 0, "connections": 0, "flows": 12 }
    });
    Box::new(serde_json::from_value(status).expect("it is a snapshot"))
}

fn heard(alarms: usize) -> Heard {
    let mut heard = Heard::default();
    heard.handle_answer(Ok(status(alarms)), "14:03:20 UTC");
    heard
}

fn view() -> View {
    View::new(Wanted::default(), true)
}

/// The screen, without what follows the last word of a line.
fn screen(heard: &Heard, view: &View) -> String {
    let mut terminal = Terminal::new(TestBackend::new(110, 14)).unwrap();
    terminal.draw(|frame| draw(frame, heard, view)).unwrap();
    let shown = terminal.backend().to_string();
    let lines = shown.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

fn press(heard: &mut Heard, view: &mut View, keys: &str) -> bool {
    let mut has_seen_enough = false;
    for key in keys.chars() {
        let code = match key {
            '\t' => KeyCode::Tab,
            '\n' => KeyCode::Enter,
            '\x08' => KeyCode::Backspace,
            '\x1b' => KeyCode::Esc,
            '↓' => KeyCode::Down,
            '↑' => KeyCode::Up,
            key => KeyCode::Char(key),
        };
        has_seen_enough |= view.handle_key(code.into(), heard);
    }
    has_seen_enough
}

#[test]
fn each_table() {
    let (mut heard, mut view) = (heard(0), view());
    insta::assert_snapshot!("services", screen(&heard, &view));
    press(&mut heard, &mut view, "\t");
    insta::assert_snapshot!("connections", screen(&heard, &view));
    press(&mut heard, &mut view, "\tr");
    insta::assert_snapshot!("flows_by_rate", screen(&heard, &view));
}

#[test]
fn alarms_are_above_each_table_and_all_in_their_own() {
    let (mut heard, mut view) = (heard(5), view());
    insta::assert_snapshot!("services_with_alarms", screen(&heard, &view));
    press(&mut heard, &mut view, "4");
    insta::assert_snapshot!("alarms", screen(&heard, &view));
}

#[test]
fn keys_sort_filter_scroll_and_quit() {
    let (mut heard, mut view) = (heard(0), view());
    let first = |heard: &Heard, view: &View| {
        let rows = view.rows(heard.status.as_deref().unwrap());
        rows.get(view.scrolled)
            .map(|row| row.first().unwrap().clone())
            .unwrap_or_default()
    };
    let mut check = |keys: &str, expected: &str| {
        assert!(!press(&mut heard, &mut view, keys), "{keys:?}");
        assert_eq!(first(&heard, &view), expected, "{keys:?}");
    };
    check("", "billing");
    check("r", "todos");
    check("d", "web");
    check("t", "todos");
    check("n↓", "todos");
    check("↓↓↓↓", "web");
    check("↑", "todos");
    check("s", "todos");
    check("n/we\n", "web");
    check("/x\x08\n", "web");
    check("/nothing\x1b", "web");
    check("/q\n", "");
    check("\x1b3", "todos");
    check("d", "web");
    assert!(press(&mut heard, &mut view, "q"));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(view.handle_key(interrupt, &mut heard));
    press(&mut heard, &mut view, "/");
    assert!(
        view.handle_key(interrupt, &mut heard),
        "also while a filter is typed"
    );
}

#[test]
fn a_lost_broker_is_told_and_the_last_figures_stay() {
    let (mut heard, view) = (heard(0), view());
    heard.handle_answer(Err("no broker answers there".to_owned()), "14:03:22 UTC");
    heard.handle_answer(Err("no broker answers there".to_owned()), "14:03:24 UTC");
    insta::assert_snapshot!("lost", screen(&heard, &view));
    heard.handle_answer(Ok(status(0)), "14:03:26 UTC");
    assert!(!screen(&heard, &view).contains("not reachable"));
    let mut never = Heard::default();
    assert!(screen(&never, &view).contains("asking the broker"));
    never.handle_answer(Err("no broker answers there".to_owned()), "14:03:22 UTC");
    assert!(screen(&never, &view).contains("not reachable since 14:03:22 UTC, asking again: no broker"));
}

#[test]
fn a_pause_keeps_what_is_shown_until_it_ends() {
    let (mut heard, mut view) = (heard(0), view());
    press(&mut heard, &mut view, "p");
    heard.handle_answer(Ok(status(1)), "14:03:22 UTC");
    let paused = screen(&heard, &view);
    assert!(
        paused.contains("paused at 14:03:20 UTC") && !paused.contains("alarm 1"),
        "{paused}"
    );
    press(&mut heard, &mut view, "p");
    let shown = screen(&heard, &view);
    assert!(shown.contains("alarm 1") && !shown.contains("paused"), "{shown}");
}

#[test]
fn a_small_terminal_and_no_colours_are_enough() {
    let heard = heard(5);
    let mut view = View::new(Wanted::default(), false);
    view.tab = Tab::Flows;
    for (width, height) in [(1, 1), (20, 3), (80, 6)] {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &heard, &view)).unwrap();
    }
    let mut terminal = Terminal::new(TestBackend::new(100, 20)).unwrap();
    terminal.draw(|frame| draw(frame, &heard, &view)).unwrap();
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset));
}
