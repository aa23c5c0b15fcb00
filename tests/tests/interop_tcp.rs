//! Programs that know nothing of this network and speak their own protocols over TCP: a real PostgreSQL, Redis and
//! nginx in a region, their own clients on the laptop, two nodes between them.

use std::path::PathBuf;

use tests::lab::{Host, Lab};
use tests::node::{Network, PROXY};
use tests::postgres::Postgres;
use tests::process::{self, PATIENCE, Process, Ran};
use tests::programs;

const POSTGRES: u16 = 19832;
const REDIS: u16 = 19879;
const WEB: u16 = 19800;
/// Where the laptop finds what is forwarded.
const HERE: u16 = 19700;
const DOWNLOAD_BYTES: usize = 20_000_000;

/// Runs `micro forward` on the laptop until it is dropped.
fn forward(lab: &Lab, network: &Network<'_>, service: &str) -> Process {
    let mut command = network.laptop.command();
    command.args(["forward", service, &HERE.to_string()]);
    let forward = Process::start("micro forward", &mut command);
    lab.wait_port(Host::Laptop, &format!("127.0.0.1:{HERE}"));
    forward
}

fn run(lab: &Lab, host: Host, program: &PathBuf, args: &[&str]) -> Ran {
    process::run(lab.command(host, program).args(args), b"", PATIENCE * 6)
}

#[test]
fn psql_and_pgbench_find_a_database_of_another_region() {
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let Some(postgres) = Postgres::start(&lab, Host::Us, POSTGRES) else { return };
    let network = Network::up(&lab, &micro);
    network.us.expose("db", POSTGRES, "tcp");
    network.laptop.wait_service("db");
    let _forward = forward(&lab, &network, "db");
    let psql = postgres.bin.join("psql");
    let query = "select md5(string_agg(n::text, ',')) from generate_series(1, 200000) as n";
    let ask = |host, port: u16, query: &str| {
        let port = port.to_string();
        let base = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-At", "-c", query];
        run(&lab, host, &psql, &base).ok("psql").trim().to_owned()
    };
    assert_eq!(ask(Host::Laptop, HERE, query), ask(Host::Us, POSTGRES, query));
    // Many rows, which do not come in one piece.
    let rows =
        ask(Host::Laptop, HERE, "select n, repeat('x', 100) from generate_series(1, 50000) as n");
    assert_eq!(rows.lines().count(), 50_000);
    let (port, pgbench) = (HERE.to_string(), postgres.bin.join("pgbench"));
    let bench = |args: &[&str]| {
        let base = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        run(&lab, Host::Laptop, &pgbench, &[&base, args, &["postgres"]].concat()).ok("pgbench")
    };
    bench(&["-i", "-q", "-s", "1"]);
    let said = bench(&["-S", "-c", "8", "-t", "200"]);
    assert!(said.contains("number of transactions actually processed: 1600/1600"), "{said}");
    assert!(said.contains("number of failed transactions: 0"), "{said}");
    // A connection for each transaction.
    let said = bench(&["-S", "-C", "-c", "4", "-t", "25"]);
    assert!(said.contains("number of transactions actually processed: 100/100"), "{said}");
}

#[test]
fn psql_finds_a_database_of_another_region_by_dns_alone() {
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let Some(postgres) = Postgres::start(&lab, Host::Us, POSTGRES) else { return };
    let mut network = Network::up(&lab, &micro);
    network.us.expose("db", POSTGRES, "tcp");
    network.laptop.kill9();
    network.laptop.say_at_start(&["--dns-address", "127.0.0.1:53"]);
    network.laptop.start(None);
    network.laptop.wait_service("db");
    lab.name_server(Host::Laptop, std::net::Ipv4Addr::LOCALHOST);
    let port = POSTGRES.to_string();
    let base = ["-h", "db.micro.internal", "-p", &port, "-U", "postgres"];
    let query = ["-At", "-c", "select count(*) from generate_series(1, 1000)"];
    let psql = run(&lab, Host::Laptop, &postgres.bin.join("psql"), &[&base[..], &query].concat());
    assert_eq!(psql.ok("psql").trim(), "1000");
    let pgbench = postgres.bin.join("pgbench");
    let bench = |args: &[&str]| {
        let args = [&base, args, &["postgres"]].concat();
        run(&lab, Host::Laptop, &pgbench, &args).ok("pgbench")
    };
    bench(&["-i", "-q", "-s", "1"]);
    let said = bench(&["-S", "-C", "-c", "4", "-t", "25"]);
    assert!(said.contains("number of transactions actually processed: 100/100"), "{said}");
}

#[test]
fn redis_is_used_through_a_forwarded_port() {
    if !programs::have(&["redis-server", "redis-cli", "redis-benchmark"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let port = REDIS.to_string();
    let mut serve = lab.command(Host::Us, "redis-server");
    serve.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(lab.dir());
    let _redis = Process::start("redis-server", &mut serve);
    lab.wait_port(Host::Us, &format!("127.0.0.1:{port}"));
    let network = Network::up(&lab, &micro);
    network.us.expose("cache", REDIS, "tcp");
    network.laptop.wait_service("cache");
    let mut forwarding = forward(&lab, &network, "cache");
    let here = HERE.to_string();
    let mut set = lab.command(Host::Laptop, "redis-cli");
    set.args(["-h", "127.0.0.1", "-p", &here, "-x", "set", "big"]);
    let big = vec![b'v'; 4 << 20];
    assert_eq!(process::run(&mut set, &big, PATIENCE * 6).ok("redis-cli set").trim(), "OK");
    let length = lab.exec(Host::Laptop, "redis-cli", &["-p", &here, "strlen", "big"]);
    assert_eq!(length.ok("redis-cli strlen").trim(), big.len().to_string());
    let got = lab.exec(Host::Laptop, "redis-cli", &["-p", &here, "get", "big"]).ok("redis-cli get");
    assert_eq!(got.trim().len(), big.len());
    let bench = ["-p", &here, "-q", "-c", "50", "-n", "20000", "-P", "8", "-t", "set,get,lrange"];
    let said = lab.exec(Host::Laptop, "redis-benchmark", &bench).ok("redis-benchmark");
    assert!(said.contains("SET:") && said.contains("GET:") && !said.contains("rror"), "{said}");

    // What was forwarded ends with its command, however that ends.
    forwarding.kill9();
    let gone = lab.exec(Host::Laptop, "redis-cli", &["-p", &here, "ping"]);
    assert!(gone.err.contains("refused") || gone.out.contains("refused"), "{gone:?}");
}

#[test]
fn a_web_server_is_reached_over_connect_and_socks() {
    if !programs::have(&["nginx", "curl", "cmp"]) {
        return;
    }
    let Some(micro) = programs::micro() else { return };
    let Some(lab) = Lab::new() else { return };
    let (_nginx, dir) = programs::nginx(&lab, Host::Us, WEB);
    let network = Network::up(&lab, &micro);
    network.us.expose("web", WEB, "http");
    network.laptop.wait_service("web");
    let file = dir.join("www/random");
    let fill =
        format!("head -c {DOWNLOAD_BYTES} /dev/urandom > {0}; chmod 644 {0}", file.display());
    lab.exec(Host::Laptop, "bash", &["-c", &fill]).ok("fill a file");
    let proxy = format!("http://{PROXY}");
    let ways: [&[&str]; 3] = [
        &["--proxytunnel", "--proxy", &proxy],
        &["--proxy", &proxy],
        &["--socks5-hostname", PROXY],
    ];
    for way in ways {
        let got = lab.dir().join("got");
        let path = got.display().to_string();
        let target = ["http://web.micro.internal/random", "-o", &path];
        let args = [&["-sS", "--fail", "--max-time", "100"], way, &target].concat();
        lab.exec(Host::Laptop, "curl", &args).ok(&format!("curl {way:?}"));
        let same =
            std::fs::read(&got).expect("curl wrote it") == std::fs::read(&file).expect("ours");
        assert!(same, "{way:?}");
        let missing = ["-sS", "--fail", "--max-time", "20", "http://nobody.micro.internal/"];
        let ran = lab.exec(Host::Laptop, "curl", &[&missing, way].concat());
        assert_ne!(ran.code, Some(0), "{way:?}: a name that nobody has");
    }
    // The proxy variables of `micro exec`, and one of its ports.
    let mut exec = network.laptop.command();
    exec.args(["exec", "--service", "web", "--", "sh", "-c"]);
    exec.arg("curl -sS --fail http://web/random | cmp - \"$0\" && curl -sS --fail http://$WEB_ADDR/random | cmp - \"$0\"");
    exec.arg(&file);
    process::run(&mut exec, b"", PATIENCE * 6).ok("micro exec");
}
