//! Bytes that follow no protocol, connections that say nothing, and a machine that has run out of
//! something: others are served on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use daemon_support::{Node, User, get, http};

fn is_well(node: &Node<'_>) {
    let observe = node.text("/observe/address");
    for path in ["/livez", "/readyz"] {
        let answer = get(&observe, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let answer = get(&node.proxy(), "/");
    assert!(answer.contains("micro-error: M1203"), "{answer}");
}

/// What comes back until the other end closes; a reset is an end too.
fn to_the_end(mut stream: impl std::io::Read) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn garbage_on_every_port_ends_its_own_connection_and_nothing_else() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let tcp = [node.proxy(), node.text("/observe/address")];
    let mut many = b"GET / HTTP/1.1\r\n".to_vec();
    (0..20_000).for_each(|n| many.extend(format!("x-{n}: {n}\r\n").bytes()));
    let garbage: [&[u8]; 6] = [
        b"\0\x01\x02\xff\xfe hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        &many,
    ];
    for at in &tcp {
        for bytes in garbage {
            let mut stream = TcpStream::connect(at).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            // Closed while it is still written: as good as read and refused.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let answer = to_the_end(&mut stream);
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
        }
    }
    let mut admin = UnixStream::connect(node.socket()).unwrap();
    let _ = admin.write_all(&many);
    let answer = to_the_end(&mut admin);
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{}", answer.escape_ascii());
    let status = node.status();
    let link: std::net::SocketAddr = status["listen"][0].as_str().unwrap().parse().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 20, 1200, 9000] {
        for byte in [0x00, 0x40, 0xc0, 0xff] {
            socket.send_to(&vec![byte; length], link).unwrap();
        }
    }
    is_well(&node);
}

#[test]
fn an_admin_body_beyond_its_bound_is_refused() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let body = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
    let mut admin = UnixStream::connect(node.socket()).unwrap();
    let head = format!(
        "POST /v1/expose HTTP/1.1\r\nHost: micro\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    admin.write_all(head.as_bytes()).unwrap();
    // Refused before all of it was written, perhaps.
    let _ = admin.write_all(body.as_bytes());
    let mut answer = String::new();
    let _ = admin.read_to_string(&mut answer);
    assert!(answer.is_empty() || answer.contains("M8001"), "{answer}");
    is_well(&node);
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let observe = node.text("/observe/address");
    let silent = |at: &str| TcpStream::connect(at).unwrap();
    let proxy = node.proxy();
    let _held: Vec<_> = (0..200).flat_map(|_| [silent(&proxy), silent(&observe)]).collect();
    is_well(&node);
}

#[test]
fn a_node_without_files_left_serves_on_when_some_are_free_again() {
    let ada = User::new();
    let node = ada.up_with_files("a", 64);
    let proxy = node.proxy();
    let held: Vec<_> = (0..200).map(|_| TcpStream::connect(&proxy).unwrap()).collect();
    // One more than can be taken: it waits in the kernel's queue.
    let waiting = std::thread::spawn(move || {
        http(&proxy, "GET / HTTP/1.1\r\nHost: nobody\r\nConnection: close\r\n\r\n")
    });
    drop(held);
    let answer = waiting.join().unwrap();
    assert!(answer.contains("micro-error: M1203"), "{answer}");
    is_well(&node);
}
