//! What the admin socket says, as types: written by the daemon, read by the commands.
//!
//! Every document carries `kind` and `api`; field names are snake_case with their units, times are
//! RFC 3339 UTC. Within `micro/v1` fields are only added, so a reader ignores what it does not know
//! and every field it needs from a newer node has a default.

mod backends;
mod forward;
mod intercept;
mod labels;
mod rules;
mod services;
mod streams;
mod topics;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use backends::{BackendItem, Skipped};
pub use forward::{Forward, ForwardAsked, ForwardRequest};
pub use intercept::{InterceptItem, InterceptRequest};
pub use labels::{LabelItem, LabelRequest, Labelled};
pub use rules::{
    Applied, ApplyRequest, RuleWarning, Rules, RulesChange, RulesItem, Why, WhyOutcome, WhyRequest,
};
pub use services::{Endpoint, RouteItem, Service, ServiceItem, ServiceVersion, Shape};
pub use streams::{ConsumerItem, StreamItem};
pub use topics::{
    PublishRequest, Published, SubscribeRequest, Subscribed, TopicItem, TopicMessage, TopicRequest,
};

/// The version every document carries.
pub const VERSION: &str = "micro/v1";

/// A document: `kind`, `api`, and what it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Document<T> {
    /// What it is.
    pub kind: String,
    /// [`VERSION`].
    pub api: String,
    /// The rest.
    #[serde(flatten)]
    pub body: T,
}

impl<T> Document<T> {
    /// `body` as a document of this kind.
    pub fn new(kind: &str, body: T) -> Self {
        Self { kind: kind.to_owned(), api: VERSION.to_owned(), body }
    }
}

/// Several of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Items<T> {
    /// In the order in which people read them.
    pub items: Vec<T>,
}

/// `GET /v1/status`, kind `Status`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The network this node is a member of.
    pub network: Network,
    /// This node.
    pub node: Node,
    /// Where programs call.
    pub proxy: Listener,
    /// UDP addresses of links.
    pub listen: Vec<String>,
    /// Where names are asked for.
    pub dns: Listener,
    /// Where clients of NATS connect.
    pub broker: Listener,
    /// Where health and metrics are read.
    pub observe: Listener,
    /// Every link, neighbours first.
    pub links: Vec<Link>,
    /// How many services are visible.
    pub services: ServiceCount,
    /// Names of the node's roles; `edge` when it has none.
    pub roles: Vec<String>,
    /// Membership.
    pub grant: Grant,
}

/// A network, for people and for machines.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// The hash of its root key.
    pub id: String,
}

/// A node, about itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// The hash of its key.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its release.
    pub release: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Whether it takes calls.
    pub ready: bool,
    /// Whether it is stopping.
    pub draining: bool,
}

/// A TCP address the node listens on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Listener {
    /// `host:port`.
    pub address: String,
}

/// One link of this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// The id of the node at the other end.
    pub peer: String,
    /// Its name, empty while unknown.
    pub name: String,
    /// Its region.
    pub region: String,
    /// How bytes get there: `direct udp/v4`, `direct udp/v6`.
    pub path: String,
    /// Round trip, smoothed.
    pub rtt_ns: u64,
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// `live`, `suspected` or `draining`.
    pub state: String,
    /// Milliseconds since it came up.
    pub since_ms: u64,
    /// Where its packets come from.
    pub remote: String,
    /// Whether records flow on it.
    pub neighbour: bool,
    /// Bytes sent since it came up.
    pub bytes_out: u64,
    /// Bytes received since it came up.
    pub bytes_in: u64,
}

/// How many services a node sees.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceCount {
    /// With an instance that can be reached.
    pub reachable: u64,
    /// Of those, with an instance on this node.
    pub local: u64,
}

/// The node's membership.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Grant {
    /// When it ends unless renewed.
    pub expires: String,
}

/// One of `GET /v1/nodes`, kind `NodeList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeItem {
    /// The hash of its key.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// `local`, `direct`, `via NODE`, or empty when unreachable.
    pub path: String,
    /// Microseconds of the shortest path; absent when unreachable.
    pub cost_us: Option<u64>,
    /// Round trip of the direct link, where there is one.
    pub rtt_ns: Option<u64>,
    /// Adjacencies both ends report.
    pub links: u64,
    /// Services with an instance there.
    pub services: u64,
    /// Its release.
    pub release: String,
    /// `ready` or `unreachable`.
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where it may be dialled.
    pub addresses: Vec<String>,
}

/// `GET /v1/graph`, kind `Graph`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Graph {
    /// Every node known.
    pub nodes: Vec<GraphNode>,
    /// Every adjacency both ends report, once.
    pub links: Vec<GraphLink>,
}

/// A node of a [`Graph`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GraphNode {
    /// The hash of its key.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: String,
    /// Whether it is the node that answers.
    pub me: bool,
}

/// An edge of a [`Graph`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GraphLink {
    /// The id of one end, the smaller.
    pub a: String,
    /// The id of the other.
    pub b: String,
    /// Microseconds, the larger of what the ends report.
    pub cost_us: u64,
    /// `direct`, later `relay`.
    pub path: String,
}

/// `POST /v1/invite`; everything left out is the issuer's default.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InviteRequest {
    /// Seconds the ticket is valid.
    pub ttl_s: Option<u64>,
    /// How many nodes may join with it.
    pub uses: Option<u32>,
    /// `relay`, `gate`, `issuer`, `operator`; absent: none.
    pub role: Option<String>,
    /// Patterns of names the joiner may offer.
    pub services: Vec<String>,
    /// Patterns of namespaces it may use.
    pub namespaces: Vec<String>,
}

/// The answer to [`InviteRequest`], kind `Ticket`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Invited {
    /// The text; whoever has it can join.
    pub ticket: String,
    /// Its number, not secret.
    pub id: String,
    /// When it ends.
    pub expires: String,
    /// How many nodes may join with it.
    pub uses: u32,
    /// The role it gives; `edge` for none.
    pub role: String,
    /// Patterns of names the joiner may offer.
    pub services: Vec<String>,
    /// Patterns of namespaces it may use.
    pub namespaces: Vec<String>,
}

/// `POST /v1/join`: one of the two.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinRequest {
    /// A seed of the same network to link with: `host[:port]`.
    pub address: Option<String>,
    /// A ticket of the same network, for its seeds.
    pub ticket: Option<String>,
}

/// The answer to [`JoinRequest`], kind `Joined`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Joined {
    /// Where links are tried.
    pub addresses: Vec<String>,
    /// The name of the peer that answered; empty when none has yet.
    pub peer: String,
    /// Round trip to it.
    pub rtt_ns: Option<u64>,
}

/// `POST /v1/expose`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExposeRequest {
    /// The name.
    pub name: String,
    /// `host:port` or `unix:/path` where the program listens.
    pub address: String,
    /// `grpc`, `http`, `http2`, `tcp`, `tls`; absent: found out by trying, which the last two are not.
    pub protocol: Option<String>,
    /// Its version; absent: `latest`.
    pub version: Option<String>,
    /// Labels of the instance.
    pub labels: BTreeMap<String, String>,
    /// What can be called on it, where the one who exposes knows.
    pub endpoints: Vec<Endpoint>,
    /// Seconds after which it is withdrawn unless exposed again; absent: until unexposed.
    pub ttl_s: Option<u64>,
    /// How it is looked at; absent: not at all.
    pub check: Option<HealthCheck>,
}

/// How a node looks at an instance: one that is not well is not called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthCheck {
    /// `tcp`, `http` or `grpc`.
    pub kind: String,
    /// Of `http` the path; of `grpc` the service that is asked about, empty for the whole server.
    pub target: String,
    /// Milliseconds between two looks.
    pub interval_ms: Option<u64>,
    /// Milliseconds until an answer counts as none.
    pub timeout_ms: Option<u64>,
    /// Failures in a row that take it out.
    pub fall: Option<u32>,
    /// Successes in a row that bring it back.
    pub rise: Option<u32>,
}

/// The answer to [`ExposeRequest`], kind `Exposed`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exposed {
    /// The name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// What it speaks.
    pub protocol: String,
    /// Its version.
    pub version: String,
}

/// `POST /v1/unexpose`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnexposeRequest {
    /// The name.
    pub name: String,
    /// Only the instance that listens here.
    pub address: Option<String>,
}

/// The answer to [`UnexposeRequest`], kind `Unexposed`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Unexposed {
    /// The name.
    pub name: String,
    /// How many instances were withdrawn.
    pub instances: u64,
}

/// `GET /v1/ping?node=NODE`, kind `Ping`: one probe.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ping {
    /// The name of the node.
    pub node: String,
    /// Its region.
    pub region: String,
    /// How the probe went.
    pub path: String,
    /// Its round trip.
    pub rtt_ns: u64,
    /// Where the answer came from.
    pub remote: String,
}

/// `GET /v1/ready`, kind `Readiness`: 200 when ready, else 503 with the same document.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// Whether all components are.
    pub ready: bool,
    /// Each part with its reason.
    pub components: Vec<Component>,
}

/// One part of [`Readiness`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Why, or why not.
    pub reason: String,
}
