//! One link: its task, and what others may see and ask of it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use proto::fault::Code;
use proto::frame::Frame;
use proto::open::{Open, OpenKind};
use proto::{Cost, Credential, Epoch, LinkId, NodeId};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::close::{Close, Gone};
use crate::control::Event;
use crate::cost::Costing;
use crate::endpoint::{Arrival, Endpoint};
use crate::greet::Peer;
use crate::machine::{Input, Look, Machine, Output, Terms};
use crate::stream::{RecvHalf, SendHalf, Stream, poll_once};
use crate::transport::{Connection, Receiver, Sender, Stats};
use crate::serve;

/// The kinds of datagram.
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

/// Whether a link may be used, as calls see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may.
    Live,
    /// Nothing is heard on it: new calls do not use it.
    Suspected,
    /// It ends when its calls have: new calls do not use it.
    Draining,
}

/// A link, as it is shown to people.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// Its number.
    pub id: LinkId,
    /// Who is at the other end.
    pub peer: NodeId,
    /// Where from.
    pub remote: SocketAddr,
    /// Smoothed round trip.
    pub rtt: Duration,
    /// Lost packets in a million.
    pub loss: u32,
    /// Whether new calls use it.
    pub state: State,
    /// Records flow over it.
    pub neighbour: bool,
    /// Since when.
    pub since: Instant,
    /// Bytes received, with all headers but those of UDP.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// This node dialled.
    pub dialled: bool,
    /// What it costs.
    pub cost: Cost,
    /// Streams open now, by halves: one that is open both ways counts twice.
    pub streams: usize,
}

/// What a link shares with those who use it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: LinkId,
    pub(crate) peer: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) dialled: bool,
    pub(crate) neighbour: bool,
    pub(crate) since: Instant,
    pub(crate) connection: Connection,
    pub(crate) credential: ArcSwap<Credential>,
    pub(crate) frames: mpsc::Sender<Frame>,
    state: AtomicU8,
    cost: AtomicU64,
    /// Halves of streams that are open.
    halves: AtomicUsize,
    /// Streams since it began.
    calls: AtomicU64,
    /// The task looks rarely; a call wakes it.
    resting: AtomicBool,
    wake: Notify,
    asks: Mutex<Asks>,
    /// Why it was closed here.
    closed: OnceLock<Close>,
    pub(crate) announced: AtomicU8,
}

/// What others ask of the task.
#[derive(Debug, Default)]
struct Asks {
    drain: Option<Close>,
    renewed: Option<Arc<Credential>>,
}

/// Counts a half of a stream as long as it lives.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Shared>);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.halves.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(
        id: LinkId,
        peer: &Peer,
        connection: Connection,
        frames: mpsc::Sender<Frame>,
        dialled: bool,
        neighbour: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer: peer.node,
            epoch: peer.epoch,
            dialled,
            neighbour,
            since: Instant::now(),
            connection,
            credential: ArcSwap::new(Arc::clone(&peer.credential)),
            frames,
            state: AtomicU8::new(State::Live as u8),
            cost: AtomicU64::new(0),
            halves: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            wake: Notify::new(),
            asks: Mutex::default(),
            closed: OnceLock::new(),
            announced: AtomicU8::new(NOT_YET),
        })
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Relaxed) {
            0 => State::Live,
            1 => State::Suspected,
            _ => State::Draining,
        }
    }

    fn set_state(&self, state: State) {
        // Draining is for good.
        let _ = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
            (old != State::Draining as u8).then_some(state as u8)
        });
    }

    pub(crate) fn is_used(&self) -> bool {
        self.halves.load(Ordering::Relaxed) > 0
    }

    /// New calls go elsewhere; when those there are have ended, or after a grace period, the link
    /// is closed for this reason.
    pub(crate) fn drain(&self, close: Close) {
        self.set_state(State::Draining);
        self.asks.lock().drain.get_or_insert(close);
        self.wake.notify_one();
    }

    /// Ends it at once.
    pub(crate) fn close(&self, close: Close) {
        let _ = self.closed.set(close);
        self.connection.close(close);
    }

    /// The peer has shown a newer grant, already checked.
    pub(crate) fn renew(&self, credential: Arc<Credential>) {
        self.credential.store(Arc::clone(&credential));
        self.asks.lock().renewed = Some(credential);
        self.wake.notify_one();
    }

    pub(crate) fn info(&self) -> LinkInfo {
        let stats = self.connection.stats();
        let packed = self.cost.load(Ordering::Relaxed);
        let (loss, cost) = ((packed >> 32) as u32, packed as u32);
        LinkInfo {
            id: self.id,
            peer: self.peer,
            remote: self.connection.remote(),
            rtt: stats.rtt,
            loss,
            state: self.state(),
            neighbour: self.neighbour,
            since: self.since,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            dialled: self.dialled,
            cost: Cost::from_micros(cost),
            streams: self.halves.load(Ordering::Relaxed),
        }
    }

    fn in_use(self: &Arc<Self>) -> InUse {
        self.halves.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    /// A stream of this link, counted as open until both halves are dropped.
    pub(crate) fn stream(
        self: &Arc<Self>,
        (send, recv): (Sender, Receiver),
        open: Option<Bytes>,
    ) -> Stream {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.resting.load(Ordering::Relaxed) && self.resting.swap(false, Ordering::Relaxed) {
            self.wake.notify_one();
        }
        Stream {
            send: SendHalf::new(send, open, self.in_use()),
            recv: RecvHalf::new(recv, self.in_use()),
        }
    }

    /// Tells the router that the link is down, if it was told that it is up.
    pub(crate) fn announce_down(&self) -> bool {
        self.announced.swap(DOWN, Ordering::AcqRel) == UP
    }

    /// Whether it may be told that it is up.
    pub(crate) fn announce_up(&self) -> bool {
        self.announced
            .compare_exchange(NOT_YET, UP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// What the router was told of a link.
const NOT_YET: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// Lives as long as the link: accepts its streams, watches over it, and cleans up behind it.
pub(crate) async fn run(link: Arc<Shared>, endpoint: Arc<Endpoint>) {
    let mut task = Task::new(&link, &endpoint);
    let gone = task.run().await;
    endpoint.ended(&link, gone).await;
}

struct Task<'a> {
    link: &'a Arc<Shared>,
    endpoint: &'a Arc<Endpoint>,
    machine: Machine,
    costing: Costing,
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
        Self { link, endpoint, machine, costing, shown, untold: None }
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
                    Ok(datagram) => self.datagram(&datagram),
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
            OpenKind::Exchange | OpenKind::Bytes | OpenKind::Other(_) => {
                let grant = self.link.credential.load_full();
                let arrival = Arrival { caller: self.link.peer, grant, open, stream };
                self.endpoint.arrived(arrival);
            }
            OpenKind::Renew => {
                let (link, endpoint) = (Arc::clone(self.link), Arc::clone(self.endpoint));
                tokio::spawn(serve::renew(link, endpoint, stream));
            }
            OpenKind::Echo => drop(tokio::spawn(serve::echo(stream))),
            // Whoever gets here is a member already.
            OpenKind::Join => refuse(stream, Code::Protocol),
        }
    }

    fn datagram(&mut self, datagram: &Bytes) {
        let now = self.endpoint.clock.now();
        match datagram.first() {
            Some(&PING) if datagram.len() == PING_LEN => {
                let mut pong = BytesMut::from(&datagram[..]);
                pong[0] = PONG;
                self.link.connection.send_datagram(pong.freeze());
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

    fn see(&mut self, stats: Stats) {
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

/// Ends a stream that nobody here will look at.
pub(crate) fn refuse(mut stream: Stream, code: Code) {
    stream.send.reset(code);
    stream.recv.stop(code);
}
