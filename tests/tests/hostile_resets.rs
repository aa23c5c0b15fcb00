//! Callers that give up many calls at once (reliability class 3, seen from the service): its HTTP/2 library must find
//! no reason to close a connection on which calls of others go on.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use tests::hostile::patience::Patience;
use tests::hostile::{Alone, until};

/// Streams of one connection of a caller.
const EACH: usize = 50;
/// Calls given up while the node of the service sleeps: more than the 20 that the `h2` crate takes before it
/// closes a connection, and all in a first congestion window.
const ASLEEP: usize = 40;
/// Calls given up while they wait at the service.
const WAITING: usize = 600;
/// Resets for which a server in wide use closes a connection.
const TOO_MANY: usize = 200;

/// A caller of the proxy at `at`.
async fn caller(at: SocketAddr) -> SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(at).await.expect("the node listens");
    let (send, connection) = h2::client::handshake(socket).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    send
}

/// Begins a call of this method.
async fn call(send: &SendRequest<Bytes>, method: &str) -> ResponseFuture {
    let request = Request::post(format!("http://web/web.Say/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let mut ready = send.clone().ready().await.expect("the connection is open");
    ready.send_request(request, true).expect("there is room").0
}

async fn answered(response: ResponseFuture) -> bool {
    let limit = tests::process::PATIENCE;
    let response = tokio::time::timeout(limit, response).await.expect("an answer");
    response.is_ok_and(|response| response.headers()["grpc-status"] == "0")
}

/// Begins so many calls that wait, on as many connections as they need.
async fn many(at: SocketAddr, count: usize) -> Vec<ResponseFuture> {
    let mut all = Vec::new();
    while all.len() < count {
        let send = caller(at).await;
        for _ in 0..EACH.min(count - all.len()) {
            all.push(call(&send, "Wait").await);
        }
    }
    all
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("threads are left")
}

#[test]
fn calls_given_up_at_the_service_are_spread_over_connections_and_others_go_on() {
    let Some(mut node) = Alone::up(&[]) else { return };
    let service = Patience::start();
    node.expose("web", service.address, "grpc");
    runtime().block_on(async {
        let patient = caller(node.proxy).await;
        let stays = call(&patient, "Wait").await;
        until("it waits", || service.count(|c| &c.begun).0 == 1);
        for _ in 0..2 {
            let (begun, resets) = (service.count(|c| &c.begun).0, service.count(|c| &c.resets).0);
            let calls = many(node.proxy, WAITING).await;
            until("all of them wait", || service.count(|c| &c.begun).0 == begun + WAITING);
            drop(calls);
            until("all are reset", || service.count(|c| &c.resets).0 == resets + WAITING);
            assert!(answered(call(&patient, "Echo").await).await);
        }
        service.go();
        assert!(answered(stays).await, "a call beside them was lost");
    });
    let (sum, most) = service.count(|c| &c.resets);
    tests::say(&format!(
        "{sum} resets on {} connections, at most {most} on one",
        service.connections()
    ));
    assert!(most < TOO_MANY, "{most} resets on one connection");
    assert_eq!(service.count(|c| &c.broken).0, 0, "a connection was closed for them");
    assert!(node.running());
}

#[test]
fn calls_given_up_before_they_arrive_are_not_begun() {
    let Some(there) = Alone::up(&[]) else { return };
    let service = Patience::start();
    there.expose("web", service.address, "grpc");
    let ticket = there.invite("*");
    let Some(here) = Alone::up_as(&["--join", "-"], &[], None, format!("{ticket}\n").as_bytes())
    else {
        return;
    };
    here.json(&["network", "wait", "--for", "services=web"]);
    runtime().block_on(async {
        let send = caller(here.proxy).await;
        assert!(answered(call(&send, "Echo").await).await);
        let opened = || here.metric("micro_tunnel_streams_opened_total");
        let (before, begun) = (opened(), service.count(|c| &c.begun).0);
        there.signal("STOP");
        let mut calls = Vec::new();
        for _ in 0..ASLEEP {
            calls.push(call(&send, "Wait").await);
        }
        until("the calls are on their way", || opened() >= before + ASLEEP as f64);
        drop(calls);
        let over = || here.metric("micro_proxy_in_flight ") == 0.0;
        until("the calls are given up", over);
        there.signal("CONT");
        assert!(answered(call(&send, "Echo").await).await);
        let begun = service.count(|c| &c.begun).0 - begun;
        tests::say(&format!("{ASLEEP} calls given up on the way: {} begun", begun - 1));
        assert_eq!(begun, 1, "calls that nobody waits for were begun");
    });
    assert_eq!(service.count(|c| &c.broken).0, 0);
}
