//! Our registry over two real routers: what a program registers at one node is found from the
//! other, and gone there when it is gone. Time is the test's own: a minute passes when it says so.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

#[allow(dead_code, reason = "shared with own_services, which uses all of it")]
#[path = "own_services/client.rs"]
mod client;
#[path = "own_routers/world.rs"]
mod world;

use std::time::Duration;

use proto::micro::registry as pb;

use client::{Call, Client, micro_error};
use prost::Message;
use world::World;

const REGISTER: &str = "/go.micro.registry.Registry/Register";
const DEREGISTER: &str = "/go.micro.registry.Registry/Deregister";
const GET: &str = "/go.micro.registry.Registry/GetService";
const WATCH: &str = "/go.micro.registry.Registry/Watch";

/// What a go-micro v2.9.1 program registers: one node, 60 s, metadata of its parts.
fn greeter(instance: &str) -> pb::Service {
    let pair = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let shape = |name: &str| pb::Value {
        name: name.into(),
        r#type: name.into(),
        values: vec![pb::Value {
            name: "name".into(),
            r#type: "string".into(),
            values: Vec::new(),
        }],
    };
    let endpoint = |name: &str, metadata: Option<(&str, &str)>| pb::Endpoint {
        name: name.into(),
        request: Some(shape("HelloRequest")),
        response: Some(shape("HelloResponse")),
        metadata: metadata.map(pair).into_iter().collect(),
    };
    let metadata = [
        ("broker", "http"),
        ("protocol", "grpc"),
        ("registry", "service"),
        ("server", "grpc"),
        ("transport", "grpc"),
    ];
    pb::Service {
        name: "go.micro.srv.greeter".into(),
        version: "latest".into(),
        metadata: [pair(("owner", "hello"))].into(),
        endpoints: vec![
            endpoint("Say.Hello", None),
            endpoint("Say.Flow", Some(("stream", "true"))),
        ],
        nodes: vec![pb::Node {
            id: format!("go.micro.srv.greeter-{instance}"),
            address: "192.0.2.7:36187".into(),
            port: 0,
            metadata: metadata.map(pair).into(),
        }],
        options: Some(pb::Options { ttl: 60, ..Default::default() }),
    }
}

async fn register(client: &Client, service: pb::Service) {
    let _: pb::EmptyResponse = client.unary(REGISTER, service).await.unwrap();
}

async fn get(client: &Client, service: &str) -> Result<pb::GetResponse, http::HeaderMap> {
    client.unary(GET, pb::GetRequest { service: service.into(), ..Default::default() }).await
}

async fn watch(client: &Client, service: &str) -> Call {
    let mut call = client.open(WATCH, &[]).await;
    call.send(&pb::WatchRequest { service: service.into(), ..Default::default() }.encode_to_vec());
    call.head().await;
    call
}

async fn told(call: &mut Call) -> (String, Vec<String>) {
    let result: pb::Result = call.next().await;
    let nodes = result.service.unwrap().nodes.into_iter();
    (result.action, nodes.map(|node| node.id.replace("go.micro.srv.greeter-", "")).collect())
}

fn one(action: &str, node: &str) -> (String, Vec<String>) {
    (action.to_owned(), vec![node.to_owned()])
}

#[tokio::test]
async fn what_registers_at_one_node_is_found_whole_from_the_other() {
    let world = World::new().await;
    let (here, there) = (world.client(0).await, world.client(1).await);
    register(&here, greeter("a")).await;
    world.pass(Duration::from_secs(1));
    let expected = [pb::Service { options: None, ..greeter("a") }];
    for client in [&here, &there] {
        let found = get(client, "go.micro.srv.greeter").await.unwrap();
        assert_eq!(found.services, expected);
    }
    // A second instance, at the other node: one version, two nodes, from everywhere.
    register(&there, greeter("b")).await;
    world.pass(Duration::from_secs(1));
    for client in [&here, &there] {
        let found = get(client, "go.micro.srv.greeter").await.unwrap();
        assert_eq!((found.services.len(), found.services[0].nodes.len()), (1, 2));
    }
    let _: pb::EmptyResponse = here.unary(DEREGISTER, greeter("a")).await.unwrap();
    world.pass(Duration::from_secs(1));
    let found = get(&there, "go.micro.srv.greeter").await.unwrap();
    assert_eq!(found.services[0].nodes.len(), 1);
    assert!(found.services[0].nodes[0].id.ends_with("-b"));
}

#[tokio::test]
async fn a_program_reads_what_it_wrote_at_once() {
    let world = World::new().await;
    let client = world.client(0).await;
    for instance in ["a", "b", "c"] {
        register(&client, greeter(instance)).await;
        let found = get(&client, "go.micro.srv.greeter").await.unwrap();
        assert!(found.services[0].nodes.iter().any(|node| node.id.ends_with(instance)));
    }
}

#[tokio::test]
async fn a_lease_that_runs_out_is_a_delete_at_every_node_and_one_renewed_is_no_news() {
    let world = World::new().await;
    let (here, there) = (world.client(0).await, world.client(1).await);
    let mut near = watch(&here, "").await;
    let mut far = watch(&there, "go.micro.srv.greeter").await;
    register(&here, greeter("a")).await;
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&mut near).await, one("create", "a"));
    assert_eq!(told(&mut far).await, one("create", "a"));
    for _ in 0..4 {
        world.pass(Duration::from_secs(30));
        register(&here, greeter("a")).await;
    }
    assert!(get(&there, "go.micro.srv.greeter").await.is_ok(), "renewed every half of its term");
    register(&here, greeter("b")).await;
    world.pass(Duration::from_secs(1));
    // Nothing of the renewals was told, or it would come first.
    assert_eq!(told(&mut near).await, one("update", "b"));
    assert_eq!(told(&mut far).await, one("update", "b"));
    world.pass(Duration::from_secs(30));
    register(&here, greeter("b")).await;
    world.pass(Duration::from_secs(35));
    assert_eq!(told(&mut near).await, one("delete", "a"));
    assert_eq!(told(&mut far).await, one("delete", "a"));
    world.pass(Duration::from_secs(60));
    assert_eq!(told(&mut far).await, one("delete", "b"));
    assert_eq!(micro_error(&get(&there, "go.micro.srv.greeter").await.unwrap_err())["code"], 404);
}

#[tokio::test]
async fn a_lost_link_takes_the_instances_behind_it_away_and_its_return_brings_them_back() {
    let world = World::new().await;
    let (here, there) = (world.client(0).await, world.client(1).await);
    let forever = pb::Service { options: None, ..greeter("a") };
    register(&here, forever).await;
    world.pass(Duration::from_secs(1));
    let mut far = watch(&there, "").await;
    world.cut();
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&mut far).await, one("delete", "a"));
    let error = micro_error(&get(&there, "go.micro.srv.greeter").await.unwrap_err());
    assert_eq!(error["code"], 404);
    assert!(get(&here, "go.micro.srv.greeter").await.is_ok());
    world.heal();
    world.pass(Duration::from_secs(5));
    assert_eq!(told(&mut far).await, one("create", "a"));
}

#[tokio::test]
async fn what_the_grant_does_not_cover_is_refused_in_the_words_of_the_router() {
    let world = World::granting(&["go.micro.srv.*"]).await;
    let client = world.client(0).await;
    register(&client, greeter("a")).await;
    let other = pb::Service { name: "payments".into(), ..greeter("a") };
    let end = client.unary::<pb::EmptyResponse>(REGISTER, other).await.unwrap_err();
    assert_eq!(end["grpc-status"], "7");
    let error = micro_error(&end);
    assert_eq!(error["detail"], "the grant of this node does not cover this service");
    assert_eq!((&error["id"], &error["code"]), (&"go.micro.registry".into(), &403.into()));
    world.pass(Duration::from_secs(1));
    assert!(get(&client, "payments").await.is_err());
}
