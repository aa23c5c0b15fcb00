//! Messages in whole networks of planners, against what a reference says should have come: seeded,
//! with interest that is known late, partitions, restarts, and subscribers that come and go.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod world;

use world::World;

const SEEDS: u64 = 60;

#[test]
fn nothing_comes_twice_or_out_of_order_and_nothing_is_lost_while_all_is_quiet() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.settle();
        world.check();
    }
}

#[test]
fn a_quiet_network_sends_one_copy_to_each_other_region() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        for _ in 0..20 {
            world.subscribe();
        }
        world.settle();
        for _ in 0..50 {
            world.publish();
            world.run(1_000);
        }
        world.settle();
        world.check();
        assert!(world.crossings_are_single(), "seed {seed}");
    }
}
