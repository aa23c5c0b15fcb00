//! EndpointSlices of Kubernetes (`discovery.k8s.io/v1`), as its API server tells of them: lists in pages,
//! and the events of a watch, one a line.
//!
//! ```text
//! {"metadata":{"resourceVersion","continue"},"items":[SLICE,…]}
//! {"type":"ADDED|MODIFIED|DELETED","object":SLICE}
//! {"type":"BOOKMARK","object":{"metadata":{"resourceVersion"}}}      how far the watch has come
//! {"type":"ERROR","object":{"code":410,"message"}}                   the watch cannot go on
//! ```
//!
//! A service has several slices: of 100 endpoints each, of IPv4 and IPv6. An endpoint is an instance while
//! it is ready. Labels are those of the service that have no domain before them, and the zone.

use std::collections::BTreeMap;

use proto::record::{Instance, Protocol};
use proto::{LabelSet, ServiceName};
use router::Registration;
use serde::Deserialize;
use serde_json::Value;

/// The label that says of which service a slice is.
const OF_SERVICE: &str = "kubernetes.io/service-name";
/// The label that says which version runs there.
const VERSION: &str = "app.kubernetes.io/version";
/// The version of one that names none, as go-micro calls it.
const LATEST: &str = "latest";
/// The code of a watch that begins too long ago (RFC 9110 §15.5.11).
const GONE: i64 = 410;

/// What is wanted of slices.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What instances speak that do not say so.
    pub protocol: Protocol,
    /// The port, by name or number; `None`: the one whose protocol is known, else the lowest.
    pub port: Option<String>,
    /// Whether services are called `NAME.NAMESPACE`: those of all namespaces are watched.
    pub of_all: bool,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// Where a watch begins that misses nothing.
    pub version: String,
    /// Asks for the next part.
    pub more: Option<String>,
    /// What is in it.
    pub slices: Vec<Slice>,
}

/// One slice, with its endpoints that are ready.
#[derive(Debug)]
pub struct Slice {
    /// `NAMESPACE/NAME`.
    pub key: String,
    /// Instances, by keys that begin with the slice's, or why one is none.
    pub entries: Vec<(String, Result<Registration, String>)>,
}

/// One event of a watch.
#[derive(Debug)]
pub enum Event {
    /// A slice is so now; with it how far the watch has come.
    Put(Slice, String),
    /// A slice is gone.
    Gone(String, String),
    /// Nothing has changed until here.
    Mark(String),
    /// What has happened since the list is not known any more: it is to be read again.
    Relist,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue", default)]
    more: String,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

#[derive(Deserialize)]
struct Marked {
    metadata: Meta,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    metadata: Meta,
    #[serde(default)]
    address_type: String,
    endpoints: Option<Vec<Endpoint>>,
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    addresses: Vec<String>,
    conditions: Option<Conditions>,
    zone: Option<String>,
    target_ref: Option<Target>,
}

#[derive(Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Target {
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: Option<String>,
    protocol: Option<String>,
    port: Option<i64>,
    app_protocol: Option<String>,
}

impl Wanted {
    /// Reads a part of a list.
    ///
    /// # Errors
    /// That it is none; what is wrong with one slice or endpoint is told of it.
    pub fn page(&self, json: &[u8]) -> Result<Page, String> {
        let list: List =
            serde_json::from_slice(json).map_err(|why| format!("that is no list: {why}"))?;
        let one = |(at, value)| match serde_json::from_value::<Object>(value) {
            Ok(object) => self.slice(object),
            Err(why) => {
                let key = format!("{at}/");
                let entries = vec![(key.clone(), Err(format!("that is no EndpointSlice: {why}")))];
                Slice { key, entries }
            }
        };
        let slices = list.items.unwrap_or_default().into_iter().enumerate().map(one).collect();
        let more = Some(list.metadata.more).filter(|more| !more.is_empty());
        Ok(Page { version: list.metadata.resource_version, more, slices })
    }

    /// Reads one line of a watch.
    ///
    /// # Errors
    /// That it is none, or what the server says is wrong.
    pub fn event(&self, json: &[u8]) -> Result<Event, String> {
        let told: Told =
            serde_json::from_slice(json).map_err(|why| format!("that is no event: {why}"))?;
        let none = |why: serde_json::Error| format!("an event of nothing known: {why}");
        match told.kind.as_str() {
            "ADDED" | "MODIFIED" | "DELETED" => {
                let object: Object = serde_json::from_value(told.object).map_err(none)?;
                let version = object.metadata.resource_version.clone();
                if told.kind == "DELETED" {
                    return Ok(Event::Gone(key(&object.metadata), version));
                }
                Ok(Event::Put(self.slice(object), version))
            }
            "BOOKMARK" => {
                let marked: Marked = serde_json::from_value(told.object).map_err(none)?;
                Ok(Event::Mark(marked.metadata.resource_version))
            }
            "ERROR" => match serde_json::from_value(told.object).map_err(none)? {
                Status { code: GONE, .. } => Ok(Event::Relist),
                Status { code, message } => Err(format!("the watch has failed: {code} {message}")),
            },
            other => Err(format!("{other:?} is no kind of event")),
        }
    }

    fn slice(&self, object: Object) -> Slice {
        let key = key(&object.metadata);
        let labels = object.metadata.labels.unwrap_or_default();
        // One that is of no service is somebody's own business.
        let Some(service) = labels.get(OF_SERVICE) else {
            return Slice { key, entries: Vec::new() };
        };
        let service = if self.of_all {
            format!("{service}.{}", object.metadata.namespace)
        } else {
            service.clone()
        };
        let ports = object.ports.unwrap_or_default();
        let (mut entries, v6) = (Vec::new(), object.address_type == "IPv6");
        for endpoint in object.endpoints.unwrap_or_default() {
            if endpoint.conditions.and_then(|of| of.ready) == Some(false) {
                continue;
            }
            // Of several any will do, says the API; there is one.
            let Some(host) = endpoint.addresses.into_iter().next() else { continue };
            let name = endpoint.target_ref.and_then(|target| target.name);
            let read = self.port(&ports).and_then(|(port, protocol)| {
                let name: ServiceName = service.parse().map_err(|why| format!("{why}"))?;
                Ok((name, port, protocol))
            });
            let read = read.map(|(service, port, protocol)| {
                let address =
                    if v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                // A pod of two families is in two slices.
                let id = match &name {
                    Some(pod) if v6 => format!("{pod}-v6"),
                    Some(pod) => pod.clone(),
                    None => format!("{host}:{port}"),
                };
                let own = labels.iter().filter(|(label, _)| !label.contains('/'));
                let own = own.map(|(label, value)| (label.clone(), value.clone()));
                let zone = endpoint.zone.map(|zone| ("zone".to_owned(), zone));
                let metadata = own.chain(zone).collect();
                let instance = Instance { id, address, protocol, metadata };
                let version = labels.get(VERSION).cloned().unwrap_or_else(|| LATEST.to_owned());
                let (metadata, endpoints) = (LabelSet::default(), Vec::new());
                Registration { service, version, metadata, endpoints, instance, ttl: None }
            });
            entries.push((format!("{key}/{host}"), read));
        }
        Slice { key, entries }
    }

    /// The port that is called, and what is spoken there.
    fn port(&self, ports: &[Port]) -> Result<(u16, Protocol), String> {
        let is = |port: &Port, wanted: &str| {
            let number = port.port.map(|number| number.to_string());
            port.name.as_deref() == Some(wanted) || number.as_deref() == Some(wanted)
        };
        let number = |port: &Port| port.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0);
        let chosen = match &self.port {
            Some(wanted) => ports.iter().find(|port| is(port, wanted)),
            None => ports.iter().min_by_key(|port| (said(port).is_none(), number(port))),
        };
        let chosen = chosen.ok_or_else(|| match &self.port {
            Some(wanted) => format!("it has no port {wanted}"),
            None => "it has no port".to_owned(),
        })?;
        let protocol = match chosen.protocol.as_deref() {
            Some("TCP" | "") | None => said(chosen).unwrap_or(self.protocol),
            Some("UDP") => Protocol::Udp,
            Some(other) => return Err(format!("{other} is not carried")),
        };
        match number(chosen) {
            0 => Err(format!("port {} is none", chosen.port.unwrap_or_default())),
            port => Ok((port, protocol)),
        }
    }
}

fn key(meta: &Meta) -> String {
    format!("{}/{}", meta.namespace, meta.name)
}

/// What a port says of its protocol: `appProtocol` (KEP-1422 and KEP-3726), else the beginning of its
/// name, `grpc-api`, as meshes have it.
fn said(port: &Port) -> Option<Protocol> {
    let word = |word: &str| {
        Some(match word {
            "grpc" => Protocol::Grpc,
            "http" | "ws" => Protocol::Http1,
            "http2" | "h2c" => Protocol::Http2,
            "https" | "tls" | "wss" => Protocol::Tls,
            "mucp" => Protocol::Mucp,
            "tcp" => Protocol::Tcp,
            _ => return None,
        })
    };
    if let Some(said) = port.app_protocol.as_deref().filter(|said| !said.is_empty()) {
        let known = word(said.strip_prefix("kubernetes.io/").unwrap_or(said));
        // One that is said and not known is none of those: its bytes are carried as they are.
        return Some(known.unwrap_or(Protocol::Tcp));
    }
    word(port.name.as_deref()?.split('-').next()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn wanted() -> Wanted {
        Wanted { protocol: Protocol::Http1, port: None, of_all: false }
    }

    fn slice(endpoints: &Value, ports: &Value) -> Value {
        json!({
            "metadata": {
                "name": "shop-x", "namespace": "prod", "resourceVersion": "7",
                "labels": {
                    "kubernetes.io/service-name": "shop", "tier": "gold",
                    "app.kubernetes.io/version": "1.4.0", "endpointslice.kubernetes.io/managed-by": "c",
                },
            },
            "addressType": "IPv4", "endpoints": endpoints, "ports": ports,
        })
    }

    fn put(object: &Value, wanted: &Wanted) -> Vec<(String, Result<Registration, String>)> {
        let line = json!({ "type": "MODIFIED", "object": object }).to_string();
        match wanted.event(line.as_bytes()) {
            Ok(Event::Put(slice, version)) => {
                assert_eq!((slice.key.as_str(), version.as_str()), ("prod/shop-x", "7"));
                slice.entries
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn endpoints_that_are_ready_are_instances() {
        let endpoints = json!([
            { "addresses": ["10.1.0.4"], "conditions": { "ready": true }, "zone": "b",
              "targetRef": { "kind": "Pod", "name": "shop-1" } },
            { "addresses": ["10.1.0.5"], "conditions": { "ready": false, "serving": true, "terminating": true } },
            { "addresses": ["10.1.0.6"], "conditions": {} },
        ]);
        let object = slice(&endpoints, &json!([{ "name": "", "port": 8080, "protocol": "TCP" }]));
        let entries = put(&object, &wanted());
        let [(key, Ok(first)), (_, Ok(second))] = &entries[..] else { panic!("{entries:?}") };
        assert_eq!((key.as_str(), first.service.as_str()), ("prod/shop-x/10.1.0.4", "shop"));
        assert_eq!((first.version.as_str(), first.instance.id.as_str()), ("1.4.0", "shop-1"));
        assert_eq!(first.instance.address, "10.1.0.4:8080");
        assert_eq!(first.instance.metadata.to_string(), "tier=gold,zone=b");
        assert_eq!(first.instance.protocol, Protocol::Http1);
        assert_eq!(second.instance.id, "10.1.0.6:8080", "unsaid is ready, and it has no pod");

        let all = Wanted { of_all: true, ..wanted() };
        let entries = put(&object, &all);
        assert_eq!(entries[0].1.as_ref().unwrap().service.as_str(), "shop.prod");
    }

    #[test]
    fn of_several_ports_the_one_that_says_what_it_speaks_is_called() {
        let endpoints = json!([{ "addresses": ["10.1.0.4"] }]);
        let of = |ports: Value, wanted: &Wanted| {
            let entries = put(&slice(&endpoints, &ports), wanted);
            let read = entries.into_iter().next().unwrap().1;
            read.map(|read| (read.instance.address, read.instance.protocol))
        };
        let two = json!([{ "name": "metrics", "port": 80 }, { "name": "grpc-api", "port": 9000 }]);
        assert_eq!(of(two.clone(), &wanted()), Ok(("10.1.0.4:9000".into(), Protocol::Grpc)));
        for (port, at) in [("metrics", "10.1.0.4:80"), ("80", "10.1.0.4:80")] {
            let named = Wanted { port: Some(port.to_owned()), ..wanted() };
            assert_eq!(of(two.clone(), &named), Ok((at.into(), Protocol::Http1)));
        }
        let none = Wanted { port: Some("web".to_owned()), ..wanted() };
        assert!(of(two, &none).unwrap_err().contains("no port web"));
        for (port, protocol) in [
            (
                json!({ "port": 1, "appProtocol": "kubernetes.io/h2c", "name": "http" }),
                Protocol::Http2,
            ),
            (json!({ "port": 1, "appProtocol": "https" }), Protocol::Tls),
            (json!({ "port": 1, "appProtocol": "postgresql" }), Protocol::Tcp),
            (json!({ "port": 1, "protocol": "UDP", "name": "dns" }), Protocol::Udp),
            (json!({ "port": 1, "name": "web" }), Protocol::Http1),
        ] {
            assert_eq!(of(json!([port]), &wanted()).unwrap().1, protocol, "{port}");
        }
        for (port, why) in [
            (json!([{ "port": 1, "protocol": "SCTP" }]), "SCTP is not carried"),
            (json!([{ "port": 70000 }]), "port 70000 is none"),
            (json!([{ "port": null }]), "port 0 is none"),
            (json!(null), "no port"),
        ] {
            assert!(of(port, &wanted()).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn a_list_is_read_slice_by_slice() {
        let fine = slice(&json!([{ "addresses": ["10.1.0.4"] }]), &json!([{ "port": 80 }]));
        let mut v6 = slice(
            &json!([{ "addresses": ["fd00::4"], "targetRef": { "name": "p" } }]),
            &json!([{ "port": 80 }]),
        );
        v6["addressType"] = json!("IPv6");
        let list = json!({
            "metadata": { "resourceVersion": "99", "continue": "abc" },
            "items": [fine, 5, v6, { "metadata": { "name": "x", "namespace": "y", "resourceVersion": "1" } }],
        });
        let page = wanted().page(list.to_string().as_bytes()).unwrap();
        assert_eq!((page.version.as_str(), page.more.as_deref()), ("99", Some("abc")));
        let all: Vec<_> = page.slices.iter().flat_map(|slice| &slice.entries).collect();
        let [(_, Ok(_)), (_, Err(why)), (_, Ok(of_v6))] = &all[..] else { panic!("{all:?}") };
        assert!(why.contains("no EndpointSlice"), "{why}");
        assert_eq!(of_v6.instance.address, "[fd00::4]:80");
        assert_eq!(of_v6.instance.id, "p-v6");
        let end = br#"{"metadata":{"resourceVersion":"1"},"items":null}"#;
        assert!(wanted().page(end).unwrap().more.is_none());
        assert!(wanted().page(b"<html>").is_err());
    }

    #[test]
    fn a_watch_says_how_far_it_is_and_when_it_is_over() {
        let event = |line: &str| wanted().event(line.as_bytes());
        let mark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}"#;
        assert!(matches!(event(mark), Ok(Event::Mark(version)) if version == "12"));
        let over = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}"#;
        assert!(matches!(event(over), Ok(Event::Relist)));
        let failed = r#"{"type":"ERROR","object":{"code":500,"message":"etcd is gone"}}"#;
        assert!(event(failed).unwrap_err().contains("500 etcd is gone"));
        let gone = json!({ "type": "DELETED", "object": slice(&json!(null), &json!(null)) });
        let gone = event(&gone.to_string());
        assert!(matches!(gone, Ok(Event::Gone(key, _)) if key == "prod/shop-x"));
        assert!(event(r#"{"type":"NEWS","object":{}}"#).is_err() && event("{").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = wanted().page(&bytes);
            let _ = wanted().event(&bytes);
        }
    }
}
