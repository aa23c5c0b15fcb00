//! `go.micro.router`: routes as this node knows them, their changes, and the table in which local
//! programs write routes of their own.
//!
//! A metric is the expected round trip in microseconds, with what has to be waited for on the way;
//! 2^63-1 when there is no way, which go-micro's command line prints as the infinity sign. Zero is
//! this node itself.
//!
//! What a program writes (`Table`, `Process`) counts for calls that come in at this node, and is told
//! to nobody: routes of the network come from signed records alone. It is written over the loopback by
//! programs of the user who runs the node, and lasts until it is deleted or the node stops; what
//! `Process` brings lasts for the time its advert says.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::micro::{router as pb, router_v3 as v3};
use proto::name::WILDCARD;
use proto::{Cost, ServiceName};
use router::{Instance, Routes, ServiceRoutes};
use tokio::time::Instant;

use super::Config;
use super::changes::{self, Kind as Happened, View};
use super::debug::unix_nanos;
use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;
use super::scope::Scope;
use super::watch::{Teller, Which, watch};
use crate::statics::{Key, MAX_STATICS, Refused, Static, Statics, is_static, ttl};

pub(super) const NAME: &str = "go.micro.router";

/// The service, both of its structs.
pub(super) struct Router {
    config: Arc<Config>,
}

impl Router {
    pub(super) fn new(config: Arc<Config>) -> Self {
        Self { config }
    }

    pub(super) fn network_name(&self) -> &str {
        &self.config.network
    }

    pub(super) fn call(&self, structure: &str, call: &Call, message: Bytes) -> Reply {
        let find = |wanted: Wanted<'_>| routes(&self.config, &call.scope, &wanted);
        match (structure, call.method.as_str()) {
            ("Router", "Lookup") => {
                Reply::now(decode(NAME, message).map(|request: pb::LookupRequest| {
                    let query = request.query.unwrap_or_default();
                    let wanted = Wanted::of(&query);
                    let mut routes = find(wanted);
                    if routes.is_empty() && !is_any(wanted.service) {
                        // As a call would: by what leads to names that nobody offers.
                        routes = default_routes(&self.config, &wanted);
                    }
                    pb::LookupResponse { routes }
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
                let teller = Teller { network: self.config.network.clone(), signed: false };
                let which = Which::Seen(call.scope.clone());
                Reply::Many(watch(&self.config.routes, which, teller, tell))
            }
            ("Router", "Advertise") => self.advertise(call),
            ("Router", "Process") => self.write(call, message, |advert, config| {
                process(config, advert).map(|()| pb::ProcessResponse {})
            }),
            ("Table", "Create") => self.write(call, message, |route, config| {
                change(config, route, Statics::create).map(|()| pb::CreateResponse {})
            }),
            ("Table", "Update") => self.write(call, message, |route, config| {
                change(config, route, Statics::update).map(|()| pb::UpdateResponse {})
            }),
            ("Table", "Delete") => self.write(call, message, |route, config| {
                let delete = |all: &mut Statics, route: Static, _: &Routes| all.delete(&route.key);
                change(config, route, delete).map(|()| pb::DeleteResponse {})
            }),
            (structure, method) => {
                let why = format!("unknown service {structure}.{method}");
                Reply::now::<pb::Response>(Err(Failure::new(NAME, Kind::NotImplemented, why)))
            }
        }
    }

    /// The methods that v3 asks for in other words.
    pub(super) fn call_v3(&self, structure: &str, call: &Call, message: Bytes) -> Reply {
        let find = |wanted: Wanted<'_>| routes(&self.config, &call.scope, &wanted);
        match (structure, call.method.as_str()) {
            ("Router", "Lookup") => {
                Reply::now(decode(NAME, message).map(|request: v3::LookupRequest| {
                    let options = request.options.unwrap_or_default();
                    let mut routes = find(Wanted {
                        service: &request.service,
                        address: &options.address,
                        gateway: &options.gateway,
                        router: &options.router,
                        network: &options.network,
                    });
                    let link = &options.link;
                    routes.retain(|route| is_any(link) || route.link == *link);
                    v3::LookupResponse { routes }
                }))
            }
            ("Table", "Read") => {
                Reply::now(decode(NAME, message).map(|request: v3::ReadRequest| {
                    let wanted = Wanted { service: &request.service, ..Wanted::default() };
                    v3::ReadResponse { routes: find(wanted) }
                }))
            }
            _ => self.call(structure, call, message),
        }
    }

    /// Writes what a message says, if its caller may.
    fn write<M: Message + Default, A: Message>(
        &self,
        call: &Call,
        message: Bytes,
        write: impl FnOnce(M, &Arc<Config>) -> Result<A, Failure>,
    ) -> Reply {
        if !call.of_owner {
            let why =
                "routes are written by programs of the user who runs the node, over the loopback";
            return Reply::now::<A>(Err(Failure::new(NAME, Kind::Forbidden, why)));
        }
        Reply::now(decode(NAME, message).and_then(|message| write(message, &self.config)))
    }

    /// What this node offers, whole, and then its changes.
    fn advertise(&self, call: &Call) -> Reply {
        let teller = Teller { network: self.config.network.clone(), signed: false };
        let which = Which::Seen(call.scope.clone());
        let changes = watch(&self.config.routes, which, teller, advertised);
        let all = routes(&self.config, &call.scope, &Wanted::default());
        let local = all.into_iter().filter(|route| route.link == LOCAL);
        let events = local.map(|route| event(String::new(), pb::EventType::Create, route));
        let me = self.config.me.to_string();
        let first = advert(me, pb::AdvertType::AdvertAnnounce, events.collect());
        let first = futures_util::stream::iter([Ok(first)]);
        Reply::Many(Box::pin(futures_util::StreamExt::chain(first, changes)))
    }
}

/// What `link` says of a route of this node.
const LOCAL: &str = "local";
/// How long an advert counts: go-micro's own two minutes, in nanoseconds.
const ADVERT_TTL: i64 = 120_000_000_000;
/// Events of one advert that are looked at; go-micro sends some hundred.
const MAX_EVENTS: usize = MAX_STATICS;

fn advert(id: String, kind: pb::AdvertType, events: Vec<pb::Event>) -> Bytes {
    let (timestamp, ttl) = (unix_nanos(), ADVERT_TTL);
    pb::Advert { id, r#type: kind.into(), timestamp, ttl, events }.encode_to_vec().into()
}

fn event(id: String, kind: pb::EventType, route: pb::Route) -> pb::Event {
    pb::Event { id, r#type: kind.into(), timestamp: unix_nanos(), route: Some(route) }
}

/// Changes the table by one route.
fn change(
    config: &Config,
    route: pb::Route,
    change: impl FnOnce(&mut Statics, Static, &Routes) -> Result<(), Refused>,
) -> Result<(), Failure> {
    let route = read(config, route, None).map_err(refused)?;
    config.routes.change(|all, routes| change(all, route, routes)).map_err(refused)
}

/// Takes the routes that another router tells, for as long as it says. All of them or none.
fn process(config: &Arc<Config>, advert: pb::Advert) -> Result<(), Failure> {
    if advert.id == config.me.to_string() {
        // Our own come back to us.
        return Ok(());
    }
    if advert.events.len() > MAX_EVENTS {
        let why = format!("an advert has at most {MAX_EVENTS} events");
        return Err(Failure::new(NAME, Kind::TooLarge, why));
    }
    let until = Some(Instant::now() + ttl(advert.ttl));
    let mut events = advert.events;
    events.sort_by_key(|event| event.timestamp);
    let mut changes = Vec::with_capacity(events.len());
    for event in events {
        let kind = event.r#type();
        let Some(route) = event.route else { continue };
        changes.push((kind, read(config, route, until).map_err(refused)?));
    }
    let done = config.routes.change(|all, routes| {
        let mut next = all.clone();
        for (kind, route) in changes {
            match kind {
                pb::EventType::Create | pb::EventType::Update => next.update(route, routes)?,
                // What is not there is gone already.
                pb::EventType::Delete => drop(next.delete(&route.key)),
            }
        }
        *all = next;
        Ok(())
    });
    done.map_err(refused)?;
    tokio::spawn(Arc::clone(&config.routes).expire());
    Ok(())
}

/// A route as a program writes it. What the client library of go-micro drops is this node's own.
fn read(config: &Config, route: pb::Route, until: Option<Instant>) -> Result<Static, Refused> {
    let or = |text: String, usual: &dyn Fn() -> String| {
        if text.is_empty() { usual() } else { text }
    };
    let service = match &*route.service {
        "*" => ServiceName::wildcard(),
        name => name.parse()?,
    };
    let key = Key {
        service,
        address: route.address,
        gateway: route.gateway,
        network: or(route.network, &|| config.network.clone()),
        router: or(route.router, &|| config.me.to_string()),
        link: or(route.link, &|| LOCAL.to_owned()),
    };
    Ok(Static { key, metric: route.metric, until })
}

fn refused(why: Refused) -> Failure {
    let kind = match why {
        Refused::NotFound => Kind::NotFound,
        Refused::TooMany => Kind::TooMany,
        Refused::Name(_)
        | Refused::Address(_)
        | Refused::Gateway(_)
        | Refused::Field
        | Refused::Exists => Kind::BadRequest,
    };
    Failure::new(NAME, kind, why.to_string())
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

/// The routes to names that nobody offers.
fn default_routes(config: &Config, wanted: &Wanted<'_>) -> Vec<pb::Route> {
    let snapshot = config.routes.load_full();
    let Some(all) = snapshot.service(WILDCARD) else { return Vec::new() };
    let routes = all.instances.iter().map(|one| route(&config.network, &snapshot, all, one));
    routes.filter(|route| wanted.takes(route)).collect()
}

fn metric(cost: Cost) -> i64 {
    if cost.is_finite() { i64::from(cost.as_micros()) } else { i64::MAX }
}

fn route(
    network: &str,
    routes: &Routes,
    service: &ServiceRoutes,
    instance: &Instance,
) -> pb::Route {
    if is_static(instance) {
        // As it was written.
        let text = |key| instance.metadata.get(key).unwrap_or_default().to_owned();
        return pb::Route {
            service: service.name.name().to_owned(),
            address: text("address"),
            gateway: text("gateway"),
            network: text("network"),
            router: text("router"),
            link: text("link"),
            metric: metric(instance.cost),
            metadata: BTreeMap::new(),
        };
    }
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
        link: if instance.here { LOCAL } else { "network" }.to_owned(),
        metric: metric(instance.cost),
        metadata: instance.metadata.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
    }
}

fn tell(
    teller: &Teller,
    old: Option<&ServiceRoutes>,
    new: Option<&ServiceRoutes>,
    routes: &Routes,
) -> Vec<Bytes> {
    events(teller, old, new, routes).iter().map(|event| event.encode_to_vec().into()).collect()
}

/// The same, of routes of this node alone, as one advert.
fn advertised(
    teller: &Teller,
    old: Option<&ServiceRoutes>,
    new: Option<&ServiceRoutes>,
    routes: &Routes,
) -> Vec<Bytes> {
    let mut events = events(teller, old, new, routes);
    events.retain(|event| event.route.as_ref().is_some_and(|route| route.link == LOCAL));
    if events.is_empty() {
        return Vec::new();
    }
    vec![advert(routes.me().to_string(), pb::AdvertType::AdvertUpdate, events)]
}

fn events(
    teller: &Teller,
    old: Option<&ServiceRoutes>,
    new: Option<&ServiceRoutes>,
    routes: &Routes,
) -> Vec<pb::Event> {
    let Some(service) = new.or(old) else { return Vec::new() };
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
            events.push(event(id, kind, route));
        }
    }
    events
}

/// Whether a route to the same instance was there: to a watcher of routes a version says nothing.
fn holds(old: &ServiceRoutes, instance: &Instance) -> bool {
    let same = |one: &&Instance| one.node == instance.node && one.id == instance.id;
    old.instances.iter().find(same).is_some_and(|one| one.version == instance.version)
}
