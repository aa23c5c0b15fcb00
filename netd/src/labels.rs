//! Labels that are set by command, of this node and of services on it, kept for its next life.
//!
//! ```text
//! configuration (network, node) < command of the node < programs of the service
//!                               < command of the service < instance
//! ```
//!
//! One task writes: changes are made one after the other, and each either wholly or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use proto::record::Node;
use proto::{LabelSet, ServiceName};
use router::{Refusal, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::drive::{Asks, Leaving};
use crate::state::{MAX_FILE, State, StateError};

/// The file in the state directory.
const FILE: &str = "labels";
/// Labels that may be set on one thing.
pub const MAX_SET: usize = 32;
/// Changes that wait; who sends more waits.
const WAITING: usize = 16;

/// Labels of one thing.
pub type Pairs = BTreeMap<String, String>;

/// What is set, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Of this node.
    pub node: Pairs,
    /// Of services, by name.
    pub services: BTreeMap<String, Pairs>,
    /// Why it cannot be read; then nothing is set until it is moved away.
    #[serde(skip)]
    damaged: Option<String>,
}

impl Kept {
    /// What is kept in `state`.
    #[must_use]
    pub fn load(state: &State) -> Self {
        let read = match state.read(FILE) {
            Ok(None) => return Self::default(),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        read.unwrap_or_else(|why| {
            tracing::warn!(path = %state.path(FILE).display(), why, "labels of this node are lost");
            Self { damaged: Some(why), ..Self::default() }
        })
    }

    /// The labels of this node: what is set over what is configured.
    #[must_use]
    pub fn node(&self, configured: &LabelSet) -> LabelSet {
        configured.overlaid(&set(&self.node))
    }
}

fn set(pairs: &Pairs) -> LabelSet {
    pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// A change of labels.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Of which service; `None`: of this node.
    pub service: Option<ServiceName>,
    /// What is set.
    pub set: Pairs,
    /// Keys of what is taken back.
    pub rm: Vec<String>,
}

/// Why labels were not set. Unless it is [`NotSet::NotPut`], all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotSet {
    /// It was not set by command, so it cannot be taken back.
    #[error("{0} is not set by command")]
    NotThere(String),
    /// More than [`MAX_SET`] of one thing, or more than are kept of all.
    #[error("at most {MAX_SET} labels are set by command on one thing")]
    TooMany,
    /// The router does not take them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// They cannot be kept.
    #[error(transparent)]
    NotKept(StateError),
    /// What is kept from an earlier life cannot be read, and would be lost.
    #[error("what is kept there cannot be read: {0}")]
    Damaged(String),
    /// They hold, and will not in the next life of this node.
    #[error("they hold until this node stops: {0}")]
    NotPut(std::io::Error),
    /// The node is leaving.
    #[error(transparent)]
    Leaving(#[from] Leaving),
}

type Answer = oneshot::Sender<Result<Kept, NotSet>>;

/// The way to the task that sets labels. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Labels {
    edits: mpsc::Sender<(Edit, Answer)>,
    configured: LabelSet,
}

/// What the task works with.
pub struct Parts {
    /// The labels of this node in flags and file.
    pub configured: LabelSet,
    /// Its labels now.
    pub now: Arc<ArcSwap<LabelSet>>,
    /// Its files.
    pub state: Arc<State>,
    /// The way to the router.
    pub asks: Asks,
    /// What the node says of itself with these labels.
    pub describe: Box<dyn Fn(&LabelSet) -> Node + Send + Sync>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("configured", &self.configured).finish_non_exhaustive()
    }
}

impl Labels {
    /// Has services labelled as it is kept, and waits for changes.
    pub async fn start(kept: Kept, parts: Parts) -> Self {
        for (name, pairs) in &kept.services {
            let Ok(service) = name.parse() else { continue };
            let request = Request::Label { service, labels: set(pairs) };
            if let Ok(Err(why)) = parts.asks.request(request).await {
                tracing::warn!(service = name, %why, "labels of a service do not hold any more");
            }
        }
        let configured = parts.configured.clone();
        let (edits, mut waiting) = mpsc::channel::<(Edit, Answer)>(WAITING);
        // Ends with the last handle.
        tokio::spawn(async move {
            let mut kept = kept;
            while let Some((edit, answer)) = waiting.recv().await {
                let done = parts.write(&kept, edit).await;
                if let Ok(now) = &done {
                    kept = now.clone();
                }
                // Who no longer waits does not need the answer.
                let _ = answer.send(done);
            }
        });
        Self { edits, configured }
    }

    /// The labels of this node in flags and file.
    #[must_use]
    pub fn configured(&self) -> &LabelSet {
        &self.configured
    }

    /// Changes labels; gives what is set then. An empty change only asks.
    ///
    /// # Errors
    /// [`NotSet`] says why not.
    pub async fn write(&self, edit: Edit) -> Result<Kept, NotSet> {
        let (answer, answered) = oneshot::channel();
        self.edits.send((edit, answer)).await.map_err(|_| Leaving)?;
        answered.await.map_err(|_| Leaving)?
    }
}

impl Parts {
    async fn write(&self, kept: &Kept, edit: Edit) -> Result<Kept, NotSet> {
        if edit.set.is_empty() && edit.rm.is_empty() {
            return Ok(kept.clone());
        }
        if let Some(why) = &kept.damaged {
            return Err(NotSet::Damaged(why.clone()));
        }
        let next = after(kept, &edit)?;
        let bytes = serde_json::to_vec_pretty(&next).expect("texts are JSON");
        if bytes.len() as u64 > MAX_FILE {
            return Err(NotSet::TooMany);
        }
        let prepared = self.state.prepare(FILE, &bytes).map_err(NotSet::NotKept)?;
        match edit.service {
            Some(service) => {
                let labels = next.services.get(service.as_str()).map(set).unwrap_or_default();
                self.asks.request(Request::Label { service, labels }).await??;
            }
            None => {
                let labels = next.node(&self.configured);
                let described = (self.describe)(&labels);
                // Before the router knows: what is announced meanwhile must not take it back.
                let before = self.now.swap(Arc::new(labels));
                let answer = self.asks.request(Request::Describe(described)).await?;
                if let Err(refusal) = answer {
                    self.now.store(before);
                    return Err(refusal.into());
                }
            }
        }
        prepared.put().map_err(NotSet::NotPut)?;
        Ok(next)
    }
}

/// What is set after a change.
fn after(kept: &Kept, edit: &Edit) -> Result<Kept, NotSet> {
    let mut next = kept.clone();
    let pairs = match &edit.service {
        Some(service) => next.services.entry(service.to_string()).or_default(),
        None => &mut next.node,
    };
    for key in &edit.rm {
        pairs.remove(key).ok_or_else(|| NotSet::NotThere(key.clone()))?;
    }
    pairs.extend(edit.set.clone());
    if pairs.len() > MAX_SET {
        return Err(NotSet::TooMany);
    }
    next.services.retain(|_, pairs| !pairs.is_empty());
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(service: Option<&str>, set: &[(&str, &str)], rm: &[&str]) -> Edit {
        Edit {
            service: service.map(|name| name.parse().unwrap()),
            set: set.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            rm: rm.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn labels_are_set_over_what_is_configured_and_taken_back() {
        let configured: LabelSet = [("env", "prod"), ("tier", "free")].into_iter().collect();
        let kept = after(&Kept::default(), &edit(None, &[("tier", "gold")], &[])).unwrap();
        assert_eq!(kept.node(&configured).to_string(), "env=prod,tier=gold");
        let kept = after(&kept, &edit(Some("shop"), &[("a", "1")], &[])).unwrap();
        assert_eq!(kept.services["shop"]["a"], "1");
        let kept = after(&kept, &edit(None, &[], &["tier"])).unwrap();
        assert_eq!(kept.node(&configured).to_string(), "env=prod,tier=free");
        let kept = after(&kept, &edit(Some("shop"), &[], &["a"])).unwrap();
        assert_eq!(kept, Kept::default());
        let gone = after(&kept, &edit(None, &[], &["env"]));
        assert!(matches!(gone, Err(NotSet::NotThere(key)) if key == "env"));
    }

    #[test]
    fn no_more_are_set_than_a_record_has_room_for() {
        let many: Vec<String> = (0..=MAX_SET).map(|n| format!("k{n}")).collect();
        let pairs: Vec<(&str, &str)> = many.iter().map(|key| (&**key, "v")).collect();
        assert!(matches!(after(&Kept::default(), &edit(None, &pairs, &[])), Err(NotSet::TooMany)));
        assert!(after(&Kept::default(), &edit(None, &pairs[1..], &[])).is_ok());
    }
}
