//! A program under test: its lines as they come, and its end when the test ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a program may take to say what the test waits for, unless the test names a time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Lines kept of each program: an hour of the load program. What comes after is read and dropped.
const LINES_KEPT: usize = 200_000;

/// A running program. Dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Said>,
}

#[derive(Debug, Default)]
struct Said {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    open: usize,
}

impl Said {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has left whole lines behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static) {
        self.lock().open += 1;
        let said = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut state = said.lock();
                if state.lines.len() < LINES_KEPT {
                    state.lines.push(line);
                }
                said.changed.notify_all();
            }
            said.lock().open -= 1;
            said.changed.notify_all();
        });
    }
}

impl Process {
    /// Starts `command` with its input closed and its output collected, both streams as one.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::launch(name, command, Stdio::null())
    }

    /// As [`Process::start`], with an open standard input (see [`Process::input`]).
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start_with_input(name: &str, command: &mut Command) -> Self {
        Self::launch(name, command, Stdio::piped())
    }

    fn launch(name: &str, command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error} ({command:?})"));
        let said = Arc::new(Said::default());
        said.collect(child.stdout.take().expect("stdout was piped above"));
        said.collect(child.stderr.take().expect("stderr was piped above"));
        Self { name: name.to_owned(), child, said }
    }

    /// The process id. `ip netns exec` replaces itself, so this is the program's own.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The program's standard input, once. Dropping it closes the input.
    pub fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Everything said so far.
    pub fn lines(&self) -> Vec<String> {
        self.said.lock().lines.clone()
    }

    /// Waits for the first line, among those from number `from` on, that `wanted` accepts. Returns its number and text.
    ///
    /// # Panics
    /// If the program ends or the time is over first; the message holds what it said.
    pub fn wait_line(
        &self,
        from: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        let deadline = Instant::now() + limit;
        let mut state = self.said.lock();
        let mut next = from;
        loop {
            while next < state.lines.len() {
                if wanted(&state.lines[next]) {
                    return (next, state.lines[next].clone());
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = state.open == 0;
            if ended || left.is_zero() {
                let why = if ended { "ended" } else { "ran out of time" };
                let said =
                    state.lines.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n");
                drop(state);
                panic!("{} {why} before {what}; it said:\n{said}", self.name);
            }
            state = self
                .said
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Sends a signal, named as `kill` names it (`TERM`, `KILL`, `STOP`).
    ///
    /// # Panics
    /// If it cannot be sent.
    pub fn signal(&self, name: &str) {
        let status =
            Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.is_ok_and(|s| s.success()), "{}: SIG{name} was not delivered", self.name);
    }

    /// Kills the program with SIGKILL and reaps it.
    pub fn kill9(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the program is still running.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program has ended and all it said was collected.
    ///
    /// # Panics
    /// If it has not ended within `limit`.
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        let mut state = self.said.lock();
        while state.open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let tail =
                    state.lines.iter().rev().take(40).rev().cloned().collect::<Vec<_>>().join("\n");
                drop(state);
                panic!("{} did not end within {limit:?}; it said:\n{tail}", self.name);
            }
            state = self
                .said
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        drop(state);
        self.child.wait().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            let lines = self.lines();
            let tail = lines.iter().rev().take(60).rev().cloned().collect::<Vec<_>>().join("\n  ");
            crate::say(&format!("--- {} said last:\n  {tail}", self.name));
        }
    }
}

/// What a program that ran to its end said, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code; `None` when a signal ended it or the time was over.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output, when the program succeeded.
    ///
    /// # Panics
    /// If it did not; the message holds all it said.
    pub fn ok(self, what: &str) -> String {
        assert!(self.code == Some(0), "{what}: exit {:?}\n{}\n{}", self.code, self.out, self.err);
        self.out
    }
}

/// Runs a program to its end, or kills it when `limit` is over.
///
/// # Panics
/// If it cannot be started.
pub fn run(command: &mut Command, input: &[u8], limit: Duration) -> Ran {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("does not start: {error} ({command:?})"));
    let mut stdin = child.stdin.take().expect("stdin was piped above");
    let input = input.to_vec();
    // A program that does not read its input closes it; that is its choice.
    std::thread::spawn(move || stdin.write_all(&input));
    let (done, ended) = std::sync::mpsc::channel();
    let read = |mut from: Box<dyn Read + Send>| {
        let done = done.clone();
        std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = from.read_to_end(&mut all);
            let _ = done.send(());
            String::from_utf8_lossy(&all).into_owned()
        })
    };
    let out = read(Box::new(child.stdout.take().expect("stdout was piped above")));
    let err = read(Box::new(child.stderr.take().expect("stderr was piped above")));
    let deadline = Instant::now() + limit;
    let mut late = false;
    for _ in 0..2 {
        late |= ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err();
    }
    if late {
        let _ = child.kill();
    }
    let status = child.wait().expect("a child that was started can be waited for");
    let text = |reader: std::thread::JoinHandle<String>| reader.join().unwrap_or_default();
    Ran { code: if late { None } else { status.code() }, out: text(out), err: text(err) }
}

/// Processor time that a process has used so far, all threads.
///
/// # Panics
/// If there is no such process.
#[must_use]
pub fn cpu(pid: u32) -> Duration {
    /// `USER_HZ`, which Linux has fixed at 100 for everything it shows to programs.
    const TICKS_PER_SECOND: u64 = 100;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The second field is the program's name in parentheses and may hold blanks.
    let rest = stat.rsplit_once(')').expect("the name ends with a parenthesis").1;
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Where a program is, searched as a shell would with the administrator's directories added.
pub fn found(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<_> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin", "/usr/local/go/bin"].map(Into::into));
    places.into_iter().map(|place| place.join(program)).find(|file| file.is_file())
}
