//! Topics as server-sent events, read by curl on one node and published on another.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tests::lab::{Host, Lab};
use tests::node::{Network, Node, PROXY};
use tests::process::{PATIENCE, Process};
use tests::programs;

/// curl at the feed of a path, on its node's proxy port.
fn curl(lab: &Lab, host: Host, path: &str, more: &[&str]) -> Process {
    let mut command = lab.command(host, "curl");
    command.args(["-sN", "-H", "Accept: text/event-stream", "-H", "Host: go.micro.broker"]);
    command.args(more).arg(format!("http://{PROXY}{path}"));
    Process::start(&format!("curl {path} on {}", host.name()), &mut command)
}

/// A reader that has been told that it is subscribed.
fn reader(lab: &Lab, host: Host, path: &str) -> Process {
    let started = curl(lab, host, path, &[]);
    started.wait_line(0, "it subscribes", PATIENCE, |line| line == ": subscribed");
    started
}

fn events(reader: &Process) -> Vec<Value> {
    let data = |line: &String| line.strip_prefix("data: ").map(serde_json::from_str);
    reader.lines().iter().filter_map(data).map(|event| event.expect("it is JSON")).collect()
}

fn wait_body(reader: &Process, body: &str) {
    let wanted = format!("\"body\":\"{body}\"");
    reader.wait_line(0, body, PATIENCE, |line| line.contains(&wanted));
}

#[test]
fn what_is_published_on_one_node_is_an_event_on_another() {
    if !programs::have(&["curl"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let mut network = Network::up(&lab, &micro);
    let every = reader(&lab, Host::Laptop, "/orders.%3E");
    let members = [Host::Us, Host::Laptop].map(|host| reader(&lab, host, "/orders.*?group=audit"));
    network.eu.wait_wanted("orders.>", 1);
    network.eu.wait_wanted("orders.*", 2);
    for number in 0..20 {
        let said = network.eu.cli(&[
            "publish",
            "orders.created",
            &number.to_string(),
            "-H",
            "X-Case=Kept",
        ]);
        said.ok("micro publish");
    }
    wait_body(&every, "19");
    let all = events(&every);
    let first = json!({
        "topic": "orders.created", "headers": [["X-Case", "Kept"]], "bytes": 1, "body": "0", "dropped": 0
    });
    assert_eq!(all[0], first);
    let numbers: Vec<String> = all.iter().map(|event| event["body"].to_string()).collect();
    assert_eq!(
        numbers,
        (0..20).map(|n| format!("\"{n}\"")).collect::<Vec<_>>(),
        "all, once, in order"
    );

    let deadline = Instant::now() + PATIENCE;
    while members.iter().map(|member| events(member).len()).sum::<usize>() < 20 {
        assert!(Instant::now() < deadline, "the group did not get all");
        std::thread::sleep(Duration::from_millis(15));
    }
    let shares = members.each_ref().map(|member| events(member).len());
    assert_eq!(shares.iter().sum::<usize>(), 20, "each to one member: {shares:?}");

    // Interest ends with the reader, and a feed with its node.
    drop(every);
    network.eu.wait_wanted("orders.>", 0);
    let [mut of_us, _] = members;
    network.us.sigterm();
    assert_eq!(of_us.wait_end(PATIENCE).code(), Some(0), "the feed ended as a whole answer");
}

#[test]
fn what_is_no_topic_and_a_page_of_another_site_are_refused() {
    if !programs::have(&["curl"]) {
        return;
    }
    let (Some(lab), Some(micro)) = (Lab::new(), programs::micro()) else { return };
    let _node = Node::up(&lab, Host::Eu, &micro, None);
    let elsewhere = ["-H", "Origin: http://elsewhere.example"];
    for (path, more, status) in
        [("/a..b", &[][..], "400"), ("/a?b=c", &[], "400"), ("/a", &elsewhere[..], "403")]
    {
        let more = [more, &["-o", "/dev/null", "-w", "%{http_code}\\n"]].concat();
        let asked = curl(&lab, Host::Eu, path, &more);
        let (_, said) = asked.wait_line(0, "a status", PATIENCE, |line| !line.is_empty());
        assert_eq!(said, status, "{path}");
    }
}
