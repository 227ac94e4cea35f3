//! Flow records: what was sent, by flow and interval, in few bytes; and how they are read again.
//!
//! A flow has its names once in a chapter of an hour, and a number after that. Nothing is estimated: the counts of a
//! flow over all records are what was counted.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::record::{FlowCount, Flows, NamedFlow, Record};
use crate::audit::tile::ENTRY_BYTES_MAX;
use crate::limits::AUDIT_CHAPTER_MS;

/// What may be in one record beside names and counts, in bytes.
const FRAME_BYTES: usize = 1024;

/// What was sent in one flow since the last record of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSum {
    /// The verified sender.
    pub sender: Arc<str>,
    /// The message name.
    pub message: Arc<str>,
    /// The receiver; `None` for what was denied or found nobody.
    pub receiver: Option<Arc<str>>,
    /// How much. The flow's number is not looked at.
    pub count: FlowCount,
}

type Names = (Arc<str>, Arc<str>, Option<Arc<str>>);

/// Writes flow records.
#[derive(Debug, Default)]
pub struct FlowWriter {
    chapter: u64,
    known: HashMap<Names, Known, foldhash::fast::RandomState>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    number: u32,
    first: u64,
    last: u64,
}

impl FlowWriter {
    /// The records of what was sent, under the policy in force: none where nothing was.
    pub fn write(&mut self, sums: Vec<FlowSum>, policy: &str, now_unix_ms: u64) -> Vec<Record> {
        if sums.is_empty() {
            return Vec::new();
        }
        if self.known.is_empty() || now_unix_ms.abs_diff(self.chapter) >= AUDIT_CHAPTER_MS {
            self.known.clear();
            // Never that of the chapter before, whatever the clock says.
            self.chapter = now_unix_ms.max(self.chapter + 1);
        }
        let empty = || Flows {
            chapter: self.chapter,
            policy: policy.to_owned(),
            ..Flows::default()
        };
        let mut records = Vec::new();
        let mut flows = empty();
        let mut bytes = FRAME_BYTES;
        for sum in sums {
            let next = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
            let names = (sum.sender, sum.message, sum.receiver);
            let known = self.known.get(&names).copied();
            let mut count = FlowCount {
                flow: known.map_or(next, |known| known.number),
                ..sum.count
            };
            let connections = (count.first, count.last);
            if known.is_some_and(|known| (known.first, known.last) == connections) {
                (count.first, count.last) = (0, 0);
            }
            let receiver = names.2.as_deref();
            let name_bytes = names.0.len() + names.1.len() + receiver.map_or(4, str::len) + 24;
            let added = count_bytes(&count) + known.map_or(name_bytes, |_| 0);
            if bytes + added > ENTRY_BYTES_MAX {
                records.push(Record::Flows(std::mem::replace(&mut flows, empty())));
                bytes = FRAME_BYTES;
            }
            bytes += added;
            if known.is_none() {
                flows.named.push(NamedFlow(
                    count.flow,
                    names.0.to_string(),
                    names.1.to_string(),
                    receiver.map(str::to_owned),
                ));
            }
            flows.counts.push(count);
            let (first, last) = connections;
            let number = count.flow;
            self.known.insert(names, Known { number, first, last });
        }
        records.push(Record::Flows(flows));
        records
    }
}

/// The most bytes that a count takes in a record.
fn count_bytes(count: &FlowCount) -> usize {
    let numbers = [
        count.flow.into(),
        count.messages,
        count.bytes,
        count.first,
        count.last,
        count.denied,
        count.dropped,
        count.unreceived,
    ];
    let digits = |number: u64| number.checked_ilog10().unwrap_or(0) as usize + 2;
    numbers.into_iter().map(digits).sum::<usize>() + 2
}

/// One flow of a record, with its names again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFlow {
    /// Who sent what to whom; `None` where the record that names it was not read, or has been pruned.
    pub names: Option<NamedFlow>,
    /// How much, with the connections.
    pub count: FlowCount,
}

/// Reads flow records, in the order of the log.
#[derive(Debug, Default)]
pub struct FlowReader {
    chapter: u64,
    named: HashMap<u32, (NamedFlow, u64, u64), foldhash::fast::RandomState>,
}

impl FlowReader {
    /// The flows of a record.
    pub fn read(&mut self, flows: &Flows) -> Vec<ReadFlow> {
        if flows.chapter != self.chapter {
            self.chapter = flows.chapter;
            self.named.clear();
        }
        for named in &flows.named {
            self.named.insert(named.0, (named.clone(), 0, 0));
        }
        let read = flows.counts.iter().map(|count| {
            let mut count = *count;
            let names = self.named.get_mut(&count.flow).map(|(named, first, last)| {
                if (count.first, count.last) == (0, 0) {
                    (count.first, count.last) = (*first, *last);
                } else {
                    (*first, *last) = (count.first, count.last);
                }
                named.clone()
            });
            ReadFlow { names, count }
        });
        read.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Entry;

    fn sum(sender: &str, message: &str, receiver: Option<&str>, messages: u64, first: u64) -> FlowSum {
        FlowSum {
            sender: sender.into(),
            message: message.into(),
            receiver: receiver.map(Arc::from),
            count: FlowCount {
                messages,
                bytes: messages * 128,
                first,
                last: first,
                ..FlowCount::default()
            },
        }
    }

    fn lines(records: Vec<Record>) -> Vec<Vec<u8>> {
        let line = |record| Entry {
            at_unix_ms: 1,
            record,
        };
        records.into_iter().map(|record| line(record).to_line()).collect()
    }

    #[test]
    fn a_flow_is_named_once_a_chapter_and_read_with_its_names() {
        let mut writer = FlowWriter::default();
        let mut reader = FlowReader::default();
        assert!(writer.write(Vec::new(), "p", 5).is_empty());
        let mut check = |sums: Vec<FlowSum>, now_ms: u64, names: usize| {
            let records = writer.write(sums.clone(), "p", now_ms);
            let [Record::Flows(flows)] = records.as_slice() else {
                panic!("{records:?}")
            };
            assert_eq!(flows.named.len(), names);
            let read = reader.read(flows);
            assert_eq!(read.len(), sums.len());
            for (read, sum) in read.iter().zip(&sums) {
                let NamedFlow(number, sender, message, receiver) = read.names.clone().unwrap();
                let names = (sender.into(), message.into(), receiver.map(Arc::from));
                assert_eq!(
                    names,
                    (sum.sender.clone(), sum.message.clone(), sum.receiver.clone())
                );
                let expected = FlowCount {
                    flow: number,
                    ..sum.count
                };
                assert_eq!(read.count, expected);
            }
            serde_json::to_string(flows).unwrap()
        };
        let two = || vec![sum("web", "a", Some("todos"), 7, 3), sum("web", "b", None, 1, 3)];
        check(two(), 1_000, 2);
        let again = check(two(), 2_000, 0);
        assert!(again.contains("[[0,7,896],[1,1,128]]"), "{again}");
        check(
            vec![sum("web", "b", None, 1, 4), sum("web", "c", None, 1, 4)],
            3_000,
            1,
        );
        check(two(), 3_600_999, 0);
        check(two(), 3_601_000, 2);
        check(two(), 500, 2);
    }

    #[test]
    fn records_are_no_longer_than_an_entry_can_be() {
        let mut writer = FlowWriter::default();
        let name = "n".repeat(240);
        let sums = |messages| -> Vec<_> {
            (0..5_000_u64)
                .map(|n| {
                    sum(
                        &format!("service-{}", n % 1_000),
                        &format!("{name}.{n}"),
                        Some("receiver"),
                        messages,
                        n,
                    )
                })
                .collect()
        };
        for messages in [1, u64::MAX / 128] {
            let records = writer.write(sums(messages), "policy", 7);
            let counts: usize = records
                .iter()
                .map(|record| match record {
                    Record::Flows(flows) => flows.counts.len(),
                    _ => 0,
                })
                .sum();
            assert_eq!(counts, 5_000);
            assert!(lines(records).iter().all(|line| line.len() <= ENTRY_BYTES_MAX));
        }
    }

    /// The arithmetic of docs/audit.md.
    #[test]
    fn five_thousand_busy_flows_cost_less_than_a_gibibyte_a_day() {
        let mut writer = FlowWriter::default();
        let sums: Vec<_> = (0..5_000_u64)
            .map(|n| {
                sum(
                    &format!("service-{}", n % 1_000),
                    &format!("orders.created.{n}"),
                    Some("receiver"),
                    10_000 + n,
                    n,
                )
            })
            .collect();
        let mut hour_bytes = 0;
        for interval in 0..360 {
            let records = writer.write(sums.clone(), "0123456789abcdef", 1_000 + interval * 10_000);
            hour_bytes += lines(records)
                .iter()
                .map(|line| line.len() + 2 + 32)
                .sum::<usize>();
        }
        assert!(hour_bytes * 24 < 1 << 30, "{} MiB a day", (hour_bytes * 24) >> 20);
    }
}
