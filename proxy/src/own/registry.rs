//! `go.micro.registry`: who serves what, and where.
//!
//! What is listed is what can be reached now: a node behind a broken link is not handed to a
//! program that would only fail on it. Its return is an update, its loss a delete.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::micro::registry as pb;
use proto::record::{Endpoint, Protocol, ValueType};
use proto::{LabelSet, ServiceName};
use router::{Instance, Routes, ServiceRoutes, VersionInfo};

use super::Config;
use super::changes::{self, Kind as Happened, View};
use super::debug::unix_nanos;
use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::registration;
use super::reply::Reply;
use super::scope::Scope;
use super::watch::{Teller, Which, watch};
use crate::registrar::RegistrarError;
use crate::routes::Published;

pub(super) const NAME: &str = "go.micro.registry";

/// How long an accepted registration is waited for in the published routes, so that a program reads
/// what it wrote. It comes within milliseconds; a router too busy for that must not hold programs.
const SETTLE: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct Registry {
    config: Arc<Config>,
}

impl Registry {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    pub(super) fn call(&self, call: &Call, message: Bytes) -> Reply {
        let routes = &self.config.routes;
        match call.method.as_str() {
            "GetService" => Reply::now(
                decode(NAME, message)
                    .and_then(|request| get(&routes.signed(), &call.scope, &request)),
            ),
            "ListServices" => {
                Reply::now(decode(NAME, message).and_then(|request: pb::ListRequest| {
                    Ok(list(&routes.signed(), &within(&call.scope, request.options.as_ref())?))
                }))
            }
            "Register" => {
                let (config, scope) = (Arc::clone(&self.config), call.scope.clone());
                Reply::later(async move {
                    register(&config, &scope, decode(NAME, message)?).await?;
                    Ok(pb::EmptyResponse {})
                })
            }
            "Deregister" => {
                let (config, scope) = (Arc::clone(&self.config), call.scope.clone());
                Reply::later(async move {
                    deregister(&config, &scope, decode(NAME, message)?).await?;
                    Ok(pb::EmptyResponse {})
                })
            }
            "Watch" => {
                let which = decode(NAME, message).and_then(|request: pb::WatchRequest| {
                    which(&within(&call.scope, request.options.as_ref())?, &request.service)
                });
                match which {
                    Ok(which) => {
                        let teller = Teller { network: self.config.network.clone(), signed: true };
                        Reply::Many(watch(routes, which, teller, tell))
                    }
                    Err(failure) => Reply::Once(Box::pin(std::future::ready(Err(failure)))),
                }
            }
            _ => Reply::now::<pb::EmptyResponse>(Err(Failure::new(
                NAME,
                Kind::NotImplemented,
                "not offered",
            ))),
        }
    }
}

fn bad(why: impl ToString) -> Failure {
    Failure::new(NAME, Kind::BadRequest, why.to_string())
}

/// The namespace that is meant.
fn within(scope: &Scope, options: Option<&pb::Options>) -> Result<Scope, Failure> {
    scope.or_domain(options.map(|options| options.domain.as_str())).map_err(bad)
}

/// All versions of the first service that the caller may mean and that can be reached.
fn get(
    routes: &Routes,
    scope: &Scope,
    request: &pb::GetRequest,
) -> Result<pb::GetResponse, Failure> {
    let scope = within(scope, request.options.as_ref())?;
    let mut known = false;
    for name in scope.meant(&request.service).map_err(bad)? {
        let Some(service) = routes.service(name.as_str()) else { continue };
        known = true;
        let services = versions(service);
        if !services.is_empty() {
            return Ok(pb::GetResponse { services });
        }
    }
    let name = &request.service;
    let why = match known {
        true => format!("service {name}: no instance can be reached now"),
        false => format!("service {name}: not found"),
    };
    Err(Failure::new(NAME, Kind::NotFound, why))
}

/// Names and versions of what can be reached.
fn list(routes: &Routes, scope: &Scope) -> pb::ListResponse {
    let mut found = BTreeSet::new();
    for service in routes.services().filter(|service| scope.sees(&service.name)) {
        let reachable = service.instances.iter().filter(|instance| instance.cost.is_finite());
        found.extend(reachable.map(|instance| (service.name.name(), &*instance.version)));
    }
    let service = |(name, version): (&str, &str)| pb::Service {
        name: name.to_owned(),
        version: version.to_owned(),
        ..Default::default()
    };
    pb::ListResponse { services: found.into_iter().map(service).collect() }
}

async fn register(config: &Config, scope: &Scope, service: pb::Service) -> Result<(), Failure> {
    for registration in registration::read(scope, service).map_err(bad)? {
        let name = registration.service.clone();
        let id = registration.instance.id.clone();
        let taken = config.registrar.register(registration).await;
        taken.map_err(|error| Failure::of_registrar(NAME, &error))?;
        settle(&config.routes, |routes| is_here(routes, &name, &id)).await;
    }
    Ok(())
}

/// What is not there is deregistered already.
async fn deregister(config: &Config, scope: &Scope, service: pb::Service) -> Result<(), Failure> {
    let (name, version, mut ids) = registration::read_away(scope, service).map_err(bad)?;
    if ids.is_empty() {
        ids = here(&config.routes.load_full(), &name, version.as_deref());
    }
    for id in ids {
        match config.registrar.deregister(name.clone(), version.clone(), id.clone()).await {
            Ok(()) => settle(&config.routes, |routes| !is_here(routes, &name, &id)).await,
            Err(RegistrarError::NotFound) => {}
            Err(error) => return Err(Failure::of_registrar(NAME, &error)),
        }
    }
    Ok(())
}

pub(super) fn is_here(routes: &Routes, name: &ServiceName, id: &str) -> bool {
    let service = routes.service(name.as_str());
    service.is_some_and(|of| of.instances.iter().any(|one| one.here && &*one.id == id))
}

/// The instances of this node.
fn here(routes: &Routes, name: &ServiceName, version: Option<&str>) -> Vec<String> {
    let instances = routes.service(name.as_str()).map(|service| Arc::clone(&service.instances));
    let ours = |one: &&Instance| one.here && version.is_none_or(|wanted| *one.version == *wanted);
    instances.iter().flat_map(|all| all.iter()).filter(ours).map(|one| one.id.to_string()).collect()
}

/// Waits until the published routes are as they should be, or for [`SETTLE`].
pub(super) async fn settle(published: &Published, done: impl Fn(&Routes) -> bool) {
    let mut changed = published.changed();
    let settled = async {
        while !done(&published.load_full()) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    };
    if tokio::time::timeout(SETTLE, settled).await.is_err() {
        tracing::debug!("a registration was accepted and is not in the routes yet");
    }
}

fn which(scope: &Scope, service: &str) -> Result<Which, Failure> {
    Ok(match service {
        "" | "*" => Which::Seen(scope.clone()),
        name => Which::Named(scope.meant(name).map_err(bad)?),
    })
}

fn tell(
    _: &Teller,
    old: Option<&ServiceRoutes>,
    new: Option<&ServiceRoutes>,
    _: &Routes,
) -> Vec<Bytes> {
    let Some(name) = new.or(old).map(|service| service.name.name()) else { return Vec::new() };
    let timestamp = unix_nanos();
    let result = |change: changes::Change<'_>| pb::Result {
        action: match change.kind {
            Happened::Create => "create",
            Happened::Update => "update",
            Happened::Delete => "delete",
        }
        .to_owned(),
        service: Some(version(name, change.version, change.info, &change.instances)),
        timestamp,
    };
    let changes = changes::of(old, new, View::Registry).into_iter();
    changes.map(|change| result(change).encode_to_vec().into()).collect()
}

/// A service as go-micro has it, one a version, in the order of versions.
fn versions(service: &ServiceRoutes) -> Vec<pb::Service> {
    let reachable = || service.instances.iter().filter(|instance| instance.cost.is_finite());
    let all: BTreeSet<&str> = reachable().map(|instance| &*instance.version).collect();
    let one = |of: &str| {
        let instances: Vec<_> = reachable().filter(|instance| &*instance.version == of).collect();
        version(service.name.name(), of, changes::info(Some(service), of), &instances)
    };
    all.into_iter().map(one).collect()
}

fn version(
    name: &str,
    version: &str,
    info: Option<&VersionInfo>,
    instances: &[&Instance],
) -> pb::Service {
    pb::Service {
        name: name.to_owned(),
        version: version.to_owned(),
        metadata: info.map(|info| pairs(&info.metadata)).unwrap_or_default(),
        endpoints: info
            .map(|info| info.endpoints.iter().map(endpoint).collect())
            .unwrap_or_default(),
        nodes: instances.iter().map(|instance| node(instance)).collect(),
        options: None,
    }
}

/// A node always says what it speaks: to go-micro, one that does not speaks an envelope that nobody
/// else does.
fn node(instance: &Instance) -> pb::Node {
    let mut metadata = pairs(&instance.metadata);
    if !matches!(instance.protocol, Protocol::Other(_)) {
        let protocol = || instance.protocol.name().to_owned();
        metadata.entry("protocol".to_owned()).or_insert_with(protocol);
    }
    pb::Node {
        id: instance.id.to_string(),
        address: instance.address.to_string(),
        port: 0,
        metadata,
    }
}

fn endpoint(endpoint: &Endpoint) -> pb::Endpoint {
    pb::Endpoint {
        name: endpoint.name.clone(),
        request: endpoint.request.as_ref().map(value),
        response: endpoint.response.as_ref().map(value),
        metadata: pairs(&endpoint.metadata),
    }
}

fn value(shape: &ValueType) -> pb::Value {
    pb::Value {
        name: shape.name.clone(),
        r#type: shape.kind.clone(),
        values: shape.values.iter().map(value).collect(),
    }
}

fn pairs(labels: &LabelSet) -> std::collections::BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}
