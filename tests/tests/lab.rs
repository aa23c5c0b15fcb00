//! The lab itself: a fault that did nothing would prove everything.

use std::time::Duration;

use tests::events::{self, Kind};
use tests::lab::{Host, Lab};
use tests::process::{self, PATIENCE};
use tests::programs;

const PORT: u16 = 19101;

/// Whether a connection from one host to another comes about.
fn reaches(lab: &Lab, from: Host, to: Host) -> bool {
    knock(lab, from, &format!("{}:{PORT}", to.v4()))
}

/// The same over IPv6.
fn reaches6(lab: &Lab, from: Host, to: Host) -> bool {
    knock(lab, from, &format!("[{}]:{PORT}", to.v6()))
}

fn knock(lab: &Lab, from: Host, address: &str) -> bool {
    process::run(lab.command(from, programs::lab_program()).args(["knock", address]), b"", PATIENCE)
        .code
        == Some(0)
}

#[test]
fn hosts_reach_each_other_until_a_fault_says_otherwise() {
    let Some(lab) = Lab::new() else { return };
    let (laptop, eu, us) = (Host::Laptop, Host::Eu, Host::Us);
    let address = format!("[::]:{PORT}");
    let program = programs::lab_program();
    let servers = Host::ALL
        .map(|host| lab.spawn(host, &program.to_string_lossy(), &["serve", host.name(), &address]));
    for server in &servers {
        server.wait_line(0, "it listens", PATIENCE, |line| line == "listening");
    }
    for (from, to) in [(laptop, eu), (eu, us), (us, eu)] {
        // The kernel takes about a second to use IPv6 on a link that has just come up.
        lab.wait_port(from, &format!("[{}]:{PORT}", to.v6()));
        assert!(reaches(&lab, from, to));
    }
    assert!(
        !reaches(&lab, eu, laptop) && !reaches6(&lab, eu, laptop),
        "nobody can dial the laptop"
    );

    lab.blackhole(eu);
    assert!(!reaches(&lab, us, eu) && !reaches6(&lab, us, eu) && reaches(&lab, laptop, us));
    lab.clear();
    lab.part(laptop, eu);
    assert!(!reaches(&lab, laptop, eu) && reaches(&lab, laptop, us) && reaches(&lab, eu, us));
    lab.clear();
    lab.oneway(eu);
    assert!(!reaches(&lab, us, eu));
    lab.clear();
    lab.cut(laptop);
    assert!(!reaches(&lab, laptop, eu));
    lab.heal(laptop);
    assert!(reaches(&lab, laptop, eu));
    lab.wait_port(laptop, &format!("[{}]:{PORT}", eu.v6()));
    lab.loss(95);
    assert!((0..3).any(|_| !reaches(&lab, eu, us)));
    lab.clear();
    assert!(reaches(&lab, eu, us));
}

#[test]
fn the_load_program_sees_answers_streams_and_a_service_that_dies() {
    let Some(lab) = Lab::new() else { return };
    let mut service = programs::lab_service(&lab, Host::Eu, "one", 19100);
    let mut load = programs::lab_load(&lab, Host::Eu, "127.0.0.1:19100", tests::scenario::RATE, 2);
    load.wait_line(0, "a hundredth call", PATIENCE, |line| line.contains(r#""id":100,"#));
    service.kill9();
    load.wait_line(0, "a failure", PATIENCE, |line| {
        line.contains("unary") && line.contains(r#""status":-2"#)
    });
    drop(load.input());
    load.wait_end(PATIENCE);

    let seen = events::parse(&load.lines());
    let good = seen.iter().filter(|e| e.kind == Kind::Unary && e.status == 0).count();
    assert!(good >= 100, "{good} calls were answered");
    assert!(seen.iter().any(|e| e.kind == Kind::Message && e.instance.as_deref() == Some("one")));
    assert!(seen.iter().any(|e| e.kind == Kind::StreamEnd && e.status == events::BROKEN));
    let slowest =
        seen.iter().filter(|e| e.status == 0 && e.kind == Kind::Unary).map(|e| e.took_us).max();
    assert!(slowest.is_some_and(|us| us < Duration::from_secs(5).as_micros() as u64));
}
