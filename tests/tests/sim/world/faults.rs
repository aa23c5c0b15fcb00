//! What a test does to the network from outside.

use proto::frame::Frame;
use proto::{Cost, Record};
use router::{Input, LinkEvent};

use super::World;

impl World {
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
}
