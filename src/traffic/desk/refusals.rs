//! Refused handshakes by the address they come from: a series each, as of the denials of a sender.
//!
//! Strangers have addresses without end. So many are watched apart; for a new one the address goes that was quiet for
//! the longest, and what comes from more of them at once is one series of its own.

use std::collections::HashSet;

use crate::limits::ALARM_ADDRESSES_MAX;
use crate::traffic::desk::{Desk, Measure, Stream};

/// The name of what comes from further addresses.
const OTHERS: &str = "other addresses";

impl Stream {
    fn refused(address: &str) -> Self {
        Self {
            measure: Measure::Refused,
            sender: address.into(),
            message: None,
            receiver: None,
        }
    }
}

impl Desk {
    /// Takes the handshakes that were refused in the tick that ends: by address, and those of further addresses. To be
    /// called before [`Desk::handle_tick`].
    pub fn handle_refused(&mut self, by_address: impl IntoIterator<Item = (String, u64)>, of_others: u64) {
        let mut of_others = of_others;
        let mut by_address: Vec<_> = by_address.into_iter().collect();
        if by_address.is_empty() && of_others == 0 {
            return;
        }
        // The worst first: where there is no room for all, they have it.
        by_address.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
        let by_stream: Vec<_> = by_address
            .into_iter()
            .map(|(address, count)| (Stream::refused(&address), count))
            .collect();
        let (mut places, mut quiet) = self.places(&by_stream.iter().map(|(stream, _)| stream).collect());
        for (stream, count) in by_stream {
            let has_place = self.learned.others.contains_key(&stream) || {
                if places == 0
                    && let Some(stream) = quiet.pop()
                {
                    self.learned.others.remove(&stream);
                    places = 1;
                }
                let has_place = places > 0;
                places -= usize::from(has_place);
                has_place
            };
            if has_place {
                *self.counts.entry(stream).or_default() += count;
            } else {
                of_others += count;
            }
        }
        if of_others > 0 {
            *self.counts.entry(Stream::refused(OTHERS)).or_default() += of_others;
        }
    }

    /// How many more addresses may be watched, and those that may be forgotten for others, the quietest last.
    fn places(&self, coming: &HashSet<&Stream>) -> (usize, Vec<Stream>) {
        let counted = self.learned.others.iter();
        let known: Vec<_> = counted
            .filter(|(stream, _)| stream.measure == Measure::Refused && *stream.sender != *OTHERS)
            .collect();
        let places = ALARM_ADDRESSES_MAX.saturating_sub(known.len());
        let mut quiet: Vec<_> = known
            .into_iter()
            .filter(|(stream, counted)| counted.open.is_none() && !coming.contains(stream))
            // What is quiet for longer is asked less often.
            .map(|(stream, counted)| (counted.due, stream.clone()))
            .collect();
        quiet.sort();
        (places, quiet.into_iter().map(|(_, stream)| stream).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::desk::Step;
    use crate::traffic::pace::Pace;

    const DAY: u64 = 8_640;
    const FIRST: u64 = 2_000 * DAY;

    fn tick(desk: &mut Desk, tick: u64, refused: &[(&str, u64)], of_others: u64) {
        desk.handle_refused(
            refused
                .iter()
                .map(|(address, count)| ((*address).to_owned(), *count)),
            of_others,
        );
        desk.handle_tick(tick);
    }

    /// A desk that has seen a tick, and nothing for two days.
    fn known() -> Desk {
        let mut desk = Desk::new(Pace::new(10));
        tick(&mut desk, FIRST, &[], 0);
        tick(&mut desk, FIRST + 2 * DAY, &[], 0);
        desk
    }

    fn opened(desk: &mut Desk) -> Vec<String> {
        let events = desk.poll().into_iter();
        let opened = events.filter(|(step, _)| *step == Step::Opened);
        opened
            .map(|(_, alarm)| format!("{} {}", alarm.finding.kind.name(), alarm.stream))
            .collect()
    }

    #[test]
    fn a_burst_from_one_address_is_its_own_alarm() {
        let mut desk = known();
        for at in 1..6 {
            tick(
                &mut desk,
                FIRST + 2 * DAY + at,
                &[("192.0.2.7", 40), ("192.0.2.8", 1)],
                0,
            );
        }
        assert_eq!(opened(&mut desk), ["burst refused handshakes from 192.0.2.7"]);
        for at in 6..12 {
            tick(&mut desk, FIRST + 2 * DAY + at, &[("192.0.2.7", 40)], 400);
        }
        assert_eq!(
            opened(&mut desk),
            ["burst refused handshakes from other addresses"]
        );
    }

    #[test]
    fn addresses_without_end_are_watched_in_little_memory_and_the_worst_apart() {
        let mut desk = known();
        for at in 1..8 {
            let crowd = (0..3 * ALARM_ADDRESSES_MAX).map(|host| (format!("2001:db8:{at}:{host:x}::/64"), 1));
            desk.handle_refused(crowd.chain([("192.0.2.7".to_owned(), 40)]), 0);
            desk.handle_tick(FIRST + 2 * DAY + at);
        }
        assert!(
            desk.watched().0 <= ALARM_ADDRESSES_MAX + 1,
            "{:?}",
            desk.watched()
        );
        let opened = opened(&mut desk);
        assert!(
            opened.contains(&"burst refused handshakes from 192.0.2.7".to_owned()),
            "{opened:?}"
        );
        assert!(
            opened.contains(&"burst refused handshakes from other addresses".to_owned()),
            "{opened:?}"
        );
    }
}
