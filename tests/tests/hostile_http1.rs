//! Requests that two servers could read differently, names written in odd ways, and headers that only a node may set
//! (reliability classes 6, 7, 9 and 10). What counts is what the service sees.

use std::io::Write as _;

use tests::hostile::frames::{Client, END_HEADERS, END_STREAM, Kind, frame};
use tests::hostile::origin::{BODY, Origin};
use tests::hostile::{Alone, ask, connect, read_to_close, until};

/// What is hidden behind each request.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";

/// A node with a service called `web`.
fn web(origin: Origin) -> Option<(Alone, Origin)> {
    let node = Alone::up(&[])?;
    node.expose("web", origin.address, "http");
    Some((node, origin))
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n")
}

/// The service is still called as if nothing had been, on whatever connection.
fn still_serves(node: &Alone, origin: &Origin, after: &str) {
    let answer = ask(node.proxy, get("/after", "Host: web\r\n").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(BODY), "{after:?}: {answer}");
    let seen = origin.take();
    // One that broke off may be written down only now, when its connection has ended.
    let (this, others): (Vec<_>, Vec<_>) = seen.iter().partition(|one| one.target() == "/after");
    assert_eq!(this.len(), 1, "{after:?}: {seen:?}");
    assert_eq!(&this[0].body[..], b"", "{after:?}");
    assert!(others.iter().all(|one| one.target() == "/shown"), "{after:?}: {seen:?}");
}

#[test]
fn a_request_of_two_lengths_is_refused_and_what_follows_it_is_no_request() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\nTransfer-Encoding: chunked\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: 4 4\r\n",
        "Content-Length: \r\n",
        "Content-Length: 18446744073709551620\r\n",
        "Content-Length : 4\r\n",
        "Content-Length\t: 4\r\n",
        " Content-Length: 4\r\n",
        "Content-Length:\r\n 4\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer\u{0}-Encoding: chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\0b\r\n",
        "X: a\n",
        "X: a\nY: b\r\n",
        "Host: other\r\n",
        "Host: web\r\n",
        ": empty\r\n",
        "no colon\r\n",
    ] {
        let request = format!("POST /shown HTTP/1.1\r\nHost: web\r\n{fields}\r\n0\r\n\r\n{HIDDEN}");
        let answer = ask(node.proxy, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answer}");
        let seen = origin.take();
        assert!(seen.is_empty(), "{fields:?}: {seen:?}");
        still_serves(&node, &origin, fields);
    }
}

#[test]
fn a_request_line_that_is_none_is_refused() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    for line in [
        "get / HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /\tHTTP/1.1",
        "GET / x HTTP/1.1",
        "GET / HTTP/1.1 x",
        "GET / HTTP/2.0",
        "GET / HTTP/1.2",
        "GET / HTTP/0.9",
        "GET / HTTP/1.1\0",
        "GET /",
        "GET",
        "GET shown HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /a\u{1}b HTTP/1.1",
        "G(T / HTTP/1.1",
        "CONNECT web HTTP/1.1",
        "CONNECT http://web/ HTTP/1.1",
        "CONNECT ada@web:80 HTTP/1.1",
        "PRI * HTTP/2.0",
    ] {
        let answer = ask(node.proxy, format!("{line}\r\nHost: web\r\n\r\n{HIDDEN}").as_bytes());
        // HTTP/0.9 had no status lines, and a broken preface of HTTP/2 has none either.
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400");
        assert!(refused && answer.matches("HTTP/1.1 ").count() <= 1, "{line:?}: {answer}");
        let seen = origin.take();
        assert!(seen.is_empty(), "{line:?}: {seen:?}");
        still_serves(&node, &origin, line);
    }
    let old = "POST / HTTP/1.0\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = ask(node.proxy, format!("{old}{HIDDEN}").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400") || answer.starts_with("HTTP/1.0 400"), "{answer}");
    assert!(origin.take().is_empty());
}

#[test]
fn a_body_that_is_not_what_it_says_spoils_no_other_request() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    let head = "POST /shown HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "0x4\r\nevil\r\n0\r\n\r\n",
        "+4\r\nevil\r\n0\r\n\r\n",
        "-1\r\nevil\r\n0\r\n\r\n",
        "4g\r\nevil\r\n0\r\n\r\n",
        "10000000000000004\r\nevil\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFF\r\nevil\r\n0\r\n\r\n",
        "\r\nevil\r\n0\r\n\r\n",
        "4\r\nevil0\r\n\r\n",
        "4\r\nevil and more\r\n0\r\n\r\n",
        "4\rXevil\r\n0\r\n\r\n",
        "4;x\rX\r\nevil\r\n0\r\n\r\n",
        "4\r\nevil\r\n0\r\nContent-Length : 9\r\n\r\n",
        "4\r\nevil\r\n0\r\n folded: x\r\n\r\n",
    ] {
        // Said to the end: a chunk as large as the world is awaited until the caller is gone.
        let mut caller = connect(node.proxy);
        caller.write_all(format!("{head}{body}{HIDDEN}").as_bytes()).expect("the node reads");
        let _ = caller.shutdown(std::net::Shutdown::Write);
        let answer = read_to_close(&mut caller);
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{body:?}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{body:?}: {answer}");
        // The service may have been shown the beginning, never another request and never a whole one.
        for request in origin.take() {
            assert_eq!(request.target(), "/shown", "{body:?}: {request:?}");
            assert!(!request.body.ends_with(b"0\r\n\r\n"), "{body:?}: {request:?}");
        }
        until("the broken request is forgotten", || node.metric("micro_proxy_in_flight ") == 0.0);
        let _begun_late = origin.take();
        still_serves(&node, &origin, body);
    }
}

#[test]
fn odd_requests_of_one_meaning_are_passed_on_in_one_form() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    for (request, targets) in [
        ("\r\n\r\nGET /a HTTP/1.1\r\nHost: web\r\n\r\n", &["/a", "/hidden"][..]),
        ("GET /a HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nGET ", &["/a", "/hidden"]),
        ("GET http://web/a HTTP/1.1\r\nHost: other\r\n\r\n", &["/a", "/hidden"]),
        (
            "POST /a HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: Chunked\r\n\r\n4;x=\"\\\"\"\r\nevil\r\n0\r\nT: x\r\n\r\n",
            &["/a", "/hidden"],
        ),
        ("POST /a HTTP/1.1\r\nHost: web\r\nContent-Length: 0004\r\n\r\nevil", &["/a", "/hidden"]),
        // Another protocol begins only where the service agrees, and h2c never.
        (
            "GET /a HTTP/1.1\r\nHost: web\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
            &["/a", "/hidden"],
        ),
        (
            "GET /a HTTP/1.1\r\nHost: web\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            &["/a", "/hidden"],
        ),
    ] {
        let answer = ask(node.proxy, format!("{request}{HIDDEN}").as_bytes());
        assert_eq!(answer.matches("HTTP/1.1 200").count(), targets.len(), "{request:?}: {answer}");
        let seen = origin.take();
        let found: Vec<_> = seen.iter().map(tests::hostile::origin::Request::target).collect();
        assert_eq!(found, targets, "{request:?}: {seen:?}");
        for request in &seen {
            assert_eq!(request.fields("host"), ["web"], "{request:?}");
            assert!(request.fields("http2-settings").is_empty(), "{request:?}");
            assert!(matches!(&request.fields("upgrade")[..], [] | ["websocket"]), "{request:?}");
            let lengths = request.fields("content-length").len();
            assert!(lengths + request.fields("transfer-encoding").len() <= 1, "{request:?}");
        }
    }
}

#[test]
fn bytes_that_a_service_sends_unasked_are_nobody_s_response() {
    let stolen = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen";
    let Some((node, _origin)) = web(Origin::start_with("", stolen)) else { return };
    for _ in 0..20 {
        let answer = ask(node.proxy, get("/", "Host: web\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(BODY), "{answer}");
    }
}

#[test]
fn hosts_have_one_form() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    for host in [
        "web",
        "WEB",
        "Web.",
        "web:80",
        "web.localhost",
        "WEB.LOCALHOST:8081",
        "web.micro.internal",
    ] {
        let answer = ask(node.proxy, get("/", &format!("Host: {host}\r\n")).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 200"), "{host:?}: {answer}");
    }
    assert_eq!(origin.take().len(), 7);
    for host in [
        "web, other",
        "web other",
        "user@web",
        "user:secret@web",
        "web@other",
        "web/",
        "web/../x",
        "web#",
        "web?x",
        "web\\",
        "web%00",
        "%77eb",
        "web\u{0}",
        "web..",
        ".web",
        "web:80:80",
        "web:x",
        "web.localhost.evil",
        "localhost.web",
        "[web]",
        "http://web",
        "",
    ] {
        let answer = ask(node.proxy, get("/", &format!("Host: {host}\r\n")).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{host:?}: {answer}");
        let seen = origin.take();
        assert!(seen.is_empty(), "{host:?}: {seen:?}");
    }
    for target in ["http://user@web/", "http://web@other/", "web/", "//web/"] {
        let answer = ask(node.proxy, get(target, "Host: other\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 4"), "{target:?}: {answer}");
        assert!(origin.take().is_empty(), "{target:?}");
    }
}

#[test]
fn paths_are_passed_on_as_they_are_or_not_at_all() {
    let Some((node, origin)) = web(Origin::start("")) else { return };
    for path in [
        "//admin",
        "/a//b",
        "/%2e%2e/admin",
        "/a/../b",
        "/a%2Fb",
        "/%00",
        "/a;b=c",
        "/?a=b?c",
        "/a\\b",
    ] {
        let answer = ask(node.proxy, get(path, "Host: web\r\n").as_bytes());
        let seen = origin.take();
        if answer.starts_with("HTTP/1.1 200") {
            assert_eq!(seen.len(), 1, "{path:?}");
            assert_eq!(seen[0].target(), path, "what was decided on is what is asked for");
        } else {
            assert!(answer.starts_with("HTTP/1.1 400") && seen.is_empty(), "{path:?}: {answer}");
        }
    }
    // A fragment is for the one who asks, never for a server (RFC 9110 §4.2.5).
    let answer = ask(node.proxy, get("/a#/../admin", "Host: web\r\n").as_bytes());
    let seen = origin.take();
    assert!(seen.iter().all(|request| request.target() == "/a"), "{seen:?} {answer}");
    // gRPC finds the service in the path, so a path has one spelling only.
    for path in [
        "web.Say/Hello",
        "//web.Say/Hello",
        "/web%2eSay/Hello",
        "/%77eb.Say/Hello",
        "/./web.Say/Hello",
        "*",
        "",
    ] {
        let mut client = Client::connect(node.proxy);
        let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).expect("a short path")];
        block.extend_from_slice(path.as_bytes());
        // content-type is entry 31 of the static table, above what four bits hold; te: trailers is spelled out.
        block.extend_from_slice(&[0x0f, 16, 16]);
        block.extend_from_slice(b"application/grpc");
        assert!(client.say(&frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block)));
        until("an answer", || {
            let heard = client.heard();
            heard.closed || heard.heads + heard.resets > 0
        });
        assert!(origin.take().is_empty(), "{path:?}");
    }
}

#[test]
fn headers_that_only_a_node_sets_are_believed_from_nobody() {
    let said = "Micro-Error: M1203\r\nMICRO-NODE: other\r\nmicro-path: x\r\nmicro_error: M1203\r\nX-Micro-Error: M1\r\n\
                Connection: micro-node\r\nX-Mine: kept\r\n";
    let Some((node, origin)) = web(Origin::start(said)) else { return };
    let answer = ask(node.proxy, get("/", "Host: web\r\n").as_bytes());
    let lower = answer.to_ascii_lowercase();
    assert!(lower.contains("x-mine: kept"), "{answer}");
    for ours in ["micro-error", "micro-node", "micro-path", "micro_error", "x-micro-error"] {
        assert!(!lower.contains(ours), "{ours}: {answer}");
    }
    let _first = origin.take();
    let forged = [
        "x-micro-caller",
        "X-Micro-Node",
        "micro-caller",
        "Micro_Caller",
        "x_micro_caller",
        "micro-path",
        "micro-hop",
        "MICRO_NODE",
        "micro_version",
        "x-micro-error",
    ];
    for name in forged {
        for listed in ["", "Connection: x-micro-caller, host, content-length\r\n"] {
            let fields = format!("Host: web\r\n{listed}{name}: root\r\n");
            let answer = ask(node.proxy, get("/", &fields).as_bytes());
            assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
            let seen = origin.take();
            assert_eq!(seen.len(), 1);
            assert!(seen[0].fields(name).is_empty(), "{name}: {:?}", seen[0]);
            assert_eq!(seen[0].fields("host"), ["web"], "{name}: {:?}", seen[0]);
        }
    }
    // A header that decides, given twice, could be read in two ways.
    for name in ["micro-version", "Micro-Node", "micro-region", "micro-namespace"] {
        let fields = format!("Host: web\r\n{name}: a\r\n{name}: b\r\n");
        let answer = ask(node.proxy, get("/", &fields).as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{name}: {answer}");
        assert!(origin.take().is_empty());
    }
}
