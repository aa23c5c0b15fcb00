//! MUCP at a real node: its own services answer it, and what speaks it is exposed as such.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use daemon_support::{Node, User, http, named};
use serde_json::{Value, json};

/// What `endpoint` of the registry answers: the head, and the body.
fn ask(node: &Node<'_>, endpoint: &str, kind: &str, body: &str) -> (String, String) {
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nMicro-Service: go.micro.registry\r\n\
         Micro-Endpoint: {endpoint}\r\nMicro-Id: 0\r\nContent-Type: application/{kind}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    let answer = http(&node.proxy(), &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    (head.to_owned(), body.to_owned())
}

/// The error of an answer.
fn error(head: &str) -> Value {
    let line = head.lines().find_map(|line| line.strip_prefix("Micro-Error: "));
    serde_json::from_str(line.unwrap()).unwrap()
}

#[test]
fn the_registry_of_a_node_answers_mucp_as_it_answers_grpc() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let exposed = node.json(&["expose", "orders", &named("x"), "--protocol", "mucp"]);
    assert_eq!(exposed["protocol"], "mucp", "{exposed}");

    let (head, body) = ask(&node, "Registry.ListServices", "json", "{}");
    assert!(head.contains("\r\nContent-Type: application/json"), "{head}");
    let listed: Value = serde_json::from_str(&body).unwrap();
    let names = listed["services"].as_array().unwrap().iter().map(|one| &one["name"]);
    assert!(names.into_iter().any(|name| *name == "orders"), "{listed}");

    let (_, body) = ask(&node, "Registry.GetService", "json", r#"{"service":"orders"}"#);
    let got: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(got["services"][0]["nodes"][0]["metadata"]["protocol"], "mucp", "{got}");

    let (head, body) = ask(&node, "Registry.ListServices", "protobuf", "");
    assert!(head.contains("\r\nContent-Type: application/protobuf"), "{head}");
    assert!(body.contains("orders"), "{body:?}");

    let (head, body) = ask(&node, "Registry.GetService", "json", r#"{"service":"nobody"}"#);
    assert_eq!((&error(&head)["code"], &*body), (&json!(404), ""), "{head}");
    let (head, _) = ask(&node, "Registry.Nothing", "json", "{}");
    assert_eq!(error(&head)["code"], 501, "{head}");
    let (head, _) = ask(&node, "Registry.GetService", "json", "no json");
    assert_eq!(error(&head)["code"], 400, "{head}");
}
