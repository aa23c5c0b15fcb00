//! What the demo prints.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::cast::{Called, Cast, Plan};
use crate::error::Problem;
use crate::output::{Output, print, text};

/// Who plays, and how far apart they are.
pub(super) fn opening(plan: &Plan, output: Output) -> Result<(), Problem> {
    if output.is_json() {
        return Ok(());
    }
    let names = plan.regions.iter().zip(&plan.cities).map(|(region, city)| match city {
        Some(city) => format!("{region} ({city})"),
        None => region.clone(),
    });
    let names: Vec<_> = names.collect();
    let mut out = format!("{} nodes in this process: {}\n", names.len(), names.join(", "));
    if plan.distance.is_zero() {
        out.push_str("real QUIC on loopback\n");
    } else {
        out.push_str("real QUIC on loopback with added delay");
        /// Pairs that fit on the line.
        const PAIRS: usize = 3;
        let count = plan.regions.len();
        let pairs = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b)));
        for (a, b) in pairs.take(PAIRS) {
            let (from, to) = (&plan.regions[a], &plan.regions[b]);
            let _ = write!(out, "  {from}–{to} {}ms", plan.distance.between(a, b).as_millis());
        }
        out.push_str("   (--delay 0 turns it off)\n");
    }
    out.push('\n');
    print(&out)
}

/// One thing done.
pub(super) fn step(output: Output, what: &str, how: &str, began: Instant) -> Result<(), Problem> {
    if output.is_json() {
        return Ok(());
    }
    let took = ms(began.elapsed());
    print(&format!("{} {what:<17} {how:<18} {took}\n", text::marks().good))
}

/// The call, and where its time went.
pub(super) fn call(plan: &Plan, called: &Called, output: Output) -> Result<(), Problem> {
    let (from, to) = (&plan.regions[0], &plan.regions[Plan::GREETER]);
    let micro = called.total.saturating_sub(called.network).saturating_sub(called.service);
    if output.is_json() {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        return output.document(
            "Demo",
            serde_json::json!({
                "nodes": plan.regions,
                "call": {
                    "from": from,
                    "to": to,
                    "service": "greeter",
                    "endpoint": "Greeter.Hello",
                    "message": called.message,
                    "total_ns": nanos(called.total),
                    "network_ns": nanos(called.network),
                    "micro_ns": nanos(micro),
                    "service_ns": nanos(called.service),
                },
            }),
        );
    }
    let what = format!("call {from} → {to}");
    let split = format!(
        "{} = network {} + micro {} + service {}",
        ms(called.total),
        bare(called.network),
        bare(micro),
        bare(called.service)
    );
    let message = serde_json::json!({ "message": called.message });
    print(&format!(
        "{} {what:<17} {:<18} {split}\n\n  $ {HELLO}\n  {message}\n",
        text::marks().good,
        "greeter"
    ))
}

const HELLO: &str = "micro call greeter Greeter.Hello '{\"name\":\"Ada\"}'";

/// What to try now.
pub(super) fn invitation(cast: &Cast, output: Output) -> Result<(), Problem> {
    if output.is_json() {
        return Ok(());
    }
    let proxy = cast.first().proxy_at[0];
    print(&format!(
        "\nStill running. In another terminal try:\n\
         \x20 micro services                       what can I call?\n\
         \x20 {HELLO}\n\
         \x20 micro network graph                  who is connected?\n\
         \x20 micro stream clock Clock.Watch       a stream from {}\n\
         Programs call by name at {proxy}\n\
         Ctrl-C stops and leaves nothing behind.\n",
        cast.last_region()
    ))
}

/// `87.3ms`
fn ms(time: Duration) -> String {
    format!("{}ms", bare(time))
}

/// Milliseconds with one decimal.
fn bare(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}
