//! Unmodified go-micro v5.3.0 and v4.10.2 programs, which speak MUCP and register with nobody here: their client is told
//! of the node by `MICRO_PROXY` alone, their service is exposed. Each with one of v2.9.1 that speaks gRPC as its partner,
//! a service in one region and a client on the laptop, and v5 with itself.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process};
use tests::programs::{self, GREETER};

const PORT: u16 = 19577;

/// A version of go-micro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V4,
    V5,
}
use Version::{V2, V4, V5};

/// Who talks to whom: client, service.
const PAIRS: [(Version, Version); 5] = [(V5, V2), (V2, V5), (V5, V5), (V4, V2), (V2, V4)];

/// What v2 has to be told; the others know it by their defaults.
fn registers_with_the_node(command: &mut Command) -> &mut Command {
    command
        .env("MICRO_REGISTRY", "service")
        .env("MICRO_REGISTRY_ADDRESS", PROXY)
        .env("MICRO_BROKER", "service")
}

struct Pair<'a> {
    lab: &'a Lab,
    client: Version,
    _network: Network<'a>,
    _service: Process,
}

impl<'a> Pair<'a> {
    fn up(lab: &'a Lab, micro: &std::path::Path, client: Version, service: Version) -> Self {
        let network = Network::up(lab, micro);
        let address = format!("127.0.0.1:{PORT}");
        let mut command = lab.command(Host::Us, programs::built(program(service, "go-service")));
        if service == V2 {
            registers_with_the_node(&mut command);
        } else {
            command.arg("serve");
        }
        command.env("MICRO_SERVER_ADDRESS", &address);
        let service_process = Process::start("go-micro service", &mut command);
        service_process.wait_line(0, "it has started", PATIENCE, |line| line == "started");
        if service != V2 {
            network.us.expose(GREETER, PORT, "mucp");
        }
        network.laptop.wait_service(GREETER);
        Self { lab, client, _network: network, _service: service_process }
    }

    /// What the client on the laptop printed; errors are part of it.
    fn ask(&self, args: &[&str]) -> Value {
        let client = programs::built(program(self.client, "go-client"));
        let mut command = self.lab.command(Host::Laptop, client);
        if self.client == V2 {
            registers_with_the_node(&mut command);
        }
        command.env("MICRO_PROXY", PROXY).args(args);
        let ran = process::run(&mut command, b"", PATIENCE * 2);
        // What it logs stands before it.
        let last = ran.out.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .unwrap_or_else(|error| panic!("client {args:?}: {error}\n{ran:?}"))
    }
}

fn program(version: Version, v2: &'static str) -> &'static str {
    match version {
        V2 => v2,
        V4 => "go-mucp-v4",
        V5 => "go-mucp-v5",
    }
}

/// Runs `test` with each pair of programs.
#[expect(clippy::print_stderr, reason = "when one pair fails it is to be known which")]
fn with_each(test: impl Fn(&Pair<'_>, Version)) {
    if !programs::have_built(&["go-service", "go-client", "go-mucp-v4", "go-mucp-v5"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    for (client, service) in PAIRS {
        let Some(lab) = Lab::new() else { return };
        eprintln!("a client of {client:?}, a service of {service:?}");
        test(&Pair::up(&lab, &micro, client, service), service);
    }
}

#[test]
fn calls_keep_bodies_metadata_errors_and_the_end_of_a_callers_patience() {
    with_each(|pair, service| {
        let hello = pair.ask(&["hello", "Ada"]);
        assert_eq!(hello["message"], "Hello Ada", "{hello}");
        assert_eq!(hello["seen"]["X-Interop"], "from-client", "{hello}");
        if service != V2 {
            assert_eq!(hello["seen"]["Micro-Service"], GREETER, "{hello}");
        }
        if pair.client != V2 {
            let long = pair.ask(&["long", "1000000"]);
            assert_eq!(long["bytes"], 1_000_006, "{long}");
        }
        let error = pair.ask(&["hello", "error"])["error"].clone();
        let sent = json!({
            "id": "go.micro.srv.greeter.say", "code": 403, "detail": "no greeting for error", "status": "Forbidden",
        });
        assert_eq!(error, sent);
        let unknown = pair.ask(&["unknown", "go.micro.srv.nobody"]);
        assert_eq!(unknown["error"]["code"], 404, "{unknown}");

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
fn streams_answer_before_the_client_closes_and_messages_keep_their_order() {
    with_each(|pair, service| {
        let answer = pair.ask(&["count"]);
        assert_eq!(answer["end"], "EOF", "{answer}");
        match service {
            V2 => assert_eq!(answer["got"], json!([41, 42, 43]), "{answer}"),
            // A MUCP server writes over messages that it has not sent yet: with no node between the two programs, its
            // own client is told the same.
            V4 | V5 => assert_eq!(answer["got"].as_array().map(Vec::len), Some(3), "{answer}"),
        }
        let answer = pair.ask(&["talk", "500"]);
        assert_eq!((&answer["got"], &answer["error"]), (&json!(500), &Value::Null), "{answer}");
        assert_eq!(pair.ask(&["stats"])["echoed"], 500);
    });
}
