//! Paths and answers are worked out, and published.

use std::sync::Arc;
use std::time::Duration;

use proto::record::{Body, Kind};
use proto::{Cost, NodeId, Role, ServiceName, Time, UnixTime};

use super::Router;
use crate::backbone::Backbone;
use crate::lsdb::{Origin, record_id};
use crate::output::{Note, Output};
use crate::routes::{Adjacent, Instance, NodeRoute, ServiceRoutes};
use crate::services::{self, Place};
use crate::timer::Timer;
use crate::topics::Topics;

/// How long changes gather before answers are worked out.
const GATHER: Duration = Duration::from_millis(3);
/// The wait between two workings of paths: at first, doubled with each, and at most.
const HOLD: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// After this long without a working the wait begins anew.
const CALM: Duration = Duration::from_secs(1);
/// The wait between two publications of links that changed no path.
const DRAW_EVERY: Duration = Duration::from_secs(1);

impl Router {
    pub(super) fn arm_paths(&mut self, now: Time) {
        self.timers.arm(Timer::Paths, now + GATHER);
    }

    /// Works out what is stale, paths only as often as the throttle lets it, and publishes it.
    pub(super) fn think(&mut self, now: Time) {
        if self.paths.is_stale() {
            let due = self.throttle.last.map_or(now, |last| last + self.throttle.hold);
            if due <= now {
                let calm = self.throttle.last.is_none_or(|last| now.since(last) > CALM);
                let longer = (self.throttle.hold * 2).clamp(HOLD.0, HOLD.1);
                self.throttle.hold = if calm { HOLD.0 } else { longer };
                self.throttle.last = Some(now);
                self.work_out_paths(now);
                self.timers.arm(Timer::Dial, now);
            } else {
                // All at once then: under a storm of changes nobody gains by seeing half of each.
                return self.timers.arm(Timer::Paths, due);
            }
        }
        self.draw(now);
        self.publish();
        self.review_catch_up(now);
    }

    /// Has links published that changed no path. They are for people: in a storm a little later.
    fn draw(&mut self, now: Time) {
        if self.stale.links.is_empty() {
            return;
        }
        let due = self.stale.drawn.map_or(now, |last| last + DRAW_EVERY);
        if due <= now {
            self.stale.nodes.append(&mut self.stale.links);
            self.stale.drawn = Some(now);
        } else {
            self.timers.arm(Timer::Paths, due);
        }
    }

    /// Paths to all nodes, and what follows for nodes, services and neighbours.
    pub(super) fn work_out_paths(&mut self, now: Time) {
        let changed = self.paths.work_out(&self.graph);
        let mut reached = Vec::new();
        for node in changed.nodes {
            let reachable = self.paths.to(&node).is_some();
            let unused_since = self.lsdb.origin(&node).map(Origin::since);
            if self.lsdb.set_reachable(&node, reachable, now) && node != self.me {
                self.note(if reachable { Note::Found(node) } else { Note::Lost(node) });
                reached.extend(unused_since.filter(|_| reachable).map(|since| (node, since)));
            }
            self.stale.nodes.insert(node);
            self.stale_services_of(node);
            if self.operators.contains(&node) {
                self.review_all_rules(now);
            }
        }
        self.tell_of_reached(&reached, now);
        if changed.relays {
            self.backbone = Backbone::of(&self.graph);
        }
        self.review_served(now);
    }

    /// Publishes what is stale, without working out paths anew.
    pub(super) fn publish(&mut self) {
        let names = std::mem::take(&mut self.stale.services);
        let nodes = std::mem::take(&mut self.stale.nodes);
        let mut services = Vec::new();
        for (name, origins) in names {
            let dirty = |instance: &Instance| origins.contains(&instance.node);
            let before = self.routes.service(name.as_str());
            let mut instances: Vec<Instance> = before.map_or(Vec::new(), |service| {
                service.instances.iter().filter(|one| !dirty(one)).cloned().collect()
            });
            for origin in &origins {
                match self.offered(&name, *origin) {
                    Offered::Nothing => {}
                    Offered::Instances(offered) => instances.extend(offered),
                    Offered::NotGranted => {
                        let (node, service) = (*origin, name.clone());
                        self.outputs.push_back(Output::Note(Note::NotGranted { node, service }));
                    }
                }
            }
            let generation = self.routes.generation() + 1;
            let rules = self.rules_of(&name);
            let next = (!instances.is_empty() || rules.is_some()).then(|| {
                let granted = self.offers.of(&name).filter_map(|node| self.granted(&name, node));
                let versions = services::versions(granted);
                let next = ServiceRoutes::new(name.clone(), generation, instances, versions);
                match rules {
                    Some((holds, carriers)) => next.with_carried(holds.set, holds.author, carriers),
                    None => next,
                }
            });
            let before = before.or_else(|| self.routes.waiting(name.as_str()));
            let same = match (before, &next) {
                (None, None) => true,
                (Some(before), Some(next)) => {
                    before.instances == next.instances
                        && before.versions == next.versions
                        && before.same_rules(next)
                }
                (_, _) => false,
            };
            if !same {
                services.push((name, next));
            }
        }
        let nodes = nodes.into_iter().map(|node| (node, self.node_route(node)));
        let nodes: Vec<_> =
            nodes.filter(|(id, node)| self.routes.node(id) != node.as_ref()).collect();
        let topics = self.believe_interests();
        if !(services.is_empty() && nodes.is_empty() && topics.is_none()) {
            let mut routes = self.routes.updated(services, nodes);
            if let Some(topics) = topics {
                routes.set_topics(topics);
            }
            self.routes = Arc::new(routes);
            self.outputs.push_back(Output::Routes(self.routes.clone()));
        }
    }

    /// Who wants what, if that has changed.
    fn believe_interests(&mut self) -> Option<Arc<Topics>> {
        let stale = std::mem::take(&mut self.stale.interests);
        let (mut topics, mut changed) = (Arc::clone(self.routes.topics()), false);
        for (node, bucket) in stale {
            let record = self.lsdb.get(&record_id(node, Kind::INTEREST, &[bucket]));
            let said = record.and_then(|record| match record.body() {
                Body::Interest(_, said) => Some(&**said),
                Body::Node(_)
                | Body::Adjacency(..)
                | Body::Service(..)
                | Body::Rules(..)
                | Body::Gone
                | Body::Unknown => None,
            });
            let grant = self.lsdb.node(&node).map(|node| node.credential.grant());
            changed |= self.interests.set(&mut topics, (node, bucket), said.zip(grant));
        }
        changed.then_some(topics)
    }

    fn offered(&self, name: &ServiceName, origin: NodeId) -> Offered {
        let id = record_id(origin, Kind::SERVICE, name.as_str().as_bytes());
        if self.lsdb.get(&id).and_then(|record| services::body(record)).is_none() {
            return Offered::Nothing;
        }
        let (Some(service), Some(node)) = (self.granted(name, &origin), self.lsdb.node(&origin))
        else {
            return Offered::NotGranted;
        };
        let cost = self.paths.to(&origin).map_or(Cost::INFINITE, |way| way.cost);
        let place = Place::of(origin, node, cost, (self.me, &self.node));
        Offered::Instances(services::instances(name, service, &place))
    }

    /// What `origin` says of a service, if its grant lets it.
    fn granted(&self, name: &ServiceName, origin: &NodeId) -> Option<&proto::record::Service> {
        let grant = self.lsdb.node(origin)?.credential.grant();
        let id = record_id(*origin, Kind::SERVICE, name.as_str().as_bytes());
        let (_, service) = services::body(self.lsdb.get(&id)?)?;
        grant.may_offer(name).then_some(service)
    }

    fn node_route(&self, id: NodeId) -> Option<NodeRoute> {
        let origin = self.lsdb.origin(&id)?;
        let node = origin.node()?;
        let way = self.paths.to(&id);
        let links = self.links_of(id, origin);
        let grant = node.credential.grant();
        let expires: UnixTime = node.credential.expires();
        Some(NodeRoute {
            id,
            name: node.name.clone(),
            region: node.region.clone(),
            labels: node.labels.clone(),
            roles: grant.roles,
            decides: if grant.roles.has(Role::Operator) {
                grant.namespaces.clone()
            } else {
                Vec::new()
            },
            addresses: node.addresses.clone().into(),
            release: node.release.clone(),
            cost: way.map_or(Cost::INFINITE, |way| way.cost),
            next: way.and_then(|way| way.next),
            services: u32::try_from(origin.services()).unwrap_or(u32::MAX),
            expires,
            epoch: origin.epoch(),
            links: links.into(),
        })
    }

    /// The links that `id` reports and the other ends confirm, by neighbour.
    fn links_of(&self, id: NodeId, origin: &Origin) -> Vec<Adjacent> {
        let mut mutual: Vec<_> = self.graph.neighbours(&id).collect();
        mutual.sort_unstable_by_key(|(far, _)| *far);
        let mut mutual = mutual.into_iter().peekable();
        let mut links = Vec::with_capacity(mutual.len());
        // Both are in the order of the neighbours' ids.
        for record in origin.records() {
            let Body::Adjacency(far, adjacency) = record.body() else { continue };
            while mutual.next_if(|(id, _)| id < far).is_some() {}
            if let Some((node, cost)) = mutual.next_if(|(id, _)| id == far) {
                links.push(Adjacent { node, cost, path: adjacency.path });
            }
        }
        links
    }
}

/// What becomes of a service record.
enum Offered {
    /// There is none.
    Nothing,
    /// These.
    Instances(Vec<Instance>),
    /// It is not believed.
    NotGranted,
}
