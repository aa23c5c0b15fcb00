//! `micro exec`: a command that finds the services of the network as if they were on this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitStatus;

use clap::Args;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Global;
use super::call::place::Place;
use super::forward::{FREE, asked, open, stopped};
use crate::api;
use crate::error::{Exit, Problem};

/// What is not sent to the proxy.
const NOT_PROXIED: &str = "127.0.0.1,::1";
/// Variables that name a proxy for HTTP, and for everything.
const HTTP: [&str; 4] = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"];
const ALL: [&str; 2] = ["all_proxy", "ALL_PROXY"];
const NONE: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// `micro exec [--service SERVICE]… -- CMD…`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro exec -- curl http://shop/                        by name, through the proxy
  micro exec --service db -- sh -c 'psql -h $DB_HOST -p $DB_PORT'
  micro exec --service db@eu --service cache -- ./app    DB_ADDR and CACHE_ADDR are ports here

What the command finds: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, and for each --service
NAME_ADDR, NAME_HOST and NAME_PORT.")]
pub struct ExecArgs {
    /// A service that gets a port of this machine for as long as the command runs.
    #[arg(long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// The command.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command to its end, and ends as it did.
///
/// # Errors
/// M6010 when no node runs here or it stops, M6006 when the command cannot be started.
pub async fn run(args: ExecArgs, global: &Global) -> Result<Exit, Problem> {
    let places: Vec<Place> =
        args.services.iter().map(|service| service.parse()).collect::<Result<_, _>>()?;
    let status: api::Status = global.client()?.get("/v1/status").await?;
    let mut variables = proxies(&status.proxy.address);
    let mut held = None;
    if !places.is_empty() {
        let ports = places.iter().map(|place| asked(place, FREE)).collect();
        let (ports, ends) = open(global, ports).await?;
        for (place, port) in places.iter().zip(&ports) {
            variables.extend(addresses(place.authority(), &port.address));
        }
        held = Some(ends);
    }
    let mut words = args.command.into_iter();
    let program = words.next().expect("the arguments are required");
    // Before the command is there: a signal for both must not end this one alone.
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut command = Command::new(&program);
    command.args(words).envs(variables).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        let what = format!("{} cannot be started", program.display());
        Problem::new("M6006", Exit::Failed, what)
            .why(error.to_string())
            .attempt("micro exec -- sh -c 'a && b'", "runs what only a shell understands")
    })?;
    let gone = async {
        match &mut held {
            Some(held) => held.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(gone);
    let mut warned = false;
    loop {
        tokio::select! {
            ended = child.wait() => {
                let ended = ended.map_err(|error| Problem::machine("the command is lost", &error))?;
                std::process::exit(code(ended));
            }
            _ = terminate.recv() => pass_on(&child),
            // A terminal sends it to the command as well, which decides what it means.
            _ = interrupt.recv() => {}
            () = &mut gone, if !warned => {
                warned = true;
                global.output().say(&stopped().to_string());
            }
        }
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Problem> {
    signal(kind).map_err(|error| Problem::machine("signals cannot be listened to", &error))
}

/// Lets the command know that it is to end.
fn pass_on(child: &tokio::process::Child) {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok())
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
    {
        // It may be ending already.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}

/// As a shell tells it: 128 and the signal for a command that a signal ended.
pub(super) fn code(ended: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    ended.code().or_else(|| ended.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

fn proxies(proxy: &str) -> BTreeMap<String, String> {
    let http = HTTP.iter().map(|name| ((*name).to_owned(), format!("http://{proxy}")));
    let all = ALL.iter().map(|name| ((*name).to_owned(), format!("socks5h://{proxy}")));
    let none = NONE.iter().map(|name| {
        let own = std::env::var(name).ok().filter(|own| !own.is_empty());
        let all = own.map_or_else(|| NOT_PROXIED.to_owned(), |own| format!("{own},{NOT_PROXIED}"));
        ((*name).to_owned(), all)
    });
    http.chain(all).chain(none).collect()
}

/// The variables that say where a service is.
fn addresses(service: &str, address: &str) -> [(String, String); 3] {
    let upper = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
    };
    let name: String = service.chars().map(upper).collect();
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    [
        (format!("{name}_ADDR"), address.to_owned()),
        (format!("{name}_HOST"), host.to_owned()),
        (format!("{name}_PORT"), port.to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_becomes_variables_that_a_shell_can_name() {
        let found = addresses("go.micro.srv-db", "127.0.0.1:5432");
        let found = found.map(|(name, value)| format!("{name}={value}"));
        assert_eq!(
            found,
            [
                "GO_MICRO_SRV_DB_ADDR=127.0.0.1:5432",
                "GO_MICRO_SRV_DB_HOST=127.0.0.1",
                "GO_MICRO_SRV_DB_PORT=5432"
            ]
        );
    }
}
