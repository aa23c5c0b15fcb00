//! Shortest paths from this node, over links that both ends agree on.
//!
//! A node without the relay role carries nothing for others. A path through one is still a proof
//! of life — its neighbours hear it, and say so — and is used as such where no path over relays is
//! known: nothing is sent along it, the call itself goes straight to its node.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proto::{Cost, NodeId};

use crate::graph::{Graph, Standing};

/// The way to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Of the whole path.
    pub(crate) cost: Cost,
    /// Its first neighbour; `None` for this node itself.
    pub(crate) next: Option<NodeId>,
}

/// How good a way is: paths over relays before others, then by cost, then by ids, so that all
/// nodes choose alike.
type Rank = (bool, Cost, NodeId);

/// The way to each place of the graph; `None` where there is none.
///
/// Dijkstra's algorithm over the whole graph: a millisecond for some thousands of nodes, and run at
/// most a few times a second (see [`crate::router`]).
pub(crate) fn shortest(graph: &Graph, me: &NodeId) -> Vec<Option<Way>> {
    let mut ways: Vec<Option<Way>> = vec![None; graph.places()];
    let mut best: Vec<Option<Rank>> = vec![None; graph.places()];
    let Some(start) = graph.find(me) else { return ways };
    let mut open = BinaryHeap::new();
    best[start as usize] = Some((false, Cost::ZERO, *me));
    open.push(Reverse(((false, Cost::ZERO, *me), start, None::<NodeId>)));
    while let Some(Reverse((rank, place, next))) = open.pop() {
        if ways[place as usize].is_some() {
            continue;
        }
        ways[place as usize] = Some(Way { cost: rank.1, next });
        let vertex = graph.vertex(place);
        let over_leaf = rank.0 || (place != start && vertex.standing != Standing::Relay);
        for claim in vertex.claims.iter().filter(|claim| claim.usable) {
            let there = graph.vertex(claim.to);
            if there.standing == Standing::Stranger || ways[claim.to as usize].is_some() {
                continue;
            }
            let rank = (over_leaf, rank.1.via(claim.cost), vertex.id);
            if !rank.1.is_finite() || best[claim.to as usize].is_some_and(|best| best <= rank) {
                continue;
            }
            best[claim.to as usize] = Some(rank);
            open.push(Reverse((rank, claim.to, next.or(Some(there.id)))));
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let way = shortest(graph, &node(1))[graph.find(&node(to)).unwrap() as usize]?;
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
}
