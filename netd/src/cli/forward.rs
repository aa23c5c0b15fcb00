//! `micro forward`: a port of this machine is a service, wherever it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::Args;

use super::Global;
use super::call::place::Place;
use crate::api;
use crate::client::Held;
use crate::drain::Signals;
use crate::error::{Exit, Problem};
use crate::output::text;

/// `micro forward SERVICE [PORT]`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro forward db 5432                        psql -h 127.0.0.1 finds it there
  micro forward db@eu?role=replica             a free port, which is printed
  micro forward dns 5353                       UDP, where the service is
  micro forward cache 10.0.0.7:6379            for others on that network too, if allowed")]
pub struct ForwardArgs {
    /// The service: its name, with @region and ?label=value behind it where it matters.
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Where to listen: a port of this machine, or host:port [default: a free port].
    #[arg(value_name = "PORT|HOST:PORT", value_parser = listen_at)]
    at: Option<SocketAddr>,
    /// Packets over UDP [default: as the service is].
    #[arg(long)]
    udp: bool,
}

/// A free port of this machine.
pub(super) const FREE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Forwards until interrupted.
///
/// # Errors
/// M6010 when no node runs here or it stops, M6001 when the port is taken.
pub async fn run(args: ForwardArgs, global: &Global) -> Result<Exit, Problem> {
    let mut signals = Signals::listen()?;
    let asked = vec![api::ForwardAsked {
        udp: args.udp,
        ..asked(&args.service.parse()?, args.at.unwrap_or(FREE))
    }];
    let (ports, mut held) = open(global, asked).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&serde_json::json!({
            "kind": "ForwardList", "api": api::VERSION, "items": ports,
        }))?;
    }
    for port in ports.iter().filter(|_| !output.is_json()) {
        let arrow = if text::is_utf8() { "→" } else { "->" };
        let (at, service) = (text::plain(&port.address), text::plain(&port.service));
        let packets = if port.udp { " (udp)" } else { "" };
        output.say(&format!("forwarding {at} {arrow} {service}{packets}   Ctrl-C ends it"));
        if port.instances == 0 {
            let until = if port.udp { "packets are dropped" } else { "connections are refused" };
            output.say(&format!("nothing on the network is that now: {until} until something is"));
        }
    }
    tokio::select! {
        () = signals.next() => Ok(Exit::Done),
        () = held.ended() => Err(stopped()),
    }
}

/// Has the node open these ports for as long as what comes with them is held.
pub(super) async fn open(
    global: &Global,
    forwards: Vec<api::ForwardAsked>,
) -> Result<(Vec<api::Forward>, Held), Problem> {
    let request = api::ForwardRequest { forwards };
    let opened = global.client()?.hold::<api::Document<_>>("/v1/forward", &request).await?;
    let (document, held): (api::Document<api::Items<api::Forward>>, _) = opened;
    Ok((document.body.items, held))
}

/// The request for one port.
pub(super) fn asked(service: &Place, at: SocketAddr) -> api::ForwardAsked {
    api::ForwardAsked {
        service: service.service.to_string(),
        select: service.select(),
        address: at.to_string(),
        udp: false,
    }
}

/// What it means that the node ended what it did for a command.
pub(super) fn stopped() -> Problem {
    Problem::new("M6010", Exit::NoNode, "the node has stopped, and its ports with it")
        .why("a port is forwarded by the node that runs here")
        .attempt("micro network", "start one")
}

fn listen_at(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::new(FREE.ip(), port));
    }
    let host = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let text = host.as_deref().unwrap_or(text);
    text.parse().map_err(|_| "write a port or an address with one: 5432, 127.0.0.1:5432".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_of_this_machine_alone() {
        for (given, meant) in [
            ("5432", "127.0.0.1:5432"),
            (":5432", "127.0.0.1:5432"),
            ("0", "127.0.0.1:0"),
            ("localhost:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(listen_at(given).unwrap(), meant.parse().unwrap(), "{given}");
        }
        for bad in ["", "70000", "db", "127.0.0.1", "host:80"] {
            listen_at(bad).unwrap_err();
        }
    }
}
