//! `compare`: direct, two nodes, a pair of haproxy, a pair of nginx and raw quinn, in one run.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::compare::{self, Kind, Plan, Report, Workload};
use bench::{Error, quic, units};
use clap::Parser;

/// Measures the same work through different roads, and says where this project stands.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Cli {
    /// The micro binary; beside this one by default.
    #[arg(long)]
    micro: Option<PathBuf>,
    /// Who takes part.
    #[arg(long, value_delimiter = ',', default_value = "direct,micro,haproxy,nginx,quinn")]
    only: Vec<Kind>,
    /// Rounds.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long calls are measured, each time.
    #[arg(long = "for", value_parser = units::duration, default_value = "5s")]
    length: Duration,
    /// How long calls warm up, each time.
    #[arg(long = "warm", value_parser = units::duration, default_value = "1s")]
    warm_up: Duration,
    /// Calls in flight, closed load.
    #[arg(long, value_delimiter = ',', default_value = "1,32,128")]
    in_flight: Vec<usize>,
    /// Calls per second, open load.
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    rate: Vec<u32>,
    /// New connections at a time; 0 leaves them out.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Streams of bulk over TCP at a time.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    streams: Vec<usize>,
    /// Size of the download, and of all streams together; 0 leaves them out.
    #[arg(long, value_parser = units::size, default_value = "1GiB")]
    bulk: u64,
    /// Largest UDP payload of raw quinn.
    #[arg(long, default_value_t = quic::MTU_1500)]
    mtu: u16,
    /// Results go to a directory of their own under this one.
    #[arg(long, default_value = "bench-out")]
    out: PathBuf,
    /// Only print a stored result.json again.
    #[arg(long)]
    read: Option<PathBuf>,
    /// Print markdown.
    #[arg(long)]
    markdown: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("compare: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), Error> {
    let report = match &cli.read {
        Some(path) => Report::read(path)?,
        None => {
            let (report, out) = compare::run(&plan(&cli)?, say)?;
            say(&format!("saved {}", out.display()));
            report
        }
    };
    let shown = if cli.markdown { report.markdown() } else { report.text() };
    io::stdout().write_all(shown.as_bytes()).map_err(Error::io("stdout"))
}

fn plan(cli: &Cli) -> Result<Plan, Error> {
    let here = std::env::current_exe().map_err(Error::io("this program"))?;
    let mut workloads: Vec<Workload> =
        cli.in_flight.iter().copied().map(Workload::InFlight).collect();
    workloads.extend(cli.rate.iter().copied().map(Workload::Rate));
    workloads.extend((cli.connections > 0).then_some(Workload::Connections(cli.connections)));
    if cli.bulk > 0 {
        workloads.push(Workload::Bulk(cli.bulk));
        workloads.extend(cli.streams.iter().map(|&streams| Workload::Streams(streams, cli.bulk)));
    }
    Ok(Plan {
        load: here.with_file_name("load"),
        micro: cli.micro.clone().unwrap_or_else(|| here.with_file_name("micro")),
        only: cli.only.clone(),
        workloads,
        rounds: cli.rounds,
        length: cli.length,
        warm_up: cli.warm_up,
        mtu: cli.mtu,
        out: cli.out.clone(),
    })
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
