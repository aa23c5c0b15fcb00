//! A network of routers in one thread: time is a number, a packet is a row in a table.
//!
//! Links are ordered and reliable while they are up, as control streams are: loss is delay. A link
//! over which nothing gets through is suspected after a second and down after thirty.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foldhash::fast::FixedState;
use proto::frame::{Frame, MAX_FRAME};
use proto::{Cost, Epoch, LinkId, NodeId, Record, Time, Verified};
use router::{
    Config, Input, Limits, LinkEvent, Message, Output, Registration, Request, RequestId, Router,
    Routes,
};

use crate::chance::Chance;
use crate::keys::{self, Checker, Key};

/// Microseconds.
pub(crate) type Micros = u64;
pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

const SUSPECT_AFTER: Micros = SECOND;
const DEAD_AFTER: Micros = 30 * SECOND;
const DIAL_FAILS_AFTER: Micros = 2 * SECOND;
const SEEDS: usize = 3;
/// Records kept to be replayed.
const POOL: usize = 4_000;

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
    /// Of all frames delivered, in order: two runs of one seed are the same.
    pub(crate) log: blake3::Hasher,
    /// What was seen that must never be.
    pub(crate) wrongs: Vec<String>,
    /// Records seen, to be replayed.
    pub(crate) pool: Vec<Record>,
    wires: BTreeMap<LinkId, Wire>,
    blocked: BTreeSet<(usize, usize)>,
    events: BTreeMap<(Micros, u64), Event>,
    counter: u64,
    believed: HashMap<Bytes, Option<Arc<Verified>>, FixedState>,
    by_id: BTreeMap<NodeId, usize>,
}

/// A machine: its router lives and dies, its key stays.
pub(crate) struct Host {
    pub(crate) key: Key,
    pub(crate) region: String,
    pub(crate) relay: bool,
    pub(crate) life: Option<Life>,
    pub(crate) lives: u64,
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
    woken_at: Option<Micros>,
}

struct Wire {
    /// Who dialled, and the other; with the number of the life each was in.
    ends: [(usize, u64); 2],
    delay: Micros,
    /// When the last frame towards each end arrives.
    last: [Micros; 2],
    held: Vec<(usize, Frame)>,
    silent_since: Option<Micros>,
    suspected: bool,
}

enum Event {
    Wake { host: usize, life: u64 },
    Deliver { link: LinkId, end: usize, frame: Frame },
    Dialled { from: usize, life: u64, to: usize },
    DialFailed { from: usize, life: u64, to: NodeId },
    Down { link: LinkId, end: (usize, u64) },
    Check { link: LinkId },
    Seed { host: usize, life: u64 },
    Renew { host: usize, life: u64, key: (String, String) },
}

impl World {
    pub(crate) fn new(seed: u64, count: usize, relays: usize, weather: Weather) -> Self {
        let regions = ["eu", "us", "ap"];
        let host = |n: usize| Host {
            key: Key(u32::try_from(n).expect("worlds are small")),
            region: regions[n % regions.len()].to_owned(),
            relay: n < relays,
            life: None,
            lives: 0,
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
            log: blake3::Hasher::new(),
            wrongs: Vec::new(),
            pool: Vec::new(),
            wires: BTreeMap::new(),
            blocked: BTreeSet::new(),
            events: BTreeMap::new(),
            counter: 0,
            believed: HashMap::default(),
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
        host.life = Some(Life { router, number, born, routes, left: false, woken_at: None });
        host.offered.clear();
        self.at(self.now + MILLI, Event::Seed { host: at, life: number });
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

    pub(crate) fn offer(&mut self, at: usize, service: &str, id: &str, ttl: Option<Duration>) {
        if self.hosts[at].life.is_none() {
            return;
        }
        let key = (service.to_owned(), id.to_owned());
        self.hosts[at].history.insert(key.clone());
        self.hosts[at].offered.insert(key.clone(), ttl);
        self.renew(at, key);
    }

    fn renew(&mut self, at: usize, key: (String, String)) {
        let Some(ttl) = self.hosts[at].offered.get(&key).copied() else { return };
        let instance = proto::record::Instance {
            id: key.1.clone(),
            address: "127.0.0.1:1".into(),
            protocol: proto::record::Protocol::Grpc,
            metadata: proto::LabelSet::default(),
        };
        let registration = Registration {
            service: key.0.parse().expect("a service name"),
            version: "latest".into(),
            metadata: proto::LabelSet::default(),
            endpoints: Vec::new(),
            instance,
            ttl,
        };
        self.request(at, Request::Register(registration));
        if let (Some(ttl), Some(life)) = (ttl, &self.hosts[at].life) {
            let life = life.number;
            let soon = self.now + ttl.as_micros() as Micros / 2;
            self.at(soon, Event::Renew { host: at, life, key });
        }
    }

    /// The program goes: in order, or, with a lease, without a word.
    pub(crate) fn withdraw(&mut self, at: usize, key: &(String, String), silently: bool) {
        let Some(ttl) = self.hosts[at].offered.remove(key) else { return };
        if !(silently && ttl.is_some()) {
            let service = key.0.parse().expect("a service name");
            let instance = key.1.clone();
            self.request(at, Request::Deregister { service, version: None, instance });
        }
    }

    /// Nothing gets through between two hosts, or does again.
    pub(crate) fn block(&mut self, a: usize, b: usize, blocked: bool) {
        let pair = (a.min(b), a.max(b));
        if blocked {
            self.blocked.insert(pair);
        } else {
            self.blocked.remove(&pair);
        }
        self.look_at_wires();
    }

    /// Puts hosts on the sides of a partition.
    pub(crate) fn divide(&mut self, side: impl Fn(usize) -> u8) {
        for (at, host) in self.hosts.iter_mut().enumerate() {
            host.side = side(at);
        }
        self.look_at_wires();
    }

    /// Everything gets through again.
    pub(crate) fn calm(&mut self) {
        self.blocked.clear();
        self.weather.twice = 0;
        self.divide(|_| 0);
    }

    pub(crate) fn request(&mut self, at: usize, request: Request) {
        self.input(at, Input::Request(RequestId(0), request));
    }

    /// Changes the cost of a random link of a host.
    pub(crate) fn measure(&mut self, at: usize, cost: u32) {
        let Some(number) = self.hosts[at].life.as_ref().map(|life| life.number) else { return };
        let links: Vec<_> = self.links_of(at, number).collect();
        if !links.is_empty() {
            let link = links[self.chance.index(links.len())];
            let suspected = self.wires.get(&link).is_some_and(|wire| wire.suspected);
            if !suspected {
                let cost = LinkEvent::Cost(Cost::from_micros(cost));
                self.input(at, Input::Link(link, cost));
            }
        }
    }

    /// Says something to all neighbours of a host, as if its router had.
    pub(crate) fn inject(&mut self, at: usize, records: &[Record]) {
        let Some(number) = self.hosts[at].life.as_ref().map(|life| life.number) else { return };
        let links: Vec<_> = self.links_of(at, number).collect();
        for link in links {
            self.send(link, (at, number), Frame::Records(records.to_vec()));
        }
    }

    /// Which hosts are linked by something that works, both ways round.
    pub(crate) fn linked(&self) -> BTreeSet<(usize, usize)> {
        let works = self.wires.values().filter(|wire| !wire.suspected && self.passes(wire));
        works
            .flat_map(|wire| {
                let [(a, _), (b, _)] = wire.ends;
                [(a, b), (b, a)]
            })
            .collect()
    }

    pub(crate) fn run_until(&mut self, end: Micros) {
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = self.now.max(at);
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake { host, life } => self.wake(host, life),
            Event::Deliver { link, end, frame } => self.deliver(link, end, frame),
            Event::Dialled { from, life, to } => self.dialled(from, life, to),
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
            Event::Check { link } => self.check(link),
            Event::Seed { host, life } => self.seed(host, life),
            Event::Renew { host, life, key } => {
                if self.is_life((host, life)) {
                    self.renew(host, key);
                }
            }
        }
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.counter += 1;
        self.events.insert((at, self.counter), event);
    }

    fn is_life(&self, (at, number): (usize, u64)) -> bool {
        self.hosts[at].life.as_ref().is_some_and(|life| life.number == number)
    }

    fn passes(&self, wire: &Wire) -> bool {
        let [a, b] = wire.ends;
        self.is_life(a) && self.is_life(b) && self.open(a.0, b.0)
    }

    fn open(&self, a: usize, b: usize) -> bool {
        self.hosts[a].side == self.hosts[b].side && !self.blocked.contains(&(a.min(b), a.max(b)))
    }

    fn links_of(&self, at: usize, number: u64) -> impl Iterator<Item = LinkId> {
        let of =
            move |(id, wire): (&LinkId, &Wire)| wire.ends.contains(&(at, number)).then_some(*id);
        self.wires.iter().filter_map(of)
    }

    fn wake(&mut self, at: usize, number: u64) {
        if !self.is_life((at, number)) {
            return;
        }
        let now = self.now;
        let life = self.hosts[at].life.as_mut().expect("it is alive");
        life.woken_at = None;
        life.router.handle_timeout(Time::from_micros(now - life.born));
        self.settle_host(at);
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        if let Some(life) = &mut self.hosts[at].life {
            life.router.handle(input, Time::from_micros(now - life.born));
            self.settle_host(at);
        }
    }

    /// Carries out what a router wants, and sets its alarm.
    fn settle_host(&mut self, at: usize) {
        loop {
            let Some(life) = &mut self.hosts[at].life else { return };
            let number = life.number;
            let Some(output) = life.router.poll_output() else { break };
            match output {
                Output::Send(link, frame) => self.send(link, (at, number), frame),
                Output::Dial(node) => {
                    let Some(to) = self.host_of(&node) else { continue };
                    let arrives = self.now + self.delay(at, to);
                    self.at(arrives, Event::Dialled { from: at, life: number, to });
                }
                Output::Close(link) => self.close(link, (at, number), 0),
                Output::Routes(routes) => {
                    life.routes = routes;
                    self.never(at);
                }
                Output::Answer(_, Err(refusal)) => {
                    self.wrongs.push(format!("n{at} refused a good request: {refusal}"));
                }
                Output::Answer(_, Ok(())) | Output::Note(_) | Output::Left => {}
            }
        }
        let Some(life) = &mut self.hosts[at].life else { return };
        let Some((due, _)) = life.router.poll_timeout() else { return };
        let due = (life.born + due.as_micros()).max(self.now);
        if life.woken_at.is_none_or(|woken| woken > due) {
            life.woken_at = Some(due);
            let life = life.number;
            self.at(due, Event::Wake { host: at, life });
        }
    }

    /// What must not be in any answers at any time.
    fn never(&mut self, at: usize) {
        if self.hosts.len() > 100 {
            return; // Every publication of every router: for small worlds.
        }
        let Some(life) = &self.hosts[at].life else { return };
        let mut wrongs = Vec::new();
        for service in life.routes.services().filter(|s| s.changed == life.routes.generation()) {
            for instance in service.instances.iter() {
                let key = (service.name.as_str().to_owned(), instance.id.to_string());
                let host = self.host_of(&instance.node);
                if !host.is_some_and(|host| self.hosts[host].history.contains(&key)) {
                    wrongs.push(format!("n{at} believes {key:?} of {host:?}"));
                }
            }
        }
        self.wrongs.extend(wrongs);
    }

    /// One way, the same each time for the same two.
    fn delay(&self, a: usize, b: usize) -> Micros {
        let mut chance = Chance::new((a.min(b) << 32 | a.max(b)) as u64);
        if self.hosts[a].region == self.hosts[b].region {
            chance.within(300, 3 * MILLI)
        } else {
            chance.within(10 * MILLI, 90 * MILLI)
        }
    }

    fn send(&mut self, link: LinkId, from: (usize, u64), frame: Frame) {
        match &frame {
            Frame::Digest(_) => self.digests += 1,
            Frame::Records(_)
            | Frame::Summary(_)
            | Frame::Want(_)
            | Frame::Hello(_)
            | Frame::Bye => {
                self.others += 1;
            }
        }
        if let Frame::Records(records) = &frame
            && self.pool.len() < POOL
            && self.hosts.len() <= 100
        {
            self.pool.extend(records.iter().cloned());
        }
        let lost = self.chance.percent(self.weather.loss);
        let twice =
            self.chance.percent(self.weather.twice).then(|| self.chance.within(0, 3 * SECOND));
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let end = usize::from(wire.ends[0] == from);
        let resent = if lost { 2 * wire.delay + 10 * MILLI } else { 0 };
        let arrives = (self.now + wire.delay + resent).max(wire.last[end]);
        wire.last[end] = arrives;
        if let Some(later) = twice {
            let again = frame.clone();
            self.at(arrives + later, Event::Deliver { link, end, frame: again });
        }
        self.at(arrives, Event::Deliver { link, end, frame });
    }

    fn deliver(&mut self, link: LinkId, end: usize, frame: Frame) {
        let Some(wire) = self.wires.get(&link) else { return };
        if !self.passes(wire) {
            if let Some(wire) = self.wires.get_mut(&link) {
                wire.held.push((end, frame));
            }
            return;
        }
        let (to, _) = wire.ends[end];
        let frames = if self.weather.encode { through_bytes(&frame) } else { vec![frame] };
        for frame in frames {
            self.log.update(&self.now.to_be_bytes());
            self.log.update(&link.0.to_be_bytes());
            if let Some(message) = self.believe(frame) {
                self.input(to, Input::Frame(link, message));
            }
        }
    }

    /// What the door does: checks signatures, drops what is forged.
    fn believe(&mut self, frame: Frame) -> Option<Message> {
        let Frame::Records(records) = frame else { return Message::from_frame(frame, Vec::new()) };
        let mut verified = Vec::with_capacity(records.len());
        for record in records {
            let known = self.believed.get(record.bytes()).cloned();
            let belief = known.unwrap_or_else(|| {
                let bytes = record.bytes().clone();
                self.log.update(&bytes);
                let now = keys::STARTED.plus(self.now / SECOND);
                let checked = Verified::check(record, keys::network(), now, &Checker);
                let belief = checked.ok().map(Arc::new);
                self.believed.insert(bytes, belief.clone());
                belief
            });
            verified.extend(belief);
        }
        Some(Message::Records(verified))
    }

    fn dialled(&mut self, from: usize, life: u64, to: usize) {
        let left = self.hosts[from].life.as_ref().is_some_and(|life| life.left);
        if left || !self.is_life((from, life)) {
            return;
        }
        let there = self.hosts[to].life.as_ref().filter(|life| !life.left).map(|life| life.number);
        let Some(number) = there.filter(|_| self.open(from, to)) else {
            let to = self.hosts[to].key.id();
            let fails = self.now + DIAL_FAILS_AFTER;
            return self.at(fails, Event::DialFailed { from, life, to });
        };
        // A newer life of a peer closes the links of an older one at once.
        let ends = [(from, life), (to, number)];
        let older = self.wires.iter().filter(|(_, wire)| {
            let [a, b] = wire.ends;
            let same = [a.0, b.0] == [from, to] || [b.0, a.0] == [from, to];
            same && !(ends.contains(&a) && ends.contains(&b))
        });
        let older: Vec<_> = older.map(|(id, _)| *id).collect();
        for link in older {
            self.cut(link);
        }
        self.counter += 1;
        let id = LinkId(self.counter);
        let delay = self.delay(from, to);
        let last = [self.now; 2];
        let (held, silent_since) = (Vec::new(), None);
        self.wires.insert(id, Wire { ends, delay, last, held, silent_since, suspected: false });
        let cost = Cost::of(Duration::from_micros(2 * delay));
        let far = self.hosts[from].key.id();
        self.input(to, Input::Link(id, LinkEvent::Up { node: far, cost, dialled: false }));
        let far = self.hosts[to].key.id();
        self.input(from, Input::Link(id, LinkEvent::Up { node: far, cost, dialled: true }));
    }

    fn seed(&mut self, at: usize, life: u64) {
        if !self.is_life((at, life)) || self.hosts[at].life.as_ref().is_some_and(|l| l.left) {
            return;
        }
        // A seed that is not reached is dialled: nobody else may know that this node is there.
        let to = self.chance.index(SEEDS.min(self.hosts.len()));
        let seed = self.hosts[to].key.id();
        let routes = self.hosts[at].life.as_ref().map(|life| &life.routes);
        let node = routes.and_then(|routes| routes.node(&seed));
        if to != at && !node.is_some_and(|node| node.cost.is_finite()) {
            self.dialled(at, life, to);
        }
        let soon = self.now + SECOND + self.chance.within(0, SECOND);
        self.at(soon, Event::Seed { host: at, life });
    }

    /// One end closes; the other hears of it.
    fn close(&mut self, link: LinkId, by: (usize, u64), after: Micros) {
        let Some(wire) = self.wires.get(&link) else { return };
        let (passes, ends, delay) = (self.passes(wire), wire.ends, wire.delay);
        if after > 0 {
            // What was said before still arrives.
            return self.at(self.now + after, Event::Check { link });
        }
        self.wires.remove(&link);
        for end in ends {
            let hears = if end == by {
                self.now
            } else if passes {
                self.now + delay
            } else {
                self.now + DEAD_AFTER
            };
            self.at(hears, Event::Down { link, end });
        }
    }

    /// Both ends notice that a link is gone.
    fn cut(&mut self, link: LinkId) {
        let Some(wire) = self.wires.remove(&link) else { return };
        for end in wire.ends {
            if self.is_life(end) {
                self.input(end.0, Input::Link(link, LinkEvent::Down));
            }
        }
    }

    /// Finds out which wires fell silent, and which speak again.
    fn look_at_wires(&mut self) {
        let links: Vec<_> = self.wires.keys().copied().collect();
        for link in links {
            let Some(wire) = self.wires.get(&link) else { continue };
            let passes = self.passes(wire);
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            match (passes, wire.silent_since) {
                (false, None) => {
                    wire.silent_since = Some(now);
                    self.at(now + SUSPECT_AFTER, Event::Check { link });
                    self.at(now + DEAD_AFTER, Event::Check { link });
                }
                (true, Some(_)) => {
                    wire.silent_since = None;
                    let (ends, cost) = (wire.ends, Cost::of(Duration::from_micros(2 * wire.delay)));
                    let held = std::mem::take(&mut wire.held);
                    if std::mem::take(&mut wire.suspected) {
                        for (at, _) in ends {
                            let recovered = LinkEvent::Recovered(cost);
                            self.input(at, Input::Link(link, recovered));
                        }
                    }
                    for (end, frame) in held {
                        let Some(wire) = self.wires.get_mut(&link) else { break };
                        let arrives = (now + wire.delay).max(wire.last[end]);
                        wire.last[end] = arrives;
                        self.at(arrives, Event::Deliver { link, end, frame });
                    }
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    fn check(&mut self, link: LinkId) {
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let ends = wire.ends;
        let left = |host: &Host| host.life.as_ref().is_some_and(|life| life.left);
        if ends.iter().any(|(at, _)| left(&self.hosts[*at])) {
            return self.cut(link);
        }
        let Some(since) = wire.silent_since else { return };
        if now - since >= DEAD_AFTER {
            self.cut(link);
        } else if now - since >= SUSPECT_AFTER && !wire.suspected {
            wire.suspected = true;
            for end in ends {
                if self.is_life(end) {
                    self.input(end.0, Input::Link(link, LinkEvent::Suspected));
                }
            }
        }
    }
}

fn through_bytes(frame: &Frame) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let next = || Frame::decode(&mut bytes, MAX_FRAME).expect("what a router writes can be read");
    std::iter::from_fn(next).collect()
}
