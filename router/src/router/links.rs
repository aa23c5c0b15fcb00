//! Neighbour links come, go and change.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::record::{Adjacency, Body, Kind, PathKind};
use proto::{LinkId, NodeId, Time};

use super::Router;
use crate::input::LinkEvent;
use crate::links::{Link, Telling};
use crate::lsdb::{Origin, record_id};
use crate::neighbours::{self, Member, TOO_SHORT};
use crate::output::Output;
use crate::timer::Timer;

/// How long a link stays that nobody is known to want.
const GRACE: Duration = Duration::from_secs(15);
/// How long a node whose links are all new learns whom they lead to, before it looks for others.
const ARRIVAL: Duration = Duration::from_secs(1);

impl Router {
    pub(super) fn link_event(&mut self, id: LinkId, event: LinkEvent, now: Time) {
        if let LinkEvent::Up { node, cost, dialled } = event {
            let full = self.links.len() >= self.config.limits.links;
            if full || node == self.me || self.links.get(id).is_some() {
                return self.outputs.push_back(Output::Close(id));
            }
            let backlog = self.config.limits.backlog;
            self.links.add(id, Link::up(node, cost, dialled, now, backlog));
            self.neighbours.dialled(node, true, now, &mut self.chance);
            // Who speaks comes first: the rest is believed only from a member that is known.
            let own = self.lsdb.get(&record_id(self.me, Kind::NODE, b"")).cloned();
            own.into_iter().for_each(|own| self.push(id, own, now));
            let first = dialled && !self.links.is_any_told();
            if let Some(link) = self.links.get_mut(id).filter(|_| first) {
                link.announced = true;
            }
            self.adjacency(node, now);
            self.close_doubles(node);
            // One of the two begins to compare, or both would send what the other asks for. Who
            // hears the same relays is hearing the same news.
            let served = self.is_served(&node);
            if let Some(link) = self.links.get_mut(id) {
                link.served = served;
            }
            if dialled && !served {
                self.begin_compare(id, now);
            }
            return self.timers.arm(Timer::Dial, now);
        }
        let Some(link) = self.links.get_mut(id) else { return };
        let node = link.node;
        match event {
            LinkEvent::Up { .. } => {}
            LinkEvent::Full => return link.full = true,
            LinkEvent::Drained => {
                link.full = false;
                return self.arm_flood(now);
            }
            LinkEvent::Cost(cost) => link.measured(cost),
            LinkEvent::Suspected => link.suspect(),
            LinkEvent::Recovered(cost) => link.recover(cost),
            LinkEvent::Down => {
                let lived = now.since(link.since);
                let by_us = link.closing;
                self.links.remove(id);
                if lived < TOO_SHORT && !by_us && self.links.with(&node).next().is_none() {
                    self.neighbours.lost(node, now, &mut self.chance);
                }
            }
        }
        self.adjacency(node, now);
        if !matches!(event, LinkEvent::Cost(_)) {
            self.close_doubles(node);
            self.timers.arm(Timer::Dial, now);
        }
    }

    /// Tells the network of the links with `node`, if there is news.
    ///
    /// Who opened a link says first whether it is one to be kept; the other confirms it. Of those
    /// that are opened for a moment, as by who looks for the network, nobody hears.
    pub(super) fn adjacency(&mut self, node: NodeId, now: Time) {
        let kept = || {
            let ours = self.links.with(&node).any(|(_, link)| link.announced);
            ours || self.graph.claims(&node, &self.me)
        };
        if self.leaving || !(self.links.is_told(&node) || kept()) {
            return;
        }
        match self.links.telling(node, now) {
            Telling::Nothing => {}
            Telling::Cost(cost) => {
                let adjacency = Adjacency { cost, path: PathKind::Direct };
                self.write(Body::Adjacency(node, adjacency), now);
            }
            Telling::Gone => self.withdraw(Kind::ADJACENCY, node.as_bytes(), now),
            Telling::Later(at) => self.timers.arm(Timer::Cost, at),
        }
    }

    /// Tells what had to wait.
    pub(super) fn tell_costs(&mut self, now: Time) {
        let nodes: Vec<_> = self.links.told().copied().collect();
        for node in nodes {
            self.adjacency(node, now);
        }
    }

    /// Of several live links with one node keeps one: that which the lower of the two ids opened,
    /// then the newest. The end that opened the others closes them.
    fn close_doubles(&mut self, node: NodeId) {
        let best = |(id, link): &(LinkId, &Link)| {
            let by_lower = link.dialled == (self.me < node);
            (link.is_live() && !link.closing, by_lower, link.since, *id)
        };
        let Some((kept, link)) = self.links.with(&node).max_by_key(best) else { return };
        if !link.is_live() || link.closing {
            return;
        }
        let others = self.links.with(&node).filter(|(id, _)| *id != kept);
        let ours = others.filter(|(_, link)| link.dialled && !link.closing);
        let doubles: Vec<_> = ours.map(|(id, _)| id).collect();
        for id in doubles {
            self.close(id);
        }
    }

    fn close(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id) {
            link.closing = true;
            self.outputs.push_back(Output::Close(id));
        }
    }

    /// Dials who should be linked, and closes what nobody is known to want.
    pub(super) fn review_neighbours(&mut self, now: Time) {
        if self.leaving {
            return;
        }
        if let Some(until) = self.is_arriving(now) {
            return self.timers.arm(Timer::Dial, until);
        }
        let wanted = neighbours::choose(self.ring(), &self.relays(), self.is_relay());
        let links = &self.links;
        let linked = |node: &NodeId| {
            let mut with = links.with(node).filter(|(_, link)| !link.closing);
            with.any(|(_, link)| link.is_live())
        };
        let complete = wanted.keep.iter().all(linked);
        let keep = wanted.keep.clone();
        let (dials, next) = self.neighbours.review(wanted, linked, now, &mut self.chance);
        self.outputs.extend(dials.into_iter().map(Output::Dial));
        if let Some(next) = next {
            self.timers.arm(Timer::Dial, next);
        }
        self.announce(&keep, now);
        let mut over = Vec::new();
        for (id, link) in self.links.iter_mut() {
            if !link.dialled || link.closing || keep.contains(&link.node) {
                link.unwanted = None;
                continue;
            }
            let since = *link.unwanted.get_or_insert(now);
            if now.since(since) < GRACE {
                self.timers.arm(Timer::Dial, since + GRACE);
            } else if complete {
                over.push(id);
            }
        }
        for id in over {
            self.close(id);
        }
    }

    /// While the first link is so new that who is nearest, and who is next, is not known yet: until
    /// when that is waited for. What is learnt or reached meanwhile is looked at at once.
    fn is_arriving(&self, now: Time) -> Option<Time> {
        let newest =
            self.links.iter().filter(|(_, link)| link.is_live()).map(|(_, link)| link.since);
        let until = newest.max()? + ARRIVAL;
        let arriving = self.is_catching_up() || !self.paths.reach_others();
        (arriving && now < until).then_some(until)
    }

    /// Tells the network of links that this node opened: those it keeps, and those with nodes that
    /// nobody else reaches.
    fn announce(&mut self, keep: &BTreeSet<NodeId>, now: Time) {
        let alone = |node: &NodeId| !self.lsdb.origin(node).is_some_and(Origin::is_reachable);
        let new = self.links.iter().filter(|(_, link)| link.dialled && !link.announced);
        let new = new.filter(|(_, link)| keep.contains(&link.node) || alone(&link.node));
        let new: Vec<_> = new.map(|(id, link)| (id, link.node)).collect();
        for (id, node) in new {
            if let Some(link) = self.links.get_mut(id) {
                link.announced = true;
                self.adjacency(node, now);
            }
        }
    }

    /// All other members, once around the ring of ids, from this node on.
    fn ring(&self) -> impl DoubleEndedIterator<Item = Member> + Clone {
        self.lsdb.around(&self.me).filter_map(|(id, origin)| self.member(*id, origin))
    }

    /// The relays of the ring.
    fn relays(&self) -> Vec<Member> {
        let after = self.relays.range(self.me..).chain(self.relays.range(..self.me));
        let others = after.filter(|id| **id != self.me);
        others.filter_map(|id| self.member(*id, self.lsdb.origin(id)?)).collect()
    }

    fn member(&self, id: NodeId, origin: &Origin) -> Option<Member> {
        let node = origin.node()?;
        let cost = self.links.cost_to(&id).filter(|cost| cost.is_finite());
        let path = self.paths.to(&id).map(|way| way.cost);
        let cost = cost.or(path).unwrap_or(proto::Cost::INFINITE);
        Some(Member {
            id,
            reachable: origin.is_reachable(),
            linked: self.links.is_live(&id),
            served: self.is_beside(&id),
            distance: (node.region != self.node.region, cost),
        })
    }
}
