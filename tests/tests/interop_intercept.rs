//! Connections to names that the kernel leads to a node: of a machine, of one user, of a namespace that
//! has no network at all.

use tests::lab::{Host, Lab};
use tests::node::Network;
use tests::postgres::Postgres;
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs;

const WEB: u16 = 19815;
const POSTGRES: u16 = 19816;
const NOBODY: &str = "65534";

/// The status and where the answer came from, on one line.
const ASK: &str = "%{http_code} %{remote_ip}";

struct Site<'a> {
    lab: &'a Lab,
    network: Network<'a>,
    _web: Process,
}

impl<'a> Site<'a> {
    /// Two regions, a web server in one, and a laptop in the other that asks its node for names.
    fn up(lab: &'a Lab, micro: &std::path::Path) -> Self {
        lab.name_server(Host::Laptop, Host::Us.v4());
        let network = Network::up(lab, micro);
        let (web, _directory) = programs::nginx(lab, Host::Us, WEB);
        network.us.expose("web", WEB, "http");
        network.laptop.wait_service("web");
        let site = Self { lab, network, _web: web };
        site.cli(&["dns", "enable"]).ok("micro network dns enable");
        site
    }

    fn cli(&self, words: &[&str]) -> Ran {
        self.network.laptop.cli(&[&["network"], words].concat())
    }

    fn intercept(&self, words: &[&str]) -> String {
        let ran = self.cli(&[&["intercept"], words].concat());
        let said = ran.err.clone();
        ran.ok("micro network intercept") + &said
    }

    fn curl(&self, words: &[&str]) -> Ran {
        let base = ["-sS", "--max-time", "10", "-o", "/dev/null", "-w", ASK];
        self.lab.exec(Host::Laptop, "curl", &[&base, words].concat())
    }

    fn tables(&self) -> String {
        self.lab.exec(Host::Laptop, "nft", &["list", "tables"]).ok("nft list tables")
    }
}

fn have() -> bool {
    programs::have(&["nginx", "curl", "setpriv", "nft", "ip"])
}

#[test]
fn every_port_of_a_name_leads_to_it_until_that_is_taken_back() {
    let Some(micro) = programs::micro().filter(|_| have()) else { return };
    let Some(lab) = Lab::new() else { return };
    let mut site = Site::up(&lab, &micro);
    let before = site.tables();
    let page = "http://web.micro.internal/";
    assert!(site.curl(&[page]).code != Some(0), "nothing listens on port 80 of the name yet");

    let shown = site.intercept(&["on", "--dry-run"]);
    assert!(shown.contains("ip daddr 127.64.0.0/10") && shown.contains("redirect to"), "{shown}");
    assert_eq!(site.tables(), before, "a look changes nothing");
    let said = site.intercept(&["on"]);
    assert!(said.contains("undo: micro network intercept off"), "{said}");
    assert!(site.intercept(&["status"]).contains("this machine"));

    // nginx has no index there, but answers.
    for (family, from) in [("-4", "127."), ("-6", "fd6d:6963:726f::7f")] {
        let answer = site.curl(&[family, page]).ok("curl of the name");
        assert!(answer.contains(from) && !answer.starts_with("000"), "{answer}");
    }
    // Not even a program that listens everywhere stands in the way of the name.
    let mine = programs::nginx(&lab, Host::Laptop, WEB);
    site.curl(&[&format!("http://web.micro.internal:{WEB}/")]).ok("the name, not the own program");
    drop(mine);
    let straight = format!("http://{}:{WEB}/", Host::Us.v4());
    assert!(
        site.curl(&[&straight]).code != Some(0),
        "nginx of the other region has its loopback only"
    );
    assert!(site.curl(&["http://127.70.0.1/"]).code != Some(0), "no name was given this address");

    let mut other = lab.command(Host::Laptop, "setpriv");
    other.args(["--reuid", NOBODY, "--clear-groups", "curl", "-sS", "--max-time", "10", page]);
    let refused = process::run(&mut other, b"", PATIENCE);
    assert!(
        matches!(refused.code, Some(7 | 56)),
        "it is served to its own user alone: {}",
        refused.err
    );

    site.network.laptop.kill9();
    assert!(site.curl(&[&page.replace("web.micro.internal", "127.64.1.1")]).code != Some(0));
    assert!(site.tables().contains("micro_intercept"), "nobody was left to take it away");
    assert!(site.intercept(&["off"]).contains("which is gone"));
    assert_eq!(site.tables(), before);

    site.network.laptop.start(None);
    site.network.laptop.wait_service("web");
    site.intercept(&["on"]);
    assert!(site.tables().contains("micro_intercept"));
    assert_eq!(site.network.laptop.sigterm(), Some(0));
    assert_eq!(site.tables(), before, "a node that stops takes its rules along");
}

#[test]
fn a_namespace_without_any_network_and_one_user_alone() {
    let Some(micro) = programs::micro().filter(|_| have()) else { return };
    let Some(lab) = Lab::new() else { return };
    let site = Site::up(&lab, &micro);
    let space = lab.bare_namespace("127.64.0.53");
    let file = format!("/run/netns/{space}");
    let said = site.intercept(&["on", "--netns", &file]);
    assert!(said.contains("asks 127.64.0.53:53 for names"), "{said}");
    // Once more, for some: what is there is kept, and the rules are others.
    site.intercept(&["on", "--netns", &file, "--user", NOBODY]);
    let within = |words: &[&str]| {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &space]).args(words);
        process::run(&mut command, b"", PATIENCE)
    };
    let page = "http://web.micro.internal/";
    let other = ["setpriv", "--reuid", NOBODY, "--clear-groups"];
    assert!(within(&["curl", "-sS", page]).code != Some(0), "root is not nobody");
    within(&[&other[..], &["curl", "-sS", "-o", "/dev/null", page]].concat()).ok("curl of nobody");
    site.intercept(&["on", "--netns", &file]);
    let answer = within(&["curl", "-sS", "-o", "/dev/null", "-w", ASK, page]).ok("curl within");
    assert!(answer.contains(" 127."), "{answer}");
    assert!(site.curl(&[page]).code != Some(0), "the machine itself is not concerned");

    site.intercept(&["on", "--user", NOBODY]);
    assert!(site.curl(&[page]).code != Some(0), "root is not nobody");
    let listed = site.network.laptop.json(&["network", "intercept", "status"]);
    let mut items = listed["items"].as_array().into_iter().flatten();
    assert!(items.any(|item| item["users"] == serde_json::json!([65534])), "{listed}");

    let ended = site.intercept(&["off"]);
    assert_eq!(ended.matches("no longer led here").count(), 2, "{ended}");
    assert_eq!(within(&["nft", "list", "tables"]).ok("nft within"), "");
    assert!(within(&["curl", "-sS", page]).code != Some(0));
}

#[test]
fn a_node_that_may_not_says_what_it_needs() {
    let Some(micro) = programs::micro().filter(|_| have()) else { return };
    let Some(lab) = Lab::new() else { return };
    let plain = lab.dir().join("plain");
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -net_admin --inh-caps -net_admin {} \"$@\"\n",
        micro.display()
    );
    std::fs::write(&plain, script).expect("the lab's directory is writable");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&plain, mode).expect("our own file");
    let node = tests::node::Node::up(&lab, Host::Laptop, &plain, None);
    let refused = node.cli(&["network", "intercept", "on"]);
    assert_eq!(refused.code, Some(5), "{}", refused.err);
    let lines: Vec<_> = refused.err.lines().collect();
    assert_eq!(lines[0], "error[M6012]: this node may not lead connections", "{}", refused.err);
    assert!(lines[1].contains("NET_ADMIN") && lines[2].contains("setcap"), "{}", refused.err);
    let tables = lab.exec(Host::Laptop, "nft", &["list", "tables"]).ok("nft list tables");
    assert_eq!(tables, "", "nothing was changed");
}

#[test]
fn psql_and_pgbench_use_a_database_by_its_name_on_the_usual_port() {
    let Some(micro) = programs::micro().filter(|_| have()) else { return };
    let Some(lab) = Lab::new() else { return };
    let Some(postgres) = Postgres::start(&lab, Host::Us, POSTGRES) else { return };
    let site = Site::up(&lab, &micro);
    site.network.us.expose("db", POSTGRES, "tcp");
    site.network.laptop.wait_service("db");
    site.intercept(&["on"]);
    // No port: 5432, where it listens nowhere.
    let base = ["-h", "db.micro.internal", "-U", "postgres"];
    let run = |program: &str, args: &[&str]| {
        let path = postgres.bin.join(program);
        let mut command = lab.command(Host::Laptop, path);
        process::run(command.args(base).args(args), b"", PATIENCE * 2).ok(program)
    };
    let query = "select count(*) from generate_series(1, 1000)";
    assert_eq!(run("psql", &["-At", "-c", query]).trim(), "1000");
    run("pgbench", &["-i", "-q", "-s", "1", "postgres"]);
    let said = run("pgbench", &["-S", "-C", "-c", "4", "-t", "25", "postgres"]);
    assert!(said.contains("number of transactions actually processed: 100/100"), "{said}");
}
