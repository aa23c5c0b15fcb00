//! The instances of one service, in the order in which they are to be tried.

use std::sync::Arc;

use proto::record::{Endpoint, Protocol};
use proto::{Cost, LabelSet, NodeId, Selector, ServiceName};

use super::index::Index;

/// The group of what cannot be reached.
pub const UNREACHABLE: u32 = u32::MAX;

/// One service, from all nodes.
#[derive(Clone, Debug)]
pub struct ServiceRoutes {
    /// Its name, with its namespace unless that is the default one.
    pub name: ServiceName,
    /// The generation in which anything of it changed last.
    pub changed: u64,
    /// By group, cost, node and id: nearest first, unreachable ones last.
    pub instances: Arc<[Instance]>,
    /// By version.
    pub versions: Arc<[VersionInfo]>,
    reachable: usize,
    index: Option<Arc<Index>>,
}

/// What programs say of one version of a service. Where nodes differ, the word of the first by id
/// holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// As programs name it.
    pub version: Arc<str>,
    /// What they say of it.
    pub metadata: LabelSet,
    /// What can be called on it.
    pub endpoints: Arc<[Endpoint]>,
}

/// Names an instance across publications, for counters beside the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey(pub u64);

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The same in every publication.
    pub key: InstanceKey,
    /// Unique among the instances of the service on its node.
    pub id: Arc<str>,
    /// The node it is on.
    pub node: NodeId,
    /// It is on this node.
    pub here: bool,
    /// `host:port` as its node dials it.
    pub address: Arc<str>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The version of the service it is.
    pub version: Arc<str>,
    /// Of its node, version and itself, later ones laid over earlier ones; `version`, `region`,
    /// `node` and `protocol` are always among them.
    pub labels: LabelSet,
    /// What the program says of this instance.
    pub metadata: LabelSet,
    /// What the path to its node costs.
    pub cost: Cost,
    /// Its locality: 0 on this node, then the same zone, the same region, and bands of cost;
    /// [`UNREACHABLE`] without a path.
    pub group: u32,
}

/// What a lookup finds.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// No such service.
    Unknown,
    /// There is the service, and no instance has what the selector asks for.
    NoMatch(&'a ServiceRoutes),
    /// There are such instances, and no path to any.
    Unreachable(&'a ServiceRoutes),
    /// Here they are.
    Found(Candidates<'a>),
}

impl ServiceRoutes {
    /// A service from its instances, in any order.
    #[must_use]
    pub fn new(
        name: ServiceName,
        changed: u64,
        mut instances: Vec<Instance>,
        versions: Arc<[VersionInfo]>,
    ) -> Self {
        instances.sort_unstable_by(|a, b| {
            (a.group, a.cost, a.node, &a.id)
                .cmp(&(b.group, b.cost, b.node, &b.id))
                .then_with(|| a.key.cmp(&b.key))
        });
        let reachable = instances.partition_point(|instance| instance.group != UNREACHABLE);
        let index = Index::of(&instances).map(Arc::new);
        Self { name, changed, instances: instances.into(), versions, reachable, index }
    }

    /// Those that can be reached, nearest first.
    #[must_use]
    pub fn reachable(&self) -> &[Instance] {
        &self.instances[..self.reachable]
    }

    /// The instances that carry what `selector` asks for.
    #[must_use]
    pub fn lookup<'a>(&'a self, selector: &'a Selector) -> Lookup<'a> {
        let mut matches = self.matching(selector);
        let Some(first) = matches.next_at() else { return Lookup::NoMatch(self) };
        if first >= self.reachable {
            return Lookup::Unreachable(self);
        }
        Lookup::Found(Candidates { service: self, selector, first })
    }

    fn matching<'a>(&'a self, selector: &'a Selector) -> Matches<'a> {
        let listed = self.index.as_ref().and_then(|index| index.narrowest(selector));
        let filter = (!selector.is_empty()).then_some(selector);
        Matches { instances: &self.instances, listed, filter, at: 0 }
    }
}

/// Instances that match and can be reached; at least one.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    service: &'a ServiceRoutes,
    selector: &'a Selector,
    /// Where the nearest is.
    first: usize,
}

impl<'a> Candidates<'a> {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &'a ServiceRoutes {
        self.service
    }

    /// The nearest of all.
    #[must_use]
    pub fn first(&self) -> &'a Instance {
        &self.service.instances[self.first]
    }

    /// Those of the nearest group that has any.
    #[must_use]
    pub fn nearest(&self) -> Matches<'a> {
        self.up_to(self.end_of_nearest())
    }

    /// All of them, nearest first.
    #[must_use]
    pub fn all(&self) -> Matches<'a> {
        self.up_to(self.service.reachable)
    }

    /// One of the nearest group, chosen by `chance`, without counting them: the first that matches
    /// from a place chosen evenly. Even among all when the selector is empty.
    #[must_use]
    pub fn pick(&self, chance: u64) -> &'a Instance {
        let end = self.end_of_nearest();
        let group = &self.service.instances[self.first..end];
        let start = ((u128::from(chance) * group.len() as u128) >> 64) as usize;
        let (before, after) = group.split_at(start);
        let mut round = after.iter().chain(before);
        round
            .find(|instance| self.selector.matches(&instance.labels))
            .unwrap_or_else(|| self.first())
    }

    fn end_of_nearest(&self) -> usize {
        let group = self.first().group;
        self.first
            + self.service.instances[self.first..].partition_point(|next| next.group == group)
    }

    fn up_to(&self, end: usize) -> Matches<'a> {
        let whole = self.service.matching(self.selector);
        Matches { instances: &self.service.instances[..end], ..whole }
    }
}

/// Instances that match, nearest first.
#[derive(Clone, Debug)]
pub struct Matches<'a> {
    instances: &'a [Instance],
    /// Places of the only ones that can match, ascending; `None`: any can.
    listed: Option<&'a [u32]>,
    filter: Option<&'a Selector>,
    at: usize,
}

impl Matches<'_> {
    fn next_at(&mut self) -> Option<usize> {
        loop {
            let at = match self.listed {
                Some(listed) => *listed.get(self.at)? as usize,
                None => self.at,
            };
            let instance = self.instances.get(at)?;
            self.at += 1;
            if self.filter.is_none_or(|selector| selector.matches(&instance.labels)) {
                return Some(at);
            }
        }
    }
}

impl<'a> Iterator for Matches<'a> {
    type Item = &'a Instance;

    fn next(&mut self) -> Option<&'a Instance> {
        let at = self.next_at()?;
        Some(&self.instances[at])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = self.listed.map_or(self.instances.len(), <[u32]>::len) - self.at;
        (if self.filter.is_none() { most } else { 0 }, Some(most))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An instance for tests.
    pub(in crate::routes) fn instance(
        id: &str,
        node: NodeId,
        group: u32,
        cost: u32,
        labels: &[(&str, &str)],
    ) -> Instance {
        Instance {
            key: InstanceKey(id.bytes().fold(u64::from(node.as_bytes()[0]), |key, byte| {
                key.wrapping_mul(257).wrapping_add(u64::from(byte))
            })),
            id: id.into(),
            node,
            here: group == 0,
            address: "127.0.0.1:1".into(),
            protocol: Protocol::Grpc,
            version: "latest".into(),
            labels: labels.iter().copied().collect(),
            metadata: LabelSet::default(),
            cost: Cost::from_micros(cost),
            group,
        }
    }

    /// 100 instances: `n` unique, `parity` odd or even, groups of ten, the last ten out of reach.
    fn hundred() -> ServiceRoutes {
        let one = |n: u32| {
            let text = n.to_string();
            let parity = if n.is_multiple_of(2) { "even" } else { "odd" };
            let group = if n >= 90 { UNREACHABLE } else { n / 10 };
            let labels = [("n", &*text), ("parity", parity), ("always", "")];
            let rare = if n == 77 { &[("rare", "yes")][..] } else { &[] };
            let labels: Vec<_> = labels.into_iter().chain(rare.iter().copied()).collect();
            instance(&format!("{n:03}"), NodeId::from_bytes([1; 32]), group, n, &labels)
        };
        let all = (0..100).rev().map(one).collect();
        ServiceRoutes::new("s".parse().unwrap(), 1, all, Arc::from([]))
    }

    #[test]
    fn with_and_without_the_index_the_same_is_found() {
        let service = hundred();
        assert!(service.index.is_some());
        for text in [
            "",
            "n=5",
            "n=95",
            "parity=odd",
            "parity=odd,n=5",
            "parity=odd,n=6",
            "rare",
            "always",
            "always,parity=even,rare",
            "nothing",
            "n=1000",
            "rare=yes,parity=odd",
        ] {
            let selector: Selector = text.parse().unwrap();
            let scan = |all: &[Instance]| {
                let found = all.iter().filter(|i| selector.matches(&i.labels));
                found.map(|i| i.id.clone()).collect::<Vec<_>>()
            };
            let all = scan(&service.instances);
            let near = scan(service.reachable());
            match service.lookup(&selector) {
                Lookup::Found(found) => {
                    let ids: Vec<_> = found.all().map(|i| i.id.clone()).collect();
                    assert_eq!(ids, near, "{text}");
                    assert_eq!(found.first().id, near[0]);
                    let group: Vec<_> = found.nearest().map(|i| i.id.clone()).collect();
                    assert!(found.nearest().all(|i| i.group == found.first().group));
                    assert_eq!(group[..], near[..group.len()], "{text}");
                    for chance in [0, u64::MAX / 2, u64::MAX] {
                        assert!(group.contains(&found.pick(chance).id), "{text}");
                    }
                }
                Lookup::Unreachable(_) => assert!(near.is_empty() && !all.is_empty(), "{text}"),
                Lookup::NoMatch(_) => assert!(all.is_empty(), "{text}"),
                Lookup::Unknown => panic!("the service is known"),
            }
        }
    }

    #[test]
    fn pick_reaches_every_instance_of_the_nearest_group() {
        let service = hundred();
        let none = Selector::default();
        let Lookup::Found(found) = service.lookup(&none) else { panic!("found") };
        let picked: std::collections::BTreeSet<_> =
            (0..10).map(|n| found.pick(u64::MAX / 10 * n + 10).id.clone()).collect();
        assert_eq!(picked.len(), 10);
    }
}
