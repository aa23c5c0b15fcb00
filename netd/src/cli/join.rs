//! `micro network join`: link the running node to a further address of its network.

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::config::secret;
use crate::error::{Exit, Problem};
use crate::output::text;

/// `micro network join`
#[derive(Debug, Args)]
#[command(after_help = "\
A node that is no member yet joins as it starts:  micro network --join TICKET")]
pub struct JoinArgs {
    /// An address of a member, or a ticket: `-` for one on standard input, or file:PATH.
    #[arg(value_name = "HOST:PORT|TICKET")]
    place: String,
}

/// Has the running node dial.
///
/// # Errors
/// M6010 when none runs; what the node says about the ticket or the address.
pub async fn run(args: JoinArgs, global: &Global) -> Result<Exit, Problem> {
    let unreadable = |why| Problem::new("M4001", Exit::Usage, "there is no ticket").why(why);
    let place = match args.place.as_str() {
        "-" => secret::read_stdin().map_err(unreadable)?,
        place => secret::read(place).map_err(unreadable)?,
    };
    let text = place.expose().to_owned();
    let request = if text.starts_with(proto::ticket::PREFIX) {
        api::JoinRequest { address: None, ticket: Some(text) }
    } else {
        api::JoinRequest { address: Some(text), ticket: None }
    };
    let document: serde_json::Value = global.client()?.post("/v1/join", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let joined: api::Joined = client::read(document)?;
    match (&*joined.peer, joined.rtt_ns) {
        ("", _) => {
            let tried = text::plain(&joined.addresses.join(" "));
            output.say(&format!("dialling {tried}: nobody has answered yet"));
            output.say("see: micro network status");
        }
        (peer, Some(rtt)) => {
            let (peer, rtt) = (text::plain(peer), text::round_trip(rtt));
            output.say(&format!("linked with {peer}, {rtt}"));
        }
        (peer, None) => output.say(&format!("linked with {}", text::plain(peer))),
    }
    Ok(Exit::Done)
}
