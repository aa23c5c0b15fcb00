//! Hosts, labels of Kubernetes and routes of local programs, on two real nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use daemon_support::{Node, User, http, named, soon};

/// Who answers a call to this host, or how it was refused.
fn call(node: &Node<'_>, host: &str, header: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{header}\r\n");
    let answer = http(&node.proxy(), &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if head.starts_with("HTTP/1.1 200") {
        return body.to_owned();
    }
    head.split("micro-error: ").nth(1).unwrap_or(head)[..5].to_owned()
}

#[test]
fn a_host_says_region_version_and_label_and_labels_of_kubernetes_count() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &["--region", "eu/fra"]);
    let ticket = first.invite(&["--service", "shop"]);
    let second = bob.up("b", &["--join", &ticket, "--region", "us/iad"]);
    let (fra, iad) = (named("fra"), named("iad"));
    let expose = |node: &Node<'_>, address: &str, version: &str, component: &str| {
        let version = format!("app.kubernetes.io/version={version}");
        let component = format!("app.kubernetes.io/component={component}");
        let args = ["expose", "shop", address, "--protocol", "http", "--version", "latest"];
        node.run(&[&args[..], &["--label", &version, "--label", &component]].concat()).ok();
    };
    expose(&first, &fra, "1.2.0", "Web+");
    expose(&second, &iad, "1.3.0", "db");
    second.wait_for("services=shop");
    let both = || second.json(&["network", "routes", "shop"])["items"].as_array().unwrap().len();
    soon("the other instance is heard of", || both() == 2);
    for (host, header, answer) in [
        ("shop", "", "iad"),
        ("shop.eu-fra", "", "fra"),
        ("shop.eu-fra.micro.internal", "", "fra"),
        ("SHOP.EU.localhost:1", "", "fra"),
        ("v1-2-0.shop", "", "fra"),
        ("v1-3-0.shop.us", "", "iad"),
        ("v1-3-0.shop.eu", "", "M1002"),
        ("component--web-.shop", "", "fra"),
        ("shop.mars", "", "M1203"),
        ("shop", "Micro-Version: ~1.2\r\n", "fra"),
        ("shop", "Micro-Component: Web+\r\n", "fra"),
        ("v1-3-0.shop", "Micro-Version: 1.2.0\r\n", "fra"),
        ("shop", "Micro-Router: a\r\n", "fra"),
        ("shop", "Micro-Gateway: a\r\n", "fra"),
        ("shop", "Micro-Gateway: b\r\n", "iad"),
        ("shop", "Micro-Network: none\r\n", "M1002"),
    ] {
        assert_eq!(call(&second, host, header), answer, "{host} {header}");
    }
    let why = second.json(&["network", "why", "shop", "--header", "micro-router=a"]);
    assert_eq!(why["candidates"][0]["state"], "other-route", "{why}");
}

#[test]
fn a_route_that_is_created_is_taken_here_and_is_no_way_in_for_others() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&[])]);
    let (private, any, offered) = (named("private"), named("any"), named("offered"));
    first.run(&["expose", "orders", &offered, "--protocol", "http"]).ok();
    second.wait_for("services=orders");
    let table = |node: &Node<'_>, method: &str, service: &str, address: &str, gateway: &str| {
        let route = serde_json::json!({
            "service": service, "address": address, "gateway": gateway, "link": "http",
        });
        node.run(&["call", "go.micro.router", &format!("Table.{method}"), &route.to_string()])
    };
    table(&first, "Create", "shop", &private, "").ok();
    assert_eq!(call(&first, "shop", ""), "private");
    assert_eq!(call(&second, "shop", ""), "M1203", "it is the other node's own");
    let routes = first.json(&["network", "routes", "shop"]);
    assert_eq!(routes["items"][0]["version"], "static", "{routes}");

    // A name that nobody offers, and through the other node: what that offers, and nothing else.
    table(&second, "Create", "*", &any, "").ok();
    assert_eq!(call(&second, "shop", ""), "any");
    table(&second, "Delete", "*", &any, "").ok();
    table(&second, "Create", "*", "", "a").ok();
    assert_eq!(call(&second, "shop", ""), "M1004", "no route of a program is a way in");
    assert_eq!(call(&second, "orders", ""), "offered");
    let ran = table(&second, "Create", "x", "nonsense", "");
    assert_eq!(ran.code, 10, "{ran:?}");
    assert!(ran.err.contains("the address of a route is host:port"), "{ran:?}");
    let all = second.json(&["call", "go.micro.router", "Table.List", "{}"]);
    let routes = all["routes"].as_array().unwrap();
    assert!(routes.iter().any(|route| route["service"] == "*" && route["gateway"] == "a"), "{all}");
    assert!(routes.iter().any(|route| route["service"] == "orders"), "{all}");
}
