//! The face of bytes: a port of this machine that is a service somewhere.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use proto::Selector;
use tokio::net::TcpStream;

use crate::begin::Meant;
use crate::carry::raw::Connected;
use crate::error::Error;
use crate::metrics::{Face, Outcome, Turned};
use crate::proxy::Shared;
use crate::socket;
use crate::splice::{self, Broken};

/// The service that a port stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its whole name.
    pub service: String,
    /// What its instance must be like.
    pub selector: Selector,
}

/// Carries one connection to `to` until it has ended. One that comes to nothing is reset: that is how
/// a port refuses on which something listens.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    to: &Destination,
) {
    let Ok(local) = stream.local_addr() else { return };
    if may(shared, peer, local) {
        serve_anybody(shared, stream, to).await
    } else {
        splice::abort(&stream)
    }
}

/// Whether the program that has connected from `peer` to `local`, as it sees them, is served.
pub(crate) fn may(shared: &Shared, peer: SocketAddr, local: SocketAddr) -> bool {
    let Some(admit) = &shared.admit else { return true };
    let Err(stranger) = admit(peer, local) else { return true };
    shared.metrics.turned(Turned::NotOwner);
    tracing::debug!(uid = stranger.uid, "a connection of another user was turned away");
    false
}

/// As [`serve`], whosever program it is.
pub(crate) async fn serve_anybody(shared: &Arc<Shared>, stream: TcpStream, to: &Destination) {
    socket::tune(&stream);
    let began = Instant::now();
    let counted = shared.calls.enter(shared.limits.calls);
    let connected = if counted.is_some() {
        let (service, selector) = (to.service.clone(), to.selector.clone());
        let meant = Meant { service, selector, via: None, named: None };
        shared.connect(meant, HeaderMap::new()).await
    } else {
        Err(Error::Overloaded { what: "this node is", limit: shared.limits.calls })
    };
    match connected {
        Ok(connected) => carry(shared, stream, Bytes::new(), connected, began).await,
        Err(error) => {
            shared.metrics.call(Face::Tcp, Outcome::from(&error), began.elapsed());
            let code = error.code();
            tracing::info!(service = to.service, %error, code, "a connection came to nothing");
            splice::abort(&stream);
        }
    }
}

/// Moves bytes between a program, of which `seen` was read already, and the instance that has taken
/// its connection.
pub(crate) async fn carry(
    shared: &Shared,
    stream: TcpStream,
    seen: Bytes,
    connected: Connected,
    began: Instant,
) {
    let Connected { peer, at } = connected;
    let (up, down) = (&shared.metrics.up, &shared.metrics.down);
    let ended = splice::both_ways(stream, seen, peer, up, down).await;
    drop(at);
    let outcome = match ended {
        Ok(()) => Outcome::Answered,
        Err(Broken::Program) => Outcome::Cancelled,
        Err(Broken::Peer) => Outcome::Broken,
    };
    shared.metrics.call(Face::Tcp, outcome, began.elapsed());
}
