//! Commands run as services, sockets of the file system, and instances that are looked at: a real node and real
//! commands, seen and called from another node.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

mod daemon_support;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use daemon_support::{Node, User, http, soon};

/// A server that says its process id, writes down what it is told, and ends with 7 when it is asked to.
const SERVER: &str = r#"
import http.server, os, signal, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/fail": os._exit(3)
        body = str(os.getpid()).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
signal.signal(signal.SIGUSR1, lambda *_: (print("usr1", flush=True)))
def end(*_): print("term", flush=True); os._exit(7)
signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), H).serve_forever()
"#;

fn status(node: &Node<'_>, host: &str, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let answer = http(&node.proxy(), &request);
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned();
    (answer.split(' ').nth(1).unwrap_or_default().to_owned(), body)
}

/// What `micro run` started, and what it says; killed with this.
struct Running(Child);

impl Running {
    fn signal(&self, name: &str) {
        let args = [format!("-{name}"), self.0.id().to_string()];
        assert!(std::process::Command::new("kill").args(args).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_is_offered_started_again_told_of_signals_and_withdrawn() {
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        println!("SKIP: needs python3");
        return;
    }
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    let mut command = bob.command();
    command.arg("--socket").arg(second.socket());
    command.args(["run", "--name", "shop", "--", "python3", "-c", SERVER]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut run = Running(child);

    first.wait_for("services=shop");
    let (code, before) = status(&first, "shop", "/");
    assert_eq!(code, "200");
    run.signal("USR1");
    assert_eq!(said.next().unwrap().unwrap(), "usr1");
    // It fails: withdrawn, started again, and offered again.
    let (code, _) = status(&first, "shop", "/fail");
    assert_ne!(code, "200");
    soon("the command runs again", || {
        let (code, after) = status(&first, "shop", "/");
        code == "200" && after != before
    });
    run.signal("TERM");
    assert_eq!(said.next().unwrap().unwrap(), "term");
    assert_eq!(run.0.wait().unwrap().code(), Some(7), "as the command ended");
    soon("what has ended is withdrawn", || status(&first, "shop", "/").0 == "404");
}

#[test]
fn a_command_that_cannot_be_run_says_why() {
    let ada = User::new();
    let none = ada.run(&["run", "--name", "shop", "--", "true"]);
    assert!(none.err.contains("M6010"), "{none:?}");
    let first = ada.up("a", &[]);
    let absent = first.run(&["run", "--name", "shop", "--", "/no/such/program"]);
    assert!(absent.err.contains("M6006") && absent.err.contains("try"), "{absent:?}");
    let bad = first.run(&["run", "--name", "shop", "--check", "udp", "--", "true"]);
    assert!(bad.err.contains("M4001") && bad.err.contains("http:/PATH"), "{bad:?}");
    let ended =
        first.run(&["run", "--name", "shop", "--restart", "never", "--", "sh", "-c", "exit 9"]);
    assert_eq!(ended.code, 9, "{ended:?}");
}

/// Answers each connection with what it is told to.
fn answer(mut stream: impl std::io::Read + std::io::Write, well: &AtomicBool) {
    let _ = stream.read(&mut [0; 4096]);
    let status = if well.load(Ordering::Relaxed) { "200 OK" } else { "503 No" };
    let text = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
    let _ = stream.write_all(text.as_bytes());
}

#[test]
fn who_is_not_well_is_called_by_nobody_and_everybody_is_told_why() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    let well = Arc::new(AtomicBool::new(true));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let serving = Arc::clone(&well);
    std::thread::spawn(move || {
        listener.incoming().map_while(Result::ok).for_each(|stream| answer(stream, &serving));
    });
    let check = ["--check", "http:/health", "--check-interval", "250ms"];
    second.run(&[&["expose", "shop", &at, "--protocol", "http"], &check[..]].concat()).ok();
    first.wait_for("services=shop");
    assert_eq!(status(&first, "shop", "/").0, "200");

    well.store(false, Ordering::Relaxed);
    let request = "GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let ask = || http(&first.proxy(), request);
    soon("what is not well is out", || ask().contains("micro-error: M1016"));
    let answer = ask();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("answered 503"), "{answer}");
    assert_eq!(status(&second, "shop", "/").0, "503", "and its own node does not");
    for node in [&first, &second] {
        let why = node.run(&["network", "why", "shop"]).out;
        assert!(why.contains("http:/health: answered 503"), "{why}");
        let listed = node.run(&["services", "-o", "wide"]).out;
        assert!(listed.contains("1 not well") && listed.contains("answered 503"), "{listed}");
    }

    well.store(true, Ordering::Relaxed);
    soon("what is well again is back", || status(&first, "shop", "/").0 == "200");
    second.run(&["unexpose", "shop"]).ok();
    soon("what is withdrawn is gone", || status(&first, "shop", "/").0 == "404");
}

#[test]
fn a_socket_of_the_file_system_is_a_service() {
    let (ada, bob) = (User::new(), User::new());
    let first = ada.up("a", &[]);
    let ticket = first.invite(&["--service", "*"]);
    let second = bob.up("b", &["--join", &ticket]);
    let path = bob.path("run/shop.sock");
    let at = format!("unix:{}", path.display());
    let missing = second.run(&["expose", "shop", &at]);
    assert!(missing.err.contains("M1004"), "{missing:?}");
    let listener = UnixListener::bind(&path).unwrap();
    let well = AtomicBool::new(true);
    std::thread::spawn(move || {
        listener.incoming().map_while(Result::ok).for_each(|stream| answer(stream, &well));
    });
    // What it speaks is found out by asking.
    let exposed = second.run(&["expose", "shop", &at, "--check", "tcp"]).ok();
    assert!(exposed.contains("(http)") || exposed.is_empty(), "{exposed}");
    first.wait_for("services=shop");
    assert_eq!(status(&first, "shop", "/"), ("200".to_owned(), "ok".to_owned()));
    second.run(&["unexpose", "shop", &at]).ok();
    soon("what is withdrawn is gone", || status(&first, "shop", "/").0 == "404");
}
