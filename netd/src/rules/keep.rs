//! The rules that this node has written, kept for its next life.
//!
//! ```text
//! apply ─▶ set ─▶ file written beside ─▶ router: newer than what there is? ─▶ file put in place
//! start ─▶ file ─▶ router: each set again, with the revision it had
//! ```
//!
//! One task writes: edits are done one after the other, and each either wholly or not at all. Sets
//! without rules are kept as well, for without them what they took away would hold again.
//!
//! ```text
//! "micro-rules-1\n" | kept *         kept: 1 service   2 set (see proto::rule)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use proto::rule::{Rule, RuleSet};
use proto::wire::{self, Fields};
use proto::{DecodeError, NodeId, ServiceName};
use proxy::Published;
use router::{Refusal, Request};
use tokio::sync::{mpsc, oneshot};

use crate::drive::{Asks, Leaving};
use crate::member;
use crate::state::{MAX_FILE, State, StateError};

/// The file in the state directory.
const FILE: &str = "rules";
const HEADER: &[u8] = b"micro-rules-1\n";
/// Edits that wait; who sends more waits.
const WAITING: usize = 16;
/// How often an edit that replaces whatever there is begins anew because others were quicker.
const ATTEMPTS: usize = 5;

/// Rules to be written.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Whose.
    pub service: ServiceName,
    /// All of them.
    pub rules: Vec<Rule>,
    /// The revision that they take the place of, unless whatever there is may go.
    pub base: u64,
    /// Whatever there is may go.
    pub replace: bool,
}

/// Why rules were not written. Unless it is [`NotWritten::NotPut`], all is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// The router does not take them.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// They cannot be kept.
    #[error(transparent)]
    NotKept(StateError),
    /// With them there would be more than a node keeps.
    #[error("a node keeps at most {} KiB of rules that it wrote", MAX_FILE / 1024)]
    TooMany,
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

/// The way to the task that writes rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper(mpsc::Sender<(Edit, oneshot::Sender<Result<u64, NotWritten>>)>);

impl Keeper {
    /// Writes again what is kept in `state`, and waits for edits.
    pub async fn start(me: NodeId, state: Arc<State>, routes: Arc<Published>, asks: Asks) -> Self {
        let (sender, mut edits) = mpsc::channel::<(Edit, oneshot::Sender<_>)>(WAITING);
        let mut desk = Desk { me, state, routes, asks, kept: Ok(BTreeMap::new()) };
        desk.restore().await;
        // Ends with the last handle.
        tokio::spawn(async move {
            while let Some((edit, answer)) = edits.recv().await {
                // Who no longer waits does not need the answer.
                let _ = answer.send(desk.write(edit).await);
            }
        });
        Self(sender)
    }

    /// Writes rules. Gives their revision.
    ///
    /// # Errors
    /// [`NotWritten`] says why not.
    pub async fn write(&self, edit: Edit) -> Result<u64, NotWritten> {
        let (answer, answered) = oneshot::channel();
        self.0.send((edit, answer)).await.map_err(|_| Leaving)?;
        answered.await.map_err(|_| Leaving)?
    }
}

type Sets = BTreeMap<ServiceName, RuleSet>;

/// What the task works with.
struct Desk {
    me: NodeId,
    state: Arc<State>,
    routes: Arc<Published>,
    asks: Asks,
    /// What is kept, or why that is not known.
    kept: Result<Sets, String>,
}

impl Desk {
    async fn restore(&mut self) {
        self.kept = match self.state.read(FILE) {
            Ok(None) => Ok(Sets::new()),
            Ok(Some(bytes)) => decode(&bytes).map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        let sets = match &self.kept {
            Ok(sets) => sets,
            Err(why) => {
                let path = self.state.path(FILE);
                tracing::warn!(path = %path.display(), why, "rules of this node are lost");
                return;
            }
        };
        for (service, set) in sets {
            let (service, set) = (service.clone(), set.clone());
            let request = Request::Restore { service: service.clone(), set };
            if let Ok(Err(why)) = self.asks.request(request).await {
                tracing::warn!(%service, %why, "rules of this node do not hold any more");
            }
        }
    }

    async fn write(&mut self, edit: Edit) -> Result<u64, NotWritten> {
        let mut base = edit.base;
        for _ in 0..ATTEMPTS {
            let held = self.held(&edit.service);
            let revision = held.as_ref().map_or(0, |set| set.revision);
            if edit.replace {
                base = revision;
            } else if revision != base {
                break;
            }
            let set =
                RuleSet::following(held.as_deref(), edit.rules.clone(), self.me, member::now());
            match self.put(&edit.service, set).await {
                Err(NotWritten::Refused(Refusal::StaleRules(_))) if edit.replace => {}
                answer => return answer,
            }
        }
        let now = self.held(&edit.service).map_or(0, |set| set.revision);
        Err(Refusal::StaleRules(now).into())
    }

    fn held(&self, service: &ServiceName) -> Option<Arc<RuleSet>> {
        let routes = self.routes.load();
        routes.rules(service.as_str()).map(|rules| Arc::clone(rules.set()))
    }

    async fn put(&mut self, service: &ServiceName, set: RuleSet) -> Result<u64, NotWritten> {
        let revision = set.revision;
        let mut next = self.kept.clone().map_err(NotWritten::Damaged)?;
        next.insert(service.clone(), set.clone());
        let bytes = encode(&next);
        if bytes.len() as u64 > MAX_FILE {
            return Err(NotWritten::TooMany);
        }
        let prepared = self.state.prepare(FILE, &bytes).map_err(NotWritten::NotKept)?;
        self.asks.request(Request::Rule { service: service.clone(), set }).await??;
        prepared.put().map_err(NotWritten::NotPut)?;
        self.kept = Ok(next);
        Ok(revision)
    }
}

fn encode(sets: &Sets) -> BytesMut {
    let mut out = BytesMut::from(HEADER);
    for (service, set) in sets {
        wire::put_message(&mut out, 1, |out| {
            wire::put_bytes(out, 1, service.as_str().as_bytes());
            wire::put_item(out, 2, &set.encode());
        });
    }
    out
}

fn decode(bytes: &[u8]) -> Result<Sets, DecodeError> {
    let body = bytes.strip_prefix(HEADER).ok_or(DecodeError::Invalid("header of rules"))?;
    let mut sets = Sets::new();
    let mut all = Fields::new(body.to_vec().into());
    while let Some((tag, value)) = all.next()? {
        if tag != 1 {
            wire::unknown(tag)?;
            continue;
        }
        let (mut service, mut set) = (None, None);
        let mut fields = Fields::new(value.bytes("rules", body.len())?);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => service = Some(value.text("service", proto::name::MAX_NAME)?),
                2 => set = Some(RuleSet::decode(value.bytes("rules", body.len())?)?),
                tag => wire::unknown(tag)?,
            }
        }
        let service = service.and_then(|name| name.parse().ok());
        let service = service.ok_or(DecodeError::Missing("service of rules"))?;
        sets.insert(service, set.ok_or(DecodeError::Missing("rules"))?);
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> Sets {
        let me = NodeId::from_bytes([1; 32]);
        let rule = Rule { name: "r".into(), ..Rule::default() };
        let one = RuleSet::following(None, vec![rule], me, proto::UnixTime(7));
        let none = RuleSet::following(Some(&one), Vec::new(), me, proto::UnixTime(8));
        [("a".parse().unwrap(), one), ("pay/b".parse().unwrap(), none)].into()
    }

    #[test]
    fn what_is_kept_is_read_back() {
        assert_eq!(decode(&encode(&sets())), Ok(sets()));
        assert_eq!(decode(&encode(&Sets::new())), Ok(Sets::new()));
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_file_is_told_apart_or_read(at: proptest::sample::Index, byte: u8) {
            let mut bytes = encode(&sets());
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
            let _ = decode(&bytes[..at]);
        }
    }
}
