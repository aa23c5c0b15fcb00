//! `micro expose` and `micro unexpose`: offer what already listens, and withdraw it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Global;
use crate::api;
use crate::client;
use crate::config::values;
use crate::error::{Exit, Problem};
use crate::output::text;

/// How long the other nodes get to hear of it before the answer is printed without them.
const HEARD: Duration = Duration::from_secs(2);

/// What a program speaks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Grpc,
    Http,
    Http2,
    Mucp,
    Tcp,
}

/// `micro expose NAME PORT`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro expose shop 3000                       HTTP or gRPC, found out by asking
  micro expose greeter 9090 --protocol mucp    go-micro v1, v3 to v6
  micro expose db 5432 --protocol tcp          anything else over TCP
  micro expose orders 10.0.0.7:9000 --protocol grpc --version v2 --label tier=gold")]
pub struct ExposeArgs {
    /// Its name on the network.
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it listens: a port of this machine, or host:port.
    #[arg(value_name = "PORT|HOST:PORT")]
    address: String,
    /// What it speaks [default: found out by asking].
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
    /// Its version.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// A label of the instance; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
}

/// `micro unexpose NAME`
#[derive(Debug, Args)]
pub struct UnexposeArgs {
    /// Its name on the network.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only the instance that listens here.
    #[arg(value_name = "PORT|HOST:PORT")]
    address: Option<String>,
}

/// Offers something under a name.
///
/// # Errors
/// M6010 when no node runs here; what the node says about the name or the address.
pub async fn run(args: ExposeArgs, global: &Global) -> Result<Exit, Problem> {
    check_name(&args.name)?;
    let request = api::ExposeRequest {
        name: args.name,
        address: address(&args.address)?,
        protocol: args.protocol.map(|protocol| {
            let value = protocol.to_possible_value().expect("no protocol is skipped");
            value.get_name().to_owned()
        }),
        version: args.version,
        labels: BTreeMap::from_iter(args.labels),
        endpoints: Vec::new(),
        ttl_s: None,
    };
    let client = global.client()?;
    let document: serde_json::Value = client.post("/v1/expose", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let exposed: api::Exposed = client::read(document)?;
    let (name, at) = (text::plain(&exposed.name), text::plain(&exposed.address));
    let arrow = if text::is_utf8() { "→" } else { "->" };
    output.say(&format!("exposed {name} {arrow} {at} ({})", text::plain(&exposed.protocol)));
    let seen = format!("/v1/wait?for=services={}&timeout_ms={}", name, HEARD.as_millis());
    if client.get::<serde_json::Value>(&seen).await.is_ok() {
        let call = match exposed.protocol.as_str() {
            "grpc" => format!("micro describe {name}"),
            "tcp" => format!("micro forward {name}"),
            "mucp" => format!("micro why {name}"),
            _ => format!("micro call {name} GET /"),
        };
        output.say(&format!("visible.   try: {call}"));
    }
    Ok(Exit::Done)
}

/// Withdraws what was exposed.
///
/// # Errors
/// M6010 when no node runs here, M1203 when this node does not offer it.
pub async fn withdraw(args: UnexposeArgs, global: &Global) -> Result<Exit, Problem> {
    check_name(&args.name)?;
    let address = args.address.as_deref().map(address).transpose()?;
    let request = api::UnexposeRequest { name: args.name, address };
    let document: serde_json::Value = global.client()?.post("/v1/unexpose", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let gone: api::Unexposed = client::read(document)?;
    let instances = text::count(gone.instances, "instance");
    output.say(&format!("withdrew {} ({instances})", text::plain(&gone.name)));
    Ok(Exit::Done)
}

fn check_name(name: &str) -> Result<(), Problem> {
    match name.parse::<proto::ServiceName>() {
        Ok(_) => Ok(()),
        Err(why) => Err(Problem::new("M4001", Exit::Usage, format!("{name:?} is no service name"))
            .why(why.to_string())
            .attempt("micro expose shop 3000", "")),
    }
}

/// A port of this machine, or `host:port` as it is.
fn address(text: &str) -> Result<String, Problem> {
    let wrong = || {
        Problem::new("M4001", Exit::Usage, format!("{text:?} is no port or address"))
            .why("write the port something listens on: 3000, 127.0.0.1:3000, [::1]:3000")
            .attempt("micro expose shop 3000", "")
    };
    let port_fits = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    if port_fits(text.trim_start_matches(':')) {
        return Ok(format!("127.0.0.1:{}", text.trim_start_matches(':')));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port_fits(port) => Ok(text.to_owned()),
        Some(_) | None => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_of_this_machine() {
        for (given, meant) in [
            ("3000", "127.0.0.1:3000"),
            (":3000", "127.0.0.1:3000"),
            ("10.0.0.7:9000", "10.0.0.7:9000"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(address(given).unwrap(), meant);
        }
        for bad in ["", "0", "70000", "shop", "127.0.0.1", "host:", "host:0"] {
            assert_eq!(address(bad).unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
    }
}
