//! A node serves the programs of its own user. The others here are real: threads that have given up
//! root for another user before they connect.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use daemon_support::{User, get, soon};

/// `nobody`, on every Linux.
const NOBODY: u32 = 65_534;
/// A fatal alert, `access_denied` (RFC 8446 section 6.2), in a record of TLS 1.2.
const TLS_ACCESS_DENIED: &[u8] = &[21, 3, 3, 0, 2, 2, 49];
const GET: &str = "GET /x HTTP/1.1\r\nHost: nowhere\r\nConnection: close\r\n\r\n";

/// Whether a thread can become another user here; says so where it cannot.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn can_be_others() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: needs root, to be other users");
    }
    root
}

/// Runs `work` in a thread that belongs to `uid`. Linux keeps a user for each thread.
fn being<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(uid)).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

fn say(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // Closed with bytes unread, a connection may end with a reset.
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The head of the answer to one gRPC call.
fn grpc(address: &str) -> http::HeaderMap {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post("http://micro/greeter.Say/Hello")
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, _body) = send.send_request(request, true).unwrap();
        answer.await.unwrap().headers().clone()
    })
}

fn turned_away(observe: &str) -> String {
    let metrics = get(observe, "/metrics");
    let line = metrics.lines().find(|line| line.contains("reason=\"NotOwner\""));
    line.map_or_else(|| "0".to_owned(), |line| line.split(' ').next_back().unwrap().to_owned())
}

#[test]
fn the_programs_of_another_user_are_turned_away_in_their_own_protocol() {
    if !can_be_others() {
        return;
    }
    let ada = User::new();
    let node = ada.up("a", &[]);
    let (proxy, observe) = (node.proxy(), node.text("/observe/address"));
    assert!(get(&proxy, "/").starts_with("HTTP/1.1 404"), "the own user is served");

    let answer = String::from_utf8(being(NOBODY, || say(&proxy, GET.as_bytes()))).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.contains("micro-error: M1015"), "{answer}");
    let body: Vec<_> = answer.split_once("\r\n\r\n").unwrap().1.lines().collect();
    assert_eq!(
        body,
        [
            "error[M1015]: user 65534 may not use this node, which serves user 0",
            "  why   a connection on the loopback is served to the user that runs the node, and root",
            "  try   proxy.allow_users = [\"65534\"] in its configuration, or a node of your own: \
             micro network",
        ]
    );

    let answer = being(NOBODY, || grpc(&proxy));
    assert_eq!(
        (&answer["grpc-status"], &answer["micro-error"]),
        (&"7".parse().unwrap(), &"M1015".parse().unwrap())
    );

    let answer = being(NOBODY, || say(&proxy, b"\x16\x03\x01 a hello of TLS"));
    assert_eq!(answer, TLS_ACCESS_DENIED);
    assert_eq!(being(NOBODY, || say(&proxy, b"\xff\0 of none")), b"", "not a byte");
    assert_eq!(turned_away(&observe), "4");
}

#[test]
fn a_connection_that_is_closed_at_once_does_not_pass_for_root() {
    if !can_be_others() {
        return;
    }
    let ada = User::new();
    let node = ada.up("a", &[]);
    let (proxy, observe) = (node.proxy(), node.text("/observe/address"));
    being(NOBODY, || {
        for _ in 0..50 {
            let mut stream = TcpStream::connect(&proxy).unwrap();
            stream.write_all(GET.as_bytes()).unwrap();
        }
    });
    soon("all 50 are turned away", || turned_away(&observe) == "50");
    let calls = get(&observe, "/metrics");
    let carried =
        calls.lines().find(|line| line.contains("face=\"Http1\"") && !line.ends_with(" 0"));
    assert_eq!(carried, None, "not one was a call");
}

#[test]
fn users_that_are_named_are_served_and_others_still_are_not() {
    if !can_be_others() {
        return;
    }
    let ada = User::new();
    let node = ada.up("a", &["--allow-users", "65534"]);
    let proxy = node.proxy();
    let seen = |uid| String::from_utf8(being(uid, || say(&proxy, GET.as_bytes()))).unwrap();
    assert!(seen(NOBODY).starts_with("HTTP/1.1 404"), "{}", seen(NOBODY));
    assert!(seen(12_345).starts_with("HTTP/1.1 403"), "{}", seen(12_345));
    let everybody = ada.up("b", &["--allow-users", "*"]);
    let proxy = everybody.proxy();
    let answer = String::from_utf8(being(12_345, || say(&proxy, GET.as_bytes()))).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn a_user_that_does_not_exist_is_told_before_anything_starts() {
    let ada = User::new();
    let ran = ada.fails("a", &["--allow-users", "no-such-user"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("there is no user \"no-such-user\" in /etc/passwd"), "{ran:?}");
}

/// The `grpc-status` and the error, if any, of one call to a service of the node's own.
fn own(address: &str, path: &str, message: &[u8]) -> (String, String) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::post(format!("http://micro{path}"))
            .header("content-type", "application/grpc")
            .body(())
            .unwrap();
        let (answer, mut body) = send.send_request(request, false).unwrap();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        body.send_data([&[0], &length[..], message].concat().into(), true).unwrap();
        let (head, mut body) = answer.await.unwrap().into_parts();
        while let Some(data) = body.data().await {
            body.flow_control().release_capacity(data.unwrap().len()).unwrap();
        }
        let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
        let text = |name| {
            let value = trailers.get(name).map(http::HeaderValue::as_bytes);
            String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
        };
        (text("grpc-status"), text("grpc-message"))
    })
}

#[test]
fn where_everybody_is_served_only_the_owner_writes_rules_and_routes() {
    use prost::Message as _;
    use proto::micro::{router, rules};
    if !can_be_others() {
        return;
    }
    let ada = User::new();
    for users in ["*", "nobody"] {
        let node = ada.up("a", &["--allow-users", users]);
        let proxy = node.proxy();
        let file = "service = \"orders\"\n[[rule]]\nname = \"r\"\nthen.retries = 1\n".to_owned();
        let apply = rules::ApplyRequest { file, ..Default::default() }.encode_to_vec();
        let (service, address) = ("orders".to_owned(), "127.0.0.1:9".to_owned());
        let route = router::Route { service, address, ..Default::default() }.encode_to_vec();
        let of = rules::RemoveRequest { service: "orders".to_owned() }.encode_to_vec();
        let writes = [
            ("/go.micro.rules.Rules/Apply", &apply),
            ("/go.micro.router.Table/Create", &route),
            ("/go.micro.router.Table/Delete", &route),
            ("/go.micro.rules.Rules/Remove", &of),
        ];
        for (path, message) in writes {
            let (status, why) = being(NOBODY, || own(&proxy, path, message));
            assert_eq!(status, "7", "{users} {path}: {why}");
            assert!(why.contains("user who runs the node"), "{why}");
        }
        let (status, why) = being(NOBODY, || own(&proxy, "/go.micro.rules.Rules/List", b""));
        assert_eq!(status, "0", "reading is for all: {why}");
        // The node runs as root here, and so does this test.
        for (path, message) in writes {
            let (status, why) = own(&proxy, path, message);
            assert_eq!(status, "0", "{users} {path}: {why}");
        }
        node.kill();
    }
}
