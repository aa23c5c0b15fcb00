//! The immutable answers: what is offered where, who is there, and which way.
//!
//! The router works them out when something changes, and publishes them as one value; a call loads
//! a pointer and looks up. A publication shares with the one before all that did not change: both
//! tables are cut into shards, and only the shards touched are copied.

mod bits;
mod block;
mod candidates;
mod index;
mod mismatch;
mod query;
mod service;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use proto::grant::Pattern;
use proto::record::PathKind;
use proto::{Cost, Epoch, LabelSet, NodeId, Roles, ServiceName, UnixTime};

use crate::rules::Rules;
use crate::topics::Topics;

pub use candidates::{Candidates, Matches};
pub use mismatch::Mismatch;
pub use query::Query;
pub use service::{Instance, InstanceKey, Lookup, ServiceRoutes, UNREACHABLE, VersionInfo};

/// Shards of each table. A publication copies one pointer a shard, and the entries of the shards
/// that changed.
const SHARDS: usize = 256;

type ServiceShard = HashMap<ServiceName, Arc<ServiceRoutes>, FixedState>;

/// All answers at one moment. Cheap to share, never changed.
#[derive(Clone)]
pub struct Routes {
    me: NodeId,
    generation: u64,
    services: Vec<Arc<ServiceShard>>,
    /// By the first byte of the id, each shard ordered: so the whole is ordered.
    nodes: Vec<Arc<[Arc<NodeRoute>]>>,
    service_count: usize,
    /// Services that have rules and no instance.
    waiting: Arc<BTreeMap<ServiceName, ServiceRoutes>>,
    topics: Arc<Topics>,
}

/// A node, as it describes itself, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRoute {
    /// Who it is.
    pub id: NodeId,
    /// How it is called; for people.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its labels.
    pub labels: LabelSet,
    /// What its grant lets it do.
    pub roles: Roles,
    /// The namespaces about whose services it may decide; none for most.
    pub decides: Vec<Pattern>,
    /// UDP addresses it may be reached at, best first.
    pub addresses: Arc<[SocketAddr]>,
    /// The release it runs.
    pub release: String,
    /// What the path to it costs; [`Cost::ZERO`] for this node, [`Cost::INFINITE`] when there is
    /// none.
    pub cost: Cost,
    /// The first neighbour on the path; `None` for this node, and when there is no path.
    pub next: Option<NodeId>,
    /// How many services it offers, whether believed or not.
    pub services: u32,
    /// When its grant ends.
    pub expires: UnixTime,
    /// Which life of the node.
    pub epoch: Epoch,
    /// Its links, as it reports them and the other end confirms, by neighbour.
    pub links: Arc<[Adjacent]>,
}

/// One end of a link that both ends report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adjacent {
    /// The neighbour.
    pub node: NodeId,
    /// What this end says a round trip costs; [`Cost::INFINITE`] while it suspects the link.
    pub cost: Cost,
    /// How packets travel.
    pub path: PathKind,
}

impl NodeRoute {
    /// Whether it may decide about the calls of a service.
    #[must_use]
    pub fn may_rule(&self, service: &ServiceName) -> bool {
        self.decides.iter().any(|pattern| pattern.covers(service.namespace()))
    }
}

impl Routes {
    /// What a node knows that knows nothing.
    #[must_use]
    pub fn empty(me: NodeId) -> Self {
        let (none, nobody) = (Arc::new(ServiceShard::default()), Arc::from([]));
        Self {
            me,
            generation: 0,
            services: vec![none; SHARDS],
            nodes: vec![nobody; SHARDS],
            service_count: 0,
            waiting: Arc::default(),
            topics: Arc::default(),
        }
    }

    /// Counts publications.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The instances of `service` (with its namespace, unless that is the default one) that carry
    /// what is asked for. Allocates nothing.
    #[must_use]
    pub fn lookup<'a>(&'a self, service: &str, query: impl Into<Query<'a>>) -> Lookup<'a> {
        self.service(service).map_or(Lookup::Unknown, |found| found.lookup(query))
    }

    /// Everything known of one service, unreachable instances included.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&ServiceRoutes> {
        self.services[service_shard(name)].get(name).map(|service| &**service)
    }

    /// Every service, by name. Sorts: for people and watchers, not for calls.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceRoutes>> {
        let mut all: Vec<_> = self.services.iter().flat_map(|shard| shard.values()).collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all.into_iter()
    }

    /// A service of which nothing is known but what operators decided about its calls: it has no
    /// instance, or none that is believed.
    #[must_use]
    pub fn waiting(&self, name: &str) -> Option<&ServiceRoutes> {
        self.waiting.get(name)
    }

    /// What operators decided about the calls of a service, whether it has instances or not.
    #[must_use]
    pub fn rules(&self, name: &str) -> Option<&Rules> {
        self.service(name).or_else(|| self.waiting(name))?.rules()
    }

    /// Every service with rules, by name. Sorts: for people, not for calls.
    pub fn ruled(&self) -> impl Iterator<Item = (&ServiceName, &Rules)> {
        let offered = self.services.iter().flat_map(|shard| shard.values()).map(|one| &**one);
        let all = offered.chain(self.waiting.values());
        let mut all: Vec<_> = all.filter_map(|one| Some((&one.name, one.rules()?))).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all.into_iter()
    }

    /// Which nodes want to hear of which topics, this one among them.
    #[must_use]
    pub fn topics(&self) -> &Arc<Topics> {
        &self.topics
    }

    /// Puts other topics in place of those there are.
    pub fn set_topics(&mut self, topics: Arc<Topics>) {
        self.topics = topics;
    }

    /// How many services there are.
    #[must_use]
    pub fn service_count(&self) -> usize {
        self.service_count
    }

    /// One node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeRoute> {
        let shard = &self.nodes[node_shard(id)];
        let at = shard.binary_search_by(|node| node.id.cmp(id)).ok()?;
        Some(&shard[at])
    }

    /// Every node that is a member, this one and unreachable ones included, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRoute> {
        self.nodes.iter().flat_map(|shard| shard.iter()).map(|node| &**node)
    }

    /// Every link that both ends report, once from each end, by id.
    pub fn adjacencies(&self) -> impl Iterator<Item = (NodeId, NodeId, Cost, PathKind)> {
        self.nodes()
            .flat_map(|near| near.links.iter().map(|far| (near.id, far.node, far.cost, far.path)))
    }

    /// The next publication: these services and nodes in place of those of the same name and id,
    /// or gone where `None`. A service without instances is none, and its rules wait for it.
    #[must_use]
    pub fn updated(
        &self,
        services: impl IntoIterator<Item = (ServiceName, Option<ServiceRoutes>)>,
        nodes: impl IntoIterator<Item = (NodeId, Option<NodeRoute>)>,
    ) -> Self {
        let mut next = self.clone();
        next.generation += 1;
        for (name, service) in services {
            let (service, waiting) = match service {
                Some(service) if service.instances.is_empty() => (None, Some(service)),
                service => (service, None),
            };
            if let Some(waiting) = waiting {
                Arc::make_mut(&mut next.waiting).insert(name.clone(), waiting);
            } else if next.waiting.contains_key(&name) {
                Arc::make_mut(&mut next.waiting).remove(&name);
            }
            let shard = Arc::make_mut(&mut next.services[service_shard(name.as_str())]);
            let before = match service {
                Some(service) => shard.insert(name, Arc::new(service)),
                None => {
                    next.service_count -= usize::from(shard.remove(&name).is_some());
                    continue;
                }
            };
            next.service_count += usize::from(before.is_none());
        }
        let mut by_shard: BTreeMap<usize, BTreeMap<NodeId, Option<NodeRoute>>> = BTreeMap::new();
        for (id, node) in nodes {
            by_shard.entry(node_shard(&id)).or_default().insert(id, node);
        }
        for (at, changed) in by_shard {
            let kept = next.nodes[at].iter().filter(|node| !changed.contains_key(&node.id));
            let mut shard: Vec<_> = kept.cloned().collect();
            shard.extend(changed.into_values().flatten().map(Arc::new));
            shard.sort_unstable_by_key(|node| node.id);
            next.nodes[at] = shard.into();
        }
        next
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.nodes().count();
        let (generation, services) = (self.generation, self.service_count);
        write!(f, "Routes(#{generation} at {:?}: {services} services, {nodes} nodes)", self.me)
    }
}

fn service_shard(name: &str) -> usize {
    // Another seed than the shards' own tables have, or each would use a 256th of its buckets.
    FixedState::with_seed(0x6d_6963_726f).hash_one(name) as usize % SHARDS
}

fn node_shard(id: &NodeId) -> usize {
    usize::from(id.as_bytes()[0])
}

#[cfg(test)]
pub(crate) use service::tests as tests_support;

#[cfg(test)]
mod tests {
    use super::service::tests::instance;
    use super::*;
    use proto::Selector;

    fn node(n: u8) -> NodeId {
        NodeId::from_bytes([n; 32])
    }

    fn service(name: &str, ids: &[&str]) -> (ServiceName, Option<ServiceRoutes>) {
        let name: ServiceName = name.parse().unwrap();
        let all = ids.iter().map(|id| instance(id, node(1), 0, 0, &[]));
        (name.clone(), Some(ServiceRoutes::new(name, 1, all.collect(), Arc::from([]))))
    }

    #[test]
    fn an_update_replaces_what_it_names_and_shares_the_rest() {
        let first =
            Routes::empty(node(1)).updated([service("a", &["1"]), service("b", &["1"])], []);
        let second = first.updated([service("a", &["1", "2"])], []);
        assert_eq!((first.generation(), second.generation()), (1, 2));
        assert_eq!(first.service("a").unwrap().instances.len(), 1);
        assert_eq!(second.service("a").unwrap().instances.len(), 2);
        assert!(std::ptr::eq(first.service("b").unwrap(), second.service("b").unwrap()));
        let third = second.updated([("a".parse().unwrap(), None)], []);
        assert!(third.service("a").is_none());
        let names: Vec<_> = third.services().map(|s| s.name.as_str().to_owned()).collect();
        assert_eq!((names, third.service_count()), (vec!["b".to_owned()], 1));
        assert!(matches!(third.lookup("a", &Selector::default()), Lookup::Unknown));
    }
}
