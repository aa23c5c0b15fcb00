//! One node on the loopback, a service behind it, and a caller that behaves well while others do not.

pub mod frames;
pub mod member;
pub mod origin;
pub mod patience;
pub mod quic;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{self, PATIENCE, Process, Ran};
use crate::programs;

/// What an attack may add to the resident memory of a node, in KiB.
pub const GROWTH_KIB: u64 = 16 * 1024;
/// Between two questions to a node about something that tells no one when it happens.
const KNOCK: Duration = Duration::from_millis(15);
/// Bytes of an answer that are kept: more is no answer of these tests.
const ANSWER: u64 = 1 << 20;

/// A node that is alone on the loopback, with directories of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Alone {
    binary: PathBuf,
    home: tempfile::TempDir,
    process: Process,
    /// Where programs call.
    pub proxy: SocketAddr,
    /// Where health and metrics are read.
    pub observe: SocketAddr,
    /// Where links are accepted (UDP).
    pub link: SocketAddr,
}

impl Alone {
    /// Starts a node; `None`, said aloud, without the binary.
    ///
    /// # Panics
    /// If it is not ready in time; the message holds what it said.
    #[must_use]
    pub fn up(more: &[&str]) -> Option<Self> {
        Self::up_as(more, &[], None, b"")
    }

    /// As [`Alone::up`], with variables, with this many descriptors, and with something to read.
    ///
    /// # Panics
    /// As [`Alone::up`].
    #[must_use]
    pub fn up_as(
        more: &[&str],
        variables: &[(&str, &str)],
        files: Option<u32>,
        input: &[u8],
    ) -> Option<Self> {
        let binary = programs::micro()?;
        let home = tempfile::tempdir().expect("the system has a directory for such things");
        for part in ["state", "run", "config"] {
            let made = std::fs::DirBuilder::new().mode(0o700).create(home.path().join(part));
            made.expect("our own directory");
        }
        let mut command = match files {
            None => Command::new(&binary),
            Some(files) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(&binary);
                shell
            }
        };
        let free = "127.0.0.1:0";
        surround(&mut command, home.path());
        command
            .args(["network", "up", "--name", "a", "--address", free, "--proxy-address", free])
            .args([
                "--observe-address",
                free,
                "--nats-address",
                free,
                "--dns-address",
                free,
                "--log-format",
                "text",
            ])
            .args(more)
            .envs(variables.iter().copied());
        let mut process = Process::start_with_input("node a", &mut command);
        if let Some(mut stdin) = process.input() {
            stdin.write_all(input).expect("a node reads its input or leaves it");
        }
        process.wait_line(0, "it is ready", PATIENCE, |line| line.starts_with("ready in "));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut node =
            Self { binary, home, process, proxy: nowhere, observe: nowhere, link: nowhere };
        let status = node.json(&["status"]);
        let address = |pointer: &str| {
            let text = status.pointer(pointer).and_then(Value::as_str);
            text.and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("{pointer} in {status}"))
        };
        (node.proxy, node.observe) = (address("/proxy/address"), address("/observe/address"));
        node.link = address("/listen/0");
        Some(node)
    }

    /// Runs `micro args` beside the node.
    pub fn cli(&self, args: &[&str]) -> Ran {
        let mut command = Command::new(&self.binary);
        surround(&mut command, self.home.path());
        process::run(command.args(args), b"", PATIENCE)
    }

    /// Runs `micro args -o json` and reads the document.
    ///
    /// # Panics
    /// If the command fails or prints anything else.
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.cli(&[args, &["-o", "json"]].concat()).ok(&args.join(" "));
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Offers what listens at `address`.
    pub fn expose(&self, name: &str, address: SocketAddr, protocol: &str) {
        self.cli(&["expose", name, &address.port().to_string(), "--protocol", protocol])
            .ok("micro expose");
    }

    /// A ticket for one more member, which may offer `service`.
    ///
    /// # Panics
    /// If the node does not give one.
    #[must_use]
    pub fn invite(&self, service: &str) -> String {
        let answer = self.json(&["network", "invite", "--service", service]);
        answer["ticket"].as_str().unwrap_or_else(|| panic!("no ticket in {answer}")).to_owned()
    }

    /// Its metrics, as a scraper reads them.
    #[must_use]
    pub fn metrics(&self) -> String {
        ask(self.observe, b"GET /metrics HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
    }

    /// The sum of all metrics whose name with labels begins so; 0 where there is none.
    #[must_use]
    pub fn metric(&self, begins: &str) -> f64 {
        let text = self.metrics();
        let lines = text.lines().filter(|line| line.starts_with(begins));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Resident memory in KiB.
    ///
    /// # Panics
    /// If the node is not running.
    #[must_use]
    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("every process has VmRSS, a number of kB")
    }

    /// Open descriptors.
    ///
    /// # Panics
    /// If the node is not running.
    #[must_use]
    pub fn fds(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("the node runs").count()
    }

    /// Processor time used so far, all threads.
    ///
    /// # Panics
    /// If the node is not running.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }

    /// Sends it a signal, named as `kill` names it.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Whether the process lives.
    pub fn running(&mut self) -> bool {
        self.process.running()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it has said.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.lines().join("\n")
    }

    /// Its directory of state, run and config.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("run/micro/a.sock")
    }
}

/// Gives a command directories of its own and nothing of the tester's.
fn surround(command: &mut Command, home: &Path) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("USER", "ada")
        .env("LANG", "C.UTF-8")
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_RUNTIME_DIR", home.join("run"))
        .env("XDG_CONFIG_HOME", home.join("config"));
}

/// Waits until `done`, asked again and again.
///
/// # Panics
/// If it is not within [`PATIENCE`].
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come about");
        std::thread::sleep(KNOCK);
    }
}

/// A connection with bounded waits.
///
/// # Panics
/// If nobody listens.
#[must_use]
pub fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("the time is not zero");
    stream.set_nodelay(true).expect("it is TCP");
    stream
}

/// Sends bytes and reads until the other end closes; empty where it answers with a reset.
///
/// # Panics
/// If it neither answers nor closes within [`PATIENCE`].
#[must_use]
pub fn ask(to: SocketAddr, bytes: &[u8]) -> String {
    exchange(connect(to), bytes)
}

/// As [`ask`], on a connection of any kind.
///
/// # Panics
/// As [`ask`].
#[must_use]
pub fn exchange<S>(mut stream: S, bytes: &[u8]) -> String
where
    S: Read + Write,
{
    // Who closes before it has read everything is heard below.
    let _ = stream.write_all(bytes);
    read_to_close(&mut stream)
}

/// Reads until the other end closes, whichever way it does.
///
/// # Panics
/// If it does not within the time limit of the connection.
#[must_use]
pub fn read_to_close(stream: &mut impl Read) -> String {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while (all.len() as u64) < ANSWER {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => all.extend_from_slice(&piece[..read]),
            Err(error) if is_timeout(&error) => panic!("neither answered nor closed: {all:?}"),
            Err(_) => break,
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Whether a read or write ended because its time was over.
#[must_use]
pub fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

/// Somebody who calls a service over and over while others attack, and notes every failure.
#[derive(Debug)]
pub struct Beat {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<Vec<String>>>,
}

impl Beat {
    /// Starts to call `web` through the proxy.
    #[must_use]
    pub fn start(proxy: SocketAddr) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let answer = once(proxy);
                if answer.starts_with("HTTP/1.1 200") && answer.ends_with(origin::BODY) {
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    failures.push(answer);
                }
                std::thread::sleep(KNOCK);
            }
            failures
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// Waits until so many more calls have been answered.
    pub fn goes_on(&self, more: u64) {
        let from = self.answered.load(Ordering::Relaxed);
        until("calls go on", || self.answered.load(Ordering::Relaxed) >= from + more);
    }

    /// Ends the calls.
    ///
    /// # Panics
    /// If any of them failed, or there was none.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        let failures = thread.join().expect("a caller does not panic");
        assert!(failures.is_empty(), "{} calls failed: {:?}", failures.len(), failures[0]);
        assert!(self.answered.load(Ordering::Relaxed) > 0, "nothing was called");
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn once(proxy: SocketAddr) -> String {
    call(proxy).unwrap_or_else(|error| error.to_string())
}

/// Calls `web` through the proxy.
///
/// # Errors
/// When there is no whole answer within [`PATIENCE`].
pub fn call(proxy: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /beat HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
