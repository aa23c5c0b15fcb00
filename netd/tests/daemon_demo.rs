//! The demo: a call across three nodes, and commands that work as they are printed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use daemon_support::User;

fn leaves_nothing(user: &User) {
    assert!(!user.path("state").join("micro").exists(), "state is left");
    let sockets = std::fs::read_dir(user.path("run/micro")).map_or(0, Iterator::count);
    assert_eq!(sockets, 0, "a socket is left");
    let left = std::fs::read_dir(user.path("tmp")).unwrap().count();
    assert_eq!(left, 0, "temporary files are left");
}

#[test]
fn once_shows_a_call_and_leaves_nothing_behind() {
    let ada = User::new();
    let out = ada.run(&["network", "demo", "--once"]).ok();
    let first = "3 nodes in this process: eu (Frankfurt), us (Virginia), ap (Tokyo)";
    assert!(out.contains(first), "{out}");
    assert!(out.contains(r#"{"message":"Hello Ada, from us"}"#), "{out}");
    leaves_nothing(&ada);
}

#[test]
fn once_is_one_document_for_programs() {
    let ada = User::new();
    let out = ada.run(&["network", "demo", "--once", "--delay", "0", "-o", "json"]).ok();
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["kind"], "Demo");
    assert_eq!(document["call"]["message"], "Hello Ada, from us");
}

#[test]
fn every_command_that_is_printed_works_and_an_interrupt_leaves_nothing_behind() {
    let ada = User::new();
    let mut command = ada.command();
    command.args([
        "network",
        "demo",
        "--delay",
        "20ms",
        "--nodes",
        "4",
        "--regions",
        "north,south",
    ]);
    let mut demo = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.contains("Ctrl-C")) {
        said.push(lines.next().unwrap_or_else(|| panic!("it ended:\n{}", said.join("\n"))));
    }
    let printed: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("  micro ").or(line.strip_prefix("  $ micro ")))
        .collect();
    assert!(printed.len() >= 4, "{said:?}");
    for line in printed {
        // What a command does stands behind it, after at least two blanks.
        let line = line.split("   ").next().unwrap();
        if line.starts_with("stream ") {
            streams(&ada, line);
        } else {
            ada.run(&words(line)).ok();
        }
    }
    let nodes = ada.run(&["network", "nodes", "-o", "name"]).ok();
    let mut names: Vec<_> = nodes.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["north", "north-2", "south", "south-2"]);
    let pid = demo.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    leaves_nothing(&ada);
}

/// A stream has no end: two messages of it are enough.
fn streams(user: &User, line: &str) {
    let mut command = user.command();
    let mut child: Child =
        command.args(words(line)).stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let messages: Vec<_> = lines.take(2).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(messages.len() == 2 && messages[0].contains("time"), "{messages:?}");
}

/// The words of a line; those in single quotes are one.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part);
        } else {
            words.extend(part.split_whitespace());
        }
    }
    words
}
