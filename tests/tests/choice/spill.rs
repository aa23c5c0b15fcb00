//! Two localities: the near one is too small for a while.

use crate::instance::{Fate, Instance};
use crate::policy::Kind;
use crate::report::{expect, try_all};
use crate::world::{MILLI, Micros, SECOND, World};

const CALLERS: usize = 50;
const EACH: usize = 20;
const PEAK: std::ops::Range<usize> = 15..40;
const LENGTH: usize = 80;

/// Of 4 000 calls a second that the near ones can do: half, then one and a half, then half.
fn rate(now: Micros) -> f64 {
    if PEAK.contains(&((now / SECOND) as usize)) { 120.0 } else { 40.0 }
}

/// Percent of the attempts that go to the far ones, by second.
fn far(seed: u64) -> (Vec<f64>, World) {
    // Four workers; a fifth call may wait.
    let instance = |at| Instance::new(Fate::Well, if at < EACH { 1 } else { 4 }, 4, 20 * MILLI, 5);
    let instances = (0..2 * EACH).map(instance).collect();
    let mut world = World::new(Kind::Ours, seed, CALLERS, instances, rate);
    world.run_until(LENGTH as u64 * SECOND);
    let share = |second| {
        100.0 * (EACH..2 * EACH).map(|at| world.seen.share(at, second, second + 1)).sum::<f64>()
    };
    ((0..LENGTH).map(share).collect(), world)
}

#[test]
fn calls_spill_to_the_next_locality_and_return_without_a_herd() {
    try_all("spill", |seed| {
        let (far, mut world) = far(seed);
        let text: Vec<_> = far.iter().map(|share| format!("{share:.0}")).collect();
        println!("seed {seed}: far share by second: {}", text.join(" "));
        let settled = &far[PEAK.start + 8..PEAK.end];
        let (low, high) =
            settled.iter().fold((f64::MAX, 0.0_f64), |(l, h), s| (l.min(*s), h.max(*s)));
        // What the near ones cannot do goes far at once. From then on the share moves smoothly.
        let peak = far[PEAK.clone()].iter().fold(0.0_f64, |most, share| most.max(*share));
        let after = &far[PEAK.start + 1..];
        let jump = after.windows(2).map(|two| (two[1] - two[0]).abs()).fold(0.0, f64::max);
        println!(
            "  settled between {low:.1} and {high:.1} %, largest step {jump:.1} points a second, success {:.3} %, p99 {:.1} ms",
            world.seen.success(),
            world.seen.percentile(99)
        );
        let quiet = far[..PEAK.start].iter().fold(0.0_f64, |most, share| most.max(*share));
        expect(quiet < 1.0, || format!("{quiet:.1} % went far without need"))?;
        expect(low > 33.0 && high < 60.0, || format!("{low:.1} to {high:.1} % go far"))?;
        expect(high - low < 12.0, || format!("between {low:.1} and {high:.1} %: it oscillates"))?;
        expect(peak < high + 8.0, || format!("{peak:.1} % went far at first: a herd"))?;
        expect(jump < 20.0, || format!("{jump:.1} points in a second: a herd"))?;
        let last = far[LENGTH - 5..].iter().fold(0.0_f64, |most, share| most.max(*share));
        expect(last < 1.0, || format!("{last:.1} % did not return"))?;
        let back = &far[PEAK.end + 1..];
        let turns = back.windows(2).filter(|two| two[1] > two[0] + 2.0).count();
        expect(turns == 0, || format!("{turns} turns on the way back"))
    });
}
