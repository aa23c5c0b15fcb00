//! What the commands print of what a node says, in every form, and how they pass on its errors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cli_support;

use cli_support::Home;
use serde_json::{Value, json};

fn nodes() -> Value {
    json!({
        "kind": "NodeList", "api": "micro/v1",
        "items": [
            { "id": "a".repeat(52), "name": "ada", "region": "home", "roles": ["edge"],
              "path": "local", "cost_us": 0, "links": 1, "services": 3, "release": "0.1.0",
              "state": "ready", "labels": { "user": "ada" }, "addresses": ["192.0.2.1:8085"] },
            { "id": "b".repeat(52), "name": "fra\u{1b}[2J", "region": "eu/fra",
              "roles": ["relay", "gate"], "path": "direct", "cost_us": 11000, "links": 1,
              "services": 12, "release": "0.1.0", "state": "ready" },
            { "id": "c".repeat(52), "name": "nrt", "region": "ap/nrt", "roles": ["edge"],
              "path": "", "links": 0, "services": 9, "release": "0.1.0", "state": "unreachable",
              "from_a_newer_node": true },
        ],
    })
}

#[test]
fn a_list_is_a_table_json_lines_or_names() {
    let home = Home::new();
    let _node = home.node("n", &[("/v1/nodes", 200, nodes())]);
    let table = home.run("network nodes");
    assert_eq!(
        table.out,
        "NODE     REGION  ROLES       PATH    COST  LINKS  SERVICES  VERSION  STATE\n\
         ada      home    edge        local   0ms   1      3         0.1.0    ready\n\
         fra\u{fffd}[2J  eu/fra  relay,gate  direct  11ms  1      12        0.1.0    ready\n\
         nrt      ap/nrt  edge        -       ∞     0      9         0.1.0    unreachable\n"
    );
    let wide = home.run("network nodes -o wide --no-headers").out;
    assert!(
        wide.starts_with("ada") && wide.contains("user=ada") && wide.contains("192.0.2.1:8085")
    );
    assert_eq!(home.run("network nodes -o json").json(), nodes(), "as the socket says it");
    let lines = home.run("network nodes -o jsonl").out;
    assert_eq!(lines.lines().count(), 3);
    assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(home.run("network nodes -o name").out, "ada\nfra\u{fffd}[2J\nnrt\n");
}

#[test]
fn an_empty_list_says_so_with_what_to_do() {
    let home = Home::new();
    let empty = json!({ "kind": "ServiceList", "api": "micro/v1", "items": [] });
    let _node = home.node("n", &[("/v1/services", 200, empty.clone())]);
    let ran = home.run("services");
    assert_eq!((ran.code, ran.out.as_str()), (0, ""));
    assert!(ran.err.contains("no services are visible") && ran.err.contains("micro serve greeter"));
    assert_eq!(home.run("services -o json").json(), empty);
}

#[test]
fn a_problem_of_the_node_is_printed_as_it_is_with_its_exit_code() {
    let home = Home::new();
    let error = json!({ "kind": "Error", "api": "micro/v1", "error": {
        "code": "M1203", "what": "no service named \"greter\"", "why": "the nearest name is greeter",
        "try": ["micro describe greeter # its methods"], "exit": 4,
    }});
    let _node = home.node("n", &[("/v1/services/greter", 404, error.clone())]);
    let ran = home.run("describe greter");
    assert_eq!(ran.code, 4);
    assert_eq!(
        ran.err,
        "error[M1203]: no service named \"greter\"\n\
         \x20 why   the nearest name is greeter\n\
         \x20 try   micro describe greeter   its methods\n"
    );
    let ran = home.run("describe greter -o json");
    assert_eq!((ran.code, ran.json()), (4, error));
}

#[test]
fn a_ticket_stands_alone_on_standard_output() {
    let home = Home::new();
    let made = json!({ "kind": "Ticket", "api": "micro/v1", "ticket": "mj1abc", "id": "inv-31",
        "expires": "2026-11-22T00:00:00Z", "uses": 5, "role": "edge" });
    let node = home.node("n", &[("/v1/invite", 200, made)]);
    let ran = home.run("network invite --ttl 24h --uses 5 --service 'shop*' --namespace pay");
    assert_eq!((ran.code, ran.out.as_str()), (0, "mj1abc\n"));
    assert_eq!(
        ran.err,
        "role edge   5 uses   valid 1d   id inv-31\n\
         on their machine:  micro network --join mj1abc\n"
    );
    let (line, body) = node.asked().pop().unwrap();
    assert_eq!(line, "POST /v1/invite");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({ "ttl_s": 86400, "uses": 5, "role": null, "services": ["shop*"], "namespaces": ["pay"] })
    );
}

#[test]
fn join_tells_addresses_from_tickets() {
    let home = Home::new();
    let joined = json!({ "kind": "Joined", "api": "micro/v1", "addresses": ["192.0.2.1:8085"],
        "peer": "fra-1", "rtt_ns": 11_000_000 });
    let node = home.node("n", &[("/v1/join", 200, joined)]);
    let ran = home.run("network join gate.acme.example");
    assert_eq!((ran.code, ran.err.as_str()), (0, "linked with fra-1, 11ms\n"));
    let ran = home.run_with_input("network join -", "mj1abc\n");
    assert_eq!(ran.code, 0);
    let bodies: Vec<Value> =
        node.asked().iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(bodies[0], json!({ "address": "gate.acme.example", "ticket": null }));
    assert_eq!(bodies[1], json!({ "address": null, "ticket": "mj1abc" }));
}

#[test]
fn ping_counts_what_came_back() {
    let home = Home::new();
    let probe = json!({ "kind": "Ping", "api": "micro/v1", "node": "iad-2", "region": "us/iad",
        "path": "direct udp/v4", "rtt_ns": 92_000_000, "remote": "203.0.113.9:8085" });
    let lost = json!({ "error": { "code": "M2001", "what": "iad-9 did not answer", "exit": 6 } });
    let _node =
        home.node("n", &[("/v1/ping?node=iad-2", 200, probe), ("/v1/ping?node=iad-9", 503, lost)]);
    let ran = home.run("network ping iad-2 -n 2 --interval 1ms");
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (
            0,
            "1  iad-2 us/iad direct udp/v4   92ms   203.0.113.9:8085\n\
             2  iad-2 us/iad direct udp/v4   92ms   203.0.113.9:8085\n\
             2 sent, 2 back    min 92ms  avg 92ms  max 92ms\n"
        )
    );
    let ran = home.run("network ping iad-9 -n 1");
    assert_eq!((ran.code, ran.out.lines().last()), (6, Some("1 sent, 0 back")));
}

#[test]
fn ready_is_an_exit_code_and_wait_asks_until_it_is_over() {
    let home = Home::new();
    let parts = json!([{ "name": "links", "ready": false, "reason": "no link is up" }]);
    let not =
        json!({ "kind": "Readiness", "api": "micro/v1", "ready": false, "components": parts });
    let over =
        json!({ "error": { "code": "M8004", "what": "links=1 is not true yet", "exit": 6 } });
    let node = home
        .node("n", &[("/v1/ready", 503, not), ("/v1/wait?for=nodes%3D2&timeout_ms=0", 408, over)]);
    let ran = home.run("network ready");
    assert_eq!((ran.code, ran.err.as_str()), (1, "✗ links: no link is up\n"));
    let ran = home.run("network wait --for nodes=2 --timeout 0s");
    assert_eq!(ran.code, 6, "{ran:?} {:?}", node.asked());
    assert!(ran.err.starts_with("error[M8004]: nodes=2 has not come true within 0s\n"));
}

#[test]
fn several_nodes_are_told_apart() {
    let home = Home::new();
    let _a = home.node("a", &[("/v1/nodes", 200, nodes())]);
    let _b = home.node("b", &[("/v1/nodes", 200, nodes())]);
    let ran = home.run("network nodes");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.starts_with("error[M6011]") && ran.err.contains("they are called a, b"));
    let socket = home.path("run/micro/b.sock").display().to_string();
    assert_eq!(home.run(&format!("network nodes --socket {socket}")).code, 0);
}

#[test]
fn an_exposed_port_is_of_this_machine() {
    let home = Home::new();
    let exposed = json!({ "kind": "Exposed", "api": "micro/v1", "name": "shop",
        "address": "127.0.0.1:3000", "protocol": "http", "version": "latest" });
    let gone = json!({ "kind": "Unexposed", "api": "micro/v1", "name": "shop", "instances": 1 });
    let node = home.node("n", &[("/v1/expose", 200, exposed), ("/v1/unexpose", 200, gone)]);
    let ran = home.run("expose shop 3000 --label tier=gold");
    assert_eq!(ran.code, 0);
    assert!(ran.err.starts_with("exposed shop → 127.0.0.1:3000 (http)\n"), "{}", ran.err);
    let body: Value = serde_json::from_str(&node.asked()[0].1).unwrap();
    assert_eq!(
        (&body["address"], &body["labels"]),
        (&json!("127.0.0.1:3000"), &json!({ "tier": "gold" }))
    );
    assert_eq!(home.run("unexpose shop").err, "withdrew shop (1 instance)\n");
    assert_eq!(home.run("expose 'no name' 3000").code, 2);
}
