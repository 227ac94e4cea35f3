//! Patterns by their tokens: which of them match a name, or overlap a pattern, without trying each.
//!
//! A node is reached by one path only, so a walk visits no node twice: however the wildcards are arranged, it
//! costs at most one step for each node, and with a service's bit set at most one for each token that this
//! service's own patterns spell. It cannot grow exponentially with the length of a name.

use std::ops::ControlFlow;

use rustc_hash::FxHashMap;

use crate::wire::name::{Pattern, Token};

/// A node's place in its trie.
pub(super) type NodeId = u32;

/// Something for each pattern.
#[derive(Debug)]
pub(super) struct PatternTrie<V> {
    nodes: Vec<Node<V>>,
}

#[derive(Debug)]
struct Node<V> {
    literals: FxHashMap<Box<str>, NodeId>,
    one: Option<NodeId>,
    /// Of the pattern that ends here.
    here: Option<V>,
    /// Of the pattern that ends in a `>` after this node.
    rest: Option<V>,
}

impl<V> PatternTrie<V> {
    pub(super) const ROOT: NodeId = 0;

    pub(super) fn new() -> Self {
        Self {
            nodes: vec![Node::new()],
        }
    }

    /// Where the pattern's value goes; tells the nodes on the way there, which are numbered as they appear.
    pub(super) fn slot(&mut self, pattern: &Pattern, mut on_the_way: impl FnMut(NodeId)) -> &mut Option<V> {
        let mut at = Self::ROOT;
        on_the_way(at);
        for token in pattern.tokens() {
            let node_count = self.nodes.len() as NodeId;
            let node = self.node_mut(at);
            let child = match token {
                Token::Literal(literal) => match node.literals.get(literal) {
                    Some(&child) => child,
                    None => *node.literals.entry(literal.into()).or_insert(node_count),
                },
                Token::One => *node.one.get_or_insert(node_count),
                Token::Rest => return &mut self.node_mut(at).rest,
            };
            if child == node_count {
                self.nodes.push(Node::new());
            }
            at = child;
            on_the_way(at);
        }
        &mut self.node_mut(at).here
    }

    /// Visits the values of all patterns that match the name, the most specific first: token by token from the
    /// left, a literal comes before `*`, and `*` before `>`. A node that `enter` refuses is skipped with all
    /// below it.
    pub(super) fn visit_matching<'t, B>(
        &'t self,
        name: &str,
        enter: &impl Fn(NodeId) -> bool,
        visit: &mut impl FnMut(&'t V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.matching_below(Self::ROOT, Some(name), enter, visit)
    }

    fn matching_below<'t, B>(
        &'t self,
        at: NodeId,
        name: Option<&str>,
        enter: &impl Fn(NodeId) -> bool,
        visit: &mut impl FnMut(&'t V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !enter(at) {
            return ControlFlow::Continue(());
        }
        let node = self.node(at);
        let Some(name) = name else {
            return node.here.iter().try_for_each(visit);
        };
        if !node.literals.is_empty() || node.one.is_some() {
            let (token, remainder) = match memchr::memchr(b'.', name.as_bytes()) {
                Some(dot) => (name.get(..dot).unwrap_or_default(), name.get(dot + 1..)),
                None => (name, None),
            };
            if let Some(&child) = node.literals.get(token) {
                self.matching_below(child, remainder, enter, visit)?;
            }
            if let Some(child) = node.one {
                self.matching_below(child, remainder, enter, visit)?;
            }
        }
        node.rest.iter().try_for_each(visit)
    }

    /// Visits the values of all patterns that have a name in common with this one.
    pub(super) fn visit_overlapping<'t, B>(
        &'t self,
        pattern: &Pattern,
        visit: &mut impl FnMut(&'t V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let tokens: Vec<_> = pattern.tokens().collect();
        self.overlapping_below(Self::ROOT, &tokens, visit)
    }

    fn overlapping_below<'t, B>(
        &'t self,
        at: NodeId,
        tokens: &[Token<'_>],
        visit: &mut impl FnMut(&'t V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let node = self.node(at);
        let Some((token, remainder)) = tokens.split_first() else {
            return node.here.iter().try_for_each(visit);
        };
        node.rest.iter().try_for_each(&mut *visit)?;
        match token {
            Token::Literal(literal) => {
                for &child in node.literals.get(*literal).into_iter().chain(&node.one) {
                    self.overlapping_below(child, remainder, visit)?;
                }
            }
            Token::One => {
                for &child in node.literals.values().chain(&node.one) {
                    self.overlapping_below(child, remainder, visit)?;
                }
            }
            Token::Rest => {
                for &child in node.literals.values().chain(&node.one) {
                    self.node(child).here.iter().try_for_each(&mut *visit)?;
                    self.overlapping_below(child, tokens, visit)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn node(&self, id: NodeId) -> &Node<V> {
        self.nodes
            .get(id as usize)
            .expect("a node's number is given out when it is pushed")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<V> {
        self.nodes
            .get_mut(id as usize)
            .expect("a node's number is given out when it is pushed")
    }
}

impl<V> Node<V> {
    fn new() -> Self {
        Self {
            literals: FxHashMap::default(),
            one: None,
            here: None,
            rest: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{any_name, any_pattern};

    fn trie_of(patterns: &[Pattern]) -> PatternTrie<Pattern> {
        let mut trie = PatternTrie::new();
        for pattern in patterns {
            *trie.slot(pattern, |_| {}) = Some(pattern.clone());
        }
        trie
    }

    fn matching(trie: &PatternTrie<Pattern>, name: &str) -> Vec<Pattern> {
        let mut found = Vec::new();
        let ControlFlow::<Infallible>::Continue(()) =
            trie.visit_matching(name, &|_| true, &mut |pattern: &Pattern| {
                found.push(pattern.clone());
                ControlFlow::Continue(())
            });
        found
    }

    /// The definition of specificity, spelled out.
    fn rank(pattern: &Pattern) -> Vec<u8> {
        let rank = |token| match token {
            Token::Literal(_) => 0,
            Token::One => 1,
            Token::Rest => 2,
        };
        pattern.tokens().map(rank).collect()
    }

    proptest! {
        #[test]
        fn matches_come_in_the_order_of_specificity(
            patterns in prop::collection::vec(any_pattern(), 0..12),
            name in any_name(),
        ) {
            let mut expected: Vec<_> =
                patterns.iter().filter(|pattern| pattern.matches(&name)).cloned().collect();
            expected.sort_by_key(rank);
            expected.dedup();
            prop_assert_eq!(matching(&trie_of(&patterns), name.as_str()), expected);
        }

        #[test]
        fn overlaps_agree_with_trying_each(
            patterns in prop::collection::vec(any_pattern(), 0..12),
            pattern in any_pattern(),
        ) {
            let mut expected: Vec<_> =
                patterns.iter().filter(|other| other.overlaps(&pattern)).cloned().collect();
            expected.sort();
            expected.dedup();
            let mut found = Vec::new();
            let trie = trie_of(&patterns);
            let ControlFlow::<Infallible>::Continue(()) =
                trie.visit_overlapping(&pattern, &mut |other: &Pattern| {
                    found.push(other.clone());
                    ControlFlow::Continue(())
                });
            found.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
