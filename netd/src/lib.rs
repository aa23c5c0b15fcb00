//! `micro`: one node of a micro network, and its command line.
//!
//! `micro network` is the daemon: [`daemon`] builds every part in order. All other commands are
//! readers of its admin socket or callers of its proxy, one file each under [`cli`].
//!
//! This library has one user, the program of the same package.

pub mod admin;
pub mod api;
pub mod backend;
pub mod bridge;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod data;
pub mod demo;
pub mod drain;
pub mod drive;
pub mod error;
pub mod health;
pub mod httpd;
pub mod intercept;
pub mod interest;
pub mod labels;
pub mod listen;
pub mod log;
pub mod member;
pub mod metrics;
pub mod names;
pub mod node;
pub mod output;
pub mod owner;
pub mod registrar;
pub mod revisions;
pub mod rules;
pub mod seeds;
pub mod serve;
pub mod state;
pub mod store;
pub mod streams;
pub mod system;
pub mod upkeep;
pub mod welcome;
