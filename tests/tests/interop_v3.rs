//! An unmodified micro v3.18.5 service in one region and clients on other nodes: each is told by `MICRO_PROXY` alone
//! where its node is, and finds registry, accounts, store and topics there under their names of v3.

use std::process::Command;

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, Node, Options, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

fn program(lab: &Lab, host: Host, args: &[&str]) -> Command {
    let mut command = lab.command(host, programs::built("go-v3"));
    command.env("MICRO_PROXY", PROXY).env("HOME", lab.dir()).args(args);
    command
}

fn ask(lab: &Lab, host: Host, args: &[&str]) -> Value {
    let ran = process::run(&mut program(lab, host, args), b"", PATIENCE * 2);
    let line = ran.out.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{args:?}: {error}\n{ran:?}"))
}

fn ready() -> Option<(Lab, std::path::PathBuf)> {
    if !programs::have_built(&["go-v3"]) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

#[test]
fn a_service_of_v3_starts_is_found_and_called_from_another_node() {
    let Some((lab, micro)) = ready() else { return };
    let network = Network::up(&lab, &micro);
    let mut command = program(&lab, Host::Us, &["serve"]);
    command.env("MICRO_SERVICE_ADDRESS", "127.0.0.1:19571");
    let _service = Process::start("micro v3 service", &mut command);
    network.laptop.wait_service("hello");
    let got = ask(&lab, Host::Laptop, &["get", "hello"]);
    assert_eq!(got["services"][0]["version"], "v3", "{got}");
    let listed = ask(&lab, Host::Laptop, &["list"]);
    assert!(
        listed["names"].as_array().is_some_and(|all| all.contains(&json!("hello"))),
        "{listed}"
    );
    let called = ask(&lab, Host::Laptop, &["call", "Ada"]);
    assert_eq!(called["message"], "Hello Ada", "{called}");
    let absent = ask(&lab, Host::Laptop, &["get", "nobody"]);
    assert!(absent["error"].as_str().is_some_and(|text| text.contains("not found")), "{absent}");
}

#[test]
fn messages_of_v3_reach_every_subscriber_and_one_of_a_queue() {
    const TOPIC: &str = "orders.created";
    let Some((lab, micro)) = ready() else { return };
    // As a person starts it: with the port that v3 dials to publish, whatever its proxy is.
    let usual = Options { proxy: String::new(), ..Options::default() };
    let eu = Node::up_with(&lab, Host::Eu, &micro, None, usual);
    let _us = Node::up(&lab, Host::Us, &micro, Some(&eu.invite_relay()));
    let _laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    eu.wait_for("nodes=3");
    let sub = |host, args: &[&str]| {
        let args = [&["sub", TOPIC], args].concat();
        Process::start("micro v3 subscriber", &mut program(&lab, host, &args))
    };
    let plain = sub(Host::Laptop, &[]);
    let members = [Host::Us, Host::Laptop].map(|host| sub(host, &["mail"]));
    // One node and group each: the laptop's with the plain one.
    let deadline = std::time::Instant::now() + PATIENCE;
    while eu.json(&["topics"])["items"].as_array().map(Vec::len) != Some(3) {
        assert!(std::time::Instant::now() < deadline, "{}", eu.json(&["topics"]));
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    let bodies: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let args: Vec<&str> = ["pub", TOPIC].into_iter().chain(bodies.iter().map(|b| &**b)).collect();
    assert_eq!(ask(&lab, Host::Eu, &args), json!({ "published": 20 }));

    let heard = |process: &Process| -> Vec<Value> {
        let lines = process.lines();
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    plain.wait_line(0, "the last", PATIENCE, |line| line.contains("\"body\":\"19\""));
    let all = heard(&plain);
    let said: Vec<Value> = all.iter().map(|message| message["body"].clone()).collect();
    assert_eq!(
        said,
        bodies.iter().map(|body| json!(body)).collect::<Vec<_>>(),
        "all, once, in order"
    );
    assert_eq!(all[0]["header"]["X-lower-Case"], "kept", "{}", all[0]);
    let shared = || members.iter().map(|member| heard(member).len()).sum::<usize>();
    while shared() < 20 {
        assert!(std::time::Instant::now() < deadline + PATIENCE, "the queue did not get all");
        std::thread::sleep(std::time::Duration::from_millis(15));
    }
    assert_eq!(shared(), 20, "one copy for the queue");
}

#[test]
fn records_of_v3_outlive_a_node_that_is_killed() {
    let Some((lab, micro)) = ready() else { return };
    let mut network = Network::up(&lab, &micro);
    for (key, value) in [("orders/1", "one"), ("orders/2", "two"), ("other", "three")] {
        let written = ask(&lab, Host::Us, &["write", key, value, "0s"]);
        assert_eq!(written["error"], Value::Null, "{written}");
    }
    network.us.kill9();
    network.us.start(None);
    network.us.wait_ready();
    assert_eq!(ask(&lab, Host::Us, &["read", "orders/1"])["values"], json!(["one"]));
    assert_eq!(ask(&lab, Host::Us, &["keys", "orders/"])["keys"], json!(["orders/1", "orders/2"]));
    ask(&lab, Host::Us, &["delete", "orders/1"]);
    let gone = ask(&lab, Host::Us, &["read", "orders/1"]);
    assert!(gone["error"].as_str().is_some_and(|text| text.contains("not found")), "{gone}");
    let written = ask(&lab, Host::Us, &["write", "short", "lived", "1s"]);
    assert_eq!(written["error"], Value::Null, "{written}");
    let expired = std::time::Instant::now() + PATIENCE;
    while ask(&lab, Host::Us, &["read", "short"])["error"] == Value::Null {
        assert!(std::time::Instant::now() < expired, "it is still there");
    }
}

#[test]
fn events_of_v3_are_kept_and_come_again_until_they_are_acknowledged() {
    const TOPIC: &str = "orders";
    let Some((lab, micro)) = ready() else { return };
    let file = lab.dir().join("streams.toml");
    std::fs::write(&file, "[broker.stream.events]\ntopics = \"orders\"\n").expect("writable");
    let more = vec!["--config".to_owned(), file.display().to_string()];
    let eu = Node::up_with(&lab, Host::Eu, &micro, None, Options { more, ..Options::default() });
    let us = Node::up(&lab, Host::Us, &micro, Some(&eu.invite()));
    us.wait_wanted(TOPIC, 1);
    let emitted = ask(&lab, Host::Us, &["emit", TOPIC, "0", "1", "2"]);
    assert_eq!(emitted, json!({ "emitted": 3 }));
    let kept = ask(&lab, Host::Us, &["events", TOPIC, "2", "1"]);
    assert_eq!(kept["bodies"], json!(["1", "2"]), "{kept}");

    let consume = |args: &[&str]| {
        let args = [&["consume", TOPIC], args].concat();
        Process::start("micro v3 consumer", &mut program(&lab, Host::Us, &args))
    };
    let bodies = |process: &Process| -> Vec<String> {
        let events =
            process.lines().into_iter().filter_map(|line| serde_json::from_str(&line).ok());
        events.filter_map(|event: Value| event["body"].as_str().map(ToOwned::to_owned)).collect()
    };
    let wait = |process: &Process, body: &str, from: usize| {
        let wanted = format!("\"body\":\"{body}\"");
        process.wait_line(from, body, PATIENCE, |line| line.contains(&wanted))
    };
    // Refused, an event comes again; to another member of its group when this one has gone.
    let refuses = consume(&["audit", "nack", "3600"]);
    wait(&refuses, "0", 0);
    wait(&refuses, "2", 0);
    let first: Value = serde_json::from_str(&refuses.lines()[0]).expect("an event");
    assert_eq!(
        (&first["topic"], &first["metadata"]["X-lower-Case"]),
        (&json!(TOPIC), &json!("kept"))
    );
    let (again, _) = wait(&refuses, "0", 0);
    wait(&refuses, "0", again + 1);
    drop(refuses);
    let takes = consume(&["audit", "ack"]);
    for body in ["0", "1", "2"] {
        wait(&takes, body, 0);
    }
    ask(&lab, Host::Us, &["emit", TOPIC, "3"]);
    wait(&takes, "3", 0);
    drop(takes);
    let rest = consume(&["audit", "ack"]);
    ask(&lab, Host::Us, &["emit", TOPIC, "4"]);
    wait(&rest, "4", 0);
    assert_eq!(bodies(&rest).last().map(String::as_str), Some("4"));

    // What no stream keeps is refused, and says what would keep it.
    let refused = ask(&lab, Host::Us, &["emit", "nothing", "0"]);
    let why = refused["error"].as_str().unwrap_or_default();
    assert!(why.contains("no stream keeps nothing") && why.contains("broker.stream"), "{refused}");
    let listed = us.json(&["streams"]);
    assert_eq!(
        (&listed["items"][0]["messages"], &listed["items"][0]["nodes"]),
        (&json!(5), &json!(["eu"]))
    );
    let consumers = us.json(&["streams", "events"]);
    assert_eq!(consumers["items"][0]["durable"], true, "{consumers}");
    assert_eq!(us.cli(&["streams", "none"]).code, Some(4), "M1209");
}
