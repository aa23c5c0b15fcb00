//! Who gets a message, and by whom: decided once, where it is published.
//!
//! The nodes of this node's own region get it straight. Of each other region one node gets it and
//! passes it on: the nearest, relays before leaves. It is kept as long as it works and messages
//! flow, for two ways at once could change the order of what goes by them; when another has to be
//! chosen the number of the way rises, and what still comes by the old one is dropped at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::publish::head::{MAX_GROUPS, MAX_ONWARD};
use proto::publish::{Delivery, Onward};
use proto::topic::{QueueGroup, Topic};
use proto::{NodeId, Role, Time};

use super::{LANES, Wants};
use crate::routes::{NodeRoute, Routes};

/// After this long without a message on it a way is forgotten: nothing is under way on it any more.
pub const QUIET: Duration = Duration::from_secs(10);
/// How long a node that could not be reached is not chosen where there are others.
pub const AVOID: Duration = Duration::from_secs(2);
/// Ways that are remembered: to a thousand regions in all lanes.
const MAX_WAYS: usize = 16_384;

/// A message to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// To whom.
    pub to: NodeId,
    /// Which choice of a way it is.
    pub way: u64,
    /// For whom it is there.
    pub delivery: Delivery,
    /// To whom it is passed on from there.
    pub onward: Vec<Onward>,
}

/// Chooses. One a node: ways are remembered, and the turns of queue groups.
#[derive(Debug, Default)]
pub struct Planner {
    ways: BTreeMap<(Box<str>, u8), Way>,
    avoided: BTreeMap<NodeId, Time>,
    /// Counts choices of ways.
    chosen: u64,
    /// Counts messages, for turns.
    turn: u64,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    by: NodeId,
    number: u64,
    used: Time,
}

impl Planner {
    /// Who gets a message. `here` are the queue groups with a member on this node: it is nearest.
    /// `also` is a node that waits for it, whether its interest is known yet or not.
    pub fn plan(
        &mut self,
        routes: &Routes,
        namespace: &str,
        topic: &Topic,
        here: &[QueueGroup],
        also: Option<NodeId>,
        now: Time,
    ) -> Vec<Leg> {
        let mut plain: BTreeSet<NodeId> = also.into_iter().collect();
        let mut groups: BTreeMap<&QueueGroup, Vec<&Wants>> = BTreeMap::new();
        let me = routes.me();
        routes.topics().matches(namespace, topic, |wanted| {
            for wants in wanted.iter().filter(|wants| wants.node != me) {
                match &wants.group {
                    None => drop(plain.insert(wants.node)),
                    Some(group) if here.contains(group) => {}
                    Some(group) => groups.entry(group).or_default().push(wants),
                }
            }
        });
        let mut targets: BTreeMap<NodeId, Delivery> = BTreeMap::new();
        for node in plain {
            targets.entry(node).or_default().plain = true;
        }
        for (group, members) in groups {
            if let Some(node) = self.member(routes, &members, now) {
                let delivery = targets.entry(node).or_default();
                if delivery.groups.len() < MAX_GROUPS {
                    delivery.groups.push(group.clone());
                }
            }
        }
        self.legs(routes, topic, targets, now)
    }

    /// The legs to these nodes; none to those that cannot be reached.
    pub fn legs(
        &mut self,
        routes: &Routes,
        topic: &Topic,
        targets: BTreeMap<NodeId, Delivery>,
        now: Time,
    ) -> Vec<Leg> {
        if targets.is_empty() {
            return Vec::new();
        }
        let lane = topic.lane(LANES);
        let ours = routes.node(&routes.me()).map_or("", |node| &*node.region);
        let mut by_region: BTreeMap<&str, Vec<(&NodeRoute, Delivery)>> = BTreeMap::new();
        for (node, delivery) in targets {
            if let Some(node) = routes.node(&node).filter(|node| node.cost.is_finite()) {
                by_region.entry(&node.region).or_default().push((node, delivery));
            }
        }
        let mut legs = Vec::new();
        for (region, targets) in by_region {
            if region == ours {
                // Straight, and never otherwise: one way, that needs no number.
                let leg = |(node, delivery): (&NodeRoute, _)| Leg {
                    to: node.id,
                    way: 0,
                    delivery,
                    onward: Vec::new(),
                };
                legs.extend(targets.into_iter().map(leg));
                continue;
            }
            let way = self.way(routes, region, &targets, lane, now);
            let mut leg =
                Leg { to: way.by, way: way.number, delivery: Delivery::default(), onward: vec![] };
            for (node, delivery) in targets {
                if node.id == way.by {
                    leg.delivery = delivery;
                } else if leg.onward.len() < MAX_ONWARD {
                    leg.onward.push(Onward { node: node.id, way: way.number, to: delivery });
                }
            }
            legs.push(leg);
        }
        legs
    }

    /// Another member of a group, in place of one that could not be reached.
    pub fn instead(
        &mut self,
        routes: &Routes,
        namespace: &str,
        topic: &Topic,
        group: &QueueGroup,
        now: Time,
    ) -> Option<NodeId> {
        let mut members = Vec::new();
        let others = |wants: &&Wants| {
            wants.group.as_ref() == Some(group) && !self.is_avoided(&wants.node, now)
        };
        routes.topics().matches(namespace, topic, |wanted| {
            members.extend(wanted.iter().filter(others));
        });
        members.retain(|wants| wants.node != routes.me());
        self.member(routes, &members, now)
    }

    /// A node could not be reached: others are chosen for a while.
    pub fn failed(&mut self, node: NodeId, now: Time) {
        self.ways.retain(|_, way| way.by != node);
        self.avoided.insert(node, now + AVOID);
        self.avoided.retain(|_, until| *until > now);
    }

    fn is_avoided(&self, node: &NodeId, now: Time) -> bool {
        self.avoided.get(node).is_some_and(|until| *until > now)
    }

    /// Of the members of a group one of the nearest, in turn, each as often as it has subscribers.
    fn member(&mut self, routes: &Routes, members: &[&Wants], now: Time) -> Option<NodeId> {
        let ours = routes.node(&routes.me()).map_or("", |node| &*node.region);
        let distance = |wants: &Wants| {
            let node = routes.node(&wants.node).filter(|node| node.cost.is_finite())?;
            let near = node.region == ours;
            Some((self.is_avoided(&node.id, now), !near, crate::services::locality(node.cost)))
        };
        let nearest = members.iter().filter_map(|wants| distance(wants)).min()?;
        let among: Vec<_> =
            members.iter().filter(|wants| distance(wants) == Some(nearest)).collect();
        let all: u64 = among.iter().map(|wants| u64::from(wants.count)).sum();
        self.turn = self.turn.wrapping_add(1);
        let mut at = self.turn % all.max(1);
        for wants in &among {
            match at.checked_sub(u64::from(wants.count)) {
                Some(left) => at = left,
                None => return Some(wants.node),
            }
        }
        among.first().map(|wants| wants.node)
    }

    /// The way to a region: the one in use while it works, else by the nearest of `targets`.
    fn way(
        &mut self,
        routes: &Routes,
        region: &str,
        targets: &[(&NodeRoute, Delivery)],
        lane: u8,
        now: Time,
    ) -> Way {
        let works = |way: &Way| {
            let by = routes.node(&way.by).filter(|by| by.cost.is_finite());
            now.since(way.used) < QUIET && by.is_some_and(|by| by.region == region)
        };
        let key = (Box::from(region), lane);
        let way = match self.ways.get(&key).copied().filter(works) {
            Some(way) => Way { used: now, ..way },
            None => {
                let rank = |node: &&NodeRoute| {
                    (
                        self.is_avoided(&node.id, now),
                        !node.roles.has(Role::Relay),
                        node.cost,
                        node.id,
                    )
                };
                let nearest = targets.iter().map(|(node, _)| *node).min_by_key(rank);
                self.chosen += 1;
                let by = nearest.map_or(routes.me(), |node| node.id);
                Way { by, number: self.chosen, used: now }
            }
        };
        if self.ways.len() >= MAX_WAYS {
            self.ways.retain(|_, way| now.since(way.used) < QUIET);
            while self.ways.len() >= MAX_WAYS {
                self.ways.pop_first();
            }
        }
        self.ways.insert(key, way);
        way
    }
}
