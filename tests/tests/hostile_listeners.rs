//! Every listener of a node gets bytes that mean nothing, that never end, or that never come (reliability classes 5, 18
//! and 20). The node lives, and the calls of others go on.

use std::io::{Read as _, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

use tests::hostile::origin::{BODY, Origin};
use tests::hostile::{Alone, Beat, GROWTH_KIB, ask, connect, exchange, read_to_close, until};
use tests::process::PATIENCE;

/// Connections that say nothing, where the limit of descriptors permits.
const SILENT: usize = 10_000;

fn ground() -> Option<(Alone, Beat)> {
    let node = Alone::up(&[])?;
    let origin = Origin::start("");
    node.expose("web", origin.address, "http");
    let beat = Beat::start(node.proxy);
    beat.goes_on(10);
    Some((node, beat))
}

/// Bytes that look like nothing, the same in every run.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = |_| {
        // xorshift64: no quality is needed, only every byte value.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(next).collect()
}

/// What is said to each listener, each to be refused or closed.
fn nonsense() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [1, 7, 100, 5_000, 200_000].map(|n| noise(n, n as u64)).into();
    all.push(vec![0; 100_000]);
    all.push(vec![b'A'; 300_000]);
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec());
    all.push(b"*1\r\n$4\r\nPING\r\n".to_vec());
    all.push(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\nGET / HTTP/1.1\r\n\r\n".to_vec());
    all.push(format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "x".repeat(300_000)).into_bytes());
    all.push(
        format!("GET / HTTP/1.1\r\nHost: web\r\nX: {}\r\n\r\n", "x".repeat(300_000)).into_bytes(),
    );
    all.push(
        format!("GET / HTTP/1.1\r\nHost: web\r\n{}\r\n", "X: y\r\n".repeat(20_000)).into_bytes(),
    );
    all.push(format!("GET / HTTP/1.1\r\nHost: web\r\n{}", "\r".repeat(1000)).into_bytes());
    all
}

/// An answer to nonsense is none, or one that refuses.
fn is_refusal(answer: &str) -> bool {
    // An alert of TLS to what begins like it.
    let alert = answer.starts_with("\u{15}\u{3}\u{3}");
    answer.is_empty()
        || alert
        || ["HTTP/1.1 4", "HTTP/1.0 4"].iter().any(|no| answer.starts_with(no))
}

#[test]
fn nonsense_at_any_port_is_refused_and_costs_nothing() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    for bytes in nonsense() {
        for at in [node.proxy, node.observe] {
            let mut stream = connect(at);
            // Half a request is over when nothing more can come.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let answer = read_to_close(&mut stream);
            assert!(is_refusal(&answer), "{at}: {answer}");
        }
        let mut stream = UnixStream::connect(node.socket()).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let answer = read_to_close(&mut stream);
        assert!(is_refusal(&answer), "the socket: {answer}");
    }
    beat.goes_on(10);
    assert!(
        node.metric("micro_proxy_turned_away_total{reason=\"Unknown\"}") > 0.0,
        "{}",
        node.metrics()
    );
    let grown = node.rss_kib().saturating_sub(before);
    assert!(node.running() && grown <= GROWTH_KIB, "memory + {grown} KiB");
    beat.stop();
}

#[test]
fn datagrams_that_mean_nothing_are_dropped() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback has ports");
    // A first packet of QUIC: long header, version 1, ids of eight bytes, no token (RFC 9000 §17.2.2).
    let mut initial =
        vec![0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0x44, 0x80];
    initial.resize(1200, 0x5a);
    let mut versions = initial.clone();
    versions[1..5].copy_from_slice(&[0x0a, 0x0a, 0x0a, 0x0a]);
    let mut negotiation = initial.clone();
    negotiation[1..5].fill(0);
    for round in 0..2_000_u64 {
        // Another connection each time.
        initial[6..14].copy_from_slice(&round.to_be_bytes());
        versions[6..14].copy_from_slice(&round.to_be_bytes());
        let cut = usize::try_from(round % 1200).expect("it is small");
        let random = noise(1 + cut, round + 1);
        for bytes in [&initial[..], &initial[..cut], &versions, &negotiation, &random] {
            // A full queue is the node's to have.
            let _ = socket.send_to(bytes, node.link);
        }
    }
    beat.goes_on(20);
    let grown = node.rss_kib().saturating_sub(before);
    tests::say(&format!("10000 datagrams: memory + {grown} KiB"));
    assert!(node.running() && grown <= GROWTH_KIB, "memory + {grown} KiB");
    // The port still speaks QUIC: an unknown version is told the ones there are.
    socket.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    let fresh = UdpSocket::bind("127.0.0.1:0").expect("the loopback has ports");
    fresh.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    fresh.send_to(&versions, node.link).expect("the loopback takes it");
    let mut answer = [0; 1500];
    let length = fresh.recv(&mut answer).expect("an answer");
    assert!(
        length > 5 && answer[0] & 0x80 != 0 && answer[1..5] == [0; 4],
        "no version negotiation"
    );
    beat.stop();
}

#[test]
fn heads_that_never_end_hold_nobody_up() {
    let Some((node, beat)) = ground() else { return };
    let mut slow: Vec<TcpStream> = Vec::new();
    for said in [&b""[..], b"G", b"GET / HTTP/1.1\r\nHost: w", b"PRI * HTTP/2.0\r\n\r\nSM\r\n"] {
        for at in [node.proxy, node.observe] {
            for _ in 0..10 {
                let mut stream = connect(at);
                stream.write_all(said).expect("a new connection takes what is said");
                slow.push(stream);
            }
        }
    }
    beat.goes_on(20);
    // One byte at a time is a request like any other.
    let mut patient = connect(node.proxy);
    for byte in b"GET /slowly HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" {
        patient.write_all(&[*byte]).expect("the node waits");
    }
    let answer = read_to_close(&mut patient);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(BODY), "{answer}");
    assert!(node.metrics().ends_with("# EOF\n"), "health is still told");
    assert!(node.cli(&["status"]).code == Some(0), "the socket still answers");
    // Those who have not said what they speak are closed, without a word.
    for mut stream in slow.drain(..).take(10) {
        assert_eq!(read_to_close(&mut stream), "");
    }
    beat.stop();
}

#[test]
fn the_socket_and_the_health_port_take_nothing_large_and_nothing_unknown() {
    let Some((node, beat)) = ground() else { return };
    let long = vec![b'{'; 32 << 20];
    let mut head = format!("POST /v1/expose HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", long.len())
        .into_bytes();
    head.extend_from_slice(&long);
    let socket = || {
        let stream = UnixStream::connect(node.socket()).expect("the node listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
        stream
    };
    let before = node.rss_kib();
    let answer = exchange(socket(), &head);
    assert!(is_refusal(&answer), "{answer}");
    let deep = "[".repeat(60_000);
    for (method, path, body) in [
        ("POST", "/v1/expose", deep.as_str()),
        ("POST", "/v1/expose", "{\"name\":1}"),
        ("POST", "/v1/invite", "null"),
        ("GET", "/v1/services/%00", ""),
        ("GET", "/v1/../../etc/passwd", ""),
        ("DELETE", "/v1/status", ""),
        ("GET", "/debug/pprof", ""),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(socket(), request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
        let answer = ask(node.observe, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{method} {path} of health: {answer}");
    }
    let grown = node.rss_kib().saturating_sub(before);
    assert!(grown <= GROWTH_KIB, "memory + {grown} KiB");
    beat.stop();
}

/// As many connections as there may be, which say nothing.
fn silent(to: SocketAddr, most: usize) -> Vec<TcpStream> {
    (0..most).map_while(|_| TcpStream::connect(to).ok()).collect()
}

#[test]
fn ten_thousand_connections_that_say_nothing_cost_little_and_are_freed() {
    let Some((mut node, beat)) = ground() else { return };
    let before = node.rss_kib();
    // Below the tester's own limit of descriptors, and below the node's of connections.
    let open = silent(node.proxy, SILENT);
    let held = node.rss_kib().saturating_sub(before);
    tests::say(&format!("{} silent connections: memory + {held} KiB", open.len()));
    assert!(open.len() >= 500, "only {} connections could be made", open.len());
    beat.goes_on(5);
    // All of them are closed by the node, not by us, and everything they had is given back.
    until("the silent are turned away", || {
        node.metric("micro_proxy_turned_away_total{reason=\"Silent\"}") >= open.len() as f64
    });
    until("their descriptors are free", || node.fds() < 200);
    let grown = node.rss_kib().saturating_sub(before);
    // One task, one timer and one buffer each while they wait.
    assert!(held <= 8 * SILENT as u64 + GROWTH_KIB, "memory + {held} KiB while they waited");
    tests::say(&format!("afterwards: memory + {grown} KiB"));
    assert!(node.running());
    beat.goes_on(5);
    beat.stop();
}

#[test]
fn without_descriptors_callers_are_turned_away_and_come_back_later() {
    let Some(mut node) = Alone::up_as(&[], &[], Some(256), b"") else { return };
    let origin = Origin::start("");
    node.expose("web", origin.address, "http");
    let hold: Vec<_> = silent(node.proxy, 1_000);
    until("descriptors are used up", || {
        node.running() && node.fds() >= 240
            || node.said().contains("no socket for a new connection")
    });
    drop(hold);
    until("calls are served again", || {
        let Ok(mut stream) = TcpStream::connect(node.proxy) else { return false };
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let _ = stream.write_all(b"GET /again HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.ends_with(BODY)
    });
    assert!(node.running());
    assert_eq!(node.cli(&["status"]).code, Some(0), "{}", node.said());
}
