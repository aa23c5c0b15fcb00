//! An unmodified micro v3.18.5 service in one region and clients on other nodes: each is told by `MICRO_PROXY` alone
//! where its node is, and finds registry, accounts and store there under their names of v3.

use std::process::Command;

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
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
