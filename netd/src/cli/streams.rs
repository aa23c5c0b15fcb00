//! `micro streams`: topics that are kept, and who is given them.

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::config::size;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing};

const STREAMS: &[Column] = &[
    Column::new("STREAM"),
    Column::new("NODE"),
    Column::new("TOPICS"),
    Column::new("MESSAGES"),
    Column::new("SIZE"),
    Column::new("NUMBERS"),
    Column::new("CONSUMERS"),
    Column::new("STATE"),
    Column::wide("LAST AT"),
];

const CONSUMERS: &[Column] = &[
    Column::new("CONSUMER"),
    Column::new("TOPICS"),
    Column::new("DONE TO"),
    Column::new("ON THE WAY"),
    Column::new("AGAIN"),
    Column::new("AHEAD"),
    Column::new("ASKING"),
    Column::new("DURABLE"),
];

/// `micro streams [NAME]`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro streams           topics that are kept, and where
  micro streams orders    who is given the messages of one stream")]
pub struct StreamsArgs {
    /// A stream, whose consumers are listed.
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Lists streams, or the consumers of one.
///
/// # Errors
/// M6010 when no node runs here, M1209 when there is no such stream.
pub async fn run(args: StreamsArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let path = match &args.name {
        None => "/v1/streams".to_owned(),
        Some(name) => format!("/v1/streams/{}", client::escaped(name)),
    };
    let mut document: serde_json::Value = client.get(&path).await?;
    let items: Vec<serde_json::Value> = client::read(document["items"].take())?;
    let all = serde_json::Value::Array(items.clone());
    let listing = match args.name {
        None => {
            let all: Vec<api::StreamItem> = client::read(all)?;
            let rows = all.into_iter().map(stream).collect();
            let empty = "no topic is kept\n\
                         try: [broker.stream.NAME] with topics in the configuration of a node"
                .to_owned();
            Listing { kind: "StreamList", items, columns: STREAMS, rows, empty }
        }
        Some(name) => {
            let all: Vec<api::ConsumerItem> = client::read(all)?;
            let rows = all.into_iter().map(consumer).collect();
            let empty = format!("nobody consumes {name}");
            Listing { kind: "ConsumerList", items, columns: CONSUMERS, rows, empty }
        }
    };
    global.output().list(listing)?;
    Ok(Exit::Done)
}

fn stream(one: api::StreamItem) -> Vec<String> {
    let state = match (one.reachable, one.nodes.len()) {
        (false, _) => "unreachable",
        (true, 1) => "ok",
        (true, _) => "on several nodes",
    };
    let numbers = match one.messages {
        0 => "-".to_owned(),
        _ => format!("{}-{}", one.first, one.last),
    };
    vec![
        one.name,
        one.nodes.join(", "),
        one.topics.join(", "),
        one.messages.to_string(),
        size::about(one.bytes),
        numbers,
        one.consumers.to_string(),
        state.to_owned(),
        if one.messages == 0 { "-".to_owned() } else { one.last_at },
    ]
}

fn consumer(one: api::ConsumerItem) -> Vec<String> {
    let filters = if one.filters.is_empty() { "all".to_owned() } else { one.filters.join(", ") };
    vec![
        one.name,
        filters,
        one.done.to_string(),
        one.on_the_way.to_string(),
        one.again.to_string(),
        one.ahead.to_string(),
        one.waiting.to_string(),
        if one.durable { "yes" } else { "no" }.to_owned(),
    ]
}
