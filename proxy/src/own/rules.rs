//! `go.micro.rules`: what operators decide about the calls of services, for programs.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use proto::micro::rules as pb;

use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;

pub(super) const NAME: &str = "go.micro.rules";

/// Why something about rules was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which kind of failure.
    pub kind: RefusedKind,
    /// As the command says it: code, what, why, and what to try.
    pub text: String,
}

/// Kinds of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedKind {
    /// What was sent means nothing.
    BadRequest,
    /// This node, or this caller, may not.
    Forbidden,
    /// There is no such service, or it has no rules.
    NotFound,
    /// Somebody else was quicker.
    Conflict,
    /// The node starts or stops.
    Unavailable,
    /// It could not be done.
    Failed,
}

/// What is decided on a node, as our service asks it.
pub trait Rules: Send + Sync {
    /// Which services have rules.
    fn list(&self) -> BoxFuture<'_, Result<pb::ListResponse, Refused>>;
    /// The rules of a service.
    fn get(&self, ask: pb::GetRequest) -> BoxFuture<'_, Result<pb::GetResponse, Refused>>;
    /// Writes rules, if the program that asks is one of the user who runs the node.
    fn apply(
        &self,
        ask: pb::ApplyRequest,
        of_owner: bool,
    ) -> BoxFuture<'_, Result<pb::ApplyResponse, Refused>>;
    /// Takes the rules of a service away, for the same programs.
    fn remove(
        &self,
        ask: pb::RemoveRequest,
        of_owner: bool,
    ) -> BoxFuture<'_, Result<pb::ApplyResponse, Refused>>;
    /// What would become of a call.
    fn test(&self, ask: pb::TestRequest) -> BoxFuture<'_, Result<pb::TestResponse, Refused>>;
    /// What was changed, by whom and when.
    fn history(
        &self,
        ask: pb::HistoryRequest,
    ) -> BoxFuture<'_, Result<pb::HistoryResponse, Refused>>;
}

pub(super) fn call(rules: Option<&Arc<dyn Rules>>, call: &Call, message: Bytes) -> Reply {
    let Some(rules) = rules.cloned() else {
        let why = Failure::new(NAME, Kind::Unavailable, "nothing is decided here");
        return Reply::now::<pb::ListResponse>(Err(why));
    };
    let of_owner = call.of_owner;
    match call.method.as_str() {
        "List" => Reply::later(async move { rules.list().await.map_err(failure) }),
        "Get" => {
            Reply::later(async move { rules.get(decode(NAME, message)?).await.map_err(failure) })
        }
        "Apply" => Reply::later(async move {
            rules.apply(decode(NAME, message)?, of_owner).await.map_err(failure)
        }),
        "Remove" => Reply::later(async move {
            rules.remove(decode(NAME, message)?, of_owner).await.map_err(failure)
        }),
        "Test" => {
            Reply::later(async move { rules.test(decode(NAME, message)?).await.map_err(failure) })
        }
        "History" => {
            Reply::later(
                async move { rules.history(decode(NAME, message)?).await.map_err(failure) },
            )
        }
        _ => Reply::now::<pb::ListResponse>(Err(Failure::new(
            NAME,
            Kind::NotImplemented,
            "not offered",
        ))),
    }
}

fn failure(refused: Refused) -> Failure {
    let kind = match refused.kind {
        RefusedKind::BadRequest => Kind::BadRequest,
        RefusedKind::Forbidden => Kind::Forbidden,
        RefusedKind::NotFound => Kind::NotFound,
        RefusedKind::Conflict => Kind::Conflict,
        RefusedKind::Unavailable => Kind::Unavailable,
        RefusedKind::Failed => Kind::Internal,
    };
    Failure::new(NAME, kind, refused.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_status_of_its_own() {
        use RefusedKind as K;
        use tonic::Code;
        for (kind, code) in [
            (K::BadRequest, Code::InvalidArgument),
            (K::Forbidden, Code::PermissionDenied),
            (K::NotFound, Code::NotFound),
            (K::Conflict, Code::Aborted),
            (K::Unavailable, Code::Unavailable),
            (K::Failed, Code::Internal),
        ] {
            let failure = failure(Refused { kind, text: "why".into() });
            assert_eq!(failure.code(), code);
            assert!(failure.message().contains("\"detail\":\"why\""), "{}", failure.message());
        }
    }
}
