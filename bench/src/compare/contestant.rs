//! Those who take part: a road from the load tool to the service, and the processes on it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Plan;
use super::child::{Running, output};
use super::machine::installed;
use super::nodes::Node;
use super::{haproxy, nginx, nodes};
use crate::Error;
use crate::cpu::Watched;
use crate::outcome::Ready;

/// The name the echo service has on every road.
pub(super) const ECHO: &str = "bench.echo";
/// The name the service of bytes has on every road.
pub(super) const FILES: &str = "bench.files";
/// The name it has where its bytes are carried as they are.
pub(super) const STREAMS: &str = "bench.streams";
/// The name of the echo of bytes.
pub(super) const BYTES: &str = "bench.bytes";

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nobody between.
    Direct,
    /// Two nodes of ours, one QUIC link.
    Micro,
    /// Two haproxy, one thread each, TLS and HTTP/2 between them.
    Haproxy,
    /// Two nginx, one worker each, TLS and HTTP/2 between them.
    Nginx,
    /// quinn alone: bulk only.
    Quinn,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Micro => "micro, 2 nodes",
            Self::Haproxy => "haproxy pair",
            Self::Nginx => "nginx pair",
            Self::Quinn => "raw quinn",
        })
    }
}

/// The service everybody leads to.
#[derive(Debug)]
pub(super) struct Backend {
    running: Running,
    /// Port of gRPC.
    pub(super) grpc: u16,
    /// Port of HTTP/1.1.
    pub(super) http: u16,
    /// Port of the echo of bytes.
    pub(super) tcp: u16,
}

impl Backend {
    /// Starts the echo service of the load tool.
    pub(super) fn start(load: &Path, scratch: &Path) -> Result<Self, Error> {
        let mut command = Command::new(load);
        command.args(["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.args(["--tcp", "127.0.0.1:0"]);
        let (running, ready) = Running::server(command, "service", scratch)?;
        let Ready { grpc: Some(grpc), http: Some(http), tcp: Some(tcp), .. } = ready else {
            return Err(Error::Wrong("the service does not say where it is".to_owned()));
        };
        Ok(Self { running, grpc: port(&grpc)?, http: port(&http)?, tcp: port(&tcp)? })
    }

    /// For the CPU meter.
    pub(super) fn watched(&self) -> Watched {
        self.running.watched()
    }
}

pub(super) fn port(at: &str) -> Result<u16, Error> {
    let port = at.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.ok_or_else(|| Error::Wrong(format!("{at:?} has no port")))
}

/// Where a road begins.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A proxy (or the service itself) on these ports of loopback.
    Proxy {
        /// For gRPC.
        grpc: u16,
        /// For HTTP/1.1.
        http: u16,
        /// For bytes as they are, where there is such a road.
        raw: Option<Raw>,
    },
    /// A QUIC server and its key.
    Quic {
        /// HOST:PORT.
        at: String,
        /// In hexadecimal.
        key: String,
    },
}

/// Ports of roads that do not look at what they carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw {
    /// To the echo of bytes.
    pub(super) echo: u16,
    /// To HTTP/1.1.
    pub(super) http: u16,
}

/// One that takes part, running.
#[derive(Debug)]
pub(super) struct Contestant {
    /// Which.
    pub kind: Kind,
    /// Our nodes, when it is made of them.
    pub(super) nodes: Vec<Node>,
    pub(super) entry: Entry,
    /// Everything between load and service, nearest to the load first.
    pub(super) between: Vec<Running>,
    /// What else has to run, and carries nothing.
    _beside: Vec<Running>,
}

impl Contestant {
    /// Starts it and waits until a call gets through.
    pub(super) fn start(
        kind: Kind,
        plan: &Plan,
        backend: &Backend,
        scratch: &Path,
    ) -> Result<Self, Error> {
        let (mut nodes, mut between, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        let entry = match kind {
            Kind::Direct => {
                let raw = Some(Raw { echo: backend.tcp, http: backend.http });
                Entry::Proxy { grpc: backend.grpc, http: backend.http, raw }
            }
            Kind::Micro => {
                let two = nodes::start(&plan.micro, backend, scratch, &mut nodes)?;
                (between, beside) = (two.nodes, two.beside);
                two.entry
            }
            Kind::Haproxy => pair("haproxy", haproxy::start, backend, scratch, &mut between)?,
            Kind::Nginx => pair("nginx", nginx::start, backend, scratch, &mut between)?,
            Kind::Quinn => {
                let mut command = Command::new(&plan.load);
                command.args(["quic-serve", "--mtu", &plan.mtu.to_string()]);
                let (running, ready) = Running::server(command, "quinn-server", scratch)?;
                between.push(running);
                let Ready { quic: Some(at), key: Some(key), .. } = ready else {
                    return Err(Error::Wrong("the QUIC server does not say where it is".into()));
                };
                Entry::Quic { at, key }
            }
        };
        let mut contestant = Self { kind, nodes, entry, between, _beside: beside };
        contestant.first_call(&plan.load)?;
        Ok(contestant)
    }

    /// CPU of every process on the road, and of the service at its end.
    pub(super) fn watched(&self, backend: &Backend) -> Vec<Watched> {
        let mut watched: Vec<Watched> = self.between.iter().map(Running::watched).collect();
        if !matches!(self.entry, Entry::Quic { .. }) {
            watched.push(backend.watched());
        }
        watched
    }

    /// Tries until both services answer through it, so that no measurement counts a start.
    fn first_call(&mut self, load: &Path) -> Result<(), Error> {
        let Entry::Proxy { grpc, http, .. } = self.entry else { return Ok(()) };
        let answered = || {
            let mut bytes = Command::new(load);
            let url = format!("http://127.0.0.1:{http}/bytes/1000");
            bytes.args(["download", "--url", &url, "--host", FILES]);
            let mut calls = Command::new(load);
            let target = format!("127.0.0.1:{grpc}");
            calls.args(["grpc", "--target", &target, "--authority", ECHO]);
            calls.args(["--warm", "0s", "--for", "50ms"]);
            Some(well(&output(&mut bytes))? && well(&output(&mut calls))?).filter(|&well| well)
        };
        match self.between.first_mut() {
            Some(first) => first.until("a first call through it", answered).map(drop),
            None => answered().map(drop).ok_or_else(|| Error::Wrong("no answer".to_owned())),
        }
    }
}

/// Whether a result of the load tool has no errors.
fn well(printed: &Result<String, Error>) -> Option<bool> {
    let json: serde_json::Value = serde_json::from_str(printed.as_ref().ok()?).ok()?;
    Some(json.get("errors")?.as_object()?.is_empty())
}

type Start = fn(&Backend, &Path, &Certificate) -> Result<(Vec<Running>, Entry), Error>;

/// Starts a pair of another proxy, if it and what it needs are there.
fn pair(
    program: &str,
    start: Start,
    backend: &Backend,
    scratch: &Path,
    between: &mut Vec<Running>,
) -> Result<Entry, Error> {
    for needed in [program, "openssl"] {
        if !installed(needed) {
            return Err(Error::Wrong(format!("{needed} is not installed")));
        }
    }
    let (running, entry) = start(backend, scratch, &Certificate::make(scratch)?)?;
    *between = running;
    Ok(entry)
}

/// A certificate for the link between two proxies, good for two days.
pub(super) struct Certificate {
    /// The certificate, PEM.
    pub(super) certificate: PathBuf,
    /// Its key, PEM.
    pub(super) key: PathBuf,
    /// Both in one file.
    pub(super) both: PathBuf,
}

impl Certificate {
    fn make(scratch: &Path) -> Result<Self, Error> {
        let made = Self {
            certificate: scratch.join("certificate.pem"),
            key: scratch.join("key.pem"),
            both: scratch.join("both.pem"),
        };
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-nodes", "-days", "2", "-subj", "/CN=bench"]);
        command.arg("-keyout").arg(&made.key).arg("-out").arg(&made.certificate);
        output(&mut command)?;
        let read = |path: &PathBuf| std::fs::read(path).map_err(Error::io("certificate"));
        let both = [read(&made.certificate)?, read(&made.key)?].concat();
        std::fs::write(&made.both, both).map_err(Error::io("certificate"))?;
        Ok(made)
    }
}
