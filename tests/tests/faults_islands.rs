//! Two islands: F05 of the fault catalogue, for networks that come apart in the middle, and for those that were started
//! again while they were apart and know of each other no more than what they wrote down.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::events::{distribution, now_us};
use tests::lab::{Host, Lab};
use tests::node::{Node, Options};
use tests::programs;
use tests::scenario::{TRIALS, alone, last};

/// How long the islands are apart: longer than searching takes to become as rare as it gets at first.
const APART: Duration = Duration::from_secs(30);
/// All nodes must agree this long after the islands can hear each other again.
const AGREE: Duration = Duration::from_secs(5);

/// The second node of a host, beside the first.
fn second(host: Host) -> Options {
    Options {
        name: Some(format!("{}-b", host.name())),
        address: Some(format!("{}:8185", host.v4())),
        proxy: "127.0.0.1:8181".to_owned(),
        ..Options::default()
    }
}

/// Two nodes in each of two regions; those in eu came first.
fn two_and_two<'a>(lab: &'a Lab, micro: &Path) -> Vec<Node<'a>> {
    let eu = Node::up(lab, Host::Eu, micro, None);
    let us = Node::up(lab, Host::Us, micro, Some(&eu.invite_relay()));
    let beside = |host| Node::up_with(lab, host, micro, Some(&eu.invite()), second(host));
    let (eu_b, us_b) = (beside(Host::Eu), beside(Host::Us));
    let nodes = vec![eu, eu_b, us, us_b];
    nodes.iter().for_each(|node| node.wait_for("nodes=4"));
    nodes
}

/// What a node knows how to reach: names of nodes, and of services with their nodes.
fn reachable(node: &Node<'_>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for item in node.json(&["network", "nodes"])["items"].as_array().into_iter().flatten() {
        if item["state"] == "ready" {
            all.insert(item["name"].to_string());
        }
    }
    let services = node.json(&["services"]);
    for item in services["items"].as_array().into_iter().flatten() {
        if item["reachable"] != 0 {
            all.insert(format!("{} on {} nodes", item["name"], item["reachable"]));
        }
    }
    all
}

/// Each island offers a service that the other one lacks.
fn offer(nodes: &[Node<'_>]) {
    nodes[1].expose("of.eu", 19_301, "http");
    nodes[3].expose("of.us", 19_302, "http");
}

/// One trial: milliseconds from the end of the partition to equal answers on all nodes.
fn apart_and_together(lab: &Lab, micro: &Path, restarted: bool) -> f64 {
    let mut nodes = two_and_two(lab, micro);
    if restarted {
        // Whom they know is written down within two seconds.
        last(Duration::from_secs(3));
        nodes.iter_mut().for_each(Node::kill9);
    } else {
        offer(&nodes);
    }
    lab.part(Host::Eu, Host::Us);
    if restarted {
        nodes.iter_mut().for_each(|node| node.start(None));
        nodes.iter_mut().for_each(Node::wait_ready);
        offer(&nodes);
    }
    let parted = Instant::now();
    nodes.iter().for_each(|node| node.wait_for("nodes=2"));
    last(APART.saturating_sub(parted.elapsed()));
    for node in &nodes {
        let seen = reachable(node);
        assert_eq!(seen.len(), 3, "{} sees its island and no more: {seen:?}", node.name());
    }

    lab.clear();
    let healed = now_us();
    std::thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                node.wait_for("nodes=4");
                ["of.eu", "of.us"].into_iter().for_each(|service| node.wait_service(service));
            });
        }
    });
    let agreed = (now_us() - healed) as f64 / 1000.0;
    let first = reachable(&nodes[0]);
    assert_eq!(first.len(), 6, "four nodes and two services: {first:?}");
    nodes.iter().for_each(|node| assert_eq!(reachable(node), first, "as {} sees it", node.name()));
    agreed
}

fn trials(what: &str, restarted: bool) {
    let (Some(micro), _alone) = (programs::micro(), alone()) else { return };
    // Each trial is mostly waiting, so they run side by side.
    let Some(labs) = (0..TRIALS).map(|_| Lab::new()).collect::<Option<Vec<_>>>() else { return };
    let agreed: Vec<f64> = std::thread::scope(|scope| {
        let micro = &micro;
        let trial = |lab| scope.spawn(move || apart_and_together(lab, micro, restarted));
        let trials: Vec<_> = labs.iter().map(trial).collect();
        trials.into_iter().map(|trial| trial.join().expect("the trial held its bars")).collect()
    });
    assert!(distribution(what, "ms", &agreed).p95 <= AGREE.as_secs_f64() * 1000.0);
}

#[test]
fn f05_islands_that_were_one_network_agree_within_five_seconds_of_the_heal() {
    trials("F05 islands kept apart, heal to equal routes", false);
}

#[test]
fn f05_islands_that_started_apart_find_each_other_within_five_seconds_of_the_heal() {
    trials("F05 islands started apart, heal to equal routes", true);
}
