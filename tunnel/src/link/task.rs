//! The task of one link: it accepts streams, asks the machine what to do, and does it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use proto::Credential;
use proto::fault::Code;
use proto::frame::Frame;
use proto::open::{Open, OpenKind};
use tokio::time::Instant;

use super::{Shared, State, UP, refuse};
use crate::close::{Close, Gone};
use crate::control::Event;
use crate::cost::Costing;
use crate::credit;
use crate::endpoint::{Arrival, Endpoint};
use crate::machine::{Input, Look, Machine, Output, Terms};
use crate::packets::PACKET;
use crate::serve;
use crate::stream::{Stream, poll_once};
use crate::transport::{Receiver, Sender, Stats};

/// The kinds of datagram, beside [`PACKET`].
const PING: u8 = 1;
const PONG: u8 = 2;
/// Bytes of a ping: its kind and its number.
const PING_LEN: usize = 9;
/// What is drained is closed at the latest after this.
const GRACE: Duration = Duration::from_secs(30);
/// Streams accepted before other things get their turn.
const BATCH: usize = 64;
/// Streams of one link whose `Open` has not come whole.
const OPENINGS: usize = 256;
/// A link that is looked at less often than this is woken by the first call.
const RESTS: Duration = Duration::from_millis(150);
/// Bytes read to find the `Open`: all that one packet brings.
const FIRST_READ: usize = 64 * 1024;

/// Lives as long as the link: accepts its streams, watches over it, and cleans up behind it.
pub(crate) async fn run(link: Arc<Shared>, endpoint: Arc<Endpoint>) {
    let mut task = Task::new(&link, &endpoint);
    let gone = task.run().await;
    task.count(link.connection.stats());
    endpoint.ended(&link, gone).await;
}

struct Task<'a> {
    link: &'a Arc<Shared>,
    endpoint: &'a Arc<Endpoint>,
    machine: Machine,
    costing: Costing,
    /// Bytes that were counted, received and sent.
    counted: (u64, u64),
    /// The last grant of ours that the peer was shown.
    shown: Arc<Credential>,
    /// Told to the router next time there is room.
    untold: Option<Event>,
}

type Opening = (Open, Stream);
/// Streams whose `Open` is still on its way.
type Openings = FuturesUnordered<BoxFuture<'static, Option<Opening>>>;

impl<'a> Task<'a> {
    fn new(link: &'a Arc<Shared>, endpoint: &'a Arc<Endpoint>) -> Self {
        let terms = Terms {
            neighbour: link.neighbour,
            idle: endpoint.config.limits.idle,
            grace: GRACE,
            until: endpoint.end_of(&link.credential.load()),
        };
        let costing = Costing::new(link.connection.stats());
        let machine = Machine::new(terms, endpoint.clock.now());
        let shown = endpoint.config.credential.load_full();
        Self { link, endpoint, machine, costing, counted: (0, 0), shown, untold: None }
    }

    async fn run(&mut self) -> Gone {
        let link = self.link;
        let mut openings = Openings::new();
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            // Each arm can be cancelled: what it waits for stays where it is.
            tokio::select! {
                accepted = link.connection.accept(), if openings.len() < OPENINGS => match accepted {
                    Ok(halves) => {
                        self.accept(halves, &mut openings);
                        self.accept_more(&mut openings);
                    }
                    Err(gone) => return self.why(gone),
                },
                Some(opened) = openings.next(), if !openings.is_empty() => {
                    if let Some((open, stream)) = opened {
                        self.arrived(open, stream);
                    }
                }
                datagram = link.connection.datagram() => match datagram {
                    Ok(datagram) => {
                        self.datagram(datagram);
                        self.more_datagrams();
                    }
                    Err(gone) => return self.why(gone),
                },
                () = link.wake.notified() => {
                    self.asked();
                    self.look(&mut openings);
                }
                () = &mut timer => self.look(&mut openings),
            }
            if let Some(close) = self.drive() {
                link.close(close);
                return Gone::Here(close);
            }
            if let Some(next) = self.next_look()
                && timer.deadline() != next
            {
                timer.as_mut().reset(next);
            }
        }
    }

    /// The transport knows that the link was closed here, and not for what.
    fn why(&self, gone: Gone) -> Gone {
        match (gone, self.link.closed.get()) {
            (Gone::Here(_), Some(close)) => Gone::Here(*close),
            (gone, _) => gone,
        }
    }

    /// Takes the streams that are already there, for each turn of the loop costs more than one.
    fn accept_more(&mut self, openings: &mut Openings) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..BATCH {
            if openings.len() >= OPENINGS {
                return;
            }
            // A link that is gone says so again to the next who asks.
            match poll_once(self.link.connection.accept(), &mut cx) {
                Poll::Ready(Ok(halves)) => self.accept(halves, openings),
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    /// A stream begins with its `Open`, which nearly always has come with it.
    fn accept(&mut self, halves: (Sender, Receiver), openings: &mut Openings) {
        self.endpoint.counters.streams_accepted.add();
        let mut stream = self.link.stream(halves, None);
        self.link.make_room(self.endpoint.config.limits.streams);
        let mut cx = Context::from_waker(Waker::noop());
        let mut come = match stream.recv.poll_read(&mut cx, FIRST_READ) {
            Poll::Ready(Ok(Some(come))) => come,
            Poll::Ready(Ok(None) | Err(_)) => return,
            Poll::Pending => Bytes::new(),
        };
        match Open::take(&mut come) {
            Ok(Some(open)) => {
                stream.recv.unread(come);
                self.arrived(open, stream);
            }
            Ok(None) => {
                let patience = self.endpoint.config.limits.greeting;
                let opening = tokio::time::timeout(patience, opening(stream, come));
                openings.push(Box::pin(async { opening.await.ok().flatten() }));
            }
            Err(_) => refuse(stream, Code::Protocol),
        }
    }

    fn arrived(&self, open: Open, stream: Stream) {
        match open.kind {
            OpenKind::Exchange
            | OpenKind::Bytes
            | OpenKind::Packets
            | OpenKind::Topics
            | OpenKind::Other(_) => {
                let grant = self.link.credential.load_full();
                let arrival = Arrival { caller: self.link.peer, grant, open, stream };
                self.endpoint.arrived(arrival);
            }
            OpenKind::Renew => {
                let (link, endpoint) = (Arc::clone(self.link), Arc::clone(self.endpoint));
                tokio::spawn(serve::renew(link, endpoint, stream));
            }
            OpenKind::Echo => drop(tokio::spawn(serve::echo(stream))),
            OpenKind::Credit => {
                drop(tokio::spawn(credit::listen(Arc::clone(self.link), stream)));
            }
            // Whoever gets here is a member already.
            OpenKind::Join => refuse(stream, Code::Protocol),
        }
    }

    /// Takes the datagrams that are already there, as [`Task::accept_more`] does streams.
    fn more_datagrams(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..BATCH {
            match poll_once(self.link.connection.datagram(), &mut cx) {
                Poll::Ready(Ok(datagram)) => self.datagram(datagram),
                Poll::Ready(Err(_)) | Poll::Pending => return,
            }
        }
    }

    fn datagram(&mut self, mut datagram: Bytes) {
        let now = self.endpoint.clock.now();
        match datagram.first() {
            Some(&PING) if datagram.len() == PING_LEN => {
                let mut pong = BytesMut::from(&datagram[..]);
                pong[0] = PONG;
                self.link.connection.send_datagram(pong.freeze());
                self.machine.handle(Input::Heard, now);
            }
            Some(&PACKET) => {
                datagram.advance(1);
                if !self.link.packets.arrived(datagram) {
                    self.endpoint.counters.packets_lost.add();
                }
                self.machine.handle(Input::Heard, now);
            }
            Some(&PONG) => self.machine.handle(Input::Answered, now),
            // Kinds of newer releases.
            Some(_) | None => self.machine.handle(Input::Heard, now),
        }
    }

    fn asked(&mut self) {
        let (drain, renewed) = {
            let mut asks = self.link.asks.lock();
            (asks.drain, asks.renewed.take())
        };
        let now = self.endpoint.clock.now();
        if let Some(credential) = renewed {
            let until = self.endpoint.end_of(&credential);
            self.machine.handle(Input::Renewed { until }, now);
        }
        if let Some(close) = drain {
            self.machine.handle(Input::Drain(close), now);
        }
    }

    fn look(&mut self, openings: &mut Openings) {
        // A stream that has come must be counted before the link can be found to be idle.
        self.accept_more(openings);
        let stats = self.link.connection.stats();
        let look = Look {
            packets_in: stats.packets_in,
            packets_out: stats.packets_out,
            streams: self.link.halves.load(Ordering::Relaxed),
            calls: self.link.calls.load(Ordering::Relaxed),
            rtt: stats.rtt,
        };
        self.machine.handle(Input::Look(look), self.endpoint.clock.now());
        self.see(stats);
        self.show();
        if let Some(event) = self.untold.take() {
            self.tell(event);
        }
    }

    fn count(&mut self, stats: Stats) {
        let (received, sent) = (&self.endpoint.counters.received, &self.endpoint.counters.sent);
        received.add_by(stats.bytes_in.saturating_sub(self.counted.0));
        sent.add_by(stats.bytes_out.saturating_sub(self.counted.1));
        self.counted = (stats.bytes_in, stats.bytes_out);
    }

    fn see(&mut self, stats: Stats) {
        self.count(stats);
        let changed = self.costing.see(stats);
        self.publish();
        if let Some(cost) = changed
            && self.link.state() == State::Live
        {
            self.tell(Event::Cost(self.link.id, cost));
        }
    }

    fn publish(&self) {
        let cost = u64::from(self.costing.published().as_micros());
        let packed = u64::from(self.costing.loss()) << 32 | cost;
        self.link.cost.store(packed, Ordering::Relaxed);
    }

    /// Shows our newest grant to the peer, if it has not seen it.
    fn show(&mut self) {
        let newest = self.endpoint.config.credential.load();
        if Arc::ptr_eq(&newest, &self.shown) {
            return;
        }
        let hello = self.endpoint.hello(self.link.neighbour);
        if self.link.frames.try_send(Frame::Hello(Box::new(hello))).is_ok() {
            self.shown = Arc::clone(&newest);
        }
    }

    /// Does what the machine wants; a reason to end the link ends it.
    fn drive(&mut self) -> Option<Close> {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Ping(number) => {
                    let mut ping = BytesMut::with_capacity(PING_LEN);
                    ping.put_u8(PING);
                    ping.put_u64(number);
                    self.link.connection.probe(ping.freeze());
                }
                Output::Suspected => {
                    self.endpoint.counters.suspected.add();
                    self.link.set_state(State::Suspected);
                    tracing::debug!(link = %self.link.id, peer = ?self.link.peer, "suspected");
                    self.tell(Event::Suspected(self.link.id));
                }
                Output::Recovered => {
                    self.endpoint.counters.recovered.add();
                    self.link.set_state(State::Live);
                    tracing::debug!(link = %self.link.id, peer = ?self.link.peer, "recovered");
                    self.tell(Event::Recovered(self.link.id, self.costing.published()));
                }
                Output::Close(close) => return Some(close),
            }
        }
        None
    }

    /// Tells the router, who may be too busy to be told: then once more at the next look. What is
    /// kept is the last thing only, for each says all there is to know.
    fn tell(&mut self, event: Event) {
        if self.link.neighbour && self.link.announced.load(Ordering::Acquire) == UP {
            self.untold = self.endpoint.try_tell(event);
        }
    }

    /// When to look again. A link that rests longer than a used one would is woken by a call.
    fn next_look(&self) -> Option<Instant> {
        let (next, now) = (self.machine.poll_timeout()?, self.endpoint.clock.now());
        let rests = next.since(now) > RESTS;
        self.link.resting.store(rests, Ordering::Relaxed);
        Some(self.endpoint.clock.instant(next))
    }
}

async fn opening(mut stream: Stream, come: Bytes) -> Option<Opening> {
    let mut come = BytesMut::from(come);
    loop {
        let chunk = stream.recv.read(FIRST_READ).await.ok().flatten()?;
        come.extend_from_slice(&chunk);
        match Open::decode(&mut come) {
            Ok(Some(open)) => {
                stream.recv.unread(come.freeze());
                return Some((open, stream));
            }
            Ok(None) => {}
            Err(_) => {
                refuse(stream, Code::Protocol);
                return None;
            }
        }
    }
}
