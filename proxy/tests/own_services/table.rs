//! The table that programs write through `go.micro.router`: what they write is what real calls take.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use proto::micro::{network, registry, router as pb};
use serde_json::json;

use crate::client::{Client, micro_error, within};
use crate::node::{Node, id};

const CREATE: &str = "/go.micro.router.Table/Create";
const UPDATE: &str = "/go.micro.router.Table/Update";
const DELETE: &str = "/go.micro.router.Table/Delete";
const LIST: &str = "/go.micro.router.Table/List";
const QUERY: &str = "/go.micro.router.Table/Query";
const LOOKUP: &str = "/go.micro.router.Router/Lookup";
const PROCESS: &str = "/go.micro.router.Router/Process";

/// A gRPC service that answers every call with its name.
async fn named(name: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let head = Response::builder().header("content-type", "application/grpc");
                    let head = head.header("x-name", name).header("micro-route", "mine");
                    let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    send.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", "0".parse().unwrap());
                    send.send_trailers(trailers).unwrap();
                }
            });
        }
    });
    address
}

fn route(service: &str, address: impl ToString) -> pb::Route {
    let (service, address) = (service.to_owned(), address.to_string());
    pb::Route { service, address, metric: 1, ..Default::default() }
}

/// Who answers a call of a service, or the code of micro's error.
async fn who(client: &Client, service: &str, headers: &[(&str, &str)]) -> String {
    let mut call = client.open(&format!("/{service}.Say/Hello"), headers).await;
    call.send(b"");
    match call.only().await {
        Ok(_) => call.headers["x-name"].to_str().unwrap().to_owned(),
        Err(end) => end["micro-error"].to_str().unwrap().to_owned(),
    }
}

async fn write(client: &Client, path: &str, route: pb::Route) -> Result<(), HeaderMap> {
    client.unary::<pb::Response>(path, route).await.map(drop)
}

async fn query(client: &Client, path: &str, query: pb::Query) -> Vec<pb::Route> {
    let request = pb::QueryRequest { query: Some(query) };
    client.unary::<pb::QueryResponse>(path, request).await.unwrap().routes
}

#[tokio::test]
async fn a_route_that_a_program_creates_is_taken_by_real_calls_until_it_is_deleted() {
    let node = Node::start().await;
    let client = node.client().await;
    assert_eq!(who(&client, "shop", &[]).await, "M1203");
    let one = named("one").await;
    write(&client, CREATE, route("shop", one)).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "one", "before the answer of Create is read");

    let end = write(&client, CREATE, route("shop", one)).await.unwrap_err();
    assert_eq!(
        (&micro_error(&end)["code"], &micro_error(&end)["detail"]),
        (&json!(400), &json!("route already exists"))
    );
    let all =
        query(&client, QUERY, pb::Query { service: "shop".into(), ..Default::default() }).await;
    assert_eq!(all.len(), 1);
    assert_eq!((&*all[0].network, &*all[0].link, all[0].metric), ("test", "local", 1));
    assert_eq!(all[0].router, id(1).to_string(), "what the client library drops is this node's");

    // Out of reach, as go-micro says it, and back.
    let far = pb::Route { metric: i64::MAX, ..route("shop", one) };
    write(&client, UPDATE, far).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "M1003");
    write(&client, UPDATE, pb::Route { metric: 7, ..route("shop", one) }).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "one");
    assert_eq!(
        query(&client, LOOKUP, pb::Query { service: "shop".into(), ..Default::default() }).await[0]
            .metric,
        7
    );

    // It is a route, not a registration.
    let found: registry::ListResponse = client
        .unary("/go.micro.registry.Registry/ListServices", registry::ListRequest::default())
        .await
        .unwrap();
    assert!(found.services.is_empty(), "{found:?}");

    write(&client, DELETE, route("shop", one)).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "M1203");
    let end = write(&client, DELETE, route("shop", one)).await.unwrap_err();
    assert_eq!(micro_error(&end)["code"], 404);
}

#[tokio::test]
async fn a_default_route_is_for_names_that_nobody_offers() {
    let node = Node::start().await;
    let client = node.client().await;
    let (known, any) = (named("known").await, named("any").await);
    write(&client, CREATE, route("shop", known)).await.unwrap();
    write(&client, CREATE, route("*", any)).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "known");
    assert_eq!(who(&client, "whatever", &[]).await, "any");
    let of = |service: &str| pb::Query { service: service.into(), ..Default::default() };
    assert_eq!(query(&client, LOOKUP, of("whatever")).await[0].service, "*");
    assert!(query(&client, QUERY, of("whatever")).await.is_empty(), "the table is asked literally");
    let all: pb::ListResponse = client.unary(LIST, pb::Request {}).await.unwrap();
    assert_eq!(all.routes.len(), 2);
    let services: network::ServicesResponse = client
        .unary("/go.micro.network.Network/Services", network::ServicesRequest {})
        .await
        .unwrap();
    assert_eq!(services.services, ["shop"], "as go-micro, without the default route");
}

#[tokio::test]
async fn the_filters_of_go_micro_keep_only_routes_that_are_equal() {
    let node = Node::start().await;
    node.desk.link(&[1, 2], &[(1, 2, 10)]);
    let client = node.client().await;
    let (ours, theirs) = (named("ours").await, named("theirs").await);
    write(&client, CREATE, route("shop", ours)).await.unwrap();
    let other = pb::Route {
        network: "other".into(),
        router: "r-9".into(),
        gateway: theirs.to_string(),
        ..route("shop", "10.255.255.1:9")
    };
    write(&client, CREATE, other).await.unwrap();
    let (me, gateway) = (id(1).to_string(), theirs.to_string());
    for (headers, answer) in [
        (("micro-network", "test"), "ours"),
        (("micro-network", "other"), "theirs"),
        (("micro-network", "none"), "M1002"),
        (("micro-router", &*me), "ours"),
        (("micro-router", "node-1"), "ours"),
        (("micro-router", "r-9"), "theirs"),
        (("micro-gateway", &*gateway), "theirs"),
        (("micro-gateway", "node-1"), "ours"),
        (("micro-gateway", "node-2"), "M1002"),
    ] {
        for _ in 0..4 {
            assert_eq!(who(&client, "shop", &[headers]).await, answer, "{headers:?}");
        }
    }
    let headers = [("micro-network", "other"), ("micro-trace", "route")];
    let mut call = client.open("/shop.Say/Hello", &headers).await;
    call.send(b"");
    call.only().await.unwrap();
    let route = proxy::explain::Route::read(&call.headers["micro-route"]).unwrap();
    let mut states: Vec<_> = route.why.candidates.iter().map(|one| &*one.state).collect();
    states.sort_unstable();
    assert_eq!(states, ["chosen", "other-route"], "and it is our route, not the service's");
    let mut call = client.open("/shop.Say/Hello", &[("micro-network", "none")]).await;
    call.send(b"");
    let end = call.only().await.unwrap_err();
    let detail = micro_error(&end)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("2 instances exist, none with Micro-Network=none"), "{detail}");

    let by = |gateway: &str, network: &str| pb::Query {
        service: "shop".into(),
        gateway: gateway.into(),
        network: network.into(),
    };
    assert_eq!(query(&client, LOOKUP, by("", "")).await.len(), 2);
    assert_eq!(query(&client, LOOKUP, by("*", "other")).await[0].router, "r-9");
    assert_eq!(query(&client, QUERY, by(&gateway, "*")).await.len(), 1);
    assert!(query(&client, QUERY, by(&gateway, "test")).await.is_empty());
}

#[tokio::test]
async fn what_another_router_advertises_counts_for_as_long_as_it_says() {
    let node = Node::start().await;
    let client = node.client().await;
    let event = |timestamp, kind: pb::EventType, route| pb::Event {
        timestamp,
        r#type: kind.into(),
        route: Some(route),
        ..Default::default()
    };
    let (one, two) = (named("one").await, named("two").await);
    let advert = pb::Advert {
        id: "elsewhere".into(),
        // Long enough for the calls below, short enough to wait for.
        ttl: 500_000_000,
        events: vec![
            event(3, pb::EventType::Delete, route("shop", two)),
            event(2, pb::EventType::Create, route("shop", two)),
            event(1, pb::EventType::Create, route("shop", one)),
        ],
        ..Default::default()
    };
    let mut watch = client.open("/go.micro.router.Router/Watch", &[]).await;
    watch.send(b"");
    watch.head().await;
    let _: pb::ProcessResponse = client.unary(PROCESS, advert.clone()).await.unwrap();
    assert_eq!(who(&client, "shop", &[]).await, "one", "by the order of time, not of the list");
    let told: pb::Event = watch.next().await;
    assert_eq!(
        (told.r#type(), told.route.unwrap().address),
        (pb::EventType::Create, one.to_string())
    );
    let told: pb::Event = watch.next().await;
    assert_eq!(
        (told.r#type(), told.route.unwrap().address),
        (pb::EventType::Delete, one.to_string())
    );
    assert_eq!(who(&client, "shop", &[]).await, "M1203", "gone when its time is over");

    let bad =
        pb::Advert { events: vec![event(1, pb::EventType::Create, route("shop", "x"))], ..advert };
    let end = client.unary::<pb::ProcessResponse>(PROCESS, bad).await.unwrap_err();
    assert_eq!(micro_error(&end)["code"], 400);
}

#[tokio::test]
async fn what_this_node_offers_is_advertised_whole_and_then_as_it_changes() {
    let node = Node::start().await;
    let client = node.client().await;
    node.desk.remote(2, "far", "a", Some(10));
    let (one, two) = (named("one").await, named("two").await);
    write(&client, CREATE, route("shop", one)).await.unwrap();
    let mut call = client.open("/go.micro.router.Router/Advertise", &[]).await;
    call.send(b"");
    let first: pb::Advert = call.next().await;
    assert_eq!((first.r#type(), first.id), (pb::AdvertType::AdvertAnnounce, id(1).to_string()));
    assert_eq!(first.ttl, 120_000_000_000);
    let services: Vec<_> =
        first.events.into_iter().map(|event| event.route.unwrap().service).collect();
    assert_eq!(services, ["shop"], "what others offer they advertise themselves");
    write(&client, CREATE, route("shop", two)).await.unwrap();
    let next: pb::Advert = call.next().await;
    assert_eq!(next.r#type(), pb::AdvertType::AdvertUpdate);
    assert_eq!(next.events[0].route.as_ref().unwrap().address, two.to_string());
    call.reset();
}

#[tokio::test]
async fn who_is_not_on_this_machine_reads_and_does_not_write() {
    let node = Node::start_bare().await;
    let client = node.client().await;
    for path in [CREATE, UPDATE, DELETE, PROCESS] {
        let end = client.unary::<pb::Response>(path, pb::Request {}).await.unwrap_err();
        let error = micro_error(&end);
        assert_eq!((&end["grpc-status"], &error["code"]), (&"7".parse().unwrap(), &json!(403)));
        assert!(error["detail"].as_str().unwrap().contains("over the loopback"), "{path}");
    }
    let all: pb::ListResponse = client.unary(LIST, pb::Request {}).await.unwrap();
    assert!(all.routes.is_empty());
}

#[tokio::test]
async fn the_table_is_bounded() {
    let node = Node::start().await;
    let client = node.client().await;
    let events = (1..=1025).map(|port| pb::Event {
        route: Some(route("shop", format!("10.255.255.1:{port}"))),
        ..Default::default()
    });
    let advert = pb::Advert { events: events.collect(), ..Default::default() };
    let end = client.unary::<pb::ProcessResponse>(PROCESS, advert.clone()).await.unwrap_err();
    assert_eq!(micro_error(&end)["code"], 413);
    let events = advert.events[..1024].to_vec();
    let fits = pb::Advert { events, ..advert };
    let _: pb::ProcessResponse = within(client.unary(PROCESS, fits)).await.unwrap();
    let end = write(&client, CREATE, route("shop", "10.255.255.2:1")).await.unwrap_err();
    assert_eq!(micro_error(&end)["code"], 429);
    let all: pb::ListResponse = client.unary(LIST, pb::Request {}).await.unwrap();
    assert_eq!(all.routes.len(), 1024, "what was there before is there");
    tokio::time::timeout(Duration::from_secs(20), who(&client, "nobody", &[])).await.unwrap();
}
