//! What a request asks for: the service by the path rule of go-micro or by host, and what its
//! instance must be like.

use http::header::{self, HeaderMap};
use proto::{Selector, ServiceName};
use router::Routes;

use crate::error::Error;
use crate::headers::{MICRO_LABEL, MICRO_NAMESPACE, MICRO_NODE, MICRO_REGION, MICRO_VERSION};
use crate::heads::RequestHead;

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
    // `grpc.*` names what a whole server offers (health, reflection), so the server that the
    // authority names comes first.
    let common = prefix.is_some_and(|name| name.starts_with("grpc."));
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

/// What the instance must be like; takes the headers that say so, for they are meant for this call
/// and not for what the service calls in turn.
///
/// # Errors
/// [`Error::Malformed`] for a filter that cannot be read: it is never ignored.
pub(crate) fn take_selector(headers: &mut HeaderMap, routes: &Routes) -> Result<Selector, Error> {
    let mut selector = Selector::default();
    for (name, key) in [(MICRO_VERSION, "version"), (MICRO_REGION, "region")] {
        if let Some(value) = headers.remove(name) {
            selector = selector.and(key, Some(text(&value)?));
        }
    }
    if let Some(value) = headers.remove(MICRO_NODE) {
        let wanted = text(&value)?;
        // By name, as labels have it, or by id.
        let by_id = wanted.parse().ok().and_then(|id| routes.node(&id));
        selector = selector.and("node", Some(by_id.map_or(wanted, |node| &node.name)));
    }
    if headers.contains_key(MICRO_LABEL) {
        for value in headers.get_all(MICRO_LABEL) {
            let more: Selector = text(value)?
                .parse()
                .map_err(|_| Error::Malformed("micro-label must be key=value, or a key"))?;
            for (key, wanted) in more.iter() {
                selector = selector.and(key, wanted);
            }
        }
        headers.remove(MICRO_LABEL);
    }
    Ok(selector)
}

fn text(value: &http::HeaderValue) -> Result<&str, Error> {
    value.to_str().map_err(|_| Error::Malformed("a filter header is not text"))
}

/// Whether a web page of another site made the request: never carried, for the page acts without
/// the user's knowledge.
pub(crate) fn is_cross_site(head: &RequestHead) -> bool {
    if let Some(site) = head.headers.get("sec-fetch-site")
        && site == "cross-site"
    {
        return true;
    }
    let Some(origin) = head.headers.get(header::ORIGIN) else { return false };
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
    use http::HeaderValue;
    use http::uri::PathAndQuery;

    use super::*;

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
        }
    }
}
