//! What crosses the wire between nodes, and the words for it.
//!
//! Floor 0 of the house: no I/O, no clock, no randomness. Everything here turns bytes into values
//! that cannot lie, or values into bytes; what arrives is hostile until a decoder here has said
//! otherwise, and no length is believed before it is checked against a named bound.
//!
//! | Module | Holds |
//! |---|---|
//! | [`id`] | who: nodes, networks, keys, links |
//! | [`name`], [`label`], [`selector`], [`target`] | what is called: services, labels, what asks for them |
//! | [`time`], [`cost`] | versions of records, expected microseconds of a path |
//! | [`grant`], [`ticket`], [`join`] | membership and how it is obtained |
//! | [`rule`] | what operators decide about the calls of a service |
//! | [`record`] | the signed link-state records that nodes flood |
//! | [`frame`] | the control stream of a link |
//! | [`open`], [`head`], [`exchange`], [`fault`], [`credit`] | a call: its first bytes, its frames, its failure, its flow |
//! | [`client_hello`] | the first words of TLS: which server a client wants |
//! | [`topic`], [`publish`] | topics, their patterns, and messages on their way |
//! | [`stored`] | messages on a disk |
//! | [`micro`] | protobuf of the go-micro faces |
//! | [`wire`], [`varint`] | the two codecs under all of it |

pub mod client_hello;
pub mod cost;
pub mod credit;
pub mod error;
pub mod exchange;
pub mod fault;
pub mod frame;
pub mod grant;
pub mod head;
pub mod id;
pub mod join;
pub mod label;
pub mod micro;
pub mod name;
pub mod open;
pub mod publish;
pub mod record;
pub mod rule;
pub mod selector;
pub mod sign;
pub mod stored;
pub mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod ticket;
pub mod time;
pub mod topic;
pub mod varint;
pub mod wire;

pub use cost::Cost;
pub use error::DecodeError;
pub use fault::Fault;
pub use grant::{Credential, Grant, Role, Roles};
pub use id::{LinkId, NetworkId, NodeId, PublicKey, Signature};
pub use label::LabelSet;
pub use name::ServiceName;
pub use open::Open;
pub use record::{Record, RecordId, Verified};
pub use selector::Selector;
pub use target::Target;
pub use ticket::Ticket;
pub use time::{Epoch, Seq, Time, UnixTime, Version};
pub use topic::{QueueGroup, Topic, TopicPattern};

/// The protocol versions this build speaks between nodes, lowest and highest.
pub const PROTOCOL: (u32, u32) = (1, 1);
