//! Connections that become something else: kept from end to end, and only where the service agrees.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{PLACES, Place, World, soon};
use proto::record::Protocol;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const CHAT: &str = "chat";
const ASK: &str = "GET /chat HTTP/1.1\r\nHost: chat\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

/// A service that does `serve` with its first connection; and what that gives.
async fn service<T: Send + 'static, F: Future<Output = T> + Send>(
    serve: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, oneshot::Receiver<T>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        // A test that has failed does not ask.
        let _ = tell.send(serve(socket).await);
    });
    (address, told)
}

/// Reads a head and nothing behind it.
async fn head(socket: &mut TcpStream) -> String {
    let mut all = Vec::new();
    while !all.ends_with(b"\r\n\r\n") {
        all.push(soon(socket.read_u8()).await.unwrap());
    }
    String::from_utf8(all).unwrap().to_ascii_lowercase()
}

async fn to_end(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut all = Vec::new();
    soon(socket.read_to_end(&mut all)).await?;
    Ok(String::from_utf8(all).unwrap())
}

async fn ask(world: &World, text: &str) -> TcpStream {
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    socket
}

/// Has the other end see a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    for place in PLACES {
        let world = World::new().await;
        let (address, asked) = service(|mut socket| async move {
            let asked = head(&mut socket).await;
            // With the first bytes of the new protocol, which must not be lost.
            socket.write_all(format!("{AGREE}welcome").as_bytes()).await.unwrap();
            let said = to_end(&mut socket).await.unwrap();
            socket.write_all(format!(" and {said} to you").as_bytes()).await.unwrap();
            asked
        })
        .await;
        world.offer(CHAT, place, address, Protocol::Http1);
        let mut socket = ask(&world, ASK).await;
        let answer = head(&mut socket).await;
        assert!(answer.starts_with("http/1.1 101 "), "{answer}");
        for field in ["\r\nupgrade: websocket\r\n", "\r\nconnection: upgrade\r\n", "accept: y\r\n"]
        {
            assert!(answer.contains(field), "{field:?} in {answer}");
        }
        socket.write_all(b"goodbye").await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(to_end(&mut socket).await.unwrap(), "welcome and goodbye to you");
        let asked = soon(asked).await.unwrap();
        for field in ["\r\nupgrade: websocket\r\n", "\r\nconnection: upgrade\r\n", "-key: x\r\n"] {
            assert!(asked.contains(field), "{field:?} in {asked}");
        }
        assert_eq!(asked.matches("upgrade: websocket").count(), 1, "{asked}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_agree_is_heard_and_the_connection_goes_on() {
    for place in PLACES {
        let world = World::new().await;
        let (address, asked) = service(|mut socket| async move {
            let first = head(&mut socket).await;
            let no = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 3\r\n\r\nno!";
            socket.write_all(no.as_bytes()).await.unwrap();
            let second = head(&mut socket).await;
            let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            socket.write_all(ok.as_bytes()).await.unwrap();
            (first, second)
        })
        .await;
        world.offer(CHAT, place, address, Protocol::Http1);
        // The second request is there before the first is answered: it is one only because of that.
        let next = "GET /next HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n\r\n";
        let mut socket = ask(&world, &format!("{ASK}{next}")).await;
        let answer = to_end(&mut socket).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        assert!(answer.contains("no!HTTP/1.1 200 ") && answer.ends_with("ok"), "{answer}");
        let (first, second) = soon(asked).await.unwrap();
        assert!(first.starts_with("get /chat "), "{first}");
        assert!(second.starts_with("get /next ") && !second.contains("upgrade"), "{second}");
    }
}

#[tokio::test]
async fn what_comes_before_the_answer_is_of_the_new_protocol_once_there_is_one() {
    let world = World::new().await;
    let (address, heard) = service(|mut socket| async move {
        head(&mut socket).await;
        // Nothing behind the head may be here: the service has not agreed.
        let early = socket.try_read(&mut [0; 64]).map_err(|error| error.kind());
        socket.write_all(AGREE.as_bytes()).await.unwrap();
        (early, to_end(&mut socket).await.unwrap())
    })
    .await;
    world.offer(CHAT, Place::There, address, Protocol::Http1);
    let hidden = "GET /hidden HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    let mut socket = ask(&world, &format!("{ASK}{hidden}")).await;
    head(&mut socket).await;
    socket.shutdown().await.unwrap();
    let (early, heard) = soon(heard).await.unwrap();
    assert_eq!(early, Err(ErrorKind::WouldBlock));
    assert_eq!(heard, hidden, "as it was sent");
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one_either_way() {
    for place in PLACES {
        let world = World::new().await;
        let (address, heard) = service(|mut socket| async move {
            head(&mut socket).await;
            socket.write_all(AGREE.as_bytes()).await.unwrap();
            to_end(&mut socket).await.map_err(|error| error.kind())
        })
        .await;
        world.offer(CHAT, place, address, Protocol::Http1);
        let mut socket = ask(&world, ASK).await;
        head(&mut socket).await;
        reset(socket);
        assert_eq!(soon(heard).await.unwrap(), Err(ErrorKind::ConnectionReset));

        let world = World::new().await;
        let (address, _) = service(|mut socket| async move {
            head(&mut socket).await;
            socket.write_all(AGREE.as_bytes()).await.unwrap();
            socket.read_u8().await.unwrap();
            reset(socket);
        })
        .await;
        world.offer(CHAT, place, address, Protocol::Http1);
        let mut socket = ask(&world, ASK).await;
        head(&mut socket).await;
        socket.write_all(b"!").await.unwrap();
        assert_eq!(to_end(&mut socket).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn what_cannot_be_upgraded_says_so_at_once() {
    for (protocol, origin, code) in [
        (Protocol::Http2, "", "M1002"),
        (Protocol::Http1, "Origin: https://evil.example\r\n", "M1011"),
        (Protocol::Http1, "Origin: null\r\n", "M1011"),
    ] {
        let world = World::new().await;
        let (address, _) = service(|_| async {}).await;
        world.offer(CHAT, Place::There, address, protocol);
        let text = ASK.replace("Host: chat\r\n", &format!("Host: chat\r\n{origin}"));
        let mut socket = ask(&world, &text).await;
        let answer = head(&mut socket).await;
        assert!(answer.contains(&format!("micro-error: {}", code.to_lowercase())), "{answer}");
    }
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over() {
    let world = World::new().await;
    let (address, _) = service(|mut socket| async move {
        head(&mut socket).await;
        socket.write_all(AGREE.as_bytes()).await.unwrap();
    })
    .await;
    world.offer(CHAT, Place::There, common::nobody().await, Protocol::Http1);
    world.offer(CHAT, Place::There, address, Protocol::Http1);
    let mut socket = ask(&world, ASK).await;
    assert!(head(&mut socket).await.starts_with("http/1.1 101 "));
}
