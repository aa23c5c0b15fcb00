//! `micro network divert SERVICE`: calls go to one node for a time.
//!
//! A divert is a rule in front of all others of the service. It is an edit of the whole set, made
//! from the newest there is, and made anew where somebody else is quicker.

use std::time::Duration;

use clap::Args;
use proto::rule::HeaderTest;
use proto::{ServiceName, UnixTime};

use super::{Global, rules};
use crate::api;
use crate::client::{self, Client};
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::member;
use crate::output::{self, Column, Listing, Output, text};
use crate::rules::form::{Divert, Rule, Set, Then, When};
use crate::rules::words::{Text, Word};

/// The longest divert: what is forgotten ends the next day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What the names of such rules begin with.
const PREFIX: &str = "divert-";
/// How often an edit is made anew because somebody else was quicker.
const ATTEMPTS: usize = 5;

const COLUMNS: &[Column] = &[
    Column::new("SERVICE"),
    Column::new("TO"),
    Column::new("FOR"),
    Column::new("UNTIL"),
    Column::new("LEFT"),
    Column::new("RULE"),
];

/// `micro network divert SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro network divert orders --match header:x-dev=ada     such calls come to this node for an hour
  micro network divert orders --to fra-1 --for 20m         all calls go to another node
  micro network divert --list
  micro network divert orders --stop")]
pub struct DivertArgs {
    /// The service.
    #[arg(value_name = "SERVICE", required_unless_present = "list")]
    service: Option<String>,
    /// The node they go to, which must offer the service.
    #[arg(long, value_name = "me|NODE", default_value = "me")]
    to: String,
    /// Only calls like these; all that are given must hold.
    #[arg(long = "match", value_name = "header:NAME=VALUE", value_parser = matched)]
    matches: Vec<Match>,
    /// For how long, 24h at most.
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, default_value = "1h")]
    time: Duration,
    /// List what is diverted.
    #[arg(long, conflicts_with_all = ["stop", "matches"])]
    list: bool,
    /// Stop what is diverted to the node.
    #[arg(long, conflicts_with = "matches")]
    stop: bool,
}

/// What a call must be like.
#[derive(Clone, Debug)]
enum Match {
    Header(HeaderTest),
    Caller(proto::grant::Pattern),
}

fn matched(text: &str) -> Result<Match, String> {
    match text.split_once(':') {
        Some(("header", test)) => HeaderTest::read(test).map(Match::Header),
        Some(("caller", name)) => proto::grant::Pattern::read(name).map(Match::Caller),
        Some(_) | None => {
            Err(format!("{text:?} matches nothing: write header:x-dev=ada or caller:shop"))
        }
    }
}

/// Diverts, lists or stops.
///
/// # Errors
/// M3009 without the grant, M1205 when the node is not known, M4001 above a day.
pub async fn run(args: DivertArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.client()?, global.output());
    let name = args.service.as_deref().map(rules::service).transpose()?;
    let Some(name) = name.as_ref().filter(|_| !args.list) else {
        return list(&client, name.as_ref(), output).await;
    };
    if args.time > LONGEST || args.time < Duration::from_secs(1) {
        let asked = duration::show(args.time);
        return Err(Problem::new(
            "M4001",
            Exit::Usage,
            format!("calls are not diverted for {asked}"),
        )
        .why("a divert lasts from a second to 24h, so that what is forgotten ends")
        .attempt(format!("micro network divert {name} --for 8h"), ""));
    }
    let node = find(&client, &args.to).await?;
    let until = member::now().plus(args.time.as_secs());
    let when = when(&args.matches);
    let edit = |rules: &mut Vec<Rule>| {
        if args.stop {
            return stop(rules, &node, name);
        }
        start(rules, &node, when.clone(), until);
        Ok(())
    };
    let document = change(&client, name, edit).await?;
    let applied: api::Applied = client::read(document.clone())?;
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    rules::warn(&applied, output);
    let (service, to) = (text::plain(name.as_str()), text::plain(&node.name));
    if args.stop {
        output::print(&format!("{service} is no longer diverted to {to}\n"))?;
        return Ok(Exit::Done);
    }
    let arrow = if text::is_utf8() { "→" } else { "->" };
    let (calls, until) = (told(&when), until.write());
    output::print(&format!("{service} {arrow} {to} until {until}, {}\n", text::plain(&calls)))?;
    output.say(&format!("ends by itself; before that: micro network divert {service} --stop"));
    Ok(Exit::Done)
}

/// Changes the newest rules of a service, anew for as long as others are quicker.
async fn change(
    client: &Client,
    name: &ServiceName,
    edit: impl Fn(&mut Vec<Rule>) -> Result<(), Problem>,
) -> Result<serde_json::Value, Problem> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (revision, mut all) = match rules::of(client, name).await {
            Ok(rules) => (Some(rules.revision), rules.rules),
            Err(problem) if problem.code == "M1206" => (None, Vec::new()),
            Err(problem) => return Err(problem),
        };
        edit(&mut all)?;
        let set = Set { service: Word(name.clone()), revision, rules: all };
        let request = api::ApplyRequest { set, replace: false, dry_run: false };
        match rules::write(client, &request).await {
            Err(problem) if problem.code == "M1308" && attempts < ATTEMPTS => {}
            answer => return answer,
        }
    }
}

/// The node that is meant.
async fn find(client: &Client, text: &str) -> Result<api::NodeItem, Problem> {
    let nodes: api::Items<api::NodeItem> = client.get("/v1/nodes").await?;
    let of = |is: &dyn Fn(&api::NodeItem) -> bool| {
        nodes.items.iter().filter(|node| is(node)).cloned().collect::<Vec<_>>()
    };
    let mut found = if text == "me" {
        of(&|node| node.path == "local")
    } else {
        let named = of(&|node| node.name == text);
        if named.is_empty() { of(&|node| node.id.starts_with(text)) } else { named }
    };
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => {
            let near = text::nearest(text, nodes.items.iter().map(|node| &*node.name));
            let near = near.map(|near| format!("; the nearest name is {near}")).unwrap_or_default();
            let count = text::count(nodes.items.len() as u64, "node");
            Err(Problem::new("M1205", Exit::NotFound, format!("no node named {text:?}"))
                .why(format!("{count} known{near}"))
                .attempt("micro network nodes", "lists them"))
        }
        several => {
            Err(Problem::new("M1205", Exit::NotFound, format!("several nodes are {text:?}"))
                .why(format!("{several} of them: names are not unique"))
                .attempt("micro network nodes -o wide", "shows their ids: the beginning will do"))
        }
    }
}

fn when(matches: &[Match]) -> When {
    let mut when = When::default();
    for one in matches {
        match one.clone() {
            Match::Header(test) => when.headers.push(Word(test)),
            Match::Caller(caller) => when.callers.push(Word(caller)),
        }
    }
    when
}

/// Which calls, for people.
fn told(when: &When) -> String {
    let headers = when.headers.iter().map(|test| test.0.write());
    let callers = when.callers.iter().map(|caller| format!("caller {}", caller.0.write()));
    let all: Vec<String> = headers.chain(callers).collect();
    if all.is_empty() { "all calls".to_owned() } else { format!("calls with {}", all.join(", ")) }
}

/// The divert of a rule, where it is one of those written here.
fn divert(rule: &Rule) -> Option<&Divert> {
    rule.then.divert.as_ref().filter(|_| rule.name.starts_with(PREFIX))
}

/// Puts a divert in front. What diverted the same calls to the node goes, and what has ended.
fn start(rules: &mut Vec<Rule>, node: &api::NodeItem, when: When, until: UnixTime) {
    let now = member::now();
    rules.retain(|rule| {
        divert(rule).is_none_or(|divert| {
            divert.until.0 > now && !(divert.to == node.id && rule.when == when)
        })
    });
    let letters = node.name.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c));
    let plain: String = letters.take(proto::rule::MAX_NAME - PREFIX.len() - 4).collect();
    let names = (1..).map(|number| match number {
        1 => format!("{PREFIX}{plain}"),
        number => format!("{PREFIX}{plain}-{number}"),
    });
    let mut free = names.filter(|name| rules.iter().all(|rule| rule.name != *name));
    let name = free.next().unwrap_or_default();
    let to = Divert { to: node.id.clone(), until: Word(until) };
    let then = Then { divert: Some(to), ..Then::default() };
    rules.insert(0, Rule { name, when, then });
}

/// Takes away what is diverted to a node, and what has ended.
fn stop(rules: &mut Vec<Rule>, node: &api::NodeItem, name: &ServiceName) -> Result<(), Problem> {
    let now = member::now();
    let mine = rules.iter().filter_map(divert).any(|divert| divert.to == node.id);
    if !mine {
        let others = rules.iter().filter(|rule| divert(rule).is_some()).count();
        let what = format!("{name} is not diverted to {}", node.name);
        let problem = Problem::new("M1206", Exit::NotFound, what);
        return Err(if others == 0 {
            problem.why("it is not diverted at all").attempt("micro network divert --list", "")
        } else {
            problem
                .why(format!("it is to other nodes, by {}", text::count(others as u64, "rule")))
                .attempt(format!("micro network divert {name} --list"), "shows them")
                .attempt(format!("micro network divert {name} --stop --to NODE"), "")
        });
    }
    rules.retain(|rule| {
        divert(rule).is_none_or(|divert| divert.to != node.id && divert.until.0 > now)
    });
    Ok(())
}

async fn list(
    client: &Client,
    only: Option<&ServiceName>,
    output: Output,
) -> Result<Exit, Problem> {
    let sets: api::Items<api::RulesItem> = client.get("/v1/rules").await?;
    let nodes: api::Items<api::NodeItem> = client.get("/v1/nodes").await?;
    let (mut items, mut rows, now) = (Vec::new(), Vec::new(), member::now());
    let diverted = sets.items.iter().filter(|set| {
        only.is_none_or(|only| only.as_str() == set.service)
            && set.rules.iter().any(|rule| rule.starts_with(PREFIX))
    });
    for set in diverted {
        let rules = rules::of(client, &rules::service(&set.service)?).await?;
        for rule in &rules.rules {
            let Some(divert) = divert(rule) else { continue };
            let node = nodes.items.iter().find(|node| node.id == divert.to);
            let name = node.map_or_else(|| text::short_id(&divert.to), |node| node.name.clone());
            let left = divert.until.0.seconds_after(now);
            items.push(serde_json::json!({
                "service": set.service, "rule": rule, "revision": rules.revision,
                "node": divert.to, "node_name": name, "left_s": left,
            }));
            let shown = match left {
                0 => "ended".to_owned(),
                left => duration::show(Duration::from_secs(left)),
            };
            let (calls, until) = (told(&rule.when), divert.until.0.write());
            rows.push(vec![set.service.clone(), name, calls, until, shown, rule.name.clone()]);
        }
    }
    let empty = match only {
        Some(service) => format!("{service} is not diverted"),
        None => "nothing is diverted".to_owned(),
    };
    output.list(Listing { kind: "DivertList", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> api::NodeItem {
        api::NodeItem { id: format!("{name}-id"), name: name.into(), ..api::NodeItem::default() }
    }

    fn names(rules: &[Rule]) -> Vec<&str> {
        rules.iter().map(|rule| &*rule.name).collect()
    }

    #[test]
    fn a_divert_goes_in_front_and_the_same_one_again_takes_its_place() {
        let later = member::now().plus(60);
        let ada = when(&[matched("header:x-dev=ada").unwrap()]);
        let mut rules =
            vec![Rule { name: "canary".into(), when: When::default(), then: Then::default() }];
        start(&mut rules, &node("a"), ada.clone(), later);
        start(&mut rules, &node("a"), When::default(), later);
        start(&mut rules, &node("b"), ada.clone(), later);
        assert_eq!(names(&rules), ["divert-b", "divert-a-2", "divert-a", "canary"]);
        start(&mut rules, &node("a"), ada, later.plus(60));
        assert_eq!(names(&rules), ["divert-a", "divert-b", "divert-a-2", "canary"]);
        assert_eq!(divert(&rules[0]).unwrap().until.0, later.plus(60));

        let service = "s".parse().unwrap();
        stop(&mut rules, &node("a"), &service).unwrap();
        assert_eq!(names(&rules), ["divert-b", "canary"]);
        let problem = stop(&mut rules, &node("a"), &service).unwrap_err();
        assert!(problem.why.unwrap().contains("other nodes, by 1 rule"));
    }

    #[test]
    fn what_has_ended_goes_with_the_next_change_and_names_fit() {
        let mut rules = Vec::new();
        start(&mut rules, &node("a"), When::default(), UnixTime(1));
        let odd = format!("n\u{e4}me {}", "x".repeat(80));
        start(&mut rules, &node(&odd), When::default(), member::now().plus(60));
        assert_eq!(rules.len(), 1);
        assert!(rules[0].name.starts_with("divert-nmexxx"));
        assert!(rules[0].name.len() < proto::rule::MAX_NAME);
    }
}
