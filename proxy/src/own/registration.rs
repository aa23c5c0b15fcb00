//! What a program registers, from go-micro's words to ours.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::label::LabelSet;
use proto::micro::registry as pb;
use proto::record::{self, MAX_DEPTH, Protocol};
use proto::{DecodeError, ServiceName};
use router::Registration;

use super::scope::Scope;

/// The version of a program that names none, which is what go-micro calls it.
const LATEST: &str = "latest";
/// Longest time until a registration must be renewed; more is as good as for ever, and is this.
const MAX_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// The same for words we do not know; the word itself is in the metadata.
const UNKNOWN: u64 = 255;

/// Why something cannot be registered. The texts go to the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0}")]
    Name(#[from] proto::name::BadName),
    #[error("a registration needs at least one node")]
    NoNode,
    #[error("node {0:?} has no address of the form host:port")]
    Address(String),
    #[error("too much for a registration: {0}")]
    TooMuch(#[from] DecodeError),
}

/// The registrations that `service` asks for, one a node.
///
/// # Errors
/// [`Refused`]; then nothing of it is to be registered.
pub(super) fn read(scope: &Scope, service: pb::Service) -> Result<Vec<Registration>, Refused> {
    let name = scope.or_domain(domain(&service))?.own(&service.name)?;
    if service.nodes.is_empty() {
        return Err(Refused::NoNode);
    }
    let ttl = ttl(service.options.as_ref());
    let version = version(service.version).unwrap_or_else(|| LATEST.to_owned());
    let metadata = labels(service.metadata);
    let endpoints: Vec<_> = service.endpoints.into_iter().map(endpoint).collect();
    let instances = service.nodes.into_iter().map(instance).collect::<Result<Vec<_>, Refused>>()?;
    let said = record::VersionOf { version, metadata, endpoints, instances };
    let whole = record::Service { versions: vec![said] };
    whole.check()?;
    let [record::VersionOf { version, metadata, endpoints, instances }] =
        <[_; 1]>::try_from(whole.versions).expect("one version was put in above");
    Ok(instances
        .into_iter()
        .map(|instance| Registration {
            service: name.clone(),
            version: version.clone(),
            metadata: metadata.clone(),
            endpoints: endpoints.clone(),
            instance,
            ttl,
        })
        .collect())
}

/// What is to be deregistered: a service, a version or any, and instances or all of this node.
///
/// # Errors
/// [`Refused`] when the name is none.
pub(super) fn read_away(
    scope: &Scope,
    service: pb::Service,
) -> Result<(ServiceName, Option<String>, Vec<String>), Refused> {
    let scope = scope.or_domain(domain(&service))?;
    let ids = service.nodes.into_iter().map(|node| node.id).filter(|id| !id.is_empty());
    Ok((scope.own(&service.name)?, version(service.version), ids.collect()))
}

/// The namespace that v3 names.
fn domain(service: &pb::Service) -> Option<&str> {
    service.options.as_ref().map(|options| options.domain.as_str())
}

fn version(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Seconds; 0 and what is missing or below is for ever.
fn ttl(options: Option<&pb::Options>) -> Option<Duration> {
    let seconds = u64::try_from(options?.ttl).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds).min(MAX_TTL))
}

fn labels(metadata: BTreeMap<String, String>) -> LabelSet {
    metadata.into_iter().collect()
}

fn instance(node: pb::Node) -> Result<record::Instance, Refused> {
    let address = match u16::try_from(node.port) {
        // Programs of go-micro v1 before 1.8 say host and port apart.
        Ok(port) if port > 0 && !is_host_and_port(&node.address) => {
            match node.address.parse::<std::net::Ipv6Addr>() {
                Ok(host) => format!("[{host}]:{port}"),
                Err(_) => format!("{}:{port}", node.address),
            }
        }
        Ok(_) | Err(_) => node.address,
    };
    if !is_host_and_port(&address) {
        return Err(Refused::Address(node.id));
    }
    let protocol = protocol(node.metadata.get("protocol").map(String::as_str));
    Ok(record::Instance { id: node.id, address, protocol, metadata: labels(node.metadata) })
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let port = port.parse::<u16>().is_ok_and(|port| port > 0);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let host = !host.is_empty() && (bracketed || !host.contains(':'));
    port && host && !address.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
}

/// go-micro's word for what a node speaks. It came over gRPC, so a program that says nothing is
/// taken to speak that.
fn protocol(word: Option<&str>) -> Protocol {
    match word {
        None | Some("" | "grpc") => Protocol::Grpc,
        Some("http" | "http1" | "http/1.1") => Protocol::Http1,
        Some("http2" | "h2c") => Protocol::Http2,
        Some("tcp") => Protocol::Tcp,
        Some("tls") => Protocol::Tls,
        Some("udp") => Protocol::Udp,
        Some("mucp") => Protocol::Mucp,
        Some(_) => Protocol::Other(UNKNOWN),
    }
}

fn endpoint(endpoint: pb::Endpoint) -> record::Endpoint {
    let shape = |value: Option<pb::Value>| value.and_then(|value| value_type(value, MAX_DEPTH));
    record::Endpoint {
        name: endpoint.name,
        request: shape(endpoint.request),
        response: shape(endpoint.response),
        metadata: labels(endpoint.metadata),
    }
}

/// What lies deeper than others would read is left out: it is there for people to look at.
fn value_type(value: pb::Value, depth: usize) -> Option<record::ValueType> {
    let depth = depth.checked_sub(1)?;
    let values = value.values.into_iter().filter_map(|inner| value_type(inner, depth)).collect();
    Some(record::ValueType { name: value.name, kind: value.r#type, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeter() -> pb::Service {
        pb::Service {
            name: "go.micro.srv.greeter".into(),
            version: "v2".into(),
            nodes: vec![pb::Node {
                id: "greeter-1".into(),
                address: "10.0.0.7:4000".into(),
                ..Default::default()
            }],
            options: Some(pb::Options { ttl: 60, ..Default::default() }),
            ..Default::default()
        }
    }

    fn registered(service: pb::Service) -> Result<Vec<Registration>, Refused> {
        read(&Scope::default_one(), service)
    }

    #[test]
    fn a_registration_is_one_a_node_and_its_ttl_is_in_seconds() {
        let mut service = greeter();
        let second = pb::Node { id: "greeter-2".into(), ..service.nodes[0].clone() };
        service.nodes.push(second);
        let all = registered(service).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].ttl, Some(Duration::from_secs(60)));
        assert_eq!((all[1].instance.id.as_str(), all[1].version.as_str()), ("greeter-2", "v2"));
        assert_eq!(all[0].instance.protocol, Protocol::Grpc, "what came over gRPC speaks it");
    }

    #[test]
    fn no_ttl_is_for_ever_and_no_version_is_latest() {
        for ttl in [0, -5] {
            let options = Some(pb::Options { ttl, ..Default::default() });
            let service = pb::Service { options, version: String::new(), ..greeter() };
            let all = registered(service).unwrap();
            assert_eq!((all[0].ttl, all[0].version.as_str()), (None, "latest"));
        }
        let options = Some(pb::Options { ttl: i64::MAX, ..Default::default() });
        let all = registered(pb::Service { options, ..greeter() }).unwrap();
        assert_eq!(all[0].ttl, Some(MAX_TTL));
    }

    #[test]
    fn an_address_and_a_port_apart_are_put_together() {
        for (address, port, whole) in [
            ("10.0.0.7", 80, Some("10.0.0.7:80")),
            ("fe80::1", 80, Some("[fe80::1]:80")),
            ("[::1]:9", 80, Some("[::1]:9")),
            ("h:9", 0, Some("h:9")),
            ("h", 0, None),
            ("h:0", 0, None),
            ("h", 70_000, None),
            ("", 80, None),
            ("a b:9", 0, None),
            ("http://h:9", 0, None),
        ] {
            let mut service = greeter();
            service.nodes[0].address = address.into();
            service.nodes[0].port = port;
            let found = registered(service).map(|all| all[0].instance.address.clone());
            assert_eq!(found.ok().as_deref(), whole, "{address} {port}");
        }
    }

    #[test]
    fn what_other_nodes_would_not_read_is_refused_here() {
        let long = pb::Service { version: "v".repeat(200), ..greeter() };
        assert!(matches!(registered(long), Err(Refused::TooMuch(_))));
        let mut nameless = greeter();
        nameless.nodes[0].id.clear();
        assert!(matches!(registered(nameless), Err(Refused::TooMuch(_))));
        let none = pb::Service { nodes: Vec::new(), ..greeter() };
        assert_eq!(registered(none).map(drop), Err(Refused::NoNode));
    }

    #[test]
    fn a_shape_that_nests_too_deep_is_cut_not_refused() {
        let mut value = pb::Value { name: "leaf".into(), ..Default::default() };
        for _ in 0..2 * MAX_DEPTH {
            value = pb::Value { name: "inner".into(), values: vec![value], ..Default::default() };
        }
        let endpoint =
            pb::Endpoint { name: "A.B".into(), request: Some(value), ..Default::default() };
        let all = registered(pb::Service { endpoints: vec![endpoint], ..greeter() }).unwrap();
        let mut shape = all[0].endpoints[0].request.as_ref();
        let mut depth = 0;
        while let Some(inner) = shape {
            depth += 1;
            shape = inner.values.first();
        }
        assert_eq!(depth, MAX_DEPTH);
    }
}
