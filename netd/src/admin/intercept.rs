//! Connections to names that the kernel leads here.

use std::sync::Arc;

use axum::extract::State;

use super::answer::{self, Answer, Body, malformed};
use crate::api;
use crate::intercept::{Active, Intercept, Scope, rules};
use crate::node::Node;

/// Users of one request.
const MAX_USERS: usize = 64;

/// `GET /v1/intercept`.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Answer<api::Items<api::InterceptItem>> {
    answer::list("InterceptList", node.intercept.list().await.into_iter().map(item).collect())
}

/// `POST /v1/intercept`: what is led here from now on, or was.
pub(super) async fn change(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::InterceptRequest>,
) -> Answer<api::Items<api::InterceptItem>> {
    if ask.users.len() > MAX_USERS {
        return Err(malformed(&format!("at most {MAX_USERS} users are named")));
    }
    let scope = Scope { users: ask.users, namespace: ask.namespace.map(Into::into) };
    let items = match (ask.on, ask.dry_run) {
        (true, false) => vec![node.intercept.on(scope).await?],
        (true, true) => {
            let changes = Intercept::plan(&scope);
            vec![Active { scope, v6: true, changes }]
        }
        (false, false) => node.intercept.off(scope.namespace.as_deref()).await?,
        (false, true) => node.intercept.list().await,
    };
    answer::list("InterceptList", items.into_iter().map(item).collect())
}

fn item(active: Active) -> api::InterceptItem {
    let namespace = active.scope.namespace.map(|path| path.display().to_string());
    api::InterceptItem {
        dns: namespace.as_ref().map(|_| rules::DNS.to_string()),
        namespace,
        users: active.scope.users,
        ipv6: active.v6,
        changes: active.changes,
    }
}
