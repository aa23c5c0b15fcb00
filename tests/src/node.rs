//! One running node: the real binary on a host of the lab, with directories of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::lab::{Host, Lab};
use crate::process::{self, PATIENCE, Process, Ran};

/// The proxy port of every node in the lab; each host has a loopback of its own.
pub const PROXY: &str = "127.0.0.1:8081";
/// The UDP port of every node in the lab.
const LINK_PORT: u16 = 8085;
/// Between two questions to a node that has no socket yet: there is no event to wait for before it exists.
const KNOCK: Duration = Duration::from_millis(15);

/// A node of the lab. Dropped, it is killed.
#[derive(Debug)]
pub struct Node<'a> {
    lab: &'a Lab,
    host: Host,
    binary: PathBuf,
    home: PathBuf,
    options: Options,
    process: Option<Process>,
}

/// What is special about a node; the default is what a person would start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's name, where it is not the first of its host.
    pub name: Option<String>,
    /// Where the proxy listens; empty: at the usual address and its aliases.
    pub proxy: String,
    /// Where links are accepted, when not on the host's IPv4 address.
    pub address: Option<String>,
    /// A limit of open files, soft and hard.
    pub files: Option<u32>,
    /// Another directory for the state than the node's own.
    pub state: Option<PathBuf>,
    /// More arguments of `micro network up`.
    pub more: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            proxy: PROXY.to_owned(),
            address: None,
            files: None,
            state: None,
            more: Vec::new(),
        }
    }
}

impl<'a> Node<'a> {
    /// Starts the first node of a network, or a member with a ticket, and waits until it is ready.
    ///
    /// # Panics
    /// If it ends or is not ready in time; the message holds what it said.
    pub fn up(lab: &'a Lab, host: Host, binary: &Path, ticket: Option<&str>) -> Self {
        Self::up_with(lab, host, binary, ticket, Options::default())
    }

    /// As [`Node::up`], with something special.
    ///
    /// # Panics
    /// As [`Node::up`].
    pub fn up_with(
        lab: &'a Lab,
        host: Host,
        binary: &Path,
        ticket: Option<&str>,
        options: Options,
    ) -> Self {
        let mut node = Self::prepare(lab, host, binary, options);
        node.start(ticket);
        node.wait_ready();
        node
    }

    /// Makes the directories of a node and does not start it.
    ///
    /// # Panics
    /// If the lab's directory is not writable.
    pub fn prepare(lab: &'a Lab, host: Host, binary: &Path, options: Options) -> Self {
        let name = options.name.as_deref().unwrap_or(host.name());
        let home = lab.dir().join(format!("node-{name}"));
        for part in ["state", "run", "config"] {
            let dir = home.join(part);
            std::fs::create_dir_all(&dir).expect("the lab's directory is writable");
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700))
                .expect("our own directory");
        }
        Self { lab, host, binary: binary.to_owned(), home, options, process: None }
    }

    /// Starts the process; does not wait for anything. Used to start again after an end.
    pub fn start(&mut self, ticket: Option<&str>) {
        let address = self
            .options
            .address
            .clone()
            .unwrap_or_else(|| format!("{}:{LINK_PORT}", self.host.v4()));
        let name = self.name();
        let mut args: Vec<String> =
            ["network", "up", "--name", name, "--region", self.host.name()].map(Into::into).into();
        if !self.options.proxy.is_empty() {
            args.extend(["--proxy-address".to_owned(), self.options.proxy.clone()]);
        }
        args.extend(["--address".to_owned(), address]);
        args.extend(ticket.into_iter().flat_map(|ticket| ["--join".to_owned(), ticket.to_owned()]));
        args.extend(self.options.more.iter().cloned());
        let mut command = match self.options.files {
            None => self.command(),
            Some(files) => {
                let mut shell = self.lab.command(self.host, "sh");
                shell
                    .args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")])
                    .arg(&self.binary);
                self.surround(&mut shell);
                shell
            }
        };
        self.process = Some(Process::start(&format!("node {name}"), command.args(&args)));
    }

    /// Gives a command the environment of this node, so that `micro` in it finds the node and its state.
    pub fn surround(&self, command: &mut Command) {
        let state = self.options.state.clone().unwrap_or_else(|| self.home.join("state"));
        command
            .env("XDG_STATE_HOME", state)
            .env("XDG_RUNTIME_DIR", self.home.join("run"))
            .env("XDG_CONFIG_HOME", self.home.join("config"))
            .env("HOME", &self.home)
            .env("NO_COLOR", "1");
        for name in ["MICRO_TICKET", "MICRO_PROXY", "MICRO_REGISTRY", "MICRO_NETWORK"] {
            command.env_remove(name);
        }
    }

    /// The program `micro` on this host, as it finds the node.
    pub fn command(&self) -> Command {
        let mut command = self.lab.command(self.host, &self.binary);
        self.surround(&mut command);
        command
    }

    /// Waits until the node says that it is ready.
    ///
    /// # Panics
    /// If it ends, or [`PATIENCE`] is over.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ran = self.cli(&["network", "wait", "--for", "ready", "--timeout", "5s"]);
            if ran.code == Some(0) {
                return;
            }
            let running = self.running();
            let name = self.name();
            assert!(running, "node {name} ended at start:\n{}", self.said().join("\n"));
            assert!(
                Instant::now() < deadline,
                "node {name}: {}\n{}",
                ran.err,
                self.said().join("\n")
            );
            std::thread::sleep(KNOCK);
        }
    }

    /// Whether the process lives.
    pub fn running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::running)
    }

    /// What it is called: as its host, unless it was given a name of its own.
    pub fn name(&self) -> &str {
        self.options.name.as_deref().unwrap_or(self.host.name())
    }

    /// Moves the node: from its next start it accepts links at this address.
    pub fn move_to(&mut self, address: &str) {
        self.options.address = Some(address.to_owned());
    }

    /// Adds arguments from the next start on, in place of those it had.
    pub fn say_at_start(&mut self, more: &[&str]) {
        self.options.more = more.iter().map(|&word| word.to_owned()).collect();
    }

    /// The host it runs on.
    pub fn host(&self) -> Host {
        self.host
    }

    /// The directory that holds its state, run and config directories.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Runs `micro args` beside the node.
    pub fn cli(&self, args: &[&str]) -> Ran {
        process::run(self.command().args(args), b"", PATIENCE * 2)
    }

    /// Runs `micro args -o json` and reads the document.
    ///
    /// # Panics
    /// If the command fails or prints anything else.
    pub fn json(&self, args: &[&str]) -> Value {
        let what = format!("micro {} on {}", args.join(" "), self.host.name());
        let out =
            process::run(self.command().args(args).args(["-o", "json"]), b"", PATIENCE).ok(&what);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{what}: {error}\n{out}"))
    }

    /// What `micro status` says.
    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    /// A ticket for one more node, which may offer any service.
    ///
    /// # Panics
    /// If the node does not give one.
    pub fn invite(&self) -> String {
        self.ticket(&[])
    }

    /// A ticket for one more relay: a node of a region, that leaves keep links to.
    ///
    /// # Panics
    /// If the node does not give one.
    pub fn invite_relay(&self) -> String {
        self.ticket(&["--role", "relay"])
    }

    fn ticket(&self, more: &[&str]) -> String {
        let answer = self.json(&[&["network", "invite", "--service", "*"], more].concat());
        answer["ticket"].as_str().unwrap_or_else(|| panic!("no ticket in {answer}")).to_owned()
    }

    /// Offers a service that listens on a port of the host's loopback.
    pub fn expose(&self, service: &str, port: u16, protocol: &str) {
        self.cli(&["expose", service, &port.to_string(), "--protocol", protocol])
            .ok(&format!("micro expose {service} on {}", self.host.name()));
    }

    /// Waits until the node sees this service.
    pub fn wait_service(&self, service: &str) {
        self.wait_for(&format!("services={service}"));
    }

    /// Waits until `condition` of `micro network wait --for` is true.
    pub fn wait_for(&self, condition: &str) {
        self.cli(&["network", "wait", "--for", condition, "--timeout", "20s"])
            .ok(&format!("waiting for {condition} on {}", self.host.name()));
    }

    /// How many instances of a service this node can reach.
    pub fn instances(&self, service: &str) -> u64 {
        let listed = self.json(&["services"]);
        let all = listed["items"].as_array().unwrap_or_else(|| panic!("no list in {listed}"));
        let found = all.iter().find(|item| item["name"] == service);
        found.map_or(0, |item| {
            item["reachable"].as_u64().unwrap_or_else(|| panic!("no count in {item}"))
        })
    }

    /// Waits until this node sees so many instances of a service.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub fn wait_instances(&self, service: &str, wanted: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = self.instances(service);
            if seen == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} sees {seen} instances of {service}, not {wanted}:\n{}",
                self.host.name(),
                self.json(&["services"])
            );
            std::thread::sleep(KNOCK);
        }
    }

    /// Waits until the node knows that so many nodes want a pattern of topics.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub fn wait_wanted(&self, pattern: &str, nodes: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let topics = self.json(&["topics"]);
            let all = topics["items"].as_array().cloned().unwrap_or_default();
            let wanted = all.iter().filter(|one| one["pattern"] == pattern).count();
            if wanted == nodes {
                return;
            }
            let host = self.host.name();
            assert!(
                Instant::now() < deadline,
                "{host}: {wanted} nodes, not {nodes}, want {pattern}: {topics}"
            );
            std::thread::sleep(KNOCK);
        }
    }

    /// Ends the process as a power cut would.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
    }

    /// Asks the process to end and waits for its exit code.
    ///
    /// # Panics
    /// If there is none or it does not end.
    pub fn sigterm(&mut self) -> Option<i32> {
        let mut process = self.process.take().expect("the node was started");
        process.signal("TERM");
        process.wait_end(PATIENCE * 2).code()
    }

    /// Waits until the process has ended by itself and gives its exit code.
    ///
    /// # Panics
    /// If there is none or it does not end.
    pub fn wait_end(&mut self) -> Option<i32> {
        self.process.as_mut().expect("the node was started").wait_end(PATIENCE * 2).code()
    }

    /// The process id.
    ///
    /// # Panics
    /// If the node is not running.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node was started").pid()
    }

    /// Everything the process has said.
    pub fn said(&self) -> Vec<String> {
        self.process.as_ref().map(Process::lines).unwrap_or_default()
    }

    /// Waits until the process says a line that `wanted` accepts, among those from number `from` on. Gives its
    /// number and text.
    ///
    /// # Panics
    /// If it ends or does not say so in time, or is not running.
    pub fn wait_said(
        &self,
        from: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        let process = self.process.as_ref().expect("the node was started");
        process.wait_line(from, what, PATIENCE, wanted)
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// If the node is not running.
    pub fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the node runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("every process has VmRSS");
        line.split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .expect("VmRSS is a number of kB")
    }

    /// Open file descriptors.
    ///
    /// # Panics
    /// If the node is not running.
    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the node runs").count()
    }

    /// Processor time used so far, all threads.
    ///
    /// # Panics
    /// If the node is not running.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }
}

/// Three nodes, one network: eu is the first, us and the laptop have joined it.
#[derive(Debug)]
pub struct Network<'a> {
    /// The laptop, behind its NAT.
    pub laptop: Node<'a>,
    /// The first node and the issuer.
    pub eu: Node<'a>,
    /// The other region.
    pub us: Node<'a>,
}

impl<'a> Network<'a> {
    /// Starts all three and waits until each sees the others.
    ///
    /// # Panics
    /// If that does not come about.
    pub fn up(lab: &'a Lab, binary: &Path) -> Self {
        let eu = Node::up(lab, Host::Eu, binary, None);
        let us = Node::up(lab, Host::Us, binary, Some(&eu.invite_relay()));
        let laptop = Node::up(lab, Host::Laptop, binary, Some(&eu.invite()));
        for node in [&laptop, &eu, &us] {
            node.wait_for("nodes=3");
        }
        Self { laptop, eu, us }
    }
}
