//! Why a call would go where it would go. Nothing is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use proto::rule::mix;
use proto::{LabelSet, Selector};
use proxy::Wanted;
use proxy::explain::{Explanation, Spoken};
use router::{Decision, Headers, Lookup, RequestView, Routes, ServiceRoutes};

use super::answer::{Answer, Body, document, malformed};
use super::read;
use crate::api;
use crate::error::{Exit, Problem};
use crate::member;
use crate::node::Node;
use crate::rules::form;

/// Throws of chance that may be asked for.
const MOST_THROWS: u32 = 100_000;
/// Headers of a call that is asked about.
const MOST_HEADERS: usize = 100;
/// Instances that are named with an outcome.
const NAMED: usize = 3;

/// The headers that were given.
struct Given(HeaderMap);

impl Headers for Given {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }
}

/// `POST /v1/why`.
pub(super) async fn why(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::WhyRequest>,
) -> Answer<api::Why> {
    let routes = node.routes();
    let service = read::find_ruled(&routes, &node.network_name, &ask.service)?;
    if ask.throws > MOST_THROWS || ask.headers.len() > MOST_HEADERS {
        let bounds =
            format!("at most {MOST_THROWS} throws and {MOST_HEADERS} headers are looked at");
        return Err(malformed(&bounds));
    }
    let mut headers = headers(&ask.headers)?;
    let caller = headers.get("micro-from-service").and_then(|value| value.to_str().ok());
    let caller = if ask.caller.is_empty() { caller.unwrap_or_default() } else { &ask.caller };
    let caller = caller.to_owned();
    let wanted = wanted(&ask.select, &mut headers, service, &routes, &node.network_name)?;
    let (given, none, id) = (Given(headers), LabelSet::default(), node.me.to_string());
    let view = RequestView {
        endpoint: &ask.endpoint,
        headers: &given,
        caller: &caller,
        node_name: &node.name,
        node_id: &id,
        node_labels: routes.node(&node.me).map_or(&none, |me| &me.labels),
        selector: &wanted.selector,
        chance: u64::from_be_bytes(tunnel::identity::random()),
    };
    let outcomes = outcomes(&routes, service, &view, ask.throws);
    // A path of gRPC is never asked about: rules see `Struct.Method`.
    let grpc = !ask.endpoint.is_empty() && !ask.endpoint.starts_with('/');
    let spoken = if grpc { Spoken::Grpc } else { Spoken::Http };
    let via = wanted.via.as_deref();
    let told = node.proxy.explain(&routes, service.name.as_str(), &view, spoken, via);
    let told = Explanation { ignored: wanted.ignored, ..told };
    let decides = told.rules.last().filter(|last| last.matches).and_then(|last| {
        let rules = &service.rules()?.set().rules;
        rules.iter().find(|rule| rule.name == last.rule).map(form::Rule::of)
    });
    document("Why", api::Why { told, decides, outcomes })
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, Problem> {
    let mut all = HeaderMap::new();
    for (name, value) in given {
        let wrong = || malformed(&format!("{name:?}: {value:?} is no header"));
        let name: HeaderName = name.parse().map_err(|_| wrong())?;
        all.append(name, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(all)
}

fn wanted(
    select: &str,
    headers: &mut HeaderMap,
    service: &ServiceRoutes,
    routes: &Routes,
    network: &str,
) -> Result<Wanted, Problem> {
    let wrong = |why: &dyn std::fmt::Display| {
        Problem::new("M4001", Exit::Usage, "what is asked of the instance cannot be read")
            .why(why.to_string())
            .attempt(format!("micro network why {} --select version=v2", service.name), "")
    };
    let own: Selector = select.parse().map_err(|why| wrong(&why))?;
    let more = proxy::asked(headers, service, routes, network).map_err(|why| wrong(&why))?;
    let all = own.iter().chain(more.selector.iter()).cloned();
    Ok(Wanted { selector: Selector::of(all).map_err(|why| wrong(&why))?, ..more })
}

/// What becomes of how many calls like this one.
fn outcomes(
    routes: &Routes,
    service: &ServiceRoutes,
    view: &RequestView<'_>,
    throws: u32,
) -> Vec<api::WhyOutcome> {
    let now = member::now();
    let mut counted: BTreeMap<_, (u32, api::WhyOutcome)> = BTreeMap::new();
    for throw in 0..throws {
        let view = RequestView { chance: mix(u64::from(throw)), ..*view };
        let decision = routes.decide(service.name.as_str(), &view, now);
        let key = (
            decision.rule.map(|(rule, _)| &*rule.name),
            decision.subset.map(|subset| &*subset.name),
            decision.abort.map(|abort| abort.status),
            decision.delay.map(|delay| delay.millis),
            decision.mirror.is_some(),
        );
        counted.entry(key).or_insert_with(|| (0, outcome(routes, &decision))).0 += 1;
    }
    let share = |count: u32| f64::from(count) / f64::from(throws);
    let mut all: Vec<_> = counted
        .into_values()
        .map(|(count, outcome)| api::WhyOutcome { share: share(count), ..outcome })
        .collect();
    all.sort_by(|a, b| b.share.total_cmp(&a.share));
    all
}

fn outcome(routes: &Routes, decision: &Decision<'_>) -> api::WhyOutcome {
    let (to, instances) = match decision.lookup {
        Lookup::Found(found) => {
            let named = found.nearest().take(NAMED);
            let named =
                named.map(|one| format!("{} {}", Node::name_of(routes, &one.node), one.address));
            (named.collect(), found.nearest().count() as u64)
        }
        Lookup::Unknown | Lookup::NoMatch(_) | Lookup::Unreachable(_) => (Vec::new(), 0),
    };
    api::WhyOutcome {
        share: 0.0,
        rule: decision.rule.map(|(rule, _)| rule.name.clone()).unwrap_or_default(),
        subset: decision.subset.map(|subset| subset.name.clone()).unwrap_or_default(),
        diverted: decision.diverted,
        abort: decision.abort.map(|abort| abort.status),
        delay_ms: decision.delay.map(|delay| delay.millis),
        mirror: decision.mirror.map(|mirror| mirror.target.to_string()).unwrap_or_default(),
        to,
        instances,
    }
}
