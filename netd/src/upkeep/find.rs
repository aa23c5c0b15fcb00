//! Looks for the network: all of it, as long as any seed or member once known cannot be reached.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::NodeId;
use router::Routes;
use tokio::sync::watch;
use tokio::time::Instant;
use tunnel::DialError;

use super::search::{Search, Standing};
use super::{Upkeep, chance};
use crate::api;
use crate::client::{self, Client};
use crate::member::Peers;

/// Seeds that are looked for; those written first come first.
const MAX_SEEDS: usize = 64;
/// Changes of routes are gathered this long before it is seen who is missing.
const GATHER: Duration = Duration::from_millis(250);
/// The longest wait between two looks at who is missing.
const LOOK: Duration = Duration::from_secs(60);
/// How long another node of this user may take to say where it listens.
const SIBLING: Duration = Duration::from_secs(1);

/// Somewhere to look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// As it was written: whoever answers there.
    Seed(String),
    /// A member that was known once.
    Member(NodeId),
    /// Other nodes of this user on this machine.
    Siblings,
}

impl Upkeep {
    /// Dials what cannot be reached of seeds and members once known, for the life of the node.
    ///
    /// Also while there are links: two parts of a network that were started again while they could
    /// not hear each other know of each other no more than that.
    pub(super) async fn find_network(&self, peers: watch::Receiver<Peers>) {
        let mut links = self.shared.links.subscribe();
        let mut changed = self.shared.routes.changed();
        let (mut search, mut looks) = (Search::new(), FuturesUnordered::new());
        // Who answered at each seed.
        let mut answered: BTreeMap<String, NodeId> = BTreeMap::new();
        loop {
            let alone = *links.borrow_and_update() == 0;
            let routes = self.shared.routes.load_full();
            let missing = self.missing(&routes, &peers.borrow(), &answered, alone);
            let reachable = routes.nodes().filter(|node| node.cost.is_finite()).count();
            let standing = Standing { alone, reachable };
            let (begin, next) = search.review(&missing, standing, Instant::now(), chance);
            for place in begin {
                let known = peers.borrow().clone();
                looks.push(async move {
                    let found = self.look(&place, &known).await;
                    (place, found)
                });
            }
            let next = next.unwrap_or_else(|| Instant::now() + LOOK);
            // All arms are safe to cancel: looks live in their set, the others only wake.
            tokio::select! {
                Some((place, found)) = looks.next(), if !looks.is_empty() => {
                    search.ended(&place, standing, Instant::now(), chance());
                    if let (Place::Seed(seed), Some(node)) = (place, found) {
                        answered.insert(seed, node);
                    }
                }
                // The senders live as long as the node.
                _ = links.changed() => {}
                () = gathered(&mut changed) => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    /// The places that lead to nobody who can be reached.
    fn missing(
        &self,
        routes: &Routes,
        peers: &Peers,
        answered: &BTreeMap<String, NodeId>,
        alone: bool,
    ) -> Vec<Place> {
        let me = self.key.node();
        // A link on which nothing is heard comes back by itself or ends, and then its node is missing.
        let linked = |node: &NodeId| self.tunnel.has_neighbour(*node);
        let reached = |node: &NodeId| routes.node(node).is_some_and(|found| found.cost.is_finite());
        let lost = |node: &NodeId| !reached(node) && !linked(node);
        let seeds = self.seeds().filter(|seed| match answered.get(*seed) {
            Some(node) => *node != me && lost(node),
            None => true,
        });
        let mut missing: Vec<_> = seeds.cloned().map(Place::Seed).collect();
        missing.extend(peers.members().filter(lost).map(Place::Member));
        if alone {
            missing.push(Place::Siblings);
        }
        missing
    }

    fn seeds(&self) -> impl Iterator<Item = &String> {
        let seeds = self.settings.join.iter().chain(&self.peers.seeds);
        seeds.take(MAX_SEEDS)
    }

    /// Looks at one place; gives who is there.
    async fn look(&self, place: &Place, peers: &Peers) -> Option<NodeId> {
        match place {
            Place::Seed(seed) => match tunnel::seeds::resolve(seed).await {
                Ok(addresses) => self.dial(addresses).await,
                Err(why) => {
                    tracing::debug!(seed, %why, "seed not resolved");
                    self.trouble(why.to_string());
                    None
                }
            },
            Place::Member(member) => {
                let routes = self.shared.routes.load_full();
                let told = routes.node(member).map(|node| node.addresses.to_vec());
                let told = told.filter(|at| !at.is_empty());
                self.dial(told.unwrap_or_else(|| peers.addresses(*member))).await
            }
            Place::Siblings => {
                let dials: FuturesUnordered<_> =
                    self.siblings().await.into_iter().map(|at| self.dial(at)).collect();
                dials.filter_map(|found| async move { found }).collect::<Vec<_>>().await.pop()
            }
        }
    }

    /// Links with whoever answers at `addresses`, unless one of them is known to be the address of
    /// a node that can be reached or has a link; gives who it is.
    async fn dial(&self, mut addresses: Vec<SocketAddr>) -> Option<NodeId> {
        let routes = self.shared.routes.load_full();
        let reached = |node: &router::NodeRoute| {
            node.id != routes.me() && (node.cost.is_finite() || self.tunnel.has_neighbour(node.id))
        };
        let mut others = routes.nodes().filter(|node| reached(node));
        if let Some(there) =
            others.find(|node| node.addresses.iter().any(|at| addresses.contains(at)))
        {
            return Some(there.id);
        }
        let mine = self.tunnel.local_addresses();
        let told = self.advertised.load_full();
        let before = addresses.len();
        addresses.retain(|at| !mine.contains(at) && !told.contains(at));
        if addresses.is_empty() {
            return (before > 0).then(|| self.key.node());
        }
        match self.tunnel.find(addresses.clone()).await {
            Ok(node) => Some(node),
            Err(DialError::Myself) => Some(self.key.node()),
            Err(why) => {
                tracing::debug!(?addresses, %why, "nobody found");
                self.trouble(why.to_string());
                None
            }
        }
    }

    /// Why a node without links has none; a node that has some needs no reason.
    fn trouble(&self, why: String) {
        if *self.shared.links.borrow() == 0 {
            self.shared.trouble.send_replace(Some(why));
        }
    }

    /// Where other nodes of this user on this machine listen, if they are of the same network:
    /// their ports change from start to start where nobody insists on one.
    async fn siblings(&self) -> Vec<Vec<SocketAddr>> {
        let network = self.credential.load().grant().network.to_string();
        let mut places = Vec::new();
        for socket in client::sockets(&self.settings.paths.runtime) {
            let node = Client::at(&socket).with_timeout(SIBLING);
            let Ok(status) = node.get::<api::Status>("/v1/status").await else { continue };
            if status.network.id == network && status.node.id != self.key.node().to_string() {
                let listen = status.listen.iter().filter_map(|at| at.parse().ok());
                places.push(listen.map(reachable_here).collect());
            }
        }
        places
    }
}

/// Waits until routes have changed, and a little longer.
async fn gathered(changed: &mut watch::Receiver<u64>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(GATHER).await;
}

/// An address that is listened on, as it is dialled on the same machine.
fn reachable_here(at: SocketAddr) -> SocketAddr {
    let loopback =
        if at.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
    if at.ip().is_unspecified() { SocketAddr::new(loopback, at.port()) } else { at }
}
