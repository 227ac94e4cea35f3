//! The figures of the traffic as operators see them: services and flows, with what was counted since the start and how
//! fast it goes, in the order that somebody wants, and no more rows than they asked for.
//!
//! Pure: what was counted at two moments comes in. What a list leaves out is always told.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::limits::{STATUS_ROWS, STATUS_ROWS_MAX};
use crate::traffic::flow::{FlowKey, FlowTotals, ResponseTimes};
use crate::traffic::rates::Sample;

/// What somebody wants to see of the lists of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Wanted {
    /// What comes first.
    pub sort: SortBy,
    /// Rows of each list at the most.
    pub limit: usize,
    /// Only rows with a name that contains this.
    pub filter: String,
}

/// What comes first in a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SortBy {
    /// By name, and connections by number.
    #[default]
    Name,
    /// The most messages a second.
    Rate,
    /// The most messages since the start.
    Messages,
    /// The most bytes a second.
    Bytes,
    /// The most that was denied, or over a limit.
    Denied,
    /// The most that was dropped, had no receiver or got no answer.
    Lost,
    /// The longest mean response time.
    Response,
}

/// How fast something goes now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RateStatus {
    /// Messages a second.
    pub messages_per_s: f64,
    /// Their payload bytes a second.
    pub bytes_per_s: f64,
    /// Messages a second that were denied, over a limit or from a held service.
    pub denied_per_s: f64,
    /// Messages a second that were dropped, had no receiver or got no answer.
    pub lost_per_s: f64,
    /// The mean response time, in microseconds; `None` where nothing was answered.
    pub response_us_mean: Option<u64>,
}

/// What was counted since the start, and how fast it goes now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Messages delivered.
    pub messages: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Messages denied.
    pub denied: u64,
    /// Messages dropped.
    pub dropped: u64,
    /// Messages without a receiver.
    pub no_receiver: u64,
    /// Messages that were more than the policy's limits allow.
    pub over_limit: u64,
    /// Messages refused because their sender is held.
    pub quarantined: u64,
    /// Requests answered.
    pub responses: u64,
    /// The sum of the response times, in microseconds.
    pub response_us_sum: u64,
    /// The mean response time, in microseconds.
    pub response_us_mean: u64,
    /// What half of the response times do not exceed, in microseconds; `None` where nothing was answered, and for what a
    /// service sends.
    pub response_us_p50: Option<u64>,
    /// What 99 of 100 do not exceed.
    pub response_us_p99: Option<u64>,
    /// The longest response time, in microseconds.
    pub response_us_max: u64,
    /// Requests that expired or whose receiver was lost.
    pub unanswered: u64,
    /// Answers that the requester did not get.
    pub replies_dropped: u64,
    /// How fast it goes now.
    pub rates: RateStatus,
}

/// One flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// The sending service.
    pub sender: String,
    /// The message name.
    pub message: String,
    /// The receiving service; `None` where there was none.
    pub receiver: Option<String>,
    /// Its figures.
    #[serde(flatten)]
    pub figures: Figures,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// Its open connections.
    pub connections: usize,
    /// What it sends.
    pub sent: Figures,
    /// What it receives; response times are its own.
    pub received: Figures,
    /// How these are spread, for the metrics.
    #[serde(skip)]
    pub response_times: ResponseTimes,
}

/// How many rows the lists leave out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Of services.
    pub services: usize,
    /// Of connections.
    pub connections: usize,
    /// Of flows.
    pub flows: usize,
}

/// The figures of all traffic.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// Of everything.
    pub all: Figures,
    /// Over how long the rates are told, in seconds.
    pub rates_over_s: f64,
    /// The services.
    pub services: Vec<ServiceStatus>,
    /// The flows.
    pub flows: Vec<FlowStatus>,
    /// What the lists leave out.
    pub left_out: LeftOut,
    spreads: Spreads,
}

/// How response times are spread: of everything, of what each service has answered, and of the flows that are shown.
#[derive(Debug, Clone, Default)]
struct Spreads {
    all: ResponseTimes,
    services: HashMap<Arc<str>, ResponseTimes>,
    flows: HashMap<FlowKey, ResponseTimes>,
}

impl Traffic {
    /// The figures of what was counted up to `now`, with rates since `before`. `services` are all that there are, with
    /// their connections.
    pub fn new(before: &Sample, now: &Sample, services: BTreeMap<Arc<str>, usize>, wanted: &Wanted) -> Self {
        let over_s = now.at_us.saturating_sub(before.at_us) as f64 / 1e6;
        let none = FlowTotals::default();
        let mut all = Counted::default();
        let mut by_service: BTreeMap<Arc<str>, OfService> = BTreeMap::new();
        for (service, connections) in services {
            by_service.entry(service).or_default().connections = connections;
        }
        let mut flows: Vec<(&FlowKey, Figures)> = Vec::new();
        for (key, totals) in now.totals.iter().filter(|(_, totals)| **totals != none) {
            let recent = totals.since(before.totals.get(key).unwrap_or(&none));
            let counted = Counted {
                totals: *totals,
                recent,
            };
            all.add(&counted);
            service(&mut by_service, &key.sender).sent.add(&counted);
            if let Some(receiver) = &key.receiver {
                service(&mut by_service, receiver).received.add(&counted);
            }
            let receiver = key.receiver.as_deref().unwrap_or_default();
            if [&*key.sender, &*key.message, receiver]
                .iter()
                .any(|name| wanted.matches(name))
            {
                flows.push((key, counted.figures(over_s)));
            }
        }
        let mut services: Vec<_> = by_service.into_iter().collect();
        services.retain(|(name, _)| wanted.matches(name));
        let service_status = |(name, of): (Arc<str>, OfService)| ServiceStatus {
            service: name.to_string(),
            connections: of.connections,
            sent: of.sent.figures(over_s),
            received: of.received.figures(over_s),
            response_times: ResponseTimes::default(),
        };
        let mut services: Vec<_> = services.into_iter().map(service_status).collect();
        // Both are in the order of their names already.
        services.sort_by(|a, b| b.rank(wanted.sort).total_cmp(&a.rank(wanted.sort)));
        flows.sort_by(|(_, a), (_, b)| b.rank(wanted.sort).total_cmp(&a.rank(wanted.sort)));
        let left_out = LeftOut {
            services: wanted.cut(&mut services),
            connections: 0,
            flows: wanted.cut(&mut flows),
        };
        let of_flows = flows
            .iter()
            .map(|(key, _)| ((*key).clone(), ResponseTimes::default()));
        let spreads = Spreads {
            flows: of_flows.collect(),
            ..Spreads::default()
        };
        let flow_status = |(key, figures): (&FlowKey, Figures)| FlowStatus {
            sender: key.sender.to_string(),
            message: key.message.to_string(),
            receiver: key.receiver.as_deref().map(str::to_owned),
            figures,
        };
        Self {
            all: all.figures(over_s),
            rates_over_s: over_s,
            services,
            flows: flows.into_iter().map(flow_status).collect(),
            left_out,
            spreads,
        }
    }

    /// Takes how the response times of a flow are spread, or of a part of it.
    pub fn handle_times(&mut self, key: &FlowKey, times: &ResponseTimes) {
        self.spreads.all.add(times);
        if let Some(receiver) = &key.receiver {
            let of_service = self.spreads.services.entry(Arc::clone(receiver));
            of_service.or_default().add(times);
        }
        if let Some(of_flow) = self.spreads.flows.get_mut(key) {
            of_flow.add(times);
        }
    }

    /// Says what these are, once all were taken.
    pub fn end_times(&mut self) {
        let Spreads { all, services, flows } = std::mem::take(&mut self.spreads);
        self.all.take_times(&all);
        for row in &mut self.services {
            if let Some(times) = services.get(&*row.service) {
                row.received.take_times(times);
                row.response_times = times.clone();
            }
        }
        for row in &mut self.flows {
            let key = FlowKey {
                sender: (*row.sender).into(),
                message: (*row.message).into(),
                receiver: row.receiver.as_deref().map(Arc::from),
            };
            if let Some(times) = flows.get(&key) {
                row.figures.take_times(times);
            }
        }
    }
}

#[derive(Debug, Default)]
struct OfService {
    connections: usize,
    sent: Counted,
    received: Counted,
}

fn service<'a>(services: &'a mut BTreeMap<Arc<str>, OfService>, name: &Arc<str>) -> &'a mut OfService {
    if !services.contains_key(name) {
        services.insert(Arc::clone(name), OfService::default());
    }
    services.get_mut(name).expect("it was inserted")
}

/// What was counted since the start, and lately.
#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    totals: FlowTotals,
    recent: FlowTotals,
}

impl Counted {
    fn add(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        self.recent.add(&other.recent);
    }

    fn figures(&self, over_s: f64) -> Figures {
        let Self { totals, recent } = self;
        let a_second = |count: u64| if over_s > 0.0 { count as f64 / over_s } else { 0.0 };
        Figures {
            messages: totals.messages,
            bytes: totals.bytes,
            denied: totals.denied,
            dropped: totals.dropped,
            no_receiver: totals.no_receiver,
            over_limit: totals.over_limit,
            quarantined: totals.quarantined,
            responses: totals.responses,
            response_us_sum: totals.response_us_sum,
            response_us_mean: totals.response_us_mean(),
            response_us_p50: None,
            response_us_p99: None,
            response_us_max: totals.response_us_max,
            unanswered: totals.unanswered,
            replies_dropped: totals.replies_dropped,
            rates: RateStatus {
                messages_per_s: a_second(recent.messages),
                bytes_per_s: a_second(recent.bytes),
                denied_per_s: a_second(denied(recent)),
                lost_per_s: a_second(lost(recent)),
                response_us_mean: (recent.responses > 0).then(|| recent.response_us_mean()),
            },
        }
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            sort: SortBy::Name,
            limit: STATUS_ROWS,
            filter: String::new(),
        }
    }
}

impl Wanted {
    /// Whether somebody wants to see a row of this name.
    pub fn matches(&self, name: &str) -> bool {
        self.filter.is_empty() || name.contains(&self.filter)
    }

    /// Cuts a list to what is wanted. Returns how many rows that leaves out.
    pub fn cut<T>(&self, rows: &mut Vec<T>) -> usize {
        let limit = self.limit.min(STATUS_ROWS_MAX);
        let left_out = rows.len().saturating_sub(limit);
        rows.truncate(limit);
        left_out
    }
}

impl SortBy {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("name", Self::Name),
        ("rate", Self::Rate),
        ("messages", Self::Messages),
        ("bytes", Self::Bytes),
        ("denied", Self::Denied),
        ("lost", Self::Lost),
        ("response", Self::Response),
    ];
}

impl Figures {
    fn take_times(&mut self, times: &ResponseTimes) {
        self.response_us_p50 = times.percentile_us(0.5, self.response_us_max);
        self.response_us_p99 = times.percentile_us(0.99, self.response_us_max);
    }

    /// How far up it comes in an order.
    pub fn rank(&self, sort: SortBy) -> f64 {
        match sort {
            SortBy::Name => 0.0,
            SortBy::Rate => self.rates.messages_per_s,
            SortBy::Messages => self.messages as f64,
            SortBy::Bytes => self.rates.bytes_per_s,
            SortBy::Denied => (self.denied + self.over_limit) as f64,
            SortBy::Lost => (self.dropped + self.no_receiver + self.unanswered) as f64,
            SortBy::Response => self.rates.response_us_mean.unwrap_or(self.response_us_mean) as f64,
        }
    }
}

impl FlowStatus {
    /// Which of two comes first in an order.
    pub fn compare(&self, other: &Self, sort: SortBy) -> Ordering {
        let by_rank = other.figures.rank(sort).total_cmp(&self.figures.rank(sort));
        let by_name = || {
            let name = (&self.sender, &self.message, &self.receiver);
            name.cmp(&(&other.sender, &other.message, &other.receiver))
        };
        by_rank.then_with(by_name)
    }
}

impl ServiceStatus {
    /// Which of two comes first in an order.
    pub fn compare(&self, other: &Self, sort: SortBy) -> Ordering {
        let by_rank = other.rank(sort).total_cmp(&self.rank(sort));
        by_rank.then_with(|| self.service.cmp(&other.service))
    }

    /// Of what it sends and of what it receives; a response time is its own alone.
    fn rank(&self, sort: SortBy) -> f64 {
        match sort {
            SortBy::Response => self.received.rank(sort),
            sort => self.sent.rank(sort) + self.received.rank(sort),
        }
    }
}

impl FromStr for SortBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, sort)| sort).ok_or_else(|| {
            let names = Self::ALL.map(|(name, _)| name).join(", ");
            format!("expected one of {names}")
        })
    }
}

fn denied(totals: &FlowTotals) -> u64 {
    totals.denied + totals.over_limit + totals.quarantined
}

fn lost(totals: &FlowTotals) -> u64 {
    totals.dropped + totals.no_receiver + totals.unanswered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::flow::FlowRegistry;

    fn key(sender: &str, message: &str, receiver: Option<&str>) -> FlowKey {
        FlowKey {
            sender: sender.into(),
            message: message.into(),
            receiver: receiver.map(Arc::from),
        }
    }

    fn counted(messages: u64, responses: u64, response_us_sum: u64, denied: u64) -> FlowTotals {
        FlowTotals {
            messages,
            bytes: 10 * messages,
            responses,
            response_us_sum,
            denied,
            ..FlowTotals::default()
        }
    }

    fn samples() -> (Sample, Sample) {
        let list = |totals| (key("web", "list", Some("todos")), totals);
        let pay = |totals| (key("todos", "pay", Some("bank")), totals);
        let purge = |totals| (key("web", "purge", None), totals);
        let sample = |at_us, totals: [_; 3]| Sample {
            at_us,
            totals: Arc::new(totals.into()),
        };
        let before = [
            list(counted(100, 90, 9_000, 0)),
            pay(counted(7, 0, 0, 0)),
            purge(counted(0, 0, 0, 3)),
        ];
        let now = [
            list(counted(300, 290, 49_000, 0)),
            pay(counted(7, 0, 0, 0)),
            purge(counted(0, 0, 0, 9)),
        ];
        (sample(1_000_000, before), sample(5_000_000, now))
    }

    fn traffic(wanted: &Wanted) -> Traffic {
        let (before, now) = samples();
        let services = [("web".into(), 2), ("idle".into(), 0)].into();
        Traffic::new(&before, &now, services, wanted)
    }

    #[test]
    fn what_a_service_sends_and_receives_is_told_with_its_rates() {
        let traffic = traffic(&Wanted::default());
        assert_eq!(traffic.rates_over_s, 4.0);
        let names: Vec<_> = traffic
            .services
            .iter()
            .map(|row| (&*row.service, row.connections))
            .collect();
        assert_eq!(names, [("bank", 0), ("idle", 0), ("todos", 0), ("web", 2)]);
        let [bank, idle, todos, web] = &traffic.services[..] else {
            panic!()
        };
        assert_eq!(idle.sent, Figures::default());
        assert_eq!(
            (bank.received.messages, bank.received.rates.messages_per_s),
            (7, 0.0)
        );
        assert_eq!(
            (web.sent.messages, web.sent.denied, web.received.messages),
            (300, 9, 0)
        );
        let rates = RateStatus {
            messages_per_s: 50.0,
            bytes_per_s: 500.0,
            denied_per_s: 1.5,
            lost_per_s: 0.0,
            response_us_mean: Some(200),
        };
        assert_eq!(web.sent.rates, rates);
        assert_eq!(todos.received.response_us_mean, 49_000 / 290);
        assert_eq!((traffic.all.messages, traffic.all.denied), (307, 9));
        assert_eq!(traffic.left_out, LeftOut::default());
    }

    #[test]
    fn what_is_wanted_comes_first_and_what_is_left_out_is_told() {
        let check = |sort, filter: &str, expected: &[&str], services: usize, flows: usize| {
            let wanted = Wanted {
                sort,
                limit: 2,
                filter: filter.to_owned(),
            };
            let traffic = traffic(&wanted);
            let names: Vec<_> = traffic.flows.iter().map(|flow| &*flow.message).collect();
            assert_eq!(names, expected, "{sort:?} {filter}");
            assert_eq!(
                (traffic.left_out.services, traffic.left_out.flows),
                (services, flows)
            );
        };
        check(SortBy::Name, "", &["pay", "list"], 2, 1);
        check(SortBy::Rate, "", &["list", "pay"], 2, 1);
        check(SortBy::Denied, "", &["purge", "pay"], 2, 1);
        check(SortBy::Response, "", &["list", "pay"], 2, 1);
        check(SortBy::Name, "web", &["list", "purge"], 0, 0);
        check(SortBy::Name, "bank", &["pay"], 0, 0);
    }

    #[test]
    fn percentiles_are_of_a_flow_of_who_answers_and_of_everything() {
        let counters = |times_us: &[u64]| {
            let registry = FlowRegistry::default();
            let book = registry.open_book(&"web".into(), 1);
            let counters = book.counters("list", None);
            times_us.iter().for_each(|&us| counters.count_response(us));
            let mut found = None;
            registry.response_times(&mut |_, times| found = Some(times.clone()));
            found.expect("it was answered")
        };
        let (before, mut now) = samples();
        let mut totals = (*now.totals).clone();
        for of_flow in totals.values_mut() {
            of_flow.response_us_max = 100_000;
        }
        now.totals = Arc::new(totals);
        let mut traffic = Traffic::new(&before, &now, BTreeMap::new(), &Wanted::default());
        let list = key("web", "list", Some("todos"));
        // One flow in two parts, and one that is not shown.
        traffic.handle_times(&list, &counters(&[1_000; 60]));
        traffic.handle_times(&list, &counters(&[80_000; 40]));
        traffic.handle_times(&key("other", "list", Some("todos")), &counters(&[9_000; 900]));
        traffic.end_times();
        let near = |found: Option<u64>, us: u64| found.is_some_and(|found| found.abs_diff(us) <= us / 8);
        let flow = traffic.flows.iter().find(|flow| flow.message == "list").unwrap();
        let Figures {
            response_us_p50: p50,
            response_us_p99: p99,
            ..
        } = flow.figures;
        assert!(near(p50, 1_000) && near(p99, 80_000), "{p50:?} {p99:?}");
        let todos = traffic
            .services
            .iter()
            .find(|row| row.service == "todos")
            .unwrap();
        assert!(near(todos.received.response_us_p50, 9_000), "{todos:?}");
        assert_eq!(
            (todos.sent.response_us_p50, todos.response_times.count()),
            (None, 1_000)
        );
        assert!(near(traffic.all.response_us_p99, 80_000), "{:?}", traffic.all);
        let pay = traffic.flows.iter().find(|flow| flow.message == "pay").unwrap();
        assert_eq!(pay.figures.response_us_p50, None);
    }
}
