//! `idle`: what a link costs that nobody uses, in resident memory of the node at one end.
//!
//! The node is a process of its own, so that nothing of the other ends is counted: this program
//! starts itself again as `idle --hub`, makes links to it, and reads its memory before and after.

use std::io::{self, BufRead as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bench::Error;
use bytes::Bytes;
use clap::Parser;
use proto::grant::{Issuer, Pattern};
use proto::sign::Sign as _;
use proto::{Credential, Epoch, Grant, NodeId, Roles, UnixTime};
use tunnel::quic::Quic;
use tunnel::{Config, Control, Event, Incoming, Keypair, Tunnel};

/// What the design allows for one idle link.
const BUDGET: f64 = 50.0;
/// Links before the first measure, so that what every node has once is not counted.
const FIRST: usize = 50;
/// Time for handshakes to be forgotten: closed streams, MTU probes, the last acknowledgements.
const SETTLE: Duration = Duration::from_secs(4);

/// Measures the memory of idle links.
#[derive(Parser)]
#[command(name = "idle", version)]
struct Cli {
    /// Links of each kind.
    #[arg(long, default_value_t = 1000)]
    links: usize,
    /// Be the node in the middle: for this program itself.
    #[arg(long, hide = true)]
    hub: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ran = runtime.map_err(Error::io("an event loop")).and_then(|runtime| {
        runtime.block_on(async { if cli.hub { hub().await } else { measure(cli.links).await } })
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "idle: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Member number `n` of the one network there is; number 0 is the hub.
fn member(n: u64) -> (Arc<Keypair>, Credential) {
    let seed = |kind: u8, n: u64| {
        let mut seed = [kind; 32];
        seed[..8].copy_from_slice(&n.to_be_bytes());
        Keypair::from_seed(seed)
    };
    let (root, issuing, key) = (seed(1, 0), seed(2, 0), seed(3, n));
    let issuer = Issuer::appoint(&root, issuing.public_key(), UnixTime(u64::MAX >> 4));
    let grant = Grant {
        network: issuer.network(),
        key: key.public_key(),
        network_name: "idle".to_owned(),
        roles: Roles::NONE,
        namespaces: vec![Pattern::any()],
        services: vec![Pattern::any()],
        serial: n,
        epoch: 0,
        not_before: UnixTime(0),
        not_after: UnixTime(u64::MAX >> 4),
    };
    let credential = issuer.issue(&issuing, &grant);
    (Arc::new(key), credential)
}

async fn start(n: u64, hub: Option<SocketAddr>) -> Result<(Tunnel, Control, Incoming), Error> {
    let (key, credential) = member(n);
    let mut config = Config::new(key, credential, Epoch(1));
    config.book = Arc::new(move |_| hub.into_iter().collect());
    // Nothing is closed while it is measured.
    config.limits.idle = Duration::from_secs(3600);
    let quic = Quic::bind(&config).map_err(Error::at("bind"))?;
    tunnel::start(config, quic).await.map_err(Error::at("start"))
}

/// The node in the middle: says where it is, then its memory for each line that it reads.
async fn hub() -> Result<(), Error> {
    let (tunnel, mut control, mut incoming) = start(0, None).await?;
    tokio::spawn(async move { while incoming.accept().await.is_some() {} });
    tokio::spawn(async move {
        loop {
            drop(control.event().await);
        }
    });
    let mut out = io::stdout();
    let address = tunnel.local_addresses().into_iter().next();
    let address = address.ok_or_else(|| Error::Wrong("no address".to_owned()))?;
    writeln!(out, "{address}").map_err(Error::io("stdout"))?;
    let (asks, mut asked) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        // Ends with the program that started this one.
        for line in io::stdin().lock().lines() {
            if line.is_err() || asks.blocking_send(()).is_err() {
                return;
            }
        }
    });
    while asked.recv().await.is_some() {
        let links = tunnel.links().len();
        writeln!(out, "{links} {}", resident_kib()?).map_err(Error::io("stdout"))?;
    }
    Ok(())
}

fn resident_kib() -> Result<u64, Error> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(Error::io("/proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| Error::Wrong("no VmRSS".to_owned()))
}

/// The other process, with its questions and answers.
struct Hub {
    child: Child,
    answers: io::Lines<io::BufReader<std::process::ChildStdout>>,
    address: SocketAddr,
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Hub {
    fn start() -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("this program"))?;
        let mut command = Command::new(program);
        command.arg("--hub").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(Error::io("the hub"))?;
        let out = child.stdout.take().ok_or_else(|| Error::Wrong("no stdout".to_owned()))?;
        let mut answers = io::BufReader::new(out).lines();
        let first = answers.next().transpose().map_err(Error::io("the hub"))?.unwrap_or_default();
        let address = first.parse().map_err(Error::at("the address of the hub"))?;
        Ok(Self { child, answers, address })
    }

    /// Its links and its memory in KiB.
    fn ask(&mut self) -> Result<(usize, u64), Error> {
        let stdin = self.child.stdin.as_mut().ok_or_else(|| Error::Wrong("no stdin".to_owned()))?;
        writeln!(stdin).map_err(Error::io("the hub"))?;
        let line = self.answers.next().transpose().map_err(Error::io("the hub"))?;
        let line = line.unwrap_or_default();
        let numbers = line
            .split_once(' ')
            .and_then(|(links, memory)| Some((links.parse().ok()?, memory.parse().ok()?)));
        numbers.ok_or_else(|| Error::Wrong(format!("the hub says {line:?}")))
    }

    /// As [`Hub::ask`], once all of `links` are there and quiet.
    async fn settled(&mut self, links: usize) -> Result<u64, Error> {
        tokio::time::sleep(SETTLE).await;
        match self.ask()? {
            (there, memory) if there == links => Ok(memory),
            (there, _) => Err(Error::Wrong(format!("{there} links, not {links}"))),
        }
    }
}

/// Links of one kind: those that calls opened, or those of neighbours.
async fn link(n: u64, hub: &Hub, neighbour: bool) -> Result<(Tunnel, Control, Incoming), Error> {
    let (tunnel, mut control, incoming) = start(n, Some(hub.address)).await?;
    let there: NodeId = member(0).0.node();
    if neighbour {
        control.dial(there);
        loop {
            match control.event().await {
                Event::Up { .. } => break,
                Event::DialFailed(_, why) => return Err(Error::Wrong(why.to_string())),
                Event::Frame(..)
                | Event::Cost(..)
                | Event::Suspected(_)
                | Event::Recovered(..)
                | Event::Drained(_)
                | Event::Down(..)
                | Event::SeedFailed(..) => {}
            }
        }
    } else {
        // One call, as the first call to a node is.
        tunnel.echo(there, Bytes::from_static(b"once")).await.map_err(Error::at("echo"))?;
    }
    Ok((tunnel, control, incoming))
}

async fn measure(links: usize) -> Result<(), Error> {
    let mut out = io::stdout();
    for (neighbour, kind) in [(false, "opened by a call"), (true, "of a neighbour")] {
        let mut hub = Hub::start()?;
        let mut kept = Vec::new();
        let mut before = 0;
        for n in 1..=FIRST + links {
            kept.push(link(n as u64, &hub, neighbour).await?);
            if n == FIRST {
                before = hub.settled(FIRST).await?;
            }
        }
        let after = hub.settled(FIRST + links).await?;
        let each = after.saturating_sub(before) as f64 * 1.024 / links as f64;
        let verdict = if each <= BUDGET { "met" } else { "NOT MET" };
        writeln!(
            out,
            "{links} idle links {kind}: {each:.1} kB each (budget {BUDGET} kB: {verdict}); \
             node {before} -> {after} KiB"
        )
        .map_err(Error::io("stdout"))?;
    }
    Ok(())
}
