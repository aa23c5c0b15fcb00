//! HTTP/1.1 and HTTP/2 through the proxy: the same over one node as over two.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use common::{PLACES, Place, World, nobody, soon};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proto::record::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Any = BoxBody<Bytes, Infallible>;

const BIG: usize = 30 * 1024 * 1024;

/// A web server that shows what it was asked.
async fn web(protocol: Protocol) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let io = TokioIo::new(socket);
            let service = service_fn(|request| async { Ok::<_, Infallible>(page(request).await) });
            if protocol == Protocol::Http1 {
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(io, service));
            } else {
                let executor = hyper_util::rt::TokioExecutor::new();
                let http = hyper::server::conn::http2::Builder::new(executor);
                tokio::spawn(http.serve_connection(io, service));
            }
        }
    });
    address
}

fn full(text: impl Into<Bytes>) -> Any {
    Full::new(text.into()).boxed()
}

async fn page(request: Request<Incoming>) -> Response<Any> {
    let method = request.method().clone();
    let host = request.headers().get("host").cloned();
    let host = host.or(request.uri().authority().map(|a| a.as_str().parse().unwrap()));
    match request.uri().path() {
        "/" => {
            let mut response = Response::new(full("hello"));
            response.headers_mut().insert("x-host", host.unwrap());
            response.headers_mut().insert("x-method", method.as_str().parse().unwrap());
            if let Some(range) = request.headers().get("range") {
                response.headers_mut().insert("x-range", range.clone());
            }
            response.headers_mut().insert("connection", HeaderValue::from_static("keep-alive"));
            response
        }
        "/304" => Response::builder().status(304).header("etag", "\"1\"").body(full("")).unwrap(),
        "/204" => Response::builder().status(204).body(full("")).unwrap(),
        "/500" => {
            let broken = Response::builder().status(500).header("micro-error", "M0001");
            broken.body(full("mine")).unwrap()
        }
        "/mirror" => Response::new(
            request.into_body().map_err(|error| panic!("a request body broke: {error}")).boxed(),
        ),
        "/big" => {
            let chunk = Bytes::from(vec![b'z'; 64 * 1024]);
            let frames = (0..BIG / chunk.len()).map(move |_| Ok(Frame::data(chunk.clone())));
            let stream = StreamBody::new(futures_util::stream::iter(frames));
            Response::new(BodyExt::boxed(stream))
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("42"));
            let frames = [Ok(Frame::data(Bytes::from("body"))), Ok(Frame::trailers(trailers))];
            let stream = StreamBody::new(futures_util::stream::iter(frames));
            Response::builder().header("trailer", "x-sum").body(BodyExt::boxed(stream)).unwrap()
        }
        path => panic!("no page {path}"),
    }
}

/// A caller over HTTP/1.1 or HTTP/2.
enum Caller {
    One(hyper::client::conn::http1::SendRequest<Any>),
    Two(hyper::client::conn::http2::SendRequest<Any>),
}

impl Caller {
    async fn one(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        Self::One(send)
    }

    async fn two(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (send, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        Self::Two(send)
    }

    async fn ask(&mut self, method: &str, path: &str, body: Any) -> Response<Incoming> {
        let request = Request::builder().method(method).header("range", "bytes=0-");
        match self {
            Self::One(send) => {
                let request = request.uri(path).header("host", "web.localhost:8081");
                soon(send.ready()).await.unwrap();
                soon(send.send_request(request.body(body).unwrap())).await.unwrap()
            }
            Self::Two(send) => {
                let request = request.uri(format!("http://web.localhost:8081{path}"));
                let request = request.header("te", "trailers");
                soon(send.send_request(request.body(body).unwrap())).await.unwrap()
            }
        }
    }
}

async fn text(response: Response<Incoming>) -> (Bytes, HeaderMap) {
    let collected = soon(response.into_body().collect()).await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    (collected.to_bytes(), trailers)
}

/// Every way a caller and a service can speak, on both places.
async fn ways() -> Vec<(String, World, Caller)> {
    let mut ways = Vec::new();
    for place in PLACES {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for version in [1, 2] {
                let world = World::new().await;
                world.offer("web", place, web(protocol).await, protocol);
                let address = world.here.address;
                let caller = match version {
                    1 => Caller::one(address).await,
                    _ => Caller::two(address).await,
                };
                ways.push((format!("HTTP/{version} to {protocol:?} {place:?}"), world, caller));
            }
        }
    }
    ways
}

#[tokio::test]
async fn pages_come_as_the_service_made_them_on_a_connection_that_is_kept() {
    for (way, _world, mut caller) in ways().await {
        for _ in 0..3 {
            let response = caller.ask("GET", "/", full("")).await;
            assert_eq!(response.status(), StatusCode::OK, "{way}");
            assert_eq!(response.headers()["x-host"], "web.localhost:8081", "{way}");
            assert_eq!(response.headers()["x-range"], "bytes=0-", "{way}");
            assert!(!response.headers().contains_key("connection"), "{way}");
            assert_eq!(text(response).await.0, "hello", "{way}");
        }
        let response = caller.ask("HEAD", "/", full("")).await;
        assert_eq!(response.headers()["x-method"], "HEAD", "{way}");
        assert_eq!(text(response).await.0, "", "{way}");
        for status in ["304", "204"] {
            let response = caller.ask("GET", &format!("/{status}"), full("")).await;
            assert_eq!(response.status().as_str(), status, "{way}");
            assert_eq!(text(response).await.0, "", "{way}");
        }
        let response = caller.ask("GET", "/500", full("")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{way}");
        assert!(!response.headers().contains_key("micro-error"), "{way}");
        assert_eq!(text(response).await.0, "mine", "{way}");
    }
}

#[tokio::test]
async fn bodies_of_unknown_length_pass_both_ways() {
    for (way, _world, mut caller) in ways().await {
        let chunks = (0..50).map(|n| Ok(Frame::data(Bytes::from(vec![n; 10_000]))));
        let body = BodyExt::boxed(StreamBody::new(futures_util::stream::iter(chunks)));
        let response = caller.ask("POST", "/mirror", body).await;
        let (back, _) = text(response).await;
        let sent: Vec<u8> = (0..50).flat_map(|n| vec![n; 10_000]).collect();
        assert!(back == sent, "{way}: {} of {} bytes", back.len(), sent.len());
    }
}

#[tokio::test]
async fn a_long_download_comes_whole() {
    for (way, _world, mut caller) in ways().await {
        let mut body = caller.ask("GET", "/big", full("")).await.into_body();
        let mut length = 0;
        while let Some(frame) = soon(body.frame()).await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.iter().all(|byte| *byte == b'z'));
            length += data.len();
        }
        assert_eq!(length, BIG, "{way}");
    }
}

#[tokio::test]
async fn trailers_of_a_response_pass() {
    for (way, _world, mut caller) in ways().await {
        if matches!(caller, Caller::One(_)) {
            continue;
        }
        let (body, trailers) = text(caller.ask("GET", "/trailers", full("")).await).await;
        assert_eq!(body, "body", "{way}");
        assert_eq!(trailers["x-sum"], "42", "{way}");
    }
}

/// What comes back on a connection that says `text`, until it is closed.
async fn say(address: SocketAddr, text: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(common::SOON, socket.read_to_end(&mut answer)).await;
    let about = &text[..text.len().min(80)];
    assert!(read.is_ok(), "{about:?} is not closed: {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn trailers_reach_an_http_1_caller_that_asks_for_them() {
    for place in PLACES {
        let world = World::new().await;
        world.offer("web", place, web(Protocol::Http1).await, Protocol::Http1);
        let request = "GET /trailers HTTP/1.1\r\nhost: web\r\nte: trailers\r\n\
                       connection: te, close\r\n\r\n";
        let answer = say(world.here.address, request).await;
        assert!(answer.contains("x-sum: 42\r\n"), "{place:?}: {answer}");
    }
}

#[tokio::test]
async fn what_the_node_says_is_told_from_what_a_service_says() {
    let world = World::new().await;
    world.offer("gone", Place::There, nobody().await, Protocol::Http1);
    for (request, status, code) in [
        ("GET / HTTP/1.1\r\nhost: nobody\r\n", "404 Not Found", "M1203"),
        ("GET / HTTP/1.1\r\nhost: gone\r\n", "503 Service Unavailable", "M1004"),
        ("GET / HTTP/1.1\r\n", "400 Bad Request", "M1009"),
        ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n", "400 Bad Request", "M1009"),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n", "404 Not Found", "M1203"),
        ("CONNECT a HTTP/1.1\r\nhost: a\r\n", "400 Bad Request", "M1009"),
        ("GET / HTTP/1.1\r\nhost: gone\r\norigin: http://evil\r\n", "403 Forbidden", "M1011"),
        ("GET / HTTP/1.1\r\nhost: gone\r\nmicro-label: ==\r\n", "400 Bad Request", "M1009"),
    ] {
        let whole = format!("{request}connection: close\r\naccept: application/json\r\n\r\n");
        let answer = say(world.here.address, &whole).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {answer}");
        assert!(answer.contains(&format!("micro-error: {code}\r\n")), "{request}: {answer}");
        assert!(answer.contains("application/problem+json"), "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_request_that_two_servers_could_read_differently_is_refused() {
    let world = World::new().await;
    world.offer("web", Place::Here, web(Protocol::Http1).await, Protocol::Http1);
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "content-length: -1\r\n",
        " folded: x\r\n",
        "space : x\r\n",
    ] {
        let request = format!("POST /mirror HTTP/1.1\r\nhost: web\r\n{fields}\r\n0\r\n\r\n");
        let smuggled = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";
        let answer = say(world.here.address, &format!("{request}{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{fields:?}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_protocol_of_the_port_is_closed_and_harms_nobody() {
    let world = World::new().await;
    world.offer("web", Place::Here, web(Protocol::Http1).await, Protocol::Http1);
    for (garbage, refusal) in [
        // What begins as TLS does is refused as TLS refuses: unexpected_message (RFC 8446 §6).
        ("\u{16}\u{3}\u{1}\u{2}hello", "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{a}"),
        ("{\"json\": true}\n", "HTTP/1.1 400"),
        ("PRI * HTTP/2.0\r\n\r\nno", "HTTP/1.1 400"),
    ] {
        let answer = say(world.here.address, garbage).await;
        assert!(answer.is_empty() || answer.starts_with(refusal), "{garbage:?}: {answer:?}");
    }
    let long = "x".repeat(100 * 1024);
    let request = format!("GET / HTTP/1.1\r\nhost: web\r\nx-long: {long}\r\n\r\n");
    let answer = say(world.here.address, &request).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut caller = Caller::one(world.here.address).await;
    assert_eq!(text(caller.ask("GET", "/", full("")).await).await.0, "hello");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let limits = proxy::Limits {
        first_bytes: std::time::Duration::from_millis(100),
        ..proxy::Limits::default()
    };
    let world = World::with(limits).await;
    for said in ["", "P", "PRI * HTTP"] {
        assert_eq!(say(world.here.address, said).await, "", "{said:?}");
    }
}

#[tokio::test]
async fn more_connections_than_the_limit_wait_until_others_close() {
    let limits = proxy::Limits { connections: 2, ..proxy::Limits::default() };
    let world = World::with(limits).await;
    world.offer("web", Place::Here, web(Protocol::Http1).await, Protocol::Http1);
    let held = [Caller::one(world.here.address).await, Caller::one(world.here.address).await];
    let mut third = Caller::one(world.here.address).await;
    let asked = third.ask("GET", "/", full(""));
    let mut asked = std::pin::pin!(asked);
    let early = tokio::time::timeout(std::time::Duration::from_millis(50), asked.as_mut()).await;
    assert!(early.is_err(), "the third waits");
    drop(held);
    assert_eq!(text(asked.await).await.0, "hello");
}

#[tokio::test]
async fn a_service_at_the_proxy_s_own_port_is_not_called_for_ever() {
    let world = World::new().await;
    world.offer("loop", Place::Here, world.here.address, Protocol::Http1);
    let request = "GET / HTTP/1.1\r\nhost: loop\r\nconnection: close\r\n\r\n";
    let answer = say(world.here.address, request).await;
    assert!(answer.contains("micro-error: M1008"), "{answer}");
}

#[tokio::test]
async fn the_refusal_of_a_head_request_over_http2_has_no_body() {
    let world = World::new().await;
    let socket = TcpStream::connect(world.here.address).await.unwrap();
    let (mut send, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let request = http::Request::head("http://nobody/").body(()).unwrap();
    let (response, _) = send.send_request(request, true).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["micro-error"]),
        (404, &"M1203".parse().unwrap())
    );
    assert!(response.headers().contains_key("content-length"), "as GET would have it");
    let mut body = response.into_body();
    assert!(soon(body.data()).await.is_none(), "a client takes a byte for an error of protocol");
}
