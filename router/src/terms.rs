//! When the grants of members end.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;
use proto::{NodeId, UnixTime};

/// The end of each member's grant.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    by_end: BTreeSet<(UnixTime, NodeId)>,
    of: HashMap<NodeId, UnixTime, FixedState>,
}

impl Terms {
    /// Says when the grant of `node` ends; `None` for who is no member.
    pub(crate) fn set(&mut self, node: NodeId, end: Option<UnixTime>) {
        let before = match end {
            Some(end) => self.of.insert(node, end),
            None => self.of.remove(&node),
        };
        if before == end {
            return;
        }
        if let Some(before) = before {
            self.by_end.remove(&(before, node));
        }
        self.by_end.extend(end.map(|end| (end, node)));
    }

    /// When the next one ends.
    pub(crate) fn next(&self) -> Option<UnixTime> {
        self.by_end.first().map(|(end, _)| *end)
    }

    /// Takes one that has ended at `now`.
    pub(crate) fn take_ended(&mut self, now: UnixTime) -> Option<NodeId> {
        let (_, node) = self.by_end.first().copied().filter(|(end, _)| *end <= now)?;
        self.set(node, None);
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_is_renewed_ends_once_at_its_new_end() {
        let (first, second) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let mut terms = Terms::default();
        terms.set(first, Some(UnixTime(10)));
        terms.set(second, Some(UnixTime(20)));
        terms.set(first, Some(UnixTime(30)));
        assert_eq!((terms.next(), terms.take_ended(UnixTime(19))), (Some(UnixTime(20)), None));
        terms.set(second, None);
        assert_eq!(terms.take_ended(UnixTime(30)), Some(first));
        assert_eq!((terms.next(), terms.take_ended(UnixTime(99))), (None, None));
    }
}
