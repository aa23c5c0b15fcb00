//! What a host says beside the name of a service, in the letters that DNS allows.
//!
//! ```text
//! [v2.][tier--gold.]…shop[.eu-fra]        version, labels, service, region
//! ```
//!
//! In a host, every character of a value that DNS has no room for is a `-` (RFC 1035 §2.3.1), and
//! case says nothing: region `eu/fra` is `eu-fra`, version `1.2.0` is `v1-2-0`. What counts is what
//! instances carry: a host that could be read in several ways means the service with the longest
//! name, and a service that is called like the whole host before all.

use std::collections::BTreeSet;

use http::HeaderMap;
use proto::selector::{self, BadSelector, Requirement};
use router::{Routes, ServiceRoutes};
use smallvec::SmallVec;

use crate::target::known;

/// Labels of a host that are looked at in front of a name.
const MOST_IN_FRONT: usize = 4;

/// What a host, or a path, asks for.
#[derive(Debug, Default)]
pub(crate) struct Implied {
    /// The version.
    pub(crate) version: Option<String>,
    /// The region, as instances spell it, or several that are spelled alike in a host.
    pub(crate) regions: Vec<String>,
    /// Labels, by key and value.
    pub(crate) labels: SmallVec<[(String, String); 1]>,
}

impl Implied {
    /// Whether it asks for nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.version.is_none() && self.regions.is_empty() && self.labels.is_empty()
    }

    /// As requirements. What the headers say of version and region comes before.
    ///
    /// # Errors
    /// [`BadSelector`] for a value that cannot be asked for.
    pub(crate) fn requirements(
        self,
        version_is_said: bool,
        region_is_said: bool,
    ) -> Result<Vec<Requirement>, BadSelector> {
        let mut all = Vec::new();
        if let Some(version) = self.version.filter(|_| !version_is_said) {
            all.push(Requirement::equals(selector::VERSION, &version)?);
        }
        if !self.regions.is_empty() && !region_is_said {
            all.push(Requirement::any_of(selector::REGION, &self.regions.join(","))?);
        }
        for (key, value) in self.labels {
            all.push(Requirement::equals(&key, &value)?);
        }
        Ok(all)
    }
}

/// The service that a name means, with what else the name asks for.
pub(crate) fn known_by<'a>(
    name: &str,
    headers: &HeaderMap,
    routes: &'a Routes,
) -> Option<(&'a ServiceRoutes, Implied)> {
    let service = |name: &str| routes.service(&known(name, headers, routes)?);
    if let Some(found) = service(name) {
        return Some((found, Implied::default()));
    }
    // Fewest parts taken away first: the longest name of a service.
    let mut front = SmallVec::<[&str; 4]>::new();
    let mut rest = name;
    loop {
        if !front.is_empty()
            && let Some(found) = service(rest)
            && let Some(implied) = read(found, &front, None)
        {
            return Some((found, implied));
        }
        if let Some((short, region)) = rest.rsplit_once('.')
            && let Some(found) = service(short)
            && let Some(implied) = read(found, &front, Some(region))
        {
            return Some((found, implied));
        }
        let (first, more) = rest.split_once('.')?;
        if front.len() == MOST_IN_FRONT || !may_ask(first) {
            return None;
        }
        front.push(first);
        rest = more;
    }
}

/// Whether a part of a host has the form of a version or a label.
fn may_ask(part: &str) -> bool {
    part.contains("--") || is_version(part)
}

fn is_version(part: &str) -> bool {
    let digits = part.strip_prefix(['v', 'V']);
    digits.and_then(|rest| rest.bytes().next()).is_some_and(|first| first.is_ascii_digit())
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What the parts of a host ask of a service; `None` where they are not to be read so.
fn read(service: &ServiceRoutes, front: &[&str], region: Option<&str>) -> Option<Implied> {
    let mut implied = Implied::default();
    if let Some(region) = region {
        implied.regions = regions(service, region);
        if implied.regions.is_empty() {
            return None;
        }
    }
    for part in front {
        if is_version(part) && !part.contains("--") {
            // Twice is a contradiction, or a name that is not known.
            if implied.version.replace(version(service, part)).is_some() {
                return None;
            }
            continue;
        }
        let (key, value) = part.split_once("--")?;
        let key = service.label_key(key)?;
        let values = service.label_values(key);
        let value = values.iter().find(|known| is_slug(known, value)).copied().unwrap_or(value);
        implied.labels.push((key.to_owned(), value.to_owned()));
    }
    Some(implied)
}

/// The version as an instance spells it, with or without a `v`; else as the host does.
fn version(service: &ServiceRoutes, part: &str) -> String {
    let values = service.label_values(selector::VERSION);
    let found = values.iter().find(|known| is_slug(known, part));
    let found = found.or_else(|| values.iter().find(|known| is_slug(known, &part[1..])));
    found.map_or_else(|| part.to_ascii_lowercase(), |found| (*found).to_owned())
}

/// The regions that instances lie in and that are `part` in a host.
fn regions(service: &ServiceRoutes, part: &str) -> Vec<String> {
    let carried = service.label_values(selector::REGION);
    let within: BTreeSet<&str> =
        carried.iter().flat_map(|region| selector::regions(region)).collect();
    within.into_iter().filter(|region| is_slug(region, part)).map(str::to_owned).collect()
}

/// Whether `value` is written `part` in a host.
fn is_slug(value: &str, part: &str) -> bool {
    let of_host = |byte: u8| {
        if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
    };
    !value.is_empty() && value.bytes().map(of_host).eq(part.bytes().map(of_host))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::record::Protocol;
    use proto::{Cost, LabelSet, NodeId, ServiceName};
    use router::{Instance, InstanceKey};

    use super::*;

    /// `shop` in two regions, `api.shop`, and `web.eu` which looks like a region.
    fn routes() -> Routes {
        let me = NodeId::from_bytes([1; 32]);
        let service = |name: &str, all: &[&[(&str, &str)]]| {
            let one = |(at, labels): (u64, &&[(&str, &str)])| Instance {
                key: InstanceKey(at),
                id: at.to_string().into(),
                node: me,
                here: true,
                address: "127.0.0.1:1".into(),
                protocol: Protocol::Http1,
                version: "latest".into(),
                labels: labels.iter().copied().collect(),
                metadata: LabelSet::default(),
                cost: Cost::ZERO,
                group: 0,
            };
            let name: ServiceName = name.parse().unwrap();
            let all = (0..).zip(all).map(one).collect();
            (name.clone(), Some(ServiceRoutes::new(name, 1, all, Arc::from([]))))
        };
        let fra = [("version", "1.2.0"), ("region", "eu/fra"), ("Tier", "Gold+")];
        let iad = [("version", "v2"), ("region", "us/iad")];
        Routes::empty(me).updated(
            [
                service("shop", &[&fra, &iad]),
                service("api.shop", &[&[("region", "eu-fra")], &[("region", "eu/fra")]]),
                service("web", &[&[("region", "eu")]]),
                service("web.eu", &[&[("region", "us")]]),
                service("v3", &[&[("region", "shop")]]),
            ],
            [],
        )
    }

    fn meant(host: &str) -> Option<String> {
        let routes = routes();
        let (service, implied) = known_by(host, &HeaderMap::new(), &routes)?;
        let all = implied.requirements(false, false).unwrap();
        let all: Vec<_> = all.iter().map(ToString::to_string).collect();
        Some(format!("{} {}", service.name, all.join(",")))
    }

    #[test]
    fn a_host_may_say_version_labels_and_region() {
        for (host, meaning) in [
            ("shop", Some("shop ")),
            ("shop.eu-fra", Some("shop region=eu/fra")),
            ("SHOP.EU-FRA", Some("shop region=eu/fra")),
            ("shop.eu", Some("shop region=eu")),
            ("v2.shop", Some("shop version=v2")),
            ("v1-2-0.shop", Some("shop version=1.2.0")),
            ("v9.shop", Some("shop version=v9")),
            ("v2.shop.us-iad", Some("shop version=v2,region=us/iad")),
            ("tier--gold-.shop", Some("shop Tier=Gold+")),
            ("tier--gold-.v2.shop.us", Some("shop version=v2,region=us,Tier=Gold+")),
            ("shop.mars", None),
            ("www.shop", None),
            ("colour--red.shop", None),
            ("xn--shp-6na.shop", None),
            ("v1.v2.shop", None),
            ("eu-fra", None),
        ] {
            assert_eq!(meant(host).as_deref(), meaning, "{host}");
        }
    }

    #[test]
    fn the_longest_name_of_a_service_wins() {
        assert_eq!(meant("web.eu").as_deref(), Some("web.eu "), "not web in eu");
        assert_eq!(meant("api.shop").as_deref(), Some("api.shop "));
        let both = "api.shop region in (eu-fra,eu/fra)";
        assert_eq!(meant("api.shop.eu-fra").as_deref(), Some(both), "spelled alike in a host");
        // Of two readings of the same length the region at the end: only instances make it one.
        assert_eq!(meant("v3.shop").as_deref(), Some("v3 region=shop"));
    }

    #[test]
    fn a_long_host_is_no_work() {
        let host = "v1.".repeat(80) + "shop";
        assert_eq!(meant(&host), None);
    }
}
