//! The binary, run in a home of its own, and a node that answers from a script.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// Directories that nothing else uses, and the variables a run sees.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Home {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("run/micro")).unwrap();
        Self { directory, variables: Vec::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs `micro` with the words of `line`; a word in single quotes may have spaces.
    pub(crate) fn run(&self, line: &str) -> Ran {
        self.run_with_input(line, "")
    }

    pub(crate) fn run_with_input(&self, line: &str, input: &str) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_micro"));
        command
            .args(words(line))
            .env_clear()
            .env("HOME", self.directory.path())
            .env("LANG", "C.UTF-8")
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        Ran {
            code: done.status.code().expect("it ended by itself"),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    /// A node that answers each path with a status and a document, until dropped.
    pub(crate) fn node(&self, name: &str, answers: &[(&str, u16, serde_json::Value)]) -> Scripted {
        let socket = self.path(&format!("run/micro/{name}.sock"));
        Scripted::start(&socket, answers)
    }
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                any = true;
            }
            ' ' if !quoted => {
                if any {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => {
                word.push(c);
                any = true;
            }
        }
    }
    if any {
        words.push(word);
    }
    words
}

/// The admin socket of a node that never was.
pub(crate) struct Scripted {
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Scripted {
    fn start(socket: &Path, answers: &[(&str, u16, serde_json::Value)]) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let answers: Vec<(String, u16, String)> = answers
            .iter()
            .map(|(path, status, body)| ((*path).to_owned(), *status, body.to_string()))
            .collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        // The thread ends with the test's process; it holds nothing but the listener.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &answers, &log);
            }
        });
        Self { asked }
    }

    /// `METHOD PATH` and body of every request so far.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    stream: UnixStream,
    answers: &[(String, u16, String)],
    log: &Mutex<Vec<(String, String)>>,
) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    // A look at whether anybody answers connects and says nothing.
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut line = first.split(' ');
    let (method, path) = (line.next().unwrap(), line.next().unwrap());
    log.lock().unwrap().push((format!("{method} {path}"), String::from_utf8(body).unwrap()));
    let found = answers.iter().find(|(wanted, _, _)| wanted == path);
    let (status, body) = match found {
        Some((_, status, body)) => (*status, body.clone()),
        None => (404, "{}".to_owned()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let mut stream = reader.into_inner();
    // A command that was refused may be gone already.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}
