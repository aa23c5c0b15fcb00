//! The official NATS client for Python, unmodified, each at its own node. Neither end knows that there is a network
//! between them.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::lab::{Host, Lab};
use tests::node::{Network, Node};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

/// Where each node listens for clients of NATS.
const NATS: &str = "127.0.0.1:4222";

fn ready() -> Option<(Lab, std::path::PathBuf)> {
    let python = programs::built("venv/bin/python");
    if !programs::have_built(&["venv/bin/python"]) {
        return None;
    }
    let has = process::run(Command::new(python).args(["-c", "import nats"]), b"", PATIENCE);
    if has.code != Some(0) {
        tests::skip("needs nats-py: run tests/interop/setup.sh");
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

fn client(lab: &Lab, host: Host, args: &[&str]) -> Command {
    let mut command = lab.command(host, programs::built("venv/bin/python"));
    command.arg(programs::interop("python/nats_client.py")).arg(NATS).args(args);
    command
}

fn run(lab: &Lab, host: Host, args: &[&str]) -> String {
    process::run(&mut client(lab, host, args), b"", PATIENCE * 2)
        .ok("nats client")
        .trim()
        .to_owned()
}

/// A subscriber that has told its node.
fn subscriber(lab: &Lab, host: Host, args: &[&str]) -> Process {
    let name = format!("nats subscriber on {}", host.name());
    let started = Process::start(&name, &mut client(lab, host, args));
    started.wait_line(0, "it subscribes", PATIENCE, |line| line == "subscribed");
    started
}

/// Waits until `node` knows that so many nodes want a pattern.
fn wait_wanted(node: &Node<'_>, pattern: &str, nodes: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let topics = node.json(&["topics"]);
        let all = topics["items"].as_array().cloned().unwrap_or_default();
        let wanted = all.iter().filter(|one| one["pattern"] == pattern).count();
        if wanted == nodes {
            return;
        }
        assert!(Instant::now() < deadline, "{wanted} nodes, not {nodes}, want {pattern}: {topics}");
        std::thread::sleep(Duration::from_millis(15));
    }
}

/// The messages printed so far.
fn messages(subscriber: &Process) -> Vec<Value> {
    subscriber.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn numbers(subscriber: &Process) -> Vec<u64> {
    let number = |one: &Value| one["data"].as_str().and_then(|data| data.parse().ok());
    messages(subscriber).iter().filter_map(number).collect()
}

/// Waits for the message with this payload, and with it for all before it.
fn wait_message(subscriber: &Process, data: &str) {
    let wanted = format!("\"data\": \"{data}\"");
    subscriber.wait_line(0, data, PATIENCE, |line| line.contains(&wanted));
}

#[test]
fn one_client_sees_the_server_it_expects() {
    let Some((lab, micro)) = ready() else { return };
    let _node = Node::up(&lab, Host::Eu, &micro, None);
    assert_eq!(run(&lab, Host::Eu, &["limits"]), "passed");
    assert_eq!(run(&lab, Host::Eu, &["ask", "nobody.here", "hello"]), "nobody");
}

#[test]
fn messages_questions_and_large_payloads_cross_the_network() {
    let Some((lab, micro)) = ready() else { return };
    let network = Network::up(&lab, &micro);
    let all = subscriber(&lab, Host::Us, &["sub", "orders.>"]);
    let members = [Host::Us, Host::Laptop]
        .map(|host| subscriber(&lab, host, &["sub", "orders.*", "workers"]));
    wait_wanted(&network.eu, "orders.>", 1);
    wait_wanted(&network.eu, "orders.*", 2);
    assert_eq!(run(&lab, Host::Eu, &["pub", "orders.created", "0", "500"]), "published");
    wait_message(&all, "499");
    assert_eq!(numbers(&all), (0..500).collect::<Vec<_>>(), "all, once, in order");
    let headers = &messages(&all)[0]["headers"];
    assert_eq!((&headers["X-Case"], &headers["x-case"]), (&"Kept".into(), &"too".into()));
    let deadline = Instant::now() + PATIENCE;
    let shared = loop {
        let mut shared: Vec<u64> = members.iter().flat_map(numbers).collect();
        if shared.len() >= 500 || Instant::now() > deadline {
            shared.sort_unstable();
            break shared;
        }
        std::thread::sleep(Duration::from_millis(15));
    };
    assert_eq!(shared, (0..500).collect::<Vec<_>>(), "each to one member");

    let digest = run(&lab, Host::Eu, &["big", "orders.big", "8388608"]);
    wait_message(&all, &digest);

    let _answers = subscriber(&lab, Host::Laptop, &["answer", "greet"]);
    wait_wanted(&network.us, "greet", 1);
    assert_eq!(run(&lab, Host::Us, &["ask", "greet", "hello"]), "you said hello");
}

#[test]
fn interest_ends_with_a_killed_client_and_the_others_of_its_group_take_over() {
    let Some((lab, micro)) = ready() else { return };
    let network = Network::up(&lab, &micro);
    let mut first = subscriber(&lab, Host::Us, &["sub", "jobs", "workers"]);
    let second = subscriber(&lab, Host::Laptop, &["sub", "jobs", "workers"]);
    wait_wanted(&network.eu, "jobs", 2);
    first.kill9();
    wait_wanted(&network.eu, "jobs", 1);
    run(&lab, Host::Eu, &["pub", "jobs", "0", "100"]);
    wait_message(&second, "99");
    assert_eq!(numbers(&second), (0..100).collect::<Vec<_>>());
    drop(second);
    wait_wanted(&network.eu, "jobs", 0);
}
