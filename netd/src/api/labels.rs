//! Labels set by command.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `POST /v1/labels`: labels of this node, or of a service on it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LabelRequest {
    /// The service; absent: this node.
    pub service: Option<String>,
    /// What is set.
    pub set: BTreeMap<String, String>,
    /// Keys of what is taken back; each must have been set by command.
    pub rm: Vec<String>,
}

/// The answer to [`LabelRequest`], kind `Labelled`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Labelled {
    /// The service; absent: this node.
    pub service: Option<String>,
    /// Of this node all its labels; of a service those set by command.
    pub labels: BTreeMap<String, String>,
}

/// One of `GET /v1/labels`, kind `LabelList`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LabelItem {
    /// The service; absent: this node.
    pub service: Option<String>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// `configuration` (flags, environment, file) or `command`.
    pub from: String,
}
