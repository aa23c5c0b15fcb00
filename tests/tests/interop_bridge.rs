//! Bridges to a real server of NATS: both ways with prefixes, headers and answers; several bridges and two networks at
//! one server, where each message comes once; a server that is killed; a bridge that leads home; two networks between
//! two servers, where nothing goes in a circle.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::certificates::certify;
use tests::lab::{Host, Lab};
use tests::nats::{NODE, SEEDS, goes_on, messages, numbers, run, wait_message};
use tests::node::{Node, Options};
use tests::process::{self, PATIENCE, Process};
use tests::programs;

/// The port of a real server.
const PORT: u16 = 4333;
/// Between two looks at what only polling tells.
const LOOK: Duration = Duration::from_millis(15);

fn ready() -> Option<(Lab, std::path::PathBuf)> {
    if process::found("nats-server").is_none() {
        tests::skip("needs nats-server: run tests/interop/setup.sh");
        return None;
    }
    if !programs::have(&["curl"]) || !programs::have_built(&["venv/bin/python"]) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

/// A server of NATS on a host.
struct Server<'a> {
    lab: &'a Lab,
    host: Host,
    more: Vec<String>,
    process: Option<Process>,
}

impl<'a> Server<'a> {
    fn start(lab: &'a Lab, host: Host, more: &[&str]) -> Self {
        let more = more.iter().map(|&word| word.to_owned()).collect();
        let mut server = Self { lab, host, more, process: None };
        server.again();
        server
    }

    fn again(&mut self) {
        let program = process::found("nats-server").expect("ready() looked for it");
        let mut command = self.lab.command(self.host, program);
        command.args(["-a", &self.host.v4().to_string(), "-p", &PORT.to_string()]).args(&self.more);
        let process = Process::start("nats-server", &mut command);
        process.wait_line(0, "it is ready", PATIENCE, |line| line.contains("Server is ready"));
        self.process = Some(process);
    }

    fn kill9(&mut self) {
        self.process.take().expect("it runs").kill9();
    }

    fn at(&self) -> String {
        at(self.host)
    }
}

fn at(host: Host) -> String {
    format!("{}:{PORT}", host.v4())
}

/// Waits for so many messages.
fn wait_count(subscriber: &Process, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while messages(subscriber).len() < count {
        let come = messages(subscriber).len();
        assert!(Instant::now() < deadline, "{come} messages came, not {count}");
        std::thread::sleep(LOOK);
    }
}

/// A node with this in its configuration.
fn node<'a>(
    lab: &'a Lab,
    host: Host,
    micro: &std::path::Path,
    ticket: Option<&str>,
    config: &str,
) -> Node<'a> {
    let file = lab.dir().join(format!("{}.toml", host.name()));
    std::fs::write(&file, config).expect("the lab's directory is writable");
    let more = vec!["--config".to_owned(), file.display().to_string()];
    Node::up_with(lab, host, micro, ticket, Options { more, ..Options::default() })
}

/// Waits until a bridge of the node is connected, from a line on; gives the line and its number.
fn wait_bridge(node: &Node<'_>, from: usize, bridge: &str, says: &str) -> (usize, Value) {
    let bridge = format!("\"bridge\":\"{bridge}\"");
    let (number, line) = node.wait_said(from, says, |line| {
        line.contains(&bridge) && line.contains(&format!("{says}\""))
    });
    (number, serde_json::from_str(&line).expect("the log is JSON"))
}

const CONNECTED: &str = "the bridge is connected";
const LOST: &str = "the bridge has lost its server";
const AGAIN: &str = "the bridge is connected again";

/// What a node has counted of its bridges, by direction and fate.
fn counts(lab: &Lab, node: &Node<'_>) -> BTreeMap<(String, String), u64> {
    let text =
        lab.exec(node.host(), "curl", &["-sf", "http://127.0.0.1:8086/metrics"]).ok("metrics");
    let mut all = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("micro_bridge_messages_total{")) {
        let label = |name: &str| {
            let rest = line.split_once(&format!("{name}=\"")).expect("it has this label").1;
            rest.split('"').next().expect("split gives one").to_owned()
        };
        let count: u64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        *all.entry((label("toward"), label("fate"))).or_default() += count;
    }
    all
}

fn count(lab: &Lab, nodes: &[&Node<'_>], toward: &str, fate: &str) -> u64 {
    let key = (toward.to_owned(), fate.to_owned());
    nodes.iter().map(|node| counts(lab, node).get(&key).copied().unwrap_or(0)).sum()
}

/// Waits until bridges of these nodes have carried so many, and never more.
fn wait_carried(lab: &Lab, nodes: &[&Node<'_>], toward: &str, wanted: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let carried = count(lab, nodes, toward, "Carried");
        if carried == wanted {
            return;
        }
        assert!(
            carried < wanted && Instant::now() < deadline,
            "{carried} to {toward}, not {wanted}"
        );
        std::thread::sleep(LOOK);
    }
}

/// Waits until bridges have dealt with so many messages, whatever became of them.
fn wait_dealt(lab: &Lab, nodes: &[&Node<'_>], wanted: u64) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Vec<_> = nodes.iter().map(|node| counts(lab, node)).collect();
        let dealt: u64 = all.iter().flat_map(BTreeMap::values).sum();
        if dealt == wanted {
            return;
        }
        assert!(dealt < wanted && Instant::now() < deadline, "{dealt}, not {wanted}: {all:?}");
        std::thread::sleep(LOOK);
    }
}

#[test]
fn topics_go_to_nats_and_subjects_come_with_prefixes_headers_and_answers() {
    let Some((lab, micro)) = ready() else { return };
    let server = Server::start(&lab, Host::Us, &[]);
    let config = format!(
        "[broker.bridge.acme]\nurl = \"nats://{}\"\npublish = [\"orders.>\", \"there.*\"]\n\
         subscribe = [\"alerts.>\", \"here.*\"]\nprefix = \"acme\"\ntopic_prefix = \"b\"\n",
        server.at()
    );
    let node = node(&lab, Host::Eu, &micro, None, &config);
    wait_bridge(&node, 0, "acme", CONNECTED);

    let there = goes_on(&lab, Host::Us, &server.at(), &["sub", "acme.orders.>"]);
    run(&lab, Host::Eu, NODE, &["pub", "b.orders.new", "0", "100"]);
    wait_message(&there, "99");
    assert_eq!(numbers(&there), (0..100).collect::<Vec<_>>(), "all, once, in order");
    let first = &messages(&there)[0];
    assert_eq!(first["subject"], "acme.orders.new");
    assert_eq!(
        (&first["headers"]["X-Case"], &first["headers"]["x-case"]),
        (&"Kept".into(), &"too".into())
    );
    assert!(first["headers"]["Micro-Bridge"].as_str().is_some_and(|mark| mark.starts_with("net:")));

    let here = goes_on(&lab, Host::Eu, NODE, &["sub", "b.alerts.>"]);
    run(&lab, Host::Us, &server.at(), &["pub", "acme.alerts.red", "0", "100"]);
    wait_message(&here, "99");
    assert_eq!(numbers(&here), (0..100).collect::<Vec<_>>(), "all, once, in order");
    assert_eq!(messages(&here)[0]["headers"]["X-Case"], "Kept");

    let _answers = goes_on(&lab, Host::Us, &server.at(), &["answer", "acme.there.greet"]);
    assert_eq!(run(&lab, Host::Eu, NODE, &["ask", "b.there.greet", "ada"]), "you said ada");
    let _answers = goes_on(&lab, Host::Eu, NODE, &["answer", "b.here.greet"]);
    let asked = run(&lab, Host::Us, &server.at(), &["ask", "acme.here.greet", "bob"]);
    assert_eq!(asked, "you said bob");
}

#[test]
fn bridges_of_one_network_carry_each_message_once_and_so_do_two_of_one_node() {
    let Some((lab, micro)) = ready() else { return };
    let server = Server::start(&lab, Host::Eu, &[]);
    let bridge = |name: &str| {
        format!(
            "[broker.bridge.{name}]\nurl = \"nats://{}\"\npublish = [\"orders.>\"]\n\
             subscribe = [\"orders.>\"]\n",
            server.at()
        )
    };
    // One network with a bridge at each of two nodes, another with two bridges at its one node.
    let eu = node(&lab, Host::Eu, &micro, None, &bridge("s"));
    let us = node(&lab, Host::Us, &micro, Some(&eu.invite_relay()), &bridge("s"));
    let other = node(&lab, Host::Laptop, &micro, None, &(bridge("one") + &bridge("two")));
    for (node, name) in [(&eu, "s"), (&us, "s"), (&other, "one"), (&other, "two")] {
        wait_bridge(node, 0, name, CONNECTED);
    }
    let subscribers = [
        goes_on(&lab, Host::Us, &server.at(), &["sub", "orders.>"]),
        goes_on(&lab, Host::Laptop, NODE, &["sub", "orders.>"]),
        goes_on(&lab, Host::Us, NODE, &["sub", "orders.>"]),
    ];
    // Two bridges and one program.
    eu.wait_wanted("orders.>", 3);
    us.wait_wanted("orders.>", 3);
    for (from, host, at, subject) in [
        (0, Host::Eu, NODE, "orders.eu"),
        (1000, Host::Us, NODE, "orders.us"),
        (2000, Host::Laptop, NODE, "orders.laptop"),
        (3000, Host::Us, &*server.at(), "orders.nats"),
    ] {
        run(&lab, host, at, &["pub", subject, &from.to_string(), "200"]);
    }
    let wanted: Vec<u64> = (0..4).flat_map(|n| n * 1000..n * 1000 + 200).collect();
    for subscriber in &subscribers {
        wait_count(subscriber, wanted.len());
    }
    // Whatever came twice was carried twice: each goes to NATS once, and once into each network it is not of.
    let all = [&eu, &us, &other];
    for (nodes, toward, wanted) in [
        (&all[..2], "Nats", 400),
        (&all[2..], "Nats", 200),
        (&all[..2], "Network", 400),
        (&all[2..], "Network", 600),
    ] {
        wait_carried(&lab, nodes, toward, wanted);
    }
    for fate in ["Refused", "Dropped", "TooLarge"] {
        assert_eq!(
            count(&lab, &all, "Nats", fate) + count(&lab, &all, "Network", fate),
            0,
            "{fate}"
        );
    }
    for subscriber in &subscribers {
        let mut come = numbers(subscriber);
        come.sort_unstable();
        assert_eq!(come, wanted);
    }
}

#[test]
fn a_queue_group_is_shared_with_nats_and_each_message_has_one_member() {
    let Some((lab, micro)) = ready() else { return };
    let server = Server::start(&lab, Host::Eu, &[]);
    let config = format!(
        "[broker.bridge.s]\nurl = \"nats://{}\"\nsubscribe = [\"jobs.> workers\"]\n",
        server.at()
    );
    let node = node(&lab, Host::Eu, &micro, None, &config);
    wait_bridge(&node, 0, "s", CONNECTED);
    let here = goes_on(&lab, Host::Eu, NODE, &["sub", "jobs.>", "workers"]);
    let there = goes_on(&lab, Host::Us, &server.at(), &["sub", "jobs.>", "workers"]);
    run(&lab, Host::Us, &server.at(), &["pub", "jobs.new", "0", "200"]);
    let deadline = Instant::now() + PATIENCE;
    let mut come: Vec<u64> = Vec::new();
    while come.len() < 200 {
        assert!(Instant::now() < deadline, "{} came", come.len());
        std::thread::sleep(LOOK);
        come = [numbers(&here), numbers(&there)].concat();
    }
    come.sort_unstable();
    assert_eq!(come, (0..200).collect::<Vec<_>>());
    assert!(!numbers(&here).is_empty() && !numbers(&there).is_empty(), "both sides have a share");
}

#[test]
fn a_server_that_is_killed_and_comes_back_leaves_a_gap_that_is_told() {
    let Some((lab, micro)) = ready() else { return };
    let mut server = Server::start(&lab, Host::Eu, &[]);
    let url = format!("url = \"nats://{}\"", server.at());
    // A cluster that is named is the same one afterwards; a server without a name is another.
    let config = format!(
        "[broker.bridge.named]\n{url}\npublish = \"orders.>\"\nsubscribe = \"alerts.>\"\n\
         cluster = \"prod\"\n[broker.bridge.unnamed]\n{url}\npublish = \"other.>\"\n"
    );
    let node = node(&lab, Host::Eu, &micro, None, &config);
    let bridges = ["named", "unnamed"];
    for name in bridges {
        wait_bridge(&node, 0, name, CONNECTED);
    }
    server.kill9();
    let lost = bridges.map(|name| wait_bridge(&node, 0, name, LOST).0);
    for subject in ["orders.a", "other.a"] {
        run(&lab, Host::Eu, NODE, &["pub", subject, "0", "10"]);
    }
    server.again();
    let [named, unnamed] = [0, 1].map(|n| wait_bridge(&node, lost[n], bridges[n], AGAIN).1);
    assert_eq!((&named["waited"], &named["dropped"]), (&10.into(), &0.into()), "{named}");
    assert_eq!((&unnamed["waited"], &unnamed["dropped"]), (&0.into(), &10.into()), "{unnamed}");
    assert!(named["gap_ms"].is_u64() && unnamed["gap_ms"].is_u64(), "{named} {unnamed}");
    wait_dealt(&lab, &[&node], 20);
    assert_eq!(count(&lab, &[&node], "Nats", "Carried"), 10);
    assert_eq!(count(&lab, &[&node], "Nats", "Dropped"), 10);

    let there = goes_on(&lab, Host::Us, &server.at(), &["sub", ">"]);
    for (subject, from) in [("orders.a", "20"), ("other.a", "30")] {
        run(&lab, Host::Eu, NODE, &["pub", subject, from, "10"]);
    }
    wait_count(&there, 20);
    let here = goes_on(&lab, Host::Eu, NODE, &["sub", "alerts.>"]);
    run(&lab, Host::Us, &server.at(), &["pub", "alerts.red", "0", "10"]);
    wait_count(&here, 10);
}

#[test]
fn servers_of_one_cluster_stand_in_for_each_other_and_messages_still_come_once() {
    let Some((lab, micro)) = ready() else { return };
    let clustered = |host: Host, other: Host| {
        let (at, to) =
            (format!("nats://{}:6222", host.v4()), format!("nats://{}:6222", other.v4()));
        let more = ["--cluster_name", "prod", "--cluster", &at, "--routes", &to];
        Server::start(&lab, host, &more)
    };
    let (mut first, second) = (clustered(Host::Eu, Host::Us), clustered(Host::Us, Host::Eu));
    let bridge = |server: &Server<'_>| {
        format!("[broker.bridge.s]\nurl = \"nats://{}\"\npublish = \"orders.>\"\n", server.at())
    };
    let eu = node(&lab, Host::Eu, &micro, None, &bridge(&first));
    let us = node(&lab, Host::Us, &micro, Some(&eu.invite_relay()), &bridge(&second));
    for node in [&eu, &us] {
        assert_eq!(wait_bridge(node, 0, "s", CONNECTED).1["cluster"], "nats:prod");
    }
    for node in [&eu, &us] {
        node.wait_wanted("orders.>", 2);
    }
    let there = goes_on(&lab, Host::Us, &second.at(), &["sub", "orders.>"]);
    wait_routed(&first);
    run(&lab, Host::Eu, NODE, &["pub", "orders.new", "0", "100"]);
    wait_count(&there, 100);
    first.kill9();
    wait_bridge(&eu, 0, "s", LOST);
    run(&lab, Host::Eu, NODE, &["pub", "orders.new", "100", "100"]);
    wait_count(&there, 200);
    wait_carried(&lab, &[&eu, &us], "Nats", 200);
    assert_eq!(count(&lab, &[&eu, &us], "Nats", "Dropped"), 0);
    let mut come = numbers(&there);
    come.sort_unstable();
    assert_eq!(come, (0..200).collect::<Vec<_>>());
}

/// Waits until this server has its cluster's other one.
fn wait_routed(server: &Server<'_>) {
    let process = server.process.as_ref().expect("it runs");
    process
        .wait_line(0, "it has a route", PATIENCE, |line| line.contains("Route connection created"));
}

#[test]
fn a_bridge_is_let_in_by_its_key_over_tls_and_by_a_credentials_file() {
    let Some((lab, micro)) = ready() else { return };
    if !programs::have(&["openssl"]) {
        return;
    }
    let dir = lab.dir().display().to_string();
    let file = |name: &str| format!("{dir}/{name}");
    let write = |name: &str, text: &str| {
        std::fs::write(file(name), text).expect("the lab's directory is writable");
    };
    certify(&lab, Host::Eu);
    let listed = run(&lab, Host::Eu, "-", &["key", SEEDS[0]]);
    write("seed", SEEDS[0]);
    write("another", SEEDS[1]);
    write(
        "keys.conf",
        &format!(
            "authorization {{ users = [ {{ nkey: {listed} }} ] }}\n\
             tls {{ cert_file: \"{}\", key_file: \"{}\" }}\n",
            file("server.pem"),
            file("server.key")
        ),
    );
    assert_eq!(run(&lab, Host::Eu, "-", &["operator", &dir]), "written");
    let keys = Server::start(&lab, Host::Eu, &["-c", &file("keys.conf")]);
    let operator = Server::start(&lab, Host::Us, &["-c", &file("server.conf")]);

    let bridges = |what: &str| {
        let (keys, operator) = (keys.at(), operator.at());
        format!(
            "[broker.bridge.key]\nurl = \"tls://{keys}\"\n{what} = \"k.>\"\n\
             ca = \"{dir}/ca.pem\"\nnkey = \"file:{dir}/seed\"\n\
             [broker.bridge.creds]\nurl = \"nats://{operator}\"\n{what} = \"c.>\"\n\
             credentials = \"file:{dir}/user.creds\"\n"
        )
    };
    let refused = format!(
        "[broker.bridge.refused]\nurl = \"tls://{}\"\npublish = \"k.>\"\nca = \"{dir}/ca.pem\"\n\
         nkey = \"file:{dir}/another\"\n\
         [broker.bridge.stranger]\nurl = \"tls://{}\"\npublish = \"k.>\"\nnkey = \"file:{dir}/seed\"\n",
        keys.at(),
        keys.at()
    );
    let from = node(&lab, Host::Eu, &micro, None, &(bridges("publish") + &refused));
    let to = node(&lab, Host::Us, &micro, None, &bridges("subscribe"));
    for (node, bridge) in [(&from, "key"), (&from, "creds"), (&to, "key"), (&to, "creds")] {
        wait_bridge(node, 0, bridge, CONNECTED);
    }
    // On a busy machine a server gives up on a greeting first, and the bridge says that too.
    for (bridge, why) in [("refused", "authorization violation"), ("stranger", "unknownissuer")] {
        let name = format!("\"bridge\":\"{bridge}\"");
        from.wait_said(0, why, |line| {
            line.contains(&name)
                && line.contains("the bridge has no server yet")
                && line.to_lowercase().contains(why)
        });
    }
    let here = goes_on(&lab, Host::Us, NODE, &["sub", ">"]);
    for subject in ["k.a", "c.a"] {
        run(&lab, Host::Eu, NODE, &["pub", subject, "0", "10"]);
    }
    wait_count(&here, 20);
    let said = from.json(&["config", "show", "--config", &file("eu.toml")]).to_string();
    assert!(said.contains("broker.bridge") && !said.contains(SEEDS[0]), "{said}");
}

#[test]
fn a_bridge_that_leads_into_its_own_network_is_refused() {
    let Some((lab, micro)) = ready() else { return };
    let bridge = |name: &str, at: &str| {
        format!(
            "[broker.bridge.{name}]\nurl = \"nats://{at}\"\npublish = \">\"\nsubscribe = \">\"\n"
        )
    };
    let reached = format!("{}:4222", Host::Eu.v4());
    let config = format!("[broker]\naddress = \"{reached}\"\n{}", bridge("own", &reached));
    let eu = node(&lab, Host::Eu, &micro, None, &config);
    let us = node(&lab, Host::Us, &micro, Some(&eu.invite()), &bridge("other", &reached));
    for (node, name) in [(&eu, "own"), (&us, "other")] {
        let what = format!("error[M5003]: the bridge {name} leads back into its own network");
        let (_, said) = node.wait_said(0, "it is refused", |line| line.contains(&what));
        assert!(said.contains("\\n  why   ") && said.contains("\\n  try   "), "{said}");
        assert_eq!(counts(&lab, node), BTreeMap::new());
    }
}

#[test]
fn two_networks_between_two_servers_carry_nothing_in_a_circle() {
    /// Of each message: out of its network by two bridges, into the other by two, on to the other server by two; and
    /// what comes home, or would go back to where it came from, each twice.
    const DEALT: u64 = 10;
    let Some((lab, micro)) = ready() else { return };
    let servers = [Host::Eu, Host::Us].map(|host| Server::start(&lab, host, &[]));
    let bridge = |server: &Server<'_>| {
        format!(
            "[broker.bridge.{}]\nurl = \"nats://{}\"\npublish = [\"orders.>\"]\n\
             subscribe = [\"orders.>\"]\n",
            server.host.name(),
            server.at()
        )
    };
    let config: String = servers.iter().map(bridge).collect();
    let one = node(&lab, Host::Eu, &micro, None, &config);
    let other = node(&lab, Host::Us, &micro, None, &config);
    for node in [&one, &other] {
        for server in &servers {
            wait_bridge(node, 0, server.host.name(), CONNECTED);
        }
    }
    let at_home = goes_on(&lab, Host::Eu, NODE, &["sub", "orders.>"]);
    for round in 1..=3_u64 {
        run(&lab, Host::Eu, NODE, &["pub", "orders.new", "0", "20"]);
        wait_dealt(&lab, &[&one, &other], 20 * round * DEALT);
    }
    assert_eq!(count(&lab, &[&one], "Nats", "Carried"), 120);
    assert_eq!(count(&lab, &[&one], "Network", "Been"), 120);
    assert_eq!(count(&lab, &[&other], "Network", "Carried"), 120);
    assert_eq!(count(&lab, &[&other], "Nats", "Carried"), 120);
    assert_eq!(messages(&at_home).len(), 60, "nothing came home");
}
