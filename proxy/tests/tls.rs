//! TLS by the name in its first words: passed on as it came, or refused with an alert.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use common::{PLACES, Place, World, soon};
use proto::record::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHOP: &str = "shop";

/// A program that answers the length of what it was sent in as many bytes as `expect`, and those.
async fn program(expect: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut all = vec![0; expect];
                socket.read_exact(&mut all).await.unwrap();
                socket.write_all(&all).await.unwrap();
            });
        }
    });
    address
}

fn vector(bytes: usize, body: &[u8]) -> Vec<u8> {
    [&body.len().to_be_bytes()[8 - bytes..], body].concat()
}

/// A hello for `name`, in records of so many bytes.
fn hello(name: Option<&str>, padding: usize, size: usize) -> Vec<u8> {
    let name = name.map(|name| {
        let list = vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat());
        [&[0, 0][..], &vector(2, &list)].concat()
    });
    let padding = [&[0, 21][..], &vector(2, &vec![0; padding])].concat();
    let extensions = vector(2, &[padding, name.unwrap_or_default()].concat());
    let suites = [0, 2, 0x13, 1, 1, 0];
    let hello = [&[3, 3][..], &[7; 32], &[0], &suites, &extensions].concat();
    let handshake = [&[1][..], &vector(3, &hello)].concat();
    handshake.chunks(size).flat_map(|piece| [&[22, 3, 1][..], &vector(2, piece)].concat()).collect()
}

async fn answer(world: &World, sent: &[u8], cut: usize) -> Vec<u8> {
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in sent.chunks(cut) {
        // Refused already: the answer says why.
        if socket.write_all(piece).await.is_err() {
            break;
        }
    }
    let mut all = Vec::new();
    let _ = soon(socket.read_to_end(&mut all)).await;
    all
}

fn alert(code: u8) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, code]
}

#[tokio::test]
async fn a_hello_reaches_the_service_that_it_names_byte_for_byte() {
    for place in PLACES {
        for protocol in [Protocol::Tls, Protocol::Tcp] {
            for (name, size, cut) in
                [("shop.localhost", 5000, 5000), ("SHOP.micro.internal", 3, 50), ("shop", 700, 1)]
            {
                let world = World::new().await;
                let sent = hello(Some(name), 600, size);
                world.offer(SHOP, place, program(sent.len()).await, protocol);
                assert!(answer(&world, &sent, cut).await == sent, "{name} {place:?} {protocol:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_carried_is_refused_with_an_alert() {
    let world = World::new().await;
    world.offer(SHOP, Place::There, common::nobody().await, Protocol::Tls);
    world.offer("plain", Place::There, common::nobody().await, Protocol::Http1);
    let twice = {
        let mut bytes = hello(Some("shop"), 0, 5000);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(b"\0.:/");
        bytes
    };
    for (sent, code, why) in [
        (hello(Some("nobody"), 0, 5000), 112, "no such service"),
        (hello(Some("example.com"), 0, 5000), 112, "the world outside"),
        (hello(Some("plain"), 0, 5000), 112, "it speaks no TLS"),
        (hello(Some("shop"), 0, 5000), 80, "nobody listens"),
        (hello(None, 0, 5000), 109, "no name"),
        (hello(Some("127.0.0.1"), 0, 5000), 47, "an address"),
        (twice, 47, "not a name"),
        (hello(Some("shop"), 17_000, 5000), 22, "too large"),
        (hello(Some("shop"), 600, 1), 22, "too many pieces"),
        (vec![22, 3, 1, 0, 4, 2, 0, 0, 0], 10, "not a hello"),
        (vec![22, 9, 9, 9, 9], 10, "not TLS"),
    ] {
        for cut in [1, 9000] {
            assert_eq!(answer(&world, &sent, cut).await, alert(code), "{why}");
        }
    }
}

#[tokio::test]
async fn a_hello_that_never_ends_keeps_nobody_waiting() {
    let world = World::new().await;
    let sent = hello(Some("shop"), 0, 5000);
    world.offer(SHOP, Place::There, program(sent.len()).await, Protocol::Tls);
    let mut half = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect(world.here.address).await.unwrap();
        socket.write_all(&sent[..40]).await.unwrap();
        half.push(socket);
    }
    assert!(answer(&world, &sent, 7).await == sent);
    for mut socket in half {
        // Closed after the time for first bytes, without a word.
        assert_eq!(soon(socket.read_to_end(&mut Vec::new())).await.unwrap_or(0), 0);
    }
}
