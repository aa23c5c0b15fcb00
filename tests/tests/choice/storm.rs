//! Every instance fails: what callers add to the load must not make it worse.

use crate::instance::{Fate, Instance, Mood};
use crate::policy::Kind;
use crate::report::{expect, try_all};
use crate::world::{MILLI, Micros, SECOND, World};

const CALLERS: usize = 50;
const INSTANCES: usize = 200;
const FROM: u64 = 10;
const TO: u64 = 20;
const LENGTH: u64 = 30;

fn rate(_: Micros) -> f64 {
    60.0
}

fn run(kind: Kind, seed: u64, mood: Mood) -> World {
    let fate = Fate::Spell(FROM * SECOND, TO * SECOND, mood);
    let instances = (0..INSTANCES).map(|_| Instance::new(fate, 1, 1, 20 * MILLI, 64)).collect();
    let mut world = World::new(kind, seed, CALLERS, instances, rate);
    world.run_until(LENGTH * SECOND);
    world
}

#[test]
fn with_every_instance_failing_the_load_stays_below_six_fifths() {
    try_all("failing", |seed| {
        for mood in [Mood::Fails(1.0), Mood::Refuses] {
            let mut worst = [0.0, 0.0];
            for (at, kind) in [Kind::Ours, Kind::RoundRobin].into_iter().enumerate() {
                let world = run(kind, seed, mood);
                let storm = &world.seen.seconds[FROM as usize..TO as usize];
                let load = |[calls, attempts, _]: &[u64; 3]| *attempts as f64 / *calls as f64;
                worst[at] = storm.iter().map(load).fold(0.0, f64::max);
                let well = |[calls, _, failed]: &[u64; 3]| failed * 100 <= *calls;
                let after = world.seen.seconds[TO as usize..].iter().position(well);
                let all: u64 = storm.iter().map(|second| second[1]).sum();
                let calls: u64 = storm.iter().map(|second| second[0]).sum();
                println!(
                    "seed {seed} {mood:?} {kind:?}: load {:.3} of what is offered, worst second {:.3}, 99 % succeed {after:?} s after its end",
                    all as f64 / calls as f64,
                    worst[at]
                );
                if kind == Kind::Ours {
                    let after = after.unwrap_or(LENGTH as usize);
                    expect(after <= 3, || format!("{mood:?}: well again after {after} s"))?;
                }
            }
            expect(worst[0] <= 1.2, || format!("{mood:?}: load {:.3} in a second", worst[0]))?;
            expect(worst[1] > 1.8, || "the storm is one without a budget".to_owned())?;
        }
        Ok(())
    });
}
