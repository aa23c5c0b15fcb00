//! Callers and nodes that do what nobody should: each is turned away, and nobody else notices.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use common::grpc::Client;
use common::service::Service;
use common::{PLACES, Place, World, soon};
use proto::exchange::{FrameKind, Part, Reader, put_header};
use proto::open::OpenKind;
use proto::record::Protocol;
use proto::{Fault, Open};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Frames of HTTP/2 (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(9 + body.len());
    out.put_uint(body.len() as u64, 3);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u32(stream);
    out.put_slice(body);
    out.freeze()
}

/// `POST http / :authority greeter`, by the static table of HPACK (RFC 7541 Appendix A), with the
/// content type of gRPC and a path that nobody serves for long.
fn head() -> Vec<u8> {
    let mut head = vec![0x83, 0x86];
    let literal = |head: &mut Vec<u8>, name: u8, text: &str| {
        head.push(name);
        head.push(text.len() as u8);
        head.extend_from_slice(text.as_bytes());
    };
    literal(&mut head, 0x04, "/greeter.Say/Wait");
    literal(&mut head, 0x01, "greeter");
    // Name 31 of the static table, without indexing: does not fit the four bits of the prefix.
    head.extend_from_slice(&[0x0f, 31 - 15, 16]);
    head.extend_from_slice(b"application/grpc");
    head
}

/// Sends frames until the proxy closes the connection; `false` if it took all of them.
async fn is_closed(address: SocketAddr, frames: impl Iterator<Item = Bytes>) -> bool {
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let reading = tokio::spawn(async move {
        let mut bytes = Vec::new();
        // A reset is as good as an end.
        let _ = read.read_to_end(&mut bytes).await;
        bytes
    });
    write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    write.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    for frame in frames {
        if write.write_all(&frame).await.is_err() {
            break;
        }
    }
    // What was sent last may still be on its way.
    let closed = tokio::time::timeout(std::time::Duration::from_secs(5), reading).await;
    closed.is_ok()
}

async fn still_serves(world: &World) {
    let client = Client::connect(world.here.address).await;
    let answer = client.unary("/greeter.Say/Echo", &[], b"others").await;
    assert_eq!(answer.messages, ["others"]);
}

async fn world() -> (World, Service) {
    let world = World::new().await;
    let service = Service::start().await;
    world.offer("greeter", Place::Here, service.address, Protocol::Grpc);
    (world, service)
}

#[tokio::test]
async fn a_head_that_never_ends_closes_its_connection() {
    let (world, _service) = world().await;
    let begin = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let more = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &[0x40; 16 * 1024])).take(256);
    assert!(is_closed(world.here.address, begin.chain(more)).await);
    let begin = std::iter::once(frame(HEADERS, 0, 1, &head()));
    let empty = std::iter::repeat_with(|| frame(CONTINUATION, 0, 1, &[])).take(10_000);
    assert!(is_closed(world.here.address, begin.chain(empty)).await);
    still_serves(&world).await;
}

#[tokio::test]
async fn streams_that_are_opened_only_to_be_reset_close_their_connection() {
    let (world, _service) = world().await;
    let frames = (0..20_000).map(|n| {
        let stream = 2 * n + 1;
        let open = frame(HEADERS, END_HEADERS, stream, &head());
        let reset = frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        Bytes::from([open, reset].concat())
    });
    assert!(is_closed(world.here.address, frames).await);
    still_serves(&world).await;
}

#[tokio::test]
async fn empty_pieces_of_a_body_without_end_close_their_connection() {
    let (world, _service) = world().await;
    let begin = std::iter::once(frame(HEADERS, END_HEADERS, 1, &head()));
    let empty = std::iter::repeat_with(|| frame(DATA, 0, 1, &[])).take(100_000);
    assert!(is_closed(world.here.address, begin.chain(empty)).await);
    still_serves(&world).await;
}

#[tokio::test]
async fn a_connection_may_have_so_many_calls_and_no_more() {
    let limits = proxy::Limits { calls: 2, ..proxy::Limits::default() };
    let world = World::with(limits).await;
    let mut service = Service::start().await;
    world.offer("greeter", Place::There, service.address, Protocol::Grpc);
    let client = Client::connect(world.here.address).await;
    let _held = [client.call("/greeter.Say/Wait", &[]), client.call("/greeter.Say/Wait", &[])];
    for _ in 0..2 {
        service.next().await;
    }
    let answer = client.unary("/greeter.Say/Echo", &[], b"").await;
    assert_eq!(answer.status(), Some("8"));
    assert_eq!(answer.header("micro-error"), Some("M1305"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// What the other node says to a call that a node makes by itself.
async fn call_as_node(world: &World, open: Open, bytes: Bytes) -> Fault {
    let stream = soon(world.here.tunnel.open(world.there.id, &open)).await.unwrap();
    let (mut send, mut recv) = (stream.send, stream.recv);
    soon(send.write(&mut [bytes])).await.unwrap();
    send.finish();
    let mut reader = Reader::default();
    loop {
        match reader.next().unwrap() {
            Some(Part::Fault(fault)) => return Fault::decode(fault).unwrap(),
            Some(part) => panic!("{part:?} in place of a fault"),
            None => reader.push(soon(recv.read(1024)).await.unwrap().expect("a fault")),
        }
    }
}

fn request_head() -> Bytes {
    let mut body = BytesMut::new();
    proto::head::put_request(&mut body, "POST", b"/greeter.Say/Echo", b"greeter");
    framed(FrameKind::Head, &body)
}

fn framed(kind: FrameKind, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_header(&mut out, kind, body.len());
    out.put_slice(body);
    out.freeze()
}

#[tokio::test]
async fn calls_of_nodes_are_checked_whatever_their_sender_checked() {
    let (world, service) = world().await;
    world.offer("greeter", Place::There, service.address, Protocol::Grpc);
    world.offer("other/secret", Place::There, service.address, Protocol::Grpc);
    let open = |service: &'static str| Open {
        service: Bytes::from_static(service.as_bytes()),
        ..Open::new(OpenKind::Exchange)
    };
    let bad_path = {
        let mut body = BytesMut::new();
        proto::head::put_request(&mut body, "GET", b"no slash", b"");
        framed(FrameKind::Head, &body)
    };
    let bad_value = {
        let mut body = BytesMut::new();
        proto::head::put_request(&mut body, "GET", b"/", b"");
        proto::head::put_field(&mut body, "x", b"a\r\nb: c");
        framed(FrameKind::Head, &body)
    };
    let nobody = Open { instance: Bytes::from_static(b"nobody"), ..open("greeter") };
    let hops = Open { hops: 0, ..open("greeter") };
    let bytes = Open { kind: OpenKind::Other(77), ..open("greeter") };
    for (what, open, bytes, code, unseen) in [
        ("a namespace outside the grant", open("other/secret"), request_head(), 1011, false),
        ("a service that is not here", open("elsewhere"), request_head(), 1004, true),
        ("an instance that is not here", nobody, request_head(), 1004, true),
        ("no hops left", hops, request_head(), 1008, true),
        ("no name", open("a b"), request_head(), 1009, false),
        ("another kind", bytes, request_head(), 1009, false),
        ("no head", open("greeter"), framed(FrameKind::Data, b"x"), 1009, false),
        ("no path", open("greeter"), bad_path, 1009, false),
        ("a header in a header", open("greeter"), bad_value, 1009, false),
        ("garbage", open("greeter"), Bytes::from_static(&[200, 1, 1]), 1009, false),
    ] {
        let fault = call_as_node(&world, open, bytes).await;
        assert_eq!((fault.code, fault.unseen), (code, unseen), "{what}: {}", fault.what);
        assert_eq!(fault.node, world.there.id, "{what}");
    }
}

#[tokio::test]
async fn identity_headers_of_programs_never_reach_a_service() {
    for place in PLACES {
        let world = World::new().await;
        let mut service = Service::start().await;
        world.offer("greeter", place, service.address, Protocol::Grpc);
        let client = Client::connect(world.here.address).await;
        let spoofed = [("micro-caller", "root"), ("micro_caller", "root"), ("x-micro-caller", "r")];
        let answer = client.unary("/greeter.Say/Echo", &spoofed, b"").await;
        assert_eq!(answer.status(), Some("0"));
        let common::service::Seen::Request(seen) = service.next().await else { panic!() };
        for (name, _) in spoofed {
            assert!(!seen.contains_key(name), "{place:?}: {name}");
        }
    }
}
