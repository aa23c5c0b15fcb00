//! Unmodified go-micro v2.9.1 publishers and subscribers on three nodes. Each is told by its environment alone that its
//! broker is a service; where that is, it believes to know: 127.0.0.1:8001, or its proxy.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::lab::{Host, Lab};
use tests::node::{Node, Options, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

const TOPIC: &str = "go.micro.evt.greeted";

fn topics(lab: &Lab, host: Host, proxy: bool, args: &[&str]) -> Command {
    let mut command = lab.command(host, programs::built("go-topics"));
    command.env("MICRO_BROKER", "service").args(args);
    if proxy {
        command.env("MICRO_PROXY", PROXY);
    }
    command
}

fn subscriber(lab: &Lab, host: Host, proxy: bool, args: &[&str]) -> Process {
    let name = format!("go-micro subscriber on {}", host.name());
    let started = Process::start(&name, &mut topics(lab, host, proxy, args));
    started.wait_line(0, "it subscribes", PATIENCE, |line| line == "subscribed");
    started
}

fn bodies(subscriber: &Process) -> Vec<u64> {
    let lines = subscriber.lines();
    let messages = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| message["body"].as_str()?.parse().ok()).collect()
}

#[test]
fn a_plain_subscriber_gets_all_and_a_queue_one_copy() {
    if !programs::have_built(&["go-topics"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    // As a person starts them: with the port that go-micro dials where nobody tells it another.
    let usual = || Options { proxy: String::new(), ..Options::default() };
    let eu = Node::up_with(&lab, Host::Eu, &micro, None, usual());
    let _us = Node::up_with(&lab, Host::Us, &micro, Some(&eu.invite()), usual());
    let _laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    eu.wait_for("nodes=3");
    let plain = subscriber(&lab, Host::Laptop, true, &["sub", TOPIC]);
    let members = [(Host::Us, true), (Host::Us, false)]
        .map(|(host, proxy)| subscriber(&lab, host, proxy, &["sub", TOPIC, "mail"]));
    eu.wait_wanted(TOPIC, 2);
    let mut publish = topics(&lab, Host::Eu, false, &["pub", TOPIC, "0", "200"]);
    let said = process::run(&mut publish, b"", PATIENCE).ok("go-micro publisher");
    assert_eq!(said.trim(), "published");

    let deadline = Instant::now() + PATIENCE;
    let all: Vec<u64> = (0..200).collect();
    loop {
        let mut queue: Vec<u64> = members.iter().flat_map(bodies).collect();
        queue.sort_unstable();
        let heard = bodies(&plain);
        if heard.len() >= 200 && queue.len() >= 200 {
            assert_eq!((heard, queue), (all.clone(), all), "all in order; one copy");
            break;
        }
        assert!(Instant::now() < deadline, "plain {heard:?}\nqueue {queue:?}");
        std::thread::sleep(Duration::from_millis(15));
    }
    assert!(members.iter().all(|member| !bodies(member).is_empty()), "the queue is shared");
    let (_, first) = plain.wait_line(0, "a message", PATIENCE, |line| line.starts_with('{'));
    let first: Value = serde_json::from_str(&first).expect("one line of JSON");
    assert_eq!(first["header"]["X-Lower-case"], "kept", "{first}");

    // Its program is killed, its connection ends, and the network hears of it.
    drop(plain);
    eu.wait_wanted(TOPIC, 1);
}
