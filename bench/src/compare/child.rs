//! Programs started for a comparison, ended with it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;
use crate::cpu::Watched;
use crate::outcome::Ready;

/// How long a program may take until it is ready.
pub(super) const START: Duration = Duration::from_secs(15);
/// How long a program may take to end by itself.
const STOP: Duration = Duration::from_secs(5);
/// Between two looks at something that cannot be waited for.
pub(super) const LOOK: Duration = Duration::from_millis(5);
/// Lines of a program's log shown when it failed.
const SHOWN: usize = 5;

/// A running program; ended when dropped.
#[derive(Debug)]
pub(super) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts a program; what it says goes to `NAME.log` in `scratch`.
    pub(super) fn start(mut command: Command, name: &str, scratch: &Path) -> Result<Self, Error> {
        let log = scratch.join(format!("{name}.log"));
        let file = File::create(&log).map_err(Error::io(log.display().to_string()))?;
        let err = file.try_clone().map_err(Error::io(log.display().to_string()))?;
        let program = command.get_program().display().to_string();
        command.stdin(Stdio::null()).stdout(file).stderr(err);
        let child = command.spawn().map_err(Error::io(program))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Starts a server of the `load` tool and waits for the line that says where it is.
    pub(super) fn server(
        mut command: Command,
        name: &str,
        scratch: &Path,
    ) -> Result<(Self, Ready), Error> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Error::io(name.to_owned()))?;
        let out = child.stdout.take().expect("stdout was asked for as a pipe");
        let running = Self { name: name.to_owned(), child, log: scratch.join("none") };
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).map_err(Error::io(name.to_owned()))?;
        let ready = serde_json::from_str(&line).map_err(Error::at(name.to_owned()))?;
        Ok((running, ready))
    }

    /// For the CPU meter.
    pub(super) fn watched(&self) -> Watched {
        Watched { name: self.name.clone(), pid: self.child.id() }
    }

    /// Waits until `ready` says so; ends early, with the last of its log, when the program did.
    pub(super) fn until<T>(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        loop {
            if let Some(found) = ready() {
                return Ok(found);
            }
            let ended = self.child.try_wait().map_err(Error::io(self.name.clone()))?;
            if let Some(status) = ended {
                return Err(self.wrong(&format!("ended with {status}")));
            }
            if begun.elapsed() > START {
                return Err(self.wrong(&format!("{what}: not after {} s", START.as_secs())));
            }
            thread::sleep(LOOK);
        }
    }

    /// Waits until something listens on each of `ports`.
    pub(super) fn listening(&mut self, ports: &[u16]) -> Result<(), Error> {
        for &port in ports {
            let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok();
            self.until(&format!("listen on port {port}"), connect)?;
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(SHOWN)..].join(" | ");
        Error::Wrong(format!("{} {what} {tail}", self.name))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::TERM);
            let begun = Instant::now();
            while begun.elapsed() < STOP && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK);
            }
        }
        // Ended by now, or deaf: either way nothing is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and returns what it printed; a failure is an error with its words.
pub(super) fn output(command: &mut Command) -> Result<String, Error> {
    let program = command.get_program().display().to_string();
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().map_err(Error::io(program.clone()))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&stderr);
        return Err(Error::Wrong(format!("{program} ended with {status}: {}", words.trim())));
    }
    String::from_utf8(stdout).map_err(Error::at(program))
}

/// Ports nothing listened on a moment ago, all different.
pub(super) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    // All are held until all are known: the system hands out no port twice.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(Error::io("a port"))?;
        *port = listener.local_addr().map_err(Error::io("a port"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_says_why() {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such luck; exit 3"]);
        let mut running = Running::start(command, "lucky", scratch.path()).unwrap();
        let error = running.listening(&free_ports::<1>().unwrap()).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("no such luck"), "{error}");
    }

    #[test]
    fn nothing_is_left_running() {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let running = Running::start(command, "sleeper", scratch.path()).unwrap();
        let pid = running.watched().pid;
        assert!(Path::new(&format!("/proc/{pid}")).exists());
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn ports_differ() {
        let [a, b, c] = free_ports::<3>().unwrap();
        assert!(a != b && b != c && a != c);
    }
}
