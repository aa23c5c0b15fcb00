//! `micro network ping NODE`: round trips through the link to a node.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::Global;
use crate::api;
use crate::client;
use crate::config::duration;
use crate::error::{Exit, Problem};
use crate::output::{self, text};

/// `micro network ping NODE`
#[derive(Debug, Args)]
pub struct PingArgs {
    /// Its name or id.
    #[arg(value_name = "NODE")]
    node: String,
    /// How many probes.
    #[arg(short = 'n', long, default_value_t = 3, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Time between two probes.
    #[arg(long, value_parser = duration::parse, default_value = "200ms", value_name = "TIME")]
    interval: Duration,
}

/// Sends probes one after the other and sums up.
///
/// # Errors
/// M1205 when the node does not exist; exit 6 when none came back.
pub async fn run(args: PingArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let output = global.output();
    let path = format!("/v1/ping?node={}", client::escaped(&args.node));
    let mut trips: Vec<u64> = Vec::new();
    let mut last = None;
    for at in 1..=args.count {
        if at > 1 {
            tokio::time::sleep(args.interval).await;
        }
        match client.get::<serde_json::Value>(&path).await {
            Ok(document) => {
                let probe: api::Ping = client::read(document.clone())?;
                trips.push(probe.rtt_ns);
                match output.format {
                    output::Format::Jsonl => output.verbatim(&document)?,
                    output::Format::Json => {}
                    output::Format::Table
                    | output::Format::Wide
                    | output::Format::Name
                    | output::Format::Toml => {
                        output::print(&line(at, &probe))?;
                    }
                }
            }
            Err(problem) if problem.exit == Exit::Unreachable => {
                if !output.is_json() {
                    output::print(&format!("{at}  {}\n", text::plain(&problem.what)))?;
                }
                last = Some(problem);
            }
            Err(problem) => return Err(problem),
        }
    }
    let summary = Summary::of(args.count, &mut trips);
    if output.format == output::Format::Json {
        output.document("PingSummary", summary.to_json(&args.node))?;
    } else if output.format != output::Format::Jsonl {
        output::print(&summary.to_text())?;
    }
    match last {
        Some(problem) if trips.is_empty() => Err(problem),
        Some(_) | None => Ok(Exit::Done),
    }
}

fn line(at: u32, probe: &api::Ping) -> String {
    let cells = [&probe.node, &probe.region, &probe.path].map(|cell| text::plain(cell));
    let trip = text::round_trip(probe.rtt_ns);
    format!("{at}  {}   {trip}   {}\n", cells.join(" "), text::plain(&probe.remote))
}

/// What a run of probes comes to.
struct Summary {
    sent: u32,
    back: usize,
    /// Least, mean and most, in nanoseconds.
    spread: Option<(u64, u64, u64)>,
}

impl Summary {
    fn of(sent: u32, trips: &mut [u64]) -> Self {
        trips.sort_unstable();
        let mean = trips.iter().sum::<u64>().checked_div(trips.len() as u64);
        let spread = match (&*trips, mean) {
            ([least, .., most], Some(mean)) => Some((*least, mean, *most)),
            ([only], _) => Some((*only, *only, *only)),
            _ => None,
        };
        Self { sent, back: trips.len(), spread }
    }

    fn to_json(&self, node: &str) -> serde_json::Value {
        json!({
            "node": node,
            "sent": self.sent,
            "back": self.back,
            "min_rtt_ns": self.spread.map(|spread| spread.0),
            "avg_rtt_ns": self.spread.map(|spread| spread.1),
            "max_rtt_ns": self.spread.map(|spread| spread.2),
        })
    }

    fn to_text(&self) -> String {
        let mut out = format!("{} sent, {} back", self.sent, self.back);
        if let Some((least, mean, most)) = self.spread {
            let [least, mean, most] = [least, mean, most].map(text::round_trip);
            out.push_str(&format!("    min {least}  avg {mean}  max {most}"));
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_summed_up_also_when_there_are_few() {
        for (trips, text) in [
            (vec![], "3 sent, 0 back\n"),
            (vec![11_000_000], "3 sent, 1 back    min 11ms  avg 11ms  max 11ms\n"),
            (
                vec![131_000_000, 92_000_000, 92_000_000],
                "3 sent, 3 back    min 92ms  avg 105ms  max 131ms\n",
            ),
        ] {
            let mut trips = trips;
            assert_eq!(Summary::of(3, &mut trips).to_text(), text);
        }
    }
}
