//! The registries of others that this node watches.

use std::sync::Arc;

use axum::extract::State;

use super::answer::{Answer, list};
use crate::api;
use crate::backend::Watched;
use crate::node::Node;

/// `GET /v1/backends`.
pub(super) async fn backends(
    State(node): State<Arc<Node>>,
) -> Answer<api::Items<api::BackendItem>> {
    list("BackendList", node.backends.iter().map(item).collect())
}

fn item(watched: &Watched) -> api::BackendItem {
    let (backend, shown) = (&watched.backend, watched.shown());
    let skipped =
        |(key, why): &(String, String)| api::Skipped { key: key.clone(), why: why.clone() };
    api::BackendItem {
        name: backend.name.clone(),
        kind: backend.kind.word().to_owned(),
        address: backend.kind.place(),
        state: shown.word.as_str().to_owned(),
        since_ms: u64::try_from(shown.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        why: shown.why.clone(),
        detail: shown.detail.clone(),
        entries: shown.counts.entries,
        offered: shown.counts.offered,
        held: shown.counts.held,
        skipped: shown.counts.skipped,
        examples: shown.counts.examples.iter().map(skipped).collect(),
    }
}
