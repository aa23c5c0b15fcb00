//! `micro services`: what can be called.

use clap::Args;

use super::Global;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing};

const COLUMNS: &[Column] = &[
    Column::new("SERVICE"),
    Column::new("INSTANCES"),
    Column::new("REGIONS"),
    Column::new("PROTOCOL"),
    Column::new("ENDPOINTS"),
    Column::new("LABELS"),
    Column::wide("VERSIONS"),
    Column::wide("NOT WELL"),
];

/// `micro services`
#[derive(Debug, Args)]
pub struct ServicesArgs {}

/// Prints the services.
///
/// # Errors
/// M6010 when no node runs here.
pub async fn run(_args: ServicesArgs, global: &Global) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = global.client()?.get("/v1/services").await?;
    let items = client::read(document["items"].take())?;
    let rows = rows(client::read(serde_json::Value::Array(Vec::clone(&items)))?);
    let empty = "no services are visible on this network: nothing has registered or been exposed\n\
                 try: micro serve greeter"
        .to_owned();
    global.output().list(Listing { kind: "ServiceList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

fn rows(services: Vec<api::ServiceItem>) -> Vec<Vec<String>> {
    let row = |service: api::ServiceItem| {
        let mut instances = if service.reachable == service.instances {
            service.instances.to_string()
        } else {
            format!("{} of {}", service.reachable, service.instances)
        };
        if !service.unhealthy.is_empty() {
            instances.push_str(&format!(" ({} not well)", service.unhealthy.len()));
        }
        let mut labels = super::routes::labels(&service.labels);
        if labels.is_empty() && service.versions.len() == 1 {
            labels = format!("version={}", service.versions[0]);
        }
        vec![
            service.name,
            instances,
            service.regions.join(","),
            service.protocols.join(","),
            service.endpoints.to_string(),
            labels,
            service.versions.join(","),
            service.unhealthy.join("; "),
        ]
    };
    services.into_iter().map(row).collect()
}
