//! The router's end of the tunnel: what happens to neighbour links, and what is wanted of them.

use std::net::SocketAddr;
use std::sync::Arc;

use proto::frame::Frame;
use proto::{Cost, LinkId, NodeId};
use tokio::sync::mpsc;

use crate::close::{Close, Gone};
use crate::conduct::{Reason, Rejected};
use crate::counters::Taken;
use crate::dial::DialError;
use crate::endpoint::Endpoint;
pub use crate::frames::Received;

/// Something that happened to a neighbour link. Of one link, in order.
#[derive(Debug)]
pub enum Event {
    /// A neighbour link is up, both ends proven.
    Up {
        /// Its number.
        link: LinkId,
        /// Who is at the other end.
        node: NodeId,
        /// What it costs.
        cost: Cost,
        /// This node dialled.
        dialled: bool,
    },
    /// A frame came: records, digests, requests for records. Not yet believed: see
    /// [`crate::door::Door`]. While it is kept, it counts as not dealt with, and of a neighbour
    /// with too much of that nothing more is read.
    Frame(LinkId, Received),
    /// The cost has changed by more than noise.
    Cost(LinkId, Cost),
    /// Nothing is heard; new calls do not use it.
    Suspected(LinkId),
    /// It is heard again.
    Recovered(LinkId, Cost),
    /// Little waits to be sent on it, after [`Control::send`] had said that enough does.
    Drained(LinkId),
    /// It is no more.
    Down(LinkId, Gone),
    /// A dial asked for by [`Control::dial`] came to nothing.
    DialFailed(NodeId, DialError),
    /// A dial asked for by [`Control::dial_seed`] came to nothing.
    SeedFailed(Vec<SocketAddr>, DialError),
}

/// The router's end of a tunnel. There is one.
#[derive(Debug)]
pub struct Control {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Control {
    /// The next thing that happened; waits for ever once the tunnel is closed. Safe to cancel.
    pub async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Sends `frame` to the neighbour, after those sent before. When as many wait as may, it is
    /// dropped and counted: what it said comes back with the next digest.
    ///
    /// True, once, when enough waits: what can wait is to be kept back until [`Event::Drained`].
    pub fn send(&self, link: LinkId, frame: Frame) -> bool {
        self.endpoint.send(link, frame)
    }

    /// Says what became of records that passed the door: how many of each, and the bytes of those
    /// that were news. Of a neighbour that tells no news less is read.
    pub fn taken(&self, link: LinkId, counts: [(Taken, u64); 3], bytes_of_news: u64) {
        self.endpoint.taken(link, counts, bytes_of_news);
    }

    /// Says which records were turned away. They are counted and told to the log, not too often;
    /// a neighbour that goes on has to go, and stays away for a while.
    pub fn rejected(&self, link: LinkId, rejected: &Rejected) {
        self.endpoint.rejected(link, rejected);
    }

    /// Counts a service that is kept and not believed, for the grant of its origin does not cover
    /// it. Whoever passes it on does no wrong.
    pub fn not_granted(&self) {
        self.endpoint.counters.records_rejected.add(Reason::NotGranted);
    }

    /// Dials `node` as a neighbour, at the addresses the book has. [`Event::Up`] or
    /// [`Event::DialFailed`] follows.
    pub fn dial(&self, node: NodeId) {
        self.endpoint.dial_neighbour(node);
    }

    /// Dials whoever answers at `addresses` as a neighbour: one link, from the first that
    /// answers. [`Event::Up`] or [`Event::SeedFailed`] follows.
    pub fn dial_seed(&self, addresses: Vec<SocketAddr>) {
        self.endpoint.dial_seed(addresses);
    }

    /// Ends a neighbour link. [`Event::Down`] follows; calls on it are finished first, within
    /// a grace period, where both ends can see to it.
    pub fn close(&self, link: LinkId) {
        self.endpoint.drain_link(link, Close::Unwanted);
    }
}
