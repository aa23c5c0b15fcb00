//! `micro rules history SERVICE`: who changed the rules of a service, when, and what.

use clap::Args;

use super::{Global, service};
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{Column, Listing};

const COLUMNS: &[Column] = &[
    Column::new("REVISION"),
    Column::new("WRITTEN BY"),
    Column::new("WHEN"),
    Column::new("CHANGE"),
    Column::wide("AUTHOR"),
];

/// `micro rules history SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro rules history orders            the last 20 changes, newest first
  micro rules history orders -o json

A change reads +added ~changed -removed.")]
pub struct HistoryArgs {
    /// The service.
    #[arg(value_name = "SERVICE")]
    service: String,
}

/// # Errors
/// M1206 when the service never had rules.
pub(super) async fn run(args: &HistoryArgs, global: &Global) -> Result<Exit, Problem> {
    let (client, output) = (global.client()?, global.output());
    let name = service(&args.service)?;
    let path = format!("/v1/rules-history/{}", client::escaped(name.as_str()));
    let mut document: serde_json::Value = client.get(&path).await?;
    let items = client::read(document["items"].take())?;
    let all: Vec<api::RulesChange> = client::read(serde_json::Value::Array(Vec::clone(&items)))?;
    let row = |one: api::RulesChange| {
        let change = told(&one);
        vec![one.revision.to_string(), one.author_name, one.at, change, one.author]
    };
    let rows = all.into_iter().map(row).collect();
    let empty = format!("nothing is known of what became of the rules of {name}");
    output.list(Listing { kind: "RulesHistory", items, columns: COLUMNS, rows, empty })?;
    Ok(Exit::Done)
}

/// What a change did, for people.
fn told(one: &api::RulesChange) -> String {
    let kinds = [("+", &one.added), ("~", &one.changed), ("-", &one.removed)];
    let names = kinds
        .into_iter()
        .flat_map(|(sign, all)| all.iter().map(move |name| format!("{sign}{name}")));
    let mut all: Vec<String> = names.collect();
    if one.more > 0 {
        all.push(format!("and {} more", one.more));
    }
    if one.reordered {
        all.push("reordered".to_owned());
    }
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_its_rules_and_counts_those_it_does_not_name() {
        let one = api::RulesChange {
            added: vec!["a".into(), "b".into()],
            changed: vec!["c".into()],
            removed: vec!["d".into()],
            more: 3,
            reordered: true,
            ..api::RulesChange::default()
        };
        assert_eq!(told(&one), "+a +b ~c -d and 3 more reordered");
    }
}
