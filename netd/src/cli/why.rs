//! `micro network why SERVICE`: why a call would go where it would go.

use clap::Args;
use proxy::explain::{Candidate, Explanation, Load, State};

use super::Global;
use super::asked::Asked;
use crate::api;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new(""),
    Column::new("INSTANCE"),
    Column::new("NODE"),
    Column::new("COST"),
    Column::new("LOAD"),
    Column::new("CALLS"),
    Column::new("VERDICT"),
    Column::wide("LATENCY"),
    Column::wide("ID"),
];

/// `micro network why SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro network why shop                           every instance, and what is found of it
  micro network why shop --select version=v2
  micro network why shop --header x-dev=ada        as rules see the call")]
pub struct WhyArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Prints every candidate with its verdict and its costs, what rules had to do with it, which
/// headers did not count, and what changed last.
///
/// # Errors
/// M6010 when no node runs here, M1203 when the service is not known.
pub async fn run(args: WhyArgs, global: &Global) -> Result<Exit, Problem> {
    let request = args.asked.request(0)?;
    let document: serde_json::Value = global.client()?.post("/v1/why", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let why: api::Why = client::read(document)?;
    let wide = output.format == output::Format::Wide;
    let rows = why.told.candidates.iter().map(row).collect();
    let (items, empty) = (Vec::new(), String::new());
    let table = Listing { kind: "Why", items, columns: COLUMNS, rows, empty };
    let table = table.to_text(wide, output.headers);
    let mut lines = rules(&why);
    lines.extend(beside(&why.told));
    let lines = output::table::aligned(&lines);
    output::print(&format!("{}\n\n{table}\n{lines}", text::plain(&head(&why))))?;
    Ok(Exit::Done)
}

/// Where the call goes, in a line.
fn head(why: &api::Why) -> String {
    let why = &why.told;
    let mark = if why.asked.is_empty() { "" } else { "?" };
    let asked = format!("{}{mark}{}", why.service, why.asked);
    let arrow = if text::is_utf8() { "→" } else { "->" };
    let nearest: Vec<_> = why.candidates.iter().filter(|one| one.nearest).collect();
    // A node of an older release does not say how many there are.
    let of = format!("chosen from {}", why.exist.max(why.candidates.len() as u64));
    match (&nearest[..], &why.none) {
        ([one], _) => format!("{asked} {arrow} {} {}     {of}", one.node_name, one.address),
        ([], Some(none)) => format!("{asked} {arrow} none: {none}"),
        ([], None) if why.candidates.iter().any(|one| one.state == State::Unhealthy.name()) => {
            format!("{asked} {arrow} none: no instance that can be reached is well")
        }
        ([], None) => format!("{asked} {arrow} none: no path leads to those that match"),
        (several, _) => {
            format!("{asked} {arrow} the best of {} near ones     {of}", several.len())
        }
    }
}

fn row(one: &Candidate) -> Vec<String> {
    let marks = text::marks();
    let mark = match (one.nearest, !one.verdict.starts_with("out")) {
        (true, _) => marks.good,
        (false, true) => " ",
        (false, false) => marks.bad,
    };
    vec![
        mark.to_owned(),
        one.address.clone(),
        one.node_name.clone(),
        text::cost(one.cost_us),
        one.load.as_ref().map_or_else(|| "-".to_owned(), |load| text::cost(Some(load.load_us))),
        one.load.as_ref().map_or_else(|| "-".to_owned(), calls),
        one.verdict.clone(),
        one.load
            .as_ref()
            .and_then(|load| load.latency_us)
            .map_or_else(|| "-".to_owned(), |latency| text::cost(Some(latency))),
        one.instance.clone(),
    ]
}

/// Calls there: from this node, and from others as far as that was reported.
fn calls(load: &Load) -> String {
    match load.others {
        0 => load.in_flight.to_string(),
        others => format!("{}+{others}", load.in_flight),
    }
}

/// Headers that did not count, and what changed last among the instances.
#[must_use]
pub fn beside(why: &Explanation) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for (at, one) in why.ignored.iter().enumerate() {
        let word = if at == 0 { "ignored" } else { "" };
        all.push(vec![word.to_owned(), format!("{}: {}", one.header, one.why)]);
    }
    for (at, one) in why.changed.iter().enumerate() {
        let word = if at == 0 { "changed" } else { "" };
        let who = match (&*one.node_name, &*one.address) {
            ("", "") => "an instance".to_owned(),
            (node, address) => format!("{node} {address}"),
        };
        let said = format!("{} ago: {who} {}", text::age(one.ago_ms), one.what);
        all.push(vec![word.to_owned(), said]);
    }
    all
}

/// What rules had to do with it, and what else narrowed the choice: a word and what it says.
#[must_use]
pub fn rules(why: &api::Why) -> Vec<Vec<String>> {
    let (decides, why) = (&why.decides, &why.told);
    let line = |word: &str, says: String| vec![word.to_owned(), says];
    let mut all = Vec::new();
    all.push(line(
        "rules",
        match why.revision {
            Some(revision) if why.rules.is_empty() => {
                format!(
                    "none for {}; revision {revision} of {} took them away",
                    why.service, why.author_name
                )
            }
            Some(revision) => format!("revision {revision}, written by {}", why.author_name),
            None => format!("none for {}", why.service),
        },
    ));
    for one in &why.rules {
        let says = if one.matches { "decides".to_owned() } else { not_for(&one.why) };
        all.push(line("", format!("{}: {says}", one.rule)));
    }
    all.extend(why.subset.iter().map(|subset| line("subset", subset.clone())));
    if why.diverted {
        let until = decides.as_ref().and_then(|rule| rule.then.divert.as_ref());
        let until = until.map(|divert| {
            use crate::rules::words::Text as _;
            format!("until {}", divert.until.0.write())
        });
        all.push(line("diverted", until.unwrap_or_default()));
    }
    all.extend(why.narrowed.iter().map(|one| line("prefers", one.by.clone())));
    all
}

fn not_for(why: &str) -> String {
    format!("not for this call, by its {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::explain::{Changed, Ignored};

    #[test]
    fn what_changed_last_and_what_did_not_count_is_told() {
        let changed = |ago_ms, node: &str, what: &str| Changed {
            ago_ms,
            node_name: node.to_owned(),
            address: if node.is_empty() { String::new() } else { "10.1.4.2:9000".to_owned() },
            what: what.to_owned(),
        };
        let ignored = Ignored { header: "micro-colour".into(), why: "nobody has it".into() };
        let why = Explanation {
            ignored: vec![ignored],
            changed: vec![
                changed(2_000, "fra-1", "ejected: 5 errors"),
                changed(60_000, "", "gone"),
            ],
            ..Explanation::default()
        };
        let lines: Vec<String> = beside(&why).iter().map(|line| line.join(" ")).collect();
        assert_eq!(
            lines,
            [
                "ignored micro-colour: nobody has it",
                "changed 2s ago: fra-1 10.1.4.2:9000 ejected: 5 errors",
                " 1m ago: an instance gone",
            ]
        );
    }

    #[test]
    fn a_row_splits_the_cost_into_network_and_load() {
        let load =
            Load { wait_us: 1_300, load_us: 300, in_flight: 2, others: 3, ..Load::default() };
        let one = Candidate {
            address: "10.1.4.2:9000".into(),
            node_name: "fra-1".into(),
            cost_us: Some(1_000),
            nearest: true,
            verdict: "in: one of the nearest".into(),
            load: Some(load),
            ..Candidate::default()
        };
        let row = row(&one);
        assert_eq!(row[3..6], [text::cost(Some(1_000)), text::cost(Some(300)), "2+3".to_owned()]);
    }
}
