//! Callers and instances: an event is a row in a heap, time is a number.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use proto::record::Protocol;
use proto::{Cost, LabelSet, NodeId, Selector, Time};
use proxy::balance::{Chance, Outcome, Report};
use router::{InstanceKey, Lookup, Routes, ServiceRoutes};

use crate::instance::{Fate, Instance, uniform};
use crate::policy::{At, Kind, Policy};

pub(crate) type Micros = u64;
pub(crate) const MILLI: Micros = 1_000;
pub(crate) const SECOND: Micros = 1_000_000;

/// Attempts of one call.
const ATTEMPTS: usize = 3;
pub(crate) const SERVICE: &str = "shop";

pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) instances: Vec<Instance>,
    pub(crate) policies: Vec<Policy>,
    routes: Routes,
    born: usize,
    chance: Chance,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    number: u64,
    calls: Vec<Option<Call>>,
    free: Vec<usize>,
    /// Calls a second of one caller, by the time.
    rate: fn(Micros) -> f64,
    pub(crate) seen: Seen,
}

/// What was counted.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    pub(crate) latencies: Vec<u32>,
    /// Calls, attempts and failed calls of each second.
    pub(crate) seconds: Vec<[u64; 3]>,
    /// Attempts at each instance in each second.
    pub(crate) shares: Vec<Vec<u32>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(usize),
    End(usize),
}

struct Call {
    caller: usize,
    began: Micros,
    tried: Vec<u64>,
    at: Option<At>,
    outcome: Outcome,
    idempotent: bool,
}

impl World {
    pub(crate) fn new(
        kind: Kind,
        seed: u64,
        callers: usize,
        instances: Vec<Instance>,
        rate: fn(Micros) -> f64,
    ) -> Self {
        let mut chance = Chance::new(seed);
        let policies = (0..callers).map(|_| Policy::new(kind, chance.draw(), 1_000)).collect();
        let mut world = Self {
            now: 0,
            instances,
            policies,
            routes: Routes::empty(NodeId::from_bytes([0; 32])),
            born: 0,
            chance,
            events: BinaryHeap::new(),
            number: 0,
            calls: Vec::new(),
            free: Vec::new(),
            rate,
            seen: Seen::default(),
        };
        for caller in 0..callers {
            world.arrive_later(caller);
        }
        world
    }

    /// Publishes the instances that are there by now, when there are more than before.
    fn publish(&mut self) {
        let is_born = |i: &&Instance| !matches!(i.fate, Fate::Born(at) if at > self.now);
        let born = self.instances.iter().filter(is_born).count();
        if born == self.born {
            return;
        }
        self.born = born;
        let all = self.instances.iter().enumerate().filter(|(_, i)| is_born(i));
        let all = all.map(|(at, instance)| route(at, instance.group)).collect();
        let name: proto::ServiceName = SERVICE.parse().expect("a name");
        let generation = self.routes.generation() + 1;
        let service = ServiceRoutes::new(name.clone(), generation, all, Arc::from([]));
        self.routes = self.routes.updated([(name, Some(service))], []);
    }

    pub(crate) fn run_until(&mut self, until: Micros) {
        while let Some(Reverse((at, _, _))) = self.events.peek() {
            if *at > until {
                break;
            }
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            match event {
                Event::Arrive(caller) => {
                    self.publish();
                    self.arrive_later(caller);
                    self.begin(caller);
                }
                Event::End(call) => self.end(call),
            }
        }
        self.now = until;
    }

    fn at(&mut self, when: Micros, event: Event) {
        self.number += 1;
        self.events.push(Reverse((when, self.number, event)));
    }

    fn arrive_later(&mut self, caller: usize) {
        let wait = -(1.0 - uniform(&mut self.chance)).ln() / (self.rate)(self.now);
        let when = self.now + (wait * SECOND as f64) as Micros;
        self.at(when, Event::Arrive(caller));
    }

    fn begin(&mut self, caller: usize) {
        self.seen.calls += 1;
        self.second()[0] += 1;
        let idempotent = self.chance.hits(0.5);
        let call = Call {
            caller,
            began: self.now,
            tried: Vec::new(),
            at: None,
            outcome: Outcome::Answered,
            idempotent,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() - 1
        });
        self.calls[at] = Some(call);
        self.attempt(at);
    }

    fn attempt(&mut self, at: usize) {
        let now = Time::from_micros(self.now);
        let call = self.calls[at].as_mut().expect("the call goes on");
        let selector = Selector::default();
        let Lookup::Found(candidates) = self.routes.lookup(SERVICE, &selector) else {
            panic!("the service is there");
        };
        let Some(chosen) =
            self.policies[call.caller].choose(&candidates, &call.tried, &self.instances, now)
        else {
            return self.over(at, true);
        };
        let key = chosen.key;
        call.tried.push(key);
        call.at = Some(chosen);
        let fortune = self.instances[key as usize].take(self.now, &mut self.chance);
        let call = self.calls[at].as_mut().expect("the call goes on");
        let ends = match fortune {
            None => {
                call.outcome = Outcome::Refused;
                self.now + MILLI / 2
            }
            Some(fortune) => {
                call.outcome = if fortune.failed { Outcome::Failed } else { Outcome::Answered };
                fortune.ends
            }
        };
        self.second()[1] += 1;
        let second = (self.now / SECOND) as usize;
        if self.seen.shares.len() <= second {
            self.seen.shares.resize(second + 1, vec![0; self.instances.len()]);
        }
        self.seen.shares[second][key as usize] += 1;
        self.at(ends, Event::End(at));
    }

    fn end(&mut self, at: usize) {
        let now = Time::from_micros(self.now);
        let call = self.calls[at].as_mut().expect("the call goes on");
        let chosen = call.at.take().expect("an attempt is on its way");
        let instance = &mut self.instances[chosen.key as usize];
        let report = Report { in_flight: instance.in_flight, limit: instance.limit };
        if call.outcome != Outcome::Refused {
            instance.in_flight -= 1;
        }
        let outcome = call.outcome;
        let policy = &mut self.policies[call.caller];
        let again = match outcome {
            Outcome::Refused => true,
            Outcome::Failed => call.idempotent,
            Outcome::Answered | Outcome::Busy | Outcome::TimedOut => false,
        };
        let again = again && call.tried.len() < ATTEMPTS && policy.may_try_again(&chosen);
        policy.ended(chosen, outcome, report, now);
        if again { self.attempt(at) } else { self.over(at, outcome != Outcome::Answered) }
    }

    fn over(&mut self, at: usize, failed: bool) {
        let call = self.calls[at].take().expect("the call goes on");
        self.free.push(at);
        self.seen.failed += u64::from(failed);
        self.second()[2] += u64::from(failed);
        if !failed {
            self.seen.latencies.push((self.now - call.began) as u32);
        }
    }

    fn second(&mut self) -> &mut [u64; 3] {
        let second = (self.now / SECOND) as usize;
        if self.seen.seconds.len() <= second {
            self.seen.seconds.resize(second + 1, [0; 3]);
        }
        &mut self.seen.seconds[second]
    }
}

fn route(number: usize, group: u32) -> router::Instance {
    router::Instance {
        key: InstanceKey(number as u64),
        id: format!("{number:03}").into(),
        node: NodeId::from_bytes([1; 32]),
        here: group == 0,
        address: "10.0.0.1:5000".into(),
        protocol: Protocol::Grpc,
        version: "latest".into(),
        labels: LabelSet::default(),
        metadata: LabelSet::default(),
        cost: Cost::from_micros(1_000 * group),
        group,
    }
}
