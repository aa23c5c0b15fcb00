//! Calls of programs that took an address from a registry, and come with it to their proxy: the
//! instance that has the address, wherever it is, is the one they chose.
//!
//! Only addresses that mean nothing beyond one place: private ones (RFC 1918, RFC 6598, RFC 4193).
//! Anybody may be reached at a public one, and a name or the loopback means this machine's own; what a
//! member says of itself must not take calls away that are meant for others.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proto::Selector;
use proto::name::WILDCARD;
use router::{Instance, ServiceRoutes};

use crate::begin::Meant;
use crate::proxy::Shared;
use crate::statics::is_static;
use crate::via::Via;

impl Shared {
    /// The instance that is registered with this address: on this node, else the nearest. Looks at all
    /// there are, for a connection and not for a call.
    pub(crate) fn meant_by_address(&self, host: &str, port: u16) -> Option<Meant> {
        let ip: IpAddr = host.trim_matches(['[', ']']).parse().ok()?;
        if !is_private(ip.to_canonical()) {
            return None;
        }
        let address = SocketAddr::new(ip, port).to_string();
        let routes = self.routes.load();
        let of = |service: &ServiceRoutes| service.name.as_str() != WILDCARD;
        let services = routes.services().filter(|service| of(service));
        let is_meant = |one: &&Instance| *one.address == *address && !is_static(one);
        let found = services
            .filter_map(|service| Some((service, service.reachable().iter().find(is_meant)?)))
            .min_by_key(|(_, one)| (one.group, one.cost))?;
        let (service, instance) = found;
        Some(Meant {
            service: service.name.as_str().to_owned(),
            selector: Selector::default(),
            via: Some(Box::new(Via::to(instance))),
            named: None,
        })
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        // 100.64.0.0/10 is shared within one provider or overlay (RFC 6598 §7).
        IpAddr::V4(ip) => {
            ip.is_private() || (ip & Ipv4Addr::new(255, 192, 0, 0)) == Ipv4Addr::new(100, 64, 0, 0)
        }
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_mean_something_in_one_place_alone_are_looked_for() {
        for private in ["10.1.2.3", "172.16.0.1", "192.168.0.9", "100.64.1.1", "fd77::2"] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for other in [
            "127.0.0.1",
            "::1",
            "8.8.8.8",
            "100.128.0.1",
            "169.254.1.1",
            "fe80::1",
            "2001:db8::1",
            "0.0.0.0",
        ] {
            assert!(!is_private(other.parse().unwrap()), "{other}");
        }
    }
}
