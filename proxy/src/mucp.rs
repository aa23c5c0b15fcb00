//! MUCP, go-micro's own protocol (v1, v3 to v6, and v2 when told to): HTTP/1.1 messages that name
//! service and endpoint in headers (contract, headers 4).
//!
//! ```text
//! caller   capture → serve: is it MUCP → socket: messages → request: the gRPC request that it is
//!          → begin, carry … as for any gRPC call → answers → encode → the caller
//! service  leg → deliver::mucp: the gRPC request as messages, what comes back as a gRPC response
//! event    no service but a topic: event → broker
//! failed   a status of gRPC ↔ Micro-Error: failure
//! ```
//!
//! Between the two, a call is a gRPC exchange and nothing else: on this node, between nodes, in
//! rules and in what is explained. So every caller reaches every service, each translation is
//! written once, and a body is moved from one envelope to the other without being read.

pub(crate) mod answers;
pub(crate) mod content;
pub(crate) mod encode;
mod event;
pub mod failure;
pub(crate) mod frames;
mod message;
pub(crate) mod request;
mod serve;
pub(crate) mod socket;
mod stream;

pub use message::{Decoder, Line, Malformed, Message, Side};
pub use request::{Request, is_mucp};
pub(crate) use serve::{MISPLACED, has_marks, recognise, serve};
