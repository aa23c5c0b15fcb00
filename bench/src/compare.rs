//! The same work through different roads, in turn, on one machine: what each costs.
//!
//! Every road leads from the `load` tool to one echo service. Rounds are interleaved, each
//! starting with another contestant, so that a machine that slows down slows everybody; tables
//! show medians over rounds, and how far the rounds were apart.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Error;

mod child;
mod contestant;
mod haproxy;
mod machine;
mod nginx;
mod nodes;
mod table;
mod verdict;
mod workload;

use contestant::{Backend, Contestant};

pub use contestant::Kind;
pub use machine::Machine;
pub use nodes::Node;
pub use workload::{Found, Workload};

/// What to compare, and how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The `load` binary.
    pub load: PathBuf,
    /// The `micro` binary.
    pub micro: PathBuf,
    /// Who takes part.
    pub only: Vec<Kind>,
    /// What they do.
    pub workloads: Vec<Workload>,
    /// How often.
    pub rounds: usize,
    /// How long calls are measured, each time.
    pub length: Duration,
    /// How long calls warm up, each time.
    pub warm_up: Duration,
    /// Largest UDP payload of raw QUIC.
    pub mtu: u16,
    /// A directory of its own is made under this one.
    pub out: PathBuf,
}

/// One contestant doing one workload once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// Who.
    pub contestant: Kind,
    /// What.
    pub workload: Workload,
    /// Which round, from 0.
    pub round: usize,
    /// The outcome.
    pub found: Found,
}

/// Everything a run found; `result.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// Rounds made.
    pub rounds: usize,
    /// Seconds measured of each load of calls.
    pub seconds: f64,
    /// Contestants that could not take part, and why.
    pub skipped: Vec<(Kind, String)>,
    /// Measurements that could not be made, and why.
    pub failed: Vec<String>,
    /// What the nodes were like before any call.
    pub nodes: Vec<Node>,
    /// Milliseconds of `micro network demo --once`, from start to end, when it worked.
    pub demo_ms: Option<f64>,
    /// Every measurement, in the order they were made.
    pub measures: Vec<Measure>,
}

/// Runs the plan. Progress and skipped contestants go to `say`, a line at a time.
pub fn run(plan: &Plan, mut say: impl FnMut(&str)) -> Result<(Report, PathBuf), Error> {
    if !plan.load.is_file() {
        let path = plan.load.display();
        return Err(Error::Wrong(format!("{path} is not built: cargo build --release -p bench")));
    }
    let out = plan.out.join(jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S").to_string());
    fs::create_dir_all(&out).map_err(Error::io(out.display().to_string()))?;
    let scratch = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
    let backend = Backend::start(&plan.load, scratch.path())?;

    let mut demo_ms = None;
    if plan.only.contains(&Kind::Micro) && plan.micro.is_file() {
        // Before anything else runs: it is about a start, and uses the default ports.
        match nodes::demo(&plan.micro, scratch.path()) {
            Ok(milliseconds) => demo_ms = Some(milliseconds),
            Err(error) => say(&format!("demo --once: {error}")),
        }
    }
    let mut skipped = Vec::new();
    let mut field = Vec::new();
    for &kind in &plan.only {
        match Contestant::start(kind, plan, &backend, scratch.path()) {
            Ok(contestant) => field.push(contestant),
            Err(error) => {
                say(&format!("SKIPPED {kind}: {error}"));
                skipped.push((kind, error.to_string()));
            }
        }
    }
    let mut report = Report {
        machine: Machine::here(),
        rounds: plan.rounds,
        seconds: plan.length.as_secs_f64(),
        skipped,
        failed: Vec::new(),
        nodes: field.iter().flat_map(|one| one.nodes.clone()).collect(),
        demo_ms,
        measures: Vec::new(),
    };
    for round in 0..plan.rounds {
        for &workload in &plan.workloads {
            for turn in 0..field.len() {
                let one = &field[(round + turn) % field.len()];
                let what = format!("{}/{} {workload}: {}", round + 1, plan.rounds, one.kind);
                match workload.run(one, plan, &backend, &out, round) {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        say(&format!("{what}: {found}"));
                        report.measures.push(Measure {
                            contestant: one.kind,
                            workload,
                            round,
                            found,
                        });
                    }
                    Err(error) => {
                        let line = format!("{what}: FAILED {error}");
                        say(&line);
                        report.failed.push(line);
                    }
                }
            }
        }
    }
    report.write(&out)?;
    Ok((report, out))
}

impl Report {
    /// Plain text for a terminal.
    pub fn text(&self) -> String {
        table::text(self)
    }

    /// Markdown for a README.
    pub fn markdown(&self) -> String {
        table::markdown(self)
    }

    /// Reads a stored `result.json`.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read(path).map_err(Error::io(path.display().to_string()))?;
        serde_json::from_slice(&text).map_err(Error::at(path.display().to_string()))
    }

    fn write(&self, out: &Path) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(self).map_err(Error::at("JSON"))?;
        let files = [
            ("result.json", json),
            ("table.txt", self.text().into_bytes()),
            ("table.md", self.markdown().into_bytes()),
        ];
        for (name, bytes) in files {
            let path = out.join(name);
            fs::write(&path, bytes).map_err(Error::io(path.display().to_string()))?;
        }
        Ok(())
    }
}
