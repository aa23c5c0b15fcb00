//! How a link to a node comes to be: one dial at a time for each, all its addresses raced.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use proto::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::close::{Close, Gone};
use crate::link::Shared;
use crate::transport::{Connection, Transport};

/// After a dial failed, calls to the node are refused at once for so long.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Failures remembered; those that are over make room first.
const MAX_REMEMBERED: usize = 1024;

/// An attempt without an answer is made once more after this, beside the one before. QUIC sends its
/// first packet again after 0.3, 0.9, 2.1 and 4.5 s: a path that comes back in between would be found
/// seconds late.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a dial came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// No address of the node is known.
    #[error("no address of it is known")]
    NoAddress,
    /// The node is this one.
    #[error("it is this node")]
    Myself,
    /// As many dials are under way as may.
    #[error("too many links are being opened")]
    TooMany,
    /// Nobody answered in time.
    #[error("nobody answers")]
    TimedOut,
    /// Whoever answers there is another node.
    #[error("another node answers at its addresses")]
    WrongNode,
    /// It answered, and closed for this reason.
    #[error("it refused: {0}")]
    Refused(Close),
    /// It answered, and is not one this node accepts.
    #[error("it was refused: {0}")]
    Unacceptable(Close),
    /// The connection failed.
    #[error("the connection failed")]
    Failed,
    /// This node is stopping.
    #[error("this node is stopping")]
    Closing,
}

impl From<Gone> for DialError {
    fn from(gone: Gone) -> Self {
        match gone {
            Gone::ByPeer(close) => Self::Refused(close),
            Gone::Here(close) => Self::Unacceptable(close),
            Gone::Silent => Self::TimedOut,
            Gone::Restarted | Gone::Failed => Self::Failed,
        }
    }
}

/// What a dial comes to.
pub(crate) type Dialled = Result<Arc<Shared>, DialError>;

/// The dials that are under way, and those that failed a moment ago.
#[derive(Debug)]
pub(crate) struct Dials {
    by_node: Mutex<HashMap<NodeId, Dialling, foldhash::fast::RandomState>>,
    slots: Arc<Semaphore>,
}

#[derive(Debug)]
enum Dialling {
    Now(watch::Receiver<Option<Dialled>>),
    Failed { until: Instant, why: DialError },
}

/// What a caller who needs a link does.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Somebody dials already: wait for what comes of it.
    Wait(watch::Receiver<Option<Dialled>>),
    /// Nobody does: dial, and say what came of it with [`Dials::done`].
    Dial(watch::Sender<Option<Dialled>>, OwnedSemaphorePermit),
}

impl Dials {
    pub(crate) fn new(at_once: usize) -> Self {
        Self { by_node: Mutex::default(), slots: Arc::new(Semaphore::new(at_once)) }
    }

    /// One of the dials that may be under way at once.
    pub(crate) fn slot(&self) -> Result<OwnedSemaphorePermit, DialError> {
        Arc::clone(&self.slots).try_acquire_owned().map_err(|_| DialError::TooMany)
    }

    pub(crate) fn turn(&self, node: NodeId) -> Result<Turn, DialError> {
        let mut dials = self.by_node.lock();
        match dials.get(&node) {
            Some(Dialling::Now(answer)) => return Ok(Turn::Wait(answer.clone())),
            Some(Dialling::Failed { until, why }) if Instant::now() < *until => return Err(*why),
            Some(Dialling::Failed { .. }) | None => {}
        }
        let slot = self.slot()?;
        let (sender, receiver) = watch::channel(None);
        dials.insert(node, Dialling::Now(receiver));
        Ok(Turn::Dial(sender, slot))
    }

    pub(crate) fn done(&self, node: NodeId, dialled: &Dialled) {
        let now = Instant::now();
        let mut dials = self.by_node.lock();
        match dialled {
            Ok(_) => drop(dials.remove(&node)),
            Err(why) => {
                if dials.len() >= MAX_REMEMBERED {
                    dials.retain(|_, dialling| match dialling {
                        Dialling::Now(_) => true,
                        Dialling::Failed { until, .. } => now < *until,
                    });
                }
                dials.remove(&node);
                if dials.len() < MAX_REMEMBERED {
                    let until = now + REMEMBERED;
                    dials.insert(node, Dialling::Failed { until, why: *why });
                }
            }
        }
    }

    /// A failure is forgotten when the node has been heard of.
    pub(crate) fn forget(&self, node: NodeId) {
        let mut dials = self.by_node.lock();
        if let Some(Dialling::Failed { .. }) = dials.get(&node) {
            dials.remove(&node);
        }
    }
}

/// Connects to the first of `addresses` at which `wanted` answers: both families in turn, each
/// attempt a little after the one before (RFC 8305 §5), at once when that has failed. Whoever says
/// nothing is asked again and again; the caller ends that.
pub(crate) async fn race(
    transport: &Transport,
    addresses: &[SocketAddr],
    stagger: Duration,
    wanted: impl Fn(NodeId) -> Result<(), DialError>,
) -> Result<Connection, DialError> {
    let mut silent = in_turn(addresses);
    let mut waiting = silent.clone().into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = DialError::NoAddress;
    loop {
        match waiting.next() {
            Some(address) => {
                attempts.push(async move { (address, transport.connect(address).await) });
            }
            None if attempts.is_empty() => return Err(failed),
            None => {}
        }
        loop {
            // Both arms can be cancelled: an attempt stays in its set.
            let pause = if waiting.len() > 0 { stagger } else { AGAIN };
            let (address, attempt) = tokio::select! {
                Some(attempt) = attempts.next() => attempt,
                () = tokio::time::sleep(pause) => {
                    if waiting.len() == 0 {
                        waiting = silent.clone().into_iter();
                    }
                    break;
                }
            };
            silent.retain(|other| *other != address);
            match attempt {
                Ok(connection) => match wanted(NodeId::of(&connection.peer())) {
                    Ok(()) => return Ok(connection),
                    Err(why) => {
                        connection.close(Close::WrongNode);
                        failed = why;
                    }
                },
                // What was learned from a node that answered says more than silence.
                Err(gone) if matches!(failed, DialError::NoAddress) => failed = gone.into(),
                Err(_) => {}
            }
            if waiting.len() > 0 || attempts.is_empty() {
                break;
            }
        }
    }
}

/// The families in turn, beginning with that of the first; the order within each is kept
/// (RFC 8305 §4).
fn in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let (same, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut all = Vec::with_capacity(addresses.len());
    let (mut same, mut other) = (same.into_iter(), other.into_iter());
    loop {
        let before = all.len();
        all.extend(same.next());
        all.extend(other.next());
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_each_keeps_its_order() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let addresses = parse(&["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "[::1]:1"]);
        let turns = parse(&["10.0.0.1:1", "[::1]:1", "10.0.0.2:1", "10.0.0.3:1"]);
        assert_eq!(in_turn(&addresses), turns);
    }
}
