//! Load generators of other people against the proxy port: no error of theirs, and nobody else waits.

use std::path::PathBuf;
use std::time::Duration;

use tests::events::{self, Kind};
use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs;

const WEB_PORT: u16 = 19800;
const ECHO_PORT: u16 = 19100;

/// Runs a load generator on the laptop while somebody else makes 50 calls a second through the same port; gives what
/// the generator said. Every one of the other's calls was answered, or the test fails.
fn beside_others(program: &str, args: &[&str]) -> Option<Ran> {
    if !programs::have(&["nginx", program]) {
        return None;
    }
    let (lab, micro): (Lab, PathBuf) = (Lab::new()?, programs::micro()?);
    let (_nginx, _) = programs::nginx(&lab, Host::Us, WEB_PORT);
    let _echo = programs::lab_service(&lab, Host::Us, "us", ECHO_PORT);
    let mut network = Network::up(&lab, &micro);
    network.us.expose("web", WEB_PORT, "http");
    network.us.expose("lab.echo", ECHO_PORT, "grpc");
    network.laptop.wait_service("web");
    network.laptop.wait_service("lab.echo");

    let mut others: Process =
        programs::lab_load(&lab, Host::Laptop, PROXY, tests::scenario::RATE, 2);
    others.wait_line(0, "calls before the load", PATIENCE, |line| line.contains(r#""id":25,"#));
    let program = process::found(program).expect("it was there a moment ago");
    let ran = process::run(lab.command(Host::Laptop, program).args(args), b"", PATIENCE * 3);
    drop(others.input());
    others.wait_end(PATIENCE);
    assert!(network.laptop.running() && network.us.running());

    let seen = events::parse(&others.lines());
    let failed: Vec<_> = seen.iter().filter(|e| e.status != 0).take(5).collect();
    assert!(failed.is_empty(), "calls beside the load failed: {failed:?}");
    let waits: Vec<u64> =
        seen.iter().filter(|e| e.kind == Kind::Unary).map(|e| e.took_us).collect();
    let slowest = waits.iter().max().copied().unwrap_or_default();
    tests::say(&format!("{} calls beside the load, slowest {} ms", waits.len(), slowest / 1000));
    assert!(
        u128::from(slowest) < Duration::from_secs(5).as_micros(),
        "a call stalled to its deadline"
    );
    Some(ran)
}

#[test]
fn h2load_sees_no_error_and_stalls_nobody() {
    let url = format!("http://{PROXY}/small");
    let args = ["-n", "30000", "-c", "16", "-m", "32", "-H", ":authority: web", &url];
    let Some(ran) = beside_others("h2load", &args) else { return };
    let out = ran.ok("h2load");
    tests::say(out.lines().find(|line| line.starts_with("finished in")).unwrap_or_default());
    assert!(out.contains("30000 succeeded, 0 failed, 0 errored, 0 timeout"), "{out}");
    assert!(out.contains("status codes: 30000 2xx"), "{out}");
}

#[test]
fn wrk_sees_no_error_and_stalls_nobody() {
    let url = format!("http://{PROXY}/small");
    let args = ["-t", "2", "-c", "64", "-d", "5s", "-H", "Host: web", &url];
    let Some(ran) = beside_others("wrk", &args) else { return };
    let out = ran.ok("wrk");
    tests::say(out.lines().find(|line| line.starts_with("Requests/sec")).unwrap_or_default());
    assert!(!out.contains("Socket errors") && !out.contains("Non-2xx"), "{out}");
}

/// Slow requests for the service `web`: slowhttptest names it as it would to any HTTP proxy.
fn slowly(kind: &str, connections: &str) -> Option<Ran> {
    let most = ["-c", connections, "-r", "500", "-i", "2", "-l", "10", "-s", "8192", "-p", "2"];
    let to = ["-t", "PUT", "-d", PROXY, "-u", "http://web/upload/slow"];
    let ran = beside_others("slowhttptest", &[&[kind], &most[..], &to[..]].concat())?;
    assert!(ran.code.is_some(), "slowhttptest did not end: {}", ran.out);
    Some(ran)
}

#[test]
fn slow_heads_hold_nobody_up() {
    slowly("-H", "1000");
}

#[test]
fn slow_bodies_hold_nobody_up() {
    // Each is a call in flight; a node takes 1 024 of them and refuses more, as it says.
    slowly("-B", "800");
}
