//! Why a call goes where it goes, and where its time went, on two real nodes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use daemon_support::{User, http};

/// A web server that keeps the heads of its requests; the thread ends with the test's process.
fn kept() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&heads);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let (mut line, mut head) = (String::new(), String::new());
                while stream.read_line(&mut line).unwrap_or(0) > 0 {
                    head.push_str(&line.to_ascii_lowercase());
                    if line == "\r\n" {
                        all.lock().unwrap().push(std::mem::take(&mut head));
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                        let _ = stream.get_mut().write_all(answer);
                    }
                    line.clear();
                }
            });
        }
    });
    (address, heads)
}

#[test]
fn a_probe_shows_where_the_time_of_a_call_goes_and_which_node_is_silent() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &["--region", "eu/fra"]);
    let second = bob.up("b", &["--join", &first.invite(&[])]);
    let (address, heads) = kept();
    first.run(&["expose", "orders", &address, "--protocol", "http", "--version", "v2"]).ok();
    second.wait_for("services=orders");

    let text = second.run(&["network", "trace", "orders"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("#  NODE") && lines[0].ends_with("WHAT"), "{text}");
    assert!(lines[1].starts_with("1  b ") && lines[1].contains("chosen of 1 near ones"), "{text}");
    assert!(lines[2].starts_with("2  a ") && lines[2].contains(&format!("delivered to {address}")));
    assert!(lines[2].contains("eu/fra") && lines[2].contains("there and back"), "{text}");
    assert!(lines[3].starts_with("3  orders ") && lines[3].ends_with("200"), "{text}");
    assert!(lines[5].contains("in all: network "), "{text}");
    {
        let heads = heads.lock().unwrap();
        let last = heads.last().unwrap();
        assert!(
            last.starts_with("head / ") && last.contains("\r\nmicro-probe: trace\r\n"),
            "{last}"
        );
        assert!(!last.contains("micro-trace"), "{last}");
    }
    let told = second.json(&["network", "trace", "orders", "--header", "micro-colour=red"]);
    assert_eq!((&told["kind"], &told["status"]), (&"Trace".into(), &200.into()));
    assert_eq!(told["hops"].as_array().unwrap().len(), 3);
    assert_eq!(told["route"]["attempts"][0]["node"], "a");
    assert_eq!(told["route"]["why"]["ignored"][0]["header"], "micro-colour");

    // At the node of the service there is no link between.
    let text = first.run(&["network", "trace", "orders"]).ok();
    assert!(text.lines().nth(2).unwrap().starts_with("2  orders "), "{text}");

    // What was seen is in the explanation, cost and load apart.
    let why = second.json(&["network", "why", "orders", "--header", "micro-hop=3"]);
    let load = &why["candidates"][0]["load"];
    let of = |key: &str| load[key].as_u64().unwrap();
    assert!(of("latency_us") > 0 && of("network_us") > 0, "{why}");
    assert_eq!(of("wait_us"), of("network_us") + of("load_us"));
    assert_eq!(why["ignored"][0]["header"], "micro-hop");

    // No instance: refused where the call comes in.
    let ran = second.run(&["network", "trace", "orders?version=v3"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.out.contains("refused: 1 instance exists, not with version=v3"), "{ran:?}");
    assert!(ran.err.starts_with("error[M1002]: "), "{ran:?}");

    // A node that is there and says nothing.
    first.signal("STOP");
    let ran = second.run(&["network", "trace", "orders", "--timeout", "300ms"]);
    first.signal("CONT");
    assert_eq!(ran.code, 6, "{ran:?}");
    let last = ran.out.lines().last().unwrap();
    assert!(last.starts_with("2  a ") && last.contains("✗ "), "{ran:?}");
    let error = ran.err.lines().next().unwrap();
    assert!(error.starts_with("error[M1005]") || error.starts_with("error[M1007]"), "{ran:?}");
}

#[test]
fn an_instance_that_takes_no_call_is_out_and_why_says_since_when() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let (address, _) = kept();
    // Nobody listens there any more; what is exposed is believed until its lease ends.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for at in [&address, &gone] {
        node.run(&["expose", "orders", at, "--protocol", "http"]).ok();
    }
    let request = "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let text = loop {
        assert!(http(&node.proxy(), request).starts_with("HTTP/1.1 200"));
        let text = node.run(&["network", "why", "orders"]).ok();
        if text.contains("out: it took no call; asked again in ") {
            break text;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
    };
    assert!(text.contains(&format!("changed  0s ago: a {gone} out: it took no call")), "{text}");
    let head = text.lines().next().unwrap();
    assert!(head.starts_with(&format!("orders → a {address}")), "the one that is left: {text}");
}
