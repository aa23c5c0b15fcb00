//! `grpc.health.v1`: whether this node serves, and whether services of the network can be reached.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use prost::Message;
use tokio::sync::watch;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::dispatch::{Call, decode};
use super::failure::Failure;
use super::reply::Reply;
use super::scope::Scope;
use super::{Config, Own};

pub(super) const NAME: &str = "grpc.health.v1";

/// The service.
pub(super) struct Health {
    config: Arc<Config>,
    draining: watch::Receiver<bool>,
}

impl Health {
    /// `draining` turns true once.
    pub(super) fn new(config: Arc<Config>, draining: watch::Receiver<bool>) -> Self {
        Self { config, draining }
    }

    pub(super) fn call(&self, call: &Call, message: Bytes) -> Reply {
        let request: HealthCheckRequest = match decode(NAME, message) {
            Ok(request) => request,
            Err(failure) => return Reply::now::<HealthCheckResponse>(Err(failure)),
        };
        match call.method.as_str() {
            "Watch" => Reply::Many(self.watch(call.scope.clone(), request.service)),
            _ => {
                let status =
                    status(&self.config, *self.draining.borrow(), &call.scope, &request.service);
                Reply::now(if status == ServingStatus::ServiceUnknown {
                    Err(Failure::plain(Code::NotFound, "unknown service"))
                } else {
                    Ok(HealthCheckResponse { status: status.into() })
                })
            }
        }
    }

    /// What it is now, and each time it is something else; ends with the node.
    fn watch(&self, scope: Scope, service: String) -> BoxStream<'static, Result<Bytes, Failure>> {
        struct Watcher {
            config: Arc<Config>,
            scope: Scope,
            service: String,
            routes: watch::Receiver<u64>,
            draining: watch::Receiver<bool>,
            told: Option<ServingStatus>,
        }
        let watcher = Watcher {
            routes: self.config.routes.changed(),
            draining: self.draining.clone(),
            config: Arc::clone(&self.config),
            scope,
            service,
            told: None,
        };
        Box::pin(stream::unfold(watcher, |mut watcher| async move {
            loop {
                let Watcher { config, scope, service, .. } = &watcher;
                let draining = *watcher.draining.borrow();
                let status = status(config, draining, scope, service);
                if watcher.told != Some(status) {
                    watcher.told = Some(status);
                    let message = HealthCheckResponse { status: status.into() };
                    return Some((Ok(message.encode_to_vec().into()), watcher));
                }
                if draining {
                    return None;
                }
                // Both are safe to cancel: neither marks a change as seen before it is ready.
                tokio::select! {
                    changed = watcher.routes.changed() => changed.ok()?,
                    changed = watcher.draining.changed() => changed.ok()?,
                }
            }
        }))
    }
}

/// Of this node for the empty name and our own names, by struct or without; of the network for any
/// other.
fn status(config: &Config, draining: bool, scope: &Scope, service: &str) -> ServingStatus {
    let without_struct = service.rsplit_once('.').map_or("", |(name, _)| name);
    if service.is_empty() || Own::has(service) || Own::has(without_struct) {
        return match draining {
            true => ServingStatus::NotServing,
            false => ServingStatus::Serving,
        };
    }
    let routes = config.routes.load();
    let mut known = false;
    for name in scope.meant(service).unwrap_or_default() {
        if let Some(found) = routes.service(name.as_str()) {
            known = true;
            if found.instances.iter().any(|instance| instance.cost.is_finite()) {
                return ServingStatus::Serving;
            }
        }
    }
    if known { ServingStatus::NotServing } else { ServingStatus::ServiceUnknown }
}
