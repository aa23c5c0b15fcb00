//! Routes that local programs make through the router face of go-micro, for calls of this node
//! alone: they are in no record, no other node hears of them, and none may come in by them.
//!
//! A route without a gateway leads to an address that this node dials itself; with one, to the
//! instances that the gateway node offers under the name, or to the gateway's address. Routes to
//! `*` are for names that nobody offers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use proto::record::Protocol;
use proto::{Cost, NodeId, ServiceName};
use router::{Instance, InstanceKey, Routes, ServiceRoutes};
use tokio::time::Instant;

/// Routes at most; a further one is refused.
pub(crate) const MAX_STATICS: usize = 1024;
/// Bytes of each text of a route.
const MAX_FIELD: usize = 256;
/// The version that instances of such routes have. They are told from all others by being of this
/// very text, which no record can bring.
static STATIC: LazyLock<Arc<str>> = LazyLock::new(|| "static".into());

/// Whether an instance is a route of a local program.
pub(crate) fn is_static(instance: &Instance) -> bool {
    Arc::ptr_eq(&instance.version, &STATIC)
}

/// A route, in the words of go-micro. All but the metric say which route it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The service; `*` for those that nobody offers.
    pub(crate) service: ServiceName,
    /// `host:port`.
    pub(crate) address: String,
    /// A node, by id or name, an address, or nothing.
    pub(crate) gateway: String,
    /// The name of a network; of this one where none is said.
    pub(crate) network: String,
    /// Who made it; this node where none is said.
    pub(crate) router: String,
    /// What is spoken there: `http`, `http2`, and for all other words gRPC.
    pub(crate) link: String,
}

/// A route with what may change of it.
#[derive(Clone, Debug)]
pub(crate) struct Static {
    pub(crate) key: Key,
    /// Microseconds.
    pub(crate) metric: i64,
    /// When it goes by itself.
    pub(crate) until: Option<Instant>,
}

/// Why a route is not taken. The texts go to the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("{0}")]
    Name(#[from] proto::name::BadName),
    #[error("the address of a route is host:port, not {0:?}")]
    Address(String),
    #[error("gateway {0:?} is neither a node of the network nor host:port")]
    Gateway(String),
    #[error("a text of the route is longer than {MAX_FIELD} bytes or has a control character")]
    Field,
    #[error("there are {MAX_STATICS} routes already, which is the limit")]
    TooMany,
    #[error("route already exists")]
    Exists,
    #[error("route not found")]
    NotFound,
}

/// All of them, by what they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statics {
    all: BTreeMap<Key, Static>,
    /// Counts changes: what is made of them is never taken for what was made before.
    version: u64,
    expiring: bool,
}

impl Statics {
    /// Adds a route.
    ///
    /// # Errors
    /// [`Refused::Exists`], and whatever is wrong with it.
    pub(crate) fn create(&mut self, route: Static, routes: &Routes) -> Result<(), Refused> {
        if self.all.contains_key(&route.key) {
            return Err(Refused::Exists);
        }
        self.update(route, routes)
    }

    /// Sets the metric and the time of a route, which is made if it is not there.
    ///
    /// # Errors
    /// [`Refused::TooMany`], and whatever is wrong with it.
    pub(crate) fn update(&mut self, route: Static, routes: &Routes) -> Result<(), Refused> {
        check(&route.key, routes)?;
        if self.all.len() >= MAX_STATICS && !self.all.contains_key(&route.key) {
            return Err(Refused::TooMany);
        }
        self.all.insert(route.key.clone(), route);
        self.version += 1;
        Ok(())
    }

    /// Takes a route away.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub(crate) fn delete(&mut self, key: &Key) -> Result<(), Refused> {
        self.all.remove(key).ok_or(Refused::NotFound)?;
        self.version += 1;
        Ok(())
    }

    /// Takes away what is over; whether anything was.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let before = self.all.len();
        self.all.retain(|_, route| route.until.is_none_or(|until| until > now));
        let gone = self.all.len() < before;
        self.version += u64::from(gone);
        gone
    }

    /// When the next one is over.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.all.values().filter_map(|route| route.until).min()
    }

    pub(crate) fn begin_expiring(&mut self) -> bool {
        !std::mem::replace(&mut self.expiring, true)
    }

    pub(crate) fn end_expiring(&mut self) {
        self.expiring = false;
    }

    /// `routes` with these laid over it.
    pub(crate) fn over(&self, routes: &Arc<Routes>) -> Arc<Routes> {
        if self.all.is_empty() {
            return Arc::clone(routes);
        }
        let names: BTreeSet<&ServiceName> = self.all.keys().map(|key| &key.service).collect();
        let services = names.into_iter().map(|name| (name.clone(), Some(self.laid(name, routes))));
        Arc::new(routes.updated(services, []))
    }

    fn laid(&self, name: &ServiceName, routes: &Routes) -> ServiceRoutes {
        let found = routes.service(name.as_str());
        let mut instances: Vec<Instance> =
            found.map(|found| found.instances.to_vec()).unwrap_or_default();
        let ours = self.all.values().filter(|route| route.key.service == *name);
        instances.extend(ours.map(|route| instance(route, routes)));
        let versions = found.map_or_else(|| Arc::from([]), |found| Arc::clone(&found.versions));
        // Generations of the router are small beside this: no two tables have the same.
        let changed = found.map_or(0, |found| found.changed) ^ self.version.rotate_right(24);
        let laid = ServiceRoutes::new(name.clone(), changed, instances, versions);
        match found.and_then(ServiceRoutes::rules) {
            Some(rules) => {
                let (set, carriers) = (Arc::clone(rules.set()), rules.carriers().to_vec());
                laid.with_carried(set, rules.author(), carriers)
            }
            None => laid,
        }
    }
}

/// The node that a gateway names, if it names one.
pub(crate) fn node_of(text: &str, routes: &Routes) -> Option<NodeId> {
    let by_id = text.parse().ok().filter(|id| routes.node(id).is_some());
    by_id.or_else(|| routes.nodes().find(|node| node.name == text).map(|node| node.id))
}

fn check(key: &Key, routes: &Routes) -> Result<(), Refused> {
    for text in [&key.address, &key.gateway, &key.network, &key.router, &key.link] {
        if text.len() > MAX_FIELD || text.chars().any(char::is_control) {
            return Err(Refused::Field);
        }
    }
    let by_node = node_of(&key.gateway, routes).is_some();
    if !key.gateway.is_empty() && !by_node && !is_host_and_port(&key.gateway) {
        return Err(Refused::Gateway(key.gateway.clone()));
    }
    // Behind a gateway an address is the gateway's business.
    if key.gateway.is_empty() && !is_host_and_port(&key.address) {
        return Err(Refused::Address(key.address.clone()));
    }
    Ok(())
}

fn is_host_and_port(address: &str) -> bool {
    address.parse::<http::uri::Authority>().is_ok_and(|authority| {
        !authority.host().is_empty() && authority.port_u16().is_some_and(|port| port > 0)
    }) && !address.contains('@')
}

fn instance(route: &Static, routes: &Routes) -> Instance {
    let key = &route.key;
    let me = routes.me();
    let gateway = node_of(&key.gateway, routes).filter(|node| *node != me);
    let node = gateway.unwrap_or(me);
    let known = routes.node(&node);
    let metric = u32::try_from(route.metric.max(0)).map_or(Cost::INFINITE, Cost::from_micros);
    let cost = match gateway {
        Some(_) => known.map_or(Cost::INFINITE, |known| known.cost).via(metric),
        None => metric,
    };
    let address = match key.gateway.is_empty() || node_of(&key.gateway, routes).is_some() {
        true => &key.address,
        false => &key.gateway,
    };
    let protocol = match &*key.link {
        "http" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "mucp" => Protocol::Mucp,
        _ => Protocol::Grpc,
    };
    let (name, region) = known.map_or(("", ""), |node| (&*node.name, &*node.region));
    let labels =
        [("node", name), ("region", region), ("protocol", protocol.name()), ("version", &**STATIC)];
    let said = [
        ("address", &*key.address),
        ("gateway", &*key.gateway),
        ("network", &*key.network),
        ("router", &*key.router),
        ("link", &*key.link),
    ];
    let whole = said.map(|(_, text)| text).join("\n");
    Instance {
        key: InstanceKey(proto::rule::stable_hash(key.service.as_str(), &whole)),
        // Any instance of the gateway node will do; here the address says it all.
        id: if gateway.is_some() { Arc::from("") } else { format!("route:{address}").into() },
        node,
        here: gateway.is_none(),
        address: address.as_str().into(),
        protocol,
        version: Arc::clone(&STATIC),
        labels: labels.into_iter().collect(),
        metadata: said.into_iter().collect(),
        cost,
        group: if gateway.is_none() && cost.is_finite() { 0 } else { router::locality(cost) },
    }
}

/// A time to live as an advert says it, nanoseconds, within reason: go-micro's own two minutes where
/// it says none.
pub(crate) fn ttl(nanos: i64) -> Duration {
    const USUAL: Duration = Duration::from_secs(120);
    const MOST: Duration = Duration::from_secs(24 * 3600);
    match u64::try_from(nanos) {
        Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos).min(MOST),
        Ok(_) | Err(_) => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(service: &str, address: &str) -> Static {
        let key = Key {
            service: if service == "*" {
                ServiceName::wildcard()
            } else {
                service.parse().unwrap()
            },
            address: address.into(),
            gateway: String::new(),
            network: "test".into(),
            router: "r".into(),
            link: "local".into(),
        };
        Static { key, metric: 1, until: None }
    }

    fn routes() -> Arc<Routes> {
        Arc::new(Routes::empty(NodeId::from_bytes([1; 32])))
    }

    #[test]
    fn routes_are_laid_over_the_router_s_and_each_change_is_another_table() {
        let (routes, mut statics) = (routes(), Statics::default());
        assert!(Arc::ptr_eq(&statics.over(&routes), &routes), "without any nothing is made");
        statics.create(route("shop", "10.0.0.7:80"), &routes).unwrap();
        statics.create(route("*", "10.0.0.8:80"), &routes).unwrap();
        let laid = statics.over(&routes);
        let first = laid.service("shop").unwrap();
        assert!(first.instances[0].here && is_static(&first.instances[0]));
        assert!(laid.service("*").is_some());
        statics.update(Static { metric: 9, ..route("shop", "10.0.0.7:80") }, &routes).unwrap();
        let laid = statics.over(&routes);
        let second = laid.service("shop").unwrap();
        assert_eq!(second.instances[0].cost, Cost::from_micros(9));
        assert_eq!(second.instances[0].key, first.instances[0].key, "the same instance");
        assert_ne!(second.changed, first.changed);
        let gone = Static { metric: i64::MAX, ..route("shop", "10.0.0.7:80") };
        statics.update(gone, &routes).unwrap();
        assert!(statics.over(&routes).service("shop").unwrap().reachable().is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_says_what_is_wrong() {
        let (routes, mut statics) = (routes(), Statics::default());
        for bad in ["", "host", "host:0", "http://h:1", "a@b:1", "h:99999"] {
            let refused = statics.create(route("shop", bad), &routes);
            assert_eq!(refused, Err(Refused::Address(bad.into())), "{bad}");
        }
        let mut behind = route("shop", "");
        behind.key.gateway = "nobody".into();
        assert_eq!(statics.create(behind, &routes), Err(Refused::Gateway("nobody".into())));
        let long = route("shop", &("h".repeat(MAX_FIELD) + ":1"));
        assert_eq!(statics.create(long, &routes), Err(Refused::Field));
        for port in 1..=MAX_STATICS {
            statics.create(route("shop", &format!("h:{port}")), &routes).unwrap();
        }
        assert_eq!(statics.create(route("shop", "h:1"), &routes), Err(Refused::Exists));
        assert_eq!(statics.create(route("shop", "h:9999"), &routes), Err(Refused::TooMany));
        let again = statics.update(route("shop", "h:1"), &routes);
        assert_eq!(again, Ok(()), "what is there may change");
        assert_eq!(statics.delete(&route("shop", "h:9999").key), Err(Refused::NotFound));
    }

    #[test]
    fn a_time_to_live_is_bounded() {
        assert_eq!(ttl(0), Duration::from_secs(120));
        assert_eq!(ttl(-1), Duration::from_secs(120));
        assert_eq!(ttl(1_500_000_000), Duration::from_millis(1_500));
        assert_eq!(ttl(i64::MAX), Duration::from_secs(86_400));
    }
}
