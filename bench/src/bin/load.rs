//! `load`: servers to be called, and callers that measure. Every result is JSON on stdout.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::calls::{self, Callee, Load, Window};
use bench::cpu::Watched;
use bench::outcome::Ready;
use bench::{Error, connections, download, echo, files, quic, units};
use clap::{Args, Parser, Subcommand};
use http::Uri;
use serde::Serialize;
use tokio::net::{TcpListener, lookup_host};

/// Loads a service and measures, or is the service.
#[derive(Parser)]
#[command(name = "load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer gRPC (h2c) and TCP with an echo, HTTP/1.1 with bytes; prints where as one line of JSON.
    Serve {
        /// Where gRPC is answered; port 0 takes any.
        #[arg(long)]
        grpc: Option<SocketAddr>,
        /// Where HTTP/1.1 is answered: GET /bytes/N, POST.
        #[arg(long)]
        http: Option<SocketAddr>,
        /// Where bytes are echoed over TCP.
        #[arg(long)]
        tcp: Option<SocketAddr>,
    },
    /// Make unary gRPC calls, with a number in flight or at a fixed rate.
    Grpc(Grpc),
    /// Make TCP connections that say a few bytes, have them back, and end.
    Connect {
        /// Where connections go.
        #[arg(long)]
        target: SocketAddr,
        /// Connections at a time.
        #[arg(long, default_value_t = 1)]
        in_flight: usize,
        /// How long to measure.
        #[arg(long = "for", value_parser = units::duration, default_value = "5s")]
        length: Duration,
        /// How long to warm up before; not measured.
        #[arg(long = "warm", value_parser = units::duration, default_value = "1s")]
        warm_up: Duration,
        #[command(flatten)]
        watch: Watch,
    },
    /// Fetch bytes over HTTP/1.1.
    Download {
        /// What to fetch, like http://127.0.0.1:8081/bytes/1073741824
        #[arg(long)]
        url: Uri,
        /// The Host header, when it is not the one of the URL.
        #[arg(long)]
        host: Option<String>,
        /// Connections at a time.
        #[arg(long, default_value_t = 1)]
        connections: usize,
        /// Downloads on each.
        #[arg(long, default_value_t = 1)]
        times: usize,
        #[command(flatten)]
        watch: Watch,
    },
    /// Answer raw QUIC with bytes; prints where and its key as one line of JSON.
    QuicServe {
        /// Where; port 0 takes any.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Largest UDP payload.
        #[arg(long, default_value_t = quic::MTU_1500)]
        mtu: u16,
    },
    /// Fetch bytes over raw QUIC.
    QuicDownload {
        /// The server.
        #[arg(long)]
        target: SocketAddr,
        /// The key it printed.
        #[arg(long)]
        key: String,
        /// How many bytes, like 1GiB.
        #[arg(long, value_parser = units::size, default_value = "1GiB")]
        bytes: u64,
        /// Largest UDP payload.
        #[arg(long, default_value_t = quic::MTU_1500)]
        mtu: u16,
        #[command(flatten)]
        watch: Watch,
    },
}

#[derive(Args)]
struct Grpc {
    /// Where connections go, HOST:PORT.
    #[arg(long)]
    target: String,
    /// The :authority of calls; the target by default.
    #[arg(long)]
    authority: Option<String>,
    /// The :path of calls.
    #[arg(long, default_value = "/bench.echo.Echo/Call")]
    path: String,
    /// Message size, like 128 or 4KiB.
    #[arg(long, value_parser = units::size, default_value = "128")]
    size: u64,
    /// Connections the calls are spread over.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Closed load: calls in flight.
    #[arg(long, default_value_t = 1, conflicts_with = "rate")]
    in_flight: usize,
    /// Open load: calls per second; latency counts from the moment a call is due.
    #[arg(long)]
    rate: Option<f64>,
    /// How long to measure.
    #[arg(long = "for", value_parser = units::duration, default_value = "5s")]
    length: Duration,
    /// How long to warm up before; not measured.
    #[arg(long = "warm", value_parser = units::duration, default_value = "1s")]
    warm_up: Duration,
    /// Also draw latency by percentile, on stderr.
    #[arg(long)]
    plot: bool,
    /// Also write the percentile distribution to this file.
    #[arg(long)]
    histogram: Option<PathBuf>,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Args)]
struct Watch {
    /// Processes whose CPU time is measured as well.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pids: Vec<Watched>,
}

impl Watch {
    fn with_myself(mut self) -> Vec<Watched> {
        self.pids.push(Watched::myself("load"));
        self.pids
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Serve { grpc, http, tcp } => serve(grpc, http, tcp).await,
        Command::Grpc(options) => grpc(options).await,
        Command::Connect { target, in_flight, length, warm_up, watch } => {
            let window = Window { warm_up, length };
            print(&connections::run(target, in_flight, window, &watch.with_myself()).await?.0)
        }
        Command::Download { url, host, connections, times, watch } => {
            let watched = watch.with_myself();
            print(&download::run(&url, host.as_deref(), connections, times, &watched).await?)
        }
        Command::QuicServe { listen, mtu } => {
            let server = quic::Server::bind(listen, mtu)?;
            let (quic, key) = (Some(server.at()?.to_string()), Some(server.key().to_owned()));
            print(&Ready { quic, key, ..Ready::default() })?;
            server.serve().await;
            Ok(())
        }
        Command::QuicDownload { target, key, bytes, mtu, watch } => {
            print(&quic::download(target, &key, bytes, mtu, &watch.with_myself()).await?)
        }
    }
}

async fn serve(
    grpc: Option<SocketAddr>,
    http: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
) -> Result<(), Error> {
    let (grpc, http, tcp) = (bind(grpc).await?, bind(http).await?, bind(tcp).await?);
    let at = |listener: &Option<TcpListener>| -> Option<String> {
        listener.as_ref()?.local_addr().ok().map(|at| at.to_string())
    };
    if grpc.is_none() && http.is_none() && tcp.is_none() {
        return Err(Error::Wrong("nothing to serve: give --grpc, --http or --tcp".to_owned()));
    }
    print(&Ready { grpc: at(&grpc), http: at(&http), tcp: at(&tcp), ..Ready::default() })?;
    let echo = async {
        if let Some(listener) = grpc {
            echo::serve(listener).await
        }
    };
    let files = async {
        if let Some(listener) = http {
            files::serve(listener).await
        }
    };
    let bytes = async {
        if let Some(listener) = tcp {
            connections::serve(listener).await
        }
    };
    tokio::join!(echo, files, bytes);
    Ok(())
}

async fn bind(at: Option<SocketAddr>) -> Result<Option<TcpListener>, Error> {
    let Some(at) = at else { return Ok(None) };
    TcpListener::bind(at).await.map(Some).map_err(Error::io(format!("bind {at}")))
}

async fn grpc(options: Grpc) -> Result<(), Error> {
    let target = &options.target;
    let at = lookup_host(target).await.map_err(Error::io(target.clone()))?.next();
    let callee = Callee {
        at: at.ok_or_else(|| Error::Wrong(format!("{target} has no address")))?,
        authority: options.authority.unwrap_or_else(|| target.clone()),
        path: options.path,
        size: usize::try_from(options.size).map_err(Error::at("size"))?,
        connections: options.connections,
    };
    let load = match options.rate {
        Some(rate) => Load::Open { rate },
        None => Load::Closed { in_flight: options.in_flight },
    };
    let window = Window { warm_up: options.warm_up, length: options.length };
    let watched = options.watch.with_myself();
    let (outcome, latency) = calls::run(&callee, load, window, &watched).await?;
    if options.plot {
        let _ = io::stderr().write_all(latency.plot().as_bytes());
    }
    if let Some(path) = options.histogram {
        let what = path.display().to_string();
        std::fs::write(path, latency.distribution()).map_err(Error::io(what))?;
    }
    print(&outcome)
}

/// One line of JSON; flushed, because a runner waits for it.
fn print(what: &impl Serialize) -> Result<(), Error> {
    let mut line = serde_json::to_vec(what).map_err(Error::at("JSON"))?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line).and_then(|()| out.flush()).map_err(Error::io("stdout"))
}
