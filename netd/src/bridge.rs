//! Bridges: topics of the network carried to servers of NATS, and subjects of theirs into the network.
//!
//! ```text
//! network → NATS   a mailbox of the broker, as a member of the group _bridge.CLUSTER → names → mark → server
//! NATS → network   subscriptions in the queue group micro.NETWORK → names → mark → Broker::publish
//! answers          either way at addresses of this bridge alone, by number
//! ```
//!
//! Of all bridges of a network to one cluster one carries each message, since they are in one group on
//! both sides. What has been at a place does not go there again ([`mark`]). A bridge to its own network
//! is refused. The broker of the network is [`proxy::Broker`], with bridges and without.

mod carry;
pub(crate) mod client;
pub mod mark;
pub mod names;
pub(crate) mod words;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::NetworkId;
use proxy::{Broker, Published};
use tokio_util::sync::CancellationToken;

pub(crate) use self::carry::refused;
use self::mark::Place;
use crate::config::bridge::Bridge;

/// Where a message was to be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Toward {
    /// From the network to NATS.
    Nats,
    /// From NATS into the network.
    Network,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Fate {
    /// Handed to the other side.
    Carried,
    /// An answer, handed to who asked.
    Answered,
    /// It has been there, or far enough.
    Been,
    /// Its mark, its headers or its name cannot be on the other side.
    Refused,
    /// Larger than the other side takes.
    TooLarge,
    /// There was no room for it, or the other side was away too long.
    Dropped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    bridge: String,
    toward: Toward,
    fate: Fate,
}

/// What is counted of all bridges.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    messages: Family<Labels, Counter>,
    connected: Family<[(&'static str, String); 1], Gauge>,
    gaps: Family<[(&'static str, String); 1], Counter>,
}

impl Counts {
    /// Adds the families.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("bridge");
        let help = "Messages of bridges, by where they were to go and what became of them";
        registry.register("messages", help, self.messages.clone());
        let help = "1 while a bridge has a server, 0 while it looks for one";
        registry.register("connected", help, self.connected.clone());
        registry.register("gaps", "How often a bridge lost its server", self.gaps.clone());
    }

    fn add(&self, bridge: &str, toward: Toward, fate: Fate, count: u64) {
        if count > 0 {
            let labels = Labels { bridge: bridge.to_owned(), toward, fate };
            self.messages.get_or_create(&labels).inc_by(count);
        }
    }

    fn is_connected(&self, bridge: &str, connected: bool) {
        let labels = [("bridge", bridge.to_owned())];
        self.connected.get_or_create(&labels).set(i64::from(connected));
    }

    fn lost(&self, bridge: &str) {
        self.gaps.get_or_create(&[("bridge", bridge.to_owned())]).inc();
    }
}

/// What the bridges of a node use of it.
#[derive(Clone)]
pub struct Parts {
    /// The topics of the network.
    pub broker: Broker,
    /// Who wants what, and which nodes are of this network.
    pub routes: Arc<Published>,
    /// The network that this node is of.
    pub network: NetworkId,
    /// What is counted.
    pub counts: Counts,
}

/// Starts the bridges of a node, each in a task of the runtime this runs on; they carry until the node
/// takes nothing more of programs.
pub fn start(bridges: &[Bridge], parts: &Parts, accepting: &CancellationToken) {
    // One that carries nothing is there for streams.
    let carry = |bridge: &&Bridge| !bridge.publish.is_empty() || !bridge.subscribe.is_empty();
    for bridge in bridges.iter().filter(carry) {
        let carrier = carry::Carrier {
            bridge: bridge.clone(),
            broker: parts.broker.clone(),
            routes: Arc::clone(&parts.routes),
            here: Place::network(parts.network),
            counts: parts.counts.clone(),
        };
        tokio::spawn(accepting.clone().run_until_cancelled_owned(carrier.run()));
    }
}
