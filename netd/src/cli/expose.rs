//! `micro expose` and `micro unexpose`: offer what already listens, and withdraw it.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::Global;
use crate::api;
use crate::client;
use crate::config::{duration, values};
use crate::error::{Exit, Problem};
use crate::output::text;
use crate::registrar::probe::Check;

/// How long the other nodes get to hear of it before the answer is printed without them.
const HEARD: Duration = Duration::from_secs(2);

/// Bytes of an address, as records have room for.
const MAX_ADDRESS: usize = 300;

/// What a program speaks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Grpc,
    Http,
    Http2,
    Mucp,
    Tcp,
    Tls,
    Udp,
}

/// `micro expose NAME PORT`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro expose shop 3000                       HTTP or gRPC, found out by asking
  micro expose greeter 9090 --protocol mucp    go-micro v1, v3 to v6
  micro expose db 5432 --protocol tcp          anything else over TCP
  micro expose web 8443 --protocol tls         TLS, opened by nobody on the way
  micro expose dns 5353 --protocol udp         packets
  micro expose cache unix:/run/redis.sock --protocol tcp
  micro expose shop 3000 --check http:/health  not called while that fails
  micro expose orders 10.0.0.7:9000 --protocol grpc --version v2 --label tier=gold")]
pub struct ExposeArgs {
    /// Its name on the network.
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it listens: a port of this machine, host:port or unix:/path.
    #[arg(value_name = "PORT|HOST:PORT|unix:PATH")]
    address: String,
    #[command(flatten)]
    offer: Offer,
}

/// What is said of an instance that is offered.
#[derive(Debug, Args)]
pub(super) struct Offer {
    /// What it speaks [default: found out by asking].
    #[arg(long, value_enum, value_name = "PROTOCOL")]
    protocol: Option<Protocol>,
    /// Its version.
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// A label of the instance; may be given several times.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// Do not call it while this fails: tcp, http:/PATH, grpc or grpc:SERVICE.
    #[arg(long, value_name = "CHECK")]
    check: Option<String>,
    /// Between two checks [default: 5s].
    #[arg(long, requires = "check", value_parser = duration::parse, value_name = "TIME")]
    check_interval: Option<Duration>,
    /// Until a check that is not answered has failed [default: 2s].
    #[arg(long, requires = "check", value_parser = duration::parse, value_name = "TIME")]
    check_timeout: Option<Duration>,
    /// Failures in a row that take it out [default: 3].
    #[arg(long, requires = "check", value_name = "COUNT")]
    check_fall: Option<u32>,
    /// Successes in a row that bring it back [default: 2].
    #[arg(long, requires = "check", value_name = "COUNT")]
    check_rise: Option<u32>,
}

impl Offer {
    /// The request that offers it.
    ///
    /// # Errors
    /// M4001 for a check that is none.
    pub(super) fn request(
        self,
        name: String,
        address: String,
    ) -> Result<api::ExposeRequest, Problem> {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let check = self.check.map(|check| {
            let (kind, target) = check.split_once(':').unwrap_or((&check, ""));
            api::HealthCheck {
                kind: kind.to_owned(),
                target: target.to_owned(),
                interval_ms: self.check_interval.map(millis),
                timeout_ms: self.check_timeout.map(millis),
                fall: self.check_fall,
                rise: self.check_rise,
            }
        });
        if let Some(Err(why)) = check.as_ref().map(Check::read) {
            return Err(Problem::new("M4001", Exit::Usage, "the check cannot be made")
                .why(why)
                .attempt("micro expose shop 3000 --check http:/health --check-interval 5s", ""));
        }
        Ok(api::ExposeRequest {
            name,
            address,
            protocol: self.protocol.map(|protocol| {
                let value = protocol.to_possible_value().expect("no protocol is skipped");
                value.get_name().to_owned()
            }),
            version: self.version,
            labels: BTreeMap::from_iter(self.labels),
            endpoints: Vec::new(),
            ttl_s: None,
            check,
        })
    }
}

/// `micro unexpose NAME`
#[derive(Debug, Args)]
pub struct UnexposeArgs {
    /// Its name on the network.
    #[arg(value_name = "NAME")]
    name: String,
    /// Only the instance that listens here.
    #[arg(value_name = "PORT|HOST:PORT|unix:PATH")]
    address: Option<String>,
}

/// Offers something under a name.
///
/// # Errors
/// M6010 when no node runs here; what the node says about the name or the address.
pub async fn run(args: ExposeArgs, global: &Global) -> Result<Exit, Problem> {
    check_name(&args.name)?;
    let address = address(&args.address)?;
    let request = args.offer.request(args.name, address)?;
    let client = global.client()?;
    let document: serde_json::Value = client.post("/v1/expose", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let exposed: api::Exposed = client::read(document)?;
    output.say(&self::exposed(&exposed));
    let name = text::plain(&exposed.name);
    let seen = format!("/v1/wait?for=services={}&timeout_ms={}", name, HEARD.as_millis());
    if client.get::<serde_json::Value>(&seen).await.is_ok() {
        let call = match exposed.protocol.as_str() {
            "grpc" => format!("micro describe {name}"),
            "tcp" | "udp" => format!("micro forward {name}"),
            "tls" => format!("curl https://{name}.localhost:PORT, with the port of the proxy"),
            "mucp" => format!("micro why {name}"),
            _ => format!("micro call {name} GET /"),
        };
        output.say(&format!("visible.   try: {call}"));
    }
    Ok(Exit::Done)
}

/// What was offered, in a line.
pub(super) fn exposed(exposed: &api::Exposed) -> String {
    let (name, at) = (text::plain(&exposed.name), text::plain(&exposed.address));
    let arrow = if text::is_utf8() { "→" } else { "->" };
    format!("exposed {name} {arrow} {at} ({})", text::plain(&exposed.protocol))
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

pub(super) fn check_name(name: &str) -> Result<(), Problem> {
    match name.parse::<proto::ServiceName>() {
        Ok(_) => Ok(()),
        Err(why) => Err(Problem::new("M4001", Exit::Usage, format!("{name:?} is no service name"))
            .why(why.to_string())
            .attempt("micro expose shop 3000", "")),
    }
}

/// A port of this machine, or `host:port` or `unix:/path` as it is.
pub(super) fn address(text: &str) -> Result<String, Problem> {
    let wrong = || {
        Problem::new("M4001", Exit::Usage, format!("{text:?} is no port or address"))
            .why(
                "write where something listens: 3000, 127.0.0.1:3000, [::1]:3000, unix:/run/a.sock",
            )
            .attempt("micro expose shop 3000", "")
    };
    if let Some(path) = text.strip_prefix("unix:") {
        let fits = path.starts_with('/') && text.len() <= MAX_ADDRESS;
        return fits.then(|| text.to_owned()).ok_or_else(wrong);
    }
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
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(address(given).unwrap(), meant);
        }
        for bad in ["", "0", "70000", "shop", "127.0.0.1", "host:", "host:0", "unix:a", "unix:"] {
            assert_eq!(address(bad).unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
    }
}
