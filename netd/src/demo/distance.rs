//! Distance between nodes of one machine: a UDP socket in front of each node takes the packets of
//! the others, holds them for half a round trip, drops a share, and passes them on; and the same on
//! the way back. The packets are not touched, so links are as they are anywhere.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The largest UDP payload.
const MAX_PACKET: usize = 65_536;
/// Packets on their way in one direction between two nodes; beyond it they are dropped, as a
/// router with a full queue does.
const IN_FLIGHT: usize = 4096;
/// Sources one node is reached from: links, and joiners that come once.
const MAX_SOURCES: usize = 256;

/// The distances between all nodes, and where each node really listens.
#[derive(Clone, Debug)]
pub(super) struct Distance {
    round_trips: Arc<Vec<Vec<Duration>>>,
    loss: f64,
    /// The real addresses, by node: filled as they start.
    places: Arc<Mutex<Vec<Option<SocketAddr>>>>,
}

/// The socket in front of one node.
#[derive(Debug)]
pub(super) struct Stage {
    /// Where the others reach the node.
    pub(super) address: SocketAddr,
    node: usize,
    _stop: DropGuard,
}

impl Distance {
    pub(super) fn new(nodes: usize, between: impl Fn(usize, usize) -> Duration, loss: f64) -> Self {
        let row = |a: usize| {
            let to = |b: usize| if a == b { Duration::ZERO } else { between(a, b) };
            (0..nodes).map(to).collect()
        };
        let round_trips = Arc::new((0..nodes).map(row).collect());
        Self { round_trips, loss, places: Arc::new(Mutex::new(vec![None; nodes])) }
    }

    /// The round trip between two nodes.
    pub(super) fn between(&self, a: usize, b: usize) -> Duration {
        self.round_trips[a][b]
    }

    /// The largest round trip there is.
    pub(super) fn is_zero(&self) -> bool {
        self.round_trips.iter().flatten().all(Duration::is_zero)
    }

    /// A socket in front of node `node`; it passes packets on once the node has its place.
    pub(super) async fn stage(&self, node: usize) -> io::Result<Stage> {
        let socket = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
        let (address, stop) = (socket.local_addr()?, CancellationToken::new());
        let forward = forward(self.clone(), node, socket, stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(forward));
        Ok(Stage { address, node, _stop: stop.drop_guard() })
    }

    /// The node of this stage listens at `at`.
    pub(super) fn place(&self, stage: &Stage, at: SocketAddr) {
        self.places.lock()[stage.node] = Some(at);
    }

    fn one_way(&self, from: SocketAddr, to: usize) -> Duration {
        let from = self.places.lock().iter().position(|place| *place == Some(from));
        // Who is about to join has no place yet and stands beside the node.
        from.map_or(Duration::ZERO, |from| self.between(from, to) / 2)
    }

    fn is_lost(&self) -> bool {
        let dice = u32::from_be_bytes(tunnel::identity::random());
        self.loss > 0.0 && f64::from(dice) < self.loss * f64::from(u32::MAX)
    }
}

/// Takes what comes to the front of a node, one way back for each source.
async fn forward(distance: Distance, node: usize, front: Arc<UdpSocket>, stop: CancellationToken) {
    let mut ways: VecDeque<(SocketAddr, mpsc::Sender<Packet>)> = VecDeque::new();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        // An error is news of an earlier packet (ICMP); the socket lives on.
        let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
        let Some(real) = distance.places.lock()[node] else { continue };
        let way = match ways.iter().find(|(source, _)| *source == from) {
            Some((_, way)) => way.clone(),
            None => {
                let Ok(way) = open(&distance, node, real, from, &front, &stop).await else {
                    continue;
                };
                if ways.len() == MAX_SOURCES {
                    ways.pop_front();
                }
                ways.push_back((from, way.clone()));
                way
            }
        };
        let due = Instant::now() + distance.one_way(from, node);
        if !distance.is_lost() {
            // Full: dropped.
            let _ = way.try_send(Packet { due, bytes: buffer[..length].into() });
        }
    }
}

#[derive(Debug)]
struct Packet {
    due: Instant,
    bytes: Box<[u8]>,
}

/// The way between one source and the node: a socket of its own towards the node, so that its
/// answers are told apart.
async fn open(
    distance: &Distance,
    node: usize,
    real: SocketAddr,
    from: SocketAddr,
    front: &Arc<UdpSocket>,
    stop: &CancellationToken,
) -> io::Result<mpsc::Sender<Packet>> {
    let back = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await?);
    back.connect(real).await?;
    let (there, on_the_way) = mpsc::channel(IN_FLIGHT);
    let socket = Arc::clone(&back);
    let deliver = pass(on_the_way, move |bytes| {
        let socket = Arc::clone(&socket);
        async move { drop(socket.send(&bytes).await) }
    });
    let (home, on_the_way_back) = mpsc::channel(IN_FLIGHT);
    let front = Arc::clone(front);
    let answer = pass(on_the_way_back, move |bytes| {
        let front = Arc::clone(&front);
        async move { drop(front.send_to(&bytes, from).await) }
    });
    let distance = distance.clone();
    let listen = async move {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let Ok(length) = back.recv(&mut buffer).await else { continue };
            let due = Instant::now() + distance.one_way(from, node);
            if !distance.is_lost() {
                let _ = home.try_send(Packet { due, bytes: buffer[..length].into() });
            }
        }
    };
    let all = async move { tokio::join!(deliver, answer, listen) };
    tokio::spawn(stop.clone().run_until_cancelled_owned(all));
    Ok(there)
}

/// Sends each packet when it is due, in order: of one direction all take equally long.
async fn pass<F: Future<Output = ()>>(
    mut packets: mpsc::Receiver<Packet>,
    send: impl Fn(Box<[u8]>) -> F,
) {
    while let Some(packet) = packets.recv().await {
        if packet.due > Instant::now() {
            tokio::time::sleep_until(packet.due).await;
        }
        send(packet.bytes).await;
    }
}
