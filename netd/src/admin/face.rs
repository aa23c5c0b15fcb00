//! Rules over gRPC: the same questions as on the admin socket, with the same answers.
//!
//! Reading is for every program that the proxy port serves. Writing is for programs of the node's
//! own user and of root, over the loopback, as on the admin socket.

use std::sync::{Arc, OnceLock, Weak};

use axum::extract::{Path, State};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use proto::micro::rules as pb;
use proto::rule::MAX_HISTORY;
use proxy::own::{Refused, RefusedKind, Rules};

use super::answer::Body;
use super::{rules, why};
use crate::api;
use crate::error::{Exit, Problem};
use crate::node::Node;
use crate::rules::file;
use crate::rules::form::Set;
use crate::rules::words::{Text as _, Word};

/// Throws of chance of a test, as the command has them.
const THROWS: u32 = 10_000;

/// The rules of the node that this process is, once it is there.
#[derive(Debug, Default)]
pub struct Face(OnceLock<Weak<Node>>);

impl Face {
    /// From now on it answers for this node.
    pub fn is_of(&self, node: &Arc<Node>) {
        // A second one would be a second node in one place: the first stays.
        let _ = self.0.set(Arc::downgrade(node));
    }

    fn node(&self) -> Result<Arc<Node>, Problem> {
        let node = self.0.get().and_then(Weak::upgrade);
        node.ok_or_else(|| Problem::new("M1013", Exit::Unreachable, "the node is starting"))
    }

    /// The node, to be written to by a program of its owner or of another.
    fn writable(&self, of_owner: bool) -> Result<Arc<Node>, Problem> {
        if !of_owner {
            let what = "this program may not write rules";
            return Err(Problem::new("M8003", Exit::NotAllowed, what)
                .why("only programs of the user who runs the node decide, over the loopback")
                .attempt("micro rules apply FILE", "as the user who runs the node"));
        }
        self.node()
    }
}

/// A future of an answer, its problem as the command would tell it.
fn answered<'a, T>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'a,
) -> BoxFuture<'a, Result<T, Refused>> {
    async move { work.await.map_err(|problem| refused(&problem)) }.boxed()
}

fn refused(problem: &Problem) -> Refused {
    let kind = match problem.exit {
        _ if problem.code == "M1308" => RefusedKind::Conflict,
        Exit::NotFound => RefusedKind::NotFound,
        Exit::NotAllowed => RefusedKind::Forbidden,
        Exit::Usage | Exit::Config => RefusedKind::BadRequest,
        Exit::Unreachable | Exit::NoNode => RefusedKind::Unavailable,
        Exit::Done
        | Exit::Failed
        | Exit::Partly
        | Exit::ServiceError
        | Exit::Crashed
        | Exit::Interrupted => RefusedKind::Failed,
    };
    Refused { kind, text: problem.to_string() }
}

async fn held(node: Arc<Node>, service: String) -> Result<api::Rules, Problem> {
    Ok(rules::one(State(node), Path(service)).await?.0.body)
}

fn applied(applied: api::Applied) -> pb::ApplyResponse {
    let warning = |one: api::RuleWarning| pb::Warning { rule: one.rule, what: one.what };
    pb::ApplyResponse {
        service: applied.service,
        revision: applied.revision,
        rules: applied.rules,
        changed: applied.changed,
        warnings: applied.warnings.into_iter().map(warning).collect(),
    }
}

impl Rules for Face {
    fn list(&self) -> BoxFuture<'_, Result<pb::ListResponse, Refused>> {
        answered(async {
            let all = rules::list(State(self.node()?)).await?.0.body.items;
            let ruled = |one: api::RulesItem| pb::Ruled {
                service: one.service,
                revision: one.revision,
                author: one.author,
                author_name: one.author_name,
                rules: one.rules,
            };
            Ok(pb::ListResponse { services: all.into_iter().map(ruled).collect() })
        })
    }

    fn get(&self, ask: pb::GetRequest) -> BoxFuture<'_, Result<pb::GetResponse, Refused>> {
        answered(async {
            let found = held(self.node()?, ask.service).await?;
            let service = found.service.parse().map_err(|why| super::answer::malformed(&why))?;
            let revision = Some(found.revision);
            let set = Set { service: Word(service), revision, rules: found.rules };
            Ok(pb::GetResponse {
                service: found.service,
                revision: found.revision,
                author: found.author,
                author_name: found.author_name,
                file: file::write(&set)?,
            })
        })
    }

    fn apply(
        &self,
        ask: pb::ApplyRequest,
        of_owner: bool,
    ) -> BoxFuture<'_, Result<pb::ApplyResponse, Refused>> {
        answered(async move {
            let node = self.writable(of_owner)?;
            let mut set = file::parse(&ask.file, "file")?;
            if ask.replace {
                set.revision = None;
            }
            let ask = api::ApplyRequest { set, replace: ask.replace, dry_run: ask.dry_run };
            rules::write(&node, ask).await.map(applied)
        })
    }

    fn remove(
        &self,
        ask: pb::RemoveRequest,
        of_owner: bool,
    ) -> BoxFuture<'_, Result<pb::ApplyResponse, Refused>> {
        answered(async move {
            let node = self.writable(of_owner)?;
            let before = held(Arc::clone(&node), ask.service).await?;
            let service = before.service.parse().map_err(|why| super::answer::malformed(&why))?;
            let revision = Some(before.revision);
            let set = Set { service: Word(service), revision, rules: Vec::new() };
            let ask = api::ApplyRequest { set, replace: false, dry_run: false };
            rules::write(&node, ask).await.map(applied)
        })
    }

    fn test(&self, ask: pb::TestRequest) -> BoxFuture<'_, Result<pb::TestResponse, Refused>> {
        answered(async move {
            let ask = api::WhyRequest {
                service: ask.service,
                select: ask.select,
                endpoint: ask.endpoint,
                headers: ask.headers.into_iter().collect(),
                caller: ask.caller,
                throws: THROWS,
            };
            let why = why::why(State(self.node()?), Body(ask)).await?.0.body;
            let looked = |one: proxy::explain::Passed| pb::Looked {
                rule: one.rule,
                matches: one.matches,
                why: one.why,
            };
            let outcome = |one: api::WhyOutcome| pb::Outcome {
                share: one.share,
                rule: one.rule,
                subset: one.subset,
                diverted: one.diverted,
                abort: one.abort.map(u32::from).unwrap_or_default(),
                delay_ms: one.delay_ms.unwrap_or_default(),
                mirror: one.mirror,
                to: one.to,
                instances: one.instances,
            };
            Ok(pb::TestResponse {
                service: why.told.service,
                revision: why.told.revision.unwrap_or_default(),
                author_name: why.told.author_name,
                rules: why.told.rules.into_iter().map(looked).collect(),
                outcomes: why.outcomes.into_iter().map(outcome).collect(),
                none: why.told.none.unwrap_or_default(),
            })
        })
    }

    fn history(
        &self,
        ask: pb::HistoryRequest,
    ) -> BoxFuture<'_, Result<pb::HistoryResponse, Refused>> {
        answered(async move {
            let all = rules::history(State(self.node()?), Path(ask.service)).await?.0.body.items;
            let seconds = |at: &str| {
                proto::UnixTime::read(at).map_or(0, |at| i64::try_from(at.0).unwrap_or(i64::MAX))
            };
            let change = |one: api::RulesChange| pb::Change {
                revision: one.revision,
                at: seconds(&one.at),
                author: one.author,
                author_name: one.author_name,
                added: one.added,
                changed: one.changed,
                removed: one.removed,
                reordered: one.reordered,
                more: one.more,
            };
            Ok(pb::HistoryResponse {
                changes: all.into_iter().take(MAX_HISTORY).map(change).collect(),
            })
        })
    }
}
