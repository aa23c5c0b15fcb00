//! A member that has a grant and says what it likes.

use std::sync::Arc;
use std::time::Duration;

use proto::frame::Frame;
use proto::record::{Body, Node, Record, Verified};
use proto::sign::Sign as _;
use proto::time::{Epoch, Seq, Version};
use proto::{Credential, LabelSet, LinkId, NetworkId, Ticket};
use tunnel::{Control, Event, Incoming, Keypair, Tunnel};

use super::Alone;
use crate::process::PATIENCE;

/// A member of the network of a node, linked with it.
#[derive(Debug)]
pub struct Member {
    /// Its key.
    pub key: Arc<Keypair>,
    /// The network.
    pub network: NetworkId,
    /// Its grant.
    pub credential: Credential,
    /// Its router's end of the tunnel.
    pub control: Control,
    /// Its link with the node.
    pub link: LinkId,
    /// Its tunnel.
    pub tunnel: Tunnel,
    _incoming: Incoming,
}

impl Member {
    /// Joins with a ticket of `node` that lets it offer `services`, and links with it.
    ///
    /// # Panics
    /// If that does not come about.
    pub async fn join(node: &Alone, name: &str, services: &str) -> Self {
        let ticket: Ticket = node.invite(services).parse().expect("a ticket");
        let key = Arc::new(Keypair::generate());
        let joined = tunnel::join::redeem(&ticket, &key, name).await.expect("a good ticket");
        let config = tunnel::Config::new(Arc::clone(&key), joined.clone(), Epoch(1));
        let quic = tunnel::quic::Quic::bind(&config).expect("the loopback has ports");
        let (tunnel, mut control, incoming) = tunnel::start(config, quic).await.expect("it starts");
        control.dial_seed(vec![node.link]);
        let link =
            event(
                &mut control,
                |event| {
                    if let Event::Up { link, .. } = event { Some(link) } else { None }
                },
            );
        let link = link.await;
        let network = ticket.network;
        Self { key, network, credential: joined, control, link, tunnel, _incoming: incoming }
    }

    /// A record of the member itself.
    #[must_use]
    pub fn own(&self, seq: u64, body: Body) -> Record {
        signed(&self.key, self.network, seq, body)
    }

    /// What it says of itself.
    #[must_use]
    pub fn node(&self, name: &str) -> Body {
        Body::Node(Box::new(Node {
            name: name.to_owned(),
            region: "evil".to_owned(),
            labels: LabelSet::default(),
            addresses: Vec::new(),
            release: "0".to_owned(),
            protocol: proto::PROTOCOL,
            credential: Box::new(self.credential.clone()),
        }))
    }

    /// Sends records.
    pub fn send(&self, records: Vec<Record>) {
        self.control.send(self.link, Frame::Records(records));
    }

    /// Sends all of these as fast as the node takes them.
    pub async fn send_all(&mut self, batches: Vec<Vec<Record>>) {
        for records in batches {
            if self.control.send(self.link, Frame::Records(records)) {
                self.event(|event| matches!(event, Event::Drained(_)).then_some(())).await;
            }
        }
    }

    /// The first event of its tunnel that `wanted` gives something for.
    ///
    /// # Panics
    /// If none comes within [`PATIENCE`].
    pub async fn event<T>(&mut self, wanted: impl FnMut(Event) -> Option<T>) -> T {
        event(&mut self.control, wanted).await
    }

    /// Drops what comes, as a router would deal with it, for so long.
    pub async fn listen(&mut self, time: Duration) {
        let _ = tokio::time::timeout(time, async {
            loop {
                drop(self.control.event().await);
            }
        })
        .await;
    }
}

/// A record of the holder of `key`.
#[must_use]
pub fn signed(key: &Keypair, network: NetworkId, seq: u64, body: Body) -> Record {
    let version = Version { epoch: Epoch(1), seq: Seq(seq) };
    Verified::own(network, key, version, body).record().clone()
}

/// The record with one bit of its signature turned, as it would come from the wire.
///
/// # Panics
/// Never for a record.
#[must_use]
pub fn forged(record: &Record) -> Record {
    let mut bytes = record.bytes().to_vec();
    *bytes.last_mut().expect("a record has bytes") ^= 1;
    Record::decode(bytes.into()).expect("it still has the form of a record")
}

/// A key of nobody's.
#[must_use]
pub fn stranger(member: &Member) -> Keypair {
    let stranger = Keypair::generate();
    assert_ne!(stranger.public_key(), member.key.public_key());
    stranger
}

async fn event<T>(control: &mut Control, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let events = async {
        loop {
            if let Some(found) = wanted(control.event().await) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, events).await.expect("it happens")
}
