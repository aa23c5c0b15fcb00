//! The rules that this node keeps for the network, written by whomever, for its next life.
//!
//! ```text
//! apply  ─▶ set ─▶ file written beside ─▶ router: newer than what there is? ─▶ file put in place
//! router ─▶ it keeps others now ─▶ file
//! start  ─▶ file ─▶ router: each set again, with the revision it had
//! ```
//!
//! One task writes: edits are done one after the other, and each either wholly or not at all. Sets
//! without rules are kept as well, for without them what they took away would hold again. How many
//! are kept is the router's to say ([`router::Limits`]).
//!
//! ```text
//! "micro-rules-1\n" | kept *         kept: 1 service   2 set (see proto::rule)   3 told by others
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use proto::rule::{Rule, RuleSet};
use proto::wire::{self, Fields};
use proto::{DecodeError, NodeId, ServiceName};
use proxy::Published;
use router::kept::{KeptSet, KeptSets};
use router::{Refusal, Request};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use crate::drive::{Asks, Leaving};
use crate::member;
use crate::state::{State, StateError};

/// The file in the state directory.
const FILE: &str = "rules";
const HEADER: &[u8] = b"micro-rules-1\n";
/// Edits that wait; who sends more waits.
const WAITING: usize = 16;
/// How often an edit that replaces whatever there is begins anew because others were quicker.
const ATTEMPTS: usize = 5;
/// Bytes of the file: twice what a router keeps.
const MAX_KEPT: u64 = 8 << 20;
/// What others wrote is written down at once, and then no more often than this.
const WRITE_EVERY: Duration = Duration::from_secs(1);

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
    /// Keeps again what is kept in `state`, and waits for edits and for what the router keeps.
    pub async fn start(
        me: NodeId,
        state: Arc<State>,
        routes: Arc<Published>,
        kept: watch::Receiver<Arc<KeptSets>>,
        asks: Asks,
    ) -> Self {
        let (sender, mut edits) = mpsc::channel::<(Edit, oneshot::Sender<_>)>(WAITING);
        let (written, again) = (Ok(BytesMut::new()), Instant::now());
        let mut news = kept.clone();
        let mut desk = Desk { me, state, routes, asks, kept, written, again };
        desk.restore().await;
        // Ends with the last handle.
        tokio::spawn(async move {
            loop {
                // Both arms are safe to cancel: a change that is not taken is seen again.
                let again = desk.again;
                let changed = async {
                    sleep_until(again).await;
                    if news.changed().await.is_err() {
                        std::future::pending().await
                    }
                };
                tokio::select! {
                    edit = edits.recv() => {
                        let Some((edit, answer)) = edit else { break };
                        // Who no longer waits does not need the answer.
                        let _ = answer.send(desk.write(edit).await);
                    }
                    () = changed => desk.write_down(),
                }
            }
            desk.write_down();
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

/// What the task works with.
struct Desk {
    me: NodeId,
    state: Arc<State>,
    routes: Arc<Published>,
    asks: Asks,
    /// What the router keeps.
    kept: watch::Receiver<Arc<KeptSets>>,
    /// What is in the file, or why that is not known.
    written: Result<BytesMut, String>,
    /// Before this what others wrote is not written down again.
    again: Instant,
}

impl Desk {
    async fn restore(&mut self) {
        let read = match self.state.read_up_to(FILE, MAX_KEPT) {
            Ok(None) => Ok((BytesMut::new(), KeptSets::new())),
            Ok(Some(bytes)) => decode(&bytes)
                .map(|sets| (BytesMut::from(&bytes[..]), sets))
                .map_err(|why| why.to_string()),
            Err(why) => Err(why.to_string()),
        };
        let sets = match read {
            Ok((bytes, sets)) => {
                self.written = Ok(bytes);
                sets
            }
            Err(why) => {
                let path = self.state.path(FILE);
                tracing::warn!(path = %path.display(), why, "rules of this node are lost");
                self.written = Err(why);
                return;
            }
        };
        for (service, kept) in sets {
            let (set, told) = (Arc::unwrap_or_clone(kept.set), kept.told);
            let request = Request::Restore { service: service.clone(), set, told };
            if let Ok(Err(why)) = self.asks.request(request).await {
                tracing::warn!(%service, %why, "rules of this node do not hold any more");
            }
        }
    }

    /// Writes down what the router keeps, as far as that can be done: it holds all the same.
    fn write_down(&mut self) {
        let kept = Arc::clone(&self.kept.borrow_and_update());
        // What cannot be read is left as it is.
        let Ok(written) = &mut self.written else { return };
        let bytes = encode(&kept);
        if bytes == *written {
            return;
        }
        self.again = Instant::now() + WRITE_EVERY;
        match self.state.write(FILE, &bytes) {
            Ok(()) => *written = bytes,
            Err(error) => {
                tracing::warn!(event = "rules not kept", %error, "they hold until this node stops");
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
        if let Err(why) = &self.written {
            return Err(NotWritten::Damaged(why.clone()));
        }
        let revision = set.revision;
        let mut next = KeptSets::clone(&self.kept.borrow());
        next.insert(service.clone(), KeptSet { set: Arc::new(set.clone()), told: true });
        let bytes = encode(&next);
        let prepared = self.state.prepare(FILE, &bytes).map_err(NotWritten::NotKept)?;
        self.asks.request(Request::Rule { service: service.clone(), set }).await??;
        prepared.put().map_err(NotWritten::NotPut)?;
        self.written = Ok(bytes);
        Ok(revision)
    }
}

fn encode(sets: &KeptSets) -> BytesMut {
    let mut out = BytesMut::from(HEADER);
    for (service, kept) in sets {
        wire::put_message(&mut out, 1, |out| {
            wire::put_bytes(out, 1, service.as_str().as_bytes());
            wire::put_item(out, 2, &kept.set.encode());
            wire::put_int(out, 3, u64::from(!kept.told));
        });
    }
    out
}

fn decode(bytes: &[u8]) -> Result<KeptSets, DecodeError> {
    let body = bytes.strip_prefix(HEADER).ok_or(DecodeError::Invalid("header of rules"))?;
    let mut sets = KeptSets::new();
    let mut all = Fields::new(body.to_vec().into());
    while let Some((tag, value)) = all.next()? {
        if tag != 1 {
            wire::unknown(tag)?;
            continue;
        }
        let (mut service, mut set, mut told) = (None, None, true);
        let mut fields = Fields::new(value.bytes("rules", body.len())?);
        while let Some((tag, value)) = fields.next()? {
            match tag {
                1 => service = Some(value.text("service", proto::name::MAX_NAME)?),
                2 => set = Some(RuleSet::decode(value.bytes("rules", body.len())?)?),
                3 => told = value.int("told by others")? == 0,
                tag => wire::unknown(tag)?,
            }
        }
        let service = service.and_then(|name| name.parse().ok());
        let service = service.ok_or(DecodeError::Missing("service of rules"))?;
        let set = Arc::new(set.ok_or(DecodeError::Missing("rules"))?);
        sets.insert(service, KeptSet { set, told });
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets() -> KeptSets {
        let me = NodeId::from_bytes([1; 32]);
        let rule = Rule { name: "r".into(), ..Rule::default() };
        let one = RuleSet::following(None, vec![rule], me, proto::UnixTime(7));
        let none = RuleSet::following(Some(&one), Vec::new(), me, proto::UnixTime(8));
        let kept = |set, told| KeptSet { set: Arc::new(set), told };
        [("a".parse().unwrap(), kept(one, true)), ("pay/b".parse().unwrap(), kept(none, false))]
            .into()
    }

    #[test]
    fn what_is_kept_is_read_back() {
        assert_eq!(decode(&encode(&sets())), Ok(sets()));
        assert_eq!(decode(&encode(&KeptSets::new())), Ok(KeptSets::new()));
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
