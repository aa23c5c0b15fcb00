//! Links, paths and streams between nodes.
//!
//! Floor 2 of the house. A link is one QUIC connection between two nodes that have proven
//! their keys (raw public keys, RFC 7250) and shown each other a grant of the same network.
//! Over it go calls, one stream each, and between neighbours the records of the router.
//!
//! [`start`] gives three handles: [`Tunnel`] opens streams, [`Incoming`] has those that others
//! open here, and [`Control`] is for the router. A call to a node without a link makes one.
//!
//! ```no_run
//! # async fn example(config: tunnel::Config, node: proto::NodeId) -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use proto::open::{Open, OpenKind};
//!
//! let quic = tunnel::quic::Quic::bind(&config)?;
//! let (tunnel, mut control, mut incoming) = tunnel::start(config, quic).await?;
//!
//! // One end calls…
//! let mut stream = tunnel.open(node, &Open::new(OpenKind::Bytes)).await?;
//! stream.send.write(&mut [Bytes::from_static(b"hello")]).await?;
//! stream.send.finish();
//! while let Some(answer) = stream.recv.read(64 * 1024).await? {
//!     println!("{} bytes", answer.len());
//! }
//!
//! // …the other is called…
//! while let Some(arrival) = incoming.accept().await {
//!     println!("{} calls {:?}", arrival.caller, arrival.open.service);
//! }
//!
//! // …and the router hears of its neighbours.
//! let event = control.event().await;
//! # Ok(())
//! # }
//! ```
//!
//! Never here: what a call means, which instance it is for, and which node should be a neighbour.

mod admit;
mod bucket;
mod clock;
pub mod close;
pub mod conduct;
pub mod config;
pub mod control;
mod cost;
pub mod counters;
mod credit;
pub mod dial;
pub mod door;
pub mod durable;
pub mod endpoint;
mod frames;
mod greet;
pub mod identity;
pub mod issuer;
pub mod join;
pub mod link;
mod links;
mod machine;
pub mod memory;
mod packets;
mod penalty;
mod prefixes;
pub mod quic;
pub mod seeds;
mod serve;
pub mod stream;
pub mod transport;

pub use close::{Close, Gone};
pub use config::{Config, Limits};
pub use control::{Control, Event};
pub use counters::Counters;
pub use dial::DialError;
pub use endpoint::{Arrival, AskError, Error, Incoming, OpenError, Tunnel, start};
pub use identity::{Ed25519, Keypair};
pub use issuer::Desk;
pub use link::{LinkInfo, State};
pub use packets::{Packets, Sent};
pub use stream::{RecvHalf, SendHalf, Stream, StreamError};
