//! Many routers in one thread, under everything that can happen to a network, against a plain model
//! of the truth. Every world follows from a seed; one that fails says how to see it again.
//!
//! | Variable | Effect |
//! |---|---|
//! | `MICRO_SIM_SEED` | only this seed |
//! | `MICRO_SIM_NODES` | how many nodes the large world has; the default keeps a build short |
//! | `MICRO_SIM_FRESH` | one more seed, never tried before: any number, for example of the build |

mod chance;
mod chaos;
mod keys;
mod truth;
mod world;

use chance::Chance;
use world::{MILLI, Micros, SECOND, Weather, World};

/// Seeds that every build tries. Those that once found a mistake are among them.
const KEPT: std::ops::RangeInclusive<u64> = 1..=200;
/// After the last fault, all agree within this.
const AGREE_WITHIN: Micros = 5 * SECOND;
/// What nobody wants any more is closed by then, and all is quiet.
const QUIET_AFTER: Micros = 60 * SECOND;
/// Nodes of the large world, three minutes of a processor, and how many leaves there are to a relay.
/// With `MICRO_SIM_NODES=200` it takes seconds.
const LARGE: u64 = 1000;
const LEAVES_A_RELAY: usize = 25;
const LISTEN: Micros = 40 * SECOND;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seeds(kept: impl Iterator<Item = u64>) -> Vec<u64> {
    match number("MICRO_SIM_SEED") {
        Some(seed) => vec![seed],
        None => kept.chain(number("MICRO_SIM_FRESH").map(|fresh| fresh ^ 0x5eed << 32)).collect(),
    }
}

/// Runs one world for each seed; prints how long the worlds took to agree.
#[expect(clippy::print_stdout, reason = "the distribution is what the run is for")]
fn try_all(
    test: &str,
    kept: impl Iterator<Item = u64>,
    one: impl Fn(u64) -> Result<Micros, String>,
) {
    let (mut took, mut wrongs) = (Vec::new(), Vec::new());
    for seed in seeds(kept) {
        match one(seed) {
            Ok(time) => took.push((time, seed)),
            Err(wrong) => wrongs.push(format!(
                "seed {seed}: {wrong}\nagain: MICRO_SIM_SEED={seed} cargo test -p tests --test sim {test}"
            )),
        }
    }
    assert!(
        wrongs.is_empty(),
        "{} of {} worlds:\n{}",
        wrongs.len(),
        wrongs.len() + took.len(),
        wrongs.join("\n")
    );
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100].0 as f64 / 1e6;
    let slowest: Vec<_> = took.iter().rev().take(5).map(|(_, seed)| seed).collect();
    println!(
        "{test}: {} worlds agree after p50 {:.2} s, p90 {:.2} s, max {:.2} s; slowest {slowest:?}",
        took.len(),
        at(50),
        at(90),
        at(100)
    );
}

/// A small world in which anything may happen.
fn small(seed: u64) -> (World, bool) {
    let mut chance = Chance::new(seed);
    let count = chance.within(8, 41) as usize;
    let relays = chance.within(0, 5) as usize;
    let hostile = chance.percent(50);
    let weather =
        Weather { loss: chance.within(0, 20), twice: if hostile { 15 } else { 0 }, encode: true };
    (World::new(seed, count, relays, weather), hostile)
}

/// Starts all hosts, each at some moment of `span`.
fn rise(world: &mut World, span: Micros) {
    let count = world.hosts.len();
    for at in 0..count {
        world.start(at, false);
        if at >= 3 {
            world.run_until(world.now + span / count as Micros);
        }
    }
}

/// Waits until all agree with the truth; says how long that took.
fn agree(world: &mut World, step: Micros) -> Result<Micros, String> {
    let begun = world.now;
    loop {
        world.run_until(world.now + step);
        if let Some(wrong) = world.wrongs.first() {
            return Err(wrong.clone());
        }
        match truth::wrong(world) {
            None => return Ok(world.now - begun),
            Some(wrong) if world.now - begun >= AGREE_WITHIN => {
                return Err(format!("no agreement after {} s: {wrong}", AGREE_WITHIN / SECOND));
            }
            Some(_) => {}
        }
    }
}

/// Nothing happens, so nothing is said: but digests, one for each link and period.
fn quiet(world: &mut World) -> Result<(), String> {
    world.run_until(world.now + QUIET_AFTER);
    (world.digests, world.others) = (0, 0);
    world.run_until(world.now + LISTEN);
    let links = world.alive().len() * 8;
    let most = links * (LISTEN / SECOND) as usize / 7;
    match (world.others, world.digests) {
        (0, digests) if digests <= most => truth::wrong(world).map_or(Ok(()), Err),
        (others, digests) => Err(format!("not quiet: {others} frames, {digests} digests")),
    }
}

fn live_through(world: &mut World, hostile: bool) -> Result<Micros, String> {
    rise(world, 2 * SECOND);
    let span = 20 * SECOND + world.chance.within(0, 40 * SECOND);
    chaos::reign(world, span, hostile);
    chaos::end(world);
    let took = agree(world, 100 * MILLI)?;
    quiet(world)?;
    Ok(took)
}

#[test]
fn small_worlds_agree_after_anything() {
    try_all("small_worlds", KEPT, |seed| {
        let (mut world, hostile) = small(seed);
        live_through(&mut world, hostile)
    });
}

#[test]
fn one_seed_gives_one_log() {
    let log = |seed| {
        let (mut world, hostile) = small(seed);
        let _ = live_through(&mut world, hostile);
        (world.now, world.log.finalize())
    };
    assert_eq!(log(7), log(7));
    assert_ne!(log(7), log(8));
}

#[test]
fn a_large_network_agrees() {
    let count = number("MICRO_SIM_NODES").unwrap_or(LARGE) as usize;
    try_all("a_large_network", 1..=1, |seed| {
        let weather = Weather { loss: 2, twice: 1, encode: false };
        let mut world = World::new(seed, count, count / LEAVES_A_RELAY, weather);
        rise(&mut world, 8 * SECOND);
        for at in (0..count).step_by(4) {
            chaos::offer(&mut world, at);
        }
        let risen = agree(&mut world, SECOND / 2)?;
        let joined = world.taken;
        // A part is cut off for a while, some cannot hear each other, and machines die on both
        // sides, for good or to be started again.
        world.divide(|at| u8::from(at % 50 == 1));
        for at in (0..count - 7).step_by(40) {
            world.block(at, at + 7, true);
        }
        world.run_until(world.now + 3 * SECOND);
        for at in (3..count).step_by(50) {
            world.crash(at);
        }
        world.run_until(world.now + 3 * SECOND);
        for at in (3..count).step_by(100) {
            world.start(at, false);
        }
        world.run_until(world.now + 2 * SECOND);
        world.calm();
        let healed = agree(&mut world, SECOND / 2)?;
        let seconds = |micros| micros as f64 / 1e6;
        quiet(&mut world)?;
        println!(
            "{count} nodes: risen after {:.1} s, with {joined:?}; healed after {:.1} s; \
             in all {} frames, {:?}",
            seconds(risen),
            seconds(healed),
            world.frames,
            world.taken
        );
        Ok(healed)
    });
}

/// F35 of the fault catalogue.
#[test]
fn half_of_a_hundred_nodes_die_at_once() {
    /// Of all that live, in the mean; and of one, which tells the leaves of relays that died what
    /// they missed. The bar is a megabyte for each.
    const MOST_BYTES: (u64, u64) = (1_000_000, 3_000_000);
    try_all("half_of_a_hundred", 1..=10, |seed| {
        let weather = Weather { loss: 2, twice: 0, encode: true };
        let mut world = World::new(seed, 100, 8, weather);
        rise(&mut world, 4 * SECOND);
        for at in 0..100 {
            chaos::offer(&mut world, at);
        }
        agree(&mut world, 100 * MILLI)?;
        world.run_until(world.now + QUIET_AFTER);
        world.hosts.iter_mut().for_each(|host| host.sent = 0);
        let mut dying: Vec<usize> = (0..100).collect();
        for last in (50..100).rev() {
            let other = world.chance.index(last + 1);
            dying.swap(last, other);
        }
        dying[50..].iter().for_each(|at| world.crash(*at));
        let took = agree(&mut world, 100 * MILLI)?;
        let living: Vec<u64> = world.alive().iter().map(|at| world.hosts[*at].sent).collect();
        let most = living.iter().max().copied().unwrap_or(0);
        let mean = living.iter().sum::<u64>() / living.len() as u64;
        println!(
            "seed {seed}: agree after {:.1} s; sent {mean} bytes a node, {most} at most",
            took as f64 / 1e6
        );
        if mean > MOST_BYTES.0 || most > MOST_BYTES.1 {
            return Err(format!("nodes sent {mean} bytes each, one {most}"));
        }
        Ok(took)
    });
}
