//! Speed, measured: a load tool with its own servers, and a runner that puts this project beside
//! the proxies people use today.
//!
//! Everything measured here is a process of its own with a CPU clock of its own: [`echo`],
//! [`files`], [`connections`] and [`quic`] answer, [`calls`] and [`download`] ask, [`cpu`] reads what each spent.
//! [`compare`] starts contestants, drives them in turn and writes the tables.

pub mod allocations;
pub mod calls;
pub mod client;
pub mod compare;
pub mod connections;
pub mod cpu;
pub mod download;
pub mod echo;
pub mod error;
pub mod files;
pub mod latency;
pub mod outcome;
pub mod pace;
pub mod quic;
pub mod units;

pub use error::Error;
