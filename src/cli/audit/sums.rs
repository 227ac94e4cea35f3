//! What was sent and denied in all, over the records of a log.

use std::collections::BTreeMap;

use super::query::{each_entry, first_since};
use crate::audit::Record;
use crate::audit::flows::FlowReader;
use crate::audit::record::{FlowCount, NamedFlow};
use crate::disk::audit::Archive;
use crate::limits::AUDIT_CHAPTER_MS;

/// The sender, the message name, and the receiver.
pub(super) type Names = (String, String, Option<String>);

/// A service, what it tried (`publish`, `subscribe` and so on), and with which name.
type Tried = (String, String, String);

/// How often what was denied since a time. Past `apart_max` names the rest is counted under the name `>`.
pub(in crate::cli) fn denials_since(
    archive: &Archive,
    since_unix_ms: Option<u64>,
    apart_max: usize,
) -> anyhow::Result<BTreeMap<Tried, u64>> {
    let size = archive.claimed_size()?;
    let from = match since_unix_ms {
        Some(since) => first_since(archive, since, size)?,
        None => 0,
    };
    let mut denials: BTreeMap<Tried, u64> = BTreeMap::new();
    each_entry(archive, from, size, |_, entry| {
        let Ok(entry) = entry else { return Ok(()) };
        let is_older = since_unix_ms.is_some_and(|since| entry.at_unix_ms < since);
        if let Record::Denial {
            sender,
            action,
            subject,
            count,
            ..
        } = entry.record
            && !is_older
        {
            let mut tried = (sender, action, subject);
            if denials.len() >= apart_max && !denials.contains_key(&tried) {
                tried.2 = ">".to_owned();
            }
            let sum = denials.entry(tried).or_default();
            *sum = sum.saturating_add(count);
        }
        Ok(())
    })?;
    Ok(denials)
}

/// The sums since a time. What has lost its names, since the record that names it was pruned, comes under the name
/// `>`.
pub(in crate::cli) fn sums_since(
    archive: &Archive,
    since_unix_ms: Option<u64>,
) -> anyhow::Result<BTreeMap<Names, FlowCount>> {
    let mut sums: BTreeMap<Names, FlowCount> = BTreeMap::new();
    each_flow(archive, since_unix_ms, |_, names, count| {
        let sum = sums.entry(names).or_default();
        sum.messages += count.messages;
        sum.bytes += count.bytes;
        sum.denied += count.denied;
        sum.dropped += count.dropped;
        sum.unreceived += count.unreceived;
        Ok(())
    })?;
    Ok(sums)
}

/// What was sent in each flow, record by record since a time, with the time of the record.
pub(super) fn each_flow(
    archive: &Archive,
    since_unix_ms: Option<u64>,
    mut take: impl FnMut(u64, Names, &FlowCount) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let size = archive.claimed_size()?;
    let from = match since_unix_ms {
        Some(since) => first_since(archive, since.saturating_sub(AUDIT_CHAPTER_MS), size)?,
        None => 0,
    };
    let mut reader = FlowReader::default();
    each_entry(archive, from, size, |_, entry| {
        let Ok(entry) = entry else { return Ok(()) };
        let Record::Flows(flows) = &entry.record else {
            return Ok(());
        };
        // Also those before: they may name the flows of those that count.
        let read = reader.read(flows);
        if since_unix_ms.is_some_and(|since| entry.at_unix_ms < since) {
            return Ok(());
        }
        for flow in read {
            let unknown = || NamedFlow(0, "?".into(), ">".into(), None);
            let NamedFlow(_, sender, message, receiver) = flow.names.unwrap_or_else(unknown);
            take(entry.at_unix_ms, (sender, message, receiver), &flow.count)?;
        }
        Ok(())
    })?;
    Ok(())
}
