//! The catalog of Consul, as its agents answer: names of services, and the instances of one that pass their
//! checks.
//!
//! ```text
//! GET /v1/catalog/services          {"orders":["tag",…],…}
//! GET /v1/health/service/orders     [{"Node":{"Node","Address"},"Service":{"ID","Address","Port","Meta",…}},…]
//! ```
//!
//! Labels are what a service says in `Meta`. Tags are passed over: those of go-micro hold its endpoints,
//! packed, and those of others have no value.

use std::collections::BTreeMap;

use proto::LabelSet;
use proto::ServiceName;
use proto::record::{Instance, Protocol};
use router::Registration;
use serde::Deserialize;

/// The service that the servers of Consul are themselves; nobody calls it through a network.
const CONSUL: &str = "consul";
/// The version of one that names none, as go-micro calls it.
const LATEST: &str = "latest";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Healthy {
    node: NodeOf,
    service: ServiceOf,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeOf {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceOf {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    address: String,
    port: i64,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

/// The names of services in the catalog, without Consul's own.
///
/// # Errors
/// That it is not a catalog.
pub fn names(json: &[u8]) -> Result<Vec<String>, String> {
    let all: BTreeMap<String, serde::de::IgnoredAny> =
        serde_json::from_slice(json).map_err(|why| format!("that is no catalog: {why}"))?;
    Ok(all.into_keys().filter(|name| name != CONSUL).collect())
}

/// The entries of an answer about the instances of `service`, each by `NODE/ID`. Those that do not say
/// what they speak speak `protocol`.
///
/// # Errors
/// That the answer is not one; what is wrong with one entry is told of it.
#[expect(clippy::type_complexity, reason = "entries by name, each read or not")]
pub fn instances(
    service: &str,
    json: &[u8],
    protocol: Protocol,
) -> Result<Vec<(String, Result<Registration, String>)>, String> {
    let all: Vec<serde_json::Value> =
        serde_json::from_slice(json).map_err(|why| format!("that is no list: {why}"))?;
    let entries = all.into_iter().enumerate().map(|(at, value)| {
        match serde_json::from_value::<Healthy>(value) {
            Ok(entry) => {
                let key = format!("{service}/{}/{}", entry.node.node, entry.service.id);
                (key, registration(service, entry, protocol))
            }
            Err(why) => (format!("{service}/{at}"), Err(format!("that is no instance: {why}"))),
        }
    });
    Ok(entries.collect())
}

fn registration(service: &str, of: Healthy, protocol: Protocol) -> Result<Registration, String> {
    let name: ServiceName = service.parse().map_err(|why| format!("{why}"))?;
    if !of.service.kind.is_empty() {
        return Err(format!("a {} of Consul's own mesh", of.service.kind));
    }
    let host = if of.service.address.is_empty() { of.node.address } else { of.service.address };
    let port = u16::try_from(of.service.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| format!("port {} is none", of.service.port))?;
    let address =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let meta = of.service.meta.unwrap_or_default();
    let said = |key: &str| meta.get(key).filter(|value| !value.is_empty());
    let protocol = match said("protocol").map(String::as_str) {
        None => protocol,
        Some("grpc") => Protocol::Grpc,
        Some("http" | "http1") => Protocol::Http1,
        Some("http2" | "h2c") => Protocol::Http2,
        Some("mucp") => Protocol::Mucp,
        Some("tcp") => Protocol::Tcp,
        Some("tls") => Protocol::Tls,
        Some("udp") => Protocol::Udp,
        Some(other) => return Err(format!("protocol {other:?} is not delivered")),
    };
    let version = said("version").cloned().unwrap_or_else(|| LATEST.to_owned());
    // Ids are unique on an agent alone.
    let id = format!("{}@{}", of.service.id, of.node.node);
    Ok(Registration {
        service: name,
        version,
        metadata: LabelSet::default(),
        endpoints: Vec::new(),
        instance: Instance { id, address, protocol, metadata: meta.into_iter().collect() },
        ttl: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_catalog_is_read_without_consul_itself() {
        let json = br#"{"consul":[],"orders":["v2","e-789c"],"web":null}"#;
        assert_eq!(names(json).unwrap(), ["orders", "web"]);
        assert!(names(b"[]").is_err());
    }

    #[test]
    fn instances_are_read_one_by_one() {
        let json = br#"[
            {"Node":{"Node":"n1","Address":"10.0.0.1"},"Service":{"ID":"orders-1","Service":"orders","Tags":["x"],
             "Address":"10.0.0.7","Port":4000,"Meta":{"version":"2.1","protocol":"grpc","tier":"gold"}},"Checks":[]},
            {"Node":{"Node":"n2","Address":"fd00::2"},"Service":{"ID":"orders-1","Address":"","Port":80,"Meta":null}},
            {"Node":{"Node":"n3","Address":"10.0.0.3"},"Service":{"ID":"p","Kind":"connect-proxy","Port":1}},
            {"Node":{"Node":"n4","Address":"10.0.0.4"},"Service":{"ID":"q","Port":70000}},
            {"Node":{}}, 7]"#;
        let all = instances("orders", json, Protocol::Http1).unwrap();
        let first = all[0].1.as_ref().unwrap();
        assert_eq!((all[0].0.as_str(), first.version.as_str()), ("orders/n1/orders-1", "2.1"));
        assert_eq!(first.instance.address, "10.0.0.7:4000");
        assert_eq!(
            (first.instance.protocol, first.instance.metadata.get("tier")),
            (Protocol::Grpc, Some("gold"))
        );
        let second = all[1].1.as_ref().unwrap();
        assert_eq!(
            (second.instance.address.as_str(), second.instance.id.as_str()),
            ("[fd00::2]:80", "orders-1@n2")
        );
        assert_eq!(second.instance.protocol, Protocol::Http1);
        assert_eq!(all[2..].iter().filter(|(_, read)| read.is_err()).count(), 4);
        assert!(instances("orders", b"{}", Protocol::Http1).is_err());
        assert!(
            instances("a b", json, Protocol::Http1).unwrap().iter().all(|(_, read)| read.is_err())
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(json: Vec<u8>) {
            let _ = (names(&json), instances("s", &json, Protocol::Tcp));
        }
    }
}
