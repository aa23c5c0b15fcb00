//! Packets over UDP: flows with an instance, here and on another node, by a port and by SOCKS 5.

#![allow(unreachable_pub, reason = "a module of a test is reachable from nowhere else")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod common;

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use common::{PLACES, Place, World, soon};
use prometheus_client::registry::Registry;
use proto::exchange::{Part, Reader};
use proto::fault::Fault;
use proto::open::OpenKind;
use proto::record::Protocol;
use proto::{Open, Selector};
use proxy::Destination;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const DNS: &str = "dns";
/// The largest there is over IPv4 (65 535 less both headers).
const LARGEST: usize = 65_507;

async fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

/// A port of the node here that stands for the service, and a program that sends to it.
async fn port(world: &World) -> (SocketAddr, UdpSocket) {
    let port = socket().await;
    let address = port.local_addr().unwrap();
    let to = Destination { service: DNS.to_owned(), selector: Selector::default() };
    let proxy = world.here.proxy.clone();
    tokio::spawn(async move { proxy.forward_packets(port, to).await });
    let program = socket().await;
    program.connect(address).await.unwrap();
    (address, program)
}

/// A service that says each packet back with its own name before it.
async fn echo(name: &'static str) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let service = socket().await;
    let address = service.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut packet = vec![0; LARGEST];
        loop {
            let Ok((length, from)) = service.recv_from(&mut packet).await else { continue };
            let answer = [name.as_bytes(), &packet[..length]].concat();
            // The largest comes back without a name.
            let answer = if answer.len() > LARGEST { &packet[..length] } else { &answer[..] };
            service.send_to(answer, from).await.unwrap();
        }
    });
    (address, task)
}

async fn ask(program: &UdpSocket, packet: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; LARGEST];
    program.send(packet).await.unwrap();
    let length = soon(program.recv(&mut answer)).await.unwrap();
    answer.truncate(length);
    answer
}

/// Asks until there is an answer: the first packets of a flow may be lost.
async fn ask_until(program: &UdpSocket, packet: &[u8], wanted: &[u8]) {
    let mut answer = vec![0; LARGEST];
    let asking = async {
        loop {
            program.send(packet).await.unwrap();
            let received = program.recv(&mut answer);
            let waited = tokio::time::timeout(std::time::Duration::from_millis(50), received).await;
            if matches!(waited, Ok(Ok(length)) if &answer[..length] == wanted) {
                return;
            }
        }
    };
    soon(asking).await;
}

#[tokio::test]
async fn packets_of_every_size_come_back_whole() {
    for place in PLACES {
        let world = World::new().await;
        let (address, _echo) = echo("").await;
        world.offer(DNS, place, address, Protocol::Udp);
        let (_, program) = port(&world).await;
        for length in [0, 1, 1100, 1200, 1473, 9000, LARGEST] {
            let packet: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert_eq!(ask(&program, &packet).await, packet, "{length} bytes");
        }
    }
}

#[tokio::test]
async fn each_program_has_its_own_answers() {
    let world = World::new().await;
    let (address, _echo) = echo("").await;
    world.offer(DNS, Place::There, address, Protocol::Udp);
    let (at, first) = port(&world).await;
    let mut programs = vec![first];
    for _ in 0..20 {
        let program = socket().await;
        program.connect(at).await.unwrap();
        programs.push(program);
    }
    for (number, program) in programs.iter().enumerate() {
        program.send(format!("of {number}").as_bytes()).await.unwrap();
    }
    for (number, program) in programs.iter().enumerate() {
        let mut answer = [0; 64];
        let length = soon(program.recv(&mut answer)).await.unwrap();
        assert_eq!(&answer[..length], format!("of {number}").as_bytes());
    }
}

#[tokio::test]
async fn a_flow_whose_instance_is_gone_goes_on_with_another() {
    for place in PLACES {
        let world = World::new().await;
        let (one, first) = echo("one ").await;
        world.offer(DNS, place, one, Protocol::Udp);
        let (_, program) = port(&world).await;
        assert_eq!(ask(&program, b"a").await, b"one a");
        first.abort();
        // Its socket is closed by then: who sends there is refused.
        assert!(first.await.unwrap_err().is_cancelled());
        let (two, _second) = echo("two ").await;
        world.offer(DNS, place, two, Protocol::Udp);
        ask_until(&program, b"b", b"two b").await;
    }
}

#[tokio::test]
async fn what_does_not_speak_it_is_not_sent_packets_and_bytes_are_not_sent_to_it() {
    let world = World::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.offer(DNS, Place::There, listener.local_addr().unwrap(), Protocol::Tcp);
    let (_, program) = port(&world).await;
    program.send(b"hello").await.unwrap();
    let (address, _echo) = echo("udp ").await;
    world.offer(DNS, Place::There, address, Protocol::Udp);
    ask_until(&program, b"a", b"udp a").await;
}

#[tokio::test]
async fn a_program_that_takes_a_new_port_for_each_question_is_answered_every_time() {
    let world = World::new().await;
    let (address, _echo) = echo("").await;
    world.offer(DNS, Place::There, address, Protocol::Udp);
    let (at, _program) = port(&world).await;
    for number in 0..1_500_u32 {
        let program = socket().await;
        program.connect(at).await.unwrap();
        ask_until(&program, &number.to_be_bytes(), &number.to_be_bytes()).await;
    }
    // What they have left behind is bounded, and no call.
    assert_eq!(world.here.proxy.in_flight(), 0);
    assert!(counted(&world.here, "proxy_flows ") <= 256);
}

#[tokio::test]
async fn long_packets_sent_at_once_all_come_back() {
    let world = World::new().await;
    let (address, _echo) = echo("").await;
    world.offer(DNS, Place::There, address, Protocol::Udp);
    let (_, program) = port(&world).await;
    ask(&program, b"first").await;
    for number in 0..10_u8 {
        program.send(&[number; 9000]).await.unwrap();
    }
    let mut answer = vec![0; LARGEST];
    let mut back = Vec::new();
    for _ in 0..10 {
        assert_eq!(soon(program.recv(&mut answer)).await.unwrap(), 9000);
        back.push(answer[0]);
    }
    back.sort_unstable();
    assert_eq!(back, (0..10).collect::<Vec<u8>>());
}

/// A number of the metrics of a node.
fn counted(node: &common::Node, name: &str) -> u64 {
    let mut registry = Registry::default();
    node.proxy.metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().parse().unwrap()
}

#[tokio::test]
async fn what_is_dropped_is_counted() {
    let world = World::new().await;
    let (_, program) = port(&world).await;
    for _ in 0..10 {
        program.send(b"for nobody").await.unwrap();
    }
    soon(async {
        while counted(&world.here, "proxy_packets_lost_total ") < 10 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(counted(&world.here, "proxy_packets_lost_total "), 10);
}

#[tokio::test]
async fn a_port_of_tcp_is_sent_no_packets_whoever_asks() {
    let world = World::new().await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.offer(DNS, Place::There, listener.local_addr().unwrap(), Protocol::Tcp);
    let open = Open { service: Bytes::from_static(b"dns"), ..Open::new(OpenKind::Packets) };
    let mut stream = soon(world.here.tunnel.open(world.there.id, &open)).await.unwrap();
    soon(stream.send.flush()).await.unwrap();
    let mut reader = Reader::default();
    let fault = loop {
        match reader.next().unwrap() {
            Some(Part::Fault(fault)) => break Fault::decode(fault).unwrap(),
            Some(part) => panic!("{part:?} in place of a fault"),
            None => reader.push(soon(stream.recv.read(1024)).await.unwrap().expect("a fault")),
        }
    };
    assert!(fault.what.contains("UDP"), "{fault:?}");
}

/// The association of a SOCKS 5 proxy: its connection, and where packets go.
async fn associate(proxy: SocketAddr) -> (TcpStream, SocketAddr) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(b"\x05\x01\0\x05\x03\0\x01\0\0\0\0\0\0").await.unwrap();
    let mut answer = [0; 12];
    soon(stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer[..6], b"\x05\0\x05\0\0\x01", "{answer:?}");
    let ip = Ipv4Addr::from(*answer[6..].first_chunk::<4>().unwrap());
    (stream, SocketAddr::from((ip, u16::from_be_bytes([answer[10], answer[11]]))))
}

#[tokio::test]
async fn a_program_behind_socks_names_the_service_in_each_packet() {
    for place in PLACES {
        let world = World::new().await;
        let (address, _echo) = echo("re: ").await;
        world.offer(DNS, place, address, Protocol::Udp);
        let (stream, at) = associate(world.here.address).await;
        let program = socket().await;
        program.connect(at).await.unwrap();
        let head = b"\0\0\0\x03\x03dns\0\x35";
        let answer = ask(&program, &[&head[..], b"hello"].concat()).await;
        assert_eq!(answer, [&head[..], b"re: hello"].concat());
        // Pieces, garbage, and services that are none are dropped; the port goes on.
        for dropped in
            [&b"\0\0\x01\x03\x03dns\0\x35x"[..], b"", b"\0", b"\0\0\0\x03\x04none\0\x35x"]
        {
            program.send(dropped).await.unwrap();
        }
        let answer = ask(&program, &[&head[..], b"again"].concat()).await;
        assert!(answer.ends_with(b"re: again"));
        drop(stream);
        // The port ends with the connection: packets are refused then.
        let refused = async {
            loop {
                let sent = program.send(&head[..]).await;
                let peeked = program.try_recv(&mut [0; 64]);
                if sent.is_err()
                    || peeked
                        .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
                {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        soon(refused).await;
    }
}
