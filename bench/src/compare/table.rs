//! A report as tables: for a terminal, and for a README.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::verdict;
use super::{Found, Kind, Measure, Report, Workload};
use crate::cpu::CpuUse;

/// One contestant's medians for one workload.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    /// Calls per second, or GiB per second.
    pub(super) rate: f64,
    /// How far apart the rates of the rounds were, as a share of the median.
    pub(super) spread: f64,
    /// Microseconds at p50, p99 and p99.9; none for bulk.
    pub(super) latency: Option<[f64; 3]>,
    /// CPU seconds per unit of each process between load and service.
    pub(super) between: Vec<(String, f64)>,
    /// CPU seconds per unit of the service, and of the load tool; none when they are the road.
    pub(super) ends: Option<(f64, f64)>,
    pub(super) errors: u64,
}

impl Row {
    /// CPU seconds per unit of everything between load and service.
    pub(super) fn cost(&self) -> f64 {
        self.between.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// The workloads of a report, in the order they were done.
pub(super) fn workloads(report: &Report) -> Vec<Workload> {
    let mut seen = Vec::new();
    for measure in &report.measures {
        if !seen.contains(&measure.workload) {
            seen.push(measure.workload);
        }
    }
    seen
}

/// Medians over rounds, a row for each contestant that did this workload.
pub(super) fn rows(report: &Report, workload: Workload) -> Vec<Row> {
    let mut by_kind: BTreeMap<Kind, Vec<&Measure>> = BTreeMap::new();
    for measure in report.measures.iter().filter(|measure| measure.workload == workload) {
        by_kind.entry(measure.contestant).or_default().push(measure);
    }
    by_kind.into_iter().map(|(kind, rounds)| row(kind, &rounds)).collect()
}

fn row(kind: Kind, rounds: &[&Measure]) -> Row {
    let (mut rates, mut latencies, mut errors) = (Vec::new(), [const { Vec::new() }; 3], 0);
    let mut cpu: Vec<(String, Vec<f64>)> = Vec::new();
    for measure in rounds {
        let uses: &[CpuUse] = match &measure.found {
            Found::Calls(calls) => {
                rates.push(calls.rate);
                let at = calls.latency_us;
                for (kept, new) in latencies.iter_mut().zip([at.p50, at.p99, at.p99_9]) {
                    kept.push(new);
                }
                errors += calls.errors.values().sum::<u64>();
                &calls.cpu
            }
            Found::Bulk(bulk) => {
                rates.push(bulk.gib_per_second);
                errors += bulk.errors.values().sum::<u64>();
                &bulk.cpu
            }
        };
        for one in uses {
            match cpu.iter_mut().find(|(name, _)| *name == one.name) {
                Some((_, kept)) => kept.push(one.per_unit),
                None => cpu.push((one.name.clone(), vec![one.per_unit])),
            }
        }
    }
    let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
    let high = rates.iter().copied().fold(0.0, f64::max);
    let rate = median(rates);
    let latency = (!latencies[0].is_empty()).then(|| latencies.map(median));
    let mut between: Vec<(String, f64)> =
        cpu.into_iter().map(|(name, kept)| (name, median(kept))).collect();
    let mut end = |name: &str| {
        let at = between.iter().position(|(known, _)| known == name)?;
        Some(between.remove(at).1)
    };
    // The two ends of raw quinn are the road itself.
    let ends = match kind {
        Kind::Quinn => None,
        Kind::Direct | Kind::Micro | Kind::Haproxy | Kind::Nginx => end("service").zip(end("load")),
    };
    let spread = if rate > 0.0 { (high - low) / rate } else { 0.0 };
    Row { kind, rate, spread, latency, between, ends, errors }
}

/// The middle one, or the mean of the middle two; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.get(half) {
        None => 0.0,
        Some(upper) if values.len() % 2 == 1 => *upper,
        Some(upper) => f64::midpoint(values[half - 1], *upper),
    }
}

/// Tables of aligned columns.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    for workload in workloads(report) {
        let rows = cells(report, workload);
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        let _ = writeln!(text, "{workload}");
        for row in rows {
            let mut line = String::new();
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, "  {cell:width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text.push('\n');
    }
    for line in verdict::lines(report) {
        let _ = writeln!(text, "{:9} {}: {}", line.mark(), line.bar, line.found);
    }
    let _ = writeln!(text, "\n{}", footer(report));
    text
}

/// The same in markdown.
pub(super) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    for workload in workloads(report) {
        let _ = writeln!(text, "**{workload}**\n");
        for (number, row) in cells(report, workload).iter().enumerate() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len() - 1));
            }
        }
        text.push('\n');
    }
    let verdicts = verdict::lines(report);
    if !verdicts.is_empty() {
        text.push_str("| Bar | Found | |\n|---|---|---|\n");
        for line in verdicts {
            let _ = writeln!(text, "| {} | {} | {} |", line.bar, line.found, line.mark());
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{}", footer(report));
    text
}

/// Header and rows; the last columns set our nodes beside each other contestant.
fn cells(report: &Report, workload: Workload) -> Vec<Vec<String>> {
    let calls = !workload.is_bulk();
    let mut header = vec!["road"];
    if calls {
        let (rate, cost) = if matches!(workload, Workload::Connections(_)) {
            ("connections/s", "CPU s/1000")
        } else {
            ("calls/s", "CPU s/1000 calls")
        };
        header.extend([rate, "±%", "p50 µs", "p99 µs", "p99.9 µs", cost]);
    } else {
        header.extend(["GiB/s", "±%", "CPU s/GiB"]);
    }
    header.extend(["of each process", "service", "load", "errors"]);
    let header = header.into_iter().map(str::to_owned).collect();
    let digits = if calls { 4 } else { 2 };
    let cost = |seconds: f64| format!("{seconds:.digits$}");
    let mut all: Vec<Vec<String>> = vec![header];
    for row in rows(report, workload) {
        let rate = if calls { format!("{:.0}", row.rate) } else { format!("{:.2}", row.rate) };
        let mut line = vec![row.kind.to_string(), rate, format!("{:.0}", row.spread * 50.0)];
        line.extend(row.latency.iter().flatten().map(|at| format!("{at:.0}")));
        let between = match row.between.is_empty() {
            true => "–".to_owned(),
            false => cost(row.cost()),
        };
        let each: Vec<String> = row.between.iter().map(|(_, one)| cost(*one)).collect();
        let each = if each.is_empty() { "–".to_owned() } else { each.join(" + ") };
        line.extend([between, each]);
        let (service, load) = row.ends.map_or_else(
            || ("–".to_owned(), "–".to_owned()),
            |(service, load)| (cost(service), cost(load)),
        );
        line.extend([service, load, row.errors.to_string()]);
        all.push(line);
    }
    all
}

fn footer(report: &Report) -> String {
    let mut text = format!(
        "{} rounds, interleaved, medians; calls measured {} s each; loopback; one thread or worker \
         for each proxy of a pair, the load tool and the service.\n{}",
        report.rounds,
        report.seconds,
        report.machine.line()
    );
    for (kind, why) in &report.skipped {
        let _ = write!(text, "\nSKIPPED {kind}: {why}");
    }
    for line in &report.failed {
        let _ = write!(text, "\n{line}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compare::Machine;
    use crate::latency::Percentiles;
    use crate::outcome::CallsOutcome;

    /// A report of one workload of calls: kind, rate, p50 and the CPU of each process between.
    pub(crate) fn report(workload: Workload, found: &[(Kind, f64, f64, &[f64])]) -> Report {
        let measures = found.iter().enumerate().map(|(round, &(contestant, rate, p50, cpu))| {
            let one = |name: String, per_unit: f64| CpuUse { name, seconds: per_unit, per_unit };
            let mut uses: Vec<CpuUse> =
                cpu.iter().enumerate().map(|(at, &spent)| one(format!("p{at}"), spent)).collect();
            uses.extend([one("service".into(), 0.01), one("load".into(), 0.02)]);
            let found = match workload {
                Workload::Bulk(bytes) | Workload::Streams(_, bytes) => {
                    Found::Bulk(crate::outcome::BulkOutcome {
                        bytes,
                        gib_per_second: rate,
                        cpu: uses,
                        ..Default::default()
                    })
                }
                Workload::InFlight(_) | Workload::Rate(_) | Workload::Connections(_) => {
                    Found::Calls(CallsOutcome {
                        rate,
                        latency_us: Percentiles { p50, ..Percentiles::default() },
                        cpu: uses,
                        ..CallsOutcome::default()
                    })
                }
            };
            Measure { contestant, workload, round, found }
        });
        Report {
            machine: Machine::default(),
            rounds: 1,
            seconds: 1.0,
            skipped: vec![(Kind::Nginx, "not installed".to_owned())],
            failed: Vec::new(),
            nodes: Vec::new(),
            demo_ms: None,
            measures: measures.collect(),
        }
    }

    #[test]
    fn a_row_holds_medians_and_the_sum_between() {
        let rounds = [
            (Kind::Micro, 100.0, 50.0, &[0.01, 0.02][..]),
            (Kind::Micro, 300.0, 70.0, &[0.03, 0.04][..]),
            (Kind::Micro, 200.0, 60.0, &[0.02, 0.03][..]),
        ];
        let report = report(Workload::InFlight(32), &rounds);
        let rows = rows(&report, Workload::InFlight(32));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].rate, rows[0].spread), (200.0, 1.0));
        assert_eq!(rows[0].latency.map(|at| at[0]), Some(60.0));
        assert!((rows[0].cost() - 0.05).abs() < 1e-9);
        assert_eq!(rows[0].ends, Some((0.01, 0.02)));
    }

    #[test]
    fn tables_show_everybody_and_who_is_missing() {
        let found = [(Kind::Direct, 9.0, 5.0, &[][..]), (Kind::Haproxy, 3.0, 8.0, &[0.5, 0.5][..])];
        let report = report(Workload::InFlight(1), &found);
        for shown in [report.text(), report.markdown()] {
            assert!(shown.contains("direct") && shown.contains("haproxy pair"), "{shown}");
            assert!(shown.contains("0.5000 + 0.5000"), "{shown}");
            assert!(shown.contains("SKIPPED nginx pair: not installed"), "{shown}");
        }
        let json = serde_json::to_string(&report).unwrap();
        let again: Report = serde_json::from_str(&json).unwrap();
        assert_eq!(again.text(), report.text());
    }

    #[test]
    fn medians_of_few() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(vec![9.0, 1.0, 5.0]), 5.0);
    }
}
