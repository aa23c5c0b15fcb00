//! Three hosts and a router, made of network namespaces, with faults on request.
//!
//! ```text
//!   laptop ──┐                 10.77.1.2   fd77:1::2   behind the router's NAT: nobody can dial it
//!   eu ──────┤ router          10.77.2.2   fd77:2::2
//!   us ──────┘                 10.77.3.2   fd77:3::2
//! ```
//!
//! Every lab has namespaces of its own, named after this process and a counter, so tests run side by side. They end
//! with the lab; those of a run that was killed are removed by the next one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{self, PATIENCE, Process, Ran};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// One machine of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A leaf behind a NAT.
    Laptop,
    /// A region, reachable by everybody.
    Eu,
    /// Another region, reachable by everybody.
    Us,
}

impl Host {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Laptop, Self::Eu, Self::Us];

    /// The name of the machine, also used for its node and region.
    pub fn name(self) -> &'static str {
        match self {
            Self::Laptop => "laptop",
            Self::Eu => "eu",
            Self::Us => "us",
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Laptop => 1,
            Self::Eu => 2,
            Self::Us => 3,
        }
    }

    /// Its IPv4 address.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number(), 2)
    }

    /// Its IPv6 address.
    pub fn v6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd77, u16::from(self.number()), 0, 0, 0, 0, 0, 2)
    }

    fn router_end(self) -> String {
        format!("r{}", self.number())
    }
}

/// The namespaces of one test. Dropped, they and whatever still runs in them are gone.
#[derive(Debug)]
pub struct Lab {
    tag: String,
    dir: TempDir,
}

impl Lab {
    /// Makes the hosts, or says why not and gives `None`.
    ///
    /// # Panics
    /// If the tools are there but a namespace cannot be set up.
    pub fn new() -> Option<Self> {
        if let Some(why) = Self::unavailable() {
            crate::skip(&why);
            return None;
        }
        sweep();
        let tag = format!("mi-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new()
            .prefix("micro-lab-")
            .tempdir()
            .expect("a temporary directory can be made");
        let lab = Self { tag, dir };
        lab.build();
        Some(lab)
    }

    fn unavailable() -> Option<String> {
        let root = run_ok("id", &["-u"]).is_some_and(|out| out.trim() == "0");
        let tools = ["ip", "nft"].iter().all(|tool| process::found(tool).is_some());
        if !root || !tools {
            return Some("needs root and ip netns".to_owned());
        }
        let probe =
            format!("mi-{}-probe{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        if run_ok("ip", &["netns", "add", &probe]).is_none() {
            return Some("needs root and ip netns (a namespace cannot be made here)".to_owned());
        }
        let works =
            run_ok("ip", &["netns", "exec", &probe, "nft", "add", "table", "inet", "probe"])
                .is_some();
        run_ok("ip", &["netns", "del", &probe]);
        (!works).then(|| "needs root and ip netns (nft does not work here)".to_owned())
    }

    fn build(&self) {
        let router = self.router();
        self.must("ip", &["netns", "add", &router]);
        self.prepare(&router);
        for host in Host::ALL {
            let (ns, n, end) = (self.namespace(host), host.number(), host.router_end());
            self.must("ip", &["netns", "add", &ns]);
            self.prepare(&ns);
            self.must(
                "ip",
                &[
                    "link", "add", "e0", "netns", &ns, "type", "veth", "peer", "name", &end,
                    "netns", &router,
                ],
            );
            for (at, dev, last) in [(&ns, "e0", 2), (&router, end.as_str(), 1)] {
                self.must(
                    "ip",
                    &["-n", at, "addr", "add", &format!("10.77.{n}.{last}/24"), "dev", dev],
                );
                self.must(
                    "ip",
                    &[
                        "-n",
                        at,
                        "addr",
                        "add",
                        &format!("fd77:{n}::{last}/64"),
                        "dev",
                        dev,
                        "nodad",
                    ],
                );
                self.must("ip", &["-n", at, "link", "set", dev, "up"]);
            }
            self.default_route(host);
        }
        // The chain `fault` is filled and flushed by tests; `guard` is the laptop's NAT and firewall.
        self.nft(
            "add table inet lab
             add chain inet lab fault { type filter hook forward priority 0; }
             add chain inet lab guard { type filter hook forward priority 10; }
             add chain inet lab nat { type nat hook postrouting priority 100; }
             add rule inet lab guard oifname r1 ct state new drop
             add rule inet lab nat iifname r1 oifname { r2, r3 } meta nfproto ipv4 masquerade",
        );
    }

    /// Before a namespace has links: forwarding, and no waiting for other owners of an address, which takes seconds.
    fn prepare(&self, namespace: &str) {
        self.must("ip", &["-n", namespace, "link", "set", "lo", "up"]);
        for key in
            ["ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv6.conf.default.dad_transmits=0"]
        {
            self.must("ip", &["netns", "exec", namespace, "sysctl", "-qw", &format!("net.{key}")]);
        }
    }

    // A route is lost with its link, so healing sets it again.
    fn default_route(&self, host: Host) {
        let (ns, n) = (self.namespace(host), host.number());
        self.must(
            "ip",
            &["-n", &ns, "route", "replace", "default", "via", &format!("10.77.{n}.1")],
        );
        self.must(
            "ip",
            &["-n", &ns, "-6", "route", "replace", "default", "via", &format!("fd77:{n}::1")],
        );
    }

    fn router(&self) -> String {
        format!("{}-router", self.tag)
    }

    fn namespace(&self, host: Host) -> String {
        format!("{}-{}", self.tag, host.name())
    }

    /// A directory that ends with the lab.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A command that runs `program` on `host`.
    pub fn command(&self, host: Host, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(host)]).arg(program);
        command
            .env_remove("http_proxy")
            .env_remove("https_proxy")
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY");
        command
    }

    /// Runs a program on `host` to its end.
    pub fn exec(&self, host: Host, program: &str, args: &[&str]) -> Ran {
        process::run(self.command(host, program).args(args), b"", PATIENCE)
    }

    /// Starts a program on `host`.
    pub fn spawn(&self, host: Host, program: &str, args: &[&str]) -> Process {
        Process::start(
            &format!("{program} on {}", host.name()),
            self.command(host, program).args(args),
        )
    }

    /// Waits until something on `host` accepts TCP connections at `address`.
    ///
    /// # Panics
    /// If nothing does within [`PATIENCE`].
    pub fn wait_port(&self, host: Host, address: &str) {
        let mut command = self.command(host, crate::programs::lab_program());
        process::run(command.args(["wait-port", address]), b"", PATIENCE)
            .ok(&format!("waiting for {address}"));
    }

    /// Has programs on `host` ask this name server, and no other.
    ///
    /// # Panics
    /// If `/etc/netns`, from where `ip netns exec` takes such files, is not writable.
    pub fn name_server(&self, host: Host, server: Ipv4Addr) {
        let dir = netns_files(&self.namespace(host));
        std::fs::create_dir_all(&dir).expect("root may write to /etc");
        std::fs::write(dir.join("resolv.conf"), format!("nameserver {server}\n"))
            .expect("root may write to /etc");
    }

    /// A namespace with nothing but a loopback, in which programs ask this name server; its name.
    ///
    /// # Panics
    /// If it cannot be made.
    pub fn bare_namespace(&self, server: &str) -> String {
        let name = self.bare();
        self.must("ip", &["netns", "add", &name]);
        self.must("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let dir = netns_files(&name);
        std::fs::create_dir_all(&dir).expect("root may write to /etc");
        std::fs::write(dir.join("resolv.conf"), format!("nameserver {server}\n"))
            .expect("root may write to /etc");
        name
    }

    fn bare(&self) -> String {
        format!("{}-bare", self.tag)
    }

    /// Drops DNS over UDP and TCP without a word, as a dead server does.
    pub fn silence_dns(&self) {
        self.nft("add rule inet lab fault meta l4proto { tcp, udp } th dport 53 drop");
    }

    /// Counts forwarded connections to TCP `port` from now on; read with [`Lab::counted`].
    pub fn count_tcp(&self, port: u16) {
        self.nft(&format!(
            "add rule inet lab fault tcp dport {port} tcp flags syn counter comment \"counted\""
        ));
    }

    /// The first packets of connections counted since [`Lab::count_tcp`].
    ///
    /// # Panics
    /// If nothing is counted.
    pub fn counted(&self) -> u64 {
        let listed =
            self.on_router(&["nft", "list", "chain", "inet", "lab", "fault"]).ok("nft list");
        let packets =
            listed.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("nothing counted: {listed}"))
    }

    /// Drops this share of all forwarded packets, at random; below 100.
    pub fn loss(&self, percent: u32) {
        self.nft(&format!("add rule inet lab fault numgen random mod 100 < {percent} drop"));
    }

    /// Drops everything to and from `host`, without a word to anybody.
    pub fn blackhole(&self, host: Host) {
        let end = host.router_end();
        self.nft(&format!(
            "add rule inet lab fault iifname {end} drop\nadd rule inet lab fault oifname {end} drop"
        ));
    }

    /// Drops everything between two hosts, both ways, without a word; both still reach the third.
    pub fn part(&self, one: Host, other: Host) {
        let (a, b) = (one.router_end(), other.router_end());
        self.nft(&format!(
            "add rule inet lab fault iifname {a} oifname {b} drop\nadd rule inet lab fault iifname {b} oifname {a} drop"
        ));
    }

    /// Drops what comes from `host`; what goes to it still arrives.
    pub fn oneway(&self, host: Host) {
        self.nft(&format!("add rule inet lab fault iifname {} drop", host.router_end()));
    }

    /// Ends loss, black holes, partitions and one-way faults.
    pub fn clear(&self) {
        self.nft("flush chain inet lab fault");
    }

    /// Takes the link of `host` down, as a pulled cable: the host itself notices.
    pub fn cut(&self, host: Host) {
        self.must("ip", &["-n", &self.namespace(host), "link", "set", "e0", "down"]);
    }

    /// Puts the cable back.
    pub fn heal(&self, host: Host) {
        let (ns, n) = (self.namespace(host), host.number());
        self.must("ip", &["-n", &ns, "link", "set", "e0", "up"]);
        // An IPv6 address goes with its link.
        let v6 = format!("fd77:{n}::2/64");
        self.must("ip", &["-n", &ns, "addr", "replace", &v6, "dev", "e0", "nodad"]);
        self.default_route(host);
    }

    fn nft(&self, script: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.router(), "nft", "-f", "-"]);
        process::run(&mut command, script.as_bytes(), PATIENCE).ok(script);
    }

    fn must(&self, program: &str, args: &[&str]) {
        process::run(Command::new(program).args(args), b"", PATIENCE)
            .ok(&format!("{program} {}", args.join(" ")));
    }

    /// Runs `program args` on the router, whatever comes of it (`conntrack -F`, `nft list`).
    pub fn on_router(&self, args: &[&str]) -> Ran {
        let mut command = Command::new("ip");
        process::run(command.args(["netns", "exec", &self.router()]).args(args), b"", PATIENCE)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let others = [self.router(), self.bare()];
        for name in Host::ALL.map(|host| self.namespace(host)).into_iter().chain(others) {
            remove(&name);
        }
    }
}

/// Ends what still runs in a namespace of ours, then the namespace.
fn remove(namespace: &str) {
    if let Some(pids) = run_ok("ip", &["netns", "pids", namespace]) {
        for pid in pids.split_whitespace() {
            run_ok("kill", &["-KILL", pid]);
        }
    }
    run_ok("ip", &["netns", "del", namespace]);
    // Most have none.
    let _ = std::fs::remove_dir_all(netns_files(namespace));
}

/// Files of a namespace that `ip netns exec` puts over those in `/etc`.
fn netns_files(namespace: &str) -> std::path::PathBuf {
    Path::new("/etc/netns").join(namespace)
}

/// Removes namespaces whose test process is gone: a run that was killed could not do it itself.
fn sweep() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let Some(listed) = run_ok("ip", &["netns", "list"]) else { return };
        let left: BTreeSet<&str> = listed
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| {
                let owner = name.strip_prefix("mi-").and_then(|rest| rest.split('-').next());
                owner.is_some_and(|pid| {
                    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
                })
            })
            .collect();
        left.into_iter().for_each(remove);
    });
}

fn run_ok(program: &str, args: &[&str]) -> Option<String> {
    process::found(program)?;
    let ran = process::run(Command::new(program).args(args), b"", Duration::from_secs(10));
    (ran.code == Some(0)).then_some(ran.out)
}
