//! A node that is told to stop finishes what it has, takes nothing new, and ends with 0.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use daemon_support::{User, http};

/// An HTTP/1.1 service that answers when told to: takes one request, says so, and waits.
struct Slow {
    listener: TcpListener,
}

impl Slow {
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        (Self { listener }, port)
    }

    fn take(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream
    }
}

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";

#[test]
fn open_calls_finish_and_new_ones_are_refused() {
    let ada = User::new();
    let mut node = ada.up("a", &[]);
    let (slow, port) = Slow::start();
    node.run(&["expose", "shop", &port, "--protocol", "http"]).ok();
    node.wait_for("services=shop");
    let proxy = node.proxy();
    let at = proxy.clone();
    let caller = std::thread::spawn(move || http(&at, REQUEST));
    let mut call = slow.take();

    node.signal("TERM");
    node.wait_line("draining 1 call");
    let status = node.status();
    assert_eq!(
        (&status["node"]["ready"], &status["node"]["draining"]),
        (&false.into(), &true.into())
    );
    // Refused at the door, or told: never carried.
    if let Ok(mut late) = TcpStream::connect(&proxy) {
        let mut answer = String::new();
        let _ = late.write_all(REQUEST.as_bytes()).and_then(|()| late.read_to_string(&mut answer));
        assert!(answer.is_empty() || answer.contains("M1013"), "{answer}");
    }

    call.write_all(ANSWER).unwrap();
    let answer = caller.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    assert_eq!(node.wait_end(), Some(0), "{}", node.said());
}

#[test]
fn a_second_signal_stops_at_once() {
    let ada = User::new();
    let mut node = ada.up("a", &["--drain-grace", "1h"]);
    let (slow, port) = Slow::start();
    node.run(&["expose", "shop", &port, "--protocol", "http"]).ok();
    node.wait_for("services=shop");
    let proxy = node.proxy();
    let mut caller = TcpStream::connect(proxy).unwrap();
    caller.write_all(REQUEST.as_bytes()).unwrap();
    let _call = slow.take();
    node.signal("TERM");
    node.wait_line("draining 1 call");
    node.signal("INT");
    assert_eq!(node.wait_end(), Some(0));
    assert!(node.said().contains("1 call cut off"), "{}", node.said());
}

#[test]
fn calls_that_outlast_the_grace_are_cut_off() {
    let ada = User::new();
    let mut node = ada.up("a", &["--drain-grace", "1s"]);
    let (slow, port) = Slow::start();
    node.run(&["expose", "shop", &port, "--protocol", "http"]).ok();
    node.wait_for("services=shop");
    let mut caller = TcpStream::connect(node.proxy()).unwrap();
    caller.write_all(REQUEST.as_bytes()).unwrap();
    let _call = slow.take();
    let down = node.run(&["network", "down"]);
    assert_eq!(down.code, 0, "{down:?}");
    assert_eq!(node.wait_end(), Some(0));
}

#[test]
fn peers_hear_at_once_that_a_node_leaves() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let mut second = bob.up("b", &["--join", &first.invite(&["--service", "*"])]);
    let (_slow, port) = Slow::start();
    second.run(&["expose", "shop", &port, "--protocol", "http"]).ok();
    first.wait_for("services=shop");
    second.signal("TERM");
    assert_eq!(second.wait_end(), Some(0));
    let answer = http(&first.proxy(), REQUEST);
    assert!(
        answer.starts_with("HTTP/1.1 404") && answer.contains("micro-error: M1203"),
        "{answer}"
    );
}
