//! `micro network trace SERVICE`: one real call, marked as a probe, and where its time went.
//!
//! The node that takes the call tells its way with the answer (`Micro-Route`); each hop here is a
//! line of it. A hop that did not answer is the last one.

mod hops;
mod probe;

use clap::Args;
use serde_json::json;

use self::hops::Hop;
use self::probe::Probed;
use super::Global;
use super::asked::Asked;
use crate::api;
use crate::error::{Exit, Problem};
use crate::output::{self, Column, Listing, text};

const COLUMNS: &[Column] = &[
    Column::new("#"),
    Column::new("NODE"),
    Column::new("REGION"),
    Column::new("SINCE START"),
    Column::new("SPENT"),
    Column::new("WHAT"),
];

/// `micro network trace SERVICE`
#[derive(Debug, Args)]
#[command(after_help = "\
Sends one call through the network, marked with Micro-Probe: a health check of gRPC, or HEAD / of
HTTP. With --endpoint that is called instead, and really: with an empty message, or HEAD.

Examples:
  micro network trace shop                         where the time goes, hop by hop
  micro network trace shop --header x-dev=ada      as rules see the call
  micro network trace shop --endpoint /orders      HEAD /orders")]
pub struct TraceArgs {
    #[command(flatten)]
    asked: Asked,
}

/// Sends the probe and prints its way.
///
/// # Errors
/// M1203 when the service is not known, and what else keeps a call from arriving, after the hops
/// it did pass.
pub async fn run(args: TraceArgs, global: &Global) -> Result<Exit, Problem> {
    let client = global.client()?;
    let output = global.output();
    let request = args.asked.request(0)?;
    let status: api::Status = client.get("/v1/status").await?;
    let place = request.service.parse()?;
    let service = super::call::describe(&client, &place).await?;
    let head = probe::head(&request, &place, &service, global.timeout())?;
    let what = format!("{} {}", head.method(), head.uri().path());
    output.detail(&format!("{} {place} {what}", super::call::arrows().0));
    let probed = probe::send(&status.proxy.address, head, &place, global.timeout()).await?;
    let hops = hops::of(&request.service, &probed);
    if output.is_json() {
        let problem = probed.problem.as_ref().map(|problem| problem.to_json()["error"].clone());
        output.document(
            "Trace",
            json!({
                "service": request.service,
                "probe": what,
                "status": probed.status,
                "grpc_status": probed.grpc_status,
                "hops": hops,
                "route": probed.route,
                "error": problem,
            }),
        )?;
        return Ok(probed.problem.map_or(Exit::Done, |problem| problem.exit));
    }
    let rows = hops.iter().zip(1..).map(row).collect();
    let (items, empty) = (Vec::new(), String::new());
    let table = Listing { kind: "Trace", items, columns: COLUMNS, rows, empty };
    output::print(&table.to_text(false, output.headers))?;
    if let Some(sum) = sum(&probed) {
        output::print(&format!("\n{sum}\n"))?;
    }
    match probed.problem {
        Some(problem) => Err(problem),
        None => Ok(Exit::Done),
    }
}

fn row((hop, at): (&Hop, usize)) -> Vec<String> {
    let marks = text::marks();
    let what = if hop.ok { hop.what.clone() } else { format!("{} {}", marks.bad, hop.what) };
    vec![
        at.to_string(),
        hop.node.clone(),
        if hop.region.is_empty() { "-".to_owned() } else { hop.region.clone() },
        text::cost(Some(hop.since_us)),
        text::cost(hop.spent_us),
        what,
    ]
}

/// Where the time went, in a line.
fn sum(probed: &Probed) -> Option<String> {
    let last = probed.route.attempts.last().filter(|last| last.status.is_some())?;
    let time = |micros| text::cost(Some(micros));
    let total = probed.route.took_us;
    let Some(part) = last.at_node.filter(|_| !last.here) else {
        let (micro, service) = (total.saturating_sub(last.took_us), last.took_us);
        return last.here.then(|| {
            format!("{} in all: micro {}, service {}", time(total), time(micro), time(service))
        });
    };
    let network = last.took_us.saturating_sub(part.before_us + part.instance_us);
    let micro = total.saturating_sub(network + part.instance_us);
    Some(format!(
        "{} in all: network {}, micro {}, service {}",
        time(total),
        time(network),
        time(micro),
        time(part.instance_us)
    ))
}
