//! What the load program saw of each call, and what a fault did to the whole.

use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

/// The caller gave up: no answer by its deadline and one second more.
pub const HUNG: i32 = -1;
/// The connection to the proxy itself failed, or the answer was not gRPC.
pub const BROKEN: i32 = -2;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A unary call has ended.
    Unary,
    /// A message came on a stream.
    Message,
    /// A stream has ended; it was not asked to.
    StreamEnd,
}

/// One line of the load program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// Microseconds since 1970, when it happened.
    pub at_us: u64,
    /// The number of the call, or of the stream.
    pub id: u64,
    /// Microseconds from the time the call was due. Of a message: since the one before it.
    pub took_us: u64,
    /// gRPC status, or [`HUNG`], or [`BROKEN`].
    pub status: i32,
    /// The error number and what was said, when the network made the error and not the service.
    pub micro_error: Option<String>,
    /// The instance that answered.
    pub instance: Option<String>,
    /// The caller said that the call may be repeated.
    pub idempotent: bool,
}

impl Event {
    /// When the call was due, in microseconds since 1970.
    pub fn due_us(&self) -> u64 {
        self.at_us.saturating_sub(self.took_us)
    }
}

/// The time now, in microseconds since 1970: the clock that tests and programs on this machine share.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(since.as_micros())
        .expect("microseconds since 1970 fit into 64 bits for half a million years")
}

/// Reads the load program's lines; what is not an event is left out.
pub fn parse(lines: &[String]) -> Vec<Event> {
    lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What a fault at `fault_us` did to the unary calls.
#[derive(Clone, Debug)]
pub struct Damage {
    /// Calls that were due after the fault.
    pub calls: usize,
    /// Those of them, or of the ones in flight, that failed.
    pub failed: usize,
    /// Failures of calls that could have been repeated.
    pub failed_idempotent: usize,
    /// Calls that outlived their deadline by a second: never allowed.
    pub hung: usize,
    /// Milliseconds from the fault to the time the last failing call had been due; 0 without a failure.
    pub window_ms: f64,
    /// The longest wait of a failed call, in milliseconds.
    pub slowest_failure_ms: f64,
    /// The longest wait of an answered call, in milliseconds.
    pub slowest_answer_ms: f64,
    /// Error numbers and statuses seen, for the report.
    pub reasons: Vec<String>,
}

impl Damage {
    /// Reads the damage out of the events.
    pub fn of(events: &[Event], fault_us: u64) -> Self {
        let after: Vec<&Event> =
            events.iter().filter(|e| e.kind == Kind::Unary && e.at_us >= fault_us).collect();
        let failed: Vec<&&Event> = after.iter().filter(|e| e.status != 0).collect();
        let longest = |of: &mut dyn Iterator<Item = u64>| of.max().unwrap_or(0) as f64 / 1000.0;
        let mut reasons: Vec<String> = failed
            .iter()
            .map(|e| {
                let told = e.micro_error.as_deref().unwrap_or("-");
                format!("{}/{}", e.status, told.split(' ').next().unwrap_or(told))
            })
            .collect();
        reasons.sort();
        reasons.dedup();
        Self {
            calls: after.len(),
            failed: failed.len(),
            failed_idempotent: failed.iter().filter(|e| e.idempotent).count(),
            hung: failed.iter().filter(|e| e.status == HUNG).count(),
            window_ms: longest(&mut failed.iter().map(|e| e.due_us().saturating_sub(fault_us))),
            slowest_failure_ms: longest(&mut failed.iter().map(|e| e.took_us)),
            slowest_answer_ms: longest(
                &mut after.iter().filter(|e| e.status == 0).map(|e| e.took_us),
            ),
            reasons,
        }
    }
}

/// Milliseconds from `from_us` to the first answered call that was due after it, or `None` when there was none.
pub fn first_answer_ms(events: &[Event], from_us: u64) -> Option<f64> {
    let answered =
        events.iter().filter(|e| e.kind == Kind::Unary && e.status == 0 && e.at_us >= from_us);
    answered.map(|e| e.at_us - from_us).min().map(|us| us as f64 / 1000.0)
}

/// Prints one failed call for each reason after a fault: what people would have read.
pub fn tell_reasons(name: &str, events: &[Event], fault_us: u64) {
    let mut told = std::collections::BTreeSet::new();
    for lost in events.iter().filter(|e| e.at_us >= fault_us && e.status != 0) {
        let reason = lost.micro_error.clone().unwrap_or_default();
        if told.insert((lost.kind == Kind::Unary, lost.idempotent, reason.clone())) {
            let due = lost.due_us() as i64 - fault_us as i64;
            let (id, took, kind) = (lost.id, lost.took_us / 1000, lost.kind);
            crate::say(&format!(
                "{name} {kind:?} {id} due at {} ms took {took} ms: {reason}",
                due / 1000
            ));
        }
    }
}

/// Prints the sorted measurements of some trials on one line and gives back the largest but `outliers`.
pub fn distribution(name: &str, unit: &str, measured: &[f64]) -> Spread {
    let mut sorted = measured.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1);
        sorted.get(((last as f64) * share).round() as usize).copied().unwrap_or(f64::NAN)
    };
    let spread = Spread { p50: at(0.5), p95: at(0.95), max: at(1.0) };
    let all = sorted.iter().map(|v| format!("{v:.0}")).collect::<Vec<_>>().join(" ");
    crate::say(&format!(
        "{name}: p50 {:.0} p95 {:.0} max {:.0} {unit}   trials: {all}",
        spread.p50, spread.p95, spread.max
    ));
    spread
}

/// Percentiles over trials. With five trials the 95th is the largest.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 95th percentile, nearest rank.
    pub p95: f64,
    /// Largest.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unary(at_us: u64, took_us: u64, status: i32) -> Event {
        Event {
            kind: Kind::Unary,
            at_us,
            id: 0,
            took_us,
            status,
            micro_error: None,
            instance: None,
            idempotent: true,
        }
    }

    #[test]
    fn damage_counts_from_the_fault_and_by_due_time() {
        let events = [
            unary(900, 10, 14),
            unary(5_000, 3_000, 14),
            unary(9_000, 1_000, 0),
            unary(8_000, 2_000, HUNG),
        ];
        let damage = Damage::of(&events, 1_000);
        assert_eq!((damage.calls, damage.failed, damage.hung), (3, 2, 1));
        assert!((damage.window_ms - 5.0).abs() < f64::EPSILON);
        assert!((damage.slowest_failure_ms - 3.0).abs() < f64::EPSILON);
        assert_eq!(first_answer_ms(&events, 1_000), Some(8.0));
    }

    #[test]
    fn a_spread_of_five_has_its_largest_as_p95() {
        let spread = distribution("test", "ms", &[5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!((spread.p50, spread.p95, spread.max), (3.0, 5.0, 5.0));
    }
}
