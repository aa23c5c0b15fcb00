//! Rules from the command line to real calls, on two real nodes: written, seen, obeyed, taken away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use daemon_support::{Node, User, http, named, soon};

/// Who answered a call from the node, or the status it was refused with.
fn call(node: &Node<'_>, header: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n{header}\r\n");
    let answer = http(&node.proxy(), &request);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    match head.split(' ').nth(1) {
        Some("200") => body.trim().to_owned(),
        status => status.unwrap_or_default().to_owned(),
    }
}

fn file(user: &User, text: &str) -> String {
    let path = user.path("orders.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn what_an_operator_writes_on_one_node_decides_about_calls_on_the_other() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&["--service", "*"])]);
    let (v1, v2) = (named("one"), named("two"));
    first.run(&["expose", "orders", &v1, "--protocol", "http", "--version", "v1"]).ok();
    second.run(&["expose", "orders", &v2, "--protocol", "http", "--version", "v2"]).ok();
    for node in [&first, &second] {
        soon("both instances are known", || {
            let service = node.json(&["describe", "orders"]);
            service["instances"].as_array().is_some_and(|all| all.len() == 2)
        });
    }
    assert_eq!(call(&second, ""), "two", "the nearest");

    // A dry run says what is odd, and changes nothing.
    let canary = "service = \"orders\"\n\n[[rule]]\nname = \"old\"\nwhen.headers = [\"!x-new\"]\n\
                  then.select = \"version=v1\"\n\n[[rule]]\nname = \"broken\"\n\
                  then.abort = { status = 503 }\n";
    let path = file(&ada, canary);
    let ran = first.run(&["rules", "apply", &path, "--dry-run"]);
    assert_eq!((ran.code, &*ran.out), (0, "orders: 2 rules, would be revision 1\n"), "{ran:?}");
    assert_eq!(first.run(&["rules", "get", "orders"]).code, 4);

    let ran = first.run(&["rules", "apply", &path]);
    assert_eq!((ran.code, &*ran.out), (0, "orders: 2 rules, revision 1\n"), "{ran:?}");
    soon("the other node decides by it", || call(&second, "") == "one");
    assert_eq!(call(&second, "x-new: 1\r\n"), "503");
    let ran = second.run(&["rules", "get", "orders"]).ok();
    assert!(ran.starts_with("# revision 1, written by a,"), "{ran}");
    let ran = first.run(&["rules", "apply", &path]).ok();
    assert_eq!(ran, "orders: 2 rules, revision 1, unchanged\n");

    // What is told without sending is what happens.
    let why = second.json(&["network", "why", "orders"]);
    assert_eq!((&why["kind"], &why["revision"]), (&"Why".into(), &1.into()));
    let text = second.run(&["network", "why", "orders"]).ok();
    assert!(text.starts_with("orders → a ") && text.contains("chosen from 2"), "{text}");
    assert!(
        text.contains("out: not version=v1, but v2") && text.contains("old: decides"),
        "{text}"
    );
    let test = second.run(&["rules", "test", "orders", "--header", "x-new=1"]).ok();
    assert!(test.contains("refused with 503"), "{test}");
    let text = second.run(&["network", "why", "orders", "-H", "micro-version=v3"]).ok();
    assert!(text.contains("none: 2 instances exist, none with version=v3"), "{text}");

    // Who edits what is no longer there is told who was quicker.
    let edited = first.run(&["rules", "get", "orders"]).ok();
    first.run(&["network", "divert", "orders", "--to", "b", "--match", "header:x-dev=bob"]).ok();
    assert_eq!(call(&first, "x-dev: bob\r\n"), "two");
    soon("the divert is known", || call(&second, "x-dev: bob\r\n") == "two");
    assert_eq!(call(&second, "x-dev: eve\r\n"), "one");
    let path = file(&ada, &edited);
    let ran = first.run(&["rules", "apply", &path]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.err.contains("error[M1308]: the rules of orders are no longer those of revision 1")
    );
    assert!(ran.err.contains("they have revision 2, written by a"), "{}", ran.err);
    let ran = first.run(&["rules", "apply", &path, "--replace", "--dry-run"]);
    assert!(ran.err.contains("rule divert-b: is taken away; calls went to b until"), "{ran:?}");

    let list = second.run(&["network", "divert", "--list"]).ok();
    assert!(list.contains("orders") && list.contains("calls with x-dev=bob"), "{list}");
    first.run(&["network", "divert", "orders", "--stop", "--to", "b"]).ok();
    soon("the divert is over", || call(&second, "x-dev: bob\r\n") == "one");

    first.run(&["rules", "rm", "orders"]).ok();
    soon("nothing is decided any more", || call(&second, "") == "two");
    assert_eq!(second.run(&["rules", "get", "orders"]).code, 4);
}

#[test]
fn without_the_role_a_node_is_told_which_grant_it_lacks_and_how_to_get_it() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&[])]);
    let path = file(&bob, "service = \"orders\"\n[[rule]]\nname = \"r\"\nthen.retries = 1\n");
    let ran = second.run(&["rules", "apply", &path]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert_eq!(
        ran.err,
        "error[M3009]: this node may not decide about the calls of orders\n\
         \x20 why   it takes the role operator in the namespace default; its grant: role edge, \
         namespaces default\n\
         \x20 try   micro network invite --role operator --namespace default   on an issuer; then \
         here: micro network --name ops --join TICKET\n"
    );
    assert_eq!(second.run(&["network", "divert", "orders"]).code, 5);

    // As it says.
    let ticket = first.invite(&["--role", "operator", "--namespace", "default"]);
    let third = bob.up("ops", &["--join", &ticket]);
    let ran = third.run(&["rules", "apply", &path]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("no instance of orders is known: labels were not checked"), "{ran:?}");
}

const ABORT: &str =
    "service = \"orders\"\n[[rule]]\nname = \"closed\"\nthen.abort = { status = 503 }\n";

/// A node that is killed without a word and started again.
fn killed_and_started<'a>(
    user: &'a User,
    node: daemon_support::Node<'a>,
    at: &str,
) -> daemon_support::Node<'a> {
    node.kill();
    user.up("a", &["--join", at])
}

#[test]
fn what_a_node_decided_holds_in_its_next_life_and_what_it_took_away_does_not() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--role", "operator", "--namespace", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    let at = second.text("/listen/0");
    let path = file(&ada, ABORT);
    first.run(&["rules", "apply", &path]).ok();

    let first = killed_and_started(&ada, first, &at);
    let address = named("one");
    first.run(&["expose", "orders", &address, "--protocol", "http"]).ok();
    assert_eq!(call(&first, ""), "503");
    let ran = first.run(&["rules", "get", "orders"]).ok();
    assert!(ran.starts_with("# revision 1, written by a,"), "{ran}");
    soon("the other node has heard", || second.run(&["rules", "get", "orders"]).code == 0);

    first.run(&["rules", "rm", "orders"]).ok();
    let first = killed_and_started(&ada, first, &at);
    first.run(&["expose", "orders", &address, "--protocol", "http"]).ok();
    assert_eq!(call(&first, ""), "one");
    assert_eq!(first.run(&["rules", "get", "orders"]).code, 4);

    // What others decide in between is not overruled by what comes back.
    first.run(&["rules", "apply", &path]).ok();
    soon("the other node has heard of the third revision", || {
        second.run(&["rules", "get", "orders"]).out.starts_with("# revision 3, written by a,")
    });
    first.kill();
    let calm = file(&bob, "service = \"orders\"\n[[rule]]\nname = \"calm\"\nthen.retries = 1\n");
    second.run(&["rules", "apply", &calm, "--replace"]).ok();
    let first = ada.up("a", &["--join", &at]);
    soon("it knows what was decided", || {
        first.run(&["rules", "get", "orders"]).out.starts_with("# revision 4, written by b,")
    });
    let history = first.run(&["rules", "history", "orders"]).ok();
    assert!(history.starts_with("REVISION"), "{history}");
    let told: Vec<String> = history
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|line| {
            let parts: Vec<&str> = line.splitn(4, ' ').collect();
            [parts[0], parts[1], parts[3]].join(" ")
        })
        .collect();
    assert_eq!(told, ["4 b +calm -closed", "3 a +closed", "2 a -closed", "1 a +closed"]);
}

#[test]
fn rules_that_cannot_be_kept_are_refused_and_nothing_is_half_done() {
    let ada = User::new();
    let node = ada.up("a", &["--network", "acme"]);
    let path = file(&ada, ABORT);
    node.run(&["rules", "apply", &path]).ok();
    let state = node.state("acme");
    let mut kept = std::fs::read(state.join("rules")).unwrap();

    // The directory is not to be written to: it is elsewhere.
    let elsewhere = ada.path("elsewhere");
    std::fs::rename(&state, &elsewhere).unwrap();
    let ran = node.run(&["rules", "rm", "orders"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let lines: Vec<&str> = ran.err.lines().collect();
    assert_eq!(lines.len(), 3, "{ran:?}");
    let told = "error[M6003]: the rules of orders cannot be kept, so they stay as they were";
    assert_eq!(lines[0], told);
    assert!(lines[1].contains("No such file") && lines[2].contains("config path"), "{ran:?}");
    assert!(node.run(&["rules", "get", "orders"]).ok().starts_with("# revision 1,"));
    std::fs::rename(&elsewhere, &state).unwrap();
    assert_eq!(std::fs::read(state.join("rules")).unwrap(), kept);

    // One that is damaged is not overwritten: what is in it would be lost.
    node.kill();
    kept.truncate(kept.len() - 3);
    std::fs::write(state.join("rules"), &kept).unwrap();
    let node = ada.up("a", &["--network", "acme"]);
    let ran = node.run(&["rules", "apply", &path]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("what is kept there cannot be read"), "{ran:?}");
    assert_eq!(std::fs::read(state.join("rules")).unwrap(), kept);
    assert_eq!(node.run(&["rules", "get", "orders"]).code, 4);
}

#[test]
fn rules_are_read_tested_and_applied_before_there_is_an_instance() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let path = file(&ada, ABORT);
    let ran = node.run(&["rules", "apply", &path]);
    assert_eq!(ran.out, "orders: 1 rule, revision 1\n", "{ran:?}");
    let note = "these rules hold while this node runs; no other node may carry them\n";
    assert!(ran.err.ends_with(&format!("\nnote: {note}")), "{ran:?}");
    let ran = node.run(&["rules", "get", "orders"]).ok();
    let head = format!("# revision 1, written by a, carried by a\n# {note}service = \"orders\"\n");
    assert!(ran.starts_with(&head), "{ran}");
    assert!(node.run(&["rules", "get"]).ok().contains("closed"));
    let ran = node.run(&["rules", "test", "orders"]).ok();
    assert!(ran.contains("refused with 503"), "{ran}");
    let ran = node.run(&["network", "why", "orders"]).ok();
    assert!(ran.contains("none: no instance of it is known"), "{ran}");
    assert!(ran.contains("closed: decides"), "{ran}");
    let ran = node.run(&["rules", "apply", &file(&ada, &ABORT.replace("503", "500"))]);
    assert!(ran.err.contains("error[M1308]: orders has rules already"), "{ran:?}");
    node.run(&["rules", "rm", "orders"]).ok();
    assert_eq!(node.run(&["rules", "get", "orders"]).code, 4);
}

#[test]
fn rules_over_grpc_are_those_of_the_command_and_so_are_its_errors() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let grpc = |method: &str, ask: &serde_json::Value| {
        node.run(&["call", "go.micro.rules", &format!("Rules.{method}"), &ask.to_string()])
    };
    let read = |ran: daemon_support::Ran| -> serde_json::Value {
        serde_json::from_str(&ran.ok()).unwrap()
    };
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let of = json("{\"service\":\"orders\"}");
    let file = serde_json::json!({ "file": ABORT });
    let applied = read(grpc("Apply", &file));
    assert_eq!((&applied["service"], &applied["changed"]), (&"orders".into(), &true.into()));
    let got = read(grpc("Get", &of));
    assert_eq!(got["file"].as_str().unwrap(), {
        let text = node.run(&["rules", "get", "orders"]).ok();
        text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect::<String>()
    });
    assert_eq!(read(grpc("List", &json("{}")))["services"][0]["service"], "orders");
    assert_eq!(read(grpc("Test", &of))["outcomes"][0]["abort"], 503);
    assert_eq!(read(grpc("History", &of))["changes"][0]["added"][0], "closed");

    // The same text behind the same code; the status tells what may be done about it.
    let stale = serde_json::json!({ "file": ABORT.replace("503", "500") });
    let command = node.run(&["rules", "apply", &self::file(&ada, &ABORT.replace("503", "500"))]);
    let ran = grpc("Apply", &stale);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("M1308") && ran.err.contains("orders has rules already"), "{ran:?}");
    assert!(command.err.contains("error[M1308]: orders has rules already"), "{command:?}");
    let ran = grpc("Apply", &serde_json::json!({ "file": "service = \"orders\"\nx = 1" }));
    assert!(ran.err.contains("M4002") && ran.err.contains("unknown key"), "{ran:?}");
    read(grpc("Remove", &of));
    let ran = grpc("Get", &of);
    assert!(ran.err.contains("M1206") && ran.err.contains("orders has no rules"), "{ran:?}");
}
