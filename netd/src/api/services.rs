//! Services, their instances, and what they offer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One of `GET /v1/routes`, kind `RouteList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteItem {
    /// The service.
    pub service: String,
    /// The id the instance registered with.
    pub instance: String,
    /// Where it listens.
    pub address: String,
    /// The name of its node.
    pub node: String,
    /// The region of its node.
    pub region: String,
    /// `local`, `direct`, `via NODE`, or empty when unreachable.
    pub path: String,
    /// Microseconds; absent when unreachable.
    pub cost_us: Option<u64>,
    /// What it speaks.
    pub protocol: String,
    /// Its version.
    pub version: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `best`, `ok`, `unhealthy` or `unreachable`.
    pub state: String,
    /// The back end that its node learned it from; empty: from the program, or by command.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// Why that back end is silent, while it is: the instance may be gone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stale: String,
    /// Why it is in that state, where that is not plain.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One of `GET /v1/services`, kind `ServiceList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceItem {
    /// Its name.
    pub name: String,
    /// Instances, reachable or not.
    pub instances: u64,
    /// Of those, reachable.
    pub reachable: u64,
    /// Those that their nodes have found not to be well: where, and why.
    pub unhealthy: Vec<String>,
    /// Where they are, nearest first.
    pub regions: Vec<String>,
    /// What they speak.
    pub protocols: Vec<String>,
    /// Endpoints registered, over all versions.
    pub endpoints: u64,
    /// Versions.
    pub versions: Vec<String>,
    /// Labels that all instances share.
    pub labels: BTreeMap<String, String>,
}

/// `GET /v1/services/NAME`, kind `Service`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its versions, with what each offers.
    pub versions: Vec<ServiceVersion>,
    /// Its instances, nearest first.
    pub instances: Vec<RouteItem>,
}

/// A version of a [`Service`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceVersion {
    /// The version.
    pub version: String,
    /// What it registered about itself.
    pub metadata: BTreeMap<String, String>,
    /// What it offers, as registered.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint of a [`ServiceVersion`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// `Struct.Method`, or what an HTTP program makes of it.
    pub name: String,
    /// `stream=true` for streams, and what else the program says.
    pub metadata: BTreeMap<String, String>,
    /// The shape of the request.
    pub request: Option<Shape>,
    /// The shape of the response.
    pub response: Option<Shape>,
}

/// The shape of a value, as go-micro registers it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// The name of the field or message.
    pub name: String,
    /// Its type, as the program's language calls it.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its fields.
    pub values: Vec<Self>,
}
