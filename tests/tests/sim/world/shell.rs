//! What netd does around a router: carries out what it wants, wakes it, dials for it.

use std::time::Duration;

use proto::{Cost, LinkId, Time};
use router::{Input, LinkEvent, Note, Output, Request, RequestId};

use super::wires::Wire;
use super::{Dial, Event, MILLI, Micros, SECOND, World};

/// When a dial sends its first packet, and sends it again: the probe timeouts of a round trip that
/// is not known yet (RFC 9002 §6.2), with the tunnel's first guess of it.
const DIAL_SENDS: [Micros; 5] = [0, 300 * MILLI, 900 * MILLI, 2_100 * MILLI, 4_500 * MILLI];
/// When it is given up: `dial` of the tunnel's limits.
const DIAL_FAILS_AFTER: Micros = 5 * SECOND;
/// Hosts that everybody was told of.
const SEEDS: usize = 3;
/// The wait after a round of seeds that led nowhere at first, doubled with each, and at most; and how
/// many are dialled in one: as `netd::upkeep` does.
pub(super) const SEED_WAITS: (Micros, Micros) = (250 * MILLI, 600 * MILLI);
const MAX_SEEDS: usize = 64;

impl World {
    pub(super) fn wake(&mut self, at: usize, number: u64) {
        let now = self.now;
        let Some(life) = self.hosts[at].life.as_mut().filter(|life| life.number == number) else {
            return;
        };
        // An alarm that was set to another time since is none: with both the next would be set twice.
        if life.woken_at.take_if(|woken| *woken == now).is_none() {
            return;
        }
        life.router.handle_timeout(Time::from_micros(now - life.born));
        self.settle_host(at);
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        let Some(life) = &mut self.hosts[at].life else { return };
        match &input {
            Input::Link(_, LinkEvent::Up { .. }) => life.links += 1,
            Input::Link(_, LinkEvent::Down) => life.links -= 1,
            Input::Link(..) | Input::Frame(..) | Input::Request(..) => {}
        }
        life.router.handle(input, Time::from_micros(now - life.born));
        if life.links == 0 && !life.left && !std::mem::replace(&mut life.seeding, true) {
            let life = life.number;
            self.at(now, Event::Seed { host: at, life, wait: SEED_WAITS.0 });
        }
        self.settle_host(at);
    }

    /// Carries out what a router wants, and sets its alarm.
    pub(super) fn settle_host(&mut self, at: usize) {
        loop {
            let Some(life) = &mut self.hosts[at].life else { return };
            let number = life.number;
            let Some(output) = life.router.poll_output() else { break };
            match output {
                Output::Send(link, frame) => self.send(link, (at, number), frame),
                Output::Dial(node) => {
                    let Some(to) = self.host_of(&node) else { continue };
                    self.dial(at, number, to, true);
                }
                Output::Close(link) => self.close(link, (at, number), 0),
                Output::Routes(routes) => {
                    life.routes = routes;
                    self.never(at);
                }
                Output::Answer(_, Err(refusal)) => {
                    self.wrongs.push(format!("n{at} refused a good request: {refusal}"));
                }
                Output::Note(Note::Taken { news, known, stale, .. }) => {
                    self.taken.news += news.0;
                    self.taken.known += known;
                    self.taken.stale += stale;
                }
                Output::Answer(_, Ok(())) | Output::Note(_) | Output::Kept(_) | Output::Left => {}
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
    pub(super) fn never(&mut self, at: usize) {
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

    /// Begins to dial; the router hears of it if it asked.
    fn dial(&mut self, from: usize, life: u64, to: usize, asked: bool) {
        let dial = Dial { from, life, to, asked, begun: self.now, sent: 0 };
        self.at(self.now + 3 * self.delay(from, to), Event::Dialled(dial));
    }

    /// A packet of a dial would have been answered by now.
    pub(super) fn dialled(&mut self, dial: Dial) {
        let Dial { from, life, to, asked, begun, sent } = dial;
        let left = self.hosts[from].life.as_ref().is_some_and(|life| life.left);
        if left || !self.is_life((from, life)) {
            return;
        }
        let there = self.hosts[to].life.as_ref().filter(|life| !life.left).map(|life| life.number);
        let Some(number) = there.filter(|_| self.open(from, to)) else {
            let again = Dial { sent: sent + 1, ..dial };
            return match DIAL_SENDS.get(again.sent) {
                Some(after) => {
                    let answered = begun + after + 3 * self.delay(from, to);
                    self.at(answered.max(self.now), Event::Dialled(again));
                }
                None if asked => {
                    let node = self.hosts[to].key.id();
                    let fails = (begun + DIAL_FAILS_AFTER).max(self.now);
                    self.at(fails, Event::DialFailed { from, life, to: node });
                }
                None => {}
            };
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
        let (suspected, reset) = (false, false);
        let wire = Wire { ends, delay, last, held, silent_since, suspected, reset };
        self.wires.insert(id, wire);
        let cost = Cost::of(Duration::from_micros(2 * delay));
        let far = self.hosts[from].key.id();
        self.input(to, Input::Link(id, LinkEvent::Up { node: far, cost, dialled: false }));
        let far = self.hosts[to].key.id();
        self.input(from, Input::Link(id, LinkEvent::Up { node: far, cost, dialled: true }));
    }

    /// A node without a link dials its seeds and whom it knows, again and again until it has one.
    pub(super) fn seed(&mut self, at: usize, number: u64, wait: Micros) {
        let Some(life) = self.hosts[at].life.as_mut().filter(|life| life.number == number) else {
            return;
        };
        if life.left || life.links > 0 {
            life.seeding = false;
            return;
        }
        let mut known: Vec<_> = life.routes.nodes().map(|node| (node.cost, node.id)).collect();
        known.sort_unstable();
        let seeds: Vec<usize> = self.seeds_of(at).collect();
        let known = known.into_iter().filter_map(|(_, id)| self.host_of(&id));
        let known: Vec<usize> = known.filter(|to| !seeds.contains(to)).collect();
        for to in seeds.into_iter().chain(known).filter(|to| *to != at).take(MAX_SEEDS) {
            self.dial(at, number, to, false);
        }
        let pause = wait * self.chance.within(75, 126) / 100;
        let wait = (wait * 2).min(SEED_WAITS.1);
        self.at(self.now + DIAL_FAILS_AFTER + pause, Event::Seed { host: at, life: number, wait });
    }

    /// The hosts that `at` was told of: the first ones, or in a large world some of its relays.
    fn seeds_of(&self, at: usize) -> impl Iterator<Item = usize> + use<> {
        let relays = self.hosts.iter().filter(|host| host.relay).count();
        let (first, of) = if relays > SEEDS { (at, relays) } else { (0, self.hosts.len()) };
        (0..SEEDS.min(of)).map(move |n| (first + n) % of)
    }

    pub(crate) fn request(&mut self, at: usize, request: Request) {
        self.input(at, Input::Request(RequestId(0), request));
    }
}
