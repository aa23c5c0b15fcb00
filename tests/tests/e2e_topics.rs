//! Topics in a shell: what one node publishes and asks, commands on others print and answer.

use serde_json::{Value, json};
use tests::lab::Lab;
use tests::node::{Network, Node};
use tests::process::{PATIENCE, Process};
use tests::programs;

/// Exit codes: wrong words, no node, nobody there, no answer.
const USAGE: i32 = 2;
const NO_NODE: i32 = 3;
const NOT_FOUND: i32 = 4;
const UNREACHABLE: i32 = 6;

/// A command on a node, in the background.
fn start(node: &Node<'_>, args: &[&str]) -> Process {
    Process::start(&args.join(" "), node.command().args(args))
}

/// A `micro subscribe` that has been told that it is subscribed.
fn subscriber(node: &Node<'_>, args: &[&str]) -> Process {
    let started = start(node, &[&["subscribe"], args].concat());
    started.wait_line(0, "it subscribes", PATIENCE, |line| line.starts_with("subscribed "));
    started
}

/// Waits for the message with this body, of a subscriber that prints JSON.
fn message(subscriber: &Process, body: &str) -> Value {
    let wanted = format!("\"body\":\"{body}\"");
    let (_, line) = subscriber.wait_line(0, body, PATIENCE, |line| line.contains(&wanted));
    serde_json::from_str(&line).expect("it is JSON")
}

#[test]
fn a_command_prints_what_another_node_publishes_until_it_has_enough() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let network = Network::up(&lab, &micro);
    let shown = subscriber(&network.us, &["orders.>"]);
    let mut three = subscriber(&network.laptop, &["orders.*", "--count", "3", "-o", "jsonl"]);
    network.eu.wait_wanted("orders.>", 1);
    network.eu.wait_wanted("orders.*", 1);
    for body in ["one", "two", "three", "last"] {
        network.eu.cli(&["publish", "orders.created", body, "-H", "X-Case=Kept"]).ok("publish");
    }
    assert!(three.wait_end(PATIENCE).success(), "it has what it counts to");
    let first = json!({
        "kind": "Message", "api": "micro/v1", "topic": "orders.created",
        "headers": [["X-Case", "Kept"]], "bytes": 3, "body": "one", "dropped": 0
    });
    assert_eq!(message(&three, "one"), first);
    assert_eq!(three.lines().len(), 4, "three messages and who it is: {:?}", three.lines());
    shown.wait_line(0, "the last", PATIENCE, |line| line.ends_with("  orders.created  4 B  last"));
    assert_eq!(shown.lines().len(), 5, "each once: {:?}", shown.lines());
    // Interest ends with who had it.
    network.eu.wait_wanted("orders.*", 0);
    let mut shown = shown;
    shown.kill9();
    network.eu.wait_wanted("orders.>", 0);
}

#[test]
fn a_question_finds_its_answer_on_another_node() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let network = Network::up(&lab, &micro);
    let answering = subscriber(&network.us, &["price.get", "--group", "prices", "-o", "jsonl"]);
    network.laptop.wait_wanted("price.get", 1);
    let mut asking = start(&network.laptop, &["request", "price.get", "o-17"]);
    let reply = message(&answering, "o-17")["reply"].as_str().expect("an address").to_owned();
    network.us.cli(&["publish", &reply, "42"]).ok("the answer");
    assert!(asking.wait_end(PATIENCE).success(), "{:?}", asking.lines());
    assert_eq!(asking.lines(), ["42"]);

    // Nobody, nobody who answers, and no name at all.
    for (args, code, status) in [
        (&["request", "price.set", "1"][..], "M1208", NOT_FOUND),
        (&["request", "price.get", "1", "--timeout", "100ms"], "M8004", UNREACHABLE),
        (&["request", "price..get", "1"], "M4001", USAGE),
        (&["subscribe", "a b"], "M4001", USAGE),
        (&["subscribe", "a", "--group", "b c"], "M4001", USAGE),
    ] {
        let ran = network.laptop.cli(args);
        assert!(ran.err.contains(&format!("error[{code}]")), "{args:?}: {ran:?}");
        assert_eq!(ran.code, Some(status), "{args:?}: {ran:?}");
    }
}

#[test]
fn a_subscriber_is_told_when_its_node_ends() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut network = Network::up(&lab, &micro);
    let mut held = subscriber(&network.us, &["orders.>"]);
    network.us.sigterm();
    assert_eq!(held.wait_end(PATIENCE).code(), Some(NO_NODE), "{:?}", held.lines());
}
