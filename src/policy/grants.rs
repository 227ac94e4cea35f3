//! Who holds which pattern: one trie for all services, in which a service's bit set closes the branches that
//! hold nothing of its own.
//!
//! Sending, receiving and the exceptions of receiving have a trie each. What a grant means is decided elsewhere.

use std::ops::ControlFlow;

use super::trie::{NodeId, PatternTrie};
use crate::wire::name::{MessageName, Pattern};

/// A service's place in the policy.
pub(super) type ServiceId = u32;

/// The patterns of all services.
#[derive(Debug)]
pub(super) struct GrantTrie {
    trie: PatternTrie<Holders>,
    /// For each node, the services that hold a pattern there or below.
    below: Vec<ServiceSet>,
}

/// The services that hold one pattern, ascending, each with the place of the pattern in its own list.
type Holders = Vec<(ServiceId, u32)>;

impl GrantTrie {
    /// Of each service's patterns, the services in ascending order.
    pub(super) fn new<'a>(
        service_count: usize,
        patterns: impl Iterator<Item = (ServiceId, u32, &'a Pattern)>,
    ) -> Self {
        let mut trie = PatternTrie::<Holders>::new();
        let mut below: Vec<Vec<ServiceId>> = vec![Vec::new()];
        for (service, place, pattern) in patterns {
            let holders = trie.slot(pattern, |node| {
                if node as usize == below.len() {
                    below.push(Vec::new());
                }
                if let Some(services) = below.get_mut(node as usize)
                    && services.last() != Some(&service)
                {
                    services.push(service);
                }
            });
            holders.get_or_insert_default().push((service, place));
        }
        let below = below
            .into_iter()
            .map(|services| ServiceSet::new(services, service_count))
            .collect();
        Self { trie, below }
    }

    /// The most specific of the service's patterns that matches the name: its place in the service's list.
    pub(super) fn find(&self, service: ServiceId, name: &MessageName) -> Option<u32> {
        let holds_below = |node: NodeId| {
            self.below
                .get(node as usize)
                .is_some_and(|services| services.contains(service))
        };
        let found =
            self.trie.visit_matching(
                name.as_str(),
                &holds_below,
                &mut |holders: &Holders| match holders.binary_search_by_key(&service, |&(holder, _)| holder) {
                    Ok(at) => ControlFlow::Break(holders.get(at).map(|&(_, place)| place)),
                    Err(_) => ControlFlow::Continue(()),
                },
            );
        found.break_value().flatten()
    }

    /// Visits every pattern, by its holder and its place in the holder's list, that has a name in common with
    /// this one.
    pub(super) fn visit_overlapping<B>(
        &self,
        pattern: &Pattern,
        visit: &mut impl FnMut(ServiceId, u32) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.trie.visit_overlapping(pattern, &mut |holders: &Holders| {
            holders
                .iter()
                .try_for_each(|&(service, place)| visit(service, place))
        })
    }
}

/// A set of services: a bit for each, or a list where that is smaller.
///
/// Most nodes belong to a few services of many. Bits alone would take memory by the product of nodes and
/// services; this takes at most four bytes for each token that the policy spells.
#[derive(Debug)]
enum ServiceSet {
    Few(Box<[ServiceId]>),
    Many(Box<[u64]>),
}

impl ServiceSet {
    /// Of ascending services.
    fn new(services: Vec<ServiceId>, service_count: usize) -> Self {
        let words = service_count.div_ceil(64);
        if services.len() * size_of::<ServiceId>() < words * size_of::<u64>() {
            return Self::Few(services.into());
        }
        let mut bits = vec![0_u64; words];
        for service in services {
            if let Some(word) = bits.get_mut(service as usize / 64) {
                *word |= 1 << (service % 64);
            }
        }
        Self::Many(bits.into())
    }

    fn contains(&self, service: ServiceId) -> bool {
        match self {
            Self::Few(services) => services.binary_search(&service).is_ok(),
            Self::Many(bits) => bits
                .get(service as usize / 64)
                .is_some_and(|word| word & (1 << (service % 64)) != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_set_takes_the_smaller_form_and_bits_where_both_are_as_small() {
        let is_list = |members: u32, service_count: usize| {
            matches!(
                ServiceSet::new((0..members).collect(), service_count),
                ServiceSet::Few(_)
            )
        };
        // A member of a list takes four bytes; bits take eight for each 64 services begun.
        assert!(is_list(1, 64));
        assert!(!is_list(2, 64));
        assert!(is_list(3, 65));
        assert!(!is_list(4, 128));
        assert!(is_list(31, 1_000));
        assert!(!is_list(32, 1_000));
        assert!(!is_list(1_000, 1_000));
    }

    proptest! {
        #[test]
        fn a_set_holds_what_it_was_made_of(
            members in prop::collection::btree_set(0_u32..300, 0..40),
            crowd in 0_usize..300,
        ) {
            let members: BTreeSet<_> = members.into_iter().chain(0..crowd as u32).collect();
            let set = ServiceSet::new(members.iter().copied().collect(), 300);
            for service in 0..310 {
                prop_assert_eq!(set.contains(service), members.contains(&service));
            }
        }
    }
}
