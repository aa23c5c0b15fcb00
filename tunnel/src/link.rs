//! One link: its task, and what others may see and ask of it.

mod task;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::fault::Code;
use proto::frame::Frame;
use proto::{Cost, Credential, Epoch, LinkId, NodeId};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

pub(crate) use task::run;

use crate::close::Close;
use crate::conduct::Conduct;
use crate::credit::Credits;
use crate::endpoint::Endpoint;
use crate::frames::{Queue, UNHANDLED};
use crate::greet::Peer;
use crate::packets::Listeners;
use crate::stream::{RecvHalf, SendHalf, Stream};
use crate::transport::{Connection, Receiver, Sender};

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
    pub(crate) credits: Credits,
    pub(crate) frames: Queue,
    pub(crate) packets: Listeners,
    /// Bytes that may still be read before the router has dealt with what was.
    pub(crate) unhandled: Arc<Semaphore>,
    pub(crate) conduct: Mutex<Conduct>,
    /// Told when some of what was paid is given back.
    pub(crate) given_back: Notify,
    state: AtomicU8,
    cost: AtomicU64,
    /// Streams that the peer may have open at once.
    allowed: AtomicU32,
    /// Halves of streams that are open.
    halves: AtomicUsize,
    /// Streams since it began.
    calls: AtomicU64,
    /// The task looks rarely; a call wakes it.
    resting: AtomicBool,
    wake: Notify,
    /// Told when it becomes suspected.
    doubts: Notify,
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
pub(crate) struct InUse {
    link: Arc<Shared>,
    counted: bool,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.uncount();
    }
}

impl InUse {
    /// The link.
    pub(crate) fn link(&self) -> &Arc<Shared> {
        &self.link
    }

    /// Counts it no more.
    pub(crate) fn uncount(&mut self) {
        if !std::mem::take(&mut self.counted) {
            return;
        }
        let last = self.link.halves.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && self.link.state() == State::Draining {
            self.link.wake.notify_one();
        }
    }

    /// Waits until the link is suspected and has stayed so for `grace`.
    pub(crate) fn doubted(&self, grace: Duration) -> impl Future<Output = ()> + Send + use<> {
        let link = Arc::clone(&self.link);
        async move {
            loop {
                // Made before the state is read: what happens between is not missed.
                let told = link.doubts.notified();
                if link.state() != State::Suspected {
                    told.await;
                }
                tokio::time::sleep(grace).await;
                if link.state() == State::Suspected {
                    return;
                }
            }
        }
    }
}

impl Shared {
    pub(crate) fn new(
        id: LinkId,
        peer: &Peer,
        connection: Connection,
        frames: Queue,
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
            credits: Credits::default(),
            packets: Listeners::default(),
            unhandled: Arc::new(Semaphore::new(UNHANDLED)),
            conduct: Mutex::default(),
            given_back: Notify::new(),
            state: AtomicU8::new(State::Live as u8),
            cost: AtomicU64::new(0),
            allowed: AtomicU32::new(FIRST_STREAMS),
            halves: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            resting: AtomicBool::new(false),
            wake: Notify::new(),
            doubts: Notify::new(),
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
        if state == State::Suspected {
            self.doubts.notify_waiters();
        }
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
        self.close_once(close);
    }

    /// Ends it at once; false if that was done before.
    pub(crate) fn close_once(&self, close: Close) -> bool {
        let first = self.closed.set(close).is_ok();
        self.connection.close(close);
        first
    }

    /// Waits until more of the control stream may be read: see [`crate::conduct`].
    pub(crate) async fn turn(&self, endpoint: &Endpoint) {
        loop {
            let (wait, say) = {
                let mut conduct = self.conduct.lock();
                let before = conduct.is_slow();
                let (wait, say) = conduct.wait(endpoint.clock.now());
                endpoint.slowed(before, conduct.is_slow());
                (wait, say)
            };
            if let Some(times) = say {
                let (link, peer) = (self.id, self.peer.short());
                tracing::warn!(event = "neighbour slowed", %link, peer, times, "network");
            }
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.given_back.notified() => {}
            }
        }
    }

    /// Pays for what was read of the control stream.
    pub(crate) fn pay(
        &self,
        endpoint: &Endpoint,
        frame: Option<&Frame>,
        size: usize,
    ) -> Result<(), Close> {
        if frame.is_none() && size == 0 {
            return Ok(());
        }
        self.conduct.lock().pay(frame, size, endpoint.clock.now())
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

    /// Lets the peer have more streams, up to `most`, when half of what it may have is open.
    fn make_room(&self, most: u32) {
        let allowed = self.allowed.load(Ordering::Relaxed);
        // A stream may have one half left, and those of the link itself are not counted: by halves it
        // is rather too early than never.
        if allowed < most && self.halves.load(Ordering::Relaxed) >= allowed as usize / 2 {
            let more = allowed.saturating_mul(2).min(most);
            self.allowed.store(more, Ordering::Relaxed);
            self.connection.allow_streams(more);
        }
    }

    fn in_use(self: &Arc<Self>) -> InUse {
        self.halves.fetch_add(1, Ordering::Relaxed);
        InUse { link: Arc::clone(self), counted: true }
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
        self.announced.compare_exchange(NOT_YET, UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Streams a new peer may have open at once. Each that may be costs memory, also while nobody uses
/// it; most links never have so many, and those that have half of them are given twice as many.
pub(crate) const FIRST_STREAMS: u32 = 128;

/// What the router was told of a link.
const NOT_YET: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;

/// Ends a stream that nobody here will look at.
pub(crate) fn refuse(mut stream: Stream, code: Code) {
    stream.send.reset(code);
    stream.recv.stop(code);
}
