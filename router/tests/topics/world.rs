//! A network whose nodes plan and take messages; frames of one pair and stream keep their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::publish::{Delivery, Head, Headers};
use proto::record::Interest;
use proto::{
    Cost, Epoch, LabelSet, NodeId, QueueGroup, Roles, Time, Topic, TopicPattern, UnixTime,
};
use router::topics::{LANES, Leg, Planner, Taken, Topics};
use router::{NodeRoute, Routes};

/// Streams of one link, as `proxy::broker` has them.
const STREAMS: u8 = 4;
/// How long what changed takes to be known everywhere, at most.
const KNOWN: u64 = 60_000;
const TOPICS: [&str; 5] = ["a", "a.b", "a.c", "b.x.y", "b.x.z"];
const PATTERNS: [&str; 8] = ["a", "a.b", "a.*", ">", "b.>", "b.*.y", "b.x.z", "a.c"];

pub(crate) struct World {
    seed: u64,
    chance: u64,
    now: u64,
    nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    counter: u64,
    /// When a stream has delivered what was sent on it so far.
    streams: BTreeMap<(usize, usize, u8), u64>,
    subscribers: BTreeMap<u64, Subscriber>,
    messages: BTreeMap<u64, Published>,
    /// Message and subscriber, in the order delivered.
    delivered: Vec<(u64, u64)>,
    changed: Vec<u64>,
}

struct Node {
    region: usize,
    epoch: u64,
    side: u8,
    planner: Planner,
    taken: Taken,
    /// As it knows the network.
    routes: Routes,
}

#[derive(Clone)]
struct Subscriber {
    at: usize,
    pattern: TopicPattern,
    group: Option<QueueGroup>,
    gone: bool,
}

struct Published {
    at: usize,
    epoch: u64,
    when: u64,
    topic: Topic,
    legs: Vec<usize>,
    /// Nobody was cut off.
    whole: bool,
}

enum Event {
    Arrive { from: usize, to: usize, head: Box<Head>, message: u64 },
    Learn { at: usize, of: usize, interest: Interest, count: u32 },
    Notice { at: usize },
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: 1_000_000,
            nodes: Vec::new(),
            events: BTreeMap::new(),
            counter: 0,
            streams: BTreeMap::new(),
            subscribers: BTreeMap::new(),
            messages: BTreeMap::new(),
            delivered: Vec::new(),
            changed: Vec::new(),
        };
        let (count, regions) = (3 + world.draw(7), 1 + world.draw(4));
        for at in 0..count {
            let region = world.draw(regions);
            let routes = Routes::empty(id(at));
            let (planner, taken) = (Planner::default(), Taken::default());
            world.nodes.push(Node { region, epoch: 1, side: 0, planner, taken, routes });
        }
        (0..count).for_each(|at| world.notice(at));
        world
    }

    fn draw(&mut self, below: usize) -> usize {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        (self.chance >> 33) as usize % below
    }

    fn plan(&mut self, after: u64, event: Event) {
        self.counter += 1;
        self.events.insert((self.now + after, self.counter), event);
    }

    /// One thing that happens, and a little time.
    pub(crate) fn step(&mut self) {
        match self.draw(100) {
            0..55 => self.publish(),
            55..65 => self.subscribe(),
            65..72 => self.unsubscribe(),
            72..75 => self.restart(),
            75..78 => self.split(),
            78..81 => self.heal(),
            81..84 => self.quiet(),
            _ => {}
        }
        let little = 1 + self.draw(3_000) as u64;
        self.run(little);
    }

    /// A time in which messages flow and nothing else changes.
    fn quiet(&mut self) {
        self.settle();
        for _ in 0..12 {
            self.publish();
            let little = self.draw(2_000) as u64;
            self.run(little);
        }
        self.run(4 * KNOWN);
    }

    pub(crate) fn run(&mut self, micros: u64) {
        let end = self.now + micros;
        while let Some(entry) = self.events.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            match entry.remove() {
                Event::Arrive { from, to, head, message } => self.arrive(from, to, &head, message),
                Event::Learn { at, of, interest, count } => {
                    let mut topics = Topics::clone(self.nodes[at].routes.topics());
                    topics.set(id(of), &interest, count);
                    self.nodes[at].routes.set_topics(Arc::new(topics));
                }
                Event::Notice { at } => self.notice(at),
            }
        }
        self.now = end;
    }

    pub(crate) fn settle(&mut self) {
        self.heal();
        self.run(4 * KNOWN);
    }

    pub(crate) fn subscribe(&mut self) {
        let at = self.draw(self.nodes.len());
        let pattern = TopicPattern::new(PATTERNS[self.draw(PATTERNS.len())]).unwrap();
        let group = match self.draw(3) {
            0 => None,
            n => Some(QueueGroup::new(["q", "r"][n - 1]).unwrap()),
        };
        self.counter += 1;
        let subscriber = Subscriber { at, pattern, group, gone: false };
        self.subscribers.insert(self.counter, subscriber.clone());
        self.tell(&subscriber);
    }

    fn unsubscribe(&mut self) {
        let alive: Vec<u64> =
            self.subscribers.iter().filter(|(_, one)| !one.gone).map(|(n, _)| *n).collect();
        if alive.is_empty() {
            return;
        }
        let which = alive[self.draw(alive.len())];
        self.remove(which);
    }

    fn remove(&mut self, which: u64) {
        let subscriber = self.subscribers.get_mut(&which).unwrap();
        subscriber.gone = true;
        let subscriber = subscriber.clone();
        self.tell(&subscriber);
    }

    /// Tells every node, at some moment, how many there are.
    fn tell(&mut self, about: &Subscriber) {
        self.changed.push(self.now);
        let same = |one: &&Subscriber| {
            !one.gone
                && (one.at, &one.pattern, &one.group) == (about.at, &about.pattern, &about.group)
        };
        let count = self.subscribers.values().filter(same).count() as u32;
        let (namespace, pattern) = ("".into(), about.pattern.clone());
        let interest = Interest { namespace, pattern, group: about.group.clone() };
        for at in 0..self.nodes.len() {
            // In one order at each node, as versions see to it.
            let after = KNOWN / 2 + (at as u64 * 7_919) % (KNOWN / 2);
            let (of, interest) = (about.at, interest.clone());
            self.plan(after, Event::Learn { at, of, interest, count });
        }
    }

    fn restart(&mut self) {
        let at = self.draw(self.nodes.len());
        let here: Vec<u64> = self
            .subscribers
            .iter()
            .filter(|(_, one)| one.at == at && !one.gone)
            .map(|(n, _)| *n)
            .collect();
        here.into_iter().for_each(|which| self.remove(which));
        let node = &mut self.nodes[at];
        node.epoch += 1;
        (node.planner, node.taken) = (Planner::default(), Taken::default());
        self.changed.push(self.now);
    }

    fn split(&mut self) {
        for at in 0..self.nodes.len() {
            self.nodes[at].side = self.draw(2) as u8;
        }
        self.sides_changed();
    }

    fn heal(&mut self) {
        if self.nodes.iter().any(|node| node.side != 0) {
            self.nodes.iter_mut().for_each(|node| node.side = 0);
            self.sides_changed();
        }
    }

    fn sides_changed(&mut self) {
        self.changed.push(self.now);
        for at in 0..self.nodes.len() {
            let after = self.draw(KNOWN as usize) as u64;
            self.plan(after, Event::Notice { at });
        }
    }

    /// A node sees who can be reached.
    fn notice(&mut self, at: usize) {
        let route = |other: usize| {
            let node = &self.nodes[other];
            let reached = node.side == self.nodes[at].side;
            let near = node.region == self.nodes[at].region;
            let cost = Cost::from_micros(if near { 500 } else { 30_000 + 100 * other as u32 });
            NodeRoute {
                id: id(other),
                name: other.to_string(),
                region: node.region.to_string(),
                labels: LabelSet::default(),
                roles: Roles::NONE,
                decides: Vec::new(),
                addresses: Arc::from([]),
                release: String::new(),
                cost: if reached { cost } else { Cost::INFINITE },
                next: None,
                services: 0,
                expires: UnixTime(u64::MAX),
                epoch: Epoch(node.epoch),
                links: Arc::from([]),
            }
        };
        let all: Vec<_> = (0..self.nodes.len()).map(|n| (id(n), Some(route(n)))).collect();
        self.nodes[at].routes = self.nodes[at].routes.updated([], all);
    }

    pub(crate) fn publish(&mut self) {
        let at = self.draw(self.nodes.len());
        let topic = Topic::new(TOPICS[self.draw(TOPICS.len())]).unwrap();
        self.counter += 1;
        let message = self.counter;
        let here = self.here(at, &topic);
        let groups: Vec<QueueGroup> =
            here.iter().filter_map(|(_, one)| one.group.clone()).collect();
        let all = Delivery { plain: true, groups: groups.clone() };
        self.deliver(at, &topic, &all, message);
        let (now, node) = (Time::from_micros(self.now), &mut self.nodes[at]);
        let (epoch, legs) =
            (node.epoch, node.planner.plan(&node.routes, "", &topic, &groups, None, now));
        let whole = self.nodes.iter().all(|node| node.side == self.nodes[0].side);
        let published = Published {
            whole,
            at,
            epoch,
            when: self.now,
            topic: topic.clone(),
            legs: legs.iter().map(|leg| place(leg.to)).collect(),
        };
        self.messages.insert(message, published);
        for Leg { to, way, delivery, onward } in legs {
            let head = Head {
                origin: None,
                epoch: Epoch(epoch),
                way,
                to: delivery,
                onward,
                namespace: "".into(),
                topic: topic.clone(),
                reply: None,
                headers: Headers::default(),
            };
            self.send(at, place(to), head, message);
        }
    }

    fn send(&mut self, from: usize, to: usize, head: Head, message: u64) {
        if self.nodes[from].side != self.nodes[to].side {
            let now = Time::from_micros(self.now);
            return self.nodes[from].planner.failed(id(to), now);
        }
        let takes = 100 + self.draw(20_000) as u64;
        let stream = (from, to, head.topic.lane(LANES) % STREAMS);
        let due = (self.now + takes).max(self.streams.get(&stream).copied().unwrap_or(0) + 1);
        self.streams.insert(stream, due);
        self.plan(due - self.now, Event::Arrive { from, to, head: Box::new(head), message });
    }

    fn arrive(&mut self, from: usize, to: usize, head: &Head, message: u64) {
        if self.nodes[from].side != self.nodes[to].side {
            return;
        }
        let (now, node) = (Time::from_micros(self.now), &mut self.nodes[to]);
        if node.taken.take(&node.routes, id(from), head, now).is_err() {
            return;
        }
        self.deliver(to, &head.topic, &head.to, message);
        for onward in &head.onward {
            let passed = Head {
                origin: Some(id(from)),
                way: onward.way,
                to: onward.to.clone(),
                onward: vec![],
                ..head.clone()
            };
            self.send(to, place(onward.node), passed, message);
        }
    }

    fn here(&self, at: usize, topic: &Topic) -> Vec<(u64, Subscriber)> {
        let all = self.subscribers.iter().filter(|(_, one)| one.at == at && !one.gone);
        let all = all.filter(|(_, one)| one.pattern.matches(topic));
        all.map(|(number, one)| (*number, one.clone())).collect()
    }

    fn deliver(&mut self, at: usize, topic: &Topic, to: &Delivery, message: u64) {
        let mut served = BTreeSet::new();
        for (number, one) in self.here(at, topic) {
            let gets = match &one.group {
                None => to.plain,
                Some(group) => to.groups.contains(group) && served.insert(group.clone()),
            };
            if gets {
                self.delivered.push((message, number));
            }
        }
    }

    pub(crate) fn crossings_are_single(&self) -> bool {
        self.messages.values().all(|message| {
            let here = self.nodes[message.at].region;
            let regions: Vec<usize> = message
                .legs
                .iter()
                .map(|to| self.nodes[*to].region)
                .filter(|region| *region != here)
                .collect();
            regions.len() == regions.iter().collect::<BTreeSet<_>>().len()
        })
    }

    /// Compares what came with what should have come.
    pub(crate) fn check(&self) {
        assert!(self.messages.keys().any(|message| self.was_quiet(*message)), "never quiet");
        let seed = self.seed;
        let (mut once, mut of_group, mut order) =
            (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for (message, subscriber) in &self.delivered {
            assert!(once.insert((*message, *subscriber)), "seed {seed}: {message} came twice");
            if let Some(group) = &self.subscribers[subscriber].group {
                let first = of_group.insert((*message, group.clone()));
                assert!(
                    first || !self.was_quiet(*message),
                    "seed {seed}: {message} twice to a group"
                );
            }
            let published = &self.messages[message];
            let stream = (*subscriber, published.at, published.epoch, published.topic.clone());
            let before = order.insert(stream, *message);
            assert!(before < Some(*message), "seed {seed}: {message} came after {before:?}");
        }
        for (message, published) in self.messages.iter().filter(|(m, _)| self.was_quiet(**m)) {
            let mut groups = BTreeSet::new();
            for (number, one) in &self.subscribers {
                // Whoever was there in a quiet time was there through it, or never.
                if one.gone || !one.pattern.matches(&published.topic) || *number > *message {
                    continue;
                }
                match &one.group {
                    None => assert!(
                        once.contains(&(*message, *number)),
                        "seed {seed}: {message} never came to {number}"
                    ),
                    Some(group) => drop(groups.insert(group.clone())),
                }
            }
            for group in groups {
                assert!(
                    of_group.contains(&(*message, group.clone())),
                    "seed {seed}: {message} never came to group {group:?}"
                );
            }
        }
    }

    /// Whether nothing changed around a message.
    fn was_quiet(&self, message: u64) -> bool {
        let when = self.messages[&message].when;
        let near = (when.saturating_sub(2 * KNOWN))..(when + 2 * KNOWN);
        self.messages[&message].whole && !self.changed.iter().any(|at| near.contains(at))
    }
}

fn id(at: usize) -> NodeId {
    NodeId::from_bytes([at as u8 + 1; 32])
}

fn place(node: NodeId) -> usize {
    usize::from(node.as_bytes()[0]) - 1
}
