//! The official NATS client for Python, unmodified, each at its own node. Neither end knows that there is a network
//! between them.

use std::process::Command;
use std::time::{Duration, Instant};

use tests::lab::{Host, Lab};
use tests::nats::{NODE, SEEDS, goes_on, messages, numbers, run, wait_message};
use tests::node::{Network, Node, Options};
use tests::process::{self, PATIENCE};
use tests::programs;

fn ready() -> Option<(Lab, std::path::PathBuf)> {
    if !has("nats") {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

/// Whether this package of Python is there; else says that it is not.
fn has(package: &str) -> bool {
    if !programs::have_built(&["venv/bin/python"]) {
        return false;
    }
    let mut python = Command::new(programs::built("venv/bin/python"));
    let has = process::run(python.arg("-c").arg(format!("import {package}")), b"", PATIENCE);
    if has.code != Some(0) {
        tests::skip(&format!("needs {package} for Python: run tests/interop/setup.sh"));
    }
    has.code == Some(0)
}

#[test]
fn one_client_sees_the_server_it_expects() {
    let Some((lab, micro)) = ready() else { return };
    let _node = Node::up(&lab, Host::Eu, &micro, None);
    assert_eq!(run(&lab, Host::Eu, NODE, &["limits"]), "passed");
    assert_eq!(run(&lab, Host::Eu, NODE, &["ask", "nobody.here", "hello"]), "nobody");
}

#[test]
fn clients_with_a_token_or_a_listed_key_are_let_in() {
    let Some((lab, micro)) = ready() else { return };
    if !has("nkeys") {
        return;
    }
    let listed = run(&lab, Host::Eu, NODE, &["key", SEEDS[0]]);
    let (token, config) = (lab.dir().join("token"), lab.dir().join("nats.toml"));
    std::fs::write(&token, "s3cret\n").expect("the lab's directory is writable");
    let text = format!("[broker]\ntoken = \"file:{}\"\nnkey = [\"{listed}\"]\n", token.display());
    std::fs::write(&config, text).expect("the lab's directory is writable");
    let more = vec!["--config".to_owned(), config.display().to_string()];
    let options = Options { more, ..Options::default() };
    let node = Node::up_with(&lab, Host::Eu, &micro, None, options);
    let enter = |how: &str, secret: &str| run(&lab, Host::Eu, NODE, &["enter", how, secret]);
    for (how, secret) in [("token", "s3cret"), ("nkey", SEEDS[0])] {
        assert_eq!(enter(how, secret), "entered", "by {how}");
    }
    for (how, secret) in [("token", "s3cre"), ("nkey", SEEDS[1])] {
        let refused = enter(how, secret);
        assert!(refused.contains("Authorization Violation"), "by {how}: {refused}");
    }
    let said = node.json(&["config", "show", "--config", &config.display().to_string()]);
    assert!(!said.to_string().contains("s3cret"), "{said}");
}

#[test]
fn messages_questions_and_large_payloads_cross_the_network() {
    let Some((lab, micro)) = ready() else { return };
    let network = Network::up(&lab, &micro);
    let all = goes_on(&lab, Host::Us, NODE, &["sub", "orders.>"]);
    let members = [Host::Us, Host::Laptop]
        .map(|host| goes_on(&lab, host, NODE, &["sub", "orders.*", "workers"]));
    network.eu.wait_wanted("orders.>", 1);
    network.eu.wait_wanted("orders.*", 2);
    assert_eq!(run(&lab, Host::Eu, NODE, &["pub", "orders.created", "0", "500"]), "published");
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

    let digest = run(&lab, Host::Eu, NODE, &["big", "orders.big", "8388608"]);
    wait_message(&all, &digest);

    let _answers = goes_on(&lab, Host::Laptop, NODE, &["answer", "greet"]);
    network.us.wait_wanted("greet", 1);
    assert_eq!(run(&lab, Host::Us, NODE, &["ask", "greet", "hello"]), "you said hello");
}

#[test]
fn interest_ends_with_a_killed_client_and_the_others_of_its_group_take_over() {
    let Some((lab, micro)) = ready() else { return };
    let network = Network::up(&lab, &micro);
    let mut first = goes_on(&lab, Host::Us, NODE, &["sub", "jobs", "workers"]);
    let second = goes_on(&lab, Host::Laptop, NODE, &["sub", "jobs", "workers"]);
    network.eu.wait_wanted("jobs", 2);
    first.kill9();
    network.eu.wait_wanted("jobs", 1);
    run(&lab, Host::Eu, NODE, &["pub", "jobs", "0", "100"]);
    wait_message(&second, "99");
    assert_eq!(numbers(&second), (0..100).collect::<Vec<_>>());
    drop(second);
    network.eu.wait_wanted("jobs", 0);
}
