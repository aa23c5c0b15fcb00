//! Ports that stand for a service: bytes of any protocol, both ways, each way with its own end.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use common::{PLACES, Place, World, nobody, soon};
use proto::Selector;
use proto::record::Protocol;
use proxy::Destination;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

const DB: &str = "db";

/// A port of the node here that stands for the service.
async fn port(world: &World) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let to = Destination { service: DB.to_owned(), selector: Selector::default() };
    let proxy = world.here.proxy.clone();
    tokio::spawn(async move { proxy.forward(listener, to).await });
    address
}

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

/// Has the other end see a reset.
fn reset(socket: TcpStream) {
    SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
}

async fn to_end(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon(socket.read_to_end(&mut all)).await.map(|_| all)
}

/// Bytes of which no two pieces are alike.
fn contents(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[tokio::test]
async fn a_program_that_has_said_all_still_hears_the_answer() {
    for place in PLACES {
        let world = World::new().await;
        let (address, _) = service(|mut socket| async move {
            let asked = to_end(&mut socket).await.unwrap();
            socket.write_all(format!("{} bytes", asked.len()).as_bytes()).await.unwrap();
        })
        .await;
        world.offer(DB, place, address, Protocol::Tcp);
        let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
        socket.write_all(b"one two").await.unwrap();
        socket.shutdown().await.unwrap();
        assert_eq!(to_end(&mut socket).await.unwrap(), b"7 bytes");
    }
}

#[tokio::test]
async fn a_service_that_has_said_all_still_hears_the_program() {
    for place in PLACES {
        let world = World::new().await;
        let (address, heard) = service(|mut socket| async move {
            socket.write_all(b"welcome").await.unwrap();
            socket.shutdown().await.unwrap();
            to_end(&mut socket).await.unwrap()
        })
        .await;
        world.offer(DB, place, address, Protocol::Tcp);
        let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
        // It speaks first, and the program only when it has heard all of that.
        assert_eq!(to_end(&mut socket).await.unwrap(), b"welcome");
        socket.write_all(b"and goodbye").await.unwrap();
        drop(socket);
        assert_eq!(soon(heard).await.unwrap(), b"and goodbye");
    }
}

#[tokio::test]
async fn much_goes_both_ways_at_once_and_arrives_whole() {
    const LENGTH: usize = 24 << 20;
    for place in PLACES {
        let world = World::new().await;
        let (address, heard) = service(|socket| async move {
            let (mut read, mut write) = socket.into_split();
            let writing = tokio::spawn(async move {
                write.write_all(&contents(LENGTH)).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut all = Vec::new();
            read.read_to_end(&mut all).await.unwrap();
            writing.await.unwrap();
            all
        })
        .await;
        world.offer(DB, place, address, Protocol::Tcp);
        let (mut read, mut write) =
            TcpStream::connect(port(&world).await).await.unwrap().into_split();
        let writing = tokio::spawn(async move {
            write.write_all(&contents(LENGTH)).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut all = Vec::new();
        soon(read.read_to_end(&mut all)).await.unwrap();
        writing.await.unwrap();
        assert!(all == contents(LENGTH), "{} bytes came down", all.len());
        let all = soon(heard).await.unwrap();
        assert!(all == contents(LENGTH), "{} bytes went up", all.len());
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_one_either_way() {
    for place in PLACES {
        let world = World::new().await;
        let (address, heard) = service(|mut socket| async move {
            let mut first = [0; 5];
            socket.read_exact(&mut first).await.unwrap();
            socket.write_all(b"go on").await.unwrap();
            to_end(&mut socket).await.map_err(|error| error.kind())
        })
        .await;
        world.offer(DB, place, address, Protocol::Tcp);
        let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
        socket.write_all(b"first").await.unwrap();
        soon(socket.read_exact(&mut [0; 5])).await.unwrap();
        reset(socket);
        assert_eq!(soon(heard).await.unwrap(), Err(ErrorKind::ConnectionReset));

        let world = World::new().await;
        let (address, _) = service(|mut socket| async move {
            socket.read_exact(&mut [0; 5]).await.unwrap();
            reset(socket);
        })
        .await;
        world.offer(DB, place, address, Protocol::Tcp);
        let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
        socket.write_all(b"first").await.unwrap();
        assert_eq!(to_end(&mut socket).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn an_instance_that_refuses_is_passed_over_for_one_that_takes_it() {
    for (place, other) in [(Place::Here, Place::There), (Place::There, Place::There)] {
        let world = World::new().await;
        let (address, _) = service(|mut socket| async move {
            socket.write_all(b"here I am").await.unwrap();
        })
        .await;
        world.offer(DB, place, nobody().await, Protocol::Tcp);
        world.offer(DB, other, address, Protocol::Tcp);
        let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
        assert_eq!(to_end(&mut socket).await.unwrap(), b"here I am");
    }
}

#[tokio::test]
async fn what_nobody_takes_is_reset_and_not_left_to_wait() {
    let world = World::new().await;
    let port = port(&world).await;
    let refused = || async {
        let mut socket = TcpStream::connect(port).await.unwrap();
        to_end(&mut socket).await.unwrap_err().kind()
    };
    assert_eq!(refused().await, ErrorKind::ConnectionReset, "no such service");
    world.offer(DB, Place::There, nobody().await, Protocol::Tcp);
    assert_eq!(refused().await, ErrorKind::ConnectionReset, "nobody listens");
    world.here.proxy.drain();
}

#[tokio::test]
async fn a_link_that_is_lost_is_a_reset_and_never_an_end() {
    let world = World::new().await;
    let (address, heard) = service(|mut socket| async move {
        socket.write_all(b"half of it").await.unwrap();
        to_end(&mut socket).await.map_err(|error| error.kind())
    })
    .await;
    world.offer(DB, Place::There, address, Protocol::Tcp);
    let mut socket = TcpStream::connect(port(&world).await).await.unwrap();
    soon(socket.read_exact(&mut [0; 10])).await.unwrap();
    soon(world.there.tunnel.close(Duration::ZERO)).await;
    assert_eq!(to_end(&mut socket).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(soon(heard).await.unwrap(), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn calls_of_http_do_not_go_to_a_service_of_bytes() {
    let world = World::new().await;
    world.offer(DB, Place::Here, nobody().await, Protocol::Tcp);
    let mut socket = TcpStream::connect(world.here.address).await.unwrap();
    let request = "GET / HTTP/1.1\r\nhost: db\r\nconnection: close\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(to_end(&mut socket).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("HTTP"), "{answer}");
}
