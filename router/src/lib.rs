//! The mind: who is there, what is reachable, which way.
//!
//! Floor 1 of the house: a pure core. [`Router`] takes [`Input`]s and the time, and gives
//! [`Output`]s; it knows no socket, task, lock or clock, so a test runs a thousand of them in one
//! thread, and every failure is replayed from its seed.
//!
//! | Module | Holds |
//! |---|---|
//! | [`router`] | [`Router`], the facade |
//! | [`input`], [`output`] | the two doors |
//! | [`routes`] | [`Routes`], the immutable answers |
//! | [`limits`] | every bound, by name |
//! | `lsdb` | every record known: accept, supersede, forget |
//! | `flood` | what to tell whom, and when |
//! | `graph`, `paths` | adjacencies both ends agree on, and the shortest paths over them |
//! | [`rules`], [`kept`] | what operators decide about calls, and what of it is kept for the network |
//! | `services` | instances, labels, locality groups |
//! | `lease`, `links` | what this node offers, and what it says of its links |
//! | `neighbours` | which links to keep |
//! | [`topics`], `interest` | who wants to hear of what, and how it gets there |
//! | [`timer`], `chance` | the timer table, the one seeded generator |

mod backbone;
mod chance;
mod flood;
mod graph;
pub mod input;
mod interest;
pub mod kept;
mod lease;
pub mod limits;
mod links;
mod lsdb;
mod neighbours;
pub mod output;
mod paths;
pub mod router;
pub mod routes;
pub mod rules;
mod services;
mod terms;
#[cfg(test)]
mod testing;
pub mod timer;
pub mod topics;

pub use input::{Input, LinkEvent, Message, Registration, Request, RequestId};
pub use limits::Limits;
pub use output::{Note, Output, Refusal};
pub use router::{Config, Router};
pub use routes::{
    Adjacent, Candidates, Instance, InstanceKey, Lookup, Matches, Mismatch, NodeRoute, Query,
    Routes, ServiceRoutes, VersionInfo,
};
pub use rules::{Decision, Explanation, Headers, RequestView, Rules};
pub use services::locality;
pub use timer::Timer;
