//! The relays, in parts that hear each other without the help of leaves.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use proto::NodeId;

use crate::graph::{Graph, Standing};

/// Which relays pass news on to each other. A leaf that hears a part need not carry its news on to
/// others that hear the same part: see [`crate::flood`].
#[derive(Debug, Default)]
pub(crate) struct Backbone {
    parts: HashMap<NodeId, Part, FixedState>,
}

/// Relays that tell a leaf everything: where one falls silent the leaf misses nothing.
const TOLD_BY: usize = 2;

/// One part; the number means nothing but that it is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part(u32);

impl Backbone {
    /// The parts of `graph`, over links that both ends agree on.
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut parts = HashMap::default();
        let mut seen = vec![false; graph.places()];
        let is_relay = |place: u32| graph.vertex(place).standing == Standing::Relay;
        let relays = (0..u32::try_from(seen.len()).expect("places are numbered so"))
            .filter(|place| is_relay(*place));
        for (part, first) in (0..).map(Part).zip(relays) {
            let mut open = vec![first];
            while let Some(place) = open.pop() {
                if std::mem::replace(&mut seen[place as usize], true) {
                    continue;
                }
                let vertex = graph.vertex(place);
                parts.insert(vertex.id, part);
                let next = vertex.claims.iter().filter(|claim| claim.usable && is_relay(claim.to));
                open.extend(next.map(|claim| claim.to).filter(|place| !seen[*place as usize]));
            }
        }
        Self { parts }
    }

    /// The part that `relay` is of; `None` if it is not known as a relay.
    pub(crate) fn part(&self, relay: &NodeId) -> Option<Part> {
        self.parts.get(relay).copied()
    }

    /// Whether `node` is linked with a relay of `part` that is not `me`.
    pub(crate) fn is_heard_by(
        &self,
        part: Part,
        node: &NodeId,
        me: &NodeId,
        graph: &Graph,
    ) -> bool {
        let claims = graph.find(node).map_or(&[][..], |place| &graph.vertex(place).claims);
        let near =
            claims.iter().filter(|claim| claim.usable).map(|claim| graph.vertex(claim.to).id);
        near.into_iter().any(|near| near != *me && self.part(&near) == Some(part))
    }

    /// Whether `node` is linked with two relays of `part` that are nearer to it than `relay`, or
    /// with two and not with that.
    pub(crate) fn is_far(&self, part: Part, node: &NodeId, relay: &NodeId, graph: &Graph) -> bool {
        let claims = graph.find(node).map_or(&[][..], |place| &graph.vertex(place).claims);
        let usable = claims.iter().filter(|claim| claim.usable);
        let relays = || usable.clone().map(|claim| (claim.cost, graph.vertex(claim.to).id));
        let here = relays().find(|(_, id)| id == relay);
        let nearer = relays().filter(|other| here.is_none_or(|here| *other < here));
        nearer.filter(|(_, id)| self.part(id) == Some(part)).count() >= TOLD_BY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Cost;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    #[test]
    fn relays_are_of_one_part_while_relays_alone_connect_them() {
        let mut graph = Graph::default();
        let link = |graph: &mut Graph, a, b, cost| {
            graph.claim(node(a), node(b), Some(cost));
            graph.claim(node(b), node(a), Some(cost));
        };
        for n in 1..=6 {
            let standing = if n <= 4 { Standing::Relay } else { Standing::Leaf };
            graph.set_standing(node(n), standing);
        }
        let near = Cost::from_micros(10);
        for (a, b) in [(1, 2), (2, 3), (3, 5), (5, 4), (6, 4)] {
            link(&mut graph, a, b, near);
        }
        let backbone = Backbone::of(&graph);
        let part = |n| backbone.part(&node(n));
        assert_eq!(part(1), part(3));
        assert_ne!(part(1), part(4), "only a leaf is between them");
        assert_eq!(part(5), None);
        let hears =
            |n, relay| backbone.is_heard_by(part(relay).unwrap(), &node(n), &node(9), &graph);
        assert!(hears(5, 1) && hears(5, 4) && hears(6, 4) && !hears(6, 1));
        link(&mut graph, 6, 1, near);
        link(&mut graph, 6, 2, near);
        let far = |relay| backbone.is_far(part(1).unwrap(), &node(6), &node(relay), &graph);
        assert!(!far(1) && !far(2), "the two nearest tell it");
        link(&mut graph, 6, 3, near);
        let far = |relay| backbone.is_far(part(1).unwrap(), &node(6), &node(relay), &graph);
        assert_eq!([1, 2, 3].map(far), [false, false, true]);
        link(&mut graph, 2, 3, Cost::INFINITE);
        let suspected = Backbone::of(&graph);
        assert_ne!(suspected.part(&node(1)), suspected.part(&node(3)));
    }
}
