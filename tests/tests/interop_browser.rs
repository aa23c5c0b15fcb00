//! A browser on the laptop and a service in a region: a page of `NAME.localhost` with a WebSocket and an event stream,
//! and a page of somebody else that must reach nothing.

use std::process::Command;

use tests::lab::{Host, Lab};
use tests::node::Network;
use tests::process::{PATIENCE, Process};
use tests::programs;

const SERVICE: u16 = 19820;
const ELSEWHERE: u16 = 19821;
const SHOP: &str = "http://shop.localhost:8081";

/// Chromium on the laptop, at this page until it is dropped.
fn browse(lab: &Lab, url: &str) -> Process {
    let mut command: Command = lab.command(Host::Laptop, "chromium");
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args([
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ]);
    command.arg(format!("--user-data-dir={}", lab.dir().join("chromium").display()));
    // A name of the world outside, for a page of somebody else.
    command.arg("--host-resolver-rules=MAP elsewhere.example 127.0.0.1");
    command.env("HOME", lab.dir()).arg(url);
    Process::start("chromium", &mut command)
}

fn pages(lab: &Lab, host: Host, args: &[&str]) -> Process {
    let mut command = lab.command(host, "node");
    command.arg(programs::interop("node/browser.js")).args(args);
    command.env("NODE_PATH", programs::built("node/node_modules"));
    let server = Process::start("node browser.js", &mut command);
    server.wait_line(0, "it listens", PATIENCE, |line| line == "listening");
    server
}

#[test]
fn a_page_of_a_service_has_its_websocket_and_its_events_and_no_other_page_has() {
    if !programs::have(&["chromium", "node"]) || !programs::have_built(&["node/node_modules/ws"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let port = SERVICE.to_string();
    let service = pages(&lab, Host::Us, &["service", &port]);
    let network = Network::up(&lab, &micro);
    network.us.expose("shop", SERVICE, "http");
    network.laptop.wait_service("shop");

    let ours = browse(&lab, SHOP);
    let all = "said socket: ok; events: 1,2,3; post: ok";
    service.wait_line(0, "the page says what it could do", PATIENCE * 2, |line| {
        assert!(!line.starts_with("said") || line == all, "{line}");
        line == all
    });
    drop(ours);
    let before = service.lines().len();

    let port = ELSEWHERE.to_string();
    let elsewhere = pages(&lab, Host::Laptop, &["elsewhere", &port, SHOP]);
    let _browser = browse(&lab, &format!("http://elsewhere.example:{ELSEWHERE}"));
    elsewhere.wait_line(0, "the page says what it could do", PATIENCE * 2, |line| {
        let refused = "said socket: refused; events: refused; ";
        assert!(!line.starts_with("said") || line.starts_with(refused), "{line}");
        line.starts_with(refused)
    });
    let heard = service.lines();
    assert_eq!(heard[before..], [] as [&str; 0], "the service hears nothing of it");
}
