//! Nodes that die: F01 (kill -9, a replica exists) and F02 (kill -9 and start again) of the fault catalogue.

use std::time::Duration;

use tests::events::{Damage, distribution, first_answer_ms, now_us, tell_reasons};
use tests::lab::{Host, Lab};
use tests::programs;
use tests::scenario::{Calls, ECHO, ECHO_PORT, Scenario, TRIALS, alone};

/// gRPC's UNAVAILABLE.
const UNAVAILABLE: &str = "14/";

#[test]
fn f01_a_dead_node_costs_no_call_that_may_be_repeated_and_no_more_than_1500_ms() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let mut windows = Vec::new();
    let mut waits = Vec::new();
    let mut repeatable = 0;
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let mut scenario = Scenario::up(&lab, &micro, &[Host::Eu, Host::Us]);
        let calls = Calls::start(&lab);
        let victim = calls.favourite();
        let fault = now_us();
        match victim {
            Host::Us => scenario.network.us.kill9(),
            Host::Eu | Host::Laptop => scenario.network.eu.kill9(),
        }
        calls.wait_answers_for(fault, Duration::from_secs(3));
        let seen = calls.stop();
        let damage = Damage::of(&seen, fault);
        tests::say(&format!("F01 {} killed: {damage:?}", victim.name()));
        tell_reasons("F01", &seen, fault);
        assert_eq!(damage.hung, 0, "{damage:?}");
        repeatable += damage.failed_idempotent;
        assert!(damage.reasons.iter().all(|r| r.starts_with(UNAVAILABLE)), "{damage:?}");
        assert_eq!(scenario.forbidden_repeats(), [0u64; 0], "calls that were made twice");
        windows.push(damage.window_ms);
        waits.push(damage.slowest_failure_ms);
    }
    let window = distribution("F01 error window", "ms", &windows);
    let wait = distribution("F01 longest wait of a failed call", "ms", &waits);
    assert_eq!(repeatable, 0, "calls that may be repeated failed");
    assert!(window.p95 <= 1500.0 && wait.p95 <= 1500.0);
}

#[test]
fn f02_a_node_that_starts_again_is_back_within_a_second() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let mut back = Vec::new();
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let mut scenario = Scenario::up(&lab, &micro, &[Host::Us]);
        let calls = Calls::start(&lab);
        let fault = now_us();
        scenario.network.us.kill9();
        let restart = now_us();
        scenario.network.us.start(None);
        scenario.network.us.wait_ready();
        scenario.network.us.expose(ECHO, ECHO_PORT, "grpc");
        calls.wait_answers_for(restart, Duration::from_secs(2));
        let seen = calls.stop();
        let damage = Damage::of(&seen, fault);
        tests::say(&format!("F02 {damage:?}"));
        assert_eq!(damage.hung, 0, "{damage:?}");
        assert_eq!(scenario.forbidden_repeats(), [0u64; 0], "calls that were made twice");
        back.push(first_answer_ms(&seen, restart).expect("calls were answered again"));
    }
    assert!(distribution("F02 restart to first answer", "ms", &back).p95 <= 1000.0);
}
