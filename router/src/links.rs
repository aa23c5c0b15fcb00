//! The neighbour links there are, and what this node says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{Cost, LinkId, NodeId, Time};

use crate::flood::Backlog;

/// A change of cost is told when it is larger than a fifth of what was told …
const WORTH_TELLING: u32 = 5;
/// … and than this many microseconds …
const NOISE: u32 = 500;
/// … and not sooner than this after the last time. That a link is suspected, or gone, is told at
/// once.
pub(crate) const TELL_EVERY: Duration = Duration::from_secs(1);
/// That there is a link again is told this long after its loss was: a node that starts again is back
/// well within a second, and a link cannot come and go faster than it is dialled.
const RETURN_AFTER: Duration = Duration::from_millis(100);

/// All neighbour links.
#[derive(Debug, Default)]
pub(crate) struct Links {
    all: BTreeMap<LinkId, Link>,
    by_node: BTreeMap<NodeId, BTreeSet<LinkId>>,
    told: BTreeMap<NodeId, Told>,
}

/// One neighbour link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: NodeId,
    /// This node opened it.
    pub(crate) dialled: bool,
    pub(crate) since: Time,
    pub(crate) backlog: Backlog,
    /// Enough waits to be sent on it.
    pub(crate) full: bool,
    /// Since when nobody is known to want it.
    pub(crate) unwanted: Option<Time>,
    /// The network is told of it: it is one that this node opened and keeps. Of those that others
    /// opened, their word is waited for.
    pub(crate) announced: bool,
    /// It was asked to be closed.
    pub(crate) closing: bool,
    /// The other end told of somebody unknown: to be compared with soon, whoever opened the link.
    pub(crate) compare: bool,
    /// A digest was sent over it when it was opened.
    pub(crate) begun: bool,
    /// That was put off: to be compared unless that turns out to be of no use.
    pub(crate) put_off: bool,
    /// When a digest was last sent.
    pub(crate) compared: Time,
    /// A digest was sent by a node that knows nobody, and not answered yet.
    pub(crate) asked: bool,
    /// The records that were asked of the other end and have not come yet.
    pub(crate) awaited: usize,
    /// The other end hears from relays what this one hears from them.
    pub(crate) served: bool,
    cost: Cost,
    suspected: bool,
}

/// What the network was told of the links with one neighbour.
#[derive(Clone, Copy, Debug)]
struct Told {
    cost: Option<Cost>,
    at: Time,
}

/// What is to be done about an adjacency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// What was told is still good.
    Nothing,
    /// Say that the link costs this.
    Cost(Cost),
    /// Say that there is no link.
    Gone,
    /// There is news, which has to wait until then.
    Later(Time),
}

impl Links {
    pub(crate) fn add(&mut self, id: LinkId, link: Link) {
        self.by_node.entry(link.node).or_default().insert(id);
        self.all.insert(id, link);
    }

    pub(crate) fn remove(&mut self, id: LinkId) -> Option<Link> {
        let link = self.all.remove(&id)?;
        if let Some(ids) = self.by_node.get_mut(&link.node) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_node.remove(&link.node);
            }
        }
        Some(link)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, id: LinkId) -> Option<&Link> {
        self.all.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.all.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.all.iter().map(|(id, link)| (*id, link))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (LinkId, &mut Link)> {
        self.all.iter_mut().map(|(id, link)| (*id, link))
    }

    /// The links with one node.
    pub(crate) fn with(&self, node: &NodeId) -> impl Iterator<Item = (LinkId, &Link)> {
        let ids = self.by_node.get(node).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.all.get(id)?)))
    }

    /// What a round trip with `node` costs: [`Cost::INFINITE`] when every link with it is
    /// suspected, `None` without a link.
    pub(crate) fn cost_to(&self, node: &NodeId) -> Option<Cost> {
        self.with(node).map(|(_, link)| link.cost()).min()
    }

    /// Whether there is a link with `node` that is not suspected.
    pub(crate) fn is_live(&self, node: &NodeId) -> bool {
        self.cost_to(node).is_some_and(Cost::is_finite)
    }

    /// What to tell the network of the links with `node`. What is told counts as told.
    pub(crate) fn telling(&mut self, node: NodeId, now: Time) -> Telling {
        let cost = self.cost_to(&node);
        let Some(told) = self.told.get(&node).copied() else {
            return cost.map_or(Telling::Nothing, |cost| self.tell(node, Some(cost), now));
        };
        let (urgent, news) = match (told.cost, cost) {
            (Some(told), Some(cost)) if told.is_finite() && cost.is_finite() => {
                let change = told.as_micros().abs_diff(cost.as_micros());
                (false, change > NOISE && change > told.as_micros() / WORTH_TELLING)
            }
            (Some(_), None) => (true, true),
            (Some(told), Some(cost)) => (told.is_finite(), told != cost),
            (None, Some(_)) => (false, true),
            (None, None) => (false, false),
        };
        let returns = told.cost.is_none_or(|cost| !cost.is_finite());
        let due = told.at + if returns { RETURN_AFTER } else { TELL_EVERY };
        match news {
            false => Telling::Nothing,
            true if urgent || due <= now => self.tell(node, cost, now),
            true => Telling::Later(due),
        }
    }

    /// Whether the network was told that there is a link with `node`.
    pub(crate) fn is_told(&self, node: &NodeId) -> bool {
        self.told.get(node).is_some_and(|told| told.cost.is_some())
    }

    /// Whether the network was told of any link that can be used.
    pub(crate) fn is_any_told(&self) -> bool {
        self.told.values().any(|told| told.cost.is_some_and(Cost::is_finite))
    }

    /// The neighbours of which something was told or is to be told.
    pub(crate) fn told(&self) -> impl Iterator<Item = &NodeId> {
        self.told.keys()
    }

    /// Forgets what was told of neighbours that are gone for long enough.
    pub(crate) fn tidy(&mut self, now: Time) {
        self.told.retain(|_, told| told.cost.is_some() || now.since(told.at) < TELL_EVERY);
    }

    fn tell(&mut self, node: NodeId, cost: Option<Cost>, now: Time) -> Telling {
        self.told.insert(node, Told { cost, at: now });
        cost.map_or(Telling::Gone, Telling::Cost)
    }
}

impl Link {
    pub(crate) fn up(node: NodeId, cost: Cost, dialled: bool, now: Time, backlog: usize) -> Self {
        Self {
            node,
            dialled,
            since: now,
            backlog: Backlog::new(backlog),
            full: false,
            unwanted: None,
            announced: false,
            closing: false,
            compare: false,
            begun: false,
            put_off: false,
            compared: now,
            asked: false,
            awaited: 0,
            served: false,
            cost: at_least_something(cost),
            suspected: !cost.is_finite(),
        }
    }

    pub(crate) fn cost(&self) -> Cost {
        if self.suspected { Cost::INFINITE } else { self.cost }
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.suspected
    }

    pub(crate) fn measured(&mut self, cost: Cost) {
        self.cost = at_least_something(cost);
    }

    pub(crate) fn suspect(&mut self) {
        self.suspected = true;
    }

    pub(crate) fn recover(&mut self, cost: Cost) {
        self.suspected = !cost.is_finite();
        self.measured(cost);
    }
}

/// No link is free, or a detour over many of them would be.
fn at_least_something(cost: Cost) -> Cost {
    cost.max(Cost::from_micros(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId::from_bytes([2; 32]);

    fn at(millis: u64) -> Time {
        Time::from_micros(millis * 1000)
    }

    fn cost(micros: u32) -> Cost {
        Cost::from_micros(micros)
    }

    fn linked() -> Links {
        let mut links = Links::default();
        links.add(LinkId(1), Link::up(PEER, cost(10_000), true, at(0), 8));
        assert_eq!(links.telling(PEER, at(0)), Telling::Cost(cost(10_000)));
        links
    }

    #[test]
    fn noise_is_not_told_and_real_changes_wait_their_turn() {
        let mut links = linked();
        links.get_mut(LinkId(1)).unwrap().measured(cost(11_900));
        assert_eq!(links.telling(PEER, at(5_000)), Telling::Nothing);
        links.get_mut(LinkId(1)).unwrap().measured(cost(13_000));
        assert_eq!(links.telling(PEER, at(300)), Telling::Later(at(1_000)));
        assert_eq!(links.telling(PEER, at(1_000)), Telling::Cost(cost(13_000)));
    }

    #[test]
    fn suspicion_is_told_at_once_and_recovery_soon_after() {
        let mut links = linked();
        links.get_mut(LinkId(1)).unwrap().suspect();
        assert_eq!(links.telling(PEER, at(10)), Telling::Cost(Cost::INFINITE));
        links.get_mut(LinkId(1)).unwrap().recover(cost(10_000));
        assert_eq!(links.telling(PEER, at(20)), Telling::Later(at(110)));
        links.get_mut(LinkId(1)).unwrap().suspect();
        assert_eq!(links.telling(PEER, at(30)), Telling::Nothing);
    }

    #[test]
    fn of_several_links_the_best_live_one_counts() {
        let mut links = linked();
        links.add(LinkId(2), Link::up(PEER, cost(500), false, at(0), 8));
        assert_eq!(links.cost_to(&PEER), Some(cost(500)));
        links.get_mut(LinkId(2)).unwrap().suspect();
        assert_eq!(links.cost_to(&PEER), Some(cost(10_000)));
        links.remove(LinkId(1));
        assert_eq!(links.cost_to(&PEER), Some(Cost::INFINITE));
        links.remove(LinkId(2));
        assert_eq!(links.telling(PEER, at(1)), Telling::Gone);
    }
}
