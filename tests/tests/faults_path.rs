//! Networks that fail: F04 (a link flaps), F05 (partition), F07 (black hole) and F31 (no seed at start) of the fault
//! catalogue.

use std::time::Duration;

use serde_json::Value;
use tests::events::{Damage, Event, Kind, distribution, first_answer_ms, now_us, tell_reasons};
use tests::lab::{Host, Lab};
use tests::node::Node;
use tests::programs;
use tests::scenario::{Calls, ECHO, Scenario, TRIALS, alone, last};

/// How long a link stays down in F04, by the catalogue.
const FLAP: Duration = Duration::from_secs(5);
/// How long F05 parts the network: the catalogue's shorter time. `MICRO_LAB_LONG=1` takes the longer one.
const PARTITION: Duration = Duration::from_secs(30);
const LONG_PARTITION: Duration = Duration::from_secs(300);

/// The peers that a node has links to, with the time each link came up in milliseconds: a new handshake changes it.
fn links(node: &Node<'_>) -> Vec<(String, u64)> {
    let status = node.status();
    let born = |link: &Value| {
        let age_ms = link["since_ms"].as_u64().unwrap_or_else(|| panic!("no age in {link}"));
        (link["peer"].to_string(), (now_us() / 1000).saturating_sub(age_ms))
    };
    status["links"].as_array().into_iter().flatten().map(born).collect()
}

fn lost_streams(events: &[Event], from_us: u64) -> Vec<&Event> {
    events.iter().filter(|e| e.kind == Kind::StreamEnd && e.at_us >= from_us).collect()
}

#[test]
fn f04_a_link_that_flaps_for_five_seconds_costs_no_stream() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let mut back = Vec::new();
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let scenario = Scenario::up(&lab, &micro, &[Host::Us]);
        let calls = Calls::start(&lab);
        let before = links(&scenario.network.laptop);
        let fault = now_us();
        lab.cut(Host::Laptop);
        last(FLAP);
        lab.heal(Host::Laptop);
        let up = now_us();
        calls.wait_answers_for(up, Duration::from_secs(2));
        let after = links(&scenario.network.laptop);
        let seen = calls.stop();
        let lost = lost_streams(&seen, fault);
        assert!(lost.is_empty(), "streams were lost: {lost:?}");
        assert_eq!(Damage::of(&seen, fault).hung, 0);
        // Asking takes a moment, so a time of birth is not exact; a flap lasts five seconds.
        let same = |a: &(String, u64), b: &(String, u64)| a.0 == b.0 && a.1.abs_diff(b.1) < 2000;
        let kept = before.iter().all(|link| after.iter().any(|now| same(link, now)));
        assert!(kept, "a link was made anew: {before:?} then {after:?}");
        let answer = first_answer_ms(&seen, up).expect("calls were answered again");
        let message = seen
            .iter()
            .filter(|e| e.kind == Kind::Message && e.at_us >= up)
            .map(|e| e.at_us - up)
            .min();
        let message = message.map_or(f64::INFINITY, |us| us as f64 / 1000.0);
        tests::say(&format!(
            "F04 first answer {answer:.0} ms, first message of a stream {message:.0} ms after up"
        ));
        back.push(answer.min(message));
    }
    assert!(distribution("F04 link up to first byte", "ms", &back).p95 <= 500.0);
}

/// One partition: milliseconds from its end to the first answer, and to equal answers on all nodes.
fn part_and_heal(lab: &Lab, micro: &std::path::Path, time: Duration) -> (f64, f64) {
    let scenario = Scenario::up(lab, micro, &[Host::Us]);
    let calls = Calls::start(lab);
    let fault = now_us();
    lab.blackhole(Host::Us);
    last(time);
    lab.clear();
    let heal = now_us();
    calls.wait("an answer after the partition", Duration::from_secs(30), |e| {
        e.kind == Kind::Unary && e.status == 0 && e.at_us >= heal
    });
    let network = &scenario.network;
    for node in [&network.laptop, &network.eu, &network.us] {
        node.wait_for("nodes=3");
        node.wait_instances(ECHO, 1);
    }
    let agreed = (now_us() - heal) as f64 / 1000.0;
    let seen = calls.stop();
    let damage = Damage::of(&seen, fault);
    assert_eq!(damage.hung, 0, "{damage:?}");
    // Once the path is suspected nothing waits for it: calls that come later are refused at once.
    let late: Vec<&Event> = seen
        .iter()
        .filter(|e| {
            e.kind == Kind::Unary
                && e.due_us() > fault + 1_500_000
                && e.at_us < heal
                && e.took_us > 500_000
        })
        .collect();
    assert!(
        late.is_empty(),
        "{} calls waited for a node that was away: {:?}",
        late.len(),
        late.first()
    );
    assert_eq!(scenario.forbidden_repeats(), [0u64; 0], "calls that were made twice");
    (first_answer_ms(&seen, heal).expect("calls were answered again"), agreed)
}

#[test]
fn f05_after_a_partition_calls_flow_within_a_second_and_all_nodes_agree_within_five() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let long = std::env::var_os("MICRO_LAB_LONG").is_some();
    let time = if long { LONG_PARTITION } else { PARTITION };
    // Each trial is mostly waiting, so they run side by side.
    let Some(labs) = (0..TRIALS).map(|_| Lab::new()).collect::<Option<Vec<_>>>() else { return };
    let (mut answers, mut agreed) = (Vec::new(), Vec::new());
    std::thread::scope(|scope| {
        let trials: Vec<_> =
            labs.iter().map(|lab| scope.spawn(|| part_and_heal(lab, &micro, time))).collect();
        for trial in trials {
            let (answer, agreement) = trial.join().expect("the trial held its bars");
            answers.push(answer);
            agreed.push(agreement);
        }
    });
    let answer = distribution("F05 heal to first answer", "ms", &answers);
    let agreement = distribution("F05 heal to equal routes", "ms", &agreed);
    assert!(answer.p95 <= 1000.0 && agreement.p95 <= 5000.0);
}

#[test]
fn f07_a_black_hole_costs_new_calls_no_more_than_1500_ms_and_nothing_hangs() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let (mut windows, mut waits) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let scenario = Scenario::up(&lab, &micro, &[Host::Eu, Host::Us]);
        let calls = Calls::start(&lab);
        let fault = now_us();
        lab.blackhole(calls.favourite());
        calls.wait_answers_for(fault, Duration::from_secs(4));
        let seen = calls.stop();
        let damage = Damage::of(&seen, fault);
        tests::say(&format!("F07 {damage:?}"));
        tell_reasons("F07", &seen, fault);
        assert_eq!(damage.hung, 0, "{damage:?}");
        assert_eq!(scenario.forbidden_repeats(), [0u64; 0], "calls that were made twice");
        windows.push(damage.window_ms);
        waits.push(damage.slowest_failure_ms.max(damage.slowest_answer_ms));
    }
    let window = distribution("F07 error window", "ms", &windows);
    let wait = distribution("F07 longest wait", "ms", &waits);
    assert!(window.p95 <= 1500.0 && wait.p95 <= 3000.0);
}

#[test]
fn f31_a_node_that_starts_without_its_seed_uses_the_peers_it_knew() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    let mut joined = Vec::new();
    for _ in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        let mut scenario = Scenario::up(&lab, &micro, &[Host::Us]);
        // What it knows is written down within two seconds of a change.
        last(Duration::from_secs(3));
        // Its ticket named eu alone; us is known only from the time before.
        scenario.network.laptop.kill9();
        lab.blackhole(Host::Eu);
        scenario.network.laptop.start(None);
        scenario.network.laptop.wait_service(ECHO);
        let calls = Calls::start(&lab);
        calls.stop();

        // Now nobody is there at all, until everybody is.
        scenario.network.laptop.kill9();
        lab.blackhole(Host::Laptop);
        scenario.network.laptop.start(None);
        lab.wait_port(Host::Laptop, tests::node::PROXY);
        last(Duration::from_secs(3));
        lab.clear();
        let healed = now_us();
        scenario.network.laptop.wait_for("nodes=3");
        scenario.network.laptop.wait_service(ECHO);
        joined.push((now_us() - healed) as f64 / 1000.0);
    }
    assert!(distribution("F31 network back to joined", "ms", &joined).p95 <= 5000.0);
}
