//! The router's shell: what really happens goes in, what the router wants done comes out. It
//! decides nothing.
//!
//! Frames of neighbours pass the door first (signatures are checked off this task), each link's
//! events staying in their order: see [`lanes`].

mod lanes;
mod notes;

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proto::{LinkId, NodeId, Time};
use proxy::Published;
use router::kept::KeptSets;
use router::{Input, LinkEvent, Message, Output, Refusal, Request, RequestId, Router};
use tokio::sync::{mpsc, oneshot, watch};
use tunnel::conduct::Rejected;
use tunnel::control::Received;
use tunnel::door::{Checked, Door, Passed};
use tunnel::{Control, Event};

use self::lanes::{Lanes, Next};
use self::notes::Notes;

/// Requests that wait for the router; who sends more waits.
const REQUESTS: usize = 1024;

/// Something asked of the router's task.
#[derive(Debug)]
pub enum Ask {
    /// A request for the router; it answers when it has accepted or refused.
    Router(Request, oneshot::Sender<Result<(), Refusal>>),
    /// Seeds to be dialled as neighbours.
    Seeds(Vec<std::net::SocketAddr>),
}

/// The way to the router's task. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Asks(mpsc::Sender<Ask>);

/// The router has left or its task is gone: nothing is registered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is leaving")]
pub struct Leaving;

impl Asks {
    /// Asks the router, and waits for its answer.
    ///
    /// # Errors
    /// [`Leaving`] once the router has left.
    pub async fn request(&self, request: Request) -> Result<Result<(), Refusal>, Leaving> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Ask::Router(request, answer)).await.map_err(|_| Leaving)?;
        answered.await.map_err(|_| Leaving)
    }

    /// Has `addresses` dialled, as one seed. Forgotten when the node is leaving.
    pub async fn dial_seed(&self, addresses: Vec<std::net::SocketAddr>) {
        // Who leaves dials nobody.
        let _ = self.0.send(Ask::Seeds(addresses)).await;
    }
}

/// What the router's task shares with the rest of the node.
pub struct Shared {
    /// Where routes are published.
    pub routes: Arc<Published>,
    /// Counts neighbour links up now; yields on each change.
    pub links: watch::Sender<usize>,
    /// The rules that the router keeps for the network, to be written down.
    pub kept: watch::Sender<Arc<KeptSets>>,
    /// How seeds failed last, by what the tunnel said; for status and readiness.
    pub trouble: watch::Sender<Option<String>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("links", &*self.links.borrow()).finish_non_exhaustive()
    }
}

/// The time of the cores: microseconds since the node began.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Now.
    #[must_use]
    pub fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Waits until `timer` is due; for ever when there is none.
    async fn reach<T>(self, timer: Option<(Time, T)>) {
        match timer {
            Some((at, _)) => {
                let at = self.0 + std::time::Duration::from_micros(at.as_micros());
                tokio::time::sleep_until(at.into()).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// A router about to live.
pub struct Drive {
    router: Router,
    control: Control,
    door: Door,
    asks: mpsc::Receiver<Ask>,
    shared: Arc<Shared>,
    clock: Clock,
    waiting: std::collections::BTreeMap<RequestId, oneshot::Sender<Result<(), Refusal>>>,
    numbered: u64,
    up: std::collections::BTreeMap<LinkId, NodeId>,
    notes: Notes,
}

impl std::fmt::Debug for Drive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drive").field("up", &self.up).finish_non_exhaustive()
    }
}

impl Drive {
    /// The shell of `router`, and the way to ask it.
    #[must_use]
    pub fn new(
        router: Router,
        control: Control,
        door: Door,
        shared: Arc<Shared>,
        clock: Clock,
    ) -> (Self, Asks) {
        let (sender, asks) = mpsc::channel(REQUESTS);
        let drive = Self {
            router,
            control,
            door,
            asks,
            shared,
            clock,
            waiting: std::collections::BTreeMap::new(),
            numbered: 0,
            up: std::collections::BTreeMap::new(),
            notes: Notes::default(),
        };
        (drive, Asks(sender))
    }

    /// Lives until the router has left. Gives the control end back: links are closed by who closes
    /// the tunnel, after the last calls.
    pub async fn run(mut self) -> Control {
        let mut lanes = Lanes::default();
        let mut checks = FuturesUnordered::new();
        loop {
            if self.carry_out() {
                return self.control;
            }
            // Every arm is safe to cancel: channels keep what is not taken, checks live in
            // `checks`, and the timer is asked for anew.
            tokio::select! {
                event = self.control.event() => self.event(event, &mut lanes),
                Some(ask) = self.asks.recv() => self.ask(ask),
                Some((link, (message, rejected))) = checks.next(), if !checks.is_empty() => {
                    self.control.rejected(link, &rejected);
                    if let Some(message) = message {
                        self.handle(Input::Frame(link, message));
                    }
                    lanes.checked(link);
                }
                () = self.clock.reach(self.router.poll_timeout()) => {
                    self.router.handle_timeout(self.clock.now());
                }
            }
            // Bounded: a lane holds so many, and gives nothing while it is being checked.
            while let Some(next) = lanes.next() {
                match next {
                    Next::Event(link, event) => self.handle(Input::Link(link, event)),
                    Next::Check(link, frame) => {
                        let door = self.door.clone();
                        checks.push(async move { (link, check(&door, frame).await) });
                    }
                }
            }
        }
    }

    /// Does what the router wants done; true once it has left.
    fn carry_out(&mut self) -> bool {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Send(link, frame) => {
                    if self.control.send(link, frame) {
                        self.handle(Input::Link(link, LinkEvent::Full));
                    }
                }
                Output::Dial(node) => self.control.dial(node),
                Output::Close(link) => self.control.close(link),
                Output::Routes(routes) => self.shared.routes.publish(routes),
                Output::Answer(request, answer) => {
                    if let Some(waiting) = self.waiting.remove(&request) {
                        // Who no longer waits does not need the answer.
                        let _ = waiting.send(answer);
                    }
                }
                Output::Note(note) => self.notes.tell(note, &self.control, self.clock.now()),
                Output::Kept(kept) => {
                    self.shared.kept.send_replace(kept);
                }
                Output::Left => return true,
            }
        }
        false
    }

    fn handle(&mut self, input: Input) {
        self.router.handle(input, self.clock.now());
    }

    fn ask(&mut self, ask: Ask) {
        match ask {
            Ask::Router(request, answer) => {
                self.numbered += 1;
                let id = RequestId(self.numbered);
                self.waiting.insert(id, answer);
                self.handle(Input::Request(id, request));
            }
            Ask::Seeds(addresses) => self.control.dial_seed(addresses),
        }
    }

    fn event(&mut self, event: Event, lanes: &mut Lanes) {
        match event {
            Event::Up { link, node, cost, dialled } => {
                tracing::info!(%link, peer = %node.short(), dialled, "link up");
                self.up.insert(link, node);
                self.shared.links.send_replace(self.up.len());
                self.shared.trouble.send_replace(None);
                lanes.event(link, LinkEvent::Up { node, cost, dialled });
                if dialled {
                    self.dialled(node, Ok(()));
                }
            }
            Event::Frame(link, received) => lanes.frame(link, received),
            // It concerns what is sent, not what came: nothing to be kept in order with.
            Event::Drained(link) => self.handle(Input::Link(link, LinkEvent::Drained)),
            Event::Cost(link, cost) => lanes.event(link, LinkEvent::Cost(cost)),
            Event::Suspected(link) => {
                tracing::info!(%link, "link suspected: nothing is heard");
                lanes.event(link, LinkEvent::Suspected);
            }
            Event::Recovered(link, cost) => {
                tracing::info!(%link, "link recovered");
                lanes.event(link, LinkEvent::Recovered(cost));
            }
            Event::Down(link, why) => {
                let peer = self.up.remove(&link).map(|node| node.short());
                tracing::info!(%link, peer, %why, "link down");
                self.shared.links.send_replace(self.up.len());
                lanes.event(link, LinkEvent::Down);
                lanes.close(link);
            }
            Event::DialFailed(node, why) => {
                tracing::debug!(peer = %node.short(), %why, "dial failed");
                self.dialled(node, Err(()));
            }
            Event::SeedFailed(addresses, why) => {
                tracing::debug!(?addresses, %why, "seed failed");
                self.shared.trouble.send_replace(Some(why.to_string()));
            }
        }
    }

    fn dialled(&mut self, node: NodeId, outcome: Result<(), ()>) {
        self.numbered += 1;
        let id = RequestId(self.numbered);
        self.handle(Input::Request(id, Request::Dialled { node, outcome }));
    }
}

/// Has the records of a frame verified; no message when nothing of it is left to be handled.
async fn check(door: &Door, received: Received) -> (Option<Message>, Rejected) {
    let Received { frame, .. } = received;
    let Checked { passed, rejected } = door.check(frame).await;
    (message(passed), rejected)
}

fn message(passed: Passed) -> Option<Message> {
    match passed {
        Passed::Records(records) if records.is_empty() => None,
        Passed::Records(records) => {
            Some(Message::Records(records.into_iter().map(Arc::new).collect()))
        }
        Passed::Digest(digest) => Some(Message::Digest(digest)),
        Passed::Summary(summary) => Some(Message::Summary(summary)),
        Passed::Want(want) => Some(Message::Want(want)),
        Passed::Nothing => None,
    }
}
