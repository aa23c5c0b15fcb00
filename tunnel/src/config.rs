//! What a tunnel is told when it is made.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use proto::credit::INITIAL;
use proto::{Credential, Epoch, NetworkId, NodeId, UnixTime};

use crate::credit::{LARGEST, SPARE};
use crate::identity::Keypair;
use crate::issuer::Desk;

/// Gives the addresses a node may be reached at, best first; empty when it is not known.
pub type Book = Arc<dyn Fn(NodeId) -> Vec<SocketAddr> + Send + Sync>;

/// Everything a tunnel needs to know.
#[derive(Clone)]
pub struct Config {
    /// The key of this node.
    pub key: Arc<Keypair>,
    /// The network it is a member of.
    pub network: NetworkId,
    /// Its grant. A newer one that is stored here is announced on every link within a second.
    pub credential: Arc<ArcSwap<Credential>>,
    /// Which life of the node this is.
    pub epoch: Epoch,
    /// UDP addresses to listen at; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Makes the tokens by which others recognise that this node has restarted (RFC 9000 §10.3).
    /// Kept on disk for ever, secret.
    pub reset_key: [u8; 64],
    /// Issues grants, where this node may.
    pub desk: Option<Arc<Desk>>,
    /// Where other nodes are.
    pub book: Book,
    /// Bounds and waits.
    pub limits: Limits,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("network", &self.network)
            .field("epoch", &self.epoch)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// A node that listens on any free port of the loopback, knows no other and issues nothing.
    #[must_use]
    pub fn new(key: Arc<Keypair>, credential: Credential, epoch: Epoch) -> Self {
        Self {
            key,
            network: credential.grant().network,
            credential: Arc::new(ArcSwap::from_pointee(credential)),
            epoch,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            reset_key: crate::identity::random(),
            desk: None,
            book: Arc::new(|_| Vec::new()),
            limits: Limits::default(),
        }
    }
}

/// Bounds and waits of a tunnel. The defaults are those of the design.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Links at once, both ways.
    pub links: usize,
    /// Connections that have not yet proven membership.
    pub strangers: usize,
    /// Dials at once.
    pub dials: usize,
    /// Streams that one peer may have open at once.
    pub streams: u32,
    /// Bytes one peer may have in flight to this node on one stream.
    pub stream_window: u32,
    /// Bytes one peer may have in flight to this node on all streams.
    pub peer_window: u32,
    /// Bytes this node keeps for one peer until they are acknowledged.
    pub send_window: u64,
    /// Arrivals that wait to be taken by [`crate::Incoming::accept`].
    pub arrivals: usize,
    /// Frames that wait for one neighbour.
    pub frames: usize,
    /// Time for a stranger to prove membership, or to be done with joining.
    pub greeting: Duration,
    /// Time for one dial, all its addresses together.
    pub dial: Duration,
    /// Time between the starts of two racing attempts of one dial (RFC 8305 §5).
    pub stagger: Duration,
    /// Time to wait for a free stream of a peer that has none.
    pub open: Duration,
    /// A link without calls is closed after this, unless it is a neighbour's.
    pub idle: Duration,
    /// Silence after which a link is dead and its streams are reset.
    pub dead: Duration,
    /// The time of day. For tests; [`wall`] otherwise.
    pub wall: fn() -> UnixTime,
}

/// Streams of one peer at once: those of a thousand readers that are slow, and room for others.
const STREAMS: u32 = 1280;
/// What the streams of one link may have on their way all together: what each may begin with, what
/// they may grow by, and room for the streams of the link itself. Senders keep to less by the
/// credit they are given; this is for those that do not.
const PEER_WINDOW: u64 = STREAMS as u64 * INITIAL + SPARE + (4 << 20);

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 10_000,
            strangers: 512,
            dials: 256,
            streams: STREAMS,
            stream_window: LARGEST as u32,
            peer_window: PEER_WINDOW as u32,
            send_window: 4 << 20,
            arrivals: 4096,
            frames: 1024,
            greeting: Duration::from_secs(3),
            dial: Duration::from_secs(5),
            stagger: Duration::from_millis(75),
            open: Duration::from_secs(1),
            idle: Duration::from_secs(60),
            dead: Duration::from_secs(30),
            wall,
        }
    }
}

/// The time of day by the system's clock.
#[must_use]
pub fn wall() -> UnixTime {
    // A clock before 1970 is read as 1970: every grant is then "not valid yet", which names the
    // clock as the thing to look at.
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
