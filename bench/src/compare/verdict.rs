//! The bars this project sets itself against the others of the same run, and where it stands.

use super::table::{Row, rows, workloads};
use super::{Kind, Report, Workload};

/// CPU of our nodes by that of a haproxy pair, at most.
const HAPROXY_CPU: f64 = 1.6;
/// CPU of our nodes by that of an nginx pair, below.
const NGINX_CPU: f64 = 1.0;
/// Our rate of bulk by that of raw quinn, at least.
const QUINN_BULK: f64 = 0.6;
/// Memory of an idle node, below, in bytes.
const IDLE_BYTES: u64 = 25_000_000;
/// From start to ready, below, in milliseconds.
const READY_MS: f64 = 200.0;
/// `micro network demo --once`, below, in milliseconds.
const DEMO_MS: f64 = 2000.0;

/// One bar and what was found.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) bar: String,
    pub(super) found: String,
    pub(super) met: bool,
}

impl Line {
    /// In one or two words.
    pub(super) fn mark(&self) -> &'static str {
        if self.met { "met" } else { "NOT MET" }
    }
}

/// Every bar this report has the contestants for.
pub(super) fn lines(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    for workload in workloads(report) {
        let rows = rows(report, workload);
        let of = |kind: Kind| rows.iter().find(|row| row.kind == kind);
        let Some(ours) = of(Kind::Micro) else { continue };
        match workload {
            Workload::InFlight(_) => {
                lines.extend(of(Kind::Nginx).map(|row| cost(workload, ours, row, NGINX_CPU)));
                lines.extend(of(Kind::Haproxy).map(|row| cost(workload, ours, row, HAPROXY_CPU)));
            }
            Workload::Rate(_) => {
                let others = of(Kind::Direct).zip(of(Kind::Haproxy));
                lines.extend(others.and_then(|(direct, row)| added(workload, ours, direct, row)));
            }
            Workload::Connections(_) => {
                lines.extend(of(Kind::Haproxy).map(|row| connections(workload, ours, row)));
            }
            Workload::Bulk(_) => lines.extend(of(Kind::Quinn).map(|row| bulk(ours, row))),
            // No bar of its own: the table says what it is beside the others.
            Workload::Streams(..) => {}
        }
    }
    for node in &report.nodes {
        lines.push(Line {
            bar: format!("{} idle below {} MB", node.name, IDLE_BYTES / 1_000_000),
            found: format!("{:.1} MB", node.idle_bytes as f64 / 1e6),
            met: node.idle_bytes < IDLE_BYTES,
        });
        lines.push(Line {
            bar: format!("{} ready below {READY_MS} ms, key and network made", node.name),
            found: format!("{:.0} ms", node.ready_ms),
            met: node.ready_ms < READY_MS,
        });
    }
    lines.extend(report.demo_ms.map(|took| Line {
        bar: format!("demo --once below {DEMO_MS} ms"),
        found: format!("{took:.0} ms"),
        met: took < DEMO_MS,
    }));
    lines
}

fn cost(workload: Workload, ours: &Row, theirs: &Row, bar: f64) -> Line {
    let ratio = ours.cost() / theirs.cost();
    Line {
        bar: format!("{workload}: CPU per call at most {bar} × {}", theirs.kind),
        found: format!("{ratio:.2} × ({:.4} to {:.4} s/1000)", ours.cost(), theirs.cost()),
        met: ratio <= bar,
    }
}

fn connections(workload: Workload, ours: &Row, theirs: &Row) -> Line {
    let ratio = ours.rate / theirs.rate;
    Line {
        bar: format!("{workload}: rate at least that of {}", theirs.kind),
        found: format!("{ratio:.2} × ({:.0} to {:.0}/s)", ours.rate, theirs.rate),
        met: ratio >= 1.0,
    }
}

fn added(workload: Workload, ours: &Row, direct: &Row, theirs: &Row) -> Option<Line> {
    let p50 = |row: &Row| row.latency.map(|at| at[0]);
    let (direct, ours, theirs_p50) = (p50(direct)?, p50(ours)?, p50(theirs)?);
    let (ours, other) = (ours - direct, theirs_p50 - direct);
    Some(Line {
        bar: format!("{workload}: added p50 no more than {}", theirs.kind),
        found: format!("{ours:.0} µs to {other:.0} µs"),
        met: ours <= other,
    })
}

fn bulk(ours: &Row, quinn: &Row) -> Line {
    let ratio = ours.rate / quinn.rate;
    Line {
        bar: format!("bulk at least {QUINN_BULK} of {}", quinn.kind),
        found: format!("{ratio:.2} ({:.2} to {:.2} GiB/s)", ours.rate, quinn.rate),
        met: ratio >= QUINN_BULK,
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::report;
    use super::*;

    #[test]
    fn cpu_is_held_against_both_pairs() {
        let found = [
            (Kind::Micro, 1.0, 1.0, &[0.02, 0.02][..]),
            (Kind::Haproxy, 1.0, 1.0, &[0.01, 0.01][..]),
            (Kind::Nginx, 1.0, 1.0, &[0.04, 0.04][..]),
        ];
        let lines = lines(&report(Workload::InFlight(32), &found));
        let met: Vec<bool> = lines.iter().map(|line| line.met).collect();
        assert_eq!(met, [true, false], "{lines:?}");
        assert!(lines[1].found.starts_with("2.00 ×"), "{lines:?}");
    }

    #[test]
    fn added_latency_is_above_direct() {
        let found = [
            (Kind::Direct, 1.0, 50.0, &[][..]),
            (Kind::Micro, 1.0, 150.0, &[0.02, 0.02][..]),
            (Kind::Haproxy, 1.0, 160.0, &[0.01, 0.01][..]),
        ];
        let lines = lines(&report(Workload::Rate(1000), &found));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].met && lines[0].found == "100 µs to 110 µs", "{lines:?}");
    }

    #[test]
    fn connections_are_held_against_haproxy_by_their_rate() {
        let found = [(Kind::Micro, 3000.0, 1.0, &[][..]), (Kind::Haproxy, 2000.0, 1.0, &[][..])];
        let lines = lines(&report(Workload::Connections(32), &found));
        assert!(lines[0].met && lines[0].found.starts_with("1.50 ×"), "{lines:?}");
    }

    #[test]
    fn bulk_is_held_against_raw_quinn_and_without_our_nodes_nothing_is() {
        let found = [(Kind::Micro, 0.5, 0.0, &[][..]), (Kind::Quinn, 1.0, 0.0, &[][..])];
        assert!(!lines(&report(Workload::Bulk(1), &found))[0].met);
        assert!(lines(&report(Workload::Bulk(1), &found[1..])).is_empty());
    }
}
