//! The services that this node itself serves on the proxy port.
//!
//! go-micro programs whose `MICRO_PROXY` points here send every call here, those to the registry
//! included; so these names are matched by table, before the routing table.
//!
//! ```text
//! request → dispatch: is it gRPC → methods: which one → messages: one message out of the body
//!         → codec: JSON to protobuf → broker | registry | network | router | rules | etcd | store
//!                                     | auth | debug | health
//!         → reply: protobuf to JSON, one message or many, trailers
//! ```
//!
//! Everything is answered from one snapshot of the router's answers. A stream is answered as soon
//! as its first message is there: go-micro never half-closes (`contracts` of go-micro v2, streams).

mod auth;
mod broker;
mod changes;
mod codec;
mod debug;
mod dispatch;
pub mod etcd;
mod events;
mod failure;
mod health;
mod logs;
mod messages;
mod methods;
mod network;
mod reflection;
mod registration;
mod registry;
mod reply;
mod router;
mod rules;
mod scope;
pub mod store;
mod watch;

use std::sync::Arc;

pub use self::logs::Logs;
pub use self::rules::{Refused, RefusedKind, Rules};

use futures_util::future::BoxFuture;
use proto::NodeId;

use crate::body::Body;
use crate::registrar::Registrar;
use crate::routes::Published;

/// One of our own services: takes whole requests, answers whole responses, trailers included.
pub trait OwnService: Send + Sync {
    /// Answers one request. Dropping the future or the response body cancels the call.
    fn serve(&self, request: http::Request<Body>) -> BoxFuture<'static, http::Response<Body>>;
}

/// Marks a request, as an extension of it, whose caller is a program on this machine of the user who
/// runs the node, or of root: only such may change where calls go.
#[derive(Clone, Copy, Debug)]
pub struct OfOwner;

/// What our services ask of the node beyond registrations.
pub trait Admin: Send + Sync {
    /// Tries to link with nodes at these addresses, `host` or `host:port` each. Answers when the
    /// addresses are taken, not when links are up; the text of an error is for people.
    fn connect(&self, addresses: Vec<String>) -> BoxFuture<'_, Result<(), String>>;
}

/// What our services are made of.
pub struct Config {
    /// This node.
    pub me: NodeId,
    /// Its name, as `micro-node` shows it with errors.
    pub node_name: String,
    /// The name of the network, as routes and nodes show it.
    pub network: String,
    /// The router's answers.
    pub routes: Arc<Published>,
    /// Who takes registrations.
    pub registrar: Arc<dyn Registrar>,
    /// Who links with more nodes.
    pub admin: Arc<dyn Admin>,
    /// What the process logs.
    pub logs: Arc<Logs>,
}

/// What a node may have beside that, and what it does without.
#[derive(Default)]
pub struct Parts {
    /// What is decided about calls; without, the service of rules says that nothing is.
    pub rules: Option<Arc<dyn Rules>>,
    /// What the face of etcd needs; without, its revisions begin at 1.
    pub etcd: etcd::Parts,
    /// Where records of programs are kept; without, the store says that nothing is.
    pub store: Option<Arc<dyn store::Store>>,
    /// Marks the tokens of accounts; without, those of an earlier life are not known.
    pub tokens: Option<[u8; 32]>,
}

/// All our services. Cheap to clone: a handle.
#[derive(Clone)]
pub struct Own(Arc<dispatch::Dispatch>);

impl Own {
    /// The names, as callers write them before `.Struct/Method`: to be matched before the routes.
    pub const NAMES: [&'static str; 13] = [
        broker::NAME,
        registry::NAME,
        network::NAME,
        router::NAME,
        rules::NAME,
        etcd::NAME,
        store::NAME,
        auth::NAME,
        "go.micro.proxy",
        "go.micro.debug",
        health::NAME,
        reflection::V1,
        reflection::V1_ALPHA,
    ];

    /// The services of this node.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with(config, Parts::default())
    }

    /// The same, with parts that not every node has.
    #[must_use]
    pub fn with(config: Config, parts: Parts) -> Self {
        Self(Arc::new(dispatch::Dispatch::new(config, parts)))
    }

    /// Whether `service` is one of [`Own::NAMES`].
    #[must_use]
    pub fn has(service: &str) -> bool {
        Self::NAMES.contains(&service)
    }

    /// Has topics carried by `broker`; said once.
    pub(crate) fn carries(&self, broker: crate::broker::Broker) {
        self.0.carries(broker);
    }

    /// Whether a path calls a method of ours by a name of micro v3.
    pub(crate) fn has_method(path: &str) -> bool {
        methods::name_of_v3(path).is_some()
    }

    /// The name of the network.
    pub(crate) fn network(&self) -> &str {
        self.0.network_name()
    }

    /// From now on health says that this node serves no more; watchers of it are told.
    pub fn drain(&self) {
        self.0.drain();
    }
}

impl OwnService for Own {
    fn serve(&self, request: http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> {
        let dispatch = Arc::clone(&self.0);
        Box::pin(async move { dispatch.answer(request).await })
    }
}
