//! What a node knows, read from the same snapshot that calls use, and from its links.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, Query, State};
use proto::record::{Endpoint, PathKind, ValueType};
use proto::{Cost, LabelSet, NodeId};
use router::{Instance, NodeRoute, Routes, ServiceRoutes};
use serde::Deserialize;
use tunnel::{LinkInfo, State as LinkState};

use super::answer::{Answer, document, list};
use crate::api;
use crate::backend::entry;
use crate::error::{Exit, Problem};
use crate::node::{Node, Phase};

/// `GET /v1/status`.
pub(super) async fn status(State(node): State<Arc<Node>>) -> Answer<api::Status> {
    let routes = node.routes();
    let me = node.me;
    let count = |here: bool| {
        let services = routes.services().filter(|service| {
            service.instances.iter().any(|i| i.cost.is_finite() && (!here || i.here))
        });
        services.count() as u64
    };
    let grant = node.credential.load();
    let mut links = node.tunnel.links();
    links.sort_by_key(|link| (!link.neighbour, link.id));
    let address = |at: &std::net::SocketAddr| at.to_string();
    document(
        "Status",
        api::Status {
            network: api::Network { name: node.network_name.clone(), id: node.network.to_string() },
            node: api::Node {
                id: me.to_string(),
                name: node.name.clone(),
                region: node.region.clone(),
                labels: routes.node(&me).map(|node| labels(&node.labels)).unwrap_or_default(),
                release: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_ms: u64::try_from(node.began.elapsed().as_millis()).unwrap_or(u64::MAX),
                ready: node.is_ready(),
                draining: *node.phase.borrow() == Phase::Draining,
            },
            proxy: api::Listener {
                address: node.proxy_at.first().map(address).unwrap_or_default(),
            },
            listen: node.tunnel.local_addresses().iter().map(address).collect(),
            dns: api::Listener { address: node.dns_at.to_string() },
            broker: api::Listener { address: node.nats_at.to_string() },
            observe: api::Listener { address: node.observe_at.to_string() },
            links: links.iter().map(|link| link_item(&routes, link)).collect(),
            services: api::ServiceCount { reachable: count(false), local: count(true) },
            roles: roles(grant.grant().roles),
            grant: api::Grant { expires: time(grant.expires()) },
        },
    )
}

/// `GET /v1/nodes`.
pub(super) async fn nodes(State(node): State<Arc<Node>>) -> Answer<api::Items<api::NodeItem>> {
    let routes = node.routes();
    let mut degree: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (a, b) in edges(&routes).keys() {
        *degree.entry(*a).or_default() += 1;
        *degree.entry(*b).or_default() += 1;
    }
    let rtt: BTreeMap<NodeId, u64> =
        node.tunnel.links().iter().map(|link| (link.peer, nanos(link.rtt))).collect();
    let item = |other: &NodeRoute| api::NodeItem {
        id: other.id.to_string(),
        name: other.name.clone(),
        region: other.region.clone(),
        roles: roles(other.roles),
        path: path(&routes, other),
        cost_us: micros(other.cost),
        rtt_ns: rtt.get(&other.id).copied(),
        links: degree.get(&other.id).copied().unwrap_or(0),
        services: u64::from(other.services),
        release: other.release.clone(),
        state: if other.cost.is_finite() { "ready" } else { "unreachable" }.to_owned(),
        labels: labels(&other.labels),
        addresses: other.addresses.iter().map(ToString::to_string).collect(),
    };
    let mut all: Vec<&NodeRoute> = routes.nodes().collect();
    all.sort_by_key(|other| (other.cost, other.id));
    list("NodeList", all.into_iter().map(item).collect())
}

/// `GET /v1/graph`.
pub(super) async fn graph(State(node): State<Arc<Node>>) -> Answer<api::Graph> {
    let routes = node.routes();
    let nodes = routes.nodes().map(|other| api::GraphNode {
        id: other.id.to_string(),
        name: Node::name_of(&routes, &other.id),
        region: other.region.clone(),
        me: other.id == node.me,
    });
    let links = edges(&routes).into_iter().map(|((a, b), (cost, kind))| api::GraphLink {
        a: a.to_string(),
        b: b.to_string(),
        cost_us: u64::from(cost.as_micros()),
        path: path_kind(kind).to_owned(),
    });
    document("Graph", api::Graph { nodes: nodes.collect(), links: links.collect() })
}

/// What `GET /v1/routes` may be asked for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Which {
    service: Option<String>,
}

/// `GET /v1/routes`.
pub(super) async fn routes(
    State(node): State<Arc<Node>>,
    Query(which): Query<Which>,
) -> Answer<api::Items<api::RouteItem>> {
    let routes = node.routes();
    let items = match which.service {
        Some(name) => route_items(&routes, find(&routes, &node.network_name, &name)?),
        None => routes.services().flat_map(|service| route_items(&routes, service)).collect(),
    };
    list("RouteList", items)
}

/// `GET /v1/services`.
pub(super) async fn services(
    State(node): State<Arc<Node>>,
) -> Answer<api::Items<api::ServiceItem>> {
    let routes = node.routes();
    list("ServiceList", routes.services().map(|s| service_item(&routes, s)).collect())
}

/// `GET /v1/services/NAME`.
pub(super) async fn service(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Answer<api::Service> {
    let routes = node.routes();
    let service = find(&routes, &node.network_name, &name)?;
    let versions = service.versions.iter().map(|version| api::ServiceVersion {
        version: version.version.to_string(),
        metadata: labels(&version.metadata),
        endpoints: version.endpoints.iter().map(endpoint).collect(),
    });
    document(
        "Service",
        api::Service {
            name: service.name.to_string(),
            versions: versions.collect(),
            instances: route_items(&routes, service),
        },
    )
}

pub(super) fn find<'a>(
    routes: &'a Routes,
    network: &str,
    name: &str,
) -> Result<&'a ServiceRoutes, Problem> {
    let name = name.strip_prefix("default/").unwrap_or(name);
    routes.service(name).ok_or_else(|| no_service(routes, network, name))
}

/// The service called `name`, also one of which only rules are known.
pub(super) fn find_ruled<'a>(
    routes: &'a Routes,
    network: &str,
    name: &str,
) -> Result<&'a ServiceRoutes, Problem> {
    let plain = name.strip_prefix("default/").unwrap_or(name);
    routes.waiting(plain).map_or_else(|| find(routes, network, name), Ok)
}

/// Nobody offers this name: how many are visible, and which is the nearest.
pub(super) fn no_service(routes: &Routes, network: &str, name: &str) -> Problem {
    let visible = routes.services().count();
    let near = routes
        .services()
        .map(|service| (strsim::damerau_levenshtein(service.name.as_str(), name), &service.name))
        .min_by_key(|(distance, name)| (*distance, name.as_str().len()))
        .filter(|(distance, name)| *distance <= name.as_str().len() / 2);
    let plural = if visible == 1 { "service is" } else { "services are" };
    let seen = format!("{visible} {plural} visible on network {network}");
    let problem = Problem::new("M1203", Exit::NotFound, format!("no service named {name:?}"));
    match near {
        Some((_, near)) => problem
            .why(format!("{seen}; the nearest name is {near}"))
            .attempt(format!("micro describe {near}"), ""),
        None => problem.why(seen).attempt("micro services", "lists them"),
    }
}

/// How a link looks to others.
pub(super) fn link_item(routes: &Routes, link: &LinkInfo) -> api::Link {
    let other = routes.node(&link.peer);
    let remote = match link.remote.ip() {
        std::net::IpAddr::V6(ip) => ip.to_canonical(),
        v4 @ std::net::IpAddr::V4(_) => v4,
    };
    api::Link {
        peer: link.peer.to_string(),
        name: Node::name_of(routes, &link.peer),
        region: other.map(|node| node.region.clone()).unwrap_or_default(),
        path: if remote.is_ipv4() { "direct udp/v4" } else { "direct udp/v6" }.to_owned(),
        rtt_ns: nanos(link.rtt),
        loss: f64::from(link.loss) / 1_000_000.0,
        state: match link.state {
            LinkState::Live => "live",
            LinkState::Suspected => "suspected",
            LinkState::Draining => "draining",
        }
        .to_owned(),
        since_ms: u64::try_from(link.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        remote: std::net::SocketAddr::new(remote, link.remote.port()).to_string(),
        neighbour: link.neighbour,
        bytes_out: link.bytes_out,
        bytes_in: link.bytes_in,
    }
}

/// Every adjacency once, smaller id first, with the larger of what both ends report.
fn edges(routes: &Routes) -> BTreeMap<(NodeId, NodeId), (Cost, PathKind)> {
    let mut edges = BTreeMap::new();
    for (a, b, cost, kind) in routes.adjacencies() {
        let entry = edges.entry((a.min(b), a.max(b))).or_insert((cost, kind));
        entry.0 = entry.0.max(cost);
    }
    edges
}

fn route_items(routes: &Routes, service: &ServiceRoutes) -> Vec<api::RouteItem> {
    let best = service.instances.first().map(|instance| instance.group);
    let item = |instance: &Instance| {
        let other = routes.node(&instance.node);
        api::RouteItem {
            service: service.name.to_string(),
            instance: instance.id.to_string(),
            address: instance.address.to_string(),
            node: Node::name_of(routes, &instance.node),
            region: other.map(|node| node.region.clone()).unwrap_or_default(),
            path: other.map(|node| path(routes, node)).unwrap_or_default(),
            cost_us: micros(instance.cost),
            protocol: instance.protocol.name().to_owned(),
            version: instance.version.to_string(),
            labels: own_labels(instance),
            backend: mark(instance, entry::BACKEND),
            stale: mark(instance, entry::STALE),
            note: note(instance),
            state: match instance.cost.is_finite() {
                false => "unreachable",
                true if proxy::health::unhealthy(instance).is_some() => "unhealthy",
                true if Some(instance.group) == best => "best",
                true => "ok",
            }
            .to_owned(),
        }
    };
    service.instances.iter().map(item).collect()
}

/// What the node of an instance marks it with.
fn mark(instance: &Instance, key: &str) -> String {
    instance.metadata.get(key).unwrap_or_default().to_owned()
}

/// Why an instance is in the state it is in, or may not be there any more.
fn note(instance: &Instance) -> String {
    let stale = instance.metadata.get(entry::STALE).map(|why| {
        let backend = instance.metadata.get(entry::BACKEND).unwrap_or("?");
        format!("stale: back end {backend}: {why}")
    });
    proxy::health::unhealthy(instance).map(str::to_owned).or(stale).unwrap_or_default()
}

/// Where an instance is, and why it is not well.
fn unhealthy(instance: &Instance) -> Option<String> {
    let why = proxy::health::unhealthy(instance)?;
    Some(format!("{}: {why}", instance.address))
}

fn service_item(routes: &Routes, service: &ServiceRoutes) -> api::ServiceItem {
    let mut regions = Vec::new();
    let mut protocols = BTreeSet::new();
    for instance in service.instances.iter() {
        protocols.insert(instance.protocol.name().to_owned());
        let region = routes.node(&instance.node).map(|node| node.region.clone());
        if let Some(region) = region.filter(|region| !regions.contains(region)) {
            regions.push(region);
        }
    }
    let mut shared: Option<BTreeMap<String, String>> = None;
    for instance in service.instances.iter() {
        let own = own_labels(instance);
        shared = Some(match shared {
            None => own,
            Some(all) => all.into_iter().filter(|(k, v)| own.get(k) == Some(v)).collect(),
        });
    }
    let versions: BTreeSet<_> = service.versions.iter().map(|v| v.version.to_string()).collect();
    api::ServiceItem {
        name: service.name.to_string(),
        instances: service.instances.len() as u64,
        reachable: service.instances.iter().filter(|i| i.cost.is_finite()).count() as u64,
        unhealthy: service.instances.iter().filter_map(unhealthy).collect(),
        regions,
        protocols: protocols.into_iter().collect(),
        endpoints: service.versions.iter().map(|v| v.endpoints.len() as u64).sum(),
        versions: versions.into_iter().collect(),
        labels: shared.unwrap_or_default(),
    }
}

fn endpoint(endpoint: &Endpoint) -> api::Endpoint {
    api::Endpoint {
        name: endpoint.name.clone(),
        metadata: labels(&endpoint.metadata),
        request: endpoint.request.as_ref().map(shape),
        response: endpoint.response.as_ref().map(shape),
    }
}

fn shape(value: &ValueType) -> api::Shape {
    api::Shape {
        name: value.name.clone(),
        kind: value.kind.clone(),
        values: value.values.iter().map(shape).collect(),
    }
}

fn path(routes: &Routes, other: &NodeRoute) -> String {
    match other.next {
        _ if other.id == routes.me() => "local".to_owned(),
        Some(next) if next == other.id => "direct".to_owned(),
        Some(next) => format!("via {}", Node::name_of(routes, &next)),
        None => String::new(),
    }
}

const fn path_kind(kind: PathKind) -> &'static str {
    match kind {
        PathKind::Direct => "direct",
        PathKind::Relay => "relay",
        PathKind::Other(_) => "other",
    }
}

fn roles(roles: proto::Roles) -> Vec<String> {
    roles.names().split(',').map(str::to_owned).collect()
}

/// Labels as JSON has them.
pub(super) fn labels(labels: &LabelSet) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Labels of an instance, without what its node marks it with.
fn own_labels(instance: &Instance) -> BTreeMap<String, String> {
    let mut all = labels(&instance.labels);
    for mark in [proxy::health::UNHEALTHY, entry::BACKEND, entry::STALE] {
        all.remove(mark);
    }
    all
}

/// A moment as JSON has it: RFC 3339, UTC.
pub(super) fn time(at: proto::UnixTime) -> String {
    let seconds = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

fn micros(cost: Cost) -> Option<u64> {
    cost.is_finite().then(|| u64::from(cost.as_micros()))
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
