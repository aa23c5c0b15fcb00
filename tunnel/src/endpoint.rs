//! A node's end of the tunnel: [`Tunnel`] for calls, [`Control`] for the router, [`Incoming`] for
//! what others call here.

mod dialling;
mod error;
mod judging;
mod tunnel;

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
use crate::config::Config;
use crate::control::{Control, Event};
use crate::counters::Counters;
use crate::dial::Dials;
use crate::greet::{Greeted, Peer};
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
