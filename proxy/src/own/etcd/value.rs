//! The values of go-micro: a service with one node, as JSON.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::LabelSet;
use proto::micro::registry as pb;
use proto::record::{Endpoint, Protocol, ValueType};
use router::{Instance, VersionInfo};
use serde::{Deserialize, Deserializer, Serialize};

/// A service as go-micro writes it. Maps and lists that are missing may be `null`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Service {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(deserialize_with = "or_default")]
    version: String,
    #[serde(deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    endpoints: Vec<EndpointOf>,
    #[serde(deserialize_with = "or_default")]
    nodes: Vec<Node>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Node {
    #[serde(deserialize_with = "or_default")]
    id: String,
    #[serde(deserialize_with = "or_default")]
    address: String,
    #[serde(deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct EndpointOf {
    #[serde(deserialize_with = "or_default")]
    name: String,
    request: Option<Shape>,
    response: Option<Shape>,
    #[serde(deserialize_with = "or_default")]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Shape {
    #[serde(deserialize_with = "or_default")]
    name: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    kind: String,
    #[serde(deserialize_with = "or_default")]
    values: Vec<Option<Shape>>,
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a value.
///
/// # Errors
/// A text for people, when it is not one of go-micro.
pub(super) fn read(value: &[u8]) -> Result<pb::Service, String> {
    let service: Service = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    let node = |node: Node| pb::Node {
        id: node.id,
        address: node.address,
        port: 0,
        metadata: node.metadata,
    };
    let endpoint = |endpoint: EndpointOf| pb::Endpoint {
        name: endpoint.name,
        request: endpoint.request.map(shape_in),
        response: endpoint.response.map(shape_in),
        metadata: endpoint.metadata,
    };
    Ok(pb::Service {
        name: service.name,
        version: service.version,
        metadata: service.metadata,
        endpoints: service.endpoints.into_iter().map(endpoint).collect(),
        nodes: service.nodes.into_iter().map(node).collect(),
        options: None,
    })
}

/// What an instance speaks that does not say so: go-micro programs say what they speak, but for the
/// subscribers of its HTTP broker, which take HTTP.
pub(super) fn silent_protocol(metadata: &LabelSet) -> Option<Protocol> {
    if metadata.get("protocol").is_some_and(|word| !word.is_empty()) {
        return None;
    }
    /// The number under which words travel that we do not know.
    const UNKNOWN: u64 = 255;
    let http = metadata.get("broker") == Some("http");
    Some(if http { Protocol::Http1 } else { Protocol::Other(UNKNOWN) })
}

/// Writes the value of an instance.
pub(super) fn write(service: &str, instance: &Instance, info: Option<&VersionInfo>) -> Bytes {
    let mut metadata = pairs(&instance.metadata);
    if !matches!(instance.protocol, Protocol::Other(_)) {
        let protocol = || instance.protocol.name().to_owned();
        metadata.entry("protocol".to_owned()).or_insert_with(protocol);
    }
    let value = Service {
        name: service.to_owned(),
        version: instance.version.to_string(),
        metadata: info.map(|info| pairs(&info.metadata)).unwrap_or_default(),
        endpoints: info
            .map(|info| info.endpoints.iter().map(endpoint_out).collect())
            .unwrap_or_default(),
        nodes: vec![Node {
            id: instance.id.to_string(),
            address: instance.address.to_string(),
            metadata,
        }],
    };
    serde_json::to_vec(&value).expect("texts and maps of texts are JSON").into()
}

fn endpoint_out(endpoint: &Endpoint) -> EndpointOf {
    EndpointOf {
        name: endpoint.name.clone(),
        request: endpoint.request.as_ref().map(shape_out),
        response: endpoint.response.as_ref().map(shape_out),
        metadata: pairs(&endpoint.metadata),
    }
}

fn shape_in(shape: Shape) -> pb::Value {
    let values = shape.values.into_iter().flatten().map(shape_in).collect();
    pb::Value { name: shape.name, r#type: shape.kind, values }
}

fn shape_out(shape: &ValueType) -> Shape {
    let values = shape.values.iter().map(|inner| Some(shape_out(inner))).collect();
    Shape { name: shape.name.clone(), kind: shape.kind.clone(), values }
}

fn pairs(labels: &LabelSet) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_go_micro_writes_is_read() {
        let value = br#"{"name":"greeter","version":"latest","metadata":null,"endpoints":[{"name":
            "Say.Hello","request":{"name":"Req","type":"Req","values":[{"name":"name","type":
            "string","values":null}]},"response":null,"metadata":{"stream":"true"}}],"nodes":[{
            "id":"greeter-1","address":"10.0.0.7:4000","metadata":{"protocol":"mucp"}}],"more":1}"#;
        let service = read(value).unwrap();
        assert_eq!((service.name.as_str(), service.nodes[0].id.as_str()), ("greeter", "greeter-1"));
        assert_eq!(service.endpoints[0].request.as_ref().unwrap().values[0].r#type, "string");
        assert_eq!(service.endpoints[0].metadata["stream"], "true");
        assert!(read(b"{\"nodes\":[{\"id\":7}]}").is_err());
        assert!(read(b"").is_err());
        assert!(read("[".repeat(100_000).as_bytes()).is_err(), "nor does it run out of stack");
    }

    #[test]
    fn who_does_not_say_what_it_speaks_is_not_taken_to_speak_grpc() {
        let of = |pairs: &[(&str, &str)]| silent_protocol(&pairs.iter().copied().collect());
        assert_eq!(of(&[("protocol", "grpc")]), None);
        assert_eq!(of(&[("broker", "http"), ("topic", "t")]), Some(Protocol::Http1));
        assert_eq!(of(&[]), Some(Protocol::Other(255)));
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(value in any::<Vec<u8>>()) {
            let _ = read(&value);
        }
    }
}
