//! Peers that speak QUIC and mean no good (reliability classes 1, 2, 16 and 20): wrong words in the handshake, first
//! packets that no library would send, handshakes that never end. The node lives, the calls of others go on, and it is
//! counted.

use std::net::SocketAddr;
use std::sync::Arc;

use tests::hostile::member::Member;
use tests::hostile::origin::Origin;
use tests::hostile::quic::{ALPN, Answer, Hand, crypto, keyless, parameter, varint};
use tests::hostile::{Alone, Beat, GROWTH_KIB, until};
use tests::process::PATIENCE;

/// Handshakes that are begun and left.
const HALVES: usize = 1_000;
/// Bytes of frames in one packet by hand.
const PACKET: usize = 1_100;

fn ground() -> Option<(Alone, Beat)> {
    let node = Alone::up(&[])?;
    let origin = Origin::start("");
    node.expose("web", origin.address, "http");
    let beat = Beat::start(node.proxy);
    beat.goes_on(10);
    Some((node, beat))
}

fn handshakes(node: &Alone, outcome: &str) -> f64 {
    node.metric(&format!("micro_tunnel_handshakes_total{{outcome=\"{outcome}\"}}"))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("threads are left")
}

/// A new member gets in, and the calls of others went on all the time.
fn still_serves(node: &mut Alone, beat: Beat) {
    drop(runtime().block_on(Member::join(node, "late", "*")));
    beat.goes_on(10);
    assert!(node.running(), "{}", node.said());
    beat.stop();
}

/// How a connection by a library ends: the code that the node gives, of the transport or its own.
async fn end(to: SocketAddr, tls: rustls::ClientConfig, name: &str) -> Result<u64, u64> {
    let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("it is TLS 1.3");
    end_of(to, quinn::ClientConfig::new(Arc::new(tls)), name).await
}

async fn end_of(to: SocketAddr, config: quinn::ClientConfig, name: &str) -> Result<u64, u64> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let endpoint = quinn::Endpoint::client(any).expect("the loopback has ports");
    let connecting = endpoint.connect_with(config, to, name).expect("the name is one");
    let ended = async {
        match connecting.await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.expect("it ends");
    if let quinn::ConnectionError::ApplicationClosed(closed) = &ended {
        return Err(closed.error_code.into_inner());
    }
    let quinn::ConnectionError::ConnectionClosed(closed) = ended else { panic!("{ended:?}") };
    Ok(closed.error_code.into())
}

#[test]
fn wrong_words_in_the_handshake_are_refused_by_their_alerts() {
    /// `CRYPTO_ERROR` with an alert of TLS (RFC 9001 §4.8): no application protocol, no certificate, a bad one.
    const NO_PROTOCOL: u64 = 0x100 + 120;
    const ALERTS: std::ops::Range<u64> = 0x100..0x200;
    let Some((mut node, beat)) = ground() else { return };
    runtime().block_on(async {
        for alpn in [&[b"h3".as_slice()][..], &[b"micro/2"], &[b"micro"], &[b"MICRO/1"], &[]] {
            let ended = end(node.link, keyless(alpn), "micro").await;
            assert_eq!(ended, Ok(NO_PROTOCOL), "{alpn:?}");
        }
        let ended = end(node.link, keyless(&[ALPN]), "micro").await;
        assert!(ended.is_ok_and(|code| ALERTS.contains(&code)), "no key: {ended:?}");
        // Whom one names is of no meaning: with a key it is a stranger like any other, who says nothing.
        for name in ["example.com", "micro.internal", "127.0.0.1"] {
            let key = tunnel::Keypair::generate();
            let config = quinn::ClientConfig::new(Arc::new(tunnel::quic::stranger(&key)));
            let ended = end_of(node.link, config, name).await;
            assert_eq!(ended, Err(tunnel::Close::Slow.to_wire()), "{name}");
        }
    });
    assert_eq!((handshakes(&node, "Failed"), handshakes(&node, "Proven")), (6.0, 3.0));
    let slow = "micro_tunnel_strangers_refused_total{by=\"Here\",reason=\"Slow\"}";
    until("the silent are counted", || node.metric(slow) == 3.0);
    still_serves(&mut node, beat);
}

/// Packets with what TLS says first, cut at `at` and wherever a packet is full.
fn cut(hello: &[u8], at: usize) -> Vec<Vec<u8>> {
    let pieces = [(0, &hello[..at]), (at, &hello[at..])];
    let mut packets = Vec::new();
    for (offset, piece) in pieces {
        let parts = piece.chunks(PACKET).enumerate();
        packets.extend(parts.map(|(n, part)| crypto(offset + n * PACKET, part)));
    }
    packets
}

#[test]
fn a_first_flight_is_understood_wherever_it_is_cut_and_in_whatever_order_it_comes() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    let length = Hand::new(node.link, b"", true).hello().len();
    // Every offset of the first headers, then one in seven; and the last.
    let offsets: Vec<_> = (1..64).chain((64..length).step_by(7)).chain([length - 1]).collect();
    let mut retries = 0;
    for (number, at) in offsets.iter().enumerate() {
        let mut hand = Hand::new(node.link, b"", true);
        let mut packets = cut(&hand.hello(), *at);
        if number % 2 == 1 {
            packets.reverse();
        }
        assert_eq!(hand.say(&packets), Answer::Handshake, "cut at {at} of {length}");
        retries += hand.retries;
    }
    tests::say(&format!("{} cuts of {length} bytes, {retries} after a Retry", offsets.len()));
    assert!(retries > 0 && handshakes(&node, "Retried") >= retries as f64);
    let grown = node.rss_kib().saturating_sub(before);
    assert!(grown <= GROWTH_KIB, "memory + {grown} KiB");
    until("those that say no more are given up", || node.metric("micro_tunnel_strangers ") == 0.0);
    assert_eq!(handshakes(&node, "Slow"), offsets.len() as f64);
    still_serves(&mut node, beat);
}

/// More than is kept of a hello whose pieces come with holes. Read from front to back these are parameters that are not
/// known, and such are passed over (RFC 9000 §7.4.2): either end is right, and which it is depends on the order of arrival.
const LARGEST: &str = "60,000 bytes of one unknown";
const MOST: &str = "10,000 unknown";

/// Transport parameters that may not be (RFC 9000 §7.4, §18.2), and whether the client names its connection.
fn parameters() -> Vec<(&'static str, Vec<u8>, bool)> {
    let most = varint((1 << 62) - 1);
    let id = |id, value: &[u8]| parameter(id, value);
    vec![
        ("none at all", Vec::new(), false),
        ("another connection's id", id(0x0f, b"otherone"), false),
        ("the same twice", [id(4, &varint(9)), id(4, &varint(9))].concat(), true),
        (LARGEST, id(0x1b1b, &[7; 60_000]), true),
        (MOST, (0..10_000).flat_map(|n| id(n * 31 + 27, b"")).collect(), true),
        ("a length beyond the end", [varint(4), varint(1 << 40), vec![1]].concat(), true),
        ("half an integer", vec![4, 1, 0xc0], true),
        ("an integer longer than its field", id(4, &[most.clone(), vec![0]].concat()), true),
        ("packets of one byte", id(3, &varint(1)), true),
        ("an exponent of acknowledgements of 21", id(0x0a, &varint(21)), true),
        ("a delay of acknowledgements of 2^14", id(0x0b, &varint(1 << 14)), true),
        ("a delay of acknowledgements of 2^62", id(0x0b, &most), true),
        ("one connection id at a time", id(0x0e, &varint(1)), true),
        ("2^62 streams", id(8, &most), true),
        ("a reset token of a client", id(2, &[7; 16]), true),
        ("a preferred address of a client", id(0x0d, &[7; 49]), true),
        ("a connection id of 21 bytes", id(0x0f, &[7; 21]), false),
    ]
}

#[test]
fn transport_parameters_that_may_not_be_end_the_connection() {
    let Some((mut node, beat)) = ground() else { return };
    let all = parameters();
    for (what, own, named) in &all {
        let mut hand = Hand::new(node.link, own, *named);
        let hello = hand.hello();
        let answer = hand.say(&cut(&hello, 40));
        let read = [LARGEST, MOST].contains(what) && matches!(answer, Answer::Handshake);
        assert!(read || matches!(answer, Answer::Closed(1..)), "{what}: {answer:?}");
    }
    // Of the largest the end was never seen, or it says no more.
    until("all have come to nothing", || {
        handshakes(&node, "Failed") + handshakes(&node, "Slow") == all.len() as f64
    });
    still_serves(&mut node, beat);
}

/// Frames that a first packet must not have, or that no packet may (RFC 9000 §12.4, §19).
fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let most = (1_u64 << 62) - 1;
    vec![
        ("an unknown type", varint(0x21)),
        ("an unknown type of eight bytes", varint(most)),
        ("STREAM", vec![0x08, 0, 1]),
        ("DATAGRAM", vec![0x31, 1, 7]),
        ("HANDSHAKE_DONE of a client", vec![0x1e]),
        ("NEW_TOKEN of a client", vec![0x07, 1, 7]),
        ("NEW_CONNECTION_ID of no bytes", vec![0x18, 1, 0, 0]),
        ("RETIRE_CONNECTION_ID", [vec![0x19], varint(most)].concat()),
        ("PATH_CHALLENGE", [vec![0x1a], vec![7; 8]].concat()),
        ("MAX_STREAMS of 2^62", [vec![0x12], varint(most)].concat()),
        ("an acknowledgement of what was never sent", vec![0x02, 0x40, 0x64, 0, 0, 0]),
        ("an acknowledgement below zero", vec![0x02, 1, 0, 0, 9]),
        ("CRYPTO at the end of numbers", [vec![6], varint(most), vec![1, 7]].concat()),
        ("CRYPTO far away", [vec![6], varint(1 << 30), vec![1, 7]].concat()),
        ("CRYPTO longer than the packet", [vec![6, 0], varint(most)].concat()),
    ]
}

#[test]
fn frames_that_may_not_be_in_a_first_packet_end_the_connection() {
    let Some((mut node, beat)) = ground() else { return };
    for (what, frame) in frames() {
        let mut hand = Hand::new(node.link, b"", true);
        let hello = hand.hello();
        // Before the handshake, within it, and alone.
        let mut after = cut(&hello, 40);
        after[0].extend_from_slice(&frame);
        let answer = hand.say(&after);
        assert!(matches!(answer, Answer::Closed(1..)), "{what}: {answer:?}");
        let mut hand = Hand::new(node.link, b"", true);
        hand.send(&frame);
    }
    assert!(handshakes(&node, "Failed") >= frames().len() as f64, "{}", node.metrics());
    still_serves(&mut node, beat);
}

#[test]
fn a_first_flight_in_single_bytes_with_holes_costs_little() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    for _ in 0..32 {
        let mut hand = Hand::new(node.link, b"", true);
        let hello = hand.hello();
        // Every second byte, from the end, and never the others.
        let bytes: Vec<_> = (0..hello.len()).rev().step_by(2).collect();
        for bytes in bytes.chunks(200) {
            hand.send(
                &bytes.iter().flat_map(|at| crypto(*at, &hello[*at..=*at])).collect::<Vec<_>>(),
            );
        }
    }
    beat.goes_on(10);
    let grown = node.rss_kib().saturating_sub(before);
    tests::say(&format!("32 flights in single bytes: memory + {grown} KiB"));
    assert!(grown <= GROWTH_KIB, "memory + {grown} KiB");
    until("they are given up", || node.metric("micro_tunnel_strangers ") == 0.0);
    still_serves(&mut node, beat);
}

#[test]
fn a_thousand_handshakes_that_never_end_shut_nobody_out() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    let halves: Vec<_> = (0..HALVES)
        .map(|_| {
            let mut hand = Hand::new(node.link, b"", true);
            let hello = hand.hello();
            cut(&hello, 40).iter().for_each(|frames| hand.send(frames));
            hand
        })
        .collect();
    // While they are there a member joins: it proves its address.
    drop(runtime().block_on(Member::join(&node, "meanwhile", "*")));
    let grown = node.rss_kib().saturating_sub(before);
    let retried = handshakes(&node, "Retried");
    tests::say(&format!("{HALVES} halves: {retried} asked for proof, memory + {grown} KiB"));
    assert!(retried >= HALVES as f64 / 2.0, "{}", node.metrics());
    assert!(grown <= GROWTH_KIB, "memory + {grown} KiB");
    drop(halves);
    until("they are given up", || node.metric("micro_tunnel_strangers ") == 0.0);
    assert!(handshakes(&node, "Slow") >= 1.0, "{}", node.metrics());
    still_serves(&mut node, beat);
}
