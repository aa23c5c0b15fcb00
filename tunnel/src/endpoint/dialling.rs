//! How an endpoint comes to links: dials for calls, which wait for one another, and for the router.

use std::net::SocketAddr;
use std::sync::Arc;

use proto::NodeId;

use super::Endpoint;
use crate::close::{Close, Gone};
use crate::control::Event;
use crate::dial::{DialError, Dialled, Turn, race};
use crate::greet::{self, Greeted, Peer};
use crate::link::Shared;
use crate::transport::Connection;

impl Endpoint {
    /// A link to `node`, made if there is none; at most one is being made.
    pub(super) async fn link_to(self: &Arc<Self>, node: NodeId) -> Result<Arc<Shared>, DialError> {
        if self.is_closing() {
            return Err(DialError::Closing);
        }
        let mut answer = match self.dials.turn(node).inspect_err(|_| {
            self.counters.opens_refused.add();
        })? {
            Turn::Wait(answer) => answer,
            Turn::Dial(sender, slot) => {
                let answer = sender.subscribe();
                let endpoint = Arc::clone(self);
                // A task of its own: the caller may give up, others may be waiting too.
                tokio::spawn(async move {
                    let dialled = endpoint.dial_node(node, false).await;
                    endpoint.dials.done(node, &dialled);
                    sender.send_replace(Some(dialled));
                    drop(slot);
                });
                answer
            }
        };
        let answered = answer.wait_for(Option::is_some).await.map(|answer| answer.clone());
        match answered {
            Ok(Some(dialled)) => dialled,
            Ok(None) | Err(_) => Err(DialError::Failed),
        }
    }

    /// Dials a neighbour for the router.
    pub(crate) fn dial_neighbour(self: &Arc<Self>, node: NodeId) {
        let endpoint = Arc::clone(self);
        self.dial_for_router(move |why| Event::DialFailed(node, why), async move {
            if endpoint.links.has_neighbour(&node) {
                // It dialled at the same moment, and the router knows of it.
                return Ok(());
            }
            endpoint.dial_node(node, true).await.map(drop)
        });
    }

    /// Dials for the router whoever answers at `addresses`.
    pub(crate) fn dial_seed(self: &Arc<Self>, addresses: Vec<SocketAddr>) {
        let (endpoint, seeds) = (Arc::clone(self), addresses.clone());
        self.dial_for_router(move |why| Event::SeedFailed(addresses, why), async move {
            endpoint.dial_anybody(&seeds).await.map(drop)
        });
    }

    /// A neighbour link with whoever answers at `addresses`; gives who that is.
    pub(crate) async fn find(
        self: &Arc<Self>,
        addresses: Vec<SocketAddr>,
    ) -> Result<NodeId, DialError> {
        let (endpoint, slot) = (Arc::clone(self), self.dials.slot()?);
        // A link lives on the runtime of the tunnel, whoever asks for it.
        let dial = self.runtime.spawn(async move {
            let _slot = slot;
            endpoint.dial_anybody(&addresses).await.map(|link| link.peer)
        });
        dial.await.unwrap_or(Err(DialError::Failed))
    }

    async fn dial_anybody(self: &Arc<Self>, addresses: &[SocketAddr]) -> Dialled {
        if self.is_closing() {
            return Err(DialError::Closing);
        }
        let me = self.me;
        let wanted = |node| match self.penalty_of(&node) {
            _ if node == me => Err(DialError::Myself),
            Some(close) => Err(DialError::Unacceptable(close)),
            None => Ok(()),
        };
        self.dial(addresses, true, wanted).await
    }

    fn dial_for_router(
        self: &Arc<Self>,
        failed: impl FnOnce(DialError) -> Event + Send + 'static,
        dial: impl Future<Output = Result<(), DialError>> + Send + 'static,
    ) {
        let endpoint = Arc::clone(self);
        let slot = self.dials.slot();
        let task = async move {
            let dialled = match slot {
                Ok(_slot) => dial.await,
                Err(why) => Err(why),
            };
            if let Err(why) = dialled {
                endpoint.tell(failed(why)).await;
            }
        };
        // The router may live on another runtime than the tunnel.
        self.runtime.spawn(task);
    }

    async fn dial_node(self: &Arc<Self>, node: NodeId, neighbour: bool) -> Dialled {
        if node == self.me {
            return Err(DialError::Myself);
        }
        let addresses = (self.config.book)(node);
        if let Some(close) = self.penalty_of(&node) {
            return Err(DialError::Unacceptable(close));
        }
        let wanted = |there| if there == node { Ok(()) } else { Err(DialError::WrongNode) };
        self.dial(&addresses, neighbour, wanted).await
    }

    async fn dial(
        self: &Arc<Self>,
        addresses: &[SocketAddr],
        neighbour: bool,
        wanted: impl Fn(NodeId) -> Result<(), DialError>,
    ) -> Dialled {
        self.counters.dials.add();
        let dial = async {
            if self.is_full() {
                return Err(DialError::TooMany);
            }
            let stagger = self.config.limits.stagger;
            let connection = race(&self.transport, addresses, stagger, wanted).await?;
            let there = self.links.neighbour(&NodeId::of(&connection.peer()));
            if let (true, Some(link)) = (neighbour, there) {
                // Its address alone did not tell who it is.
                connection.close(Close::Duplicate);
                return Ok(Err(link));
            }
            let greeted = self.greet(&connection, neighbour).await;
            let (greeted, peer) = greeted.inspect_err(|gone| {
                if let Gone::Here(close) = gone {
                    connection.close(*close);
                }
            })?;
            Ok(Ok((connection, greeted, peer)))
        };
        let dialled = match tokio::time::timeout(self.config.limits.dial, dial).await {
            // Out of reach of the time limit: a link is adopted whole.
            Ok(Ok(Ok((connection, greeted, peer)))) => {
                Ok(self.adopt(connection, greeted, &peer, true, neighbour).await)
            }
            Ok(Ok(Err(link))) => Ok(link),
            Ok(Err(why)) => Err(why),
            Err(_) => Err(DialError::TimedOut),
        };
        if let Err(why) = &dialled {
            self.counters.dials_failed.add();
            tracing::debug!(?addresses, %why, "a dial failed");
        }
        dialled
    }

    async fn greet(
        &self,
        connection: &Connection,
        neighbour: bool,
    ) -> Result<(Greeted, Peer), Gone> {
        let greeted = greet::as_dialler(connection, self.hello(neighbour)).await?;
        let (key, now) = (connection.peer(), (self.config.limits.wall)());
        let peer =
            greet::judge(&greeted.hello, self.config.network, &key, now).map_err(Gone::Here)?;
        Ok((greeted, peer))
    }
}
