//! `micro network demo`: several nodes in one process, and a call between them.

use std::time::Duration;

use clap::Args;

use super::Global;
use crate::config::duration;
use crate::demo;
use crate::error::{Exit, Problem};

/// `micro network demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Print the call and exit.
    #[arg(long)]
    pub once: bool,
    /// How many nodes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=16))]
    pub nodes: Option<u8>,
    /// Their regions.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub regions: Vec<String>,
    /// Added delay between every two of them, both ways together; 0 turns it off.
    #[arg(long, value_parser = delay, value_name = "TIME")]
    pub delay: Option<Duration>,
    /// Share of packets dropped, in percent.
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    pub loss: f64,
}

/// Shows it working.
///
/// # Errors
/// Why it does not.
pub fn run(args: DemoArgs, global: &Global) -> Result<Exit, Problem> {
    if !(0.0..=50.0).contains(&args.loss) {
        return Err(Problem::new("M4001", Exit::Usage, "--loss is a percentage from 0 to 50")
            .attempt("micro network demo --loss 1", ""));
    }
    demo::run(args, global.output())
}

/// As [`duration::parse`], and 0 without a unit.
fn delay(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration::parse(text) }
}
