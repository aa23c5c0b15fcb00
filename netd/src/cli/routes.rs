//! `micro network routes [SERVICE]`: ways to reach instances, best first.

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new("SERVICE"),
    Column::new("INSTANCE"),
    Column::new("NODE"),
    Column::new("REGION"),
    Column::new("PATH"),
    Column::new("COST"),
    Column::new("PROTOCOL"),
    Column::new("LABELS"),
    Column::new("STATE"),
    Column::wide("ID"),
];

/// `micro network routes [SERVICE]`
#[derive(Debug, Args)]
pub struct RoutesArgs {
    /// Only ways to this service.
    service: Option<String>,
}

/// Prints the routes.
///
/// # Errors
/// M6010 when no node runs here, M1203 when the service is not known.
pub async fn run(args: RoutesArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let (path, empty) = match &args.service {
        Some(service) => (
            format!("/v1/routes?service={}", client::escaped(service)),
            format!("no instance of {service} is known"),
        ),
        None => ("/v1/routes".to_owned(), "no service is known on this network yet".to_owned()),
    };
    let mut document: serde_json::Value = client.get(&path).await?;
    let items = client::read(document["items"].take())?;
    let rows = rows(client::read(serde_json::Value::Array(Vec::clone(&items)))?);
    global.output().list(Listing { kind: "RouteList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

fn rows(routes: Vec<api::RouteItem>) -> Vec<Vec<String>> {
    let row = |route: api::RouteItem| {
        vec![
            route.service,
            route.address,
            route.node,
            route.region,
            route.path,
            text::cost(route.cost_us),
            route.protocol,
            labels(&route.labels),
            state(&route.state, &route.note),
            route.instance,
        ]
    };
    routes.into_iter().map(row).collect()
}

/// A state, and why it is that where that is not plain.
pub(super) fn state(state: &str, note: &str) -> String {
    if note.is_empty() { state.to_owned() } else { format!("{state} ({note})") }
}

/// Labels of an instance without those that have a column of their own.
pub(super) fn labels(all: &std::collections::BTreeMap<String, String>) -> String {
    let own = ["region", "node", "protocol"];
    text::labels(all.iter().filter(|(key, _)| !own.contains(&key.as_str())))
}
