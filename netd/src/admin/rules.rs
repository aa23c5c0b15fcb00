//! What operators decide about calls: read, and written.

use std::sync::Arc;

use axum::extract::{Path, State};
use proto::rule::{BadRule, Rule, RuleSet};
use proto::{NodeId, ServiceName, UnixTime};
use router::rules::{lint, may_rule};
use router::{Refusal, Request, Routes, Rules};

use super::answer::{self, Answer, Body, document, malformed};
use super::wait::find_node;
use crate::api;
use crate::error::{Exit, Problem};
use crate::member;
use crate::node::Node;
use crate::rules::form;
use crate::rules::words::Text as _;

/// `GET /v1/rules`.
pub(super) async fn list(State(node): State<Arc<Node>>) -> Answer<api::Items<api::RulesItem>> {
    let routes = node.routes();
    let item = |(name, rules): (&ServiceName, &Rules)| api::RulesItem {
        service: name.to_string(),
        revision: rules.set().revision,
        author: rules.author().to_string(),
        author_name: Node::name_of(&routes, &rules.author()),
        rules: rules.set().rules.iter().map(|rule| rule.name.clone()).collect(),
    };
    let ruled = routes.services().filter_map(|found| Some((&found.name, found.rules()?)));
    let all = ruled.filter(|(_, rules)| !rules.set().rules.is_empty()).map(item);
    answer::list("RulesList", all.collect())
}

/// `GET /v1/rules/SERVICE`.
pub(super) async fn one(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Answer<api::Rules> {
    let routes = node.routes();
    let name: ServiceName = name.parse().map_err(|why| malformed(&why))?;
    let rules = held(&routes, &name).filter(|rules| !rules.set().rules.is_empty());
    let rules = rules.ok_or_else(|| no_rules(&routes, &name))?;
    document(
        "Rules",
        api::Rules {
            service: name.to_string(),
            revision: rules.set().revision,
            author: rules.author().to_string(),
            author_name: Node::name_of(&routes, &rules.author()),
            rules: rules.set().rules.iter().map(form::Rule::of).collect(),
        },
    )
}

/// `POST /v1/rules`.
pub(super) async fn apply(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::ApplyRequest>,
) -> Answer<api::Applied> {
    let routes = node.routes();
    let service = ask.set.service.0.clone();
    let grant = node.credential.load();
    if !may_rule(grant.grant(), &service) {
        return Err(not_granted(grant.grant(), &service));
    }
    let known = |text: &str| text.parse().or_else(|_| find_node(&routes, text));
    let rules = ask.set.rules.iter().map(|rule| rule.meaning(known));
    let rules = rules.collect::<Result<Vec<Rule>, Problem>>()?;
    let before = held(&routes, &service);
    let base = before.map_or(0, |rules| rules.set().revision);
    let set = RuleSet { revision: base.saturating_add(1), rules };
    set.check().map_err(bad)?;
    let unchanged = match before {
        Some(before) => before.set().says_the_same(&set),
        None => set.rules.is_empty(),
    };
    let is_made_from = match ask.set.revision {
        Some(revision) => revision == base,
        None => ask.replace || unchanged || before.is_none_or(|all| all.set().rules.is_empty()),
    };
    if !is_made_from {
        return Err(stale(&routes, &service, ask.set.revision, base));
    }
    let warnings = warnings(&set, &service, &routes, member::now());
    if !ask.dry_run && !unchanged {
        let rules = set.rules.clone();
        write(&node, &service, base, rules, ask.set.revision, ask.replace).await?;
    }
    let revision = if unchanged {
        base
    } else {
        let now = node.routes();
        held(&now, &service).filter(|_| !ask.dry_run).map_or(set.revision, |all| all.set().revision)
    };
    document(
        "RulesApplied",
        api::Applied {
            service: service.to_string(),
            revision,
            rules: set.rules.len() as u64,
            changed: !unchanged,
            dry_run: ask.dry_run,
            warnings,
        },
    )
}

async fn write(
    node: &Node,
    service: &ServiceName,
    base: u64,
    rules: Vec<Rule>,
    asked: Option<u64>,
    replace: bool,
) -> Result<(), Problem> {
    let request = |base| Request::Rule { service: service.clone(), base, rules: rules.clone() };
    let mut answer = node.asks.request(request(base)).await;
    if let (Ok(Err(Refusal::StaleRules(now))), true) = (answer, replace) {
        // Those of a service without instances are not seen, and are to go all the same.
        answer = node.asks.request(request(now)).await;
    }
    match answer {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(refused(node, service, asked, refusal)),
        Err(leaving) => Err(Problem::new("M1013", Exit::Unreachable, "the node is stopping")
            .why(leaving.to_string())),
    }
}

fn refused(node: &Node, service: &ServiceName, asked: Option<u64>, refusal: Refusal) -> Problem {
    match refusal {
        Refusal::StaleRules(now) => stale(&node.routes(), service, asked, now),
        Refusal::NotGranted => not_granted(node.credential.load().grant(), service),
        Refusal::Expired => {
            Problem::new("M3012", Exit::NotAllowed, "this node's membership has expired")
                .why("nobody believes what it writes until its grant is renewed")
                .attempt("micro status", "shows whether its issuer can be reached")
        }
        Refusal::Leaving => Problem::new("M1013", Exit::Unreachable, "the node is stopping"),
        other @ (Refusal::TooManyServices
        | Refusal::TooManyInstances
        | Refusal::TooLarge
        | Refusal::Malformed(_)
        | Refusal::ForeignNode) => malformed(&other),
    }
}

/// The rules that hold for a service. Seen only while an instance of it is known.
fn held<'a>(routes: &'a Routes, service: &ServiceName) -> Option<&'a Rules> {
    routes.service(service.as_str())?.rules()
}

/// Who wrote the rules that hold, and which they are, where they are not those that were seen.
fn stale(routes: &Routes, service: &ServiceName, seen: Option<u64>, now: u64) -> Problem {
    let author = held(routes, service).filter(|rules| rules.set().revision == now);
    let by = match author {
        Some(rules) => format!("written by {}", Node::name_of(routes, &rules.author())),
        None if now == 0 => "there are none now".to_owned(),
        None => "by whom is not seen here, for no instance of it is known".to_owned(),
    };
    let problem = match seen {
        Some(seen) => {
            let what = format!("the rules of {service} are no longer those of revision {seen}");
            Problem::new("M1308", Exit::Failed, what)
        }
        None => Problem::new("M1308", Exit::Failed, format!("{service} has rules already")),
    };
    problem
        .why(format!("they have revision {now}, {by}"))
        .attempt(format!("micro rules get {service}"), "prints them; put your change into that")
        .attempt("micro rules apply FILE --replace", "yours in place of all of theirs")
}

fn not_granted(grant: &proto::Grant, service: &ServiceName) -> Problem {
    let namespaces: Vec<&str> =
        grant.namespaces.iter().map(proto::grant::Pattern::as_str).collect();
    let namespace = service.namespace();
    let (has, of) = (grant.roles.names(), namespaces.join(","));
    let what = format!("this node may not decide about the calls of {service}");
    Problem::new("M3009", Exit::NotAllowed, what)
        .why(format!(
            "it takes the role operator in the namespace {namespace}; its grant: role {has}, \
             namespaces {of}"
        ))
        .attempt(
            format!("micro network invite --role operator --namespace {namespace}"),
            "on an issuer; then here: micro network --name ops --join TICKET",
        )
}

fn no_rules(routes: &Routes, service: &ServiceName) -> Problem {
    let problem = Problem::new("M1206", Exit::NotFound, format!("{service} has no rules"));
    match routes.service(service.as_str()) {
        Some(_) => problem
            .why("its calls go to the nearest instance that matches")
            .attempt("micro rules get", "lists the services that have some"),
        None => problem
            .why("no instance of it is known, and rules are seen only while there is one")
            .attempt("micro services", "lists the names there are"),
    }
}

fn bad(bad: BadRule) -> Problem {
    let of = if bad.rule.is_empty() { String::new() } else { format!("rule {}: ", bad.rule) };
    Problem::new("M4003", Exit::Config, format!("rules: {of}{}", bad.why))
        .attempt("micro rules apply FILE --dry-run", "")
}

/// What is odd about rules, as things are now.
fn warnings(
    set: &RuleSet,
    service: &ServiceName,
    routes: &Routes,
    now: UnixTime,
) -> Vec<api::RuleWarning> {
    let warning = |rule: &str, what: String| api::RuleWarning { rule: rule.to_owned(), what };
    let odd = lint(set, service, routes, now);
    let mut all: Vec<_> = odd.into_iter().map(|one| warning(&one.rule, one.what)).collect();
    let Some(found) = routes.service(service.as_str()) else {
        if !set.rules.is_empty() {
            let what = format!("no instance of {service} is known: labels were not checked");
            all.push(warning("", what));
        }
        return all;
    };
    for rule in &set.rules {
        if let Some(divert) = rule.then.divert
            && !found.reachable().iter().any(|one| one.node == divert.node)
        {
            let to = name(routes, &divert.node);
            let what = format!("{to} offers no {service} now: nothing is diverted until it does");
            all.push(warning(&rule.name, what));
        }
    }
    let before = found.rules().into_iter().flat_map(|rules| &rules.set().rules);
    for rule in before.filter(|old| set.rules.iter().all(|new| new.name != old.name)) {
        if let Some(divert) = rule.then.divert.filter(|divert| divert.until > now) {
            let (to, until) = (name(routes, &divert.node), divert.until.write());
            all.push(warning(
                &rule.name,
                format!("is taken away; calls went to {to} until {until}"),
            ));
        }
    }
    all
}

fn name(routes: &Routes, node: &NodeId) -> String {
    Node::name_of(routes, node)
}
