//! Real nodes on free ports, each test with directories of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod world;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub use world::{named, soon};

/// How long a node may take to say what a test waits for: far more than it ever needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// The directories of one user on one machine.
pub struct User {
    directory: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

impl User {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "run", "config", "tmp"] {
            std::fs::DirBuilder::new().mode(0o700).create(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn command(&self) -> Command {
        self.environment(Command::new(env!("CARGO_BIN_EXE_micro")))
    }

    fn environment(&self, mut command: Command) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("HOME", self.directory.path())
            .env("PATH", path)
            .env("USER", "ada")
            .env("LANG", "C.UTF-8")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("TMPDIR", self.path("tmp"));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        let done = self.command().args(args).stdin(Stdio::null()).output().unwrap();
        Ran {
            code: done.status.code().expect("it ended by itself"),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// Runs a node that is expected not to start.
    pub fn fails(&self, name: &str, args: &[&str]) -> Ran {
        let free = ["--address", "127.0.0.1:0", "--observe-address", "127.0.0.1:0"];
        self.run(&[&["network", "up", "--name", name], &free[..], args].concat())
    }

    /// Starts a node on free ports; does not wait for it.
    pub fn start(&self, name: &str, args: &[&str]) -> Node<'_> {
        self.launch(name, self.command(), args)
    }

    fn launch(&self, name: &str, mut command: Command, args: &[&str]) -> Node<'_> {
        command.args(["network", "up", "--address", "127.0.0.1:0"]);
        if !name.is_empty() {
            command.args(["--name", name]);
        }
        command.args(["--observe-address", "127.0.0.1:0", "--nats-address", "127.0.0.1:0"]);
        command.args(["--dns-address", "127.0.0.1:0"]);
        if !args.contains(&"--proxy-address") {
            command.args(["--proxy-address", "127.0.0.1:0"]);
        }
        command.args(["--log-format", "text"]).args(args);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        // The thread ends with the node.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let (name, said) = (name.to_owned(), Vec::new());
        Node { user: self, name, child, lines, said }
    }

    /// As [`User::up`], under the name the node gives itself.
    pub fn up_unnamed(&self) -> Node<'_> {
        let mut node = self.start("", &[]);
        let first = node.wait_line("   node ");
        let name = first.split("   node ").nth(1).and_then(|rest| rest.split_whitespace().next());
        node.name = name.unwrap().to_owned();
        node.wait_line("ready in ");
        node
    }

    /// As [`User::up`], with a hard limit of open files.
    pub fn up_with_files(&self, name: &str, files: u32) -> Node<'_> {
        let mut shell = self.environment(Command::new("sh"));
        let limited = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_micro")]);
        let mut node = self.launch(name, shell, &[]);
        node.wait_line("ready in ");
        node
    }

    /// Starts a node on free ports and waits until it is ready.
    pub fn up(&self, name: &str, args: &[&str]) -> Node<'_> {
        let mut node = self.start(name, args);
        node.wait_line("ready in ");
        node
    }
}

/// A running node. Killed when dropped.
pub struct Node<'a> {
    user: &'a User,
    pub name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Node<'_> {
    /// The first line with `part` in it, waited for.
    pub fn wait_line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(why) => {
                    panic!("{} never said {part:?} ({why}):\n{}", self.name, self.said.join("\n"))
                }
            }
        }
    }

    /// Everything said up to the line waited for last.
    pub fn said(&self) -> String {
        self.said.join("\n")
    }

    pub fn socket(&self) -> PathBuf {
        self.user.path("run").join(format!("micro/{}.sock", self.name))
    }

    /// The directory with its keys.
    pub fn state(&self, network: &str) -> PathBuf {
        self.user.path("state").join("micro").join(network).join(&self.name)
    }

    /// Runs a command that talks to this node.
    pub fn run(&self, args: &[&str]) -> Ran {
        let socket = self.socket().display().to_string();
        self.user.run(&[&["--socket", &socket], args].concat())
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.run(&[args, &["-o", "json"]].concat()).ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    pub fn status(&self) -> Value {
        self.json(&["status"])
    }

    pub fn text(&self, pointer: &str) -> String {
        let status = self.status();
        let found = status.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {pointer} in {status}")).to_owned()
    }

    pub fn proxy(&self) -> String {
        self.text("/proxy/address")
    }

    pub fn invite(&self, args: &[&str]) -> String {
        let ticket = self.json(&[&["network", "invite"], args].concat());
        ticket["ticket"].as_str().unwrap().to_owned()
    }

    pub fn wait_for(&self, condition: &str) {
        self.run(&["network", "wait", "--for", condition, "--timeout", "30s"]).ok();
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end of the process; its exit code, `None` where a signal killed it.
    pub fn wait_end(&mut self) -> Option<i32> {
        // Standard error closes with the process.
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.said.push(line);
        }
        self.child.wait().unwrap().code()
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One HTTP/1.1 request, its answer whole.
pub fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub fn get(address: &str, path: &str) -> String {
    http(address, &format!("GET {path} HTTP/1.1\r\nHost: micro\r\nConnection: close\r\n\r\n"))
}

pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}
