//! A node starts, says what it is, keeps its secrets, and is the same when it starts again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;

use daemon_support::{User, get, mode};

#[test]
fn the_first_start_makes_a_network_and_says_how_to_go_on() {
    let ada = User::new();
    let node = ada.up("a", &["--region", "eu/fra"]);
    let said = node.said();
    for part in [
        "network local-ada   node a   region eu/fra",
        "new key, saved (mode 0600)",
        "none yet: first node of this network",
        "micro network --name b",
        "micro network --join mj1",
    ] {
        assert!(said.contains(part), "{part:?} is missing in\n{said}");
    }
    let state = node.state("local-ada");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&node.socket()), 0o600);
    for file in std::fs::read_dir(&state).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let status = node.status();
    assert_eq!(status["node"]["ready"], true, "{status}");
    assert_eq!(status["network"]["name"], "local-ada");
    assert_eq!(status["roles"], serde_json::json!(["relay", "issuer", "operator"]));
}

#[test]
fn a_node_that_starts_again_is_the_same_node() {
    let ada = User::new();
    let mut first = ada.up("a", &[]);
    let (id, network) = (first.text("/node/id"), first.text("/network/id"));
    first.signal("TERM");
    assert_eq!(first.wait_end(), Some(0));
    assert!(!first.socket().exists(), "the socket goes with the node");
    let second = ada.up("a", &[]);
    assert!(second.said().contains("known key"), "{}", second.said());
    assert_eq!((second.text("/node/id"), second.text("/network/id")), (id, network));
}

#[test]
fn health_answers_for_supervisors_and_scrapers() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let observe = node.text("/observe/address");
    for path in ["/livez", "/readyz", "/startupz"] {
        let answer = get(&observe, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let metrics = get(&observe, "/metrics");
    assert!(metrics.contains("\nmicro_ready 1\n"), "{metrics}");
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
}

#[test]
fn ports_that_were_asked_for_and_are_taken_are_told_with_their_code() {
    let ada = User::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (tcp, udp) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let _held = (TcpListener::bind(tcp), UdpSocket::bind(udp));
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap();
    let ran = ada.fails("a", &["--proxy-address", &taken.to_string()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let first = format!("error[M6001]: TCP port {} is taken", taken.port());
    assert!(ran.err.contains(&first), "{ran:?}");
    assert!(ran.err.contains("\n  try   micro status"), "{ran:?}");
}

#[test]
fn a_name_asked_for_that_runs_already_is_refused_and_a_default_one_gets_a_number() {
    let ada = User::new();
    let node = ada.up("a", &[]);
    let ran = ada.fails("a", &["--proxy-address", "127.0.0.1:0"]);
    assert!(ran.err.contains("error[M6004]: a node named a is already running"), "{ran:?}");
    drop(node);
    let (one, two) = (ada.up_unnamed(), ada.up_unnamed());
    assert_eq!(two.name, format!("{}-2", one.name));
    assert_eq!(two.text("/network/id"), one.text("/network/id"));
}

#[test]
fn a_state_directory_that_cannot_be_made_is_told() {
    let ada = User::new();
    // A file where a directory must be: also root cannot write there.
    std::fs::write(ada.path("state").join("micro"), "").unwrap();
    let ran = ada.fails("a", &["--proxy-address", "127.0.0.1:0"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("error[M6003]: the state directory cannot be used"), "{ran:?}");
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let ada = User::new();
    let mut node = ada.up("a", &[]);
    let key = node.state("local-ada").join("node.key");
    node.signal("TERM");
    node.wait_end();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = ada.fails("a", &["--proxy-address", "127.0.0.1:0"]);
    assert!(ran.err.contains("error[M3010]: the key file is not private"), "{ran:?}");
    assert!(ran.err.contains("chmod 600"), "{ran:?}");
}

#[test]
fn a_state_directory_that_others_may_enter_is_not_used() {
    let ada = User::new();
    let mut node = ada.up("a", &[]);
    let state = node.state("local-ada");
    node.signal("TERM");
    node.wait_end();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = ada.fails("a", &["--proxy-address", "127.0.0.1:0"]);
    assert!(ran.err.contains("error[M6003]: the state directory is not private"), "{ran:?}");
    assert!(ran.err.contains("chmod 700"), "{ran:?}");
}
