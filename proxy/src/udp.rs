//! Packets over UDP: flows of a program with an instance, here or on another node.
//!
//! ```text
//! program ── UDP port ── flows, one for each source ──▶ ends::Near   an instance of this node
//!                                                   ──▶ ends::Far    a stream to its node, with packets
//! ```
//!
//! A flow is what a connection is for TCP: its instance is chosen once, by the same rules, and it ends
//! when nothing has passed for [`IDLE`], when the instance is found not to listen, or with the way to
//! it. The next packet begins another, with whatever instance is there then. Packets may be lost, as on
//! any network, and are never delivered twice.

pub(crate) mod carry;
pub(crate) mod ends;
pub(crate) mod socks;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use self::carry::{Ended, carry};
use self::ends::{Ends, Gone, Program};
use crate::balance::Outcome as Settled;
use crate::begin::Meant;
use crate::carry::Form;
use crate::carry::raw::Connected;
use crate::load::InFlight;
use crate::metrics::{Face, Outcome, Turned};
use crate::proxy::{Proxy, Shared, drained};
use crate::tcp::Destination;

/// How long a flow may be silent: longer than programs wait for an answer. Here the next packet begins
/// again, so that nothing is broken by it (as RFC 4787 §4.3 warns of for address translation).
pub(crate) const IDLE: Duration = Duration::from_secs(60);
/// Packets of one flow that wait for their way, while an instance is asked for or is slow: more than
/// are read at a port before flows get their turn.
const WAITING: usize = 256;
/// Bytes of all flows of one port that wait.
const ROOM: usize = 8 << 20;
/// Flows of one port. For a further one that gives way which was silent longest: programs that take a
/// new port for each question leave many behind.
const MAX_FLOWS: usize = 256;
/// How long the packets of a flow that came to nothing are dropped before an instance is asked again.
const AGAIN: Duration = Duration::from_millis(500);

impl Proxy {
    /// Takes packets at `socket` for one service. Returns when the proxy drains; dropped, it takes no
    /// more, and its flows end.
    pub async fn forward_packets(&self, socket: UdpSocket, to: Destination) {
        let listens =
            socket.local_addr().map(|address| self.0.deliver.own_packets.listens(address));
        let mut draining = self.0.draining.subscribe();
        tokio::select! {
            () = serve(&self.0, Arc::new(socket), &to) => {}
            () = drained(&mut draining) => {}
        }
        drop(listens);
    }
}

async fn serve(shared: &Arc<Shared>, socket: Arc<UdpSocket>, to: &Destination) {
    let mut flows = Flows::default();
    loop {
        // An error here is that of an earlier answer which nobody took any more.
        let Ok((packet, peer)) = ends::recv_from(&socket).await else { continue };
        let begin = || {
            if !may(shared, peer) {
                return None;
            }
            let (service, selector) = (to.service.clone(), to.selector.clone());
            let meant = Meant { service, selector, via: None, named: None };
            let program = Program::new(Arc::clone(&socket), peer, Bytes::new());
            Some((meant, HeaderMap::new(), program))
        };
        flows.take(shared, peer, packet, begin);
    }
}

/// Whether the program that sends from `peer` is served. Its packets are dropped if not: nothing can be
/// answered that it would understand.
pub(crate) fn may(shared: &Shared, peer: SocketAddr) -> bool {
    let Some(admit) = &shared.admit_packets else { return true };
    let Err(stranger) = admit(peer) else { return true };
    shared.metrics.turned(Turned::NotOwner);
    tracing::debug!(uid = stranger.uid, "packets of another user were turned away");
    false
}

/// Flows that are open, by what tells them apart. They end with this.
pub(crate) struct Flows<K> {
    open: HashMap<K, Flow>,
    room: Arc<Semaphore>,
}

/// A packet, and the room that it takes.
pub(crate) type Waiting = (Bytes, OwnedSemaphorePermit);

struct Flow {
    packets: mpsc::Sender<Waiting>,
    /// When its program has sent last.
    last: Instant,
    task: tokio::task::AbortHandle,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<K> Default for Flows<K> {
    fn default() -> Self {
        Self { open: HashMap::new(), room: Arc::new(Semaphore::new(ROOM)) }
    }
}

impl<K: Clone + Hash + Eq> Flows<K> {
    /// Gives a packet to its flow; `begin` says where a new one goes, or that there is none.
    pub(crate) fn take(
        &mut self,
        shared: &Arc<Shared>,
        key: K,
        packet: Bytes,
        begin: impl FnOnce() -> Option<(Meant, HeaderMap, Program)>,
    ) {
        let lost = &shared.metrics.packets_lost;
        let size = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(size) else {
            lost.inc();
            return;
        };
        let mut packet = (packet, room);
        if let Some(flow) = self.open.get_mut(&key) {
            flow.last = Instant::now();
            packet = match flow.packets.try_send(packet) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    lost.inc();
                    return;
                }
                // It has ended since.
                Err(TrySendError::Closed(packet)) => packet,
            };
            self.open.remove(&key);
        }
        let (Some((meant, headers, mut program)), Some(counted)) = (begin(), self.counted(shared))
        else {
            lost.inc();
            return;
        };
        let (packets, come) = mpsc::channel(WAITING);
        // There is room for the first.
        let _ = packets.try_send(packet);
        program.listen(come);
        let flow = flow(Arc::clone(shared), meant, headers, program, counted);
        let task = tokio::spawn(flow).abort_handle();
        self.open.insert(key, Flow { packets, last: Instant::now(), task });
    }

    /// Room for one more flow, made where there is none.
    fn counted(&mut self, shared: &Shared) -> Option<InFlight> {
        if self.open.len() >= MAX_FLOWS {
            self.open.retain(|_, flow| !flow.packets.is_closed());
        }
        if self.open.len() >= MAX_FLOWS {
            self.end_oldest();
        }
        let counted = shared.flows.enter(shared.limits.flows);
        // The one that gives way is counted until its task has noticed.
        counted.or_else(|| shared.flows.enter(u32::MAX).filter(|_| self.end_oldest()))
    }

    /// Ends the flow that was silent longest; whether there was one.
    fn end_oldest(&mut self) -> bool {
        let oldest = self.open.iter().min_by_key(|(_, flow)| flow.last);
        let oldest = oldest.map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.open.remove(&key).is_some())
    }
}

async fn flow(
    shared: Arc<Shared>,
    meant: Meant,
    headers: HeaderMap,
    program: Program,
    _counted: InFlight,
) {
    let began = Instant::now();
    let service = meant.service.clone();
    match shared.connect_as::<Ends>(Form::Packets, meant, headers).await {
        Ok(Connected { peer, mut at }) => {
            // Counted at the instance until it answers: a flow that is silent is no load.
            let heard = || {
                if let Some(mut at) = at.take() {
                    at.settle(Settled::Answered, None);
                }
            };
            let ended = carry(Ends::Program(program), peer, shared.metrics.packets(), heard).await;
            // Others are to be asked before one that does not listen.
            if ended == Ended::Second(Gone::Refused)
                && let Some(at) = &mut at
            {
                at.settle(Settled::Refused, None);
            }
            shared.metrics.call(Face::Udp, Outcome::from(ended), began.elapsed());
        }
        Err(error) => {
            shared.metrics.call(Face::Udp, Outcome::from(&error), began.elapsed());
            let code = error.code();
            tracing::info!(service, %error, code, "a flow came to nothing");
            // What comes meanwhile is dropped with it: each packet would ask everybody again.
            program.drop_for(AGAIN, &shared.metrics.packets_lost).await;
        }
    }
}

impl From<Ended> for Outcome {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Idle => Self::Answered,
            Ended::First => Self::Cancelled,
            Ended::Second(_) => Self::Broken,
        }
    }
}
