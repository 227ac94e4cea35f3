//! What was sent in all, by flow, over the flow records of a log.

use std::collections::BTreeMap;

use super::query::{each_entry, first_since};
use crate::audit::Record;
use crate::audit::flows::FlowReader;
use crate::audit::record::{FlowCount, NamedFlow};
use crate::disk::audit::Archive;
use crate::limits::AUDIT_CHAPTER_MS;

/// The sender, the message name, and the receiver.
type Names = (String, String, Option<String>);

/// The sums since a time. What has lost its names, since the record that names it was pruned, comes under the name
/// `>`.
pub(in crate::cli) fn sums_since(
    archive: &Archive,
    since_unix_ms: Option<u64>,
) -> anyhow::Result<BTreeMap<Names, FlowCount>> {
    let size = archive.claimed_size()?;
    let from = match since_unix_ms {
        Some(since) => first_since(archive, since.saturating_sub(AUDIT_CHAPTER_MS), size)?,
        None => 0,
    };
    let mut reader = FlowReader::default();
    let mut sums: BTreeMap<Names, FlowCount> = BTreeMap::new();
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
            let sum = sums.entry((sender, message, receiver)).or_default();
            sum.messages += flow.count.messages;
            sum.bytes += flow.count.bytes;
            sum.denied += flow.count.denied;
            sum.dropped += flow.count.dropped;
            sum.unreceived += flow.count.unreceived;
        }
        Ok(())
    })?;
    Ok(sums)
}
