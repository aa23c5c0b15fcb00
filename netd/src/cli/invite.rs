//! `micro network invite`: a ticket that lets others join.

use std::time::Duration;

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::{self, text};

/// `micro network invite`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro network invite                                  one node, the issuer's usual time
  micro network invite --ttl 24h --uses 5
  micro network invite --service 'shop*' --namespace pay   may offer only these")]
pub struct InviteArgs {
    /// How long the ticket is valid.
    #[arg(long, value_parser = duration::parse, value_name = "TIME", default_value = "15m")]
    ttl: Duration,
    /// How many nodes may join with it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// A role for the joiner: relay, gate, issuer, operator.
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// A service it may offer, or `prefix*`; may be given several times [default: all].
    #[arg(long = "service", value_name = "PATTERN")]
    services: Vec<String>,
    /// A namespace it may use, or `prefix*`; may be given several times [default: all].
    #[arg(long = "namespace", value_name = "PATTERN")]
    namespaces: Vec<String>,
}

/// Makes a ticket. It stands alone on the first line of standard output.
///
/// # Errors
/// M3011 when the node is no issuer, M6010 when none runs.
pub async fn run(args: InviteArgs, global: &Global) -> Result<Exit, Problem> {
    let request = api::InviteRequest {
        ttl_s: Some(args.ttl.as_secs().max(1)),
        uses: Some(args.uses),
        role: args.role,
        services: args.services,
        namespaces: args.namespaces,
    };
    let document: serde_json::Value = global.client()?.post("/v1/invite", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let made: api::Invited = client::read(document)?;
    output::print(&format!("{}\n", made.ticket))?;
    let role = if made.role.is_empty() { "edge" } else { &made.role };
    output.say(&format!(
        "role {role}   {}   valid {}   id {}",
        text::count(u64::from(made.uses), "use"),
        duration::show(args.ttl),
        made.id,
    ));
    output.say(&format!("on their machine:  micro network --join {}", made.ticket));
    Ok(Exit::Done)
}
