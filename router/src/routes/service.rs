//! The instances of one service, in the order in which they are to be tried.

use std::collections::BTreeSet;
use std::sync::Arc;

use proto::record::{Endpoint, Protocol};
use proto::rule::RuleSet;
use proto::{Cost, LabelSet, NodeId, ServiceName, label};

use super::bits::{BLOCK, Bits};
use super::candidates::Candidates;
use super::index::Index;
use super::query::{Query, Step};
use crate::rules::Rules;

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
    /// How many can be reached.
    pub(super) reachable: usize,
    /// Where each group ends.
    groups: Box<[usize]>,
    pub(super) index: Index,
    rules: Option<Arc<Rules>>,
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
        let mut end = 0;
        let groups = instances.chunk_by(|a, b| a.group == b.group).map(|group| {
            end += group.len();
            end
        });
        let groups = groups.collect();
        let index = Index::of(&instances);
        let (instances, rules) = (instances.into(), None);
        Self { name, changed, instances, versions, reachable, groups, index, rules }
    }

    /// With the rules that `author` wrote. None of them: as without.
    #[must_use]
    pub fn with_rules(self, rules: Arc<RuleSet>, author: NodeId) -> Self {
        self.with_carried(rules, author, Vec::new())
    }

    /// With rules that `author` wrote and `carriers` tell.
    #[must_use]
    pub fn with_carried(self, rules: Arc<RuleSet>, author: NodeId, carriers: Vec<NodeId>) -> Self {
        let rules = Rules::new(rules, author, &self).carried_by(carriers);
        Self { rules: Some(Arc::new(rules)), ..self }
    }

    /// What operators decided about its calls.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_deref()
    }

    /// Itself and its rules, where it has some.
    pub(crate) fn ruled(&self) -> Option<(&Self, &Rules)> {
        Some((self, self.rules()?))
    }

    /// Whether one of the instances at these places, from and before, holds what is required.
    pub(crate) fn has_match(&self, query: &Query<'_>, (from, to): (u32, u32)) -> bool {
        let (from, to) = (from as usize, to as usize);
        let mut blocks = from / BLOCK..to.div_ceil(BLOCK).min(self.index.len() as usize);
        blocks.any(|block| {
            let block = u32::try_from(block).expect("there are as many blocks as fit into 32 bits");
            !self.required(block, query).and(self.span(block, from, to)).is_empty()
        })
    }

    pub(crate) fn same_rules(&self, other: &Self) -> bool {
        match (self.rules(), other.rules()) {
            (None, None) => true,
            (Some(one), Some(other)) => one.is_as(other),
            (_, _) => false,
        }
    }

    /// Those that can be reached, nearest first.
    #[must_use]
    pub fn reachable(&self) -> &[Instance] {
        &self.instances[..self.reachable]
    }

    /// The key of a label that instances carry, as they spell it, for one in any case. Where none
    /// carries it, the one key that is the same behind a prefix (`app.kubernetes.io/component` for
    /// `component`), if there is just one.
    #[must_use]
    pub fn label_key(&self, key: &str) -> Option<&str> {
        let keys = || {
            let blocks = (0..self.index.len()).map(|at| self.index.block(at));
            blocks.flat_map(|block| block.keys())
        };
        if let Some(found) = keys().find(|known| known.eq_ignore_ascii_case(key)) {
            return Some(found);
        }
        let behind = |known: &&str| {
            known.rsplit_once('/').is_some_and(|(_, name)| name.eq_ignore_ascii_case(key))
        };
        let first = keys().find(behind)?;
        keys().filter(behind).all(|other| other == first).then_some(first)
    }

    /// The values that the label `key` has, of all instances.
    #[must_use]
    pub fn label_values(&self, key: &str) -> BTreeSet<&str> {
        let hash = label::hash(key, None);
        let blocks = (0..self.index.len()).map(|at| self.index.block(at));
        blocks.flat_map(|block| block.values(hash, key).map(|(value, _)| value)).collect()
    }

    /// Whether an instance carries exactly this label.
    #[must_use]
    pub fn has_label(&self, key: &str, value: &str) -> bool {
        let hash = label::hash(key, Some(value));
        (0..self.index.len())
            .any(|at| !self.index.block(at).find(hash, key, Some(value)).is_empty())
    }

    /// The instances that carry what is asked for.
    #[must_use]
    pub fn lookup<'a>(&'a self, query: impl Into<Query<'a>>) -> Lookup<'a> {
        let query = query.into();
        match self.matching(query) {
            Lookup::Found(found) if query.narrows() => Lookup::Found(found.narrowed()),
            lookup @ (Lookup::Found(_)
            | Lookup::Unknown
            | Lookup::NoMatch(_)
            | Lookup::Unreachable(_)) => lookup,
        }
    }

    /// The instances that hold what is required, whatever is preferred.
    pub(super) fn matching<'a>(&'a self, query: Query<'a>) -> Lookup<'a> {
        for block in self.index.blocks(&query) {
            let held = self.required(block, &query);
            let Some(first) = held.first() else { continue };
            // The nearest come first: where the first match is out of reach, all are.
            if block as usize * BLOCK + first >= self.reachable {
                return Lookup::Unreachable(self);
            }
            let bits = self.in_reach(block, held);
            return Lookup::Found(Candidates { service: self, query, honoured: 0, block, bits });
        }
        Lookup::NoMatch(self)
    }

    /// Those of `bits` in a block that can be reached.
    pub(super) fn in_reach(&self, block: u32, bits: Bits) -> Bits {
        let all = self.reachable == self.instances.len();
        if all { bits } else { bits.and(self.span(block, 0, self.reachable)) }
    }

    /// Those of a block that hold all that is required.
    pub(super) fn required(&self, block: u32, query: &Query<'_>) -> Bits {
        let block = self.index.block(block);
        let mut held = block.all();
        for one in query.required() {
            held = held.and(block.holding(one));
        }
        held
    }

    /// Those of a block for which a step holds.
    pub(super) fn step(&self, block: u32, step: Step<'_>) -> Bits {
        match step {
            Step::Places(from, to) => self.span(block, from as usize, to as usize),
            Step::One(one) => self.index.block(block).holding(one),
            Step::All(all) => {
                let block = self.index.block(block);
                all.required().fold(block.all(), |held, one| held.and(block.holding(one)))
            }
        }
    }

    /// Those of a block for which all steps hold that `honoured` has a bit for.
    pub(super) fn honoured(&self, block: u32, query: &Query<'_>, honoured: u32) -> Bits {
        let steps = query.steps().enumerate().filter(|(at, _)| honoured >> at & 1 == 1);
        let all = self.index.block(block).all();
        steps.fold(all, |held, (_, step)| held.and(self.step(block, step)))
    }

    /// The places of a block among those `from` here and before there in the service.
    pub(super) fn span(&self, block: u32, from: usize, to: usize) -> Bits {
        let start = block as usize * BLOCK;
        Bits::range(from.saturating_sub(start), to.saturating_sub(start).min(BLOCK))
    }

    /// The end of the group that the instance at this place is in.
    pub(super) fn end_of_group(&self, at: usize) -> usize {
        let group = self.groups.partition_point(|end| *end <= at);
        self.groups.get(group).copied().unwrap_or(self.instances.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proto::Selector;

    /// An instance for tests.
    pub(crate) fn instance(
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

    /// Instances `n` unique, `parity` odd or even, ten groups, the last tenth out of reach.
    fn many(count: u32) -> ServiceRoutes {
        let one = |n: u32| {
            let text = n.to_string();
            let parity = if n.is_multiple_of(2) { "even" } else { "odd" };
            let tenth = n * 10 / count;
            let group = if tenth == 9 { UNREACHABLE } else { tenth };
            let region = format!("r{}/z{}", n % 3, n % 7);
            let labels = [("n", &*text), ("parity", parity), ("always", ""), ("region", &*region)];
            let rare = if n == count * 3 / 4 { &[("rare", "yes")][..] } else { &[] };
            let labels: Vec<_> = labels.into_iter().chain(rare.iter().copied()).collect();
            instance(&format!("{n:04}"), NodeId::from_bytes([1; 32]), group, n, &labels)
        };
        let all = (0..count).rev().map(one).collect();
        ServiceRoutes::new("s".parse().unwrap(), 1, all, Arc::from([]))
    }

    fn ids<'a>(all: impl IntoIterator<Item = &'a Instance>) -> Vec<&'a str> {
        all.into_iter().map(|instance| &*instance.id).collect()
    }

    #[test]
    fn a_lookup_finds_what_a_look_at_each_instance_finds() {
        for service in [10, 100, 256, 257, 1000].map(many) {
            for text in [
                "",
                "n=5",
                "n=999",
                "parity=odd",
                "parity=odd,n=5",
                "parity=odd,n=6",
                "rare",
                "!rare",
                "always,parity=even,rare",
                "nothing",
                "!nothing,n!=0",
                "n=10000",
                "n in (0,7,99,300,10000)",
                "n notin (0,1),parity!=odd",
                "region=r1",
                "region=r1/z3,parity=even",
                "region!=r1",
                "region in (r0/z0,r2)",
                "rare=yes,parity=odd",
            ] {
                let selector: Selector = text.parse().unwrap();
                let fits = |instance: &&Instance| selector.matches(&instance.labels);
                let all = ids(service.instances.iter().filter(fits));
                let near: Vec<_> = service.reachable().iter().filter(fits).collect();
                match service.lookup(&selector) {
                    Lookup::Found(found) => {
                        assert_eq!(ids(found.all()), ids(near.iter().copied()), "{text}");
                        assert_eq!(found.first().id, near[0].id);
                        let group = near.iter().filter(|one| one.group == near[0].group);
                        let group = ids(group.copied());
                        assert_eq!(ids(found.nearest()), group, "{text}");
                        for chance in [0, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
                            assert!(group.contains(&&*found.pick(chance).id), "{text}");
                        }
                    }
                    Lookup::Unreachable(_) => assert!(near.is_empty() && !all.is_empty(), "{text}"),
                    Lookup::NoMatch(_) => assert!(all.is_empty(), "{text}"),
                    Lookup::Unknown => panic!("the service is known"),
                }
            }
        }
    }

    #[test]
    fn a_key_behind_a_prefix_is_found_where_it_is_the_only_one_of_that_name() {
        let node = NodeId::from_bytes([1; 32]);
        let labels: [&[(&str, &str)]; 2] = [
            &[("app.kubernetes.io/component", "web"), ("a.io/name", "x"), ("Tier", "gold")],
            &[("app.kubernetes.io/component", "db"), ("b.io/name", "y"), ("a.io/tier", "iron")],
        ];
        let all = labels.iter().enumerate();
        let all = all.map(|(at, labels)| instance(&at.to_string(), node, 0, 0, labels)).collect();
        let service = ServiceRoutes::new("s".parse().unwrap(), 1, all, Arc::from([]));
        let component = "app.kubernetes.io/component";
        assert_eq!(service.label_key("Component"), Some(component));
        assert_eq!(service.label_key("tier"), Some("Tier"), "what has no prefix comes first");
        assert_eq!(service.label_key("name"), None, "two of them: which is meant?");
        assert!(service.label_values(component).into_iter().eq(["db", "web"]));
    }

    #[test]
    fn a_preference_narrows_where_it_leaves_something() {
        for service in [100, 1000].map(many) {
            for (text, narrowed) in [
                ("parity=odd,n=2?", "parity=odd"),
                ("parity=odd,region=r1?", "parity=odd,region=r1"),
                ("region=r1?,region=r2?", "region=r1"),
                ("region=r9?,region=r2?,parity=odd?", "region=r2,parity=odd"),
                ("rare?,parity=odd?", "rare"),
            ] {
                let (selector, narrowed): (Selector, Selector) =
                    (text.parse().unwrap(), narrowed.parse().unwrap());
                let Lookup::Found(found) = service.lookup(&selector) else { panic!("{text}") };
                let matching = service.reachable().iter().filter(|i| selector.matches(&i.labels));
                let (first, then): (Vec<_>, Vec<_>) =
                    matching.partition(|i| narrowed.matches(&i.labels));
                assert_eq!(found.first().id, first[0].id, "{text}");
                assert_eq!(ids(found.all()), ids(first.into_iter().chain(then)), "{text}");
                assert!(found.nearest().all(|i| narrowed.matches(&i.labels)), "{text}");
            }
        }
    }

    #[test]
    fn pick_reaches_every_instance_of_the_nearest_group_evenly() {
        let service = many(200);
        let selector: Selector = "parity=odd".parse().unwrap();
        let Lookup::Found(found) = service.lookup(&selector) else { panic!("found") };
        let mut picked = std::collections::BTreeMap::new();
        for n in 0..1000 {
            *picked.entry(&found.pick(u64::MAX / 1000 * n).id).or_insert(0) += 1;
        }
        assert_eq!(picked.len(), 10);
        assert!(picked.values().all(|count| (99..=101).contains(count)), "{picked:?}");
    }

    #[test]
    fn pick_reaches_every_instance_of_a_group_of_many_blocks() {
        let service = many(10_000);
        let selector: Selector = "region=r1/z1".parse().unwrap();
        let Lookup::Found(found) = service.lookup(&selector) else { panic!("found") };
        let picked: std::collections::BTreeSet<_> =
            (0..5_000).map(|n| &found.pick(u64::MAX / 5_000 * n).id).collect();
        assert_eq!(picked.len(), found.nearest().count());
    }
}
