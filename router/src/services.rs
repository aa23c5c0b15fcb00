//! From service records to instances: labels merged, localities compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::record::{Body, Node, Service, VersionOf};
use proto::rule::RuleSet;
use proto::{Cost, LabelSet, NodeId, ServiceName, Verified};

use crate::routes::{Instance, InstanceKey, UNREACHABLE, VersionInfo};

/// Which nodes offer a service, whether believed or not.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    by_service: BTreeMap<ServiceName, BTreeSet<NodeId>>,
}

impl Offers {
    /// Says that `node` offers, or no longer offers, `service`.
    pub(crate) fn set(&mut self, service: &ServiceName, node: NodeId, offered: bool) {
        if offered {
            self.by_service.entry(service.clone()).or_default().insert(node);
        } else if let Some(nodes) = self.by_service.get_mut(service) {
            nodes.remove(&node);
            if nodes.is_empty() {
                self.by_service.remove(service);
            }
        }
    }

    /// Every service that is offered.
    pub(crate) fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.by_service.keys()
    }

    /// The nodes that offer `service`, by id.
    pub(crate) fn of(&self, service: &ServiceName) -> impl Iterator<Item = &NodeId> {
        self.by_service.get(service).into_iter().flatten()
    }
}

/// Where one node is, seen from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) id: NodeId,
    pub(crate) here: bool,
    pub(crate) node: &'a Node,
    pub(crate) cost: Cost,
    pub(crate) group: u32,
}

impl<'a> Place<'a> {
    /// The place of `node`, as seen from `me`.
    pub(crate) fn of(id: NodeId, node: &'a Node, cost: Cost, (my_id, me): (NodeId, &Node)) -> Self {
        let here = id == my_id;
        Self { id, here, node, cost, group: group(here, node, me, cost) }
    }
}

/// Bounds of the cost bands, in microseconds; what costs more is in a last one.
const BANDS: [u32; 6] = [5_000, 10_000, 20_000, 50_000, 100_000, 200_000];

/// 0 on this node, 1 in the same zone, 2 in the same region, from 3 on by bands of cost.
fn group(here: bool, node: &Node, me: &Node, cost: Cost) -> u32 {
    if !cost.is_finite() {
        return UNREACHABLE;
    }
    if here {
        return 0;
    }
    let same_region = !region(me).is_empty() && region(node) == region(me);
    if same_region && zone(me).is_some() && zone(node) == zone(me) {
        1
    } else if same_region {
        2
    } else {
        locality(cost)
    }
}

/// The locality of an instance of which nothing is known but what the path to it costs.
#[must_use]
pub fn locality(cost: Cost) -> u32 {
    if !cost.is_finite() {
        return UNREACHABLE;
    }
    let band = BANDS.partition_point(|bound| *bound < cost.as_micros());
    3 + u32::try_from(band).expect("there are few bands")
}

fn region(node: &Node) -> &str {
    let labelled = || node.labels.get("topology.kubernetes.io/region").unwrap_or_default();
    if node.region.is_empty() { labelled() } else { &node.region }
}

fn zone(node: &Node) -> Option<&str> {
    node.labels.get("zone").or_else(|| node.labels.get("topology.kubernetes.io/zone"))
}

/// The instances that a record offers.
pub(crate) fn instances(name: &ServiceName, service: &Service, place: &Place<'_>) -> Vec<Instance> {
    let defaults: LabelSet =
        [("node", &*place.node.name), ("region", &*place.node.region)].into_iter().collect();
    let of_node = defaults.overlaid(&place.node.labels);
    let mut all = Vec::new();
    for version in &service.versions {
        let of_version = of_node.overlaid(&version.metadata);
        all.extend(version.instances.iter().map(|instance| {
            let said = well_known(of_version.overlaid(&instance.metadata));
            let text: Arc<str> = match (&*version.version, said.get(KUBERNETES_VERSION)) {
                (LATEST, Some(labelled)) => labelled.into(),
                (own, _) => own.into(),
            };
            let facts: LabelSet = [
                ("node", &*place.node.name),
                ("protocol", instance.protocol.name()),
                ("version", &*text),
            ]
            .into_iter()
            .collect();
            Instance {
                key: key(name, &place.id, &instance.id),
                id: instance.id.as_str().into(),
                node: place.id,
                here: place.here,
                address: instance.address.as_str().into(),
                protocol: instance.protocol,
                version: version.version.as_str().into(),
                labels: said.overlaid(&facts),
                metadata: instance.metadata.clone(),
                cost: place.cost,
                group: place.group,
            }
        }));
    }
    all
}

/// The label whose value is the version.
const VERSION: &str = "version";
/// What go-micro calls the version of a program that says none.
const LATEST: &str = "latest";

/// The version of a program by its labels in Kubernetes, for one that registers none.
const KUBERNETES_VERSION: &str = "app.kubernetes.io/version";

/// Well-known labels of Kubernetes, and what they are called here
/// (kubernetes.io, "Well-Known Labels" and "Recommended Labels").
const WELL_KNOWN: [(&str, &str); 3] = [
    (KUBERNETES_VERSION, VERSION),
    ("topology.kubernetes.io/region", "region"),
    ("topology.kubernetes.io/zone", "zone"),
];

/// `labels`, and what well-known ones of Kubernetes say where nothing else does.
pub(crate) fn well_known(labels: LabelSet) -> LabelSet {
    let is_said = |key: &str| labels.get(key).is_some_and(|value| !value.is_empty());
    let also = WELL_KNOWN.iter().filter(|(_, ours)| !is_said(ours));
    let also: LabelSet =
        also.filter_map(|(theirs, ours)| Some((*ours, labels.get(theirs)?))).collect();
    labels.overlaid(&also)
}

/// What is said of each version; of several records the first has the word.
pub(crate) fn versions<'a>(services: impl Iterator<Item = &'a Service>) -> Arc<[VersionInfo]> {
    let mut all: BTreeMap<&str, &VersionOf> = BTreeMap::new();
    for version in services.flat_map(|service| &service.versions) {
        all.entry(&version.version).or_insert(version);
    }
    let info = |(text, version): (&str, &VersionOf)| VersionInfo {
        version: text.into(),
        metadata: version.metadata.clone(),
        endpoints: version.endpoints.clone().into(),
    };
    all.into_iter().map(info).collect()
}

/// What a record says of a service, if it says that it is there.
pub(crate) fn body(record: &Verified) -> Option<(&ServiceName, &Service)> {
    match record.body() {
        Body::Service(name, service) => Some((name, service)),
        Body::Node(_)
        | Body::Adjacency(..)
        | Body::Rules(..)
        | Body::Interest(..)
        | Body::Gone
        | Body::Unknown => None,
    }
}

/// What a record decides about a service.
pub(crate) fn rules(record: &Verified) -> Option<(&ServiceName, &Arc<RuleSet>)> {
    match record.body() {
        Body::Rules(name, rules) => Some((name, rules)),
        Body::Node(_)
        | Body::Adjacency(..)
        | Body::Service(..)
        | Body::Interest(..)
        | Body::Gone
        | Body::Unknown => None,
    }
}

/// A hash that nobody can steer onto that of another node's instance.
fn key(service: &ServiceName, node: &NodeId, instance: &str) -> InstanceKey {
    let mut hash = blake3::Hasher::new();
    hash.update(node.as_bytes());
    hash.update(&(service.as_str().len() as u64).to_be_bytes());
    hash.update(service.as_str().as_bytes());
    hash.update(instance.as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *hash.finalize().as_bytes();
    InstanceKey(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(labels: &[(&str, &str)]) -> String {
        well_known(labels.iter().copied().collect()).to_string()
    }

    #[test]
    fn what_kubernetes_says_counts_where_nothing_else_is_said() {
        let zone = ("topology.kubernetes.io/zone", "b");
        assert_eq!(said(&[zone]), "topology.kubernetes.io/zone=b,zone=b");
        assert_eq!(said(&[zone, ("zone", "a")]), "topology.kubernetes.io/zone=b,zone=a");
        let region = ("topology.kubernetes.io/region", "eu/fra");
        assert!(said(&[region, ("region", "")]).starts_with("region=eu/fra,"));
        let version = ("app.kubernetes.io/version", "1.4.0");
        assert_eq!(said(&[version]), "app.kubernetes.io/version=1.4.0,version=1.4.0");
    }
}
