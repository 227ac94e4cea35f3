//! What `exocom top` draws: a function of what was heard of the broker, and of what somebody wants to see of it.
//!
//! It knows no clock and asks nobody. Names come from the policy and from certificates, and a denied one from a client:
//! all of them are printable by the rules for names.

use std::borrow::Cow;

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Row, Table};

use crate::console::alarms;
use crate::console::figures::{Figures, SortBy, Wanted};
use crate::console::status::{Status, bytes, decimal, duration, rfc3339};

/// Alarms above the table; the table of alarms has them all.
const ALARM_LINES_MAX: usize = 3;
/// A filter is no longer than a name.
const FILTER_CHARS_MAX: usize = 80;

/// What was heard of the broker.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The last snapshot.
    status: Option<Box<Status>>,
    /// The one after it, while it is paused.
    newer: Option<Box<Status>>,
    /// When the snapshot came.
    at: String,
    /// Since when the broker cannot be reached, and why.
    lost: Option<(String, String)>,
    is_paused: bool,
}

impl Heard {
    /// An answer has come, or none, at a time.
    pub(super) fn handle_answer(&mut self, answer: Result<Box<Status>, String>, at: &str) {
        match answer {
            Ok(status) => {
                self.lost = None;
                if self.is_paused {
                    self.newer = Some(status);
                } else {
                    self.status = Some(status);
                    self.at = at.to_owned();
                }
            }
            Err(why) => {
                let since = self.lost.take().map_or_else(|| at.to_owned(), |(since, _)| since);
                self.lost = Some((since, why));
            }
        }
    }

    fn pause(&mut self) {
        self.is_paused = !self.is_paused;
        if let Some(newer) = self.newer.take() {
            self.status = Some(newer);
        }
    }
}

/// What somebody wants to see.
#[derive(Debug)]
pub(super) struct View {
    /// Which rows, and in which order.
    pub(super) wanted: Wanted,
    tab: Tab,
    /// Rows that have been scrolled past.
    scrolled: usize,
    /// What is typed after `/`.
    typing: Option<String>,
    has_colours: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tab {
    Services,
    Connections,
    Flows,
    Alarms,
}

const TABS: [(Tab, &str); 4] = [
    (Tab::Services, "services"),
    (Tab::Connections, "connections"),
    (Tab::Flows, "flows"),
    (Tab::Alarms, "alarms"),
];

/// The key of each order.
const SORT_KEYS: [(char, SortBy, &str); 7] = [
    ('n', SortBy::Name, "name"),
    ('r', SortBy::Rate, "rate"),
    ('m', SortBy::Messages, "messages"),
    ('b', SortBy::Bytes, "bytes"),
    ('d', SortBy::Denied, "denied"),
    ('l', SortBy::Lost, "lost"),
    ('t', SortBy::Response, "response time"),
];

impl View {
    /// The services, in the order that is wanted.
    pub(super) fn new(wanted: Wanted, has_colours: bool) -> Self {
        Self {
            wanted,
            tab: Tab::Services,
            scrolled: 0,
            typing: None,
            has_colours,
        }
    }

    /// A key was pressed. Whether somebody has seen enough.
    pub(super) fn handle_key(&mut self, key: KeyEvent, heard: &mut Heard) -> bool {
        if key.kind == KeyEventKind::Release {
            return false;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        if let Some(typing) = self.typing.take() {
            self.handle_typing(typing, key.code);
            return false;
        }
        match key.code {
            KeyCode::Char('q') => return true,
            KeyCode::Char('/') => self.typing = Some(self.wanted.filter.clone()),
            KeyCode::Esc => self.wanted.filter.clear(),
            KeyCode::Char('p' | ' ') => heard.pause(),
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(TABS.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.scrolled += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scrolled = self.scrolled.saturating_sub(1),
            KeyCode::PageDown => self.scrolled += 20,
            KeyCode::PageUp => self.scrolled = self.scrolled.saturating_sub(20),
            KeyCode::Home | KeyCode::Char('g') => self.scrolled = 0,
            KeyCode::Char('s') => {
                let now = SORT_KEYS
                    .iter()
                    .position(|(_, sort, _)| *sort == self.wanted.sort);
                let next = SORT_KEYS.iter().cycle().nth(now.unwrap_or(0) + 1);
                self.sort(next.map_or(SortBy::Name, |(_, sort, _)| *sort));
            }
            KeyCode::Char(pressed) => {
                let tab = pressed
                    .to_digit(10)
                    .and_then(|digit| (digit as usize).checked_sub(1));
                if let Some((tab, _)) = tab.and_then(|tab| TABS.get(tab)) {
                    self.open(*tab);
                }
                if let Some((_, sort, _)) = SORT_KEYS.iter().find(|(key, ..)| *key == pressed) {
                    self.sort(*sort);
                }
            }
            _ => {}
        }
        // Past the last row there is nothing to see.
        let rows = heard
            .status
            .as_deref()
            .map_or(0, |status| self.rows(status).len());
        self.scrolled = self.scrolled.min(rows.saturating_sub(1));
        false
    }

    fn handle_typing(&mut self, mut typing: String, pressed: KeyCode) {
        match pressed {
            KeyCode::Enter => {
                self.wanted.filter = typing;
                self.scrolled = 0;
                return;
            }
            KeyCode::Esc => return,
            KeyCode::Backspace => drop(typing.pop()),
            KeyCode::Char(typed) if typing.chars().count() < FILTER_CHARS_MAX => typing.push(typed),
            _ => {}
        }
        self.typing = Some(typing);
    }

    fn turn(&mut self, by: usize) {
        let now = TABS.iter().position(|(tab, _)| *tab == self.tab).unwrap_or(0);
        if let Some((tab, _)) = TABS.iter().cycle().nth(now + by) {
            self.open(*tab);
        }
    }

    fn open(&mut self, tab: Tab) {
        self.tab = tab;
        self.scrolled = 0;
    }

    fn sort(&mut self, sort: SortBy) {
        self.wanted.sort = sort;
        self.scrolled = 0;
    }

    fn style(&self, colour: Color) -> Style {
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    fn head(&self) -> (&'static [&'static str], &'static [Constraint]) {
        use Constraint::{Fill, Length, Min};
        match self.tab {
            Tab::Services => (
                &[
                    "SERVICE", "CONN", "SENDS/S", "RECV/S", "SENT", "RECEIVED", "DENIED", "DROPPED",
                    "UNANSW", "MEAN MS", "P99 MS", "MAX MS",
                ],
                &[
                    Min(12),
                    Length(5),
                    Length(8),
                    Length(8),
                    Length(10),
                    Length(10),
                    Length(7),
                    Length(7),
                    Length(7),
                    Length(8),
                    Length(8),
                    Length(8),
                ],
            ),
            Tab::Connections => (
                &[
                    "ID", "SENDER", "ADDRESS", "ZONE", "CLIENT", "AGE", "SUBS", "PENDING", "OUTBOX",
                ],
                &[
                    Length(7),
                    Min(12),
                    Length(21),
                    Length(8),
                    Fill(1),
                    Length(7),
                    Length(5),
                    Length(8),
                    Length(10),
                ],
            ),
            Tab::Flows => (
                &[
                    "SENDER", "MESSAGE", "RECEIVER", "MSG/S", "BYTES/S", "MESSAGES", "DENIED", "LOST",
                    "MEAN MS", "P50 MS", "P99 MS", "MAX MS",
                ],
                &[
                    Min(9),
                    Min(12),
                    Min(9),
                    Length(7),
                    Length(10),
                    Length(9),
                    Length(6),
                    Length(6),
                    Length(7),
                    Length(7),
                    Length(7),
                    Length(7),
                ],
            ),
            Tab::Alarms => (&["ALARM"], &[Fill(1)]),
        }
    }

    /// The rows of the table, in their order.
    fn rows(&self, status: &Status) -> Vec<Vec<String>> {
        let Wanted { sort, .. } = self.wanted;
        let matches = |names: &[&str]| names.iter().any(|name| self.wanted.matches(name));
        match self.tab {
            Tab::Services => {
                let mut rows: Vec<_> = status.services.iter().collect();
                rows.retain(|row| matches(&[&row.service]));
                rows.sort_by(|a, b| a.compare(b, sort));
                let cells = rows.into_iter().map(|row| {
                    let (sent, received) = (&row.sent, &row.received);
                    vec![
                        row.service.clone(),
                        row.connections.to_string(),
                        decimal(sent.rates.messages_per_s),
                        decimal(received.rates.messages_per_s),
                        sent.messages.to_string(),
                        received.messages.to_string(),
                        (sent.denied + sent.over_limit).to_string(),
                        received.dropped.to_string(),
                        received.unanswered.to_string(),
                        mean_ms(received),
                        milliseconds(received.response_us_p99.unwrap_or_default()),
                        milliseconds(received.response_us_max),
                    ]
                });
                cells.collect()
            }
            Tab::Connections => {
                let rows = status.connections.iter();
                let rows = rows.filter(|row| matches(&[&row.sender, &row.address]));
                let cells = rows.map(|row| {
                    let given = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                    vec![
                        row.id.to_string(),
                        row.sender.clone(),
                        row.address.clone(),
                        given(&row.zone),
                        given(&row.client),
                        duration(row.age_s),
                        row.subscriptions.to_string(),
                        row.pending_replies.to_string(),
                        bytes(row.outbox_bytes as f64),
                    ]
                });
                cells.collect()
            }
            Tab::Flows => {
                let mut rows: Vec<_> = status.flows.iter().collect();
                rows.retain(|row| {
                    matches(&[
                        &row.sender,
                        &row.message,
                        row.receiver.as_deref().unwrap_or_default(),
                    ])
                });
                rows.sort_by(|a, b| a.compare(b, sort));
                let cells = rows.into_iter().map(|row| {
                    let figures = &row.figures;
                    vec![
                        row.sender.clone(),
                        row.message.clone(),
                        row.receiver.clone().unwrap_or_else(|| "-".to_owned()),
                        decimal(figures.rates.messages_per_s),
                        bytes(figures.rates.bytes_per_s),
                        figures.messages.to_string(),
                        (figures.denied + figures.over_limit).to_string(),
                        (figures.dropped + figures.no_receiver + figures.unanswered).to_string(),
                        mean_ms(figures),
                        milliseconds(figures.response_us_p50.unwrap_or_default()),
                        milliseconds(figures.response_us_p99.unwrap_or_default()),
                        milliseconds(figures.response_us_max),
                    ]
                });
                cells.collect()
            }
            Tab::Alarms => {
                let lines = status.alarms.iter().rev().map(alarms::line);
                let lines = lines.filter(|line| matches(&[line]));
                lines.map(|line| vec![line]).collect()
            }
        }
    }

    /// How many rows of the table the broker has left out.
    fn left_out(&self, status: &Status) -> usize {
        match self.tab {
            Tab::Services => status.left_out.services,
            Tab::Connections => status.left_out.connections,
            Tab::Flows => status.left_out.flows,
            Tab::Alarms => 0,
        }
    }
}

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, heard: &Heard, view: &View) {
    let mut above = Vec::new();
    if let Some((since, why)) = &heard.lost {
        let told = format!("not reachable since {since}, asking again: {why}");
        above.push(Line::styled(
            told,
            view.style(Color::Red).add_modifier(Modifier::BOLD),
        ));
    }
    if let Some(status) = &heard.status {
        above.extend(summary(status, heard, view));
    } else if heard.lost.is_none() {
        above.push(Line::raw("asking the broker …"));
    }
    let height = u16::try_from(above.len()).unwrap_or(u16::MAX);
    let [top, tabs, table, help] = Layout::vertical([
        Constraint::Length(height.min(frame.area().height.saturating_sub(6))),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(above), top);
    frame.render_widget(tab_line(heard, view), tabs);
    if let Some(status) = &heard.status {
        draw_table(frame, table, status, view);
    }
    frame.render_widget(help_line(view), help);
}

fn summary<'a>(status: &'a Status, heard: &'a Heard, view: &View) -> Vec<Line<'a>> {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let state = if heard.is_paused { "paused at" } else { "at" };
    let first = vec![
        Span::styled(&*status.name, bold),
        Span::raw(format!(
            " {}  up {}  policy {}  {state} {}",
            status.version,
            duration(status.uptime_s),
            status.policy.version,
            heard.at
        )),
    ];
    let all = &status.traffic;
    let mut second = format!(
        "{} messages/s  {}/s  denied {}/s  lost {}/s  {} connections  {} handshakes",
        decimal(all.rates.messages_per_s),
        bytes(all.rates.bytes_per_s),
        decimal(all.rates.denied_per_s),
        decimal(all.rates.lost_per_s),
        status.counts.open,
        status.counts.half_open,
    );
    if let Some(queues) = &status.queues {
        let pending: usize = queues.iter().map(|queue| queue.pending).sum();
        let dead: usize = queues.iter().map(|queue| queue.dead).sum();
        second += &format!("  tracked {pending}, dead {dead}");
    }
    let mut lines = vec![Line::from(first), Line::raw(second)];
    if let Some(expiry) = &status.soonest_expiry {
        let when = rfc3339(expiry.expires_unix_s);
        lines.push(Line::raw(format!("expires first: {}, at {when}", expiry.what)));
    }
    let mut wrong = |text: Cow<'a, str>| lines.push(Line::styled(text, view.style(Color::Red)));
    if status.policy.refused_change.is_some() {
        wrong("the latest change of the policy was refused; `exocom status` says why".into());
    }
    if status.refused_certificates.is_some() {
        wrong("changed certificates were refused; `exocom status` says why".into());
    }
    if status
        .audit
        .as_ref()
        .is_some_and(|audit| audit.failing_since_unix_ms.is_some())
    {
        wrong("the audit log cannot be written; `exocom status` says since when".into());
    }
    if view.tab != Tab::Alarms {
        for alarm in status.alarms.iter().rev().take(ALARM_LINES_MAX) {
            wrong(format!("alarm {}", alarms::line(alarm)).into());
        }
        let more = status.alarms.len().saturating_sub(ALARM_LINES_MAX);
        if more > 0 {
            wrong(format!("and {more} more alarms: 4").into());
        }
    }
    lines
}

fn tab_line<'a>(heard: &Heard, view: &View) -> Line<'a> {
    let mut spans = Vec::new();
    for (number, (tab, name)) in (1..).zip(TABS) {
        let style = if tab == view.tab {
            Style::new().add_modifier(Modifier::REVERSED)
        } else {
            Style::new()
        };
        spans.extend([Span::styled(format!(" {number} {name} "), style), Span::raw(" ")]);
    }
    let sort = SORT_KEYS.iter().find(|(_, sort, _)| *sort == view.wanted.sort);
    let mut told = format!(" by {}", sort.map_or("name", |(.., name)| name));
    if !view.wanted.filter.is_empty() {
        told += &format!(", only *{}*", view.wanted.filter);
    }
    if let Some(left_out) = heard
        .status
        .as_ref()
        .map(|status| view.left_out(status))
        .filter(|left_out| *left_out > 0)
    {
        told += &format!(", {left_out} more rows left out");
    }
    spans.push(Span::raw(told));
    Line::from(spans)
}

fn draw_table(frame: &mut Frame<'_>, area: Rect, status: &Status, view: &View) {
    let (head, widths) = view.head();
    let rows = view.rows(status);
    if rows.is_empty() {
        let what = TABS
            .iter()
            .find(|(tab, _)| *tab == view.tab)
            .map_or("rows", |(_, name)| name);
        let of_that_name = if view.wanted.filter.is_empty() {
            ""
        } else {
            " of that name; Esc shows all"
        };
        frame.render_widget(Line::raw(format!("no {what}{of_that_name}")), area);
        return;
    }
    let seen = rows
        .into_iter()
        .skip(view.scrolled)
        .take(area.height.into())
        .map(Row::new);
    let head = Row::new(head.iter().copied()).style(view.style(Color::Cyan).add_modifier(Modifier::BOLD));
    frame.render_widget(Table::new(seen, widths).header(head), area);
}

fn help_line<'a>(view: &View) -> Line<'a> {
    if let Some(typing) = &view.typing {
        return Line::raw(format!("names with: {typing}▏ Enter applies it, Esc leaves it"));
    }
    let orders: Vec<_> = SORT_KEYS
        .iter()
        .map(|(key, _, name)| format!("{key} {name}"))
        .collect();
    let help = format!(
        "q quit  Tab table  / filter  p pause  ↑↓ scroll  order: {}",
        orders.join("  ")
    );
    Line::styled(help, Style::new().add_modifier(Modifier::DIM))
}

/// The mean response time now; where nothing is answered now, of all time.
fn mean_ms(figures: &Figures) -> String {
    match figures.rates.response_us_mean {
        Some(us) => milliseconds(us),
        None => milliseconds(figures.response_us_mean),
    }
}

fn milliseconds(us: u64) -> String {
    match us {
        0 => "-".to_owned(),
        us => format!("{:.1}", us as f64 / 1000.0),
    }
}

#[cfg(test)]
mod tests;
