//! A region fails under load: its service dies, its node dies, its network goes dark. Calls go on in the other region.

use std::time::Duration;

use tests::events::{Damage, Event, Kind, now_us, tell_reasons};
use tests::lab::{Host, Lab};
use tests::programs;
use tests::scenario::{Calls, Scenario, alone};

/// Calls a second: a thousand, every second of which must not be repeated.
const RATE: u32 = 1000;
/// Calls in all; the region fails in the middle.
const CALLS: u64 = 20_000;
const LIMIT: Duration = Duration::from_secs(120);

/// Failed calls among those that must not be repeated, in parts of a thousand of them.
fn failed_once_only(seen: &[Event]) -> f64 {
    let once = || seen.iter().filter(|e| e.kind == Kind::Unary && !e.idempotent);
    1000.0 * once().filter(|e| e.status != 0).count() as f64 / once().count() as f64
}

/// What `breaks` the favourite region of a caller does to [`CALLS`] calls.
fn fail_over(what: &str, breaks: impl FnOnce(&Lab, &mut Scenario<'_>, Host)) {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let Some(lab) = Lab::new() else { return };
    let mut scenario = Scenario::up(&lab, &micro, &[Host::Eu, Host::Us]);
    let calls = Calls::start_many(&lab, Host::Laptop, RATE, 0);
    calls.wait_call(CALLS / 2, LIMIT);
    let favourite = calls.favourite();
    let fault = now_us();
    breaks(&lab, &mut scenario, favourite);
    calls.wait_call(CALLS, LIMIT);
    let seen = calls.stop();
    let damage = Damage::of(&seen, fault);
    tests::say(&format!("failover, {what} of {} lost: {damage:?}", favourite.name()));
    tell_reasons(what, &seen, fault);
    assert_eq!(damage.hung, 0, "{damage:?}");
    assert_eq!(scenario.forbidden_repeats(), [0u64; 0], "calls that were made twice");
    assert_eq!(damage.failed_idempotent, 0, "{damage:?}");
    let failed = failed_once_only(&seen);
    tests::say(&format!(
        "failover, {what}: {failed:.2} in 1000 calls that must not be repeated failed"
    ));
    assert!(failed < 1.0, "{damage:?}");
    let last = seen.iter().rev().find(|e| e.kind == Kind::Unary && e.status == 0);
    let last = last.and_then(|e| e.instance.as_deref()).unwrap_or_default();
    assert_ne!(last, favourite.name(), "the region that died answers");
}

#[test]
fn a_service_that_dies_in_one_region_is_called_in_the_other() {
    fail_over("service", |_, scenario, region| {
        scenario.services.get_mut(&region).expect("it runs in both").kill9();
    });
}

#[test]
fn a_node_that_dies_in_one_region_is_replaced_by_that_of_the_other() {
    fail_over("node", |_, scenario, region| match region {
        Host::Us => scenario.network.us.kill9(),
        Host::Eu | Host::Laptop => scenario.network.eu.kill9(),
    });
}

#[test]
fn a_region_that_goes_dark_is_replaced_by_the_other() {
    fail_over("network", |lab, _, region| lab.blackhole(region));
}
