//! `micro network nodes`: every node known, nearest first.

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new("NODE"),
    Column::new("REGION"),
    Column::new("ROLES"),
    Column::new("PATH"),
    Column::new("COST"),
    Column::new("LINKS"),
    Column::new("SERVICES"),
    Column::new("VERSION"),
    Column::new("STATE"),
    Column::wide("LABELS"),
    Column::wide("ADDRESSES"),
    Column::wide("ID"),
];

/// Prints the nodes.
///
/// # Errors
/// M6010 when no node runs here.
pub async fn run(global: &Global) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = global.client()?.get("/v1/nodes").await?;
    let items = client::read(document["items"].take())?;
    let rows = rows(client::read(serde_json::Value::Array(Vec::clone(&items)))?);
    global.output().list(Listing {
        kind: "NodeList",
        items,
        columns: COLUMNS,
        rows,
        empty: "no nodes are known yet, not even this one: it is starting".to_owned(),
    })?;
    Ok(Exit::Done)
}

fn rows(nodes: Vec<api::NodeItem>) -> Vec<Vec<String>> {
    let row = |node: api::NodeItem| {
        vec![
            node.name,
            node.region,
            node.roles.join(","),
            node.path,
            text::cost(node.cost_us),
            node.links.to_string(),
            node.services.to_string(),
            node.release,
            node.state,
            text::labels(&node.labels),
            node.addresses.join(" "),
            node.id,
        ]
    };
    nodes.into_iter().map(row).collect()
}
