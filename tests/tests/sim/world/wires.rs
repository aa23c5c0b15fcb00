//! Links are ordered and reliable while they are up, as control streams are: loss is delay. A link
//! over which nothing gets through is suspected after a second and down after thirty.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::frame::{Frame, MAX_FRAME};
use proto::{Cost, LinkId, Verified};
use router::{Input, LinkEvent, Message};

use super::{Event, Host, MILLI, Micros, SECOND, World};
use crate::chance::Chance;
use crate::keys::{self, Checker};

const SUSPECT_AFTER: Micros = SECOND;
const DEAD_AFTER: Micros = 30 * SECOND;
/// Records kept to be replayed.
const POOL: usize = 4_000;

pub(super) struct Wire {
    /// Who dialled, and the other; with the number of the life each was in.
    pub(super) ends: [(usize, u64); 2],
    pub(super) delay: Micros,
    /// When the last frame towards each end arrives.
    pub(super) last: [Micros; 2],
    pub(super) held: Vec<(usize, Frame)>,
    pub(super) silent_since: Option<Micros>,
    pub(super) suspected: bool,
}

impl World {
    pub(super) fn send(&mut self, link: LinkId, from: (usize, u64), frame: Frame) {
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

    pub(super) fn deliver(&mut self, link: LinkId, end: usize, frame: Frame) {
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
    pub(super) fn believe(&mut self, frame: Frame) -> Option<Message> {
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

    /// One end closes; the other hears of it.
    pub(super) fn close(&mut self, link: LinkId, by: (usize, u64), after: Micros) {
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
    pub(super) fn cut(&mut self, link: LinkId) {
        let Some(wire) = self.wires.remove(&link) else { return };
        for end in wire.ends {
            if self.is_life(end) {
                self.input(end.0, Input::Link(link, LinkEvent::Down));
            }
        }
    }

    /// Finds out which wires fell silent, and which speak again.
    pub(super) fn look_at_wires(&mut self) {
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

    pub(super) fn check(&mut self, link: LinkId) {
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

    pub(super) fn passes(&self, wire: &Wire) -> bool {
        let [a, b] = wire.ends;
        self.is_life(a) && self.is_life(b) && self.open(a.0, b.0)
    }

    pub(super) fn open(&self, a: usize, b: usize) -> bool {
        self.hosts[a].side == self.hosts[b].side && !self.blocked.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn links_of(&self, at: usize, number: u64) -> impl Iterator<Item = LinkId> {
        let of =
            move |(id, wire): (&LinkId, &Wire)| wire.ends.contains(&(at, number)).then_some(*id);
        self.wires.iter().filter_map(of)
    }

    /// One way, the same each time for the same two.
    pub(super) fn delay(&self, a: usize, b: usize) -> Micros {
        let mut chance = Chance::new((a.min(b) << 32 | a.max(b)) as u64);
        if self.hosts[a].region == self.hosts[b].region {
            chance.within(300, 3 * MILLI)
        } else {
            chance.within(10 * MILLI, 90 * MILLI)
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
}

fn through_bytes(frame: &Frame) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    let next = || Frame::decode(&mut bytes, MAX_FRAME).expect("what a router writes can be read");
    std::iter::from_fn(next).collect()
}
