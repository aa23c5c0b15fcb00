//! Streams, with the official client of NATS for Python: published on one node, kept on another, consumed on a third;
//! a node that is killed while it stores, a disk that is full, a bit that flips.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tests::lab::{Host, Lab};
use tests::nats::NODE;
use tests::node::{Node, Options};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

const STREAM: &str = "[broker.stream.orders]\ntopics = \"orders.>\"\nmax_size = \"16MiB\"\n";

fn ready() -> Option<(Lab, PathBuf)> {
    if !programs::have_built(&["venv/bin/python"]) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

/// A node that keeps a stream.
fn keeper<'a>(lab: &'a Lab, micro: &std::path::Path) -> Node<'a> {
    let file = lab.dir().join("keeper.toml");
    std::fs::write(&file, STREAM).expect("the lab's directory is writable");
    let more = vec!["--config".to_owned(), file.display().to_string()];
    Node::up_with(lab, Host::Eu, micro, None, Options { more, ..Options::default() })
}

fn client(lab: &Lab, host: Host, args: &[&str]) -> std::process::Command {
    client_of(lab, host, NODE, args)
}

fn client_of(lab: &Lab, host: Host, at: &str, args: &[&str]) -> std::process::Command {
    let mut command = lab.command(host, programs::built("venv/bin/python"));
    command.arg(programs::interop("python/streams.py")).arg(at).args(args);
    command
}

fn run(lab: &Lab, host: Host, args: &[&str]) -> Vec<String> {
    run_at(lab, host, NODE, args)
}

fn run_at(lab: &Lab, host: Host, at: &str, args: &[&str]) -> Vec<String> {
    let ran = process::run(&mut client_of(lab, host, at, args), b"", PATIENCE * 2).ok("streams.py");
    ran.lines().map(ToOwned::to_owned).collect()
}

/// What was stored: number of the message to its number in the stream.
fn stored(lines: &[String]) -> BTreeMap<u64, u64> {
    let each = |line: &String| {
        let rest = line.strip_prefix("stored ")?;
        let (number, seq) = rest.split_once(' ')?;
        Some((number.parse().ok()?, seq.parse().ok()?))
    };
    lines.iter().filter_map(each).collect()
}

/// What was consumed.
fn messages(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn number(message: &Value) -> u64 {
    message["data"].as_str().and_then(|data| data.parse().ok()).expect("a number was published")
}

#[test]
fn one_client_finds_what_clients_of_nats_expect() {
    let Some((lab, micro)) = ready() else { return };
    let _node = keeper(&lab, &micro);
    assert_eq!(run(&lab, Host::Eu, &["checks", "orders", "orders.new"]), ["passed"]);
}

#[test]
fn what_is_published_on_one_node_is_kept_on_another_and_consumed_on_a_third() {
    let Some((lab, micro)) = ready() else { return };
    let kept = keeper(&lab, &micro);
    let us = Node::up(&lab, Host::Us, &micro, Some(&kept.invite()));
    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&kept.invite()));
    for node in [&us, &laptop] {
        node.wait_wanted("orders.>", 1);
    }
    let lines = run(&lab, Host::Us, &["publish", "orders.new", "0", "1000"]);
    let all = stored(&lines);
    assert_eq!(all.len(), 1000, "{:?}", lines.last());
    assert_eq!(
        all.values().copied().collect::<std::collections::BTreeSet<_>>(),
        (1..=1000).collect()
    );

    // Two programs share one consumer, on two nodes; what one leaves, the next gets.
    let some = messages(&run(&lab, Host::Laptop, &["consume", "orders", "audit", "300", "ack"]));
    let rest = messages(&run(&lab, Host::Us, &["consume", "orders", "audit", "700", "ack"]));
    let seqs = |all: &[Value]| all.iter().map(|one| one["seq"].as_u64()).collect::<Vec<_>>();
    assert_eq!(seqs(&some), (1..=300).map(Some).collect::<Vec<_>>());
    assert_eq!(seqs(&rest), (301..=1000).map(Some).collect::<Vec<_>>());
    for message in some.iter().chain(&rest) {
        assert_eq!(message["seq"].as_u64(), all.get(&number(message)).copied());
        assert_eq!((&message["subject"], &message["count"]), (&"orders.new".into(), &1.into()));
        assert_eq!(message["headers"]["X-Case"], "Kept");
    }
}

#[test]
fn what_was_acknowledged_outlives_a_node_that_is_killed_while_it_stores() {
    const MANY: u64 = 20_000;
    let Some((lab, micro)) = ready() else { return };
    let mut kept = keeper(&lab, &micro);
    let us = Node::up(&lab, Host::Us, &micro, Some(&kept.invite()));
    us.wait_wanted("orders.>", 1);
    // A consumer that is in the middle of its work.
    run(&lab, Host::Us, &["publish", "orders.new", "0", "100"]);
    let before = messages(&run(&lab, Host::Us, &["consume", "orders", "audit", "60", "ack"]));
    assert_eq!(before.len(), 60);
    let publisher = Process::start(
        "publisher",
        &mut client(&lab, Host::Us, &["publish", "orders.new", "100", &MANY.to_string()]),
    );
    publisher.wait_line(0, "it stores", PATIENCE, |line| line.starts_with("stored 2000 "));
    kept.kill9();
    let all = stored(&publisher.lines());
    drop(publisher);

    kept.start(None);
    kept.wait_ready();
    let look: Value = serde_json::from_str(&run(&lab, Host::Eu, &["look", "orders"])[0]).unwrap();
    let last = look["last"].as_u64().expect("a number");
    assert!(last >= all.values().copied().max().expect("some were stored"), "{look}");
    // The consumer goes on where it was, and finds each that was acknowledged, under its number.
    let count = (last - 60).to_string();
    let rest = messages(&run(&lab, Host::Eu, &["consume", "orders", "audit", &count, "term"]));
    let found: BTreeMap<u64, u64> =
        rest.iter().map(|one| (number(one), one["seq"].as_u64().expect("a number"))).collect();
    assert_eq!(rest.iter().map(|one| one["seq"].as_u64()).min(), Some(Some(61)));
    for (number, seq) in &all {
        assert_eq!(found.get(number), Some(seq), "{number} was acknowledged");
    }
}

#[test]
fn what_is_not_acknowledged_comes_again_to_who_asks_next() {
    let Some((lab, micro)) = ready() else { return };
    let kept = keeper(&lab, &micro);
    run(&lab, Host::Eu, &["publish", "orders.a", "0", "5"]);
    run(&lab, Host::Eu, &["publish", "orders.b", "5", "5"]);
    let given = messages(&run(&lab, Host::Eu, &["consume", "orders", "b", "5", "nak", "orders.b"]));
    let again = messages(&run(&lab, Host::Eu, &["consume", "orders", "b", "5", "ack", "orders.b"]));
    for (one, count) in given.iter().map(|one| (one, 1)).chain(again.iter().map(|one| (one, 2))) {
        assert_eq!((&one["subject"], &one["count"]), (&"orders.b".into(), &count.into()));
    }
    let numbers = |all: &[Value]| all.iter().map(number).collect::<Vec<_>>();
    assert_eq!((numbers(&given), numbers(&again)), ((5..10).collect(), (5..10).collect()));
    drop(kept);
}

#[test]
fn a_full_disk_refuses_and_stores_again_when_there_is_room() {
    let Some((lab, micro)) = ready() else { return };
    let state = lab.dir().join("small");
    std::fs::create_dir_all(&state).expect("the lab's directory is writable");
    let at = state.display().to_string();
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "micro", &at]);
    if process::run(&mut mount, b"", PATIENCE).code != Some(0) {
        return tests::skip("needs to mount a small file system");
    }
    let _mount = Unmount(at.clone());
    let file = lab.dir().join("keeper.toml");
    std::fs::write(&file, STREAM.replace("16MiB", "1GiB"))
        .expect("the lab's directory is writable");
    let more = vec!["--config".to_owned(), file.display().to_string()];
    let options = Options { more, state: Some(state.clone()), ..Options::default() };
    let kept = Node::up_with(&lab, Host::Eu, &micro, None, options);
    let ballast = state.join("ballast");
    std::fs::write(&ballast, vec![0; 8 << 20]).expect("there is room");

    let lines = run(&lab, Host::Eu, &["bulk", "orders.new", "400", "65536"]);
    let all = stored(&lines);
    let refused: Vec<_> = lines.iter().filter(|line| line.starts_with("refused ")).collect();
    assert!(!all.is_empty() && all.len() + refused.len() == 400, "{} of 400", all.len());
    assert!(refused.iter().all(|line| line.contains("insufficient storage")), "{:?}", refused[0]);
    kept.wait_said(0, "it says so", |line| line.contains("messages cannot be stored"));
    // Other topics are as they were, and what is stored can be read.
    assert_eq!(kept.cli(&["publish", "else", "x"]).code, Some(0));
    let count = all.len().to_string();
    let read = messages(&run(&lab, Host::Eu, &["consume", "orders", "audit", &count, "term"]));
    assert_eq!(read.len(), all.len());

    std::fs::remove_file(&ballast).expect("it is there");
    let more = stored(&run(&lab, Host::Eu, &["bulk", "orders.new", "20", "65536"]));
    assert_eq!(more.values().copied().min(), all.values().copied().max().map(|last| last + 1));
    assert_eq!(more.len(), 20);
    kept.wait_said(0, "it says so", |line| line.contains("messages are stored again"));
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[test]
fn a_bit_that_flips_is_reported_and_costs_one_message() {
    let Some((lab, micro)) = ready() else { return };
    let mut kept = keeper(&lab, &micro);
    run(&lab, Host::Eu, &["publish", "orders.new", "0", "10"]);
    kept.kill9();
    let dir = kept.home().join("state");
    let log = find(&dir, "00000000000000000001.log").expect("the log is below the node's state");
    let mut bytes = std::fs::read(&log).expect("it can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    std::fs::write(&log, bytes).expect("it can be written");
    kept.start(None);
    kept.wait_ready();
    kept.wait_said(0, "it says so", |line| line.contains("damaged and lost"));
    let read = messages(&run(&lab, Host::Eu, &["consume", "orders", "audit", "9", "ack"]));
    let seqs: Vec<_> = read.iter().filter_map(|one| one["seq"].as_u64()).collect();
    assert_eq!((seqs.len(), seqs[0], seqs[8]), (9, 1, 10), "{seqs:?}");
    let more = stored(&run(&lab, Host::Eu, &["publish", "orders.new", "10", "1"]));
    assert_eq!(more.get(&10), Some(&11));
}

#[test]
fn a_server_of_nats_keeps_a_stream_for_the_network() {
    const SERVER: &str = "10.77.3.2:4333";
    let Some((lab, micro)) = ready() else { return };
    let Some(program) = process::found("nats-server") else {
        return tests::skip("needs nats-server: run tests/interop/setup.sh");
    };
    let store = lab.dir().join("jetstream").display().to_string();
    let server = || {
        let mut command = lab.command(Host::Us, &program);
        let at = Host::Us.v4().to_string();
        let started = Process::start(
            "nats-server",
            command.args(["-a", &at, "-p", "4333", "-js", "-sd", &store]),
        );
        started.wait_line(0, "it is ready", PATIENCE, |line| line.contains("Server is ready"));
        started
    };
    assert_eq!(SERVER, format!("{}:4333", Host::Us.v4()));
    let mut kept = server();
    let file = lab.dir().join("keeper.toml");
    let config =
        format!("[broker.bridge.acme]\nurl = \"nats://{SERVER}\"\n{}bridge = \"acme\"\n", STREAM);
    std::fs::write(&file, config).expect("the lab's directory is writable");
    let more = vec!["--config".to_owned(), file.display().to_string()];
    let eu = Node::up_with(&lab, Host::Eu, &micro, None, Options { more, ..Options::default() });
    let (line, _) = eu.wait_said(0, "it is kept", |line| line.contains("is kept by a server"));
    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    laptop.wait_wanted("orders.>", 1);

    let all = stored(&run(&lab, Host::Laptop, &["publish", "orders.new", "0", "500"]));
    assert_eq!(all.len(), 500);
    let some = messages(&run(&lab, Host::Laptop, &["consume", "orders", "audit", "200", "ack"]));
    assert_eq!((&some[0]["subject"], some[199]["seq"].as_u64()), (&"orders.new".into(), Some(200)));
    assert_eq!(some[0]["headers"]["X-Case"], "Kept");
    // It is a stream of that server as any.
    let look = run_at(&lab, Host::Us, SERVER, &["look", "orders"]);
    assert_eq!(look, run(&lab, Host::Laptop, &["look", "orders"]));

    // Without its server the network has no such stream, and says so.
    kept.kill9();
    eu.wait_said(line + 1, "it says so", |line| line.contains("the stream has lost its server"));
    laptop.wait_wanted("orders.>", 0);
    let refused = run(&lab, Host::Laptop, &["publish", "orders.new", "500", "1"]);
    assert!(refused[0].starts_with("refused 500 NoStreamResponseError"), "{refused:?}");
    let _kept = server();
    eu.wait_said(line + 1, "it is back", |line| line.contains("is kept by a server"));
    laptop.wait_wanted("orders.>", 1);
    let rest = messages(&run(&lab, Host::Laptop, &["consume", "orders", "audit", "300", "ack"]));
    let seqs: Vec<_> = rest.iter().filter_map(|one| one["seq"].as_u64()).collect();
    assert_eq!(seqs, (201..=500).collect::<Vec<_>>());
}

/// The file of this name below a directory.
fn find(dir: &std::path::Path, name: &str) -> Option<PathBuf> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).ok()?.filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return Some(path);
            }
        }
    }
    None
}
