//! `micro network label`: labels of the running node, and of services on it.

use std::collections::BTreeMap;

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::config::values;
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing, text};

const COLUMNS: &[Column] =
    &[Column::new("OF"), Column::new("KEY"), Column::new("VALUE"), Column::new("SET BY")];

/// `micro network label [KEY=VALUE…]`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro network label                               which there are, and where each comes from
  micro network label tier=gold env=prod            of this node, over its flags and file
  micro network label --service orders canary=yes   of a service, on this node
  micro network label --rm tier

Labels that are set stay set when the node starts again.")]
pub struct LabelArgs {
    /// What is set.
    #[arg(value_name = "KEY=VALUE", value_parser = values::label)]
    set: Vec<(String, String)>,
    /// Take back what was set; may be given several times.
    #[arg(long, value_name = "KEY")]
    rm: Vec<String>,
    /// Of this service, as far as this node offers it.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

/// Sets, takes back or lists labels.
///
/// # Errors
/// M1203 when the service is not exposed here, M1207 for a label that was not set by command, M4001
/// for what is no label, M6003 where they cannot be kept.
pub async fn run(args: LabelArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.client()?, global.output());
    if args.set.is_empty() && args.rm.is_empty() {
        return list(&client, args.service.as_deref(), output).await;
    }
    let request = api::LabelRequest {
        service: args.service,
        set: BTreeMap::from_iter(args.set),
        rm: args.rm,
    };
    let document: serde_json::Value = client.post("/v1/labels", &request).await?;
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let now: api::Labelled = client::read(document)?;
    let of = now.service.as_deref().unwrap_or("this node");
    let labels = if now.labels.is_empty() { "none".to_owned() } else { text::labels(&now.labels) };
    output::print(&format!("{}: {}\n", text::plain(of), text::plain(&labels)))?;
    Ok(Exit::Done)
}

async fn list(
    client: &client::Client,
    service: Option<&str>,
    output: output::Output,
) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = client.get("/v1/labels").await?;
    let items: Vec<serde_json::Value> = client::read(document["items"].take())?;
    let wanted = |item: &serde_json::Value| {
        service.is_none_or(|service| item["service"].as_str() == Some(service))
    };
    let items: Vec<serde_json::Value> = items.into_iter().filter(wanted).collect();
    let all: Vec<api::LabelItem> = client::read(serde_json::Value::Array(items.clone()))?;
    let row = |one: api::LabelItem| {
        vec![one.service.unwrap_or_else(|| "this node".to_owned()), one.key, one.value, one.from]
    };
    let rows = all.into_iter().map(row).collect();
    let empty = "no labels: micro network label tier=gold sets one".to_owned();
    output.list(Listing { kind: "LabelList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}
