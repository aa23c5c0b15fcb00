//! `micro topics` and `micro publish`: who wants to hear of what, and one message by hand.

use std::collections::BTreeMap;

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new("TOPIC"),
    Column::new("GROUP"),
    Column::new("NODE"),
    Column::new("REGION"),
    Column::new("SUBSCRIBERS"),
    Column::new("STATE"),
    Column::wide("NAMESPACE"),
];

/// `micro publish TOPIC BODY`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro publish orders.created '{\"id\":\"o-17\"}'
  micro publish news hello --header Content-Type=text/plain")]
pub struct PublishArgs {
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

/// Lists which nodes want what.
///
/// # Errors
/// M6010 when no node runs here.
pub async fn list(global: &Global) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = global.client()?.get("/v1/topics").await?;
    let items = client::read(document["items"].take())?;
    let all: Vec<api::TopicItem> = client::read(serde_json::Value::Array(Vec::clone(&items)))?;
    let row = |one: api::TopicItem| {
        let state = if one.reachable { "ok" } else { "unreachable" };
        let (group, count) = (one.group.unwrap_or_else(|| "-".into()), one.subscribers);
        vec![
            one.pattern,
            group,
            one.node,
            one.region,
            count.to_string(),
            state.to_owned(),
            one.namespace,
        ]
    };
    // What streams are asked at is in `micro streams`.
    let shown = all.into_iter().filter(|one| !one.pattern.starts_with("$JS."));
    let rows = shown.map(row).collect();
    let empty = "nobody subscribes to anything".to_owned();
    global.output().list(Listing { kind: "TopicList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

/// Publishes one message.
///
/// # Errors
/// M6010 when no node runs here, M4001 when it is no topic.
pub async fn publish(args: PublishArgs, global: &Global) -> Result<Exit, Problem> {
    let headers: BTreeMap<String, String> = args.headers.into_iter().collect();
    let ask = api::PublishRequest { topic: args.topic, headers, body: args.body };
    let document: serde_json::Value = global.client()?.post("/v1/publish", &ask).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let published: api::Published = client::read(document)?;
    let topic = text::plain(&published.topic);
    match published.receivers {
        0 => output.say(&format!("published to {topic}: nobody wants it now")),
        count => {
            let count = text::count(count as u64, "receiver");
            output.say(&format!("published to {topic}: {count} (subscribers here, and nodes)"));
        }
    }
    Ok(Exit::Done)
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}
