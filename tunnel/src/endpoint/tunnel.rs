//! The handle for calls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proto::join::Answer;
use proto::open::{Open, OpenKind};
use proto::{Credential, NodeId};
use tokio::time::Instant;

use super::{AskError, Endpoint, OpenError};
use crate::close::Close;
use crate::counters::Counters;
use crate::dial::DialError;
use crate::link::LinkInfo;
use crate::links::Best;
use crate::stream::{Stream, read_to_end};

/// Bytes of one echo.
const MAX_ECHO: usize = 64 * 1024;

/// Opens streams to other nodes. Clones are the same tunnel.
#[derive(Clone, Debug)]
pub struct Tunnel {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Tunnel {
    /// Opens a stream to `node`, over the link there is or one that is made now. The `Open` goes
    /// with the first write, so that a call begins with one packet.
    ///
    /// # Errors
    /// [`OpenError`]: nothing was sent.
    pub async fn open(&self, node: NodeId, open: &Open) -> Result<Stream, OpenError> {
        let endpoint = &self.endpoint;
        let link = match endpoint.links.best(&node) {
            Best::Live(link) => link,
            Best::Suspected => {
                endpoint.counters.opens_refused.add();
                return Err(OpenError::Suspected);
            }
            Best::None => endpoint.link_to(node).await?,
        };
        let mut out = BytesMut::with_capacity(128);
        open.encode(&mut out);
        let out = out.freeze();
        match endpoint.open_on(&link, out.clone()).await {
            // It went away since it was looked up: that is no reason to give up.
            Err(OpenError::Lost(_)) => {
                let link = endpoint.link_to(node).await?;
                endpoint.open_on(&link, out).await
            }
            opened => opened,
        }
    }

    /// Links as a neighbour with whoever answers first at `addresses`, and says who that is. A
    /// live neighbour link with it stays as it is.
    ///
    /// # Errors
    /// [`DialError`] when nobody answers there who is a member, or this node itself does.
    pub async fn find(&self, addresses: Vec<SocketAddr>) -> Result<NodeId, DialError> {
        self.endpoint.find(addresses).await
    }

    /// The links there are, in the order in which they began.
    #[must_use]
    pub fn links(&self) -> Vec<LinkInfo> {
        self.endpoint.links.all().iter().map(|link| link.info()).collect()
    }

    /// Whether there is a neighbour link with `node`, be it one on which nothing is heard just now.
    #[must_use]
    pub fn has_neighbour(&self, node: NodeId) -> bool {
        self.endpoint.links.has_neighbour(&node)
    }

    /// Where this node listens, with the ports the system chose.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.transport.local_addresses()
    }

    /// What was counted.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.endpoint.counters
    }

    /// Sends `payload`, at most 64 KiB, to `node` and back; gives the time that took.
    ///
    /// # Errors
    /// [`AskError`] when it does not come back as it was.
    pub async fn echo(&self, node: NodeId, payload: Bytes) -> Result<Duration, AskError> {
        let began = Instant::now();
        let mut stream = self.open(node, &Open::new(OpenKind::Echo)).await?;
        stream.send.write(&mut [payload.clone()]).await?;
        stream.send.finish();
        let back = read_to_end(&mut stream.recv, MAX_ECHO).await?;
        if back == payload { Ok(began.elapsed()) } else { Err(AskError::Unreadable) }
    }

    /// Asks `issuer` for a newer grant of this node. It is checked, and not yet used: store it in
    /// [`Config::credential`](crate::Config::credential).
    ///
    /// # Errors
    /// [`AskError`] when there is no valid grant to be had.
    pub async fn renew(&self, issuer: NodeId) -> Result<Credential, AskError> {
        use proto::sign::Sign as _;
        let mut stream = self.open(issuer, &Open::new(OpenKind::Renew)).await?;
        stream.send.finish();
        let answer = read_to_end(&mut stream.recv, proto::join::MAX_MESSAGE).await?;
        match Answer::decode(answer).map_err(|_| AskError::Unreadable)? {
            Answer::Refused(refusal) => Err(refusal.into()),
            Answer::Granted(credential) => {
                let config = &self.endpoint.config;
                let (key, now) = (config.key.public_key(), (config.limits.wall)());
                credential
                    .check(config.network, &key, now, &crate::identity::Ed25519)
                    .map_err(|_| AskError::Unreadable)?;
                Ok(*credential)
            }
        }
    }

    /// Accepts and opens nothing more, tells the neighbours, waits at most `grace` for open
    /// streams to end, and closes.
    pub async fn close(&self, grace: Duration) {
        let endpoint = &self.endpoint;
        endpoint.closing.store(true, Ordering::Relaxed);
        for link in endpoint.links.all() {
            endpoint.drain_link(link.id, Close::Leaving);
        }
        // Each closes itself when its calls have ended.
        if tokio::time::timeout(grace, endpoint.links.none()).await.is_err() {
            for link in endpoint.links.all() {
                link.close(Close::Overdue);
            }
        }
        endpoint.transport.close(Close::Leaving).await;
    }
}
