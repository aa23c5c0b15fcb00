//! Adjacencies that both ends report.

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;
use proto::{Cost, NodeId};

/// Who says to be linked with whom.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    places: HashMap<NodeId, u32, FixedState>,
    nodes: Vec<Vertex>,
    free: BTreeSet<u32>,
}

/// One node of the graph; its place does not change while it is there.
#[derive(Debug)]
pub(crate) struct Vertex {
    pub(crate) id: NodeId,
    pub(crate) standing: Standing,
    /// By place of the other.
    pub(crate) claims: Vec<Claim>,
    /// How many claim a link with it.
    claimed: u32,
}

/// What a node may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not known to be a member: for nothing.
    #[default]
    Stranger,
    /// To be called. See [`crate::paths`] for what it means in the middle of a path.
    Leaf,
    /// To be called, and passed through.
    Relay,
}

/// "I am linked with that node."
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) to: u32,
    pub(crate) cost: Cost,
    /// The other says the same (RFC 2328 §16.1, step 2b: no link is used that only one end
    /// reports), and neither suspects it.
    pub(crate) usable: bool,
    /// The other says the same, suspected or not.
    pub(crate) mutual: bool,
}

impl Graph {
    /// Says that `near` has, or no longer has, a link with `far`. True if that changes anything.
    pub(crate) fn claim(&mut self, near: NodeId, far: NodeId, cost: Option<Cost>) -> bool {
        if near == far {
            return false;
        }
        let changed = match cost {
            Some(cost) => {
                let (near, far) = (self.place(near), self.place(far));
                self.put(near, far, cost)
            }
            None => match (self.places.get(&near), self.places.get(&far)) {
                (Some(&near), Some(&far)) => self.take(near, far),
                (_, _) => false,
            },
        };
        self.tidy(near);
        self.tidy(far);
        changed
    }

    /// Says what `node` may be used for. If that is news, returns what it was before.
    pub(crate) fn set_standing(&mut self, node: NodeId, standing: Standing) -> Option<Standing> {
        if standing == Standing::Stranger && !self.places.contains_key(&node) {
            return None;
        }
        let place = self.place(node) as usize;
        let before = std::mem::replace(&mut self.nodes[place].standing, standing);
        self.tidy(node);
        (before != standing).then_some(before)
    }

    pub(crate) fn find(&self, node: &NodeId) -> Option<u32> {
        self.places.get(node).copied()
    }

    pub(crate) fn vertex(&self, place: u32) -> &Vertex {
        &self.nodes[place as usize]
    }

    /// How many places there are, free ones included.
    pub(crate) fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The neighbours of `node` that say so too, with what `node` says the link costs.
    pub(crate) fn neighbours(&self, node: &NodeId) -> impl Iterator<Item = (NodeId, Cost)> {
        let claims = self.find(node).map_or(&[][..], |place| &self.vertex(place).claims);
        let mutual = claims.iter().filter(|claim| claim.mutual);
        mutual.map(|claim| (self.vertex(claim.to).id, claim.cost))
    }

    /// Whether `near` says that it has a link with `far`.
    pub(crate) fn claims(&self, near: &NodeId, far: &NodeId) -> bool {
        let places = self.find(near).zip(self.find(far));
        places.is_some_and(|(near, far)| self.seek(near, far).is_ok())
    }

    /// What the node at `near` says a link with that at `far` costs.
    pub(crate) fn cost(&self, near: u32, far: u32) -> Option<Cost> {
        let at = self.seek(near, far).ok()?;
        Some(self.vertex(near).claims[at].cost)
    }

    fn place(&mut self, node: NodeId) -> u32 {
        if let Some(&place) = self.places.get(&node) {
            return place;
        }
        let vertex =
            Vertex { id: node, standing: Standing::default(), claims: Vec::new(), claimed: 0 };
        let place = match self.free.pop_first() {
            Some(place) => {
                self.nodes[place as usize] = vertex;
                place
            }
            None => {
                self.nodes.push(vertex);
                u32::try_from(self.nodes.len() - 1).expect("records are bounded far below")
            }
        };
        self.places.insert(node, place);
        place
    }

    /// Frees the place of a node of which nothing is said any more.
    fn tidy(&mut self, node: NodeId) {
        let Some(&place) = self.places.get(&node) else { return };
        let vertex = &self.nodes[place as usize];
        let unused = vertex.standing == Standing::Stranger
            && vertex.claims.is_empty()
            && vertex.claimed == 0;
        if unused {
            self.places.remove(&node);
            self.free.insert(place);
        }
    }

    fn put(&mut self, near: u32, far: u32, cost: Cost) -> bool {
        match self.seek(near, far) {
            Ok(at) => {
                let claim = &mut self.nodes[near as usize].claims[at];
                if claim.cost == cost {
                    return false;
                }
                claim.cost = cost;
            }
            Err(at) => {
                let claim = Claim { to: far, cost, usable: false, mutual: false };
                self.nodes[near as usize].claims.insert(at, claim);
                self.nodes[far as usize].claimed += 1;
            }
        }
        self.agree(near, far);
        true
    }

    fn take(&mut self, near: u32, far: u32) -> bool {
        let Ok(at) = self.seek(near, far) else { return false };
        self.nodes[near as usize].claims.remove(at);
        self.nodes[far as usize].claimed -= 1;
        self.agree(near, far);
        true
    }

    /// Works out anew whether the two agree.
    fn agree(&mut self, a: u32, b: u32) {
        let (there, back) = (self.seek(a, b).ok(), self.seek(b, a).ok());
        let cost = |from: u32, at: usize| self.nodes[from as usize].claims[at].cost;
        let usable = match (there, back) {
            (Some(there), Some(back)) => cost(a, there).is_finite() && cost(b, back).is_finite(),
            (_, _) => false,
        };
        let mutual = there.is_some() && back.is_some();
        for (from, at) in [(a, there), (b, back)] {
            if let Some(at) = at {
                let claim = &mut self.nodes[from as usize].claims[at];
                (claim.usable, claim.mutual) = (usable, mutual);
            }
        }
    }

    fn seek(&self, near: u32, far: u32) -> Result<usize, usize> {
        self.nodes[near as usize].claims.binary_search_by_key(&far, |claim| claim.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn cost(micros: u32) -> Option<Cost> {
        Some(Cost::from_micros(micros))
    }

    fn usable(graph: &Graph, a: u8, b: u8) -> bool {
        let (Some(a), Some(b)) = (graph.find(&node(a)), graph.find(&node(b))) else { return false };
        graph.vertex(a).claims.iter().any(|claim| claim.to == b && claim.usable)
    }

    #[test]
    fn a_link_is_usable_while_both_ends_report_it_and_neither_suspects_it() {
        let mut graph = Graph::default();
        assert!(graph.claim(node(1), node(2), cost(10)));
        assert!(!usable(&graph, 1, 2));
        assert!(graph.claim(node(2), node(1), cost(20)));
        assert!(usable(&graph, 1, 2) && usable(&graph, 2, 1));
        assert!(!graph.claim(node(2), node(1), cost(20)), "nothing new");
        graph.claim(node(2), node(1), Some(Cost::INFINITE));
        assert!(!usable(&graph, 1, 2) && !usable(&graph, 2, 1));
        assert_eq!(graph.neighbours(&node(1)).count(), 1, "suspected is still reported");
        graph.claim(node(2), node(1), cost(5));
        assert!(usable(&graph, 1, 2));
        graph.claim(node(1), node(2), None);
        assert!(!usable(&graph, 2, 1));
    }

    #[test]
    fn a_place_is_freed_when_nothing_is_said_of_its_node() {
        let mut graph = Graph::default();
        graph.claim(node(1), node(2), cost(10));
        graph.set_standing(node(2), Standing::Leaf);
        graph.claim(node(1), node(2), None);
        assert_eq!((graph.find(&node(1)), graph.find(&node(2))), (None, Some(1)));
        graph.set_standing(node(2), Standing::Stranger);
        assert_eq!(graph.find(&node(2)), None);
        graph.claim(node(3), node(4), cost(1));
        assert_eq!(graph.places(), 2, "places are used again");
    }
}
