//! Retries and hedges of real calls, within their budget.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::grpc::Client;
use common::service::{Seen, Service};
use common::{PLACES, Place, World, nobody, soon};
use prometheus_client::registry::Registry;
use proto::UnixTime;
use proto::record::Protocol;
use proto::rule::{Actions, Divert, Rule};

/// Calls after which a service's latencies are known well enough for hedging.
const KNOWN: usize = 100;

async fn two(place: Place) -> (World, [Service; 2], Client) {
    let world = World::new().await;
    let services = [Service::start().await, Service::start().await];
    for service in &services {
        world.offer("greeter", place, service.address, Protocol::Grpc);
    }
    let client = Client::connect(world.here.address).await;
    for _ in 0..KNOWN {
        assert_eq!(client.unary("/greeter.Say/Echo", &[], b"hello").await.status(), Some("0"));
    }
    (world, services, client)
}

#[tokio::test]
async fn a_slow_instance_is_overtaken_when_the_call_is_idempotent_and_its_part_is_cancelled() {
    for place in PLACES {
        let (_world, [mut one, mut other], client) = two(place).await;
        let race = format!("overtaken {place:?}");
        let headers = [("micro-idempotent", "true"), ("x-race", &*race)];
        let answer = client.unary("/greeter.Say/Race", &headers, b"hello").await;
        assert_eq!(answer.messages, ["hello"], "{place:?}");
        assert_eq!(answer.status(), Some("0"));
        tokio::select! {
            () = one.saw(&Seen::Reset) => {}
            () = other.saw(&Seen::Reset) => {}
        }
    }
}

#[tokio::test]
async fn a_call_that_is_not_idempotent_is_sent_once_however_long_it_takes() {
    let (world, _services, client) = two(Place::There).await;
    let headers = [("grpc-timeout", "300m"), ("x-race", "once")];
    let answer = client.unary("/greeter.Say/Race", &headers, b"hello").await;
    assert_eq!(answer.status(), Some("4"));
    assert_eq!(counted(&world, "proxy_hedges_total"), 0);
}

#[tokio::test]
async fn a_slow_call_that_a_rule_sends_somewhere_is_not_answered_from_elsewhere() {
    let world = World::new().await;
    let services = [Service::start().await, Service::start().await];
    for (service, place) in services.iter().zip(PLACES) {
        world.offer("greeter", place, service.address, Protocol::Grpc);
    }
    let client = Client::connect(world.here.address).await;
    for _ in 0..KNOWN {
        assert_eq!(client.unary("/greeter.Say/Echo", &[], b"hello").await.status(), Some("0"));
    }
    let divert = Divert { node: world.there.id, until: UnixTime(u64::MAX >> 8) };
    let then = Actions { divert: Some(divert), ..Actions::default() };
    world.rule("greeter", vec![Rule { name: "divert".to_owned(), then, ..Rule::default() }]);
    let headers = [("micro-idempotent", "true"), ("grpc-timeout", "300m"), ("x-race", "diverted")];
    let answer = client.unary("/greeter.Say/Race", &headers, b"hello").await;
    assert_eq!(answer.status(), Some("4"), "{answer:?}");
    assert_eq!(counted(&world, "proxy_hedges_total"), 0);
}

#[tokio::test]
async fn an_idempotent_stream_that_is_still_being_sent_is_not_hedged_and_not_held_back() {
    let (_world, _services, client) = two(Place::There).await;
    let mut call = client.call("/greeter.Say/Mirror", &[("micro-idempotent", "true")]);
    call.say(b"one");
    let (_open, response) = call.head().await;
    let mut body = response.into_body();
    let mut reader = common::grpc::Reader::default();
    assert_eq!(soon(reader.next(&mut body)).await.unwrap(), "one");
}

#[tokio::test]
async fn when_nobody_listens_retries_stay_within_a_fifth_and_each_call_is_answered() {
    let world = World::new().await;
    for _ in 0..3 {
        world.offer("greeter", Place::Here, nobody().await, Protocol::Grpc);
    }
    let client = Client::connect(world.here.address).await;
    const CALLS: u64 = 200;
    for _ in 0..CALLS {
        let answer = client.unary("/greeter.Say/Echo", &[], b"hello").await;
        assert_eq!(answer.status(), Some("14"));
        assert_eq!(answer.header("micro-error"), Some("M1004"));
    }
    let retries = counted(&world, "proxy_retries_total");
    // The floor is what a node may always spend, once.
    assert!(retries <= CALLS / 5 + 10, "{retries} retries of {CALLS} calls");
    assert!(counted(&world, "proxy_retries_denied_total") > 0);
}

fn counted(world: &World, name: &str) -> u64 {
    let mut registry = Registry::default();
    world.here.proxy.metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}
