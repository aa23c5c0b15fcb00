//! Seeds in DNS, asked of a real server: every kind of record, answers too large for a datagram, and F31 of the fault
//! catalogue, the name server that is not there when a node starts.
//!
//! The node that is looked for has moved since the laptop last heard of it, so that nothing but DNS leads there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tests::events::{distribution, now_us};
use tests::lab::{Host, Lab};
use tests::node::Node;
use tests::process::{PATIENCE, Process};
use tests::programs;
use tests::scenario::{TRIALS, alone, last};

/// What SRV and TXT records stand at.
const SERVICE: &str = "_network._udp.lab.example";
/// Where the node that is looked for is now.
const MOVED: u16 = 8301;
/// A node must have joined this long after DNS is back.
const JOINED: Duration = Duration::from_secs(5);

/// Starts dnsmasq on us, with these records and no others.
fn dns(lab: &Lab, records: &[String]) -> Process {
    let mut command: Command = lab.command(Host::Us, "dnsmasq");
    command
        .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
        .args(["--no-resolv", "--no-hosts", "--local=/lab.example/", "--bind-interfaces"])
        .arg(format!("--listen-address={}", Host::Us.v4()))
        .args(records);
    let server = Process::start("dnsmasq", &mut command);
    server.wait_line(0, "it listens", PATIENCE, |line| line.contains("started, version"));
    server
}

fn have_dns() -> bool {
    programs::have(&["dnsmasq"])
}

/// A network of two of which the laptop then ends; the other has moved.
fn moved<'a>(lab: &'a Lab, micro: &Path) -> (Node<'a>, Node<'a>) {
    lab.name_server(Host::Laptop, Host::Us.v4());
    let mut eu = Node::up(lab, Host::Eu, micro, None);
    let mut laptop = Node::up(lab, Host::Laptop, micro, Some(&eu.invite()));
    laptop.wait_for("nodes=2");
    laptop.kill9();
    eu.kill9();
    // Both families, as by default; the lab's nodes otherwise have one address.
    eu.move_to(&format!("[::]:{MOVED}"));
    laptop.move_to("[::]:8085");
    eu.start(None);
    eu.wait_ready();
    (eu, laptop)
}

/// Joins by `seed` five times and gives the milliseconds from each start to both nodes seen.
fn join_by(what: &str, seed: &str, records: &[String], over_tcp: bool) {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    if !have_dns() {
        return;
    }
    let Some(lab) = Lab::new() else { return };
    let _server = dns(&lab, records);
    let (_eu, mut laptop) = moved(&lab, &micro);
    lab.count_tcp(53);
    laptop.say_at_start(&["--join", seed]);
    let mut joined = Vec::new();
    for trial in 1..=TRIALS {
        // What it learned of the way must not help it the next time.
        forget_peers(&laptop);
        let began = now_us();
        laptop.start(None);
        lab.wait_port(Host::Laptop, tests::node::PROXY);
        laptop.wait_for("nodes=2");
        joined.push((now_us() - began) as f64 / 1000.0);
        laptop.kill9();
        let tcp = lab.counted();
        assert!(!over_tcp || tcp >= trial as u64, "the answer came whole in a datagram");
    }
    assert!(distribution(&format!("DNS {what}, start to joined"), "ms", &joined).p95 <= 5000.0);
}

/// Removes the file with the members that a node knows; there is none before it has run for two seconds.
fn forget_peers(node: &Node<'_>) {
    let networks = std::fs::read_dir(node.home().join("state/micro")).expect("it is a member");
    let dir = networks.flatten().next().expect("it is a member of one network").path();
    let dir = dir.join(node.name());
    assert!(dir.join("credential").is_file(), "{} is a member's directory", dir.display());
    match std::fs::remove_file(dir.join("peers")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        Ok(()) | Err(_) => {}
    }
}

fn host(name: &str, address: impl std::fmt::Display) -> String {
    format!("--host-record={name},{address}")
}

#[test]
fn a_seed_with_an_a_record_is_found() {
    let records = [host("gate.lab.example", Host::Eu.v4())];
    join_by("A", &format!("gate.lab.example:{MOVED}"), &records, false);
}

#[test]
fn a_seed_with_an_aaaa_record_is_found() {
    let records = [host("gate.lab.example", Host::Eu.v6())];
    join_by("AAAA", &format!("gate.lab.example:{MOVED}"), &records, false);
}

#[test]
fn a_network_with_srv_records_is_found_though_the_first_target_is_dead() {
    let records = [
        format!("--srv-host={SERVICE},nowhere.lab.example,8085,1,1"),
        format!("--srv-host={SERVICE},gate.lab.example,{MOVED},2,1"),
        host("gate.lab.example", Host::Eu.v4()),
        host("gate.lab.example", Host::Eu.v6()),
    ];
    join_by("SRV", SERVICE, &records, false);
}

#[test]
fn an_answer_that_fits_no_datagram_is_fetched_over_tcp() {
    let filler = "a-target-with-quite-a-long-name-so-that-the-answer-grows";
    let mut records: Vec<String> = (0..40)
        .map(|n| format!("--srv-host={SERVICE},{filler}-{n}.lab.example,8085,9,1"))
        .collect();
    records.push(format!("--srv-host={SERVICE},gate.lab.example,{MOVED},1,1"));
    records.push(host("gate.lab.example", Host::Eu.v4()));
    join_by("SRV over TCP", SERVICE, &records, true);
}

#[test]
fn a_network_with_txt_records_is_found() {
    let records = [
        format!("--txt-record={SERVICE},v=spf1 -all"),
        format!("--txt-record={SERVICE},micro=gate.lab.example:{MOVED}"),
        host("gate.lab.example", Host::Eu.v4()),
    ];
    join_by("TXT", SERVICE, &records, false);
}

#[test]
fn f31_without_dns_peers_known_before_are_used_and_with_it_a_node_joins_within_five_seconds() {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    if !have_dns() {
        return;
    }
    let records = [
        format!("--srv-host={SERVICE},gate.lab.example,{MOVED},1,1"),
        host("gate.lab.example", Host::Eu.v4()),
    ];
    let (mut known, mut joined) = (Vec::new(), Vec::new());
    for trial in 0..TRIALS {
        let Some(lab) = Lab::new() else { return };
        // A server that is silent, and a port that is closed, in turn.
        let silent = trial % 2 == 0;
        lab.name_server(Host::Laptop, Host::Us.v4());
        let mut eu = Node::up(&lab, Host::Eu, &micro, None);
        let mut laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
        laptop.wait_for("nodes=2");
        // Whom it knows is written down within two seconds.
        last(Duration::from_secs(3));
        laptop.kill9();
        laptop.say_at_start(&["--join", SERVICE]);
        if silent {
            lab.silence_dns();
        }
        let began = now_us();
        laptop.start(None);
        lab.wait_port(Host::Laptop, tests::node::PROXY);
        laptop.wait_for("nodes=2");
        known.push((now_us() - began) as f64 / 1000.0);
        laptop.kill9();

        eu.kill9();
        eu.move_to(&format!("{}:{MOVED}", Host::Eu.v4()));
        eu.start(None);
        eu.wait_ready();
        let server = silent.then(|| dns(&lab, &records));
        laptop.start(None);
        lab.wait_port(Host::Laptop, tests::node::PROXY);
        last(Duration::from_secs(4));
        let server = server.unwrap_or_else(|| dns(&lab, &records));
        lab.clear();
        let back = now_us();
        laptop.wait_for("nodes=2");
        joined.push((now_us() - back) as f64 / 1000.0);
        drop(server);
    }
    let known = distribution("F31 without DNS, start to joined by peers", "ms", &known);
    let joined = distribution("F31 DNS back to joined", "ms", &joined);
    let bar = JOINED.as_secs_f64() * 1000.0;
    assert!(known.p95 <= bar && joined.p95 <= bar);
}
