//! The facade: one proxy, its parts, and what the rest of the node asks of it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

use prometheus_client::registry::Registry;
use proto::{LabelSet, NodeId};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tunnel::{Incoming, Tunnel};

use crate::balance::shell::Balance;
use crate::broker::Broker;
use crate::capture;
use crate::deliver::Deliver;
use crate::dns;
use crate::error::Error;
use crate::feed::Feeds;
use crate::limits::Limits;
use crate::load::Load;
use crate::metrics::Metrics;
use crate::mucp::socket::Room;
use crate::nats::Face;
use crate::own::Own;
use crate::routes::Published;
use crate::tcp::{self, Destination};

/// Whether the program at `peer` may use the listener at `local`: the place for the check of its
/// owner. Called once a connection, on the thread of the data plane; it must not wait.
pub type Admit = Arc<dyn Fn(SocketAddr, SocketAddr) -> Result<Served, Stranger> + Send + Sync>;

/// Whether the program that sends UDP packets from this address may use the node. Called once a flow,
/// as [`Admit`].
pub type AdmitPackets = Arc<dyn Fn(SocketAddr) -> Result<(), Stranger> + Send + Sync>;

/// Who is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// A program of the user who runs the node, or of root: it may change what the node does.
    Owner,
    /// Somebody else, or nobody looked who.
    Other,
}

/// A program of a user whom a node does not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The user; `None` where no program has the connection open any more.
    pub uid: Option<u32>,
    /// The user that the node serves.
    pub owner: u32,
}

/// What a proxy is made of.
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Its name, as `micro-node` shows it with errors.
    pub node_name: String,
    /// The router's answers.
    pub routes: Arc<Published>,
    /// The way to other nodes.
    pub tunnel: Tunnel,
    /// The services that this node itself serves.
    pub own: Option<Own>,
    /// Who may connect; `None`: whoever reaches the listener.
    pub admit: Option<Admit>,
    /// The same for those that send packets.
    pub admit_packets: Option<AdmitPackets>,
    /// Every bound.
    pub limits: Limits,
}

/// The data plane of one node. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Proxy(pub(crate) Arc<Shared>);

/// What every call needs.
pub(crate) struct Shared {
    pub(crate) me: NodeId,
    /// The same, as text.
    pub(crate) me_text: String,
    pub(crate) node_name: String,
    /// What a node that is not in the table yet is labelled with.
    pub(crate) no_labels: LabelSet,
    pub(crate) routes: Arc<Published>,
    pub(crate) tunnel: Tunnel,
    pub(crate) own: Option<Own>,
    pub(crate) admit: Option<Admit>,
    pub(crate) admit_packets: Option<AdmitPackets>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) deliver: Deliver,
    pub(crate) balance: Balance,
    pub(crate) broker: Broker,
    pub(crate) feeds: Feeds,
    pub(crate) metrics: Metrics,
    pub(crate) calls: Arc<Load>,
    pub(crate) arrivals: Arc<Load>,
    /// Flows of packets: no calls, for they are silent most of the time and end with the node.
    pub(crate) flows: Arc<Load>,
    pub(crate) flow_arrivals: Arc<Load>,
    pub(crate) connections: Arc<Semaphore>,
    /// For large messages of MUCP.
    pub(crate) room: Room,
    pub(crate) draining: watch::Sender<bool>,
    /// The face of names, while it is served.
    pub(crate) names: OnceLock<Weak<dns::Face>>,
}

impl Proxy {
    /// A proxy that serves nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let limits = Arc::new(config.limits);
        let metrics = Metrics::new();
        let room = Room::new();
        let broker = Broker::new(config.me, Arc::clone(&config.routes), config.tunnel.clone());
        if let Some(own) = &config.own {
            own.carries(broker.clone());
        }
        let load = || Arc::new(Load::new(metrics.in_flight.clone()));
        let flows = || Arc::new(Load::new(metrics.flows.clone()));
        Self(Arc::new(Shared {
            me: config.me,
            me_text: config.me.to_string(),
            no_labels: LabelSet::default(),
            node_name: config.node_name,
            routes: config.routes,
            tunnel: config.tunnel,
            own: config.own,
            admit: config.admit,
            admit_packets: config.admit_packets,
            deliver: Deliver::new(Arc::clone(&limits), room.clone()),
            room,
            broker,
            feeds: Feeds::new(),
            balance: Balance::new(limits.calls_per_instance, metrics.instances.clone()),
            calls: load(),
            arrivals: load(),
            flows: flows(),
            flow_arrivals: flows(),
            metrics,
            connections: Arc::new(Semaphore::new(limits.connections)),
            draining: watch::Sender::new(false),
            names: OnceLock::new(),
            limits,
        }))
    }

    /// Takes the connections of programs at `listener`, each in a task of the runtime this runs on.
    /// Returns when the proxy drains.
    pub async fn serve(&self, listener: TcpListener) {
        capture::serve(&self.0, listener).await;
    }

    /// Takes connections at `listener` for one service, whatever they carry, each in a task of the
    /// runtime this runs on. Returns when the proxy drains; dropped, it takes no more, and those
    /// there are go on.
    pub async fn forward(&self, listener: TcpListener, to: Destination) {
        let listens = listener.local_addr().map(|address| self.0.deliver.listens(address));
        let to = Arc::new(to);
        capture::accept_all(&self.0, &listener, |shared, socket, peer| {
            let to = Arc::clone(&to);
            async move { tcp::serve(&shared, socket, peer, &to).await }
        })
        .await;
        drop(listens);
    }

    /// Takes the calls of other nodes, each in a task of the runtime this runs on. Returns when the
    /// tunnel is closed.
    pub async fn arrive(&self, incoming: Incoming) {
        self.0.broker.lives_here();
        crate::arrive::serve(&self.0, incoming).await;
    }

    /// Begins to leave: takes no new connection and no new call, and finishes those it has.
    pub fn drain(&self) -> Drain {
        if let Some(own) = &self.0.own {
            own.drain();
        }
        self.0.draining.send_replace(true);
        Drain(Arc::clone(&self.0))
    }

    /// Calls being carried: of local programs, and of other nodes.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.calls.count() + self.0.arrivals.count()
    }

    /// Adds everything the proxy counts to `registry`.
    pub fn metrics(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
        self.0.broker.metrics(registry);
    }

    /// The topics of this node.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.0.broker
    }

    /// Takes clients of NATS at `listener` that can say what `face` asks for, each in a task of the
    /// runtime this runs on. Returns when the proxy drains.
    pub async fn nats(&self, listener: TcpListener, face: Face) {
        crate::nats::serve(&self.0, listener, face).await;
    }
}

/// A proxy that is leaving.
pub struct Drain(Arc<Shared>);

impl Drain {
    /// Waits until no call is left.
    pub async fn idle(&self) {
        self.0.calls.idle().await;
        self.0.arrivals.idle().await;
    }

    /// Calls that are left.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.0.calls.count() + self.0.arrivals.count()
    }
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// The name of the node where `error` was first known.
    pub(crate) fn node_of(&self, error: &Error) -> String {
        let node = error.node(self.me);
        if node == self.me {
            return self.node_name.clone();
        }
        let routes = self.routes.load();
        routes.node(&node).map_or_else(|| node.short().to_string(), |node| node.name.clone())
    }
}

/// Waits until the proxy drains; for ever if it is gone.
pub(crate) async fn drained(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|draining| *draining).await.is_err() {
        std::future::pending::<()>().await;
    }
}
