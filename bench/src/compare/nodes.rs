//! Two nodes of ours: the second joins the first with a ticket and offers the services; calls
//! enter at the first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::child::{Running, output};
use super::contestant::{BYTES, Backend, ECHO, Entry, FILES, Raw, STREAMS, port};
use crate::Error;
use crate::cpu::resident;

/// What a node is like before its first call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Milliseconds from its start until it answered `micro status`; an upper bound, because
    /// asking takes a process each time.
    pub ready_ms: f64,
    /// Resident memory when idle, in bytes.
    pub idle_bytes: u64,
}

/// Two nodes that run.
pub(super) struct Two {
    /// The nodes, nearest to the load first.
    pub(super) nodes: Vec<Running>,
    /// What holds the forwarded ports open.
    pub(super) beside: Vec<Running>,
    /// Where calls and bytes enter.
    pub(super) entry: Entry,
}

/// Starts both nodes and offers the services.
pub(super) fn start(
    micro: &Path,
    backend: &Backend,
    scratch: &Path,
    nodes: &mut Vec<Node>,
) -> Result<Two, Error> {
    if !micro.is_file() {
        let path = micro.display();
        return Err(Error::Wrong(format!("{path} is not built: cargo build --release -p netd")));
    }
    let near = Home::make("micro-near", micro, scratch)?;
    let far = Home::make("micro-far", micro, scratch)?;

    let (near_node, near_ready) = near.up(scratch, &["up"])?;
    let mut invite = vec!["network", "invite", "-o", "json"];
    invite.extend([ECHO, FILES, STREAMS, BYTES].iter().flat_map(|name| ["--service", name]));
    let invitation = near.json(&invite)?;
    let ticket = text(&invitation, &["ticket"])?;
    let (far_node, far_ready) = far.up(scratch, &["--join", &ticket])?;
    far.run(&["expose", ECHO, &backend.grpc.to_string(), "--protocol", "grpc"])?;
    far.run(&["expose", FILES, &backend.http.to_string(), "--protocol", "http"])?;
    far.run(&["expose", STREAMS, &backend.http.to_string(), "--protocol", "tcp"])?;
    far.run(&["expose", BYTES, &backend.tcp.to_string(), "--protocol", "tcp"])?;

    for (running, ready_ms) in [(&near_node, near_ready), (&far_node, far_ready)] {
        let watched = running.watched();
        let idle_bytes = resident(watched.pid).unwrap_or(0);
        nodes.push(Node { name: watched.name, ready_ms, idle_bytes });
    }
    let proxy = text(&near.json(&["status", "-o", "json"])?, &["proxy", "address"])?;
    let proxy = port(&proxy)?;
    let (echo, echo_held) = near.forward(BYTES, scratch)?;
    let (http, http_held) = near.forward(STREAMS, scratch)?;
    let raw = Some(Raw { echo, http });
    Ok(Two {
        nodes: vec![near_node, far_node],
        beside: vec![echo_held, http_held],
        entry: Entry::Proxy { grpc: proxy, http: proxy, raw },
    })
}

/// Milliseconds of `micro network demo --once`, from start to end.
pub(super) fn demo(micro: &Path, scratch: &Path) -> Result<f64, Error> {
    let home = Home::make("micro-demo", micro, scratch)?;
    let begun = Instant::now();
    home.run(&["network", "demo", "--once"])?;
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

/// Where one node keeps everything, apart from the user's own.
struct Home {
    name: &'static str,
    micro: PathBuf,
    path: PathBuf,
}

impl Home {
    fn make(name: &'static str, micro: &Path, scratch: &Path) -> Result<Self, Error> {
        let path = scratch.join(name);
        for folder in ["state", "run", "config"] {
            fs::create_dir_all(path.join(folder)).map_err(Error::io(name))?;
        }
        Ok(Self { name, micro: micro.to_path_buf(), path })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.micro);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MICRO_") {
                command.env_remove(variable);
            }
        }
        command
            .env("XDG_STATE_HOME", self.path.join("state"))
            .env("XDG_RUNTIME_DIR", self.path.join("run"))
            .env("XDG_CONFIG_HOME", self.path.join("config"))
            .args(arguments);
        command
    }

    /// Starts the node in the foreground; milliseconds until it answers.
    fn up(&self, scratch: &Path, how: &[&str]) -> Result<(Running, f64), Error> {
        let mut command = self.command(&["network"]);
        command.args(how).args(["--name", self.name, "--log-level", "warn"]);
        command.args(["--proxy-address", "127.0.0.1:0", "--address", "127.0.0.1:0"]);
        let begun = Instant::now();
        let mut running = Running::start(command, self.name, scratch)?;
        running.until("answer micro status", || {
            let status = self.json(&["status", "-o", "json"]).ok()?;
            text(&status, &["proxy", "address"]).ok()
        })?;
        Ok((running, begun.elapsed().as_secs_f64() * 1000.0))
    }

    /// A port that is the service `name`, for as long as what comes with it runs.
    fn forward(&self, name: &str, scratch: &Path) -> Result<(u16, Running), Error> {
        let command = self.command(&["forward", name, "-o", "json"]);
        let what = format!("{}-{name}", self.name);
        let mut running = Running::start(command, &what, scratch)?;
        let at = running.until("a forwarded port", || {
            let said = fs::read_to_string(scratch.join(format!("{what}.log"))).ok()?;
            let said: Value = serde_json::from_str(&said).ok()?;
            said.pointer("/items/0/address")?.as_str().map(port)
        })?;
        Ok((at?, running))
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        output(&mut self.command(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Result<Value, Error> {
        serde_json::from_str(&self.run(arguments)?).map_err(Error::at(arguments.join(" ")))
    }
}

/// The text at `path` in `json`.
fn text(json: &Value, path: &[&str]) -> Result<String, Error> {
    let found = path.iter().try_fold(json, |inside, name| inside.get(name));
    let found = found.and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Error::Wrong(format!("{} is missing in {json}", path.join("."))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_by_its_path() {
        let json = serde_json::json!({"proxy": {"address": "127.0.0.1:8081"}});
        assert_eq!(text(&json, &["proxy", "address"]).unwrap(), "127.0.0.1:8081");
        assert!(text(&json, &["proxy", "port"]).is_err());
    }
}
