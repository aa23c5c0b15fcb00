//! Registries of others that a node watches: a real etcd with an unmodified go-micro v2.9.1 service in it, called
//! through a node that watches and another that does not; that etcd killed and started again; garbage in it; a burst;
//! and a service that announces itself over mdns, as go-micro does when it is told nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::lab::{Host, Lab};
use tests::node::{Node, Options, PROXY};
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs::{self, GREETER};

const PORT: u16 = 19571;
/// The lease that services ask for, in seconds.
const LEASE: u64 = 3;
/// Between two looks at what only polling tells.
const LOOK: Duration = Duration::from_millis(50);

/// An etcd of its own on a host.
struct Etcd<'a> {
    lab: &'a Lab,
    host: Host,
    process: Option<Process>,
    lives: u32,
}

impl<'a> Etcd<'a> {
    fn start(lab: &'a Lab, host: Host) -> Self {
        let mut etcd = Self { lab, host, process: None, lives: 0 };
        etcd.again(true);
        etcd
    }

    fn at(&self) -> String {
        format!("{}:2379", self.host.v4())
    }

    /// Starts it, with what it knew or with nothing.
    fn again(&mut self, fresh: bool) {
        self.lives += u32::from(fresh);
        let data = self.lab.dir().join(format!("etcd-{}", self.lives));
        let url = format!("http://{}", self.at());
        let mut command = self.lab.command(self.host, "etcd");
        command.arg("--data-dir").arg(data).args(["--max-txn-ops", "1000", "--logger", "zap"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:0"]);
        self.process = Some(Process::start("etcd", &mut command));
        self.lab.wait_port(self.host, &self.at());
        let healthy = Instant::now() + PATIENCE;
        while self.ctl(&["endpoint", "health"], "").code != Some(0) {
            assert!(Instant::now() < healthy, "etcd is not healthy");
            std::thread::sleep(LOOK);
        }
    }

    fn kill9(&mut self) {
        self.process.take().expect("it was started").kill9();
    }

    fn ctl(&self, args: &[&str], input: &str) -> Ran {
        let mut command = self.lab.command(self.host, "etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.at()]).args(args);
        process::run(&mut command, input.as_bytes(), PATIENCE)
    }

    fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", key, "--", value], "").ok(key);
    }
}

fn entry(service: &str, id: &str, address: &str) -> (String, String) {
    let node = json!({"id": id, "address": address, "metadata": {"protocol": "grpc"}});
    let value = json!({"name": service, "version": "latest", "nodes": [node]});
    (format!("/micro/registry/{service}/{id}"), value.to_string())
}

/// A node that watches what `tables` say.
fn watching<'a>(
    lab: &'a Lab,
    host: Host,
    micro: &Path,
    ticket: Option<&str>,
    tables: &str,
) -> Node<'a> {
    let mut node = Node::prepare(lab, host, micro, Options::default());
    let dir = node.home().join("config/micro");
    std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
    std::fs::write(dir.join("micro.toml"), tables).expect("the lab's directory is writable");
    node.start(ticket);
    node.wait_ready();
    node
}

/// Waits until the only back end of a node is as it should be.
fn wait_backend(node: &Node<'_>, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE * 2;
    loop {
        let listed = node.json(&["registry", "backends"]);
        let one = &listed["items"][0];
        if is_so(one) {
            return one.clone();
        }
        assert!(Instant::now() < deadline, "{what}: {one}\n{}", node.said().join("\n"));
        std::thread::sleep(LOOK);
    }
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |one| one["state"] == state
}

/// The instances of a service, as a node knows them.
fn instances(node: &Node<'_>, service: &str) -> Vec<Value> {
    let described = node.json(&["describe", service]);
    described["instances"].as_array().cloned().unwrap_or_default()
}

fn wait_stale(node: &Node<'_>, service: &str, wanted: bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = instances(node, service);
        if !all.is_empty() && all.iter().all(|one| one["stale"].is_string() == wanted) {
            return;
        }
        assert!(Instant::now() < deadline, "stale is not {wanted}: {all:?}");
        std::thread::sleep(LOOK);
    }
}

fn ready(tools: &[&str], built: &[&str]) -> Option<(Lab, std::path::PathBuf)> {
    if !programs::have(tools) || !programs::have_built(built) {
        return None;
    }
    Some((Lab::new()?, programs::micro()?))
}

/// A go-micro client that knows its node alone.
fn ask(lab: &Lab, host: Host, args: &[&str]) -> Value {
    let mut command = lab.command(host, programs::built("go-client"));
    command.env("MICRO_REGISTRY", "service").env("MICRO_REGISTRY_ADDRESS", PROXY);
    let ran = process::run(command.env("MICRO_PROXY", PROXY).args(args), b"", PATIENCE * 2);
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{ran:?}"))
}

#[test]
fn a_service_of_a_real_etcd_is_called_from_everywhere_and_outlives_its_etcd() {
    let Some((lab, micro)) = ready(&["etcd", "etcdctl"], &["go-service", "go-client"]) else {
        return;
    };
    let mut etcd = Etcd::start(&lab, Host::Us);
    let table = format!(
        "[[registry.backend]]\nkind = \"etcd\"\nname = \"prod\"\naddress = [\"{}\", \"10.77.3.9:2379\"]\n",
        etcd.at()
    );
    let eu = watching(&lab, Host::Eu, &micro, None, &table);
    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    wait_backend(&eu, "it is watched", is("watching"));

    let start = || {
        let mut command = lab.command(Host::Us, programs::built("go-service"));
        command
            .env("MICRO_REGISTRY", "etcd")
            .env("MICRO_REGISTRY_ADDRESS", etcd.at())
            .env("MICRO_SERVER_ADDRESS", format!("{}:{PORT}", Host::Us.v4()))
            .env("MICRO_REGISTER_TTL", LEASE.to_string())
            .env("MICRO_REGISTER_INTERVAL", "1")
            .env_remove("MICRO_PROXY");
        let service = Process::start("go-micro service", &mut command);
        service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
        service
    };
    let mut service = start();
    laptop.wait_service(GREETER);
    let hello = |name: &str| ask(&lab, Host::Laptop, &["hello", name])["message"].clone();
    assert_eq!(hello("Ada"), "Hello Ada", "from a node that does not watch, through one that does");
    let got = ask(&lab, Host::Laptop, &["get", GREETER]);
    assert!(got["services"][0]["endpoints"].as_array().is_some_and(|all| !all.is_empty()), "{got}");
    let one = &instances(&laptop, GREETER)[0];
    assert_eq!((&one["backend"], &one["node"]), (&json!("prod"), &json!("eu")), "{one}");

    // Garbage is named and harms nothing.
    etcd.put("/micro/registry/bad/json", "{not json");
    etcd.put("/micro/registry/bad/key", &entry("other", "key", "10.77.3.2:1").1);
    let (key, value) = entry("looped", "l-1", "127.0.0.1:9");
    etcd.put(&key, &value);
    etcd.put("/micro/registry/large/l-1", &"x".repeat(100_000));
    let one = wait_backend(&eu, "three are skipped", |one| one["skipped"] == 4);
    let told = one["examples"].to_string();
    for (key, why) in
        [("bad/json", "not"), ("bad/key", "another"), (&*key, "loopback"), ("large", "bytes")]
    {
        assert!(told.contains(key) && told.contains(why), "{told}");
    }
    assert_eq!(hello("Grace"), "Hello Grace");
    etcd.put("/micro/registry/bad/json", &entry("bad", "json", "10.77.3.2:1").1);
    laptop.wait_service("bad");

    // Its etcd dies; the service does not.
    etcd.kill9();
    let one = wait_backend(&eu, "it is stale", is("stale"));
    assert!(one["why"].as_str().is_some_and(|why| !why.is_empty()) && one["entries"] == 2, "{one}");
    wait_stale(&laptop, GREETER, true);
    let shown = laptop.cli(&["describe", GREETER]).ok("micro describe");
    assert!(shown.contains("stale: back end prod"), "{shown}");
    let text = eu.cli(&["registry", "backends"]).ok("micro registry backends");
    assert!(text.contains("prod") && text.contains("stale"), "{text}");
    assert_eq!(hello("Joan"), "Hello Joan", "what was known is kept");
    let said = eu.said().iter().filter(|line| line.contains("a back end is stale")).count();
    assert_eq!(said, 1, "the log is told once");

    // It comes back with nothing: what vanished goes, who lives registers again.
    etcd.again(true);
    wait_backend(&eu, "it is watched again", is("watching"));
    laptop.wait_instances("bad", 0);
    wait_stale(&laptop, GREETER, false);
    assert_eq!(hello("Mary"), "Hello Mary");

    // And with what it had.
    etcd.kill9();
    wait_backend(&eu, "it is stale", is("stale"));
    etcd.again(false);
    wait_backend(&eu, "it is watched again", is("watching"));
    assert_eq!(hello("Rosa"), "Hello Rosa");

    service.kill9();
    laptop.wait_instances(GREETER, 0);
    drop(service);
}

#[test]
fn twenty_thousand_keys_are_taken_at_once_and_what_is_too_much_is_said() {
    let Some((lab, micro)) = ready(&["etcd", "etcdctl"], &[]) else { return };
    let etcd = Etcd::start(&lab, Host::Us);
    // 990 services with 20 each, and one with more than a record holds.
    let mut puts = Vec::new();
    for n in 0..19_800 {
        let (service, id) = (format!("burst-{}", n % 990), format!("i-{n}"));
        puts.push(entry(&service, &id, &format!("10.9.{}.{}:4000", n / 250, n % 250 + 1)));
    }
    let fill = |puts: &[(String, String)]| {
        for part in puts.chunks(900) {
            let puts: String =
                part.iter().map(|(key, value)| format!("put {key} {value:?}\n")).collect();
            etcd.ctl(&["txn", "--interactive=false"], &format!("\n{puts}\n\n")).ok("etcdctl txn");
        }
    };
    fill(&puts);
    let table = format!("[[registry.backend]]\nkind = \"etcd\"\naddress = \"{}\"\n", etcd.at());
    let began = Instant::now();
    let eu = watching(&lab, Host::Eu, &micro, None, &table);
    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    wait_backend(&eu, "all are offered", |one| one["offered"] == 19_800);
    tests::say(&format!("19800 instances offered within {:?} of the start", began.elapsed()));
    laptop.wait_instances("burst-989", 20);
    let large: Vec<_> = (0..1_500)
        .map(|n| {
            entry("large", &format!("large-{n}"), &format!("10.8.{}.{}:4000", n / 250, n % 250 + 1))
        })
        .collect();
    fill(&large[..200]);
    laptop.wait_instances("large", 200);
    fill(&large);
    let one =
        wait_backend(&eu, "what is too much is said", |one| one["skipped"].as_u64() > Some(1_000));
    let told = one["examples"].to_string();
    assert!(told.contains("more than the 20000"), "{told}");
    assert_eq!(one["offered"], 20_000, "{one}");
}

#[test]
fn a_node_is_not_watched_as_an_etcd_and_a_password_is_needed_where_it_is() {
    let Some((lab, micro)) = ready(&["etcd", "etcdctl"], &[]) else { return };
    let table = format!("[[registry.backend]]\nkind = \"etcd\"\naddress = \"{PROXY}\"\n");
    let mut eu = watching(&lab, Host::Eu, &micro, None, &table);
    let one = wait_backend(&eu, "it is refused", is("refused"));
    assert!(one["why"].as_str().is_some_and(|why| why.contains("a node of micro")), "{one}");
    eu.kill9();

    let etcd = Etcd::start(&lab, Host::Us);
    let (key, value) = entry("guarded", "g-1", "10.77.3.2:1");
    etcd.put(&key, &value);
    for args in [
        &["user", "add", "root:top secret"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        etcd.ctl(args, "").ok(&args.join(" "));
    }
    let table = |password: &str| {
        format!(
            "[[registry.backend]]\nkind = \"etcd\"\naddress = \"{}\"\nuser = \"root\"\npassword = \"{password}\"\n",
            etcd.at()
        )
    };
    let mut eu = watching(&lab, Host::Eu, &micro, None, &table("wrong"));
    let one = wait_backend(&eu, "the password is wrong", is("stale"));
    assert!(one["why"].as_str().is_some_and(|why| why.contains("authentication failed")), "{one}");
    eu.kill9();
    let secret = lab.dir().join("secret");
    std::fs::write(&secret, "top secret\n").expect("the lab's directory is writable");
    let eu = watching(&lab, Host::Eu, &micro, None, &table(&format!("file:{}", secret.display())));
    wait_backend(&eu, "it is watched", |one| one["offered"] == 1);
    let shown = eu.cli(&["config", "show"]).ok("micro config show");
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_file_is_read_again_when_it_changes_and_a_bad_edit_changes_nothing() {
    let Some((lab, micro)) = ready(&[], &[]) else { return };
    let file = lab.dir().join("services.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("the lab's directory is writable");
    write("[[service]]\nname = \"web\"\naddress = [\"10.77.2.2:81\", \"10.77.2.2:82\"]\n");
    let table = format!("[[registry.backend]]\nkind = \"file\"\npath = \"{}\"\n", file.display());
    let eu = watching(&lab, Host::Eu, &micro, None, &table);
    eu.wait_instances("web", 2);
    write("[[service]]\nname = \"web\"\naddress = \"10.77.2.2:81\"\nadress = 1\n");
    let one = wait_backend(&eu, "it is stale", is("stale"));
    let why = one["detail"].as_str().unwrap_or_default();
    assert!(
        why.contains("error[M5002]") && why.contains(":4:1") && why.contains("^^^^^^"),
        "{why}"
    );
    assert_eq!(eu.instances("web"), 2);
    write("[[service]]\nname = \"web\"\naddress = \"10.77.2.2:81\"\n");
    eu.wait_instances("web", 1);
    wait_backend(&eu, "it is watched", is("watching"));
    std::fs::remove_file(&file).expect("it is there");
    wait_backend(&eu, "it is stale", is("stale"));
    assert_eq!(eu.instances("web"), 1);
}

#[test]
fn a_service_that_is_told_no_registry_is_heard_and_takes_leave() {
    let Some((lab, micro)) = ready(&[], &["go-service", "go-client"]) else { return };
    let eu = Node::up(&lab, Host::Eu, &micro, None);
    let table = "[[registry.backend]]\nkind = \"mdns\"\n";
    let us = watching(&lab, Host::Us, &micro, Some(&eu.invite_relay()), table);
    let laptop = Node::up(&lab, Host::Laptop, &micro, Some(&eu.invite()));
    wait_backend(&us, "it listens", is("watching"));
    // Nothing is said about a registry: go-micro then announces itself.
    let mut command = lab.command(Host::Us, programs::built("go-service"));
    command.env("MICRO_SERVER_ADDRESS", format!("{}:{PORT}", Host::Us.v4()));
    for name in ["MICRO_REGISTRY", "MICRO_REGISTRY_ADDRESS", "MICRO_PROXY"] {
        command.env_remove(name);
    }
    let service = Process::start("go-micro service", &mut command);
    service.wait_line(0, "it has started", PATIENCE, |line| line == "started");
    laptop.wait_service(GREETER);
    let said = ask(&lab, Host::Laptop, &["hello", "Ada"]);
    assert_eq!(said["message"], "Hello Ada");
    let one = &instances(&laptop, GREETER)[0];
    assert_eq!((&one["backend"], &one["node"]), (&json!("mdns"), &json!("us")), "{one}");
    service.signal("TERM");
    laptop.wait_instances(GREETER, 0);
}
