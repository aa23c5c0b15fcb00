//! Nodes become members with tickets, and calls cross from one to the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use daemon_support::{Node, User};

fn serve_greeter(user: &User, node: &Node<'_>) -> std::process::Child {
    let socket = node.socket().display().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_micro"));
    command
        .args(["--socket", &socket, "serve", "greeter"])
        .env_clear()
        .env("HOME", user.path(""))
        .env("XDG_RUNTIME_DIR", user.path("run"))
        .env("XDG_STATE_HOME", user.path("state"))
        .env("XDG_CONFIG_HOME", user.path("config"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command.spawn().unwrap()
}

#[test]
fn a_call_crosses_from_one_machine_to_the_other() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    assert!(second.said().contains("joined via a (direct udp/v4"), "{}", second.said());
    let mut greeter = serve_greeter(&bob, &second);
    first.wait_for("services=greeter");
    let out = first.run(&["call", "greeter", "Greeter.Hello", r#"{"name":"Ada"}"#]).ok();
    assert_eq!(out.trim(), r#"{"message":"Hello Ada"}"#);

    // Stopped as a person would, it is withdrawn at once.
    let pid = greeter.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(greeter.wait().unwrap().code(), Some(0));
    // The news travels to the other node by itself: until it is there, calls are turned away unseen.
    let mut ran = first.run(&["call", "greeter", "Greeter.Hello", "{}"]);
    for _ in 0..100 {
        if ran.code == 4 {
            break;
        }
        assert!(ran.err.contains("M1004"), "{ran:?}");
        ran = first.run(&["call", "greeter", "Greeter.Hello", "{}"]);
    }
    assert_eq!((ran.code, ran.err.contains("M1203")), (4, true), "{ran:?}");
}

#[test]
fn a_second_node_of_the_same_user_joins_by_itself() {
    let ada = User::new();
    let first = ada.up("a", &[]);
    let second = ada.up("b", &[]);
    assert_eq!(second.text("/network/id"), first.text("/network/id"));
    first.wait_for("nodes=2");
    second.wait_for("nodes=2");
}

#[test]
fn a_second_node_beside_one_that_cannot_invite_asks_for_a_ticket() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let _second = bob.up("b", &["--join", &first.invite(&[])]);
    let ran = bob.fails("c", &["--proxy-address", "127.0.0.1:0"]);
    assert!(ran.err.contains("error[M3011]: this node does not make tickets"), "{ran:?}");
    assert!(ran.err.contains("only an issuer does: a (home)"), "{ran:?}");
}

#[test]
fn a_node_of_another_network_of_the_same_name_joins_and_stays_where_it_was_last() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let mut own = bob.up("b", &[]);
    let network = own.text("/network/id");
    own.signal("TERM");
    assert_eq!(own.wait_end(), Some(0));
    let mut joined = bob.up("b", &["--join", &first.invite(&[])]);
    assert_eq!(joined.text("/network/id"), first.text("/network/id"));
    assert_ne!(joined.text("/network/id"), network);
    joined.signal("TERM");
    assert_eq!(joined.wait_end(), Some(0));
    let again = bob.up("b", &[]);
    assert_eq!(again.text("/network/id"), first.text("/network/id"));
}

#[test]
fn a_running_node_links_with_a_further_seed_and_refuses_a_foreign_ticket() {
    let (ada, bob, eve) = (User::new(), User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&[])]);
    let seed = first.text("/listen/0");
    let told = second.run(&["network", "join", &seed]);
    assert_eq!((told.code, told.err.contains("linked with a")), (0, true), "{told:?}");
    let foreign = eve.up("e", &["--network", "elsewhere"]);
    let ran = second.run(&["network", "join", &foreign.invite(&[])]);
    assert_eq!((ran.code, ran.err.contains("M3008")), (5, true), "{ran:?}");
}

#[test]
fn a_ticket_is_good_once() {
    let (ada, bob, eve) = (User::new(), User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&[]);
    let _second = bob.up("b", &["--join", &ticket]);
    let ran = eve.fails("e", &["--proxy-address", "127.0.0.1:0", "--join", &ticket]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(
        ran.err.contains("error[M3006]: this ticket for network local-ada has been used"),
        "{ran:?}"
    );
    first.wait_for("nodes=2");
    assert_eq!(first.json(&["network", "nodes"])["items"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_no_ticket_is_told_apart_from_one_that_was_altered() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&[]);
    let mut altered = ticket.clone();
    let last = if altered.ends_with('a') { "b" } else { "a" };
    altered.replace_range(altered.len() - 1.., last);
    let mut tries = vec![(altered, "M3002"), ("mj1".to_owned(), "M3002")];
    std::fs::write(bob.path("not-a-ticket"), "hello").unwrap();
    tries.push((format!("file:{}", bob.path("not-a-ticket").display()), "M3001"));
    for (text, code) in tries {
        let ran = bob.fails("b", &["--proxy-address", "127.0.0.1:0", "--join", &text]);
        assert!(ran.err.contains(&format!("error[{code}]")), "{text}: {ran:?}");
        assert!(!ran.err.contains(&text), "a ticket is never repeated: {ran:?}");
    }
    // The ticket itself is still good.
    let _second = bob.up("b", &["--join", &ticket]);
}

#[test]
fn an_issuer_that_is_not_there_is_told_and_the_ticket_stays_good() {
    let (ada, bob) = (User::new(), User::new());
    let mut first = ada.up("a", &[]);
    let ticket = first.invite(&[]);
    first.signal("TERM");
    assert_eq!(first.wait_end(), Some(0));
    let ran = bob.fails("b", &["--proxy-address", "127.0.0.1:0", "--join", &ticket]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.err.contains("error[M2001]: cannot reach network local-ada at 127.0.0.1:"),
        "{ran:?}"
    );
}

#[test]
fn an_expired_ticket_is_told_without_asking_anybody() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    // The same ticket, made long ago.
    let mut ticket: proto::Ticket = first.invite(&[]).parse().unwrap();
    ticket.expires = proto::UnixTime(1_600_000_000);
    let ticket = ticket.to_text();
    first.kill();
    let ran = bob.fails("b", &["--proxy-address", "127.0.0.1:0", "--join", &ticket]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.err.contains("error[M3007]: this ticket has expired"), "{ran:?}");
}

#[test]
fn a_member_that_was_killed_finds_back_and_is_found() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&[])]);
    first.wait_for("nodes=2");
    let id = second.text("/node/id");
    second.kill();
    let again = bob.up("b", &[]);
    assert_eq!(again.text("/node/id"), id);
    again.wait_for("nodes=2");
    first.wait_for("links=1");
}

#[test]
fn a_node_offers_only_what_its_grant_covers() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let second = bob.up("b", &["--join", &first.invite(&["--service", "shop"])]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let refused = second.run(&["expose", "bank", &port, "--protocol", "grpc"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.err.contains("error[M3009]: bank cannot be offered here"), "{refused:?}");
    second.run(&["expose", "shop", &port, "--protocol", "grpc"]).ok();
    first.wait_for("services=shop");
    let inviting = second.run(&["network", "invite"]);
    assert_eq!((inviting.code, inviting.err.contains("M3011")), (5, true), "{inviting:?}");
}

#[test]
fn grants_are_renewed_before_they_end_and_links_stay() {
    let (ada, bob) = (User::new(), User::new());
    // The shortest there is; a third of it is waited for here.
    let mut first = ada.up("a", &["--grant-ttl", "1m"]);
    let mut second = bob.up("b", &["--join", &first.invite(&[])]);
    let before = (first.text("/grant/expires"), second.text("/grant/expires"));
    first.wait_line("grant renewed");
    second.wait_line("grant renewed");
    let after = (first.text("/grant/expires"), second.text("/grant/expires"));
    assert!(after.0 > before.0 && after.1 > before.1, "{before:?} {after:?}");
    assert!(!second.said().contains("link down"), "{}", second.said());
    let status = second.status();
    assert_eq!(status["links"].as_array().unwrap().len(), 1, "{status}");
    first.wait_for("nodes=2");
}
