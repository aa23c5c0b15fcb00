//! A running node, as its own faces (admin, health, metrics) see it: its parts, by handle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use proto::{Credential, NetworkId, NodeId};
use proxy::{Proxy, Published};
use router::Routes;
use tokio::sync::watch;
use tunnel::Tunnel;
use tunnel::issuer::Desk;

use crate::backend::Backends;
use crate::drive::{Asks, Shared};
use crate::intercept::Intercept;
use crate::labels::Labels;
use crate::registrar::checked::Checks;
use crate::rules::keep::Keeper;

/// A runtime that has not turned for this long is stuck: the node is not alive.
const STUCK: Duration = Duration::from_secs(5);

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not everything listens yet.
    Starting,
    /// It takes calls.
    Serving,
    /// It takes no new calls and finishes those it has.
    Draining,
}

/// A running node. One, shared by `Arc`.
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// The name of its network.
    pub network_name: String,
    /// Its network.
    pub network: NetworkId,
    /// Its id.
    pub me: NodeId,
    /// Its grant, newest.
    pub credential: Arc<ArcSwap<Credential>>,
    /// Makes tickets, where it may.
    pub desk: Option<Arc<Desk>>,
    /// Its links.
    pub tunnel: Tunnel,
    /// The data plane.
    pub proxy: Proxy,
    /// Where it runs.
    pub data: tokio::runtime::Handle,
    /// Room for forwarded ports that somebody holds.
    pub forwards: Arc<tokio::sync::Semaphore>,
    /// Connections that the kernel leads here.
    pub intercept: Intercept,
    /// What the router's task shares.
    pub shared: Arc<Shared>,
    /// The way to the router.
    pub asks: Asks,
    /// What is offered here by command, and looked at.
    pub checks: Checks,
    /// Writes the rules that are decided here.
    pub rules: Keeper,
    /// The registries of others that it watches.
    pub backends: Backends,
    /// Sets labels by command.
    pub labels: Labels,
    /// Where programs call, the usual one first.
    pub proxy_at: Vec<SocketAddr>,
    /// Where health and metrics are read.
    pub observe_at: SocketAddr,
    /// Where names are asked for.
    pub dns_at: SocketAddr,
    /// Where clients of NATS connect.
    pub nats_at: SocketAddr,
    /// What others are told to dial.
    pub advertised: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// When it began.
    pub began: Instant,
    /// How long the grants signed here are valid.
    pub grant_ttl: Duration,
    /// How long open calls may take to finish when it stops.
    pub grace: Duration,
    /// Where it is in its life.
    pub phase: watch::Sender<Phase>,
    /// Whether it may be ready without a link: it is the first of its network, or was ready once.
    pub alone: std::sync::atomic::AtomicBool,
    /// When its runtimes turned last.
    pub beats: Beats,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("me", &self.me)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// The newest answers of the router.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        self.routes_published().load_full()
    }

    /// Where they are published.
    #[must_use]
    pub fn routes_published(&self) -> &Published {
        &self.shared.routes
    }

    /// Whether it takes calls: it serves, and has found its network once.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Serving && self.has_network()
    }

    /// Whether it has, or once had, a way to another node, or needs none: a link is one only when both
    /// ends have told of it, and what is offered there cannot be called before.
    ///
    /// A node that lost its links keeps working with what it has: it stays ready.
    #[must_use]
    pub fn has_network(&self) -> bool {
        if self.alone.load(Ordering::Relaxed) {
            return true;
        }
        let routes = self.routes();
        let reaches = routes.nodes().any(|other| other.id != self.me && other.cost.is_finite());
        if reaches {
            self.alone.store(true, Ordering::Relaxed);
        }
        reaches
    }

    /// The name of a node, or the beginning of its id where it has told none.
    #[must_use]
    pub fn name_of(routes: &Routes, id: &NodeId) -> String {
        match routes.node(id) {
            Some(node) if !node.name.is_empty() => node.name.clone(),
            Some(_) | None => id.short(),
        }
    }
}

/// When the runtimes turned last, in milliseconds since the node began.
#[derive(Debug, Default)]
pub struct Beats {
    /// The data plane's.
    pub data: AtomicU64,
    /// The control plane's.
    pub control: AtomicU64,
}

impl Beats {
    /// Keeps `beat` fresh for as long as its runtime turns.
    pub async fn keep(node: Arc<Node>, beat: fn(&Self) -> &AtomicU64) {
        let mut every = tokio::time::interval(STUCK / 5);
        loop {
            every.tick().await;
            beat(&node.beats).store(elapsed_ms(node.began), Ordering::Relaxed);
        }
    }

    /// Whether both runtimes have turned lately.
    #[must_use]
    pub fn are_fresh(&self, began: Instant) -> bool {
        let now = elapsed_ms(began);
        let limit = u64::try_from(STUCK.as_millis()).unwrap_or(u64::MAX);
        [&self.data, &self.control]
            .into_iter()
            .all(|beat| now.saturating_sub(beat.load(Ordering::Relaxed)) <= limit)
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
