//! Programs that take a proxy: `CONNECT` and SOCKS 5 at the one port.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use common::{PLACES, Place, World, nobody, soon};
use proto::record::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that greets each connection with its name, and then says back what it hears.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                socket.write_all(name.as_bytes()).await.unwrap();
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// What comes back to `said`, until the end; the program closes its half at once.
async fn told(proxy: SocketAddr, said: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(proxy).await.unwrap();
    socket.write_all(said).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut all = Vec::new();
    soon(socket.read_to_end(&mut all)).await.unwrap();
    all
}

fn connect(to: &str, headers: &str, then: &str) -> Vec<u8> {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{headers}\r\n{then}").into_bytes()
}

/// A greeting and a request to connect to a name, in one piece.
fn socks(host: &str, port: u16, then: &str) -> Vec<u8> {
    let mut said = vec![5, 1, 0, 5, 1, 0, 3, u8::try_from(host.len()).unwrap()];
    said.extend_from_slice(host.as_bytes());
    said.extend_from_slice(&port.to_be_bytes());
    said.extend_from_slice(then.as_bytes());
    said
}

/// What SOCKS answers: the method taken, and the reply to the request.
fn replied(code: u8) -> Vec<u8> {
    vec![5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

const ESTABLISHED: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[tokio::test]
async fn a_service_is_reached_by_its_name_and_nothing_sent_early_is_lost() {
    for place in PLACES {
        let world = World::new().await;
        world.offer("db", place, server("db ").await, Protocol::Tcp);
        for name in ["db:5432", "db.localhost:1", "db.micro.internal:5432"] {
            let answer = told(world.here.address, &connect(name, "", "early")).await;
            assert_eq!(String::from_utf8(answer).unwrap(), format!("{ESTABLISHED}db early"));
        }
        let answer = told(world.here.address, &socks("db.micro.internal", 5432, "early")).await;
        assert_eq!(answer, [replied(0), b"db early".to_vec()].concat());
    }
}

#[tokio::test]
async fn byte_by_byte_it_is_the_same() {
    let world = World::new().await;
    world.offer("db", Place::There, server("db ").await, Protocol::Tcp);
    for said in [connect("db:1", "", "."), socks("db", 1, ".")] {
        let mut socket = TcpStream::connect(world.here.address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        for byte in &said {
            socket.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        socket.shutdown().await.unwrap();
        let mut all = Vec::new();
        soon(socket.read_to_end(&mut all)).await.unwrap();
        assert!(all.ends_with(b"db ."), "{all:?}");
    }
}

#[tokio::test]
async fn headers_and_names_choose_the_instance() {
    let world = World::new().await;
    for (version, name) in [("v1", "one"), ("v2", "two")] {
        let (address, labels) = (server(name).await, [("version", version)]);
        world.offer_with("db", Place::There, address, Protocol::Tcp, &labels);
    }
    for _ in 0..8 {
        let said = connect("db:1", "Micro-Select: version=v2\r\n", "");
        let answer = told(world.here.address, &said).await;
        assert_eq!(String::from_utf8(answer).unwrap(), format!("{ESTABLISHED}two"));
    }
    let said = connect("db:1", "Micro-Select: version=v9\r\n", "");
    let answer = String::from_utf8(told(world.here.address, &said).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.contains("version=v9"), "{answer}");
}

#[tokio::test]
async fn what_comes_to_nothing_is_answered_as_what_it_is() {
    let world = World::new().await;
    world.offer("gone", Place::There, nobody().await, Protocol::Tcp);
    for (name, status, reply) in [("gone", "HTTP/1.1 503 ", 5), ("nowhere", "HTTP/1.1 404 ", 4)] {
        let answer = told(world.here.address, &connect(&format!("{name}:1"), "", "")).await;
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(status), "{name}: {answer}");
        assert_eq!(told(world.here.address, &socks(name, 1, "")).await, replied(reply), "{name}");
    }
    let world = &world.here.address;
    assert_eq!(told(*world, &[5, 1, 2]).await, [5, 0xff], "no method that is taken");
    let mut bind = socks("gone", 1, "");
    bind[4] = 2;
    assert_eq!(told(*world, &bind).await, replied(7));
    bind[6] = 9;
    assert_eq!(told(*world, &bind).await, replied(8));
}

#[tokio::test]
async fn the_rest_of_the_world_is_reached_as_well() {
    let world = World::new().await;
    let address = server("outside ").await;
    let said = connect(&address.to_string(), "", "there");
    let answer = String::from_utf8(told(world.here.address, &said).await).unwrap();
    assert_eq!(answer, format!("{ESTABLISHED}outside there"));
    let mut said = vec![5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1];
    said.extend_from_slice(&address.port().to_be_bytes());
    said.extend_from_slice(b"there");
    let answer = told(world.here.address, &said).await;
    assert_eq!(answer, [replied(0), b"outside there".to_vec()].concat());
}

#[tokio::test]
async fn a_node_is_reached_through_itself_once() {
    let world = World::new().await;
    world.offer("db", Place::There, server("db ").await, Protocol::Tcp);
    let itself = world.here.address.to_string();
    let ask = |then: &[u8]| [&connect(&itself, "", ""), then].concat();
    let answer =
        async |said: Vec<u8>| String::from_utf8(told(world.here.address, &said).await).unwrap();
    let inner = answer(ask(b"GET / HTTP/1.1\r\nHost: nowhere\r\nConnection: close\r\n\r\n")).await;
    assert!(inner.starts_with(&format!("{ESTABLISHED}HTTP/1.1 404 ")), "{inner}");
    let inner = answer(ask(&connect("db:1", "", "early"))).await;
    assert_eq!(inner, format!("{ESTABLISHED}{ESTABLISHED}db early"));
    // Not twice: it would never end.
    let circle = answer(ask(&connect(&itself, "", ""))).await;
    assert!(circle.starts_with(&format!("{ESTABLISHED}HTTP/1.1 502 ")), "{circle}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let world = World::new().await;
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    socket.write_all(b"CONNECT db:1 HTTP/1.1\r\n").await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let writing = tokio::spawn(async move {
        while write
            .write_all(&b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(64))
            .await
            .is_ok()
        {}
    });
    let mut first = [0; 12];
    soon(read.read_exact(&mut first)).await.unwrap();
    assert!(matches!(&first, b"HTTP/1.1 431" | b"HTTP/1.1 400"), "{first:?}");
    drop(read);
    soon(writing).await.unwrap();
}

#[tokio::test]
async fn a_request_for_the_rest_of_the_world_is_passed_on_without_what_is_ours() {
    let world = World::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let outside = listener.local_addr().unwrap();
    let heard = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let answer = b"HTTP/1.1 200 OK\r\nmicro-error: M1\r\ncontent-length: 2\r\n\r\nhi";
        socket.write_all(answer).await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let request = format!(
        "GET http://{outside}/path?a=b HTTP/1.1\r\nHost: {outside}\r\nMicro-Version: v2\r\n\
         Proxy-Authorization: Basic b\r\nConnection: close\r\n\r\n"
    );
    let answer = told(world.here.address, request.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ") && answer.ends_with("hi"), "{answer}");
    assert!(!answer.contains("micro-error"), "{answer}");
    let heard = soon(heard).await.unwrap().to_ascii_lowercase();
    assert!(heard.starts_with("get /path?a=b http/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: {outside}\r\n")), "{heard}");
    assert!(!heard.contains("micro-") && !heard.contains("proxy-"), "{heard}");
}

#[tokio::test]
async fn a_secret_in_the_target_is_not_said_to_whoever_is_outside() {
    let world = World::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let outside = listener.local_addr().unwrap();
    let request = format!(
        "GET http://ada:secret@{outside}/ HTTP/1.1\r\nHost: {outside}\r\nConnection: close\r\n\r\n"
    );
    let answer = String::from_utf8(told(world.here.address, request.as_bytes()).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}
