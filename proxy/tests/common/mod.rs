//! Two nodes in one process, a program at one of them and services at either.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

pub mod grpc;
pub mod mucp;
pub mod service;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::grant::{Issuer, Pattern};
use proto::record::Protocol;
use proto::rule::{Rule, RuleSet};
use proto::sign::Sign;
use proto::{Cost, Credential, Epoch, Grant, LabelSet, NodeId, Roles, UnixTime};
use proxy::{Config, Limits, Proxy, Published};
use router::{Instance, InstanceKey, NodeRoute, Routes, ServiceRoutes};
use tokio::net::TcpListener;
use tunnel::{Keypair, Tunnel};

/// How long a test waits for what must happen at once.
pub const SOON: Duration = Duration::from_secs(20);

/// What must happen soon, or the test fails where it stands.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("it happens soon")
}

/// Where a service is, seen from the node that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Here,
    There,
}

pub const PLACES: [Place; 2] = [Place::Here, Place::There];

/// Two nodes of one network, linked over QUIC on the loopback.
pub struct World {
    pub here: Node,
    pub there: Node,
    offered: Mutex<Vec<Offer>>,
    rules: Mutex<BTreeMap<String, Arc<RuleSet>>>,
}

pub struct Node {
    pub id: NodeId,
    pub proxy: Proxy,
    pub tunnel: Tunnel,
    pub address: SocketAddr,
    routes: Arc<Published>,
}

#[derive(Clone)]
struct Offer {
    service: String,
    place: Place,
    address: String,
    protocol: Protocol,
    labels: Vec<(String, String)>,
}

impl World {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        let root = Keypair::generate();
        let desk = Keypair::generate();
        let issuer = Issuer::appoint(&root, desk.public_key(), UnixTime(u64::MAX >> 4));
        let addresses = Arc::new(Mutex::new(BTreeMap::new()));
        let here = Node::start("here", &issuer, &desk, &addresses, &limits).await;
        let there = Node::start("there", &issuer, &desk, &addresses, &limits).await;
        let world = Self { here, there, offered: Mutex::default(), rules: Mutex::default() };
        world.publish();
        world
    }

    /// Makes a service known to both nodes.
    pub fn offer(&self, service: &str, place: Place, address: impl ToString, protocol: Protocol) {
        self.offer_with(service, place, address, protocol, &[]);
    }

    pub fn offer_with(
        &self,
        service: &str,
        place: Place,
        address: impl ToString,
        protocol: Protocol,
        labels: &[(&str, &str)],
    ) {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (service, address) = (service.to_owned(), address.to_string());
        self.offered.lock().unwrap().push(Offer { service, place, address, protocol, labels });
        self.publish();
    }

    /// Decides about the calls of a service.
    pub fn rule(&self, service: &str, rules: Vec<Rule>) {
        let set = RuleSet { revision: 1, rules, ..RuleSet::default() };
        set.check().unwrap();
        self.rules.lock().unwrap().insert(service.to_owned(), Arc::new(set));
        self.publish();
    }

    fn publish(&self) {
        let ruled = self.rules.lock().unwrap().clone();
        let offered = self.offered.lock().unwrap().clone();
        for (node, at) in [(&self.here, Place::Here), (&self.there, Place::There)] {
            let mut services: BTreeMap<String, Vec<Instance>> = BTreeMap::new();
            for (key, offer) in offered.iter().enumerate() {
                let here = offer.place == at;
                let origin = self.node(offer.place);
                let labels: LabelSet = offer.labels.iter().cloned().collect();
                let always: LabelSet =
                    [("node", if offer.place == Place::Here { "here" } else { "there" })]
                        .into_iter()
                        .collect();
                services.entry(offer.service.clone()).or_default().push(Instance {
                    key: InstanceKey(key as u64),
                    id: format!("{}-{key}", offer.service).into(),
                    node: origin.id,
                    here,
                    address: offer.address.as_str().into(),
                    protocol: offer.protocol,
                    version: "latest".into(),
                    labels: always.overlaid(&labels),
                    metadata: LabelSet::default(),
                    cost: if here { Cost::ZERO } else { Cost::from_micros(500) },
                    group: u32::from(!here),
                });
            }
            let services = services.into_iter().map(|(name, instances)| {
                let name: proto::ServiceName = name.parse().unwrap();
                let routes = ServiceRoutes::new(name.clone(), 1, instances, Arc::from([]));
                let routes = match ruled.get(name.as_str()) {
                    Some(set) => routes.with_rules(Arc::clone(set), node.id),
                    None => routes,
                };
                (name, Some(routes))
            });
            let nodes = [("here", self.here.id), ("there", self.there.id)];
            let nodes = nodes.map(|(name, id)| (id, Some(node_route(name, id))));
            let routes = Routes::empty(node.id).updated(services, nodes);
            node.routes.publish(Arc::new(routes));
        }
    }

    pub fn node(&self, place: Place) -> &Node {
        if place == Place::Here { &self.here } else { &self.there }
    }
}

impl Node {
    /// What the node knows.
    pub fn routes(&self) -> Arc<Routes> {
        self.routes.load_full()
    }

    async fn start(
        name: &str,
        issuer: &Issuer,
        desk: &Keypair,
        addresses: &Arc<Mutex<BTreeMap<NodeId, Vec<SocketAddr>>>>,
        limits: &Limits,
    ) -> Self {
        let key = Arc::new(Keypair::generate());
        let id = key.node();
        let mut config = tunnel::Config::new(Arc::clone(&key), grant(issuer, desk, &key), Epoch(1));
        let book = Arc::clone(addresses);
        config.book =
            Arc::new(move |node| book.lock().unwrap().get(&node).cloned().unwrap_or_default());
        let quic = tunnel::quic::Quic::bind(&config).unwrap();
        let (tunnel, mut control, incoming) = tunnel::start(config, quic).await.unwrap();
        addresses.lock().unwrap().insert(id, tunnel.local_addresses());
        tokio::spawn(async move {
            loop {
                let _ = control.event().await;
            }
        });
        let routes = Arc::new(Published::new(id));
        let proxy = Proxy::new(Config {
            me: id,
            node_name: name.to_owned(),
            routes: Arc::clone(&routes),
            tunnel: tunnel.clone(),
            own: None,
            admit: None,
            admit_packets: None,
            limits: limits.clone(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = proxy.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        let arriving = proxy.clone();
        tokio::spawn(async move { arriving.arrive(incoming).await });
        Self { id, proxy, tunnel, address, routes }
    }
}

fn grant(issuer: &Issuer, desk: &Keypair, key: &Keypair) -> Credential {
    let grant = Grant {
        network: issuer.network(),
        key: key.public_key(),
        network_name: "acme".into(),
        roles: Roles::NONE,
        namespaces: vec![Pattern::new("default").unwrap()],
        services: vec![Pattern::any()],
        serial: 1,
        epoch: 0,
        not_before: UnixTime(0),
        not_after: UnixTime(u64::MAX >> 4),
    };
    issuer.issue(desk, &grant)
}

fn node_route(name: &str, id: NodeId) -> NodeRoute {
    NodeRoute {
        id,
        name: name.to_owned(),
        region: String::new(),
        labels: LabelSet::default(),
        roles: Roles::NONE,
        decides: Vec::new(),
        addresses: Arc::from([]),
        release: "test".into(),
        cost: Cost::ZERO,
        next: None,
        services: 0,
        expires: UnixTime(u64::MAX >> 4),
        epoch: Epoch(1),
        links: Arc::from([]),
    }
}

/// An address at which nobody listens.
pub async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
