//! Connections to names that the kernel leads to the node.

use serde::{Deserialize, Serialize};

/// `POST /v1/intercept`: leads connections here, or no more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterceptRequest {
    /// Whether they shall be led here.
    pub on: bool,
    /// Of programs of these users only; empty: of all.
    pub users: Vec<u32>,
    /// In the network namespace with this file; absent: where the node runs. Taken back: everywhere.
    pub namespace: Option<String>,
    /// Nothing is changed: the answer tells what would be.
    pub dry_run: bool,
}

/// One of `GET /v1/intercept`, kind `InterceptList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InterceptItem {
    /// The file of the network namespace; absent: where the node runs.
    pub namespace: Option<String>,
    /// Of programs of these users only; empty: of all.
    pub users: Vec<u32>,
    /// Whether addresses of IPv6 are led here too.
    pub ipv6: bool,
    /// Where names are asked for in another namespace; absent: as everywhere on the machine.
    pub dns: Option<String>,
    /// The changes, one a line or a table.
    pub changes: Vec<String>,
}
