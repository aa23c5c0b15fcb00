//! Two hundred instances, of which a hundred are in trouble of one kind or another.

use crate::instance::{Fate, Instance, Mood};
use crate::policy::Kind;
use crate::report::{expect, try_all};
use crate::world::{MILLI, Micros, SECOND, World};

const CALLERS: usize = 50;
const INSTANCES: usize = 200;
/// Seconds of a run, and from where on nothing changes any more.
const LENGTH: usize = 60;
const SETTLED: usize = 50;

/// When the spells begin and end.
const FROM: Micros = 10 * SECOND;
const TO: Micros = 25 * SECOND;

/// Three fifths of what the hundred that stay well can do.
fn rate(_: Micros) -> f64 {
    200.0
}

/// Success in percent, p50 and p99 in ms, distance from the best shares in percent, dispersion.
type Row = (f64, f64, f64, f64, f64);

fn fate(at: usize) -> Fate {
    match at {
        0..100 => Fate::Well,
        100..120 => Fate::Slow(10.0),
        120..140 => Fate::Spell(FROM, TO, Mood::Fails(1.0)),
        140..150 => Fate::Spell(FROM, TO, Mood::Fails(0.5)),
        150..170 => Fate::Spell(FROM, TO, Mood::Refuses),
        170..180 => Fate::Spell(FROM, TO, Mood::Works(20.0)),
        180..190 => Fate::Flaps(2 * SECOND, 30 * SECOND),
        _ => Fate::Born(20 * SECOND),
    }
}

fn run(kind: Kind, seed: u64) -> World {
    let instance = |at| Instance::new(fate(at), 1, 1, 6 * MILLI, 64);
    let instances = (0..INSTANCES).map(instance).collect();
    let mut world = World::new(kind, seed, CALLERS, instances, rate);
    world.run_until(LENGTH as u64 * SECOND);
    world
}

#[test]
fn trouble_of_every_kind_is_avoided_and_what_is_well_again_comes_back() {
    try_all("trouble", |seed| {
        println!(
            "seed {seed}: {CALLERS} callers, {INSTANCES} instances, 10 000 calls/s, {LENGTH} s"
        );
        println!("              success     p50      p99   slow ones get   distance   dispersion");
        let mut rows: Vec<(Row, World)> = Vec::new();
        for kind in [Kind::Oracle, Kind::Ours, Kind::RoundRobin, Kind::Random] {
            let mut world = run(kind, seed);
            let slow: f64 =
                (100..120).map(|at| world.seen.share(at, SETTLED, LENGTH)).sum::<f64>() * 100.0;
            // Half the sum of differences: the part of all calls that would have to go elsewhere.
            let distance = (0..INSTANCES)
                .map(|at| {
                    let best = rows.first().map_or(&world, |(_, best)| best);
                    let share = |of: &World| of.seen.share(at, SETTLED, LENGTH);
                    (share(&world) - share(best)).abs()
                })
                .sum::<f64>()
                * 50.0;
            let dispersion =
                (0..100).map(|at| world.seen.dispersion(at, 40, LENGTH)).sum::<f64>() / 100.0;
            let row = (
                world.seen.success(),
                world.seen.percentile(50),
                world.seen.percentile(99),
                distance,
                dispersion,
            );
            println!(
                "  {:<11} {:>7.3} %  {:>6.1}  {:>7.1} ms  {slow:>10.2} %  {distance:>7.1} %  {dispersion:>10.2}",
                format!("{kind:?}"),
                row.0,
                row.1,
                row.2
            );
            rows.push((row, world));
        }
        let [(best, _), (ours, world), (robin, _), (random, _)] = &rows[..] else {
            return Err("four kinds".to_owned());
        };
        let left = [
            times(world, "fails always", 120..140, 5, 20),
            times(world, "refuses", 150..170, 8, 20),
            times(world, "20 times as slow", 170..180, 5, 30),
        ];
        let fair = 1.0 / INSTANCES as f64;
        let half: f64 =
            (140..150).map(|at| world.seen.share(at, 15, 25)).sum::<f64>() / 10.0 / fair;
        println!("  fails half: gets {half:.2} of a fair share meanwhile");
        let born = returned(world, 190..200, 20 * SECOND);
        println!(
            "  new instances have half of their share after p50 {:?}, max {:?} s",
            born.0, born.1
        );
        left.into_iter().collect::<Result<(), _>>()?;
        expect(half < 0.75, || format!("fails half and gets {half:.2} of a fair share"))?;
        expect(ours.0 > 99.0, || format!("success {:.3} %", ours.0))?;
        expect(ours.2 < 4.0 * best.2, || format!("p99 {} ms, at best {} ms", ours.2, best.2))?;
        expect(ours.2 * 4.0 < robin.2.min(random.2), || {
            format!("p99 {} ms, round robin {} ms, random {} ms", ours.2, robin.2, random.2)
        })?;
        expect(ours.3 < 20.0, || format!("{:.1} % of the calls go elsewhere than best", ours.3))?;
        // No oscillation: what an instance gets varies from second to second hardly more than
        // chance alone would make it.
        expect(ours.4 < 2.0, || format!("dispersion {:.2}", ours.4))
    });
}

/// Prints how long the instances in a spell kept their share, and took to get it back; neither may
/// take longer than so many seconds.
#[expect(clippy::print_stdout, reason = "the times are what the run is for")]
fn times(
    world: &World,
    what: &str,
    of: std::ops::Range<usize>,
    left_by: usize,
    back_by: usize,
) -> Result<(), String> {
    let fair = 1.0 / INSTANCES as f64;
    let mut left: Vec<usize> = of
        .clone()
        .map(|at| world.seen.until(at, FROM, 0.33 * fair, false).unwrap_or(LENGTH))
        .collect();
    left.sort_unstable();
    let back = returned(world, of, TO);
    println!(
        "  {what}: left after p50 {} max {} s, back (half its share) after p50 {} max {} s",
        left[left.len() / 2],
        left[left.len() - 1],
        back.0,
        back.1
    );
    expect(left[left.len() / 2] <= left_by, || format!("{what}: left after {left:?} s"))?;
    expect(back.1 <= back_by, || format!("{what}: back after {} s", back.1))
}

fn returned(world: &World, of: std::ops::Range<usize>, from: Micros) -> (usize, usize) {
    let fair = 1.0 / INSTANCES as f64;
    let mut back: Vec<usize> =
        of.map(|at| world.seen.until(at, from, 0.5 * fair, true).unwrap_or(LENGTH)).collect();
    back.sort_unstable();
    (back[back.len() / 2], back[back.len() - 1])
}
