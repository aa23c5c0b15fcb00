//! A network of routers in one thread: time is a number, a packet is a row in a table.
//!
//! | File | What is there |
//! |---|---|
//! | `world/wires` | how frames travel, and how silence is noticed |
//! | `world/shell` | what a node does around its router |
//! | `world/programs` | what is offered on the hosts |
//! | `world/faults` | what a test does to the network |

mod faults;
mod programs;
mod shell;
mod wires;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use foldhash::fast::FixedState;
use proto::frame::Frame;
use proto::testing::Toy;
use proto::{Epoch, LinkId, NodeId, Record, Verified};
use router::{Config, Input, Limits, LinkEvent, Request, Router, Routes};

use self::wires::Wire;
use crate::chance::Chance;
use crate::keys;

/// Microseconds.
pub(crate) type Micros = u64;
pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// What the wires do to frames, beside delay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Percent of frames that are lost once, and sent again.
    pub(crate) loss: u64,
    /// Percent of frames that come twice, in any order: worse than a control stream ever is.
    pub(crate) twice: u64,
    /// Whether frames pass through their bytes.
    pub(crate) encode: bool,
}

pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) chance: Chance,
    pub(crate) hosts: Vec<Host>,
    pub(crate) weather: Weather,
    /// Frames sent since this was last cleared: digests, and all others.
    pub(crate) digests: usize,
    pub(crate) others: usize,
    /// Frames sent since the world began.
    pub(crate) frames: usize,
    /// What came of the records that were delivered.
    pub(crate) taken: Taken,
    /// Of all frames delivered, in order: two runs of one seed are the same.
    pub(crate) log: blake3::Hasher,
    /// What was seen that must never be.
    pub(crate) wrongs: Vec<String>,
    /// Records seen, to be replayed.
    pub(crate) pool: Vec<Record>,
    wires: BTreeMap<LinkId, Wire>,
    blocked: BTreeSet<(usize, usize)>,
    /// What will happen, and where it is in `planned`.
    events: BinaryHeap<Reverse<(Micros, u64, usize)>>,
    planned: Vec<Option<Event>>,
    free: Vec<usize>,
    counter: u64,
    believed: HashMap<Bytes, Option<Arc<Verified>>, FixedState>,
    /// Of these, by the place of the bytes that `believed` keeps.
    seen: HashMap<(usize, usize), Option<Arc<Verified>>, FixedState>,
    by_id: BTreeMap<NodeId, usize>,
}

/// What records were to the nodes they were delivered to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    pub(crate) news: u64,
    pub(crate) known: u64,
    pub(crate) stale: u64,
}

/// A machine: its router lives and dies, its key stays.
pub(crate) struct Host {
    pub(crate) key: Toy,
    pub(crate) region: String,
    pub(crate) relay: bool,
    pub(crate) life: Option<Life>,
    pub(crate) lives: u64,
    /// Bytes of frames its nodes sent since this was last cleared, where frames are encoded.
    pub(crate) sent: u64,
    /// Which side of a partition it is on.
    pub(crate) side: u8,
    /// What programs on it offer now: service and instance, and whether a lease is renewed.
    pub(crate) offered: BTreeMap<(String, String), Option<Duration>>,
    /// Whatever they ever offered.
    pub(crate) history: BTreeSet<(String, String)>,
}

pub(crate) struct Life {
    pub(crate) router: Router,
    pub(crate) number: u64,
    pub(crate) born: Micros,
    pub(crate) routes: Arc<Routes>,
    pub(crate) left: bool,
    /// How many links its node counts.
    links: usize,
    /// Its node is looking for its seeds.
    seeding: bool,
    woken_at: Option<Micros>,
}

/// A dial under way: by whom, to whom, whether the router asked for it, and which packet is the
/// last that was sent.
#[derive(Clone, Copy)]
struct Dial {
    from: usize,
    life: u64,
    to: usize,
    asked: bool,
    begun: Micros,
    sent: usize,
}

enum Event {
    Wake { host: usize, life: u64 },
    Deliver { link: LinkId, end: usize, frame: Frame },
    Dialled(Dial),
    DialFailed { from: usize, life: u64, to: NodeId },
    Down { link: LinkId, end: (usize, u64) },
    Doubted { link: LinkId, end: (usize, u64) },
    Check { link: LinkId },
    Heard { link: LinkId },
    Seed { host: usize, life: u64, wait: Micros },
    Renew { host: usize, life: u64, key: (String, String) },
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, relays: usize, weather: Weather) -> Self {
        let regions = ["eu", "us", "ap"];
        let host = |n: usize| Host {
            key: Toy(u32::try_from(n).expect("worlds are small")),
            region: regions[n % regions.len()].to_owned(),
            relay: n < relays,
            life: None,
            lives: 0,
            sent: 0,
            side: 0,
            offered: BTreeMap::new(),
            history: BTreeSet::new(),
        };
        let hosts: Vec<Host> = (0..count).map(host).collect();
        let by_id = hosts.iter().enumerate().map(|(at, host)| (host.key.id(), at)).collect();
        Self {
            now: 0,
            chance: Chance::new(seed),
            hosts,
            weather,
            digests: 0,
            others: 0,
            frames: 0,
            taken: Taken::default(),
            log: blake3::Hasher::new(),
            wrongs: Vec::new(),
            pool: Vec::new(),
            wires: BTreeMap::new(),
            blocked: BTreeSet::new(),
            events: BinaryHeap::new(),
            planned: Vec::new(),
            free: Vec::new(),
            counter: 0,
            believed: HashMap::default(),
            seen: HashMap::default(),
            by_id,
        }
    }

    pub(crate) fn host_of(&self, node: &NodeId) -> Option<usize> {
        self.by_id.get(node).copied()
    }

    pub(crate) fn alive(&self) -> Vec<usize> {
        let alive = |at: &usize| self.hosts[*at].life.as_ref().is_some_and(|life| !life.left);
        (0..self.hosts.len()).filter(alive).collect()
    }

    /// Starts a router on a host; with a lost clock it believes that it is 1970.
    pub(crate) fn start(&mut self, at: usize, lost_clock: bool) {
        let host = &mut self.hosts[at];
        host.lives += 1;
        let wall = keys::STARTED.plus(self.now / SECOND);
        let epoch = if lost_clock { host.lives } else { wall.0 * 1000 + self.now / MILLI % 1000 };
        let config = Config {
            network: keys::network(),
            epoch: Epoch(epoch),
            started: wall,
            seed: self.chance.draw(),
            limits: Limits::default(),
        };
        let node = keys::node(host.key, &host.region, host.relay);
        let router = Router::new(Arc::new(host.key), node, config);
        let routes = Arc::new(Routes::empty(host.key.id()));
        let (number, born) = (host.lives, self.now);
        let (links, seeding, left) = (0, true, false);
        let life = Life { router, number, born, routes, left, links, seeding, woken_at: None };
        host.life = Some(life);
        host.offered.clear();
        let wait = shell::SEED_WAITS.0;
        self.at(self.now + MILLI, Event::Seed { host: at, life: number, wait });
        self.settle_host(at);
        self.look_at_wires();
    }

    /// Ends a router without a word.
    pub(crate) fn crash(&mut self, at: usize) {
        self.hosts[at].life = None;
        self.hosts[at].offered.clear();
        self.look_at_wires();
    }

    /// Lets a router leave in order.
    pub(crate) fn leave(&mut self, at: usize) {
        self.request(at, Request::Leave);
        self.hosts[at].offered.clear();
        let Some(number) = self.hosts[at].life.as_ref().map(|life| life.number) else { return };
        let links: Vec<_> = self.links_of(at, number).collect();
        for link in links {
            self.close(link, (at, number), 50 * MILLI);
        }
        if let Some(life) = &mut self.hosts[at].life {
            life.left = true;
        }
    }

    pub(crate) fn run_until(&mut self, end: Micros) {
        while let Some(&Reverse((at, _, place))) = self.events.peek()
            && at <= end
        {
            self.events.pop();
            self.free.push(place);
            self.now = self.now.max(at);
            if let Some(event) = self.planned[place].take() {
                self.happen(event);
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { host, life } => self.wake(host, life),
            Event::Deliver { link, end, frame } => self.deliver(link, end, frame),
            Event::Dialled(dial) => self.dialled(dial),
            Event::DialFailed { from, life, to } => {
                if self.is_life((from, life)) {
                    let outcome = Err(());
                    self.request(from, Request::Dialled { node: to, outcome });
                }
            }
            Event::Down { link, end } => {
                if self.is_life(end) {
                    self.input(end.0, Input::Link(link, LinkEvent::Down));
                }
            }
            Event::Doubted { link, end } => {
                if self.is_life(end) {
                    self.input(end.0, Input::Link(link, LinkEvent::Suspected));
                }
            }
            Event::Check { link } => self.check(link),
            Event::Heard { link } => self.heard(link),
            Event::Seed { host, life, wait } => self.seed(host, life, wait),
            Event::Renew { host, life, key } => {
                if self.is_life((host, life)) {
                    self.renew(host, key);
                }
            }
        }
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.counter += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.planned.push(None);
            self.planned.len() - 1
        });
        self.planned[place] = Some(event);
        self.events.push(Reverse((at, self.counter, place)));
    }

    fn is_life(&self, (at, number): (usize, u64)) -> bool {
        self.hosts[at].life.as_ref().is_some_and(|life| life.number == number)
    }
}
