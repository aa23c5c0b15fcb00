//! How the admin API says yes and no.

use axum::Router;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use axum::{Json, http::StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{Document, Items};
use crate::error::{Exit, Problem};

/// An answer of the admin API.
pub(super) type Answer<T> = Result<Json<Document<T>>, Problem>;

/// One document.
pub(super) fn document<T: Serialize>(kind: &str, body: T) -> Answer<T> {
    Ok(Json(Document::new(kind, body)))
}

/// A list of documents.
pub(super) fn list<T: Serialize>(kind: &str, items: Vec<T>) -> Answer<Items<T>> {
    document(kind, Items { items })
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.exit {
            Exit::NotFound => StatusCode::NOT_FOUND,
            Exit::NotAllowed => StatusCode::FORBIDDEN,
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::Unreachable if self.code == "M8004" => StatusCode::REQUEST_TIMEOUT,
            Exit::Unreachable => StatusCode::GATEWAY_TIMEOUT,
            Exit::Done
            | Exit::Failed
            | Exit::NoNode
            | Exit::Partly
            | Exit::ServiceError
            | Exit::Crashed
            | Exit::Config
            | Exit::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.to_json())).into_response()
    }
}

/// A request body in JSON. An empty one is `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = axum::body::Bytes::from_request(request, state);
        let read = tokio::time::timeout(super::BODY_WAIT, read).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(why)) => return Err(malformed(&why)),
            Err(_slow) => return Err(malformed(&"the body took too long to come")),
        };
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|why| malformed(&why))
    }
}

/// A request that cannot be read.
pub(super) fn malformed(why: &dyn std::fmt::Display) -> Problem {
    Problem::new("M8001", Exit::Usage, "the request to the admin API cannot be read")
        .why(why.to_string())
        .attempt("micro version", "shows the release of the node too; all that is sent has a bound")
}

/// What is answered to a path that is not there.
pub(super) async fn no_such_path(request: Request) -> Problem {
    let what = format!("the admin API has no {} {}", request.method(), request.uri().path());
    Problem::new("M8002", Exit::NotFound, what)
        .why("this node is of another release than the command, or the path is mistyped")
}

/// A service that turns everybody away: the socket answers to its own user and to root.
pub(super) fn not_yours() -> Router {
    Router::new().fallback(async || {
        Problem::new("M8003", Exit::NotAllowed, "this node belongs to another user")
            .why("the admin socket answers only to the user who runs the node, and to root")
    })
}
