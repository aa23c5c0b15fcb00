//! Which links to keep.
//!
//! Every node keeps links to the nearest relays and, unless relays pass on between the two, to its
//! successor on the ring of ids, so that all that can hear each other are connected. Towards a
//! successor that cannot be reached it keeps trying, so that a network that fell apart finds
//! together again; meanwhile the next on the ring takes its place. Relays do the same among
//! themselves. A node accepts links from anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{NodeId, Time};

use crate::chance::Chance;

/// Relays that a leaf, and a relay, keep links to.
const RELAYS: (usize, usize) = (2, 3);
/// Dials under way at once.
const MAX_DIALS: usize = 24;
/// Of them, to nodes that nobody can reach. A dial that nobody answers takes seconds: with few at
/// once, who lost everybody would wait for the dead before it asks the living.
const MAX_SEARCHES: usize = 16;
/// Nodes that nobody can reach, of which one is tried now and then.
const MAX_SOUGHT: usize = 256;
/// A dial of which nothing was heard for this long has failed.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The first wait after a failed dial; doubled with each.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest wait at first: shorter than that between two packets of a dial …
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// … and once a node has not answered for [`PATIENCE`].
const RARE_RETRY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);
/// A link to a relay is left for a nearer one no more often than this: what is measured of a link
/// may never agree with what is expected of a path.
const IMPROVE_EVERY: Duration = Duration::from_secs(300);
/// A link that ends sooner than this counts as a failed dial.
pub(crate) const TOO_SHORT: Duration = Duration::from_secs(5);

/// The dials of one node.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    dials: BTreeMap<NodeId, Dial>,
    improved: Option<Time>,
}

/// A node that is not linked and should be.
#[derive(Clone, Copy, Debug)]
struct Dial {
    failures: u32,
    first_failure: Time,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting { until: Time },
    Dialling { since: Time },
}

/// Another member, as far as the choice of neighbours goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    /// There is a path to it.
    pub(crate) reachable: bool,
    /// There is a link with it that is not suspected.
    pub(crate) linked: bool,
    /// It hears the relays that this node hears: what it says comes here without a link with it.
    pub(crate) served: bool,
    /// Smaller is nearer: the same region first, then by cost.
    pub(crate) distance: (bool, proto::Cost),
}

/// Which links there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Links to keep, or to open.
    pub(crate) keep: BTreeSet<NodeId>,
    /// Nodes that nobody can reach, to be tried now and then.
    pub(crate) seek: BTreeSet<NodeId>,
    /// A relay at less than half the cost of the farthest that is linked.
    pub(crate) nearer: Option<NodeId>,
}

/// Chooses. `ring` gives all other members, and `relays` those that are relays, each once around
/// from this node on; of the ring only as much is looked at as is needed.
pub(crate) fn choose(
    ring: impl DoubleEndedIterator<Item = Member> + Clone,
    relays: &[Member],
    am_relay: bool,
) -> Wanted {
    let mut wanted = Wanted::default();
    let count = if am_relay { RELAYS.1 } else { RELAYS.0 };
    let mut nearest: Vec<&Member> = relays.iter().collect();
    // Linked ones first: a link that is there is not given up for one that may be a little nearer.
    nearest.sort_by_key(|member| (!member.linked, !member.reachable, member.distance, member.id));
    let near = nearest.iter().take(count).copied();
    wanted.keep.extend(near.clone().filter(|relay| relay.is_alive()).map(|relay| relay.id));
    // With one relay less than it should have, a leaf holds on to its ring.
    let alone = !am_relay && wanted.keep.len() < count;
    wanted.beside(ring.map(|member| Member { served: member.served && !alone, ..member }));
    if am_relay {
        // Relays alone are connected as well: leaves need not carry their news (see `flood`).
        wanted.beside(relays.iter().map(|relay| Member { served: false, ..*relay }));
    }
    let farthest = near.clone().filter(|relay| relay.linked).map(|relay| relay.distance).max();
    let nearer = nearest.iter().filter(|relay| !relay.linked && relay.reachable).find(|relay| {
        farthest.is_some_and(|(elsewhere, cost)| {
            let half = proto::Cost::from_micros(cost.as_micros() / 2);
            relay.distance < (elsewhere, half)
        })
    });
    wanted.nearer = nearer.map(|relay| relay.id);
    // A leaf that has its relays leaves it to relays to find the lost ones.
    let lacks =
        if am_relay { count } else { count - near.clone().filter(|r| r.is_alive()).count() };
    let lost = nearest.iter().filter(|relay| !relay.is_alive()).take(lacks);
    wanted.seek.extend(lost.map(|relay| relay.id));
    wanted
}

impl Wanted {
    /// The next on a ring that is alive, and those before it that are not.
    fn beside(&mut self, mut ring: impl DoubleEndedIterator<Item = Member> + Clone) {
        let before = ring.clone();
        for member in ring.by_ref() {
            if member.is_alive() {
                self.keep.extend((!member.served).then_some(member.id));
                break;
            }
            if self.seek.len() < MAX_SOUGHT {
                self.seek.insert(member.id);
            }
        }
        // The predecessor would only have to open its link again if this one closed it.
        let last = before.rev().find(Member::is_alive);
        let last = last.filter(|member| member.linked && !member.served);
        self.keep.extend(last.map(|member| member.id));
    }
}

impl Member {
    fn is_alive(&self) -> bool {
        self.reachable || self.linked
    }
}

impl Neighbours {
    /// A dial ended, well or not. A good one is forgotten when its link is up.
    pub(crate) fn dialled(&mut self, node: NodeId, up: bool, now: Time, chance: &mut Chance) {
        if up {
            self.dials.remove(&node);
        } else if let Some(dial) = self.dials.get_mut(&node) {
            dial.fail(now, chance);
        }
    }

    /// A link went down after a short life: as good as a failed dial.
    pub(crate) fn lost(&mut self, node: NodeId, now: Time, chance: &mut Chance) {
        let fresh = Dial { failures: 0, first_failure: now, state: State::Dialling { since: now } };
        self.dials.entry(node).or_insert(fresh).fail(now, chance);
    }

    /// Whom to dial now, and when to ask again. `linked` have a link already, live or not.
    pub(crate) fn review(
        &mut self,
        mut wanted: Wanted,
        linked: impl Fn(&NodeId) -> bool,
        now: Time,
        chance: &mut Chance,
    ) -> (Vec<NodeId>, Option<Time>) {
        if self.improved.is_none_or(|last| now.since(last) >= IMPROVE_EVERY)
            && let Some(nearer) = wanted.nearer.take()
        {
            wanted.keep.insert(nearer);
            self.improved = Some(now);
        }
        for dial in self.dials.values_mut() {
            if let State::Dialling { since } = dial.state
                && now.since(since) >= DIAL_TIMEOUT
            {
                dial.fail(now, chance);
            }
        }
        self.dials.retain(|node, dial| {
            let sought = wanted.keep.contains(node) || wanted.seek.contains(node);
            !linked(node) && (sought || dial.is_under_way())
        });
        let mut under_way = self.dials.values().filter(|dial| dial.is_under_way()).count();
        let mut searches = self
            .dials
            .iter()
            .filter(|(node, dial)| dial.is_under_way() && !wanted.keep.contains(*node))
            .count();
        let mut now_due: Vec<(bool, Time, NodeId)> = Vec::new();
        for (search, nodes) in [(false, &wanted.keep), (true, &wanted.seek)] {
            for node in nodes.iter().filter(|node| !linked(node)) {
                match self.dials.get(node).map(|dial| dial.state) {
                    None => now_due.push((search, Time::ZERO, *node)),
                    Some(State::Waiting { until }) if until <= now => {
                        now_due.push((search, until, *node));
                    }
                    Some(State::Waiting { .. } | State::Dialling { .. }) => {}
                }
            }
        }
        now_due.sort_unstable();
        now_due.dedup_by_key(|(_, _, node)| *node);
        let mut dial = Vec::new();
        for (search, _, node) in now_due {
            if under_way >= MAX_DIALS || (search && searches >= MAX_SEARCHES) {
                continue;
            }
            under_way += 1;
            searches += usize::from(search);
            let fresh =
                Dial { failures: 0, first_failure: now, state: State::Waiting { until: now } };
            self.dials.entry(node).or_insert(fresh).state = State::Dialling { since: now };
            dial.push(node);
        }
        // What is due and had no room waits for a dial to end, which asks again.
        let times = self.dials.values().map(|dial| match dial.state {
            State::Waiting { until } => until,
            State::Dialling { since } => since + DIAL_TIMEOUT,
        });
        (dial, times.filter(|at| *at > now).min())
    }
}

impl Dial {
    fn is_under_way(&self) -> bool {
        matches!(self.state, State::Dialling { .. })
    }

    fn fail(&mut self, now: Time, chance: &mut Chance) {
        if self.failures == 0 {
            self.first_failure = now;
        }
        let longest =
            if now.since(self.first_failure) < PATIENCE { LONGEST_RETRY } else { RARE_RETRY };
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(16));
        let wait = chance.around(doubled.min(longest));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + wait };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Cost;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    /// A member, and whether it is a relay.
    fn member(n: u8, relay: bool, reachable: bool, linked: bool, cost: u32) -> (Member, bool) {
        let distance = (false, Cost::from_micros(cost));
        (Member { id: id(n), reachable, linked, served: false, distance }, relay)
    }

    fn chosen(ring: &[(Member, bool)], am_relay: bool) -> Wanted {
        let relays: Vec<_> = ring.iter().filter(|(_, relay)| *relay).map(|(one, _)| *one).collect();
        choose(ring.iter().map(|(one, _)| *one), &relays, am_relay)
    }

    fn ids(nodes: &[u8]) -> BTreeSet<NodeId> {
        nodes.iter().copied().map(id).collect()
    }

    #[test]
    fn the_next_on_the_ring_that_is_alive_and_the_nearest_relays() {
        let ring = [
            member(2, false, false, false, 0),
            member(3, false, true, false, 10),
            member(4, true, true, false, 30),
            member(5, true, true, false, 20),
            member(6, true, true, false, 10),
        ];
        let wanted = chosen(&ring, false);
        assert_eq!((wanted.keep, wanted.seek), (ids(&[3, 5, 6]), ids(&[2])));
        assert_eq!(chosen(&ring, true).keep, ids(&[3, 4, 5, 6]));
    }

    #[test]
    fn with_its_relays_a_leaf_keeps_no_link_to_a_successor_that_hears_them() {
        let mut ring = [
            member(2, false, true, true, 10),
            member(3, true, true, true, 10),
            member(4, true, true, true, 10),
            member(5, true, false, false, 10),
        ];
        ring[0].0.served = true;
        let wanted = chosen(&ring, false);
        assert_eq!((wanted.keep, wanted.seek), (ids(&[3, 4]), ids(&[])), "relays look for relays");
        let one_relay_less = [ring[0], ring[1], ring[3]];
        let wanted = chosen(&one_relay_less, false);
        assert_eq!((wanted.keep, wanted.seek), (ids(&[2, 3]), ids(&[5])));
        ring[0].0.served = false;
        assert_eq!(chosen(&ring, false).keep, ids(&[2, 3, 4]));
    }

    #[test]
    fn a_relay_keeps_the_next_relay_on_the_ring_however_far_it_is() {
        let ring = [
            member(2, false, true, true, 10),
            member(3, true, false, false, 0),
            member(4, true, true, false, 90_000),
            member(5, true, true, true, 10),
            member(6, true, true, true, 20),
            member(7, true, true, true, 30),
        ];
        let wanted = chosen(&ring, true);
        assert_eq!((wanted.keep, wanted.seek), (ids(&[2, 4, 5, 6, 7]), ids(&[3])));
        assert_eq!(chosen(&ring, false).keep, ids(&[2, 5, 6, 7]), "a leaf does not");
    }

    #[test]
    fn a_linked_relay_is_left_only_for_one_at_half_its_cost() {
        let far = |cost| {
            [
                member(2, true, true, true, 100),
                member(3, true, true, true, 100),
                member(4, true, true, false, cost),
            ]
        };
        assert_eq!(chosen(&far(60), false).nearer, None);
        let wanted = chosen(&far(40), false);
        assert_eq!((wanted.keep.clone(), wanted.nearer), (ids(&[2, 3]), Some(id(4))));
        // And not every moment.
        let (mut chance, mut neighbours) = (Chance::new(1), Neighbours::default());
        let linked = |node: &NodeId| *node != id(4);
        let now = Time::ZERO + IMPROVE_EVERY;
        assert_eq!(neighbours.review(wanted.clone(), linked, now, &mut chance).0, [id(4)]);
        neighbours.dialled(id(4), true, now, &mut chance);
        assert_eq!(neighbours.review(wanted.clone(), linked, now, &mut chance).0, []);
        let later = now + IMPROVE_EVERY;
        assert_eq!(neighbours.review(wanted, linked, later, &mut chance).0, [id(4)]);
    }

    #[test]
    fn failed_dials_wait_longer_each_time_and_are_bounded() {
        let mut chance = Chance::new(1);
        let mut neighbours = Neighbours::default();
        let sought: Vec<u8> = (3..).take(MAX_SEARCHES + 1).collect();
        let wanted = Wanted { keep: ids(&[2]), seek: ids(&sought), nearer: None };
        let now = Time::ZERO;
        let (dial, next) = neighbours.review(wanted.clone(), |_| false, now, &mut chance);
        let first: Vec<_> = (2..).map(id).take(MAX_SEARCHES + 1).collect();
        assert_eq!(dial, first, "one and so many searches at once");
        assert_eq!(next, Some(now + DIAL_TIMEOUT));
        neighbours.dialled(id(2), false, now, &mut chance);
        let (dial, next) = neighbours.review(wanted.clone(), |_| false, now, &mut chance);
        assert_eq!(dial, []);
        let wait = next.unwrap() - now;
        assert!(wait >= FIRST_RETRY * 3 / 4 && wait <= FIRST_RETRY * 5 / 4);
        let later = next.unwrap();
        let (dial, _) = neighbours.review(wanted.clone(), |_| false, later, &mut chance);
        assert_eq!(dial, [id(2)]);
        neighbours.dialled(id(2), false, later, &mut chance);
        let (_, next) = neighbours.review(wanted.clone(), |_| false, later, &mut chance);
        assert!(next.unwrap() - later > wait);
    }

    #[test]
    fn a_dial_without_an_answer_has_failed() {
        let mut chance = Chance::new(1);
        let mut neighbours = Neighbours::default();
        let wanted = Wanted { keep: ids(&[2]), ..Wanted::default() };
        neighbours.review(wanted.clone(), |_| false, Time::ZERO, &mut chance);
        let late = Time::ZERO + DIAL_TIMEOUT;
        let (dial, next) = neighbours.review(wanted.clone(), |_| false, late, &mut chance);
        assert!(dial.is_empty() && next.unwrap() > late);
    }
}
