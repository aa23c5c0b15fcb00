//! `micro subscribe` and `micro request`: messages as they come, and one question with its answer.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};

use clap::Args;

use super::Global;
use super::topics::header;
use crate::api;
use crate::client;
use crate::drain::Signals;
use crate::error::{Exit, Problem};
use crate::output::{self, text};

/// `micro subscribe TOPIC`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro subscribe orders.created              each message a line, until Ctrl-C
  micro subscribe 'orders.>' --group audit    shares them with others of the group
  micro subscribe news --count 1 -o jsonl     one, for a program")]
pub struct SubscribeArgs {
    /// The topics: a word, * for one, > for all that follow.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// Of this queue group one member gets each message.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// End after so many messages.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// `micro request TOPIC BODY`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro request price.get '{\"item\":\"o-17\"}'
  micro request time '' --timeout 2s")]
pub struct RequestArgs {
    /// Where to.
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// What.
    #[arg(value_name = "BODY", default_value = "")]
    body: String,
    /// A header, name=value; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
}

/// Prints messages until interrupted.
///
/// # Errors
/// M6010 when no node runs here or it stops, M4001 when it is no topic.
pub async fn subscribe(args: SubscribeArgs, global: &Global) -> Result<Exit, Problem> {
    let mut signals = Signals::listen()?;
    let (client, output) = (global.client()?, global.output());
    let request = api::SubscribeRequest { topic: args.topic, group: args.group };
    let (subscribed, mut held) =
        client.hold::<api::Document<api::Subscribed>>("/v1/subscribe", &request).await?;
    let of = subscribed.body.group.map(|group| format!(" as group {group}")).unwrap_or_default();
    output.say(&format!("subscribed {}{}", text::plain(&subscribed.body.topic), text::plain(&of)));
    let (mut left, mut missed) = (args.count, 0);
    while left != Some(0) {
        let line = tokio::select! {
            () = signals.next() => return Ok(Exit::Done),
            line = held.line() => line,
        };
        let Some(line) = line else { return Err(stopped()) };
        if output.is_json() {
            output::print(&(line.trim_end().to_owned() + "\n"))?;
        } else {
            let document = serde_json::from_str(&line)
                .map_err(|error| Problem::bug(format!("a message cannot be read: {error}")))?;
            let message: api::TopicMessage = client::read(document)?;
            output::print(&shown(&message))?;
            if message.dropped > missed {
                let count = text::count(message.dropped - missed, "message");
                output.say(&format!("{count} missed: they came faster than they were read"));
                missed = message.dropped;
            }
        }
        left = left.map(|left| left - 1);
    }
    Ok(Exit::Done)
}

fn stopped() -> Problem {
    Problem::new("M6010", Exit::NoNode, "the node has stopped, and the subscription with it")
        .why("messages of topics come from the node that runs here")
        .attempt("micro network", "start one")
}

/// One message on one line: when it came, its topic, its size, what it says.
fn shown(message: &api::TopicMessage) -> String {
    let time = jiff::Zoned::now().strftime("%H:%M:%S%.3f").to_string();
    let body = message.body.as_deref().map_or_else(|| "(binary)".to_owned(), text::plain);
    let topic = text::plain(&message.topic);
    format!("{time}  {topic}  {} B  {body}\n", message.bytes)
}

/// Publishes a question and prints the answer as it is.
///
/// # Errors
/// M1208 when nobody subscribes, M8004 without an answer in time, M6010 when no node runs here.
pub async fn request(args: RequestArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.client()?, global.output());
    let patience = global.timeout();
    let ask = api::TopicRequest {
        topic: args.topic,
        headers: BTreeMap::from_iter(args.headers),
        body: args.body,
        timeout_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    };
    // The node tells when the time is over; it is not to be given up before.
    let client = client.with_timeout(patience.saturating_add(client::DEFAULT_TIMEOUT));
    let document: serde_json::Value = client.post("/v1/request", &ask).await?;
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let message: api::TopicMessage = client::read(document)?;
    for (name, value) in &message.headers {
        output.detail(&format!("{}: {}", text::plain(name), text::plain(value)));
    }
    match (&message.body, &message.body_base64) {
        (Some(body), _) if std::io::stdout().is_terminal() => {
            output::print(&(text::plain_lines(body) + "\n"))?;
        }
        (Some(body), _) => output::print(&format!("{body}\n"))?,
        (None, Some(packed)) => {
            let bytes = data_encoding::BASE64.decode(packed.as_bytes());
            let bytes =
                bytes.map_err(|why| Problem::bug(format!("an answer cannot be read: {why}")))?;
            let written = std::io::stdout().write_all(&bytes);
            written.map_err(|error| Problem::machine("the answer cannot be printed", &error))?;
        }
        (None, None) => {}
    }
    Ok(Exit::Done)
}
