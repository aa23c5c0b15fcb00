//! Programs whose registry is etcd, pointed at a node instead: `etcdctl`, the client library of etcd as go-micro v6
//! uses it, and an unmodified go-micro v2.9.1 service and client that find each other across two nodes and call by
//! address, through the proxy of their node (recipe F).

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Network, Node, PROXY};
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs::{self, GREETER};

const PORT: u16 = 19561;
/// The lease that services ask for, in seconds.
const LEASE: u64 = 3;
/// After a program was killed: its lease, and one second for the news to travel.
const LEASE_AND_NEWS: Duration = Duration::from_secs(LEASE + 1);

fn etcdctl(lab: &Lab, host: Host, args: &[&str]) -> Command {
    let mut command = lab.command(host, "etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", PROXY]).args(args);
    command
}

fn ctl(lab: &Lab, host: Host, args: &[&str]) -> Ran {
    process::run(&mut etcdctl(lab, host, args), b"", PATIENCE)
}

fn entry(service: &str, id: &str, address: &str) -> (String, String) {
    let node = json!({"id": id, "address": address, "metadata": {"protocol": "grpc"}});
    let value = json!({
        "name": service, "version": "latest", "metadata": null, "endpoints": null, "nodes": [node],
    });
    (format!("/micro/registry/{service}/{id}"), value.to_string())
}

fn ready(built: &[&str]) -> Option<(Lab, std::path::PathBuf)> {
    if !programs::have_built(built) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

#[test]
fn etcdctl_reads_writes_watches_and_leases_across_two_nodes() {
    if !programs::have(&["etcdctl"]) {
        return;
    }
    let Some((lab, micro)) = ready(&[]) else { return };
    let network = Network::up(&lab, &micro);
    let said = |host, args: &[&str]| ctl(&lab, host, args).ok(&args.join(" "));
    let all = ["get", "--prefix", "/micro/registry/", "--keys-only"];

    let members = said(Host::Laptop, &["member", "list"]);
    assert!(members.contains("laptop") && members.contains(PROXY), "{members}");
    let status = said(Host::Laptop, &["endpoint", "status", "-w", "json"]);
    let status: Value = serde_json::from_str(&status).expect("etcdctl prints JSON");
    assert!(status[0]["Status"]["version"].as_str().is_some_and(|v| v.starts_with("3.4.0")));
    said(Host::Laptop, &["endpoint", "health"]);
    said(Host::Laptop, &["endpoint", "status", "--cluster"]);

    // From what was read last: nothing is missed, however long it takes to begin.
    let from = (revision(&lab, Host::Laptop) + 1).to_string();
    let watch = ["watch", "--prefix", "--prev-kv", "--rev", &from, "/micro/registry/ctl/"];
    let watcher = Process::start("etcdctl watch", &mut etcdctl(&lab, Host::Laptop, &watch));
    let (key, value) = entry("ctl", "c-1", "10.77.3.2:9");
    assert_eq!(said(Host::Us, &["put", &key, &value]).trim(), "OK");
    watcher.wait_line(0, "the put on another node", PATIENCE, |line| line == "PUT");
    network.laptop.wait_service("ctl");
    assert!(said(Host::Laptop, &all).contains(&key));
    let read = said(Host::Laptop, &["get", &key, "--print-value-only"]);
    let read: Value = serde_json::from_str(&read).expect("the value is JSON");
    assert_eq!(read["nodes"][0]["address"], "10.77.3.2:9");
    let foreign = ctl(&lab, Host::Laptop, &["del", &key]);
    assert!(foreign.code != Some(0) && foreign.err.contains("another node"), "{foreign:?}");
    let from = watcher.lines().len();
    assert_eq!(said(Host::Us, &["del", &key]).trim(), "1");
    watcher.wait_line(from, "the delete", PATIENCE, |line| line == "DELETE");
    watcher.wait_line(from, "the value before", PATIENCE, |line| line.contains(r#""name":"ctl""#));

    let granted = said(Host::Us, &["lease", "grant", &LEASE.to_string()]);
    let lease = granted.split_whitespace().nth(1).expect("etcdctl prints the id");
    let (key, value) = entry("leased", "l-1", "10.77.3.2:9");
    said(Host::Us, &["put", "--lease", lease, &key, &value]);
    network.laptop.wait_service("leased");
    said(Host::Us, &["lease", "keep-alive", "--once", lease]);
    assert!(said(Host::Us, &["lease", "timetolive", lease, "--keys"]).contains(&key));
    assert!(said(Host::Us, &["lease", "list"]).contains(lease));
    network.laptop.wait_instances("leased", 0);
    assert!(!said(Host::Us, &all).contains(&key), "what ran out is gone");
    let again = ctl(&lab, Host::Us, &["lease", "revoke", lease]);
    assert!(again.err.contains("requested lease not found"), "{again:?}");

    let outside = ctl(&lab, Host::Us, &["put", "foo", "bar"]);
    assert!(outside.err.contains("only instances of services"), "{outside:?}");
    assert_eq!(said(Host::Us, &["get", "foo"]), "");
    let (key, value) = entry("last", "l-1", "10.77.3.2:9");
    said(Host::Us, &["put", &key, &value]);
    let from_all = ["get", "", "--from-key", "--limit", "1", "--order", "DESCEND", "--keys-only"];
    assert_eq!(said(Host::Us, &from_all).trim(), key);
}

fn revision(lab: &Lab, host: Host) -> i64 {
    let read = ctl(lab, host, &["get", "--prefix", "/micro/registry/", "-w", "json"]).ok("get");
    let read: Value = serde_json::from_str(&read).expect("etcdctl prints JSON");
    read["header"]["revision"].as_i64().unwrap_or_else(|| panic!("no revision in {read}"))
}

#[test]
fn revisions_never_go_back_however_a_node_ends() {
    if !programs::have(&["etcdctl"]) {
        return;
    }
    let Some((lab, micro)) = ready(&[]) else { return };
    let mut node = Node::up(&lab, Host::Eu, &micro, None);
    let (key, value) = entry("r", "r-1", "127.0.0.1:9");
    for _ in 0..3 {
        ctl(&lab, Host::Eu, &["put", &key, &value]).ok("put");
    }
    let mut last = revision(&lab, Host::Eu);
    for kill in [true, false, true] {
        if kill {
            node.kill9();
        } else {
            node.sigterm();
        }
        node.start(None);
        node.wait_ready();
        let next = revision(&lab, Host::Eu);
        assert!(next > last, "{next} after {last}");
        last = next;
    }
}

#[test]
fn the_library_that_go_micro_v6_uses_registers_watches_and_is_told_of_a_death() {
    let Some((lab, micro)) = ready(&["go-etcd"]) else { return };
    let _network = Network::up(&lab, &micro);
    let command = |host, args: &[&str]| {
        let mut command = lab.command(host, programs::built("go-etcd"));
        command.env("ETCD_USERNAME", "root").env("ETCD_PASSWORD", "pw").arg(PROXY).args(args);
        command
    };
    let (one, other) = ("/micro/registry/one/", "/micro/registry/other/");
    let watcher = Process::start("etcd watch", &mut command(Host::Laptop, &["watch", one, other]));
    for watched in [one, other] {
        watcher.wait_line(0, "it watches", PATIENCE, |line| {
            line.contains("watching") && line.contains(watched)
        });
    }
    let ((key, value), seconds) = (entry("one", "o-1", "10.77.3.2:9"), LEASE.to_string());
    let mut service = Process::start_with_input(
        "etcd register",
        &mut command(Host::Us, &["register", &key, &value, &seconds]),
    );
    service.wait_line(0, "it has registered", PATIENCE, |line| line.contains("registered"));
    watcher.wait_line(2, "the create", PATIENCE, |line| line.contains(r#""action":"create""#));
    // Renewed for longer than it lasts.
    let alive = || service.lines().iter().filter(|line| line.contains("alive")).count();
    let renewed = std::time::Instant::now() + PATIENCE;
    while alive() < 5 {
        assert!(std::time::Instant::now() < renewed, "{:?}", service.lines());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!watcher.lines().iter().any(|line| line.contains("delete")), "{:?}", watcher.lines());
    service.kill9();
    let gone = |line: &str| line.contains(r#""action":"delete""#) && line.contains("o-1");
    watcher.wait_line(2, "the delete, with what was there", LEASE_AND_NEWS, gone);
    let got = process::run(&mut command(Host::Us, &["get", one]), b"", PATIENCE).ok("get");
    assert!(got.contains(r#""count":0"#), "{got}");
}

/// Recipe F: the registry is the node, calls go to addresses, and the proxy is the node.
fn recipe(command: &mut Command, host: Host) -> &mut Command {
    let proxy = format!("http://{PROXY}");
    command
        .env("MICRO_REGISTRY", "etcd")
        .env("MICRO_REGISTRY_ADDRESS", PROXY)
        .env("HTTPS_PROXY", &proxy)
        .env("HTTP_PROXY", &proxy)
        .env("MICRO_SERVER_ADDRESS", format!("{}:{PORT}", host.v4()))
        .env("MICRO_REGISTER_TTL", LEASE.to_string())
        .env("MICRO_REGISTER_INTERVAL", "1")
        .env_remove("MICRO_PROXY")
}

#[test]
fn go_micro_v2_with_etcd_as_registry_finds_and_calls_across_two_nodes() {
    let Some((lab, micro)) = ready(&["go-service", "go-client"]) else { return };
    let network = Network::up(&lab, &micro);
    let mut command = lab.command(Host::Us, programs::built("go-service"));
    let mut service = Process::start("go-micro service", recipe(&mut command, Host::Us));
    service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
    network.laptop.wait_service(GREETER);
    // Nothing but links may cross: a connection to the address would be counted.
    lab.count_tcp(PORT);
    let client = |args: &[&str]| {
        let mut command = lab.command(Host::Laptop, programs::built("go-client"));
        recipe(&mut command, Host::Laptop).args(args);
        command
    };
    let ask = |args: &[&str]| -> Value {
        let ran = process::run(&mut client(args), b"", PATIENCE * 2);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{ran:?}"))
    };
    let listed = ask(&["list"]);
    assert!(
        listed["names"].as_array().is_some_and(|all| all.contains(&json!(GREETER))),
        "{listed}"
    );
    let got = ask(&["get", GREETER]);
    let node = &got["services"][0]["nodes"][0];
    assert_eq!(node["address"], format!("{}:{PORT}", Host::Us.v4()), "{got}");
    let hello = ask(&["hello", "Ada"]);
    assert_eq!(hello["message"], "Hello Ada", "{hello}");
    assert_eq!(ask(&["hello", "error"])["error"]["code"], 403, "its own errors come as they are");
    assert_eq!(ask(&["count"])["got"], json!([41, 42, 43]));
    assert_eq!(ask(&["echo", "1000"])["got"], 1000);
    assert_eq!(ask(&["raw", "4000000"])["same"], true);
    assert_eq!(lab.counted(), 0, "it was called over the links of the nodes alone");

    let watcher = Process::start("go-micro watcher", &mut client(&["watch", GREETER]));
    watcher.wait_line(0, "it watches", PATIENCE, |line| line.contains("watching"));
    service.kill9();
    let gone = |line: &str| line.contains(r#""action":"delete""#);
    watcher.wait_line(1, "the delete", LEASE_AND_NEWS, gone);
    network.us.wait_instances(GREETER, 0);
}

/// The HTTP broker that is the default of all versions: subscribers are entries of the registry, and whoever
/// publishes posts to their addresses, through its proxy.
#[test]
fn the_http_broker_of_go_micro_v2_crosses_two_nodes() {
    let Some((lab, micro)) = ready(&["go-client"]) else { return };
    let network = Network::up(&lab, &micro);
    let client = |host: Host, args: &[&str]| {
        let mut command = lab.command(host, programs::built("go-client"));
        recipe(&mut command, host).env("MICRO_BROKER", "http").args(args);
        command.env("MICRO_BROKER_ADDRESS", format!("{}:{}", host.v4(), PORT + 1));
        command
    };
    let subscriber =
        Process::start("go-micro subscriber", &mut client(Host::Us, &["subscribe", "news"]));
    subscriber.wait_line(0, "it has subscribed", PATIENCE, |line| line.contains("subscribed"));
    network.laptop.wait_service("micro.http.broker");
    lab.count_tcp(PORT + 1);
    process::run(&mut client(Host::Laptop, &["publish", "news", "hot"]), b"", PATIENCE)
        .ok("publish");
    let told = |line: &str| line.contains(r#""body":"hot""#) && line.contains("from-client");
    subscriber.wait_line(1, "the message", PATIENCE, told);
    assert_eq!(lab.counted(), 0, "it crossed over the links of the nodes alone");
}
