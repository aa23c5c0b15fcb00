//! Ports of this machine that are services, as the admin socket says them.

use serde::{Deserialize, Serialize};

/// `POST /v1/forward`: ports of this machine are services for as long as the answer is read. It is
/// one line, a `ForwardList` of [`Forward`], and nothing follows until it is over.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ForwardRequest {
    /// The ports.
    pub forwards: Vec<ForwardAsked>,
}

/// A port that is asked for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ForwardAsked {
    /// The service: its name, or `namespace/name`.
    pub service: String,
    /// What its instance must be like, as in `micro-select`.
    pub select: String,
    /// `host:port` to listen on; port 0: a free one.
    pub address: String,
    /// Packets over UDP; `false`: as the service is, TCP where nothing of it is known.
    pub udp: bool,
}

/// A port that is a service now.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Forward {
    /// The service.
    pub service: String,
    /// Where the port is.
    pub address: String,
    /// It takes packets over UDP.
    pub udp: bool,
    /// Instances that can be reached now.
    pub instances: usize,
}
