//! What a person with three machines sees: join, offer, call by name, stop.

use std::time::Duration;

use serde_json::Value;
use tests::events::{Kind, now_us};
use tests::lab::{Host, Lab};
use tests::node::{Network, Node, Options};
use tests::process::Process;
use tests::programs;
use tests::scenario::{Calls, ECHO, Scenario};

/// Exit codes of the command line that these tests expect.
const NOT_FOUND: Option<i32> = Some(4);

#[test]
fn three_machines_become_one_network_and_a_service_is_called_by_name() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let network = Network::up(&lab, &micro);
    let mut greeter = lab.command(Host::Us, &micro);
    network.us.surround(&mut greeter);
    let greeter = Process::start("micro serve greeter", greeter.args(["serve", "greeter"]));
    for node in [&network.us, &network.eu, &network.laptop] {
        node.wait_service("greeter");
        let out = node.cli(&["call", "greeter", "Greeter.Hello", r#"{"name":"Ada"}"#]).ok("a call");
        let answer: Value = serde_json::from_str(&out).expect("the answer is JSON");
        assert!(answer["message"].as_str().is_some_and(|m| m.starts_with("Hello Ada")), "{answer}");
    }
    drop(greeter);

    let unknown = network.laptop.cli(&["call", "greter", "Greeter.Hello", "{}"]);
    assert_eq!(unknown.code, NOT_FOUND, "{unknown:?}");
    assert!(unknown.err.contains("error[M1203]"), "{unknown:?}");
}

#[test]
fn a_node_that_is_told_to_stop_finishes_its_calls_and_costs_nobody_one() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut scenario = Scenario::up(&lab, &micro, &[Host::Eu, Host::Us]);
    let calls = Calls::start(&lab);
    let victim = calls.favourite();
    let stop = now_us();
    let node = if victim == Host::Us { &mut scenario.network.us } else { &mut scenario.network.eu };
    // The streams never end, so the grace is what ends them: they are not what this test is about.
    let code = node.sigterm();
    calls.wait_answers_for(stop, Duration::from_secs(2));
    let failed: Vec<_> =
        calls.stop().into_iter().filter(|e| e.kind == Kind::Unary && e.status != 0).collect();
    assert_eq!(code, Some(0));
    assert!(
        failed.is_empty(),
        "{} calls failed while {} drained: {:?}",
        failed.len(),
        victim.name(),
        failed.first()
    );
}

#[test]
fn a_spent_ticket_is_refused_and_the_network_does_not_notice() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let eu = Node::up(&lab, Host::Eu, &micro, None);
    let ticket = eu.invite();
    let _us = Node::up(&lab, Host::Us, &micro, Some(&ticket));
    let mut laptop = Node::prepare(&lab, Host::Laptop, &micro, Options::default());
    laptop.start(Some(&ticket));
    let code = laptop.wait_end();
    let said = laptop.said().join("\n");
    assert!(code.is_some_and(|code| code != 0) && said.contains("error[M3"), "{code:?}: {said}");
    eu.wait_for("nodes=2");
}

#[test]
fn a_call_crosses_on_ipv6_alone() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    // The kernel takes about a second to use IPv6 on a link that has just come up.
    let probe = format!("[{}]:19101", Host::Eu.v6());
    let program = programs::lab_program();
    let _probe = lab.spawn(Host::Eu, &program.to_string_lossy(), &["serve", "probe", &probe]);
    lab.wait_port(Host::Laptop, &probe);
    let v6 = |host: Host| Options {
        address: Some(format!("[{}]:8085", host.v6())),
        ..Options::default()
    };
    let eu = Node::up_with(&lab, Host::Eu, &micro, None, v6(Host::Eu));
    let service = programs::lab_service(&lab, Host::Eu, "eu", tests::scenario::ECHO_PORT);
    eu.expose(ECHO, tests::scenario::ECHO_PORT, "grpc");
    let ticket = eu.invite();
    let laptop = Node::up_with(&lab, Host::Laptop, &micro, Some(&ticket), v6(Host::Laptop));
    laptop.wait_service(ECHO);
    let calls = Calls::start(&lab);
    let seen = calls.stop();
    assert!(seen.iter().all(|e| e.status == 0), "{:?}", seen.iter().find(|e| e.status != 0));
    assert!(service.lines().iter().any(|line| line.starts_with("call ")));
    let remote = laptop.status()["links"][0]["remote"].to_string();
    assert!(remote.contains("fd77:"), "the link goes to {remote}");
}
