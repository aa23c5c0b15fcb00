//! A node's end of the tunnel: [`Tunnel`] for calls, [`Control`] for the router, [`Incoming`] for
//! what others call here.

mod error;
mod tunnel;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::fault::Code;
use proto::frame::{Frame, Hello};
use proto::open::Open;
use proto::{Credential, LinkId, NodeId, Time};
use tokio::sync::mpsc;

pub use error::{AskError, Error, OpenError};
pub use tunnel::Tunnel;

use crate::clock::Clock;
use crate::close::{Close, Gone};
use crate::conduct::Rejected;
use crate::config::Config;
use crate::control::{Control, Event};
use crate::counters::{Counters, Taken};
use crate::dial::{DialError, Dialled, Dials, Turn, race};
use crate::greet::{self, Greeted, Peer};
use crate::link::{self, Shared, refuse};
use crate::links::Links;
use crate::penalty::Penalties;
use crate::stream::Stream;
use crate::transport::{Connection, Transport};
use crate::{admit, frames};

/// Events that wait for the router. Neighbours are read no faster than it takes them.
const EVENTS: usize = 4096;

/// A stream that another node opened.
#[derive(Debug)]
pub struct Arrival {
    /// Who opened it, proven.
    pub caller: NodeId,
    /// What the caller may do, valid when it arrived.
    pub grant: Arc<Credential>,
    /// What it asks for.
    pub open: Open,
    /// The bytes that follow, and the way back.
    pub stream: Stream,
}

/// The streams that other nodes open here. There is one.
#[derive(Debug)]
pub struct Incoming {
    arrivals: mpsc::Receiver<Arrival>,
}

impl Incoming {
    /// The next one; `None` when the tunnel is closed. Safe to cancel.
    pub async fn accept(&mut self) -> Option<Arrival> {
        self.arrivals.recv().await
    }
}

/// Starts a tunnel on the current runtime. Everything it does happens there; the handles may be
/// used from anywhere.
///
/// # Errors
/// [`Error`] when it cannot listen.
pub async fn start(
    config: Config,
    transport: impl Into<Transport>,
) -> Result<(Tunnel, Control, Incoming), Error> {
    let (events, event_queue) = mpsc::channel(EVENTS);
    let (arrivals, arrival_queue) = mpsc::channel(config.limits.arrivals);
    let endpoint = Arc::new(Endpoint {
        me: config.key.node(),
        clock: Clock::start(),
        counters: Counters::default(),
        links: Links::default(),
        dials: Dials::new(config.limits.dials),
        strangers: admit::Strangers::default(),
        penalties: Mutex::default(),
        closing: AtomicBool::new(false),
        transport: transport.into(),
        runtime: tokio::runtime::Handle::current(),
        config,
        events,
        arrivals,
    });
    for listener in endpoint.transport.listeners() {
        tokio::spawn(admit::listen(Arc::clone(&endpoint), listener));
    }
    let control = Control { endpoint: Arc::clone(&endpoint), events: event_queue };
    Ok((Tunnel { endpoint }, control, Incoming { arrivals: arrival_queue }))
}

/// Everything one node's tunnel has.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) me: NodeId,
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) strangers: admit::Strangers,
    penalties: Mutex<Penalties>,
    links: Links,
    dials: Dials,
    transport: Transport,
    closing: AtomicBool,
    runtime: tokio::runtime::Handle,
    events: mpsc::Sender<Event>,
    arrivals: mpsc::Sender<Arrival>,
}

impl Endpoint {
    /// Our hello, with our newest grant.
    pub(crate) fn hello(&self, neighbour: bool) -> Hello {
        Hello {
            protocol: proto::PROTOCOL,
            credential: Some(Box::new((**self.config.credential.load()).clone())),
            epoch: self.config.epoch,
            neighbour,
        }
    }

    /// When a grant ends, by the clock of this tunnel.
    pub(crate) fn end_of(&self, credential: &Credential) -> Time {
        self.clock.after(credential.expires().seconds_after((self.config.limits.wall)()))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.links.len() >= self.config.limits.links
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Tells the router, as soon as it listens.
    pub(crate) async fn tell(&self, event: Event) {
        // Without a router nobody needs to know.
        let _ = self.events.send(event).await;
    }

    /// Tells the router if it listens now; gives the event back otherwise.
    pub(crate) fn try_tell(&self, event: Event) -> Option<Event> {
        match self.events.try_send(event) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => None,
            Err(mpsc::error::TrySendError::Full(event)) => Some(event),
        }
    }

    pub(crate) fn arrived(&self, arrival: Arrival) {
        if self.is_closing() {
            self.counters.streams_refused.add();
            return refuse(arrival.stream, Code::Unseen);
        }
        if let Err(full) = self.arrivals.try_send(arrival) {
            self.counters.streams_refused.add();
            refuse(full.into_inner().stream, Code::Unseen);
        }
    }

    async fn open_on(&self, link: &Arc<Shared>, open: Bytes) -> Result<Stream, OpenError> {
        let mut opening = std::pin::pin!(link.connection.open());
        // Nearly always there is a free stream, and no timer is needed.
        let opened = match futures_util::poll!(opening.as_mut()) {
            std::task::Poll::Ready(opened) => opened,
            std::task::Poll::Pending => {
                tokio::time::timeout(self.config.limits.open, opening).await.map_err(|_| {
                    self.counters.opens_refused.add();
                    OpenError::TooMany
                })?
            }
        };
        let halves = opened.map_err(OpenError::Lost)?;
        self.counters.streams_opened.add();
        Ok(link.stream(halves, Some(open)))
    }

    /// A link to `node`, made if there is none; at most one is being made.
    async fn link_to(self: &Arc<Self>, node: NodeId) -> Result<Arc<Shared>, DialError> {
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

    /// Makes a link of a connection whose both ends are members.
    pub(crate) async fn adopt(
        self: &Arc<Self>,
        connection: Connection,
        greeted: Greeted,
        peer: &Peer,
        dialled: bool,
        neighbour: bool,
    ) -> Arc<Shared> {
        connection.allow_bytes(&self.config.limits);
        connection.allow_streams(link::FIRST_STREAMS.min(self.config.limits.streams));
        let (sender, queue) = frames::queue(self.config.limits.frames);
        let id = self.links.number();
        let link = Shared::new(id, peer, connection, sender, dialled, neighbour);
        self.dials.forget(link.peer);
        let placed = self.links.place(self.me, &link);
        self.counters.links_up.add();
        self.counters.links.add();
        for (old, close) in &placed.others {
            self.give_up(old, *close).await;
        }
        let cost = proto::Cost::of(link.connection.stats().rtt);
        match placed.new {
            Some(close) => self.give_up(&link, close).await,
            None if neighbour => {
                let up = Event::Up { link: id, node: link.peer, cost, dialled };
                self.tell(up).await;
                if !link.announce_up() {
                    // Somebody has given it up in the meantime.
                    self.tell(Event::Down(id, Gone::Here(Close::Duplicate))).await;
                }
            }
            None => {}
        }
        tracing::debug!(link = %id, peer = ?link.peer, dialled, neighbour, "a link is up");
        tokio::spawn(link::run(Arc::clone(&link), Arc::clone(self)));
        let Greeted { send, recv, rest, hello: _ } = greeted;
        tokio::spawn(frames::write(send, queue, id, Arc::clone(self)));
        tokio::spawn(frames::read(Arc::clone(&link), Arc::clone(self), recv, rest));
        link
    }

    /// Ends a link for another that takes its place: at once where it is of an older life, when
    /// its calls have ended otherwise.
    async fn give_up(&self, link: &Shared, close: Close) {
        link.drain(close);
        if close == Close::Stale {
            link.close(close);
        }
        if link.announce_down() {
            self.tell(Event::Down(link.id, Gone::Here(close))).await;
        }
    }

    /// A link's task has ended.
    pub(crate) async fn ended(&self, link: &Shared, gone: Gone) {
        self.links.remove(link);
        self.counters.links_down.add(gone.into());
        self.counters.links.sub();
        self.judge_last(link);
        tracing::debug!(link = %link.id, peer = ?link.peer, %gone, "a link is down");
        if link.announce_down() {
            self.tell(Event::Down(link.id, gone)).await;
        }
    }

    /// What is left to be said of the conduct of a link that has ended.
    fn judge_last(&self, link: &Shared) {
        let mut conduct = link.conduct.lock();
        let before = conduct.is_slow();
        for (reason, count) in conduct.end() {
            let (link, peer) = (link.id, link.peer.short());
            tracing::warn!(event = "record rejected", %link, peer, ?reason, count, "network");
        }
        self.slowed(before, false);
    }

    /// A neighbour is being read slower than it speaks, or no longer.
    pub(crate) fn slowed(&self, before: bool, now: bool) {
        match (before, now) {
            (false, true) => {
                self.counters.neighbours_slowed.add();
                self.counters.slowdowns.add();
            }
            (true, false) => self.counters.neighbours_slowed.sub(),
            (true, true) | (false, false) => {}
        }
    }

    /// Records of a neighbour were believed.
    pub(crate) fn taken(&self, link: LinkId, counts: [(Taken, u64); 3], bytes_of_news: u64) {
        let mut news = 0;
        for (taken, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.counters.records_received.add_by(taken, count);
            news += if taken == Taken::News { count } else { 0 };
        }
        if news > 0
            && let Some(link) = self.links.get(link)
        {
            link.conduct.lock().give_back(news, bytes_of_news);
            link.given_back.notify_one();
        }
    }

    /// Records of a neighbour were turned away.
    pub(crate) fn rejected(&self, link: LinkId, rejected: &Rejected) {
        let link = self.links.get(link);
        for (reason, count, record) in rejected.iter() {
            self.counters.records_rejected.add_by(reason, count);
            // Of a link that is gone all was said.
            let Some(link) = &link else { continue };
            let now = self.clock.now();
            let (say, judged) = link.conduct.lock().rejected(reason, count, now);
            if let Some(count) = say {
                let (link, peer) = (link.id, link.peer.short());
                tracing::warn!(event = "record rejected", %link, peer, ?reason, count, ?record, "network");
            }
            if let Err(close) = judged {
                self.expel(link, close);
            }
        }
    }

    /// Ends the link with a node that misbehaves; it may not come back for a while.
    pub(crate) fn expel(&self, link: &Shared, close: Close) {
        let away = self.penalties.lock().add(link.peer, close, self.clock.now());
        if link.close_once(close) {
            let (link, peer, away) = (link.id, link.peer.short(), away.as_secs());
            tracing::warn!(event = "neighbour expelled", %link, peer, why = %close, away, "network");
        }
    }

    /// Why `node` may not come back yet.
    pub(crate) fn penalty_of(&self, node: &NodeId) -> Option<Close> {
        self.penalties.lock().of(node, self.clock.now())
    }

    /// Sends a frame to a neighbour; true when that is enough for now.
    pub(crate) fn send(&self, link: LinkId, frame: Frame) -> bool {
        let sent = self.links.get(link).and_then(|link| link.frames.try_send(frame).ok());
        if sent.is_none() {
            self.counters.frames_dropped.add();
        }
        sent == Some(true)
    }

    /// Lets a link end when its calls have, and tells the other end that no more are wanted.
    pub(crate) fn drain_link(&self, link: LinkId, close: Close) {
        let Some(link) = self.links.get(link) else { return };
        // Without room for it, the other end learns it when the link is closed.
        let _ = link.frames.try_send(Frame::Bye);
        link.drain(close);
        if link.announce_down() {
            let down = Event::Down(link.id, Gone::Here(close));
            if let Some(down) = self.try_tell(down) {
                let events = self.events.clone();
                self.runtime.spawn(async move { events.send(down).await });
            }
        }
    }
}
