//! `micro registry`: what is registered, and the registries of others that a node watches.

use std::time::Duration;

use clap::Subcommand;

use super::{Global, describe, services};
use crate::api;
use crate::client;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing};

const COLUMNS: &[Column] = &[
    Column::new("BACK END"),
    Column::new("KIND"),
    Column::new("ADDRESS"),
    Column::new("STATE"),
    Column::new("ENTRIES"),
    Column::new("OFFERED"),
    Column::new("SKIPPED"),
    Column::new("SINCE"),
    Column::new("NOTE"),
    Column::wide("SKIPPED ENTRIES"),
];

/// `micro registry …`
#[derive(Debug, Subcommand)]
pub enum RegistryCommand {
    /// Registries of others that this node watches: file, etcd, mdns, consul, kubernetes.
    Backends,
    /// What is registered on the network; the same as `micro services`.
    Ls(services::ServicesArgs),
    /// One service; the same as `micro describe`.
    Get(describe::DescribeArgs),
}

/// Does what was typed behind `micro registry`.
///
/// # Errors
/// M6010 when no node runs here, M1203 when nobody offers a service.
pub async fn run(command: RegistryCommand, global: &Global) -> Result<Exit, Problem> {
    match command {
        RegistryCommand::Backends => backends(global).await,
        RegistryCommand::Ls(args) => services::run(args, global).await,
        RegistryCommand::Get(args) => describe::run(args, global).await,
    }
}

async fn backends(global: &Global) -> Result<Exit, Problem> {
    let mut document: serde_json::Value = global.client()?.get("/v1/backends").await?;
    let items = client::read(document["items"].take())?;
    let all: Vec<api::BackendItem> = client::read(serde_json::Value::Array(Vec::clone(&items)))?;
    let rows = all.into_iter().map(row).collect();
    let empty = "this node watches no registry of others\n\
                 try: MICRO_NODE_REGISTRY_BACKEND=etcd=HOST:2379 micro network"
        .to_owned();
    global.output().list(Listing { kind: "BackendList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

fn row(one: api::BackendItem) -> Vec<String> {
    let named = |skipped: &api::Skipped| format!("{}: {}", skipped.key, skipped.why);
    let note = match (&one.why, one.examples.first()) {
        (Some(why), _) => why.clone(),
        (None, Some(first)) => named(first),
        (None, None) if one.held > 0 => format!("{} held back: they come and go", one.held),
        (None, None) => String::new(),
    };
    // Whole seconds are enough for people.
    let since = Duration::from_secs(one.since_ms / 1000);
    vec![
        one.name,
        one.kind,
        one.address,
        one.state,
        one.entries.to_string(),
        one.offered.to_string(),
        one.skipped.to_string(),
        duration::show(since),
        note,
        one.examples.iter().map(named).collect::<Vec<_>>().join("; "),
    ]
}
