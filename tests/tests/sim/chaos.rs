//! What happens to a world: programs come and go, machines crash, networks fall apart, members lie.

use std::time::Duration;

use proto::record::{Adjacency, Body, PathKind, Service, VersionOf};
use proto::testing::Toy;
use proto::{Cost, Epoch, Record, Seq, Verified, Version};

use crate::keys;
use crate::world::{MILLI, Micros, SECOND, World};

/// How long a lease lasts.
const LEASE: Micros = 8 * SECOND;

/// Lets things happen for `span`. With `hostile`, members lie and frames of old are heard again.
pub(crate) fn reign(world: &mut World, span: Micros, hostile: bool) {
    let end = world.now + span;
    while world.now < end {
        let next = world.now + world.chance.within(20 * MILLI, 1_200 * MILLI);
        world.run_until(next.min(end));
        something(world, hostile, end);
    }
}

/// Ends all faults; those who know where the network is are there.
pub(crate) fn end(world: &mut World) {
    world.calm();
    for at in 0..3.min(world.hosts.len()) {
        if !world.alive().contains(&at) {
            world.start(at, false);
        }
    }
}

/// Offers something, with a lease or without.
pub(crate) fn offer(world: &mut World, at: usize) {
    let service = format!("srv.s{}", world.chance.within(0, 12));
    let id = format!("i{}", world.chance.within(0, 6));
    let lease = world.chance.percent(50);
    world.offer(at, &service, &id, lease.then_some(Duration::from_micros(LEASE)));
}

fn something(world: &mut World, hostile: bool, end: Micros) {
    let alive = world.alive();
    let any = world.chance.index(world.hosts.len());
    let Some(&living) = alive.get(world.chance.index(alive.len().max(1))) else {
        return world.start(any, false);
    };
    match world.chance.within(0, if hostile { 130 } else { 100 }) {
        0..30 => offer(world, living),
        30..45 => withdraw(world, living, end),
        45..55 => {
            let cost = world.chance.within(100, 300_000);
            world.measure(living, u32::try_from(cost).expect("below 300 000"));
        }
        55..63 if alive.len() > 3 => world.crash(living),
        63..66 if alive.len() > 3 => world.leave(living),
        66..80 if world.hosts[any].life.is_none() || !alive.contains(&any) => {
            let lost_clock = world.chance.percent(20);
            world.start(any, lost_clock);
        }
        80..84 => {
            let cut = world.chance.draw();
            world.divide(|at| u8::from(cut >> (at % 64) & 1 == 1));
        }
        84..90 => world.divide(|_| 0),
        90..96 => world.block(any, living, true),
        96..100 => world.block(any, living, false),
        100..110 => replay(world, living),
        110..118 => alter(world, living),
        118..130 => lie(world, living),
        _ => {}
    }
}

/// A program that goes without a word is gone when its lease is: before all faults end.
fn withdraw(world: &mut World, at: usize, end: Micros) {
    let offered: Vec<_> = world.hosts[at].offered.keys().cloned().collect();
    if !offered.is_empty() {
        let key = &offered[world.chance.index(offered.len())];
        let silently = world.chance.percent(50) && world.now + LEASE < end;
        world.withdraw(at, key, silently);
    }
}

/// Old records are said again, whoever wrote them and whatever has come of them.
fn replay(world: &mut World, at: usize) {
    if world.pool.is_empty() {
        return;
    }
    let old = (0..world.chance.within(1, 40)).map(|_| {
        let one = world.chance.index(world.pool.len());
        world.pool[one].clone()
    });
    let old: Vec<_> = old.collect();
    world.inject(at, &old);
}

/// Records of others are said with something changed in them.
fn alter(world: &mut World, at: usize) {
    let mut altered = Vec::new();
    for _ in 0..10 {
        if world.pool.is_empty() {
            return;
        }
        let one = world.chance.index(world.pool.len());
        let mut bytes = world.pool[one].bytes().to_vec();
        let place = world.chance.index(bytes.len());
        bytes[place] ^= 1 << world.chance.within(0, 8);
        altered.extend(Record::decode(bytes.into()));
    }
    world.inject(at, &altered);
}

/// A member says what it may not, under its own name: a service outside its grant, links that it
/// does not have; and a stranger says that it offers something.
fn lie(world: &mut World, at: usize) {
    let key = world.hosts[at].key;
    let stranger = Toy(1_000_000 + u32::try_from(at).expect("worlds are small"));
    let epoch = Epoch(keys::STARTED.plus(world.now / SECOND).0 * 1000);
    let seq = 1_000 + world.chance.within(0, 1_000);
    let version = |n: u64| Version { epoch, seq: Seq(seq + n) };
    let bank = || {
        let instance = proto::record::Instance {
            id: "lie".into(),
            address: "127.0.0.1:1".into(),
            protocol: proto::record::Protocol::Grpc,
            metadata: proto::LabelSet::default(),
        };
        let of = VersionOf { instances: vec![instance], ..VersionOf::default() };
        let service = Box::new(Service { versions: vec![of] });
        Body::Service("bank".parse().expect("a service name"), service)
    };
    let victim = world.chance.index(world.hosts.len());
    let cheap = Adjacency { cost: Cost::from_micros(1), path: PathKind::Direct };
    let link = Body::Adjacency(world.hosts[victim].key.id(), cheap);
    let lies = [
        Verified::own(keys::network(), &key, version(0), bank()),
        Verified::own(keys::network(), &key, version(1), link),
        Verified::own(keys::network(), &stranger, version(0), bank()),
    ];
    let lies: Vec<_> = lies.iter().map(|lie| lie.record().clone()).collect();
    world.inject(at, &lies);
}
