//! Shortest paths from this node, over links that both ends agree on.
//!
//! A node without the relay role carries nothing for others. A path through one is still a proof
//! of life — its neighbours hear it, and say so — and is used as such where no path over relays is
//! known: nothing is sent along it, the call itself goes straight to its node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};

use foldhash::fast::FixedState;
use proto::{Cost, NodeId};

use crate::graph::{Graph, Standing, Vertex};

/// The way to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Of the whole path.
    pub(crate) cost: Cost,
    /// Its first neighbour; `None` for this node itself.
    pub(crate) next: Option<NodeId>,
    /// It leads through a leaf.
    over_leaf: bool,
}

/// The best way to a place found so far: its cost, its last step's place, and its first's.
#[derive(Clone, Copy, Debug)]
struct Step {
    cost: Cost,
    from: u32,
    first: u32,
}

/// The ways from this node to all others.
///
/// Most changes are of leaves, and a leaf is in the middle of nothing: then only its own way is
/// looked for. All others are worked out anew when something has changed between relays, or where a
/// path through a leaf is the only one.
#[derive(Debug)]
pub(crate) struct Paths {
    me: NodeId,
    ways: HashMap<NodeId, Way, FixedState>,
    /// Of them, those over leaves.
    over_leaves: usize,
    stale: Stale,
}

/// What has changed since the ways were worked out.
#[derive(Debug)]
enum Stale {
    /// Only what leads to these.
    Leaves(BTreeSet<NodeId>),
    All,
}

/// What a working of paths has changed.
#[derive(Debug)]
pub(crate) struct Changed {
    /// The nodes to which the way is another, or lost or found, by id.
    pub(crate) nodes: Vec<NodeId>,
    /// Not only leaves had changed.
    pub(crate) relays: bool,
}

impl Paths {
    pub(crate) fn new(me: NodeId) -> Self {
        Self { me, ways: HashMap::default(), over_leaves: 0, stale: Stale::All }
    }

    /// The way to `node`, as last worked out.
    pub(crate) fn to(&self, node: &NodeId) -> Option<Way> {
        self.ways.get(node).copied()
    }

    /// Whether anybody but this node itself is reached.
    pub(crate) fn reach_others(&self) -> bool {
        self.ways.len() > 1
    }

    /// Whether anything has changed since.
    pub(crate) fn is_stale(&self) -> bool {
        match &self.stale {
            Stale::Leaves(leaves) => !leaves.is_empty(),
            Stale::All => true,
        }
    }

    /// What `near` or `far` says of the link between them has changed.
    pub(crate) fn link_changed(&mut self, graph: &Graph, near: NodeId, far: NodeId) {
        let carries = |node: &NodeId| {
            let relay = |place| graph.vertex(place).standing == Standing::Relay;
            *node == self.me || graph.find(node).is_some_and(relay)
        };
        match [near, far].map(|node| carries(&node)) {
            [true, true] => self.stale = Stale::All,
            [true, false] => self.leaf_changed(far),
            [false, true] => self.leaf_changed(near),
            [false, false] => [near, far].into_iter().for_each(|leaf| self.leaf_changed(leaf)),
        }
    }

    /// What `node` may be used for has changed.
    pub(crate) fn standing_changed(&mut self, node: NodeId, before: Standing, now: Standing) {
        if [before, now].contains(&Standing::Relay) || node == self.me {
            self.stale = Stale::All;
        } else {
            self.leaf_changed(node);
        }
    }

    fn leaf_changed(&mut self, leaf: NodeId) {
        if let Stale::Leaves(leaves) = &mut self.stale {
            leaves.insert(leaf);
        }
    }

    /// Works out what is stale.
    pub(crate) fn work_out(&mut self, graph: &Graph) -> Changed {
        let stale = std::mem::replace(&mut self.stale, Stale::Leaves(BTreeSet::new()));
        let few = match stale {
            Stale::Leaves(leaves) if self.over_leaves == 0 => self.leaves(graph, leaves),
            Stale::Leaves(_) => None,
            Stale::All => return Changed { nodes: self.all(graph), relays: true },
        };
        Changed { nodes: few.unwrap_or_else(|| self.all(graph)), relays: false }
    }

    /// Works out the ways to `leaves`; `None`, with nothing changed, when that is not enough.
    fn leaves(&mut self, graph: &Graph, leaves: BTreeSet<NodeId>) -> Option<Vec<NodeId>> {
        let mut found = BTreeMap::new();
        for leaf in leaves {
            let at = graph.find(&leaf).map(|place| (place, graph.vertex(place)));
            let way = match at {
                Some((place, vertex)) if vertex.standing != Standing::Stranger => {
                    let way = self.over_relays(graph, place, vertex);
                    let hears_somebody = vertex.claims.iter().any(|claim| claim.usable);
                    if way.is_none() && hears_somebody {
                        return None;
                    }
                    way
                }
                Some(_) | None => None,
            };
            found.insert(leaf, way);
        }
        // Whoever is reached may be the only way to others that were not.
        let lost = |node: &Vertex| {
            let way = found.get(&node.id).copied().unwrap_or_else(|| self.to(&node.id));
            node.standing != Standing::Stranger && way.is_none()
        };
        let leads_on = |leaf: &NodeId| {
            let claims = graph.find(leaf).map_or(&[][..], |place| &graph.vertex(place).claims);
            claims.iter().any(|claim| claim.usable && lost(graph.vertex(claim.to)))
        };
        if found.iter().any(|(leaf, way)| way.is_some() && leads_on(leaf)) {
            return None;
        }
        found.retain(|leaf, way| self.to(leaf) != *way);
        for (leaf, way) in &found {
            match way {
                Some(way) => self.ways.insert(*leaf, *way),
                None => self.ways.remove(leaf),
            };
        }
        Some(found.into_keys().collect())
    }

    /// The best way to the leaf at `place` whose last step is from a relay, or from here.
    fn over_relays(&self, graph: &Graph, place: u32, leaf: &Vertex) -> Option<Way> {
        let last_steps = leaf.claims.iter().filter(|claim| claim.usable).filter_map(|claim| {
            let near = graph.vertex(claim.to);
            if near.id != self.me && near.standing != Standing::Relay {
                return None;
            }
            let way = self.ways.get(&near.id).filter(|way| !way.over_leaf)?;
            let last = graph.cost(claim.to, place)?.max(Cost::from_micros(1));
            let cost = way.cost.via(last);
            let way = Way { cost, next: way.next.or(Some(leaf.id)), over_leaf: false };
            cost.is_finite().then_some(((cost, near.id), way))
        });
        last_steps.min_by_key(|(rank, _)| *rank).map(|(_, way)| way)
    }

    /// Works out the ways to everybody.
    fn all(&mut self, graph: &Graph) -> Vec<NodeId> {
        let ways = shortest(graph, &self.me);
        self.over_leaves = ways.values().filter(|way| way.over_leaf).count();
        let before = std::mem::replace(&mut self.ways, ways);
        let gone = before.keys().filter(|node| !self.ways.contains_key(*node));
        let changed = self.ways.iter().filter(|(node, way)| before.get(*node) != Some(way));
        let mut nodes: Vec<_> = gone.chain(changed.map(|(node, _)| node)).copied().collect();
        nodes.sort_unstable();
        nodes
    }
}

/// The way to each node; none to those that cannot be reached.
///
/// Dijkstra's algorithm over the whole graph: a millisecond for some thousands of nodes, and run at
/// most a few times a second (see [`crate::router`]). Over relays first; to whom that does not lead,
/// over everybody, each step by cost alone. So whoever follows the answers of the nodes on the way
/// comes nearer with each step, and once relays lead on, they lead to the end: there are no loops.
fn shortest(graph: &Graph, me: &NodeId) -> HashMap<NodeId, Way, FixedState> {
    let mut ways = HashMap::default();
    let Some(start) = graph.find(me) else { return ways };
    spread(graph, start, &mut ways, false);
    let places = 0..u32::try_from(graph.places()).expect("places are numbered so");
    let is_left = |vertex: &Vertex| {
        vertex.standing != Standing::Stranger
            && !ways.contains_key(&vertex.id)
            && vertex.claims.iter().any(|claim| claim.usable)
    };
    if places.into_iter().any(|place| is_left(graph.vertex(place))) {
        spread(graph, start, &mut ways, true);
    }
    ways
}

/// Adds the ways to nodes that have none yet, through relays or, if `over_leaf`, through anybody.
/// Of equal ways that whose last but one has the lower id is taken, so that all nodes choose alike.
fn spread(graph: &Graph, start: u32, ways: &mut HashMap<NodeId, Way, FixedState>, over_leaf: bool) {
    let mut steps: Vec<Option<Step>> = vec![None; graph.places()];
    let mut done = vec![false; graph.places()];
    let mut open = BinaryHeap::from([Reverse((Cost::ZERO, start))]);
    while let Some(Reverse((cost, place))) = open.pop() {
        if std::mem::replace(&mut done[place as usize], true) {
            continue;
        }
        let vertex = graph.vertex(place);
        let first = steps[place as usize].map(|step| step.first);
        let next = first.map(|first| graph.vertex(first).id);
        ways.entry(vertex.id).or_insert(Way { cost, next, over_leaf });
        if !over_leaf && place != start && vertex.standing != Standing::Relay {
            continue;
        }
        for claim in vertex.claims.iter().filter(|claim| claim.usable) {
            let there = graph.vertex(claim.to);
            if there.standing == Standing::Stranger || done[claim.to as usize] {
                continue;
            }
            // Whatever is claimed, each step costs something: nearer is nearer.
            let cost = cost.via(claim.cost.max(Cost::from_micros(1)));
            let better = steps[claim.to as usize].is_none_or(|best| {
                let from = || graph.vertex(best.from).id;
                cost < best.cost || cost == best.cost && vertex.id < from()
            });
            if cost.is_finite() && better {
                let first = first.unwrap_or(claim.to);
                steps[claim.to as usize] = Some(Step { cost, from: place, first });
                open.push(Reverse((cost, claim.to)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn graph(links: &[(u8, u8, u32)], relays: &[u8]) -> Graph {
        let mut graph = Graph::default();
        for &(a, b, cost) in links {
            for (a, b) in [(a, b), (b, a)] {
                graph.claim(node(a), node(b), Some(Cost::from_micros(cost)));
                let relay = relays.contains(&a);
                graph.set_standing(node(a), if relay { Standing::Relay } else { Standing::Leaf });
            }
        }
        graph
    }

    fn way(graph: &Graph, to: u8) -> Option<(u32, Option<NodeId>)> {
        let way = *shortest(graph, &node(1)).get(&node(to))?;
        Some((way.cost.as_micros(), way.next))
    }

    #[test]
    fn the_cheapest_path_over_relays_wins() {
        let graph = graph(&[(1, 2, 10), (2, 4, 10), (1, 3, 5), (3, 4, 30), (1, 4, 100)], &[2, 3]);
        assert_eq!(way(&graph, 1), Some((0, None)));
        assert_eq!(way(&graph, 4), Some((20, Some(node(2)))));
    }

    #[test]
    fn a_leaf_is_in_the_middle_only_as_a_last_proof_of_life() {
        let short_over_leaf = graph(&[(1, 2, 1), (2, 4, 1), (1, 3, 50), (3, 4, 50)], &[3]);
        assert_eq!(way(&short_over_leaf, 4), Some((100, Some(node(3)))));
        let only_leaf = graph(&[(1, 2, 1), (2, 4, 1)], &[]);
        assert_eq!(way(&only_leaf, 4), Some((2, Some(node(2)))));
    }

    #[test]
    fn of_equal_paths_the_one_by_the_lower_id_is_taken() {
        let graph = graph(&[(1, 3, 10), (3, 4, 10), (1, 2, 10), (2, 4, 10)], &[2, 3]);
        assert_eq!(way(&graph, 4), Some((20, Some(node(2)))));
    }

    #[test]
    fn strangers_and_suspected_links_are_not_used() {
        let mut graph = graph(&[(1, 2, 10), (2, 3, 10)], &[2]);
        assert_eq!(way(&graph, 3), Some((20, Some(node(2)))));
        graph.claim(node(3), node(2), Some(Cost::INFINITE));
        assert_eq!(way(&graph, 3), None);
        graph.claim(node(3), node(2), Some(Cost::from_micros(10)));
        graph.set_standing(node(2), Standing::Stranger);
        assert_eq!(way(&graph, 3), None);
    }

    /// One change of a graph of eight nodes.
    #[derive(Clone, Copy, Debug)]
    enum Change {
        Claim(u8, u8, Option<u32>),
        Standing(u8, Standing),
    }

    fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
        let cost = prop_oneof![4 => (1..20u32).prop_map(Some), 1 => Just(None)];
        let claim = (1..9u8, 1..9u8, cost).prop_map(|(a, b, cost)| Change::Claim(a, b, cost));
        let standing = prop_oneof![
            1 => Just(Standing::Stranger),
            3 => Just(Standing::Leaf),
            1 => Just(Standing::Relay)
        ];
        // The one whose ways these are is no stranger to itself.
        let standing = (1..9u8, standing).prop_map(|(n, s)| match (n, s) {
            (1, Standing::Stranger) => Change::Standing(1, Standing::Leaf),
            (n, s) => Change::Standing(n, s),
        });
        let one = prop_oneof![8 => claim, 1 => standing];
        prop::collection::vec(prop::collection::vec(one, 1..6), 1..40)
    }

    proptest! {
        #[test]
        fn who_follows_the_answers_of_the_nodes_on_the_way_arrives(
            links in prop::collection::vec((1..9u8, 1..9u8, 1..20u32), 1..16),
            relays in prop::collection::vec(1..9u8, 0..4),
        ) {
            let links: Vec<_> = links.into_iter().filter(|(a, b, _)| a != b).collect();
            let graph = graph(&links, &relays);
            let ways: BTreeMap<NodeId, _> =
                (1..9).map(|n| (node(n), shortest(&graph, &node(n)))).collect();
            for (from, to) in (1..9).flat_map(|a| (1..9).map(move |b| (node(a), node(b)))) {
                let mut at = from;
                for step in 0.. {
                    let Some(way) = ways[&at].get(&to) else { break };
                    let Some(next) = way.next else { break };
                    prop_assert!(step < 8, "a loop between {:?} and {:?}", from, to);
                    at = next;
                }
                prop_assert!(at == to || !ways[&from].contains_key(&to));
            }
        }

        #[test]
        fn ways_kept_up_to_date_are_those_worked_out_anew(batches in changes()) {
            let mut graph = Graph::default();
            let mut paths = Paths::new(node(1));
            for n in 1..9 {
                let standing = if n % 3 == 2 { Standing::Relay } else { Standing::Leaf };
                graph.set_standing(node(n), standing);
            }
            for batch in batches {
                let before = paths.ways.clone();
                for change in batch {
                    match change {
                        // Mostly both ends agree.
                        Change::Claim(a, b, cost) => {
                            let cost = cost.map(Cost::from_micros);
                            let back = cost.filter(|cost| cost.as_micros() != 7);
                            for (a, b, cost) in [(a, b, cost), (b, a, back)] {
                                if graph.claim(node(a), node(b), cost) {
                                    paths.link_changed(&graph, node(a), node(b));
                                }
                            }
                        }
                        Change::Standing(n, standing) => {
                            if let Some(was) = graph.set_standing(node(n), standing) {
                                paths.standing_changed(node(n), was, standing);
                            }
                        }
                    }
                }
                let changed = paths.work_out(&graph).nodes;
                let anew = shortest(&graph, &node(1));
                prop_assert_eq!(&paths.ways, &anew);
                let differs = |n: &NodeId| before.get(n) != anew.get(n);
                let all: Vec<_> = (1..9).map(node).filter(differs).collect();
                prop_assert_eq!(changed, all);
            }
        }
    }
}
