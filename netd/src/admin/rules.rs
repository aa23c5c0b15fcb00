//! What operators decide about calls: read, and written.

use std::sync::Arc;

use axum::extract::{Path, State};
use proto::rule::{BadRule, Change, Rule, RuleSet};
use proto::{NodeId, ServiceName, UnixTime};
use router::rules::{lint, may_rule};
use router::{Refusal, Routes, Rules};

use super::answer::{self, Answer, Body, document, malformed};
use super::wait::find_node;
use crate::api;
use crate::error::{Exit, Problem};
use crate::member;
use crate::node::Node;
use crate::rules::form;
use crate::rules::keep::{Edit, NotWritten};
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
    let all = routes.ruled().filter(|(_, rules)| !rules.set().rules.is_empty()).map(item);
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
            carried_by: rules.carriers().iter().map(|id| Node::name_of(&routes, id)).collect(),
            note: notes(&routes, &name, rules.set()),
            rules: rules.set().rules.iter().map(form::Rule::of).collect(),
        },
    )
}

/// `GET /v1/rules-history/SERVICE`.
pub(super) async fn history(
    State(node): State<Arc<Node>>,
    Path(name): Path<String>,
) -> Answer<api::Items<api::RulesChange>> {
    let routes = node.routes();
    let name: ServiceName = name.parse().map_err(|why| malformed(&why))?;
    let rules = held(&routes, &name).ok_or_else(|| no_rules(&routes, &name))?;
    let item = |change: &Change| api::RulesChange {
        revision: change.revision,
        author: change.author.map(|author| author.to_string()).unwrap_or_default(),
        author_name: change.author.map(|one| Node::name_of(&routes, &one)).unwrap_or_default(),
        at: change.at.write(),
        added: change.added.clone(),
        changed: change.changed.clone(),
        removed: change.removed.clone(),
        reordered: change.reordered,
        more: change.more,
    };
    answer::list("RulesHistory", rules.set().history.iter().rev().map(item).collect())
}

/// `POST /v1/rules`.
pub(super) async fn apply(
    State(node): State<Arc<Node>>,
    Body(ask): Body<api::ApplyRequest>,
) -> Answer<api::Applied> {
    document("RulesApplied", write(&node, ask).await?)
}

/// Writes rules, or says what would be.
///
/// # Errors
/// M3009 without the grant, M4003 for what no node would read, M1308 where others were quicker,
/// M6003 where they cannot be kept.
pub(super) async fn write(node: &Node, ask: api::ApplyRequest) -> Result<api::Applied, Problem> {
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
    let set = RuleSet { revision: base.saturating_add(1), rules, ..RuleSet::default() };
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
    let (count, mut revision) =
        (set.rules.len() as u64, if unchanged { base } else { set.revision });
    if !ask.dry_run && !unchanged {
        let (service, rules, replace) = (service.clone(), set.rules, ask.replace);
        let written = node.rules.write(Edit { service: service.clone(), rules, base, replace });
        let written = written.await;
        revision = written.map_err(|why| refused(node, &service, ask.set.revision, why))?;
    }
    let note = if count == 0 { String::new() } else { how_long(&node.routes(), &service) };
    Ok(api::Applied {
        service: service.to_string(),
        revision,
        rules: count,
        changed: !unchanged,
        dry_run: ask.dry_run,
        warnings,
        note,
    })
}

fn refused(node: &Node, service: &ServiceName, asked: Option<u64>, why: NotWritten) -> Problem {
    let refusal = match why {
        NotWritten::Leaving(leaving) => {
            return Problem::new("M1013", Exit::Unreachable, "the node is stopping")
                .why(leaving.to_string());
        }
        NotWritten::NotPut(_) => {
            let what = format!("the rules of {service} hold, and could not be kept");
            return kept_nowhere(what, &why);
        }
        NotWritten::NotKept(_)
        | NotWritten::Damaged(_)
        | NotWritten::Refused(Refusal::TooManyRules) => {
            let what = format!("the rules of {service} cannot be kept, so they stay as they were");
            return kept_nowhere(what, &why);
        }
        NotWritten::Refused(refusal) => refusal,
    };
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
        | Refusal::TooManyRules
        | Refusal::Malformed(_)
        | Refusal::ForeignNode) => malformed(&other),
    }
}

/// The state directory does not do what it is there for.
fn kept_nowhere(what: String, why: &NotWritten) -> Problem {
    let problem = Problem::new("M6003", Exit::Failed, what).why(why.to_string());
    match why {
        NotWritten::Refused(_) => problem
            .attempt(
                "micro rules get",
                "lists who wrote which; take some away: micro rules rm SERVICE",
            )
            .attempt("micro rules apply FILE", "on another node"),
        NotWritten::Damaged(_) => problem.attempt(
            "micro config path",
            "shows the state directory: move the file rules away, and restart",
        ),
        NotWritten::NotKept(_) | NotWritten::NotPut(_) | NotWritten::Leaving(_) => problem.attempt(
            "micro config path",
            "shows where the state directory is; it needs space, and must be writable",
        ),
    }
}

/// The rules that hold for a service.
fn held<'a>(routes: &'a Routes, service: &ServiceName) -> Option<&'a Rules> {
    routes.rules(service.as_str())
}

/// Who wrote the rules that hold, and which they are, where they are not those that were seen.
fn stale(routes: &Routes, service: &ServiceName, seen: Option<u64>, now: u64) -> Problem {
    let author = held(routes, service).filter(|rules| rules.set().revision == now);
    let by = match author {
        Some(rules) => format!("written by {}", Node::name_of(routes, &rules.author())),
        None if now == 0 => "there are none now".to_owned(),
        None => "by whom is not known here yet".to_owned(),
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

fn no_rules(routes: &Routes, name: &ServiceName) -> Problem {
    let problem = Problem::new("M1206", Exit::NotFound, format!("{name} has no rules"));
    match routes.service(name.as_str()) {
        Some(_) => problem
            .why("its calls go to the nearest instance that matches")
            .attempt("micro rules get", "lists the services that have some"),
        None => problem
            .why("nor is an instance of it known")
            .attempt("micro rules get", "lists the services that have some")
            .attempt("micro services", "lists the names there are"),
    }
}

fn bad(bad: BadRule) -> Problem {
    let of = if bad.rule.is_empty() { String::new() } else { format!("rule {}: ", bad.rule) };
    Problem::new("M4003", Exit::Config, format!("rules: {of}{}", bad.why))
        .attempt("micro rules apply FILE --dry-run", "")
}

/// Seconds by which the clocks of members may differ without a word.
const CLOCK_SLACK: u64 = 300;

/// What a reader of rules should know beside them, in one line; else empty.
fn notes(routes: &Routes, service: &ServiceName, set: &RuleSet) -> String {
    let all = [how_long(routes, service), clocks(set, member::now())];
    all.into_iter().filter(|one| !one.is_empty()).collect::<Vec<_>>().join("; ")
}

/// That clocks differ, where that is known and diverts hang on it; else empty.
fn clocks(set: &RuleSet, now: UnixTime) -> String {
    let has_divert = set.rules.iter().any(|rule| rule.then.divert.is_some());
    let written = set.history.last().map_or(0, |last| last.at.seconds_after(now));
    if !has_divert || written <= CLOCK_SLACK {
        return String::new();
    }
    format!(
        "a clock is off: by that of this node they will be written in {} min; a divert ends by the \
         clock of each caller's node",
        written.div_ceil(60)
    )
}

/// How long rules hold, where fewer than two nodes in reach may carry them; else empty.
fn how_long(routes: &Routes, service: &ServiceName) -> String {
    let may = routes.nodes().filter(|node| node.cost.is_finite() && node.may_rule(service));
    let may: Vec<_> = may.take(2).collect();
    match &may[..] {
        [] => "no node in reach may carry these rules: they are forgotten after a day".to_owned(),
        [one] => {
            let one = if one.id == routes.me() { "this node" } else { &one.name };
            format!("these rules hold while {one} runs; no other node may carry them")
        }
        _ => String::new(),
    }
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
    let found = routes.service(service.as_str());
    if found.is_none() && !set.rules.is_empty() {
        let what = format!("no instance of {service} is known: labels were not checked");
        all.push(warning("", what));
    }
    for (rule, found) in
        found.into_iter().flat_map(|all| set.rules.iter().map(move |one| (one, all)))
    {
        if let Some(divert) = rule.then.divert
            && !found.reachable().iter().any(|one| one.node == divert.node)
        {
            let to = name(routes, &divert.node);
            let what = format!("{to} offers no {service} now: nothing is diverted until it does");
            all.push(warning(&rule.name, what));
        }
    }
    let differ = held(routes, service).map_or(String::new(), |held| clocks(held.set(), now));
    if !differ.is_empty() {
        all.push(warning("", differ));
    }
    let before = held(routes, service).into_iter().flat_map(|rules| &rules.set().rules);
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

#[cfg(test)]
mod tests {
    use super::*;
    use proto::rule::Divert;

    #[test]
    fn a_clock_that_is_an_hour_off_is_told_where_a_divert_hangs_on_it() {
        let node = NodeId::from_bytes([1; 32]);
        let now = UnixTime(1_000_000);
        let written = |seconds: u64, divert: bool| {
            let mut rule = Rule { name: "r".into(), ..Rule::default() };
            rule.then.divert = divert.then(|| Divert { node, until: now.plus(3_600) });
            RuleSet::following(None, vec![rule], node, now.plus(seconds))
        };
        let told = clocks(&written(3_600, true), now);
        assert!(told.starts_with("a clock is off") && told.contains("in 60 min"), "{told}");
        // Of one that is behind, the divert it wrote has ended for others, which is told as such.
        assert_eq!(clocks(&written(0, true), now.plus(7_200)), "");
        assert_eq!(clocks(&written(200, true), now), "");
        assert_eq!(clocks(&written(3_600, false), now), "");
    }
}
