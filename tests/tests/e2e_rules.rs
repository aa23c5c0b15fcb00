//! Rules in three networks with the real binary: a canary gets its share, a divert comes and goes under load, and an
//! unmodified go-micro client picks a version.

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
