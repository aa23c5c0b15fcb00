//! An unmodified go-micro v2.9.1 service in one region and client on the laptop. Each is told by its environment
//! alone that its node is its registry and its proxy; neither knows where the other is.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs::{self, GREETER};

/// What go-micro's registry client makes of a 404, and of nothing else.
const ABSENT: &str = "service not found";
const ADDRESS: &str = "127.0.0.1:19555";
/// The lease that the service asks for and how often it renews it, in seconds; the defaults are 60 and 30.
const LEASE: u64 = 5;
const RENEWAL: u64 = 2;
/// After a service was killed: its lease, and one second for the news to travel.
const LEASE_AND_NEWS: Duration = Duration::from_secs(LEASE + 1);

/// Recipe A of go-micro's own variables: registry, broker and proxy are the node on the same machine.
fn recipe(command: &mut Command) -> &mut Command {
    command
        .env("MICRO_REGISTRY", "service")
        .env("MICRO_REGISTRY_ADDRESS", PROXY)
        .env("MICRO_BROKER", "service")
        .env("MICRO_PROXY", PROXY)
}

struct Pair<'a> {
    lab: &'a Lab,
    network: Network<'a>,
    service: Process,
}

impl<'a> Pair<'a> {
    fn up(lab: &'a Lab, micro: &std::path::Path) -> Self {
        let network = Network::up(lab, micro);
        let mut command = lab.command(Host::Us, programs::built("go-service"));
        // Recipe C: the address is given, so that only the registry can tell it to others.
        recipe(&mut command)
            .env("MICRO_SERVER_ADDRESS", ADDRESS)
            .env("MICRO_REGISTER_TTL", LEASE.to_string())
            .env("MICRO_REGISTER_INTERVAL", RENEWAL.to_string());
        let service = Process::start("go-micro service", &mut command);
        service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
        network.laptop.wait_service(GREETER);
        Self { lab, network, service }
    }

    fn client(&self, host: Host, args: &[&str]) -> Command {
        let mut command = self.lab.command(host, programs::built("go-client"));
        recipe(&mut command).args(args);
        command
    }

    /// What the client on the laptop printed; errors are part of it.
    fn ask(&self, args: &[&str]) -> Value {
        self.ask_from(Host::Laptop, args)
    }

    fn ask_from(&self, host: Host, args: &[&str]) -> Value {
        let ran = process::run(&mut self.client(host, args), b"", PATIENCE * 2);
        serde_json::from_str(&ran.out)
            .unwrap_or_else(|error| panic!("client {args:?}: {error}\n{ran:?}"))
    }
}

fn ready() -> Option<(Lab, std::path::PathBuf)> {
    if !programs::have_built(&["go-service", "go-client"]) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

#[test]
fn what_registers_on_one_node_is_listed_and_found_from_every_node() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    for host in Host::ALL {
        let listed = pair.ask_from(host, &["list"]);
        let names = listed["names"].as_array().cloned().unwrap_or_default();
        assert!(names.contains(&json!(GREETER)), "{host:?} lists {listed}");
        let got = pair.ask_from(host, &["get", GREETER]);
        let service = &got["services"][0];
        assert_eq!(
            (&service["name"], &service["version"]),
            (&json!(GREETER), &json!("latest")),
            "{got}"
        );
        let node = &service["nodes"][0];
        assert_eq!(
            (&node["address"], &node["metadata"]["protocol"]),
            (&json!(ADDRESS), &json!("grpc")),
            "{got}"
        );
        let endpoints: Vec<&str> = service["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|e| e["name"].as_str())
            .collect();
        for wanted in ["Say.Hello", "Say.Raw", "Say.Slow", "Say.Count", "Say.Echo"] {
            assert!(endpoints.contains(&wanted), "{host:?} sees the endpoints {endpoints:?}");
        }
    }
    assert_eq!(pair.ask(&["get", "go.micro.srv.nobody"])["error"]["detail"], ABSENT);
}

#[test]
fn unary_calls_keep_bodies_metadata_and_micro_errors() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let hello = pair.ask(&["hello", "Ada"]);
    assert_eq!(hello["message"], "Hello Ada", "{hello}");
    assert_eq!(
        (&hello["seen"]["X-Interop"], &hello["seen"]["X-Lower"]),
        (&json!("from-client"), &json!("also"))
    );
    assert_eq!(hello["seen"]["Micro-From-Service"], "it.client", "{hello}");
    for bytes in ["0", "1000", "4000000"] {
        let raw = pair.ask(&["raw", bytes]);
        assert_eq!(raw["same"], true, "{raw}");
    }
    let error = pair.ask(&["hello", "error"])["error"].clone();
    let sent = json!({
        "id": "go.micro.srv.greeter.say", "code": 403, "detail": "no greeting for error", "status": "Forbidden",
    });
    assert_eq!(error, sent);
}

#[test]
fn an_unknown_service_is_a_404_at_once_and_is_not_retried() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let answer = pair.ask(&["unknown", "go.micro.srv.nobody"]);
    assert_eq!(answer["error"]["code"], 404, "{answer}");
    assert_ne!(answer["error"]["id"], "go.micro.srv.greeter.say", "{answer}");
    assert!(answer["elapsed_ms"].as_u64().is_some_and(|ms| ms < 1000), "{answer}");
}

#[test]
fn a_caller_that_times_out_cancels_the_handler_once() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let answer = pair.ask(&["slow", "10000"]);
    assert_eq!(answer["error"]["code"], 408, "{answer}");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stats = pair.ask(&["stats"]);
        assert_eq!(stats["slow"], 1, "the call was made once: {stats}");
        if stats["cancelled"] == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the handler never saw its caller go: {stats}");
    }
}

#[test]
fn a_server_stream_answers_before_the_client_closes() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let answer = pair.ask(&["count"]);
    assert_eq!((&answer["got"], &answer["end"]), (&json!([41, 42, 43]), &json!("EOF")), "{answer}");
}

#[test]
fn ten_thousand_messages_cross_a_bidirectional_stream_in_order() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let answer = pair.ask(&["echo", "10000"]);
    assert_eq!((&answer["got"], &answer["error"]), (&json!(10000), &Value::Null), "{answer}");
    assert_eq!(pair.ask(&["stats"])["echoed"], 10000);
}

#[test]
fn a_route_that_a_go_micro_program_creates_is_used_by_a_real_call() {
    let Some((lab, micro)) = ready() else { return };
    let pair = Pair::up(&lab, &micro);
    let alias = "go.micro.srv.alias";
    let call = |host| pair.ask_from(host, &["unknown", alias])["error"]["code"].clone();
    assert_eq!(call(Host::Us), 404);
    let made = pair.ask_from(Host::Us, &["route", "create", alias, ADDRESS]);
    assert_eq!(made["error"], Value::Null, "{made}");
    assert_eq!(call(Host::Us), Value::Null, "the greeter answers under another name");
    assert_eq!(call(Host::Laptop), 404, "it is a route of the other node alone");
    let again = pair.ask_from(Host::Us, &["route", "create", alias, ADDRESS]);
    assert_eq!(again["error"]["detail"], "route already exists", "{again}");
    let listed = pair.ask_from(Host::Us, &["route", "list"]);
    for name in [alias, GREETER] {
        assert!(listed["names"].as_array().unwrap().contains(&json!(name)), "{listed}");
    }
    pair.ask_from(Host::Us, &["route", "delete", alias, ADDRESS]);
    assert_eq!(call(Host::Us), 404);
}

#[test]
fn a_killed_service_is_gone_everywhere_with_its_lease_and_watchers_are_told() {
    let Some((lab, micro)) = ready() else { return };
    let mut pair = Pair::up(&lab, &micro);
    let watcher =
        Process::start("go-micro watcher", &mut pair.client(Host::Laptop, &["watch", GREETER]));
    watcher.wait_line(0, "it watches", PATIENCE, |line| line.contains("watching"));
    pair.service.kill9();
    watcher
        .wait_line(1, "the delete", LEASE_AND_NEWS, |line| line.contains(r#""action":"delete""#));
    assert_eq!(pair.ask(&["get", GREETER])["error"]["detail"], ABSENT);
    assert_eq!(pair.network.eu.instances(GREETER), 0);
}
