//! `go.micro.router`: routes as this node knows them, and their changes.
//!
//! A metric is the expected round trip in microseconds, with what has to be waited for on the way;
//! 2^63-1 when there is no way, which go-micro's command line prints as the infinity sign. Zero is
//! this node itself. Routes are made here from signed records alone, so what other routers would
//! tell (`Advertise`, `Process`, and the writing half of the table) is not taken.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::micro::router as pb;
use router::{Instance, Routes, ServiceRoutes};

use super::Config;
use super::changes::{self, Kind as Happened, View};
use super::debug::unix_nanos;
use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;
use super::scope::Scope;
use super::watch::{Teller, Which, watch};

pub(super) const NAME: &str = "go.micro.router";

/// The service, both of its structs.
pub(super) struct Router {
    config: Arc<Config>,
}

impl Router {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    pub(super) fn call(&self, structure: &str, call: &Call, message: Bytes) -> Reply {
        let find = |wanted: Wanted<'_>| routes(&self.config, &call.scope, &wanted);
        match (structure, call.method.as_str()) {
            ("Router", "Lookup") => {
                Reply::now(decode(NAME, message).map(|request: pb::LookupRequest| {
                    let query = request.query.unwrap_or_default();
                    pb::LookupResponse { routes: find(Wanted::of(&query)) }
                }))
            }
            ("Table", "Query") => {
                Reply::now(decode(NAME, message).map(|request: pb::QueryRequest| {
                    let query = request.query.unwrap_or_default();
                    pb::QueryResponse { routes: find(Wanted::of(&query)) }
                }))
            }
            ("Table", "List") => {
                Reply::now(Ok(pb::ListResponse { routes: find(Wanted::default()) }))
            }
            ("Router", "Watch") => {
                let teller = Teller { network: self.config.network.clone() };
                let which = Which::Seen(call.scope.clone());
                Reply::Many(watch(&self.config.routes, which, teller, tell))
            }
            (structure, method) => {
                let why = format!(
                    "{structure}.{method}: routes here come from signed records of nodes alone; \
                     register a service, and join the network to share routes"
                );
                Reply::now::<pb::Response>(Err(Failure::new(NAME, Kind::NotImplemented, why)))
            }
        }
    }
}

/// Which routes are asked for: empty and `*` are any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) service: &'a str,
    pub(super) address: &'a str,
    pub(super) gateway: &'a str,
    pub(super) router: &'a str,
    pub(super) network: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(query: &'a pb::Query) -> Self {
        let (gateway, network) = (query.gateway.as_str(), query.network.as_str());
        Self { service: query.service.as_str(), gateway, network, ..Self::default() }
    }

    fn takes(&self, route: &pb::Route) -> bool {
        [
            (self.address, &route.address),
            (self.gateway, &route.gateway),
            (self.router, &route.router),
            (self.network, &route.network),
        ]
        .into_iter()
        .all(|(wanted, found)| is_any(wanted) || wanted == found)
    }
}

fn is_any(wanted: &str) -> bool {
    matches!(wanted, "" | "*")
}

/// The routes that a caller may see and asks for, those of a service together, nearest first.
pub(super) fn routes(config: &Config, scope: &Scope, wanted: &Wanted<'_>) -> Vec<pb::Route> {
    let snapshot = config.routes.load_full();
    let of = |service: &ServiceRoutes| {
        let routes = service.instances.iter();
        let routes = routes.map(|one| route(&config.network, &snapshot, service, one));
        routes.filter(|route| wanted.takes(route)).collect::<Vec<_>>()
    };
    if is_any(wanted.service) {
        let seen = snapshot.services().filter(|one| scope.sees(&one.name));
        return seen.flat_map(|service| of(service)).collect();
    }
    // What is no name is the name of nothing.
    let names = scope.meant(wanted.service).unwrap_or_default();
    names.iter().filter_map(|name| snapshot.service(name.as_str())).flat_map(of).collect()
}

fn route(
    network: &str,
    routes: &Routes,
    service: &ServiceRoutes,
    instance: &Instance,
) -> pb::Route {
    let next = routes.node(&instance.node).and_then(|node| node.next);
    pb::Route {
        service: service.name.name().to_owned(),
        address: instance.address.to_string(),
        gateway: match (instance.here, next) {
            (false, Some(next)) => next.to_string(),
            (true, _) | (false, None) => String::new(),
        },
        network: network.to_owned(),
        router: instance.node.to_string(),
        link: if instance.here { "local" } else { "network" }.to_owned(),
        metric: match instance.cost.is_finite() {
            true => i64::from(instance.cost.as_micros()),
            false => i64::MAX,
        },
    }
}

fn tell(
    teller: &Teller,
    old: Option<&ServiceRoutes>,
    new: Option<&ServiceRoutes>,
    routes: &Routes,
) -> Vec<Bytes> {
    let Some(service) = new.or(old) else { return Vec::new() };
    let timestamp = unix_nanos();
    let mut events = Vec::new();
    for change in changes::of(old, new, View::Routes) {
        for instance in change.instances {
            let known = old.is_some_and(|old| holds(old, instance));
            let kind = match (change.kind, known) {
                (Happened::Delete, _) => pb::EventType::Delete,
                (Happened::Create | Happened::Update, true) => pb::EventType::Update,
                (Happened::Create | Happened::Update, false) => pb::EventType::Create,
            };
            let route = route(&teller.network, routes, service, instance);
            let id = format!("{}-{}", routes.generation(), instance.id);
            let event = pb::Event { id, r#type: kind.into(), timestamp, route: Some(route) };
            events.push(event.encode_to_vec().into());
        }
    }
    events
}

/// Whether a route to the same instance was there: to a watcher of routes a version says nothing.
fn holds(old: &ServiceRoutes, instance: &Instance) -> bool {
    let same = |one: &&Instance| one.node == instance.node && one.id == instance.id;
    old.instances.iter().find(same).is_some_and(|one| one.version == instance.version)
}
