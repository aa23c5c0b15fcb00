//! What a member does by itself: it looks for its network, renews its grant, tells where it can be
//! reached, and writes down whom it knows.

mod find;
mod search;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::{Credential, LabelSet, NodeId};
use router::{Request, Routes};
use tokio::sync::watch;
use tunnel::Tunnel;
use tunnel::identity::{Ed25519, Keypair};

use crate::config::Settings;
use crate::drive::{Asks, Shared};
use crate::listen;
use crate::member::{self, Peers};
use crate::state::State;

/// How often this node looks where it can be reached: sleep, Wi-Fi and VPNs change it.
const LOOK: Duration = Duration::from_secs(10);
/// The longest sleep before the wall clock is looked at again: it jumps, and machines sleep.
const NAP: Duration = Duration::from_secs(60);
/// Changes of routes are gathered this long before peers are written down.
const GATHER: Duration = Duration::from_secs(2);

/// What upkeep works with. The parts of a node that it may change.
#[derive(Debug)]
pub struct Upkeep {
    /// What the node was told.
    pub settings: Settings,
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: Arc<Keypair>,
    /// Its grant.
    pub credential: Arc<ArcSwap<Credential>>,
    /// Its files.
    pub state: Arc<State>,
    /// Whom it knew when it started.
    pub peers: Peers,
    /// Its links.
    pub tunnel: Tunnel,
    /// The way to the router.
    pub asks: Asks,
    /// What the router's task shares.
    pub shared: Arc<Shared>,
    /// What others are told to dial.
    pub advertised: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// Its labels.
    pub labels: Arc<ArcSwap<LabelSet>>,
}

impl Upkeep {
    /// All of it, for the life of the node.
    pub async fn run(self) {
        let peers = watch::Sender::new(self.peers.clone());
        let find = self.find_network(peers.subscribe());
        tokio::join!(find, self.renew(), self.watch_addresses(), self.keep_peers(&peers));
    }

    /// What this node says about itself, now.
    #[must_use]
    pub fn describe(&self) -> proto::record::Node {
        let (credential, advertised) = (self.credential.load(), self.advertised.load());
        describe(&self.settings, &self.name, &credential, &advertised, &self.labels.load())
    }

    /// Renews the grant when a third of what was left of it is over.
    async fn renew(&self) {
        loop {
            let left = left_of(&self.credential.load());
            let due =
                member::now().plus((left.as_secs_f64() / 3.0 * (0.9 + 0.2 * chance())) as u64);
            while member::now() < due {
                let wait = Duration::from_secs(due.seconds_after(member::now()));
                tokio::time::sleep(wait.min(NAP)).await;
            }
            while let Err(why) = self.renew_once().await {
                let left = left_of(&self.credential.load());
                tracing::warn!(why, left_s = left.as_secs(), "grant not renewed");
                let pause = (left / 10).clamp(Duration::from_secs(1), NAP);
                tokio::time::sleep(pause.mul_f64(0.75 + 0.5 * chance())).await;
            }
        }
    }

    async fn renew_once(&self) -> Result<(), String> {
        let old = self.credential.load_full();
        // Issuers sign with the key of their node.
        let issuer = NodeId::of(&old.issuer().key());
        let new = if issuer == self.key.node() {
            member::sign_own(old.issuer(), &self.key, old.grant(), self.settings.grant_ttl)
        } else {
            self.tunnel.renew(issuer).await.map_err(|why| why.to_string())?
        };
        let holder = proto::sign::Sign::public_key(&*self.key);
        new.check(old.grant().network, &holder, member::now(), &Ed25519)
            .map_err(|why| format!("the issuer sent something else: {why}"))?;
        if let Err(error) = self.state.write("credential", &new.encode()) {
            tracing::warn!(%error, "the renewed grant could not be written down");
        }
        tracing::info!(serial = new.grant().serial, "grant renewed");
        self.credential.store(Arc::new(new));
        self.announce().await;
        Ok(())
    }

    async fn announce(&self) {
        match self.asks.request(Request::Describe(self.describe())).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!(%why, "the node's record was not renewed"),
            // Who leaves announces nothing.
            Err(_leaving) => {}
        }
    }

    /// Tells the others when the addresses of this machine have changed.
    async fn watch_addresses(&self) {
        if !self.settings.advertise.is_empty() {
            return;
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let now = listen::found_out(&self.tunnel.local_addresses());
            if **self.advertised.load() != now {
                tracing::info!(?now, "addresses changed");
                self.advertised.store(Arc::new(now));
                self.announce().await;
            }
        }
    }

    /// Writes down whom it knows, whenever that has changed.
    async fn keep_peers(&self, peers: &watch::Sender<Peers>) {
        let mut changed = self.shared.routes.changed();
        let mut kept = self.peers.clone();
        let mut failing = false;
        // Ends with the sender, which is with the node.
        while changed.changed().await.is_ok() {
            tokio::time::sleep(GATHER).await;
            let routes = self.shared.routes.load_full();
            let now = peers.borrow().with(reached(&routes), member::now());
            peers.send_replace(now.clone());
            if now == kept {
                continue;
            }
            match now.save(&self.state) {
                Ok(()) => {
                    failing = false;
                    kept = now;
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "peers could not be written down; serving on");
                }
                Err(_) => {}
            }
        }
    }
}

/// Other members that are reached, relays first, then the nearest, and where.
fn reached(routes: &Routes) -> impl Iterator<Item = (NodeId, Vec<SocketAddr>)> {
    let (me, relay) = (routes.me(), proto::Role::Relay);
    let others = routes.nodes().filter(|node| node.id != me && !node.addresses.is_empty());
    let mut others: Vec<_> = others.filter(|node| node.cost.is_finite()).collect();
    others.sort_by_key(|node| (!node.roles.has(relay), node.cost, node.id));
    let all: Vec<_> = others.iter().map(|node| (node.id, node.addresses.to_vec())).collect();
    all.into_iter()
}

/// What a node says about itself.
#[must_use]
pub fn describe(
    settings: &Settings,
    name: &str,
    credential: &Credential,
    addresses: &[SocketAddr],
    labels: &LabelSet,
) -> proto::record::Node {
    proto::record::Node {
        name: name.to_owned(),
        region: settings.region.clone(),
        labels: labels.clone(),
        addresses: addresses.iter().copied().take(proto::record::MAX_ADDRESSES).collect(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: proto::PROTOCOL,
        credential: Box::new(credential.clone()),
    }
}

fn left_of(credential: &Credential) -> Duration {
    Duration::from_secs(credential.expires().seconds_after(member::now()))
}

/// A number from 0 up to 1, for jitter.
pub(crate) fn chance() -> f64 {
    f64::from(u32::from_be_bytes(tunnel::identity::random())) / f64::from(u32::MAX)
}
