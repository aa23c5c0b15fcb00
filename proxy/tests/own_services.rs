//! Our own services over real HTTP/2 connections, called the way go-micro programs call: nothing
//! is half-closed unless a test says so.

#![allow(clippy::unwrap_used, reason = "a test that finds nothing there has failed")]

#[path = "own_services/client.rs"]
mod client;
#[path = "own_services/node.rs"]
mod node;

#[path = "own_services/calls.rs"]
mod calls;
#[path = "own_services/etcd.rs"]
mod etcd;
#[path = "own_services/network.rs"]
mod network;
#[path = "own_services/registry.rs"]
mod registry;
#[path = "own_services/table.rs"]
mod table;
#[path = "own_services/tools.rs"]
mod tools;
#[path = "own_services/v3.rs"]
mod v3;
#[path = "own_services/watch.rs"]
mod watch;
