//! The official NATS client for Python, told what to do by `tests/interop/python/nats_client.py`.

use std::process::Command;

use serde_json::Value;

use crate::lab::{Host, Lab};
use crate::process::{self, PATIENCE, Process};
use crate::programs;

/// Where each node listens for clients of NATS.
pub const NODE: &str = "127.0.0.1:4222";

/// Seeds of users that are made up: 32 times the same byte.
pub const SEEDS: [&str; 2] = [
    "SUAACAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAN7EY",
    "SUAAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAQCAIBAEAT6EE",
];

/// A client on a host, of the server at an address.
pub fn client(lab: &Lab, host: Host, at: &str, args: &[&str]) -> Command {
    let mut command = lab.command(host, programs::built("venv/bin/python"));
    command.arg(programs::interop("python/nats_client.py")).arg(at).args(args);
    command
}

/// What a client says that ends by itself.
///
/// # Panics
/// If it fails.
pub fn run(lab: &Lab, host: Host, at: &str, args: &[&str]) -> String {
    let ran = process::run(&mut client(lab, host, at, args), b"", PATIENCE * 2);
    ran.ok("nats client").trim().to_owned()
}

/// A client that goes on, and whose server knows what it subscribes to.
///
/// # Panics
/// If it ends first.
pub fn goes_on(lab: &Lab, host: Host, at: &str, args: &[&str]) -> Process {
    let name = format!("nats client at {at} on {}", host.name());
    let started = Process::start(&name, &mut client(lab, host, at, args));
    started.wait_line(0, "it subscribes", PATIENCE, |line| line == "subscribed");
    started
}

/// The messages printed so far.
pub fn messages(subscriber: &Process) -> Vec<Value> {
    subscriber.lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Those of them that are numbers.
pub fn numbers(subscriber: &Process) -> Vec<u64> {
    let number = |one: &Value| one["data"].as_str().and_then(|data| data.parse().ok());
    messages(subscriber).iter().filter_map(number).collect()
}

/// Waits for the message with this payload, and with it for all before it.
///
/// # Panics
/// If it does not come.
pub fn wait_message(subscriber: &Process, data: &str) {
    let wanted = format!("\"data\": \"{data}\"");
    subscriber.wait_line(0, data, PATIENCE, |line| line.contains(&wanted));
}
