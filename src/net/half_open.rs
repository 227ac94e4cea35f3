//! Handshakes under way: how many there may be, from one address and in all, and which one makes room for a newcomer.
//!
//! Whoever shakes hands in earnest is done within milliseconds. So where all places are taken, the oldest handshake of
//! the address that has most gives way to the newcomer, if it has had its time: a crowd that holds every place cannot
//! keep others out. Reads no clock.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many handshakes there may be, and how long each may go on undisturbed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// In all.
    pub(super) max: usize,
    /// From one address.
    pub(super) per_address_max: usize,
    /// None gives way before this.
    pub(super) undisturbed_us: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct HalfOpen(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    total: usize,
    next_id: u64,
    by_address: HashMap<IpAddr, Here>,
}

#[derive(Debug, Default)]
struct Here {
    count: usize,
    /// Those that may have to give way, the oldest first.
    knocking: BTreeMap<u64, Knock>,
}

#[derive(Debug)]
struct Knock {
    since_us: u64,
    signal: Arc<Signal>,
}

/// Tells a handshake that it gives way.
#[derive(Debug, Default)]
struct Signal {
    come: Notify,
    /// Written and read by who holds the lock on all places.
    has_given_way: AtomicBool,
}

/// A place among the handshakes under way. It is given back when it is dropped.
#[derive(Debug)]
pub struct HalfOpenPlace {
    of: Arc<HalfOpen>,
    address: IpAddr,
    id: u64,
    signal: Arc<Signal>,
}

impl HalfOpen {
    /// Takes a place, or says which bound is reached.
    pub(super) fn take(
        self: &Arc<Self>,
        address: IpAddr,
        bounds: &Bounds,
        now_us: u64,
    ) -> Result<HalfOpenPlace, &'static str> {
        let address = party(address);
        let mut places = self.0.lock();
        let has_had_its_time = |knock: &Knock| now_us.saturating_sub(knock.since_us) >= bounds.undisturbed_us;
        let here = places.by_address.get(&address).map_or(0, |here| here.count);
        if here >= bounds.per_address_max {
            places
                .displace(address, has_had_its_time)
                .ok_or("half-open-per-address")?;
        } else if places.total >= bounds.max {
            let crowd = places.crowd().ok_or("half-open")?;
            places.displace(crowd, has_had_its_time).ok_or("half-open")?;
        }
        let id = places.next_id;
        places.next_id += 1;
        places.total += 1;
        let signal = Arc::new(Signal::default());
        let here = places.by_address.entry(address).or_default();
        here.count += 1;
        let knock = Knock {
            since_us: now_us,
            signal: Arc::clone(&signal),
        };
        here.knocking.insert(id, knock);
        Ok(HalfOpenPlace {
            of: Arc::clone(self),
            address,
            id,
            signal,
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().total
    }
}

impl Places {
    /// The address with the most handshakes; of several, the one with the oldest.
    fn crowd(&self) -> Option<IpAddr> {
        let oldest = |here: &Here| here.knocking.keys().next().copied();
        let crowds = self.by_address.iter().filter_map(|(address, here)| {
            Some((here.knocking.len(), std::cmp::Reverse(oldest(here)?), address))
        });
        crowds.max().map(|(_, _, address)| *address)
    }

    /// Takes its place from the oldest handshake of an address, if that has had its time.
    fn displace(&mut self, address: IpAddr, has_had_its_time: impl Fn(&Knock) -> bool) -> Option<()> {
        let here = self.by_address.get_mut(&address)?;
        let oldest = here
            .knocking
            .first_entry()
            .filter(|oldest| has_had_its_time(oldest.get()))?;
        let signal = oldest.remove().signal;
        signal.has_given_way.store(true, Relaxed);
        signal.come.notify_one();
        self.leave(address);
        Some(())
    }

    fn leave(&mut self, address: IpAddr) {
        self.total -= 1;
        if let Some(here) = self.by_address.get_mut(&address) {
            here.count -= 1;
            if here.count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl HalfOpenPlace {
    /// Does what a handshake does, until it has to give way to a newcomer: then there is no outcome. Afterwards the
    /// place is kept, and gives way to nobody.
    pub async fn hold<T>(&self, handshake: impl Future<Output = T>) -> Option<T> {
        let outcome = tokio::select! {
            biased;
            outcome = handshake => Some(outcome),
            () = self.signal.come.notified() => None,
        };
        if let Some(here) = self.of.0.lock().by_address.get_mut(&self.address) {
            here.knocking.remove(&self.id);
        }
        outcome.filter(|_| !self.signal.has_given_way.load(Relaxed))
    }
}

impl Drop for HalfOpenPlace {
    fn drop(&mut self) {
        let mut places = self.of.0.lock();
        if self.signal.has_given_way.load(Relaxed) {
            return;
        }
        if let Some(here) = places.by_address.get_mut(&self.address) {
            here.knocking.remove(&self.id);
        }
        places.leave(self.address);
    }
}

/// Whose address it is: in IPv6 everybody has 2^64 of them.
pub(super) fn party(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_party_has_one_address() {
        let check = |address: &str, expected: &str| {
            assert_eq!(
                party(address.parse().unwrap()),
                expected.parse::<IpAddr>().unwrap(),
                "{address}"
            );
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
        check("::1", "::");
    }

    #[test]
    fn the_crowd_makes_room_and_nobody_else() {
        let bounds = Bounds {
            max: 6,
            per_address_max: 4,
            undisturbed_us: 100,
        };
        let half_open = Arc::new(HalfOpen::default());
        let take = |host: u8, now_us: u64| half_open.take(IpAddr::from([192, 0, 2, host]), &bounds, now_us);
        let gone = |place: &HalfOpenPlace| place.signal.has_given_way.load(Relaxed);
        let crowd: Vec<_> = (0..4).map(|at_us| take(1, at_us).unwrap()).collect();
        let calm: Vec<_> = [2, 3].map(|host| take(host, 10).unwrap()).into();
        // Nobody has had their time yet.
        assert_eq!(take(1, 99).unwrap_err(), "half-open-per-address");
        assert_eq!(take(4, 99).unwrap_err(), "half-open");
        // The oldest of the same address, and of the largest crowd.
        let again = take(1, 101).unwrap();
        let newcomer = take(4, 102).unwrap();
        assert_eq!(
            crowd.iter().map(gone).collect::<Vec<_>>(),
            [true, true, false, false]
        );
        assert!(!calm.iter().any(gone));
        assert_eq!(half_open.count(), 6);
        drop((crowd, again, newcomer, calm));
        assert_eq!(half_open.count(), 0);
        assert!(half_open.0.lock().by_address.is_empty());
    }

    #[tokio::test]
    async fn what_is_done_gives_way_to_nobody() {
        let bounds = Bounds {
            max: 2,
            per_address_max: 2,
            undisturbed_us: 0,
        };
        let half_open = Arc::new(HalfOpen::default());
        let address = IpAddr::from([192, 0, 2, 1]);
        let take = || half_open.take(address, &bounds, 0);
        let (done, waiting) = (take().unwrap(), take().unwrap());
        assert_eq!(done.hold(std::future::ready(7)).await, Some(7));
        let third = take().unwrap();
        assert_eq!(waiting.hold(std::future::pending::<()>()).await, None);
        assert_eq!(third.hold(std::future::ready(8)).await, Some(8));
        assert_eq!(take().unwrap_err(), "half-open-per-address");
        drop(waiting);
        assert_eq!(half_open.count(), 2);
        drop((done, third));
        assert_eq!(half_open.count(), 0);
    }
}
