//! Rules in three networks with the real binary: a canary gets its share, a divert comes and goes under load, an
//! unmodified go-micro client picks a version, and rules outlive the node that wrote them.

use std::process::Command;

use serde_json::Value;
use tests::events::{self, Kind, now_us};
use tests::lab::{Host, Lab};
use tests::node::{Network, Node, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs::{self, GREETER};
use tests::scenario::{Calls, ECHO, ECHO_PORT};

/// Calls of the canary.
const CALLS: u64 = 20_000;
/// How many of them at once: enough to keep two regions busy across the distance.
const AT_ONCE: u32 = 100;
/// The longest that they may take: ten times what they do.
const BURST: std::time::Duration = std::time::Duration::from_secs(120);

/// The service as v1 in eu and as v2 in us, known to the laptop.
fn two_versions<'a>(lab: &'a Lab, micro: &std::path::Path) -> (Network<'a>, [Process; 2]) {
    let services =
        [Host::Eu, Host::Us].map(|host| programs::lab_service(lab, host, host.name(), ECHO_PORT));
    let network = Network::up(lab, micro);
    for (node, version) in [(&network.eu, "v1"), (&network.us, "v2")] {
        let port = ECHO_PORT.to_string();
        let args = ["expose", ECHO, &port, "--protocol", "grpc", "--version", version];
        node.cli(&args).ok("micro expose");
    }
    network.laptop.wait_instances(ECHO, 2);
    (network, services)
}

fn apply(node: &Node<'_>, text: &str) {
    let path = node.home().join("rules.toml");
    std::fs::write(&path, text).expect("the lab's directory is writable");
    node.cli(&["rules", "apply", &path.to_string_lossy()]).ok("micro rules apply");
}

/// Waits until a node has heard of this revision.
fn wait_revision(node: &Node<'_>, revision: u64) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let ran = node.cli(&["rules", "get", ECHO, "-o", "json"]);
        let seen =
            serde_json::from_str::<Value>(&ran.out).ok().and_then(|r| r["revision"].as_u64());
        if seen.is_some_and(|seen| seen >= revision) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "revision {revision} never came: {ran:?}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// What a burst printed at its end.
fn counted(mut burst: Process) -> Value {
    burst.wait_end(BURST);
    let said = burst.lines();
    let last = said.last().and_then(|line| serde_json::from_str(line).ok());
    last.unwrap_or_else(|| panic!("no count in {said:?}"))
}

#[test]
fn a_canary_of_a_tenth_gets_a_tenth_of_twenty_thousand_calls() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let (network, _services) = two_versions(&lab, &micro);
    apply(
        &network.eu,
        &format!(
            "service = \"{ECHO}\"\n[[rule]]\nname = \"canary\"\nthen.subsets = [\n\
             {{ name = \"stable\", select = \"version=v1\", weight = 90 }},\n\
             {{ name = \"canary\", select = \"version=v2\", weight = 10 }},\n]\n"
        ),
    );
    wait_revision(&network.laptop, 1);
    let began = std::time::Instant::now();
    let counted = counted(programs::lab_burst(&lab, Host::Laptop, PROXY, CALLS, AT_ONCE));
    let took = began.elapsed();
    assert_eq!(counted["failed"], serde_json::json!({}), "{counted}");
    let of = |host: Host| counted["answered"][host.name()].as_u64().unwrap_or(0);
    assert_eq!(of(Host::Eu) + of(Host::Us), CALLS, "{counted}");
    let share = of(Host::Us) as f64 / CALLS as f64;
    tests::say(&format!("canary of 10 %: {:.2} % of {CALLS} calls in {took:?}", share * 100.0));
    // Five standard deviations: by chance alone it is outside once in a million runs.
    assert!((0.09..=0.11).contains(&share), "{counted}");
}

#[test]
fn a_divert_comes_and_goes_under_load_and_no_call_fails() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let (network, _services) = two_versions(&lab, &micro);
    let burst = programs::lab_burst(&lab, Host::Laptop, PROXY, 3 * CALLS, AT_ONCE / 2);
    let calls = Calls::start(&lab);
    let eu = &network.eu;
    let (mut waited, mut revision) = (Vec::new(), 0);
    for host in [Host::Us, Host::Eu].repeat(3) {
        let to = host.name();
        eu.cli(&["network", "divert", ECHO, "--to", to, "--for", "10m"]).ok("divert");
        let written = now_us();
        revision += 1;
        wait_revision(&network.laptop, revision);
        let heard = now_us();
        waited.push((heard - written) / 1_000);
        // From here on all of them go there.
        calls.wait_answers_for(heard, std::time::Duration::from_millis(500));
        let seen = calls.so_far();
        let strays: Vec<_> = seen
            .iter()
            .filter(|e| {
                e.kind == Kind::Unary && e.due_us() >= heard && e.instance.as_deref() != Some(to)
            })
            .map(|e| (e.due_us() - heard, e))
            .collect();
        assert!(strays.is_empty(), "calls went elsewhere than to {to}: {strays:?}");
        eu.cli(&["network", "divert", ECHO, "--to", to, "--stop"]).ok("divert --stop");
        revision += 1;
    }
    let seen = calls.stop();
    let failed: Vec<_> = seen.iter().filter(|e| e.kind == Kind::Unary && e.status != 0).collect();
    events::tell_reasons("divert", &seen, 0);
    assert!(failed.is_empty(), "{} calls failed: {:?}", failed.len(), failed.first());
    let counted = counted(burst);
    assert_eq!(counted["failed"], serde_json::json!({}), "{counted}");
    tests::say(&format!("divert: known to the caller's node after {waited:?} ms; {counted}"));
}

#[test]
fn a_go_micro_client_gets_the_version_that_its_metadata_names() {
    if !programs::have_built(&["go-service", "go-client"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let network = Network::up(&lab, &micro);
    let recipe = |command: &mut Command| {
        command
            .env("MICRO_REGISTRY", "service")
            .env("MICRO_REGISTRY_ADDRESS", PROXY)
            .env("MICRO_BROKER", "service")
            .env("MICRO_PROXY", PROXY);
    };
    let _services = [(Host::Eu, "v1"), (Host::Us, "v2")].map(|(host, version)| {
        let mut command = lab.command(host, programs::built("go-service"));
        recipe(&mut command);
        command.env("MICRO_SERVER_ADDRESS", "127.0.0.1:19555").env("MICRO_SERVER_VERSION", version);
        let service = Process::start("go-micro service", &mut command);
        service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
        service
    });
    network.laptop.wait_instances(GREETER, 2);
    let served_by = |metadata: &[&str]| {
        let mut command = lab.command(Host::Laptop, programs::built("go-client"));
        recipe(&mut command);
        command.args(["hello", "Ada"]).args(metadata);
        let ran = process::run(&mut command, b"", PATIENCE * 2);
        let answer: Value = serde_json::from_str(&ran.out)
            .unwrap_or_else(|error| panic!("client {metadata:?}: {error}\n{ran:?}"));
        match answer["seen"]["served-by"].as_str() {
            Some(version) => version.to_owned(),
            None => answer["error"]["code"].to_string(),
        }
    };
    for version in ["v1", "v2"] {
        assert_eq!(served_by(&[&format!("Micro-Version={version}")]), version);
    }
    assert_eq!(served_by(&["Micro-Version=^2"]), "v2", "a range");
    assert_eq!(served_by(&["Micro-Version=v3"]), "404");
    // A rule of the operator decides by metadata as well.
    apply(
        &network.eu,
        &format!(
            "service = \"{GREETER}\"\n[[rule]]\nname = \"beta\"\nwhen.headers = [\"x-beta\"]\n\
             then.select = \"version=v2\"\n\n[[rule]]\nname = \"rest\"\nthen.select = \"version=v1\"\n"
        ),
    );
    let deadline = std::time::Instant::now() + PATIENCE;
    while network.laptop.cli(&["rules", "get", GREETER]).code != Some(0) {
        assert!(std::time::Instant::now() < deadline, "the rules never came");
    }
    assert_eq!(served_by(&["X-Beta=1"]), "v2");
    assert_eq!(served_by(&[]), "v1");
}

/// What `micro rules get` of the service says on a node: nothing where it has none.
fn held(node: &Node<'_>) -> Value {
    let ran = node.cli(&["rules", "get", ECHO, "-o", "json"]);
    if ran.code == Some(0) {
        serde_json::from_str(&ran.out).expect("a document")
    } else {
        Value::Null
    }
}

fn wait_held(node: &Node<'_>, what: &str, is: impl Fn(&Value) -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let held = held(node);
        if is(&held) {
            return;
        }
        let name = node.name();
        assert!(std::time::Instant::now() < deadline, "{name}: never {what}, but {held}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The file in which a node keeps rules.
fn disk(node: &Node<'_>) -> std::path::PathBuf {
    node.home().join(format!("state/micro/local-root/{}/rules", node.name()))
}

/// Waits until a rule of this name is on the disk of a node: what others wrote is there within a second.
fn wait_disk(node: &Node<'_>, rule: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    let there = |bytes: Vec<u8>| bytes.windows(rule.len()).any(|part| part == rule.as_bytes());
    while !std::fs::read(disk(node)).is_ok_and(there) {
        assert!(std::time::Instant::now() < deadline, "{rule} is not kept by {}", node.name());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn rules_outlive_their_author_and_what_it_missed_is_not_undone_when_it_comes_back() {
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut eu = Node::up(&lab, Host::Eu, &micro, None);
    let mut us = Node::up(&lab, Host::Us, &micro, Some(&eu.invite_relay()));
    let role = ["network", "invite", "--role", "operator", "--namespace", "*", "--service", "*"];
    let ticket = eu.json(&role)["ticket"].as_str().expect("a ticket").to_owned();
    let mut laptop = Node::up(&lab, Host::Laptop, &micro, Some(&ticket));
    us.wait_for("nodes=3");
    let _service = programs::lab_service(&lab, Host::Us, "us", ECHO_PORT);
    us.expose(ECHO, ECHO_PORT, "grpc");
    // Calls from a node that may not decide.
    let refused = || {
        let counted = counted(programs::lab_burst(&lab, Host::Us, PROXY, 10, 1));
        let failed = counted["failed"].as_object().expect("a count").len();
        assert!((failed == 0) == (counted["answered"]["us"] == 10), "all or none: {counted}");
        failed > 0
    };
    assert!(!refused());
    let closed = format!(
        "service = \"{ECHO}\"\n[[rule]]\nname = \"closed\"\nthen.abort = {{ status = 503 }}\n"
    );
    apply(&laptop, &closed);
    let has = |held: &Value, revision: u64, carrier: &str| {
        let carried = held["carried_by"].as_array().into_iter().flatten();
        held["revision"] == revision && carried.into_iter().any(|name| name == carrier)
    };
    wait_held(&us, "carried by eu", |held| has(held, 1, "eu"));

    // It stops in order, comes back, and dies: the rules hold all the while, where nobody else may write them.
    laptop.sigterm();
    us.wait_for("nodes=2");
    let left = held(&us);
    assert!(has(&left, 1, "eu") && !has(&left, 1, "laptop"), "{left}");
    assert!(refused());
    assert!(left["note"].as_str().is_some_and(|note| note.contains("while eu runs")), "{left}");
    laptop.start(None);
    laptop.wait_ready();
    wait_held(&us, "carried by both", |held| has(held, 1, "eu") && has(held, 1, "laptop"));
    laptop.kill9();
    us.wait_for("nodes=2");
    // Nor does it matter that who carries them is started again.
    eu.sigterm();
    eu.start(None);
    eu.wait_ready();
    us.wait_for("nodes=2");
    wait_held(&us, "carried by eu again", |held| has(held, 1, "eu"));
    assert!(refused());

    // What another decides meanwhile holds when the author is back with its older set.
    eu.cli(&["rules", "rm", ECHO]).ok("micro rules rm");
    wait_held(&us, "taken away", Value::is_null);
    laptop.start(None);
    laptop.wait_ready();
    wait_held(&laptop, "taken away there as well", Value::is_null);
    us.wait_for("nodes=3");
    assert!(held(&us).is_null() && held(&eu).is_null() && !refused());
    let history = laptop.json(&["rules", "history", ECHO]);
    assert_eq!(history["items"][0]["revision"], 2, "{history}");

    // A power cut of all, and the author has lost what it kept: who only heard of the rules has them on its disk.
    apply(&eu, &closed.replace("closed", "shut"));
    wait_held(&us, "carried by the laptop", |held| has(held, 3, "laptop"));
    wait_disk(&laptop, "shut");
    for node in [&mut eu, &mut us, &mut laptop] {
        node.kill9();
    }
    std::fs::remove_file(disk(&eu)).expect("the author had kept its rules");
    for node in [&mut eu, &mut us, &mut laptop] {
        node.start(None);
    }
    for node in [&mut eu, &mut us, &mut laptop] {
        node.wait_ready();
    }
    wait_held(&us, "carried by both again", |held| has(held, 3, "laptop") && has(held, 3, "eu"));
    us.expose(ECHO, ECHO_PORT, "grpc");
    assert!(refused());
}
