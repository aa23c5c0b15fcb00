//! What a request asks for: the service by the path rule of go-micro or by host, and what its
//! instance must be like.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use proto::selector::{self, BadSelector, Requirement};
use proto::{Selector, ServiceName};
use router::{Routes, ServiceRoutes};

use crate::error::Error;
use crate::explain::Ignored;
use crate::headers::{
    self, Asked, MICRO_LABEL, MICRO_NAMESPACE, MICRO_NODE, MICRO_REGION, MICRO_SELECT,
    MICRO_STICKY, MICRO_VERSION,
};
use crate::heads::RequestHead;
use crate::host::Implied;
use crate::via::Via;

/// Suffixes under which a service has a name that every HTTP client can use.
const SUFFIXES: [&str; 2] = [".localhost", ".micro.internal"];
/// Namespaces that go-micro programs send without meaning one.
const DEFAULT_NAMESPACES: [&str; 3] = ["go.micro", "micro", proto::name::DEFAULT_NAMESPACE];

/// Whether this is gRPC, by its content type (gRPC over HTTP/2, "Content-Type").
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        let kind = kind.as_bytes();
        kind.len() >= 16
            && kind[..16].eq_ignore_ascii_case(b"application/grpc")
            // `application/grpc-web` is another protocol.
            && matches!(kind.get(16), None | Some(b'+' | b';' | b' '))
    })
}

/// The names a request may mean, the likeliest first. What is known decides between them.
pub(crate) fn names(head: &RequestHead, grpc: bool) -> impl Iterator<Item = &str> {
    let host = head.authority.as_ref().and_then(|authority| host_name(authority.host()));
    let (prefix, segment) = if grpc { path_names(head.path.path()) } else { (None, None) };
    // `grpc.*` names what a whole server offers (health, reflection), and `etcdserverpb` what every etcd
    // does, so the server that the authority names comes first.
    let common =
        prefix.is_some_and(|name| name.starts_with("grpc.") || name == crate::own::etcd::NAME);
    let first = if common { host } else { None };
    let last = if common { None } else { host };
    first.into_iter().chain(prefix).chain(segment).chain(last)
}

/// The service of `/prefix.Struct/Method` by the last dot (contract, path rule R4), and the whole
/// first segment, for services that are named as their protobuf service is.
fn path_names(path: &str) -> (Option<&str>, Option<&str>) {
    let Some(segment) = path.strip_prefix('/').and_then(|rest| rest.split('/').next()) else {
        return (None, None);
    };
    let segment = Some(segment).filter(|segment| !segment.is_empty());
    let prefix = segment.and_then(|s| s.rsplit_once('.')).map(|(prefix, _)| prefix);
    (prefix.filter(|prefix| !prefix.is_empty()), segment)
}

/// Whether a host is a name under which only services are.
pub(crate) fn is_ours(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    SUFFIXES.iter().any(|suffix| {
        let at = host.len().checked_sub(suffix.len());
        at.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    })
}

/// The service that a host names; `None` for addresses and for this machine.
fn host_name(host: &str) -> Option<&str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let suffix = SUFFIXES.iter().find_map(|suffix| {
        let at = host.len().checked_sub(suffix.len())?;
        host.get(at..)?.eq_ignore_ascii_case(suffix).then_some(at)
    });
    let name = suffix.map_or(host, |at| &host[..at]);
    let is_address = name.starts_with('[') || name.parse::<std::net::IpAddr>().is_ok();
    (!name.is_empty() && !is_address && !name.eq_ignore_ascii_case("localhost")).then_some(name)
}

/// The service of this name that is on the network, as its whole name.
pub(crate) fn known(name: &str, headers: &HeaderMap, routes: &Routes) -> Option<String> {
    if let Some(namespace) = headers.get(MICRO_NAMESPACE).and_then(|value| value.to_str().ok())
        && !namespace.is_empty()
        && !DEFAULT_NAMESPACES.contains(&namespace)
        && let Ok(within) = ServiceName::within(namespace, name)
        && routes.service(within.as_str()).is_some()
    {
        return Some(within.as_str().to_owned());
    }
    if routes.service(name).is_some() {
        return Some(name.to_owned());
    }
    // Hosts have no case, names of services do (RFC 9110 §4.2.3).
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let lower = name.to_ascii_lowercase();
        return routes.service(&lower).is_some().then_some(lower);
    }
    None
}

/// What a host and a path ask for. The version of a path (`/v2/orders`) only where the host says
/// none and instances of the service have it: else it is the service's own business.
pub(crate) fn implied(
    head: &RequestHead,
    grpc: bool,
    of_host: Implied,
    service: &ServiceRoutes,
) -> Implied {
    let version = of_host.version.or_else(|| {
        let version = selector::version_of_path(head.path.path()).filter(|_| !grpc)?;
        let carried = service.has_label(selector::VERSION, version);
        carried.then(|| version.to_owned())
    });
    Implied { version, ..of_host }
}

/// What the instance must be like; takes the headers that say so, for they are meant for this call
/// and not for what the service calls in turn, except those that `Micro-Sticky` names. Those that did
/// not count are added to `ignored`.
///
/// # Errors
/// [`Error::Filter`] for a filter that cannot be read: it is never ignored. [`Error::Malformed`]
/// for one that is not text.
pub(crate) fn take_selector(
    headers: &mut HeaderMap,
    asked: Asked,
    implied: Implied,
    service: &ServiceRoutes,
    routes: &Routes,
    ignored: &mut Vec<Ignored>,
) -> Result<Selector, Error> {
    if asked.is_empty() && implied.is_nothing() && !headers::says_something(headers) {
        return Ok(Selector::default());
    }
    let mut all = Vec::new();
    let sticky = headers.get(MICRO_STICKY).cloned();
    let stays = |name: &HeaderName| {
        let key = name.as_str().trim_start_matches("micro-");
        sticky.as_ref().is_some_and(|sticky| headers::has_token(sticky, key))
    };
    for name in [MICRO_SELECT, MICRO_LABEL] {
        for value in headers.get_all(&name) {
            let more: Selector = text(value)?.parse().map_err(bad(&name))?;
            all.extend(more.iter().cloned());
        }
        if !stays(&name) {
            headers.remove(&name);
        }
    }
    let (mut version_is_said, mut region_is_said) = (false, false);
    for (name, key) in [(MICRO_VERSION, selector::VERSION), (MICRO_REGION, selector::REGION)] {
        let Some(value) = headers.get(&name) else { continue };
        all.push(Requirement::any_of(key, text(value)?).map_err(bad(&name))?);
        version_is_said |= key == selector::VERSION;
        region_is_said |= key == selector::REGION;
        if !stays(&name) {
            headers.remove(&name);
        }
    }
    let implied = implied.requirements(version_is_said, region_is_said);
    all.extend(implied.map_err(bad(&header::HOST))?);
    if let Some(value) = headers.remove(MICRO_NODE) {
        let wanted = text(&value)?;
        // By name, as labels have it, or by id.
        let by_id = wanted.parse().ok().and_then(|id| routes.node(&id));
        let one = Requirement::equals("node", by_id.map_or(wanted, |node| &node.name));
        all.push(one.map_err(bad(&MICRO_NODE))?);
    }
    for (name, value) in asked {
        let key = headers::label_key(&name).and_then(|key| service.label_key(key));
        let Some(key) = key else {
            if ignored.len() < headers::MOST_IGNORED {
                let why = "no instance carries such a label".to_owned();
                ignored.push(Ignored { header: name.to_string(), why });
            }
            continue;
        };
        all.push(Requirement::equals(key, text(&value)?).map_err(bad(&name))?);
        if stays(&name) {
            headers.insert(name, value);
        }
    }
    if all.is_empty() {
        return Ok(Selector::default());
    }
    Selector::of(all).map_err(bad(&MICRO_SELECT))
}

/// What headers ask, read as those of a call are.
#[derive(Debug, Default)]
pub struct Wanted {
    /// What the instance must be like.
    pub selector: Selector,
    /// Which routes the call may take.
    pub via: Option<Box<Via>>,
    /// Headers that do not count.
    pub ignored: Vec<Ignored>,
}

/// What these headers ask of an instance of a service in the network of this name; what is left of
/// them is what rules see.
///
/// # Errors
/// [`Error::Filter`] or [`Error::Malformed`] for a filter that cannot be read.
pub fn asked(
    headers: &mut HeaderMap,
    service: &ServiceRoutes,
    routes: &Routes,
    network: &str,
) -> Result<Wanted, Error> {
    let mut ignored = headers::unheard(headers);
    let asked = headers::clean_request(headers)?;
    let implied = Implied::default();
    let selector = take_selector(headers, asked, implied, service, routes, &mut ignored)?;
    let via = Via::take(headers, network, routes)?;
    Ok(Wanted { selector, via, ignored })
}

fn bad(name: &HeaderName) -> impl FnOnce(BadSelector) -> Error + use<'_> {
    |why| Error::Filter { header: name.to_string(), why }
}

fn text(value: &HeaderValue) -> Result<&str, Error> {
    let text = std::str::from_utf8(value.as_bytes());
    text.map_err(|_| Error::Malformed("a filter header is not text"))
}

/// Whether a web page of another site made the request: never carried, for the page acts without
/// the user's knowledge. `Origin` decides where there is one, for it names the page, and pages of two
/// of our services are of two sites to a browser.
pub(crate) fn is_cross_site(head: &RequestHead) -> bool {
    let Some(origin) = head.headers.get(header::ORIGIN) else {
        return head.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    };
    let Ok(origin) = origin.to_str() else { return true };
    let host = origin.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.parse::<http::uri::Authority>().ok();
    let Some(host) = host.as_ref().map(http::uri::Authority::host) else { return true };
    let same = head.authority.as_ref().is_some_and(|a| a.host().eq_ignore_ascii_case(host));
    let here = host_name(host).is_none()
        && (host.eq_ignore_ascii_case("localhost")
            || host
                .trim_matches(['[', ']'])
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback()));
    let ours = SUFFIXES.iter().any(|suffix| host.to_ascii_lowercase().ends_with(suffix));
    !(same || here || ours)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::uri::PathAndQuery;
    use proto::record::Protocol;
    use proto::{Cost, LabelSet, NodeId};
    use router::{Instance, InstanceKey};

    use super::*;
    use crate::host::known_by;

    fn head(path: &'static str, authority: &'static str) -> RequestHead {
        RequestHead {
            method: http::Method::POST,
            path: PathAndQuery::from_static(path),
            authority: Some(http::uri::Authority::from_static(authority)),
            headers: HeaderMap::new(),
        }
    }

    fn grpc_names(path: &'static str, authority: &'static str) -> Vec<String> {
        names(&head(path, authority), true).map(str::to_owned).collect()
    }

    #[test]
    fn the_service_is_what_stands_before_the_last_dot() {
        let names = grpc_names("/go.micro.srv.greeter.Say/Hello", "127.0.0.1:8081");
        assert_eq!(names, ["go.micro.srv.greeter", "go.micro.srv.greeter.Say"]);
        let names = grpc_names("/go.micro.api.auth.Auth/Verify", "localhost:8081");
        assert_eq!(names[0], "go.micro.api.auth");
    }

    #[test]
    fn a_client_whose_package_is_not_the_service_names_it_in_its_authority() {
        let names = grpc_names("/helloworld.Greeter/SayHello", "greeter:8081");
        assert_eq!(names, ["helloworld", "helloworld.Greeter", "greeter"]);
        let names = grpc_names("/Greeter/SayHello", "greeter.localhost");
        assert_eq!(names, ["Greeter", "greeter"]);
    }

    #[test]
    fn health_is_asked_of_the_server_that_the_authority_names() {
        let names = grpc_names("/grpc.health.v1.Health/Check", "greeter:8081");
        assert_eq!(names, ["greeter", "grpc.health.v1", "grpc.health.v1.Health"]);
        let names = grpc_names("/etcdserverpb.KV/Range", "etcd:8081");
        assert_eq!(names[..2], ["etcd", "etcdserverpb"], "a real one is called by its name");
    }

    #[test]
    fn hosts_name_services_and_addresses_do_not() {
        for (host, name) in [
            ("greeter", Some("greeter")),
            ("shop.web", Some("shop.web")),
            ("greeter.LOCALHOST", Some("greeter")),
            ("greeter.micro.internal.", Some("greeter")),
            ("localhost", None),
            ("127.0.0.1", None),
            ("[::1]", None),
            (".localhost", None),
        ] {
            assert_eq!(host_name(host), name, "{host}");
        }
    }

    #[test]
    fn grpc_is_told_by_its_content_type_alone() {
        for (kind, is) in [
            ("application/grpc", true),
            ("application/grpc+json", true),
            ("Application/GRPC; charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), is, "{kind}");
        }
    }

    #[test]
    fn pages_of_other_sites_are_told_from_our_own() {
        for (origin, cross) in [
            ("https://evil.example", true),
            ("null", true),
            ("http://greeter.localhost:8081", false),
            ("http://localhost:3000", false),
            ("http://127.0.0.1:9", false),
            ("http://192.168.0.9", true),
        ] {
            let mut head = head("/", "greeter.localhost:8081");
            head.headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(is_cross_site(&head), cross, "{origin}");
            let site = HeaderValue::from_static("cross-site");
            head.headers.insert("sec-fetch-site", site);
            assert_eq!(is_cross_site(&head), cross, "{origin}, to a browser of another site");
            head.headers.remove(header::ORIGIN);
            assert!(is_cross_site(&head));
        }
    }

    /// `greeter`, of which instances carry `version` v1 and v2, `Tier` and `region`.
    fn greeter() -> Routes {
        let me = NodeId::from_bytes([1; 32]);
        let one = |key: u64, version: &str| {
            let labels = [("version", version), ("Tier", "gold"), ("region", "eu/fra")];
            Instance {
                key: InstanceKey(key),
                id: version.into(),
                node: me,
                here: true,
                address: "127.0.0.1:1".into(),
                protocol: Protocol::Http1,
                version: version.into(),
                labels: labels.into_iter().collect(),
                metadata: LabelSet::default(),
                cost: Cost::ZERO,
                group: 0,
            }
        };
        let name: ServiceName = "greeter".parse().unwrap();
        let all = vec![one(1, "v1"), one(2, "v2")];
        let service = ServiceRoutes::new(name.clone(), 1, all, Arc::from([]));
        Routes::empty(me).updated([(name, Some(service))], [])
    }

    fn select(pairs: &[(&'static str, &'static str)]) -> (Result<String, String>, Vec<String>) {
        let routes = greeter();
        let mut headers: HeaderMap = pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
            .collect();
        let service = routes.service("greeter").unwrap();
        let selector = headers::clean_request(&mut headers).and_then(|asked| {
            let implied = Implied::default();
            take_selector(&mut headers, asked, implied, service, &routes, &mut Vec::new())
        });
        let kept = headers.keys().map(ToString::to_string).collect();
        (selector.map(|s| s.to_string()).map_err(|error| error.to_string()), kept)
    }

    #[test]
    fn headers_ask_for_labels_and_do_not_travel_on() {
        for (header, value, selector) in [
            ("micro-version", "^1.2, v2", "version in (^1.2,v2)"),
            ("micro-version", ">=1,<2?", "version in (>=1,<2)?"),
            ("micro-region", "eu?", "region=eu?"),
            ("micro-label", "tier in (a,b), !old", "tier in (a,b),!old"),
            (
                "micro-select",
                "version=v2,region in (eu/fra,us/iad)",
                "version=v2,region in (eu/fra,us/iad)",
            ),
            ("micro-node", "fra-1", "node=fra-1"),
            ("micro-tier", "gold", "Tier=gold"),
            ("micro-colour", "red", ""),
            ("micro-hop", "7", ""),
        ] {
            let (selected, kept) = select(&[(header, value)]);
            assert_eq!(selected.as_deref(), Ok(selector), "{header}: {value}");
            assert!(kept.is_empty(), "{kept:?}");
        }
    }

    #[test]
    fn names_with_a_meaning_of_their_own_are_never_labels_and_pass() {
        for header in ["micro-service", "micro-from-service", "micro-trace-id", "micro-topic"] {
            let (selected, kept) = select(&[(header, "x")]);
            assert_eq!((selected.as_deref(), &*kept), (Ok(""), &[header.to_owned()][..]));
        }
    }

    #[test]
    fn what_is_sticky_travels_on() {
        let (selected, kept) = select(&[
            ("micro-sticky", "region, tier"),
            ("micro-region", "eu"),
            ("micro-version", "v2"),
            ("micro-tier", "gold"),
        ]);
        assert_eq!(selected.as_deref(), Ok("version=v2,region=eu,Tier=gold"));
        assert_eq!(kept, ["micro-sticky", "micro-region", "micro-tier"]);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_refused_with_the_reason() {
        for (header, value, why) in [
            ("micro-version", ">=2,<1", "no version is in the range \">=2,<1\""),
            ("micro-version", "", "is no list"),
            ("micro-label", "a ~ b", "is no operator"),
            ("micro-region", "/", "a region has a name"),
        ] {
            let (selected, _) = select(&[(header, value)]);
            let error = selected.unwrap_err();
            assert!(error.starts_with(header) && error.contains(why), "{error}");
        }
        let (twice, _) = select(&[("micro-tier", "a"), ("micro-tier", "b")]);
        assert!(twice.unwrap_err().contains("twice"));
    }

    #[test]
    fn hosts_and_paths_may_say_a_version() {
        let routes = greeter();
        let none = HeaderMap::new();
        let by = |name| {
            known_by(name, &none, &routes)
                .map(|(service, implied)| (service.name.to_string(), implied.version))
        };
        let greeter = "greeter".to_owned();
        assert_eq!(by("greeter"), Some((greeter.clone(), None)));
        assert_eq!(by("V2.greeter"), Some((greeter.clone(), Some("v2".into()))));
        assert_eq!(by("v9.greeter"), Some((greeter, Some("v9".into()))));
        assert_eq!(by("www.greeter"), None);
        let service = routes.service("greeter").unwrap();
        let of =
            |path, grpc| implied(&head(path, "greeter"), grpc, Implied::default(), service).version;
        assert_eq!(of("/v2/orders", false), Some("v2".into()));
        assert_eq!(of("/v3/orders", false), None, "no instance has it");
        assert_eq!(of("/v2/orders", true), None);
    }
}
