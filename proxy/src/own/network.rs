//! `go.micro.network`: nodes, and what they offer each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use proto::micro::network as pb;
use proto::name::WILDCARD;
use proto::{Cost, NodeId};
use router::Routes;

use super::Config;
use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;
use super::router::{Wanted, routes};

pub(super) const NAME: &str = "go.micro.network";

/// How far a graph goes at most, in links: go-micro's bound.
const MAX_DEPTH: u32 = 3;
/// Addresses of one `Connect`.
const MAX_ADDRESSES: usize = 64;
/// Bytes of one address: a DNS name (RFC 1035 §2.3.4), a port.
const MAX_ADDRESS: usize = 260;

/// The service.
pub(super) struct Network {
    config: Arc<Config>,
}

impl Network {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    pub(super) fn call(&self, call: &Call, message: Bytes) -> Reply {
        let config = &self.config;
        match call.method.as_str() {
            "Connect" => {
                let config = Arc::clone(config);
                Reply::later(async move {
                    connect(&config, decode(NAME, message)?).await?;
                    Ok(pb::ConnectResponse {})
                })
            }
            "Graph" => Reply::now(decode(NAME, message).map(|request: pb::GraphRequest| {
                let root = graph(&config.routes.load(), &config.network, request.depth);
                pb::GraphResponse { root: Some(root) }
            })),
            "Nodes" => Reply::now(decode(NAME, message).map(|request: pb::NodesRequest| {
                let root = graph(&config.routes.load(), &config.network, request.depth);
                pb::NodesResponse { nodes: flat(root) }
            })),
            "Routes" => Reply::now(decode(NAME, message).map(|request: pb::RoutesRequest| {
                let query = request.query.unwrap_or_default();
                let wanted = Wanted {
                    service: &query.service,
                    address: &query.address,
                    gateway: &query.gateway,
                    router: &query.router,
                    network: &query.network,
                };
                pb::RoutesResponse { routes: routes(config, &call.scope, &wanted) }
            })),
            "Services" => {
                let snapshot = config.routes.load();
                let seen = snapshot.services().filter(|service| call.scope.sees(&service.name));
                let names = seen.map(|service| service.name.name());
                let names: BTreeSet<_> = names.filter(|name| *name != WILDCARD).collect();
                let services = names.into_iter().map(str::to_owned).collect();
                Reply::now(Ok(pb::ServicesResponse { services }))
            }
            "Status" => {
                let status = pb::Status { error: Some(pb::Error::default()) };
                Reply::now(Ok(pb::StatusResponse { status: Some(status) }))
            }
            _ => Reply::now::<pb::ConnectResponse>(Err(Failure::new(
                NAME,
                Kind::NotImplemented,
                "not offered",
            ))),
        }
    }
}

async fn connect(config: &Config, request: pb::ConnectRequest) -> Result<(), Failure> {
    let bad = |why: String| Failure::new(NAME, Kind::BadRequest, why);
    let addresses: Vec<_> = request.nodes.into_iter().map(|node| node.address).collect();
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(bad(format!("name one node to {MAX_ADDRESSES}, by address")));
    }
    let fits = |text: &String| !text.is_empty() && text.len() <= MAX_ADDRESS;
    if !addresses.iter().all(fits) {
        return Err(bad("every node needs an address, host or host:port".to_owned()));
    }
    config.admin.connect(addresses).await.map_err(bad)
}

/// This node, and those that it reaches over at most `depth` links, each once, where it is nearest:
/// a tree, as go-micro has it, of a graph.
fn graph(routes: &Routes, network: &str, depth: u32) -> pb::Peer {
    let mut links: BTreeMap<NodeId, BTreeSet<(Cost, NodeId)>> = BTreeMap::new();
    for (one, other, cost, _) in routes.adjacencies().filter(|(_, _, cost, _)| cost.is_finite()) {
        links.entry(one).or_default().insert((cost, other));
        links.entry(other).or_default().insert((cost, one));
    }
    let me = routes.me();
    let mut seen = BTreeSet::from([me]);
    let mut children: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
    let mut ahead = VecDeque::from([(me, depth.clamp(1, MAX_DEPTH))]);
    while let Some((node, left)) = ahead.pop_front() {
        for &(_, peer) in links.get(&node).into_iter().flatten() {
            if left > 0 && seen.insert(peer) {
                children.entry(node).or_default().push(peer);
                ahead.push_back((peer, left - 1));
            }
        }
    }
    peer(routes, network, me, &children)
}

fn peer(
    routes: &Routes,
    network: &str,
    id: NodeId,
    children: &BTreeMap<NodeId, Vec<NodeId>>,
) -> pb::Peer {
    let of = children.get(&id).into_iter().flatten();
    let peers = of.map(|child| peer(routes, network, *child, children)).collect();
    pb::Peer { node: Some(node(routes, network, id)), peers }
}

fn node(routes: &Routes, network: &str, id: NodeId) -> pb::Node {
    let mut shown =
        pb::Node { id: id.to_string(), network: network.to_owned(), ..Default::default() };
    if let Some(node) = routes.node(&id) {
        shown.address = node.addresses.first().map(ToString::to_string).unwrap_or_default();
        for (key, value) in [("name", &node.name), ("region", &node.region)] {
            if !value.is_empty() {
                shown.metadata.insert(key.to_owned(), value.to_string());
            }
        }
    }
    shown
}

/// The nodes of a tree, nearest first.
fn flat(root: pb::Peer) -> Vec<pb::Node> {
    let mut nodes = Vec::new();
    let mut ahead = VecDeque::from([root]);
    while let Some(peer) = ahead.pop_front() {
        nodes.extend(peer.node);
        ahead.extend(peer.peers);
    }
    nodes
}
