//! Labels of this node and of services on it, set by command.

use std::sync::Arc;

use axum::extract::State;
use proto::ServiceName;
use router::Refusal;

use super::answer::{self, Answer, Body, document, malformed};
use super::read;
use crate::api;
use crate::config::values::{self, Raw};
use crate::error::{Exit, Problem};
use crate::labels::{Edit, Kept, NotSet, Pairs};
use crate::node::Node;

/// Labels that say what an instance is, whatever is set.
const FACTS: [&str; 3] = ["node", "protocol", "version"];

/// `GET /v1/labels`.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Answer<api::Items<api::LabelItem>> {
    let kept = node.labels.write(Edit::default()).await.map_err(|why| refused(&why))?;
    let item = |service: Option<&String>, from: &str, key: &str, value: &str| api::LabelItem {
        service: service.cloned(),
        key: key.to_owned(),
        value: value.to_owned(),
        from: from.to_owned(),
    };
    let configured = node.labels.configured().iter();
    let configured = configured.filter(|(key, _)| !kept.node.contains_key(*key));
    let mut all: Vec<_> =
        configured.map(|(key, value)| item(None, "configuration", key, value)).collect();
    all.extend(kept.node.iter().map(|(key, value)| item(None, "command", key, value)));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    for (service, pairs) in &kept.services {
        all.extend(pairs.iter().map(|(key, value)| item(Some(service), "command", key, value)));
    }
    answer::list("LabelList", all)
}

/// `POST /v1/labels`.
pub(super) async fn change(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::LabelRequest>,
) -> Answer<api::Labelled> {
    check(&ask.set)?;
    let service = ask.service.as_deref().map(str::parse::<ServiceName>).transpose();
    let service = service.map_err(|why| malformed(&why))?;
    let routes = node.routes();
    if let Some(name) = service.as_ref().filter(|_| !ask.set.is_empty()) {
        let found = read::find(&routes, &node.network_name, name.as_str())?;
        if !found.instances.iter().any(|one| one.here) {
            let what = format!("{name} is not exposed on this node");
            return Err(Problem::new("M1203", Exit::NotFound, what)
                .why("its instances are on other nodes, and each node labels its own")
                .attempt(format!("micro describe {name}"), "shows where they are"));
        }
    }
    let edit = Edit { service: service.clone(), set: ask.set, rm: ask.rm };
    let kept = node.labels.write(edit).await.map_err(|why| refused(&why))?;
    let labels = labels(&node, &kept, service.as_ref());
    document("Labelled", api::Labelled { service: service.map(|name| name.to_string()), labels })
}

fn labels(node: &Node, kept: &Kept, service: Option<&ServiceName>) -> Pairs {
    match service {
        Some(name) => kept.services.get(name.as_str()).cloned().unwrap_or_default(),
        None => read::labels(&kept.node(node.labels.configured())),
    }
}

fn check(set: &Pairs) -> Result<(), Problem> {
    let wrong = |why: String| {
        Problem::new("M4001", Exit::Usage, "that is no label")
            .why(why)
            .attempt("micro network label tier=gold", "")
    };
    if let Some(fact) = set.keys().find(|key| FACTS.contains(&&***key)) {
        return Err(wrong(format!("{fact} says what an instance is, and is not set by command")));
    }
    values::labels(&Raw::Map(set.clone())).map(|_| ()).map_err(wrong)
}

fn refused(why: &NotSet) -> Problem {
    let problem = |code: &'static str, exit, what: &str| {
        Problem::new(code, exit, what.to_owned()).why(why.to_string())
    };
    match why {
        NotSet::NotThere(key) => {
            problem("M1207", Exit::NotFound, &format!("there is no label {key} to take back"))
                .attempt("micro network label", "lists labels, and where each comes from")
        }
        NotSet::TooMany => problem("M4001", Exit::Usage, "there are too many labels")
            .attempt("micro network label --rm KEY", "takes one back"),
        NotSet::Refused(Refusal::Expired) => {
            problem("M3012", Exit::NotAllowed, "this node's membership has expired")
                .attempt("micro status", "shows whether its issuer can be reached")
        }
        NotSet::Refused(_) => problem("M4001", Exit::Usage, "there is no room for these labels")
            .attempt("micro network label --rm KEY", "takes one back"),
        NotSet::Leaving(_) => problem("M1013", Exit::Unreachable, "the node is stopping"),
        NotSet::NotPut(_) => {
            problem("M6003", Exit::Failed, "the labels hold, and could not be kept")
                .attempt("micro config path", WHERE)
        }
        NotSet::NotKept(_) => {
            problem("M6003", Exit::Failed, "labels cannot be kept, so they stay as they were")
                .attempt("micro config path", WHERE)
        }
        NotSet::Damaged(_) => {
            problem("M6003", Exit::Failed, "labels cannot be kept, so they stay as they were")
                .attempt(
                    "micro config path",
                    "shows the state directory: move the file labels away, and restart",
                )
        }
    }
}

/// What is tried where the state directory does not do what it is there for.
const WHERE: &str = "shows where the state directory is; it needs space, and must be writable";
