//! Unmodified go-micro v2.9.1 programs that speak MUCP (`MICRO_CLIENT=mucp`, `MICRO_SERVER=mucp`), a service in one
//! region and a client on the laptop: each with a partner that speaks MUCP, and each with one that speaks gRPC.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs::{self, GREETER};

const ADDRESS: &str = "127.0.0.1:19565";
/// The lease that the service asks for and how often it renews it, in seconds.
const LEASE: u64 = 5;
const RENEWAL: u64 = 2;
/// After a service was killed: its lease, and one second for the news to travel.
const LEASE_AND_NEWS: Duration = Duration::from_secs(LEASE + 1);

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Grpc,
    Mucp,
}
use Speaks::{Grpc, Mucp};

/// Who talks to whom: client, service.
const PAIRS: [(Speaks, Speaks); 3] = [(Mucp, Grpc), (Grpc, Mucp), (Mucp, Mucp)];

fn recipe(command: &mut Command) -> &mut Command {
    command
        .env("MICRO_REGISTRY", "service")
        .env("MICRO_REGISTRY_ADDRESS", PROXY)
        .env("MICRO_BROKER", "service")
        .env("MICRO_PROXY", PROXY)
}

struct Pair<'a> {
    lab: &'a Lab,
    client: Speaks,
    network: Network<'a>,
    service: Process,
}

impl<'a> Pair<'a> {
    fn up(lab: &'a Lab, micro: &std::path::Path, client: Speaks, service: Speaks) -> Self {
        let network = Network::up(lab, micro);
        let mut command = lab.command(Host::Us, programs::built("go-service"));
        recipe(&mut command)
            .env("MICRO_SERVER_ADDRESS", ADDRESS)
            .env("MICRO_REGISTER_TTL", LEASE.to_string())
            .env("MICRO_REGISTER_INTERVAL", RENEWAL.to_string())
            // Told to speak MUCP, go-micro forgets the name that the program gave it.
            .env("MICRO_SERVER_NAME", GREETER);
        if service == Mucp {
            command.env("MICRO_SERVER", "mucp");
        }
        let service = Process::start("go-micro service", &mut command);
        service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
        network.laptop.wait_service(GREETER);
        Self { lab, client, network, service }
    }

    fn command(&self, host: Host, args: &[&str]) -> Command {
        let mut command = self.lab.command(host, programs::built("go-client"));
        recipe(&mut command).args(args);
        if self.client == Mucp {
            command.env("MICRO_CLIENT", "mucp");
        }
        command
    }

    /// What the client on the laptop printed; errors are part of it.
    fn ask(&self, args: &[&str]) -> Value {
        let ran = process::run(&mut self.command(Host::Laptop, args), b"", PATIENCE * 2);
        serde_json::from_str(&ran.out)
            .unwrap_or_else(|error| panic!("client {args:?}: {error}\n{ran:?}"))
    }
}

/// Runs `test` with each pair of programs.
#[expect(clippy::print_stderr, reason = "when one pair fails it is to be known which")]
fn with_each(test: impl Fn(&Pair<'_>, Speaks)) {
    if !programs::have_built(&["go-service", "go-client"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    for (client, service) in PAIRS {
        let Some(lab) = Lab::new() else { return };
        eprintln!("a client that speaks {client:?}, a service that speaks {service:?}");
        test(&Pair::up(&lab, &micro, client, service), service);
    }
}

#[test]
fn unary_calls_keep_bodies_metadata_and_micro_errors() {
    with_each(|pair, service| {
        let hello = pair.ask(&["hello", "Ada"]);
        assert_eq!(hello["message"], "Hello Ada", "{hello}");
        let seen = &hello["seen"];
        assert_eq!((&seen["X-Interop"], &seen["X-Lower"]), (&json!("from-client"), &json!("also")));
        if service == Mucp {
            assert_eq!(seen["Micro-Service"], GREETER, "{hello}");
            assert_eq!(seen["Content-Type"], "application/json", "{hello}");
        }
        for bytes in ["0", "1000", "4000000"] {
            let raw = pair.ask(&["raw", bytes]);
            assert_eq!(raw["same"], true, "{raw}");
        }
        let error = pair.ask(&["hello", "error"])["error"].clone();
        let sent = json!({
            "id": "go.micro.srv.greeter.say", "code": 403, "detail": "no greeting for error", "status": "Forbidden",
        });
        assert_eq!(error, sent);
        let unknown = pair.ask(&["unknown", "go.micro.srv.nobody"]);
        assert_eq!(unknown["error"]["code"], 404, "{unknown}");
    });
}

#[test]
fn a_caller_that_times_out_cancels_the_handler_once() {
    with_each(|pair, _| {
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
    });
}

#[test]
fn streams_answer_before_the_client_closes_and_end() {
    with_each(|pair, service| {
        let answer = pair.ask(&["count"]);
        assert_eq!(answer["end"], "EOF", "{answer}");
        match service {
            Grpc => assert_eq!(answer["got"], json!([41, 42, 43]), "{answer}"),
            // Its MUCP server writes over messages that it has not sent yet: with no node between the two programs, the
            // same client is told the same.
            Mucp => assert_eq!(answer["got"].as_array().map(Vec::len), Some(3), "{answer}"),
        }
    });
}

#[test]
fn messages_cross_a_bidirectional_stream_in_order() {
    with_each(|pair, service| {
        let (action, count) = match service {
            Grpc => ("echo", 10_000),
            Mucp => ("talk", 500),
        };
        let answer = pair.ask(&[action, &count.to_string()]);
        assert_eq!((&answer["got"], &answer["error"]), (&json!(count), &Value::Null), "{answer}");
        assert_eq!(pair.ask(&["stats"])["echoed"], count);
    });
}

#[test]
fn the_registry_is_listed_read_and_watched_over_mucp() {
    if !programs::have_built(&["go-service", "go-client"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut pair = Pair::up(&lab, &micro, Mucp, Mucp);
    let listed = pair.ask(&["list"]);
    assert!(
        listed["names"].as_array().is_some_and(|all| all.contains(&json!(GREETER))),
        "{listed}"
    );
    let got = pair.ask(&["get", GREETER]);
    let node = &got["services"][0]["nodes"][0];
    assert_eq!(
        (&node["address"], &node["metadata"]["protocol"]),
        (&json!(ADDRESS), &json!("mucp")),
        "{got}"
    );
    assert!(!pair.ask(&["get", "go.micro.srv.nobody"])["error"].is_null());
    let watcher =
        Process::start("go-micro watcher", &mut pair.command(Host::Laptop, &["watch", GREETER]));
    watcher.wait_line(0, "it watches", PATIENCE, |line| line.contains("watching"));
    pair.service.kill9();
    watcher
        .wait_line(1, "the delete", LEASE_AND_NEWS, |line| line.contains(r#""action":"delete""#));
    assert_eq!(pair.network.eu.instances(GREETER), 0);
}
