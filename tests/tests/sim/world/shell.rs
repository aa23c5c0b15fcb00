//! What netd does around a router: carries out what it wants, wakes it, dials for it.

use std::time::Duration;

use proto::{Cost, LinkId, Time};
use router::{Input, LinkEvent, Output, Request, RequestId};

use super::wires::Wire;
use super::{Event, Micros, SECOND, World};

const DIAL_FAILS_AFTER: Micros = 2 * SECOND;
const SEEDS: usize = 3;

impl World {
    pub(super) fn wake(&mut self, at: usize, number: u64) {
        if !self.is_life((at, number)) {
            return;
        }
        let now = self.now;
        let life = self.hosts[at].life.as_mut().expect("it is alive");
        life.woken_at = None;
        life.router.handle_timeout(Time::from_micros(now - life.born));
        self.settle_host(at);
    }

    pub(super) fn input(&mut self, at: usize, input: Input) {
        let now = self.now;
        if let Some(life) = &mut self.hosts[at].life {
            life.router.handle(input, Time::from_micros(now - life.born));
            self.settle_host(at);
        }
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

    pub(super) fn dialled(&mut self, from: usize, life: u64, to: usize) {
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

    pub(super) fn seed(&mut self, at: usize, life: u64) {
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

    pub(crate) fn request(&mut self, at: usize, request: Request) {
        self.input(at, Input::Request(RequestId(0), request));
    }
}
