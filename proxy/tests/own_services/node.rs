//! A node without a network: routes that a test writes, and registrations written into them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use proto::grant::{Issuer, Pattern};
use proto::record::{PathKind, Protocol};
use proto::sign::Sign;
use proto::{Cost, Epoch, Grant, LabelSet, NodeId, Roles, ServiceName, UnixTime};
use proxy::own::{Admin, Config, Own, OwnService};
use proxy::{Body, Proxy, Published, Registrar, RegistrarError};
use router::{
    Adjacent, Instance, InstanceKey, NodeRoute, Registration, ServiceRoutes, VersionInfo,
};

use tunnel::Keypair;

use crate::client::Client;

/// A service, an instance of it, and what its routes say.
type Known = BTreeMap<(ServiceName, NodeId, String), (Registration, Cost)>;

#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) own: Own,
    pub(crate) desk: Arc<Desk>,
    pub(crate) address: SocketAddr,
}

/// Who takes registrations, and writes them into the routes.
pub(crate) struct Desk {
    me: NodeId,
    pub(crate) routes: Arc<Published>,
    known: Mutex<Known>,
    pub(crate) refuse: Mutex<Option<RegistrarError>>,
    pub(crate) connected: Mutex<Vec<String>>,
    pub(crate) logs: Arc<proxy::own::Logs>,
}

pub(crate) fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

impl Node {
    /// Node 1 of the network `test`, whose proxy is on a port of its own.
    pub(crate) async fn start() -> Self {
        let (node, listener) = Self::prepare().await;
        let proxy = node.proxy().await;
        tokio::spawn(async move { proxy.serve(listener).await });
        node
    }

    /// The same without a proxy: our services alone.
    pub(crate) async fn start_bare() -> Self {
        let (node, listener) = Self::prepare().await;
        tokio::spawn(serve(listener, node.own.clone()));
        node
    }

    /// A proxy with the services of this node, which is linked with nobody.
    pub(crate) async fn proxy(&self) -> Proxy {
        let (root, desk) = (Keypair::generate(), Keypair::generate());
        let issuer = Issuer::appoint(&root, desk.public_key(), UnixTime(u64::MAX >> 4));
        let key = Arc::new(Keypair::generate());
        let grant = Grant {
            network: issuer.network(),
            key: key.public_key(),
            network_name: "test".into(),
            roles: Roles::NONE,
            namespaces: vec![Pattern::any()],
            services: vec![Pattern::any()],
            serial: 1,
            epoch: 0,
            not_before: UnixTime(0),
            not_after: UnixTime(u64::MAX >> 4),
        };
        let config = tunnel::Config::new(key, issuer.issue(&desk, &grant), Epoch(1));
        let quic = tunnel::quic::Quic::bind(&config).unwrap();
        let (tunnel, _control, _incoming) = tunnel::start(config, quic).await.unwrap();
        Proxy::new(proxy::Config {
            me: self.desk.me,
            node_name: "laptop".into(),
            routes: Arc::clone(&self.desk.routes),
            tunnel,
            own: Some(self.own.clone()),
            admit: Some(Arc::new(|_, _| Ok(proxy::Served::Owner))),
            admit_packets: None,
            limits: proxy::Limits::default(),
        })
    }

    async fn prepare() -> (Self, tokio::net::TcpListener) {
        let me = id(1);
        let desk = Arc::new(Desk {
            me,
            routes: Arc::new(Published::new(me)),
            known: Mutex::default(),
            refuse: Mutex::default(),
            connected: Mutex::default(),
            logs: Arc::default(),
        });
        let own = Own::new(Config {
            me,
            node_name: "laptop".into(),
            network: "test".into(),
            routes: Arc::clone(&desk.routes),
            registrar: Arc::clone(&desk) as Arc<dyn Registrar>,
            admin: Arc::clone(&desk) as Arc<dyn Admin>,
            logs: Arc::clone(&desk.logs),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Self { own, desk, address }, listener)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }
}

async fn serve(listener: tokio::net::TcpListener, own: Own) {
    while let Ok((socket, _)) = listener.accept().await {
        let own = own.clone();
        let service = hyper::service::service_fn(move |request: http::Request<_>| {
            let own = own.clone();
            async move {
                let request = request.map(Body::new::<hyper::body::Incoming>);
                Ok::<_, std::convert::Infallible>(own.serve(request).await)
            }
        });
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(socket);
        let connection = hyper::server::conn::http2::Builder::new(executor);
        tokio::spawn(async move { connection.serve_connection(io, service).await });
    }
}

impl Desk {
    /// Writes one instance into the routes; without a cost, takes it away.
    pub(crate) fn put(&self, node: NodeId, registration: Registration, cost: Option<Cost>) {
        let name = registration.service.clone();
        let key = (name.clone(), node, registration.instance.id.clone());
        let mut known = self.known.lock();
        match cost {
            Some(cost) => drop(known.insert(key, (registration, cost))),
            None => drop(known.remove(&key)),
        }
        let of: Vec<_> = known.iter().filter(|((of, ..), _)| *of == name).collect();
        let service = (!of.is_empty()).then(|| {
            let instances =
                of.iter().map(|((_, node, _), (said, cost))| self.instance(*node, said, *cost));
            let mut versions = BTreeMap::new();
            for (_, (said, _)) in &of {
                versions.insert(
                    said.version.clone(),
                    VersionInfo {
                        version: said.version.as_str().into(),
                        metadata: said.metadata.clone(),
                        endpoints: said.endpoints.clone().into(),
                    },
                );
            }
            let versions: Vec<_> = versions.into_values().collect();
            let generation = self.routes.load().generation() + 1;
            ServiceRoutes::new(name.clone(), generation, instances.collect(), versions.into())
        });
        let next = self.routes.signed().updated([(name, service)], []);
        self.routes.publish(Arc::new(next));
    }

    fn instance(&self, node: NodeId, said: &Registration, cost: Cost) -> Instance {
        let id = said.instance.id.as_str();
        Instance {
            key: InstanceKey(id.bytes().fold(u64::from(node.as_bytes()[0]), |key, byte| {
                key.wrapping_mul(257).wrapping_add(u64::from(byte))
            })),
            id: id.into(),
            node,
            here: node == self.me,
            address: said.instance.address.as_str().into(),
            protocol: said.instance.protocol,
            version: said.version.as_str().into(),
            labels: LabelSet::default(),
            metadata: said.instance.metadata.clone(),
            cost,
            group: if cost.is_finite() {
                u32::from(node != self.me)
            } else {
                router::routes::UNREACHABLE
            },
        }
    }

    /// Another node's instance of `service`, `cost` microseconds away or not to be reached.
    pub(crate) fn remote(&self, node: u8, service: &str, instance: &str, cost: Option<u32>) {
        let registration = registration(service, "v1", instance, "10.9.0.7:4000");
        let cost = cost.map_or(Cost::INFINITE, Cost::from_micros);
        self.put(id(node), registration, Some(cost));
    }

    /// The same, gone: as when its lease ran out.
    pub(crate) fn gone(&self, node: u8, service: &str, instance: &str) {
        self.put(id(node), registration(service, "v1", instance, "10.9.0.7:4000"), None);
    }

    /// Writes nodes and the links between them, each once, with its cost.
    pub(crate) fn link(&self, nodes: &[u8], links: &[(u8, u8, u32)]) {
        let node = |n: u8| {
            let ends = links.iter().filter_map(|&(a, b, cost)| match n {
                n if n == a => Some((b, cost)),
                n if n == b => Some((a, cost)),
                _ => None,
            });
            let adjacent = |(peer, cost)| Adjacent {
                node: id(peer),
                cost: Cost::from_micros(cost),
                path: PathKind::Direct,
            };
            let route = NodeRoute {
                id: id(n),
                name: format!("node-{n}"),
                region: "eu".into(),
                labels: LabelSet::default(),
                roles: Roles::NONE,
                decides: Vec::new(),
                addresses: Arc::from([SocketAddr::from(([10, 0, 0, n], 8085))]),
                release: "0.1.0".into(),
                cost: Cost::ZERO,
                next: (n != 1).then(|| id(2)),
                services: 0,
                expires: UnixTime(0),
                epoch: Epoch(1),
                links: ends.map(adjacent).collect(),
            };
            (id(n), Some(route))
        };
        let next = self.routes.signed().updated([], nodes.iter().map(|n| node(*n)));
        self.routes.publish(Arc::new(next));
    }
}

pub(crate) fn registration(
    service: &str,
    version: &str,
    instance: &str,
    address: &str,
) -> Registration {
    Registration {
        service: service.parse().unwrap(),
        version: version.into(),
        metadata: LabelSet::default(),
        endpoints: Vec::new(),
        instance: proto::record::Instance {
            id: instance.into(),
            address: address.into(),
            protocol: Protocol::Grpc,
            metadata: LabelSet::default(),
        },
        ttl: None,
    }
}

impl Registrar for Desk {
    fn register(&self, registration: Registration) -> BoxFuture<'_, Result<(), RegistrarError>> {
        Box::pin(async move {
            if let Some(refused) = self.refuse.lock().clone() {
                return Err(refused);
            }
            self.put(self.me, registration, Some(Cost::ZERO));
            Ok(())
        })
    }

    fn deregister(
        &self,
        service: ServiceName,
        version: Option<String>,
        instance: String,
    ) -> BoxFuture<'_, Result<(), RegistrarError>> {
        Box::pin(async move {
            let key = (service, self.me, instance);
            let known = self.known.lock().get(&key).map(|(said, _)| said.clone());
            match known {
                Some(said) if version.is_none_or(|version| version == said.version) => {
                    self.put(self.me, said, None);
                    Ok(())
                }
                Some(_) | None => Err(RegistrarError::NotFound),
            }
        })
    }
}

impl Admin for Desk {
    fn connect(&self, addresses: Vec<String>) -> BoxFuture<'_, Result<(), String>> {
        self.connected.lock().extend(addresses);
        Box::pin(std::future::ready(Ok(())))
    }
}
