//! The faces turned to programs: one port that takes gRPC and HTTP calls, and carries each to an
//! instance of the service it names, on this node or another.
//!
//! ```text
//! caller's node    capture → detect → http1 | http2 | mucp → target → carry ─┬─ deliver (here)
//!                                                                            └─ frames on a stream
//! service's node   arrive → deliver → the instance
//! failed           Error → answer, where the caller is; Fault, when another node must say it
//! ```
//!
//! | Module | Holds |
//! |---|---|
//! | [`proxy`](crate::Proxy) | the facade: [`Proxy`], [`Config`] |
//! | `capture`, `detect` | how a connection arrives and what it speaks |
//! | `http1`, `http2` | one protocol of callers each |
//! | [`mucp`] | go-micro's own protocol, as a gRPC call to everything behind it |
//! | `upgrade`, `strict` | connections that become something else; requests that can be read in two ways |
//! | `connect`, `socks` | proxies for programs that take one; `outside`: what is not of the network |
//! | `by_address` | what programs dial that took an address from a registry |
//! | `dns` | names for programs that only resolve, each with an address of its own |
//! | `tls` | TLS by the name in its first words, passed on sealed |
//! | `tcp`, `splice` | bytes of any protocol, both ways, each with its own end |
//! | `udp` | packets, as flows with an instance |
//! | `target`, `host`, `headers` | what a request asks for; what passes and what is stripped |
//! | `statics`, `via` | routes that local programs made, and go-micro's filters of routes |
//! | `carry`, [`balance`] | choosing an instance, trying again where that is safe |
//! | `deliver` | connections to the instances of this node |
//! | [`health`] | what the node of an instance has found out about it |
//! | `arrive`, `frames`, `heads` | calls of other nodes, and how a call looks on a stream |
//! | [`body`], `sink`, `pump`, `message` | bytes moved, never decoded, with flow control end to end |
//! | [`error`], `answer` | what went wrong, and how each protocol says so |
//! | [`broker`], [`nats`], `feed` | topics: publish, fan out, relay, deliver; for clients of NATS, and as events over HTTP |
//! | [`foreign`] | what other registries say of an instance, read |
//! | [`explain`] | why a call goes where it goes, as one value |
//! | [`own`] | the services that this node itself serves |
//!
//! Bodies are never decoded and never buffered beyond a named bound. A request that may have
//! reached a service is never sent a second time unless its caller marked it idempotent.

mod answer;
mod arrive;
pub mod balance;
mod begin;
pub mod body;
pub mod broker;
mod by_address;
mod capture;
mod carry;
mod connect;
mod deadline;
mod deliver;
mod detect;
mod dns;
pub mod error;
pub mod explain;
mod feed;
pub mod foreign;
mod frames;
mod headers;
mod heads;
pub mod health;
mod host;
mod http1;
mod http2;
pub mod limits;
mod load;
mod message;
mod metrics;
pub mod mucp;
pub mod nats;
mod outside;
pub mod own;
pub mod proxy;
mod pump;
pub mod registrar;
mod relay;
pub mod routes;
mod ruled;
mod sink;
mod socket;
mod socks;
mod source;
mod splice;
mod statics;
mod strict;
mod target;
mod tcp;
mod tls;
mod turn_away;
mod udp;
mod upgrade;
mod via;

pub use body::Body;
pub use broker::Broker;
pub use deliver::dial;
pub use dns::{Led, NAME_SERVER, Names, RANGES, answered};
pub use error::Error;
pub use explain::{Explanation, Spoken};
pub use feed::Event;
pub use limits::Limits;
pub use message::TooLong;
pub use proxy::{Admit, AdmitPackets, Config, Drain, Proxy, Served, Stranger};
pub use registrar::{Registrar, RegistrarError};
pub use routes::Published;
pub use target::{Wanted, asked};
pub use tcp::Destination;
pub use udp::socks::read as socks_packet;
pub use via::Via;
