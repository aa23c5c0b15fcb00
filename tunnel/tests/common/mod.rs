//! A network of a few nodes in one process, over QUIC on the loopback or over memory.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::grant::Issuer;
use proto::open::{Open, OpenKind};
use proto::sign::Sign;
use proto::{Credential, Epoch, NetworkId, NodeId, UnixTime};
use tunnel::issuer::Template;
use tunnel::memory::Hub;
use tunnel::quic::Quic;
use tunnel::{Config, Control, Desk, Event, Incoming, Keypair, RecvHalf, Tunnel};

/// How long a test waits for what must happen at once.
pub const SOON: Duration = Duration::from_secs(20);

type Addresses = Arc<Mutex<BTreeMap<NodeId, Vec<SocketAddr>>>>;

/// What links stand on.
#[derive(Clone)]
pub enum Ground {
    Quic,
    Memory(Hub),
}

/// Both, for tests that must hold on either.
pub fn grounds() -> [Ground; 2] {
    [Ground::Quic, Ground::Memory(Hub::default())]
}

/// A network: its root, its issuer, and where its nodes are.
pub struct Net {
    pub ground: Ground,
    pub issuer: Issuer,
    pub key: Arc<Keypair>,
    pub desk: Arc<Desk>,
    pub addresses: Addresses,
    pub directory: tempfile::TempDir,
}

/// One node, with all its handles.
pub struct Node {
    pub id: NodeId,
    pub config: Config,
    pub tunnel: Tunnel,
    pub control: Control,
    pub incoming: Incoming,
    pub address: SocketAddr,
}

impl Net {
    pub fn new(ground: Ground) -> Self {
        let root = Keypair::generate();
        // The first node issues: its key is the issuer's.
        let key = Arc::new(Keypair::generate());
        let issuer = Issuer::appoint(&root, key.public_key(), UnixTime(u64::MAX >> 4));
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger");
        let desk =
            Desk::open(issuer.clone(), Arc::clone(&key), "acme", key.node(), &ledger).unwrap();
        let (desk, addresses) = (Arc::new(desk), Addresses::default());
        Self { ground, issuer, key, desk, addresses, directory }
    }

    pub fn quic() -> Self {
        Self::new(Ground::Quic)
    }

    pub fn id(&self) -> NetworkId {
        self.issuer.network()
    }

    pub fn ledger(&self) -> PathBuf {
        self.directory.path().join("ledger")
    }

    /// A grant for `key` that holds for `life` seconds.
    pub fn grant(&self, key: &Keypair, life: u64) -> Credential {
        let template = Template { life, ..Template::member() };
        self.desk.enrol(key.public_key(), "node", template, tunnel::config::wall()).unwrap()
    }

    pub fn config(&self, key: Arc<Keypair>, credential: Credential) -> Config {
        let addresses = Arc::clone(&self.addresses);
        let mut config = Config::new(key, credential, Epoch(1));
        config.book =
            Arc::new(move |node| addresses.lock().unwrap().get(&node).cloned().unwrap_or_default());
        config
    }

    /// The node that issues grants.
    pub async fn issuing(&self) -> Node {
        let credential = self.grant(&self.key, 3600);
        let mut config = self.config(Arc::clone(&self.key), credential);
        config.desk = Some(Arc::clone(&self.desk));
        self.start(config).await
    }

    /// A new member.
    pub async fn member(&self) -> Node {
        self.start(self.member_config()).await
    }

    pub fn member_config(&self) -> Config {
        let key = Arc::new(Keypair::generate());
        let credential = self.grant(&key, 3600);
        self.config(key, credential)
    }

    pub async fn start(&self, config: Config) -> Node {
        let id = config.key.node();
        let (tunnel, control, incoming) = match &self.ground {
            Ground::Quic => {
                let quic = Quic::bind(&config).unwrap();
                tunnel::start(config.clone(), quic).await.unwrap()
            }
            Ground::Memory(hub) => {
                let memory = hub.bind(config.key.public_key());
                tunnel::start(config.clone(), memory).await.unwrap()
            }
        };
        let address = tunnel.local_addresses()[0];
        self.addresses.lock().unwrap().insert(id, vec![address]);
        Node { id, config, tunnel, control, incoming, address }
    }
}

impl Node {
    /// Waits for the first event that `wanted` picks.
    pub async fn event<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let events = async {
            loop {
                if let Some(found) = wanted(self.control.event().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(SOON, events).await.expect("the event comes")
    }
}

/// Reads to the end.
pub async fn read_all(recv: &mut RecvHalf) -> Bytes {
    let mut all = BytesMut::new();
    while let Some(chunk) = recv.read(64 * 1024).await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all.freeze()
}

/// Bytes that are not all alike.
pub fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect::<Vec<u8>>().into()
}

/// Answers every arrival with what it sent, until the tunnel is closed.
pub async fn mirror(mut incoming: Incoming) {
    while let Some(mut arrival) = incoming.accept().await {
        tokio::spawn(async move {
            while let Ok(Some(chunk)) = arrival.stream.recv.read(64 * 1024).await {
                if arrival.stream.send.write(&mut [chunk]).await.is_err() {
                    return;
                }
            }
            arrival.stream.send.finish();
        });
    }
}

/// An `Open` for raw bytes to a service.
pub fn call() -> Open {
    Open { service: Bytes::from_static(b"greeter"), ..Open::new(OpenKind::Bytes) }
}

/// Calls, and takes what comes back.
pub async fn exchange(tunnel: &Tunnel, node: NodeId, payload: Bytes) -> Bytes {
    let mut stream = tunnel.open(node, &call()).await.unwrap();
    let (mut send, recv) = (stream.send, &mut stream.recv);
    let sent = async move {
        send.write(&mut [payload]).await.unwrap();
        send.finish();
        // Dropping it after its end does not reset it.
    };
    let (_, back) = tokio::join!(sent, read_all(recv));
    back
}
