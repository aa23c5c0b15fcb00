//! Watches: what changes is told, in order, and nobody who reads slowly is lied to.

use std::collections::BTreeSet;

use proto::micro::{registry as pb, router};

use crate::client::{Call, Client};
use crate::node::{Node, id, registration};

const WATCH: &str = "/go.micro.registry.Registry/Watch";

async fn watch(client: &Client, service: &str) -> Call {
    let mut call = client.open(WATCH, &[]).await;
    let request = pb::WatchRequest { service: service.into(), ..Default::default() };
    call.send(&prost::Message::encode_to_vec(&request));
    // The head is there at once: what follows the message is watched, with no half-close.
    call.head().await;
    assert_eq!(call.status, 200);
    call
}

fn told(result: pb::Result) -> (String, String, Vec<String>) {
    assert!(result.timestamp > 0);
    let service = result.service.unwrap();
    let nodes = service.nodes.into_iter().map(|node| node.id).collect();
    (result.action, format!("{}@{}", service.name, service.version), nodes)
}

fn one(action: &str, service: &str, node: &str) -> (String, String, Vec<String>) {
    (action.to_owned(), service.to_owned(), vec![node.to_owned()])
}

#[tokio::test]
async fn first_is_create_later_is_update_and_an_expiry_is_a_delete() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = watch(&client, "").await;
    node.desk.remote(2, "greeter", "a", Some(10));
    assert_eq!(told(call.next().await), one("create", "greeter@v1", "a"));
    node.desk.remote(3, "greeter", "b", Some(10));
    assert_eq!(told(call.next().await), one("update", "greeter@v1", "b"));
    node.desk.gone(2, "greeter", "a");
    assert_eq!(told(call.next().await), one("delete", "greeter@v1", "a"));
    // Out of reach is gone, and back is there again: this was the last of its version.
    node.desk.remote(3, "greeter", "b", None);
    assert_eq!(told(call.next().await), one("delete", "greeter@v1", "b"));
    node.desk.remote(3, "greeter", "b", Some(10));
    assert_eq!(told(call.next().await), one("create", "greeter@v1", "b"));
}

#[tokio::test]
async fn what_costs_more_is_no_news_and_what_moved_is() {
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.remote(2, "greeter", "a", Some(10));
    let mut call = watch(&client, "greeter").await;
    node.desk.remote(2, "greeter", "a", Some(900_000));
    let moved = registration("greeter", "v1", "a", "10.9.0.8:4000");
    node.desk.put(id(2), moved, Some(proto::Cost::ZERO));
    let result: pb::Result = call.next().await;
    assert_eq!(result.service.as_ref().unwrap().nodes[0].address, "10.9.0.8:4000");
    assert_eq!(told(result), one("update", "greeter@v1", "a"));
}

#[tokio::test]
async fn a_watch_of_one_service_says_nothing_of_others() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = watch(&client, "wanted").await;
    node.desk.remote(2, "other", "x", Some(10));
    node.desk.remote(2, "wanted", "y", Some(10));
    assert_eq!(told(call.next().await), one("create", "wanted@v1", "y"));
}

#[tokio::test]
async fn a_new_version_comes_before_the_old_one_goes() {
    let node = Node::start().await;
    let client = node.client().await;
    let old = registration("greeter", "v1", "a", "10.0.0.1:1");
    node.desk.put(id(2), old, Some(proto::Cost::ZERO));
    let mut call = watch(&client, "greeter").await;
    // The same instance, of another version: one snapshot holds both changes.
    let new = registration("greeter", "v2", "a", "10.0.0.1:1");
    node.desk.put(id(2), new, Some(proto::Cost::ZERO));
    assert_eq!(told(call.next().await), one("create", "greeter@v2", "a"));
    assert_eq!(told(call.next().await), one("delete", "greeter@v1", "a"));
}

#[tokio::test]
async fn a_watcher_that_falls_behind_ends_up_with_the_truth() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = watch(&client, "").await;
    // Far more than the window of the caller holds, while it reads nothing.
    let wide = "x".repeat(200);
    for round in 0..400 {
        node.desk.remote(2, &format!("s-{}-{wide}", round % 40), &format!("i-{round}"), Some(10));
        if round >= 40 {
            let old = round - 40;
            node.desk.gone(2, &format!("s-{}-{wide}", old % 40), &format!("i-{old}"));
        }
        tokio::task::yield_now().await;
    }
    node.desk.remote(2, "zz-last", "end", Some(10));
    let mut known = BTreeSet::new();
    loop {
        let (action, service, nodes) = told(call.next().await);
        if service == "zz-last@v1" {
            break;
        }
        for instance in nodes {
            match action.as_str() {
                "delete" => assert!(known.remove(&instance), "deleted before told of: {instance}"),
                _ => drop(known.insert(instance)),
            }
        }
    }
    let expected: BTreeSet<_> = (360..400).map(|round| format!("i-{round}")).collect();
    assert_eq!(known, expected);
}

#[tokio::test]
async fn a_client_that_half_closes_with_its_message_is_still_told() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = watch(&client, "").await;
    call.half_close();
    node.desk.remote(2, "greeter", "a", Some(10));
    assert_eq!(told(call.next().await), one("create", "greeter@v1", "a"));
}

#[tokio::test]
async fn a_deadline_ends_a_watch_as_go_micro_says_it() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = client.open(WATCH, &[("grpc-timeout", "50m")]).await;
    call.send(b"");
    let end = call.end().await;
    assert_eq!(end["grpc-status"], "4");
    assert_eq!(crate::client::micro_error(&end)["code"], 408);
}

#[tokio::test]
async fn routes_are_watched_with_what_they_cost() {
    let node = Node::start().await;
    let client = node.client().await;
    let mut call = client.open("/go.micro.router.Router/Watch", &[]).await;
    call.send(b"");
    call.head().await;
    for (cost, kind, metric) in [
        (Some(20_000), router::EventType::Create, 20_000),
        (Some(30_000), router::EventType::Update, 30_000),
        (None, router::EventType::Update, i64::MAX),
    ] {
        node.desk.remote(2, "greeter", "a", cost);
        let event: router::Event = call.next().await;
        assert_eq!((event.r#type(), event.route.unwrap().metric), (kind, metric));
    }
    node.desk.gone(2, "greeter", "a");
    let event: router::Event = call.next().await;
    assert_eq!(event.r#type(), router::EventType::Delete);
}
