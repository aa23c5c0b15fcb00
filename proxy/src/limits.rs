//! Every bound of the data plane, with its reason.

use std::time::Duration;

/// Bounds of one proxy. [`Limits::default`] is what a node runs with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Captured connections at a time; more wait in the kernel's queue.
    pub connections: usize,
    /// Calls of local programs at a time; more are refused with M1305.
    pub calls: u32,
    /// Calls of other nodes at a time; more are refused with M1305.
    pub arrivals: u32,
    /// Flows of packets of local programs at a time; each is a stream on its link, of which calls need
    /// some too. Of more, those of a port that were silent longest give way.
    pub flows: u32,
    /// The same of other nodes; more are refused with M1305.
    pub flow_arrivals: u32,
    /// Calls at one instance at a time, from this node; more are refused with M1305.
    pub calls_per_instance: u32,
    /// Bytes of one gRPC message, either way: what go-micro itself allows.
    pub message: u32,
    /// Bytes of a request head, as its fields count (RFC 9113 §6.5.2).
    pub head: u32,
    /// Streams of one HTTP/2 connection of a caller.
    pub streams: u32,
    /// Until a connection has said what it speaks.
    pub first_bytes: Duration,
    /// Until an HTTP/1 request head is complete, which also bounds idle keep-alive connections.
    pub head_wait: Duration,
    /// Until an instance has accepted a connection.
    pub connect: Duration,
    /// Connections to one instance.
    pub connections_per_instance: usize,
    /// Idle connections kept to one HTTP/1 instance.
    pub idle_per_instance: usize,
    /// How long an HTTP/1 connection to an instance is kept idle: less than the 5 s after which
    /// common servers close, so that a request and a close seldom cross.
    pub idle: Duration,
    /// Bytes of a request body kept until the response begins, so that it can be sent to another
    /// instance when the first has certainly not seen it.
    pub replay: usize,
    /// Instances tried for one call.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            calls: 16_384,
            arrivals: 16_384,
            flows: 512,
            flow_arrivals: 4_096,
            calls_per_instance: 4_096,
            message: 4 * 1024 * 1024,
            head: 64 * 1024,
            streams: 1_024,
            first_bytes: Duration::from_secs(3),
            head_wait: Duration::from_secs(60),
            connect: Duration::from_millis(1_000),
            connections_per_instance: 64,
            idle_per_instance: 64,
            idle: Duration::from_secs(4),
            replay: 64 * 1024,
            attempts: 3,
        }
    }
}
