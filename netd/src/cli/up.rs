//! `micro network up`: flags over environment over file, and then the daemon.

use clap::Args;

use super::Global;
use crate::config::layers::{Layer, Origin};
use crate::config::values::Raw;
use crate::config::{Settings, layers, secret};
use crate::error::{Exit, Problem};
use crate::{daemon, output};

/// Options of a node; each is also a key of the configuration file.
#[derive(Debug, Default, Args)]
pub struct UpArgs {
    /// Name of this node [default: short host name].
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where it is: eu/fra, home.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// A label of this node; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Name of the network [default: that of the ticket, else local-USER].
    #[arg(long, value_name = "NAME")]
    network: Option<String>,
    /// UDP address for links; may be given several times [default: `[::]:8085` or the next free].
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// What others are told to dial, when it is not what the node finds out.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
    /// A ticket, `-` for one on standard input, `file:PATH`, or the address of a member.
    #[arg(long, alias = "nodes", value_name = "TICKET|HOST:PORT")]
    join: Vec<String>,
    /// Where programs call [default: 127.0.0.1:8081 or the next free].
    #[arg(long, value_name = "ADDRESS")]
    proxy_address: Option<String>,
    /// A user whose programs may call too, by name or number, or `*`; may be given several times
    /// [default: the user that runs the node, and root].
    #[arg(long = "allow-users", value_name = "USER")]
    allow_users: Vec<String>,
    /// Calls in flight at once.
    #[arg(long, value_name = "N")]
    max_inflight: Option<String>,
    /// Where names are asked for [default: 127.0.0.1:8053 or the next free].
    #[arg(long, value_name = "ADDRESS")]
    dns_address: Option<String>,
    /// Where clients of NATS connect [default: 127.0.0.1:4222 or the next free].
    #[arg(long, value_name = "ADDRESS")]
    nats_address: Option<String>,
    /// Where health and metrics are read [default: 127.0.0.1:8086 or the next free].
    #[arg(long, value_name = "ADDRESS")]
    observe_address: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or info,router=debug.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How it is logged: auto, text, json.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// How long open calls may take when the node stops.
    #[arg(long, value_name = "TIME")]
    drain_grace: Option<String>,
    /// How long the grants signed by this node are valid.
    #[arg(long, value_name = "TIME")]
    grant_ttl: Option<String>,
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// Why it could not start, or what ended it.
pub fn run(args: UpArgs, global: &Global) -> Result<Exit, Problem> {
    let settings = settings(args, global)?;
    daemon::run(settings, global.output())
}

/// Everything the node is told; warnings are printed.
fn settings(args: UpArgs, global: &Global) -> Result<Settings, Problem> {
    let flags = args.into_layer()?;
    let loaded = layers::load(flags, global.config.as_deref(), global.socket.clone())?;
    if !global.quiet {
        loaded.warnings.iter().for_each(|line| output::warn(line));
    }
    Ok(loaded.settings)
}

impl UpArgs {
    fn into_layer(self) -> Result<Layer, Problem> {
        let mut layer = Layer::default();
        let (ticket, seeds) = tickets_and_seeds(self.join)?;
        let texts = [
            ("node.name", "--name", self.name),
            ("node.region", "--region", self.region),
            ("network.name", "--network", self.network),
            ("network.ticket", "--join", ticket),
            ("proxy.http.address", "--proxy-address", self.proxy_address),
            ("proxy.http.max_inflight", "--max-inflight", self.max_inflight),
            ("dns.address", "--dns-address", self.dns_address),
            ("broker.address", "--nats-address", self.nats_address),
            ("observe.address", "--observe-address", self.observe_address),
            ("log.level", "--log-level", self.log_level),
            ("log.format", "--log-format", self.log_format),
            ("drain.grace", "--drain-grace", self.drain_grace),
            ("identity.grant_ttl", "--grant-ttl", self.grant_ttl),
        ];
        for (key, flag, value) in texts {
            if let Some(value) = value {
                layer.put(key, Raw::Text(value), Origin::Flag(flag));
            }
        }
        let lists = [
            ("node.labels", "--label", self.labels),
            ("network.address", "--address", self.address),
            ("network.advertise", "--advertise", self.advertise),
            ("network.join", "--join", seeds),
            ("proxy.allow_users", "--allow-users", self.allow_users),
        ];
        for (key, flag, values) in lists {
            if !values.is_empty() {
                layer.put(key, Raw::List(values), Origin::Flag(flag));
            }
        }
        Ok(layer)
    }
}

/// What `--join` names: one ticket at most, and any number of addresses.
fn tickets_and_seeds(join: Vec<String>) -> Result<(Option<String>, Vec<String>), Problem> {
    let (mut ticket, mut seeds) = (None, Vec::new());
    for one in join.iter().flat_map(|one| one.split(',')).map(str::trim) {
        let is_ticket = one == "-"
            || [proto::ticket::PREFIX, "file:", "env:"].iter().any(|lead| one.starts_with(lead));
        if !is_ticket {
            if !one.is_empty() {
                seeds.push(one.to_owned());
            }
            continue;
        }
        if ticket.is_some() {
            return Err(Problem::new("M4001", Exit::Usage, "--join has two tickets")
                .why("a node is a member of one network")
                .attempt("micro network --name b --join TICKET", "a second node for the other"));
        }
        ticket = Some(match one {
            "-" => {
                let read = secret::read_stdin().map_err(|why| {
                    Problem::new("M4001", Exit::Usage, "--join - has no ticket").why(why)
                })?;
                read.expose().to_owned()
            }
            other => other.to_owned(),
        });
    }
    Ok((ticket, seeds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn join_tells_tickets_from_addresses() {
        let join = vec!["mj1abc".to_owned(), "192.0.2.1:8085,gate.acme.example".to_owned()];
        let (ticket, seeds) = tickets_and_seeds(join).unwrap();
        assert_eq!(ticket.as_deref(), Some("mj1abc"));
        assert_eq!(seeds, ["192.0.2.1:8085", "gate.acme.example"]);
        let two = vec!["mj1abc".to_owned(), "file:ticket".to_owned()];
        assert_eq!(tickets_and_seeds(two).unwrap_err().code, "M4001");
    }

    #[test]
    fn flags_become_keys_with_their_origin() {
        let args = UpArgs {
            name: Some("fra-1".to_owned()),
            address: vec!["[::]:0".to_owned()],
            ..UpArgs::default()
        };
        let layer = args.into_layer().unwrap();
        let (raw, origin) = layer.get("node.name").unwrap();
        assert_eq!((raw, origin), (&Raw::Text("fra-1".into()), &Origin::Flag("--name")));
        assert!(layer.get("network.address").is_some() && layer.get("network.join").is_none());
    }
}
