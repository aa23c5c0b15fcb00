//! `micro rules test SERVICE`: what would become of calls like this one. Nothing is sent.

use clap::Args;

use crate::api;
use crate::cli::Global;
use crate::cli::asked::Asked;
use crate::cli::why;
use crate::client;
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing};
use crate::rules::form::Then;
use crate::rules::words::Text as _;

/// How often chance is tried: enough for a share of one in a hundred to be seen within a tenth.
const THROWS: u32 = 10_000;

const COLUMNS: &[Column] = &[
    Column::new("OF CALLS"),
    Column::new("RULE"),
    Column::new("SUBSET"),
    Column::new("WHAT"),
    Column::new("TO"),
];

/// `micro rules test SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  micro rules test orders                               a call that says nothing
  micro rules test orders --header x-dev=ada            with a header
  micro rules test 'orders?version=v2' --endpoint Orders.Place --caller shop")]
pub struct TestArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Prints what becomes of how many calls.
///
/// # Errors
/// M1203 when the service is not known.
pub async fn run(args: TestArgs, global: &Global) -> Result<Exit, Problem> {
    let request = args.asked.request(THROWS)?;
    let document: serde_json::Value = global.client()?.post("/v1/why", &request).await?;
    let output = global.output();
    if output.is_json() {
        output.verbatim(&document)?;
        return Ok(Exit::Done);
    }
    let why: api::Why = client::read(document)?;
    let rows = why.outcomes.iter().map(row).collect();
    let (items, empty) = (Vec::new(), String::new());
    let table = Listing { kind: "Why", items, columns: COLUMNS, rows, empty };
    output::print(&table.to_text(false, output.headers))?;
    let mut lines = why::rules(&why);
    // What chance decided for one call stands in the table for all.
    lines.retain(|line| matches!(&*line[0], "rules" | ""));
    lines.extend(why.decides.as_ref().and_then(|rule| more(&rule.then)));
    lines.extend(why.told.none.as_ref().map(|none| vec!["none".to_owned(), none.clone()]));
    output::print(&format!("\n{}", output::table::aligned(&lines)))?;
    Ok(Exit::Done)
}

fn row(one: &api::WhyOutcome) -> Vec<String> {
    let mut what = Vec::new();
    what.extend(one.delay_ms.map(|ms| format!("held up {ms}ms")));
    what.extend(one.abort.map(|status| format!("refused with {status}")));
    what.extend(one.diverted.then(|| "diverted".to_owned()));
    if !one.mirror.is_empty() && one.abort.is_none() {
        what.push(format!("copied to {}", one.mirror));
    }
    if what.is_empty() {
        what.push(if one.instances == 0 { "not delivered" } else { "delivered" }.to_owned());
    }
    let mut to = if one.abort.is_some() { Vec::new() } else { one.to.clone() };
    let more = one.instances.saturating_sub(to.len() as u64);
    if more > 0 && !to.is_empty() {
        to.push(format!("{more} more"));
    }
    vec![share(one.share), one.rule.clone(), one.subset.clone(), what.join(", "), to.join(", ")]
}

fn share(share: f64) -> String {
    if share >= 1.0 { "all".to_owned() } else { format!("{:.1}%", share * 100.0) }
}

/// What else a rule does with calls, whichever way they go.
fn more(then: &Then) -> Option<Vec<String>> {
    let mut all = Vec::new();
    all.extend(then.select.as_ref().map(|select| format!("select {}", select.0)));
    all.extend(then.timeout.as_ref().map(|time| format!("timeout {}", time.0.write())));
    all.extend(then.retries.map(|retries| format!("retries {retries}")));
    all.extend(then.rate.as_ref().map(|rate| {
        let by = rate.by.as_ref().map(|by| format!(" for each {}", by.0)).unwrap_or_default();
        format!("at most {}/s{by}", rate.per_second)
    }));
    all.extend(then.affinity.as_ref().map(|key| format!("affinity by {}", key.0)));
    all.extend(then.spill.as_ref().map(|at| format!("spill above {}%", at.above)));
    (!all.is_empty()).then(|| vec!["also".to_owned(), all.join(", ")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_says_what_is_done_and_where_the_call_goes() {
        let one = api::WhyOutcome {
            share: 0.1,
            rule: "canary".into(),
            subset: "v2".into(),
            to: vec!["a 127.0.0.1:1".into()],
            instances: 3,
            ..api::WhyOutcome::default()
        };
        assert_eq!(row(&one), ["10.0%", "canary", "v2", "delivered", "a 127.0.0.1:1, 2 more"]);
        let refused = api::WhyOutcome { abort: Some(503), share: 1.0, ..one };
        assert_eq!(row(&refused), ["all", "canary", "v2", "refused with 503", ""]);
        assert_eq!(row(&api::WhyOutcome::default())[3], "not delivered");
    }
}
