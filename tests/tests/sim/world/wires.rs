//! Links are ordered and reliable while they are up, as control streams are: loss is delay. Silence
//! is noticed as `tunnel::machine` notices it on links that nobody uses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::frame::{Frame, MAX_FRAME};
use proto::testing::ToyVerify;
use proto::{Cost, LinkId, Verified};
use router::{Input, LinkEvent, Message};

use super::{Event, Host, MILLI, Micros, SECOND, World};
use crate::chance::Chance;
use crate::keys;

/// A link over which nothing gets through is suspected so long after: at least, where a ping was
/// just sent, and at most, where one was just answered …
const SUSPECT_AFTER: (Micros, Micros) = (1_500 * MILLI, 2_600 * MILLI);
/// … and is down then.
const DEAD_AFTER: Micros = 30 * SECOND;
/// Between two pings of a suspected link: so long it takes at most until it is heard again.
const PING: Micros = 300 * MILLI;
/// Between two pings of another: so long it takes until a node that has started anew answers one
/// with a reset.
const PING_IDLE: Micros = SECOND;
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
    /// One end has started anew, and the other will soon hear of it.
    pub(super) reset: bool,
}

impl World {
    pub(super) fn send(&mut self, link: LinkId, from: (usize, u64), frame: Frame) {
        self.frames += 1;
        if self.weather.encode {
            let mut bytes = BytesMut::new();
            frame.encode(&mut bytes);
            self.hosts[from.0].sent += bytes.len() as u64;
        }
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
        // What was held comes first.
        if !self.passes(wire) || !wire.held.is_empty() {
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
            let bytes = record.bytes().clone();
            // The same bytes at the same place, which nobody else gets while they are kept.
            let place = (bytes.as_ptr() as usize, bytes.len());
            if let Some(belief) = self.seen.get(&place) {
                verified.extend(belief.clone());
                continue;
            }
            let known = self.believed.get(&bytes).cloned();
            let belief = known.unwrap_or_else(|| {
                self.log.update(&bytes);
                let now = keys::STARTED.plus(self.now / SECOND);
                let checked = Verified::check(record, keys::network(), now, &ToyVerify);
                let belief = checked.ok().map(Arc::new);
                self.seen.insert(place, belief.clone());
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
        let doubted = wire.suspected;
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
                // It hears nothing of that, nor of anything else.
                if !doubted {
                    self.at(self.now + SUSPECT_AFTER.1, Event::Doubted { link, end });
                }
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
            let (passes, reset) = (self.passes(wire), self.is_over(wire));
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&link) else { continue };
            let round_trip = 2 * wire.delay;
            if reset && !std::mem::replace(&mut wire.reset, true) {
                let answered = now + self.chance.within(0, PING_IDLE) + round_trip;
                self.at(answered, Event::Check { link });
                continue;
            }
            match (passes, wire.silent_since) {
                (false, None) => {
                    wire.silent_since = Some(now);
                    let doubted = self.chance.within(SUSPECT_AFTER.0, SUSPECT_AFTER.1);
                    self.at(now + doubted + round_trip, Event::Check { link });
                    self.at(now + DEAD_AFTER, Event::Check { link });
                }
                (true, Some(_)) => {
                    wire.silent_since = None;
                    let heard = now + self.chance.within(0, PING) + round_trip;
                    self.at(heard, Event::Heard { link });
                }
                (true, None) | (false, Some(_)) => {}
            }
        }
    }

    /// Something arrives again, and with it what was held.
    pub(super) fn heard(&mut self, link: LinkId) {
        let now = self.now;
        let Some(wire) = self.wires.get(&link) else { return };
        if !self.passes(wire) {
            return;
        }
        let Some(wire) = self.wires.get_mut(&link) else { return };
        let (ends, cost) = (wire.ends, Cost::of(Duration::from_micros(2 * wire.delay)));
        for (end, frame) in std::mem::take(&mut wire.held) {
            let Some(wire) = self.wires.get_mut(&link) else { return };
            let arrives = (now + wire.delay).max(wire.last[end]);
            wire.last[end] = arrives;
            self.at(arrives, Event::Deliver { link, end, frame });
        }
        let Some(wire) = self.wires.get_mut(&link) else { return };
        if std::mem::take(&mut wire.suspected) {
            for (at, _) in ends {
                self.input(at, Input::Link(link, LinkEvent::Recovered(cost)));
            }
        }
    }

    pub(super) fn check(&mut self, link: LinkId) {
        let now = self.now;
        let Some(wire) = self.wires.get(&link) else { return };
        let over = self.is_over(wire);
        let Some(wire) = self.wires.get_mut(&link) else { return };
        wire.reset = false;
        let ends = wire.ends;
        let left = |host: &Host| host.life.as_ref().is_some_and(|life| life.left);
        if over || ends.iter().any(|(at, _)| left(&self.hosts[*at])) {
            return self.cut(link);
        }
        let Some(since) = wire.silent_since else { return };
        if now - since >= DEAD_AFTER {
            self.cut(link);
        } else if now - since >= SUSPECT_AFTER.0 && !wire.suspected {
            wire.suspected = true;
            for end in ends {
                if self.is_life(end) {
                    self.input(end.0, Input::Link(link, LinkEvent::Suspected));
                }
            }
        }
    }

    /// One end has started anew, and what the other sends arrives there.
    fn is_over(&self, wire: &Wire) -> bool {
        let [a, b] = wire.ends;
        let newer = |(at, number): (usize, u64)| {
            self.hosts[at].life.as_ref().is_some_and(|life| life.number != number)
        };
        (newer(a) || newer(b)) && self.open(a.0, b.0)
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
