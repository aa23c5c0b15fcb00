//! The facade: one door in, one door out.
//!
//! | File | What happens there |
//! |---|---|
//! | `router/requests` | programs register, the node changes or leaves |
//! | `router/links` | neighbour links come, go and change |
//! | `router/records` | records are taken in, or written |
//! | `router/rules` | rules are decided, kept, and carried on |
//! | `router/catchup` | who lacks much listens first |
//! | `router/sync` | neighbours are told news, and find out what differs |
//! | `router/think` | paths and answers are worked out, and published |

mod catchup;
mod links;
mod records;
mod requests;
mod rules;
mod sync;
#[cfg(test)]
mod tests;
mod think;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use proto::record::{Body, Kind, Node};
use proto::sign::Sign;
use proto::{Epoch, NetworkId, NodeId, Role, Seq, ServiceName, Time, UnixTime, Version};

use crate::backbone::Backbone;
use crate::chance::Chance;
use crate::flood::Flood;
use crate::graph::Graph;
use crate::input::{Input, Message};
use crate::interest;
use crate::kept::Kept;
use crate::lease::Leases;
use crate::limits::Limits;
use crate::links::Links;
use crate::lsdb::Lsdb;
use crate::neighbours::Neighbours;
use crate::output::{Note, Output};
use crate::paths::Paths;
use crate::routes::Routes;
use crate::services::Offers;
use crate::terms::Terms;
use crate::timer::{Timer, TimerTable};

/// What a router is born with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The network.
    pub network: NetworkId,
    /// Which life of this node.
    pub epoch: Epoch,
    /// The wall clock at [`Time::ZERO`]: with it the terms of grants are read.
    pub started: UnixTime,
    /// The seed of all chance.
    pub seed: u64,
    /// How much is held.
    pub limits: Limits,
}

/// The mind of one node.
///
/// To be driven so: after each [`Router::handle`] and [`Router::handle_timeout`], take
/// [`Router::poll_output`] until `None`; then wait for the next input, or for the time that
/// [`Router::poll_timeout`] says. Time never goes back.
pub struct Router {
    me: NodeId,
    config: Config,
    signer: Arc<dyn Sign>,
    node: Node,
    /// The life whose records are written now: that of `config`, or above what was seen.
    epoch: Epoch,
    /// Counts everything written in this life.
    seq: u64,
    leaving: bool,

    lsdb: Lsdb,
    /// Members with the relay role, this node perhaps among them.
    relays: BTreeSet<NodeId>,
    graph: Graph,
    offers: Offers,
    /// Which nodes have written rules for a service, whether they may or not.
    ruled: Offers,
    /// Members with the operator role, this node perhaps among them.
    operators: BTreeSet<NodeId>,
    kept: Kept,
    due: rules::Due,
    terms: Terms,
    leases: Leases,
    /// What programs here want to hear of, and what is believed of other nodes.
    wanted: interest::Local,
    interests: interest::Believed,
    links: Links,
    neighbours: Neighbours,
    flood: Flood,
    catch_up: catchup::CatchUp,
    /// Own records the network has in versions above ours.
    ahead: BTreeMap<(Kind, Bytes), Version>,
    reissued: Option<Time>,
    /// When news was last told.
    told: Option<Time>,
    /// When the last digest of all was due, and when something was last learnt.
    digests_due: Time,
    learnt: Time,
    /// When digests were last sent before they were due.
    compared: Option<Time>,

    paths: Paths,
    backbone: Backbone,
    routes: Arc<Routes>,
    stale: Stale,
    throttle: Throttle,

    chance: Chance,
    timers: TimerTable,
    outputs: VecDeque<Output>,
}

/// What the published answers do not reflect yet.
#[derive(Debug, Default)]
struct Stale {
    nodes: BTreeSet<NodeId>,
    /// Nodes of which nothing but links has changed.
    links: BTreeSet<NodeId>,
    /// When the last of these were published.
    drawn: Option<Time>,
    /// What nodes say of their interests, by bucket.
    interests: BTreeSet<(NodeId, u8)>,
    /// By service, the nodes whose instances are to be worked out anew.
    services: BTreeMap<ServiceName, BTreeSet<NodeId>>,
}

/// How often paths are worked out: at once after a quiet time, and less often the more changes
/// come (as routers of RFC 8405 do).
#[derive(Debug, Default)]
struct Throttle {
    last: Option<Time>,
    hold: std::time::Duration,
}

impl Router {
    /// The router of the node that `node` describes, which knows nobody but itself. Writes its own
    /// record and publishes the first answers.
    #[must_use]
    pub fn new(signer: Arc<dyn Sign>, node: Node, config: Config) -> Self {
        let me = NodeId::of(&signer.public_key());
        let mut router = Self {
            me,
            config,
            signer,
            node: node.clone(),
            epoch: config.epoch,
            seq: 0,
            leaving: false,
            lsdb: Lsdb::new(config.limits),
            relays: BTreeSet::new(),
            graph: Graph::default(),
            offers: Offers::default(),
            ruled: Offers::default(),
            operators: BTreeSet::new(),
            kept: Kept::new(config.limits),
            due: rules::Due::default(),
            terms: Terms::default(),
            leases: Leases::default(),
            wanted: interest::Local::default(),
            interests: interest::Believed::default(),
            links: Links::default(),
            neighbours: Neighbours::default(),
            flood: Flood::default(),
            catch_up: catchup::CatchUp::default(),
            ahead: BTreeMap::new(),
            reissued: None,
            told: None,
            digests_due: Time::ZERO,
            learnt: Time::ZERO,
            compared: None,
            paths: Paths::new(me),
            backbone: Backbone::default(),
            routes: Arc::new(Routes::empty(me)),
            stale: Stale::default(),
            throttle: Throttle::default(),
            chance: Chance::new(config.seed),
            timers: TimerTable::default(),
            outputs: VecDeque::new(),
        };
        router.write(Body::Node(Box::new(node)), Time::ZERO);
        router.work_out_paths(Time::ZERO);
        router.publish();
        router.arm_digest(Time::ZERO);
        router.timers.set(Timer::Forget, Time::ZERO + records::SWEEP_EVERY);
        router
    }

    /// This node.
    #[must_use]
    pub fn me(&self) -> NodeId {
        self.me
    }

    /// The life whose records are written: later than the one given at birth when the network
    /// remembered a later one. To be kept, and begun above, by the next.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many records are held, of all origins, tombstones included.
    #[must_use]
    pub fn records(&self) -> usize {
        self.lsdb.len()
    }

    /// Takes in what happened. What became due before it is done first.
    pub fn handle(&mut self, input: Input, now: Time) {
        self.handle_timeout(now);
        match input {
            Input::Link(link, event) => self.link_event(link, event, now),
            Input::Frame(link, message) if self.links.get(link).is_some() => match message {
                Message::Records(records) => self.take_in(records, link, now),
                Message::Digest(digest) => self.compare(&digest, link),
                Message::Summary(summary) => self.settle(summary, link, now),
                Message::Want(want) => self.give(&want, link, now),
            },
            Input::Frame(..) => {}
            Input::Request(id, request) => self.request(id, request, now),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(timer) = self.timers.take_due(now) {
            match timer {
                Timer::Flood => self.tell_news(now),
                Timer::Digest => self.send_digests(now),
                Timer::Compare => self.compare_asked(now),
                Timer::Paths => self.think(now),
                Timer::Lease => self.end_leases(now),
                Timer::Grant => self.end_grants(now),
                Timer::Forget => self.sweep(now),
                Timer::Dial => self.review_neighbours(now),
                Timer::Cost => self.tell_costs(now),
                Timer::Reissue => self.reissue(now),
                Timer::Carry => self.carry_rules(now),
            }
        }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.kept.take_news().map(Output::Kept))
    }

    /// When to call [`Router::handle_timeout`], and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Time, Timer)> {
        self.timers.next()
    }

    fn is_relay(&self) -> bool {
        self.node.credential.grant().roles.has(Role::Relay)
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }

    /// The wall clock, as far as this core knows it.
    fn wall(&self, now: Time) -> UnixTime {
        self.config.started.plus(now.as_micros() / 1_000_000)
    }

    /// When the wall clock will show `at`.
    fn time_of(&self, at: UnixTime) -> Time {
        let seconds = at.seconds_after(self.config.started);
        Time::from_micros(seconds.saturating_mul(1_000_000))
    }

    fn next_version(&mut self) -> Version {
        if self.seq == u64::MAX && self.epoch.0 < u64::MAX {
            self.epoch = Epoch(self.epoch.0 + 1);
            self.seq = 0;
        }
        // Above the very last version is nothing: only the holder of our key can have used it.
        self.seq = self.seq.saturating_add(1);
        Version { epoch: self.epoch, seq: Seq(self.seq) }
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (links, records) = (self.links.len(), self.lsdb.len());
        write!(f, "Router({:?}: {links} links, {records} records, {:?})", self.me, self.routes)
    }
}
