//! Why a call goes where it goes: asked beforehand, and told with the answer.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use common::grpc::Client;
use common::service::{Seen, Service};
use common::{PLACES, Place, World, nobody, soon};
use proto::record::Protocol;
use proto::rule::{Actions, Condition, Rule};
use proto::{LabelSet, Selector};
use proxy::explain::Route;
use proxy::{Explanation, Spoken};
use router::{Headers, RequestView};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct NoHeaders;

impl Headers for NoHeaders {
    fn get(&self, _: &str) -> Option<&str> {
        None
    }
}

fn why(world: &World, selector: &str) -> Explanation {
    let (none, selector): (_, Selector) = (LabelSet::default(), selector.parse().unwrap());
    let view = RequestView {
        endpoint: "Say.Echo",
        headers: &NoHeaders,
        caller: "",
        node_name: "here",
        node_id: "",
        node_labels: &none,
        selector: &selector,
        chance: 1,
    };
    world.here.proxy.explain(&world.here.routes(), "greeter", &view, Spoken::Grpc, None)
}

const TRACED: (&str, &str) = ("micro-trace", "route");

fn route(header: Option<&str>) -> Route {
    Route::read(&header.expect("the route is told").parse().unwrap()).expect("it can be read")
}

#[tokio::test]
async fn an_instance_that_took_no_call_is_out_and_the_explanation_says_since_when_and_why() {
    let world = World::new().await;
    let service = Service::start().await;
    let dead = nobody().await;
    world.offer("greeter", Place::Here, dead, Protocol::Grpc);
    world.offer("greeter", Place::Here, service.address, Protocol::Grpc);
    world.offer_with(
        "greeter",
        Place::There,
        service.address,
        Protocol::Grpc,
        &[("version", "v2")],
    );
    world.offer("greeter", Place::Here, service.address, Protocol::Http1);
    let before = why(&world, "");
    let states: Vec<_> = before.candidates.iter().map(|one| &*one.state).collect();
    assert_eq!(states, ["nearest", "nearest", "protocol", "farther"]);
    assert!(before.candidates.iter().all(|one| one.load.is_none()), "nothing was called yet");

    let client = Client::connect(world.here.address).await;
    let at_dead = |one: &&proxy::explain::Candidate| one.address == dead.to_string();
    // Whichever is drawn first, the dead one is found out.
    let told = loop {
        assert_eq!(client.unary("/greeter.Say/Echo", &[], b"x").await.status(), Some("0"));
        let told = why(&world, "");
        if told.candidates.iter().find(at_dead).unwrap().state != "nearest" {
            break told;
        }
    };
    let one = told.candidates.iter().find(at_dead).unwrap();
    assert_eq!((&*one.state, one.nearest), ("refusing", false));
    assert!(one.verdict.starts_with("out: it took no call; asked again in 0."), "{}", one.verdict);
    let changed = &told.changed[0];
    assert_eq!((&*changed.node_name, &*changed.address), ("here", &*dead.to_string()));
    assert_eq!(changed.what, "out: it took no call");
    let good = told.candidates.iter().find(|one| one.state == "nearest").unwrap();
    let load = good.load.as_ref().unwrap();
    assert!(good.nearest && load.latency_us.is_some() && load.success_percent == 100);
    assert_eq!((load.wait_us, load.network_us), (load.load_us, 0), "it is on this node");

    let told = why(&world, "version=v2");
    let states: Vec<_> = told.candidates.iter().map(|one| &*one.state).collect();
    assert_eq!(states, ["lacks", "lacks", "lacks", "nearest"]);
    assert!(told.candidates[3].nearest);
}

#[tokio::test]
async fn a_traced_call_is_told_which_way_it_took_and_why_and_the_service_sees_no_trace() {
    for place in PLACES {
        let world = World::new().await;
        let mut service = Service::start().await;
        let version = [("version", "v2")];
        world.offer_with("greeter", place, service.address, Protocol::Grpc, &version);
        world.rule(
            "greeter",
            vec![Rule {
                name: "new".to_owned(),
                when: Condition::default(),
                then: Actions { select: "version=v2".parse().unwrap(), ..Actions::default() },
            }],
        );
        let client = Client::connect(world.here.address).await;
        let headers = [TRACED, ("micro-colour", "red"), ("micro-hop", "1")];
        let answer = client.unary("/greeter.Say/Echo", &headers, b"x").await;
        let route = route(answer.header("micro-route"));
        assert_eq!(
            (&*route.node, route.attempts.len(), route.cut),
            ("here", 1, false),
            "{route:?}"
        );
        let attempt = &route.attempts[0];
        let there = place == Place::There;
        assert_eq!((&*attempt.node, attempt.here), (if there { "there" } else { "here" }, !there));
        assert_eq!(attempt.status, Some(200));
        assert_eq!(attempt.at_node.is_some(), there);
        if let Some(part) = attempt.at_node {
            assert!(part.before_us + part.instance_us <= attempt.took_us, "{route:?}");
        }
        assert!(attempt.began_us + attempt.took_us <= route.took_us);
        assert_eq!((&*route.why.rules[0].rule, route.why.rules[0].matches), ("new", true));
        assert_eq!(route.why.revision, Some(1));
        assert_eq!(route.why.candidates[0].state, "chosen");
        let ignored: Vec<_> = route.why.ignored.iter().map(|one| &*one.header).collect();
        assert_eq!(ignored, ["micro-hop", "micro-colour"]);
        let Seen::Request(seen) = service.next().await else { panic!("a request first") };
        assert!(!seen.contains_key("micro-trace"));

        // Unless it is asked to travel on.
        let headers = [TRACED, ("micro-sticky", "trace")];
        client.unary("/greeter.Say/Echo", &headers, b"x").await;
        loop {
            if let Seen::Request(seen) = service.next().await {
                assert_eq!(seen["micro-trace"], "route");
                break;
            }
        }
        let answer = client.unary("/greeter.Say/Echo", &[], b"x").await;
        assert_eq!(answer.header("micro-route"), None, "only to those who ask");
    }
}

#[tokio::test]
async fn a_traced_call_that_fails_is_told_which_instances_were_asked_in_vain() {
    let world = World::new().await;
    world.offer("greeter", Place::There, nobody().await, Protocol::Grpc);
    let client = Client::connect(world.here.address).await;
    let answer = client.unary("/greeter.Say/Echo", &[TRACED], b"x").await;
    assert_eq!(answer.header("micro-error"), Some("M1004"));
    let route = route(answer.header("micro-route"));
    assert_eq!((&*route.attempts[0].node, &*route.attempts[0].code), ("there", "M1004"));
    assert!(route.attempts[0].error.contains("took no connection"), "{route:?}");
    assert_eq!(route.attempts[0].status, None);
}

#[tokio::test]
async fn a_traced_call_to_a_silent_instance_is_told_where_it_waited() {
    let world = World::new().await;
    let service = Service::start().await;
    world.offer("greeter", Place::There, service.address, Protocol::Grpc);
    let client = Client::connect(world.here.address).await;
    let headers = [TRACED, ("grpc-timeout", "200m")];
    let answer = client.unary("/greeter.Say/Wait", &headers, b"x").await;
    assert_eq!(answer.header("micro-error"), Some("M1005"));
    let route = route(answer.header("micro-route"));
    let attempt = &route.attempts[0];
    assert_eq!((&*attempt.node, &*attempt.code, attempt.status), ("there", "M1005", None));
    assert!(attempt.took_us >= 100_000, "it waited for most of the deadline: {route:?}");
}

#[tokio::test]
async fn a_traced_call_over_http1_is_told_its_way_and_a_service_cannot_tell_another() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let liar = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = socket.read(&mut head).await;
            let answer = "HTTP/1.1 200 OK\r\nmicro-route: {}\r\nx-micro-route: {}\r\n\
                content-length: 2\r\nconnection: close\r\n\r\nhi";
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    for (place, traced) in [(Place::There, true), (Place::There, false), (Place::Here, false)] {
        let name = format!("web-{place:?}-{traced}");
        world.offer(&name, place, liar, Protocol::Http1);
        let mut socket = TcpStream::connect(world.here.address).await.unwrap();
        let trace = if traced { "micro-trace: route\r\n" } else { "" };
        let request = format!("GET / HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n{trace}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.ends_with("\r\n\r\nhi"), "{answer}");
        let mut told = answer.split("\r\n").filter(|line| line.contains("micro-route"));
        let header = told.next().and_then(|line| line.strip_prefix("micro-route: "));
        assert_eq!((header.is_some(), told.next()), (traced, None), "{answer}");
        if traced {
            let route = route(header);
            assert_eq!((&*route.node, &*route.attempts[0].node), ("here", "there"));
            assert!(route.attempts[0].at_node.is_some());
        }
    }
}

/// One HTTP/1.1 request for `greeter`, its answer whole.
async fn http(world: &World, headers: &str) -> String {
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: greeter\r\nconnection: close\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    answer
}

async fn three() -> World {
    let world = World::new().await;
    for version in ["v2", "v1", "v2"] {
        let labels = [("version", version)];
        world.offer_with("greeter", Place::There, nobody().await, Protocol::Http1, &labels);
    }
    world
}

#[tokio::test]
async fn what_there_is_instead_is_said_on_every_face() {
    let world = three().await;
    let said = "3 instances exist, none with version=v3; closest: v2 x2, v1";
    let answer = http(&world, "micro-version: v3\r\nmicro-trace: route\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(said), "{answer}");
    let lines = answer.split("\r\n");
    let header = lines.filter_map(|line| line.strip_prefix("micro-route: ")).next();
    let told = route(header);
    assert_eq!(told.why.none.as_deref(), Some(said), "one value for both");
    assert!(told.attempts.is_empty());
    let answer = http(&world, "micro-version: v3\r\naccept: application/json\r\n").await;
    assert!(answer.contains("problem+json") && answer.contains(said), "{answer}");
    let client = Client::connect(world.here.address).await;
    let answer = client.unary("/greeter.Say/Echo", &[("micro-version", "v3")], b"").await;
    assert_eq!(answer.status(), Some("5"));
    assert!(answer.header("grpc-message").unwrap().contains(said), "{answer:?}");
    let details = answer.header("grpc-status-details-bin").unwrap();
    let details = data_encoding::BASE64_NOPAD.decode(details.as_bytes()).unwrap();
    assert!(String::from_utf8_lossy(&details).contains(said));
    // HTTP/2 without gRPC.
    let socket = TcpStream::connect(world.here.address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::get("http://greeter/").header("micro-version", "v3");
    let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 404);
    let text = soon(response.into_body().data()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&text).contains(said));
}

#[tokio::test]
async fn a_call_in_a_protocol_that_nobody_speaks_is_told_what_is_spoken() {
    let world = three().await;
    let client = Client::connect(world.here.address).await;
    let answer = client.unary("/greeter.Say/Echo", &[], b"").await;
    let said = "3 instances exist, none with protocol in (grpc,http2,mucp); closest: http x3";
    assert!(answer.header("grpc-message").unwrap().contains(said), "{answer:?}");
}

#[tokio::test]
async fn what_a_rule_requires_and_nobody_has_is_said_to_be_lacking() {
    let world = three().await;
    let then = Actions { select: "tier=gold".parse().unwrap(), ..Actions::default() };
    let when = Condition::default();
    world.rule("greeter", vec![Rule { name: "gold".to_owned(), when, then }]);
    let answer = http(&world, "").await;
    let said = "no instance of greeter matches tier=gold: 3 instances exist, none with tier=gold";
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains(said), "{answer}");
}
