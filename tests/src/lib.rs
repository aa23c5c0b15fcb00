//! What the end-to-end, interop and fault tests stand on: hosts made of network namespaces, nodes that run on them,
//! and the programs of other people that talk through them.
//!
//! Everything here runs the real binary and real programs. A test whose tool is absent calls [`skip`] and returns;
//! `tests/interop/setup.sh` installs all of them.

pub mod certificates;
pub mod events;
pub mod hostile;
pub mod lab;
pub mod nats;
pub mod node;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod scenario;

use std::io::Write as _;

/// Says in one line that a test did not run, and why. Written past the test harness's capture, so that it is seen.
pub fn skip(why: &str) {
    say(&format!("SKIP: {why}"));
}

/// Writes one line to standard error past the test harness's capture: skips and measured distributions.
pub fn say(line: &str) {
    let mut all = line.to_owned();
    all.push('\n');
    // Nobody can be told that standard error is closed.
    let _ = std::io::stderr().lock().write_all(all.as_bytes());
}
